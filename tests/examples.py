"""How many examples property tests try: a part of them at every push, all of them in `make soak`."""

from __future__ import annotations

import os

from hypothesis import settings

#: share of the examples that a test names; `make soak` sets 1
SHARE = float(os.environ.get("EXAMPLES", "0.3"))


def examples(whole: int) -> int:
    """The number of examples to try now of those that a test should try in the long run."""
    return max(min(whole, 10), round(whole * SHARE))


def choose_profile() -> None:
    """Tests that name no number try this share of hypothesis' own hundred."""
    settings.register_profile("share", max_examples=examples(100))
    settings.load_profile("share")
