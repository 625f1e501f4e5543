"""``aiops silence``: suppress alerts for a while, with a name and a reason."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Annotated

import typer

from aiops_assets.cli.incidents import AsJson, Who, login, store
from aiops_assets.cli.output import USAGE, clean, console, fail, group, instant, print_json, table

silence = group("silence", "Silences: alerts that match are recorded as suppressed and open no incident.")


@silence.command("create")
def create(
    reason: Annotated[str, typer.Option(help="Why; shown with every alert that it suppresses.")],
    duration: Annotated[str, typer.Option("--for", help="How long: 30m, 2h, 1d.")] = "2h",
    host: Annotated[str, typer.Option(help="Host name; * matches anything.")] = "*",
    rule: Annotated[str, typer.Option(help="Rule or detector name; * matches anything.")] = "*",
    label: Annotated[
        list[str] | None, typer.Option(help="name=pattern; may be repeated, all must match.", show_default=False)
    ] = None,
    who: Who = None,
    as_json: AsJson = False,
) -> None:
    """Silence alerts of a host, a rule or a label from now on.

    Example:

      aiops silence create --host 'db-*' --for 2h --reason 'upgrade, CHG0031'
    """
    from aiops_assets.config import parse_duration
    from aiops_assets.hours import MICROS_PER_SECOND

    try:
        seconds = parse_duration(duration)
    except ValueError as error:
        fail(f"--for {duration!r}: {error}", USAGE)
    labels = dict(_label(text) for text in label or ())
    now = time.time_ns() // 1000
    with store() as opened:
        made = opened.create_silence(
            author=who or login(),
            reason=reason,
            starts_at=now,
            ends_at=now + round(seconds * MICROS_PER_SECOND),
            host=host,
            rule=rule,
            labels=labels,
        )
    if as_json:
        print_json(asdict(made))
    else:
        typer.echo(
            f"{made.silence_id} holds until {instant(made.ends_at)}; end it: aiops silence expire {made.silence_id}"
        )


def _label(text: str) -> tuple[str, str]:
    name, equals, pattern = text.partition("=")
    if not equals or not name:
        fail(f"--label {text!r}: write name=pattern", USAGE)
    return name, pattern


@silence.command("list")
def list_(
    all_: Annotated[bool, typer.Option("--all", "-a", help="Expired ones too.")] = False,
    as_json: AsJson = False,
) -> None:
    """List silences that hold now."""
    now = time.time_ns() // 1000
    with store() as opened:
        found = opened.silences(active_at=None if all_ else now)
    if as_json:
        print_json([{**asdict(entry), "state": entry.state(now)} for entry in found])
        return
    if not found:
        console().print("no silence" + ("" if all_ else " holds now; --all shows expired ones"))
        return
    shown = table("silence", "state", "from", "to", "host", "rule", "labels", "author", "reason")
    for entry in found:
        labels = ", ".join(f"{name}={pattern}" for name, pattern in entry.labels.items())
        row = (entry.silence_id, entry.state(now), instant(entry.starts_at), instant(entry.ends_at))
        shown.add_row(*row, *map(clean, (entry.host, entry.rule, labels or "–", entry.author, entry.reason)))
    console().print(shown)


@silence.command("expire")
def expire(
    silence_id: Annotated[str, typer.Argument(help="For example SIL-1A2B3C4D5E.")],
    who: Who = None,
    as_json: AsJson = False,
) -> None:
    """End a silence now."""
    with store() as opened:
        ended = opened.expire_silence(silence_id, who or login())
    if as_json:
        print_json(asdict(ended))
    else:
        typer.echo(f"{ended.silence_id} has ended")
