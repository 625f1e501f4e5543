"""Tier 1: statistics of each series against its own past, point by point.

What belongs here: the detector's state, its recurrences (NumPy over all series of a step) and the events it raises.
What does not: absolute rules (``rules``), what becomes of an event (``alerts``), and how baselines come about
(``baselines``).

Every point gives seven *signals*: the deviation from the slow level; the same smoothed over a short horizon, and over a
medium one after cutting it to a few times its usual size (a lasting shift shows, a spike hardly does); the change from
the point before; the deviation from the seasonal profile, smoothed in the same two ways; the run of equal values. A
signal is judged by how far it goes beyond the largest excursion to that side that the series remembers: ``ratio`` =
excursion / max(remembered excursion, a multiple of the signal's usual size). That is free of units and of assumptions
about tails: if points were exchangeable, the next would be a new record with probability 1/n, and one that beats the
old record by a margin more rarely still. Ratios are joined by their 8-norm: the largest decides, agreement counts a
little. What is remembered fades with a half-life of weeks, and a new excursion is remembered an hour of points later,
so that memory cannot follow a ramp.

An event opens when the joint ratio passes ``OPEN``. While it is open no other opens on the series and memory waits;
when it closes, memory takes in what it showed, so the same is not reported again until it has faded. An event is a
notice (severity ``info``) until the joint ratio passes ``CERTAIN`` on a series that varies and is known for more than a
week; from then on it has the configured severity.

The seasonal profile is a mean over weeks of the hourly medians (``close_hour``), by hour of the week, and by hour of
the day until a week is known twice. State has a fixed size, about 3.8 kB a series.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import orjson
import polars as pl
from numpy.typing import NDArray

from aiops_assets.config import Statistics
from aiops_assets.detection.baselines import MEDIAN
from aiops_assets.detection.steps import Step
from aiops_assets.detection.transitions import FIRING, RESOLVED, Transition
from aiops_assets.hours import EPOCH, MICROS_PER_HOUR, MICROS_PER_SECOND

DETECTOR_VERSION = "tier1-6"

#: the joint ratio at which an event opens; below which a point is calm; from which an event is more than a notice
OPEN, CALM, CERTAIN = 1.28, 1.0, 2.0
#: no verdict before a series has this many points over this many seconds
WARM_UP_POINTS, WARM_UP_SECONDS = 150.0, 86_400.0
#: no verdict by season before so many seconds of deviations from a seasonal profile
SEASON_WARM_UP_SECONDS = 4 * 86_400.0
#: horizons of smoothing: at least so many points, at least so many seconds
SHORT, MEDIUM, SLOW = (6.0, 300.0), (48.0, 3_600.0), (1_000.0, 4 * 86_400.0)
#: horizon over which a signal's usual size is averaged; an open event is judged by what was usual before it
USUAL = (1_000.0, 3.5 * 86_400.0)
#: a deviation is cut to this many times its usual size before it enters a medium horizon
CUT = 3.0
#: what is remembered fades by half in this many seconds, but not faster than in so many points
HALF_LIFE_SECONDS, HALF_LIFE_POINTS = 42 * 86_400.0, 1_000.0
#: a block: at least so many points, at least so many seconds
BLOCK = (12.0, 3_600.0)
#: an event ends after so many calm points over so many seconds, or when it has lasted long: then it is the new normal
CALM_LENGTH, LONGEST_EVENT_SECONDS = (12.0, 300.0), 86_400.0
#: the change from the point before counts unless so many intervals and so many seconds lie between
GAP = (10.0, 3_600.0)
#: what is remembered counts for at least this multiple of the signal's usual size
USUAL_FLOOR = 4.0
#: a run of equal values counts from so many points and so many seconds on, against this multiple of the longest past
#: run, on a series that varies
RUN, RUN_MARGIN = (30.0, 3_600.0), 5.0 / 3.0
#: a series varies when it has changed so often, and amply when at this share of its points
VARIED, AMPLY = 100.0, 0.02
#: ``CERTAIN`` is multiplied by this for series that do not vary amply, and until a week and a day are known
DOUBT, DOUBT_SECONDS = 2.5, 8 * 86_400.0
#: rows kept of an event; further ones only when they are worse than all before by this factor
SHOWN_ROWS, CLEARLY_WORSE = 12.0, 1.1
#: weeks and days over which the seasonal profile is averaged
PROFILE_WEEKS, PROFILE_DAYS = 8.0, 14.0

_SIGNALS = ("level", "level_short", "level_shift", "change", "season", "season_shift", "run")
_DETECTORS = ("robust_z", "robust_z", "level_shift", "spike", "seasonal", "seasonal_shift", "flatline")
_K = len(_SIGNALS)
_LEVEL, _LEVEL_SHORT, _LEVEL_SHIFT, _CHANGE, _SEASON, _SEASON_SHIFT, _RUN = range(_K)
_SEASONAL = (_SEASON, _SEASON_SHIFT, _K + _SEASON, _K + _SEASON_SHIFT)
_SCALARS = (
    "points", "first", "previous", "interval", "slow", "short", "level_shift", "season", "season_shift",
    "season_points", "usual_deviation", "usual_residual", "run", "varied", "expected", "expected_before",
    "expected_after", "known", "slot", "block_fill",
    "calm", "open", "opened", "opened_signal", "certain", "shown", "peak", "counter_value",
)  # fmt: skip
_ROW = {name: index for index, name in enumerate(_SCALARS)}
_USUAL = slice(len(_SCALARS), len(_SCALARS) + _K)
_USUAL_BEFORE = slice(_USUAL.stop, _USUAL.stop + _K)
_MEMORY = slice(_USUAL_BEFORE.stop, _USUAL_BEFORE.stop + 2 * _K)
_LAST_BLOCK = slice(_MEMORY.stop, _MEMORY.stop + 2 * _K)
_THIS_BLOCK = slice(_LAST_BLOCK.stop, _LAST_BLOCK.stop + 2 * _K)
_ROWS = _THIS_BLOCK.stop
_HOURS_OF_WEEK = 168
#: hours from Monday 00:00 to the epoch, a Thursday
_EPOCH_HOUR = 72
_DAYS = ("Mondays", "Tuesdays", "Wednesdays", "Thursdays", "Fridays", "Saturdays", "Sundays")
_SEVERITY = {"trace": 1, "debug": 5, "info": 9, "warning": 13, "error": 17, "critical": 21}
_HUGE, _TINY, _RELATIVE = 1e150, 1e-200, 1e-9

_FRAME = {
    "row": pl.Int64, "series": pl.Int32, "ts": pl.Int64, "value": pl.Float64, "expected": pl.Float64,
    "lower": pl.Float64, "upper": pl.Float64, "score": pl.Float64, "detector": pl.String,
    "detector_version": pl.String, "evidence": pl.String, "opens_event": pl.Boolean,
}  # fmt: skip

_Floats = NDArray[np.float64]
NumbersOf = Callable[[NDArray[np.int64]], NDArray[np.int32]]


class Tier1:
    """The detector of all series. What it finds depends on the points of a series, not on how they are batched."""

    def __init__(self, settings: Statistics | None = None) -> None:
        self._settings = settings or Statistics()
        self._severity = _SEVERITY[self._settings.severity]
        self._size = 0
        self._names: list[str] = []
        self._state = np.zeros((_ROWS, 0))
        self._last = np.zeros(0, np.int64)
        self._counter = np.zeros(0, bool)
        self._excluded = np.zeros(0, bool)
        self._weekly = np.zeros((0, _HOURS_OF_WEEK, 2))
        self._daily = np.zeros((0, 24, 2))

    def grow(self, new: pl.DataFrame) -> None:
        """Add series; ``new`` has ``host``, ``metric``, ``kind`` of ``SeriesDirectory.frame``, numbers continue."""
        count = self._size + new.height
        if count > self._state.shape[1]:
            room = max(count, self._state.shape[1] * 3 // 2, 64)
            self._state = _wider(self._state, 1, room)
            self._last = _wider(self._last, 0, room)
            self._counter = _wider(self._counter, 0, room)
            self._excluded = _wider(self._excluded, 0, room)
            self._weekly = _wider(self._weekly, 0, room)
            self._daily = _wider(self._daily, 0, room)
        added = slice(self._size, count)
        metrics = new["metric"].to_list()
        self._counter[added] = (new["kind"] == "counter").to_numpy()
        self._excluded[added] = self._left_alone(metrics)
        self._names += [f"{metric} on {host}" for metric, host in zip(metrics, new["host"].to_list(), strict=True)]
        self._state[_ROW["slot"], added] = -1.0
        self._size = count

    def reconfigure(self, settings: Statistics, directory: pl.DataFrame) -> None:
        """Put changed settings in force; ``directory`` has all series announced, in order, with ``metric``.

        An open event of a series that is now left alone ends with the next point of that series.
        """
        self._settings = settings
        self._severity = _SEVERITY[settings.severity]
        metrics = directory["metric"].head(self._size).to_list()
        self._excluded[: len(metrics)] = self._left_alone(metrics)

    def _left_alone(self, metrics: list[str]) -> list[bool]:
        known = {m: any(fnmatchcase(m, p) for p in self._settings.exclude) for m in set(metrics)}
        return [known[m] for m in metrics]

    def export(self, series_id: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """What is learnt of the series that have reported, by ascending series_id: the same whatever the numbers are.

        ``series_id`` (int64) is by number.
        """
        n = self._size
        profiled = (self._daily[:n, :, 1] > 0.0).any(1)
        heard = np.flatnonzero((self._last[:n] != 0) | profiled)
        heard = heard[np.argsort(series_id[heard], kind="stable")]
        return {
            "series_id": series_id[heard],
            "state": self._state[:, heard],
            "last": self._last[heard],
            "weekly": self._weekly[heard],
            "daily": self._daily[heard],
        }

    def adopt(self, portable: Mapping[str, NDArray[Any]], number_of: NumbersOf) -> None:
        """Take over an ``export`` in place of everything learnt; series unknown here are left out.

        ``number_of``: series numbers (int32, -1: unknown) of series_ids (int64).
        """
        n = self._size
        self._state[:, :n] = 0.0
        self._state[_ROW["slot"], :n] = -1.0
        for array in (self._last, self._weekly, self._daily):
            array[:n] = 0
        numbers = number_of(portable["series_id"])
        known = numbers >= 0
        numbers = numbers[known]
        self._state[:, numbers] = portable["state"][:, known]
        self._last[numbers] = portable["last"][known]
        self._weekly[numbers] = portable["weekly"][known]
        self._daily[numbers] = portable["daily"][known]

    def correct_hour(self, hour_start: int, before: pl.DataFrame, after: pl.DataFrame, later: int) -> None:
        """Replace what was learnt of a closed hour by a newer version of its baselines.

        Args:
            before, after: as ``close_hour`` takes them; a series that ``before`` lacks is learnt like a new hour.
            later: how many hours of the same hour of day were learnt since.
        """
        pairs = after.join(before.select("number", pl.col("quantiles").alias("earlier")), on="number", how="left")
        self.close_hour(hour_start, pairs.filter(pl.col("earlier").is_null()).select(after.columns))
        known = pairs.filter(pl.col("earlier").is_not_null())
        number = known["number"].to_numpy()
        usable = ~self._counter[number]
        number = number[usable]
        if not len(number):
            return
        medians = [known[name].list.get(MEDIAN).to_numpy()[usable] for name in ("quantiles", "earlier")]
        difference = np.clip(medians[0], -_HUGE, _HUGE) - np.clip(medians[1], -_HUGE, _HUGE)
        slot = int(_hour_of_week(np.array([hour_start]))[0])
        for profile, at, later_here in ((self._weekly, slot, 0), (self._daily, slot % 24, later)):
            seen = np.maximum(profile[number, at, 1], 1.0)
            weight = 1.0 / np.maximum(seen - later_here, 1.0)
            for step in range(later_here):
                weight *= 1.0 - 1.0 / np.maximum(seen - step, 1.0)
            profile[number, at, 0] += difference * weight

    def close_hour(self, hour_start: int, baselines: pl.DataFrame) -> None:
        """Learn a closed hour. ``baselines``: ``number`` (Int32), a row a series, and ``quantiles`` as in the table."""
        self.close_hours(np.full(baselines.height, hour_start, np.int64), baselines)

    def close_hours(self, hour_start: NDArray[np.int64], baselines: pl.DataFrame) -> None:
        """``close_hour`` with an hour of its own for each row (µs since the epoch, UTC)."""
        if not baselines.height:
            return
        number = baselines["number"].to_numpy()
        usable = ~self._counter[number]
        number = number[usable]
        median = np.clip(baselines["quantiles"].list.get(MEDIAN).to_numpy()[usable], -_HUGE, _HUGE)
        slot = _hour_of_week(hour_start[usable])
        for profile, at, longest in ((self._weekly, slot, PROFILE_WEEKS), (self._daily, slot % 24, PROFILE_DAYS)):
            seen = np.minimum(profile[number, at, 1] + 1.0, longest)
            profile[number, at, 0] += (median - profile[number, at, 0]) / seen
            profile[number, at, 1] = seen

    def process(self, steps: Iterable[Step], scores: _Floats | None = None) -> tuple[pl.DataFrame, list[Transition]]:
        """Judge new points and learn them.

        Args:
            steps: see ``steps.steps``; every series must have been announced. Points no later than the last of their
                series are left alone.
            scores: when given, filled at each step's ``row`` with the score of every point: 0 to 1, 0.5 for an
                excursion as large as the largest remembered, 0 while an event is open.

        Returns:
            The unusual rows in order of steps (the first ``SHOWN_ROWS`` of an event and clearly worse ones after them):
            row, series, ts, value, expected, lower, upper, score, detector, detector_version, evidence, opens_event;
            ``ts`` in µs since the epoch UTC, ``value`` of counters as rate per second. And the transitions: ``firing``
            when an event opens, and again with the same ``starts_at`` and a higher ``severity_number`` when a notice
            becomes certain; ``resolved`` when it ends.
        """
        found: list[dict[str, Any]] = []
        transitions: list[Transition] = []
        for step in steps:
            first, count = int(step.series[0]), len(step.series)
            whole = int(step.series[-1]) - first + 1 == count and bool((np.diff(step.series) == 1).all())
            index: slice | NDArray[np.int32] = slice(first, first + count) if whole else step.series
            state, last = self._state[:, index], self._last[index]
            with np.errstate(over="ignore", under="ignore"):
                self._judge(step, index, state, last, found, transitions, scores)
            if not whole:
                self._state[:, index] = state
                self._last[index] = last
        return pl.DataFrame(found, schema=_FRAME, orient="row"), transitions

    def _judge(
        self,
        step: Step,
        index: slice | NDArray[np.int32],
        s: _Floats,
        last: NDArray[np.int64],
        found: list[dict[str, Any]],
        transitions: list[Transition],
        scores: _Floats | None,
    ) -> None:
        """One step: update the columns ``s`` and ``last`` in place."""
        r = _ROW
        now = step.ts / MICROS_PER_SECOND
        started = last != 0
        elapsed = np.where(started, (step.ts - last) / MICROS_PER_SECOND, 0.0)
        dropped = self._excluded[index] & (s[r["open"]] > 0.0)
        live = ((elapsed > 0.0) | ~started) & ~self._excluded[index]
        value = np.clip(step.value, -_HUGE, _HUGE)
        counter = self._counter[index]
        if counter.any():
            value = self._rates(value, elapsed, counter, live, s[r["counter_value"]])
            np.copyto(last, step.ts, where=counter & ((elapsed > 0.0) | ~started))
        np.copyto(last, step.ts, where=live)
        if not (live | dropped).any():
            return
        weight = live.astype(np.float64)
        points = s[r["points"]]
        new = live & (points == 0.0)
        if new.any():
            s[r["first"]][new] = now[new]
            for name in ("previous", "slow", "short"):
                s[r[name]][new] = value[new]
        points += weight
        interval = s[r["interval"]]
        pace = np.where(interval > 0.0, np.clip(elapsed, 0.5 * interval, 2.0 * interval), elapsed)
        interval += np.where(interval > 0.0, (pace - interval) * 0.05, pace) * weight
        span = np.maximum(interval, 1e-3)

        def share(horizon: tuple[float, float]) -> _Floats:
            return weight / np.maximum(np.minimum(_points(horizon, span), points), 1.0)

        def learn(name: str, target: _Floats, step_share: _Floats) -> _Floats:
            row = s[r[name]]
            row += (target - row) * step_share
            return row

        short, medium = share(SHORT), share(MEDIUM)
        is_open = s[r["open"]] > 0.0
        usual_length = _points(USUAL, span)
        usual_share = weight / np.maximum(np.minimum(usual_length, points), 1.0)
        both = np.zeros((2 * _K, len(value)))
        signals = both[:_K]
        centre = s[r["slow"]].copy()
        deviation = np.subtract(value, centre, out=signals[_LEVEL])
        np.subtract(learn("short", value, short), centre, out=signals[_LEVEL_SHORT])
        learn("slow", value, share(SLOW))
        change = np.subtract(value, s[r["previous"]], out=signals[_CHANGE])
        gap = elapsed > np.maximum(GAP[0] * span, GAP[1])
        if gap.any():
            change[gap] = 0.0
        np.copyto(s[r["previous"]], value, where=live)
        cut = CUT * s[r["usual_deviation"]]
        signals[_LEVEL_SHIFT] = learn("level_shift", np.clip(deviation, -cut, cut), medium)
        learn("usual_deviation", np.abs(deviation), usual_share)

        self._look_up_season(step, live, s)
        known = s[r["known"]] * weight
        residual = _residual(value, step.ts, s[r["expected"]], s[r["expected_before"]], s[r["expected_after"]]) * known
        s[r["season_points"]] += known
        signals[_SEASON] = learn("season", residual, short)
        cut = CUT * s[r["usual_residual"]]
        signals[_SEASON_SHIFT] = learn("season_shift", np.clip(residual, -cut, cut), medium)
        residual_share = known / np.maximum(np.minimum(usual_length, s[r["season_points"]]), 1.0)
        learn("usual_residual", np.abs(residual), residual_share)
        still = (change == 0.0) & ~gap
        ended_run = np.where(still, 0.0, s[r["run"]])
        np.copyto(s[r["run"]], np.where(still, s[r["run"]] + 1.0, 0.0), where=live)
        s[r["varied"]] += ~still & live
        signals[_RUN] = s[r["run"]]
        np.negative(signals, out=both[_K:])
        both[_K + _RUN] = 0.0

        usual, usual_before, memory = s[_USUAL], s[_USUAL_BEFORE], s[_MEMORY]
        np.copyto(usual_before, usual, where=~is_open)
        floor = USUAL_FLOOR * usual_before
        floor += _RELATIVE * np.abs(centre) + _TINY
        floor[_RUN] = _points(RUN, span)
        scale = np.maximum(memory.reshape(2, _K, -1), floor).reshape(2 * _K, -1)
        scale[_RUN] = np.maximum(floor[_RUN], RUN_MARGIN * memory[_RUN])
        ratio = both / scale
        np.copyto(ratio[_RUN], 0.0, where=s[r["varied"]] < VARIED)
        seasoned = s[r["season_points"]] > _points((WARM_UP_POINTS, SEASON_WARM_UP_SECONDS), span)
        for signal in _SEASONAL:
            np.copyto(ratio[signal], 0.0, where=~seasoned)
        ripe = live & (points > WARM_UP_POINTS) & (now - s[r["first"]] > WARM_UP_SECONDS)
        top = np.where(ripe, _joint(ratio), 0.0)
        usual += (np.abs(signals) - usual) * usual_share

        above = top > OPEN
        calm = s[r["calm"]]
        np.copyto(calm, np.where(top > CALM, 0.0, calm + 1.0), where=live)
        ends = is_open & live & ((calm >= _points(CALM_LENGTH, span)) | (now - s[r["opened"]] > LONGEST_EVENT_SECONDS))
        ends |= dropped
        if scores is not None:
            scores[step.row] = np.where(is_open, 0.0, _score(top))
        hot = np.flatnonzero(above | ends)
        if len(hot):
            self._report(step, s, hot, value, centre, ratio, both, scale, top, ends, found, transitions)

        both[_RUN] = ended_run
        np.maximum(s[_THIS_BLOCK], both, out=s[_THIS_BLOCK], where=True if live.all() else live)
        s[r["block_fill"]] += weight
        full = (s[r["block_fill"]] >= _points(BLOCK, span)) & (s[r["open"]] == 0.0)
        if full.any():
            _remember(s, np.flatnonzero(full), np.flatnonzero(ends & full), span)

    @staticmethod
    def _rates(
        value: _Floats, elapsed: _Floats, counter: NDArray[np.bool_], live: NDArray[np.bool_], before: _Floats
    ) -> _Floats:
        """Counters as rates per second; the first reading and a reset only set the starting point."""
        grown = value - before
        reading = counter & live
        live &= ~counter | ((grown >= 0.0) & (elapsed > 0.0))
        np.copyto(before, value, where=reading)
        return np.where(counter, np.minimum(grown / np.maximum(elapsed, 1e-6), _HUGE), value)

    def _look_up_season(self, step: Step, live: NDArray[np.bool_], s: _Floats) -> None:
        """Renew ``expected`` where a series has come to another hour."""
        slot = _hour_of_week(step.ts)
        moved = np.flatnonzero(live & (slot != s[_ROW["slot"]]))
        if not len(moved):
            return
        number, slot = step.series[moved], slot[moved]
        here, known = self._profile(number, slot)
        s[_ROW["expected"]][moved] = here
        s[_ROW["known"]][moved] = known
        s[_ROW["slot"]][moved] = slot
        for name, neighbour in (("expected_before", slot - 1), ("expected_after", slot + 1)):
            there, known = self._profile(number, neighbour % _HOURS_OF_WEEK)
            s[_ROW[name]][moved] = np.where(known, there, here)

    def _profile(self, number: NDArray[np.int32], slot: NDArray[np.int64]) -> tuple[_Floats, NDArray[np.bool_]]:
        """What is expected in an hour of the week (0 when unknown), and whether it is known."""
        weekly, daily = self._weekly[number, slot], self._daily[number, slot % 24]
        by_week, by_day = weekly[:, 1] >= 2.0, daily[:, 1] >= 2.0
        return np.where(by_week, weekly[:, 0], np.where(by_day, daily[:, 0], 0.0)), by_week | by_day

    def _report(
        self,
        step: Step,
        s: _Floats,
        hot: NDArray[np.int64],
        value: _Floats,
        centre: _Floats,
        ratio: _Floats,
        both: _Floats,
        scale: _Floats,
        top: _Floats,
        ends: NDArray[np.bool_],
        found: list[dict[str, Any]],
        transitions: list[Transition],
    ) -> None:
        """Open, sharpen and end events; rows of unusual points."""
        r = _ROW
        notice = min(self._severity, _SEVERITY["info"])
        for i in hot.tolist():
            ts, row, number = int(step.ts[i]), int(step.row[i]), int(step.series[i])
            strongest = int(np.argmax(ratio[:, i]))
            signal = strongest % _K
            opens = not s[r["open"], i]
            if opens:
                s[r["open"], i], s[r["opened"], i], s[r["opened_signal"], i] = 1.0, ts / MICROS_PER_SECOND, signal
            common: dict[str, Any] = {
                "kind": "anomaly",
                "name": _DETECTORS[int(s[r["opened_signal"], i])],
                "series": number,
                "starts_at": round(float(s[r["opened"], i]) * MICROS_PER_SECOND),
                "at": ts,
                "value": float(value[i]),
                "row": row,
            }
            certain = self._severity > notice and _is_certain(float(top[i]), s[:, i], ts)
            sharpens = certain and not s[r["certain"], i]
            shown = top[i] > OPEN and (s[r["shown"], i] < SHOWN_ROWS or top[i] > CLEARLY_WORSE * s[r["peak"], i])
            if opens or sharpens or shown:
                evidence, expected, lower, upper = _evidence(
                    s[:, i], strongest, float(centre[i]), ratio[:, i], both[:, i], scale[:, i]
                )
                found.append(
                    {
                        "row": row, "series": number, "ts": ts, "value": float(value[i]), "expected": expected,
                        "lower": lower, "upper": upper, "score": float(_score(top[i])), "detector": _DETECTORS[signal],
                        "detector_version": DETECTOR_VERSION, "evidence": orjson.dumps(evidence).decode(),
                        "opens_event": opens,
                    }
                )  # fmt: skip
                s[r["shown"], i] += 1.0
                s[r["peak"], i] = max(s[r["peak"], i], top[i])
                if opens or sharpens:
                    s[r["certain"], i] = certain
                    wording = _wording(signal, float(value[i]), lower, upper, evidence, ts)
                    transitions.append(
                        Transition(
                            **common,
                            state=FIRING,
                            severity_number=self._severity if certain else notice,
                            summary=f"{self._names[number]}: {wording}",
                            threshold=upper if strongest < _K else lower,
                            evidence=evidence,
                        )
                    )
            if ends[i]:
                outcome = "back to what is usual" if s[r["calm"], i] else "taken as the new normal"
                if self._excluded[number]:
                    outcome = "no longer judged"
                transitions.append(
                    Transition(
                        **common,
                        state=RESOLVED,
                        severity_number=self._severity if s[r["certain"], i] else notice,
                        summary=f"{self._names[number]}: {value[i]:.4g}, {outcome}",
                    )
                )
                for name in ("open", "certain", "shown", "peak"):
                    s[r[name], i] = 0.0


def _residual(value: _Floats, ts: NDArray[np.int64], here: _Floats, before: _Floats, after: _Floats) -> _Floats:
    """The smaller deviation: from the hour's own level (for what jumps on the hour), or between the hours' middles."""
    share = (ts % MICROS_PER_HOUR) / MICROS_PER_HOUR
    early = before * (0.5 - share) + here * (0.5 + share)
    late = after * (share - 0.5) + here * (1.5 - share)
    stepped, sloped = value - here, value - np.where(share < 0.5, early, late)
    return np.where(np.abs(sloped) < np.abs(stepped), sloped, stepped)


def _joint(ratio: _Floats) -> _Floats:
    """One ratio for all signals, their 8-norm: the largest, and somewhat more when others agree (at most 1e6)."""
    power = np.clip(ratio, 0.0, 5e5)
    for _ in range(3):
        power *= power
    # row by row: a reduction along the axis may add in another order for another number of series
    total = power[0]
    for row in power[1:]:
        total += row
    for _ in range(3):
        np.sqrt(total, out=total)
    return total


def _points(horizon: tuple[float, float], span: _Floats) -> _Floats:
    """A horizon of (points, seconds) in points of a series with this interval."""
    return np.maximum(horizon[1] / span, horizon[0])


def _remember(s: _Floats, full: NDArray[np.int64], ended: NDArray[np.int64], span: _Floats) -> None:
    """Rotate blocks: the one before enters memory; after an event the whole of it does."""
    length = _points((HALF_LIFE_POINTS, HALF_LIFE_SECONDS), span[full])
    fade = 1.0 - np.minimum(np.log(2.0) * s[_ROW["block_fill"], full] / length, 0.5)
    s[_MEMORY, full] = np.maximum(s[_MEMORY, full] * fade, s[_LAST_BLOCK, full])
    s[_LAST_BLOCK, full] = s[_THIS_BLOCK, full]
    s[_MEMORY, ended] = np.maximum(s[_MEMORY, ended], s[_THIS_BLOCK, ended])
    s[_THIS_BLOCK, full] = 0.0
    s[_ROW["block_fill"], full] = 0.0


def _is_certain(top: float, s: _Floats, ts: int) -> bool:
    """Whether an unusual point is more than a notice, given the state of its series."""
    young = ts / MICROS_PER_SECOND - s[_ROW["first"]] < DOUBT_SECONDS
    sparse = s[_ROW["varied"]] < AMPLY * s[_ROW["points"]]
    return bool(s[_ROW["varied"]] >= VARIED and top > CERTAIN * (DOUBT if young or sparse else 1.0))


def _evidence(
    s: _Floats, strongest: int, centre: float, ratio: _Floats, both: _Floats, scale: _Floats
) -> tuple[dict[str, Any], float, float, float]:
    """The numbers behind a verdict on one series, and expected value, lower and upper edge of what was expected."""
    signal = strongest % _K
    expected = float(s[_ROW["expected"]]) if strongest in _SEASONAL else centre
    above, below = (signal, _K + signal) if signal != _RUN else (_LEVEL, _K + _LEVEL)
    lower, upper = expected - float(scale[below]), expected + float(scale[above])
    usual = max(float(s[_USUAL_BEFORE][signal]), _TINY)
    evidence = {
        "signal": _SIGNALS[signal],
        "side": "above" if strongest < _K else "below",
        "excursion": float(both[strongest]),
        "limit": float(scale[strongest]),
        "largest_remembered": float(s[_MEMORY][strongest]),
        "ratio": min(float(ratio[strongest]), 1e6),
        "centre": expected,
        "scale": usual,
        "z": float(np.clip(both[strongest] / usual, -1e6, 1e6)),
        "n": int(s[_ROW["points"]]),
        "interval_seconds": float(s[_ROW["interval"]]),
        "passed": {
            f"{_SIGNALS[k % _K]} {'above' if k < _K else 'below'}": min(float(ratio[k]), 1e6)
            for k in np.flatnonzero(ratio > CALM).tolist()
        },
    }
    return evidence, expected, lower, upper


def _wording(signal: int, value: float, lower: float, upper: float, evidence: Mapping[str, Any], ts: int) -> str:
    if signal == _RUN:
        lasted = timedelta(seconds=round(evidence["excursion"] * evidence["interval_seconds"]))
        return f"{value:.4g} without any change for {lasted}"
    if signal == _CHANGE:
        return f"{value:.4g}, a change of {evidence['excursion']:.4g}; up to {evidence['limit']:.4g} is usual"
    when = EPOCH + timedelta(microseconds=ts)
    at = f" for {_DAYS[when.weekday()]} {when:%H}:00 UTC" if signal in _SEASONAL else ""
    return f"{value:.4g}, expected {lower:.4g} to {upper:.4g}{at}"


def _score(top: Any) -> Any:
    return 1.0 - 1.0 / (1.0 + top * top)


def _hour_of_week(ts: NDArray[np.int64]) -> NDArray[np.int64]:
    """0 is Monday 00:00 to 01:00 UTC."""
    return (ts // MICROS_PER_HOUR + _EPOCH_HOUR) % _HOURS_OF_WEEK


def _wider(array: NDArray[Any], axis: int, size: int) -> NDArray[Any]:
    shape = list(array.shape)
    shape[axis] = size - shape[axis]
    return np.concatenate([array, np.zeros(shape, array.dtype)], axis=axis)
