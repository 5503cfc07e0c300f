"""Files: every bit comes back, bad files are explained, and a failed save loses nothing."""

import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from toy import toy_model

from midpg_np.training import checkpoint
from midpg_np.training.checkpoint import load_model, read_file, save_model, write_file
from midpg_np.tree import tree_astype, tree_items


def saved_model(path, dtype="float32"):
    model = toy_model()
    params = tree_astype(model.init(np.random.default_rng(0)), dtype)
    save_model(path, model, params, meta={"note": "µ", "n": [1, 2]})
    return model, params


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_model_comes_back_bit_by_bit(tmp_path, dtype):
    model, params = saved_model(tmp_path / "m.safetensors", dtype)
    loaded = load_model(tmp_path / "m.safetensors")
    assert loaded.model == model
    assert loaded.encoder is None
    assert loaded.meta == {"note": "µ", "n": [1, 2]}
    stored = dict(tree_items(loaded.params))
    for path, leaf in tree_items(params):
        assert stored[path].dtype == leaf.dtype
        assert stored[path].tobytes() == leaf.tobytes()
        stored[path] += 0.0  # writable


def test_an_encoder_comes_back(tmp_path, monkeypatch):
    from midpg_np.data import encoding

    class FakeEncoder:
        def __init__(self, meta, arrays):
            self.meta, self.arrays = meta, arrays

        def state(self):
            return self.meta, self.arrays

        @classmethod
        def from_state(cls, meta, arrays):
            return cls(meta, arrays)

    monkeypatch.setattr(encoding, "Encoder", FakeEncoder)
    model = toy_model()
    params = model.init(np.random.default_rng(0))
    encoder = FakeEncoder({"kind": "x"}, {"place/values": np.arange(3, dtype=np.uint8)})
    save_model(tmp_path / "m.safetensors", model, params, encoder)
    loaded = load_model(tmp_path / "m.safetensors").encoder
    assert loaded.meta == encoder.meta
    np.testing.assert_array_equal(loaded.arrays["place/values"], [0, 1, 2])


def test_all_kinds_of_arrays_come_back(tmp_path):
    base = np.arange(12.0).reshape(3, 4)
    arrays = {
        "f8": base,
        "f4": base.astype("f4"),
        "transposed": base.T,
        "strided": base[:, ::2],
        "i8": np.array([-(2**62), 5]),
        "u1": np.frombuffer("é".encode(), np.uint8),
        "bool": np.array([True, False]),
        "scalar": np.array(3.5),
        "empty": np.zeros((0, 4)),
        "special": np.array([np.nan, np.inf, -0.0, 5e-324]),
    }
    write_file(tmp_path / "x", "test", arrays, {"a": 1})
    back, meta = read_file(tmp_path / "x", "test")
    assert meta == {"a": 1}
    for name, array in arrays.items():
        assert (back[name].shape, back[name].dtype) == (array.shape, array.dtype)
        assert back[name].tobytes() == array.tobytes()


def test_equal_models_are_equal_files_that_others_may_read(tmp_path):
    saved_model(tmp_path / "a")
    saved_model(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    (tmp_path / "plain").write_bytes(b"")
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a", "plain")}
    assert len(modes) == 1


def header_only(content):
    return {"midpg_np": json.dumps(content)}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p.write_bytes(b""), "found 0 bytes that are no complete safetensors file"),
        (lambda p: p.write_bytes(b"\x80\x04pickle!" * 9), "no complete safetensors file"),
        (lambda p: p.mkdir(), "found a folder"),
        (lambda p: save_file({"w": np.ones(2)}, p), "of another origin"),
        (lambda p: save_file({}, p, {"midpg_np": "{"}), "damaged metadata"),
        (lambda p: save_file({}, p, {"midpg_np": "[]"}), "no JSON object"),
        (lambda p: write_file(p, "midpg_np.checkpoint", {}, {}), "found a 'midpg_np.checkpoint'"),
        (
            lambda p: save_file(
                {}, p, header_only({"format": "midpg_np.model", "version": 99, "content": {}})
            ),
            "found version 99",
        ),
        (lambda p: write_file(p, "midpg_np.model", {}, {}), "expected model and config"),
        (
            lambda p: write_file(p, "midpg_np.model", {}, {"model": "nope", "config": {}}),
            "cannot be built: model must be one of",
        ),
    ],
)
def test_a_bad_file_says_what_was_found_and_what_was_expected(tmp_path, make, message):
    path = tmp_path / "bad.safetensors"
    make(path)
    with pytest.raises(ValueError, match=message) as error:
        load_model(path)
    assert str(path) in str(error.value)


def test_a_truncated_file_at_any_length(tmp_path):
    saved_model(tmp_path / "m")
    whole = (tmp_path / "m").read_bytes()
    for length in (1, 7, 8, 9, 100, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut").write_bytes(whole[:length])
        with pytest.raises(ValueError, match=f"found {length} bytes.*expected a midpg_np.model"):
            load_model(tmp_path / "cut")


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no such file; expected"):
        load_model(tmp_path / "none")


def test_arrays_that_do_not_fit_the_model(tmp_path):
    model = toy_model()
    params = model.init(np.random.default_rng(0))
    params["mlp"]["layer_1"]["b"] = np.zeros(3)
    save_model(tmp_path / "shape", model, params)
    with pytest.raises(ValueError, match=r"mlp\.layer_1\.b has shape \(3,\); its model needs"):
        load_model(tmp_path / "shape")
    del params["mlp"]["layer_1"]["b"]
    save_model(tmp_path / "lacks", model, params)
    with pytest.raises(ValueError, match=r"lacks the parameter mlp\.layer_1\.b"):
        load_model(tmp_path / "lacks")


def fail_after_writing(function):
    def failing(arrays, path, metadata=None):
        Path(path).write_bytes(b"half a file")
        raise OSError(28, "No space left on device")

    return failing


@pytest.mark.parametrize("step", ["save_file", "_flush_to_disk", "replace"])
def test_a_failed_save_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch, step):
    saved_model(tmp_path / "m")
    before = (tmp_path / "m").read_bytes()

    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    if step == "save_file":
        monkeypatch.setattr("safetensors.numpy.save_file", fail_after_writing(save_file))
    else:
        monkeypatch.setattr(*((checkpoint, step) if step != "replace" else (os, step)), fail)
    with pytest.raises(OSError, match=r"No space left on device.*what was saved there before"):
        saved_model(tmp_path / "m", "float64")
    assert (tmp_path / "m").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


SAVER = """
import sys
import numpy as np
from midpg_np.training.checkpoint import write_file
i = 0
while True:
    i += 1
    arrays = {f"x{k}": np.full(200_000, float(i)) for k in range(4)}
    write_file(sys.argv[1], "test", arrays, {"i": i})
"""


@pytest.mark.slow
def test_kill_9_while_saving_leaves_a_whole_file(tmp_path):
    path = tmp_path / "x"
    for delay in (0.0, 0.003, 0.007, 0.011, 0.016):
        process = subprocess.Popen([sys.executable, "-c", SAVER, str(path)])
        path.unlink(missing_ok=True)
        while not path.exists():
            assert process.poll() is None
            time.sleep(0.001)
        time.sleep(delay)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        arrays, meta = read_file(path, "test")
        assert all((array == meta["i"]).all() for array in arrays.values())
    write_file(path, "test", {}, {})
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_what_a_kill_left_goes_with_the_next_save(tmp_path):
    left = tmp_path / ".x.tmp" / ".tmp4Fq2"
    left.parent.mkdir()
    left.write_bytes(b"half a file")
    write_file(tmp_path / "x", "test", {}, {})
    assert [p.name for p in tmp_path.iterdir()] == ["x"]
