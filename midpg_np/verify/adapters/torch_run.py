"""A training step and a prediction in PyTorch, as a dump that can be compared with a case.

PyTorch is imported where it is used: the package does not need it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from midpg_np.verify.adapters.common import (
    check_mapped,
    derived,
    differentiable_sources,
    joint_loss,
    serving_sources,
)
from midpg_np.verify.adapters.params import NO_GRADIENT, NOT_MOVED, sources_with_gradient
from midpg_np.verify.adapters.torch_subject import FunctionSubject, Pass, Subject, read
from midpg_np.verify.case import StepCase
from midpg_np.verify.files import Dumped, as_dumped
from midpg_np.verify.longhand.adam import EPSILON, LEARNING_RATE
from midpg_np.verify.names import NameMap
from midpg_np.verify.outcome import ADJOINT, NEXT


def input_tensors(case: StepCase, dtype: Any, device: Any) -> dict[str, Any]:
    """Return the batch of a case as tensors; integers stay 64 bits wide."""
    import torch

    found = {name: torch.as_tensor(array, device=device) for name, array in case.inputs.items()}
    return {k: x.to(dtype) if x.is_floating_point() else x for k, x in found.items()}


def loss_of(
    recorded: Pass, case: StepCase, places: NameMap, inputs: Mapping[str, Any]
) -> tuple[Any, list[str]]:
    """Return the loss, formed from its terms unless it is there, and what was missing for it.

    Raises
    ------
    ValueError
        As ``joint_loss``; also if the loss depends on no parameter.
    """
    from torch.nn.functional import binary_cross_entropy_with_logits

    def cross_entropy(logit: Any) -> Any:
        label = inputs["label"].to(logit.dtype)
        return binary_cross_entropy_with_logits(logit.reshape(label.shape), label)

    loss, problems = joint_loss(
        lambda name: read(recorded, places, name), case, recorded, cross_entropy
    )
    if not loss.requires_grad:
        raise ValueError("the loss depends on no parameter: it was computed without gradients.")
    return loss, problems


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
    known = [*recorded, *tensors]
    check_mapped(subject.places, known, "is no submodule that was called")
    loss, problems = loss_of(recorded, case, subject.places, inputs)
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


def _passed(recorded: Pass, case: StepCase, places: NameMap) -> dict[str, Dumped]:
    """Return values, and the gradients of those that have one in the case."""
    differentiable = differentiable_sources(case, places)
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
    shapes = {path: tuple(tensor.shape) for path, tensor in tensors.items()}
    for name, path in sources_with_gradient(case, subject.places, list(case.params), shapes):
        tensor = tensors[path]
        if tensor.grad is None or not bool(tensor.grad.any()):
            is_cut = tensor.requires_grad
            why = "it is detached, or not used" if is_cut else "requires_grad is False"
            problems.append(NO_GRADIENT.format(path=path, name=name, why=why))
        elif end is not None and id(tensor) in registered:
            if bool((end[path] == start[path]).all()):
                problems.append(NOT_MOVED.format(path, "Adam"))
    return list(dict.fromkeys(problems))


def dumped(name: str, tensor: Any) -> Dumped:
    """Return a tensor as a dump holds it."""
    return as_dumped(name, tensor.detach().cpu().numpy())


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
    dump = {
        target: dumped(target, recorded[source].value) for source, target in serving_sources(places)
    }
    return logit.cpu().numpy(), dump
