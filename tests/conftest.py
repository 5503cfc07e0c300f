"""Hypothesis profiles, chosen by the environment variable HYPOTHESIS_PROFILE, and real data.

"ci" (the default) draws the same 25 examples every time, "deep" draws 500 new ones.
"""

import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("ci", derandomize=True, deadline=None, max_examples=25)
settings.register_profile("deep", deadline=None, max_examples=500)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

# JAX is a reference here; on a GPU it would take three quarters of the memory when it starts.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared():
    """Find the folder of a real data set beside the repository; skip the test without it."""

    def folder(name):
        path = SHARED / name
        if not path.is_dir():
            pytest.skip(f"real data {name!r} is not beside the repository")
        return path

    return folder
