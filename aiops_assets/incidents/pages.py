"""The pages and the read API of incidents, alerts and silences: routes for the gateway's app.

What belongs here: HTTP in and out. What does not: who may come in and cross-site defence (``gateway``), rules and
queries (``store``), geometry (``plots``). Whoever acts is ``request.state.principal`` (its ``name``, or a string).
Everything that blocks runs in a thread. Pages work without scripts; scripts add local times, hover and live updates.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from typing import Any, cast
from urllib.parse import parse_qs, urlencode

import orjson
import polars as pl
from deltalake.exceptions import DeltaError
from jinja2 import Environment, PackageLoader, StrictUndefined
from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from aiops_assets.config import Config, ConfigError, ConfigFile, parse_duration
from aiops_assets.detection.wording import printable, quantity
from aiops_assets.hours import MICROS_PER_SECOND, instant, micros
from aiops_assets.incidents.amendments import side_text
from aiops_assets.incidents.correlation import duration_text, listing, severity_word
from aiops_assets.incidents.documents import (
    finite,
    incident_document,
    member_document,
    silence_document,
    strip_document,
    time_text,
)
from aiops_assets.incidents.feed import Feed, FeedFull
from aiops_assets.incidents.history import MAX_DAYS, LakeHistory, Origins, Strip
from aiops_assets.incidents.lifecycle import ACTION_WORDS, Action, ActionNotAllowed, IncidentNotFound
from aiops_assets.incidents.plots import Plot, infos_of, plot, window_of
from aiops_assets.incidents.series import LakeReader, SeriesReader
from aiops_assets.incidents.store import Amendment, Incident, IncidentStore, Member, SilenceNotFound
from aiops_assets.incidents.topology import Topology
from aiops_assets.settings import Settings

log = logging.getLogger(__name__)

PAGE_ROWS = 100
#: alerts and timeline entries of one incident that a page shows
MEMBER_ROWS = 200
MAX_PLOTS = 12
PLOT_SECONDS = 8.0
#: how long a page waits for an explanation; the work goes on, so that the next try finds it
EXPLAIN_SECONDS = 25.0
#: days of the strip of hours: offered, and shown unless asked
DAYS = (7, 14, 31)
TOPOLOGY_SECONDS = 30.0
_RUNNING = ("open", "acknowledged", "reopened")
_STATES: dict[str, tuple[str, ...]] = {
    "running": _RUNNING,
    "open": ("open",),
    "acknowledged": ("acknowledged",),
    "reopened": ("reopened",),
    "resolved": ("resolved",),
    "all": (),
}
_ALERT_STATES = ("firing", "suppressed", "resolved", "withdrawn")
_STATIC = {
    "incidents.css": "text/css; charset=utf-8",
    "incidents.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
PAGE_HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": (
        "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
}


@dataclass(frozen=True, slots=True)
class Neighbour:
    """An entity beside an incident's hosts; ``alerting`` says that it is one of them."""

    name: str
    kind: str
    alerting: bool
    steps: int


@dataclass(frozen=True, slots=True)
class Neighbourhood:
    """What a host needs and what needs it."""

    host: str
    kind: str
    site: str | None
    owner: str | None
    needs: tuple[Neighbour, ...]
    needed_by: tuple[Neighbour, ...]


def routes(
    settings: Settings, *, reader: SeriesReader | None = None, explain: Callable[[str], dict[str, Any]] | None = None
) -> list[BaseRoute]:
    """The routes of the incident pages.

    Args:
        reader: replaces the lake as the source of plots.
        explain: derives the alerts of an incident (by id) again and says whether they came out the same, as a JSON-able
            dictionary; it blocks. Raises ``LookupError`` for what it does not know. Without it pages offer none.
    """
    home = settings.paths
    source = reader or LakeReader(home.lake)
    return Pages(home.operations_url, ConfigFile(home.config), source, LakeHistory(home.lake), explain).routes()


class Pages:
    """Handlers and what they share: the store, the feed, the graph of entities. Nothing is opened before it is used."""

    def __init__(
        self,
        operations_url: str,
        config: ConfigFile,
        reader: SeriesReader,
        history: LakeHistory,
        explain: Callable[[str], dict[str, Any]] | None = None,
    ) -> None:
        self._operations_url, self._config_file, self._reader = operations_url, config, reader
        self._history, self._explain = history, explain
        self._explaining: dict[str, asyncio.Task[dict[str, Any]]] = {}
        self._explaining_one = asyncio.Semaphore(1)
        self._store_opening = asyncio.Lock()
        self._opened: IncidentStore | None = None
        self._feed = Feed(self._look)
        self._plotting = asyncio.Semaphore(2)
        self._topology: tuple[float, Config, Topology] | None = None

    def routes(self) -> list[BaseRoute]:
        """Every route, more special ones first."""
        get, post = ["GET"], ["POST"]
        return [
            Route("/static/{name}", self.static, methods=get),
            Route("/events", self.events, methods=get),
            Route("/incidents", self._page(self.incidents), methods=get),
            Route("/incidents/{incident_id}", self._page(self.incident), methods=get),
            Route("/incidents/{incident_id}/events", self.events, methods=get),
            Route("/incidents/{incident_id}/plots", self._page(self.plots), methods=get),
            Route("/incidents/{incident_id}/origins", self._page(self.origins), methods=get),
            *(
                [Route("/incidents/{incident_id}/explain", self._page(self.explain), methods=get)]
                if self._explain
                else []
            ),
            Route("/incidents/{incident_id}/{word}", self._page(self.act), methods=post),
            Route("/hours", self._page(self.hours), methods=get),
            Route("/alerts", self._page(self.alerts), methods=get),
            Route("/silences", self._page(self.silences), methods=get),
            Route("/silences", self._page(self.create_silence), methods=post),
            Route("/silences/{silence_id}/expire", self._page(self.expire_silence), methods=post),
            Route("/api/incidents", self._document(self.api_incidents), methods=get),
            Route("/api/hours", self._document(self.api_hours), methods=get),
            Route("/api/incidents/{incident_id}", self._document(self.api_incident), methods=get),
            Route("/api/incidents/{incident_id}/{word}", self._document(self.api_act), methods=post),
            Route("/api/alerts", self._document(self.api_alerts), methods=get),
            Route("/api/silences", self._document(self.api_silences), methods=get),
        ]

    # -- pages --------------------------------------------------------------------------------------------------------

    async def incidents(self, request: Request) -> Response:
        """The list, with filters in the query: state, priority, host, search."""
        store = await self._store()
        query = request.query_params
        state = query.get("state", "running")
        if state not in _STATES:
            state = "running"
        filters: dict[str, Any] = {
            "priority": _priority(query.get("priority", "")),
            "host": query.get("host", "")[:255],
            "search": query.get("search", "")[:255],
        }
        offset = _offset(query.get("offset", ""))

        def read() -> tuple[tuple[Incident, ...], dict[str, int], int]:
            number = store.change_number()
            found = store.list(states=_STATES[state], limit=PAGE_ROWS + 1, offset=offset, **filters)
            return found, store.counts(**filters), number

        found, counts, number = await asyncio.to_thread(read)
        counts |= {"running": sum(counts[name] for name in _RUNNING), "all": sum(counts.values())}
        return self._render(
            request,
            "incidents.html",
            incidents=found[:PAGE_ROWS],
            counts=counts,
            state=state,
            states=tuple(_STATES),
            filters=filters,
            offset=offset,
            more=len(found) > PAGE_ROWS,
            rows=PAGE_ROWS,
            events="/events",
            change_number=number,
        )

    async def incident(self, request: Request, problem: str = "", status: int = 200) -> Response:
        """The page of one incident; with ``live`` in the query without plots, for scripts that update an open page."""
        store = await self._store()
        incident = await asyncio.to_thread(store.get, request.path_params["incident_id"])
        config, topology = await self._graph()
        rules = {rule.name: rule for rule in config.active_rules}
        live = "live" in request.query_params
        plots: Sequence[Plot] = ()
        left_out, plot_problem = 0, ""
        origins, origins_problem = Origins({}, ()), ""
        hours = _hours(request.query_params.get("hours", ""))
        if not live:
            plots, left_out, plot_problem = await self._draw(incident, hours)
            origins, origins_problem = await self._trace(incident)
        return self._render(
            request,
            "incident.html",
            status=status,
            incident=incident,
            live=live,
            plots=plots,
            plots_left_out=left_out,
            plot_problem=plot_problem,
            origins=origins,
            origins_problem=origins_problem,
            may_explain=self._explain is not None,
            hours=hours,
            numbers={suspect.change_id: number for number, suspect in enumerate(incident.suspects, 1)},
            rules=rules,
            table=config.priority,
            neighbourhoods=_neighbourhoods(incident, topology),
            timeline=sorted(incident.events, key=lambda event: (event.happened_at, event.event_id), reverse=True),
            rows=MEMBER_ROWS,
            problem=problem,
            events=f"/incidents/{incident.incident_id}/events",
            change_number=incident.change_number,
        )

    async def plots(self, request: Request) -> Response:
        """The plots of an incident alone, to refresh an open page."""
        store = await self._store()
        incident = await asyncio.to_thread(store.get, request.path_params["incident_id"])
        hours = _hours(request.query_params.get("hours", ""))
        plots, left_out, problem = await self._draw(incident, hours)
        return self._render(
            request,
            "plots.html",
            plots=plots,
            plots_left_out=left_out,
            plot_problem=problem,
            incident=incident,
            hours=hours,
        )

    async def origins(self, request: Request) -> Response:
        """How the alerts of an incident came about, alone, to refresh an open page."""
        store = await self._store()
        incident = await asyncio.to_thread(store.get, request.path_params["incident_id"])
        origins, problem = await self._trace(incident)
        return self._render(
            request,
            "origins.html",
            incident=incident,
            origins=origins,
            origins_problem=problem,
            may_explain=self._explain is not None,
        )

    async def explain(self, request: Request) -> Response:
        """Derive the alerts of an incident again and show what came out. One at a time; the same one is shared."""
        store = await self._store()
        incident = await asyncio.to_thread(store.get, request.path_params["incident_id"])
        task = self._explaining.get(incident.incident_id)
        if task is None:
            task = asyncio.create_task(self._derive_again(incident.incident_id), name="incident-explanation")
            self._explaining[incident.incident_id] = task
            task.add_done_callback(lambda _: self._explaining.pop(incident.incident_id, None))
        found: dict[str, Any] | None = None
        problem, status = "", 200
        try:
            found = await asyncio.wait_for(asyncio.shield(task), EXPLAIN_SECONDS)
        except TimeoutError:
            problem, status = "It is still being derived again. Reload this page in a moment.", 503
        except LookupError as error:
            problem, status = str(error), 404
        except (OSError, DeltaError, pl.exceptions.PolarsError) as error:
            log.warning("explaining %s failed: %s", incident.incident_id, error)
            problem, status = "It could not be derived again; the gateway's log says why.", 500
        if "application/json" in request.headers.get("accept", ""):
            document = {"error": "unavailable", "message": problem} if found is None else found
            body = orjson.dumps(document, default=str)
            return Response(body, status, {"cache-control": "no-store"}, "application/json")
        return self._render(request, "explanation.html", status, incident=incident, explanation=found, problem=problem)

    async def hours(self, request: Request) -> Response:
        """Which hours are closed, which were amended and why; query: days, until (a date)."""
        days, until = _days(request.query_params.get("days", "")), _until(request.query_params.get("until", ""))
        store = await self._store()
        strip, amendments, number = await asyncio.to_thread(self._strip, store, until, days)
        by_hour: dict[str, list[Amendment]] = {}
        for entry in amendments:
            by_hour.setdefault(entry.hour, []).append(entry)
        day = 24 * 3_600 * MICROS_PER_SECOND
        return self._render(
            request,
            "hours.html",
            strip=strip,
            by_hour=by_hour,
            days=days,
            choices=DAYS,
            until=request.query_params.get("until", "") and _date(until),
            earlier=_date(until - days * day),
            later=_date(until + days * day) if until + day <= _now() else "",
            events="/events",
            change_number=number,
        )

    async def act(self, request: Request) -> Response:
        """A button: the action of the address, then back to the page."""
        incident_id, word = request.path_params["incident_id"], request.path_params["word"]
        action = ACTION_WORDS.get(word)
        if action is None:
            raise _Refused(404, "not_found", f"there is no action {word!r}; known: {', '.join(ACTION_WORDS)}")
        form = await _form(request)
        store = await self._store()
        text, assignee = form.get("text", ""), form.get("assignee", "")
        try:
            await asyncio.to_thread(store.act, action, incident_id, _who(request), text, assignee)
        except ActionNotAllowed as error:
            return await self.incident(request, f"{error}. Somebody may have been faster.", 409)
        except ValueError as error:
            return await self.incident(request, str(error), 400)
        return RedirectResponse(f"/incidents/{incident_id}", 303, headers={"cache-control": "no-store"})

    async def alerts(self, request: Request) -> Response:
        """Recent alerts, with the suppressed ones and why."""
        store = await self._store()
        query = request.query_params
        state = query.get("state", "")
        state = state if state in _ALERT_STATES else ""
        host, offset = query.get("host", "")[:255], _offset(query.get("offset", ""))

        def read() -> tuple[tuple[Member, ...], int]:
            number = store.change_number()
            return store.alerts(state=state, host=host, limit=PAGE_ROWS + 1, offset=offset), number

        found, number = await asyncio.to_thread(read)
        return self._render(
            request,
            "alerts.html",
            members=found[:PAGE_ROWS],
            state=state,
            states=_ALERT_STATES,
            host=host,
            offset=offset,
            more=len(found) > PAGE_ROWS,
            rows=PAGE_ROWS,
            events="/events",
            change_number=number,
        )

    async def silences(
        self, request: Request, problem: str = "", status: int = 200, form: Mapping[str, str] | None = None
    ) -> Response:
        """Silences and maintenance windows, and a form for a new silence."""
        store = await self._store()

        def read() -> tuple[Any, int]:
            return store.silences(), store.change_number()

        found, number = await asyncio.to_thread(read)
        config, _ = await self._graph()
        query = request.query_params
        values = {name: query.get(name, "")[:255] for name in ("host", "rule", "labels", "reason")} | dict(form or {})
        return self._render(
            request,
            "silences.html",
            status=status,
            silences=found,
            windows=config.maintenance,
            values=values,
            problem=problem,
            events="/events",
            change_number=number,
        )

    async def create_silence(self, request: Request) -> Response:
        """A new silence from the form, beginning now."""
        form = await _form(request)
        store = await self._store()
        now = _now()
        try:
            lasting = parse_duration(form.get("duration", "").strip())
            if not 60 <= lasting <= 90 * 86_400:
                raise ValueError("a silence lasts between a minute and 90 days")
            await asyncio.to_thread(
                store.create_silence,
                author=_who(request),
                reason=form.get("reason", ""),
                host=form.get("host", "").strip() or "*",
                rule=form.get("rule", "").strip() or "*",
                labels=_label_patterns(form.get("labels", "")),
                starts_at=now,
                ends_at=now + round(lasting * MICROS_PER_SECOND),
            )
        except ValueError as error:
            return await self.silences(request, str(error), 400, form)
        return RedirectResponse("/silences", 303, headers={"cache-control": "no-store"})

    async def expire_silence(self, request: Request) -> Response:
        """End a silence now."""
        store = await self._store()
        await asyncio.to_thread(store.expire_silence, request.path_params["silence_id"], _who(request))
        return RedirectResponse("/silences", 303, headers={"cache-control": "no-store"})

    # -- API ----------------------------------------------------------------------------------------------------------

    async def api_incidents(self, request: Request) -> Any:
        """Incidents; query: state (running, all, or a state), priority, host, search, limit, offset."""
        store, query = await self._store(), request.query_params
        state = query.get("state", "all")
        if state not in _STATES:
            raise _Refused(400, "bad_request", f"state: one of {', '.join(_STATES)}")
        filters: dict[str, Any] = {
            "priority": _priority(query.get("priority", "")),
            "host": query.get("host", ""),
            "search": query.get("search", ""),
        }
        limit = _offset(query.get("limit", "200"), 1_000)
        offset = _offset(query.get("offset", ""))
        found = await asyncio.to_thread(store.list, states=_STATES[state], limit=limit, offset=offset, **filters)
        return {"incidents": [incident_document(incident, whole=False) for incident in found]}

    async def api_hours(self, request: Request) -> Any:
        """Hours of some days, newest day first, with what was amended; query: days, until (a date)."""
        query = request.query_params
        days, until = _days(query.get("days", "")), _until(query.get("until", ""))
        store = await self._store()
        strip, amendments, _ = await asyncio.to_thread(self._strip, store, until, days)
        return strip_document(strip, amendments)

    async def api_incident(self, request: Request) -> Any:
        """One incident, whole."""
        store = await self._store()
        return incident_document(await asyncio.to_thread(store.get, request.path_params["incident_id"]))

    async def api_act(self, request: Request) -> Any:
        """An action; the body is empty or ``{"text": …, "assignee": …}``. Answers the incident afterwards."""
        word = request.path_params["word"]
        action: Action | None = ACTION_WORDS.get(word)
        if action is None:
            raise _Refused(404, "not_found", f"there is no action {word!r}; known: {', '.join(ACTION_WORDS)}")
        body = await request.body()
        try:
            fields = orjson.loads(body) if body.strip() else {}
        except orjson.JSONDecodeError as error:
            raise _Refused(400, "bad_request", f"the body is not JSON: {error}") from error
        if not isinstance(fields, dict) or not all(isinstance(value, str) for value in fields.values()):
            raise _Refused(400, "bad_request", 'the body is a JSON object such as {"text": "…"}')
        store = await self._store()
        text, assignee = fields.get("text", ""), fields.get("assignee", "")
        who = _who(request)
        return incident_document(
            await asyncio.to_thread(store.act, action, request.path_params["incident_id"], who, text, assignee),
            whole=False,
        )

    async def api_alerts(self, request: Request) -> Any:
        """Alerts, newest first; query: state, host, limit, offset."""
        store, query = await self._store(), request.query_params
        state = query.get("state", "")
        if state and state not in _ALERT_STATES:
            raise _Refused(400, "bad_request", f"state: one of {', '.join(_ALERT_STATES)}")
        limit = _offset(query.get("limit", "200"), 1_000)
        offset, host = _offset(query.get("offset", "")), query.get("host", "")
        found = await asyncio.to_thread(store.alerts, state=state, host=host, limit=limit, offset=offset)
        return {"alerts": [member_document(member) for member in found]}

    async def api_silences(self, request: Request) -> Any:
        """Silences, newest first."""
        store = await self._store()
        now = _now()
        return {"silences": [silence_document(silence, now) for silence in await asyncio.to_thread(store.silences)]}

    # -- live updates and files ---------------------------------------------------------------------------------------

    async def events(self, request: Request) -> Response:
        """Server-sent events: ``change`` whenever something changed (for one incident: when it did)."""
        await self._store()
        since = request.headers.get("last-event-id") or request.query_params.get("since", "")
        try:
            self._feed.admit()
        except FeedFull as error:
            return Response(str(error), 503, {"retry-after": "30"}, "text/plain")
        number = int(since) if since.isascii() and since.isdigit() and len(since) < 19 else None
        stream = self._feed.stream(number, request.path_params.get("incident_id"))
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        return StreamingResponse(stream, media_type="text/event-stream", headers=headers)

    async def static(self, request: Request) -> Response:
        """A file of the pages; its address carries its hash, so browsers keep it."""
        name = request.path_params["name"]
        if name not in _STATIC:
            return Response("there is no such file", 404, media_type="text/plain")
        content, digest = static_file(name)
        if request.query_params.get("v") == digest:
            headers = {"cache-control": "public, max-age=31536000, immutable"}
        else:
            headers = {"cache-control": "no-cache"}
        headers |= {"etag": f'"{digest}"', "content-type": _STATIC[name], "x-content-type-options": "nosniff"}
        if request.headers.get("if-none-match") == f'"{digest}"':
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers)

    # -- inside -------------------------------------------------------------------------------------------------------

    async def _store(self) -> IncidentStore:
        if self._opened is None:
            async with self._store_opening:
                if self._opened is None:
                    self._opened = await asyncio.to_thread(IncidentStore, self._operations_url)
        return self._opened

    def _look(self, number: int) -> tuple[int, tuple[str, ...]]:
        assert self._opened is not None  # noqa: S101
        return self._opened.changed_since(number)

    def _config(self) -> Config:
        try:
            return self._config_file.current()
        except ConfigError as error:
            log.error("pages use the default configuration, aiops.yaml is wrong: %s", error)
            return Config()

    async def _graph(self) -> tuple[Config, Topology]:
        config = await asyncio.to_thread(self._config)
        kept = self._topology
        if kept is None or kept[1] is not config or time.monotonic() - kept[0] > TOPOLOGY_SECONDS:
            entities = await asyncio.to_thread(self._reader.entities)
            kept = self._topology = (time.monotonic(), config, Topology.of(config, entities))
        return config, kept[2]

    async def _trace(self, incident: Incident) -> tuple[Origins, str]:
        """How the alerts of an incident came about, and what went wrong if anything did."""
        alerts = [member.alert for member in (*incident.members, *incident.suppressed)]
        try:
            async with asyncio.timeout(PLOT_SECONDS), self._plotting:
                return await asyncio.to_thread(self._history.origins, alerts), ""
        except TimeoutError:
            return Origins({}, ()), f"The receipts could not be read within {PLOT_SECONDS:.0f} s. Reload to try again."
        except (OSError, DeltaError, pl.exceptions.PolarsError) as error:
            log.warning("receipts of %s failed: %s", incident.incident_id, error)
            return Origins({}, ()), "The receipts could not be read; the gateway's log says why."

    async def _derive_again(self, incident_id: str) -> dict[str, Any]:
        assert self._explain is not None  # noqa: S101
        async with self._explaining_one:
            return await asyncio.to_thread(self._explain, incident_id)

    def _strip(self, store: IncidentStore, until: int, days: int) -> tuple[Strip, tuple[Amendment, ...], int]:
        number = store.change_number()
        strip = self._history.strip(until, days)
        first, last = strip.days[-1][1][0].hour, strip.days[0][1][-1].hour
        return strip, store.amendments(first, last), number

    async def _draw(self, incident: Incident, hours: float | None) -> tuple[list[Plot], int, str]:
        """Plots, how many series were left out, and what went wrong if anything did."""
        try:
            async with asyncio.timeout(PLOT_SECONDS), self._plotting:
                return *await asyncio.to_thread(self._plots_of, incident, hours, _now()), ""
        except TimeoutError:
            return [], 0, f"The points could not be read within {PLOT_SECONDS:.0f} s. Reload to try again."
        except (OSError, DeltaError, pl.exceptions.PolarsError) as error:
            log.warning("plots of %s failed: %s", incident.incident_id, error)
            return [], 0, "The points could not be read; the gateway's log says why."

    def _plots_of(self, incident: Incident, hours: float | None, now: int) -> tuple[list[Plot], int]:
        place = {host: position for position, host in enumerate(incident.hosts)}
        alerts = sorted(
            (member.alert for member in (*incident.members, *incident.suppressed)),
            key=lambda alert: (
                alert.suppressed,
                place.get(alert.host, len(place)),
                -alert.severity_number,
                alert.starts_at,
            ),
        )
        ids = list(dict.fromkeys(alert.series_id for alert in alerts if alert.series_id is not None))
        chosen = ids[:MAX_PLOTS]
        if not chosen:
            return [], 0
        start, end = window_of(incident.started_at, incident.ended_at, now, hours)
        points = self._reader.read_points(chosen, start, end)
        expected = self._reader.expected(chosen, start, end)
        usual = self._reader.usual(chosen, incident.started_at)
        infos = infos_of([alert for alert in alerts if alert.series_id in chosen], self._reader.describe(chosen))
        changes = [(number, suspect.ts, suspect.title) for number, suspect in enumerate(incident.suspects, 1)]
        by_series = points.partition_by("series_id", as_dict=True)
        empty = points.clear()
        return [
            plot(
                info,
                series_id,
                by_series.get((series_id,), empty),
                start=start,
                end=end,
                alerts=own,
                changes=changes,
                expected=expected.get(series_id, ()),
                usual=usual.get(series_id),
            )
            for series_id, (info, own) in infos.items()
        ], len(ids) - len(chosen)

    def _render(self, request: Request, template: str, status: int = 200, **values: Any) -> Response:
        page = (
            environment()
            .get_template(template)
            .render(
                now=_now(),
                path=request.url.path,
                who=_who(request),
                may_operate=_may_operate(request),
                query=dict(request.query_params),
                **values,
            )
        )
        return HTMLResponse(page, status, headers=PAGE_HEADERS)

    def _page(self, handler: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        """Known errors as a page."""

        async def answer(request: Request) -> Response:
            try:
                return await handler(request)
            except (IncidentNotFound, SilenceNotFound) as error:
                return self._render(request, "problem.html", 404, heading="Not found", text=str(error))
            except _Refused as error:
                return self._render(request, "problem.html", error.status, heading="That did not work", text=str(error))
            except SQLAlchemyError as error:
                log.error("the operations database failed: %s", error)
                text = "The operations database does not answer. Nothing was changed; try again in a moment."
                return self._render(request, "problem.html", 503, heading="Not available", text=text)

        return answer

    @staticmethod
    def _document(handler: Callable[[Request], Awaitable[Any]]) -> Callable[[Request], Awaitable[Response]]:
        """An answer or a known error as JSON."""

        async def answer(request: Request) -> Response:
            status = 200
            try:
                document = await handler(request)
            except (IncidentNotFound, SilenceNotFound) as error:
                status, document = 404, {"error": "not_found", "message": str(error)}
            except ActionNotAllowed as error:
                status = 409
                document = {"error": "not_allowed", "message": str(error), "allowed_actions": list(error.allowed)}
            except _Refused as error:
                status, document = error.status, {"error": error.code, "message": str(error)}
            except ValueError as error:
                status, document = 400, {"error": "bad_request", "message": str(error)}
            except SQLAlchemyError as error:
                log.error("the operations database failed: %s", error)
                status, document = 503, {"error": "unavailable", "message": "the operations database does not answer"}
            headers = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
            return Response(orjson.dumps(document), status, headers, "application/json")

        return answer


class _Refused(Exception):
    """A request that is wrong in itself."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


@cache
def static_file(name: str) -> tuple[bytes, str]:
    """A file of the package and the hash that names its content."""
    content = resources.files("aiops_assets.incidents").joinpath("static", name).read_bytes()
    return content, hashlib.sha256(content).hexdigest()[:12]


@cache
def environment() -> Environment:
    """Templates; everything is escaped."""
    made = Environment(
        loader=PackageLoader("aiops_assets.incidents", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "iso": time_text,
        "utc": lambda at: instant(at).strftime("%d %b %H:%M:%S UTC"),
        "iso_of": lambda moment: moment.isoformat(),
        "lasting": duration_text,
        "name": lambda text: printable(str(text), 200),
        "severity": severity_word,
        "side": side_text,
        "hour": lambda key: f"{key[:10]} {key[11:]}:00",
        "day": lambda day: datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=UTC).strftime("%a %d %b"),
        "whole": lambda text: printable(str(text), 4_000),
        "listing": listing,
        "evidence": evidence_rows,
        "labels": lambda text: orjson.loads(text or "{}"),
        "quantity": lambda value, unit="": "–" if finite(value) is None else quantity(value, unit),
        "query": lambda values: urlencode(
            {name: value for name, value in values.items() if value not in {"", None, 0}}
        ),
    }
    made.globals |= {"static": lambda name: f"/static/{name}?v={static_file(name)[1]}"}
    return made


def evidence_rows(text: str) -> list[tuple[str, str]]:
    """Evidence as pairs for a table; what lies deeper gets a dotted name."""
    rows: list[tuple[str, str]] = []

    def add(name: str, value: object) -> None:
        if isinstance(value, dict):
            for inner, entry in value.items():
                add(f"{name}.{inner}" if name else str(inner), entry)
        elif isinstance(value, float):
            rows.append((name, f"{value:.6g}"))
        elif value is not None:
            rows.append((name, str(value)))

    add("", orjson.loads(text or "{}"))
    return rows[:60]


def _neighbourhoods(incident: Incident, topology: Topology) -> list[Neighbourhood]:
    hosts = set(incident.hosts)

    def neighbours(found: Mapping[str, tuple[str, ...]]) -> tuple[Neighbour, ...]:
        listed = [
            Neighbour(name, topology.nodes[name].kind if name in topology.nodes else "host", name in hosts, len(path))
            for name, path in found.items()
        ]
        return tuple(sorted(listed, key=lambda entry: (entry.steps, not entry.alerting, entry.name))[:20])

    shown = []
    for host in incident.hosts[:20]:
        node = topology.nodes.get(host)
        needs, needed_by = neighbours(topology.upstream(host)), neighbours(topology.downstream(host))
        kind, site, owner = (node.kind, node.site, node.owner) if node else ("host", None, None)
        shown.append(Neighbourhood(host, kind, site, owner, needs, needed_by))
    return shown


async def _form(request: Request) -> dict[str, str]:
    """The fields of a form, the first value of each."""
    body = await request.body()
    try:
        fields = parse_qs(body.decode("utf-8"), keep_blank_values=True, max_num_fields=32, errors="replace")
    except ValueError as error:
        raise _Refused(400, "bad_request", f"the form cannot be read: {error}") from error
    return {name: values[0] for name, values in fields.items()}


def _label_patterns(text: str) -> dict[str, str]:
    """``disk=sda, queue=orders*`` as label → pattern."""
    patterns = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, pattern = part.partition("=")
        if not equals or not name.strip() or not pattern.strip():
            raise ValueError(f"labels: write name=pattern, separated by commas; {printable(part, 60)!r} is not")
        patterns[name.strip()] = pattern.strip()
    return patterns


def _who(request: Request) -> str:
    principal = getattr(request.state, "principal", None)
    if principal is None:
        return "local"
    return principal if isinstance(principal, str) else cast(str, principal.name)


def _may_operate(request: Request) -> bool:
    return bool(getattr(getattr(request.state, "principal", None), "may_operate", True))


def _priority(text: str) -> int | None:
    return int(text) if text in {"1", "2", "3", "4", "5"} else None


def _offset(text: str, most: int = 1_000_000) -> int:
    return min(int(text), most) if text.isascii() and text.isdigit() and len(text) < 10 else 0


def _days(text: str) -> int:
    return (
        min(int(text), MAX_DAYS) if text.isascii() and text.isdigit() and 0 < len(text) < 4 and int(text) else DAYS[0]
    )


def _until(text: str) -> int:
    """The end of a day (``YYYY-MM-DD``, UTC) or now, whichever is earlier."""
    if not text:
        return _now()
    try:
        day = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError as error:
        raise _Refused(400, "bad_request", "until: a day such as 2026-01-31") from error
    return min(micros(day) + 24 * 3_600 * MICROS_PER_SECOND - 1, _now())


def _date(at: int) -> str:
    return instant(at).strftime("%Y-%m-%d")


def _hours(text: str) -> float | None:
    return float(text) if text in {"1", "6", "24", "72", "168"} else None


def _now() -> int:
    return time.time_ns() // 1_000
