"""The story of ``aiops try``: a shipped scenario at a speed, its hosts, and the moments that a person is told of.

What belongs here: shaping the scenario, and what of it goes out when. What does not: sending (``try_load``), telling
(``try_out``), and the scenario itself (``synthetic.storms``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aiops_assets.synthetic.storms.engine import Emission, Storm
    from aiops_assets.synthetic.storms.scenario import Event, Scenario

SCENARIO = "bad-deploy"
#: the fault that begins it, and the one that follows
DEPLOY, DISK = "release", "disk"
_DAY = 86_400.0
_SECOND = 1_000_000
#: history is sent in pieces of this length, counted back from its end
_PIECE = 600 * _SECOND
#: how long it goes on, at speed 1; the end comes earlier, when an incident is there
_SECONDS = 150.0
#: formats whose deliveries hold points
_MEASURED = frozenset({"telegraf", "collected"})


def scenario_of_try() -> Scenario:
    """The scenario as it ships."""
    from aiops_assets.synthetic.storms.scenario import load_scenario

    return load_scenario(SCENARIO)


def source_of_try() -> str:
    """The source of everything that it sends."""
    return scenario_of_try().source_name


def names_of_try() -> tuple[str, ...]:
    """All hosts and services of it."""
    from aiops_assets.synthetic.storms.fleet import Fleet

    fleet = Fleet(scenario_of_try())
    return (*(host.name for host in fleet.hosts), *fleet.services)


@dataclass(frozen=True)
class Story:
    """A scenario whose faults come ``speed`` times as fast; measurements keep their pace."""

    speed: float = 1.0

    @cached_property
    def scenario(self) -> Scenario:
        """The scenario at this speed; its history is told by ``past``."""
        shipped = scenario_of_try()
        faults = tuple(_hastened(event, self.speed) for event in shipped.faults)
        return shipped.model_copy(update={"faults": faults, "duration": _SECONDS / min(1.0, self.speed)})

    @cached_property
    def hosts(self) -> tuple[str, ...]:
        """Names of its hosts."""
        from aiops_assets.synthetic.storms.fleet import Fleet

        return tuple(host.name for host in Fleet(self.scenario).hosts)

    @staticmethod
    def begin_of_past(now: int, days: float, known: int) -> int:
        """Where the history begins (microseconds, UTC): after ``known``, up to which earlier tries have told."""
        begin = now - round(days * _DAY * _SECOND)
        return begin if known <= begin else now - (now - known) // _PIECE * _PIECE

    def past(self, now: int, days: float, begin: int) -> Iterator[Emission]:
        """The ordinary past of so many days up to ``now``, from ``begin`` on, measurements only."""
        from aiops_assets.synthetic.storms.engine import Storm
        from aiops_assets.synthetic.storms.scenario import History

        history = History(span=days * _DAY, interval=60.0, logs=False)
        storm = Storm(self.scenario.model_copy(update={"history": history}), now)
        return storm.emissions(begin=begin, end=now)

    def begun(self, at: int) -> Told:
        """The story that begins at an instant (microseconds since the epoch, UTC)."""
        from aiops_assets.synthetic.storms.engine import Storm

        return Told(Storm(self.scenario, at))


class Told:
    """A story that has begun: what is due, and its moments (microseconds since the epoch, UTC)."""

    def __init__(self, storm: Storm) -> None:
        self._emissions = storm.emissions(history=False)
        self._next: Emission | None = next(self._emissions, None)
        moments = {occurrence.event.id: occurrence for occurrence in storm.plan.occurrences}
        deploy, disk = moments[DEPLOY], moments[DISK]
        self.web, self.database = (storm.fleet.hosts[one.roots[0]].name for one in (deploy, disk))
        self.deployed_at, self.full_at = deploy.start, disk.start + disk.ramp
        self.change = _title_of_change(storm)

    def due(self, now: int) -> Iterator[Emission]:
        """What has to go out by now, in order, each once."""
        while self._next is not None and self._next.at <= now:
            emission, self._next = self._next, next(self._emissions, None)
            yield emission


def points_in(emission: Emission) -> int:
    """How many points a delivery holds; events are none."""
    measured = emission.format in _MEASURED and (emission.format != "collected" or b'"points"' in emission.body)
    return emission.points if measured else 0


def _hastened(event: Event, speed: float) -> Event:
    spans = {name: getattr(event, name) for name in ("start", "ramp", "lasts", "recovery")}
    return event.model_copy(update={name: span / speed for name, span in spans.items() if span is not None})


def _title_of_change(storm: Storm) -> str:
    from aiops_assets.synthetic.storms.happenings import changes_of

    changes = [change for one in storm.plan.occurrences for change in changes_of(one, storm.plan)]
    return str(changes[0]["title"]) if changes else ""
