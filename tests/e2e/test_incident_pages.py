"""The incident pages in a real browser: what people see, the buttons, live updates, hostile names, a narrow phone."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import math
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import orjson
import polars as pl
import pytest
import uvicorn
from starlette.applications import Starlette

from aiops_assets.config import parse_config
from aiops_assets.detection.receipts import Receipt, receipts_frame
from aiops_assets.hours import hour_key, instant
from aiops_assets.incidents.pages import routes
from aiops_assets.incidents.series import POINTS_SCHEMA, Expectation, SeriesInfo, UsualRange
from aiops_assets.incidents.store import IncidentStore
from aiops_assets.lake.tables import Lake, TableWriter
from aiops_assets.settings import Settings
from aiops_assets.tables import ALERTS, CHANGES, ENTITIES, HOUR_RECEIPTS, METRIC_POINTS

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOSTILE = "<script>document.title='owned'</script>\"'><img src=x onerror=\"document.title='owned'\">../../etc"
CONFIG_TEXT = """
entities:
  - {name: shop, kind: service, impact: 1, owner: "team:shop", depends_on: [web-1, web-2]}
  - {name: web-1, site: berlin, depends_on: [db-1]}
  - {name: web-2, site: berlin, depends_on: [db-1]}
  - {name: db-1, site: berlin, owner: "team:data", depends_on: [san-1]}
maintenance:
  - name: san-firmware
    host: "san-*"
    from: 2026-01-10T22:00:00Z
    to: 2026-01-11T02:00:00Z
    author: kim
    reason: CHG0031
"""

SERIES = {
    11: SeriesInfo("db-1", "system.filesystem.utilization", "1", {"device": "sda1", "mountpoint": "/var/lib/data"}),
    12: SeriesInfo("web-1", "http.server.request.duration", "s", {"route": "/checkout"}),
    13: SeriesInfo(HOSTILE, "system.network.io", "By/s", {"direction": HOSTILE}),
}


class MadeUpSeries:
    """A reader whose series fill up, jump, and wobble around ``start``."""

    def __init__(self, start: int) -> None:
        self.start = start

    def _value(self, series_id: int, at: int) -> float:
        minutes = (at - self.start) / MINUTE
        wobble = math.sin(at / MINUTE * 1.7) + math.sin(at / MINUTE * 0.31)
        if series_id == 11:
            return min(0.62 + 0.004 * wobble + max(0.0, minutes + 4) * 0.045, 0.995)
        if series_id == 12:
            return 0.08 + 0.01 * wobble + (0.55 if minutes > 1 else 0.0)
        return 2e7 + 4e6 * wobble

    def read_points(self, series_ids: Sequence[int], start: int, end: int) -> pl.DataFrame:
        step = 10 * SECOND
        rows = [(s, at, self._value(s, at)) for s in series_ids for at in range(start - start % step + step, end, step)]
        frame = pl.DataFrame(rows, schema={"series_id": pl.Int64, "ts": pl.Int64, "value": pl.Float64}, orient="row")
        return frame.with_columns(pl.col("ts").cast(POINTS_SCHEMA["ts"]))

    def describe(self, series_ids: Sequence[int]) -> dict[int, SeriesInfo]:
        return {series_id: SERIES[series_id] for series_id in series_ids}

    def expected(self, series_ids: Sequence[int], start: int, end: int) -> dict[int, list[Expectation]]:
        return {12: [Expectation(self.start + n * MINUTE, 0.04, 0.08, 0.13) for n in range(1, 6)]}

    def usual(self, series_ids: Sequence[int], before: int) -> dict[int, UsualRange]:
        return {11: UsualRange(0.58, 0.6, 0.64, 24), 13: UsualRange(1.2e7, 2e7, 2.8e7, 24)}

    def entities(self) -> pl.DataFrame:
        return ENTITIES.empty()


def alert(alert_id: str, host: str, starts: int, title: str, **fields: Any) -> dict[str, Any]:
    row: dict[str, Any] = {
        "alert_id": alert_id, "revision": 0, "fingerprint": f"f/{alert_id}", "kind": "rule", "name": "filesystem-full",
        "state": "firing", "severity_number": 21, "host": host, "metric": "system.filesystem.utilization",
        "series_id": None, "labels": "{}", "starts_at": starts, "ends_at": None, "changed_at": starts, "title": title,
        "value": 0.98, "threshold": 0.97, "evidence": '{"rule":"threshold","op":">=","limit":0.97,"clear":0.95}',
        "suppressed_by": None, "amended_by": None, "received_at": starts, "writer": "gateway", "seq": 1,
    } | fields  # fmt: skip
    times = ("starts_at", "ends_at", "changed_at", "received_at")
    row |= {name: None if row[name] is None else instant(row[name]) for name in times}
    return row | {"hour": hour_key(starts)}


def change(change_id: str, host: str, at: int, title: str, **fields: Any) -> dict[str, Any]:
    return {
        "change_id": change_id, "ts": instant(at), "kind": "deploy", "host": host, "service": None, "title": title,
        "actor": "ci", "details": "{}", "source": "generic", "received_at": instant(at), "writer": "gateway", "seq": 1,
        "day": "2026-01-10",
    } | fields  # fmt: skip


def receipt(hour: str, revision: int, **fields: Any) -> Receipt:
    values: dict[str, Any] = {
        "hour": hour, "revision": revision, "reason": "closed" if revision == 1 else "late rows",
        "derived_at": time.time_ns() // 1000, "rows": 600_000, "late_rows": 0, "positions": {"gateway": 4711},
        "input_hash": "5f" * 16, "config": [(None, "c0ffee" * 4)], "baselines": [("2026-01-09T22", None, 1)],
        "state_in": [("2026-01-10T21", 1)], "state_in_hash": "aa" * 16, "state_out_hash": "bb" * 16,
        "baseline_version": revision, "baseline_hash": "cc" * 16, "anomalies": 3, "anomalies_hash": "dd" * 16,
        "decisions": 4, "decisions_hash": "ee" * 16, "detector_version": "tier1/7", "code_version": "9d1c0a",
        "libraries": {"python": "3.11.2", "polars": "2.1.0", "numpy": "2.3.4"},
    }  # fmt: skip
    return Receipt(**values | fields)


class Site:
    """A server with the pages alone, its store, and an incident of three hosts, one of which has a hostile name."""

    def __init__(self, home: Path) -> None:
        self.settings = Settings(home=home)
        home.mkdir(parents=True, exist_ok=True)
        self.settings.paths.config.write_text(CONFIG_TEXT)
        self.config = parse_config(CONFIG_TEXT, "test")
        self.store = IncidentStore(self.settings.paths.operations_url)
        self.start = time.time_ns() // 1000 - 12 * MINUTE
        self.empty = CHANGES.empty()
        start, data = self.start, {"labels": '{"mountpoint":"/var/lib/data"}', "series_id": 11}
        slow = {"name": "level_shift", "kind": "anomaly", "severity_number": 13, "value": 0.64, "threshold": 0.13}
        slow |= {"series_id": 12, "evidence": '{"signal":"level","ratio":4.1,"passed":{"level":4.1}}'}
        filling = {"name": "filesystem-almost-full", "severity_number": 17, "value": 0.91, "threshold": 0.9}
        window = "window db-upgrade until 2026-01-11 02:00 UTC by kim: CHG0031"
        flat = {"name": "flatline", "kind": "anomaly", "severity_number": 13, "state": "suppressed"}
        disk = "system.filesystem.utilization (mountpoint=/var/lib/data) on db-1"
        latency = "http.server.request.duration (route=/checkout) on web-1: 640 ms, expected 40 to 130 ms"
        nearby = [
            change("c1", "web-1", start - 3 * MINUTE, "shop 4.12.0", service="shop"),
            change("c2", "db-1", start + 6 * MINUTE, "grow volume", kind="config", actor="kim"),
        ]
        self.apply(
            alert("w", "web-1", start + MINUTE, latency, **slow),
            alert("a", "db-1", start, f"{disk}: at 91% (≥ 90%, for 30 s)", **filling, **data),
            alert("f", "db-1", start + 4 * MINUTE, f"{disk}: at 98% (≥ 97%)", **data),
            alert("q", "db-1", start + 5 * MINUTE, "system.disk.io on db-1: flat", suppressed_by=window, **flat),
            changes=pl.DataFrame(nearby, schema=CHANGES.schema, orient="row"),
        )
        hostile = {"direction": HOSTILE}, {"note": HOSTILE, HOSTILE: 1}
        texts = dict(zip(("labels", "evidence"), (orjson.dumps(value).decode() for value in hostile), strict=True))
        title = f"system.network.io on {HOSTILE}: at 31 MiB/s"
        self.apply(
            alert("x", HOSTILE, start + 2 * MINUTE, title, name="net", severity_number=13, series_id=13, **texts)
        )
        began, ends = start - 50 * MINUTE, start - 40 * MINUTE
        self.apply(alert("d", "printer-7", began, "hw.temperature on printer-7: at 86 °C", severity_number=17))
        ended = {"state": "resolved", "revision": 1, "ends_at": ends, "changed_at": ends}
        self.apply(alert("d", "printer-7", began, "hw.temperature on printer-7: back at 71 °C", **ended))
        self.store.auto_resolve(self.start - 30 * MINUTE, self.config)
        self._amend()
        self.incident_id = next(i.incident_id for i in self.store.list() if "db-1" in i.hosts)
        self.hostile_id = next(i.incident_id for i in self.store.list() if HOSTILE in i.hosts)
        app = Starlette(routes=routes(self.settings, reader=MadeUpSeries(self.start), explain=self.explain))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.server = uvicorn.Server(
            uvicorn.Config(app, port=self.port, log_level="critical", timeout_graceful_shutdown=1)
        )
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        wait(lambda: self.server.started, "the server starts")

    def _amend(self) -> None:
        """Late data: the hour of the start is amended, one of yesterday too; one incident of then is withdrawn."""
        start, hour = self.start, hour_key(self.start)
        reason = f"hour {hour} re-derived: 12 late rows of db-1"
        title = "system.filesystem.utilization (mountpoint=/var/lib/data) on db-1: at 93% (≥ 90%, for 30 s)"
        data = {"labels": '{"mountpoint":"/var/lib/data"}', "series_id": 11, "name": "filesystem-almost-full"}
        better = {"revision": 1, "value": 0.93, "threshold": 0.9, "severity_number": 19, "amended_by": reason}
        idle = {"name": "cpu-saturated", "metric": "system.cpu.utilization", "severity_number": 17}
        gone = {"revision": 1, "state": "withdrawn", "amended_by": reason}
        before = start - 26 * 60 * MINUTE
        yesterday = f"hour {hour_key(before)} re-derived: 340 late rows of batch-2"
        late = {"revision": 1, "state": "resolved", "amended_by": yesterday, "severity_number": 17}
        rows = [
            alert("a", "db-1", start, title, **data, **better),
            alert("v", "db-1", start + MINUTE, "system.cpu.utilization on db-1: at 99%", **idle),
            alert("v", "db-1", start + MINUTE, "system.cpu.utilization on db-1: at 99%", **(idle | gone)),
            alert("b", "batch-1", before, "system.cpu.utilization on batch-1: at 99%", **idle),
            alert("b", "batch-1", before, "", **(idle | gone | {"amended_by": yesterday})),
            alert("l", "batch-2", before, "hw.temperature on batch-2: at 84 °C", **late, ends_at=before + 9 * MINUTE),
        ]
        for row in rows:
            self.apply(row)
        self.withdrawn_id = next(i.incident_id for i in self.store.list() if "batch-1" in i.hosts)
        self.late_id = next(i.incident_id for i in self.store.list() if "batch-2" in i.hosts)
        lake = Lake(self.settings.paths.lake)
        TableWriter(lake, ALERTS).append(pl.DataFrame(rows, schema=ALERTS.schema, orient="row"), {})
        receipts = [receipt(hour, 1), receipt(hour, 2, late_rows=12, amended=1, withdrawn=1)]
        for back in range(1, 150):
            key = hour_key(start - back * 60 * MINUTE)
            if back % 37:
                receipts.append(receipt(key, 1))
            if back == 26:
                receipts.append(receipt(key, 2, late_rows=340, raised=1, withdrawn=1))
        self.amended_hour = hour_key(before)
        TableWriter(lake, HOUR_RECEIPTS).append(receipts_frame(receipts), {})
        points = {"series_id": 11, "value": 0.9, "host": "db-1", "metric": "m", "unit": "1", "source": "generic"}
        stored = [points | {"ts": instant(at), "hour": hour_key(at), "received_at": instant(at), "writer": "gateway"}
                  for at in (start, start + 60 * MINUTE)]  # fmt: skip
        frame = pl.DataFrame([row | {"seq": 7} for row in stored], schema=METRIC_POINTS.schema, orient="row")
        TableWriter(lake, METRIC_POINTS).append(frame, {})

    def explain(self, incident_id: str) -> dict[str, Any]:
        """Stands for whoever derives again."""
        numbers = {"recorded": {"value": 0.93, "hash": "8e" * 16}, "derived": {"value": 0.93, "hash": "8e" * 16}}
        return {"incident_id": incident_id, "same": True, "alerts": [{"alert_id": "a", HOSTILE: HOSTILE, **numbers}]}

    def apply(self, *rows: dict[str, Any], changes: pl.DataFrame | None = None) -> list[str]:
        frame = pl.DataFrame(list(rows), schema=ALERTS.schema, orient="row")
        given = self.empty if changes is None else changes
        now = time.time_ns() // 1000
        return self.store.apply(frame, config=self.config, entities=ENTITIES.empty(), changes=given, now=now)

    def close(self) -> None:
        self.server.should_exit = True
        self.thread.join(timeout=10)
        self.store.close()


class Browser:
    """Headless Chromium, driven by the DevTools protocol over a pipe."""

    def __init__(self, program: str, profile: Path) -> None:
        command = [
            program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-extensions", "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--disable-dev-shm-usage", "--hide-scrollbars", "--no-proxy-server", f"--user-data-dir={profile}",
            "--remote-debugging-pipe", "about:blank",
        ]  # fmt: skip
        (down_read, down_write), (up_read, up_write) = os.pipe(), os.pipe()
        # The protocol wants descriptors 3 and 4.
        script = (
            "import fcntl, os, sys; down, up = (fcntl.fcntl(int(n), fcntl.F_DUPFD, 100) for n in sys.argv[1:3]);"
            "os.dup2(down, 3); os.dup2(up, 4); os.execvp(sys.argv[3], sys.argv[3:])"
        )
        environment = {**os.environ, "TZ": "Europe/Berlin", "HOME": str(profile)}
        self.process = subprocess.Popen(
            [sys.executable, "-c", script, str(down_read), str(up_write), *command],
            pass_fds=(down_read, up_write),
            stderr=subprocess.DEVNULL,
            env=environment,
        )
        os.close(down_read)
        os.close(up_write)
        self._down, self._up = down_write, up_read
        self._buffer = b""
        self._numbers = itertools.count(1)
        self.errors: list[str] = []
        self.requests: list[str] = []
        target = self.call("Target.createTarget", {"url": "about:blank"}, session=None)["targetId"]
        attached = self.call("Target.attachToTarget", {"targetId": target, "flatten": True}, session=None)
        self.session: str | None = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, params: dict[str, Any] | None = None, session: str | None = "own") -> dict[str, Any]:
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": params or {}}
        if session is not None:
            message["sessionId"] = self.session
        os.write(self._down, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result

    def _receive(self) -> dict[str, Any]:
        until = time.monotonic() + 30
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._up], [], [], max(until - time.monotonic(), 0))
            assert ready, "Chromium does not answer"
            chunk = os.read(self._up, 1 << 20)
            assert chunk, "Chromium is gone"
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        params = message.get("params", {})
        if message.get("method") == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.errors.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
        if message.get("method") == "Runtime.exceptionThrown":
            self.errors.append(str(params["exceptionDetails"]))
        if message.get("method") == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        return message

    def open(self, address: str, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        self.errors.clear()
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", metrics)
        scheme = {"features": [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]}
        self.call("Emulation.setEmulatedMedia", scheme)
        self.call("Page.navigate", {"url": address})
        self.wait(f"document.readyState == 'complete' && location.href == {json.dumps(address)}")

    def js(self, expression: str) -> Any:
        result = self.call("Runtime.evaluate", {"expression": expression, "returnByValue": True, "awaitPromise": True})
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def submit(self, action: str, **fields: str) -> None:
        """Fill fields (by name) and press the button of the form that posts to an address ending in ``action``."""
        fill = f"for (const [n, v] of Object.entries({json.dumps(fields)})) form.elements[n].value = v"
        selector = json.dumps(f"form[method=post][action$='{action}']")
        chosen = f"document.querySelector({selector})"
        self.js(f"(form => {{ {fill}; form.querySelector('button').click(); }})({chosen})")

    def text(self, selector: str) -> str:
        return str(self.js(f"(document.querySelector({json.dumps(selector)}) ?? {{}}).innerText ?? ''"))

    def wait_for_text(self, selector: str, part: str, seconds: float = 20) -> None:
        wait(lambda: part in self.text(selector), f"{part!r} in {selector}", seconds)

    def wait(self, expression: str, seconds: float = 20) -> None:
        wait(lambda: bool(self.js(expression)), expression, seconds)

    def screenshot(self, path: Path, whole: bool = True) -> None:
        data = self.call("Page.captureScreenshot", {"captureBeyondViewport": whole})["data"]
        path.write_bytes(base64.b64decode(data))

    def close(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            os.write(self._down, b'{"id":0,"method":"Browser.close"}\0')
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(timeout=10)
        os.close(self._down)
        os.close(self._up)


def wait(condition: Callable[[], bool], what: str, seconds: float = 20) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.05)


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


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = Site(tmp_path_factory.mktemp("home"))
    yield made
    made.close()


def test_the_list_shows_what_runs_most_pressing_first(browser: Browser, site: Site) -> None:
    browser.open(f"{site.url}/incidents")
    rows = browser.js("[...document.querySelectorAll('#list tbody tr')].map(row => row.innerText)")
    assert len(rows) == 2 and "P1" in rows[0] and "db-1" in rows[0] and "1 change nearby" in rows[0]
    assert browser.js("document.querySelector('.tabs [aria-current]').innerText").split() == ["Running", "2"]
    browser.open(f"{site.url}/incidents?state=all&search=printer")
    assert browser.js("document.querySelectorAll('#list tbody tr').length") == 1


def test_a_page_shows_plots_suspects_and_why(browser: Browser, site: Site) -> None:
    browser.open(f"{site.url}/incidents/{site.incident_id}")
    assert "filesystem" in browser.js("document.querySelector('h1').innerText")
    sizes = (
        "[...document.querySelectorAll('path.value')].map(p => p.getBoundingClientRect()).map(b => b.width * b.height)"
    )
    areas = browser.js(sizes)
    assert len(areas) == 2 and min(areas) > 5_000
    assert browser.js("document.querySelectorAll('.change-mark').length") == 4
    assert browser.js("document.querySelectorAll('line.limit').length") >= 2
    text = browser.js("document.getElementById('changes').innerText")
    assert "happened 3 min before the first symptom, on web-1 itself" in text and "cause" in text
    assert "shop (impact 1) needs db-1" in browser.js("document.getElementById('why').innerText")
    assert "suppressed by window db-upgrade" in browser.js("document.getElementById('alerts').innerText")
    assert browser.js("document.querySelectorAll('.entity.alerting').length") == 2
    assert browser.errors == []


def test_a_page_shows_what_was_amended_and_withdrawn(browser: Browser, site: Site) -> None:
    browser.open(f"{site.url}/incidents/{site.incident_id}")
    gone = "[...document.querySelectorAll('#alerts tr.withdrawn')].map(row => row.innerText)"
    [row] = browser.js(gone)
    assert "cpu.utilization on db-1" in row and "withdrawn: hour" in row
    title = "getComputedStyle(document.querySelector('#alerts tr.withdrawn .title')).textDecorationLine"
    assert browser.js(title) == "line-through"
    assert "1 withdrawn, 1 amended" in browser.text(".facts")
    told = browser.js("[...document.querySelectorAll('.timeline li.amendment')].map(entry => entry.innerText)")
    assert len(told) == 2 and "value 0.91 → 0.93" in told[1] and "12 late rows of db-1" in told[1]
    browser.open(f"{site.url}/incidents/{site.withdrawn_id}")
    assert "none of its alerts should have fired" in browser.text("#head")
    assert browser.js("[...document.querySelectorAll('.badges .state')].map(badge => badge.innerText)") == [
        "resolved", "withdrawn",
    ]  # fmt: skip
    browser.open(f"{site.url}/incidents/{site.late_id}")
    assert "found by an amendment when it was over" in browser.text(".facts")
    browser.open(f"{site.url}/incidents?state=resolved")
    assert browser.js("document.querySelectorAll('#list .title.struck').length") == 1
    browser.open(f"{site.url}/alerts?state=withdrawn")
    assert browser.js("document.querySelectorAll('#list .title.struck').length") == 2


def test_a_page_shows_how_its_alerts_came_about(browser: Browser, site: Site) -> None:
    browser.open(f"{site.url}/incidents/{site.incident_id}")
    browser.js("document.querySelectorAll('#origins details').forEach(entry => { entry.open = true; })")
    text = browser.text("#origins")
    for part in ("revision 2: late rows, 12 late rows", "gateway 4711", "5f" * 16, "tier1/7", "polars 2.1.0", "9d1c0a"):
        assert part in text
    assert "amended: hour" in text and "limit" in text
    browser.open(f"{site.url}/incidents/{site.late_id}")
    assert "inputs expired" in browser.text("#origins")
    browser.open(f"{site.url}/incidents/{site.hostile_id}")
    assert "still open" not in browser.text("#origins") or "revision" not in browser.text("#origins")
    assert browser.errors == []


def test_an_incident_is_derived_again_on_demand(browser: Browser, site: Site) -> None:
    browser.open(f"{site.url}/incidents/{site.incident_id}")
    browser.js("document.querySelector('#origins a.button').click()")
    browser.wait("location.pathname.endsWith('/explain') && document.readyState == 'complete'")
    assert "it came out the same" in browser.text("main") and "8e8e" in browser.text(".explanation")
    assert browser.js("document.querySelectorAll('main script, main img').length") == 0 and browser.errors == []


def test_the_strip_of_hours_leads_to_amendments_and_their_incidents(browser: Browser, site: Site) -> None:
    browser.open(f"{site.url}/hours")
    assert browser.js("document.querySelector('nav [aria-current]').innerText") == "Hours"
    assert browser.js("document.querySelectorAll('.strip tbody tr').length") == 7
    assert browser.js("document.querySelectorAll('.strip a.cell.amended').length") == 2
    assert browser.js("document.querySelectorAll('.strip .cell.missing').length") >= 3
    row = browser.text(f"[id='amended-{site.amended_hour}']")
    assert "340 late rows of 600,000" in row and "1 raised" in row and "1 withdrawn" in row
    links = f"[...document.querySelectorAll(\"[id='amended-{site.amended_hour}'] .sub a\")].map(a => a.innerText)"
    assert sorted(browser.js(links)) == sorted([site.withdrawn_id, site.late_id])
    assert browser.errors == []
    with httpx.Client(base_url=site.url, timeout=10) as client:
        document = client.get("/api/hours?days=2").json()
        assert {entry["hour"] for entry in document["amendments"]} >= {site.amended_hour}
        assert client.get("/hours?until=nonsense").status_code == 400


def test_times_are_local_with_utc_beside_them(browser: Browser, site: Site) -> None:
    browser.open(f"{site.url}/incidents/{site.incident_id}")
    title = browser.js("document.querySelector('.facts time').title")
    assert "UTC" in title and "GMT+" in title
    axis = browser.js("[...document.querySelector('.stage').querySelectorAll('.tick:not(.y)')].map(t => t.textContent)")
    assert axis[0] == "UTC" and axis[1].startswith("GMT+")
    assert len(axis) > 4 and all(label[2] == ":" for label in axis[2:])


def test_hovering_and_arrow_keys_read_values_from_a_plot(browser: Browser, site: Site) -> None:
    browser.open(f"{site.url}/incidents/{site.incident_id}")
    box = browser.js("(b => [b.left, b.top, b.width])(document.querySelector('.stage svg').getBoundingClientRect())")
    where = {"type": "mouseMoved", "x": box[0] + box[2] * 0.98, "y": box[1] + 60}
    browser.call("Input.dispatchMouseEvent", where)
    browser.wait("!document.querySelector('.readout').hidden")
    shown = browser.js("document.querySelector('.readout').innerText")
    assert shown.startswith("99.5% at ") and "UTC" in shown
    browser.js("document.querySelector('.stage svg').focus()")
    for _ in range(2):
        browser.call("Input.dispatchKeyEvent", {"type": "keyDown", "key": "PageUp"})
    browser.wait(f"document.querySelector('.readout').innerText != {json.dumps(shown)}")


def test_buttons_act_and_the_page_says_so(browser: Browser, site: Site) -> None:
    browser.open(f"{site.url}/incidents/{site.incident_id}")
    browser.submit("/ack")
    browser.wait_for_text(".badges", "acknowledged")
    assert site.store.get(site.incident_id).state == "acknowledged"
    browser.submit("/assign", assignee="kim")
    browser.wait_for_text(".facts", "kim")
    browser.submit("/note", text="volume <b>grown</b>")
    browser.wait_for_text(".timeline", "volume <b>grown</b>")
    assert site.store.get(site.incident_id).events[-1].who == "local"


def test_an_open_page_follows_the_database(browser: Browser, site: Site) -> None:
    browser.open(f"{site.url}/incidents/{site.incident_id}")
    browser.wait("document.getElementById('live').classList.contains('on')")
    browser.js("window.mark = 1; document.querySelector('#alerts details').open = true")
    site.store.note(site.incident_id, "sam", "seen from elsewhere")
    browser.wait_for_text(".timeline", "seen from elsewhere")
    assert browser.js("window.mark") == 1 and browser.js("document.querySelector('#alerts details').open") is True
    late = alert(
        "e", "db-1", time.time_ns() // 1000, "system.disk.io on db-1: stuck", name="flatline", severity_number=17
    )
    assert site.apply(late) == [site.incident_id]
    browser.wait_for_text("#alerts", "stuck")
    browser.open(f"{site.url}/incidents")
    browser.wait("document.getElementById('live').classList.contains('on')")
    site.apply(
        alert("n", "new-host", time.time_ns() // 1000, "hw.temperature on new-host: at 90 °C", severity_number=17)
    )
    browser.wait_for_text("#list", "new-host")


def test_what_a_person_is_typing_survives_an_update(browser: Browser, site: Site) -> None:
    browser.open(f"{site.url}/incidents/{site.incident_id}")
    browser.wait("document.getElementById('live').classList.contains('on')")
    browser.js("document.getElementById('assignee').focus(); document.getElementById('assignee').value = 'half a na'")
    site.store.note(site.incident_id, "sam", "meanwhile")
    browser.wait_for_text(".timeline", "meanwhile")
    assert browser.js("document.activeElement.id + ':' + document.activeElement.value") == "assignee:half a na"


@pytest.mark.parametrize(
    "path", ["/incidents?state=all", "/alerts", "/silences", "/hours?days=31", "incident", "hostile", "explain"]
)
def test_pages_fit_a_phone_and_hostile_names_stay_text(browser: Browser, site: Site, path: str) -> None:
    places = {"incident": site.incident_id, "hostile": site.hostile_id, "explain": f"{site.incident_id}/explain"}
    path = f"/incidents/{places[path]}" if path in places else path
    browser.requests.clear()
    browser.open(site.url + path, width=360, height=740)
    assert browser.js("document.documentElement.scrollWidth") <= 360
    assert browser.js("document.querySelectorAll('main script, main img').length") == 0
    assert "owned" not in browser.js("document.title").split("<")[0]
    assert browser.errors == []
    assert all(address.startswith((site.url, "data:", "about:")) for address in browser.requests)


def test_hostile_links_lead_to_the_host_and_nowhere_else(browser: Browser, site: Site) -> None:
    browser.open(f"{site.url}/incidents/{site.hostile_id}")
    address = browser.js("document.querySelector('.causes a').href")
    assert address.startswith(f"{site.url}/incidents?state=all&host=%3Cscript%3E")
    browser.open(address)
    assert browser.js("document.querySelectorAll('#list tbody tr').length") == 1
    assert not browser.js("document.title").startswith("owned")


def test_a_silence_is_made_from_an_alert_and_ended(browser: Browser, site: Site) -> None:
    browser.open(f"{site.url}/alerts?host=web-1")
    browser.js("[...document.querySelectorAll('#list a')].find(a => a.innerText == 'silence').click()")
    browser.wait("location.pathname == '/silences' && document.readyState == 'complete'")
    prefilled = "document.querySelector('[name=host]').value + ' ' + document.querySelector('[name=rule]').value"
    assert browser.js(prefilled) == "web-1 level_shift"
    browser.submit("/silences", reason="known")
    browser.wait_for_text("#list .badge", "active")
    browser.submit("/expire")
    browser.wait_for_text("#list .badge", "expired")


def test_everything_is_readable_in_the_dark(browser: Browser, site: Site) -> None:
    browser.open(f"{site.url}/incidents/{site.incident_id}", dark=True)
    assert browser.js("getComputedStyle(document.body).backgroundColor") == "rgb(16, 21, 27)"
    contrast = """
      (() => {
        const luminance = (colour) => {
          const [r, g, b] = colour.match(/[0-9.]+/g).slice(0, 3).map(Number)
            .map((c) => c / 255).map((c) => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
          return 0.2126 * r + 0.7152 * g + 0.0722 * b;
        };
        const backdrop = (element) => {
          for (; element; element = element.parentElement) {
            const colour = getComputedStyle(element).backgroundColor;
            if (!colour.endsWith(', 0)') && colour !== 'transparent') return colour;
          }
          return 'rgb(255, 255, 255)';
        };
        return [...document.querySelectorAll('main *')]
          .filter((e) => [...e.childNodes].some((n) => n.nodeType == 3 && n.data.trim()))
          .filter((e) => !e.closest('svg') && !e.closest('.after') && e.offsetParent)
          .map((e) => {
            const a = luminance(getComputedStyle(e).color), b = luminance(backdrop(e));
            return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), e.className + ':' + e.innerText.slice(0, 30)];
          }).filter(([ratio]) => ratio < 4.5);
      })()"""
    assert browser.js(contrast) == []
    browser.open(f"{site.url}/incidents/{site.incident_id}")
    assert browser.js(contrast) == []
    for dark in (True, False):
        for path in ("/hours", f"/incidents/{site.withdrawn_id}", "/incidents?state=all"):
            browser.open(f"{site.url}{path}", dark=dark)
            assert browser.js(contrast) == []


def test_pages_work_without_scripts(site: Site) -> None:
    with httpx.Client(base_url=site.url, timeout=10) as client:
        page = client.get(f"/incidents/{site.hostile_id}")
        assert page.status_code == 200 and 'class="value" d="M' in page.text and "UTC</time>" in page.text
        assert "<script>document" not in page.text and "unsafe-inline" not in page.headers["content-security-policy"]
        answer = client.post(f"/incidents/{site.hostile_id}/resolve", data={"text": "over"})
        assert (answer.status_code, answer.headers["location"]) == (303, f"/incidents/{site.hostile_id}")
        refused = client.post(f"/incidents/{site.hostile_id}/resolve")
        assert refused.status_code == 409 and "allowed now: note, reopen" in refused.text
        assert client.post(f"/incidents/{site.hostile_id}/reopen").status_code == 303
