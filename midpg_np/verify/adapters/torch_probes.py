"""What a comparison of numbers cannot see in a PyTorch module: each probe returns sentences.

PyTorch is imported where it is used: the package does not need it.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import numpy as np

from midpg_np.verify.adapters.torch_params import plain_tensors, registered_tensors
from midpg_np.verify.adapters.torch_subject import Pass


def random_training(training_pass: Callable[[], Pass]) -> list[str]:
    """Say whether a training pass draws random numbers, which no case could hold.

    Parameters
    ----------
    training_pass : callable
        Runs the same pass anew.
    """
    import torch

    passes = []
    for seed in (0, 1):
        seed_all(seed)
        passes.append(training_pass())
    first, second = passes
    for name in first.keys() & second.keys():
        if not torch.equal(first[name].value, second[name].value) and _is_finite(first[name]):
            return [
                f"training draws random numbers: {name} is another in a second pass. Switch "
                "dropout off, and read 'partner' from the inputs in place of drawing it."
            ]
    return []


def seed_all(seed: int) -> None:
    """Seed the streams that are in use; torch.manual_seed would seed those to come as well."""
    import torch

    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)


def _is_finite(record: Any) -> bool:
    return bool(record.value.isfinite().all())


def saving_problems(trained: Any, start: Any, predicted: Callable[[Any], np.ndarray]) -> list[str]:
    """Say whether a prediction changes when a module is saved and loaded.

    Parameters
    ----------
    trained
        A module after a step, in eval mode.
    start
        The same module before anything was done to it; it is changed.
    predicted : callable
        ``predicted(module)`` returns logits.
    """
    import torch

    file = io.BytesIO()
    torch.save(trained.state_dict(), file)
    file.seek(0)
    loaded = start.eval()
    with torch.no_grad():
        for tensor in {id(x): x for x in registered_tensors(loaded).values()}.values():
            if tensor.is_floating_point():
                tensor.add_(1.0)  # what is not loaded shall show
    try:
        loaded.load_state_dict(torch.load(file, weights_only=False))
    except (RuntimeError, KeyError) as error:
        return [f"its own state_dict() cannot be loaded: {str(error).splitlines()[0]}"]
    seed_all(0)  # random predictions have a sentence of their own
    before = predicted(trained)
    seed_all(0)
    if np.array_equal(before, predicted(loaded), equal_nan=True):
        return []
    lost = _lost(trained, loaded)
    return [
        "a prediction changes when the module is saved and loaded: state_dict() does not hold "
        f"{', '.join(lost) or 'what it depends on'}."
    ]


def _lost(trained: Any, loaded: Any) -> list[str]:
    """Return the paths of tensors that are not what they were before saving."""
    import torch

    buffers = {k: x for k, x in trained.named_buffers() if k not in trained.state_dict()}
    kept = plain_tensors(loaded) | registered_tensors(loaded)
    candidates = plain_tensors(trained) | buffers
    return [k for k, x in candidates.items() if k not in kept or not torch.equal(x, kept[k])]


def copied(module: Any, dtype: Any) -> Any:
    """Return a copy of a module in another floating type.

    Raises
    ------
    ValueError
        If it cannot be copied.
    """
    import torch

    try:
        copy_of = copy.deepcopy(module)
    except RuntimeError as error:
        raise ValueError(
            f"the {type(module).__name__} cannot be copied: it keeps a tensor from an earlier "
            "call. Check a fresh one, and do not keep computed tensors in attributes."
        ) from error
    learning = [path for path, buffer in copy_of.named_buffers() if buffer.requires_grad]
    with torch.no_grad():
        copy_of.to(dtype)
    for path in learning:  # converting has cut them off
        copy_of.get_buffer(path).requires_grad_()
    for tensor in plain_tensors(copy_of).values():
        if tensor.is_floating_point():
            tensor.data = tensor.data.to(dtype)
    return copy_of
