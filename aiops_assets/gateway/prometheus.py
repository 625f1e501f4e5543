"""The read side of the Prometheus HTTP API, over the lake: Grafana plots it as if it were a Prometheus.

What belongs here: routes, parameters, envelopes, status codes, the bound on how much is evaluated at once, and the
federation page. What does not: PromQL (``telemetry.promql``) and who may ask (``access``). Answers follow
https://prometheus.io/docs/prometheus/latest/querying/api/. Everything is computed in few threads of its own, so that
the event loop goes on acknowledging deliveries; a query ends when its time is up or its client has gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from urllib.parse import parse_qsl

import numpy as np
import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from aiops_assets.hours import MICROS_PER_SECOND, micros
from aiops_assets.lake.tables import Lake
from aiops_assets.settings import Settings
from aiops_assets.telemetry.promql import alerts, render
from aiops_assets.telemetry.promql.errors import Kind, QueryError, bad_data
from aiops_assets.telemetry.promql.evaluate import LOOKBACK, Answer, Evaluator, Limits, Range, Stop, instants_of
from aiops_assets.telemetry.promql.index import SeriesIndex
from aiops_assets.telemetry.promql.names import NAME, is_label
from aiops_assets.telemetry.promql.plan import Matcher, plan, selector
from aiops_assets.telemetry.promql.points import MAX_INSTANT, Lakeside
from aiops_assets.telemetry.promql.vectors import Labels, Vector, identity

log = logging.getLogger(__name__)

#: the version whose answers these are; Grafana asks for it to know what it may send
COMPATIBLE_VERSION = "2.42.0"
#: queries evaluated at once, and those that may wait for a place
WORKERS, MAX_WAITING = 2, 32
#: more time than its own limit that a query gets to notice it, before it is answered for
NOTICE_SECONDS = 2.0
#: a dashboard asks many questions at once; tables are looked at for the first of them
FRESH_SECONDS = 1.0
MAX_PARAMETERS = 1_000
#: names of series that one answer of series, labels or federation may have
MAX_SERIES = 100_000
_STATUS: dict[Kind, int] = {
    "bad_data": 400,
    "execution": 422,
    "timeout": 503,
    "canceled": 503,
    "unavailable": 503,
    "not_found": 404,
    "internal": 500,
}
_DURATION = re.compile(r"(?:(\d+)y)?(?:(\d+)w)?(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+)s)?(?:(\d+)ms)?", re.ASCII)
_UNITS_MS = (31_536_000_000, 604_800_000, 86_400_000, 3_600_000, 60_000, 1_000, 1)
_EXPOSED_KIND = {"counter": "counter", "histogram": "histogram"}
Data = bytes
Work = Callable[["Parameters", Stop], Data]


class Parameters:
    """The parameters of a request: query string and form, as Prometheus merges them."""

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in pairs:
            self._values.setdefault(name, []).append(value)

    def get(self, name: str) -> str:
        """The first value, "" when there is none."""
        return self._values.get(name, [""])[0]

    def all(self, name: str) -> list[str]:
        return self._values.get(name, [])

    def instant(self, name: str, default: int | None) -> int:
        """Microseconds, from seconds since the epoch or RFC 3339, to the millisecond.

        Raises:
            QueryError: it is missing without a default, or cannot be read.
        """
        text = self.get(name)
        if not text and default is not None:
            return default
        try:
            return _instant(text)
        except (ValueError, OverflowError) as error:
            raise bad_data(f'invalid parameter "{name}": cannot parse "{text}" to a valid timestamp') from error

    def duration(self, name: str, default: int | None = None) -> int:
        """Microseconds, from seconds or a text such as 1h30m.

        Raises:
            QueryError: it is missing without a default, or cannot be read.
        """
        text = self.get(name)
        if not text and default is not None:
            return default
        try:
            return _duration(text)
        except (ValueError, OverflowError) as error:
            raise bad_data(f'invalid parameter "{name}": cannot parse "{text}" to a valid duration') from error

    def limit(self) -> int:
        """The ``limit`` parameter; 0 means none.

        Raises:
            QueryError: it is no number, or negative.
        """
        text = self.get("limit")
        if not text:
            return 0
        if not text.isascii() or not text.isdigit() or len(text) > 12:
            raise bad_data(f'invalid parameter "limit": "{text}" is not a number from 0')
        return int(text)


def _instant(text: str) -> int:
    with contextlib.suppress(ValueError):
        seconds = float(text)
        if not math.isfinite(seconds):
            raise OverflowError
        whole = math.floor(seconds)
        return _bounded(whole * 1000 + round((seconds - whole) * 1000)) * 1000
    if "T" not in text.upper():
        raise ValueError
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError
    return micros(at) // 1000 * 1000


def _bounded(milliseconds: int) -> int:
    if abs(milliseconds) > MAX_INSTANT // 1000:
        raise OverflowError
    return milliseconds


def _duration(text: str) -> int:
    with contextlib.suppress(ValueError):
        seconds = float(text)
        if not math.isfinite(seconds):
            raise OverflowError
        return _bounded(int(seconds * 1000)) * 1000
    found = _DURATION.fullmatch(text)
    if not text or found is None:
        raise ValueError
    return _bounded(sum(int(number or 0) * unit for number, unit in zip(found.groups(), _UNITS_MS, strict=True))) * 1000


class PrometheusApi:
    """The handlers; share one instance, it holds the caches and the threads."""

    def __init__(self, settings: Settings) -> None:
        self._lake = Lakeside(Lake(settings.paths.lake), settings.prometheus_cache_bytes, fresh_seconds=FRESH_SECONDS)
        self._limits = Limits(samples=settings.prometheus_max_samples, seconds=settings.prometheus_timeout_seconds)
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="promql")
        self._under_way: set[Stop] = set()

    def routes(self) -> Sequence[BaseRoute]:
        """The routes, for Starlette."""
        both, get = ["GET", "POST"], ["GET"]
        api = "/api/v1"
        return [
            Route(f"{api}/query", self._json(self._query), methods=both),
            Route(f"{api}/query_range", self._json(self._query_range), methods=both),
            Route(f"{api}/series", self._json(self._series), methods=both),
            Route(f"{api}/labels", self._json(self._labels), methods=both),
            Route(f"{api}/label/{{name}}/values", self._label_values, methods=get),
            Route(f"{api}/metadata", self._json(self._metadata), methods=get),
            Route(f"{api}/alerts", self._json(self._alerts), methods=get),
            Route(f"{api}/rules", self._json(lambda _parameters, _stop: b'{"groups":[]}'), methods=get),
            Route(f"{api}/query_exemplars", self._json(lambda _parameters, _stop: b"[]"), methods=both),
            Route(f"{api}/status/buildinfo", self._build, methods=get),
            Route("/federate", self._federate, methods=get),
        ]

    @property
    def pending(self) -> int:
        """How many queries are evaluated or wait for it."""
        return len(self._under_way)

    def close(self) -> None:
        """End every query; nothing is evaluated afterwards."""
        for stop in list(self._under_way):
            stop.cancelled.set()
        self._pool.shutdown(wait=False, cancel_futures=True)

    # --- requests ----------------------------------------------------------------------------------------------------

    def _json(self, work: Work) -> Callable[[Request], Awaitable[Response]]:
        async def handle(request: Request) -> Response:
            try:
                parameters = await _parameters(request)
                data = await self._evaluated(request, parameters, work)
            except QueryError as error:
                return failure(error)
            return Response(b'{"status":"success","data":' + data + b"}", media_type="application/json")

        return handle

    async def _label_values(self, request: Request) -> Response:
        name = request.path_params["name"]

        def work(parameters: Parameters, stop: Stop) -> Data:
            return self._values(name, parameters, stop)

        return await self._json(work)(request)

    async def _build(self, _request: Request) -> Response:
        """What this is compatible with."""
        names = ("revision", "branch", "buildUser", "buildDate", "goVersion")
        data = {"version": COMPATIBLE_VERSION, **dict.fromkeys(names, "")}
        return Response(orjson.dumps({"status": "success", "data": data}), media_type="application/json")

    async def _federate(self, request: Request) -> Response:
        """The newest point of every series that a ``match[]`` selects, for another Prometheus to scrape."""
        try:
            parameters = await _parameters(request)
            page = await self._evaluated(request, parameters, self._federation)
        except QueryError as error:
            return Response(f"{error}\n", _STATUS[error.kind], media_type="text/plain; charset=utf-8")
        return Response(page, headers={"content-type": "text/plain; version=0.0.4; charset=utf-8"})

    async def _evaluated(self, request: Request, parameters: Parameters, work: Work) -> Data:
        """The result of work in a thread, unless its time is up first or the client has gone."""
        if self.pending >= WORKERS + MAX_WAITING:
            raise QueryError("unavailable", f"{MAX_WAITING} queries are waiting already; try again later")
        allowed = parameters.duration("timeout", int(self._limits.seconds * MICROS_PER_SECOND)) / MICROS_PER_SECOND
        stop = Stop(min(max(allowed, 0.0), self._limits.seconds))
        try:
            computing = self._pool.submit(_guarded, work, parameters, stop)
        except RuntimeError as error:
            raise QueryError("unavailable", "the gateway stops") from error
        self._under_way.add(stop)
        computing.add_done_callback(lambda _future: self._under_way.discard(stop))
        running = asyncio.wrap_future(computing)
        gone = asyncio.ensure_future(request.receive())
        try:
            await asyncio.wait(
                (running, gone), timeout=stop.seconds + NOTICE_SECONDS, return_when=asyncio.FIRST_COMPLETED
            )
            if running.done():
                return running.result()
            if gone.done():
                raise QueryError("canceled", "the client has gone")
            raise QueryError("timeout", f"query timed out in expression evaluation after {stop.seconds:g} s")
        finally:
            stop.cancelled.set()
            running.cancel()
            gone.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await gone

    # --- what is asked for, in threads -------------------------------------------------------------------------------

    def _evaluator(self, parameters: Parameters, stop: Stop) -> Evaluator:
        edges = parameters.get("boundaries") or "closed"
        if edges not in {"closed", "open"}:
            raise bad_data(
                f'invalid parameter "boundaries": "{edges}" is neither "closed" (as Prometheus 2) nor "open" (as 3)'
            )
        lookback = parameters.duration("lookback_delta", LOOKBACK)
        return Evaluator(self._lake, self._limits, stop=stop, lookback=lookback, open_left=edges == "open")

    def _query(self, parameters: Parameters, stop: Stop) -> Data:
        at = parameters.instant("time", _now())
        limit = parameters.limit()
        node = plan(parameters.get("query"))
        answer = self._evaluator(parameters, stop).instant(node, at)
        return render.data_of(_limited(answer, limit), as_range=False)

    def _query_range(self, parameters: Parameters, stop: Stop) -> Data:
        start, end = parameters.instant("start", None), parameters.instant("end", None)
        step = parameters.duration("step")
        instants_of(start, end, step)
        limit = parameters.limit()
        node = plan(parameters.get("query"))
        answer = self._evaluator(parameters, stop).range(node, start, end, step)
        return render.data_of(_limited(answer, limit), as_range=True)

    def _series(self, parameters: Parameters, stop: Stop) -> Data:
        selectors = parameters.all("match[]")
        if not selectors:
            raise bad_data("no match[] parameter provided")
        found = self._found(parameters, [selector(text) for text in selectors], stop)
        if len(found.positions) > MAX_SERIES:
            raise QueryError(
                "execution", f"{len(found.positions):,} series match, at most {MAX_SERIES:,} are listed; narrow match[]"
            )
        labels = [found.index.labels(position) for position in found.positions.tolist()]
        labels = sorted([*labels, *found.alerts], key=identity)
        return orjson.dumps(labels[: parameters.limit() or None])

    def _labels(self, parameters: Parameters, stop: Stop) -> Data:
        found = self._found(parameters, [selector(text) for text in parameters.all("match[]")], stop)
        names = set(found.index.label_names(found.positions)).union(*found.alerts)
        return orjson.dumps(sorted(names)[: parameters.limit() or None])

    def _values(self, name: str, parameters: Parameters, stop: Stop) -> Data:
        if not is_label(name):
            raise bad_data(f'invalid label name: "{name}"')
        found = self._found(parameters, [selector(text) for text in parameters.all("match[]")], stop)
        values = set(found.index.label_values(name, found.positions))
        values.update(labels[name] for labels in found.alerts if name in labels)
        return orjson.dumps(sorted(values)[: parameters.limit() or None])

    def _found(self, parameters: Parameters, selectors: list[tuple[Matcher, ...]], stop: Stop) -> _Found:
        """The series that any selector means (all, when there is none) and that have points in the range asked for."""
        bounded = bool(parameters.get("start") or parameters.get("end"))
        start = parameters.instant("start", -MAX_INSTANT)
        end = parameters.instant("end", MAX_INSTANT)
        if end < start:
            raise bad_data('invalid parameter "end": end timestamp must not be before start time')
        index = self._lake.index()
        chosen = np.zeros(len(index), np.bool_)
        for matchers in selectors or [()]:
            chosen[index.select(matchers)] = True
        if bounded:
            seen = self._lake.snapshot().present(start, end, stop.check)
            chosen &= np.isin(index.ids, seen)
        of_alerts: dict[object, Labels] = {}
        for matchers in selectors or [()]:
            names = alerts.concerned(matchers)
            if names:
                labels, _ = alerts.select(self._lake.alerts(), names, matchers, start, end, points=False)
                of_alerts.update((identity(entry), entry) for entry in labels)
        return _Found(index, np.flatnonzero(chosen), list(of_alerts.values()))

    def _metadata(self, parameters: Parameters, _stop: Stop) -> Data:
        wanted, limit = parameters.get("metric"), parameters.limit()
        entries = {
            name: [
                {"type": _EXPOSED_KIND.get(kind, "gauge"), "help": metric, "unit": unit}
                for metric, kind, unit in meanings
            ]
            for name, meanings in sorted(self._lake.index().meanings.items())
            if not wanted or name == wanted
        }
        return orjson.dumps(dict(list(entries.items())[: limit or None]))

    def _alerts(self, _parameters: Parameters, _stop: Stop) -> Data:
        frame = self._lake.alerts()
        frame = frame.filter(frame["ends_at"].is_null() & frame["state"].is_in(["firing", "suppressed"]))
        entries = [
            {
                "labels": {name: value for name, value in labels.items() if name not in {NAME, "alertstate"}},
                "annotations": {"summary": title},
                "state": "firing",
                "activeAt": starts_at.isoformat().replace("+00:00", "Z"),
                "value": str(render.numbers(np.array([math.nan if value is None else value]))[0]),
            }
            for labels, title, starts_at, value in zip(
                alerts.labels_of(frame, alerts.NAMES[0]),
                frame["title"],
                frame["starts_at"],
                frame["value"],
                strict=True,
            )
        ]
        return orjson.dumps({"alerts": entries})

    def _federation(self, parameters: Parameters, stop: Stop) -> Data:
        now = _now()
        points: dict[object, Range] = {}
        for text in parameters.all("match[]"):
            found = self._evaluator(parameters, stop).newest(selector(text), now)
            points.update((identity(entry.labels), entry) for entry in found)
        kinds = {
            name: {_EXPOSED_KIND.get(kind, "gauge") for _, kind, _ in meanings}
            for name, meanings in self._lake.index().meanings.items()
        }
        lines: list[str] = []
        before = None
        for _, entry in sorted(points.items(), key=lambda item: (item[1].labels.get(NAME, ""), item[0])):
            name = entry.labels.get(NAME, "")
            if name != before:
                of_name = kinds.get(name, {"gauge"})
                lines.append(f"# TYPE {name} {of_name.pop() if len(of_name) == 1 else 'untyped'}")
                before = name
            lines.append(_line(name, entry))
        return "".join(f"{line}\n" for line in lines).encode()


class _Found:
    """Series of an index by position, and label sets of alerts."""

    def __init__(self, index: SeriesIndex, positions: np.ndarray, of_alerts: list[Labels]) -> None:
        self.index, self.positions, self.alerts = index, positions, of_alerts


def failure(error: QueryError) -> Response:
    """An error in Prometheus' envelope and with its status code."""
    body = orjson.dumps({"status": "error", "errorType": error.kind, "error": str(error)})
    return Response(body, _STATUS[error.kind], media_type="application/json")


async def _parameters(request: Request) -> Parameters:
    """Query string and form of a request.

    Raises:
        QueryError: they cannot be read, or are too many.
    """
    body = await request.body()
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        pairs = parse_qsl(request.url.query, keep_blank_values=True, max_num_fields=MAX_PARAMETERS, errors="strict")
        if request.method == "POST" and kind == "application/x-www-form-urlencoded":
            form = parse_qsl(
                body.decode("utf-8"), keep_blank_values=True, max_num_fields=MAX_PARAMETERS, errors="strict"
            )
            pairs = [*form, *pairs]
    except ValueError as error:
        raise bad_data(f"error parsing form values: {error}") from error
    return Parameters(pairs)


def _guarded(work: Work, parameters: Parameters, stop: Stop) -> Data:
    stop.check()
    try:
        return work(parameters, stop)
    except QueryError:
        raise
    except MemoryError as error:
        raise QueryError("execution", "the query needs more memory than there is") from error
    except Exception as error:
        log.exception("a query of the Prometheus API failed")
        raise QueryError("internal", f"this failed here ({type(error).__name__}); the log says why") from error


def _limited(answer: Answer, limit: int) -> Answer:
    if not limit or answer.vector is None or len(answer.vector) <= limit:
        return answer
    vector = answer.vector
    cut = Vector(vector.labels[:limit], vector.values[:limit], vector.present[:limit])
    return Answer(answer.kind, answer.instants, vector=cut)


def _line(name: str, entry: Range) -> str:
    labels = {"instance": "", **entry.labels}
    text = ",".join(f'{label}="{_escaped(value)}"' for label, value in sorted(labels.items()) if label != NAME)
    return f"{name}{{{text}}} {render.numbers(entry.values)[0]} {int(entry.ts[0]) // 1000}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _now() -> int:
    return time.time_ns() // 1_000_000 * 1_000
