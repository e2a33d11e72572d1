"""Settings of the whole suite: how many examples Hypothesis draws, and how.

``pr`` (the default) draws the same examples every time, so that a red build stays red.
``HYPOTHESIS_PROFILE=nightly`` draws new and many more ones and prints how to repeat a failure.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

settings.register_profile(
    "pr",
    derandomize=True,
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "nightly",
    deadline=None,
    max_examples=2_000,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "pr"))
