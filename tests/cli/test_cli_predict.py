"""``midpg predict``: probabilities for raw rows."""

import gzip
import re

import numpy as np
import polars as pl
import pytest
from midpg_command import midpg, midpg_process, one_sentence, write_rows

from midpg_np.data import read_table
from midpg_np.ops import sigmoid
from midpg_np.training import streaming
from midpg_np.training.checkpoint import load_model
from midpg_np.training.evaluate import predict_logits

SMALL_CHUNKS = streaming.stream_probabilities.__kwdefaults__ | {"chunk_rows": 1}


def probabilities(text):
    header, *lines = text.splitlines()
    assert header == "probability"
    return np.array([float(line) for line in lines])


def expected(shop, path, **options):
    model, params, encoder, _ = load_model(shop / "run" / "model.safetensors")
    rows = encoder.transform(read_table(path), require_label=False, warn=False, **options)
    return sigmoid(predict_logits(model, params, rows).astype(np.float64))[0]


def test_probabilities_of_raw_rows_in_their_order(shop, tmp_path):
    """Without a label, with a column that the model does not know, from CSV, .gz and Parquet."""
    path = write_rows(tmp_path / "new.csv", 50, seed=1, bought=None, note=["x"] * 50)
    outcome = midpg_process("predict", shop / "run", path)
    assert (outcome.code, outcome.err) == (0, "")
    np.testing.assert_allclose(probabilities(outcome.out), expected(shop, path), rtol=1e-8)
    assert np.ptp(probabilities(outcome.out)) > 0.1
    with gzip.open(tmp_path / "new.csv.gz", "wb") as file:
        file.write(path.read_bytes())
    read_table(path).write_parquet(tmp_path / "new.parquet")
    for other in ("new.csv.gz", "new.parquet"):
        again = midpg("predict", shop / "run" / "model.safetensors", tmp_path / other)
        assert again.out == outcome.out


def test_out_writes_a_file_and_nothing_else(shop, tmp_path):
    path = write_rows(tmp_path / "new.csv", 20, seed=2)
    target = tmp_path / "p.csv"
    outcome = midpg("predict", shop / "run", path, "--out", target)
    assert outcome == (0, "", "")
    assert target.read_text() == midpg("predict", shop / "run", path).out
    assert sorted(p.name for p in tmp_path.iterdir()) == ["new.csv", "p.csv"]


def test_out_as_packed_csv_and_as_parquet(shop, tmp_path):
    path = write_rows(tmp_path / "new.csv", 300, seed=4)
    plain = midpg("predict", shop / "run", path).out
    for name in ("p.csv.gz", "again.csv.gz", "p.parquet"):
        assert midpg("predict", shop / "run", path, "--out", tmp_path / name) == (0, "", "")
    packed = (tmp_path / "p.csv.gz").read_bytes()
    assert gzip.decompress(packed).decode() == plain
    assert (tmp_path / "again.csv.gz").read_bytes() == packed
    frame = pl.read_parquet(tmp_path / "p.parquet")
    assert frame.schema == {"probability": pl.Float64}
    assert frame["probability"].to_numpy().tobytes() == expected(shop, path).tobytes()
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize("name", ["p.csv", "p.csv.gz", "p.parquet"])
def test_an_error_at_the_last_row_leaves_the_old_file(shop, tmp_path, monkeypatch, name):
    n_rows = 1000
    monkeypatch.setattr(streaming.stream_probabilities, "__kwdefaults__", SMALL_CHUNKS)
    path = write_rows(tmp_path / "new.csv", n_rows, channel=["app"] * (n_rows - 1) + ["kiosk"])
    target = tmp_path / name
    target.write_text("old")
    sentence = one_sentence(midpg("predict", shop / "run", path, "--out", target))
    assert f"holds 'kiosk' at row {n_rows - 1}" in sentence
    assert target.read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["new.csv", name]
    assert "kiosk" in one_sentence(midpg("predict", shop / "run", path))  # nothing on stdout


def test_a_folder_that_is_not_there(shop, tmp_path):
    path = write_rows(tmp_path / "new.csv", 4)
    target = tmp_path / "none" / "p.csv"
    sentence = one_sentence(midpg("predict", shop / "run", path, "--out", target))
    assert sentence == f"the folder of {target} does not exist; create it first."


def test_unknown_and_missing_categories_are_predicted_with_one_message(shop, tmp_path):
    device = ["watch", "watch", ""] + ["phone"] * 5
    item = [999] * 6 + [101, 102]
    path = write_rows(tmp_path / "new.csv", 8, device=device, item=item)
    outcome = midpg("predict", shop / "run", path)
    assert outcome.code == 0
    np.testing.assert_allclose(probabilities(outcome.out), expected(shop, path), rtol=1e-8)
    assert outcome.err == (
        "midpg: categories that no training row had get code 0 (8 rows; unknown: device 3, "
        "item 6).\n"
    )


def test_a_scenario_never_seen_is_refused_by_default(shop, tmp_path):
    path = write_rows(tmp_path / "new.csv", 4, channel=["app", "app", "kiosk", "web"])
    assert one_sentence(midpg("predict", shop / "run", path)) == (
        "scenario column 'channel' holds 'kiosk' at row 2, which no training row had; the "
        "scenarios are app, mail, web. unknown_scenario='shared' predicts such rows with models "
        "that do not route by scenario."
    )
    outcome = midpg("predict", shop / "run", path, "--unknown-scenario", "shared")
    assert outcome.code == 0
    shared = expected(shop, path, unknown_scenario="shared")
    np.testing.assert_allclose(probabilities(outcome.out), shared, rtol=1e-8)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"price": None, "prise": [1, 2, 3, 4]}, "has no column 'price'.*Did you mean 'prise'"),
        ({"price": [1, 2, "cheap", 4]}, "numeric column 'price'.* got 'cheap' at row 2"),
        ({"price": [1, "inf", 3, 4]}, "numeric column 'price'.* got inf at row 1"),
    ],
)
def test_bad_rows(shop, tmp_path, columns, message):
    path = write_rows(tmp_path / "new.csv", 4, **columns)
    sentence = one_sentence(midpg("predict", shop / "run", path))
    assert re.search(message, sentence), sentence


def test_bad_files(shop, tmp_path):
    rows = write_rows(tmp_path / "new.csv", 4)
    header = write_rows(tmp_path / "header.csv", 0)
    (tmp_path / "empty.csv").write_text("")
    foreign = tmp_path / "foreign.safetensors"
    foreign.write_bytes(b"\x80\x04pickle!" * 9)
    run = shop / "run"
    assert "header.csv has a header but no rows" in one_sentence(midpg("predict", run, header))
    assert "is empty" in one_sentence(midpg("predict", run, tmp_path / "empty.csv"))
    assert "does not exist" in one_sentence(midpg("predict", run, tmp_path / "none.csv"))
    assert "no complete safetensors file" in one_sentence(midpg("predict", foreign, rows))
    assert "there is no such file" in one_sentence(midpg("predict", tmp_path, rows))


def test_a_frame_of_polars_predicts_the_same(shop, tmp_path):
    path = write_rows(tmp_path / "new.csv", 10, seed=3)
    model, params, encoder, _ = load_model(shop / "run" / "model.safetensors")
    rows = encoder.transform(pl.read_csv(path))
    logits = predict_logits(model, params, rows)
    outcome = midpg("predict", shop / "run", path)
    np.testing.assert_allclose(probabilities(outcome.out), 1 / (1 + np.exp(-logits)), rtol=1e-6)
