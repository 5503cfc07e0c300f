"""A training step and a prediction in PyTorch, as a dump that can be compared with a case.

PyTorch is imported where it is used: the package does not need it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from midpg_np.verify.case import StepCase
from midpg_np.verify.files import Dumped, as_dumped
from midpg_np.verify.longhand.adam import EPSILON, LEARNING_RATE
from midpg_np.verify.names import TEMPLATES, NameMap, closest
from midpg_np.verify.outcome import ADJOINT, NEXT, SERVING
from midpg_np.verify.torch_params import shares
from midpg_np.verify.torch_subject import TRAINING_ONLY, FunctionSubject, Pass, Subject, read


def input_tensors(case: StepCase, dtype: Any, device: Any) -> dict[str, Any]:
    """Return the batch of a case as tensors; integers stay 64 bits wide."""
    import torch

    found = {name: torch.as_tensor(array, device=device) for name, array in case.inputs.items()}
    return {k: x.to(dtype) if x.is_floating_point() else x for k, x in found.items()}


def serving_inputs(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a prediction has."""
    return {name: tensor for name, tensor in inputs.items() if name not in TRAINING_ONLY}


def joint_loss(
    recorded: Pass, case: StepCase, places: NameMap, inputs: Mapping[str, Any]
) -> tuple[Any, list[str]]:
    """Return the loss, formed from its terms unless it is there, and what was missing for it.

    Raises
    ------
    ValueError
        If there is neither a loss nor a logit, or if the loss is not one number that depends on
        parameters.
    """
    from torch.nn.functional import binary_cross_entropy_with_logits

    problems: list[str] = []
    loss = read(recorded, places, "loss")
    if loss is None:
        loss, logit = read(recorded, places, "ce"), read(recorded, places, "logit")
        if loss is None and logit is None:
            raise ValueError(f"the call returned {sorted(recorded)}; expected a logit or a loss.")
        if loss is None:
            label = inputs["label"].to(logit.dtype)
            loss = binary_cross_entropy_with_logits(logit.reshape(label.shape), label)
        for term, weight in case.model.auxiliary_weights.items():
            value = read(recorded, places, term)
            if value is not None:
                loss = loss + weight * value
            elif term in case.arrays and weight:
                problems.append(f"the term {term!r} is missing: the loss was formed without it.")
    if loss.numel() != 1:
        raise ValueError(f"the loss has shape {tuple(loss.shape)}; expected one number.")
    if not loss.requires_grad:
        raise ValueError("the loss depends on no parameter: it was computed without gradients.")
    return loss.reshape(()), problems


def take_step(
    subject: Subject, case: StepCase, inputs: Mapping[str, Any], *, optimizer: bool
) -> tuple[dict[str, Dumped], list[str]]:
    """Run a training step; return its numbers under the names of the dump, and what is wrong.

    Parameters
    ----------
    subject : ModuleSubject or FunctionSubject
        In training mode; its parameters are changed.
    case : StepCase
    inputs : mapping
        The batch as tensors.
    optimizer : bool
        Whether Adam takes a step.
    """
    import torch

    tensors = subject.tensors()
    start = {path: tensor.detach().clone() for path, tensor in tensors.items()}
    recorded = subject(inputs)
    _check_called(recorded, subject.places, tensors, case)
    loss, problems = joint_loss(recorded, case, subject.places, inputs)
    subject.look_at(loss)
    loss.backward()
    for tensor in tensors.values():
        if tensor.grad is not None and tensor.grad.is_sparse:
            tensor.grad = tensor.grad.to_dense()
    if optimizer:
        torch.optim.Adam(subject.parameters(), lr=LEARNING_RATE, eps=EPSILON).step()
    end = subject.tensors()  # looked up again: state may have been replaced
    dump = _passed(recorded, case, subject.places)
    dump |= _parameters(subject, case.params, tensors, start, end if optimizer else None)
    dump |= _state(subject, case.state, start, end)
    problems += _idle(subject, case, tensors, start, end if optimizer else None)
    return dump, problems + subject.problems


def _check_called(
    recorded: Pass, places: NameMap, tensors: Mapping[str, Any], case: StepCase
) -> None:
    """Raise ValueError for a name in the map that is neither a parameter nor came out."""
    for name, place in places.places.items():
        is_derived = name.startswith((ADJOINT, NEXT, SERVING))
        for source in place.sources:
            if not is_derived and source not in recorded and source not in tensors:
                known = [*recorded, *tensors]
                raise ValueError(
                    f"{name} is mapped to {source!r}, which is no parameter, was not returned, "
                    f"and is no submodule that was called.{closest(source, known)}"
                )


def _passed(recorded: Pass, case: StepCase, places: NameMap) -> dict[str, Dumped]:
    """Return values, and the gradients of those that have one in the case."""
    differentiable = {
        source
        for name in case.arrays
        if ADJOINT + name in case.arrays
        for source in places.place(name).sources
    }
    dump = {source: dumped(source, record.value) for source, record in recorded.items()}
    for source, record in recorded.items():
        if source in differentiable and record.gradient is not None:
            dump[derived(places, ADJOINT, source)] = dumped(source, record.gradient)
    return dump


def _parameters(
    subject: Subject,
    names: Iterable[str],
    tensors: Mapping[str, Any],
    start: Mapping[str, Any],
    end: Mapping[str, Any] | None,
) -> dict[str, Dumped]:
    """Return parameters, their gradients, and what they are after the step."""
    import torch

    dump, places = {}, subject.places
    for path in (path for name in names for path in places.place(name).sources):
        gradient = tensors[path].grad
        gradient = torch.zeros_like(start[path]) if gradient is None else gradient
        dump[path] = dumped(path, start[path])
        dump[derived(places, ADJOINT, path)] = dumped(path, gradient)
        if end is not None:
            dump[derived(places, NEXT, path)] = dumped(path, end[path])
    return dump


def _state(
    subject: Subject, names: Iterable[str], start: Mapping[str, Any], end: Mapping[str, Any]
) -> dict[str, Dumped]:
    """Return state before and after the step; a function must return what it moves."""
    dump, places = {}, subject.places
    for path in (path for name in names for path in places.place(name).sources):
        dump[path] = dumped(path, start[path])
        if not isinstance(subject, FunctionSubject):
            dump[derived(places, NEXT, path)] = dumped(path, end[path])
    return dump


def _idle(
    subject: Subject,
    case: StepCase,
    tensors: Mapping[str, Any],
    start: Mapping[str, Any],
    end: Mapping[str, Any] | None,
) -> list[str]:
    """Return a sentence for each parameter without gradient, or that does not move."""
    problems, registered = [], {id(tensor) for tensor in subject.parameters()}
    for name in case.params:
        place = subject.places.place(name)
        shapes = [tuple(tensors[path].shape) for path in place.sources]
        due = shares(place, shapes, case.arrays[ADJOINT + name])
        # One source may be right to get nothing: that of a scenario without rows.
        for path in (path for path, part in zip(place.sources, due, strict=True) if part.any()):
            tensor = tensors[path]
            if tensor.grad is None or not bool(tensor.grad.any()):
                why = (
                    "it is detached, or not used"
                    if tensor.requires_grad
                    else "requires_grad is False"
                )
                problems.append(f"{path} receives no gradient, though it should as {name}: {why}.")
            elif end is not None and id(tensor) in registered:
                if bool((end[path] == start[path]).all()):
                    problems.append(f"{path} does not move in a step of Adam, though it should.")
    return list(dict.fromkeys(problems))


def dumped(name: str, tensor: Any) -> Dumped:
    """Return a tensor as a dump holds it."""
    return as_dumped(name, tensor.detach().cpu().numpy())


def derived(places: NameMap, prefix: str, source: str) -> str:
    """Return the name of a gradient, a next value or a prediction in the dump."""
    kind = next(kind for kind, known in TEMPLATES.items() if known == prefix)
    return places.templates[kind].replace("{name}", source)


def predict(subject: Subject, inputs: Mapping[str, Any]) -> tuple[np.ndarray, dict[str, Dumped]]:
    """Return the logits of a prediction, and the same as a dump holds it.

    Raises
    ------
    ValueError
        If no logit comes out.
    """
    import torch

    places = subject.places
    with torch.no_grad():
        recorded = subject(inputs)
        logit = read(recorded, places, "logit")
    if logit is None:
        raise ValueError(f"a prediction returned {sorted(recorded)}; expected a logit.")
    sources, targets = (places.place(name).sources for name in ("logit", SERVING + "logit"))
    pairs = zip(sources, targets, strict=False)
    dump = {target: dumped(target, recorded[source].value) for source, target in pairs}
    return logit.cpu().numpy(), dump
