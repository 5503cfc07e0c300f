"""Files that are truncated, foreign or newer: one sentence, and nothing is executed."""

import io
import json
import pickle
import zipfile

import numpy as np
import pytest
from safetensors.numpy import save_file
from sizes import small_case

from midpg_np.verify.case import load_case
from midpg_np.verify.compare import compare
from midpg_np.verify.files import read_dump

SUFFIXES = pytest.mark.parametrize("suffix", ["safetensors", "npz"])


@pytest.fixture
def saved(tmp_path, suffix):
    path = tmp_path / f"case.{suffix}"
    small_case("dnn").save(path)
    return path


@SUFFIXES
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.999])
def test_truncated_files(saved, share):
    data = saved.read_bytes()
    saved.write_bytes(data[: int(share * len(data))])
    for read in (load_case, read_dump):
        with pytest.raises(
            ValueError, match=rf"{saved.name}: found \d+ bytes that are no complete"
        ):
            read(saved)


@SUFFIXES
def test_no_file_or_a_folder(tmp_path, suffix):
    path = tmp_path / f"none.{suffix}"
    for read in (load_case, read_dump):
        with pytest.raises(
            FileNotFoundError, match=f"{path.name}: there is no such file; expected"
        ):
            read(path)
    with pytest.raises(ValueError, match="found a folder"):
        read_dump(tmp_path)


@SUFFIXES
def test_foreign_files_are_no_cases(tmp_path, suffix):
    path = tmp_path / f"weights.{suffix}"
    arrays = {"weight": np.ones(3)}
    save_file(arrays, path) if suffix == "safetensors" else np.savez(path, **arrays)
    with pytest.raises(ValueError, match=r"file of another origin; expected a midpg_np\.case file"):
        load_case(path)


def changed_header(path, change):
    """Write the npz case again with another header."""
    with np.load(path) as file:
        arrays = dict(file)
    header = json.loads(arrays.pop("midpg_np").tobytes())
    change(header)
    text = np.frombuffer(json.dumps(header).encode(), np.uint8)
    np.savez(path, **arrays, midpg_np=text)


CHANGES = {
    "newer version": (
        lambda h: h.update(version=2),
        "found version 2; expected .* Update midpg_np",
    ),
    "another kind": (lambda h: h.update(format="midpg_np.model"), "found a 'midpg_np.model' file"),
    "no order": (lambda h: h["content"].pop("order"), "lacks 'order'"),
    "array gone": (lambda h: h["content"]["order"].append("ghost"), "lacks 'ghost'"),
    "unknown model": (lambda h: h["content"].update(model="dnm"), "model must be one of"),
    "other widths": (
        lambda h: h["content"]["config"].update(hidden=[5]),
        "parameter .* shape|lacks|has",
    ),
}


@pytest.mark.parametrize("suffix", ["npz"])
@pytest.mark.parametrize("name", CHANGES)
def test_headers_that_do_not_fit(saved, name):
    change, message = CHANGES[name]
    changed_header(saved, change)
    with pytest.raises(ValueError, match=message):
        load_case(saved)


class Bomb:
    """Would create a file if it were unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_nothing_in_an_npz_is_executed(tmp_path):
    path, trap = tmp_path / "dump.npz", tmp_path / "executed"
    np.savez(path, logit=np.array([Bomb(trap)], dtype=object))
    for read in (load_case, read_dump):
        with pytest.raises(ValueError, match="no complete npz file of numbers"):
            read(path)
    buffer = io.BytesIO(pickle.dumps(Bomb(trap)))
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("logit.npy", buffer.getvalue())
    with pytest.raises(ValueError, match="expected"):
        read_dump(path)
    assert not trap.exists()


def test_bfloat16_and_other_dtypes_of_safetensors(tmp_path):
    torch = pytest.importorskip("torch", reason="writes bfloat16")
    from safetensors.torch import save_file as save_tensors

    case = small_case("dnn")
    logit = torch.tensor(case.arrays["logit"])
    for dtype in (torch.bfloat16, torch.float16, torch.float32, torch.float64):
        save_tensors({"logit": logit.to(dtype)}, tmp_path / "dump.safetensors")
        found = read_dump(tmp_path / "dump.safetensors")["logit"]
        assert found.dtype == str(dtype).removeprefix("torch.")
        assert np.array_equal(found.array, logit.to(dtype).double().numpy())
        assert compare(case, tmp_path / "dump.safetensors").ok
    save_tensors({"logit": logit.to(torch.complex64)}, tmp_path / "dump.safetensors")
    with pytest.raises(ValueError, match="logit has dtype C64; expected one of"):
        read_dump(tmp_path / "dump.safetensors")


def test_text_is_no_dump(tmp_path):
    np.savez(tmp_path / "dump.npz", logit=np.array(["a"]))
    with pytest.raises(ValueError, match="logit: has dtype <U1; expected real numbers"):
        read_dump(tmp_path / "dump.npz")
