"""How many threads BLAS may use."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any


def blas_threads(n_threads: int) -> AbstractContextManager[Any]:
    """Hold BLAS to so many threads.

    With one the bits of a result do not depend on the number of cores, and nothing spins: idle
    workers of BLAS make everything else several times slower.  (threadpoolctl comes with
    scikit-learn.)
    """
    from threadpoolctl import threadpool_limits

    return threadpool_limits(limits=n_threads, user_api="blas")
