"""Texts that senders of events write: placeholders filled in, lines of syslog, as functions of seed, host and instant.

What belongs here: log lines of habits and faults (RFC 5424). What does not: events that come one at a time
(``happenings``) and samples (``lines``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import polars as pl
from numpy.typing import NDArray

from aiops_assets.hours import MICROS_PER_SECOND
from aiops_assets.synthetic.storms.course import Course
from aiops_assets.synthetic.storms.faults import Occurrence, Plan
from aiops_assets.synthetic.storms.fleet import Host, Stream
from aiops_assets.synthetic.storms.noise import Floats, Ints, Salts, counts, salt, salts, uniform
from aiops_assets.synthetic.storms.vocabulary import Line, LogEffect

SEVERITIES: Mapping[str, int] = {
    "emerg": 0, "alert": 1, "crit": 2, "err": 3, "warning": 4, "notice": 5, "info": 6, "debug": 7,
}  # fmt: skip
#: 32473 is the enterprise number for examples (RFC 5612)
_ELEMENT = '[origin@32473 synthetic="true"]'
#: no app of a host reports more events a second than this, whatever a scenario makes of the load
MOST_A_SECOND = 50.0
_PLACE = re.compile(r"\{(host|service|peer|n|ms|hex|user|path|root|release|previous|title)\}")
_PATHS = ("/", "/cart", "/checkout", "/api/v1/items", "/api/v1/orders", "/search", "/login", "/static/app.js")
_USERS = ("svc-shop", "svc-orders", "svc-batch", "svc-report")
_CODE = b"0123456789abcdef"


@dataclass(frozen=True, slots=True)
class Written:
    """Lines of one source of lines: ``rate`` a second [B, H] by bucket and host, before chance decides."""

    name: str
    app: str
    facility: int
    lines: tuple[Line, ...]
    rate: Floats
    root: str


def fill(text: str, values: Mapping[str, str]) -> str:
    """A text with its placeholders replaced; those that have no value stay."""
    return _PLACE.sub(lambda match: values.get(match[1], match[0]), text)


def chances(salted: int, number: int = 0) -> dict[str, str]:
    """Values of the placeholders that chance fills, for one event."""
    key = salt(salted, number)
    return {
        "peer": f"192.0.2.{key % 254 + 1}",
        "n": str(key >> 8 & 0xFFFF),
        "ms": str(5 + (key >> 24 & 0x3FF)),
        "hex": f"{key >> 32:08x}",
        "user": _USERS[key >> 16 & 3],
        "path": _PATHS[key >> 20 & 7],
    }


def habits(course: Course, plan: Plan, edges: Ints) -> list[Written]:
    """What the hosts of a stream write in the buckets between ``edges``: their habits, and what faults add."""
    stream = course.stream
    middles = (edges[:-1] + edges[1:]) // 2
    hosts = len(stream.hosts)
    load = np.broadcast_to(course.load(middles), (len(middles), hosts))
    silent = _silent(course, middles)
    made = []
    for number, habit in enumerate(plan.scenario.logs_of(plan.scenario.hosts[stream.group])):
        rate = habit.rate * np.maximum(1.0 + habit.load * (load - 1.0), 0.0)
        made.append(Written(f"habit {number}", habit.app, habit.facility, habit.lines, rate, ""))
    for occurrence in plan.between(int(edges[0]), int(edges[-1])):
        root = plan.fleet.hosts[occurrence.roots[0]].name
        for number, effect in enumerate(occurrence.kind.logs):
            if not writes(plan, stream, effect):
                continue
            reach = occurrence.reach[effect.to]
            felt = rate_of(occurrence, course, reach, edges, effect.rate, effect.begins, effect.once)
            if felt is not None:
                name = f"{occurrence.id} {number}"
                made.append(Written(name, effect.app, effect.facility, effect.lines, felt, root))
    return [Written(w.name, w.app, w.facility, w.lines, np.where(silent, 0.0, w.rate), w.root) for w in made]


def writes(plan: Plan, stream: Stream, effect: LogEffect) -> bool:
    """Whether hosts of a stream run the app of an effect: where the fault is, and where it always writes."""
    if effect.to == "root":
        return True
    return any(habit.app == effect.app for habit in plan.scenario.logs_of(plan.scenario.hosts[stream.group]))


def _silent(course: Course, at: Ints) -> NDArray[np.bool_]:
    found = course.silent(at // course.interval)
    return np.zeros((len(at), len(course.stream.hosts)), dtype=bool) if found is None else found


def rate_of(
    occurrence: Occurrence,
    course: Course,
    reach: Mapping[int, int],
    edges: Ints,
    rate: float,
    begins: float,
    once: bool = False,
) -> Floats | None:
    """[B, H] events a second that an occurrence makes hosts of a stream report; ``None`` for none.

    ``once`` gives infinity in the bucket in which it begins.
    """
    first, hosts = course.stream.first, len(course.stream.hosts)
    felt = [(position - first, hop) for position, hop in reach.items() if first <= position < first + hosts]
    if not felt:
        return None
    middles = (edges[:-1] + edges[1:]) // 2
    found = np.zeros((len(middles), hosts))
    for hop in {hop for _, hop in felt}:
        columns = np.array([column for column, own in felt if own == hop])
        if once:
            begin = occurrence.start + occurrence.delay(hop) + round(occurrence.ramp * begins)
            found[np.ix_((edges[:-1] <= begin) & (begin < edges[1:]), columns)] = np.inf
        else:
            part = occurrence.progress(middles, hop, begins=begins) * min(1.0, occurrence.strength(hop)) * rate
            found[:, columns] = part[:, None]
    return found if found.any() else None


def syslog(course: Course, plan: Plan, edges: Ints, bucket_numbers: Ints) -> pl.DataFrame:
    """Lines of the buckets between ``edges``: ``bucket`` Int64 (index into them), ``ts`` Int64 microseconds as the
    host's clock tells, ``line`` String without line feed; in no particular order."""
    stream = course.stream
    names = [host.name for host in stream.hosts]
    parts = []
    for written in habits(course, plan, edges):
        salted = salts(plan.seed, f"{stream.group} log {written.name}", names)
        bucket, host, number = events(written.rate, edges, bucket_numbers, salted)
        if not len(bucket):
            continue
        key = _keys(salted[host], bucket_numbers[bucket], number)
        share = (key >> np.uint64(40)).astype(np.float64) / 2.0**24
        ts = edges[bucket] + (share * (edges[bucket + 1] - edges[bucket])).astype(np.int64)
        parts.append(_rendered(course, written, bucket, host, ts, key))
    if not parts:
        return pl.DataFrame(schema={"bucket": pl.Int64, "ts": pl.Int64, "line": pl.String})
    return pl.concat(parts)


def events(rate: Floats, edges: Ints, bucket_numbers: Ints, salted: Salts) -> tuple[Ints, Ints, Ints]:
    """(bucket, host, number among those of bucket and host) of events of a Poisson process."""
    seconds = (edges[1:] - edges[:-1])[:, None] / MICROS_PER_SECOND
    single = np.isinf(rate)
    mean = np.minimum(np.where(single, 0.0, rate), MOST_A_SECOND) * seconds
    found = np.where(single, 1, counts(mean, uniform(bucket_numbers, salted)))
    bucket, host = np.nonzero(found)
    repeated = found[bucket, host]
    number = np.arange(int(repeated.sum())) - np.repeat(np.cumsum(repeated) - repeated, repeated)
    return np.repeat(bucket, repeated), np.repeat(host, repeated), number


def _keys(salted: Salts, bucket: Ints, number: Ints) -> Salts:
    """[N] a hash for each event."""
    with np.errstate(over="ignore"):
        mixed = salted + bucket.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        mixed += number.astype(np.uint64) * np.uint64(0xD1B54A32D192ED03)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _rendered(course: Course, written: Written, bucket: Ints, host: Ints, ts: Ints, key: Salts) -> pl.DataFrame:
    stream = course.stream
    skew = course.skew(ts[np.argsort(ts)]) if course.plan.applied(stream, "*") else None
    if skew is not None:
        rank = np.empty(len(ts), dtype=np.int64)
        rank[np.argsort(ts)] = np.arange(len(ts))
        ts = ts + skew[rank, host].astype(np.int64)
    weights = np.cumsum([line.weight for line in written.lines])
    share = (key & np.uint64(0xFFFF)).astype(np.float64) / 65_536.0 * weights[-1]
    choice = np.searchsorted(weights, share, side="right")
    small = (key >> np.uint64(16)).astype(np.int64)
    frame = pl.DataFrame(
        {
            "bucket": bucket,
            "ts": ts,
            "host": pl.Series([one.name for one in stream.hosts]).gather(host),
            "line": choice,
            "peer": _small(small % 254 + 1),
            "n": _small(small >> 3 & 0xFFFF),
            "ms": _small(5 + (small >> 9 & 0x3FF)),
            "hex": _hex(key),
            "user": pl.Series(_USERS).gather(small & 3),
            "path": pl.Series(_PATHS).gather(small >> 5 & 7),
            "pid": _small(300 + (small >> 12) % 32_000),
        }
    )
    service = course.plan.fleet.named(stream.service) if stream.service else stream.group
    stamp = pl.from_epoch("ts", time_unit="us").dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ")
    parts = []
    for number, line in enumerate(written.lines):
        chosen = frame.filter(pl.col("line") == number)
        if chosen.is_empty():
            continue
        pri = written.facility * 8 + SEVERITIES[line.severity]
        pid = pl.lit("-") if written.app == "kernel" else pl.col("pid")
        text = [pl.lit(f"<{pri}>1 "), stamp, pl.lit(" "), pl.col("host"), pl.lit(f" {written.app} "), pid]
        text += [pl.lit(f" - {_ELEMENT} "), *_filled(line.text, service, written.root)]
        parts.append(chosen.select("bucket", "ts", line=pl.concat_str(text)))
    return pl.concat(parts)


def _filled(text: str, service: str, root: str) -> list[pl.Expr]:
    """A text as expressions over the columns that chance has filled."""
    found: list[pl.Expr] = []
    at = 0
    for match in _PLACE.finditer(text):
        found.append(pl.lit(text[at : match.start()]))
        at = match.end()
        name = match[1]
        if name in {"service", "root"}:
            found.append(pl.lit(service if name == "service" else root))
        elif name == "peer":
            # TEST-NET-1 (RFC 5737)
            found += [pl.lit("192.0.2."), pl.col("peer")]
        elif name in {"n", "ms", "hex", "user", "path", "host"}:
            found.append(pl.col(name))
        else:
            found.append(pl.lit(match[0]))
    return [*found, pl.lit(text[at:])]


def _small(values: Ints) -> pl.Series:
    return pl.Series(values).cast(pl.String)


@lru_cache(maxsize=1)
def _pairs() -> pl.Series:
    return pl.Series([f"{number:04x}" for number in range(65_536)])


def _hex(key: Salts) -> pl.Series:
    high, low = (key >> np.uint64(48)).astype(np.int64), (key >> np.uint64(32) & np.uint64(0xFFFF)).astype(np.int64)
    return _pairs().gather(high) + _pairs().gather(low)


def service_of(plan: Plan, host: Host) -> str:
    """The full name of a host's service, else of its group."""
    return plan.fleet.named(host.service or host.group)


def ordered(parts: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """All lines by bucket and instant, each with its line feed."""
    frame = pl.concat(parts) if len(parts) > 1 else parts[0]
    frame = frame.sort("bucket", "ts", "line")
    return frame.with_columns(line=pl.col("line") + "\n")
