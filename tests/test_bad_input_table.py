"""Bad input, row by row, and the tests that hold what it gets.

missing or misspelt column
    data/test_bad_input.py::test_fit_refuses
    data/test_reading.py::test_missing_column_names_file_and_closest
    cli/test_cli_predict.py::test_bad_rows
    test_estimator.py::test_options_are_checked_in_fit
label not in {0, 1}, or missing
    data/test_bad_input.py::test_fit_refuses
    cli/test_cli_errors.py::test_a_table_with_one_class_or_wrong_labels
    test_bad_input_table.py::test_a_missing_label_in_a_file
    test_estimator.py::test_labels_that_cannot_be_learned
unknown or missing category at prediction
    data/test_encoding.py::test_unknown_categories_get_code_0_and_are_counted_once
    cli/test_cli_predict.py::test_unknown_and_missing_categories_are_predicted_with_one_message
numeric column with text, inf; NaN counts as missing
    data/test_bad_input.py::test_fit_refuses
    cli/test_cli_predict.py::test_bad_rows
    test_bad_input_table.py::test_nan_is_missing_and_infinity_an_error_at_prediction
scenario never seen in training
    data/test_bad_input.py::test_transform_refuses_a_scenario_never_seen
    data/test_encoding.py::test_shared_scenario
    training/test_loop.py::test_models_that_route_by_scenario_refuse_an_unknown_one
    cli/test_cli_predict.py::test_a_scenario_never_seen_is_refused_by_default
    test_estimator.py::test_unknown_scenarios
divisors of the weighting matrix that do not divide
    test_model_options.py::test_sizes_that_do_not_fit
    cli/test_cli_errors.py::test_values_that_cannot_work
empty file, header only, one row, one class
    data/test_reading.py::test_files_that_are_no_tables
    data/test_bad_input.py::test_fit_refuses
    training/test_loop.py::test_data_that_cannot_be_trained_on
    cli/test_cli_predict.py::test_bad_files
    test_bad_input_table.py::test_a_file_with_one_row
mixture of NumPy and CuPy arrays
    test_backend.py::test_a_mixture_names_the_argument_on_the_wrong_device
    test_fake_device.py::test_the_fake_device_refuses_to_mix_with_numpy
    test_gpu.py::test_a_mixture_is_refused
--device cuda without a GPU or CuPy
    test_backend.py::test_cuda_without_cupy_names_the_extra
    cli/test_cli_errors.py::test_cuda_without_cupy_names_the_extra_and_does_not_fall_back
    test_bad_input_table.py::test_cuda_without_a_gpu
truncated or foreign checkpoint or model file
    training/test_checkpoint.py::test_a_bad_file_says_what_was_found_and_what_was_expected
    training/test_checkpoint.py::test_a_truncated_file_at_any_length
    cli/test_cli_predict.py::test_bad_files
    test_bad_input_table.py::test_a_truncated_checkpoint_is_not_gone_on_with
disk full or kill during save
    training/test_checkpoint.py::test_a_failed_save_leaves_the_old_file_and_no_litter
    training/test_checkpoint.py::test_kill_9_while_saving_leaves_a_whole_file
    test_bad_input_table.py::test_a_disk_that_takes_no_more
"""

import ast
import re
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from midpg_np.backend import DeviceError, to_device
from midpg_np.data import Encoder, Schema, load_dataset, load_table
from midpg_np.models import make_model
from midpg_np.training.checkpoint import load_model
from midpg_np.training.config import TrainConfig
from midpg_np.training.loop import fit

TESTS = Path(__file__).parent
NAMED = re.findall(r"^    (\S+\.py)::(\w+)$", __doc__, flags=re.M)
SCHEMA = Schema("y", "s", aware=("s",), agnostic=("x",), numeric=("x",))


@pytest.mark.parametrize(("file", "name"), NAMED, ids=lambda value: value)
def test_the_named_test_is_there(file, name):
    tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_row_of_the_table_names_a_test():
    rows = re.findall(r"^(?!    )\S.*\n(?=    )", __doc__, flags=re.M)
    assert len(rows) == 11 and len(NAMED) > 30


def test_a_missing_label_in_a_file(tmp_path):
    pytest.importorskip("polars", reason="files are read with the extra 'app'")
    path = tmp_path / "rows.csv"
    path.write_text("y,s,x\n" + "0,a,1\n1,b,2\n" * 20 + ",a,3\n" * 40)
    with pytest.raises(ValueError, match=r"label column 'y' must hold 0 or 1; got no value at row"):
        load_table(path, SCHEMA)


def test_a_file_with_one_row(tmp_path):
    pytest.importorskip("polars", reason="files are read with the extra 'app'")
    path = tmp_path / "rows.csv"
    path.write_text("y,s,x\n1,a,1\n")
    with pytest.raises(ValueError, match=r"rows?\b"):
        load_table(path, SCHEMA)


def test_nan_is_missing_and_infinity_an_error_at_prediction():
    train = {"y": np.array([0, 1, 0]), "s": np.array(list("aba")), "x": np.array([1.0, 2.0, 3.0])}
    encoder = Encoder(SCHEMA).fit(train)
    new = {"s": np.array(["a", "b"]), "x": np.array([np.nan, 2.0])}
    codes = encoder.transform(new, require_label=False, warn=False).codes
    assert codes[0, 1] == 0 and codes[1, 1] > 0
    with pytest.raises(
        ValueError, match="numeric column 'x' must hold finite numbers; got -inf at"
    ):
        encoder.transform(new | {"x": np.array([1.0, -np.inf])}, require_label=False)


@pytest.mark.parametrize(("n_gpus", "message"), [(0, "finds no GPU"), (None, "no driver")])
def test_cuda_without_a_gpu(monkeypatch, n_gpus, message):
    """CuPy is installed, or something that looks like it, but there is nothing to compute on."""

    class CUDARuntimeError(RuntimeError):
        pass

    def count():
        if n_gpus is None:
            raise CUDARuntimeError("no driver")
        return n_gpus

    runtime = types.SimpleNamespace(getDeviceCount=count, CUDARuntimeError=CUDARuntimeError)
    cupy = types.ModuleType("cupy")
    cupy.cuda = types.SimpleNamespace(runtime=runtime)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setitem(sys.modules, "cupyx", types.ModuleType("cupyx"))
    with pytest.raises(DeviceError, match=f"device 'cuda' was asked for, but .*{message}"):
        to_device(np.zeros(2), "cuda")


def test_a_truncated_checkpoint_is_not_gone_on_with(tmp_path):
    splits = load_dataset("synthetic", n_rows=2000)
    train = splits.train
    sizes = {name: getattr(train, name) for name in ("vocab_sizes", "n_aware", "n_scenarios")}
    model = make_model("dnn", **sizes, hidden=(8,))
    config = TrainConfig(epochs=1)
    fit(model, train, splits.valid, config, run_dir=tmp_path)
    path = tmp_path / "checkpoint.safetensors"
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"\x80\x04pickle!" * 9):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"checkpoint\.safetensors: found {len(content)} by"):
            fit(model, train, splits.valid, config, run_dir=tmp_path, resume=True)
        assert path.read_bytes() == content


FULL_DISK = """
import resource, sys
from midpg_np.models import make_model
from midpg_np.training.checkpoint import save_model
import numpy as np

model = make_model("dnn", vocab_sizes=(50, 50), n_aware=1, n_scenarios=2, hidden=(8,))
params = model.init(np.random.default_rng(0))
save_model(sys.argv[1], model, params)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
params["embedding"]["table"] += 1.0
try:
    save_model(sys.argv[1], model, params)
except OSError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits of file sizes are those of Unix")
def test_a_disk_that_takes_no_more(tmp_path):
    path = tmp_path / "model.safetensors"
    command = [sys.executable, "-c", FULL_DISK, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"{path}: could not be written (")
    assert "what was saved there before is intact" in done.stdout
    model, params, _, _ = load_model(path)
    expected = model.init(np.random.default_rng(0))["embedding"]["table"]
    assert params["embedding"]["table"].tobytes() == expected.tobytes()
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]
