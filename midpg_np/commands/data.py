"""``midpg data``: what a data set holds, and generating one into a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from midpg_np.commands import tables
from midpg_np.commands.console import stderr, stdout
from midpg_np.commands.settings import parse_settings
from midpg_np.commands.sources import load_splits
from midpg_np.data import describe as describe_data
from midpg_np.data.generated import GENERATORS, write_parquet

app = typer.Typer(
    help="Show what a data set holds, or generate one into a file.", no_args_is_help=True
)

DataArgument = Annotated[
    str, typer.Argument(help="A built-in data set, or a CSV or Parquet file with --schema.")
]
PathOption = Annotated[Path | None, typer.Option(help="Folder or file of a built-in data set.")]
SchemaOption = Annotated[Path | None, typer.Option(help="TOML file with the roles of columns.")]
DataSettings = Annotated[
    list[str] | None,
    typer.Option("--data-option", metavar="NAME=VALUE", help="Option of the data set's loader."),
]


@app.command()
def describe(
    data: DataArgument = "synthetic",
    path: PathOption = None,
    schema: SchemaOption = None,
    seed: Annotated[int, typer.Option(help="Seed of generated rows and random divisions.")] = 0,
    data_option: DataSettings = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print rows and positives per scenario and part, and the fields.

    Example: midpg data describe kuairand --path data/kuairand-pure
    """
    splits = load_splits(data, path, schema, seed, parse_settings(data_option or ()))
    description = describe_data(splits)
    if as_json:
        print(json.dumps(description, indent=2))
        return
    console = stdout()
    console.print(tables.describe_table(description))
    console.print(tables.fields_table(description["fields"]))
    for note in description["notes"]:
        stderr().print(note)


@app.command()
def head(
    data: DataArgument = "synthetic",
    path: PathOption = None,
    schema: SchemaOption = None,
    rows: Annotated[int, typer.Option("-n", "--rows", min=1, help="Number of rows.")] = 10,
    data_option: DataSettings = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print the first training rows as the models read them: integer codes, aware fields first.

    One line per field, one column per row.

    Example: midpg data head online-shoppers --path data/online-shoppers -n 5
    """
    train = load_splits(data, path, schema, 0, parse_settings(data_option or ())).train
    n_rows = min(rows, len(train))
    assert train.label is not None  # training rows always have labels
    records = {
        "scenario": [train.scenario_names[d] for d in train.scenario[:n_rows]],
        "label": train.label[:n_rows].astype(int).tolist(),
        "codes": {
            name: train.codes[:n_rows, f].tolist() for f, name in enumerate(train.field_names)
        },
    }
    if as_json:
        print(json.dumps(records, indent=2))
        return
    stdout().print(tables.head_table(records))


@app.command()
def generate(
    name: Annotated[str, typer.Argument(help=f"What to generate: {', '.join(GENERATORS)}.")],
    file: Annotated[Path, typer.Argument(help="Parquet file to write.")],
    fraction: Annotated[
        float | None,
        typer.Option(help="Share of the full size, up to 1; the default is the data's."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
) -> None:
    """Write generated rows to a Parquet file, a part at a time.

    Example: midpg data generate industrial rows.parquet --fraction 0.05
    """
    options = {} if fraction is None else {"fraction": fraction}
    console = stderr()
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(name)

        def report(n_made: int, n_rows: int) -> None:
            bar.update(task, completed=n_made, total=n_rows)

        n_rows = write_parquet(name, file, seed=seed, progress=report, **options)
    console.print(f"{n_rows} rows written to {file}", markup=False)
