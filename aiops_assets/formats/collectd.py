"""collectd's ``write_http``: JSON arrays and ``PUTVAL`` text to points, notifications to log events and alerts.

What belongs here: reading both shapes and the names collectd gives its values. What does not: the Alertmanager-like
alerts in which ``write_http`` wraps notifications are read by ``alertmanager``.

Values of derive, counter and absolute types are raw totals, or rates per second where the sender is told to
``StoreRates``; the payload does not say which. Rates have fractions (or are unknown at first), totals never do: a
delivery in which any such value has a fraction or is unknown carries rates, and one whose values are all zero is read
as rates, too, since totals that stay at zero mean the same. Raw totals are stored under names that end in ``.total``.
Unknown values (``null``, ``U``, ``nan``) say that there is nothing to store.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from aiops_assets.formats.alertmanager import fingerprint
from aiops_assets.formats.batch import Parsed
from aiops_assets.formats.events import Events, finite, instant_of, prose, severity, text_labels
from aiops_assets.formats.payload import (
    Refused,
    UnreadableBody,
    documents,
    json_bytes,
    micros_of_json,
    unpacked,
)
from aiops_assets.landing.segment import Delivery

_EXPECTED = 'expected [{"values", "dstypes", "dsnames", "time", "host", "plugin", "type", …}] or lines of PUTVAL'
_PUTVAL = "expected PUTVAL host/plugin-instance/type-instance interval=10 time:value[:value…]"
_NUMBERS = frozenset({int, float, type(None)})
_COUNTED = frozenset({"derive", "counter", "absolute"})
_OPTION = re.compile(rb'([A-Za-z_:][A-Za-z0-9_:]*)=("(?:[^"\\]|\\.)*"|\S+)')
_QUOTED = re.compile(rb'PUTVAL\s+"((?:[^"\\]|\\.)*)"\s+(.*)', re.IGNORECASE | re.DOTALL)
_RX_TX, _READ_WRITE = ("rx", "tx"), ("read", "write")
#: names and types of the values of collectd's types with several values, or with totals; others are one gauge
_TYPES: dict[str, tuple[tuple[str, ...], str]] = {
    "load": (("shortterm", "midterm", "longterm"), "gauge"),
    "df": (("used", "free"), "gauge"),
    "ps_count": (("processes", "threads"), "gauge"),
    "ps_cputime": (("user", "syst"), "derive"),
    "ps_pagefaults": (("minflt", "majflt"), "derive"),
    "vmpage_faults": (("minflt", "majflt"), "derive"),
    "vmpage_io": (("in", "out"), "derive"),
    "disk_io_time": (("io_time", "weighted_io_time"), "derive"),
    "dns_octets": (("queries", "responses"), "derive"),
}
for _sources, _names in (
    (
        _RX_TX,
        "if_octets if_packets if_errors if_dropped io_octets io_packets node_octets mysql_octets memcached_octets "
        "serial_octets",
    ),
    (_READ_WRITE, "disk_octets disk_ops disk_time disk_merged ps_disk_octets ps_disk_ops"),
    (
        ("value",),
        "cpu contextswitch interrupts irq fork_rate invocations operations swap_io vmpage_action nfs_procedure "
        "connections http_requests cache_result protocol_counter ipt_bytes ipt_packets apache_requests apache_bytes "
        "mysql_commands mysql_handler pg_blks pg_n_tup_c pg_scan pg_xact derive counter if_collisions if_multicast "
        "total_bytes total_operations total_requests total_sessions",
    ),
):
    _TYPES.update(dict.fromkeys(_names.split(), (_sources, "derive")))
_SEVERITIES = {"failure": 17, "warning": 13, "okay": 9, "ok": 9, "notice": 9}


_NAMES = itemgetter("host", "plugin", "plugin_instance", "type", "type_instance")


class _Value(NamedTuple):
    """What one value becomes: stored value = sent / divisor + offset."""

    metric: str
    unit: str
    kind: str
    labels: dict[str, str]
    divisor: float = 1.0
    offset: float = 0.0


class _Name(NamedTuple):
    """What collectd calls a list of values."""

    host: str
    plugin: str
    plugin_instance: str
    type: str
    type_instance: str


def parse(deliveries: Sequence[Delivery]) -> Parsed:
    """Read deliveries of write_http. Never raises on their content: what cannot be read is in ``rejects``."""
    reader = _Reader()
    for index, delivery in enumerate(deliveries):
        try:
            reader.feed(index, delivery, unpacked(delivery))
        except UnreadableBody as error:
            reader.events.rejects.add(index, 0, str(error), delivery.body)
    reader.finish()
    return reader.events.finish(deliveries)


class _Reader:
    def __init__(self) -> None:
        self.events = Events()
        #: names as sent → number of the shape, and in JSON the names and types of its values
        self._known: dict[tuple[str, ...], tuple[int, list[str], list[str]]] = {}
        self._known_texts: dict[bytes, int] = {}
        self._codes: dict[tuple[Any, ...], int] = {}
        self._hosts: set[str] = set()
        self._widths: list[int] = []
        self._counted: list[bool] = []
        #: by shape and value: series, divisor and offset when values are totals, and when they are rates
        self._totals: list[tuple[int, float, float]] = []
        self._rates: list[tuple[int, float, float]] = []
        # one entry a list of values
        self._delivery: list[int] = []
        self._shape: list[int] = []
        self._ts: list[int] = []
        # one entry a value
        self._values: list[float | None] = []

    def feed(self, index: int, delivery: Delivery, body: bytes) -> None:
        """Add the plain body of delivery number ``index``.

        Raises:
            UnreadableBody: it is neither JSON nor lines of PUTVAL.
        """
        lists = len(self._shape)
        if body.lstrip()[:1] in {b"[", b"{", b""}:
            for offset, document in documents(index, body, self.events.rejects):
                items = document if isinstance(document, list) else [document]
                self._items(index, delivery.received_at, offset, items)
        else:
            self._lines(index, delivery.received_at, body)
        if len(self._shape) > lists:
            self.events.productive.add(index)

    def _items(self, index: int, received_at: int, offset: int, items: list[Any]) -> None:
        known, events, names_of = self._known, self.events, _NAMES
        add_delivery, add_shape, add_ts, add_values = (
            self._delivery.append, self._shape.append, self._ts.append, self._values.extend,
        )  # fmt: skip
        for position, item in enumerate(items):
            try:
                shape, dsnames, dstypes = known[names_of(item)]
                values, stamp = item["values"], item["time"]
                plain = (
                    item["dsnames"] == dsnames
                    and item["dstypes"] == dstypes
                    and len(values) == len(dsnames)
                    and _NUMBERS.issuperset(map(type, values))
                    and type(stamp) is float
                    and 0 < stamp < 1e11
                )
            except (KeyError, TypeError):
                plain = False
            if plain:
                add_delivery(index)
                add_shape(shape)
                add_ts(int(stamp * 1e6 + 0.5))
                add_values(values)
                continue
            try:
                if isinstance(item, dict) and "values" not in item and ("labels" in item or "severity" in item):
                    _notification(events, index, item)
                    continue
                shape, stamp, values = self._careful(item, received_at)
            except Refused as error:
                place = f"item {position + 1}: " if len(items) > 1 else ""
                events.rejects.add(index, offset, f"{place}{error}", json_bytes(item, b"nested too deeply"))
                if events.rejects.full(index):
                    return
                continue
            add_delivery(index)
            add_shape(shape)
            add_ts(stamp)
            add_values(values)

    def _careful(self, item: object, received_at: int) -> tuple[int, int, list[float | None]]:
        """Shape, microseconds and values of a list of values that is new, or not plainly valid."""
        if not isinstance(item, dict):
            raise Refused(_EXPECTED)
        values = item.get("values")
        if not isinstance(values, list) or not values:
            raise Refused(_EXPECTED if "host" not in item else "values: expected an array of numbers")
        if not _NUMBERS.issuperset(map(type, values)):
            raise Refused("values: expected numbers")
        parts = [item.get(field, "") for field in _Name._fields]
        name = _Name(*("" if part is None else part for part in parts))
        for field, part in zip(_Name._fields, name, strict=True):
            if not isinstance(part, str) or (field in {"host", "plugin", "type"} and not part):
                raise Refused(f"{field}: expected a string")
        dsnames, dstypes = (item.get(field) for field in ("dsnames", "dstypes"))
        names, kinds = _data_sources(name.type, len(values))
        for field, given in (("dsnames", dsnames), ("dstypes", dstypes)):
            if given is not None and not (
                isinstance(given, list) and len(given) == len(values) and all(isinstance(text, str) for text in given)
            ):
                raise Refused(f"{field}: expected as many names as values")
        stamp = item.get("time")
        ts = received_at if stamp is None else micros_of_json(stamp)
        if ts is None:
            raise Refused("time: expected seconds since the epoch")
        names = tuple(dsnames) if dsnames else names
        kinds = tuple(dstypes) if dstypes else kinds
        shape = self._shape_of(name, names, kinds)
        if dsnames and dstypes and len(parts) == len(name) and None not in parts:
            self._known[tuple(parts)] = shape, dsnames, dstypes
        return shape, ts, values

    def _lines(self, index: int, received_at: int, body: bytes) -> None:
        known = self._known_texts
        offset = 0
        for line in body.split(b"\n"):
            start = offset
            offset += len(line) + 1
            parts = line.split()
            if len(parts) == 4:
                shape = known.get(parts[1])
                stamp, _, rest = parts[3].partition(b":")
                if shape is not None and parts[0] == b"PUTVAL":
                    try:
                        values = [float(text) for text in rest.split(b":")]
                        ts = int(float(stamp) * 1e6 + 0.5)
                        plain = len(values) == self._widths[shape] and 0 < ts < 10**17
                    except (ValueError, OverflowError):
                        plain = False
                    if plain:
                        self._delivery.append(index)
                        self._shape.append(shape)
                        self._ts.append(ts)
                        self._values.extend(values)
                        continue
            if not parts:
                continue
            try:
                self._line(index, received_at, line.strip())
            except Refused as error:
                self.events.rejects.add(index, start, str(error), line)
                if self.events.rejects.full(index):
                    return

    def _line(self, index: int, received_at: int, line: bytes) -> None:
        command = line.split(maxsplit=1)[0].upper()
        if command == b"PUTNOTIF":
            options = {
                name.decode("utf-8", "replace"): _unquoted(value) for name, value in _OPTION.findall(line[:65_536])
            }
            _notification(self.events, index, options)
            return
        if command != b"PUTVAL":
            raise Refused(_PUTVAL)
        quoted = _QUOTED.fullmatch(line)
        parts = [quoted[1], *quoted[2].split()] if quoted else line.split()[1:]
        lists = [part for part in parts[1:] if b"=" not in part]
        identifier = _unquoted(parts[0]) if parts else ""
        names = identifier.split("/", 2)
        if len(names) < 3 or not lists or not all(names):
            raise Refused(_PUTVAL)
        plugin, _, plugin_instance = names[1].partition("-")
        type_, _, type_instance = names[2].partition("-")
        name = _Name(names[0], plugin, plugin_instance, type_, type_instance)
        read: list[tuple[int, list[float | None]]] = []
        for text in lists:
            stamp, *numbers = text.strip(b'"').split(b":")
            values = [_number(number) for number in numbers]
            ts = received_at if stamp == b"N" else micros_of_json(stamp.decode("utf-8", "replace"))
            if ts is None or not values or (read and len(values) != len(read[0][1])):
                raise Refused(_PUTVAL)
            read.append((ts, values))
        dsnames, kinds = _data_sources(name.type, len(read[0][1]))
        shape = self._shape_of(name, dsnames, kinds)
        if not quoted:
            self._known_texts[parts[0]] = shape
        for ts, values in read:
            self._delivery.append(index)
            self._shape.append(shape)
            self._ts.append(ts)
            self._values.extend(values)

    def _shape_of(self, name: _Name, names: tuple[str, ...], kinds: tuple[str, ...]) -> int:
        """The number of what a list of values is called; its series are checked when it is new."""
        shape = self._codes.get((*name, *names, *kinds))
        if shape is not None:
            return shape
        both: list[list[tuple[int, float, float]]] = []
        for rates in (False, True):
            found = [_mapped(name, *source, rates) for source in zip(names, kinds, strict=True)]
            code = self.events.columns.code
            both.append(
                [
                    (code(name.host, value.metric, value.unit, value.kind, value.labels), value.divisor, value.offset)
                    for value in found
                ]
            )
        shape = self._codes[(*name, *names, *kinds)] = len(self._widths)
        self._widths.append(len(names))
        self._counted.append(any(kind in _COUNTED for kind in kinds))
        self._totals += both[0]
        self._rates += both[1]
        if name.host not in self._hosts:
            self._hosts.add(name.host)
            self.events.entity("host", name.host)
        return shape

    def finish(self) -> None:
        """Turn everything fed into points."""
        if not self._shape:
            return
        shape = np.array(self._shape, dtype=np.int64)
        widths = np.array(self._widths, dtype=np.int64)
        starts = np.cumsum(widths) - widths
        width = widths[shape]
        ends = np.cumsum(width)
        place = np.repeat(starts[shape] - (ends - width), width) + np.arange(int(ends[-1]))
        value = np.array(self._values, dtype=np.float64)
        delivery = np.repeat(np.array(self._delivery, dtype=np.int64), width)
        counted = np.array(self._counted)[np.repeat(shape, width)]
        rates = _carry_rates(delivery[counted], value[counted], int(delivery[-1]) + 1)
        kinds = np.where(rates[delivery], place + len(self._totals), place)
        table = np.array(self._totals + self._rates, dtype=np.float64)[kinds]
        value = value / table[:, 1] + table[:, 2]
        ts = np.repeat(np.array(self._ts, dtype=np.int64), width)
        for index in np.flatnonzero(np.isinf(value)).tolist():
            self.events.rejects.add(int(delivery[index]), 0, "values: infinite values are not stored", b"inf")
        kept = np.isfinite(value)
        columns = self.events.columns
        columns.delivery += delivery[kept].tolist()
        columns.series += table[kept, 0].astype(np.int64).tolist()
        columns.ts += ts[kept].tolist()
        columns.value += value[kept].tolist()


def _carry_rates(
    delivery: npt.NDArray[np.int64], value: npt.NDArray[np.float64], deliveries: int
) -> npt.NDArray[np.bool_]:
    """By delivery, whether its totals (one entry each) are rates: one has a fraction or is unknown, or all are zero."""
    with np.errstate(invalid="ignore"):
        broken = ~np.isfinite(value) | (value % 1 != 0)
    fractions = np.bincount(delivery[broken], minlength=deliveries)
    others = np.bincount(delivery[value != 0], minlength=deliveries)
    return (fractions > 0) | (others == 0)


def _number(text: bytes) -> float | None:
    if text in {b"U", b"nan", b"-nan", b"NaN"}:
        return None
    try:
        return float(text)
    except ValueError as error:
        raise Refused(_PUTVAL) from error


def _unquoted(text: bytes) -> str:
    try:
        plain = text.decode()
    except UnicodeDecodeError as error:
        raise Refused(f"not UTF-8: {error.reason}") from error
    if plain[:1] == '"' and plain[-1:] == '"' and len(plain) > 1:
        plain = plain[1:-1]
    return re.sub(r"\\(.)", r"\1", plain)


def _data_sources(type_: str, count: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names and types of a type's values where the payload does not tell them."""
    names, kind = _TYPES.get(type_, (("value",), "gauge"))
    if len(names) != count:
        names = ("value",) if count == 1 else tuple(f"value{number}" for number in range(count))
    return names, (kind,) * count


def _notification(events: Events, index: int, item: dict[str, Any]) -> None:
    """A notification: a log event, and an alert that fires until the state is OKAY.

    Raises:
        Refused: it has no severity and no message.
    """
    given = item.get("labels")
    wrapped = isinstance(given, dict)
    annotations = item.get("annotations")
    told: dict[str, Any] = annotations if isinstance(annotations, dict) else {}
    labels = text_labels(
        given
        if wrapped
        else {name: item.get(name) for name in ("plugin", "plugin_instance", "type", "type_instance") if item.get(name)}
    )
    # the sender calls itself the service of all it watches
    if labels.get("service") == "collectd":
        del labels["service"]
    word = prose(labels.get("severity") if wrapped else item.get("severity"), 32)
    message = prose(told.get("summary") or item.get("message"))
    if word is None or message is None:
        raise Refused('expected a notification {"severity", "message", "host", "plugin", "type"}')
    host = labels.get("instance") if wrapped else prose(item.get("host"))
    starts_at, ends_at = instant_of(item.get("startsAt") or item.get("time")), instant_of(item.get("endsAt"))
    firing = word.lower() not in {"okay", "ok"}
    ts = starts_at if firing or ends_at is None else ends_at
    number = _SEVERITIES.get(word.lower(), severity(word))
    name = labels.get("alertname") or "_".join(
        part for part in ("collectd", labels.get("plugin"), labels.get("type")) if part
    )
    events.log(index, ts, host, message, app="collectd", severity_number=number, attributes={"labels": labels} | told)
    events.alert(
        index,
        ts,
        key=fingerprint(labels | {"host": host or "", "data_source": prose(told.get("DataSource")) or ""}),
        name=name,
        firing=firing,
        severity_number=number,
        host=host,
        title=message,
        labels=labels,
        ends_at=ts,
        value=finite(told.get("CurrentValue") or item.get("d:CurrentValue")),
        threshold=_threshold(word, told),
        evidence=told or {name: value for name, value in item.items() if name != "labels"},
    )
    events.entity("host", host)


def _threshold(word: str, told: dict[str, Any]) -> float | None:
    """The only limit of the state's own kind that is set."""
    kind = word.capitalize()
    limits = [limit for limit in (finite(told.get(f"{kind}Max")), finite(told.get(f"{kind}Min"))) if limit is not None]
    return limits[0] if len(limits) == 1 else None


@lru_cache(maxsize=65_536)
def _mapped(name: _Name, source: str, kind: str, rates: bool) -> _Value:
    """Canonical metric, unit, kind and labels of one value, else collectd's own names."""
    found = _canonical(name, source, kind, rates)
    if found is not None:
        return found
    labels = {
        field: text
        for field, text in (("plugin_instance", name.plugin_instance), ("type_instance", name.type_instance))
        if text
    }
    metric = ".".join(("collectd", name.plugin, name.type, *([source] if source != "value" else [])))
    unit = "%" if name.type.startswith("percent") else ""
    if kind in _COUNTED and rates:
        return _Value(metric, unit, "rate", labels)
    if kind in {"derive", "counter"}:
        return _Value(f"{metric}.total", unit, "counter", labels)
    return _Value(metric, unit, "gauge", labels)


def _canonical(name: _Name, source: str, kind: str, rates: bool) -> _Value | None:
    reader = _PLUGINS.get(name.plugin)
    found = reader(name, source, rates) if reader else None
    return found if found is not None else _SENSORS.get(name.type) and _sensor(name, source)


def _cpu(name: _Name, source: str, rates: bool) -> _Value | None:
    state = {"wait": "iowait", "interrupt": "irq"}.get(name.type_instance, name.type_instance)
    cpu = name.plugin_instance or "total"
    if not state or source != "value" or not (cpu == "total" or cpu.isdigit()):
        return None
    if name.type == "percent" or (name.type == "cpu" and rates and cpu != "total"):
        if state == "idle":
            return _Value("system.cpu.utilization", "1", "ratio", {"cpu": cpu}, -100.0, 1.0)
        if state == "active":
            return _Value("system.cpu.utilization", "1", "ratio", {"cpu": cpu}, 100.0)
        return _Value(f"system.cpu.{state}.utilization", "1", "ratio", {"cpu": cpu}, 100.0)
    if name.type == "cpu" and not rates:
        # jiffies, a hundredth of a second each
        return _Value("system.cpu.time", "s", "counter", {"cpu": cpu, "state": state}, 100.0)
    return None


def _memory(name: _Name, source: str, rates: bool) -> _Value | None:
    if name.plugin_instance or source != "value":
        return None
    if name.type == "percent" and name.type_instance == "used":
        return _Value("system.memory.utilization", "1", "ratio", {}, 100.0)
    if name.type == "memory":
        if name.type_instance == "used":
            return _Value("system.memory.usage", "By", "gauge", {})
        if name.type_instance in {"free", "cached", "buffered"}:
            return _Value(f"mem.{name.type_instance}", "By", "gauge", {})
    return None


def _df(name: _Name, source: str, rates: bool) -> _Value | None:
    # collectd writes the slashes of mount points as dashes, which cannot be undone except for the root
    labels = {"mountpoint": "/" if name.plugin_instance == "root" else name.plugin_instance}
    if not name.plugin_instance:
        return None
    if name.type == "percent_bytes" and name.type_instance == "used":
        return _Value("system.filesystem.utilization", "1", "ratio", labels, 100.0)
    if name.type == "percent_inodes" and name.type_instance == "used":
        return _Value("system.filesystem.inodes.utilization", "1", "ratio", labels, 100.0)
    part = name.type_instance if name.type == "df_complex" else source if name.type == "df" else None
    if part == "used":
        return _Value("system.filesystem.usage", "By", "gauge", labels)
    return _Value("disk.free", "By", "gauge", labels) if part == "free" else None


def _flow(metric: str, unit: str, labels: dict[str, str], rates: bool, divisor: float = 1.0) -> _Value:
    if rates:
        return _Value(metric, f"{unit}/s", "rate", labels, divisor)
    return _Value(f"{metric}.total", unit, "counter", labels, divisor)


def _interface(name: _Name, source: str, rates: bool) -> _Value | None:
    metric, unit = {
        "if_octets": ("system.network.io", "By"),
        "if_packets": ("system.network.packets", "{packet}"),
        "if_errors": ("system.network.errors", "{error}"),
        "if_dropped": ("system.network.dropped", "{packet}"),
    }.get(name.type, ("", ""))
    direction = {"rx": "receive", "tx": "transmit"}.get(source)
    device = name.plugin_instance or name.type_instance
    if not metric or direction is None or not device or (name.plugin_instance and name.type_instance):
        return None
    return _flow(metric, unit, {"device": device, "direction": direction}, rates)


def _disk(name: _Name, source: str, rates: bool) -> _Value | None:
    device = name.plugin_instance
    if not device or name.type_instance:
        return None
    if name.type == "disk_io_time" and source == "io_time" and not rates:
        return _Value("system.disk.io_time.total", "s", "counter", {"device": device}, 1000.0)
    metric, unit = {"disk_octets": ("system.disk.io", "By"), "disk_ops": ("system.disk.operations", "{operation}")}.get(
        name.type, ("", "")
    )
    if not metric or source not in _READ_WRITE:
        return None
    return _flow(metric, unit, {"device": device, "direction": source}, rates)


def _load(name: _Name, source: str, rates: bool) -> _Value | None:
    period = {"shortterm": "1m", "midterm": "5m", "longterm": "15m"}.get(source)
    if name.type != "load" or name.plugin_instance or name.type_instance or period is None:
        return None
    return _Value(f"system.cpu.load_average.{period}", "1", "gauge", {})


def _swap(name: _Name, source: str, rates: bool) -> _Value | None:
    if name.plugin_instance or source != "value" or name.type_instance != "used":
        return None
    if name.type == "percent":
        return _Value("system.paging.utilization", "1", "ratio", {}, 100.0)
    return _Value("system.paging.usage", "By", "gauge", {}) if name.type == "swap" else None


def _processes(name: _Name, source: str, rates: bool) -> _Value | None:
    if name.type != "ps_state" or name.plugin_instance or not name.type_instance:
        return None
    return _Value(f"system.processes.{name.type_instance}", "{process}", "gauge", {})


def _uptime(name: _Name, source: str, rates: bool) -> _Value | None:
    return _Value("system.uptime", "s", "gauge", {}) if name.type == "uptime" and not name.plugin_instance else None


def _users(name: _Name, source: str, rates: bool) -> _Value | None:
    return _Value("system.users.count", "{user}", "gauge", {}) if name.type == "users" else None


def _ping(name: _Name, source: str, rates: bool) -> _Value | None:
    labels = {"url": name.type_instance}
    if not name.type_instance or name.plugin_instance:
        return None
    return {
        "ping": _Value("ping.response.mean", "s", "gauge", labels, 1000.0),
        "ping_stddev": _Value("ping.response.deviation", "s", "gauge", labels, 1000.0),
        "ping_droprate": _Value("ping.loss", "1", "ratio", labels),
    }.get(name.type)


def _sensor(name: _Name, source: str) -> _Value | None:
    metric, unit, kind = _SENSORS[name.type]
    if source != "value":
        return None
    parts = (name.plugin_instance, name.type_instance)
    labels = {"hw.id": "/".join(part for part in parts if part) or name.plugin, "hw.type": kind, "plugin": name.plugin}
    return _Value(metric, unit, "gauge", labels)


_PLUGINS = {
    "cpu": _cpu,
    "memory": _memory,
    "df": _df,
    "interface": _interface,
    "disk": _disk,
    "load": _load,
    "swap": _swap,
    "processes": _processes,
    "uptime": _uptime,
    "users": _users,
    "ping": _ping,
}
#: types of hardware sensors, whichever plugin reads them
_SENSORS = {
    "temperature": ("hw.temperature", "Cel", "temperature"),
    "fanspeed": ("hw.fan.speed", "rpm", "fan"),
    "voltage": ("hw.voltage", "V", "voltage"),
    "power": ("hw.power", "W", "power_supply"),
    "current": ("hw.current", "A", "power_supply"),
}
