"""Small cases for the tests of ``verify``: every width distinct, every corner in the batch."""

from functools import cache

from small import small_model

from midpg_np.models import MODELS
from midpg_np.verify.case import make_case
from midpg_np.verify.mistakes import MISTAKES

ENTRIES = [(name, kind) for name, mistake in MISTAKES.items() for kind in mistake.models]
IDS = [f"{kind}: {name}" for name, kind in ENTRIES]


@cache
def small_case(kind, seed=0, n_rows=None, **options):
    """Draw a case of a small model."""
    model = small_model(kind, **options)
    return make_case(model, seed, n_rows or 12)


def case_of(name, kind, seed=0):
    """Draw a case in which a mistake shows."""
    mistake = MISTAKES[name]
    options = {k: v for k, v in mistake.options.items()}
    return small_case(kind, seed, mistake.n_rows, **options)


def models_with_cases():
    """Every model."""
    return list(MODELS)
