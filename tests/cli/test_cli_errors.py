"""Help with examples that are valid; errors in one sentence, with their remedy."""

import importlib.util
import inspect
import re
import shlex

import pytest
import typer
from midpg_command import SHORT, midpg, midpg_process, one_sentence, words, write_rows

from midpg_np import __version__
from midpg_np.commands import app

ROOT = typer.main.get_command(app)


def leaves(command=ROOT, path=()):
    """Every command that does something, by its path."""
    subcommands = getattr(command, "commands", {})
    for name, subcommand in subcommands.items():
        yield from leaves(subcommand, (*path, name))
    if not subcommands:
        yield path, command


COMMANDS = dict(leaves())


def test_help_lists_the_commands():
    outcome = midpg("--help")
    assert (outcome.code, outcome.err) == (0, "")
    assert "midpg [OPTIONS] COMMAND" in words(outcome.out)
    for path in COMMANDS:
        assert re.search(rf"\b{path[0]} ", outcome.out)
    assert midpg_process("--version") == (0, f"{__version__}\n", "")


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_shows_an_example_that_is_valid(path):
    outcome = midpg(*path, "--help")
    assert (outcome.code, outcome.err) == (0, "")
    text = inspect.getdoc(COMMANDS[path].callback)
    examples = re.findall(r"(?:^|Example: )midpg (.+)$", text, flags=re.M)
    assert examples
    for example in examples:
        assert f"midpg {example}" in words(outcome.out)
        words_of_example = shlex.split(example)
        assert tuple(words_of_example[: len(path)]) == path
        with COMMANDS[path].make_context("midpg", words_of_example[len(path) :]):
            pass  # raises for an option or value that does not exist


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "midgp"], "model must be one of .* got 'midgp'. Did you mean 'midpg'?"),
        (["--baseline", "dn"], "model must be one of .* got 'dn'. Did you mean 'dnn'?"),
        (["--device", "gpu"], "device must be one of cpu, cuda; got 'gpu'."),
        (["--set", "patiense=3"], "neither .* has an option 'patiense'.* mean 'patience'?"),
        (["--set", "patience"], "a setting is written NAME=VALUE, such as gain=2; got 'patience'."),
        (["--set", "seed=3"], "--set seed: use --seed."),
        (["--set", "n_aware=3"], "--set n_aware: it follows from the data."),
        (
            ["--model", "dnn", "--variant", "r"],
            "neither .* 'dnn' has an option 'variant'",
        ),
        (["--resume"], "--resume needs --out, the folder of the run to go on with."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_options_of_train_are_checked_first(arguments, message):
    assert re.match(message, one_sentence(midpg("train", *SHORT, *arguments)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", 0], "epochs must be a whole number >= 1; got 0."),
        (
            ["--set", "row_divisor=7"],
            "row_divisor = 7 must divide d_m .* choose one of 1, 2, 4,",
        ),
        (["--variant", "rr"], "variant must be one of .* got 'rr'"),
        (["--lr", "1e30"], "the loss is .* at step"),
        (["--data-option", "n_rows=20"], "20 rows leave training rows for only . of 10 scenarios"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else "",
)
def test_values_that_cannot_work(arguments, message, tmp_path):
    outcome = midpg("train", *SHORT, *arguments, "--out", tmp_path / "x")
    assert outcome.code == 2 and "Traceback" not in outcome.err
    assert re.match(f"midpg: {message}", outcome.err.splitlines()[-1])


def test_a_table_with_one_class_or_wrong_labels(shop, tmp_path):
    for bought, message in (
        ([0] * 40, "is 0 in all 32 training rows; rows of both classes, 0 and 1, are needed."),
        ([0, 1] * 19 + [2, 1], "label column 'bought' must hold 0 or 1; got 2 at row"),
    ):
        rows = write_rows(tmp_path / "rows.csv", 40, bought=bought)
        outcome = midpg("train", "--data", rows, "--schema", shop / "roles.toml")
        assert message in one_sentence(outcome)


def test_debug_shows_the_traceback_in_any_place():
    quiet = midpg_process("train", "--set", "seed=3")
    assert "--set seed" in one_sentence(quiet)
    for arguments in (
        ["--debug", "train", "--set", "seed=3"],
        ["train", "--set", "seed=3", "--debug"],
    ):
        outcome = midpg_process(*arguments)
        assert outcome.code == 1 and outcome.out == ""
        assert outcome.err.startswith("Traceback (most recent call last)")
        assert outcome.err.strip().endswith("ValueError: --set seed: use --seed.")


def test_wrong_usage_is_shown_with_the_way_to_help():
    outcome = midpg("train", "--epoch", 3)
    assert outcome.code == 2 and outcome.out == ""
    assert "No such option: --epoch" in words(outcome.err) and "--epochs" in outcome.err
    assert "midpg train --help" in outcome.err
    assert midpg("fly").code == 2


@pytest.mark.parametrize("command", ["train", "predict"])
@pytest.mark.skipif(
    importlib.util.find_spec("cupy") is not None, reason="CuPy is installed: nothing is missing"
)
def test_cuda_without_cupy_names_the_extra_and_does_not_fall_back(command, shop, tmp_path):
    arguments = {
        "train": [*SHORT, "--out", tmp_path / "x"],
        "predict": [shop / "run", shop / "rows.csv"],
    }
    message = one_sentence(midpg(command, *arguments[command], "--device", "cuda"))
    assert message == (
        "device 'cuda' needs CuPy, which is not installed. Install the extra 'cuda12' or 'cuda13' "
        "(pip install 'midpg_np[cuda12]')."
    )
    assert not (tmp_path / "x").exists()


BLOCK = """
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == {name!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocker())
"""


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("typer", "the command line needs typer, which is not installed; install the extra 'app'"),
        ("rich", "the command line needs rich, which is not installed; install the extra 'app'"),
        ("matplotlib", "plots need matplotlib, which is not installed; install the extra 'app'"),
        ("polars", "reading files needs polars; install the extra 'app'"),
    ],
)
def test_a_missing_library_names_the_extra(missing, message, shop, tmp_path):
    """Before the training, not after it; what does not need the library works."""
    prelude = BLOCK.format(name=missing)
    command = ["train", *SHORT, "--out", tmp_path / "x"]
    if missing == "polars":
        command = ["predict", shop / "run", shop / "rows.csv"]
    assert one_sentence(midpg_process(*command, prelude=prelude)).startswith(message)
    assert not (tmp_path / "x").exists()
    if missing in ("matplotlib", "polars"):
        assert midpg_process("data", "describe", prelude=prelude).code == 0
