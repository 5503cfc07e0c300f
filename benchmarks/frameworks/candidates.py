"""Which implementations of a case are timed, and how each is built, in its own process."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from midpg_np.tree import Tree

# What --frameworks may name; "compile" and "autotune" are modes of torch.compile.
FRAMEWORKS = ("ours", "materialised", "tuned", "eager", "compile", "autotune", "jax")
DEFAULT = ("ours", "materialised", "tuned", "eager", "compile", "jax")
MODULES = {"torch": ("torch_networks", "torch_relatives"), "jax": ("jax_networks", "jax_relatives")}
MODES = {"compile": "default", "autotune": "max-autotune-no-cudagraphs"}
# glibc returns blocks above 128 KiB to the system at once and fetches fresh pages for the next:
# half of the time of code that makes tensors of 50 MB.
TUNED_MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**34),
    "MALLOC_TOP_PAD_": str(2**28),
}


@dataclass(frozen=True)
class Candidate:
    """One implementation: "ours", or a framework ("torch", "jax") with a form and a mode."""

    framework: str
    form: str = ""
    compile_mode: str | None = None
    tuned_malloc: bool = False

    @property
    def label(self) -> str:
        """Name in the tables."""
        if self.framework == "ours":
            return "midpg_np"
        mode = {"torch": "eager", "jax": "jit"}[self.framework]
        if self.compile_mode is not None:
            mode = "compile" + ("" if self.compile_mode == "default" else f" ({self.compile_mode})")
        tuned = ", tuned malloc" if self.tuned_malloc else ""
        return f"{self.framework} {mode}, {self.form}{tuned}"

    @property
    def is_materialised(self) -> bool:
        """Whether it builds the weighting matrix of every row."""
        return self.form == "materialised"

    def environment(self, threads: int) -> dict[str, str]:
        """Environment of its process; read when the libraries are loaded, so set before that."""
        n = str(threads)
        environment = {"OPENBLAS_NUM_THREADS": n, "OMP_NUM_THREADS": n, "MKL_NUM_THREADS": n}
        if self.framework == "jax":
            environment["JAX_PLATFORMS"] = ""
            environment["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
            if threads == 1:
                environment["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
        return environment | (TUNED_MALLOC if self.tuned_malloc else {})

    def build(self, model: Any, params: Tree, dtype: str, device: str, threads: int) -> Any:
        """Return the ``Implementation``; imports the framework."""
        if self.framework == "ours":
            from frameworks.ours import OurStep

            return OurStep(model, params, dtype, device, n_threads=threads)
        from midpg_np.models import model_name

        network = networks(self.framework)[model_name(model)][self.form](model)
        if self.framework == "jax":
            from frameworks.jax_step import JaxStep

            return JaxStep(network, params, dtype, device)
        import torch

        from frameworks.torch_step import TorchStep

        torch.set_num_threads(threads)
        return TorchStep(network, params, dtype, device, self.compile_mode)


def networks(framework: str) -> dict[str, dict[str, Any]]:
    """Return the table model -> form -> class of a framework."""
    table: dict[str, dict[str, Any]] = {}
    for name in MODULES[framework]:
        if find_spec(f"frameworks.{name}") is not None:
            table |= import_module(f"frameworks.{name}").NETWORKS
    return table


def candidates(model: str, asked: list[str], n_forms: int, device: str) -> list[Candidate]:
    """Return what is to be timed for a model.

    Parameters
    ----------
    asked : list of str
        Entries of ``FRAMEWORKS``; one that is not installed is left out with a message by the
        caller.
    n_forms : int
        How many forms of each framework, fastest first.
    """
    chosen = [Candidate("ours")] if "ours" in asked else []
    for framework in ("torch", "jax"):
        words = [w for w in asked if w != "ours" and (w == "jax") == (framework == "jax")]
        if not words or find_spec(framework) is None:
            continue
        forms = list(networks(framework).get(model, {}))
        fast = [form for form in forms if form != "materialised"][:n_forms]
        for word in words:
            if word in ("materialised", "tuned"):
                if "materialised" in forms:
                    tuned = word == "tuned"
                    chosen.append(Candidate(framework, "materialised", tuned_malloc=tuned))
                continue
            mode = MODES.get(word)
            if mode == "default" and device == "cuda":
                mode = "reduce-overhead"
            chosen += [Candidate(framework, form, mode) for form in fast]
    return chosen
