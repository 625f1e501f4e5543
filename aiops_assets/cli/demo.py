"""``aiops demo``: a storm with several faults through a running platform, and what it made of them.

What belongs here: the order of events and what the person reads. What does not: the storm (``synthetic.storms``) and
the score (``evaluation``).

**Time.** The platform judges by event time: what lies more than minutes ahead is refused, and a sender that lags behind
the others counts as silent. A storm that runs faster than the clock can thus neither run ahead of it nor share a
platform with senders of the present. So the demo has a home folder of its own, in which nothing but the storm sends;
its past ends where the storm begins, the storm begins in the past, and at its end event time has caught up with now.
It begins at most ``_LONGEST_AGO`` ago: what comes an hour late (``detection.alerts.HISTORY_AFTER``) is history, and
history pages nobody.
"""

from __future__ import annotations

import shutil
import socket
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aiops_assets.cli.output import USAGE, clean, console, duration, fail, load, table
from aiops_assets.cli.own_platform import running_platform, stay_until_interrupted, until

if TYPE_CHECKING:
    from rich.console import Console

    from aiops_assets.evaluation.scoring import StormScore
    from aiops_assets.incidents.store import IncidentStore
    from aiops_assets.settings import Settings
    from aiops_assets.synthetic.storms.delivery import Delivered
    from aiops_assets.synthetic.storms.engine import Storm
    from aiops_assets.synthetic.storms.scenario import Scenario
    from aiops_assets.synthetic.storms.truth import Truth

_SECOND = 1_000_000
_TAKEN_SECONDS, _LEARNT_SECONDS, _SETTLED_SECONDS = 180.0, 600.0, 180.0
#: the landing zone must be found empty so often in a row, with so long between
_CALM_LOOKS, _LOOK_SECONDS = 3, 1.0
_SHOWN_INCIDENTS = 8
#: seconds; loading the history takes its part of the hour
_LONGEST_AGO = 3_000.0
_CONFIG = """# The demo's own platform: nothing but the storm sends here, see `aiops demo --help`.
version: 1
collect: {host: {enabled: false}}
"""
_MARKER = "demo"


def demo(
    scenario: Annotated[str, typer.Argument(help="A shipped scenario (aiops storm list) or a YAML file.")] = "demo",
    speed: Annotated[float, typer.Option(min=1, max=600, help="Event time for each second that passes.")] = 30.0,
    home: Annotated[
        Path | None, typer.Option(help="The demo's own home folder, made anew. Default: beside AIOPS_HOME.")
    ] = None,
    stay: Annotated[
        bool | None, typer.Option("--stay/--no-stay", help="Keep the platform up afterwards, to look around.")
    ] = None,
) -> None:
    """See a storm go through: days of history, six faults in under two minutes, incidents, and what was true.

    It runs on a platform of its own, beside yours: its storm happens faster than the clock, which no platform with
    other senders could take. Nothing of it touches your home folder.

    Examples:

      aiops demo

      aiops demo black-friday --speed 20
    """
    from aiops_assets.synthetic.storms.scenario import load_scenario
    from aiops_assets.synthetic.storms.vocabulary import ScenarioError

    try:
        chosen = load_scenario(scenario)
    except ScenarioError as error:
        fail(str(error), USAGE)
    ago = chosen.duration * (1 - 1 / speed)
    if ago > _LONGEST_AGO:
        fail(
            f"{chosen.name} lasts {duration(chosen.duration)}: it would begin {duration(ago)} ago, and what comes an "
            "hour late is history, which pages nobody. Choose one of at most 50 min, or evaluate it: "
            f"aiops evaluate storm {chosen.name}",
            USAGE,
        )
    out = console()
    settings, environment = _own_settings(load(), home)
    _make_anew(settings)
    with running_platform(settings, out, "this demo", environment) as ours:
        if not ours:
            fail(f"a demo runs already in {settings.paths.root}; end it first (Ctrl-C where it was started)")
        found = _Demo(settings, out, chosen, speed).run()
        if stay if stay is not None else out.is_terminal:
            stay_until_interrupted(out)
    raise typer.Exit(0 if found else 1)


def _own_settings(yours: Settings, home: Path | None) -> tuple[Settings, dict[str, str]]:
    """Settings of the demo's platform, and the variables that give them to its processes."""
    from aiops_assets.settings import Settings

    root = home.expanduser().resolve() if home else yours.paths.root.with_name(f"{yours.paths.root.name}-demo")
    environment = {
        "AIOPS_HOME": str(root),
        "AIOPS_CONFIG": str(root / "aiops.yaml"),
        "AIOPS_LAKE": str(root / "lake"),
        "AIOPS_OPERATIONS_URL": f"sqlite:///{root / 'operations.db'}",
        "AIOPS_POSTGRES_URL": "",
        "AIOPS_GATEWAY_PORT": str(_port(yours.gateway_host, yours.gateway_port)),
        "AIOPS_DAGSTER_PORT": str(_port(yours.dagster_host, yours.dagster_port)),
    }
    own = {name.removeprefix("AIOPS_").lower(): value for name, value in environment.items()}
    return Settings(**(own | {"postgres_url": None})), environment  # type: ignore[arg-type]


def _port(host: str, wanted: int) -> int:
    """The port wanted, or one that is free when somebody (your own platform) has it."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, wanted))
        except OSError:
            probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _make_anew(settings: Settings) -> None:
    """An empty home with the demo's configuration; a folder that no demo made is left alone."""
    from aiops_assets.cli.supervisor import running

    root = settings.paths.root
    if root.exists():
        if any(root.iterdir()) and not (root / _MARKER).exists():
            fail(f"{root} was not made by a demo, so it stays; give the demo another folder: --home PATH", USAGE)
        if running(root) is not None:
            fail(f"a demo runs already in {root}; end it first (Ctrl-C where it was started)")
        shutil.rmtree(root)
    root.mkdir(parents=True)
    (root / _MARKER).touch()
    settings.paths.config.write_text(_CONFIG, "utf-8")


@dataclass(slots=True)
class _Seen:
    """What was told already."""

    faults: set[str] = field(default_factory=set)
    incidents: dict[str, tuple[str, int]] = field(default_factory=dict)


class _Demo:
    """One run."""

    def __init__(self, settings: Settings, out: Console, scenario: Scenario, speed: float) -> None:
        from aiops_assets.cli.up import gateway_url
        from aiops_assets.synthetic.storms.engine import Storm
        from aiops_assets.synthetic.storms.truth import truth

        self._settings, self._out, self._scenario, self._speed = settings, out, scenario, speed
        self._url = gateway_url(settings)
        seconds = scenario.duration
        now = time.time_ns() // 1000
        start = now - round((seconds - seconds / speed) * _SECOND)
        self._storm: Storm = Storm(scenario, start - start % _SECOND)
        self._truth: Truth = truth(scenario, self._storm.start_at, self._storm.seed)
        self._seen = _Seen()
        self._trouble: Exception | None = None

    def run(self) -> bool:
        """All of it; whether any fault was found."""
        from aiops_assets.incidents.store import IncidentStore

        self._write_history()
        store = IncidentStore(self._settings.paths.operations_url)
        try:
            delivered = self._play(store)
            self._settle(store)
        finally:
            store.close()
        return self._conclude(delivered)

    def _write_history(self) -> None:
        from aiops_assets.cli.ingest import free_writer
        from aiops_assets.live.progress import read_progress
        from aiops_assets.synthetic.storms.delivery import Landing

        home = self._settings.paths
        history = self._scenario.history
        if history is None:
            return
        begun = time.monotonic()
        with free_writer(self._settings, "storm") as writer:
            landing = Landing(writer)
            for emission in self._storm.emissions(end=self._storm.start_at):
                landing.send(emission)
            landing.flush()
            name, seq = writer.writer_id, writer.last_sealed
        self._out.print(
            f"[bold]History[/]: {landing.delivered.points:,} points, {duration(history.span)} of "
            f"{len(self._truth.hosts)} hosts, durable after {duration(time.monotonic() - begun)}"
        )
        landed = time.monotonic()
        until(
            lambda: read_progress(home.live).taken.get(name, 0) >= seq,
            _TAKEN_SECONDS,
            f"no live session took it within {duration(_TAKEN_SECONDS)}; see {home.logs / 'dagster-daemon.log'}",
        )
        self._learn(int(history.span // 3600) - 1)
        self._out.print(f"  in the tables and learnt from {duration(time.monotonic() - landed)} later")

    def _learn(self, hours: int) -> None:
        """Wait, with a bar, until the session has closed the hours, behind which the storm would queue."""
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        from aiops_assets.live.progress import read_progress

        live, errors = self._settings.paths.live, console(stderr=True)
        columns = (TextColumn("hours learnt from"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        deadline, tick = time.monotonic() + _LEARNT_SECONDS, threading.Event()
        with Progress(*columns, console=errors, disable=not errors.is_terminal, transient=True) as bar:
            task = bar.add_task("", total=hours)
            while (closed := read_progress(live).hours_closed) < hours:
                if time.monotonic() >= deadline:
                    waited = duration(_LEARNT_SECONDS)
                    fail(f"the live session closed {closed} of {hours} hours in {waited}; see: aiops doctor")
                bar.update(task, completed=closed)
                tick.wait(0.2)

    def _play(self, store: IncidentStore) -> Delivered:
        from aiops_assets.synthetic.storms.delivery import Delivered, Gateway, NotDelivered, play

        key = (self._settings.paths.keys / "admin.key").read_text("utf-8").strip()
        faults = len(self._truth.faults)
        took = duration(self._scenario.duration / self._speed)
        self._out.print(
            f"[bold]Storm[/]: {clean(self._scenario.title)} ({duration(self._scenario.duration)} in {took}, "
            f"{faults} faults)"
        )
        delivered, stop = Delivered(), threading.Event()

        def post() -> None:
            nonlocal delivered
            try:
                with Gateway(self._url, key, connections=4) as gateway:
                    delivered = gateway.delivered
                    emissions = self._storm.emissions(history=False)
                    play(emissions, gateway, start_at=self._storm.start_at, speed=self._speed, stop=stop)
            except NotDelivered as error:
                self._trouble = error

        sending = threading.Thread(target=post, name="storm", daemon=True)
        sending.start()
        try:
            while sending.is_alive():
                sending.join(0.25)
                self._tell(store, delivered.at)
        finally:
            stop.set()
        if self._trouble is not None:
            fail(str(self._trouble))
        return delivered

    def _settle(self, store: IncidentStore) -> None:
        """Wait until the session has taken everything that was sent."""
        from aiops_assets.landing.reader import backlog
        from aiops_assets.live.progress import read_progress

        home = self._settings.paths
        calm, tick, deadline = 0, threading.Event(), time.monotonic() + _SETTLED_SECONDS
        while calm < _CALM_LOOKS and time.monotonic() < deadline:
            waiting = backlog(home.landing, read_progress(home.live).taken)
            calm = calm + 1 if not waiting.segments else 0
            tick.wait(_LOOK_SECONDS)
            self._tell(store, self._truth.end)

    def _tell(self, store: IncidentStore, at: int) -> None:
        """Faults that have begun by the storm's own time, and what is new of incidents."""
        for fault in self._truth.faults:
            if fault.start <= at and fault.id not in self._seen.faults:
                self._seen.faults.add(fault.id)
                self._say(fault.start, f"[cyan]fault[/]     {fault.id}: {clean(fault.title)} ({clean(fault.root)})")
        for incident in reversed(store.list(limit=200)):
            news = (incident.state, incident.priority)
            if incident.started_at < self._truth.start or self._seen.incidents.get(incident.incident_id) == news:
                continue
            self._seen.incidents[incident.incident_id] = news
            colour = "green" if incident.state == "resolved" else "bold red"
            what = f"{incident.incident_id} P{incident.priority} {incident.state}: {clean(incident.title)}"
            self._say(max(at, incident.started_at), f"[{colour}]incident[/]  {what}")

    def _say(self, at: int, text: str) -> None:
        """A line with the storm's own time."""
        from aiops_assets.hours import instant

        self._out.print(f"  [dim]{instant(at):%H:%M:%S}[/]  {text}", soft_wrap=True)

    def _conclude(self, delivered: Delivered) -> bool:
        from aiops_assets.evaluation.storm import score_home

        score, passage = score_home(self._settings, self._truth)
        others = max(0, delivered.points - score.volume.points)
        self._out.print(
            f"\n[bold]Sent[/]: {score.volume.points:,} points and about {others:,} log lines, errors and events in "
            f"{delivered.deliveries:,} deliveries"
        )
        told = table("fault", "kind", "where it began", "found after", "incident", "root cause stands")
        for one in score.faults:
            stands = "-" if not one.found else f"at {one.rank} of its hosts" if one.rank else "not among its hosts"
            told.add_row(
                clean(one.fault.fault_id),
                clean(one.fault.kind),
                clean(one.fault.roots[0]),
                duration(one.delay) if one.delay is not None else "[red]missed[/]",
                ", ".join(one.incidents[:2]),
                stands,
            )
        self._out.print(told)
        self._out.print(self._verdict(score))
        rows = passage.incidents.filter(passage.incidents["incident_id"].is_in(list(self._seen.incidents)))
        for row in rows.sort("priority", "started_at").head(_SHOWN_INCIDENTS).iter_rows(named=True):
            link = f"{self._url}/incidents/{row['incident_id']}"
            self._out.print(f"  P{row['priority']}  {len(row['alert_ids']):>3} alerts  {link}")
        home = self._settings.paths
        self._out.print(f"  all {self._url}/incidents  (log in with the key in {home.keys / 'admin.key'})")
        self._out.print(f"  remove all of it: rm -r {home.root}")
        return bool(score.found)

    @staticmethod
    def _verdict(score: StormScore) -> str:
        found, total = len(score.found), len(score.faults)
        compressed = f" ({score.compression:.0%} fewer)" if score.compression is not None else ""
        return (
            f"[bold]Truth[/]: {found} of {total} faults found; the root cause first in {score.hits(1)} and within the "
            f"first three in {score.hits(3)} of {found}. {score.volume.anomalies:,} anomalous points became "
            f"{score.alerts.total:,} alerts in {score.incidents.total:,} incidents{compressed}; "
            f"{score.alerts.wrong:,} alerts and {score.incidents.wrong:,} incidents were false."
        )
