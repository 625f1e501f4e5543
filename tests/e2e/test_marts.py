"""The KPI page in a real browser, over marts that dbt built from a lake: light, dark, and on a phone."""

from __future__ import annotations

import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette

from aiops_assets.incidents.pages import routes as incident_routes
from aiops_assets.lake.tables import Lake
from aiops_assets.marts.pages import routes
from aiops_assets.marts.project import build
from aiops_assets.settings import Settings
from tests import marts_lake
from tests.e2e.test_incident_pages import Browser
from tests.marts_lake import alert, incident


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    settings = Settings(home=tmp_path_factory.mktemp("home"))
    settings.paths.create()
    now = datetime.now(UTC)
    lake = Lake(settings.paths.lake)
    begun = now.replace(hour=0, minute=0, second=0, microsecond=0)
    rows = [
        incident("INC-OPEN", begun, now, title="db-1 is <full>", priority=1),
        incident("INC-OVER", begun, now, "resolved", resolved_at=now, first_resolved_at=now, acknowledged_at=now),
    ]
    marts_lake.write(lake, "incidents", rows)
    marts_lake.write(lake, "alerts", [alert("a", begun), alert("b", begun)])
    build(settings, now.date(), now.date(), select=["incident_lifecycle+", "open_incidents"])
    app = Starlette(routes=[*routes(settings), *incident_routes(settings)])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="critical", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until = time.monotonic() + 20
    while not server.started:
        assert time.monotonic() < until
        time.sleep(0.05)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(10)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium on this machine")
    profile = Path(tempfile.mkdtemp(prefix="aiops-chromium-"))
    opened = Browser(program, profile)
    yield opened
    opened.close()
    shutil.rmtree(profile, ignore_errors=True)


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (390, True)])
def test_the_page_shows_figures_plots_open_incidents_and_definitions(
    browser: Browser, url: str, width: int, dark: bool
) -> None:
    browser.open(f"{url}/kpis?days=14", width=width, dark=dark)
    assert browser.errors == []
    assert browser.js("document.documentElement.scrollWidth") <= width
    assert browser.text(".tile b") == "2" and "1 still open" in browser.text(".tile")
    assert "db-1 is <full>" in browser.text("#open") and "P1" in browser.text("#open")
    assert browser.js("document.querySelectorAll('.columns-plot').length") >= 5
    assert browser.js("[...document.querySelectorAll('rect.bar')].some(bar => bar.getBoundingClientRect().height > 5)")
    assert "Kaplan" in browser.text("#definitions")
    assert browser.js("document.querySelector('.top nav [aria-current]').innerText") == "KPIs"


def test_the_page_is_linked_from_the_incidents_and_answers_scripts(browser: Browser, url: str) -> None:
    browser.open(f"{url}/incidents")
    assert (
        browser.js("[...document.querySelectorAll('.top nav a')].map(a => a.getAttribute('href'))").count("/kpis") == 1
    )
    [everything] = [
        row for row in httpx.get(f"{url}/api/kpis?days=14", timeout=10).json()["incident_kpis"] if row["scope"] == "all"
    ]
    assert (everything["incidents"], everything["still_open"]) == (2, 1)
