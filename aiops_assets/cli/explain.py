"""``aiops explain``: why an alert or an incident came to be, and whether it comes out the same today."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from aiops_assets.cli.output import (
    PROBLEM,
    clean,
    console,
    duration,
    fail,
    group,
    load,
    print_json,
    severity,
    table,
)

if TYPE_CHECKING:
    from rich.console import Console

    from aiops_assets.replay.explain import AlertExplained, Hour, IncidentExplained
    from aiops_assets.settings import Settings

explain = group("explain", "Why an alert or an incident came to be, derived again from its receipt.")
_COLOURS = {"same": "green", "open": "green", "different": "red", "other code": "yellow", "expired": "yellow"}

AsJson = Annotated[bool, typer.Option("--json", help="One JSON document; instants are RFC 3339 in UTC.")]


@explain.command("alert")
def alert(
    alert_id: Annotated[str, typer.Argument(help="The alert's id, or its beginning: `aiops alerts` lists them.")],
    as_json: AsJson = False,
) -> None:
    """Show every number that led to an alert, what its hour was derived from, and derive it again.

    Ends with 1 when it comes out differently.

    Example:

      aiops explain alert 5b1f0c
    """
    from aiops_assets.replay.explain import NotFound, explain_alert

    settings = _home()
    try:
        found = explain_alert(settings, alert_id)
    except NotFound as error:
        fail(str(error))
    if as_json:
        print_json(found.document())
    else:
        _show_alert(console(), found)
    raise typer.Exit(PROBLEM if found.verdict == "different" else 0)


@explain.command("incident")
def incident(
    incident_id: Annotated[str, typer.Argument(help="For example INC-7F3K2M4QWX.")],
    as_json: AsJson = False,
) -> None:
    """Show why an incident has its priority, and derive each of its alerts again.

    Ends with 1 when one of them comes out differently.

    Example:

      aiops explain incident INC-7F3K2M4QWX
    """
    from aiops_assets.incidents.lifecycle import IncidentNotFound
    from aiops_assets.replay.explain import explain_incident

    settings = _home()
    try:
        found = explain_incident(settings, incident_id)
    except IncidentNotFound as error:
        fail(str(error))
    if as_json:
        print_json(found.document())
    else:
        _show_incident(console(), found)
    raise typer.Exit(PROBLEM if found.verdict == "different" else 0)


def _home() -> Settings:
    settings = load()
    if not settings.paths.root.is_dir():
        fail(f"there is no home folder {settings.paths.root}; make it with: aiops init, or set AIOPS_HOME")
    return settings


def _show_incident(out: Console, found: IncidentExplained) -> None:
    out.print(f"[bold]{found.incident_id}[/]  P{found.priority}  {found.state}  {clean(found.title)}")
    out.print(f"  impact    {found.impact}  {clean(found.impact_reason)}")
    out.print(f"  urgency   {found.urgency}  {clean(found.urgency_reason)}")
    out.print(f"  [{_COLOURS.get(found.verdict, 'default')}]{clean(found.verdict_text)}[/] ({duration(found.seconds)})")
    for entry in found.amendments:
        out.print(f"  amended   {entry['at']}  {clean(entry['text'])}")
    shown = table("alert", "derived again", "decided in", "state", "title")
    for member in found.alerts:
        shown.add_row(
            member.alert_id,
            f"[{_COLOURS.get(member.verdict, 'default')}]{clean(member.verdict_text)}[/]",
            ", ".join(hour.hour for hour in member.hours),
            member.state,
            clean(member.title),
        )
    out.print(shown)
    if found.left_out:
        out.print(f"  {len(found.left_out)} more alerts were not derived again: aiops explain alert ID")
    if found.gone:
        out.print(f"  {len(found.gone)} alerts are not in the table of alerts any more: {', '.join(found.gone[:3])} …")


def _show_alert(out: Console, found: AlertExplained) -> None:
    out.print(f"[bold]{found.alert_id}[/]  {found.kind} {clean(found.name)}  {found.state}")
    out.print(f"  {clean(found.title)}")
    colour = _COLOURS.get(found.verdict, "default")
    start = " and ".join(f"the state of {hour}, revision {revision}" for hour, revision in found.started_from)
    hours = f"{found.hours_derived} hour{'s' if found.hours_derived != 1 else ''} derived"
    how = f"{hours}, beginning with {start or 'nothing'}, {duration(found.seconds)}"
    out.print(f"  [{colour}]{clean(found.verdict_text)}[/]")
    out.print(f"  [dim]{how}[/]")
    _show_revisions(out, found)
    _show_rule(out, found)
    _show_points(out, found)
    for hour in found.hours:
        _show_hour(out, hour)


def _show_revisions(out: Console, found: AlertExplained) -> None:
    shown = table(
        "rev", "state", "decided at", "severity", "value", "limit", "what", title="What was told", right=("rev",)
    )
    for row in found.revisions:
        why = [row["suppressed_by"] and f"suppressed by {row['suppressed_by']}", row["amended_by"]]
        shown.add_row(
            str(row["revision"]),
            row["state"],
            row["changed_at"],
            severity(row["severity_number"]),
            _number(row["value"]),
            _number(row["threshold"]),
            clean("; ".join(part for part in (row["title"], *why) if part)),
        )
    out.print(shown)
    evidence = found.revisions[0]["evidence"] if found.revisions else {}
    if evidence:
        out.print("[bold]Evidence[/]")
        _show_fields(out, evidence)


def _show_rule(out: Console, found: AlertExplained) -> None:
    out.print("[bold]Judged by[/]")
    _show_fields(out, found.judged_by)
    for difference in found.judged_by_now:
        out.print(
            f"  [yellow]now {clean(difference.column)}: {clean(difference.recorded)} → {clean(difference.derived)}[/]"
        )


def _show_points(out: Console, found: AlertExplained) -> None:
    if found.verdict == "not derived":
        return
    if not found.points:
        out.print("  [yellow]the rows around the decision are not stored any more[/]")
        return
    several = len({row["series_id"] for row in found.points}) > 1
    shown = table(
        "", "at", *(["series"] if several else []), "value", "received", "position", title="Rows", right=("value",)
    )
    for row in found.points:
        shown.add_row(
            row["part"],
            row["ts"],
            *([clean(row["metric"])] if several else []),
            _number(row["value"]),
            row["received_at"],
            clean(f"{row['writer']} {row['seq']}"),
        )
    out.print(shown)


def _show_hour(out: Console, hour: Hour) -> None:
    out.print(f"[bold]Hour {hour.hour}[/]")
    if not hour.receipts:
        out.print("  no receipt: it is not closed")
    for line in hour.receipts:
        changed = f", {line['raised']} raised, {line['amended']} amended, {line['withdrawn']} withdrawn"
        late = f" ({line['late_rows']} late)" if line["late_rows"] else ""
        out.print(
            f"  revision {line['revision']}: {clean(line['reason'])}, {line['derived_at']}, {line['rows']} rows{late}, "
            f"{line['decisions']} decisions{changed if line['revision'] > 1 else ''}"
        )
    for difference in hour.differences:
        out.print(
            f"  [red]{clean(difference.row)}: {clean(difference.column)}: "
            f"{clean(difference.recorded)} → {clean(difference.derived)}[/]"
        )
    if hour.why and not hour.differences:
        out.print(f"  [yellow]{clean(hour.why)}[/]")
    for entry in (entry for entry in hour.seasonal if entry["weeks"] or entry["days"]):
        by_week = f"{_number(entry['by_week'])} from {entry['weeks']} weeks"
        by_day = f"{_number(entry['by_day'])} from {entry['days']} days"
        out.print(f"  usual for {entry['hour_of_week']}: {by_week}; for the hour of day: {by_day}")
    if hour.pins:
        shown = table("pinned", "recorded", "now")
        for pin in hour.pins:
            colour = "default" if pin.same is None else "green" if pin.same else "yellow"
            shown.add_row(pin.what, clean(pin.recorded), f"[{colour}]{clean(pin.now)}[/]")
        out.print(shown)


def _show_fields(out: Console, fields: dict[str, Any]) -> None:
    for name, value in fields.items():
        if value in (None, "", [], {}):
            continue
        several = isinstance(value, dict)
        text = ", ".join(f"{key} {_number(entry)}" for key, entry in value.items()) if several else _number(value)
        out.print(f"  {clean(name)}: {clean(text)}")


def _number(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
