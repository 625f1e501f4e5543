"""Answers of Datadog's query APIs: timeseries of ``/api/v1/query`` and log events of ``/api/v2/logs/events/search``.

What belongs here: reading those answers as they come, told apart by ``series`` and ``data``. What does not: asking
(``collectors.pull.datadog``) and Datadog's webhooks (``datadog``).

A point's host is the tag ``host``, else ``service``, else the source; all other tags are labels, and so is the
aggregation over tags (``datadog.aggr``), since an average and a maximum are two series. A few metrics of the agent that
mean exactly what a canonical metric means get its name and unit; all others keep theirs. ``pointlist`` holds
milliseconds; a value ``null`` is a gap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from aiops_assets.formats.batch import Parsed
from aiops_assets.formats.events import UNKNOWN_HOST, Events, host_of, instant_of, prose, read_json
from aiops_assets.formats.payload import Refused, json_bytes, name_problem
from aiops_assets.formats.records import MAX_MICROS
from aiops_assets.formats.severity import of_word
from aiops_assets.landing.segment import Delivery

NAME_HEADER = "datadog-name"
_EXPECTED = 'expected {"series": […]} or {"data": […]}'
#: Datadog's metric → name, unit, kind, factor, offset
_CANONICAL: Mapping[str, tuple[str, str, str, float, float]] = {
    "system.cpu.idle": ("system.cpu.utilization", "1", "ratio", -0.01, 1.0),
    "system.cpu.user": ("system.cpu.user.utilization", "1", "ratio", 0.01, 0.0),
    "system.cpu.system": ("system.cpu.system.utilization", "1", "ratio", 0.01, 0.0),
    "system.cpu.iowait": ("system.cpu.iowait.utilization", "1", "ratio", 0.01, 0.0),
    "system.cpu.stolen": ("system.cpu.steal.utilization", "1", "ratio", 0.01, 0.0),
    "system.load.1": ("system.cpu.load_average.1m", "1", "gauge", 1.0, 0.0),
    "system.load.5": ("system.cpu.load_average.5m", "1", "gauge", 1.0, 0.0),
    "system.load.15": ("system.cpu.load_average.15m", "1", "gauge", 1.0, 0.0),
    "system.mem.pct_usable": ("system.memory.utilization", "1", "ratio", -1.0, 1.0),
    "system.disk.in_use": ("system.filesystem.utilization", "1", "ratio", 1.0, 0.0),
}
#: units as Datadog names them → UCUM
_UNITS = {
    "byte": "By", "kibibyte": "KiBy", "mebibyte": "MiBy", "gibibyte": "GiBy", "tebibyte": "TiBy", "bit": "bit",
    "kilobyte": "kBy", "megabyte": "MBy", "gigabyte": "GBy", "terabyte": "TBy",
    "nanosecond": "ns", "microsecond": "us", "millisecond": "ms", "second": "s", "minute": "min", "hour": "h",
    "day": "d", "week": "wk", "percent": "%", "fraction": "1", "hertz": "Hz", "megahertz": "MHz", "gigahertz": "GHz",
    "degree celsius": "Cel", "degree fahrenheit": "[degF]", "watt": "W", "kilowatt": "kW", "volt": "V", "ampere": "A",
    "joule": "J", "decibel-milliwatt": "dB[mW]",
}  # fmt: skip
_LOG_FIELDS = frozenset({"timestamp", "host", "service", "status", "message", "tags", "attributes"})


def parse(deliveries: Sequence[Delivery]) -> Parsed:
    """Read answers of Datadog's query APIs. Never raises on their content: what cannot be read is in ``rejects``."""
    return read_json(deliveries, _take)


def _take(events: Events, index: int, delivery: Delivery, offset: int, document: object) -> None:
    if not isinstance(document, dict):
        raise Refused(_EXPECTED)
    series, logs = document.get("series"), document.get("data")
    if isinstance(series, list):
        if document.get("status") == "error" or document.get("error"):
            raise Refused(f"the query failed: {document.get('error')}"[:300])
        name = delivery.headers.get(NAME_HEADER)
        events.each(
            index,
            offset,
            series,
            lambda entry: _series(events, index, offset, delivery.source, entry, name),
            lambda entry: {"series": [entry]},
        )
    elif isinstance(logs, list):
        events.each(index, offset, logs, lambda entry: _log(events, index, entry), lambda entry: {"data": [entry]})
    else:
        raise Refused(_EXPECTED)


def _series(events: Events, index: int, offset: int, source: str, entry: object, name: str | None) -> None:
    if not isinstance(entry, dict):
        raise Refused('series: expected {"metric", "pointlist", "tag_set"}')
    metric, pairs = entry.get("metric"), entry.get("pointlist")
    if not isinstance(metric, str) or not isinstance(pairs, list):
        raise Refused('series: expected {"metric", "pointlist", "tag_set"}')
    tags = entry.get("tag_set") or [tag for tag in str(entry.get("scope") or "").split(",") if ":" in tag]
    labels = tag_labels(tags)
    host = host_of(labels.pop("host", "")) or labels.get("service") or source or UNKNOWN_HOST
    if isinstance(entry.get("aggr"), str):
        labels["datadog.aggr"] = entry["aggr"]
    canonical = _CANONICAL.get(metric) if name is None else None
    named, unit, kind, factor, shift = canonical or (name or metric, unit_of(entry.get("unit")), "gauge", 1.0, 0.0)
    if not pairs:
        raise Refused(f"pointlist of {metric[:100]}: holds no points")
    try:
        table = np.array(pairs, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise Refused("pointlist: expected [[milliseconds, value], …]") from error
    if table.ndim != 2 or table.shape[1] != 2:
        raise Refused("pointlist: expected [[milliseconds, value], …]")
    stamps = table[:, 0]
    good = np.isfinite(table[:, 1]) & (np.abs(stamps) <= MAX_MICROS / 1000)
    code = events.columns.known_code(host, named, unit, kind, labels)
    found = table[good]
    columns = events.columns
    columns.delivery.extend([index] * len(found))
    columns.series.extend([code] * len(found))
    columns.ts.extend(np.rint(found[:, 0] * 1000).astype(np.int64).tolist())
    columns.value.extend((found[:, 1] * factor + shift).tolist())
    gaps = [pair[1] is None for pair in pairs]
    bad = ~good & ~np.array(gaps)
    if bad.any():
        content = json_bytes({"series": [{**entry, "pointlist": [pairs[i] for i in np.flatnonzero(bad)]}]}, b"")
        events.rejects.add(index, offset, f"{bad.sum()} points have no finite value or no time", content)
    if not len(found) and not bad.any():
        raise Refused(f"pointlist of {metric[:100]}: holds only gaps")
    events.productive.add(index)
    _around(events, labels, host if host != source else None)


def _log(events: Events, index: int, entry: object) -> None:
    if not isinstance(entry, dict) or not isinstance(entry.get("attributes"), dict):
        raise Refused('data: expected {"id", "attributes": {"timestamp", "message", …}}')
    outer = entry["attributes"]
    inner = outer.get("attributes")
    inner = inner if isinstance(inner, dict) else {}
    labels = tag_labels(outer.get("tags"))
    service = prose(outer.get("service")) or labels.get("service")
    host = prose(outer.get("host")) or labels.get("host") or service
    attributes: dict[str, Any] = {**{key: value for key, value in outer.items() if key not in _LOG_FIELDS}, **inner}
    if labels:
        attributes["tags"] = labels
    status = outer.get("status")
    if isinstance(status, str):
        attributes["status"] = status
    message = outer.get("message")
    if message is None:
        message = inner.get("message", inner or "")
    events.log(
        index,
        instant_of(outer.get("timestamp")),
        host,
        message,
        app=service,
        event_id=entry.get("id"),
        severity_number=of_word(status),
        trace_id=inner.get("trace_id") or labels.get("trace_id"),
        span_id=inner.get("span_id"),
        attributes=attributes,
    )
    _around(events, {**labels, **({"service": service} if service else {})}, host if host != service else None)


def _around(events: Events, labels: Mapping[str, str], host: str | None) -> None:
    """The host and the service that tags name."""
    site = labels.get("site") or labels.get("datacenter") or labels.get("availability-zone") or labels.get("region")
    if host:
        events.entity("host", host, site=site)
    service = labels.get("service")
    if service:
        events.entity("service", service, depends_on=[host] if host else [])


def tag_labels(tags: object) -> dict[str, str]:
    """Datadog tags as labels: ``key:value``; values of one key are joined, a tag without a key is in ``tags``."""
    found: dict[str, dict[str, None]] = {}
    for tag in tags if isinstance(tags, list) else ():
        if not isinstance(tag, str) or not tag or tag == "*":
            continue
        key, colon, value = tag.partition(":")
        key, value = (key, value) if colon else ("tags", tag)
        if value and not name_problem("tag", key) and not name_problem("tag", value):
            found.setdefault(key, {})[value] = None
    return {key: ",".join(sorted(values)) for key, values in found.items()}


def unit_of(units: object) -> str:
    """The UCUM unit of ``[{"name": "byte"}, {"name": "second"}]``, empty when it tells none."""
    named = (
        [entry.get("name") if isinstance(entry, dict) else None for entry in units or ()]
        if isinstance(units, list)
        else []
    )
    if not named or not isinstance(named[0], str):
        return ""
    unit = _UNITS.get(named[0], f"{{{named[0]}}}")
    per = named[1] if len(named) > 1 else None
    return f"{unit}/{_UNITS.get(per, f'{{{per}}}')}" if isinstance(per, str) else unit
