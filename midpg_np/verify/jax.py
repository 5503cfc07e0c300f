"""Check a JAX function of a parameter tree against a case in one call.

    report = check(function, case, {"layer_1.W": "layers.0.kernel", ...}, params=init(key))
    report.raise_if_wrong()

docs/verify-jax.md shows it from export to diagnosis.  JAX is imported where it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from midpg_np.verify.adapters.common import Report, check_dtype
from midpg_np.verify.adapters.jax_run import Run, as_jax, predict, take_step
from midpg_np.verify.adapters.jax_subject import Subject, optional_arguments
from midpg_np.verify.adapters.jax_tree import case_tree, loaded, param_tree
from midpg_np.verify.case import StepCase
from midpg_np.verify.compare import compare
from midpg_np.verify.names import NameMap, name_map


def check(
    function: Callable[..., Any],
    case: StepCase,
    names: Mapping[str, Any] | str | Path | None = None,
    *,
    params: Any = None,
    ignore: Sequence[str] = (),
    optimizer: Any = None,
    dtype: str = "float64",
) -> Report:
    """Run a training step and a prediction of a case in JAX, and compare all numbers.

    The function is called, differentiated, and called again in ways that should make no difference:
    twice with equal arguments, under ``jax.jit``, row by row.  JAX's configuration stays as it is.

    Parameters
    ----------
    function : callable
        ``function(params, inputs, tap, *, training)``, the last two if it has them.  ``inputs`` are
        arrays by name, "codes", "scenario", "label" and "partner"; a prediction, which is checked
        if the function has ``training``, has neither of the last two.  ``x = tap(name, x)`` makes
        an intermediate and its gradient known.  What it returns is the logit (B,) or (B, 1), or
        arrays by name, or a pair of the two; state that it moves is among them
        ("next.norm.mean").  Without "loss", that is formed from the logit, or "ce", and the
        auxiliary terms.
    case : StepCase
    names : mapping or path, optional
        Name map, see ``verify.names``: where the case's parameters and state are in the tree, and
        which names intermediates have.  A path has dots between keys and numbers:
        "layers.0.kernel".  "critic[1]" is what ``tap`` got with this name in the second call.
    params : tree, optional
        A tree of the function's own, of arrays or ``jax.ShapeDtypeStruct``; the case's numbers take
        the place of its own.  Without it the function gets nested dictionaries by the case's names.
    ignore : sequence of str
        Patterns of names, of parameters and of what comes out, that mean nothing to the case.
    optimizer : optional
        An optimiser with ``init`` and ``update``, as those of Optax have.  Without it parameters
        are moved as by Adam with the learning rate of the case.
    dtype : str
        "float64" or "float32"; the tolerances follow it.

    Raises
    ------
    ImportError
        If JAX is not installed.
    TypeError
        If it is no function, or the optimiser none.
    ValueError
        If a parameter of the case has no place in the tree or does not fit there, or if what comes
        out cannot be compared or differentiated.
    """
    jax = _import_jax()
    check_dtype(dtype)
    if not callable(function):
        kind = type(function).__name__
        raise TypeError(f"expected a function f(params, inputs); got a {kind}.")
    if optimizer is not None and not (hasattr(optimizer, "init") and hasattr(optimizer, "update")):
        kind = type(optimizer).__name__
        raise TypeError(f"optimizer must have init and update, as Optax's have; got a {kind}.")
    takes = optional_arguments(function)
    places = name_map(names, list(case.arrays))
    if params is None:
        _check_not_mapped(case, places)
    with _precision(jax, dtype):
        tree = param_tree(case_tree(case) if params is None else params, dtype)
        arrays, problems = loaded(tree, case, places, ignore)
        subject = Subject(function, tree, places, takes)
        run = Run(subject, case, as_jax(arrays, dtype), as_jax(case.inputs, dtype), dtype)
        dump, found = take_step(run, optimizer)
        problems += found
        if "training" in takes:
            predicted, found = predict(run)
            dump, problems = dump | predicted, problems + found
    comparison = compare(case, dump, names, ignore)
    return Report(comparison, tuple(dict.fromkeys(problems)))


def _import_jax() -> Any:
    try:
        import jax
    except ImportError as error:
        raise ImportError(
            "midpg_np.verify.jax needs JAX, which is not installed (pip install jax)."
        ) from error
    return jax


def _check_not_mapped(case: StepCase, places: NameMap) -> None:
    """Raise ValueError for a parameter that is mapped though there is no tree of the function's."""
    for name in (*case.params, *case.state):
        if name in places.places:
            raise ValueError(
                f"{name} is mapped to {places.places[name].sources[0]!r}, but there is no tree in "
                "which that could be; give params=, the function's own parameters."
            )


@contextmanager
def _precision(jax: Any, dtype: str) -> Iterator[None]:
    """Let JAX compute in a format, and with all its digits, while the context lasts."""
    is_new = hasattr(jax, "enable_x64")
    enable_x64 = (jax if is_new else import_module("jax.experimental")).enable_x64
    # Some devices multiply matrices of float32 with 11 bits unless they are told not to.
    with enable_x64(dtype == "float64"), jax.default_matmul_precision("highest"):
        yield
