"""``midpg predict``: probabilities for raw rows."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from midpg_np.commands.probabilities import check_name, write_csv, write_file
from midpg_np.training.checkpoint import load_model
from midpg_np.training.streaming import stream_probabilities

MODEL_FILE = "model.safetensors"


def predict(
    model: Annotated[Path, typer.Argument(help="A model.safetensors, or the run folder with it.")],
    file: Annotated[Path, typer.Argument(help="CSV (plain or .gz) or Parquet with raw rows.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Write here in place of the standard output: CSV, .csv.gz or .parquet."),
    ] = None,
    unknown_scenario: Annotated[
        str,
        typer.Option(
            help="'error', or 'shared': predict rows of scenarios never seen in training."
        ),
    ] = "error",
    device: Annotated[str, typer.Option(help="'cpu' or 'cuda'.")] = "cpu",
) -> None:
    """Print one probability per row of FILE, in the order of its rows, as CSV.

    The columns are those of the training data; a label is not needed.  The file may be of any
    length: it is read, predicted and written piece by piece, on all cores.

    Example: midpg predict runs/x rows.csv --out probabilities.csv
    """
    loaded = load_model(model / MODEL_FILE if model.is_dir() else model)
    if loaded.encoder is None:
        raise ValueError(f"{model} was saved without its encoder; it cannot read raw rows.")
    if out is not None:
        check_name(out)
    pieces = stream_probabilities(loaded, file, unknown_scenario=unknown_scenario, device=device)
    if out is not None:
        write_file(out, pieces)
        return
    # A row may turn out wrong at the end of the file, and then nothing is to be printed.
    with tempfile.TemporaryFile("w+", encoding="ascii", newline="") as held:
        write_csv(held, pieces)
        held.seek(0)
        shutil.copyfileobj(held, sys.stdout)
