"""``midpg predict``: probabilities for raw rows."""

from __future__ import annotations

import csv
import os
import sys
from pathlib import Path
from typing import Annotated, TextIO

import numpy as np
import typer

from midpg_np.data import read_table
from midpg_np.ops import sigmoid
from midpg_np.training.checkpoint import load_model
from midpg_np.training.evaluate import predict_logits

MODEL_FILE = "model.safetensors"


def predict(
    model: Annotated[Path, typer.Argument(help="A model.safetensors, or the run folder with it.")],
    file: Annotated[Path, typer.Argument(help="CSV (plain or .gz) or Parquet with raw rows.")],
    out: Annotated[
        Path | None, typer.Option(help="Write here in place of the standard output.")
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

    The columns are those of the training data; a label is not needed.

    Example: midpg predict runs/x rows.csv --out probabilities.csv
    """
    loaded = load_model(model / MODEL_FILE if model.is_dir() else model)
    if loaded.encoder is None:
        raise ValueError(f"{model} was saved without its encoder; it cannot read raw rows.")
    schema = loaded.encoder.schema
    needed = [name for name in schema.columns if name != schema.label]
    rows = loaded.encoder.transform(
        read_table(file, needed), unknown_scenario=unknown_scenario, require_label=False
    )
    logits = predict_logits(loaded.model, loaded.params, rows, device=device)
    probability = sigmoid(logits.astype(np.float64))[0]
    if out is None:
        _write(sys.stdout, probability)
        return
    temporary = out.with_name(f".{out.name}.tmp")
    with temporary.open("w", newline="") as file_out:
        _write(file_out, probability)
    os.replace(temporary, out)


def _write(file: TextIO, probability: np.ndarray) -> None:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["probability"])
    writer.writerows([f"{p:.9g}"] for p in probability)
