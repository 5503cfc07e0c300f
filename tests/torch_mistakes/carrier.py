"""How the PyTorch reference carries a mistake, and a dump of one of its steps.

A mistake in a value is wrong PyTorch code that autograd differentiates.  A mistake in a gradient is
a tensor that is detached, or one of the helpers below.  The dump has the names of a case, so a step
of the reference can be compared with a step written out, number by number.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor
from torch_reference import blocks

from midpg_np.tree import tree_unflatten

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Carrier:
    """What to exchange in the reference.

    Parameters
    ----------
    patches : dict
        "torch_reference.<module>.<function>" -> replacement, installed while everything runs.
        A function is replaced wherever the reference imported it; to replace it in one model only,
        name the module that imported it.
    options : dict
        Values in which the reference's options shall differ from the model's.
    """

    patches: dict[str, object] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)


# --- wrong gradients ------------------------------------------------------------------------------


class _Changed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.change = change
        return x.clone()

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None]:
        return ctx.change(dy), None


def changed(x: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Return x for one of its readers, whose share of the gradient is changed on the way back."""
    return _Changed.apply(x, change)


def differentiated_as(value: Tensor, other: Tensor) -> Tensor:
    """Return a value with the gradient of another tensor, which adds an exact zero."""
    return value.detach() + (other - other.detach())


# --- the parts of a step that can be patched ------------------------------------------------------


def predict(
    reference: ModuleType, params: Any, rows: Any, options: Any, trace: Tensors, *, training: bool
) -> tuple[Tensor, Tensors]:
    """Return the logits (B,) and the auxiliary terms."""
    return reference.forward(params, rows, options, trace, training=training)


def step(leaves: Tensors) -> None:
    """Move the parameters, by path, in place: one step of Adam."""
    torch.optim.Adam(leaves.values(), lr=1e-3, foreach=False).step()


# --- a dump ---------------------------------------------------------------------------------------


def torch_dump(
    case: Any, carrier: Carrier | None = None, dtype: torch.dtype = torch.float64
) -> dict[str, np.ndarray]:
    """Run a step of the reference on the numbers of a case and return what a user would dump.

    Parameters
    ----------
    case : StepCase
        A case of the package.
    carrier : Carrier, optional
        A mistake.
    dtype : torch.dtype
        Precision of everything that is no integer.
    """
    carrier = carrier or Carrier()
    reference = import_module(f"torch_reference.{case.model_name}")
    options = SimpleNamespace(**(case.config | carrier.options))
    rows = SimpleNamespace(**({"partner": None} | _tensors(case.inputs, dtype)))
    leaves = {name: x.requires_grad_() for name, x in _tensors(case.params, dtype).items()}
    params = tree_unflatten(leaves | _tensors(case.state, dtype))
    weights = case.model.auxiliary_weights
    with _installed(carrier.patches):
        values = _values(reference, params, rows, options, weights)
        served, _ = predict(reference, params, rows, options, {}, training=False)
        differentiable = _retained(leaves | values)
        values["loss"].backward()
        found = dict(values)
        found |= {f"d.{name}": _gradient(x) for name, x in differentiable.items()}
        found["serving.logit"] = served
        dump = {name: _array(x) for name, x in found.items()}
        step(leaves)
    return dump | {f"next.{name}": _array(leaf) for name, leaf in leaves.items()}


def _values(
    reference: ModuleType, params: Any, rows: Any, options: Any, weights: Mapping[str, float]
) -> Tensors:
    """Return everything that the forward pass names, up to "loss"."""
    trace: Tensors = {}
    z, auxiliary = predict(reference, params, rows, options, trace, training=True)
    ce = blocks.cross_entropy(z, rows.label, "full")
    loss = blocks.joint_loss(ce, auxiliary, {name: weights[name] for name in auxiliary})
    return {**trace, "logit": z, **auxiliary, "ce": ce, "loss": loss}


def _tensors(arrays: Mapping[str, np.ndarray], dtype: torch.dtype) -> Tensors:
    """Copy arrays; integers keep their type."""
    return {
        name: torch.tensor(array, dtype=dtype if np.asarray(array).dtype.kind == "f" else None)
        for name, array in arrays.items()
    }


def _retained(tensors: Tensors) -> Tensors:
    """Make autograd keep the gradients of all that can have one, and return these tensors.

    What is kept for after the step ("next.") has none.
    """
    real = {
        name: x
        for name, x in tensors.items()
        if x.is_floating_point() and not name.startswith("next.")
    }
    for x in real.values():
        if x.requires_grad:
            x.retain_grad()
    return real


def _gradient(x: Tensor) -> Tensor:
    """Return the gradient that autograd left, zero where no path leads."""
    return torch.zeros_like(x) if x.grad is None else x.grad


def _array(x: Tensor) -> np.ndarray:
    return x.detach().numpy().copy()


@contextmanager
def _installed(patches: Mapping[str, object]) -> Iterator[None]:
    """Install replacements where the names stand, and where the reference imported them."""
    with ExitStack() as stack:
        for target, replacement in patches.items():
            path, name = target.rsplit(".", 1)
            module = import_module(path)
            original = getattr(module, name)
            places = [module]
            if getattr(original, "__module__", None) == path:
                places += _importers(name, original)
            for place in places:
                stack.enter_context(mock.patch.object(place, name, replacement))
        yield


def _importers(name: str, original: object) -> list[ModuleType]:
    """Return the reference's modules in which a name stands for an object of another module."""
    return [
        module
        for path, module in list(sys.modules.items())
        if path.startswith("torch_reference.")
        and path != getattr(original, "__module__", None)
        and vars(module).get(name) is original
    ]
