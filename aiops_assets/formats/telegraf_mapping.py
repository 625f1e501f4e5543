"""From Telegraf's measurements, tags and fields to host, canonical metric and labels; once a distinct series.

What belongs here: the table of names, the rules for hosts and labels, and the assembly of the ``series`` and
``points`` frames from integer codes. What does not: reading bytes.

A field that has no canonical name keeps its own, ``measurement.field`` (a dot in the field is written ``%2E``, so that
no two fields of a measurement share a name). A measurement whose tags do not have the shape Telegraf gives them keeps
its own names as well. Counters keep their raw totals under a name of their own ending in ``.total``: the names without
it are rates per second, and one metric has one unit. A measurement that already speaks canonically (``system.cpu`` with
field ``utilization``, or ``system.cpu.utilization`` with field ``value``) is stored under that name.

The host is the tag ``host``. What Telegraf asks of other devices (its snmp and redfish inputs) carries the name of the
asking Telegraf there; then the device's own tag is the host, and ``host`` stays among the labels.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from aiops_assets.formats.batch import (
    LOGS_SCHEMA,
    MAX_LABELS_CHARS,
    MAX_NAME_CHARS,
    POINTS_SCHEMA,
    SERIES_SCHEMA,
    labels_json,
)
from aiops_assets.formats.columns import dense, distinct_series
from aiops_assets.formats.payload import FORBIDDEN, Refused, name_problem

#: tags that name the measured host when there is no ``host`` tag, in this order; they stay among the labels
HOST_TAGS = ("hostname", "source", "agent_host", "device")
UNKNOWN_HOST = "unknown"


class Rule(NamedTuple):
    """What becomes of one field: stored value = field / divisor + offset; ``extra`` is a label of the new name."""

    metric: str
    unit: str = ""
    kind: str = "gauge"
    divisor: float = 1.0
    offset: float = 0.0
    extra: tuple[str, str] | None = None


class Key(NamedTuple):
    """A distinct measurement with its tags. ``family`` names the table of fields, ``None`` for raw names."""

    measurement: str
    host: str
    family: str | None
    labels: dict[str, str]
    labels_text: str


@dataclass(frozen=True, slots=True)
class _Family:
    """How one Telegraf measurement is read: tag → label renames (the tags it must have), labels its rules add."""

    fields: dict[str, Rule]
    rename: tuple[tuple[str, str], ...] = ()
    adds: tuple[str, ...] = ()
    #: tags of which the first there is becomes the label ``device`` too; one of them must be there
    device: tuple[str, ...] = ()


def _ratio(metric: str, **more: float) -> Rule:
    return Rule(metric, "1", "ratio", 100.0 * more.get("sign", 1.0), more.get("offset", 0.0))


def _counter(metric: str, unit: str, extra: tuple[str, str] | None = None) -> Rule:
    return Rule(metric, unit, "counter", extra=extra)


def _both_ways(fields: tuple[str, str], metric: str, unit: str, label: str, ways: tuple[str, str]) -> dict[str, Rule]:
    return {field: _counter(metric, unit, (label, way)) for field, way in zip(fields, ways, strict=True)}


_READ_WRITE = ("read", "write")
_RECEIVE_TRANSMIT = ("receive", "transmit")
_CPU_STATES = ("user", "system", "iowait", "irq", "softirq", "steal", "nice", "guest", "guest_nice")


def _interfaces(measurement: str) -> _Family:
    """A table of IF-MIB, called as in Telegraf's documentation. Where a table holds both, the 64-bit octets count.

    The 32-bit octets, and packets that are no unicast ones, keep their own names: they would meet the others.
    """
    packets = ("UcastPkts", "NUcastPkts", "MulticastPkts", "BroadcastPkts")
    columns = {"Octets": "By", **dict.fromkeys(packets, "{packet}")}
    columns |= dict.fromkeys(("HCMulticastPkts", "HCBroadcastPkts"), "{packet}")
    own: dict[str, Rule] = {}
    for column, unit in columns.items():
        for way in ("In", "Out"):
            field = f"ifHC{way}{column[2:]}" if column.startswith("HC") else f"if{way}{column}"
            own[field] = _counter(f"{measurement}.{field}", unit)
    return _Family(
        {
            **own,
            **_both_ways(
                ("ifHCInOctets", "ifHCOutOctets"), "system.network.io.total", "By", "direction", _RECEIVE_TRANSMIT
            ),
            **_both_ways(
                ("ifHCInUcastPkts", "ifHCOutUcastPkts"),
                "system.network.packets.total",
                "{packet}",
                "direction",
                _RECEIVE_TRANSMIT,
            ),
            **_both_ways(
                ("ifInErrors", "ifOutErrors"), "system.network.errors.total", "{error}", "direction", _RECEIVE_TRANSMIT
            ),
            **_both_ways(
                ("ifInDiscards", "ifOutDiscards"),
                "system.network.dropped.total",
                "{packet}",
                "direction",
                _RECEIVE_TRANSMIT,
            ),
            "ifInUnknownProtos": _counter(f"{measurement}.ifInUnknownProtos", "{packet}"),
            "ifSpeed": Rule(f"{measurement}.ifSpeed", "bit/s"),
            # IF-MIB counts ifHighSpeed in millions of bits a second
            "ifHighSpeed": Rule(f"{measurement}.ifHighSpeed", "bit/s", divisor=1e-6),
            "ifMtu": Rule(f"{measurement}.ifMtu", "By"),
        },
        adds=("direction",),
        device=("ifName", "ifDescr", "ifIndex"),
    )


_SENSOR = (("member_id", "hw.id"), ("name", "hw.name"))


def _sensors(kind: str, **fields: tuple[str, str]) -> _Family:
    """Readings of Telegraf's redfish input, with the attributes that OpenTelemetry asks of hardware."""
    rules = {
        field: Rule(metric, unit, "ratio" if metric == "hw.fan.speed_ratio" else "gauge", extra=("hw.type", kind))
        for field, (metric, unit) in fields.items()
    }
    rules = {field: rule._replace(divisor=100.0) if rule.kind == "ratio" else rule for field, rule in rules.items()}
    return _Family(rules, rename=_SENSOR, adds=("hw.type",))


#: tags that name the measured device where the tag ``host`` is the Telegraf that asks it
_REMOTE_TAGS = ("hostname", "source", "agent_host", "address")
_REMOTE = frozenset(("interface", "ifTable", "ifXTable", "snmp"))
_REMOTE_PREFIX = "redfish_"

_FAMILIES: dict[str, _Family] = {
    **{name: _interfaces(name) for name in ("interface", "ifTable", "ifXTable")},
    "snmp": _Family({"uptime": Rule("system.uptime", "s")}),
    "redfish_thermal_temperatures": _sensors("temperature", reading_celsius=("hw.temperature", "Cel")),
    "redfish_thermal_fans": _sensors(
        "fan", reading_rpm=("hw.fan.speed", "rpm"), reading_percent=("hw.fan.speed_ratio", "1")
    ),
    "redfish_power_powersupplies": _sensors(
        "power_supply",
        power_input_watts=("hw.power", "W"),
        line_input_voltage=("hw.voltage", "V"),
        power_capacity_watts=("hw.power_supply.limit", "W"),
        power_output_watts=("hw.power_supply.usage", "W"),
    ),
    "redfish_power_voltages": _sensors("voltage", reading_volts=("hw.voltage", "V")),
    "redfish_power_powercontrol": _sensors(
        "enclosure", power_consumed_watts=("hw.host.power", "W"), power_capacity_watts=("hw.host.power.limit", "W")
    ),
    "cpu": _Family(
        {
            "usage_idle": _ratio("system.cpu.utilization", sign=-1.0, offset=1.0),
            "usage_active": _ratio("system.cpu.active.utilization"),
            **{f"usage_{state}": _ratio(f"system.cpu.{state}.utilization") for state in _CPU_STATES},
            **{f"time_{state}": _counter("system.cpu.time", "s", ("state", state)) for state in (*_CPU_STATES, "idle")},
        },
        rename=(("cpu", "cpu"),),
        adds=("state",),
    ),
    "mem": _Family(
        {
            "used_percent": _ratio("system.memory.utilization"),
            "used": Rule("system.memory.usage", "By"),
            "total": Rule("system.memory.limit", "By"),
            "available": Rule("system.linux.memory.available", "By"),
            **{field: Rule(f"mem.{field}", "By") for field in ("free", "cached", "buffered", "active", "inactive")},
        }
    ),
    "swap": _Family(
        {
            "used_percent": _ratio("system.paging.utilization"),
            "used": Rule("system.paging.usage", "By"),
            "total": Rule("system.paging.limit", "By"),
            "free": Rule("swap.free", "By"),
            **_both_ways(("in", "out"), "system.paging.io.total", "By", "direction", ("in", "out")),
        },
        adds=("direction",),
    ),
    "disk": _Family(
        {
            "used_percent": _ratio("system.filesystem.utilization"),
            "used": Rule("system.filesystem.usage", "By"),
            "total": Rule("system.filesystem.limit", "By"),
            "free": Rule("disk.free", "By"),
            "inodes_used_percent": _ratio("system.filesystem.inodes.utilization"),
        },
        rename=(("path", "mountpoint"),),
    ),
    "diskio": _Family(
        {
            **_both_ways(("read_bytes", "write_bytes"), "system.disk.io.total", "By", "direction", _READ_WRITE),
            **_both_ways(("reads", "writes"), "system.disk.operations.total", "{operation}", "direction", _READ_WRITE),
            "io_time": Rule("system.disk.io_time.total", "s", "counter", 1000.0),
        },
        rename=(("name", "device"),),
        adds=("direction",),
    ),
    "net": _Family(
        {
            **_both_ways(("bytes_recv", "bytes_sent"), "system.network.io.total", "By", "direction", _RECEIVE_TRANSMIT),
            **_both_ways(
                ("packets_recv", "packets_sent"),
                "system.network.packets.total",
                "{packet}",
                "direction",
                _RECEIVE_TRANSMIT,
            ),
            **_both_ways(
                ("err_in", "err_out"), "system.network.errors.total", "{error}", "direction", _RECEIVE_TRANSMIT
            ),
            **_both_ways(
                ("drop_in", "drop_out"), "system.network.dropped.total", "{packet}", "direction", _RECEIVE_TRANSMIT
            ),
        },
        rename=(("interface", "device"),),
        adds=("direction",),
    ),
    "system": _Family(
        {
            "load1": Rule("system.cpu.load_average.1m", "1"),
            "load5": Rule("system.cpu.load_average.5m", "1"),
            "load15": Rule("system.cpu.load_average.15m", "1"),
            "uptime": Rule("system.uptime", "s"),
            "n_cpus": Rule("system.cpu.logical.count", "{cpu}"),
            "n_users": Rule("system.users.count", "{user}"),
        }
    ),
    "processes": _Family(
        {
            "total": Rule("system.processes.count", "{process}"),
            **{
                state: Rule(f"system.processes.{state}", "{process}")
                for state in ("running", "sleeping", "blocked", "zombies", "stopped", "idle", "dead", "paging")
            },
            "total_threads": Rule("system.processes.threads", "{thread}"),
        }
    ),
    "procstat": _Family(
        {
            "cpu_usage": _ratio("process.cpu.utilization"),
            "memory_rss": Rule("process.memory.usage", "By"),
        },
        rename=(("process_name", "process"),),
    ),
    "ping": _Family(
        {
            "average_response_ms": Rule("ping.response.mean", "s", divisor=1000.0),
            "minimum_response_ms": Rule("ping.response.min", "s", divisor=1000.0),
            "maximum_response_ms": Rule("ping.response.max", "s", divisor=1000.0),
            "standard_deviation_ms": Rule("ping.response.deviation", "s", divisor=1000.0),
            "percent_packet_loss": _ratio("ping.loss"),
        }
    ),
}

#: canonical metrics that other senders may name themselves: unit and kind
_CANONICAL: dict[str, tuple[str, str]] = {
    **{rule.metric: (rule.unit, rule.kind) for family in _FAMILIES.values() for rule in family.fields.values()},
    "system.disk.io": ("By/s", "rate"),
    "system.disk.operations": ("{operation}/s", "rate"),
    "system.network.io": ("By/s", "rate"),
    "system.network.errors": ("{error}/s", "rate"),
    "system.network.packets": ("{packet}/s", "rate"),
    "system.network.up": ("1", "gauge"),
    "hw.temperature": ("Cel", "gauge"),
    "hw.fan.speed": ("rpm", "gauge"),
    "hw.voltage": ("V", "gauge"),
    "hw.power": ("W", "gauge"),
    "hw.current": ("A", "gauge"),
}

_CPU_TAG = re.compile(r"cpu(?:-total|\d+)")
_UNITS_BY_ENDING = (
    ("_percent", "%"), ("_bytes", "By"), ("_ms", "ms"), ("_ns", "ns"), ("_us", "us"), ("_seconds", "s"), ("_sec", "s"),
)  # fmt: skip


@lru_cache(maxsize=32_768)
def resolve(measurement: str, tags: tuple[tuple[str, str], ...]) -> Key:
    """Host, labels and table of fields of one measurement with its tags.

    Raises:
        Refused: a name is empty, too long, holds a control character, or a tag appears twice.
    """
    labels = dict(tags)
    text = "".join((measurement, *labels, *labels.values()))
    plain = len(text) <= MAX_NAME_CHARS and measurement and "" not in labels and "" not in labels.values()
    if not plain or len(labels) < len(tags) or FORBIDDEN.search(text):
        problem = _problem(measurement, tags)
        if problem:
            raise Refused(problem)
    host = None
    if "agent_host" in labels or measurement in _REMOTE or measurement.startswith(_REMOTE_PREFIX):
        host = next((labels[tag] for tag in _REMOTE_TAGS if tag in labels), None)
    if host is None:
        host = labels.pop("host", None) or next(
            (labels[tag] for tag in _host_tags(measurement) if tag in labels), UNKNOWN_HOST
        )
    family = measurement if _fits(measurement, labels) else None
    if family is not None:
        for tag, label in _FAMILIES[family].rename:
            labels[label] = labels.pop(tag)
        device = next((tag for tag in _FAMILIES[family].device if tag in labels), None)
        if device is not None:
            labels["device"] = labels[device]
        if family == "cpu":
            labels["cpu"] = labels["cpu"].removeprefix("cpu").removeprefix("-")
    return Key(measurement, host, family, labels, labels_json(labels))


def _problem(measurement: str, tags: tuple[tuple[str, str], ...]) -> str | None:
    problem = name_problem("the measurement", measurement)
    seen: set[str] = set()
    for name, value in tags:
        problem = problem or name_problem("a tag name", name) or name_problem(f"the tag {name[:64]!r}", value)
        if name in seen:
            problem = problem or f"the tag {name[:64]!r} appears twice"
        seen.add(name)
    if problem is None and sum(len(name) + len(value) for name, value in tags) > MAX_LABELS_CHARS:
        return f"the tags together are longer than {MAX_LABELS_CHARS} characters"
    return problem


def _host_tags(measurement: str) -> tuple[str, ...]:
    """In Telegraf's own measurements ``device`` is a disk, not the machine."""
    return HOST_TAGS[:-1] if measurement in _FAMILIES else HOST_TAGS


def _fits(measurement: str, labels: dict[str, str]) -> bool:
    """Whether the tags are those that Telegraf gives this measurement, so that renaming cannot collide."""
    family = _FAMILIES.get(measurement)
    if family is None:
        return False
    if any(tag not in labels or (label != tag and label in labels) for tag, label in family.rename):
        return False
    if any(label in labels for label in family.adds):
        return False
    if family.device and ("device" in labels or not any(tag in labels for tag in family.device)):
        return False
    return measurement != "cpu" or _CPU_TAG.fullmatch(labels["cpu"]) is not None


def rule(family: str | None, measurement: str, field: str) -> Rule:
    """What becomes of one field of a measurement; different fields of one key never share metric and labels."""
    if family is not None:
        known = _FAMILIES[family].fields.get(field)
        if known is not None:
            return known
    elif field == "value" and measurement in _CANONICAL:
        return Rule(measurement, *_CANONICAL[measurement])
    metric = f"{measurement}.{escape_field(field)}"
    if metric in _CANONICAL and family is None:
        return Rule(metric, *_CANONICAL[metric])
    unit = next((unit for ending, unit in _UNITS_BY_ENDING if field.endswith(ending)), "")
    return Rule(metric, unit)


def canonical(metric: str, unit: str, kind: str) -> tuple[str, str, str]:
    """Name, unit and kind under which a metric is stored whose sender already speaks OpenTelemetry's conventions.

    A running total of what is a rate per second here is kept under the name with ``.total``; a gauge that is known as
    a ratio is one.
    """
    known = _CANONICAL.get(metric)
    if known is None:
        return metric, unit, kind
    if known[1] == "rate" and kind == "counter":
        return f"{metric}.total", unit or _CANONICAL.get(f"{metric}.total", ("",))[0], kind
    if known[1] == "ratio" and kind == "gauge" and unit in {"", "1"}:
        return metric, "1", "ratio"
    return metric, unit or known[0], kind


def escape_field(field: str) -> str:
    """A field's part of a metric name, without dots; reversible."""
    if "." not in field and "%" not in field:
        return field
    return re.sub("%(?=2[E5])", "%25", field).replace(".", "%2E")


def is_redundant_text(measurement: str, fields: Iterable[str]) -> bool:
    """Whether text fields only repeat a number that is sent beside them, so that leaving them out loses nothing.

    Every Telegraf agent with the ``system`` input sends ``uptime_format`` as a line of its own, each interval.
    """
    return measurement == "system" and set(fields) == {"uptime_format"}


class Texts:
    """Text fields as rows of the logs frame: the text is the body, the measurement the app, tags are attributes."""

    def __init__(self) -> None:
        self._parts: list[pl.DataFrame] = []
        self._rows: list[tuple[int, int, str, str, str, str]] = []
        self._attributes: dict[tuple[str, str], str] = {}

    def add(self, delivery: int, ts: int, key: Key, field: str, text: str) -> None:
        """Add one; ``ts`` is in microseconds. What cannot be encoded as UTF-8 is replaced."""
        if is_redundant_text(key.measurement, (field,)):
            return
        if not text.isascii():
            text = text.encode("utf-8", "replace").decode()
        self._rows.append((delivery, ts, key.host, key.measurement, text, self._described(key, field)))

    def add_columns(
        self,
        delivery: npt.NDArray[np.uint32],
        ts: npt.NDArray[np.int64],
        keys: Sequence[Key],
        key_code: npt.NDArray[np.int64],
        field: pl.Series,
        text: pl.Series,
    ) -> None:
        """Add many; ``key_code`` indexes ``keys``."""
        about = pl.DataFrame({"key": key_code, "field": field})
        distinct = about.unique()
        described = pl.DataFrame(
            [
                (code, name, keys[code].host, keys[code].measurement, self._described(keys[code], name))
                for code, name in distinct.iter_rows()
            ],
            schema={"key": pl.Int64, "field": pl.String, "host": pl.String, "app": pl.String, "attributes": pl.String},
            orient="row",
        )
        rows = about.join(described, on=["key", "field"], how="left", maintain_order="left").with_columns(
            delivery=pl.Series(delivery, dtype=pl.UInt32), ts=pl.Series(ts, dtype=pl.Int64), body=text
        )
        redundant = (pl.col("app") == "system") & (pl.col("field") == "uptime_format")
        self._parts.append(rows.filter(~redundant).select(list(_TEXT_SCHEMA)))

    def count(self) -> int:
        """How many were added one by one."""
        return len(self._rows)

    def back_to(self, count: int) -> None:
        """Forget all but the first ``count`` of those, because the rest is read again."""
        del self._rows[count:]

    def frame(self) -> pl.DataFrame:
        """Rows of ``batch.LOGS_SCHEMA`` in the order of their deliveries."""
        parts = [*self._parts, pl.DataFrame(self._rows, schema=_TEXT_SCHEMA, orient="row")]
        missing = [pl.lit(None, LOGS_SCHEMA[name]).alias(name) for name in LOGS_SCHEMA if name not in _TEXT_SCHEMA]
        rows = pl.concat(parts).sort("delivery", "ts", maintain_order=True)
        return rows.with_columns(missing).select(list(LOGS_SCHEMA))

    def _described(self, key: Key, field: str) -> str:
        found = self._attributes.get((key.labels_text, field))
        if found is None:
            name = "field" if "field" not in key.labels else "telegraf.field"
            found = self._attributes[key.labels_text, field] = labels_json({**key.labels, name: field})
        return found


_TEXT_SCHEMA = {name: LOGS_SCHEMA[name] for name in ("delivery", "ts", "host", "app", "body", "attributes")}


def metric_problem(measurement: str, field: str) -> str | None:
    """Why a field of a (resolved) measurement cannot be stored, or ``None``."""
    problem = name_problem("a field name", field)
    if problem is None and len(measurement) + 1 + len(escape_field(field)) > MAX_NAME_CHARS:
        return f"the metric name is longer than {MAX_NAME_CHARS} characters"
    return problem


def assemble(
    keys: Sequence[Key],
    names: Sequence[str],
    key_code: npt.NDArray[np.int64],
    name_code: npt.NDArray[np.int64],
    points: dict[str, npt.NDArray[np.generic]],
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The ``series`` and ``points`` frames (schemas of ``batch``) of points given as codes.

    ``key_code`` and ``name_code`` (one entry a point) index ``keys`` and ``names``; ``points`` holds the arrays
    ``delivery``, ``ts`` (microseconds) and ``value`` (the field as sent) in the order they shall have.
    """
    if key_code.size == 0:
        return pl.DataFrame(schema=SERIES_SCHEMA), pl.DataFrame(schema=POINTS_SCHEMA)
    distinct, series = dense(key_code * len(names) + name_code, len(keys) * len(names))
    of_key, of_name = distinct // len(names), distinct % len(names)
    kinds: dict[tuple[str | None, str], int] = {}
    kind_of_key = np.fromiter(
        (kinds.setdefault((key.family, key.measurement), len(kinds)) for key in keys), np.int64, len(keys)
    )
    shapes = list(kinds)
    used, of_rule = dense(kind_of_key[of_key] * len(names) + of_name, len(shapes) * len(names))
    rules = []
    for code in used.tolist():
        family, measurement = shapes[code // len(names)]
        rules.append(rule(family, measurement, names[code % len(names)]))
    labels = pl.Series("labels", [key.labels_text for key in keys], dtype=pl.String).gather(of_key)
    extras = np.array([entry.extra is not None for entry in rules])[of_rule]
    if extras.any():
        labels = _with_extras(labels, extras, keys, rules, of_key, of_rule)
    frame = pl.DataFrame(
        {
            "host": pl.Series([key.host for key in keys], dtype=pl.String).gather(of_key),
            "metric": pl.Series([entry.metric for entry in rules], dtype=pl.String).gather(of_rule),
            "unit": pl.Series([entry.unit for entry in rules], dtype=pl.String).gather(of_rule),
            "labels": labels,
            "kind": pl.Series([entry.kind for entry in rules], dtype=pl.String).gather(of_rule),
        },
        schema=SERIES_SCHEMA,
    )
    value = points["value"].astype(np.float64, copy=False)
    if any(entry.divisor != 1.0 or entry.offset != 0.0 for entry in rules):
        divisor = np.array([entry.divisor for entry in rules])[of_rule][series]
        offset = np.array([entry.offset for entry in rules])[of_rule][series]
        value = value / divisor + offset
    frame, series = distinct_series(frame, series)
    return frame, pl.DataFrame(
        {"delivery": points["delivery"], "series": series, "ts": points["ts"], "value": value}
    ).cast(POINTS_SCHEMA)  # type: ignore[arg-type]


def _with_extras(
    labels: pl.Series,
    extras: npt.NDArray[np.bool_],
    keys: Sequence[Key],
    rules: Sequence[Rule],
    of_key: npt.NDArray[np.int64],
    of_rule: npt.NDArray[np.int64],
) -> pl.Series:
    texts = labels.to_list()
    cache: dict[tuple[int, tuple[str, str]], str] = {}
    rows = np.flatnonzero(extras)
    for row, key, entry in zip(rows.tolist(), of_key[rows].tolist(), of_rule[rows].tolist(), strict=True):
        extra = rules[entry].extra
        if extra is None:
            continue
        text = cache.get((key, extra))
        if text is None:
            text = cache[key, extra] = labels_json({**keys[key].labels, extra[0]: extra[1]})
        texts[row] = text
    return pl.Series("labels", texts, dtype=pl.String)
