"""``aiops try``: an incident within a minute, on made-up hosts, through the real platform.

What belongs here: the order of events and what the person reads. The story is in ``try_story``, sending and killing in
``try_load``, the removal of every trace in ``try_clean``.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

import typer

from aiops_assets.cli.output import clean, console, duration, fail, load, severity
from aiops_assets.cli.own_platform import running_platform, stay_until_interrupted, until
from aiops_assets.cli.try_story import Story

if TYPE_CHECKING:
    from rich.console import Console

    from aiops_assets.cli.try_load import Killer, Sender
    from aiops_assets.incidents.store import IncidentStore
    from aiops_assets.settings import Settings

_SESSION_SECONDS = 120.0
_STORED_SECONDS = 180.0
#: how long the story goes on at most, and how long it must go on at least (seconds at speed 1)
_LONGEST, _SHORTEST = 120.0, 57.0
_KILL_SECONDS = 60.0
#: the session may take so long for the statistics of the history before the story begins in any case
_LEARNT_SECONDS = 120.0
_SECOND = 1_000_000
_HOUR, _DAY = 3_600 * _SECOND, 86_400 * _SECOND
SILENCE_REASON = "aiops try has ended: its synthetic hosts send no more"


def try_(
    kill: Annotated[bool, typer.Option("--kill", help="Kill processes with -9 meanwhile, then count.")] = False,
    clean_up: Annotated[bool, typer.Option("--clean", help="Remove every trace of earlier tries.")] = False,
    speed: Annotated[float, typer.Option(min=0.1, max=10, help="How fast the story goes.")] = 1.0,
    days: Annotated[float, typer.Option(min=0.1, max=60, help="How much history to write first.")] = 7.0,
    stay: Annotated[
        bool | None, typer.Option("--stay/--no-stay", help="Keep a platform that this command started running.")
    ] = None,
) -> None:
    """See it work: a week of synthetic history, then a bad deploy that fills a disk, live, until the incident is there.

    Everything is marked: source try, hosts try-…, label synthetic=true. When the platform does not run, it is started
    for the purpose.

    Examples:

      aiops try

      aiops try --kill      with processes killed meanwhile, ends with: sent, stored, duplicates 0

      aiops try --clean
    """
    settings = load()
    out = console()
    if clean_up:
        from aiops_assets.cli.try_clean import remove_traces

        for line in remove_traces(settings):
            out.print(clean(line))
        return
    with running_platform(settings, out, "this try") as started_here:
        outcome = _Try(settings, out, speed, kill=kill).run(days)
        if started_here and (stay if stay is not None else out.is_terminal):
            stay_until_interrupted(out)
    raise typer.Exit(0 if outcome else 1)


@dataclass(slots=True)
class _Seen:
    """What was told already: revisions of alerts, incidents with their state and number of alerts."""

    alerts: dict[str, int] = field(default_factory=dict)
    incidents: dict[str, tuple[str, int, int]] = field(default_factory=dict)


class _Try:
    """One run of the story."""

    def __init__(self, settings: Settings, out: Console, speed: float, *, kill: bool) -> None:
        from aiops_assets.cli.up import gateway_url

        self._settings, self._out, self._speed, self._kill = settings, out, speed, kill
        self._story = Story(speed)
        self._url = gateway_url(settings)
        self._seen = _Seen()
        self._began = 0
        self._first_incident: float | None = None

    def run(self, days: float) -> bool:
        """All of it; whether an incident came and, with kills, everything sent is stored once."""
        from aiops_assets.cli.try_load import Sender
        from aiops_assets.incidents.store import IncidentStore

        home = self._settings.paths
        key = home.keys / "admin.key"
        if not key.exists():
            fail(f"{key} is gone; without it this command cannot send. Make a new home folder, or put it back")
        self._write_history(days)
        sender = Sender(self._url, key.read_text("utf-8").strip())
        store = IncidentStore(home.operations_url)
        try:
            self._unsilence(store)
            self._play(store, sender)
            self._silence(store)
            counted = self._count(sender) if self._kill else True
            return self._conclude(store) and counted
        finally:
            store.close()

    def _say(self, text: str) -> None:
        """A line of the story with the seconds since its beginning."""
        self._out.print(f"  [dim]{(time.time_ns() // 1000 - self._began) / _SECOND:5.1f} s[/]  {text}")

    def _write_history(self, days: float) -> None:
        from aiops_assets.cli.ingest import free_writer
        from aiops_assets.cli.try_load import SOURCE
        from aiops_assets.live.progress import SourceProgress, read_progress
        from aiops_assets.synthetic.storms.delivery import Landing

        home = self._settings.paths
        now = time.time_ns() // 1000
        before = read_progress(home.live)
        known = before.sources.get(SOURCE, SourceProgress()).last_event_at
        begin = self._story.begin_of_past(now, days, known)
        hosts = ", ".join(self._story.hosts)
        if begin >= now:
            self._out.print(f"[bold]History[/]: of {hosts} is there already")
            return
        begun = time.monotonic()
        with free_writer(self._settings) as writer:
            landing = Landing(writer)
            for emission in self._story.past(now, days, begin):
                landing.send(emission)
            landing.flush()
            name, seq = writer.writer_id, writer.last_sealed
        span = f"{(now - begin) / _DAY:.3g} days"
        self._out.print(
            f"[bold]History[/]: {landing.delivered.points:,} points, {span} of {hosts} (synthetic=true, source try)"
        )
        landed = time.monotonic()
        self._out.print(f"  durable in the landing zone after {duration(landed - begun)}")
        until(
            lambda: read_progress(home.live).taken.get(name, 0) >= seq,
            _SESSION_SECONDS,
            f"no live session took it within {duration(_SESSION_SECONDS)}; see {home.logs / 'dagster-daemon.log'} and: "
            "aiops doctor",
        )
        self._out.print(f"  in the tables {duration(time.monotonic() - landed)} later")
        # A platform that has closed hours before takes older ones when it has time for them.
        if not before.hours_closed:
            self._wait_until_learnt((now - begin) // _HOUR - 1)

    def _wait_until_learnt(self, hours: int) -> None:
        """Let the session close the hours of the history, so that the story is not held up by them."""
        from aiops_assets.live.progress import read_progress

        begun, tick = time.monotonic(), threading.Event()
        while time.monotonic() - begun < _LEARNT_SECONDS:
            if read_progress(self._settings.paths.live).hours_closed >= hours:
                self._out.print(f"  {hours} hours learnt from {duration(time.monotonic() - begun)} later")
                return
            tick.wait(0.1)

    def _play(self, store: IncidentStore, sender: Sender) -> None:
        from aiops_assets.cli.try_load import Killer, Ledger, Outgoing

        now = time.time_ns() // 1000
        self._began = now - now % _SECOND
        told = self._story.begun(self._began)
        self._out.print(f"[bold]Story[/]: {told.web} gets a bad release, which fills the disk of {told.database}")
        sender.start()
        killer = Killer(self._settings) if self._kill else None
        ledger = Ledger(sender) if self._kill else None
        if ledger is not None:
            ledger.start()
        deployed = full = False
        tick = threading.Event()
        try:
            while True:
                now = time.time_ns() // 1000
                elapsed = (now - self._began) / _SECOND
                for emission in told.due(now):
                    sender.send(Outgoing.of(emission))
                if not deployed and now >= told.deployed_at:
                    deployed = True
                    self._say(f"[cyan]change[/]    {told.web}: {told.change}")
                if not full and now >= told.full_at:
                    full = True
                    self._say(f"[cyan]meanwhile[/] the data disk of {told.database} is full")
                self._tell_kill(killer)
                self._tell_news(store)
                if sender.refusal is not None:
                    fail(sender.refusal)
                if self._over(elapsed):
                    return
                tick.wait(0.2)
        finally:
            if ledger is not None:
                ledger.stop()
            if not sender.finish(_STORED_SECONDS):
                self._out.print(f"[red]not everything was acknowledged[/] {clean(sender.refusal or '')}")

    def _over(self, elapsed: float) -> bool:
        shortest = (_KILL_SECONDS if self._kill else _SHORTEST) / self._speed
        if elapsed < shortest:
            return False
        hosts = len(self._story.hosts)
        found = any(state != "resolved" for state, _, _ in self._seen.incidents.values())
        return (found and elapsed >= shortest + hosts) or elapsed >= _LONGEST / min(1.0, self._speed)

    def _tell_kill(self, killer: Killer | None) -> None:
        if killer is not None and (killed := killer.kill_when_due()) is not None:
            self._say(f"[red]kill -9[/]   {killed}")

    def _tell_news(self, store: IncidentStore) -> None:
        since = self._began - 10 * _SECOND
        for member in reversed(store.alerts(host="try-*", since=since, limit=1000)):
            alert = member.alert
            if alert.historic or self._seen.alerts.get(alert.alert_id, -1) >= alert.revision:
                continue
            self._seen.alerts[alert.alert_id] = alert.revision
            colour = {"firing": "yellow", "resolved": "green"}.get(alert.state, "dim")
            word = severity(alert.severity_number) if alert.state == "firing" else alert.state
            self._say(f"[{colour}]alert[/]     {word:<8} {clean(alert.host)}: {clean(alert.title)}")
        for incident in reversed(store.list(host="try-*", limit=100)):
            known = self._seen.incidents.get(incident.incident_id)
            news = (incident.state, incident.priority, len(incident.hosts))
            if incident.updated_at < self._began or known == news:
                continue
            if known is None:
                self._first_incident = self._first_incident or (time.time_ns() // 1000 - self._began) / _SECOND
            self._seen.incidents[incident.incident_id] = news
            link = f"{self._url}/incidents/{incident.incident_id}"
            what = f"{incident.incident_id} P{incident.priority} {incident.state}: {clean(incident.title)}"
            self._say(f"[bold red]incident[/]  {what}")
            self._out.print(f"                     {link}")

    def _silence(self, store: IncidentStore) -> None:
        """The hosts fall silent now; nobody should be told that as news."""
        now = time.time_ns() // 1000
        store.create_silence(
            author="aiops try",
            reason=SILENCE_REASON,
            starts_at=now,
            ends_at=now + 30 * 86_400 * _SECOND,
            host="try-*",
            rule="telemetry-missing",
        )

    def _unsilence(self, store: IncidentStore) -> None:
        for silence in store.silences(active_at=time.time_ns() // 1000):
            if silence.reason == SILENCE_REASON:
                store.expire_silence(silence.silence_id, "aiops try")

    def _count(self, sender: Sender) -> bool:
        from aiops_assets.cli.try_load import count_stored

        ended = time.time_ns() // 1000
        self._out.print("[bold]Count[/]: every acknowledged point must be in the table once")
        deadline, tick = time.monotonic() + _STORED_SECONDS, threading.Event()
        while True:
            rows, keys = count_stored(self._settings, self._began, ended)
            if rows >= sender.acknowledged or time.monotonic() >= deadline:
                break
            tick.wait(1.0)
        exact = rows == keys == sender.acknowledged
        colour = "green" if exact else "red"
        repeated = f"{sender.repeated:,} requests had to be repeated"
        self._out.print(
            f"  [{colour}]sent {sender.acknowledged:,}, stored {rows:,}, duplicates {rows - keys:,}[/]  "
            f"(all sent were acknowledged; {repeated})"
        )
        return exact

    def _conclude(self, store: IncidentStore) -> bool:
        from aiops_assets.cli.up import program

        aiops, home = program(), self._settings.paths
        running = [incident for incident in store.list(host="try-*") if incident.incident_id in self._seen.incidents]
        if not running:
            self._out.print("[red]No incident came.[/] See: aiops doctor, and the live_session runs in Dagster")
            return False
        first = running[0]
        self._out.print(
            f"\n[bold]{len(running)} incident{'s' if len(running) > 1 else ''}[/], the first after "
            f"{duration(self._first_incident or 0.0)}; {len(self._seen.alerts)} alerts"
        )
        self._out.print(
            f"  page   {self._url}/incidents/{first.incident_id}  (log in with the key in {home.keys / 'admin.key'})"
        )
        self._out.print(f"  next   {aiops} incidents show {first.incident_id}")
        self._out.print(f"         {aiops} incidents ack {first.incident_id} -m 'looking'")
        self._out.print(f"         {aiops} try --clean      removes every trace of it")
        return True
