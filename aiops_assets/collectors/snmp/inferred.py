"""Sensors of makers that no profile was written for, inferred from what their own tables say in words.

What belongs here: the bounded walk of a maker's subtree and the inference. What does not: anything that a profile says
(profiles come first, and a maker with one is not guessed about).

By SMI convention (RFC 2578, section 7.1.12) the columns of a table are ``table.1.column.index``. So a row is known from
its cells' names alone, and a row that holds words such as "Fan 2" or "CPU Temperature", or a unit such as "Celsius",
says what it measures. The reading is taken from the first column whose values are plausible for that kind in all such
rows and are no index and no constant; its decimal places are those that make it plausible, or equal to the nominal
value where the words name one ("+12V"). Of rows that name a component ("PSU 2") the first small number after its name
is kept as a code (``hw.state.code``): what it means is not known, but when it changes something has changed. Of rows
without words only optical transceivers are known, by the five readings of SFF-8472 in their order there: temperature,
supply near 3.3 V, bias current, transmitted and received power. Every point carries the label ``hw.inferred``, so that
rules can leave such readings out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from aiops_assets.collectors.snmp.engine import ABSENT, INTEGER, NO_ERROR, OCTETS, Oid, Session, Value, oid_text
from aiops_assets.collectors.snmp.sensors import CLASSES, Instance, Reading, SensorSpec, number, written
from aiops_assets.collectors.snmp.walk import Pace

Cell = tuple[str, Value]

#: objects of a maker's subtree that are looked at
MOST_OBJECTS: Final = 4_000
#: sensors that are taken from it
MOST_SENSORS: Final = 300
LONGEST_INDEX: Final = 4
LONGEST_WORDS: Final = 80
#: makers whose objects have profiles that always apply, or that hold no hardware
NOT_GUESSED: Final = frozenset({2021, 8072, 311})

_UNITS: Final[Sequence[tuple[str, re.Pattern[str]]]] = tuple(
    (kind, re.compile(rf"^(?:{pattern})$", re.IGNORECASE))
    for kind, pattern in (
        ("temperature", r"°\s?c|deg\.?\s?c|degrees?\s?c(?:elsius)?|celsius|c"),
        ("fanspeed", r"rpm|r/min"),
        ("voltage", r"v|volts?|vdc|vac|mv"),
        ("current", r"a|amps?|amperes?|ma"),
        ("power", r"w|watts?"),
        ("dbm", r"dbm"),
        ("humidity", r"%\s?rh"),
        ("frequency", r"hz"),
    )
)
_WORDS: Final[Sequence[tuple[str, re.Pattern[str]]]] = tuple(
    (kind, re.compile(pattern, re.IGNORECASE))
    for kind, pattern in (
        ("dbm", r"\bdbm\b"),
        ("humidity", r"humid"),
        ("temperature", r"temp(?!late|orar)|thermal|°c|celsius"),
        ("voltage", r"volt(?!a?ge class)|\bv(?:cc|dd|in|out|core|bat|tt|sb)\w*\b|\b[+-]?\d+(?:\.\d+)?\s?v(?:dc|sb)?\b"),
        ("current", r"\bcurrent\s*\[?\(?m?a\b|\bamps?\b|\bamperes?\b|bias current"),
        ("fanspeed", r"\bfans?\b|fan[ _-]?\d|\brpm\b|fantray"),
        ("power", r"\bwatts?\b|power consumption"),
    )
)
#: raw values that are plausible, and the decimal places that they then have
_SCALES: Final[Mapping[str, Sequence[tuple[float, float, float]]]] = {
    "temperature": ((5, 120, 1), (120, 1_200, 10), (1_200, 12_000, 100), (12_000, 120_000, 1_000)),
    "fanspeed": ((300, 40_000, 1),),
    "humidity": ((5, 100, 1), (100, 1_000, 10)),
    "voltage": ((1, 500, 1), (500, 5_000, 100), (5_000, 500_000, 1_000)),
    "current": ((0.001, 100, 1), (100, 100_000, 1_000)),
    "power": ((1, 20_000, 1),),
    "dbm": ((-45, 15, 1), (-450, 150, 10), (-4_500, 1_500, 100), (-45_000, 15_000, 1_000)),
    "frequency": ((40, 70, 1), (400, 700, 10), (4_000, 7_000, 100)),
}
_NOMINAL: Final = re.compile(r"([+-]?\d+(?:\.\d+)?)\s?v(?:dc|sb)?\b", re.IGNORECASE)
_GOOD: Final = ("ok", "good", "normal", "healthy", "optimal", "operational", "working", "running", "online", "up")
_BAD: Final = ("failed", "fail", "failure", "faulty", "fault", "bad", "critical", "error", "broken", "offline", "down")
_POOR: Final = ("warning", "degraded", "minor", "major", "rebuilding", "non-critical", "noncritical")
_COMPONENT: Final = re.compile(
    r"\b(?:fans?|psu|power ?suppl(?:y|ies)|power|supply|batter(?:y|ies)|dis[ck]s?|drives?|hdd|ssd|raid|module|card|slot"
    r"|tray|sensor|temp\w*|rectifier|alarm|contact|door|relay|input|output|outlet|breaker|fuse|link|unit|blade"
    r"|controller|board|line|phase|voltage|cpu|memory)[ _#-]?\d*",
    re.IGNORECASE,
)
#: larger numbers are readings, not codes
LARGEST_CODE: Final = 20
_KNOWN: Final = frozenset((*_GOOD, *_BAD, *_POOR))
_STATES: Final = SensorSpec.model_validate(
    {"class": "state", "oid": "1.3.6.1", "states": {"ok": _GOOD, "degraded": _POOR, "failed": _BAD}}
)


async def subtree(session: Session, root: Oid, pace: Pace, most: int = MOST_OBJECTS) -> dict[Oid, Cell]:
    """The first objects under a name, as far as the agent goes forward.

    Raises:
        SnmpError: when a request comes to nothing.
    """
    found: dict[Oid, Cell] = {}
    cursor = root
    while len(found) < most:
        if session.version == "1":
            reply = await session.get_next([cursor])
        else:
            reply = await session.get_bulk(0, max(1, min(pace.objects, 50)), [cursor])
        if reply.status != NO_ERROR:
            if session.version == "1" or not pace.halve():
                break
            continue
        if not reply.varbinds:
            break
        for oid, kind, value in reply.varbinds:
            if kind in ABSENT or oid <= cursor or oid[: len(root)] != root:
                return found
            found[oid] = (kind, value)
            cursor = oid
    return found


def infer(objects: Mapping[Oid, Cell]) -> list[Instance]:
    """The sensors that a maker's objects speak of. ``objects``: name → cell, of one subtree."""
    entries = _rows(objects)
    found: list[Instance] = []
    taken: set[tuple[str, ...]] = set()
    for entry in sorted(entries):
        rows = entries[entry]
        kinds: dict[str, dict[Oid, str]] = {}
        for index, row in rows.items():
            words = [w for column in sorted(row) if (w := _words(row[column]))]
            kind = _kind(words)
            if kind is not None:
                label = next((w for w in words if not any(p.match(w) for _, p in _UNITS)), words[0])
                kinds.setdefault(kind, {})[index] = label
        for kind, labels in kinds.items():
            chosen = _column(kind, {index: rows[index] for index in labels}, labels)
            if chosen is not None:
                column, divisor = chosen
                spec = SensorSpec.model_validate({"class": kind, "oid": oid_text((*entry, column)), "div": divisor})
                for index, label in labels.items():
                    if column in rows[index] and number(rows[index][column]) is not None:
                        _take(found, taken, spec, (*entry, column), index, label)
        for column, index, label in _states(rows):
            _take(found, taken, _STATES, (*entry, column), index, label)
        code = _code(rows)
        if code is not None:
            spec = SensorSpec.model_validate({"class": "code", "oid": oid_text((*entry, code))})
            for index, row in rows.items():
                words = [w for column in sorted(row) if (w := _words(row[column]))]
                if code in row and words:
                    _take(found, taken, spec, (*entry, code), index, words[0])
        if len(found) >= MOST_SENSORS:
            break
    for spec, name, index, label in _transceivers(objects):
        _take(found, taken, spec, name, index, label)
    return found[:MOST_SENSORS]


def _take(
    found: list[Instance], taken: set[tuple[str, ...]], spec: SensorSpec, column: Oid, index: Oid, label: str
) -> None:
    meaning = CLASSES[spec.kind]
    shown = label if (spec.kind, label) not in taken else f"{label} {oid_text(index)}"
    if (spec.kind, shown) in taken:
        shown = f"{label} #{oid_text(column[6:])}.{oid_text(index)}"
    taken.add((spec.kind, shown))
    codes = {str(code): state for state, values in spec.states.items() for code in values}
    reading = Reading("inferred", spec.kind, spec, {"value": column}, {}, (), (), None, codes)
    labels = {"hw.id": shown, "hw.type": meaning.type, "hw.inferred": "true"}
    found.append(Instance(reading, index, {"value": (*column, *index)}, {}, labels))


def _rows(objects: Mapping[Oid, Cell]) -> dict[Oid, dict[Oid, dict[int, Cell]]]:
    """Entry → index → column → cell, of the rows that hold words.

    A name can often be split in several ways: the shortest index with which there is a number beside the words is it.
    """
    columns: dict[Oid, set[int]] = {}
    for oid in objects:
        for length in range(1, LONGEST_INDEX + 1):
            if len(oid) - length - 2 >= 8 and oid[-length - 2] == 1:
                columns.setdefault(oid[: -length - 1], set()).add(oid[-length - 1])
    made: dict[Oid, dict[Oid, dict[int, Cell]]] = {}
    for oid, cell in objects.items():
        if _words(cell) is None:
            continue
        for length in range(1, LONGEST_INDEX + 1):
            if len(oid) - length - 2 < 8 or oid[-length - 2] != 1:
                continue
            entry, index = oid[: -length - 1], oid[-length:]
            row = {c: objects[name] for c in columns[entry] if (name := (*entry, c, *index)) in objects}
            if any(_reading(other) is not None or _said(other) in _KNOWN for other in row.values()):
                made.setdefault(entry, {})[index] = row
                break
    return made


def _transceivers(objects: Mapping[Oid, Cell]) -> list[tuple[SensorSpec, Oid, Oid, str]]:
    """Readings of five neighbouring columns that look like a transceiver's: specification, column, index, name."""
    tables: dict[tuple[Oid, int], dict[Oid, dict[int, float]]] = {}
    texts: dict[tuple[Oid, Oid], str] = {}
    for oid, cell in objects.items():
        value = _reading(cell)
        for length in (1, 2):
            if len(oid) - length - 2 < 8 or oid[-length - 2] != 1:
                continue
            entry, index = oid[: -length - 1], oid[-length:]
            if value is not None:
                tables.setdefault((entry, length), {}).setdefault(index, {})[oid[-length - 1]] = value
            elif (words := _words(cell)) is not None:
                texts.setdefault((entry, index), words)
    found = []
    for (entry, _), rows in tables.items():
        for first in sorted({column for row in rows.values() for column in row}):
            five = range(first, first + 5)
            whole = {index: [row[c] for c in five] for index, row in rows.items() if all(c in row for c in five)}
            divisors = _five(list(whole.values()))
            if divisors is None:
                continue
            names = ("", "", " bias", " transmit", " receive")
            kinds = ("temperature", "voltage", "current", "dbm", "dbm")
            for column, kind, divisor, name in zip(five, kinds, divisors, names, strict=True):
                named = oid_text((*entry, column))
                spec = SensorSpec.model_validate({"class": kind, "oid": named, "div": divisor})
                for index in whole:
                    label = texts.get((entry, index), f"transceiver {oid_text(index)}")
                    found.append((spec, (*entry, column), index, f"{label}{name}"))
            break
    return found


def _five(rows: Sequence[Sequence[float]]) -> tuple[float, float, float, float, float] | None:
    """The divisors of temperature, voltage, bias current and the two powers, where rows hold these in this order."""
    lit = [row for row in rows if row[1] != 0]
    if not lit or any(row[1] < 0 for row in lit):
        return None

    def scale(column: int, low: float, high: float, options: Sequence[float]) -> float | None:
        values = [row[column] for row in lit]
        for divisor in options:
            if sum(low <= value / divisor <= high for value in values) * 4 >= len(values) * 3:
                return divisor
        return None

    voltage = scale(1, 3.0, 3.6, (1, 10, 100, 1_000, 10_000, 1_000_000))
    temperature = scale(0, 8, 90, (1, 10, 100, 1_000, 256))
    # milliamperes first: what is plausible as such is no microampere
    current = scale(2, 0.0005, 0.15, (1_000, 10_000, 100_000, 1_000_000))
    powers = [row[column] for row in lit for column in (3, 4)]
    power = next((d for d in (1, 10, 100, 1_000) if all(-45 <= value / d <= 10 for value in powers)), None)
    if voltage is None or temperature is None or current is None or power is None or min(powers) >= 0:
        return None
    return temperature, voltage, current, power, power


def _words(cell: Cell) -> str | None:
    if cell[0] != OCTETS:
        return None
    shown = written(cell)
    if shown is None or len(shown) > LONGEST_WORDS or not re.search(r"[A-Za-z°%]", shown):
        return None
    return shown


def _kind(words: Sequence[str]) -> str | None:
    for word in words:
        for kind, pattern in _UNITS:
            if pattern.match(word):
                return kind
    for word in words:
        for kind, pattern in _WORDS:
            if pattern.search(word):
                return kind
    return None


def _column(kind: str, rows: Mapping[Oid, Mapping[int, Cell]], labels: Mapping[Oid, str]) -> tuple[int, float] | None:
    """The column that holds the reading, and what its values are divided by."""
    for column in sorted({column for row in rows.values() for column in row}):
        values = {
            index: value
            for index, row in rows.items()
            if column in row
            and (value := _reading(row[column])) is not None
            and abs(value) < 1e9
            # "+12V" names the sensor and is no reading of it
            and written(row[column]) != labels[index]
        }
        if len(values) * 2 < len(rows) or not values:
            continue
        if all(value == index[-1] for index, value in values.items()):
            continue
        if len(values) >= 4 and len(set(values.values())) == 1:
            continue
        divisor = _divisor(kind, values, labels)
        if divisor is not None:
            return column, divisor
    return None


def _said(cell: Cell) -> str:
    return (written(cell) or "").lower() if cell[0] == OCTETS else ""


def _reading(cell: Cell) -> float | None:
    """A number, unless the cell is words with a number in them."""
    if cell[0] == OCTETS and _words(cell) is not None and not re.match(r"^[+-]?[\d.]+\s?\S{0,4}$", written(cell) or ""):
        return None
    return number(cell)


def _divisor(kind: str, values: Mapping[Oid, float], labels: Mapping[Oid, str]) -> float | None:
    if kind == "voltage":
        nominal = {i: abs(float(m.group(1))) for i in values if (m := _NOMINAL.search(labels[i])) is not None}
        near = {i: v for i, v in nominal.items() if v > 0}
        for divisor in (1.0, 10.0, 100.0, 1_000.0):
            fits = [i for i, v in near.items() if 0.8 * v <= abs(values[i]) / divisor <= 1.2 * v]
            if near and len(fits) * 2 > len(near):
                return divisor
        if near:
            return None
    for low, high, divisor in _SCALES[kind]:
        # A fan that stands still or a socket without a load reads 0.
        telling = [value for value in values.values() if value != 0]
        fitting = [value for value in telling if low <= value <= high]
        if telling and len(fitting) * 4 >= len(telling) * 3:
            return divisor
    return None


def _code(rows: Mapping[Oid, Mapping[int, Cell]]) -> int | None:
    """The column that may hold the state of components: the first of small numbers after the words that name them."""
    named = [
        min((column for column, cell in row.items() if (w := _words(cell)) and _COMPONENT.search(w)), default=None)
        for row in rows.values()
    ]
    known = [column for column in named if column is not None]
    if len(known) * 2 <= len(rows):
        return None
    for column in sorted({column for row in rows.values() for column in row if column > min(known)}):
        cells = {index: row[column] for index, row in rows.items() if column in row}
        values = {index: cell[1] for index, cell in cells.items() if cell[0] == INTEGER and isinstance(cell[1], int)}
        if len(values) != len(cells) or not all(0 <= value <= LARGEST_CODE for value in values.values()):
            continue
        if len(values) > 1 and all(value == index[-1] for index, value in values.items()):
            continue
        return column
    return None


def _states(rows: Mapping[Oid, Mapping[int, Cell]]) -> list[tuple[int, Oid, str]]:
    """Cells that say a state in a word, with the row's other words as its name."""
    found = []
    for column in sorted({column for row in rows.values() for column in row}):
        said = {index: _said(row[column]) for index, row in rows.items() if column in row}
        if not any(said.values()) or not all(word in _KNOWN for word in said.values() if word):
            continue
        for index, word in said.items():
            names = [w for other in sorted(rows[index]) if other != column and (w := _words(rows[index][other]))]
            if word and names:
                found.append((column, index, names[0]))
    return found
