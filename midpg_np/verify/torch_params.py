"""Parameters of a case in a PyTorch module: where they are, writing them there, what is left over.

PyTorch is imported where it is used: the package does not need it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import numpy as np

from midpg_np.verify.case import StepCase
from midpg_np.verify.names import NameMap, Place, closest

NOT_REGISTERED = (
    "{0} is not among module.parameters(): no optimiser moves it and state_dict() does not hold "
    "it; keep modules in nn.ModuleList or nn.ModuleDict, tensors as nn.Parameter."
)
BUFFER = "{0} is a buffer that requires a gradient: no optimiser moves it; make it an nn.Parameter."
PLAIN_STATE = "{0} is a plain attribute: state_dict() does not hold it; use register_buffer."


class Claim(NamedTuple):
    """Which quantity of the case each entry of a tensor is: an index, -1 where none is."""

    path: str
    owners: np.ndarray


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


def positions(place: Place, shapes: Sequence[tuple[int, ...]]) -> np.ndarray:
    """Return where a quantity's entries are in its sources, flattened and one behind the other.

    Reading numbered entries instead of values turns ``Place.read`` round, whatever it does.
    """
    sizes = [int(np.prod(shape, dtype=int)) for shape in shapes]
    starts = np.cumsum([0, *sizes[:-1]])
    numbered = [
        np.arange(start, start + size).reshape(shape)
        for start, size, shape in zip(starts, sizes, shapes, strict=True)
    ]
    return place.read(numbered)


def shares(place: Place, shapes: Sequence[tuple[int, ...]], array: np.ndarray) -> list[np.ndarray]:
    """Return what of a quantity is in each of its sources, flattened; zero where nothing is."""
    sizes = [int(np.prod(shape, dtype=int)) for shape in shapes]
    flat = np.zeros(sum(sizes), array.dtype)
    flat[positions(place, shapes)] = array
    return np.split(flat, np.cumsum(sizes)[:-1])


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
    names = [*case.params, *case.state]
    claims: dict[int, Claim] = {}
    problems: list[str] = []
    for index, name in enumerate(names):
        place = places.place(name)
        sources = {path: _source(name, path, tensors, places) for path in place.sources}
        where = _checked_positions(name, place, sources, case.arrays[name].shape)
        _write(sources, where, case.arrays[name])
        problems += _claim(claims, index, sources, where, names)
    plain = plain_tensors(module)
    problems += [
        (PLAIN_STATE if name in case.state else NOT_REGISTERED).format(path)
        for name in names
        for path in places.place(name).sources
        if path in plain
    ]
    return list(dict.fromkeys(problems)) + _left_over(module, claims, ignore)


def _source(name: str, path: str, tensors: Mapping[str, Any], places: NameMap) -> Any:
    if path in tensors:
        return tensors[path]
    if name in places.places:
        raise ValueError(
            f"{name} is mapped to {path!r}, but the module has no such parameter or buffer."
            f"{closest(path, tensors)}"
        )
    raise ValueError(
        f"{name}, a parameter of the case, is not mapped, and the module has none of that name."
        f"{closest(name, tensors)}"
    )


def _checked_positions(
    name: str, place: Place, sources: Mapping[str, Any], want: tuple[int, ...]
) -> np.ndarray:
    shapes = [tuple(tensor.shape) for tensor in sources.values()]
    given = f"{', '.join(sources)} of shape {', '.join(map(str, shapes))}"
    try:
        where = positions(place, shapes)
    except (ValueError, IndexError) as error:
        raise ValueError(f"{name}: {place} does not fit {given} ({error}).") from error
    if where.shape != want:
        is_turned = where.ndim > 1 and np.swapaxes(where, -1, -2).shape == want
        hint = ": map it with transpose = true" if is_turned else ""
        raise ValueError(f"{name}: {given} gives {where.shape}; the case's has shape {want}{hint}.")
    return where


def _write(sources: Mapping[str, Any], where: np.ndarray, array: np.ndarray) -> None:
    """Write an array to its positions in some tensors."""
    import torch

    parts = [tensor.detach().cpu().numpy().ravel() for tensor in sources.values()]
    flat = np.concatenate(parts).astype(array.dtype)
    flat[where] = array
    cuts = np.cumsum([part.size for part in parts])[:-1]
    with torch.no_grad():
        for tensor, part in zip(sources.values(), np.split(flat, cuts), strict=True):
            tensor.copy_(torch.as_tensor(part).reshape(tensor.shape))


def _claim(
    claims: dict[int, Claim],
    index: int,
    sources: Mapping[str, Any],
    where: np.ndarray,
    names: Sequence[str],
) -> list[str]:
    """Note who owns the entries of each tensor; return a sentence for each that had an owner."""
    problems, start = [], 0
    for path, tensor in sources.items():
        fresh = Claim(path, np.full(tensor.numel(), -1))
        first, owners = claims.setdefault(id(tensor), fresh)
        mine = where[(where >= start) & (where < start + owners.size)] - start
        start += owners.size
        for other in np.unique(owners[mine]):
            if other >= 0:
                both = (
                    f"{first} and {path} are one tensor"
                    if first != path
                    else f"{path} is mapped twice"
                )
                problems.append(
                    f"{both}: it cannot be {names[other]} and {names[index]} of the case at once."
                )
        owners[mine] = index
    return problems


def _left_over(module: Any, claims: Mapping[int, Claim], ignore: Sequence[str]) -> list[str]:
    """Return a sentence for each parameter that the case does not fill."""
    problems = []
    for path, tensor in module.named_parameters():
        if any(fnmatchcase(path, pattern) for pattern in ignore):
            continue
        if id(tensor) not in claims:
            problems.append(f"{path} is not a parameter of the case.")
            continue
        free = np.flatnonzero(claims[id(tensor)].owners < 0)
        if free.size:
            place = tuple(int(i) for i in np.unravel_index(free[0], tuple(tensor.shape)))
            problems.append(
                f"{free.size} of {tensor.numel()} entries of {path} are in no parameter of the "
                f"case; the first is at {place}."
            )
    return problems
