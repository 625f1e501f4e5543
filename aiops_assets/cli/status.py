"""``aiops status``: the platform at a glance, once or as it changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from aiops_assets.cli.output import PROBLEM, ago, clean, console, duration, load, plain, print_json, size, table

if TYPE_CHECKING:
    from rich.console import Group

    from aiops_assets.cli.supervisor import SupervisorState
    from aiops_assets.observability.status import Status
    from aiops_assets.settings import Settings

_REFRESH_SECONDS = 2.0


def status(
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Refresh every two seconds until Ctrl-C.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document instead of tables.")] = False,
) -> None:
    """Sources, rates, lag, laggards, quarantine, open incidents, problems. Exit code 1 when something is wrong.

    Examples:

      aiops status

      aiops status --json | jq .problems
    """
    from aiops_assets.observability.status import platform_status

    settings = load()
    if watch and not as_json:
        _watch(settings)
        return
    found = platform_status(settings)
    if as_json:
        print_json({**found.as_dict(), "processes": _processes(settings)})
    else:
        console().print(render(found, _supervisor(settings)))
    raise typer.Exit(PROBLEM if found.problems else 0)


def _watch(settings: Settings) -> None:
    import threading

    from rich.live import Live

    from aiops_assets.observability.status import platform_status

    with Live(
        render(platform_status(settings), _supervisor(settings)), auto_refresh=False, screen=console().is_terminal
    ) as live:
        live.refresh()
        tick = threading.Event()
        try:
            while not tick.wait(_REFRESH_SECONDS):
                live.update(render(platform_status(settings), _supervisor(settings)), refresh=True)
        except KeyboardInterrupt:
            return


def _supervisor(settings: Settings) -> SupervisorState | None:
    from aiops_assets.cli.supervisor import running

    return running(settings.paths.root)


def _processes(settings: Settings) -> dict[str, object]:
    from dataclasses import asdict

    state = _supervisor(settings)
    return {name: asdict(child) for name, child in state.children.items()} if state else {}


def render(found: Status, supervisor: SupervisorState | None) -> Group:
    """The tables of a status."""
    from rich.console import Group, RenderableType
    from rich.text import Text

    now = found.at / 1_000_000
    session = found.session
    parts: list[RenderableType] = [Text.from_markup(f"[bold]AIOps[/] in {clean(found.home)}")]
    if supervisor is None:
        parts.append(Text("not supervised: `aiops up` is not running for this home folder", "yellow"))
    else:
        words = [
            f"{name} {'ready' if child.ready else 'starting' if child.pid else 'down'}"
            + (f" (restarted {child.restarts}×, last: {child.last_exit})" if child.restarts else "")
            for name, child in supervisor.children.items()
        ]
        parts.append(Text("processes  " + ", ".join(words)))
    holder = f"{plain(session.holder)} (process {session.pid})" if session.holder else "none at work"
    lag = ", ".join(f"{stage} {duration(seconds)}" for stage, seconds in session.lag.items()) or "–"
    parts += [
        Text(f"session    {holder}, last commit {ago(session.updated_at, now)}, {session.series:,} series"),
        Text(f"lag        {lag}"),
        Text(
            f"landing    {found.backlog_segments} segments wait ({size(found.backlog_bytes)}"
            + (f", oldest {duration(found.backlog_age)})" if found.backlog_segments else ")")
        ),
        Text(f"learning   {session.hours_closed} hours closed, event time has reached {ago(session.watermark, now)}"),
    ]

    sources = table(
        "source", "last delivery", "lag", "rows/s", "points", "events", "duplicates", "late", "refused", "quarantine",
        "laggards",
        right=("lag", "rows/s", "points", "events", "duplicates", "late", "refused", "quarantine"),
    )  # fmt: skip
    for source in found.sources:
        sources.add_row(
            clean(source.name),
            ago(source.last_received_at, now)
            + ("" if source.fresh else " [yellow]late[/]" if source.deliveries else ""),
            duration(source.lag),
            f"{source.rate:,.1f}",
            f"{source.points:,}",
            f"{source.events:,}",
            f"{source.duplicates:,}",
            f"{source.late:,}",
            f"{source.refused_series:,}",
            f"{source.quarantined:,}",
            clean(_few(source.laggards)),
        )
    parts.append(sources if found.sources else Text("\nno source has delivered yet\n", "dim"))

    if found.laggards:
        devices = table("device", "last poll", "took", "skipped", "what", right=("took", "skipped"))
        for device in found.laggards:
            what = device.error or "slow"
            devices.add_row(
                clean(device.name),
                ago(device.last_poll_at, now),
                duration(device.duration),
                str(device.skipped),
                clean(what),
            )
        parts.append(devices)
    elif found.devices:
        parts.append(Text(f"devices    all {found.devices} answer in time"))

    if found.incidents:
        incidents = table("incident", "P", "state", "since", "title", right=("P",))
        for incident in found.incidents:
            incidents.add_row(
                incident.incident_id,
                str(incident.priority),
                incident.state,
                ago(incident.started_at, now),
                clean(incident.title),
            )
        parts.append(incidents)
    else:
        parts.append(Text("incidents  none open"))
    parts += [Text(f"problem    {plain(problem)}", "red") for problem in found.problems]
    return Group(*parts)


def _few(names: Sequence[str], most: int = 3) -> str:
    """The first names, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
