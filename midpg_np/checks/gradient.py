"""Compare a hand-written backward with numerical derivatives of its forward, entry by entry."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from midpg_np.checks.case import (
    Case,
    Linearised,
    linearise,
    shift_from_kinks,
    wake_units,
)
from midpg_np.checks.numeric import (
    Index,
    central_differences,
    complex_steps,
    directional_complex_step,
)
from midpg_np.tree import tree_flatten

COMPLEX_TOLERANCE = 1e-12  # times the largest entry of the block
DIFFERENCE_TOLERANCE = 1e-7  # times max(1, largest entry of the block)
CONTENT = 1e-2  # times that limit: where differences of order 2 are as near, order 4 is not asked
SMALL_BLOCK = 1e-3  # a block far below the largest one is measured against this share of it


class GradientMismatchError(AssertionError):
    """A backward pass does not return the gradient of its forward pass."""


class BlockResult(NamedTuple):
    """Errors of one array's gradient: relative for the complex step, absolute for differences."""

    path: str
    n_entries: int
    complex_error: float
    difference_error: float | None
    failure: str | None


class GradientReport(NamedTuple):
    """Result of a check of the case ``name``, in ``blocks``, one per array."""

    name: str
    blocks: tuple[BlockResult, ...]

    @property
    def ok(self) -> bool:
        """Whether every block passed."""
        return not self.failures

    @property
    def failures(self) -> list[str]:
        """One line per block that failed."""
        return [block.failure for block in self.blocks if block.failure]

    @property
    def n_entries(self) -> int:
        """Number of entries checked."""
        return sum(block.n_entries for block in self.blocks)

    @property
    def complex_error(self) -> float:
        """Largest relative error against the complex step."""
        return max((block.complex_error for block in self.blocks), default=0.0)

    @property
    def difference_error(self) -> float | None:
        """Largest absolute error against differences; None if they were not taken."""
        errors = [b.difference_error for b in self.blocks if b.difference_error is not None]
        return max(errors, default=None)

    def raise_if_wrong(self) -> None:
        """Raise an error with one line per failing block.

        Raises
        ------
        GradientMismatchError
            Unless ``ok``.
        """
        if not self.ok:
            raise GradientMismatchError(f"{self.name}: " + "; ".join(self.failures))


def _describe(path: str, index: Index) -> str:
    return f"d/d{path}[{', '.join(map(str, index))}]" if index else f"d/d{path}"


def _failure(
    path: str, indices: list[Index], backward: Any, numeric: Any, limit: float, witness: str
) -> str | None:
    errors = np.abs(backward - numeric)
    is_wrong = ~(errors <= limit)  # a NaN is wrong
    if not is_wrong.any():
        return None
    worst = int(np.argmax(np.where(np.isnan(errors), np.inf, errors)))
    return (
        f"{_describe(path, indices[worst])}: backward gives {backward[worst]:+.2e}, {witness} "
        f"gives {numeric[worst]:+.2e} ({is_wrong.sum()} of {len(errors)} entries differ by more "
        f"than {limit:.1e})"
    )


def _structure_failures(inputs: dict[str, Any], grads: dict[str, Any]) -> Iterator[BlockResult]:
    for path in inputs.keys() ^ grads.keys():
        what = "has no gradient" if path in inputs else "is not an input, yet has a gradient"
        yield BlockResult(path, 0, float("inf"), None, f"d/d{path}: {path} {what}")
    for path in inputs.keys() & grads.keys():
        want, got = inputs[path], grads[path]
        if want.shape != np.shape(got) or want.dtype != got.dtype:
            failure = (
                f"d/d{path}: expected shape {want.shape} and dtype {want.dtype}; "
                f"got {np.shape(got)} and {got.dtype}"
            )
            yield BlockResult(path, 0, float("inf"), None, failure)


def check_gradients(
    case: Case,
    rng: np.random.Generator,
    *,
    differences: bool = True,
    max_entries: int | None = None,
) -> GradientReport:
    """Check every entry (or up to ``max_entries`` random ones per array) of every gradient.

    The complex step must agree to 1e-12 of the largest entry of the array, central differences to
    1e-7 of max(1, largest entry): those of 4th order, unless those of 2nd order, at half the cost,
    agree to 1e-9 of it.

    Parameters
    ----------
    case : Case
        What to check; its biases are first shifted so that no unit is off for every row and none
        is near its kink.
    rng : numpy.random.Generator
        Draws the upstream gradient and the choice of entries.
    differences : bool
        Also ask the second, independent witness.
    max_entries : int, optional
        Entries per array; all of them if None.
    """
    linearised = linearise(shift_from_kinks(wake_units(case)), rng)
    inputs, grads = tree_flatten(linearised.inputs), tree_flatten(linearised.grads)
    broken = tuple(_structure_failures(inputs, grads))
    if broken:
        return GradientReport(case.name, broken)
    chosen = {}
    for path, leaf in inputs.items():
        indices = list(np.ndindex(leaf.shape))
        if max_entries is not None and len(indices) > max_entries:
            picks = rng.choice(len(indices), max_entries, replace=False)
            indices = [indices[i] for i in np.sort(picks)]
        chosen[path] = indices
    exact = {
        path: complex_steps(linearised.function, linearised.inputs, path, indices)
        for path, indices in chosen.items()
    }
    largest = max((np.abs(values).max(initial=0.0) for values in exact.values()), default=0.0)
    blocks = tuple(
        _check_block(linearised, path, chosen[path], exact[path], largest, differences)
        for path in inputs
    )
    return GradientReport(case.name, blocks)


def _check_block(
    linearised: Linearised,
    path: str,
    indices: list[Index],
    exact: np.ndarray,
    largest: float,
    differences: bool,
) -> BlockResult:
    gradient = tree_flatten(linearised.grads)[path]
    backward = np.array([gradient[index] for index in indices])
    scale = max(np.abs(exact).max(initial=0.0), SMALL_BLOCK * largest)
    limit = COMPLEX_TOLERANCE * scale
    failure = _failure(path, indices, backward, exact, limit, "complex step")
    complex_error = float(np.abs(backward - exact).max(initial=0.0) / scale) if scale else 0.0
    difference_error = None
    if differences:
        numeric = _differences(linearised, path, indices, backward)
        limit = _difference_limit(numeric)
        failure = failure or _failure(path, indices, backward, numeric, limit, "the difference")
        difference_error = float(np.abs(backward - numeric).max(initial=0.0))
    return BlockResult(path, len(indices), complex_error, difference_error, failure)


def _differences(
    linearised: Linearised, path: str, indices: list[Index], backward: np.ndarray
) -> np.ndarray:
    """Differences of order 2, and of order 4 wherever those are not clearly with the backward.

    What order 2 lets pass, it lets pass at a hundredth of the limit; nothing is rejected on its
    word.
    """
    f, tree = linearised.function, linearised.inputs
    numeric = central_differences(f, tree, path, indices, order=2)
    unsure = ~(np.abs(backward - numeric) <= CONTENT * _difference_limit(numeric))
    asked = [index for index, again in zip(indices, unsure, strict=True) if again]
    numeric[unsure] = central_differences(f, tree, path, asked)
    return numeric


def _difference_limit(numeric: np.ndarray) -> float:
    return DIFFERENCE_TOLERANCE * max(1.0, float(np.abs(numeric).max(initial=0.0)))


def check_directions(case: Case, rng: np.random.Generator) -> GradientReport:
    """Check <gradient, direction> of every array of a case for one direction of +-1 by ``rng``.

    One forward pass per array: for models of full size, where checking every entry is too slow.
    It says which array is wrong, but not which entry, and a single wrong entry in a large array
    can hide behind the sum.

    The two must agree to 1e-12 of the array's gradient as a vector, |g|_2: a sum with random signs
    is about as large as that, whatever its own value happens to be.  Where |g|_2 is far below that
    of the largest array, a thousandth of the latter counts: what is left of terms that cancel has
    no more digits than they have.
    """
    linearised = linearise(case, rng)
    inputs, grads = tree_flatten(linearised.inputs), tree_flatten(linearised.grads)
    broken = tuple(_structure_failures(inputs, grads))
    if broken:
        return GradientReport(case.name, broken)
    exact, backward, size = {}, {}, {}
    for path, leaf in inputs.items():
        direction = rng.choice([-1.0, 1.0], size=leaf.shape)
        exact[path] = directional_complex_step(
            linearised.function, linearised.inputs, path, direction
        )
        backward[path] = float((grads[path] * direction).sum())
        # A backward that is wrongly zero is measured against what it should be.
        size[path] = max(float(np.linalg.norm(grads[path])), abs(exact[path]))
    least = SMALL_BLOCK * max((s for s in size.values() if np.isfinite(s)), default=0.0)
    return GradientReport(
        case.name,
        tuple(
            _compare_direction(path, leaf.size, backward[path], exact[path], max(size[path], least))
            for path, leaf in inputs.items()
        ),
    )


def _compare_direction(
    path: str, n_entries: int, backward: float, exact: float, scale: float
) -> BlockResult:
    error = abs(backward - exact) / scale if scale else 0.0
    failure = None
    if not error <= COMPLEX_TOLERANCE:  # a NaN is wrong
        failure = (
            f"d/d{path} along a random direction: backward gives {backward:+.2e}, complex "
            f"step gives {exact:+.2e} (limit {COMPLEX_TOLERANCE * scale:.1e})"
        )
    return BlockResult(path, n_entries, error, None, failure)
