"""Runs CUDA kernels on a CPU: g++ compiles the very sources, and a loop stands for the grid.

``ShimModule`` takes the place of ``cupy.RawModule`` on the fake device.  It is stricter than a GPU:
every argument must have the type that the kernel declares, where CuPy passes bare pointers and
bytes.  Threads run one after the other, in rising or in falling order, so that a result that
depends on the order shows; those of a block that wait for each other are coroutines.
"""

import ctypes
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
from fake_device import FakeArray

from midpg_np.kernels.adam import _LEAVES

# Without headers of the standard library of C++: they would be most of the time of compiling.
HEADER = r"""
#include <math.h>
#include <setjmp.h>
#include <ucontext.h>

struct Index { unsigned x, y, z; };
static thread_local Index threadIdx, blockIdx, blockDim, gridDim;
#define __global__
#define __device__ static
#define __forceinline__ inline
#define __shared__ static
#define __align__(n) __attribute__((aligned(n)))

template <class T> static T atomicAdd(T* place, T value) {
    T seen = *place;
    *place += value;
    return seen;
}

namespace shim {
const void* body;
void (*call)(const void* body);
struct Fiber { ucontext_t first; jmp_buf place; bool has_begun, is_done; char stack[1 << 16]; };
Fiber fibers[1024];
Fiber* current;
jmp_buf scheduler;

// Jumps, because swapcontext asks the system for the mask of signals each time.
void leave() { if (!_setjmp(current->place)) _longjmp(scheduler, 1); }

void start() { call(body); current->is_done = true; _longjmp(scheduler, 1); }

void resume() {
    if (_setjmp(scheduler)) return;
    if (current->has_begun) _longjmp(current->place, 1);
    current->has_begun = true;
    setcontext(&current->first);
}

// Returns false if some threads of the block wait at a barrier that others never reach.
bool run_block(unsigned n, bool is_reversed) {
    for (unsigned i = 0; i < n; ++i) {
        Fiber& f = fibers[i];
        f.has_begun = f.is_done = false;
        getcontext(&f.first);
        f.first.uc_stack.ss_sp = f.stack;
        f.first.uc_stack.ss_size = sizeof f.stack;
        makecontext(&f.first, start, 0);
    }
    for (;;) {
        unsigned n_done = 0;
        for (unsigned i = 0; i < n; ++i) {
            unsigned t = is_reversed ? n - 1 - i : i;
            current = &fibers[t];
            threadIdx = {t, 0, 0};
            resume();
            n_done += current->is_done;
        }
        if (n_done == n) return true;
        if (n_done) return false;
    }
}

template <class Body>
int run_grid(Index grid, Index block, bool is_reversed, bool has_barrier, const Body& f) {
    body = &f;
    call = [](const void* f) { (*static_cast<const Body*>(f))(); };
    gridDim = grid;
    blockDim = block;
    for (unsigned long long i = 0; i < (unsigned long long)grid.x * grid.y; ++i) {
        unsigned long long at = is_reversed ? (unsigned long long)grid.x * grid.y - 1 - i : i;
        blockIdx = {(unsigned)(at % grid.x), (unsigned)(at / grid.x), 0};
        if (has_barrier) {
            if (!run_block(block.x, is_reversed)) return 1;
            continue;
        }
        for (unsigned t = 0; t < block.x; ++t) {
            threadIdx = {is_reversed ? block.x - 1 - t : t, 0, 0};
            f();
        }
    }
    return 0;
}
}

static void __syncthreads() {
    Index place = threadIdx;
    shim::leave();
    threadIdx = place;
}

// Stricter than a GPU, where only the threads of a warp meet.
template <class T> static T __shfl_xor_sync(unsigned, T value, int lanes) {
    static T held[1024];
    held[threadIdx.x] = value;
    __syncthreads();
    T other = held[threadIdx.x ^ lanes];
    __syncthreads();
    return other;
}
"""

FOLDER = Path(__file__).parent / "__pycache__" / "cuda-shim"
BARRIERS = (
    "__syncthreads",
    "block_sum",
    "column_sum",
    "warp_sum",
)  # functions at which threads meet
KERNEL = re.compile(r'extern "C" __global__ void (\w+)\(([^)]*)\)')
OPTIONS = {"--fmad=false": "-ffp-contract=off"}
TYPES = {"wide": np.int64, "int": np.int32, "bool": np.bool_, "Leaves": _LEAVES}


def compiler():
    """Path of g++, or None."""
    return shutil.which("g++")


@cache
def _build(source, flags):
    """Compile and load; the library is kept on disk for the next process."""
    extra = os.environ.get("CUDA_SHIM_FLAGS", "").split()
    command = [compiler(), "-O2", "-std=c++17", "-Wall", "-Werror", "-Wno-unused-function"]
    command += ["-shared", "-fPIC", "-U_FORTIFY_SOURCE", *flags, *extra]
    name = hashlib.sha256(f"{source}{command}".encode()).hexdigest()[:16]
    library = FOLDER / f"{name}.so"
    if not library.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=FOLDER) as own:  # another process may do the same
            cpp, made = Path(own) / "kernels.cpp", Path(own) / "kernels.so"
            cpp.write_text(source)
            result = subprocess.run(
                [*command, str(cpp), "-o", str(made)], capture_output=True, text=True
            )
            assert result.returncode == 0, result.stderr
            made.replace(library)
    return ctypes.CDLL(str(library))


def parameters(declaration):
    """Yield (type, is a pointer, is const, name) of each parameter of a kernel."""
    for part in declaration.split(","):
        const, kind, star, name = re.fullmatch(
            r"\s*(const )?(\w+)(\*?) (\w+)\s*", part.replace("\n", " ")
        ).groups()
        yield kind, star == "*", const is not None, name


class ShimModule:
    """Same arguments as ``cupy.RawModule``, as far as the package uses them."""

    is_reversed = False  # order of threads and blocks
    launches = ()  # names of the kernels that ran, where a test sets a list

    def __init__(self, code, options=()):
        real = dict(o.removeprefix("-D").split("=") for o in options if o.startswith("-D"))["REAL"]
        flags = tuple(o if o.startswith("-D") else OPTIONS[o] for o in options)
        self.types = TYPES | {"REAL": {"float": np.float32, "double": np.float64}[real]}
        self.kernels = dict(KERNEL.findall(code))
        starts = [match.start() for match in KERNEL.finditer(code)] + [len(code)]
        bodies = [code[a:b] for a, b in pairwise(starts)]
        launchers = [
            self._launcher(name, body) for name, body in zip(self.kernels, bodies, strict=True)
        ]
        self.library = _build("\n".join([HEADER, code, *launchers]), flags)

    def _launcher(self, name, body):
        names = ", ".join(p[-1] for p in parameters(self.kernels[name]))
        has_barrier = any(name in body for name in BARRIERS)
        return f"""
extern "C" int launch_{name}(
    unsigned gx, unsigned gy, unsigned bx, int is_reversed, {self.kernels[name]}
) {{
    return shim::run_grid({{gx, gy, 1}}, {{bx, 1, 1}}, is_reversed, {int(has_barrier)},
                          [&] {{ {name}({names}); }});
}}"""

    def get_function(self, name):
        declared = list(parameters(self.kernels[name]))
        function = getattr(self.library, f"launch_{name}")

        def launch(grid, block, args):
            assert len(args) == len(declared), f"{name} takes {len(declared)}, got {len(args)}"
            converted = [
                self._argument(arg, *kind) for arg, kind in zip(args, declared, strict=True)
            ]
            assert len(grid) == 2 and len(block) == 1 and min(*grid, *block) >= 1
            assert grid[0] < 2**31 and grid[1] < 2**16 and block[0] <= 1024
            sizes = (ctypes.c_uint(x) for x in (*grid, *block))
            status = function(*sizes, ctypes.c_int(ShimModule.is_reversed), *converted)
            assert status == 0, f"{name}: not all threads of a block reach __syncthreads"
            if isinstance(ShimModule.launches, list):
                ShimModule.launches.append(name)

        return launch

    def _argument(self, arg, kind, is_pointer, is_const, name):
        wanted = self.types[kind]
        if kind == "Leaves":  # a structure, by value
            assert arg.shape == (1,) and arg.dtype == wanted
            return np.ctypeslib.as_ctypes_type(wanted).from_buffer_copy(arg.tobytes())
        if is_pointer:
            assert isinstance(arg, FakeArray), f"{name} must be an array; got {type(arg)}"
            assert arg.dtype == wanted, f"{name} must be {wanted}; got {arg.dtype}"
            assert arg._data.flags.c_contiguous, f"{name} is not contiguous"
            assert is_const or arg._data.flags.writeable, f"{name} is read-only"
            return ctypes.c_void_p(arg._data.ctypes.data)
        assert type(arg) is wanted, f"{name} must be {wanted}; got {type(arg)}"
        return np.ctypeslib.as_ctypes_type(wanted)(arg)
