"""``aiops rules``: which rules are in force, and what a rule would have fired."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Annotated

import typer

from aiops_assets.cli.output import USAGE, clean, console, duration, fail, group, load, print_json, table

rules = group("rules", "Rules: list them, test them on history.")


@rules.command("list")
def list_(as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False) -> None:
    """List the rules in force: the shipped ones and those of aiops.yaml."""
    from aiops_assets.config import load_config

    config = load_config(load().paths.config)
    if as_json:
        print_json([rule.model_dump(mode="json", by_alias=True) for rule in config.active_rules])
        return
    own = {rule.name for rule in config.rules}
    shown = table("rule", "from", "kind", "metric", "host", "condition", "severity")
    for rule in config.active_rules:
        condition = {
            "threshold": f"{rule.op} {rule.value}",
            "rate": f"{rule.op} {rule.value}/s over {duration(rule.window)}",
            "fill_up": f"reaches {rule.value} within {duration(rule.horizon)}",
            "absence": "silent",
        }[rule.kind]
        held = f" for {duration(rule.hold)}" if rule.hold else ""
        origin = "aiops.yaml" if rule.name in own else "shipped"
        shown.add_row(
            rule.name, origin, rule.kind, clean(rule.metric), clean(rule.host), condition + held, rule.severity
        )
    console().print(shown)


@rules.command("test")
def test(
    names: Annotated[list[str] | None, typer.Argument(help="Rules by name. Default: all.", show_default=False)] = None,
    start: Annotated[str, typer.Option("--from", help="An instant (ISO 8601, UTC), or how long ago: 24h, 7d.")] = "24h",
    end: Annotated[str, typer.Option("--to", help="An instant (ISO 8601, UTC), or how long ago.")] = "0s",
    alerts: Annotated[int, typer.Option(min=0, help="Show the last so many alerts one by one.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Say what rules would have fired on stored history, with the engine of the live session.

    Examples:

      aiops rules test --from 7d

      aiops rules test queue-too-long --from 2026-01-10T00:00 --to 2026-01-11T00:00 --json
    """
    from aiops_assets.config import load_config
    from aiops_assets.detection.rule_history import run_rule_test

    settings = load()
    config = load_config(settings.paths.config)
    now = time.time_ns() // 1000
    begin, finish = _instant("--from", start, now), _instant("--to", end, now)
    if finish <= begin:
        fail("--to must be later than --from", USAGE)
    try:
        report = run_rule_test(settings.paths.lake, config, begin, finish, names or ())
    except (KeyError, LookupError, ValueError) as error:
        fail(str(error.args[0] if error.args else error), USAGE)
    if as_json:
        print_json(report.to_dict())
        return
    out = console()
    shown = table(
        "rule", "series", "alerts", "open at end", "firing", "hosts", right=("series", "alerts", "open at end")
    )
    for row in report.rules.iter_rows(named=True):
        hosts = ", ".join(f"{top['host']} ({top['alerts']})" for top in row["top_hosts"])
        firing = duration(row["firing_seconds"]) if row["firing_seconds"] else "–"
        cells = (str(row["series"]), str(row["alerts"]), str(row["open_at_end"]), firing, clean(hosts or "–"))
        shown.add_row(clean(row["rule"]), *cells)
    out.print(shown)
    if alerts and report.alerts.height:
        listed = table("from", "to", "rule", "host", "title")
        for row in report.alerts.tail(alerts).iter_rows(named=True):
            ends = row["ends_at"].strftime("%Y-%m-%d %H:%M:%SZ") if row["ends_at"] else "open"
            starts = row["starts_at"].strftime("%Y-%m-%d %H:%M:%SZ")
            listed.add_row(starts, ends, clean(row["name"]), clean(row["host"]), clean(row["title"]))
        out.print(listed)
    out.print(f"{report.alerts.height:,} alerts from {report.points:,} points in {report.hours:,} hours of history")


def _instant(option: str, text: str, now: int) -> int:
    """Microseconds since the epoch of an ISO instant or of a time ago."""
    from aiops_assets.config import parse_duration
    from aiops_assets.hours import MICROS_PER_SECOND, micros

    try:
        return now - round(parse_duration(text.removesuffix(" ago")) * MICROS_PER_SECOND)
    except ValueError:
        try:
            found = datetime.fromisoformat(text)
        except ValueError:
            fail(f"{option} {text!r}: write an instant such as 2026-01-10T08:00, or how long ago: 30m, 24h, 7d", USAGE)
    return micros(found.replace(tzinfo=UTC) if found.tzinfo is None else found)
