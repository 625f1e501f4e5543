"""The dashboards of ``deploy/grafana``: well-formed, and every expression in them is one that is answered."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from aiops_assets.observability.metrics import CATALOGUE
from aiops_assets.telemetry.promql.plan import plan, selector

FOLDER = Path(__file__).parents[2] / "deploy" / "grafana"
DASHBOARDS = sorted((FOLDER / "dashboards").glob("*.json"))
#: what Grafana puts in the place of its own variables
BUILT_IN = {"$__rate_interval": "4m", "$__interval": "1m", "$__range": "6h"}


def load(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return loaded


def substituted(text: str, board: dict[str, Any]) -> str:
    for name, value in BUILT_IN.items():
        text = text.replace(name, value)
    for variable in board["templating"]["list"]:
        text = text.replace(f"${variable['name']}", "web-1|db-2")
    assert "$" not in text, f"an unknown variable in {text}"
    return text


def expressions(board: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for panel in board["panels"]:
        for target in panel["targets"]:
            yield panel["title"], substituted(target["expr"], board)


def test_there_are_three_dashboards() -> None:
    assert [load(path)["title"] for path in DASHBOARDS] == ["Fleet overview", "Host", "Platform"]
    assert len({load(path)["uid"] for path in DASHBOARDS}) == 3


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_every_expression_is_answered(path: Path) -> None:
    found = list(expressions(load(path)))
    assert len(found) >= 15
    for _, expression in found:
        plan(expression)


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_every_variable_asks_for_what_is_answered(path: Path) -> None:
    board = load(path)
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            asked = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["definition"])
            assert asked, variable["definition"]
            selector(substituted(asked[1], board))
            assert variable["query"]["query"] == variable["definition"]


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_panels_are_complete_and_do_not_overlap(path: Path) -> None:
    board = load(path)
    taken: set[tuple[int, int]] = set()
    numbers = [panel["id"] for panel in board["panels"]]
    assert len(set(numbers)) == len(numbers)
    for panel in board["panels"]:
        assert panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references)
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        taken |= cells


def test_the_platform_dashboard_asks_only_for_metrics_of_the_catalogue() -> None:
    names = {
        name
        for _, expression in expressions(load(FOLDER / "dashboards" / "platform.json"))
        for name in re.findall(r"aiops_\w+", expression)
    }
    assert names
    assert {name.removesuffix("_bucket") for name in names} <= set(CATALOGUE)


def test_provisioning_holds_no_key_and_points_at_the_gateway() -> None:
    (source,) = yaml.safe_load((FOLDER / "provisioning" / "datasources" / "aiops.yaml").read_text())["datasources"]
    assert source["type"] == "prometheus"
    assert source["url"] == "$AIOPS_GATEWAY_URL"
    assert source["jsonData"]["httpHeaderName1"] == "Authorization"
    assert source["secureJsonData"]["httpHeaderValue1"] == "Bearer $AIOPS_GRAFANA_KEY"
    (provider,) = yaml.safe_load((FOLDER / "provisioning" / "dashboards" / "aiops.yaml").read_text())["providers"]
    assert provider["type"] == "file"
