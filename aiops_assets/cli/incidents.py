"""``aiops incidents`` and ``aiops alerts``: what the pages show, in a terminal."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from aiops_assets.cli.output import ago, clean, console, fail, group, instant, load, plain, print_json, severity, table

if TYPE_CHECKING:
    from aiops_assets.incidents.correlation import Alert
    from aiops_assets.incidents.lifecycle import Action
    from aiops_assets.incidents.store import Incident, IncidentStore, Member

incidents = group("incidents", "Incidents: list, show, and work on them.")
_OPEN = ("open", "acknowledged", "reopened")

Who = Annotated[str | None, typer.Option("--who", help="In whose name. Default: your login.", show_default=False)]
Text = Annotated[str, typer.Option("--text", "-m", help="What to say about it.")]
Id = Annotated[str, typer.Argument(help="For example INC-7F3K2M4QWX.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document; instants are microseconds since 1970 UTC.")]


@contextmanager
def store() -> Iterator[IncidentStore]:
    """The incident store of the home folder in force; its known errors become lines."""
    from aiops_assets.incidents.lifecycle import ActionNotAllowed, IncidentNotFound
    from aiops_assets.incidents.store import IncidentStore, SilenceNotFound

    settings = load()
    if not settings.paths.root.is_dir():
        fail(f"there is no home folder {settings.paths.root}; make it with: aiops init, or set AIOPS_HOME")
    opened = IncidentStore(settings.paths.operations_url)
    try:
        yield opened
    except (ActionNotAllowed, IncidentNotFound, SilenceNotFound) as error:
        fail(str(error))
    except ValueError as error:
        fail(str(error), 2)
    finally:
        opened.close()


def login() -> str:
    """The name of the person at the terminal."""
    return pwd.getpwuid(os.getuid()).pw_name


@incidents.command("list")
def list_(
    all_: Annotated[bool, typer.Option("--all", "-a", help="Resolved ones too.")] = False,
    host: Annotated[str, typer.Option(help="Only with alerts of this host; * matches anything.")] = "",
    search: Annotated[str, typer.Option(help="Only with this text in title, id, assignee or alerts.")] = "",
    priority: Annotated[int | None, typer.Option(min=1, max=5, help="Only this priority.", show_default=False)] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List incidents, the most pressing first.

    Example:

      aiops incidents list --host 'web-*'
    """
    with store() as opened:
        states = () if all_ else _OPEN
        found = opened.list(states=states, priority=priority, host=host, search=search, limit=limit)
    if as_json:
        print_json([asdict(incident) for incident in found])
        return
    if not found:
        console().print("no incident" + ("" if all_ else " is open; --all shows resolved ones"))
        return
    shown = table("incident", "P", "state", "since", "assignee", "alerts", "title", right=("P", "alerts"))
    for incident in found:
        shown.add_row(
            incident.incident_id,
            str(incident.priority),
            incident_state(incident),
            ago(incident.started_at),
            clean(incident.assignee or "–"),
            f"{incident.firing}/{incident.alerts}",
            struck(incident.title) if incident.withdrawn_because is not None else clean(incident.title),
        )
    console().print(shown)


@incidents.command("show")
def show(incident_id: Id, as_json: AsJson = False) -> None:
    """Show an incident: alerts, suspects, timeline, what can be done.

    Example:

      aiops incidents show INC-7F3K2M4QWX
    """
    with store() as opened:
        incident = opened.get(incident_id)
    if as_json:
        print_json({**asdict(incident), "allowed": list(incident.allowed)})
        return
    from aiops_assets.cli.up import gateway_url

    out = console()
    out.print(
        f"[bold]{incident.incident_id}[/]  P{incident.priority}  {incident_state(incident)}  {clean(incident.title)}"
    )
    out.print(f"  impact    {incident.impact}  {clean(incident.impact_text)}")
    out.print(f"  urgency   {incident.urgency}  {clean(incident.urgency_text)}")
    out.print(f"  hosts     {clean(', '.join(incident.hosts))}")
    out.print(f"  since     {instant(incident.started_at)} ({ago(incident.started_at)})")
    out.print(f"  assignee  {clean(incident.assignee or 'nobody')}")
    if incident.resolved_at is not None:
        by = f"{instant(incident.resolved_at)} by {clean(incident.resolved_by)}"
        out.print(f"  resolved  {by}{': ' + clean(incident.resolution) if incident.resolution else ''}")
    if incident.withdrawn_because is not None:
        out.print(f"  [magenta]withdrawn[/] none of its alerts should have fired: {clean(incident.withdrawn_because)}")
    out.print(f"  page      {gateway_url(load())}/incidents/{incident.incident_id}")
    for host, text in incident.causes:
        out.print(f"  [yellow]look first[/] {clean(host)}: {clean(text)}")
    for suspect in incident.suspects:
        when = "before" if suspect.before else "after"
        out.print(
            f"  [yellow]suspect[/]   {instant(suspect.ts)} {clean(suspect.text or suspect.title)} ({when} it began)"
        )
    shown = table("alert", "severity", "state", "from", "to", "host", "title")
    for member in (*incident.members, *incident.suppressed):
        alert = member.alert
        state = "suppressed" if alert.suppressed else alert.state
        ends = instant(alert.ends_at)
        row = (alert.alert_id[:12], severity(alert.severity_number), state, instant(alert.starts_at), ends)
        shown.add_row(*row, clean(alert.host), alert_title(alert))
    out.print(shown)
    for event in incident.events:
        out.print(f"  {instant(event.at)}  {clean(event.who)}  {event.kind}  {clean(event.text)}")
    words = {"acknowledge": "ack"}
    commands = ", ".join(words.get(action, action) for action in incident.allowed)
    out.print(f"\nwhat can be done: {commands} (aiops incidents … {incident.incident_id})")


def _act(action: Action, incident_id: str, who: str | None, text: str, as_json: bool, assignee: str = "") -> None:
    with store() as opened:
        incident: Incident = opened.act(action, incident_id, who or login(), text, assignee)
    if as_json:
        print_json(asdict(incident))
    else:
        assigned = f", assigned to {plain(incident.assignee)}" if incident.assignee else ""
        typer.echo(f"{incident.incident_id} is {incident.state}{assigned}")


@incidents.command("ack")
def ack(incident_id: Id, text: Text = "", who: Who = None, as_json: AsJson = False) -> None:
    """Say that somebody works on it."""
    _act("acknowledge", incident_id, who, text, as_json)


@incidents.command("assign")
def assign(
    incident_id: Id,
    assignee: Annotated[str, typer.Argument(help="To whom; an empty text means nobody.")],
    text: Text = "",
    who: Who = None,
    as_json: AsJson = False,
) -> None:
    """Say who works on it."""
    _act("assign", incident_id, who, text, as_json, assignee)


@incidents.command("note")
def note(
    incident_id: Id,
    text: Annotated[str, typer.Argument(help="The note.")],
    who: Who = None,
    as_json: AsJson = False,
) -> None:
    """Add a note to its timeline."""
    _act("note", incident_id, who, text, as_json)


@incidents.command("resolve")
def resolve(incident_id: Id, text: Text = "", who: Who = None, as_json: AsJson = False) -> None:
    """Say that it is over."""
    _act("resolve", incident_id, who, text, as_json)


@incidents.command("reopen")
def reopen(incident_id: Id, text: Text = "", who: Who = None, as_json: AsJson = False) -> None:
    """Say that it is not over."""
    _act("reopen", incident_id, who, text, as_json)


def alerts(
    all_: Annotated[bool, typer.Option("--all", "-a", help="Resolved and suppressed ones too.")] = False,
    host: Annotated[str, typer.Option(help="Only this host; * matches anything.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List alerts, newest first, with the incident each belongs to.

    Examples:

      aiops alerts

      aiops alerts --all --host db-1 --json
    """
    with store() as opened:
        found = opened.alerts(state="" if all_ else "firing", host=host, limit=limit)
    if as_json:
        print_json([asdict(member) for member in found])
        return
    if not found:
        console().print("no alert" + ("" if all_ else " is firing; --all shows ended and suppressed ones"))
        return
    shown = table("since", "severity", "state", "host", "title", "incident")
    for member in found:
        shown.add_row(*alert_row(member))
    console().print(shown)


def incident_state(incident: Incident) -> str:
    """The state, and whether it was withdrawn."""
    return incident.state + (", withdrawn" if incident.withdrawn_because is not None else "")


def alert_title(alert: Alert) -> str:
    """The title, struck through when the alert is withdrawn, with what an amendment said of it."""
    title = struck(alert.title) if alert.withdrawn else clean(alert.title)
    if not alert.amended_by:
        return title
    return f"{title} [magenta]({'withdrawn' if alert.withdrawn else 'amended'}: {clean(alert.amended_by)})[/]"


def struck(text: str) -> str:
    """A text that does not hold any more."""
    return f"[strike]{clean(text)}[/]"


def alert_row(member: Member) -> tuple[str, str, str, str, str, str]:
    """The cells of an alert: since, severity, state, host, title, incident."""
    alert = member.alert
    state = f"suppressed ({clean(alert.suppressed_by)})" if alert.suppressed else alert.state
    since = ago(alert.starts_at)
    return (
        since,
        severity(alert.severity_number),
        state,
        clean(alert.host),
        alert_title(alert),
        member.incident_id or "–",
    )
