"""Hypothesis profiles; choose with the environment variable HYPOTHESIS_PROFILE.

"ci" (the default) draws the same 25 examples every time, "deep" draws 500 new ones.
"""

import os

from hypothesis import settings

settings.register_profile("ci", derandomize=True, deadline=None, max_examples=25)
settings.register_profile("deep", deadline=None, max_examples=500)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))
