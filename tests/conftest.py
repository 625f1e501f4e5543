"""What holds for every test: no setting of whoever runs them reaches them."""

from __future__ import annotations

import os

for _variable in [name for name in os.environ if name.startswith("AIOPS_") and name != "AIOPS_REAL_DATA"]:
    del os.environ[_variable]

from tests.examples import choose_profile  # noqa: E402 - the environment is cleaned first

choose_profile()
