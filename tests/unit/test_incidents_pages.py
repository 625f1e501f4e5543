"""The routes: answers, errors and headers of pages, API and server-sent events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send

from aiops_assets.incidents.feed import Feed
from aiops_assets.incidents.pages import evidence_rows, routes, static_file
from aiops_assets.incidents.store import IncidentStore
from aiops_assets.settings import Settings
from tests.unit.test_incidents_store import MINUTE, T0, alert, apply

HOSTILE = "<script>alert(1)</script>\"'../../x"


class As:
    """Puts a principal where the gateway puts it."""

    def __init__(self, app: ASGIApp, principal: Any) -> None:
        self.app, self.principal = app, principal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.principal is not None:
            scope.setdefault("state", {})["principal"] = self.principal
        await self.app(scope, receive, send)


class Reader:
    name, may_operate = "viewer", False


@pytest.fixture
def home(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path)


@pytest.fixture
def store(home: Settings) -> IncidentStore:
    return IncidentStore(home.paths.operations_url)


def ask(
    settings: Settings,
    method: str,
    path: str,
    principal: Any = None,
    explain: Callable[[str], dict[str, Any]] | None = None,
    **arguments: Any,
) -> httpx.Response:
    async def run() -> httpx.Response:
        app = As(Starlette(routes=routes(settings, explain=explain)), principal)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://aiops", timeout=20) as client:
            return await client.request(method, path, **arguments)

    return asyncio.run(run())


def test_an_empty_platform_has_pages(home: Settings) -> None:
    for path in ("/incidents", "/alerts", "/silences", "/hours", "/incidents?state=nonsense&priority=x&offset=-1"):
        answer = ask(home, "GET", path)
        assert answer.status_code == 200 and answer.headers["content-type"] == "text/html; charset=utf-8"
        assert answer.headers["cache-control"] == "no-store"
        assert "unsafe" not in answer.headers["content-security-policy"]
    assert "No incident is running" in ask(home, "GET", "/incidents").text


def test_what_is_not_there_is_said_on_pages_and_in_json(home: Settings) -> None:
    page = ask(home, "GET", f"/incidents/{httpx.QueryParams({'a': HOSTILE})['a'].replace('/', '%2F')}")
    assert page.status_code == 404 and "<script>alert" not in page.text
    missing = ask(home, "GET", "/api/incidents/INC-NOSUCHTHING")
    assert (missing.status_code, missing.json()["error"]) == (404, "not_found")
    assert ask(home, "POST", "/api/incidents/INC-NOSUCHTHING/ack").status_code == 404
    assert ask(home, "POST", "/incidents/INC-NOSUCHTHING/ack").status_code == 404


def test_the_api_tells_the_whole_incident(home: Settings, store: IncidentStore) -> None:
    [incident_id] = apply(store, alert("a", HOSTILE, series_id=2**62, title=HOSTILE))
    found = ask(home, "GET", f"/api/incidents/{incident_id}").json()
    assert (
        found["hosts"] == [HOSTILE]
        and found["state"] == "open"
        and found["started_at"] == "2025-10-09T08:53:20.000000Z"
    )
    assert found["members"][0]["series_id"] == str(2**62) and found["timeline"][0]["kind"] == "opened"
    listed = ask(home, "GET", "/api/incidents?state=running").json()["incidents"]
    assert [incident["incident_id"] for incident in listed] == [incident_id]
    assert ask(home, "GET", "/api/incidents?state=nonsense").status_code == 400
    assert ask(home, "GET", "/api/alerts?state=firing").json()["alerts"][0]["severity"] == "error"


def test_actions_through_the_api_name_who_and_refuse_with_what_is_allowed(home: Settings, store: IncidentStore) -> None:
    [incident_id] = apply(store, alert("a", "web-1"))
    address = f"/api/incidents/{incident_id}"
    assert ask(home, "POST", f"{address}/ack", "kim").json()["state"] == "acknowledged"
    assert ask(home, "POST", f"{address}/assign", "kim", json={"assignee": "sam"}).json()["assignee"] == "sam"
    refused = ask(home, "POST", f"{address}/reopen", "kim")
    assert refused.status_code == 409 and refused.json()["allowed_actions"] == ["assign", "note", "resolve"]
    for body in (b"[1]", b"{", b'{"text": 1}', b"\xff"):
        assert ask(home, "POST", f"{address}/note", content=body).status_code == 400
    assert ask(home, "POST", f"{address}/note", json={"text": " "}).json()["message"] == "text is required"
    assert ask(home, "POST", f"{address}/destroy").status_code == 404
    assert [(event.who, event.kind) for event in store.get(incident_id).events][1:] == [
        ("kim", "acknowledged"),
        ("kim", "assigned"),
    ]


def test_forms_act_and_go_back_to_the_page(home: Settings, store: IncidentStore) -> None:
    [incident_id] = apply(store, alert("a", "web-1"))
    answer = ask(home, "POST", f"/incidents/{incident_id}/note", "kim", data={"text": "ünïcode & <b>"})
    assert (answer.status_code, answer.headers["location"]) == (303, f"/incidents/{incident_id}")
    assert store.get(incident_id).events[-1].text == "ünïcode & <b>"
    empty = ask(home, "POST", f"/incidents/{incident_id}/note", data={"text": ""})
    assert empty.status_code == 400 and "text is required" in empty.text
    many = ask(home, "POST", f"/incidents/{incident_id}/note", content="&".join(f"a{n}=1" for n in range(99)))
    assert many.status_code == 400


def test_who_may_only_look_gets_no_buttons(home: Settings, store: IncidentStore) -> None:
    [incident_id] = apply(store, alert("a", "web-1"))
    page = ask(home, "GET", f"/incidents/{incident_id}", Reader()).text
    assert "viewer" in page and "<form" not in page
    assert "<form" in ask(home, "GET", f"/incidents/{incident_id}", "kim").text


def test_a_silence_from_the_form_is_checked(home: Settings, store: IncidentStore) -> None:
    good = {"host": "web-*", "labels": "disk=sd*, x=y", "duration": "1h", "reason": "noise"}
    assert ask(home, "POST", "/silences", "kim", data=good).status_code == 303
    [silence] = store.silences()
    assert (silence.author, dict(silence.labels), silence.rule) == ("kim", {"disk": "sd*", "x": "y"}, "*")
    for wrong in (
        {"labels": "disk"},
        {"duration": "later"},
        {"duration": "1s"},
        {"reason": ""},
        {"host": "*", "labels": ""},
    ):
        answer = ask(home, "POST", "/silences", "kim", data=good | wrong)
        assert answer.status_code == 400 and 'role="alert"' in answer.text
    assert ask(home, "POST", f"/silences/{silence.silence_id}/expire", "sam").status_code == 303
    assert ask(home, "GET", "/api/silences").json()["silences"][0]["expired_by"] == "sam"
    assert ask(home, "POST", "/silences/SIL-NONE/expire").status_code == 404


def test_a_wrong_configuration_does_not_take_the_pages_down(home: Settings, store: IncidentStore) -> None:
    home.paths.config.write_text("entities: [{nam: x}]")
    [incident_id] = apply(store, alert("a", "web-1"))
    assert ask(home, "GET", f"/incidents/{incident_id}").status_code == 200


def test_files_are_kept_by_browsers_and_nothing_else_is_served(home: Settings) -> None:
    _, digest = static_file("incidents.js")
    fresh = ask(home, "GET", f"/static/incidents.js?v={digest}")
    assert "immutable" in fresh.headers["cache-control"] and fresh.headers["content-type"].startswith("text/javascript")
    old = ask(home, "GET", "/static/incidents.js?v=old", headers={"if-none-match": f'"{digest}"'})
    assert (old.status_code, old.headers["cache-control"]) == (304, "no-cache")
    for name in ("nothing.css", "..%2Fpages.py", "%2Fetc%2Fpasswd"):
        assert ask(home, "GET", f"/static/{name}").status_code == 404


def test_pages_need_nothing_from_outside() -> None:
    for name in ("incidents.js", "incidents.css"):
        text = static_file(name)[0].decode().replace("http://www.w3.org/2000/svg", "")
        assert (
            "http:" not in text
            and "https:" not in text
            and "@import" not in text
            and "innerHTML =" not in text.replace("innerHTML ===", "")
        )


def test_hours_are_bounded_and_refuse_what_is_no_day(home: Settings) -> None:
    assert len(ask(home, "GET", "/api/hours?days=9999").json()["hours"]) <= 31 * 24
    assert {hour["state"] for hour in ask(home, "GET", "/api/hours?days=0").json()["hours"]} == {"missing"}
    assert ask(home, "GET", "/hours?until=2026-02-30").status_code == 400
    whole = ask(home, "GET", "/api/hours?days=1&until=2025-10-09").json()["hours"]
    assert len(whole) == 24 and whole[0]["hour"] == "2025-10-09T23"


def test_the_api_tells_amendments_with_what_changed(home: Settings, store: IncidentStore) -> None:
    [incident_id] = apply(store, alert("a", "web-1"))
    apply(store, alert("a", "web-1", ends=T0 + MINUTE, amended_by="late rows of web-1", value=1.0))
    found = ask(home, "GET", f"/api/incidents/{incident_id}").json()
    assert (found["amended"], found["withdrawn"], found["withdrawn_because"]) == (1, 0, None)
    told = found["timeline"][-1]["amendment"]
    assert (told["kind"], told["revision"], told["reason"]) == ("corrected", 1, "late rows of web-1")
    assert told["corrections"][-1] == {"what": "end", "before": None, "after": "2025-10-09T08:54:20.000000Z"}
    listed = ask(home, "GET", "/api/hours?days=1&until=2025-10-09").json()["alerts"]
    assert listed["2025-10-09T08"][0]["incident_id"] == incident_id


def test_an_explanation_is_offered_only_when_somebody_can_give_one(home: Settings, store: IncidentStore) -> None:
    [incident_id] = apply(store, alert("a", "web-1"))
    address = f"/incidents/{incident_id}/explain"
    assert ask(home, "GET", address).status_code in {404, 405}
    assert "Derive it again" not in ask(home, "GET", f"/incidents/{incident_id}").text

    def explain(found: str) -> dict[str, Any]:
        if found != incident_id:
            raise LookupError(f"no receipt knows {found}")
        return {"same": False, "alerts": [{"alert_id": HOSTILE, "value": None}]}

    page = ask(home, "GET", address, explain=explain)
    assert "it came out differently" in page.text and "<script>alert" not in page.text
    told = ask(home, "GET", address, explain=explain, headers={"accept": "application/json"})
    assert told.json()["same"] is False
    assert "Derive it again" in ask(home, "GET", f"/incidents/{incident_id}", explain=explain).text

    def unknown(_: str) -> dict[str, Any]:
        raise LookupError("inputs expired")

    assert ask(home, "GET", address, explain=unknown).status_code == 404
    assert ask(home, "GET", "/incidents/INC-NOSUCHTHING/explain", explain=explain).status_code == 404


def test_evidence_is_a_flat_table() -> None:
    assert evidence_rows(orjson.dumps({"a": 1.23456789, "b": {"c": True, "d": None}, "e": [1]}).decode()) == [
        ("a", "1.23457"), ("b.c", "True"), ("e", "[1]"),
    ]  # fmt: skip


class Board:
    """A change counter that a test turns."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.number = 3
        self.changed: dict[int, str] = {}
        self.looked = asyncio.Event()
        self.looks = 0

    def look(self, number: int) -> tuple[int, tuple[str, ...]]:
        if number > self.number:
            # the poller asks for the number alone, for the second time when it has told the first
            self.looks += 1
            if self.looks == 2:
                self.loop.call_soon_threadsafe(self.looked.set)
        return self.number, tuple(name for at, name in self.changed.items() if at > number)

    def change(self, name: str) -> None:
        self.number += 1
        self.changed[self.number] = name


async def following(stream: AsyncIterator[bytes], wanted: Callable[[bytes], bool]) -> bytes:
    async with asyncio.timeout(10):
        while True:
            part = await anext(stream)
            if wanted(part):
                return part


def is_change(part: bytes) -> bool:
    return b"event: change" in part


def test_streams_tell_changes_continue_after_a_break_and_share_one_look() -> None:
    async def run() -> None:
        board = Board(asyncio.get_running_loop())
        feed = Feed(board.look, poll_seconds=0.01, heartbeat=0.2)
        every, one = feed.stream(None), feed.stream(None, "INC-1")
        assert (await anext(every)).startswith(b"retry:") and (await anext(one)).startswith(b"retry:")
        waiting = asyncio.create_task(following(every, is_change)), asyncio.create_task(following(one, is_change))
        async with asyncio.timeout(10):
            await board.looked.wait()
        board.change("INC-2")
        assert await waiting[0] == b'id: 4\nevent: change\ndata: {"change_number":4,"incidents":["INC-2"]}\n\n'
        assert not waiting[1].done()
        board.change("INC-1")
        assert (await waiting[1]).startswith(b"id: 5\n")
        late = feed.stream(3)
        assert b'"incidents":["INC-2","INC-1"]' in await following(late, is_change)
        assert await following(late, lambda part: part.startswith(b":")) == b": still here\n\n"
        for stream in (every, one, late):
            await stream.aclose()  # type: ignore[attr-defined]
        assert feed.task is not None
        async with asyncio.timeout(10):
            await feed.task  # nobody watches, so nobody looks

    asyncio.run(run())
