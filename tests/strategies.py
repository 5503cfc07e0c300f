"""What Hypothesis draws: structure (sizes, options) and a seed.  NumPy draws the numbers.

Sizes that would hide a mistake (square layers, equal factors, rank one) are shifted, never
filtered.  The same rules serve NumPy's generator, for loops over hundreds of seeds.
"""

import numpy as np
from hypothesis import strategies as st
from small import small_model
from systems import SYSTEMS

from midpg_np.checks.catalogue import Sizes
from midpg_np.ops import ACTIVATIONS

seeds = st.integers(0, 2**32 - 1)


def _sizes(integer, min_rows):
    """Sizes with d_m != d_n, f_r != f_c and 2 <= d_k <= min(d_r, d_c)."""
    d_r, d_c = integer(2, 3), integer(2, 3)
    f_r = integer(1, 2)
    f_c = f_r + integer(1, 2)
    if integer(0, 1):
        f_r, f_c = f_c, f_r
    if d_r * f_r == d_c * f_c:
        d_r += 1
    d_k = integer(2, min(d_r, d_c))
    return Sizes(integer(min_rows, 8), d_r, d_c, d_k, f_r, f_c, d_e=integer(2, 5))


def _model(choose):
    """A model with every option chosen independently; MI-DPG, with the most options, twice."""
    system = SYSTEMS[choose(("midpg", *SYSTEMS))]
    options = {"activation": choose(tuple(ACTIVATIONS))}
    choices = system.inherited | system.options
    options |= {name: choose(values) for name, values in choices.items()}
    return small_model(system.kind, **system.repair(options))


@st.composite
def sizes(draw, min_rows=1):
    return _sizes(lambda low, high: draw(st.integers(low, high)), min_rows)


@st.composite
def models(draw):
    return _model(lambda values: draw(st.sampled_from(values)))


def random_sizes(rng, min_rows=1):
    return _sizes(lambda low, high: int(rng.integers(low, high + 1)), min_rows)


def random_model(rng):
    return _model(lambda values: values[rng.integers(len(values))])


def generator(seed):
    return np.random.default_rng(seed)
