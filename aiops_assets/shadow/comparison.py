"""What would have paged, beside what did: episodes of the same rule and the same labels, set against each other.

What belongs here: counting. What does not: where either side comes from (``judging``, ``episodes``) and how it is shown
(``report``).

- A rule of Prometheus and its converted twin are compared by the alert's name and the labels that the rule itself
  gives; within them by the labels of the series. An absence is compared by the rule alone: its labels are the rule's.
- Two episodes are **both** one when they overlap, up to ``TOLERANCE`` apart. Ours reopen an alert that starts again
  within ten minutes, so one of ours may stand beside several of theirs.
- **Lead** is how much earlier ours paged than theirs, per episode of theirs. What fired at the first instant of the
  history has no known beginning and no lead.
- The **warm-up** of a rule is its ``for`` and window: what ended before it had passed could not be seen by ours, and is
  counted apart.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from statistics import median
from typing import Any
from zoneinfo import ZoneInfo

import orjson
import polars as pl

from aiops_assets.hours import MICROS_PER_SECOND
from aiops_assets.shadow.conversion import Conversion, Converted
from aiops_assets.shadow.rule_files import AlertRule

#: seconds that two episodes may lie apart and still be about the same event
TOLERANCE = 300
_NO_END = 1 << 62


@dataclass(frozen=True, slots=True)
class Episode:
    """Something paged: instants in microseconds since the epoch (UTC); ``end`` is ``None`` while it fired."""

    start: int
    end: int | None
    name: str
    labels: str
    title: str = ""


@dataclass(slots=True)
class RuleComparison:
    """One alert rule of Prometheus beside its twin."""

    alert: str
    rules: list[str]
    exactness: str
    place: str
    static_labels: dict[str, str]
    watched: int = 0
    theirs: list[Episode] = field(default_factory=list)
    ours: list[Episode] = field(default_factory=list)
    #: episodes of theirs that ours saw too; of ours that theirs saw too
    both: int = 0
    both_of_ours: int = 0
    only_ours: list[Episode] = field(default_factory=list)
    only_theirs: list[Episode] = field(default_factory=list)
    warm_up: int = 0
    leads: list[float] = field(default_factory=list)

    @property
    def lead_seconds(self) -> float | None:
        """Median lead of ours, seconds; negative when ours paged later."""
        return median(self.leads) if self.leads else None


@dataclass(slots=True)
class Load:
    """Pages of one shift over all days: of theirs, of ours."""

    shift: str
    days: int
    theirs: int = 0
    ours: int = 0
    most_theirs: int = 0
    most_ours: int = 0


@dataclass(slots=True)
class Comparison:
    """The whole comparison of [``start``, ``end``), microseconds since the epoch."""

    start: int
    end: int
    zone: str
    rules: list[RuleComparison]
    #: alerts of Prometheus that no converted rule stands for: name → episodes
    without_twin: dict[str, list[Episode]]
    shifts: list[Load]
    #: pages by local day and shift: day (ISO), shift, theirs, ours
    by_day: list[tuple[str, str, int, int]]
    statistics: list[Episode] = field(default_factory=list)
    #: of the statistics' findings, how many stand beside an alert of theirs on the same host
    statistics_beside: int = 0
    #: episodes of theirs near which the statistics found something on the same host, of all that name one
    theirs_seen_by_statistics: int = 0
    theirs_with_host: int = 0


def compare(
    conversion: Conversion,
    pages: pl.DataFrame,
    episodes: pl.DataFrame,
    *,
    start: int,
    end: int,
    shifts: Sequence[tuple[int, int]],
    zone: str,
    watched: Mapping[str, int],
    host_of: Any,
) -> Comparison:
    """Compare.

    Args:
        pages: ours, ``judging.PAGES_SCHEMA``.
        episodes: theirs, ``episodes.EPISODES_SCHEMA``.
        start, end: the history, seconds.
        shifts: local hours (from, to), which cover a day.
        zone: an IANA time zone.
        watched: by rule of ours, how many series it matched.
        host_of: the host of a set of labels, for the statistics.
    """
    start_micros, end_micros = start * MICROS_PER_SECOND, end * MICROS_PER_SECOND
    signatures = _Signatures(conversion)
    theirs: dict[int, list[Episode]] = defaultdict(list)
    without_twin: dict[str, list[Episode]] = defaultdict(list)
    for row in episodes.iter_rows(named=True):
        labels = orjson.loads(row["labels"])
        place = signatures.find(row["alert"], labels)
        own = Episode(row["starts_at"], row["ends_at"], row["alert"], row["labels"])
        if place is None:
            without_twin[row["alert"]].append(own)
        else:
            theirs[place].append(own)
    ours: dict[str, list[Episode]] = defaultdict(list)
    statistics: list[Episode] = []
    for row in pages.iter_rows(named=True):
        labels = row["labels"]
        made = Episode(row["paged_at"], row["ends_at"], row["name"], labels, row["title"])
        if row["kind"] == "anomaly":
            statistics.append(Episode(made.start, made.end, row["host"], labels, row["title"]))
        else:
            ours[row["name"]].append(made)
    compared = []
    for place, twins in enumerate(signatures.groups):
        entry = _entry(twins, watched)
        _fill(entry, twins, theirs[place], [page for twin in twins for page in ours[twin.rule.name]], start_micros)
        compared.append(entry)
    all_theirs = [episode for found in (*theirs.values(), *without_twin.values()) for episode in found]
    all_ours = [episode for found in ours.values() for episode in found]
    by_day = _by_day(all_theirs, all_ours, start_micros, end_micros, shifts, zone)
    result = Comparison(
        start_micros, end_micros, zone, compared, dict(sorted(without_twin.items())), _loads(by_day, shifts), by_day
    )
    _beside_statistics(result, statistics, all_theirs, host_of)
    return result


class _Signatures:
    """Converted rules by what Prometheus' alerts show of their rule: name and static labels."""

    def __init__(self, conversion: Conversion) -> None:
        groups: dict[tuple[str, frozenset[tuple[str, str]]], list[Converted]] = {}
        for entry in conversion.converted:
            groups.setdefault(_signature(entry.source), []).append(entry)
        self.groups = list(groups.values())
        places = {signature: place for place, signature in enumerate(groups)}
        everything = [*(entry.source for entry in conversion.converted)]
        everything += [entry.source for entry in conversion.unconverted]
        self._by_name: dict[str, list[tuple[frozenset[tuple[str, str]], int | None]]] = defaultdict(list)
        for signature in dict.fromkeys(_signature(source) for source in everything):
            self._by_name[signature[0]].append((signature[1], places.get(signature)))
        for found in self._by_name.values():
            found.sort(key=lambda pair: len(pair[0]), reverse=True)

    def find(self, alert: str, labels: Mapping[str, str]) -> int | None:
        """The group of converted rules that an alert belongs to: the one with most labels in common."""
        present = frozenset(labels.items())
        return next((place for static, place in self._by_name[alert] if static <= present), None)


def _signature(source: AlertRule) -> tuple[str, frozenset[tuple[str, str]]]:
    return source.alert, frozenset((name, value) for name, value in source.labels.items() if "{{" not in value)


def _entry(twins: Sequence[Converted], watched: Mapping[str, int]) -> RuleComparison:
    exactness = "exact" if all(twin.exactness == "exact" for twin in twins) else "close"
    return RuleComparison(
        twins[0].source.alert,
        [twin.rule.name for twin in twins],
        exactness,
        ", ".join(dict.fromkeys(twin.source.place for twin in twins)),
        twins[0].static_labels,
        sum(watched.get(twin.rule.name, 0) for twin in twins),
    )


def _fill(
    entry: RuleComparison, twins: Sequence[Converted], theirs: list[Episode], ours: list[Episode], start: int
) -> None:
    absence = any(twin.rule.kind == "absence" for twin in twins)
    given = {name for twin in twins for name in twin.source.labels}
    warm_up = max((twin.rule.hold + _window(twin) for twin in twins), default=0.0)
    warm_until = start + round(warm_up * MICROS_PER_SECOND)
    entry.theirs, entry.ours = theirs, ours
    by_key: dict[str, list[Episode]] = defaultdict(list)
    for episode in ours:
        by_key[_key(episode.labels, given, absence)].append(episode)
    seen: set[int] = set()
    for episode in theirs:
        near = [other for other in by_key[_key(episode.labels, given, absence)] if _overlap(episode, other)]
        seen.update(id(other) for other in near)
        if near:
            entry.both += 1
            first = min(near, key=lambda other: other.start)
            if episode.start > start and first.start > start:
                entry.leads.append((episode.start - first.start) / MICROS_PER_SECOND)
        elif episode.end is not None and episode.end <= warm_until:
            entry.warm_up += 1
        else:
            entry.only_theirs.append(episode)
    entry.only_ours = [episode for episode in ours if id(episode) not in seen]
    entry.both_of_ours = len(ours) - len(entry.only_ours)


def _window(twin: Converted) -> float:
    return twin.rule.window if twin.rule.kind in {"rate", "fill_up"} else 0.0


def _key(labels: str, given: Iterable[str], absence: bool) -> str:
    if absence:
        return ""
    values = orjson.loads(labels)
    for name in given:
        values.pop(name, None)
    return orjson.dumps(values, option=orjson.OPT_SORT_KEYS).decode()


def _overlap(one: Episode, other: Episode) -> bool:
    slack = TOLERANCE * MICROS_PER_SECOND
    one_end = _NO_END if one.end is None else one.end
    other_end = _NO_END if other.end is None else other.end
    return one.start <= other_end + slack and other.start <= one_end + slack


def _by_day(
    theirs: Iterable[Episode],
    ours: Iterable[Episode],
    start: int,
    end: int,
    shifts: Sequence[tuple[int, int]],
    zone: str,
) -> list[tuple[str, str, int, int]]:
    """Pages by local day and shift, also where there are none. A shift over midnight belongs to the day it begins."""
    counts: dict[tuple[date, int], list[int]] = {}
    local = ZoneInfo(zone)
    first, last = (_local(at, local).date() for at in (start, end - 1))
    for number in range((last - first).days + 1):
        for place in range(len(shifts)):
            counts[first + timedelta(days=number), place] = [0, 0]
    for which, side in enumerate((theirs, ours)):
        for episode in side:
            counts.setdefault(_shift_of(_local(episode.start, local), shifts), [0, 0])[which] += 1
    return [
        (day.isoformat(), shift_name(shifts[place]), *pair)  # type: ignore[misc]
        for (day, place), pair in sorted(counts.items())
    ]


def _local(at: int, zone: ZoneInfo) -> datetime:
    return datetime.fromtimestamp(at / MICROS_PER_SECOND, UTC).astimezone(zone)


def _shift_of(moment: datetime, shifts: Sequence[tuple[int, int]]) -> tuple[date, int]:
    for place, (first, last) in enumerate(shifts):
        if first < last and first <= moment.hour < last:
            return moment.date(), place
        if first >= last and (moment.hour >= first or moment.hour < last):
            day = moment.date() if moment.hour >= first else moment.date() - timedelta(days=1)
            return day, place
    raise ValueError(f"no shift holds {moment.hour} o'clock")


def shift_name(shift: tuple[int, int]) -> str:
    """``08–16``."""
    return f"{shift[0]:02d}–{shift[1]:02d}"


def parse_shifts(text: str) -> list[tuple[int, int]]:
    """``08-16,16-24,00-08`` or, shorter, the hours at which shifts change: ``08-16-24``, ``06-22``.

    Raises:
        ValueError: they do not cover each hour of a day once.
    """
    wrong = ValueError(
        f"{text!r}: expected hours that cover a day once, such as 08-16,16-24,00-08 or 08-16-24 or 06-22"
    )
    try:
        if "," in text:
            pairs = [tuple(int(hour) for hour in part.split("-")) for part in text.split(",")]
            found = [(pair[0], pair[1]) for pair in pairs if len(pair) == 2]
            if len(found) != len(pairs):
                raise wrong
        else:
            hours = [int(hour) for hour in text.split("-")]
            if any(not 0 <= hour <= 24 for hour in hours):
                raise wrong
            changes = list(dict.fromkeys(hour % 24 for hour in hours))
            found = [(first, last or 24) for first, last in zip(changes, [*changes[1:], changes[0]], strict=True)]
    except ValueError as error:
        raise wrong from error
    if sorted(hour for first, last in found for hour in _hours(first, last)) != list(range(24)):
        raise wrong
    return found


def _hours(first: int, last: int) -> list[int]:
    if not (0 <= first < 24 and 0 < last <= 24):
        return []
    return list(range(first, last)) if first < last else [*range(first, 24), *range(last)]


def _loads(by_day: Sequence[tuple[str, str, int, int]], shifts: Sequence[tuple[int, int]]) -> list[Load]:
    days = len({day for day, *_ in by_day})
    loads = {shift_name(shift): Load(shift_name(shift), days) for shift in shifts}
    for _, shift, theirs, ours in by_day:
        load = loads[shift]
        load.theirs, load.ours = load.theirs + theirs, load.ours + ours
        load.most_theirs, load.most_ours = max(load.most_theirs, theirs), max(load.most_ours, ours)
    return list(loads.values())


def _beside_statistics(result: Comparison, statistics: list[Episode], theirs: Sequence[Episode], host_of: Any) -> None:
    """Count where the statistics (``name`` is the host) and Prometheus' alerts spoke of the same host and time."""
    result.statistics = statistics
    by_host: dict[str, list[Episode]] = defaultdict(list)
    for episode in statistics:
        by_host[episode.name].append(episode)
    beside: set[int] = set()
    for episode in theirs:
        host = host_of(orjson.loads(episode.labels))
        if host is None:
            continue
        result.theirs_with_host += 1
        near = [other for other in by_host[host] if _overlap(episode, other)]
        result.theirs_seen_by_statistics += bool(near)
        beside.update(id(other) for other in near)
    result.statistics_beside = len(beside)
