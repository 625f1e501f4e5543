"""Lines of text as programs write them into files: the time at the beginning, the level, the rest as it is.

What belongs here: finding time, severity and trace in a line. What does not: the container of lines (``framing``) and
the joining of lines that belong together, which is done where they are read. Headers: ``host``, ``app``, ``path`` and
``zone`` (of times that name none). The body is the line as it was written.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePath

import polars as pl

from aiops_assets.formats import instants
from aiops_assets.formats.batch import LOGS_SCHEMA, Parsed
from aiops_assets.formats.framing import records
from aiops_assets.formats.log_record import LogRows, json_text, time_of
from aiops_assets.formats.payload import Rejects
from aiops_assets.formats.records import MAX_MICROS, MIN_MICROS
from aiops_assets.formats.severity import of_text
from aiops_assets.landing.segment import Delivery

#: how far into a line times are looked for
_HEAD = 256
_ISO = r"^\S{0,2}(\d{4}[-/.]\d\d[-/.]\d\d[T_ ]\d\d:\d\d:\d\d(?:[.,:]\d{1,9})?(?: ?(?:Z\b|UTC|GMT|[+-]\d\d:?\d\d))?)"
_NAMED = (
    r"(?:^|[\s,{\"])(?:time|ts|timestamp|t|at|date)\"?[=:]\"?"
    r"(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?:Z|[+-]\d\d:?\d\d)?)"
)
_ACCESS = r"\[(\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4})\]"
_SYSLOG = r"^(?:<\d{1,3}>)?([JFMASOND][a-z]{2} [ 0-3]\d \d\d:\d\d:\d\d)"
_EPOCH = r"^\[?(\d{10}(?:\.\d{1,9})?|\d{13}|\d{16}|\d{19})(?:[\]\s:,]|$)"
_TRACE = r"(?i)\btrace[_.-]?id\"?[=: ]+\"?([0-9a-f]{32})\b"
_SPAN = r"(?i)\bspan[_.-]?id\"?[=: ]+\"?([0-9a-f]{16})\b"

_MONTH = r"(?P<month>[A-Z][a-z]{2})"
_CLOCK = r"(?P<h>\d{1,2}):(?P<m>\d\d):(?P<s>\d\d)(?:[.,](?P<f>\d{1,9}))?(?: (?P<half>[AaPp][Mm]))?"
_OTHERS = (
    #: Apache's error log: [Fri Nov 20 07:48:19.123456 2026]
    re.compile(rf"\[?[A-Z][a-z]{{2}} {_MONTH} +(?P<day>\d{{1,2}}) {_CLOCK} (?P<year>\d{{4}})"),
    #: 20 Nov 2026 07:48:19,123 (log4j), 20-Nov-2026 07:48:19.123 (Tomcat), 1234:M 20 Nov 2026 07:48:19.123 (Redis)
    re.compile(rf"(?:\d+:[A-Z] )?\[?(?P<day>\d{{1,2}})[ -]{_MONTH}[ -](?P<year>\d{{4}}) {_CLOCK}"),
    #: Nov 20, 2026 7:48:19 AM (java.util.logging)
    re.compile(rf"{_MONTH} (?P<day>\d{{1,2}}), (?P<year>\d{{4}}) {_CLOCK}"),
    #: I1120 07:48:19.123456 (glog, klog)
    re.compile(rf"[IWEF](?P<month>\d\d)(?P<day>\d\d) {_CLOCK}"),
)


def parse(deliveries: Sequence[Delivery]) -> Parsed:
    """Read lines. Never raises on their content: what cannot be read is in ``rejects``."""
    rejects = Rejects()
    frame = records(deliveries, rejects)
    productive = set(frame["delivery"].unique().to_list())
    logs = read_lines(frame, deliveries)
    entities = LogRows()
    for host in logs["host"].drop_nulls().unique(maintain_order=True):
        entities.seen(host, None, None)
    return Parsed(logs=logs, entities=entities.entities(), rejects=rejects.finish(deliveries, productive))


def read_lines(frame: pl.DataFrame, deliveries: Sequence[Delivery]) -> pl.DataFrame:
    """Log rows of records (``framing.SCHEMA``), in the same order."""
    if frame.is_empty():
        return pl.DataFrame(schema=LOGS_SCHEMA)
    about = pl.DataFrame(
        [_about(delivery) for delivery in deliveries],
        schema={"host": pl.String, "app": pl.String, "attributes": pl.String, "zone": pl.String},
        orient="row",
    )
    frame = frame.select("delivery", "event_id", "received", "peer", body=pl.col("text")).hstack(
        about[frame["delivery"]]
    )
    return frame.select(
        "delivery",
        _possible(times(frame["body"], frame["received"], frame["zone"])).alias("ts"),
        "event_id",
        pl.coalesce("host", "peer").alias("host"),
        "app",
        pl.lit(None, pl.Int64).alias("pid"),
        of_text(frame["body"]).alias("severity_number"),
        "body",
        frame["body"].str.extract(_TRACE, 1).str.to_lowercase().alias("trace_id"),
        frame["body"].str.extract(_SPAN, 1).str.to_lowercase().alias("span_id"),
        "attributes",
    ).select(list(LOGS_SCHEMA))


def _possible(ts: pl.Series) -> pl.Series:
    """Times that a table can hold; a wrong clock may tell others."""
    return pl.select(pl.when(ts.is_between(MIN_MICROS, MAX_MICROS)).then(ts)).to_series()


def _about(delivery: Delivery) -> tuple[str | None, str | None, str, str]:
    headers = delivery.headers
    path = headers.get("path", "")
    app = headers.get("app") or (PurePath(path).stem if path else None)
    attributes = json_text({"log.file.path": path}) if path else "{}"
    return headers.get("host") or None, app or None, attributes, instants.known_zone(headers.get("zone", "UTC"))


def times(lines: pl.Series, received: pl.Series, zones: pl.Series) -> pl.Series:
    """The time at the beginning of each line in microseconds (UTC); null where there is none.

    Args:
        lines: the lines.
        received: microseconds (UTC), for times that name no year.
        zones: by row, the zone of times that name none.
    """
    frame = pl.DataFrame({"line": lines.str.slice(0, _HEAD), "received": received, "zone": zones})
    line = pl.col("line")
    stamp = pl.coalesce(line.str.extract(_ISO, 1), line.str.extract(_NAMED, 1))
    plain = (
        stamp.str.replace(r"^(\d{4})[/.](\d\d)[/.](\d\d)", "$1-$2-$3")
        .str.replace("_", " ", literal=True)
        .str.replace(r"^(.{19}):", "$1.")
        .str.replace(r" ?(?:UTC|GMT)$", "Z")
    )
    found = frame.select(plain.alias("stamp"))["stamp"]
    ts = instants.iso(found, frame["zone"]) if found.null_count() < len(found) else found.cast(pl.Int64)
    if not ts.null_count():
        return ts
    ts = _where_missing(ts, frame, _SYSLOG, lambda part, texts: instants.syslog(texts, part["received"], part["zone"]))
    ts = _where_missing(ts, frame, _ACCESS, lambda part, texts: _one_by_one(texts))
    ts = _where_missing(ts, frame, _EPOCH, lambda part, texts: _one_by_one(texts))
    if not ts.null_count():
        return ts
    rest = frame.filter(ts.is_null())
    others = [_other(*row) for row in rest.select("line", "received", "zone").iter_rows()]
    return ts.scatter(ts.is_null().arg_true(), pl.Series(others, dtype=pl.Int64))


def _where_missing(ts: pl.Series, frame: pl.DataFrame, pattern: str, read) -> pl.Series:  # type: ignore[no-untyped-def]
    missing = ts.is_null()
    if not missing.any():
        return ts
    part = frame.filter(missing)
    return ts.scatter(missing.arg_true(), read(part, part["line"].str.extract(pattern, 1)))


def _one_by_one(texts: pl.Series) -> pl.Series:
    known = {text: _number_or_time(text) for text in texts.drop_nulls().unique().to_list()}
    if not known:
        return texts.cast(pl.Int64)
    return texts.replace_strict(known, default=None, return_dtype=pl.Int64)


def _number_or_time(text: str) -> int | None:
    if text[0] == "0":
        return time_of(text) if "/" in text else None
    return time_of(text)


def _other(line: str, received: int, zone: str) -> int | None:
    for pattern in _OTHERS:
        match = pattern.match(line)
        if match is None:
            continue
        groups = match.groupdict()
        month = int(groups["month"]) if groups["month"].isdigit() else instants.MONTHS.get(groups["month"].lower(), 0)
        hour = int(groups["h"])
        if groups["half"]:
            hour = hour % 12 + (12 if groups["half"].lower() == "pm" else 0)
        clock = hour, int(groups["m"]), int(groups["s"]), int((groups["f"] or "")[:6].ljust(6, "0"))
        if groups.get("year"):
            wall = instants.wall_clock(int(groups["year"]), month, int(groups["day"]), *clock)
        else:
            wall = instants.year_that_fits(month, int(groups["day"]), clock, received)
        if wall is not None:
            return instants.in_zone(wall, zone)
    return None
