"""Parameters of a case in a PyTorch module: where they are, writing them there, what is left over.

PyTorch is imported where it is used: the package does not need it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from midpg_np.verify.adapters.params import Arrays, Placement, written
from midpg_np.verify.case import StepCase
from midpg_np.verify.names import NameMap

NOT_REGISTERED = (
    "{0} is not among module.parameters(): no optimiser moves it and state_dict() does not hold "
    "it; keep modules in nn.ModuleList or nn.ModuleDict, tensors as nn.Parameter."
)
BUFFER = "{0} is a buffer that requires a gradient: no optimiser moves it; make it an nn.Parameter."
PLAIN_STATE = "{0} is a plain attribute: state_dict() does not hold it; use register_buffer."


def registered_tensors(module: Any) -> dict[str, Any]:
    """Return parameters and buffers by path; a tensor that has several paths has them all."""
    found = dict(module.named_parameters(remove_duplicate=False))
    return found | dict(module.named_buffers(remove_duplicate=False))


def plain_tensors(module: Any) -> dict[str, Any]:
    """Return the tensors in plain attributes, which ``state_dict()`` does not hold, by path.

    Lists, tuples, dictionaries and the modules in them are searched.
    """
    registered = {id(tensor) for tensor in registered_tensors(module).values()}
    seen = {id(part) for part in module.modules()}
    found = _in_attributes(module, seen)
    return {path: tensor for path, tensor in found if id(tensor) not in registered}


def named_tensors(module: Any) -> dict[str, Any]:
    """Return all tensors of a module by path."""
    return plain_tensors(module) | registered_tensors(module)


def _in_attributes(module: Any, seen: set[int]) -> Iterator[tuple[str, Any]]:
    import torch

    of_torch = vars(torch.nn.Module()).keys()
    for path, part in module.named_modules():
        for key, value in vars(part).items():
            if key not in of_torch:
                yield from _tensors_in(f"{path}.{key}" if path else key, value, seen)


def _tensors_in(path: str, value: Any, seen: set[int]) -> Iterator[tuple[str, Any]]:
    import torch

    if isinstance(value, torch.Tensor):
        yield path, value
    elif isinstance(value, torch.nn.Module):
        if id(value) in seen:  # a way back to a module that is registered
            return
        seen.update(id(part) for part in value.modules())
        for name, tensor in (*registered_tensors(value).items(), *_in_attributes(value, seen)):
            yield f"{path}.{name}", tensor
    elif isinstance(value, (list, tuple, Mapping)):
        pairs = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, inner in pairs:
            yield from _tensors_in(f"{path}.{key}", inner, seen)


def load_into(
    module: Any, case: StepCase, places: NameMap, ignore: Sequence[str] = ()
) -> list[str]:
    """Write a case's parameters and state into a module; return what is wrong with the module.

    Raises
    ------
    ValueError
        If a parameter has no place in the module, or does not fit there.
    """
    tensors = named_tensors(module)
    placement = Placement(case, places, _as_arrays(tensors))
    for name, (paths, where) in placement.entries.items():
        _write([tensors[path] for path in paths], where, case.arrays[name])
    plain = plain_tensors(module)
    problems = placement.problems + [
        (PLAIN_STATE if name in case.state else NOT_REGISTERED).format(path)
        for name, (paths, _) in placement.entries.items()
        for path in paths
        if path in plain
    ]
    learning = [path for path, _ in module.named_parameters()]
    return list(dict.fromkeys(problems)) + placement.left_over(learning, ignore)


def _as_arrays(tensors: Mapping[str, Any]) -> Arrays:
    shapes = {path: tuple(tensor.shape) for path, tensor in tensors.items()}
    keys = {path: id(tensor) for path, tensor in tensors.items()}
    return Arrays(shapes, keys, "the module", "parameter or buffer", "tensor")


def _write(tensors: Sequence[Any], where: np.ndarray, array: np.ndarray) -> None:
    """Write an array to its positions in some tensors."""
    import torch

    parts = written([tensor.detach().cpu().numpy() for tensor in tensors], where, array)
    with torch.no_grad():
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(torch.as_tensor(part))
