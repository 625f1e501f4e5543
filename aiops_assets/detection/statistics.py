"""Tier 1: statistics of each series against its own past, point by point.

What belongs here: the detector's state, its recurrences (NumPy over all series of a step) and the events it raises. What
does not: absolute rules (``rules``), what becomes of an event (``alerts``), and how baselines come about
(``baselines``).

Every point gives a handful of *signals*: the deviation from the slow level (as it is, and smoothed over two horizons),
the change from the point before, the activity (smoothed size of changes, as a logarithm), the deviation from the
seasonal profile (as it is, and smoothed), and the length of the run of equal values. A signal is judged by how far it
goes beyond the largest excursion to that side in the series' memory, which fades with a half-life: ``ratio`` = excursion
/ max(remembered excursion, a multiple of the usual size). This is free of units and of assumptions about the tails: on
an exchangeable series a new record has probability 1/n, and one that beats the old by a margin much less.
An event opens when a ratio passes ``OPEN``; while it is open no other opens on the series, and what it showed enters the
memory when it closes, so the same thing is not reported every time.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
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
from aiops_assets.hours import MICROS_PER_HOUR, MICROS_PER_SECOND

DETECTOR_VERSION = "tier1-1"
_SEVERITY = {"trace": 1, "debug": 5, "info": 9, "warning": 13, "error": 17, "critical": 21}

#: a signal's excursion over the remembered one at which an event opens, and below which it counts as calm
OPEN, CALM = 1.25, 1.0
#: no verdict before a series has this many points over this many seconds
WARM_UP_POINTS, WARM_UP_SECONDS = 150.0, 86_400.0
#: horizons: at least so many points, at least so many seconds
SHORT, MEDIUM, SLOW = (6.0, 300.0), (48.0, 3_600.0), (500.0, 172_800.0)
#: memory of excursions fades by half in this many seconds, but not faster than in so many points
HALF_LIFE_SECONDS, HALF_LIFE_POINTS = 14 * 86_400.0, 1_000.0
#: points in a block: memory learns a block after the next one is complete, so that it cannot follow a ramp
BLOCK = 12.0
#: an event ends after so many calm points, or when it has lasted this many seconds: then it is the new normal
CALM_POINTS, LONGEST_EVENT_SECONDS = 12.0, 86_400.0
#: a memory is never smaller than this multiple of the signal's usual absolute size
USUAL_FLOOR = 4.0
_HUGE = 1e150
_TINY = 1e-200

_SIGNALS = (
    "level",
    "level_short",
    "level_medium",
    "change",
    "activity",
    "season",
    "season_short",
    "season_medium",
    "run",
)
_DETECTORS = (
    "robust_z",
    "level_shift",
    "level_shift",
    "spike",
    "activity",
    "seasonal",
    "seasonal",
    "seasonal",
    "flatline",
)
_K = len(_SIGNALS)
_SEASON = slice(5, 8)
_SCALARS = (
    "points", "first", "previous", "interval", "slow", "short", "medium", "activity", "activity_slow", "season_short",
    "season_medium", "season_points", "run", "block_fill", "expected", "slot", "open", "opened", "calm", "opened_signal",
    "peak", "counter_value",
)  # fmt: skip
_ROW = {name: index for index, name in enumerate(_SCALARS)}
_USUAL = slice(len(_SCALARS), len(_SCALARS) + _K)
_MEMORY = slice(_USUAL.stop, _USUAL.stop + 2 * _K)
_LAST_BLOCK = slice(_MEMORY.stop, _MEMORY.stop + 2 * _K)
_THIS_BLOCK = slice(_LAST_BLOCK.stop, _LAST_BLOCK.stop + 2 * _K)
_ROWS = _THIS_BLOCK.stop
_HOURS_OF_WEEK = 168

_FRAME = {
    "row": pl.Int64, "series": pl.Int32, "ts": pl.Int64, "value": pl.Float64, "expected": pl.Float64,
    "lower": pl.Float64, "upper": pl.Float64, "score": pl.Float64, "detector": pl.String,
    "detector_version": pl.String, "evidence": pl.String, "opens_event": pl.Boolean,
}  # fmt: skip


class Tier1:
    """The detector of all series. Not thread-safe; deterministic: the result depends on the points, not on batches."""

    def __init__(self, settings: Statistics | None = None) -> None:
        self._settings = settings or Statistics()
        self._severity = _SEVERITY[self._settings.severity]
        self._size = 0
        self._names: list[str] = []
        self._state = np.zeros((_ROWS, 0))
        self._last = np.zeros(0, np.int64)
        self._counter = np.zeros(0, bool)
        self._excluded = np.zeros(0, bool)
        self._profile = np.zeros((0, _HOURS_OF_WEEK, 2))
        self._daily = np.zeros((0, 24, 2))

    def grow(self, new: pl.DataFrame) -> None:
        """Add series: columns ``host``, ``metric``, ``labels``, ``kind`` of ``SeriesDirectory.frame``, numbers continue."""
        count = self._size + new.height
        if count > self._state.shape[1]:
            room = max(count, 2 * self._state.shape[1], 64)
            self._state = _wider(self._state, 1, room)
            self._last = _wider(self._last, 0, room)
            self._counter = _wider(self._counter, 0, room)
            self._excluded = _wider(self._excluded, 0, room)
            self._profile = _wider(self._profile, 0, room)
            self._daily = _wider(self._daily, 0, room)
        metrics = new["metric"].to_list()
        self._counter[self._size : count] = (new["kind"] == "counter").to_numpy()
        self._excluded[self._size : count] = self._excludes(metrics)
        self._names += [f"{metric} on {host}" for metric, host in zip(metrics, new["host"].to_list(), strict=True)]
        self._state[_ROW["slot"], self._size : count] = -1.0
        self._state[_ROW["opened_signal"], self._size : count] = -1.0
        self._size = count

    def reconfigure(self, settings: Statistics, directory: pl.DataFrame) -> None:
        """Take other settings; what was learnt stays. ``directory`` is the whole series directory, ordered by number."""
        self._settings = settings
        self._severity = _SEVERITY[settings.severity]
        self._excluded[: self._size] = self._excludes(directory["metric"].to_list()[: self._size])

    def _excludes(self, metrics: list[str]) -> list[bool]:
        return [any(fnmatchcase(metric, pattern) for pattern in self._settings.exclude) for metric in metrics]

    def state(self) -> dict[str, NDArray[Any]]:
        """Everything learnt, as plain arrays; ``load`` restores it exactly."""
        n = self._size
        return {
            "state": self._state[:, :n].copy(),
            "last": self._last[:n].copy(),
            "profile": self._profile[:n].copy(),
            "daily": self._daily[:n].copy(),
            "version": np.array([DETECTOR_VERSION]),
        }

    def load(self, state: dict[str, NDArray[Any]]) -> None:
        """Restore what ``state`` gave; ``grow`` must have announced at least as many series.

        Raises:
            ValueError: the state is of another detector version or of more series than announced.
        """
        version = str(state["version"][0])
        if version != DETECTOR_VERSION:
            raise ValueError(f"state is of detector {version}, this is {DETECTOR_VERSION}")
        n = len(state["last"])
        if n > self._size:
            raise ValueError(f"state holds {n} series, only {self._size} were announced")
        self._state[:, :n] = state["state"]
        self._last[:n] = state["last"]
        self._profile[:n] = state["profile"]
        self._daily[:n] = state["daily"]

    def close_hour(self, hour_start: int, baselines: pl.DataFrame) -> None:
        """Learn a closed hour. ``baselines``: ``number`` (Int32) and the columns of ``baselines.close``."""
        self.close_hours(np.full(baselines.height, hour_start, np.int64), baselines)

    def close_hours(self, hour_start: NDArray[np.int64], baselines: pl.DataFrame) -> None:
        """``close_hour`` with an hour of its own for each row (µs since the epoch, UTC); one row a series."""
        if not baselines.height:
            return
        number = baselines["number"].to_numpy()
        mean = np.clip(baselines["mean"].to_numpy(), -_HUGE, _HUGE)
        week = (hour_start // MICROS_PER_HOUR + 72) % _HOURS_OF_WEEK
        usable = ~self._counter[number]
        number, mean, week = number[usable], mean[usable], week[usable]
        for table, slot, longest in ((self._profile, week, 4.0), (self._daily, week % 24, 7.0)):
            seen = np.minimum(table[number, slot, 1] + 1.0, longest)
            table[number, slot, 0] += (mean - table[number, slot, 0]) / seen
            table[number, slot, 1] = seen

    def process(
        self, steps: Iterable[Step], scores: NDArray[np.float64] | None = None
    ) -> tuple[pl.DataFrame, list[Transition]]:
        """Judge new points and learn them.

        Args:
            steps: see ``steps.steps``; every series must have been announced.
            scores: when given, filled at each step's ``row`` with the score (0 to 1) of every point.

        Returns:
            The unusual rows (row, series, ts, value, expected, lower, upper, score, detector, detector_version,
            evidence, opens_event; ``ts`` in µs since the epoch UTC) in order of steps, and the transitions.
        """
        found: list[dict[str, Any]] = []
        transitions: list[Transition] = []
        for step in steps:
            index: slice | NDArray[np.int32]
            first, count = int(step.series[0]), len(step.series)
            whole = int(step.series[-1]) - first + 1 == count and bool((np.diff(step.series) == 1).all())
            index = slice(first, first + count) if whole else step.series
            state = self._state[:, index]
            last = self._last[index]
            with np.errstate(over="ignore", under="ignore"):
                self._step(step, index, state, last, found, transitions, scores)
            if not whole:
                self._state[:, index] = state
                self._last[index] = last
        return pl.DataFrame(found, schema=_FRAME, orient="row"), transitions

    def _step(
        self,
        step: Step,
        index: slice | NDArray[np.int32],
        s: NDArray[np.float64],
        last: NDArray[np.int64],
        found: list[dict[str, Any]],
        transitions: list[Transition],
        scores: NDArray[np.float64] | None,
    ) -> None:
        r = _ROW
        points = s[r["points"]]
        started = last != 0
        elapsed = np.where(started, (step.ts - last) / MICROS_PER_SECOND, 0.0)
        live = (elapsed > 0.0) | ~started
        live &= ~self._excluded[index]
        value = np.clip(step.value, -_HUGE, _HUGE)
        counter = self._counter[index]
        if counter.any():
            grown = value - s[r["counter_value"]]
            rate = grown / np.where(elapsed > 0.0, elapsed, 1.0)
            reading = live & counter
            np.copyto(s[r["counter_value"]], value, where=reading)
            live &= ~counter | ((grown >= 0.0) & started)
            np.copyto(last, step.ts, where=reading)
            value = np.where(counter, rate, value)
        np.copyto(last, step.ts, where=live)
        if not live.any():
            return

        new = live & (points == 0.0)
        s[r["first"]][new] = step.ts[new] / MICROS_PER_SECOND
        for name in ("previous", "slow", "short", "medium"):
            np.copyto(s[r[name]], value, where=new)
        np.add(points, 1.0, out=points, where=live)
        interval = s[r["interval"]]
        pace = np.where(interval > 0.0, np.clip(elapsed, 0.5 * interval, 2.0 * interval), elapsed)
        interval += np.where(live, (pace - interval) / np.minimum(points, 20.0), 0.0)
        span = np.maximum(interval, 1e-3)

        def learn(row: NDArray[np.float64], target: NDArray[np.float64], horizon: tuple[float, float]) -> None:
            length = np.minimum(np.maximum(horizon[0], horizon[1] / span), points)
            row += np.where(live, (target - row) / np.maximum(length, 1.0), 0.0)

        signals = np.zeros((_K, len(value)))
        change = value - s[r["previous"]]
        slow = s[r["slow"]].copy()
        learn(s[r["short"]], value, SHORT)
        learn(s[r["medium"]], value, MEDIUM)
        learn(s[r["slow"]], value, SLOW)
        signals[0] = value - slow
        signals[1] = s[r["short"]] - slow
        signals[2] = s[r["medium"]] - slow
        signals[3] = change
        size = np.abs(change)
        learn(s[r["activity"]], size, (24.0, 1800.0))
        usual_activity = s[r["activity_slow"]] + 1e-9 * np.abs(slow) + _TINY
        signals[4] = np.log((s[r["activity"]] + 0.05 * usual_activity) / (1.05 * usual_activity))
        learn(s[r["activity_slow"]], size, SLOW)
        np.copyto(s[r["previous"]], value, where=live)

        slot = (step.ts // MICROS_PER_HOUR + 72) % _HOURS_OF_WEEK
        moved = np.flatnonzero(live & (slot != s[r["slot"]]))
        if len(moved):
            number = step.series[moved]
            weekly, daily = self._profile[number, slot[moved]], self._daily[number, slot[moved] % 24]
            expected = np.where(weekly[:, 1] >= 2.0, weekly[:, 0], np.where(daily[:, 1] >= 2.0, daily[:, 0], np.nan))
            s[r["expected"]][moved] = expected
            s[r["slot"]][moved] = slot[moved]
        known = ~np.isnan(s[r["expected"]]) & live
        residual = np.where(known, value - s[r["expected"]], 0.0)
        s[r["season_points"]] += known
        learn(s[r["season_short"]], residual, SHORT)
        learn(s[r["season_medium"]], residual, MEDIUM)
        signals[5] = residual
        signals[6] = s[r["season_short"]]
        signals[7] = s[r["season_medium"]]
        run = s[r["run"]]
        np.copyto(run, np.where(change == 0.0, run + 1.0, 0.0), where=live)
        signals[8] = run

        age = step.ts / MICROS_PER_SECOND - s[r["first"]]
        ripe = live & (points > WARM_UP_POINTS) & (age > WARM_UP_SECONDS)
        both = np.concatenate([signals, -signals])
        both[-1] = 0.0
        usual = s[_USUAL]
        floor = USUAL_FLOOR * usual + 1e-9 * np.abs(slow) + _TINY
        floor[4] = np.maximum(floor[4], 1.0)
        floor[8] = np.maximum(floor[8], np.maximum(30.0, 3600.0 / span))
        memory = s[_MEMORY]
        ratio = both / np.maximum(memory, np.concatenate([floor, floor]))
        seasoned = s[r["season_points"]] > np.maximum(WARM_UP_POINTS, 2 * WARM_UP_SECONDS / span)
        ratio[_SEASON] *= seasoned
        ratio[_K + 5 : _K + 8] *= seasoned
        top = ratio.max(axis=0)
        top = np.where(ripe, np.maximum(top, 0.0), 0.0)
        usual += np.where(live, (np.abs(signals) - usual) / np.minimum(points, 1000.0), 0.0)

        is_open = s[r["open"]] > 0.0
        opens = ~is_open & (top > OPEN)
        calm = s[r["calm"]]
        np.copyto(calm, np.where(top > CALM, 0.0, calm + 1.0), where=live)
        ends = (
            is_open
            & live
            & ((calm >= CALM_POINTS) | (step.ts / MICROS_PER_SECOND - s[r["opened"]] > LONGEST_EVENT_SECONDS))
        )

        this, before = s[_THIS_BLOCK], s[_LAST_BLOCK]
        np.maximum(this, both, out=this, where=live)
        s[r["block_fill"]] += live
        full = (s[r["block_fill"]] >= BLOCK) & (~is_open | ends) & ~opens
        if full.any():
            where = np.flatnonzero(full)
            fade = 0.5 ** (BLOCK * span[where] / np.maximum(HALF_LIFE_SECONDS, HALF_LIFE_POINTS * span[where]))
            memory[:, where] = np.maximum(memory[:, where] * fade, before[:, where])
            before[:, where] = this[:, where]
            this[:, where] = 0.0
            s[r["block_fill"]][where] = 0.0

        if scores is not None:
            scores[step.row] = np.where(is_open, 0.0, 1.0 - 1.0 / (1.0 + top * top))
        np.copyto(s[r["open"]], 1.0, where=opens)
        np.copyto(s[r["opened"]], step.ts / MICROS_PER_SECOND, where=opens)
        np.copyto(s[r["open"]], 0.0, where=ends)
        unusual = np.flatnonzero(opens | (is_open & (top > OPEN)))
        if len(unusual) or ends.any():
            self._report(
                step, s, value, slow, ratio, both, memory, floor, top, opens, unusual, ends, found, transitions
            )

    def _report(
        self,
        step: Step,
        s: NDArray[np.float64],
        value: NDArray[np.float64],
        slow: NDArray[np.float64],
        ratio: NDArray[np.float64],
        both: NDArray[np.float64],
        memory: NDArray[np.float64],
        floor: NDArray[np.float64],
        top: NDArray[np.float64],
        opens: NDArray[np.bool_],
        unusual: NDArray[np.int64],
        ends: NDArray[np.bool_],
        found: list[dict[str, Any]],
        transitions: list[Transition],
    ) -> None:
        r = _ROW
        for i in sorted({*unusual.tolist(), *np.flatnonzero(ends).tolist()}):
            number, ts = int(step.series[i]), int(step.ts[i])
            strongest = int(np.argmax(ratio[:, i]))
            signal = strongest % _K
            expected = float(s[r["expected"], i]) if _SEASON.start <= signal < _SEASON.stop else float(slow[i])
            lower = expected - float(max(memory[_K, i], floor[0, i]))
            upper = expected + float(max(memory[0, i], floor[0, i]))
            evidence = {
                "signal": _SIGNALS[signal],
                "side": "above" if strongest < _K else "below",
                "ratio": float(top[i]),
                "excursion": float(both[strongest, i]),
                "remembered": float(memory[strongest, i]),
                "points": int(s[r["points"], i]),
                "passed": {_SIGNALS[k % _K]: float(ratio[k, i]) for k in np.flatnonzero(ratio[:, i] > OPEN).tolist()},
            }
            name = _DETECTORS[signal]
            if opens[i] or not ends[i]:
                found.append(
                    {
                        "row": int(step.row[i]), "series": number, "ts": ts, "value": float(value[i]),
                        "expected": expected, "lower": lower, "upper": upper,
                        "score": float(1.0 - 1.0 / (1.0 + top[i] * top[i])), "detector": name,
                        "detector_version": DETECTOR_VERSION, "evidence": orjson.dumps(evidence).decode(),
                        "opens_event": bool(opens[i]),
                    }
                )  # fmt: skip
            when = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=ts)
            if opens[i]:
                s[r["opened_signal"], i] = signal
                transitions.append(
                    Transition(
                        kind="anomaly", name=name, series=number, state=FIRING, starts_at=ts, at=ts,
                        severity_number=self._severity,
                        summary=f"{self._names[number]}: {value[i]:.4g}, expected {lower:.4g} to {upper:.4g} "
                        f"for {when:%A}s {when:%H}:00 UTC",
                        value=float(value[i]), threshold=upper if strongest < _K else lower, evidence=evidence,
                        row=int(step.row[i]),
                    )
                )  # fmt: skip
            elif ends[i]:
                transitions.append(
                    Transition(
                        kind="anomaly", name=_DETECTORS[int(s[r["opened_signal"], i])], series=number, state=RESOLVED,
                        starts_at=round(s[r["opened"], i] * MICROS_PER_SECOND), at=ts, severity_number=self._severity,
                        summary=f"{self._names[number]}: back to what is usual", value=float(value[i]),
                        row=int(step.row[i]),
                    )
                )  # fmt: skip


def _wider(array: NDArray[Any], axis: int, size: int) -> NDArray[Any]:
    shape = list(array.shape)
    shape[axis] = size - shape[axis]
    return np.concatenate([array, np.zeros(shape, array.dtype)], axis=axis)
