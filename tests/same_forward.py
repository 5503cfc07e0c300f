"""Checks of several backwards of one forward: its numerical derivatives are taken once.

They are most of the time of a check, and do not depend on the backward.
"""

from contextlib import contextmanager
from unittest.mock import patch

import numpy as np

from midpg_np.checks import gradient
from midpg_np.tree import tree_items


def _remembering(derivatives, memory):
    """Return a function that takes only the derivatives that are not in the memory."""

    def remembered(f, tree, path, indices, **how):
        # The point, and through the value of f the upstream gradient: another draw is a new start.
        point = f(tree), *(leaf.tobytes() for _, leaf in tree_items(tree))
        known = memory.setdefault((path, *how.items(), point), {})
        new = [index for index in indices if index not in known]
        known |= zip(new, derivatives(f, tree, path, new, **how), strict=True)
        return np.array([known[index] for index in indices], dtype=float)

    return remembered


@contextmanager
def derivatives_taken_once():
    """Let ``check_gradients`` inside the block take each derivative of one forward only once.

    For cases with the same forward, stop-gradients included, at the same point or not.
    """
    memory = {}
    names = "complex_steps", "central_differences"
    with patch.multiple(
        gradient,
        **{
            name: _remembering(getattr(gradient, name), memory.setdefault(name, {}))
            for name in names
        },
    ):
        yield
