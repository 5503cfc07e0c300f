"""The catalogue: classic mistakes in these models, each executable, each with its remedy.

One list, three uses: ``diagnose`` looks for the entry that reproduces a dump, the project's own
tests must reject every entry, and a reader can study them one by one.
"""

from __future__ import annotations

from typing import Any

from midpg_np.models import model_name
from midpg_np.verify.mistakes.adasparse import ADASPARSE_MISTAKES
from midpg_np.verify.mistakes.apg import APG_MISTAKES
from midpg_np.verify.mistakes.by_scenario import BY_SCENARIO
from midpg_np.verify.mistakes.common import COMMON
from midpg_np.verify.mistakes.mistake import Change, Mistake
from midpg_np.verify.mistakes.network import NETWORK
from midpg_np.verify.mistakes.optmsm import OPTMSM_MISTAKES
from midpg_np.verify.mistakes.pepnet import PEPNET_MISTAKES
from midpg_np.verify.mistakes.ple import PLE_MISTAKES
from midpg_np.verify.mistakes.regulariser import REGULARISER
from midpg_np.verify.mistakes.star import STAR_MISTAKES
from midpg_np.verify.mistakes.weighted_layer import WEIGHTED_LAYER
from midpg_np.verify.mistakes.weighting_core import WEIGHTING_CORE

MISTAKES: dict[str, Mistake] = {
    mistake.name: mistake
    for mistake in (
        *COMMON,
        *NETWORK,
        *WEIGHTING_CORE,
        *WEIGHTED_LAYER,
        *REGULARISER,
        *APG_MISTAKES,
        *OPTMSM_MISTAKES,
        *PEPNET_MISTAKES,
        *ADASPARSE_MISTAKES,
        *BY_SCENARIO,
        *PLE_MISTAKES,
        *STAR_MISTAKES,
    )
}

__all__ = ["MISTAKES", "Change", "Mistake", "mistakes_in", "mistakes_of"]


def mistakes_of(name: str) -> list[Mistake]:
    """Return the mistakes that a model can have."""
    return [mistake for mistake in MISTAKES.values() if name in mistake.models]


def mistakes_in(model: Any) -> list[Mistake]:
    """Return the mistakes that there can be in a model with its options."""
    return [mistake for mistake in mistakes_of(model_name(model)) if mistake.applies(model)]
