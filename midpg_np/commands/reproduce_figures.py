"""``midpg reproduce rank`` and ``diversity``: the panels of the paper's second figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

import typer

from midpg_np.commands.console import stderr
from midpg_np.commands.reproduce_options import (
    DaskOption,
    DataOption,
    DataSettings,
    EpochsOption,
    JsonOption,
    OutOption,
    PathOption,
    SchemaOption,
    SeedOption,
    SettingsOption,
    TrialsOption,
    WorkersOption,
    finish,
    tell,
    this_command,
)
from midpg_np.commands.settings import parse_settings, separate
from midpg_np.commands.sources import load_splits
from midpg_np.experiments.diversity import DiversityPlan, run_diversity
from midpg_np.experiments.diversity_report import diversity_content, diversity_report
from midpg_np.experiments.figure_report import write_figure
from midpg_np.experiments.presets import training_options
from midpg_np.experiments.rank import DIVISORS, METHODS, RANKS, SET_BY_GRID, RankPlan, run_rank
from midpg_np.experiments.rank_report import rank_content, rank_report
from midpg_np.models import MODELS
from midpg_np.plots import new_figure
from midpg_np.training.config import TrainConfig

_GRID = ",".join(map(str, DIVISORS))


def rank(
    data: DataOption = "synthetic",
    path: PathOption = None,
    schema: SchemaOption = None,
    data_option: DataSettings = None,
    model: Annotated[
        str, typer.Option(help="Whose variants: dpg, or midpg with the regulariser.")
    ] = "dpg",
    methods: Annotated[str, typer.Option(help="Variants and apg, by commas.")] = ",".join(METHODS),
    row_divisors: Annotated[str, typer.Option(help="d_r = d_m over each of these.")] = _GRID,
    col_divisors: Annotated[str, typer.Option(help="d_c = d_n over each of these.")] = _GRID,
    ranks: Annotated[str, typer.Option(help="Values of d_k.")] = ",".join(map(str, RANKS)),
    trials: TrialsOption = 3,
    seed: SeedOption = 0,
    epochs: EpochsOption = None,
    settings: SettingsOption = None,
    workers: WorkersOption = -1,
    dask: DaskOption = None,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Draw AUC against the low-rank size: the variants of DPG, and APG of as many parameters.

    The whole grid has 48 points. The same command goes on where an earlier one was interrupted.

    For example:

    midpg reproduce rank --row-divisors 8,2 --col-divisors 8,2 --ranks 1

    midpg reproduce rank --data marketbias --path data/marketbias-electronics --methods r,apg
    """
    new_figure(1, 1)  # says now, and not after the training, that matplotlib is missing
    training, options = separate_for(parse_settings(settings or ()), (model, "apg"), SET_BY_GRID)
    plan = RankPlan(
        **_source(data, path, schema, data_option),
        model=model,
        methods=tuple(_words(methods)),
        row_divisors=_numbers("row-divisors", row_divisors),
        col_divisors=_numbers("col-divisors", col_divisors),
        ranks=_numbers("ranks", ranks),
        seeds=tuple(range(seed, seed + trials)),
        model_options=options,
        training=_training(data, training, epochs),
    )
    folder = out or Path("runs") / f"rank-{Path(data).stem}"
    result = run_rank(plan, folder, workers=workers, dask=dask, on_done=tell)
    command = this_command()
    content = {"command": command, **rank_content(result)}
    report = rank_report(result, command)
    finish(write_figure, folder, report, content, as_json=as_json, shown=4)


def diversity(
    data: DataOption = "synthetic",
    path: PathOption = None,
    schema: SchemaOption = None,
    data_option: DataSettings = None,
    layer: Annotated[str, typer.Option(help="Layer of the pictures.")] = "layer_1",
    rows_per_scenario: Annotated[
        int, typer.Option(help="Test rows of each scenario whose cores are compared.")
    ] = 100,
    state: Annotated[
        str, typer.Option(help="best: at the best validation AUC; last: after all epochs.")
    ] = "best",
    trials: TrialsOption = 5,
    seed: SeedOption = 0,
    epochs: EpochsOption = None,
    settings: SettingsOption = None,
    workers: WorkersOption = -1,
    dask: DaskOption = None,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare the weighting cores with and without the regulariser, in pictures and numbers.

    The same command goes on where an earlier one was interrupted.

    For example:

    midpg reproduce diversity --data marketbias --path data/marketbias-electronics

    midpg reproduce diversity --state last --layer layer_2 --trials 10
    """
    new_figure(1, 1)  # says now, and not after the training, that matplotlib is missing
    training, options = separate(parse_settings(settings or ()), "midpg")
    plan = DiversityPlan(
        **_source(data, path, schema, data_option),
        seeds=tuple(range(seed, seed + trials)),
        model_options=options,
        training=_training(data, training, epochs),
        layer=layer,
        rows_per_scenario=rows_per_scenario,
        state=state,
    )
    folder = out or Path("runs") / f"diversity-{Path(data).stem}"
    result = run_diversity(plan, folder, workers=workers, dask=dask, on_done=tell)
    command = this_command()
    content = {"command": command, **diversity_content(result)}
    report, shown = diversity_report(result, command), len(result.layers)
    finish(write_figure, folder, report, content, as_json=as_json, shown=shown)


def separate_for(
    settings: Mapping[str, Any], models: Sequence[str], not_to_set: Sequence[str] = ()
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Divide settings into options of the training and options that at least one model has.

    Raises
    ------
    ValueError
        For an option that none has, or that is not to be set.
    """
    for name in not_to_set:
        if name in settings:
            raise ValueError(f"--set {name}: the grid sets it; choose among its values instead.")
    of_training = [f.name for f in fields(TrainConfig) if f.name != "seed"]
    from_data = ("vocab_sizes", "n_aware", "n_scenarios")
    of_models = {
        field.name
        for model in models
        if model in MODELS
        for field in fields(MODELS[model])
        if field.name not in (*from_data, *not_to_set)
    }
    known = [*of_training, *sorted(of_models)]
    for name in settings:
        if name not in known:
            match = get_close_matches(name, known, n=1)
            hint = f" Did you mean {match[0]!r}?" if match else ""
            raise ValueError(
                f"neither the training nor one of the models {', '.join(models)} has an option "
                f"{name!r} to be set.{hint}"
            )
    training = {name: value for name, value in settings.items() if name in of_training}
    return training, {name: value for name, value in settings.items() if name not in training}


def _source(
    data: str, path: Path | None, schema: Path | None, data_option: Sequence[str] | None
) -> dict[str, Any]:
    """Return where the rows come from, as plans have it; errors of the data show here."""
    options = parse_settings(data_option or ())
    for note in load_splits(data, path, schema, 0, options).notes:
        stderr().print(note, markup=False)
    return {
        "data": data,
        "path": None if path is None else str(path),
        "schema": None if schema is None else str(schema),
        "data_options": options,
    }


def _training(data: str, chosen: Mapping[str, Any], epochs: int | None) -> dict[str, Any]:
    return training_options(data) | ({} if epochs is None else {"epochs": epochs}) | dict(chosen)


def _words(text: str) -> list[str]:
    return [word for word in (part.strip() for part in text.split(",")) if word]


def _numbers(option: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in _words(text))
    except ValueError as error:
        raise ValueError(
            f"--{option} takes whole numbers with commas between, such as 8,4; got {text!r}."
        ) from error
