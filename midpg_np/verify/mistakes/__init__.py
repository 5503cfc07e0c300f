"""The catalogue: classic mistakes in these models, each executable, each with its remedy.

One list, three uses: ``diagnose`` looks for the entry that reproduces a dump, the project's own
tests must reject every entry, and a reader can study them one by one.
"""

from __future__ import annotations

from midpg_np.verify.mistakes.common import COMMON
from midpg_np.verify.mistakes.mistake import Change, Mistake
from midpg_np.verify.mistakes.regulariser import REGULARISER
from midpg_np.verify.mistakes.weighting import WEIGHTING

MISTAKES: dict[str, Mistake] = {
    mistake.name: mistake for mistake in (*COMMON, *WEIGHTING, *REGULARISER)
}

__all__ = ["MISTAKES", "Change", "Mistake", "mistakes_of"]


def mistakes_of(model_name: str) -> list[Mistake]:
    """Return the mistakes that a model can have."""
    return [mistake for mistake in MISTAKES.values() if model_name in mistake.models]
