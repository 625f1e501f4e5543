"""Netdata's ``json:http`` exporter: objects with chart, dimension, value and timestamp, as an array or one a line.

What belongs here: reading that shape and the names Netdata gives its dimensions. Values that Netdata averaged or summed
(``send as average``, the default) are written with a fraction and mapped to canonical metrics where there is one; raw
collected numbers (``as collected``) are integers in units of the collector's own, and keep Netdata's names under
``netdata.raw``. Netdata writes what goes out as negative numbers; canonical metrics are positive. It sends parts of
memory and of file systems but no share: where all parts stand in one delivery, the utilization is derived from them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from aiops_assets.formats.batch import Parsed
from aiops_assets.formats.events import Events, text_labels
from aiops_assets.formats.payload import (
    Refused,
    UnreadableBody,
    documents,
    json_bytes,
    micros_of_json,
    unpacked,
)
from aiops_assets.landing.segment import Delivery

_EXPECTED = 'expected [{"hostname", "chart_id", "chart_context", "id", "name", "value", "timestamp", …}]'
#: by metric of the part that is used: the other parts, and the name of its share of the whole
_SHARES: dict[str, tuple[frozenset[str], str]] = {
    "system.memory.usage": (frozenset({"mem.free", "mem.cached", "mem.buffered"}), "system.memory.utilization"),
    "system.filesystem.usage": (frozenset({"disk.free"}), "system.filesystem.utilization"),
}
_PARTS = frozenset(_SHARES).union(*(others for others, _ in _SHARES.values()))
_MIB = 1_048_576.0
_GIB = 1_073_741_824.0
_UNITS = {
    "percentage": "%", "%": "%", "seconds": "s", "milliseconds": "ms", "milliseconds/s": "ms/s", "MiB": "MiBy",
    "GiB": "GiBy", "KiB": "KiBy", "KiB/s": "KiBy/s", "MiB/s": "MiBy/s", "B": "By", "bytes": "By",
    "kilobits/s": "kbit/s", "bits/s": "bit/s", "packets/s": "{packet}/s", "operations/s": "{operation}/s",
    "errors/s": "{error}/s", "Celsius": "Cel", "Volts": "V", "Watts": "W", "Ampere": "A", "Amps": "A",
    "Rotations/min": "rpm", "processes": "{process}", "load": "1", "status": "1", "boolean": "1",
}  # fmt: skip


_NAMES = itemgetter("hostname", "chart_id", "chart_context", "chart_family", "units", "id", "name")


class _Value(NamedTuple):
    """What a dimension becomes: stored value = sent / divisor + offset, without its sign where ``positive``."""

    metric: str
    unit: str
    kind: str
    labels: dict[str, str]
    divisor: float = 1.0
    offset: float = 0.0
    positive: bool = False


def parse(deliveries: Sequence[Delivery]) -> Parsed:
    """Read deliveries of the exporter. Never raises on their content: what cannot be read is in ``rejects``."""
    reader = _Reader()
    for index, delivery in enumerate(deliveries):
        try:
            body = unpacked(delivery)
            for offset, document in documents(index, body, reader.events.rejects):
                items = document if isinstance(document, list) else [document]
                reader.feed(index, delivery.received_at, offset, items)
        except UnreadableBody as error:
            reader.events.rejects.add(index, 0, str(error), delivery.body)
    reader.finish()
    return reader.events.finish(deliveries)


class _Reader:
    def __init__(self) -> None:
        self.events = Events()
        #: names as sent → number of the row in ``_table``, for averages and for raw numbers
        self._known: dict[type, dict[tuple[Any, ...], int]] = {float: {}, int: {}}
        self._table: list[tuple[float, float, float, float]] = []
        self._hosts: set[object] = set()
        #: rows of parts of a whole → host, metric, labels
        self._parts: dict[int, tuple[str, str, tuple[tuple[str, str], ...]]] = {}
        self._delivery: list[int] = []
        self._row: list[int] = []
        self._ts: list[int] = []
        self._value: list[float] = []

    def feed(self, index: int, received_at: int, offset: int, items: list[Any]) -> None:
        """Add the items of delivery number ``index``."""
        known, names_of, before = self._known, _NAMES, len(self._row)
        add_delivery, add_row = self._delivery.append, self._row.append
        add_ts, add_value = self._ts.append, self._value.append
        for position, item in enumerate(items):
            try:
                value, stamp = item["value"], item["timestamp"]
                names = names_of(item)
                if "labels" in item:
                    names = (*names, *item["labels"].items())
                row = known[type(value)].get(names)
                plain = row is not None and value - value == 0 and type(stamp) is int and 0 < stamp < 10**11
            except (KeyError, TypeError, AttributeError):
                plain = False
            if not plain:
                try:
                    row, ts, value = self._careful(item, received_at)
                except Refused as error:
                    place = f"item {position + 1}: " if len(items) > 1 else ""
                    content = json_bytes(item, b"nested too deeply")
                    self.events.rejects.add(index, offset, f"{place}{error}", content)
                    if self.events.rejects.full(index):
                        break
                    continue
            else:
                ts = stamp * 1_000_000
            add_delivery(index)
            add_row(row)  # type: ignore[arg-type]
            add_ts(ts)
            add_value(value)
        if len(self._row) > before:
            self.events.productive.add(index)

    def _careful(self, item: object, received_at: int) -> tuple[int, int, float]:
        if not isinstance(item, dict):
            raise Refused(_EXPECTED)
        value, stamp = item.get("value"), item.get("timestamp")
        if isinstance(value, bool) or not isinstance(value, int | float) or value - value != 0:
            raise Refused("value: expected a finite number" if "value" in item else _EXPECTED)
        ts = received_at if stamp is None else micros_of_json(stamp)
        if ts is None:
            raise Refused("timestamp: expected seconds since the epoch")
        host = item.get("hostname")
        texts: list[str] = []
        for field in ("chart_id", "chart_context", "chart_family", "units", "id", "name"):
            text = item.get(field, "")
            if not isinstance(text, str):
                raise Refused(f"{field}: expected a string")
            texts.append(text)
        chart, context, family, units, dimension, name = texts
        if not (chart or context) or not (dimension or name):
            raise Refused(_EXPECTED)
        labels = text_labels(item.get("labels"))
        found = _mapped(chart, context or chart, family, units, name or dimension, type(value) is int)
        code = self.events.columns.code(host, found.metric, found.unit, found.kind, found.labels)
        row = len(self._table)
        self._table.append((code, found.divisor, found.offset, float(found.positive)))
        if found.metric in _PARTS and isinstance(host, str):
            self._parts[row] = host, found.metric, tuple(found.labels.items())
        if labels or host not in self._hosts:
            self._hosts.add(host)
            self.events.entity("host", host, labels=labels)
        given = item.get("labels")
        if given is None or (isinstance(given, dict) and all(type(text) is str for text in given.values())):
            names = (host, chart, context, family, units, dimension, name)
            self._known[type(value)][(*names, *(given.items() if isinstance(given, dict) else ()))] = row
        return row, ts, float(value)

    def finish(self) -> None:
        """Turn everything fed into points."""
        if not self._row:
            return
        table = np.array(self._table, dtype=np.float64)[np.array(self._row, dtype=np.int64)]
        value = np.array(self._value, dtype=np.float64)
        value = np.where(table[:, 3] > 0, np.abs(value), value) / table[:, 1] + table[:, 2]
        columns = self.events.columns
        columns.delivery += self._delivery
        columns.series += table[:, 0].astype(np.int64).tolist()
        columns.ts += self._ts
        columns.value += value.tolist()
        self._derive(value)

    def _derive(self, value: npt.NDArray[np.float64]) -> None:
        """Add the used share of every whole whose parts are all there; ``value`` has an entry a dimension."""
        wholes: dict[tuple[int, int, str, tuple[tuple[str, str], ...]], dict[str, float]] = {}
        is_part = np.isin(np.array(self._row, dtype=np.int64), np.array(list(self._parts), dtype=np.int64))
        for place in np.flatnonzero(is_part).tolist():
            host, metric, labels = self._parts[self._row[place]]
            key = (self._delivery[place], self._ts[place], host, labels)
            wholes.setdefault(key, {})[metric] = float(value[place])
        for (index, ts, host, labels), parts in wholes.items():
            for used, (others, share) in _SHARES.items():
                whole = sum(parts[name] for name in (used, *others)) if {used, *others} <= parts.keys() else 0.0
                if whole > 0:
                    self.events.point(index, ts, host, share, "1", "ratio", dict(labels), parts[used] / whole)


@lru_cache(maxsize=65_536)
def _mapped(chart: str, context: str, family: str, units: str, name: str, raw: bool) -> _Value:
    """Canonical metric, unit, kind and labels of a dimension, else Netdata's own names."""
    found = None if raw else _canonical(chart, context, family, units, name)
    if found is not None:
        return found
    labels = {"dimension": name, **({"chart": chart} if chart and chart != context else {})}
    if family and family not in {context, chart}:
        labels["family"] = family
    if raw:
        return _Value(f"netdata.raw.{context}", "", "gauge", labels)
    return _Value(f"netdata.{context}", _UNITS.get(units, ""), "rate" if units.endswith("/s") else "gauge", labels)


_CPU_STATES = {
    "user": "user", "system": "system", "nice": "nice", "iowait": "iowait", "irq": "irq", "softirq": "softirq",
    "steal": "steal", "guest": "guest", "guest_nice": "guest_nice",
}  # fmt: skip
_DIRECTIONS = {"received": "receive", "sent": "transmit", "inbound": "receive", "outbound": "transmit"}
_WAYS = {"in": "read", "out": "write", "reads": "read", "writes": "write"}
_SENSORS = {
    "Celsius": ("hw.temperature", "Cel", "temperature"),
    "Volts": ("hw.voltage", "V", "voltage"),
    "Watts": ("hw.power", "W", "power_supply"),
    "Amperes": ("hw.current", "A", "power_supply"),
    "Rotations/min": ("hw.fan.speed", "rpm", "fan"),
}
_LOADS = {"load1": "1m", "load5": "5m", "load15": "15m"}


def _canonical(chart: str, context: str, family: str, units: str, name: str) -> _Value | None:
    if context in {"system.cpu", "cpu.cpu"} and units == "percentage":
        core = re.fullmatch(r"cpu\.cpu(\d+)", chart)
        labels = {"cpu": core[1] if core else "total"}
        if context == "cpu.cpu" and core is None:
            return None
        if name == "idle":
            return _Value("system.cpu.utilization", "1", "ratio", labels, -100.0, 1.0)
        state = _CPU_STATES.get(name)
        return _Value(f"system.cpu.{state}.utilization", "1", "ratio", labels, 100.0) if state else None
    if context == "system.load" and name in _LOADS:
        return _Value(f"system.cpu.load_average.{_LOADS[name]}", "1", "gauge", {})
    if context == "system.ram" and units == "MiB":
        known = {"used": "system.memory.usage", "free": "mem.free", "cached": "mem.cached", "buffers": "mem.buffered"}
        return _Value(known[name], "By", "gauge", {}, 1 / _MIB) if name in known else None
    if context in {"system.swap", "mem.swap"} and units == "MiB":
        known = {"used": "system.paging.usage", "free": "swap.free"}
        return _Value(known[name], "By", "gauge", {}, 1 / _MIB) if name in known else None
    if context == "disk.space" and units == "GiB":
        known = {"used": "system.filesystem.usage", "avail": "disk.free"}
        return (
            _Value(known[name], "By", "gauge", {"mountpoint": family}, 1 / _GIB) if name in known and family else None
        )
    if context == "system.uptime" and units == "seconds":
        return _Value("system.uptime", "s", "gauge", {})
    if context == "net.net" and units == "kilobits/s" and name in _DIRECTIONS:
        labels = {"device": chart.removeprefix("net."), "direction": _DIRECTIONS[name]}
        return _Value("system.network.io", "By/s", "rate", labels, 1 / 125.0, positive=True)
    if context in {"net.packets", "net.errors", "net.drops"} and name in _DIRECTIONS:
        kind = context.removeprefix("net.")
        metric, unit = {
            "packets": ("system.network.packets", "{packet}/s"),
            "errors": ("system.network.errors", "{error}/s"),
            "drops": ("system.network.dropped", "{packet}/s"),
        }[kind]
        labels = {"device": chart.removeprefix(f"net_{kind}."), "direction": _DIRECTIONS[name]}
        return _Value(metric, unit, "rate", labels, positive=True)
    if context == "disk.io" and units == "KiB/s" and name in _WAYS:
        labels = {"device": chart.removeprefix("disk."), "direction": _WAYS[name]}
        return _Value("system.disk.io", "By/s", "rate", labels, 1 / 1024.0, positive=True)
    if context == "disk.ops" and name in _WAYS:
        labels = {"device": chart.removeprefix("disk_ops."), "direction": _WAYS[name]}
        return _Value("system.disk.operations", "{operation}/s", "rate", labels, positive=True)
    if context.startswith("sensors.") and units in _SENSORS:
        metric, unit, kind = _SENSORS[units]
        return _Value(metric, unit, "gauge", {"hw.id": f"{chart}/{name}", "hw.type": kind, "plugin": "netdata"})
    return None
