"""What is run for a comparison with PyTorch: a module or a function, and what comes out of it.

PyTorch is imported where it is used: the package does not need it.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from midpg_np.verify.adapters.common import (
    TRAINING_ONLY,
    called_with,
    mapped_sources,
    named_results,
    prediction_needs,
    quantity,
)
from midpg_np.verify.adapters.torch_params import (
    BUFFER,
    NOT_REGISTERED,
    named_tensors,
    registered_tensors,
)
from midpg_np.verify.names import NameMap

CALL_NUMBER = re.compile(r"(.*)\[(\d+)\]")  # "disc[1]" is what disc put out in its second call
Call = Callable[[Any, dict[str, Any]], Any]


class Recorded:
    """A tensor of a pass: itself, its value then, and its gradient once there is one.

    The value is copied and the gradient caught by a hook, because an operation in place that comes
    later changes the tensor, and what it would keep as its gradient.
    """

    def __init__(self, tensor: Any) -> None:
        self.tensor, self.value, self.gradient = tensor, tensor.detach().clone(), None
        if tensor.requires_grad:
            tensor.register_hook(self._keep)

    def _keep(self, gradient: Any) -> None:
        self.gradient = gradient.detach().clone()


Pass = dict[str, Recorded]


@dataclass
class ModuleSubject:
    """A module that holds the numbers of a case, and how it is called.

    Parameters
    ----------
    module
        A copy that may be changed.
    original
        The module that it is a copy of.
    call : callable
        ``call(module, inputs)``.
    places : NameMap
    problems : list of str
        What running it has shown.
    """

    module: Any
    original: Any
    call: Call
    places: NameMap
    problems: list[str] = field(default_factory=list)

    def __call__(self, inputs: Mapping[str, Any]) -> Pass:
        """Run the module and return what it returns and what its submodules put out."""
        before = {path: part.training for path, part in self.module.named_modules()}
        with recorded_outputs(self.module, self.places) as outputs:
            returned, changed = called(lambda given: self.call(self.module, given), inputs)
        self.problems += changed
        for path, part in self.module.named_modules():
            if part.training != before.get(path, part.training):
                mode = "train" if part.training else "eval"
                self.problems.append(f"a call leaves {path or 'the module'} in {mode}() mode.")
        return picked(outputs, self.places) | as_named(returned, self.places)

    def tensors(self) -> dict[str, Any]:
        """Return parameters and state by path."""
        return named_tensors(self.module)

    def parameters(self) -> list[Any]:
        """Return what an optimiser is given."""
        return list(self.module.parameters())

    def look_at(self, loss: Any) -> None:
        """Find what a loss depends on and no optimiser knows.

        Raises
        ------
        ValueError
            If another module than the copy was called.
        """
        known = {id(tensor) for tensor in self.module.parameters()}
        paths = {id(tensor): path for path, tensor in self.tensors().items()}
        buffers = registered_tensors(self.module)
        originals = {id(tensor) for tensor in named_tensors(self.original).values()}
        for leaf in leaves(loss):
            if id(leaf) in originals:
                raise ValueError(
                    "call(module, inputs) must call the module that it is given, which holds the "
                    "numbers of the case; it called another."
                )
            if id(leaf) not in known:
                path = paths.get(id(leaf), f"a tensor of shape {tuple(leaf.shape)} in the loss")
                sentence = BUFFER if path in buffers else NOT_REGISTERED
                self.problems.append(sentence.format(path))


@dataclass
class FunctionSubject:
    """A function ``f(params, inputs)`` with the numbers of a case.

    Parameters
    ----------
    function : callable
    values : dict
        Parameters and state by the case's names.
    places : NameMap
    options : dict
        "training", if the function takes it.
    """

    function: Callable[..., Any]
    values: dict[str, Any]
    places: NameMap
    options: dict[str, bool]
    problems: list[str] = field(default_factory=list)

    def __call__(self, inputs: Mapping[str, Any]) -> Pass:
        """Run the function and return what it returns."""
        returned, changed = called(
            lambda given: self.function(self.values, given, **self.options), inputs
        )
        self.problems += changed
        return as_named(returned, self.places)

    def tensors(self) -> dict[str, Any]:
        """Return parameters and state by name."""
        return self.values

    def parameters(self) -> list[Any]:
        """Return what an optimiser is given."""
        return [tensor for tensor in self.values.values() if tensor.requires_grad]

    def look_at(self, loss: Any) -> None:
        """Find nothing: a function has no place to register anything."""


Subject = ModuleSubject | FunctionSubject


def forward_call(module: Any, inputs: Mapping[str, Any]) -> Any:
    """Call a module with those of the inputs that its ``forward`` takes.

    Raises
    ------
    ValueError
        If ``forward`` needs something else.
    PredictionInputError
        If it needs what a prediction does not have.
    """
    accepted = inspect.signature(module.forward).parameters.values()
    takes_all = any(p.kind is p.VAR_KEYWORD for p in accepted)
    names = {p.name for p in accepted}
    who = f"forward of {type(module).__name__}"
    for p in accepted:
        if p.default is not p.empty or p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
            continue
        if p.name in TRAINING_ONLY and p.name not in inputs:
            raise prediction_needs(who, p.name)
        if p.name not in inputs:
            raise ValueError(
                f"{who} needs {p.name!r}; a case has {list(inputs)}. Give call=lambda module, "
                "inputs: ... that passes on what it needs."
            )
    return module(**{k: tensor for k, tensor in inputs.items() if k in names or takes_all})


def called(
    call: Callable[[dict[str, Any]], Any], inputs: Mapping[str, Any]
) -> tuple[Any, list[str]]:
    """Call with a copy of the inputs; return what came out, and which inputs were changed.

    Raises
    ------
    PredictionInputError
        If a prediction asks for what only training has.
    """
    import torch

    given = {name: tensor.clone() for name, tensor in inputs.items()}
    with called_with(inputs):
        returned = call(dict(given))
    changed = [name for name, tensor in given.items() if not torch.equal(tensor, inputs[name])]
    return returned, [
        f"a call changes {name!r} in place: the batch is another now." for name in changed
    ]


def as_named(returned: Any, places: NameMap) -> Pass:
    """Return what came out by name, see ``named_results``."""
    import torch

    found = named_results(returned, places, torch.Tensor, "tensors", torch.as_tensor)
    return {key: Recorded(tensor) for key, tensor in found.items()}


@contextmanager
def recorded_outputs(module: Any, places: NameMap) -> Iterator[dict[str, list[Recorded]]]:
    """Record, call by call, the outputs of the submodules that a map speaks of."""
    parts = dict(module.named_modules(remove_duplicate=False))
    outputs: dict[str, list[Recorded]] = {}
    for source in mapped_sources(places):
        numbered = CALL_NUMBER.fullmatch(source)
        name = numbered[1] if numbered and source not in parts else source
        if name in parts:
            outputs[name] = []
    handles = [
        parts[name].register_forward_hook(_recorder(name, into)) for name, into in outputs.items()
    ]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def _recorder(name: str, into: list[Recorded]) -> Callable[[Any, Any, Any], None]:
    import torch

    def record(_: Any, inputs: Any, output: Any) -> None:
        if not isinstance(output, torch.Tensor):
            raise ValueError(
                f"the submodule {name!r} returns a {type(output).__name__}; only one that returns "
                "a tensor can be in the map."
            )
        into.append(Recorded(output))

    return record


def picked(outputs: Mapping[str, Sequence[Recorded]], places: NameMap) -> Pass:
    """Return the outputs that a map means, by the names that it gives them.

    Raises
    ------
    ValueError
        If a name without number means a submodule that is called several times.
    """
    wanted = mapped_sources(places)
    found: Pass = {}
    for name, outs in outputs.items():
        if name in wanted and len(outs) > 1:
            numbered = [f"{name}[{i}]" for i in range(len(outs))]
            raise ValueError(
                f"the submodule {name!r} is called {len(outs)} times; map one of {numbered}."
            )
        for i, out in enumerate(outs):
            found |= {key: out for key in (name, f"{name}[{i}]") if key in wanted}
    return found


def read(recorded: Pass, places: NameMap, name: str) -> Any:
    """Return a quantity of the case as a tensor that autograd follows; None if it is not there."""
    import torch

    tensors = {source: record.tensor for source, record in recorded.items()}
    return quantity(tensors, places, name, torch.cat)


def leaves(loss: Any) -> list[Any]:
    """Return the tensors at the end of a loss's graph, to which gradients are added."""
    found: dict[int, Any] = {}
    seen, stack = set(), [loss.grad_fn]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if type(node).__name__ == "AccumulateGrad":
            found[id(node.variable)] = node.variable
        stack.extend(inner for inner, _ in node.next_functions)
    return list(found.values())
