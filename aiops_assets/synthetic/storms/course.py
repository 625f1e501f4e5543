"""The course of signals: load, level, faults, noise, as arrays of samples by hosts.

What belongs here: values. What does not: when things happen (``faults``) and how values are written (``lines``).

A sample is known by its step, the number of whole intervals since the epoch, so that every value is a pure function of
seed, start, stream, signal, host and step. Arrays are float64 [T, H] of T steps and H hosts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aiops_assets.hours import MICROS_PER_SECOND
from aiops_assets.synthetic.storms.faults import LOAD, Applied, Plan, groups_of_hops
from aiops_assets.synthetic.storms.fleet import Stream
from aiops_assets.synthetic.storms.noise import (
    Floats,
    Ints,
    Salts,
    normal,
    salt,
    salts,
    uniform,
    wandering,
    with_tails,
)
from aiops_assets.synthetic.storms.scenario import Load
from aiops_assets.synthetic.storms.vocabulary import Signal

_DAY, _WEEK = 86_400.0, 604_800.0
#: from this share of its most on a signal that follows the load rises ever more slowly
_KNEE = 0.85
_SPIKE_SECONDS = 90


@dataclass(frozen=True, slots=True)
class Without:
    """What is left out: the noise, and the occurrences of these ids."""

    noise: bool = False
    occurrences: frozenset[str] = frozenset()


PLAIN = Without()


class Course:
    """Values of one stream. ``interval`` is that of its history or of the storm itself."""

    def __init__(self, plan: Plan, stream: Stream, interval: int) -> None:
        self.plan, self.stream, self.interval = plan, stream, interval
        self._salts: dict[str, Salts] = {}
        self._levels: dict[str, Floats] = {}
        #: that of the instants asked for last, because all signals of a window ask for the same
        self._load: tuple[tuple[object, ...], Floats] | None = None
        seed = plan.seed
        self._service = np.array([salt(seed, "load", stream.service or stream.group)], dtype=np.uint64)

    def steps(self, begin: int, end: int) -> Ints:
        """Numbers of the samples that are sent in [begin, end): a late one counts as late as any may come."""
        late = self.stream.jitter
        return np.arange(-(-(begin - late) // self.interval), -(-(end - late) // self.interval), dtype=np.int64)

    def firsts(self, steps: Ints, edges: Ints) -> Ints:
        """[B + 1] index of the first sample of each bucket."""
        return np.searchsorted(steps * self.interval + self.stream.jitter, edges).astype(np.int64)

    def values(self, name: str, steps: Ints, without: Without = PLAIN) -> Floats:
        """[T, H] of a signal, NaN where a fault silences it."""
        at = steps * self.interval
        signal = self.stream.signals[name]
        load = self.load(at, without)
        found = self._base(name, signal, at, load)
        noise_of = None
        for applied in self._effects(name, at, without):
            if applied.effect.do == "noise":
                noise_of = self._louder(noise_of, applied, at, found.shape)
            elif applied.effect.do == "freeze":
                self._freeze(found, applied, name, at, without)
            else:
                _apply(found, applied, at)
        if not without.noise:
            frozen = self.frozen(name, at, without)
            factor = self._noise(name, signal, steps, at)
            if noise_of is not None:
                factor *= noise_of
            factor += 1.0
            if frozen is not None:
                factor[frozen] = 1.0
            found *= factor
            if signal.spikes:
                found += found * self._spikes(name, signal, at)
        np.clip(found, signal.least, np.inf if signal.most is None else signal.most, out=found)
        if signal.quantum:
            found = np.rint(found / signal.quantum) * signal.quantum
        return found

    def load(self, at: Ints, without: Without = PLAIN) -> Floats:
        """[T, 1] or [T, H]: the load of the stream's service, 1 on average."""
        key = (int(at[0]) if at.size else 0, int(at[-1]) if at.size else 0, len(at), without)
        if self._load is None or self._load[0] != key:
            self._load = (key, self._new_load(at, without))
        return self._load[1]

    def _new_load(self, at: Ints, without: Without) -> Floats:
        load = self.stream.load
        made = usual_load(load, at) * (1.0 + load.growth * (at - self.plan.start_at) / (_WEEK * MICROS_PER_SECOND))
        found = made[:, None]
        if not without.noise and load.noise and at.size:
            found = found * (1.0 + load.noise * wandering(at, self._service))
        effects = self._effects(LOAD, at, without)
        if effects:
            found = np.repeat(found, len(self.stream.hosts), axis=1)
            for applied in effects:
                _apply(found, applied, at)
        return found

    def silent(self, steps: Ints) -> NDArray[np.bool_] | None:
        """[T, H]: where a host sends nothing at all; ``None`` for nowhere."""
        at = steps * self.interval
        found = None
        for applied in self._effects("*", at, PLAIN):
            if applied.effect.do != "silence":
                continue
            if found is None:
                found = np.zeros((len(steps), len(self.stream.hosts)), dtype=bool)
            for hop, columns in groups_of_hops(applied):
                found[:, columns] |= (_progress(applied, at, hop) > 0)[:, None]
        return found

    def lost(self, steps: Ints) -> NDArray[np.bool_] | None:
        """[T, H]: samples that never come, single ones and now and then several in a row."""
        share = self.stream.lost
        if not share:
            return None
        single = uniform(steps, self._salt("lost")) < share * 0.6
        runs = uniform(steps // 5, self._salt("lost in a row")) < share * 0.4
        return single | runs

    def skew(self, at: Ints) -> Floats | None:
        """[T, H] microseconds by which the hosts' clocks are ahead; ``None`` when all are right."""
        found = None
        for applied in self._effects("*", at, PLAIN):
            if applied.effect.do != "skew":
                continue
            if found is None:
                found = np.zeros((len(at), len(self.stream.hosts)))
            for hop, columns in groups_of_hops(applied):
                shift = applied.amount * applied.occurrence.strength(hop) * MICROS_PER_SECOND
                found[:, columns] += (_progress(applied, at, hop) * shift)[:, None]
        return found

    def stamps(self, steps: Ints) -> Ints:
        """[T, H] instants that the hosts tell for their samples."""
        made = np.repeat((steps * self.interval)[:, None], len(self.stream.hosts), axis=1)
        if self.stream.jitter:
            made += (uniform(steps, self._salt("jitter")) * self.stream.jitter).astype(np.int64)
        skew = self.skew(steps * self.interval)
        if skew is not None:
            made += skew.astype(np.int64)
        return made

    def restarts(self, begin: int, end: int) -> list[tuple[int, Ints]]:
        """(instant, columns) of hosts whose counters begin again in [begin, end)."""
        found = []
        for applied in self.plan.applied(self.stream, "*"):
            if applied.effect.do == "restart":
                for hop, columns in groups_of_hops(applied):
                    instant = applied.occurrence.start + applied.occurrence.delay(hop)
                    if begin <= instant < end:
                        found.append((instant, columns))
        return found

    def deviation(self, name: str, at: Ints) -> Floats:
        """[T, H] standard deviation of the ordinary noise of a signal, that of its load included."""
        signal = self.stream.signals[name]
        base = self._base(
            name, signal, at, self.load(at, Without(True, frozenset(o.id for o in self.plan.occurrences)))
        )
        relative = np.hypot(signal.noise, self.stream.load.noise * signal.load)
        found: Floats = np.maximum(np.abs(base) * relative, 0.29 * signal.quantum)
        return found

    def level(self, name: str) -> Floats:
        """[H]: hosts differ, by the ``spread`` of the signal."""
        if name not in self._levels:
            signal = self.stream.signals[name]
            deviates = normal(np.zeros(1, np.int64), self._salt(f"{name} level"))[0]
            self._levels[name] = signal.level * np.clip(1.0 + signal.spread * deviates, 0.2, 3.0)
        return self._levels[name]

    def _base(self, name: str, signal: Signal, at: Ints, load: Floats) -> Floats:
        """[T, H] without faults of its own and without noise."""
        factor = np.maximum(1.0 + signal.load * (load - 1.0), 0.0) if signal.load else np.ones_like(load)
        if signal.capacity is not None:
            factor = factor * (1.0 - 1.0 / signal.capacity) / (1.0 - np.minimum(load / signal.capacity, 0.97))
        if signal.daily or signal.weekly:
            own = Load(daily=min(0.99, abs(signal.daily)), weekly=min(0.99, abs(signal.weekly)))
            factor = factor * usual_load(own, at)[:, None]
        if signal.growth:
            factor = factor * (1.0 + signal.growth * (at - self.plan.start_at) / (_WEEK * MICROS_PER_SECOND))[:, None]
        found: Floats = factor * self.level(name)[None, :]
        if signal.most is not None and signal.load:
            knee = _KNEE * signal.most
            over = found > knee
            if over.any():
                room = signal.most - knee
                found[over] = knee + room * -np.expm1(-(found[over] - knee) / room)
        return found

    def _noise(self, name: str, signal: Signal, steps: Ints, at: Ints) -> Floats:
        if not signal.noise:
            return np.zeros((len(steps), len(self.stream.hosts)))
        salted = self._salt(name)
        quick = with_tails(normal(steps, salted), signal.tails)
        quick *= signal.noise * np.sqrt(1.0 - signal.slow)
        if signal.slow and at.size:
            slow = wandering(at, salted)
            slow *= signal.noise * np.sqrt(signal.slow)
            quick += slow
        return quick

    def _spikes(self, name: str, signal: Signal, at: Ints) -> Floats:
        slot = at // (_SPIKE_SECONDS * MICROS_PER_SECOND)
        salted = self._salt(f"{name} spikes")
        there = uniform(slot, salted) < signal.spikes * _SPIKE_SECONDS / _DAY
        if not there.any():
            return np.zeros(there.shape)
        size = -np.log1p(-uniform(slot, salted + np.uint64(1))) * signal.spike_size
        return np.where(there, size, 0.0)

    def _effects(self, name: str, at: Ints, without: Without) -> list[Applied]:
        """Effects of which something is felt at these instants (``at`` ascends)."""
        if not at.size:
            return []
        first, last = int(at[0]), int(at[-1])
        return [
            one
            for one in self.plan.applied(self.stream, name)
            if one.occurrence.start <= last
            and one.occurrence.over >= first
            and one.occurrence.id not in without.occurrences
            and ("*" not in one.effect.signals or one.effect.do not in {"silence", "skew", "restart"} or name == "*")
        ]

    def _louder(self, found: Floats | None, applied: Applied, at: Ints, shape: tuple[int, ...]) -> Floats:
        made = np.ones(shape) if found is None else found
        for hop, columns in groups_of_hops(applied):
            part = _progress(applied, at, hop) * applied.occurrence.strength(hop)
            made[:, columns] *= 1.0 + (applied.amount - 1.0) * part[:, None]
        return made

    def _freeze(self, found: Floats, applied: Applied, name: str, at: Ints, without: Without) -> None:
        begin = np.array([(applied.occurrence.start - 1) // self.interval], dtype=np.int64)
        held = self.values(name, begin, Without(without.noise, without.occurrences | {applied.occurrence.id}))
        for hop, columns in groups_of_hops(applied):
            there = np.flatnonzero(_progress(applied, at, hop) > 0)
            found[np.ix_(there, columns)] = held[0, columns]

    def frozen(self, name: str, at: Ints, without: Without = PLAIN) -> NDArray[np.bool_] | None:
        """[T, H]: where a signal is held at the value it had; ``None`` for nowhere."""
        found = None
        shape = (len(at), len(self.stream.hosts))
        for applied in self._effects(name, at, without):
            if applied.effect.do == "freeze":
                found = np.zeros(shape, dtype=bool) if found is None else found
                for hop, columns in groups_of_hops(applied):
                    there = np.flatnonzero(_progress(applied, at, hop) > 0)
                    found[np.ix_(there, columns)] = True
        return found

    def _salt(self, name: str) -> Salts:
        if name not in self._salts:
            names = [host.name for host in self.stream.hosts]
            self._salts[name] = salts(self.plan.seed, f"{self.stream.name} {name}", names)
        return self._salts[name]


def usual_load(load: Load, at: Ints) -> Floats:
    """[T] the load of a service by hour and day alone: a day with a shoulder, a week with a quiet end."""
    seconds = at / MICROS_PER_SECOND
    turn = 2.0 * np.pi * (seconds % _DAY / _DAY - load.peak / 24.0)
    daily = load.daily * (0.9 * np.cos(turn) + 0.18 * np.cos(2.0 * turn + 0.6))
    # 1970-01-01 was a Thursday; the change from one day to the next takes six hours.
    days = seconds / _DAY + 3.0 - 0.25
    weekend = _weekend(np.floor(days)) + (_weekend(np.floor(days) + 1) - _weekend(np.floor(days))) * np.clip(
        (days % 1.0 - 0.75) * 4.0, 0.0, 1.0
    )
    found: Floats = np.maximum((1.0 + daily) * (1.0 + load.weekly * (0.4 - 1.4 * weekend)), 0.02)
    return found


def _weekend(day: Floats) -> Floats:
    return (np.mod(day, 7.0) >= 5.0).astype(np.float64)


def _progress(applied: Applied, at: Ints, hop: int) -> Floats:
    effect = applied.effect
    return applied.occurrence.progress(at, hop, effect.shape, effect.begins, effect.period, effect.duty)


def _apply(found: Floats, applied: Applied, at: Ints) -> None:
    """Change the columns of the hosts that feel an effect, in place."""
    for hop, columns in groups_of_hops(applied):
        part = (_progress(applied, at, hop) * applied.occurrence.strength(hop))[:, None]
        amount = applied.amount
        match applied.effect.do:
            case "scale":
                found[:, columns] *= np.maximum(1.0 + (amount - 1.0) * part, 0.0)
            case "add":
                found[:, columns] += amount * part
            case "toward":
                found[:, columns] += (amount - found[:, columns]) * np.minimum(part, 1.0)
            case "silence":
                found[:, columns] = np.where(part > 0, np.nan, found[:, columns])


def chunks(steps: Ints, size: int) -> Sequence[Ints]:
    """Steps in runs of at most ``size``."""
    return [steps[start : start + size] for start in range(0, len(steps), max(1, size))]
