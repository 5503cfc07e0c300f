"""How many threads BLAS may use."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any


def one_blas_thread() -> AbstractContextManager[Any]:
    """Hold BLAS to one thread: faster at these sizes, and the same bits on any number of cores.

    The matrices of a step are too small to share; idle workers that spin make a step several
    times slower as soon as anything else runs.  (threadpoolctl comes with scikit-learn.)
    """
    from threadpoolctl import threadpool_limits

    return threadpool_limits(limits=1, user_api="blas")
