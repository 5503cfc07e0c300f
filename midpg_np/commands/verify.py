"""``midpg verify``: export a case, check a dump against it, name the mistake."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import track

from midpg_np.commands import verify_tables
from midpg_np.commands.console import stderr, stdout
from midpg_np.commands.settings import check_model_name, parse_settings
from midpg_np.verify import report
from midpg_np.verify.case import N_ROWS, StepCase, load_case, make_case
from midpg_np.verify.compare import compare
from midpg_np.verify.diagnose import Suspects, diagnose
from midpg_np.verify.mistakes import MISTAKES, mistakes_of
from midpg_np.verify.mistakes.page import catalogue_page, mistake_dict
from midpg_np.verify.ready import READY, fingerprint, ready_case, sized_model, stored_fingerprints

app = typer.Typer(
    help="Verify another implementation: every value and gradient, and the mistake by name.",
    no_args_is_help=True,
)

CaseArgument = Annotated[Path, typer.Argument(help="A file that `midpg verify export` wrote.")]
DumpArgument = Annotated[
    Path, typer.Argument(help="Named arrays of the other implementation, npz or safetensors.")
]
NamesOption = Annotated[Path | None, typer.Option(help="TOML file that maps the case's names.")]
IgnoreOption = Annotated[
    list[str] | None,
    typer.Option("--ignore", metavar="PATTERN", help="Names in the dump to pass over."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def export(
    out: Annotated[Path, typer.Argument(help="File to write, .safetensors or .npz.")] = Path(
        "case.safetensors"
    ),
    model: Annotated[str, typer.Option(help="The model.")] = "midpg",
    small: Annotated[bool, typer.Option("--small", help="Every width small.")] = False,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Option of the model."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of all numbers.")] = 0,
    rows: Annotated[int, typer.Option(min=1, help="Rows of the batch.")] = N_ROWS,
) -> None:
    """Write one training step with every number in it: docs/case-format.md tells what is where.

    Example: midpg verify export case.npz --model midpg --small --set variant=rc
    """
    check_model_name(model)
    case = make_case(sized_model(model, parse_settings(settings or ()), small=small), seed, rows)
    case.save(out)
    stdout().print(verify_tables.case_summary(case, out))


@app.command()
def check(
    case: CaseArgument,
    dump: DumpArgument,
    names: NamesOption = None,
    ignore: IgnoreOption = None,
    as_json: JsonOption = False,
    html: Annotated[
        Path | None, typer.Option(help="Write a page with heat maps of the errors.")
    ] = None,
    show_all: Annotated[bool, typer.Option("--all", help="List what is right, too.")] = False,
) -> None:
    """Compare a dump with a case, in the order of computation.

    Exit code 1 if something differs.

    Example: midpg verify check case.safetensors dump.npz --names names.toml --html report.html
    """
    comparison = compare(load_case(case), dump, names, ignore or ())
    if html is not None:
        html.write_text(report.render_comparison(comparison), encoding="utf-8")
    if as_json:
        print(json.dumps(report.as_dict(comparison), indent=2))
    else:
        _print_lines(report.verdict(comparison))
        if comparison.wrong or show_all:
            stdout().print(verify_tables.comparison_table(comparison, show_all=show_all))
        _print_lines([verify_tables.missing_line(comparison)])
    if not comparison.ok:
        raise typer.Exit(1)


@app.command(name="diagnose")
def diagnose_command(
    case: CaseArgument,
    dump: DumpArgument,
    names: NamesOption = None,
    ignore: IgnoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say which known mistake, or pair of mistakes, gives the dump's numbers.

    Exit code 1 if something differs.

    Example: midpg verify diagnose case.safetensors dump.npz --names names.toml
    """
    console = stderr()

    def bar(suspects: Iterable[Suspects], n: int) -> Iterable[Suspects]:
        return track(
            suspects, "trying mistakes", n, console=console, disable=not console.is_terminal
        )

    found = diagnose(load_case(case), dump, names, ignore or (), bar)
    if as_json:
        print(json.dumps(report.diagnosis_dict(found), indent=2))
    else:
        _print_lines(report.verdict(found.comparison))
        if not found.comparison.ok:
            _print_lines(verify_tables.diagnosis_lines(found))
    if not found.comparison.ok:
        raise typer.Exit(1)


@app.command()
def mistakes(
    model: Annotated[str | None, typer.Argument(help="Only those that a model can have.")] = None,
    as_json: JsonOption = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown.")] = False,
) -> None:
    """List the catalogue of mistakes: wrong and right formula, how it shows, and the fix.

    Example: midpg verify mistakes midpg
    """
    if model is not None:
        check_model_name(model)
    entries = list(MISTAKES.values()) if model is None else mistakes_of(model)
    if as_json:
        print(json.dumps([mistake_dict(m) for m in entries], indent=2))
        return
    if markdown:
        print(catalogue_page(entries))
        return
    _print_lines(line for mistake in entries for line in verify_tables.mistake_lines(mistake))


@app.command()
def cases(
    folder: Annotated[Path, typer.Argument(help="Folder to write them to.")],
    suffix: Annotated[str, typer.Option(help="safetensors or npz.")] = "safetensors",
) -> None:
    """Write small ready-made cases of every model, each checked against its published hash.

    Example: midpg verify cases cases
    """
    if suffix not in ("safetensors", "npz"):
        raise ValueError(f"--suffix must be safetensors or npz; got {suffix!r}.")
    folder.mkdir(parents=True, exist_ok=True)
    published = stored_fingerprints()
    console = stderr()
    for name in track(READY, "cases", console=console, disable=not console.is_terminal):
        case: StepCase = ready_case(name)
        if fingerprint(case) != published[name]:
            raise ValueError(
                f"case {name} has the hash {fingerprint(case)}; published was {published[name]}. "
                "Update midpg_np and NumPy, or report it."
            )
        case.save(folder / f"{name}.{suffix}")
    _print_lines([f"{len(READY)} cases in {folder}, as published."])


def _print_lines(lines: Iterable[str]) -> None:
    for line in lines:
        stdout().print(line, markup=False, soft_wrap=True)
