"""Check a PyTorch module, or a function of parameters, against a case in one call.

    report = check(module, case, {"layer_1.W": {"name": "layers.0.weight", "transpose": True}, ...})
    report.raise_if_wrong()

docs/verify-pytorch.md shows it from export to diagnosis.  PyTorch is imported where it is used.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from midpg_np.verify.adapters.common import (
    TOLERANCES,
    PredictionInputError,
    Report,
    check_dtype,
    serving_inputs,
)
from midpg_np.verify.adapters.probes import prediction_problems
from midpg_np.verify.adapters.torch_params import load_into
from midpg_np.verify.adapters.torch_probes import (
    copied,
    random_training,
    saving_problems,
)
from midpg_np.verify.adapters.torch_run import input_tensors, predict, take_step
from midpg_np.verify.adapters.torch_subject import (
    Call,
    FunctionSubject,
    ModuleSubject,
    Subject,
    forward_call,
)
from midpg_np.verify.case import StepCase
from midpg_np.verify.compare import compare
from midpg_np.verify.files import Dumped
from midpg_np.verify.names import NameMap, name_map

Found = tuple[dict[str, Dumped], list[str]]


def check(
    module_or_function: Any,
    case: StepCase,
    names: Mapping[str, Any] | str | Path | None = None,
    *,
    call: Call | None = None,
    ignore: Sequence[str] = (),
    optimizer: bool = True,
    dtype: str = "float64",
) -> Report:
    """Run a training step and a prediction of a case in PyTorch, and compare all numbers.

    A module is copied and never changed.  The copy gets the case's parameters and state; it is run
    in training mode, its loss differentiated, and its parameters moved by Adam with the learning
    rate of the case.  A second copy predicts, in eval mode.

    Parameters
    ----------
    module_or_function
        An ``nn.Module``; or ``f(params, inputs)``, with ``params`` a dictionary of tensors by the
        case's names, and a keyword ``training`` if predictions are to be checked.  State that a
        function moves is among what it returns ("next.norm.mean").
    case : StepCase
    names : mapping or path, optional
        Name map, see ``verify.names``: where the case's parameters, state and intermediates are.
        The name of a submodule means its output, "disc[1]" that of its second call.
    call : callable, optional
        ``call(module, inputs)`` returns the logit (B,) or (B, 1), or tensors by name, or a pair of
        the two.  Without "loss" among them, it is formed from the logit, or "ce", and the auxiliary
        terms.  By default ``forward`` is called with those of "codes", "scenario", "label" and
        "partner" that it takes.  A prediction has neither "label" nor "partner".
    ignore : sequence of str
        Patterns of names, of parameters and of what is returned, that mean nothing to the case.
    optimizer : bool
        Whether Adam takes a step.
    dtype : str
        "float64" or "float32"; the tolerances follow it.

    Raises
    ------
    ImportError
        If PyTorch is not installed.
    TypeError
        If it is neither a module nor a function.
    ValueError
        If a parameter of the case has no place in the module or does not fit there, or if what is
        returned cannot be compared.
    """
    torch = _import_torch()
    check_dtype(dtype)
    is_module = isinstance(module_or_function, torch.nn.Module)
    if not is_module and not callable(module_or_function):
        kind = type(module_or_function).__name__
        raise TypeError(f"expected an nn.Module or a function f(params, inputs); got a {kind}.")
    if not is_module and call is not None:
        raise ValueError("call is for modules; a function is called with (params, inputs).")
    places = name_map(names, list(case.arrays))
    precision = getattr(torch, dtype)
    with _restored(precision):
        if is_module:
            dump, problems = _check_module(
                module_or_function, case, places, call or forward_call, ignore, optimizer, precision
            )
        else:
            dump, problems = _check_function(module_or_function, case, places, optimizer, precision)
    comparison = compare(case, dump, names, ignore)
    return Report(comparison, tuple(dict.fromkeys(problems)))


def _import_torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            "midpg_np.verify.torch needs PyTorch, which is not installed (pip install torch)."
        ) from error
    return torch


@contextmanager
def _restored(precision: Any) -> Iterator[None]:
    """Give PyTorch back as it was: random streams, default type, whether gradients are kept."""
    import torch

    default = torch.get_default_dtype()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices=devices), torch.enable_grad():
        torch.set_default_dtype(precision)  # of the tensors that a forward makes
        try:
            yield
        finally:
            torch.set_default_dtype(default)


def _check_module(
    module: Any,
    case: StepCase,
    places: NameMap,
    call: Call,
    ignore: Sequence[str],
    optimizer: bool,
    precision: Any,
) -> Found:
    start = copied(module, precision)
    loaded = copy.deepcopy(start)
    problems = load_into(loaded, case, places, ignore)

    def subject(of: Any) -> ModuleSubject:
        return ModuleSubject(of, module, call, places)

    device = next((parameter.device for parameter in loaded.parameters()), "cpu")
    inputs = input_tensors(case, precision, device)
    serving = subject(copy.deepcopy(loaded).eval())
    problems += random_training(lambda: subject(copy.deepcopy(loaded).train())(inputs))
    trained = loaded.train()
    dump, found = take_step(subject(trained), case, inputs, optimizer=optimizer)
    problems += found
    predicted, found = _predictions(serving, inputs, precision)
    problems += found + serving.problems
    if predicted:
        given = serving_inputs(inputs)
        problems += saving_problems(
            trained.eval(), start, lambda of: predict(subject(of), given)[0]
        )
    return dump | predicted, problems


def _check_function(
    function: Any, case: StepCase, places: NameMap, optimizer: bool, precision: Any
) -> Found:
    has_training = "training" in inspect.signature(function).parameters
    params, state = case.params, case.state
    for name in (*params, *state):
        if name in places.places:
            raise ValueError(f"{name} is mapped, but a function gets it under the case's name.")

    def subject(*, training: bool) -> FunctionSubject:
        values = {k: _tensor(array, precision) for k, array in (params | state).items()}
        for name in params if training else ():
            values[name].requires_grad_()
        return FunctionSubject(
            function, values, places, {"training": training} if has_training else {}
        )

    inputs = input_tensors(case, precision, "cpu")
    problems = random_training(lambda: subject(training=True)(inputs))
    dump, found = take_step(subject(training=True), case, inputs, optimizer=optimizer)
    problems += found
    if has_training:
        predicted, found = _predictions(subject(training=False), inputs, precision)
        return dump | predicted, problems + found
    return dump, problems


def _predictions(subject: Subject, inputs: Mapping[str, Any], precision: Any) -> Found:
    """Return the prediction of a batch, and what is wrong with predictions."""
    given = serving_inputs(inputs)
    tolerance = TOLERANCES[str(precision).removeprefix("torch.")]
    try:
        _, dump = predict(subject, given)
    except PredictionInputError as error:
        return {}, [str(error)]
    problems = prediction_problems(
        lambda rows: predict(subject, rows)[0],
        given,
        tolerance,
        "Dropout outside of nn.Dropout needs training=self.training.",
    )
    return dump, problems


def _tensor(array: Any, precision: Any) -> Any:
    """Return a copy of an array as a tensor."""
    import torch

    return torch.tensor(array, dtype=precision)
