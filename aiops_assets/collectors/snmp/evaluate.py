"""Scoring the profiles against LibreNMS: of what it finds on recorded devices, how much a poll of ours finds.

What belongs here: the reading of LibreNMS's results and the rules of what counts as found. What does not: polling; the
poller, its walks and profiles are those of live devices, on a session that answers from the recording.

A device is a pair ``<name>.snmprec`` and ``<name>.json`` (LibreNMS's own test data: module → ``discovery`` and
``poller`` → table → rows); files without their other half are counted and left out. Every device is polled once through
``SnmpPoller``, as at its first contact, and everything that LibreNMS has and has not marked as deleted counts. (It is
polled a second time only to count the requests of later polls.)

ports       found when a point of ours (``system.network.*``) was made of objects of that ifIndex, the state we report
            agrees with its ifOperStatus, and no octet counter that both have differs (modulo 2^32).
processors  found when a ``system.cpu.utilization`` of ours was read from its ``processor_oid``, or else any other one
            not yet counted, has its value within one percentage point.
mempools    found when a ``system.memory.*`` point was read from its objects (or, where it names none, not yet counted)
            and the share in use is within one percentage point, or the bytes in use within 1%.
sensors     (module ``sensors``, not ``wireless``) found when a point was read from its ``sensor_oid``, is of the same
            class (see ``SAME``) and has the same value within scaling: equal to 1% after conversion to the class's
            unit, or off by a power of ten alone (then counted under ``scaled``, too). A state's value is its code, or
            the word that LibreNMS's ``state_indexes`` gives the number for. States of which only the code is known,
            not its meaning (``hw.state.code``), count, and are counted under ``codes``, too.
            A sensor that LibreNMS itself has no value for is found when its object was read in its class.

A point of ours counts for one item only. Where LibreNMS's poll corrected the value of its discovery, either is right.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from aiops_assets.collectors.snmp.engine import Oid, parse_oid
from aiops_assets.collectors.snmp.poll import SnmpPoller, Source
from aiops_assets.collectors.snmp.profile import Profile, numeric
from aiops_assets.collectors.snmp.recording import RecordedEngine, read
from aiops_assets.collectors.snmp.sensors import CLASSES, written
from aiops_assets.config import Device

KINDS = ("ports", "processors", "mempools", "sensors")
#: classes of ours that are LibreNMS's class, ours in LibreNMS's unit when multiplied with the number
SAME: Mapping[str, Mapping[str, float]] = {
    "temperature": {"temperature": 1},
    "voltage": {"voltage": 1},
    "current": {"current": 1},
    "power": {"power": 1, "apparent_power": 1},
    "power_factor": {"power_factor": 1},
    "power_consumed": {"energy": 1},
    "fanspeed": {"fanspeed": 1, "fan_ratio": 1},
    "humidity": {"humidity": 1, "percent": 1},
    "percent": {"percent": 1, "load": 1, "charge": 1, "fan_ratio": 1, "humidity": 1},
    "load": {"load": 1, "percent": 1},
    "charge": {"charge": 1, "percent": 1},
    "runtime": {"runtime": 1},
    "frequency": {"frequency": 1},
    "dbm": {"dbm": 1, "signal": 1},
    "signal": {"signal": 1, "dbm": 1},
    "snr": {"snr": 1, "level": 1},
    "tv_signal": {"level": 1, "signal": 1, "dbm": 1},
    "bitrate": {"bitrate": 1},
    "count": {"count": 1},
    "pressure": {"pressure": 1},
    "airflow": {"airflow": 1},
    "cooling": {"cooling": 1},
    "delay": {"delay": 1},
    "waterflow": {"waterflow": 1},
    "quality_factor": {"quality": 1},
    "loss": {"loss": 1, "level": 1},
    "chromatic_dispersion": {"dispersion": 1},
    "state": {"state": 1, "code": 1},
}
_BY_METRIC = {(meaning.metric): kind for kind, meaning in CLASSES.items()}
_UP = {"up": 1, "down": 2, "testing": 3, "unknown": 4, "dormant": 5, "notPresent": 6, "lowerLayerDown": 7}
_IF_INDEXED: tuple[Oid, ...] = ((1, 3, 6, 1, 2, 1, 2, 2, 1), (1, 3, 6, 1, 2, 1, 31, 1, 1, 1))
_COUNTERS = {
    (1, 3, 6, 1, 2, 1, 2, 2, 1, 10): "ifInOctets",
    (1, 3, 6, 1, 2, 1, 31, 1, 1, 1, 6): "ifInOctets",
    (1, 3, 6, 1, 2, 1, 2, 2, 1, 16): "ifOutOctets",
    (1, 3, 6, 1, 2, 1, 31, 1, 1, 1, 10): "ifOutOctets",
}
_OPER_STATUS: Oid = (1, 3, 6, 1, 2, 1, 2, 2, 1, 8)


@dataclass(slots=True)
class Score:
    """One device: per kind how many LibreNMS has and how many of them we find, and what is missing, in words."""

    name: str
    there: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    scaled: int = 0
    codes: int = 0
    requests: int = 0
    requests_later: int = 0
    points: int = 0
    missing: list[str] = field(default_factory=list)
    error: str | None = None
    by_class: dict[str, list[int]] = field(default_factory=dict)


def pairs(recordings: Path, results: Path) -> tuple[list[tuple[str, Path, Path]], int]:
    """Name, recording and result of every device, and how many files have no other half.

    Raises:
        FileNotFoundError: when a folder is missing or there is no pair in them.
    """
    for folder in (recordings, results):
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder} is no folder; give --recordings and --results")
    recorded = {path.name.removesuffix(".snmprec"): path for path in recordings.glob("*.snmprec")}
    known = {path.stem: path for path in results.glob("*.json")}
    names = sorted(recorded.keys() & known.keys())
    if not names:
        raise FileNotFoundError(
            f"{recordings} and {results} hold no pair NAME.snmprec and NAME.json; NAME must be the same in both"
        )
    return [(name, recorded[name], known[name]) for name in names], len(recorded) + len(known) - 2 * len(names)


def evaluate_snmp(
    recordings: Path,
    results: Path,
    profiles: Sequence[Profile] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Poll every recording and count what is found.

    Returns ``share`` (kind → 0 to 1, ``None`` where LibreNMS has none), ``counts`` (kind → there, found), ``classes``
    (sensor class → there, found), ``devices`` (name → counts, requests of the first and of later polls, error) and
    ``missing`` (device → lines).

    Raises:
        FileNotFoundError: see ``pairs``.
    """
    devices, alone = pairs(recordings, results)
    scores = []
    for number, (name, recording, result) in enumerate(devices, 1):
        scores.append(evaluate_one(name, recording, result, profiles))
        progress(number, len(devices))
    there: Counter[str] = Counter()
    found: Counter[str] = Counter()
    classes: dict[str, list[int]] = {}
    for score in scores:
        there.update(score.there)
        found.update(score.found)
        for kind, (known, ours) in score.by_class.items():
            entry = classes.setdefault(kind, [0, 0])
            entry[0] += known
            entry[1] += ours
    return {
        "share": {kind: found[kind] / there[kind] if there[kind] else None for kind in KINDS},
        "counts": {kind: {"there": there[kind], "found": found[kind]} for kind in KINDS},
        "scaled": sum(score.scaled for score in scores),
        "codes": sum(score.codes for score in scores),
        "classes": {kind: {"there": t, "found": f} for kind, (t, f) in sorted(classes.items())},
        "recordings": len(devices),
        "unpaired": alone,
        "devices": {
            score.name: {
                "there": {kind: score.there[kind] for kind in KINDS},
                "found": {kind: score.found[kind] for kind in KINDS},
                "points": score.points,
                "requests_first": score.requests,
                "requests_later": score.requests_later,
                "error": score.error,
            }
            for score in scores
        },
        "missing": {score.name: score.missing for score in scores if score.missing},
    }


def evaluate_one(name: str, recording: Path, result: Path, profiles: Sequence[Profile] | None = None) -> Score:
    """Poll one recording and compare. A result that cannot be read is an error of that device, not of the run."""
    score = Score(name)
    try:
        expected = orjson.loads(result.read_bytes())
        objects = read(recording)
    except (OSError, orjson.JSONDecodeError) as error:
        score.error = str(error)
        return score
    if not isinstance(expected, dict):
        score.error = f"{result.name} is no JSON object"
        return score
    engine = RecordedEngine(objects)
    poller = SnmpPoller(Device(name=name, address="192.0.2.1", deadline=600), engine, profiles)
    sources: list[Source] = []
    poller.sources = sources
    outcome = asyncio.run(poller.poll())
    score.error, score.points = outcome.error, len(outcome.points)
    score.requests = engine.recorded.requests
    poller.sources = None
    asyncio.run(poller.poll())
    score.requests_later = engine.recorded.requests - score.requests
    _ports(score, _rows(expected, "ports", "ports"), sources)
    _processors(score, _rows(expected, "processors", "processors"), sources)
    _pools(score, _rows(expected, "mempools", "mempools"), sources)
    _sensors(score, _rows(expected, "sensors", "sensors"), sources, _states(expected))
    return score


def _rows(expected: Mapping[str, Any], module: str, table: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Rows of discovery, each with its row of the poll (or itself)."""

    def phase(name: str) -> list[dict[str, Any]]:
        part = expected.get(module)
        part = part.get(name) if isinstance(part, dict) else None
        rows = part.get(table) if isinstance(part, dict) else None
        return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []

    def key(row: Mapping[str, Any]) -> tuple[Any, ...]:
        names = ("ifIndex", "processor_oid", "processor_index", "processor_type", "mempool_index", "mempool_type")
        more = ("mempool_class", "sensor_class", "sensor_oid", "sensor_index", "sensor_type", "mempool_descr")
        return tuple(row.get(name) for name in (*names, *more))

    polled = {key(row): row for row in phase("poller")}
    discovered = phase("discovery") or list(polled.values())
    return [
        (row, polled.get(key(row), row))
        for row in discovered
        if not any(row.get(flag) in {1, "1"} for flag in ("deleted", "mempool_deleted", "sensor_deleted"))
    ]


def _count(score: Score, kind: str, found: bool, what: object) -> None:
    score.there[kind] += 1
    score.found[kind] += found
    if not found:
        score.missing.append(f"{kind}: {what}")


def _oid(value: object) -> Oid | None:
    try:
        return parse_oid(str(value)) if value else None
    except ValueError:
        return None


def _number(value: object) -> float | None:
    try:
        found = float(str(value))
    except ValueError:
        return None
    return found if math.isfinite(found) else None


def _ports(score: Score, rows: Sequence[tuple[dict[str, Any], dict[str, Any]]], sources: Sequence[Source]) -> None:
    cells: dict[int, dict[Oid, Any]] = {}
    for source in sources:
        if source.point["metric"].startswith("system.network."):
            for oid, cell in zip(source.objects, source.cells, strict=True):
                for table in _IF_INDEXED:
                    if oid[: len(table)] == table:
                        cells.setdefault(oid[len(table) + 1], {})[oid[: len(table) + 1]] = numeric(cell)
    for discovered, polled in rows:
        index = _number(discovered.get("ifIndex"))
        ours = cells.get(int(index)) if index is not None else None
        found = ours is not None
        if ours is not None:
            state = _UP.get(str(polled.get("ifOperStatus")))
            read_state = ours.get(_OPER_STATUS)
            found = state is None or read_state is None or read_state == state
            for column, name in _COUNTERS.items():
                theirs, mine = _number(polled.get(name)), ours.get(column)
                if theirs and mine is not None and int(theirs) % 2**32 != mine % 2**32:
                    # A 64-bit and a 32-bit counter of one interface need not agree in a recording.
                    found = found and any(
                        ours.get(other) is not None and int(theirs) % 2**32 == ours[other] % 2**32
                        for other, same in _COUNTERS.items()
                        if same == name
                    )
        _count(score, "ports", found, f"ifIndex {discovered.get('ifIndex')} {discovered.get('ifName')}")


def _processors(score: Score, rows: Sequence[tuple[dict[str, Any], dict[str, Any]]], sources: Sequence[Source]) -> None:
    ours = [source for source in sources if source.point["metric"] == "system.cpu.utilization"]
    used: set[int] = set()

    def near(source: Source, wanted: Sequence[float]) -> bool:
        value = source.point["value"] * 100
        return any(abs(value - theirs) <= 1.0 for theirs in wanted)

    left = []
    for discovered, polled in rows:
        oid = _oid(discovered.get("processor_oid"))
        wanted = [x for row in (discovered, polled) if (x := _number(row.get("processor_usage"))) is not None]
        match = next((i for i, s in enumerate(ours) if i not in used and oid in s.objects and near(s, wanted)), None)
        if match is None:
            left.append((discovered, wanted))
        else:
            used.add(match)
            _count(score, "processors", True, "")
    for discovered, wanted in left:
        match = next((i for i, s in enumerate(ours) if i not in used and near(s, wanted)), None)
        if match is not None:
            used.add(match)
        what = f"{discovered.get('processor_oid')} {discovered.get('processor_type')} = {wanted}"
        _count(score, "processors", match is not None, what)


def _pools(score: Score, rows: Sequence[tuple[dict[str, Any], dict[str, Any]]], sources: Sequence[Source]) -> None:
    ours = [source for source in sources if source.point["metric"].startswith(("system.memory.", "system.paging."))]
    #: objects that LibreNMS names for a pool that is found: no other pool is found through them
    claimed: set[Oid] = set()
    used: set[tuple[Oid, ...]] = set()

    def near(source: Source, discovered: Mapping[str, Any], polled: Mapping[str, Any]) -> bool:
        value, ratio = source.point["value"], source.point["kind"] == "ratio"
        for row in (discovered, polled):
            percent, size = _number(row.get("mempool_perc")), _number(row.get("mempool_used"))
            if ratio and percent is not None and abs(value * 100 - percent) <= 1.0:
                return True
            total = _number(row.get("mempool_total"))
            if source.point["metric"].endswith(".usage") and size and math.isclose(value, size, rel_tol=0.01):
                return True
            if ratio and size is not None and total and abs(value - size / total) <= 0.01:
                return True
        return False

    left = []
    for discovered, polled in rows:
        names = {
            named
            for field_name in ("mempool_used_oid", "mempool_free_oid", "mempool_total_oid", "mempool_perc_oid")
            if (named := _oid(discovered.get(field_name))) is not None
        }
        matches = (s for s in ours if names & set(s.objects) and s.objects not in used and near(s, discovered, polled))
        match = None if names & claimed else next(matches, None)
        if match is None:
            left.append((discovered, polled))
        else:
            used.add(match.objects)
            claimed |= names
            _count(score, "mempools", True, "")
    for discovered, polled in left:
        free = (s for s in ours if s.objects not in used and not claimed & set(s.objects))
        match = next((s for s in free if near(s, discovered, polled)), None)
        if match is not None:
            used.add(match.objects)
        names_shown = [v for k, v in discovered.items() if k.endswith("_oid") and v]
        what = f"{discovered.get('mempool_type')} {discovered.get('mempool_descr')} {names_shown}"
        _count(score, "mempools", match is not None, f"{what} {discovered.get('mempool_perc')}%")


def _class_of(source: Source) -> str | None:
    return source.kind if source.kind in CLASSES else _BY_METRIC.get(source.point["metric"])


def _value_of(source: Source, kind: str) -> float | None:
    if source.value is not None or kind == "state":
        return source.value
    value = source.point["value"]
    return None if math.isnan(value) else value / CLASSES[kind].factor


def _states(expected: Mapping[str, Any]) -> dict[tuple[str, float], str]:
    """State name and value → its word, for agents that answer with words where LibreNMS keeps numbers."""
    found = {}
    for row, _ in _rows(expected, "sensors", "state_indexes"):
        value = _number(row.get("state_value"))
        if value is not None:
            found[str(row.get("state_name")), value] = str(row.get("state_descr")).strip().lower()
    return found


def _sensors(
    score: Score,
    rows: Sequence[tuple[dict[str, Any], dict[str, Any]]],
    sources: Sequence[Source],
    states: Mapping[tuple[str, float], str],
) -> None:
    by_object: dict[Oid, list[Source]] = {}
    for source in sources:
        if _class_of(source) is not None:
            for oid in source.objects:
                by_object.setdefault(oid, []).append(source)
    taken: set[tuple[Oid, str, str]] = set()
    for discovered, polled in rows:
        if discovered.get("poller_type", "snmp") != "snmp":
            continue
        theirs = str(discovered.get("sensor_class"))
        named = _oid(discovered.get("sensor_oid"))
        wanted = [x for row in (discovered, polled) if (x := _number(row.get("sensor_current"))) is not None]
        found = scaled = False
        what = ""
        candidates = by_object.get(named, []) if named is not None else []
        for source in candidates:
            kind = _class_of(source)
            factor = SAME.get(theirs, {}).get(kind or "")
            key = (named or (), theirs, str(discovered.get("sensor_index")))
            if kind is None or factor is None or key in taken:
                what = f" (ours: {kind})"
                continue
            value = _value_of(source, kind)
            what = f" (ours: {kind} {value})"
            equal = _equal(value, [x / factor for x in wanted]) if wanted else 1
            if not equal and kind == "state" and value is None and source.cells:
                word = (written(source.cells[0]) or "").lower()
                names = (str(discovered.get("state_name")), str(discovered.get("sensor_type")))
                equal = int(any(word == states.get((name, x)) for name in names for x in wanted))
            if equal:
                taken.add(key)
                found, scaled = True, equal == 2
                score.codes += kind == "code"
                break
        entry = score.by_class.setdefault(theirs, [0, 0])
        entry[0] += 1
        entry[1] += found
        score.scaled += scaled
        _count(
            score,
            "sensors",
            found,
            f"{theirs} {discovered.get('sensor_oid')} {discovered.get('sensor_descr')} = {wanted}{what}",
        )


def _equal(value: float | None, wanted: Sequence[float]) -> int:
    """1 when equal to 1% (or half a unit of LibreNMS's rounding), 2 when off by a power of ten, else 0."""
    if value is None:
        return 0
    for theirs in wanted:
        if math.isclose(value, theirs, rel_tol=0.01, abs_tol=0.01) or round(value) == theirs:
            return 1
    for theirs in wanted:
        if value * theirs > 0:
            power = math.log10(value / theirs)
            if abs(power - round(power)) < 0.004 and abs(power) < 7:
                return 2
    return 0


def family(name: str) -> str:
    """The operating system that a recording is of: its name up to the first underscore, as LibreNMS names them."""
    return re.split(r"_", name, maxsplit=1)[0]
