"""``aiops storm``: scenarios listed, shown, checked and played, with their truth.

What belongs here: arguments, tables, the progress of a run. What does not: making and delivering a storm
(``synthetic.storms``) and judging what came of it (``evaluate``).
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from aiops_assets.cli.output import USAGE, clean, console, duration, fail, group, instant, load, print_json, size, table

if TYPE_CHECKING:
    from aiops_assets.synthetic.storms.delivery import Delivered
    from aiops_assets.synthetic.storms.engine import Storm
    from aiops_assets.synthetic.storms.scenario import Scenario

storm = group("storm", "Golden storms: made-up fleets whose faults are known, as real senders would send them.")

_AGO = re.compile(r"-?(\d+(?:\.\d+)?)\s*(h|hours|d|days|m)(?:[- ]ago)?")
_SECOND = 1_000_000
_T = TypeVar("_T")
_Scenario = Annotated[str, typer.Argument(help="A shipped scenario (aiops storm list) or the path of a YAML file.")]
_Seed = Annotated[int | None, typer.Option(help="In place of the scenario's own.")]
_Scale = Annotated[int, typer.Option(min=1, max=1_000, help="So many times the hosts.")]
_Start = Annotated[
    str | None,
    typer.Option(help="now, an instant (2026-01-31T12:00Z) or 6h-ago. Default: so that it ends now; at speed 1 now."),
]
_Json = Annotated[bool, typer.Option("--json", help="The result as one JSON document.")]


@storm.command("list")
def list_(as_json: _Json = False) -> None:
    """The scenarios that ship with the product."""
    from aiops_assets.synthetic.storms.scenario import load_scenario, shipped

    rows = [_summary(load_scenario(name)) for name in shipped()]
    if as_json:
        print_json(rows)
        return
    right = ("hosts", "series", "faults", "benign", "lasts", "history")
    shown = table("scenario", *right, "what", right=right)
    for row in rows:
        history = duration(row["history_seconds"]) if row["history_seconds"] else "–"
        cells = [str(row[name]) for name in ("hosts", "series", "faults", "benign")]
        shown.add_row(row["name"], *cells, duration(row["seconds"]), history, clean(row["title"]))
    console().print(shown)


@storm.command("show")
def show(
    scenario: _Scenario,
    scale: _Scale = 1,
    yaml: Annotated[bool, typer.Option("--yaml", help="The YAML of a shipped scenario, to start from.")] = False,
    as_json: _Json = False,
) -> None:
    """What a scenario holds: its fleet, its faults, what is ordinary in it.

    Examples:

      aiops storm show black-friday

      aiops storm show bad-deploy --yaml > mine.yaml
    """
    from aiops_assets.synthetic.storms.fleet import Fleet
    from aiops_assets.synthetic.storms.scenario import source_text

    if yaml:
        typer.echo(_known(lambda: source_text(scenario)), nl=False)
        return
    found = _load(scenario, scale)
    fleet = Fleet(found)
    if as_json:
        print_json({**_summary(found), "scenario": found.model_dump(mode="json", by_alias=True)})
        return
    out = console()
    out.print(f"[bold]{clean(found.name)}[/]  {clean(found.title)}")
    if found.description:
        out.print(clean(" ".join(found.description.split())))
    past = f", after {duration(found.history.span)} of history" if found.history else ""
    fleet_size = f"{len(fleet.hosts):,} hosts, {fleet.series:,} series"
    out.print(f"{duration(found.duration)}{past}; {fleet_size}; source {found.source_name}")
    groups = table("group", "hosts", "named", "service", "sends", "every", "series", "needs", right=("hosts", "series"))
    for stream in fleet.streams:
        first, last = stream.hosts[0].name, stream.hosts[-1].name
        named = first if first == last else f"{first} … {last}"
        needs = ", ".join(found.hosts[stream.group].depends_on) if stream.main else ""
        groups.add_row(
            stream.group, f"{len(stream.hosts):,}", named, stream.service or "", stream.sender,
            duration(stream.interval / _SECOND), f"{stream.series:,}", needs,
        )  # fmt: skip
    out.print(groups)
    events = table("id", "kind", "on", "from", "lasts", "what")
    for event in found.events:
        kind = found.kind(event.kind)
        begins = duration(event.start) if event.start is not None else "daily"
        if event.at is not None:
            begins = f"{begins} {_clock(event.at)} UTC"
        lasts = event.lasts or kind.lasts
        told = event.title or kind.title
        events.add_row(
            event.id, event.kind, ", ".join(event.targets), begins, duration(lasts) if lasts else "to the end",
            clean(told if event in found.faults else f"(no fault) {told}"),
        )  # fmt: skip
    out.print(events)


@storm.command("truth")
def truth_(
    scenario: _Scenario,
    seed: _Seed = None,
    start: _Start = None,
    scale: _Scale = 1,
    out: Annotated[Path | None, typer.Option(help="Folder for one Parquet file a table.")] = None,
    as_json: _Json = False,
) -> None:
    """What is true of a storm: faults, the series and traces they show in, incidents, what is innocent.

    Example:

      aiops storm truth black-friday --start 2026-01-31T12:00Z --json
    """
    from aiops_assets.synthetic.storms.truth import truth

    found = _load(scenario, scale)
    told = truth(found, _start_at(found, start, None), seed)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        for name, frame in told.frames().items():
            frame.write_parquet(out / f"{name}.parquet")
    if as_json:
        print_json(told.as_json())
        return
    faults = table("fault", "root", "from", "to be seen", "until", "series", "cause", right=("series",))
    for fault in told.faults:
        count = sum(1 for row in told.affected if row.fault_id == fault.id and row.visible_at is not None)
        faults.add_row(
            fault.id, fault.root, instant(fault.start), instant(fault.visible_at), instant(fault.end), f"{count:,}",
            clean(fault.root_cause),
        )  # fmt: skip
    console().print(faults)
    incidents = table("incident", "root", "faults", "hosts", right=("hosts",))
    for incident in told.incidents:
        incidents.add_row(incident.id, incident.root, ", ".join(incident.faults), f"{len(incident.hosts)}")
    console().print(incidents)
    console().print(
        f"{len(told.affected):,} affected series, {len(told.traces):,} traces, {len(told.benign)} benign events"
    )


@storm.command("check")
def check(
    file: Annotated[Path, typer.Argument(help="A scenario in YAML.")],
    as_json: _Json = False,
) -> None:
    """Whether a scenario of your own can be played; what is wrong, with file, field and what is allowed."""
    from aiops_assets.synthetic.storms.scenario import load_scenario
    from aiops_assets.synthetic.storms.vocabulary import ScenarioError

    try:
        found = load_scenario(file)
    except ScenarioError as error:
        if as_json:
            print_json({"ok": False, "problems": error.problems})
            raise typer.Exit(USAGE) from error
        fail(str(error), USAGE)
    if as_json:
        print_json({"ok": True, "problems": [], **_summary(found)})
        return
    summary = _summary(found)
    console().print(
        f"{clean(file)}: good; {summary['hosts']} hosts, {summary['series']:,} series, {summary['faults']} faults, "
        f"{summary['benign']} benign events"
    )


@storm.command("snmprec")
def snmprec(
    scenario: _Scenario,
    out: Annotated[Path, typer.Option(help="Folder for one HOST.snmprec a device.")],
    after: Annotated[str, typer.Option(help="How far into the scenario, for example 20m.")] = "0s",
    seed: _Seed = None,
    start: _Start = None,
    scale: _Scale = 1,
    as_json: _Json = False,
) -> None:
    """The devices of a scenario as recordings for an SNMP simulator, as they are at one instant.

    Example:

      aiops storm snmprec link-flapping --after 15m --out recordings
    """
    from aiops_assets.synthetic.storms.engine import Storm
    from aiops_assets.synthetic.storms.recordings import recordings
    from aiops_assets.synthetic.storms.vocabulary import seconds_of

    found = _load(scenario, scale)
    try:
        into = seconds_of(after)
    except ValueError as error:
        fail(f"--after: {error}", USAGE)
    start_at = _start_at(found, start, None)
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for host, text in recordings(Storm(found, start_at, seed), start_at + round(into * _SECOND)):
        path = out / f"{host.name}.snmprec"
        path.write_text(text, "utf-8")
        written.append(str(path))
    if as_json:
        print_json(written)
    else:
        console().print(f"{len(written)} recordings in {clean(out)}")


@storm.command("run")
def run(
    scenario: _Scenario,
    to: Annotated[str, typer.Option(help="gateway or landing.")] = "gateway",
    speed: Annotated[str, typer.Option(help="1x is real time, 60x an hour a minute, max as fast as it goes.")] = "max",
    seed: _Seed = None,
    start: _Start = None,
    length: Annotated[
        str | None, typer.Option("--duration", help="Only so much of it, for example 20m. Default: all of it.")
    ] = None,
    scale: _Scale = 1,
    history: Annotated[bool, typer.Option("--history/--no-history", help="Deliver the ordinary past first.")] = True,
    as_history: Annotated[
        bool, typer.Option("--as-history", help="Mark all of it as history: it fills tables and pages nobody.")
    ] = False,
    connections: Annotated[int, typer.Option(min=1, max=64, help="Requests to the gateway at once.")] = 1,
    url: Annotated[str | None, typer.Option(help="The gateway. Default: that of this platform.")] = None,
    key_file: Annotated[Path | None, typer.Option(help="File with the key. Default: keys/admin.key.")] = None,
    as_json: _Json = False,
) -> None:
    """Play a storm: everything that its senders would send, in order of time.

    Everything is marked: source storm-SCENARIO, hosts that begin with the scenario's name, label synthetic=true.

    Examples:

      aiops storm run black-friday --speed 60x

      aiops storm run calm-week --to landing --as-history --scale 10
    """
    from aiops_assets.synthetic.storms.delivery import Delivered, Gateway, Landing, Marked, NotDelivered, play
    from aiops_assets.synthetic.storms.engine import Storm

    if to not in {"gateway", "landing"}:
        fail(f"--to {to!r}: allowed are gateway and landing", USAGE)
    found = _load(scenario, scale)
    pace = _speed(speed)
    if length is not None:
        found = _shortened(found, length)
    start_at = _start_at(found, start, pace)
    made = Storm(found, start_at, seed)
    marked: Marked = "all" if as_history else "past"
    settings = load()
    if url is None and not as_history:
        _check_age(start_at, settings.late_hours)
    begun = time.monotonic()
    stop = threading.Event()
    outcome = Delivered()
    try:
        with _progress(made, start_at, paced=pace is not None, quiet=as_json, history=history) as advance:
            emissions = made.emissions(history=history)
            if to == "gateway":
                from aiops_assets.cli.up import gateway_url

                with Gateway(
                    url or gateway_url(settings), _key(key_file or settings.paths.keys / "admin.key"),
                    marked=marked, connections=connections,
                ) as gateway:  # fmt: skip
                    outcome = gateway.delivered
                    play(emissions, gateway, start_at=start_at, speed=pace, advance=advance, stop=stop)
            else:
                from aiops_assets.cli.ingest import free_writer

                settings.paths.create()
                with free_writer(settings, "storm") as writer:
                    landing = Landing(writer, marked=marked)
                    outcome = landing.delivered
                    play(emissions, landing, start_at=start_at, speed=pace, advance=advance, stop=stop)
    except NotDelivered as error:
        fail(f"{error}; {outcome.deliveries:,} deliveries went out before")
    except KeyboardInterrupt:
        stop.set()
        console(stderr=True).print("ended; what was delivered stays")
    seconds = time.monotonic() - begun
    result = {
        "scenario": found.name, "source": found.source_name, "seed": made.seed, "start": start_at,
        "started_at": instant(start_at), "deliveries": outcome.deliveries, "points": outcome.points,
        "bytes": outcome.bytes, "repeated": outcome.repeated, "formats": outcome.formats,
        "seconds": round(seconds, 3), "interrupted": stop.is_set(),
    }  # fmt: skip
    if as_json:
        print_json(result)
    else:
        rate = outcome.points / seconds if seconds else 0.0
        repeated = f", {outcome.repeated:,} requests repeated" if outcome.repeated else ""
        console().print(
            f"{outcome.deliveries:,} deliveries with {outcome.points:,} points and events ({size(outcome.bytes)}) of "
            f"source {found.source_name} in {duration(seconds)}, {rate:,.0f} a second{repeated}"
        )
        told = f" --seed {made.seed}" if seed is not None else ""
        console().print(
            f"its truth: aiops storm truth {clean(scenario)} --start {instant(start_at).replace(' ', 'T')}{told}"
        )
    if stop.is_set():
        raise typer.Exit(130)


def _summary(scenario: Scenario) -> dict[str, Any]:
    from aiops_assets.synthetic.storms.fleet import Fleet

    fleet = Fleet(scenario)
    return {
        "name": scenario.name,
        "title": scenario.title,
        "description": " ".join(scenario.description.split()),
        "source": scenario.source_name,
        "hosts": len(fleet.hosts),
        "series": fleet.series,
        "faults": len(scenario.faults),
        "benign": len(scenario.benign),
        "seconds": scenario.duration,
        "history_seconds": scenario.history.span if scenario.history else 0.0,
    }


def _known(read: Callable[[], _T]) -> _T:
    from aiops_assets.synthetic.storms.vocabulary import ScenarioError

    try:
        return read()
    except ScenarioError as error:
        fail(str(error), USAGE)


def _load(scenario: str, scale: int) -> Scenario:
    from aiops_assets.synthetic.storms.scenario import load_scenario

    return _known(lambda: load_scenario(scenario)).scaled(scale)


def _speed(text: str) -> float | None:
    if text == "max":
        return None
    try:
        found = float(text.removesuffix("x"))
    except ValueError:
        found = 0.0
    if not 0.01 <= found <= 1_000_000:
        fail(f"--speed {text!r}: allowed are max and numbers such as 1x, 60x, 0.5x", USAGE)
    return found


def _shortened(scenario: Scenario, text: str) -> Scenario:
    from aiops_assets.synthetic.storms.vocabulary import seconds_of

    try:
        seconds = seconds_of(text)
    except ValueError as error:
        fail(f"--duration: {error}", USAGE)
    if seconds <= 0:
        fail(f"--duration {text!r}: must be more than nothing", USAGE)
    return scenario.model_copy(update={"duration": min(seconds, scenario.duration)})


def _start_at(scenario: Scenario, text: str | None, speed: float | None) -> int:
    """The start in microseconds, a whole second. Without a word the storm ends when its last delivery goes out."""
    from aiops_assets.hours import micros

    now = time.time_ns() // 1000 // _SECOND * _SECOND
    if text is None:
        lead = scenario.duration * (1.0 - (1.0 / speed if speed else 0.0))
        return now - max(0, round(lead)) * _SECOND
    if text == "now":
        return now
    if match := _AGO.fullmatch(text.strip()):
        unit = {"m": 60, "h": 3_600, "hours": 3_600, "d": 86_400, "days": 86_400}[match[2]]
        return now - round(float(match[1]) * unit) * _SECOND
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError:
        fail(f"--start {text!r}: allowed are now, spans such as 6h-ago, and instants such as 2026-01-31T12:00Z", USAGE)
    if found.tzinfo is None:
        fail(f"--start {text!r}: say the zone, for example {text}Z", USAGE)
    return micros(found)


def _check_age(start_at: int, late_hours: float) -> None:
    """Rows of a storm that are older than the platform takes as live would all be refused."""
    hours = (time.time() - start_at / _SECOND) / 3_600
    if hours > late_hours:
        fail(
            f"the storm begins {duration(hours * 3_600)} ago; what is older than {late_hours:g} h (AIOPS_LATE_HOURS) "
            "is taken as history only: add --as-history, or choose a later --start, a shorter --duration or a --speed",
            USAGE,
        )


def _key(path: Path) -> str:
    if not path.is_file():
        fail(f"{path}: there is no key; start the platform (aiops up), or name a file with --key-file", USAGE)
    return path.read_text("utf-8").strip()


def _clock(seconds: float | None) -> str:
    minutes = round(seconds or 0.0) // 60
    return f"{minutes // 60:02d}:{minutes % 60:02d}"


@contextmanager
def _progress(
    made: Storm, start_at: int, *, paced: bool, quiet: bool, history: bool
) -> Iterator[Callable[[Delivered], None]]:
    """A bar with virtual time, rate and the time that is left, over virtual time when that sets the pace, else over
    points; silent when nobody watches."""
    errors = console(stderr=True)
    if quiet or not errors.is_terminal:
        yield lambda delivered: None
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from aiops_assets.synthetic.storms.engine import METRICS

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    begun = time.monotonic()
    total = made.plan.end - start_at if paced else made.points(history=history)
    with Progress(*columns, console=errors) as bar:
        task = bar.add_task(made.scenario.name, total=total, rate="")

        def advance(delivered: Delivered) -> None:
            rate = delivered.points / max(time.monotonic() - begun, 1e-9)
            stage = "history" if delivered.at <= start_at else "storm"
            described = f"{made.scenario.name} {stage} {instant(delivered.at)}"
            done = delivered.at - start_at if paced else sum(delivered.formats.get(name, 0) for name in METRICS)
            bar.update(task, completed=max(0, min(done, total)), rate=f"{rate:,.0f}/s", description=described)

        yield advance
