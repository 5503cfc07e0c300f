"""The commands of ``midpg``, one file each."""

from __future__ import annotations

from typing import Annotated

import typer

from midpg_np import __version__
from midpg_np.commands.data import app as data_app
from midpg_np.commands.gradcheck import gradcheck
from midpg_np.commands.predict import predict
from midpg_np.commands.reproduce import app as reproduce_app
from midpg_np.commands.train import train
from midpg_np.commands.verify import app as verify_app

app = typer.Typer(
    name="midpg",
    help="MI-DPG and its relatives for multi-scenario conversion prediction, gradients by hand.",
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
)
app.command()(train)
app.command()(predict)
app.command()(gradcheck)
app.add_typer(verify_app, name="verify")
app.add_typer(reproduce_app, name="reproduce")
app.add_typer(data_app, name="data")


def _print_version(value: bool) -> None:
    if value:
        print(__version__)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
) -> None:
    """Take the options that stand before the command."""
