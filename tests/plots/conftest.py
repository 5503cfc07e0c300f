"""What the tests of figures share."""

import pytest


@pytest.fixture(autouse=True)
def matplotlib():
    """Skip where the extra ``app`` is not installed."""
    return pytest.importorskip("matplotlib", reason="plots need matplotlib")
