"""How tests share a machine: whole platforms one after the other, everything else file by file beside them."""

from __future__ import annotations

from pathlib import Path

import pytest

#: folders whose tests start servers, kill them, or need the clock: two at once would starve each other
ONE_AT_A_TIME = {"e2e", "faults"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        place = item.path.relative_to(here) if item.path.is_relative_to(here) else item.path
        group = "platforms" if place.parts[0] in ONE_AT_A_TIME else str(place)
        item.add_marker(pytest.mark.xdist_group(group))
