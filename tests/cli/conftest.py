import pytest

pytest.importorskip("typer", reason="the command line needs the extra 'app'")
pytest.importorskip("polars", reason="the command line reads tables with the extra 'app'")
pytest.importorskip("matplotlib", reason="run folders hold pictures, of the extra 'app'")

from midpg_command import SCHEMA, SHORT, midpg, midpg_process, write_rows


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """Outcome and folder of ``midpg train`` on synthetic data, in a process of its own."""
    folder = tmp_path_factory.mktemp("cli") / "run"
    return midpg_process("train", *SHORT, "--out", folder), folder


@pytest.fixture(scope="session")
def shop(tmp_path_factory):
    """Folder with a table of one's own (rows.csv, roles.toml) and a model trained on it (run)."""
    folder = tmp_path_factory.mktemp("shop")
    write_rows(folder / "rows.csv", 1500)
    (folder / "roles.toml").write_text(SCHEMA, encoding="utf-8")
    outcome = midpg(
        *("train", "--data", folder / "rows.csv", "--schema", folder / "roles.toml"),
        *("--epochs", 3, "--batch-size", 32, "--set", "hidden=[16,8]", "--lr", 0.01),
        *("--out", folder / "run"),
    )
    assert outcome.code == 0, outcome.err
    return folder
