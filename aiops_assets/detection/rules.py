"""Absolute rules: what the ``rules`` of ``aiops.yaml`` mean, point by point and for all series at once.

What belongs here: the engine that turns points into transitions. What does not: which alerts follow (``alerts``) and
which patterns a rule is written in (``matching``). Nothing here reads a clock; how a stream is cut into batches, and
handing the state over in between, changes no result.

==============  ========================================================================================================
kind            bad when
==============  ========================================================================================================
``threshold``   the value is beyond ``value`` in the direction of ``op``
``rate``        the change per second is beyond ``value``: this value against that of ``window`` ago (the youngest kept
                sample at least that old, at most twice as old or ``GAP``). A counter that falls was reset: no verdict
                until ``window`` has passed again.
``fill_up``     a straight line through the last ``window`` (least squares, ``SAMPLES_PER_WINDOW`` samples kept of it)
                reaches the level ``value`` within ``horizon``. ``op`` says from which side (">=" rising, "<=" falling
                towards it). The line must mean something: ``FIT_POINTS`` samples over ``FIT_COVERAGE`` of the window,
                and it explains ``FIT_R2`` of their variance, so that a jump or noise is no trend.
``absence``     no matching series of a host has reported for longer than ``for``: one verdict per host, and per series
                where the rule matches one series a host. See below.
==============  ========================================================================================================

For the first three, each series by itself:

- ``for``: it fires at the point at which it has been bad at every point for that long; it starts at the first of them.
  Two bad points do not vouch for the time between when they lie further apart than ``GAP`` (or ``for``, if longer)
  and than twice the distance before: the machine slept. A series that always comes so seldom is judged all the same.
- ``clear``: once firing, it ends at a point at or beyond ``clear`` on the quiet side; without it, at the first point
  that is not bad. A ``fill_up`` ends when the line no longer reaches the level within 1.5 times ``horizon`` or explains
  less than half the variance, and not while the level is reached: then it is full.
- A firing series that sends nothing for ``STALE`` of event time is closed at that instant: nobody can tell any more.

``absence`` is judged by event time alone: by the gaps between points and by the watermark handed in. It starts at the
last point, fires ``for`` later and ends with the next point, or after ``RETIRED`` (or twice ``for``, if longer): the
host is taken as gone for good. Time in which no series at all reported (the platform was off) counts for at most half
of ``for``, else every host would be called silent after a restart. Where the time of receipt is known, only hosts whose
last point was live when it came (at most ``LIVE`` old) are watched: imported history does not fall silent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from aiops_assets.config import SEVERITY_NUMBER, Rule
from aiops_assets.detection.matching import matching_series
from aiops_assets.detection.steps import Step
from aiops_assets.detection.transitions import FIRING, RESOLVED, Transition
from aiops_assets.detection.wording import OP_SYMBOL, duration, quantity, when
from aiops_assets.hours import MICROS_PER_HOUR, MICROS_PER_SECOND, instant

Int = NDArray[np.int64]
Float = NDArray[np.float64]
Bool = NDArray[np.bool_]
Slots = NDArray[np.int32]
State = dict[str, NDArray[Any]]
#: digest of a rule, or "coverage" → its arrays; ``series_id`` names the series of their last axis
Portable = dict[str, State]

#: two bad points further apart do not count as one bad stretch, unless the series always comes so seldom
GAP = 900 * MICROS_PER_SECOND
#: a firing series is closed when it has sent nothing for this long
STALE = 24 * MICROS_PER_HOUR
#: an absent host is taken as gone for good after this long
RETIRED = 7 * 24 * MICROS_PER_HOUR
#: a point older than this when it is received is history
LIVE = MICROS_PER_HOUR
#: samples kept a series for rate and fill_up: 20 a window and some room at the ends; a power of two
SAMPLES = 32
SAMPLES_PER_WINDOW = 20
FIT_POINTS = 6
FIT_COVERAGE = 0.6
FIT_R2 = 0.85
FIT_R2_WHILE_FIRING = 0.5
#: event time without any point is noticed in whole cells of this length
CELL = 30 * MICROS_PER_SECOND
#: silences of all telemetry that are remembered
HOLES = 512

_RING = SAMPLES - 1
_NEVER = np.iinfo(np.int64).min // 2
_FAR = np.iinfo(np.int64).max // 4
_OPERATORS: dict[str, Callable[..., Any]] = {">": np.greater, ">=": np.greater_equal, "<": np.less, "<=": np.less_equal}


class RuleEngine:
    """All rules over all series.

    ``grow`` announces series, ``process`` takes points, ``absences`` takes the watermark. Points of a series come in
    strictly increasing ``ts``. Transitions are in order of ``at``. What ``replace`` ends (a rule is gone or reads
    differently now) is reported by the next ``process`` or ``absences``.
    """

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._series = _SeriesFacts()
        self._coverage = _Coverage()
        self._rules: list[_SeriesRule | _AbsenceRule] = [self._judge(rule) for rule in rules]
        self._ended: list[Transition] = []

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules in force."""
        return tuple(judge.rule for judge in self._rules)

    def matched(self) -> dict[str, int]:
        """How many series each rule watches."""
        return {judge.rule.name: len(judge) for judge in self._rules}

    def grow(self, new: pl.DataFrame) -> None:
        """Take new series: rows of the directory whose numbers follow on."""
        if not len(new):
            return
        self._series.grow(new)
        for judge in self._rules:
            judge.grow(new)

    def process(self, steps: Iterable[Step], received_at: Int | None = None) -> list[Transition]:
        """Judge new points.

        Args:
            steps: the points.
            received_at: int64 microseconds since the epoch by batch row (``Step.row``): when the points were received.
                It only concerns absence; without it every point counts as live.
        """
        found, self._ended = self._ended, []
        absence = [judge for judge in self._rules if isinstance(judge, _AbsenceRule)]
        previous: NDArray[np.int32] | None = None
        selected: list[tuple[_SeriesRule | _AbsenceRule, Int, Slots]] = []
        for step in steps:
            if previous is None or not np.array_equal(step.series, previous):
                previous = step.series
                selected = [(judge, *judge.select(step.series)) for judge in self._rules]
                selected = [entry for entry in selected if len(entry[1])]
            if absence:
                self._coverage.add(step.ts if received_at is None else np.minimum(step.ts, received_at[step.row]))
            for judge, index, slots in selected:
                if isinstance(judge, _AbsenceRule):
                    judge.note(step.series[index], slots, step.ts[index], step.row[index])
                else:
                    judge.take(slots, step.ts[index], step.value[index], step.row[index], found)
        if absence:
            self._coverage.settle()
            for rule in absence:
                rule.settle(self._coverage, received_at, found)
        return self._in_order(found)

    def reported(self, ts: Int) -> None:
        """Event times (int64, microseconds) at which series reported that are not handed to ``process``."""
        if len(ts):
            self._coverage.add(ts)
            self._coverage.settle()

    def absences(self, watermark: int) -> list[Transition]:
        """What the event time reached (microseconds since the epoch) says about series that sent nothing."""
        found, self._ended = self._ended, []
        for judge in self._rules:
            judge.lapse(watermark, self._coverage, found)
        return self._in_order(found)

    def silent(self) -> set[tuple[str, str]]:
        """(rule, host) of all silences that are firing."""
        absences = [judge for judge in self._rules if isinstance(judge, _AbsenceRule)]
        return {(judge.rule.name, host) for judge in absences for host in judge.silent_hosts()}

    def replace(self, rules: Sequence[Rule], directory: pl.DataFrame) -> None:
        """Put other rules in force. Rules that judge as before keep their state; what others had open ends.

        Args:
            directory: the whole series directory as grown so far.
        """
        kept = {judge.digest: judge for judge in self._rules}
        judges: list[_SeriesRule | _AbsenceRule] = []
        for rule in rules:
            judge = kept.pop(_digest(rule), None)
            if judge is None:
                judge = self._judge(rule)
                judge.grow(directory)
            judge.rule = rule
            judges.append(judge)
        for judge in kept.values():
            judge.close("the rule was removed or changed", self._ended)
        self._rules = judges

    def export(self) -> Portable:
        """What is not as at the beginning, by series_id: the same for the same points, whatever the numbers are."""
        return {
            "coverage": self._coverage.state(),
            **{judge.digest: _by_series_id(judge.export(), self._series.series_id) for judge in self._rules},
        }

    def adopt(self, portable: Portable, number_of: Callable[[Int], NDArray[np.int32]]) -> None:
        """Take over an ``export`` of an engine with the same rules, in place of everything learnt.

        Args:
            number_of: series numbers (int32, -1: unknown, left out) of series_ids (int64).

        Raises:
            ValueError: the export is of other rules.
        """
        mine = {judge.digest for judge in self._rules}
        if mine != set(portable) - {"coverage"}:
            raise ValueError(f"the state is of other rules: {sorted(mine ^ (set(portable) - {'coverage'}))}")
        self._coverage.load(portable["coverage"])
        self._ended = []
        for judge in self._rules:
            entries = portable[judge.digest]
            numbers = number_of(entries["series_id"])
            known = numbers >= 0
            judge.adopt(numbers[known], {name: array[..., known] for name, array in entries.items()})

    def _judge(self, rule: Rule) -> _SeriesRule | _AbsenceRule:
        return _KINDS[rule.kind](rule, self._series)

    def _in_order(self, found: list[Transition]) -> list[Transition]:
        ids = self._series.series_id
        return sorted(found, key=lambda transition: (transition.at, int(ids[transition.series]), transition.name))


def _by_series_id(entries: State, series_id: Int) -> State:
    """Slots in order of their series_id; ``series`` (numbers) gives way to ``series_id``."""
    ids = series_id[entries["series"]]
    order = np.argsort(ids, kind="stable")
    named = {name: np.ascontiguousarray(array[..., order]) for name, array in entries.items() if name != "series"}
    return {"series_id": ids[order], **named}


def _digest(rule: Rule) -> str:
    """Kind, name and a hash of everything that enters a verdict."""
    text = rule.model_dump_json(exclude={"severity", "description", "enabled"})
    kind = "absence" if rule.kind == "absence" else "rule"
    return f"{kind}:{rule.name}:{hashlib.blake2b(text.encode(), digest_size=16).hexdigest()}"


class _Columns:
    """Named arrays with a slot's place in the last axis; they grow by doubling, so that small growths stay cheap."""

    def __init__(self, **fields: tuple[Any, Any] | tuple[Any, Any, int]) -> None:
        self._fields = {name: (np.dtype(spec[0]), spec[1], spec[2:]) for name, spec in fields.items()}
        self._arrays = {name: np.empty((*shape, 0), dtype) for name, (dtype, _, shape) in self._fields.items()}
        self.size = 0

    def __getitem__(self, name: str) -> NDArray[Any]:
        """The array with spare room at its end; index it by slot."""
        return self._arrays[name]

    def used(self, name: str) -> NDArray[Any]:
        """The array, exactly as long as there are slots (a view)."""
        return self._arrays[name][..., : self.size]

    def grow(self, more: int) -> None:
        self.size += more
        for name, (dtype, fill, shape) in self._fields.items():
            array = self._arrays[name]
            room = array.shape[-1]
            if room < self.size:
                grown = np.full((*shape, max(self.size, 2 * room)), fill, dtype)
                grown[..., :room] = array
                self._arrays[name] = grown

    def pick(self, slots: NDArray[Any]) -> State:
        """Copies of some slots."""
        return {name: self._arrays[name][..., slots] for name in self._fields}

    def put(self, slots: NDArray[Any], entries: Mapping[str, NDArray[Any]]) -> None:
        """Everything as at the beginning except for some slots; fields that ``entries`` lacks stay as they are."""
        for name, (_, fill, _) in self._fields.items():
            if name in entries:
                self._arrays[name][...] = fill
                self._arrays[name][..., slots] = entries[name]


class _SeriesFacts:
    """What the engine needs to know of every series, by number."""

    def __init__(self) -> None:
        self.units: list[str | None] = []
        self._columns = _Columns(counter=(np.bool_, False), series_id=(np.int64, 0))

    @property
    def counter(self) -> Bool:
        return self._columns["counter"]

    @property
    def series_id(self) -> Int:
        return self._columns["series_id"]

    def grow(self, new: pl.DataFrame) -> None:
        first = len(self.units)
        if new["number"][0] != first:
            raise ValueError(f"series numbers go on at {new['number'][0]}, expected {first}")
        self.units += new["unit"].to_list()
        self._columns.grow(len(new))
        self._columns["counter"][first : len(self.units)] = (new["kind"] == "counter").fill_null(False).to_numpy()
        self._columns["series_id"][first : len(self.units)] = new["series_id"].to_numpy()


class _Matched:
    """A rule and the series it matches: series number → slot."""

    def __init__(self, rule: Rule, series: _SeriesFacts) -> None:
        self.rule = rule
        self.digest = _digest(rule)
        self._facts = series
        self._slot_of = _Columns(slot=(np.int32, -1))

    def _match(self, new: pl.DataFrame) -> NDArray[np.int32]:
        self._slot_of.grow(len(new))
        return matching_series(new, metric=self.rule.metric, host=self.rule.host, labels=self.rule.labels)

    def select(self, series: NDArray[np.int32]) -> tuple[Int, Slots]:
        """Which of these series match: their places in the array given, and their slots."""
        slots = self._slot_of["slot"][series]
        index = np.flatnonzero(slots >= 0)
        return index, slots[index]

    @property
    def _severity(self) -> int:
        return SEVERITY_NUMBER[self.rule.severity]


class _SeriesRule(_Matched):
    """The hold, hysteresis and staleness that all kinds share which judge each series by itself.

    A slot is idle, pending (bad, not yet for long enough) or firing. Only slots that are not idle cost anything beyond
    the comparison with the limit.
    """

    def __init__(self, rule: Rule, series: _SeriesFacts) -> None:
        super().__init__(rule, series)
        self._columns = _Columns(
            series=(np.int32, -1),
            since=(np.int64, _NEVER),  # first bad point of the stretch, _NEVER when idle
            firing=(np.bool_, False),
            last=(np.int64, _NEVER),  # last point while not idle
            apart=(np.int64, 0),  # distance of the last two points while not idle
            worst=(np.float64, np.nan),  # most extreme measure while not idle
        )
        self._active = _Columns(active=(np.bool_, False))
        self._hold = round(rule.hold * MICROS_PER_SECOND)
        self._gap = max(GAP, self._hold)
        self._limit = float(rule.value) if rule.value is not None else 0.0
        self._rising = rule.op in {">", ">="}

    def __len__(self) -> int:
        return self._columns.size

    def grow(self, new: pl.DataFrame) -> None:
        numbers = self._match(new)
        first = self._columns.size
        self._columns.grow(len(numbers))
        self._active.grow(len(numbers))
        self._columns["series"][first : self._columns.size] = numbers
        self._slot_of["slot"][numbers] = np.arange(first, self._columns.size, dtype=np.int32)
        self._grow_samples(len(numbers))

    def _grow_samples(self, more: int) -> None:
        """Room for more series in what a kind keeps of the past."""

    def _measure(self, slots: Slots, ts: Int, value: Float) -> tuple[Float, Bool, Bool]:
        """The measure that is judged, whether it is bad and whether it is quiet (neither: the hysteresis band)."""
        raise NotImplementedError

    def take(self, slots: Slots, ts: Int, value: Float, row: Int, found: list[Transition]) -> None:
        """Judge one point of each slot."""
        measure, bad, quiet = self._measure(slots, ts, value)
        busy = np.flatnonzero(bad | self._active["active"][slots])
        if not len(busy):
            return
        columns = self._columns
        slots, ts, value, row = slots[busy], ts[busy], value[busy], row[busy]
        measure, bad, quiet = measure[busy], bad[busy], quiet[busy]
        firing, since, last = columns["firing"][slots], columns["since"][slots], columns["last"][slots]
        apart = ts - last
        lapsed = firing & (apart > STALE)
        ended = firing & ~lapsed & quiet
        self._end_stale(slots[lapsed], row[lapsed], found)
        for at in np.flatnonzero(ended).tolist():
            found.append(self._end(int(slots[at]), int(ts[at]), int(row[at]), float(measure[at]), float(value[at])))
        firing &= ~(lapsed | ended)
        broken = ~firing & (apart > self._gap) & (apart > 2 * columns["apart"][slots])
        fresh = (since == _NEVER) | lapsed | broken
        since = np.where(firing, since, np.where(bad, np.where(fresh, ts, since), _NEVER))
        worst = columns["worst"][slots]
        worse = np.fmax(worst, measure) if self._rising else np.fmin(worst, measure)
        worse = np.where(fresh & ~firing, measure, worse)
        starting = bad & ~firing & (ts - since >= self._hold)
        for at in np.flatnonzero(starting).tolist():
            numbers = int(slots[at]), int(since[at]), int(ts[at]), int(row[at]), float(measure[at]), float(value[at])
            found.append(self._start(*numbers))
        active = since != _NEVER
        columns["since"][slots] = since
        columns["firing"][slots] = firing | starting
        columns["apart"][slots] = np.where(active & ~lapsed & (last != _NEVER), apart, 0)
        columns["last"][slots] = np.where(active, ts, _NEVER)
        columns["worst"][slots] = np.where(active, worse, np.nan)
        self._active["active"][slots] = active

    def lapse(self, watermark: int, coverage: _Coverage, found: list[Transition]) -> None:
        """Close what has sent nothing for ``STALE``."""
        columns = self._columns
        slots = np.flatnonzero(columns.used("firing"))
        slots = slots[watermark - columns["last"][slots] > STALE]
        self._end_stale(slots, np.full(len(slots), -1), found)
        columns["firing"][slots] = False
        columns["since"][slots] = columns["last"][slots] = _NEVER
        columns["apart"][slots] = 0
        columns["worst"][slots] = np.nan
        self._active["active"][slots] = False

    def close(self, why: str, found: list[Transition]) -> None:
        """End everything that is open."""
        for slot in np.flatnonzero(self._columns.used("firing")):
            found.append(self._transition(int(slot), RESOLVED, int(self._columns["last"][slot]), -1, why, None, {}))

    def export(self) -> State:
        """Slots that are not as at the beginning, with ``series`` numbers."""
        return self._columns.pick(np.flatnonzero(self._columns.used("since") != _NEVER))

    def adopt(self, numbers: NDArray[np.int32], entries: State) -> None:
        """Put entries of an ``export`` in place of everything; ``numbers`` says which series they are of."""
        self._columns.put(self._slot_of["slot"][numbers], entries)
        self._active["active"][: len(self)] = self._columns.used("since") != _NEVER

    def _end_stale(self, slots: NDArray[Any], row: NDArray[Any], found: list[Transition]) -> None:
        for slot, at_row in zip(slots.tolist(), row.tolist(), strict=True):
            at = int(self._columns["last"][slot]) + STALE
            why = f"no value for {duration(STALE / MICROS_PER_SECOND)}, closed"
            found.append(self._transition(slot, RESOLVED, at, at_row, why, None, {}))

    def _start(self, slot: int, since: int, at: int, row: int, measure: float, value: float) -> Transition:
        evidence: dict[str, object] = {
            "rule": self.rule.kind,
            "description": self.rule.description,
            "op": self.rule.op,
            "limit": self._limit,
            "for_seconds": self.rule.hold,
            "bad_for_seconds": (at - since) / MICROS_PER_SECOND,
            **self._evidence(slot, at, measure, value),
        }
        summary = self._summary(slot, measure, value)
        return self._transition(slot, FIRING, at, row, summary, self._shown(measure, value), evidence, since)

    def _end(self, slot: int, at: int, row: int, measure: float, value: float) -> Transition:
        shown, worst = self._shown(measure, value), float(self._columns["worst"][slot])
        evidence = {"rule": self.rule.kind, "clear": self.rule.clear, "worst": _finite(worst)}
        return self._transition(slot, RESOLVED, at, row, self._end_summary(slot, measure, value), shown, evidence)

    def _transition(
        self,
        slot: int,
        state: Any,
        at: int,
        row: int,
        summary: str,
        value: float | None,
        evidence: Mapping[str, object],
        since: int | None = None,
    ) -> Transition:
        return Transition(
            kind="rule",
            name=self.rule.name,
            series=int(self._columns["series"][slot]),
            state=state,
            starts_at=int(self._columns["since"][slot]) if since is None else since,
            at=at,
            severity_number=self._severity,
            summary=summary,
            value=value,
            threshold=self._limit,
            evidence=evidence,
            row=row,
        )

    def _unit(self, slot: int) -> str | None:
        return self._facts.units[self._columns["series"][slot]]

    def _shown(self, measure: float, value: float) -> float | None:
        return _finite(measure)

    def _held(self) -> str:
        return f", for {duration(self.rule.hold)}" if self.rule.hold else ""

    def _summary(self, slot: int, measure: float, value: float) -> str:
        unit = self._unit(slot)
        return f"at {quantity(measure, unit)} ({OP_SYMBOL[self.rule.op]} {quantity(self._limit, unit)}{self._held()})"

    def _end_summary(self, slot: int, measure: float, value: float) -> str:
        unit = self._unit(slot)
        return f"back at {quantity(measure, unit)}, was {quantity(float(self._columns['worst'][slot]), unit)}"

    def _evidence(self, slot: int, at: int, measure: float, value: float) -> dict[str, object]:
        return {"value": _finite(value), "clear": self.rule.clear}


class _Threshold(_SeriesRule):
    """The value itself against the limit."""

    def __init__(self, rule: Rule, series: _SeriesFacts) -> None:
        super().__init__(rule, series)
        self._bad = _OPERATORS[rule.op]
        self._quiet = np.less_equal if self._rising else np.greater_equal
        self._clear = None if rule.clear is None else float(rule.clear)

    def _measure(self, slots: Slots, ts: Int, value: Float) -> tuple[Float, Bool, Bool]:
        return value, *self._compare(value)

    def _compare(self, measure: Float) -> tuple[Bool, Bool]:
        bad = self._bad(measure, self._limit)
        return bad, ~bad if self._clear is None else ~bad & self._quiet(measure, self._clear)


class _SampledRule(_SeriesRule):
    """Keeps a few spaced samples of each series: a ring of ``SAMPLES``, of which [tail, head) are valid."""

    def __init__(self, rule: Rule, series: _SeriesFacts) -> None:
        super().__init__(rule, series)
        self._window = max(round(rule.window * MICROS_PER_SECOND), 1)
        self._spacing = max(self._window // SAMPLES_PER_WINDOW, 1)
        self._ring = _Columns(
            sample_ts=(np.int64, 0, SAMPLES),
            sample_value=(np.float64, 0.0, SAMPLES),
            head=(np.int64, 0),
            tail=(np.int64, 0),
        )

    def _grow_samples(self, more: int) -> None:
        self._ring.grow(more)

    def export(self) -> State:
        slots = np.flatnonzero((self._columns.used("since") != _NEVER) | (self._ring.used("head") != 0))
        return {**self._columns.pick(slots), **self._ring.pick(slots)}

    def adopt(self, numbers: NDArray[np.int32], entries: State) -> None:
        super().adopt(numbers, entries)
        self._ring.put(self._slot_of["slot"][numbers], entries)

    def _sample(self, slots: Slots, place: Int) -> tuple[Int, Float]:
        at = place & _RING
        return self._ring["sample_ts"][at, slots], self._ring["sample_value"][at, slots]

    def _keep(self, slots: Slots, ts: Int, value: Float) -> None:
        """Add the points that lie far enough from the newest sample."""
        ring = self._ring
        head = ring["head"][slots]
        newest = ring["sample_ts"][(head - 1) & _RING, slots]
        new = np.flatnonzero((head == ring["tail"][slots]) | (ts - newest >= self._spacing))
        slots, head = slots[new], head[new]
        ring["sample_ts"][head & _RING, slots] = ts[new]
        ring["sample_value"][head & _RING, slots] = value[new]
        ring["head"][slots] = head + 1

    def _advance(self, slots: Slots, limit: Int, ahead: int) -> None:
        """Move the tail on while the sample ``ahead`` of it exists and is not younger than ``limit``."""
        ring = self._ring
        while len(slots):
            tail = ring["tail"][slots]
            exists = tail + ahead < ring["head"][slots]
            moving = np.flatnonzero(exists & (ring["sample_ts"][(tail + ahead) & _RING, slots] <= limit))
            slots, limit = slots[moving], limit[moving]
            ring["tail"][slots] = tail[moving] + 1


class _Rate(_SampledRule, _Threshold):
    """The change per second over the window against the limit."""

    def _measure(self, slots: Slots, ts: Int, value: Float) -> tuple[Float, Bool, Bool]:
        ring = self._ring
        counter = self._facts.counter[self._columns["series"][slots]]
        if counter.any():
            _, newest = self._sample(slots, ring["head"][slots] - 1)
            reset = slots[counter & (value < newest)]
            ring["tail"][reset] = ring["head"][reset]
        self._advance(slots, ts - self._window, ahead=1)
        tail = ring["tail"][slots]
        then, before = self._sample(slots, tail)
        apart = ts - then
        known = (tail < ring["head"][slots]) & (apart >= self._window) & (apart <= max(2 * self._window, GAP))
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            rate = (value - before) / (apart / MICROS_PER_SECOND)
        rate = np.where(known & np.isfinite(rate), rate, np.nan)
        self._keep(slots, ts, value)
        return rate, *self._compare(rate)

    def _per_second(self, slot: int) -> str:
        unit = self._unit(slot)
        return "{change}/s" if not unit else "%/s" if unit == "1" else f"{unit}/s"

    def _text(self, slot: int, rate: float) -> str:
        return quantity(rate * 100 if self._unit(slot) == "1" else rate, self._per_second(slot))

    def _summary(self, slot: int, measure: float, value: float) -> str:
        over = duration(self.rule.window)
        limit = f"{OP_SYMBOL[self.rule.op]} {self._text(slot, self._limit)}"
        return f"changes by {self._text(slot, measure)} over {over} ({limit}{self._held()})"

    def _end_summary(self, slot: int, measure: float, value: float) -> str:
        was = self._text(slot, float(self._columns["worst"][slot]))
        return f"changes by {self._text(slot, measure)}, was {was}"

    def _evidence(self, slot: int, at: int, measure: float, value: float) -> dict[str, object]:
        slots = np.array([slot])
        then, before = self._sample(slots, self._ring["tail"][slots])
        return {
            "value": _finite(value),
            "value_before": _finite(float(before[0])),
            "seconds_between": (at - int(then[0])) / MICROS_PER_SECOND,
            "rate_per_second": _finite(measure),
            "clear": self.rule.clear,
        }


class _FillUp(_SampledRule):
    """Seconds until a straight line through the window reaches the level."""

    def __init__(self, rule: Rule, series: _SeriesFacts) -> None:
        super().__init__(rule, series)
        self._sign = 1.0 if self._rising else -1.0
        # The measure is a time to the level: the shorter, the worse.
        self._rising = False

    def _measure(self, slots: Slots, ts: Int, value: Float) -> tuple[Float, Bool, Bool]:
        ring = self._ring
        self._advance(slots, ts - self._window - 1, ahead=0)
        self._keep(slots, ts, value)
        oldest_ts, oldest = self._sample(slots, ring["tail"][slots])
        with np.errstate(over="ignore", invalid="ignore"):
            room, rise = self._sign * (self._limit - value), self._sign * (value - oldest)
            # What cannot be on its way to the level by twice the pace of its end points needs no line.
            near = room * (ts - oldest_ts) <= 2 * self.rule.horizon * MICROS_PER_SECOND * rise
        near &= (rise > 0) & (ring["head"][slots] - ring["tail"][slots] >= FIT_POINTS)
        near |= self._columns["firing"][slots]
        seconds = np.full(len(slots), np.inf)
        bad, quiet = np.zeros((2, len(slots)), bool)
        index = np.flatnonzero(near)
        if not len(index):
            return seconds, bad, quiet
        fit = self._fit(slots[index], ts[index])
        firing = self._columns["firing"][slots[index]]
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            left = np.maximum(self._sign * (self._limit - fit.now) / (self._sign * fit.slope), 0.0)
        left = np.where((self._sign * fit.slope > 0) & np.isfinite(left), left, np.inf)
        full = room[index] <= 0
        seconds[index] = np.where(full, 0.0, left)
        bad[index] = fit.sound & (fit.r2 >= FIT_R2) & (left <= self.rule.horizon)
        over = (left > 1.5 * self.rule.horizon) | (fit.r2 < FIT_R2_WHILE_FIRING)
        quiet[index] = firing & fit.sound & over & ~full
        return seconds, bad, quiet

    def _fit(self, slots: Slots, ts: Int) -> _Line:
        ring = self._ring
        tail, head = ring["tail"][slots, None], ring["head"][slots, None]
        place = np.arange(SAMPLES)
        valid = ((place - tail) & _RING) < head - tail
        # One contiguous row a series, so that sums do not depend on which series are judged together.
        sample_ts = np.ascontiguousarray(ring["sample_ts"][:, slots].T)
        x = np.where(valid, (sample_ts - ts[:, None]) / MICROS_PER_SECOND, 0.0)
        y = np.where(valid, np.ascontiguousarray(ring["sample_value"][:, slots].T), 0.0)
        count = valid.sum(1)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            mean_x, mean_y = x.sum(1) / count, y.sum(1) / count
            dx = np.where(valid, x - mean_x[:, None], 0.0)
            dy = np.where(valid, y - mean_y[:, None], 0.0)
            sxx, sxy, syy = (dx * dx).sum(1), (dx * dy).sum(1), (dy * dy).sum(1)
            slope = sxy / sxx
            r2 = np.where(syy > 0, sxy * sxy / (sxx * syy), 0.0)
        covered = -x.min(1) >= FIT_COVERAGE * self.rule.window
        sound = (count >= FIT_POINTS) & covered & np.isfinite(slope) & np.isfinite(r2)
        return _Line(mean_y - slope * mean_x, slope, np.nan_to_num(r2, posinf=0.0), sound, count)

    def _shown(self, measure: float, value: float) -> float | None:
        return _finite(value)

    def _summary(self, slot: int, measure: float, value: float) -> str:
        unit = self._unit(slot)
        return f"at {quantity(value, unit)}, at this pace {quantity(self._limit, unit)} in {duration(measure)}"

    def _end_summary(self, slot: int, measure: float, value: float) -> str:
        shortest = duration(float(self._columns["worst"][slot]))
        return f"at {quantity(value, self._unit(slot))}, no longer filling (was {shortest} from the limit)"

    def _evidence(self, slot: int, at: int, measure: float, value: float) -> dict[str, object]:
        line = self._fit(np.array([slot], np.int32), np.array([at]))
        return {
            "value": _finite(value),
            "seconds_to_level": _finite(measure),
            "level_at": instant(at + round(measure * MICROS_PER_SECOND)).isoformat(),
            "slope_per_second": _finite(float(line.slope[0])),
            "r2": _finite(float(line.r2[0])),
            "samples": int(line.count[0]),
            "window_seconds": self.rule.window,
            "horizon_seconds": self.rule.horizon,
        }


@dataclass(frozen=True, slots=True)
class _Line:
    """Straight lines, one a series: value now, slope per second, share of variance explained, whether it is sound."""

    now: Float
    slope: Float
    r2: Float
    sound: Bool
    count: Int


class _AbsenceRule(_Matched):
    """Silence of hosts. A slot is a host; the series that reported last stands for it (of several, the smallest id)."""

    def __init__(self, rule: Rule, series: _SeriesFacts) -> None:
        super().__init__(rule, series)
        self._hold = round(rule.hold * MICROS_PER_SECOND)
        self._retired = max(RETIRED, 2 * self._hold)
        self._slot_of_host: dict[str, int] = {}
        self._columns = _Columns(
            series=(np.int32, -1),
            last=(np.int64, _NEVER),  # newest point
            live=(np.bool_, False),  # whether that point was live when it was received
            firing=(np.bool_, False),
            at=(np.int64, _NEVER),  # when the present silence fired
        )
        self._taken: list[tuple[NDArray[np.int32], Slots, Int, Int]] = []
        self._series_count = 0

    def __len__(self) -> int:
        return self._series_count

    def silent_hosts(self) -> list[str]:
        """Hosts whose silence is firing."""
        firing = self._columns.used("firing")
        return [host for host, slot in self._slot_of_host.items() if firing[slot]]

    def grow(self, new: pl.DataFrame) -> None:
        numbers = self._match(new)
        self._series_count += len(numbers)
        hosts = new["host"][numbers - new["number"][0]].to_list() if len(numbers) else []
        known = self._slot_of_host
        first = len(known)
        slots = np.fromiter((known.setdefault(host, len(known)) for host in hosts), np.int32, len(hosts))
        self._slot_of["slot"][numbers] = slots
        self._columns.grow(len(known) - first)
        fresh, where = np.unique(slots, return_index=True)
        self._columns["series"][fresh[fresh >= first]] = numbers[where[fresh >= first]]

    def note(self, series: NDArray[np.int32], slots: Slots, ts: Int, row: Int) -> None:
        """Remember points until ``settle``: those of one host may come in any order within a batch."""
        self._taken.append((series, slots, ts, row))

    def settle(self, coverage: _Coverage, received_at: Int | None, found: list[Transition]) -> None:
        """Judge the gaps between the points taken."""
        if not self._taken:
            return
        series, slots, ts, row = (np.concatenate(parts) for parts in zip(*self._taken, strict=True))
        self._taken = []
        order = np.lexsort((-self._facts.series_id[series], ts, slots))
        series, slots, ts, row = series[order], slots[order], ts[order], row[order]
        live = np.ones(len(ts), bool) if received_at is None else received_at[row] - ts <= LIVE
        columns = self._columns
        first = np.r_[True, slots[1:] != slots[:-1]]
        last = columns["last"][slots]
        before = np.where(first, last, np.maximum(np.r_[_NEVER, ts[:-1]], last))
        holder = np.where(before == last, columns["series"][slots], np.r_[np.int32(-1), series[:-1]])
        before_live = np.where(before == last, columns["live"][slots], np.r_[False, live[:-1]])
        gap = np.flatnonzero((before != _NEVER) & before_live & (ts - before > self._hold))
        clock = coverage.clock(self._hold // 2)
        due = clock.elapsed(before[gap]) + self._hold
        silent = gap[clock.elapsed(ts[gap]) > due]
        # A silence that fired by the watermark ends with the first newer point, however the clock reads now.
        ending = np.flatnonzero(columns["firing"][slots] & (before == last) & (ts > last))
        ending = ending[np.unique(slots[ending], return_index=True)[1]]
        for place in ending.tolist():
            fired_at = int(columns["at"][slots[place]])
            found.append(self._end(int(holder[place]), int(last[place]), fired_at, int(ts[place]), int(row[place])))
        columns["firing"][slots[ending]], columns["at"][slots[ending]] = False, _NEVER
        silent = np.setdiff1d(silent, ending)
        due_at = clock.instant(clock.elapsed(before[silent]) + self._hold)
        for place, at in zip(silent.tolist(), due_at.tolist(), strict=True):
            number, since = int(holder[place]), int(before[place])
            found.append(self._start(number, since, at, int(row[place])))
            found.append(self._end(number, since, at, int(ts[place]), int(row[place])))
        final = np.flatnonzero(np.r_[slots[1:] != slots[:-1], True])
        ids = self._facts.series_id
        tied = (ts[final] == last[final]) & (ids[series[final]] < ids[columns["series"][slots[final]]])
        newer = final[(ts[final] > last[final]) | tied]
        columns["series"][slots[newer]] = series[newer]
        columns["last"][slots[final]] = np.maximum(ts[final], last[final])
        columns["live"][slots[newer]] = live[newer]

    def lapse(self, watermark: int, coverage: _Coverage, found: list[Transition]) -> None:
        """Judge the silence between each host's last point and the watermark."""
        columns = self._columns
        last, firing = columns.used("last"), columns.used("firing")
        quiet = np.flatnonzero(~firing & columns.used("live") & (last != _NEVER) & (watermark - last > self._hold))
        if len(quiet):
            clock = coverage.clock(self._hold // 2)
            due = clock.elapsed(last[quiet]) + self._hold
            silent = clock.elapsed(np.array([watermark]))[0] > due
            for slot, at in zip(quiet[silent].tolist(), clock.instant(due[silent]).tolist(), strict=True):
                found.append(self._start(int(columns["series"][slot]), int(last[slot]), at, -1))
                columns["firing"][slot], columns["at"][slot] = True, at
        for slot in np.flatnonzero(firing & (watermark - last > self._retired)).tolist():
            since, number = int(last[slot]), int(columns["series"][slot])
            found.append(self._end(number, since, int(columns["at"][slot]), since + self._retired, -1))
            columns["firing"][slot], columns["live"][slot], columns["at"][slot] = False, False, _NEVER

    def export(self) -> State:
        """Hosts that were heard of, by the ``series`` that stands for each."""
        return self._columns.pick(np.flatnonzero(self._columns.used("last") != _NEVER))

    def adopt(self, numbers: NDArray[np.int32], entries: State) -> None:
        """Put entries of an ``export`` in place of everything; ``numbers`` says which series they are of.

        States that were joined may each name another series of a host: the one that reported last counts.
        """
        order = np.lexsort((entries["series_id"], -entries["last"]))
        slots, first = np.unique(self._slot_of["slot"][numbers[order]], return_index=True)
        chosen = order[first]
        self._columns.put(slots, {name: array[chosen] for name, array in entries.items() if name != "series_id"})
        self._columns["series"][slots] = numbers[chosen]

    def close(self, why: str, found: list[Transition]) -> None:
        """End everything that is open."""
        for slot in np.flatnonzero(self._columns.used("firing")).tolist():
            at, number = int(self._columns["at"][slot]), int(self._columns["series"][slot])
            found.append(self._transition(number, RESOLVED, int(self._columns["last"][slot]), at, -1, why, {}))

    def _start(self, series: int, since: int, at: int, row: int) -> Transition:
        evidence: dict[str, object] = {
            "rule": "absence",
            "description": self.rule.description,
            "pattern": self.rule.metric,
            "last_seen": instant(since).isoformat(),
            "for_seconds": self.rule.hold,
        }
        summary = f"no {self.rule.metric} for {duration(self.rule.hold)}, last at {when(since)}"
        return self._transition(series, FIRING, since, at, row, summary, evidence)

    def _end(self, series: int, since: int, fired_at: int, at: int, row: int) -> Transition:
        if at >= since + self._retired:
            at = since + self._retired
            summary = f"silent for {duration(self._retired / MICROS_PER_SECOND)}, taken as gone for good"
        else:
            at = max(at, fired_at)
            summary = f"{self.rule.metric} is reported again"
        evidence = {"rule": "absence", "silent_seconds": (at - since) / MICROS_PER_SECOND}
        return self._transition(series, RESOLVED, since, at, row, summary, evidence)

    def _transition(
        self, series: int, state: Any, since: int, at: int, row: int, summary: str, evidence: Mapping[str, object]
    ) -> Transition:
        return Transition(
            kind="absence",
            name=self.rule.name,
            series=series,
            state=state,
            starts_at=since,
            at=at,
            severity_number=self._severity,
            summary=summary,
            evidence=evidence,
            row=row,
        )


class _Coverage:
    """Stretches of event time in which no series at all reported, in whole cells; the newest ``HOLES`` of them."""

    def __init__(self) -> None:
        self._reached = -1  # newest cell with a point
        self._holes = np.empty((2, 0), np.int64)  # starts, ends
        self._new: list[Int] = []

    def add(self, ts: Int) -> None:
        first, last = int(ts.min()) // CELL, int(ts.max()) // CELL
        if last <= self._reached:
            return
        if first == last:
            self._new.append(np.array([first]))
        elif last - first < 4 * len(ts):
            self._new.append(np.flatnonzero(np.bincount(ts // CELL - first)) + first)
        else:
            self._new.append(np.unique(ts // CELL))

    def settle(self) -> None:
        """Take in what was added."""
        if not self._new:
            return
        cells = np.unique(np.concatenate(self._new))
        self._new = []
        cells = cells[cells > self._reached]
        if not len(cells):
            return
        before = np.r_[self._reached if self._reached >= 0 else cells[0], cells[:-1]]
        empty = cells - before > 1
        holes = np.stack([before[empty] + 1, cells[empty]]) * CELL
        self._holes = np.concatenate([self._holes, holes], axis=1)[:, -HOLES:]
        self._reached = int(cells[-1])

    def clock(self, most: int) -> _Clock:
        """Event time on which no hole lasts longer than ``most`` (microseconds)."""
        starts = np.r_[self._holes[0], (self._reached + 1) * CELL]
        ends = np.r_[self._holes[1], _FAR]
        return _Clock(starts, ends, most)

    def state(self) -> State:
        return {"coverage_reached": np.array([self._reached]), "coverage_holes": self._holes.copy()}

    def load(self, state: Mapping[str, NDArray[Any]]) -> None:
        self._reached = int(state["coverage_reached"][0])
        self._holes = np.array(state["coverage_holes"], np.int64)


class _Clock:
    """Event time that stands still in a hole once the hole has lasted for ``most``."""

    def __init__(self, starts: Int, ends: Int, most: int) -> None:
        stops = starts + most
        longer = ends > stops
        self._stops, self._lost = stops[longer], (ends - stops)[longer]
        self._lost_before = np.cumsum(self._lost) - self._lost
        self._elapsed_at_stops = self._stops - self._lost_before

    def elapsed(self, at: Int) -> Int:
        """The reading of the clock at instants; only differences mean something."""
        hole = np.searchsorted(self._stops, at, "right") - 1
        inside = np.maximum(hole, 0)
        lost = self._lost_before[inside] + np.minimum(at - self._stops[inside], self._lost[inside])
        return at - np.where(hole >= 0, lost, 0)

    def instant(self, elapsed: Int) -> Int:
        """The first instant at which the clock reads so much."""
        hole = np.searchsorted(self._elapsed_at_stops, elapsed, "left") - 1
        inside = np.maximum(hole, 0)
        return elapsed + np.where(hole >= 0, self._lost_before[inside] + self._lost[inside], 0)


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


_KINDS: dict[str, type[_SeriesRule] | type[_AbsenceRule]] = {
    "threshold": _Threshold,
    "rate": _Rate,
    "fill_up": _FillUp,
    "absence": _AbsenceRule,
}
