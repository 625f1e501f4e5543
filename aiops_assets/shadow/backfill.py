"""The backfill: what Prometheus knows becomes deliveries in the landing zone, each sample once, whatever is killed.

What belongs here: discovery, fetching ahead, delivering in the order of time, taking up after a crash. What does not:
HTTP (``client``), planning (``plan``), memory of what was done (``journal``).

A delivery holds one answer as Prometheus sent it (still compressed) in an envelope with what the answer lacks: types
and units of its metrics. Its ``delivery_id`` names the import and the chunk, so that what was durable before a crash is
known again. A query that is too much for the server, or for one delivery, is cut in half along time.
"""

from __future__ import annotations

import gzip
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from aiops_assets.formats import parse
from aiops_assets.formats.payload import MAX_JSON_BYTES, gunzip
from aiops_assets.landing.reader import numbers, read_segment
from aiops_assets.landing.segment import SEALED, Delivery
from aiops_assets.landing.writer import SegmentWriter
from aiops_assets.shadow.client import Prometheus, PrometheusError, TooMuch
from aiops_assets.shadow.journal import Done, Journal
from aiops_assets.shadow.plan import Chunk, Labels, Leg

FORMAT = "prometheus_range"
ALERTS_QUERY = 'ALERTS{alertstate="firing"}'
#: an answer without compression is packed so for the landing zone
_LEVEL = 3

#: called with (chunks done, chunks in all, samples so far)
Progress = Callable[[int, int, int], None]


@dataclass(frozen=True, slots=True)
class Answer:
    """A part of a chunk, ready to be delivered: gzip bytes and what they hold."""

    body: bytes
    samples: int
    refused: int


def discover(prometheus: Prometheus, selectors: Sequence[str], start: int, end: int) -> list[tuple[str, list[Labels]]]:
    """The series that each selector has in [start, end), seconds.

    Raises:
        PrometheusError: it refuses, or there are more series than one answer holds.
    """
    found: list[tuple[str, list[Labels]]] = []
    for selector in selectors:
        form: dict[str, str | list[str]] = {"match[]": [selector], "start": str(start), "end": str(end - 1)}
        try:
            series = prometheus.data("/api/v1/series", form, method="POST")
        except TooMuch as error:
            raise PrometheusError(
                f"{selector} has too many series to list ({error}); narrow it: --match '{{job=\"node\"}}'"
            ) from error
        named = (labels for labels in series or () if isinstance(labels, dict) and labels.get("__name__"))
        found.append((selector, [{str(name): str(value) for name, value in labels.items()} for labels in named]))
    return found


def metric_metadata(prometheus: Prometheus) -> dict[str, dict[str, str]]:
    """Type and unit by metric; metrics that targets disagree about are left out. Empty where the server has none."""
    try:
        data = prometheus.data("/api/v1/metadata")
    except (PrometheusError, TooMuch):
        # Not every server that answers queries has metadata; names tell the kinds then.
        return {}
    known: dict[str, dict[str, str]] = {}
    for metric, entries in data.items() if isinstance(data, dict) else ():
        described = {
            (str(entry.get("type", "")), str(entry.get("unit", ""))) for entry in entries if isinstance(entry, dict)
        }
        if len(described) == 1:
            (kind, unit) = described.pop()
            known[str(metric)] = {"type": kind, "unit": unit}
    return known


class Backfill:
    """Brings one leg after the other from Prometheus to the landing zone.

    Raises (``run``):
        PrometheusError: it does not answer, or refuses; what was delivered stays.
        LandingFull: the disk is full; likewise.
    """

    def __init__(
        self,
        prometheus: Prometheus,
        journal: Journal,
        writer: SegmentWriter,
        metadata: Mapping[str, Any],
        *,
        wait_for_room: Callable[[], None] = lambda: None,
        stop: threading.Event | None = None,
    ) -> None:
        self._prometheus, self._journal, self._writer = prometheus, journal, writer
        self._metadata = metadata
        self._wait_for_room = wait_for_room
        self._stop = stop or threading.Event()
        #: answers that the server itself called incomplete
        self.partial = 0

    def run(self, legs: Sequence[Leg], progress: Progress = lambda done, total, samples: None) -> None:
        """Fetch and deliver what is missing."""
        total = sum(len(leg.windows()) * (len(leg.queries) + 1) for leg in legs)
        done = total - len(list(self._pending(legs)))
        samples = sum(entry.samples for entry in self._journal.done.values())
        progress(done, total, samples)
        self._journal.started(self._writer.writer_id, self._writer.last_sealed + 1)
        pool = ThreadPoolExecutor(self._prometheus.access.concurrency, thread_name_prefix="prometheus")
        try:
            for task, answers in self._ahead(pool, self._pending(legs)):
                if isinstance(task, Chunk):
                    samples += self._deliver(task, answers)
                else:
                    leg, window = task
                    self._journal.save_alerts(leg.number, window, [gzip.decompress(answer.body) for answer in answers])
                done += 1
                progress(done, total, samples)
        finally:
            self._stop.set()
            # Not waited for: a server that hangs must not hold up whoever asked to stop.
            pool.shutdown(wait=False, cancel_futures=True)
        self._writer.seal()

    def _pending(self, legs: Sequence[Leg]) -> Iterator[Chunk | tuple[Leg, int]]:
        for leg in legs:
            chunks = iter(list(leg.chunks()))
            per_window = len(leg.queries)
            for number in range(len(leg.windows())):
                if not self._journal.alerts_path(leg.number, number).exists():
                    yield leg, number
                for _ in range(per_window):
                    chunk = next(chunks)
                    if chunk.key not in self._journal.done:
                        yield chunk

    def _ahead(
        self, pool: ThreadPoolExecutor, tasks: Iterator[Chunk | tuple[Leg, int]]
    ) -> Iterator[tuple[Chunk | tuple[Leg, int], list[Answer]]]:
        """Results in the order of the tasks, a few of them under way."""
        waiting: deque[tuple[Chunk | tuple[Leg, int], Future[list[Answer]]]] = deque()
        for task in tasks:
            waiting.append((task, pool.submit(self._fetch, task)))
            if len(waiting) > self._prometheus.access.concurrency:
                first, future = waiting.popleft()
                yield first, future.result()
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()

    def _fetch(self, task: Chunk | tuple[Leg, int]) -> list[Answer]:
        step = self._journal.question.step
        if isinstance(task, Chunk):
            return self._parts(task.query, task.start, task.end, step)
        leg, window = task
        start, end = leg.windows()[window]
        return self._parts(ALERTS_QUERY, start, end, step, alerts=True)

    def _parts(self, query: str, start: int, end: int, step: int, *, alerts: bool = False) -> list[Answer]:
        """The answers for [start, end), cut in half for as long as one is too much."""
        try:
            body, packed = self._prometheus.query_range(query, start, end - step, step)
        except TooMuch as error:
            middle = start + (end - start) // (2 * step) * step
            if middle <= start:
                raise PrometheusError(
                    f"{query[:200]} is too much even for one instant ({error}); narrow it with --match"
                ) from error
            return [
                *self._parts(query, start, middle, step, alerts=alerts),
                *self._parts(query, middle, end, step, alerts=alerts),
            ]
        packed_body = body if packed else gzip.compress(body, _LEVEL, mtime=0)
        if alerts:
            return [Answer(packed_body, 0, 0)]
        return [answer for answer in [self._checked(packed_body, query)] if answer is not None]

    def _checked(self, packed: bytes, query: str) -> Answer | None:
        """An answer in its envelope, read once so that it is known to be whole; ``None`` when it holds no series.

        Raises:
            PrometheusError: it is something else than an answer to a range query.
        """
        envelope = {"prometheus_range": 1, "host_label": self._journal.question.host_label}
        plain = gunzip(packed, MAX_JSON_BYTES)
        parsed = parse(FORMAT, [_delivery_of(plain, "probe", "probe", {})])
        refused = 0
        if parsed.rejects:
            try:
                refused = _samples_in(plain) - parsed.points.height
            except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
                reason = parsed.rejects[0].reason
                raise PrometheusError(f"the answer to {query[:200]} cannot be read: {reason}") from error
            if not refused and parsed.points.is_empty():
                return None
        if b'"warnings":[' in plain[-4000:] or b'"isPartial":true' in plain[:200]:
            self.partial += 1
        names = parsed.series["metric"].unique().to_list()
        families = {name for metric in names for name in (metric, *_families(metric))}
        metadata = {name: self._metadata[name] for name in sorted(families) if name in self._metadata}
        head = orjson.dumps({**envelope, "metadata": metadata})[:-1] + b',"answer":'
        # Members of a gzip stream follow one another, so the envelope goes around what is compressed already.
        body = gzip.compress(head, _LEVEL, mtime=0) + packed + gzip.compress(b"}", _LEVEL, mtime=0)
        return Answer(body, parsed.points.height, refused)

    def _deliver(self, chunk: Chunk, answers: Sequence[Answer]) -> int:
        self._wait_for_room()
        journal, writer = self._journal, self._writer
        seq = writer.last_sealed + 1
        deliveries = [
            _delivery_of(
                answer.body,
                f"{journal.shadow_id}/{chunk.key}/{number}/{len(answers)}",
                journal.question.source,
                {"format": FORMAT, "history": "1", "samples": str(answer.samples), "refused": str(answer.refused)},
            )
            for number, answer in enumerate(answers)
        ]
        if deliveries:
            writer.append_deliveries(deliveries)
        samples = sum(answer.samples for answer in answers)
        refused = sum(answer.refused for answer in answers)
        size = sum(len(answer.body) for answer in answers)
        journal.finished([Done(chunk.key, writer.writer_id if answers else "", seq, samples, refused, size)])
        writer.seal_if_due()
        return samples


def recovered(journal: Journal, landing: Path) -> list[Done]:
    """Chunks that are durable in sealed segments although the journal does not say so."""
    found: dict[str, dict[int, tuple[str, int, Delivery]]] = {}
    wanted: dict[str, int] = {}
    for writer, first in journal.first_seq.items():
        folder = landing / writer
        if not folder.is_dir():
            continue
        known = max((entry.seq for entry in journal.done.values() if entry.writer == writer), default=first)
        for seq in sorted(number for number in numbers(folder, SEALED) if number >= max(known, first)):
            for delivery in read_segment(folder, seq).deliveries:
                mine, chunk, part, parts = _address(delivery.delivery_id)
                if mine == journal.shadow_id and chunk not in journal.done:
                    found.setdefault(chunk, {}).setdefault(part, (writer, seq, delivery))
                    wanted[chunk] = parts
    result: list[Done] = []
    for chunk, parts_found in found.items():
        if len(parts_found) < wanted[chunk]:
            continue
        places = {(writer, seq) for writer, seq, _ in parts_found.values()}
        writer, seq = min(places)
        headers = [delivery.headers for _, _, delivery in parts_found.values()]
        result.append(
            Done(
                chunk,
                writer,
                seq,
                sum(int(header.get("samples", 0)) for header in headers),
                sum(int(header.get("refused", 0)) for header in headers),
                sum(len(delivery.body) for *_, delivery in parts_found.values()),
            )
        )
    return result


def chunk_of(delivery: Delivery, shadow_id: str) -> str | None:
    """The chunk that a delivery of this import brings, ``None`` for all others."""
    mine, chunk, _, _ = _address(delivery.delivery_id)
    return chunk if mine == shadow_id else None


def _address(delivery_id: str) -> tuple[str, str, int, int]:
    """(import, chunk, part, parts) of a delivery's id; empty for ids that are none of ours."""
    pieces = delivery_id.split("/")
    if len(pieces) != 4 or not (pieces[2].isdecimal() and pieces[3].isdecimal()):
        return "", "", 0, 0
    return pieces[0], pieces[1], int(pieces[2]), int(pieces[3])


def _delivery_of(body: bytes, delivery_id: str, source: str, headers: Mapping[str, str]) -> Delivery:
    return Delivery(delivery_id, time.time_ns() // 1000, source, "application/json", body, headers)


def _families(metric: str) -> Iterator[str]:
    """Names under which the metadata may know a metric: its histogram or summary, a counter without ``_total``."""
    for ending in ("_total", "_count", "_sum", "_bucket"):
        if metric.endswith(ending):
            yield metric.removesuffix(ending)


def _samples_in(plain: bytes) -> int:
    """How many samples an answer has, also those that are not stored."""
    document = orjson.loads(plain)
    return sum(
        len(entry.get("values") or ()) + len(entry.get("histograms") or ()) for entry in document["data"]["result"]
    )
