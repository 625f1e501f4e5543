"""Sensors, processors and memory pools of profiles: single readings, each from one or a few columns of an agent.

What belongs here: their part of a profile file, what their classes mean as metrics, and the turning of cells into
points. What does not: interfaces and other tables with rates (``profile``) and fetching (``poll``, ``walk``).

Unlike tables of rates, which are walked at every poll, these are found once by a walk and then asked for by name, many
in one request. A single object is a column with the one index 0. A sensor is written as::

    - {class: temperature, oid: .1.1.2, div: 10, label: .1.1.1}
    - {class: state, oid: .1.1.3, label: .1.1.1, states: {ok: [1], degraded: [2], failed: [3, 4]}}

where an identifier that begins with a dot continues the profile's ``base``.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from aiops_assets.collectors.document import Kind, Point
from aiops_assets.collectors.snmp.engine import NUMBERS, OBJECT_ID, OCTETS, OPAQUE, Oid, Value, oid_text, parse_oid

Cell = tuple[str, Value]
Cells = Mapping[Oid, Mapping[Oid, Cell]]


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a class of sensor is called: metric, UCUM unit, hw.type, and the factor from the class's own unit."""

    metric: str
    unit: str
    type: str
    kind: Kind = "gauge"
    factor: float = 1.0
    low: float = -math.inf
    high: float = math.inf


#: by class; profiles give values in the unit of the comment, ``factor`` leads to the metric's unit
CLASSES: Final[Mapping[str, Meaning]] = {
    "temperature": Meaning("hw.temperature", "Cel", "temperature", low=-120, high=1000),
    "voltage": Meaning("hw.voltage", "V", "voltage", low=-1e6, high=1e6),
    "current": Meaning("hw.current", "A", "current", low=-1e6, high=1e6),
    "power": Meaning("hw.power", "W", "power_supply", low=-1e9, high=1e9),
    "apparent_power": Meaning("hw.power.apparent", "V.A", "power_supply", low=-1e9, high=1e9),
    "power_factor": Meaning("hw.power.factor", "1", "power_supply", low=-1.01, high=1.01),
    "energy": Meaning("hw.energy", "J", "power_supply", factor=3.6e6),  # kWh
    "fanspeed": Meaning("hw.fan.speed", "rpm", "fan", low=0, high=200_000),
    "fan_ratio": Meaning("hw.fan.speed_ratio", "1", "fan", factor=0.01, low=0, high=200),  # percent
    "humidity": Meaning("hw.humidity", "1", "humidity", factor=0.01, low=0, high=110),  # percent
    "percent": Meaning("hw.percent", "1", "other", factor=0.01),  # percent
    "load": Meaning("hw.power_supply.utilization", "1", "power_supply", factor=0.01, low=0, high=1000),  # percent
    "charge": Meaning("hw.battery.charge", "1", "battery", factor=0.01, low=0, high=110),  # percent
    "runtime": Meaning("hw.battery.time_left", "s", "battery", factor=60.0, low=0),  # minutes
    "frequency": Meaning("hw.frequency", "Hz", "other", low=0),
    "dbm": Meaning("hw.optical.power", "dB[mW]", "network", low=-200, high=200),
    "signal": Meaning("hw.radio.signal", "dB[mW]", "network", low=-250, high=250),
    "snr": Meaning("hw.signal_to_noise", "dB", "network", low=-200, high=200),
    "bitrate": Meaning("hw.network.bit_rate", "bit/s", "network", low=0),
    "count": Meaning("hw.count", "{count}", "other"),
    "pressure": Meaning("hw.pressure", "kPa", "other"),
    "airflow": Meaning("hw.airflow", "[cft_i]/min", "other"),
    "cooling": Meaning("hw.cooling", "W", "other"),
    "delay": Meaning("hw.delay", "s", "other"),
    "waterflow": Meaning("hw.waterflow", "L/min", "other"),
    "quality": Meaning("hw.quality", "1", "other"),
    "loss": Meaning("hw.loss", "dB", "network"),
    "dispersion": Meaning("hw.chromatic_dispersion", "ps/nm", "network"),
    "level": Meaning("hw.level", "dB", "network"),
    "state": Meaning("hw.status", "1", "other"),
    # a state whose codes nobody has explained: only its changes mean something
    "code": Meaning("hw.state.code", "1", "other"),
}
SENSOR_CLASS = Literal[
    "temperature", "voltage", "current", "power", "apparent_power", "power_factor", "energy", "fanspeed", "fan_ratio",
    "humidity", "percent", "load", "charge", "runtime", "frequency", "dbm", "signal", "snr", "bitrate", "count",
    "pressure", "airflow", "cooling", "delay", "waterflow", "quality", "loss", "dispersion", "level", "state",
    "code",
]  # fmt: skip
#: the states that hw.status tells apart; any other code is ``unknown``
STATES: Final = ("ok", "degraded", "failed")
CPU = "system.cpu.utilization"
MEMORY = "system.memory.utilization"
MEMORY_USAGE = "system.memory.usage"
#: pools have metrics of their own: a cache that is full is no memory that is short
POOL = "system.memory.pool.utilization"
POOL_USAGE = "system.memory.pool.usage"
POOL_LIMIT = "system.memory.pool.limit"
#: what agents write where there is nothing to read
NOTHING: Final = frozenset({2147483647, -2147483648, 4294967295, 65535 * 65536, 9223372036854775807})
LONGEST_NAME = 120

_NUMBER = re.compile(r"^[^\d+\-.]{0,3}([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)")


def _reference(value: object) -> object:
    if isinstance(value, float):
        raise ValueError(f"YAML reads {value} as a number; put the identifier in quotes")
    if isinstance(value, str) and value.startswith("."):
        if not all(part.isdecimal() for part in value[1:].split(".")):
            raise ValueError(f"{value!r} is not an object identifier such as .1.2.3")
        return value
    return oid_text(parse_oid(str(value)))


#: an object identifier, or the rest of one that continues the profile's base
Reference = Annotated[str, BeforeValidator(_reference)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Reading(_Model):
    #: text column with the row's name
    label: Reference | tuple[Reference, ...] | None = None
    name: str | None = None
    #: other column of the row ← values it must have
    where: Mapping[Reference, tuple[str | int, ...]] = Field(default_factory=dict)
    #: the label column is indexed by only this many last (negative: first) parts of the row's index
    label_index: int | None = None
    #: regular expression that the row's label must match, and one that it must not
    match: str | None = None
    unless: str | None = None
    #: a column that is read instead where the row has it
    without: Reference | None = None


class SensorSpec(_Reading):
    """One sensor, or one a row."""

    kind: SENSOR_CLASS = Field(alias="class")
    oid: Reference
    div: float = Field(1.0, gt=0)
    mul: float = 1.0
    plus: float = 0.0
    #: power: value ← 10·log10(value); fahrenheit: value ← (value − 32) · 5/9; kelvin: value ← value − 273.15
    convert: Literal["mw_to_dbm", "fahrenheit", "kelvin", "seconds", "ticks", "hours"] | None = None
    #: columns with the exponent and the decimal places of the value (RFC 3433)
    scale: Reference | None = None
    precision: Reference | None = None
    #: readings (as the agent gives them) that mean that there is nothing to read
    skip: tuple[float, ...] = ()
    states: Mapping[Literal["ok", "degraded", "failed", "unknown"], tuple[str | int, ...]] = Field(default_factory=dict)
    type: str | None = None
    low: float | None = None
    high: float | None = None

    @model_validator(mode="after")
    def _states(self) -> SensorSpec:
        if (self.kind == "state") != bool(self.states):
            raise ValueError(
                "a sensor of class state, and only that, has states: {ok: […], degraded: […], failed: […]}"
            )
        return self


class ProcessorSpec(_Reading):
    """A processor's load in percent, or its idle share where ``idle``."""

    oid: Reference
    idle: bool = False
    #: whether the mean of such processors is the machine's load
    total: bool = True
    div: float = 1.0
    skip: tuple[float, ...] = ()


class MemorySpec(_Reading):
    """A memory pool: two of used, free and total, or the percentage; sizes times ``unit`` (or a column) are bytes."""

    used: Reference | None = None
    free: Reference | None = None
    total: Reference | None = None
    percent: Reference | None = None
    percent_free: bool = False
    unit: float = 1.0
    unit_oid: Reference | None = None
    div: float = 1.0
    #: whether this is the device's memory, not a part of it that means nothing alone
    main: bool = True

    @model_validator(mode="after")
    def _enough(self) -> MemorySpec:
        if self.percent is None and sum(x is not None for x in (self.used, self.free, self.total)) < 2:
            raise ValueError("a memory pool needs percent, or two of used, free and total")
        return self


@dataclass(frozen=True, slots=True)
class Reading:
    """A compiled spec. ``operands`` are the columns whose values change; ``fixed`` those read once (name ← column)."""

    profile: str
    kind: str
    spec: SensorSpec | ProcessorSpec | MemorySpec
    operands: Mapping[str, Oid]
    fixed: Mapping[str, Oid]
    labels: tuple[Oid, ...]
    where: tuple[tuple[Oid, frozenset[str]], ...]
    without: Oid | None = None
    codes: Mapping[str, str] = field(default_factory=dict)

    def columns(self) -> Iterator[Oid]:
        """Every column that discovery needs."""
        yield from self.operands.values()
        yield from self.fixed.values()
        yield from self.labels
        for column, _ in self.where:
            yield column
        if self.without is not None:
            yield self.without


@dataclass(frozen=True, slots=True)
class Instance:
    """One row of a reading on one device: what to ask for, and what is known about it."""

    reading: Reading
    index: Oid
    asks: Mapping[str, Oid]
    fixed: Mapping[str, Cell]
    labels: Mapping[str, str]


def compile_readings(
    profile: str,
    base: Oid | None,
    sensors: Sequence[SensorSpec],
    processors: Sequence[ProcessorSpec],
    memory: Sequence[MemorySpec],
) -> tuple[Reading, ...]:
    """The readings of a profile file.

    Raises:
        ValueError: when an identifier continues a base that the profile does not have.
    """

    def at(reference: str) -> Oid:
        if reference.startswith("."):
            if base is None:
                raise ValueError(f"{reference!r} continues the profile's base, but there is no base")
            return (*base, *(int(part) for part in reference[1:].split(".")))
        return parse_oid(reference)

    made = []
    specs: list[SensorSpec | ProcessorSpec | MemorySpec] = [*sensors, *processors, *memory]
    for spec in specs:
        names: dict[str, str | None]
        fixed: dict[str, str | None] = {}
        codes: dict[str, str] = {}
        if isinstance(spec, MemorySpec):
            kind = "memory"
            names = {"used": spec.used, "free": spec.free, "total": spec.total, "percent": spec.percent}
            fixed = {"unit": spec.unit_oid}
        elif isinstance(spec, ProcessorSpec):
            kind, names = "processor", {"value": spec.oid}
        else:
            kind, names = spec.kind, {"value": spec.oid}
            fixed = {"scale": spec.scale, "precision": spec.precision}
            codes = {str(code): state for state, values in spec.states.items() for code in values}
        labels = (spec.label,) if isinstance(spec.label, str) else spec.label or ()
        made.append(
            Reading(
                profile=profile,
                kind=kind,
                spec=spec,
                operands={name: at(oid) for name, oid in names.items() if oid is not None},
                fixed={name: at(oid) for name, oid in fixed.items() if oid is not None},
                labels=tuple(at(label) for label in labels),
                without=None if spec.without is None else at(spec.without),
                where=tuple((at(column), frozenset(map(str, values))) for column, values in spec.where.items()),
                codes=codes,
            )
        )
    return tuple(made)


# --- values --------------------------------------------------------------------------------------------------------


def written(cell: Cell | None) -> str | None:
    """A cell as people read it, shortened; ``None`` when empty."""
    if cell is None or cell[1] is None:
        return None
    kind, value = cell
    if kind in {OCTETS, OPAQUE} and isinstance(value, bytes):
        try:
            shown = value.rstrip(b"\x00").decode("utf-8")
        except UnicodeDecodeError:
            shown = value.decode("latin-1") if all(b >= 32 for b in value) else value.hex(":")
        return "".join(c if c.isprintable() else " " for c in shown).strip()[:LONGEST_NAME] or None
    if kind == OBJECT_ID and isinstance(value, tuple):
        return oid_text(value)
    return str(value)[:LONGEST_NAME] or None


def number(cell: Cell | None) -> float | int | None:
    """A cell as a number: integers, numbers written as text (``"23.5 C"``), and net-snmp's floats inside Opaque."""
    if cell is None:
        return None
    kind, value = cell
    if kind in NUMBERS:
        return value if isinstance(value, int) else None
    if not isinstance(value, bytes):
        return None
    if kind == OPAQUE or value[:2] == b"\x9f\x78":
        if len(value) >= 7 and value[:3] == b"\x9f\x78\x04":
            single = struct.unpack(">f", value[3:7])[0]
            return float(single) if math.isfinite(single) else None
        if len(value) >= 11 and value[:3] == b"\x9f\x79\x08":
            double = struct.unpack(">d", value[3:11])[0]
            return float(double) if math.isfinite(double) else None
        if kind == OPAQUE:
            return None
    try:
        found = _NUMBER.match(value.decode("ascii").strip().strip('"'))
    except UnicodeDecodeError:
        return None
    return float(found.group(1)) if found else None


def _sensor(spec: SensorSpec, meaning: Meaning, values: Mapping[str, Cell], fixed: Mapping[str, Cell]) -> float | None:
    raw = number(values.get("value"))
    if raw is None or raw in NOTHING or raw in spec.skip:
        return None
    value = raw * spec.mul / spec.div
    if spec.scale is not None:
        exponent = number(fixed.get("scale"))
        value *= 10.0 ** (3 * (int(exponent) - 9)) if exponent is not None and 0 < exponent < 18 else 1.0
    if spec.precision is not None:
        places = number(fixed.get("precision"))
        value /= 10.0 ** int(places) if places is not None and abs(places) < 20 else 1.0
    match spec.convert:
        case "mw_to_dbm":
            value = 10.0 * math.log10(value) if value > 0 else -40.0
        case "fahrenheit":
            value = (value - 32) * 5 / 9
        case "kelvin":
            value -= 273.15
        case "seconds":
            value /= 60
        case "ticks":
            value /= 6000
        case "hours":
            value *= 60
    value += spec.plus
    low = meaning.low if spec.low is None else spec.low
    high = meaning.high if spec.high is None else spec.high
    return value if low <= value <= high else None


def in_class_unit(instance: Instance, values: Mapping[str, Cell]) -> float | None:
    """A sensor's value in the unit of its class (see ``CLASSES``), a state's code; ``None`` without one."""
    spec = instance.reading.spec
    if isinstance(spec, ProcessorSpec):
        return _processor(spec, values)
    if isinstance(spec, MemorySpec):
        share, _, _ = _memory(spec, values, instance.fixed)
        return None if share is None else 100 * share
    if spec.kind == "state":
        return number((OCTETS, (code_of(values) or "").encode()))
    return _sensor(spec, CLASSES[spec.kind], values, instance.fixed)


def code_of(values: Mapping[str, Cell]) -> str | None:
    """A state's code as text; a BITS string of one or two octets as its number."""
    cell = values.get("value")
    if cell is not None and isinstance(cell[1], bytes) and cell[0] == OCTETS and 0 < len(cell[1]) <= 2:
        octets = cell[1]
        if not all(32 <= octet < 127 for octet in octets):
            return str(int.from_bytes(octets, "big"))
    return written(cell)


def _processor(spec: ProcessorSpec, values: Mapping[str, Cell]) -> float | None:
    raw = number(values.get("value"))
    if raw is None or raw in NOTHING or raw in spec.skip:
        return None
    percent = raw / spec.div
    percent = 100 - percent if spec.idle else percent
    return min(100.0, max(0.0, percent)) if -1 <= percent <= 105 else None


def _memory(
    spec: MemorySpec, values: Mapping[str, Cell], fixed: Mapping[str, Cell]
) -> tuple[float | None, float | None, float | None]:
    """Share in use, bytes in use and bytes in all."""

    def size(name: str) -> float | None:
        found = number(values.get(name))
        if found is None:
            return None
        # Integer32 that overflowed
        found = found + (1 << 32) if found < 0 else found
        unit = number(fixed.get("unit")) if spec.unit_oid is not None else None
        return float(found) * (unit if unit else spec.unit)

    used, free, total = size("used"), size("free"), size("total")
    if used is None and free is not None and total is not None:
        used = total - free
    if total is None and used is not None and free is not None:
        total = used + free
    share = None
    percent = number(values.get("percent"))
    if percent is not None and percent not in NOTHING:
        share = percent / spec.div / 100
        share = 1 - share if spec.percent_free else share
    elif used is not None and total:
        share = used / total
    if used is None and share is not None and total is not None:
        used = share * total
    if share is None or not -0.05 <= share <= 1.05:
        return None, used, total
    return min(1.0, max(0.0, share)), used, total


# --- discovery -----------------------------------------------------------------------------------------------------


def resolve(readings: Sequence[Reading], cells: Cells) -> list[Instance]:
    """The rows that a device has of these readings. ``cells``: column → index → cell."""
    found: list[Instance] = []
    taken: set[tuple[str, ...]] = set()
    read: set[tuple[str, tuple[Oid, ...]]] = set()
    for reading in readings:
        first = next(iter(reading.operands.values()))
        rows = cells.get(first, {})
        for index in rows:
            if any(written(cells.get(column, {}).get(index)) not in values for column, values in reading.where):
                continue
            if reading.without is not None and index in cells.get(reading.without, {}):
                continue
            asks = {name: (*column, *index) for name, column in reading.operands.items()}
            fixed = {
                name: cell
                for name, column in reading.fixed.items()
                if (cell := cells.get(column, {}).get(index)) is not None
            }
            values = {
                name: cell
                for name, column in reading.operands.items()
                if (cell := cells.get(column, {}).get(index)) is not None
            }
            instance = Instance(reading, index, asks, fixed, _labels(reading, index, cells))
            name = next(iter(instance.labels.values()))
            spec = reading.spec
            if (spec.match and not re.search(spec.match, name)) or (spec.unless and re.search(spec.unless, name)):
                continue
            if in_class_unit(instance, values) is None and reading.kind != "state":
                continue
            if reading.kind == "state" and code_of(values) is None:
                continue
            # An object that an earlier reading of the same kind took is not taken twice.
            objects = (reading.kind, tuple(asks.values()))
            if objects in read:
                continue
            read.add(objects)
            key = (reading.kind, *instance.labels.values())
            if key in taken:
                label = next(iter(instance.labels))
                labels = {**instance.labels, label: f"{name} {_position(reading, index)}"}
                instance = Instance(reading, index, asks, fixed, labels)
            taken.add(key)
            found.append(instance)
    return found


def _position(reading: Reading, index: Oid) -> str:
    """Column and index in short: unique in a device."""
    column = next(iter(reading.operands.values()))
    return f"#{oid_text(column[6:] or column)}.{oid_text(index)}"


def _labels(reading: Reading, index: Oid, cells: Cells) -> dict[str, str]:
    spec = reading.spec
    at = index
    if spec.label_index is not None:
        at = index[-spec.label_index :] if spec.label_index > 0 else index[: -spec.label_index]
    parts = [part for column in reading.labels if (part := written(cells.get(column, {}).get(at)))]
    if spec.name:
        parts.append(spec.name)
    if not parts:
        parts = [reading.profile]
    shown = " ".join(parts)
    if not reading.labels and index != (0,):
        shown = f"{shown} {oid_text(index)}"
    if reading.kind == "processor":
        return {"cpu": shown}
    if reading.kind == "memory":
        return {"pool": shown}
    assert isinstance(spec, SensorSpec)  # noqa: S101 - the other kinds are done
    return {"hw.id": shown, "hw.type": spec.type or CLASSES[spec.kind].type}


# --- points --------------------------------------------------------------------------------------------------------


def points(instance: Instance, values: Mapping[str, Cell]) -> Iterator[Point]:
    """The points of one reading. States become one point for each of ok, degraded and failed, 1 for the present one."""
    spec = instance.reading.spec
    labels = dict(instance.labels)
    if isinstance(spec, ProcessorSpec):
        percent = _processor(spec, values)
        if percent is not None:
            yield _point(CPU, percent / 100, "1", "ratio", labels)
    elif isinstance(spec, MemorySpec):
        share, used, total = _memory(spec, values, instance.fixed)
        sizes = used is not None and (spec.used or spec.free) is not None
        if share is not None:
            yield _point(POOL, share, "1", "ratio", labels)
            if spec.main:
                yield _point(MEMORY, share, "1", "ratio", {})
        if used is not None and sizes:
            yield _point(POOL_USAGE, used, "By", "gauge", labels)
            if spec.main:
                yield _point(MEMORY_USAGE, used, "By", "gauge", {})
        if total is not None:
            yield _point(POOL_LIMIT, total, "By", "gauge", labels)
    elif spec.kind == "state":
        code = code_of(values)
        if code is not None:
            state = state_of(instance.reading, code)
            for name in (*STATES, "unknown"):
                if name != "unknown" or state == "unknown":
                    yield _point("hw.status", float(name == state), "1", "gauge", {**labels, "hw.state": name})
    else:
        meaning = CLASSES[spec.kind]
        value = _sensor(spec, meaning, values, instance.fixed)
        if value is not None:
            yield _point(meaning.metric, value * meaning.factor, meaning.unit, meaning.kind, labels)


def state_of(reading: Reading, code: str) -> str:
    """What a state's code (or text) means: ok, degraded, failed or unknown."""
    return reading.codes.get(code) or reading.codes.get(code.lower()) or reading.codes.get("*", "unknown")


def _point(metric: str, value: float, unit: str, kind: Kind, labels: Mapping[str, str]) -> Point:
    return {"metric": metric, "value": float(value), "unit": unit, "kind": kind, "labels": labels}


def total_load(instances: Sequence[Instance], values: Mapping[Oid, Cell]) -> Point | None:
    """The mean load of a profile's processors, as the series that whole machines have."""
    loads = []
    for instance in instances:
        if isinstance(instance.reading.spec, ProcessorSpec) and instance.reading.spec.total:
            own = {name: cell for name, oid in instance.asks.items() if (cell := values.get(oid)) is not None}
            percent = _processor(instance.reading.spec, own)
            if percent is not None:
                loads.append(percent)
    return _point(CPU, math.fsum(loads) / len(loads) / 100, "1", "ratio", {"cpu": "total"}) if loads else None


def describe(readings: Sequence[Reading]) -> set[str]:
    """The metrics that readings can give."""
    names: set[str] = set()
    for reading in readings:
        if reading.kind == "processor":
            names.add(CPU)
        elif reading.kind == "memory":
            names |= {POOL, POOL_USAGE, POOL_LIMIT}
        else:
            names.add(CLASSES[reading.kind].metric)
    return names
