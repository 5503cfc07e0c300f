"""A training step and a prediction in JAX, as a dump that can be compared with a case.

JAX is imported where it is used: the package does not need it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from midpg_np.verify.adapters.common import (
    TOLERANCES,
    PredictionInputError,
    check_mapped,
    derived,
    differentiable_sources,
    joint_loss,
    serving_inputs,
    serving_sources,
)
from midpg_np.verify.adapters.jax_probes import (
    UNUSED_TAP,
    Traced,
    first_line,
    narrow,
    not_repeated,
    other_in_jit,
)
from midpg_np.verify.adapters.jax_subject import Pass, Subject, read
from midpg_np.verify.adapters.jax_tree import by_path
from midpg_np.verify.adapters.params import NO_GRADIENT, NOT_MOVED, sources_with_gradient
from midpg_np.verify.adapters.probes import prediction_problems
from midpg_np.verify.case import StepCase
from midpg_np.verify.files import Dumped, as_dumped
from midpg_np.verify.longhand.adam import adam_step
from midpg_np.verify.outcome import ADJOINT, NEXT

Arrays = dict[str, Any]
Found = tuple[dict[str, Dumped], list[str]]


@dataclass(frozen=True)
class Run:
    """A function with all that it is given.

    Parameters
    ----------
    subject : Subject
    case : StepCase
    arrays : dict
        Parameters and state by path, the case's numbers in them.
    inputs : dict
        The batch.
    dtype : str
    """

    subject: Subject
    case: StepCase
    arrays: Arrays
    inputs: Arrays
    dtype: str

    @property
    def learning(self) -> Arrays:
        """What a gradient is taken of."""
        return {path: self.arrays[path] for path in self._sources(list(self.case.params))}

    @property
    def state(self) -> Arrays:
        """What is kept beside the parameters."""
        return {path: self.arrays[path] for path in self._sources(list(self.case.state))}

    def _sources(self, names: Sequence[str]) -> list[str]:
        place = self.subject.places.place
        return list(dict.fromkeys(path for name in names for path in place(name).sources))

    def loss(self, done: Pass, inputs: Mapping[str, Any]) -> tuple[Any, list[str]]:
        """Return the loss of a call, and what was missing for it."""
        import jax.numpy as jnp

        def cross_entropy(logit: Any) -> Any:
            label = inputs["label"]
            z = logit.reshape(label.shape)
            return jnp.mean(jnp.logaddexp(0.0, z) - label * z)

        places = self.subject.places
        return joint_loss(
            lambda name: read(done.found, places, name), self.case, done.found, cross_entropy
        )

    def differentiated(self) -> Callable[..., Any]:
        """Return loss and numbers, and the gradients of parameters and probes, as a function."""
        import jax

        def loss(learning: Arrays, probes: Arrays, rest: Arrays, inputs: Arrays) -> Any:
            done = self.subject(rest | learning, inputs, training=True, probes=probes)
            return self.loss(done, inputs)[0], done

        return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)


def as_jax(arrays: Mapping[str, np.ndarray], dtype: str) -> Arrays:
    """Return arrays as JAX's, floats in the format of the run."""
    import jax.numpy as jnp

    return {
        name: jnp.asarray(array.astype(dtype) if array.dtype.kind == "f" else array)
        for name, array in arrays.items()
    }


def take_step(run: Run, optimizer: Any) -> Found:
    """Run a training step; return its numbers under the names of the dump, and what is wrong.

    Raises
    ------
    ValueError
        If what comes out cannot be compared or differentiated.
    """
    import jax

    plain = run.subject(run.arrays, run.inputs, training=True)
    check_mapped(run.subject.places, [*plain.found, *run.arrays], "was not tapped")
    _, problems = run.loss(plain, run.inputs)
    again = run.subject(run.arrays, run.inputs, training=True)
    random = not_repeated("training", plain.found, again.found)
    problems += random + narrow(plain.found, run.dtype)
    step = Traced(run.differentiated())
    args = (run.learning, probes_of(run, plain.tapped), run.arrays, run.inputs)
    try:
        (loss, done), (of_params, of_probes) = jax.device_get(step(*args))
    except Exception as error:  # it ran twice without being differentiated
        raise ValueError(f"jax.grad cannot differentiate it: {first_line(error)}") from error
    problems += step.problems
    if not random:
        problems += other_in_jit("training", plain.found, done.found, TOLERANCES[run.dtype])
    unused = unused_taps(
        run, of_probes, lambda probes: step(args[0], probes, *args[2:])[0][0], loss
    )
    problems += [UNUSED_TAP.format(name) for name in unused]
    of_probes = {name: gradient for name, gradient in of_probes.items() if name not in unused}
    end = moved(run, of_params, optimizer)
    problems += idle(run, of_params, end)
    return _dump(run, done, of_params, of_probes, end), problems


def probes_of(run: Run, tapped: Mapping[str, Any]) -> Arrays:
    """Return zeros to be added to the intermediates that have a gradient in the case."""
    import jax.numpy as jnp

    wanted = differentiable_sources(run.case, run.subject.places)
    return {
        name: np.zeros(x.shape, x.dtype)
        for name, x in tapped.items()
        if name in wanted and jnp.issubdtype(x.dtype, jnp.floating)
    }


def unused_taps(
    run: Run, gradients: Arrays, loss_with: Callable[[Arrays], Any], loss: Any
) -> list[str]:
    """Return the intermediates of which a call goes on with what it had before it tapped them.

    What is added to such a one does not reach the loss.  It does where a gradient is stopped.
    """
    case, places = run.case, run.subject.places
    shapes = {name: gradient.shape for name, gradient in gradients.items()}
    names = [
        name
        for name in case.arrays
        if ADJOINT + name in case.arrays and shapes.keys() >= set(places.place(name).sources)
    ]
    due = {source for _, source in sources_with_gradient(case, places, names, shapes)}
    zeros = {name: np.zeros_like(gradient) for name, gradient in gradients.items()}
    return [
        name
        for name, gradient in gradients.items()
        if name in due
        and not np.any(gradient)
        and loss_with(zeros | {name: np.ones_like(gradient)}) == loss
    ]


def moved(run: Run, gradients: Arrays, optimizer: Any) -> dict[str, np.ndarray]:
    """Return the parameters after a step of the optimiser, or of Adam as the case has it."""
    if optimizer is None:
        return {
            path: adam_step(np.asarray(x), np.asarray(gradients[path]))
            for path, x in run.learning.items()
        }
    tree = run.subject.tree
    params = tree.only(run.learning)
    updates, _ = optimizer.update(tree.only(gradients), optimizer.init(params), params)
    by_its_path, _ = by_path(updates)
    return {path: np.asarray(x) + np.asarray(by_its_path[path]) for path, x in run.learning.items()}


def idle(run: Run, gradients: Arrays, end: Mapping[str, np.ndarray]) -> list[str]:
    """Return a sentence for each parameter without gradient, or that does not move."""
    problems = []
    shapes = {path: x.shape for path, x in run.arrays.items()}
    places, names = run.subject.places, list(run.case.params)
    for name, path in sources_with_gradient(run.case, places, names, shapes):
        if not np.any(gradients[path]):
            why = "it is stopped, or not used"
            problems.append(NO_GRADIENT.format(path=path, name=name, why=why))
        elif np.array_equal(end[path], run.arrays[path]):
            problems.append(NOT_MOVED.format(path, "the optimizer"))
    return problems


def _dump(
    run: Run, done: Pass, of_params: Arrays, of_probes: Arrays, end: Mapping[str, np.ndarray]
) -> dict[str, Dumped]:
    places, found = run.subject.places, done.found
    dump = {name: dumped(name, x) for name, x in found.items()}
    for name, gradient in of_probes.items():
        # A logit (B, 1) has become (B,) since it was tapped.
        is_same = gradient.size == found[name].size
        gradient = gradient.reshape(found[name].shape) if is_same else gradient
        dump[derived(places, ADJOINT, name)] = dumped(name, gradient)
    dump |= {path: dumped(path, x) for path, x in (run.learning | run.state).items()}
    for prefix, arrays in ((ADJOINT, of_params), (NEXT, end)):
        dump |= {derived(places, prefix, path): dumped(path, x) for path, x in arrays.items()}
    return dump


def dumped(name: str, array: Any) -> Dumped:
    """Return an array as a dump holds it."""
    dtype = array.dtype.name
    return as_dumped(name, array.astype(np.float32) if dtype == "bfloat16" else array, dtype)


def predict(run: Run) -> Found:
    """Run a prediction; return its numbers under the names of the dump, and what is wrong.

    Raises
    ------
    ValueError
        If no logit comes out.
    """
    given, places = serving_inputs(run.inputs), run.subject.places

    def call(
        arrays: Arrays, rows: Mapping[str, Any], probes: Arrays | None = None
    ) -> tuple[Any, Arrays]:
        found = run.subject(arrays, rows, training=False, probes=probes).found
        logit = read(found, places, "logit")
        if logit is None:
            raise ValueError(f"a prediction returned {sorted(found)}; expected a logit.")
        return logit, found

    try:
        plain, found = call(run.arrays, given)
    except PredictionInputError as error:
        return {}, [str(error)]
    dump = {target: dumped(target, found[source]) for source, target in serving_sources(places)}
    random = not_repeated("a prediction", {"logit": plain}, {"logit": call(run.arrays, given)[0]})
    if random:
        return dump, random
    traced, tolerance = Traced(call), TOLERANCES[run.dtype]
    whole, _ = traced(run.arrays, given, {})
    problems = other_in_jit("a prediction", {"logit": plain}, {"logit": whole}, tolerance)
    problems += prediction_problems(
        lambda rows: np.asarray(traced(run.arrays, rows, {})[0]),
        given,
        tolerance,
        "Keep nothing between calls.",
    )
    return dump, traced.problems + problems
