"""The kernels are valid CUDA: compiled for compute_90 by NVRTC or nvcc, where one is installed."""

import ctypes
import ctypes.util
import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from midpg_np.kernels import (
    adam,
    cores,
    elementwise,
    launch,
    losses,
    modulated,
    pairs,
    pruning,
    rows,
)

SOURCES = {
    "core": cores.CORE,
    "product": modulated.PRODUCT.having(F=8, J=4),
    "losses": losses.LOSSES,
    "elementwise": elementwise.ELEMENTWISE,
    "pairs": pairs.PAIRS,
    "pruning": pruning.PRUNING,
    "rows": rows.ROWS,
    "adam": adam.ADAM,
    "sum_chunks": launch.SUM_CHUNKS,
}
# Sources whose every operation is rounded once: the same bits as on a CPU.
NO_TRANSCENDENTALS = ("elementwise", "pairs", "rows", "adam", "sum_chunks")


def options_of(source, real):
    """Options as CuPy passes them; CuPy 14 sets the standard itself."""
    constants = (f"-D{name}={value}" for name, value in source.constants)
    exact = ("--fmad=false",) if source.is_exact else ()
    return "--std=c++17", f"-DREAL={real}", *constants, *exact


def find_nvrtc():
    """NVRTC of the system or of an ``nvidia-cuda-nvrtc`` wheel, or None."""
    found = ctypes.util.find_library("nvrtc")
    spec = importlib.util.find_spec("nvidia")
    for folder in spec.submodule_search_locations if spec else ():
        names = (p for p in Path(folder).glob("**/libnvrtc.so.*") if "builtins" not in p.name)
        found = found or next((str(p) for p in names), None)
    return found


def ptx_by_nvrtc(library, source, options):
    nvrtc = ctypes.CDLL(library)
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    none = [ctypes.c_int(0), None, None]
    assert nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"f.cu", *none) == 0
    arguments = (ctypes.c_char_p * len(options))(*(o.encode() for o in options))
    status = nvrtc.nvrtcCompileProgram(program, len(options), arguments)
    assert nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size)) == 0
    log = ctypes.create_string_buffer(size.value)
    assert nvrtc.nvrtcGetProgramLog(program, log) == 0
    assert status == 0, log.value.decode()
    assert log.value == b"", "warnings"
    assert nvrtc.nvrtcGetPTXSize(program, ctypes.byref(size)) == 0
    ptx = ctypes.create_string_buffer(size.value)
    assert nvrtc.nvrtcGetPTX(program, ptx) == 0
    return ptx.value.decode()


def ptx_by_nvcc(source, options, folder):
    file = folder / "f.cu"
    file.write_text(source)
    command = ["nvcc", "--ptx", *options, str(file), "-o", str(folder / "f.ptx")]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "warning" not in result.stderr
    return (folder / "f.ptx").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("by", ["nvrtc", "nvcc"])
@pytest.mark.parametrize("real", ["float", "double"])
def test_every_source_is_valid_cuda(by, real, tmp_path):
    """All kernels come out, in float without a detour through double precision."""
    library = find_nvrtc() if by == "nvrtc" else shutil.which("nvcc")
    if library is None:
        pytest.skip(f"{by} is not installed")
    for name, source in SOURCES.items():
        text, options = launch.COMMON + source.text, options_of(source, real)
        if by == "nvrtc":
            ptx = ptx_by_nvrtc(library, text, (*options, "--gpu-architecture=compute_90"))
        else:
            ptx = ptx_by_nvcc(text, (*options, "-arch=compute_90"), tmp_path)
        kernels = set(re.findall(r"__global__ void (\w+)", source.text))
        assert set(re.findall(r"\.entry (\w+)\(", ptx)) == kernels
        if name in NO_TRANSCENDENTALS:
            assert "fma.rn" not in ptx, name
        if real == "float":
            assert ".f64" not in ptx, name
