"""What befalls the fleet and when: occurrences of faults and ordinary events, where they are felt, how far they are.

What belongs here: the calendar of a scenario, the reach along dependencies, progress over time. What does not: the
values that come of it (``course``). Instants are int microseconds since the epoch (UTC).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from aiops_assets.hours import MICROS_PER_SECOND
from aiops_assets.synthetic.storms.fleet import Fleet, Stream
from aiops_assets.synthetic.storms.noise import Floats, Ints, salt
from aiops_assets.synthetic.storms.scenario import Event, Scenario
from aiops_assets.synthetic.storms.vocabulary import Effect, Kind, Shape, Spread, Where

_DAY = 86_400 * MICROS_PER_SECOND
LOAD, EVERYTHING = "load", "*"


@dataclass(frozen=True)
class Occurrence:
    """One time that an event happens. Recovery begins at ``end``; at ``over`` nothing is left, hops included."""

    id: str
    event: Event
    kind: Kind
    fault: bool
    start: int
    ramp: int
    end: int
    recovery: int
    over: int
    spread: Spread
    roots: tuple[int, ...]
    fleet: Fleet

    @cached_property
    def reach(self) -> Mapping[Where, Mapping[int, int]]:
        """Where → position → hop, for the places that the kind knows."""
        kind = self.kind
        places = {*(one.to for one in kind.effects), *(one.to for one in kind.logs), *(one.to for one in kind.errors)}
        return {place: self.fleet.reach(self.roots, place, self.spread.hops) for place in sorted(places)}

    def amount(self, effect: Effect) -> float:
        """The value of an effect with the parameters of this event."""
        if isinstance(effect.value, str):
            name = effect.value[1:]
            return self.event.parameters.get(name, self.kind.parameters[name])
        return effect.value

    def strength(self, hop: int) -> float:
        """By how much an effect is felt ``hop`` hops away; what a kind declares holds for the first hop."""
        return self.event.strength * self.spread.attenuation ** max(0, hop - 1)

    def delay(self, hop: int) -> int:
        """By how many microseconds it is felt later ``hop`` hops away."""
        return round(hop * self.spread.delay * MICROS_PER_SECOND)

    def progress(
        self,
        at: Ints,
        hop: int = 0,
        shape: Shape | None = None,
        begins: float = 0.0,
        period: float = 120,
        duty: float = 0.5,
    ) -> Floats:
        """How far it is at instants, 0 to 1."""
        since = (at - self.start - self.delay(hop)).astype(np.float64)
        part = np.clip(since / self.ramp, 0.0, 1.0) if self.ramp else (since >= 0).astype(np.float64)
        if begins:
            part = np.clip((part - begins) / (1.0 - begins), 0.0, 1.0)
        shape = shape or self.kind.shape
        if shape == "step":
            part = ((since >= 0) & (part >= (1e-12 if begins else 0.0))).astype(np.float64)
        elif shape == "exponential":
            part = np.expm1(3.0 * part) / np.expm1(3.0)
        elif shape == "sigmoid":
            part = part * part * (3.0 - 2.0 * part)
        elif shape in {"flap", "sawtooth"}:
            turn = np.mod(since, period * MICROS_PER_SECOND) / (period * MICROS_PER_SECOND)
            part = np.where(since >= 0, (turn < duty) if shape == "flap" else turn, 0.0)
        past = (at - self.end - self.delay(hop)).astype(np.float64)
        rest = np.clip(1.0 - past / self.recovery, 0.0, 1.0) if self.recovery else (past < 0).astype(np.float64)
        found: Floats = part * rest
        return found


@dataclass(frozen=True, slots=True)
class Applied:
    """An effect on one signal of one stream: columns of the hosts that feel it, and their hops."""

    occurrence: Occurrence
    effect: Effect
    columns: Ints
    hops: Ints
    amount: float


class Plan:
    """Everything that happens from the beginning of the history to the end of the scenario, by start."""

    def __init__(self, scenario: Scenario, fleet: Fleet, start_at: int, seed: int) -> None:
        self.scenario, self.fleet, self.start_at, self.seed = scenario, fleet, start_at, seed
        history = scenario.history.span if scenario.history else 0.0
        self.begin = start_at - round(history * MICROS_PER_SECOND)
        self.end = start_at + round(scenario.duration * MICROS_PER_SECOND)
        faults = [made for event in scenario.faults for made in self._occurrences(event, True)]
        benign = [made for event in scenario.benign for made in self._occurrences(event, False)]
        self.occurrences: tuple[Occurrence, ...] = tuple(
            sorted([*faults, *benign], key=lambda one: (one.start, one.id))
        )
        self._applied: dict[tuple[str, str], list[Applied]] = {}

    def _occurrences(self, event: Event, fault: bool) -> list[Occurrence]:
        if event.start is not None:
            if event.start >= self.scenario.duration:
                # A scenario that is cut short ends before.
                return []
            start = self.start_at + round(event.start * MICROS_PER_SECOND)
            if event.at is not None:
                start += (round(event.at * MICROS_PER_SECOND) - start) % _DAY
            return [self._occurrence(event, fault, event.id, start)] if start < self.end else []
        made = []
        # A fault does not befall the history: that is what is learnt from.
        since = self.start_at if fault else self.begin
        for day in range(since // _DAY, self.end // _DAY + 1):
            start = day * _DAY + round((event.at or 0.0) * MICROS_PER_SECOND)
            # 1970-01-01 was a Thursday.
            if since <= start < self.end and (day + 3) % 7 in event.weekdays:
                number = (start - self.start_at) // _DAY
                made.append(self._occurrence(event, fault, f"{event.id}.{number:+d}", start))
        return made

    def _occurrence(self, event: Event, fault: bool, name: str, start: int) -> Occurrence:
        kind = self.scenario.kind(event.kind)
        lasts = event.lasts or kind.lasts
        ramp = round((kind.ramp if event.ramp is None else event.ramp) * MICROS_PER_SECOND)
        recovery = round((kind.recovery if event.recovery is None else event.recovery) * MICROS_PER_SECOND)
        end = self.end if lasts is None else start + round(lasts * MICROS_PER_SECOND)
        spread = event.spread or kind.spread
        far = round(spread.hops * spread.delay * MICROS_PER_SECOND)
        roots = self._roots(event, name)
        return Occurrence(
            name, event, kind, fault, start, ramp, end, recovery, end + recovery + far, spread, roots, self.fleet
        )

    def _roots(self, event: Event, name: str) -> tuple[int, ...]:
        found = self.fleet.positions(event.targets)
        if event.pick is not None and event.pick < len(found):
            found = sorted(sorted(found, key=lambda position: salt(self.seed, name, position))[: event.pick])
        return tuple(found)

    def between(self, begin: int, end: int) -> list[Occurrence]:
        """Occurrences of which something is to be seen in [begin, end)."""
        return [one for one in self.occurrences if one.start < end and one.over > begin]

    def applied(self, stream: Stream, signal: str) -> list[Applied]:
        """Effects on a signal of a stream, in order of their occurrences; ``load`` is a signal here."""
        key = (stream.name, signal)
        if key not in self._applied:
            self._applied[key] = [
                one for occurrence in self.occurrences for one in self._of(occurrence, stream, signal)
            ]
        return self._applied[key]

    @staticmethod
    def _of(occurrence: Occurrence, stream: Stream, signal: str) -> list[Applied]:
        made = []
        first, count = stream.first, len(stream.hosts)
        for effect in occurrence.kind.effects:
            if signal not in effect.signals and not (EVERYTHING in effect.signals and signal != LOAD):
                continue
            felt = {p - first: hop for p, hop in occurrence.reach[effect.to].items() if first <= p < first + count}
            if felt:
                columns = np.array(list(felt), dtype=np.int64)
                hops = np.array(list(felt.values()), dtype=np.int64)
                made.append(Applied(occurrence, effect, columns, hops, occurrence.amount(effect)))
        return made


def groups_of_hops(applied: Applied) -> Sequence[tuple[int, Ints]]:
    """(hop, columns) of an effect."""
    return [(int(hop), applied.columns[applied.hops == hop]) for hop in np.unique(applied.hops)]
