"""How ``aiops registry`` looks in a terminal: moves in a sentence; gates, measures and histories as tables.

What belongs here: wording and tables of that group. What does not: the commands (``cli.registry``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from aiops_assets.cli.output import clean, console, instant, print_json, size, table

_HASH = re.compile(r"[0-9a-f]{64}")

if TYPE_CHECKING:
    from aiops_assets.promotion.pointers import Move
    from aiops_assets.promotion.records import Evaluation


def tell(move: Move, as_json: bool, unchanged: str) -> None:
    """What a move came to; ``unchanged`` is said when there was nothing to do."""
    if as_json:
        print_json(move.document())
    elif not move.changed:
        version = move.previous if move.how == "revoked" else move.version
        console().print(f"{move.thing} {short(version)} {unchanged}: {clean(sentence(move))}")
    else:
        console().print(f"{move.thing}: {clean(sentence(move))}")
        if move.version is None:
            console().print("[yellow]nothing serves now[/]")


def sentence(move: Move) -> str:
    """A move in words."""
    serves = f"{short(move.version) if move.version else 'nothing'} serves"
    since = f"{serves} since {instant(move.at)}"
    words = {
        "promoted": f"{since}, {move.who} promoted it",
        "overridden": f"{since}, {move.who} promoted it although gates had not passed",
        "rolled_back": f"{since}, {move.who} rolled back from {short(move.previous)}",
        "revoked": f"{move.who} revoked {short(move.previous)} on {instant(move.at)}, {serves}",
        "restored": f"{since}, {move.who} restored it from an archive",
    }
    return f"{words[move.how]} (move {move.sequence})" + (f": {move.reason}" if move.reason else "")


def print_gates(evaluations: Sequence[Evaluation]) -> None:
    """A line a gate."""
    if not evaluations:
        console().print("no gate was asked yet")
        return
    shown = table("gate", "", "found", "asked", "what to do")
    for one in evaluations:
        mark = "[green]passed[/]" if one.passed else "[red]FAILED[/]" if one.blocking else "[yellow]warns[/]"
        advice = "" if one.passed else one.advice
        shown.add_row(clean(one.gate), mark, clean(one.summary), instant(one.evaluated_at), clean(advice))
    console().print(shown)


def print_measures(evaluations: Sequence[Evaluation], *, rows: bool) -> None:
    """Every measured value beside its limits; with ``rows`` what shows the finding too."""
    from aiops_assets.promotion.drawing import detail_rows, measure_rows

    shown = table("gate", "measure", "value", "limits", "holds", right=("value",))
    count = 0
    for one in evaluations:
        for cells in measure_rows(one.measures).iter_rows():
            shown.add_row(clean(one.gate), *map(clean, cells))
            count += 1
    if count:
        console().print(shown)
    for one in evaluations if rows else ():
        frame = detail_rows(one.details)
        if not frame.is_empty():
            details = table(*map(clean, frame.columns), title=clean(one.gate))
            for cells in frame.iter_rows():
                details.add_row(*("" if cell is None else clean(cell) for cell in cells))
            console().print(details)


def print_history(history: Sequence[Move]) -> None:
    """Every move of a pointer."""
    if not history:
        console().print("it was never promoted")
        return
    shown = table("move", "when", "serves", "how", "who", "reason", right=("move",))
    for move in history:
        how = f"revoked {short(move.previous)}" if move.how == "revoked" else move.how.replace("_", " ")
        shown.add_row(
            str(move.sequence), instant(move.at), short(move.version), how, clean(move.who), clean(move.reason)
        )  # fmt: skip
    console().print(shown)


def print_contents(contents: Mapping[str, Any], said: str) -> None:
    """What an archive holds."""
    things = ", ".join(f"{thing} ({count} versions)" for thing, count in contents["things"].items()) or "nothing"
    console().print(
        f"{clean(contents['path'])} {said}: {things}, {contents['files']:,} files, {size(contents['size'])}"
    )
    console().print(f"SHA-256 {contents['sha256']}")


def passed(evaluations: Sequence[Evaluation]) -> str:
    """How many blocking gates have passed, and how many others warn."""
    blocking = [one for one in evaluations if one.blocking]
    warned = sum(not one.passed for one in evaluations if not one.blocking)
    if not evaluations:
        return "not asked"
    return f"{sum(one.passed for one in blocking)}/{len(blocking)}" + (f", {warned} warn" if warned else "")


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested inputs with dotted names."""
    from aiops_assets.promotion.comparison import flat

    return flat(value, prefix)


def short(version: str | None) -> str:
    """The first digits of a version, ``–`` for none."""
    return version[:12] if version else "–"


def number(value: float | None) -> str:
    """A value in few digits."""
    from aiops_assets.promotion.drawing import number

    return number(value)


def difference(row: Mapping[str, Any]) -> str:
    """By how much two values differ, ``≠`` when they cannot be subtracted."""
    return number(row["difference"]) if "difference" in row else "≠" if row["differs"] else ""


def cell(value: Any) -> str:
    """A value of a comparison; hashes are cut short."""
    if isinstance(value, float):
        return number(value)
    text = "–" if value is None else str(value)
    return text[:16] if _HASH.fullmatch(text) else text
