"""Which version serves, which served, and every move between: the pointer history in the operations database.

What belongs here: reading and appending moves, and what follows from them (the version at an instant, what a rollback
goes back to, what was revoked). What does not: whether a version may serve (``registry``). Rows are only ever added;
a move is appended only after the one that its author had seen (compare and swap on ``sequence``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from sqlalchemy import Connection, insert, select
from sqlalchemy.exc import IntegrityError

from aiops_assets.operations import audit
from aiops_assets.operations.models import CHAMPION_MOVES
from aiops_assets.promotion.problems import MovedMeanwhile

How = Literal["promoted", "overridden", "rolled_back", "revoked", "restored"]


@dataclass(frozen=True, slots=True)
class Move:
    """One move of a pointer; ``at`` in microseconds since the epoch (UTC).

    ``version`` serves from then on (``None``: nothing does), ``previous`` served before; of a revocation ``previous``
    is the version that was revoked, whether it served or not.
    """

    thing: str
    sequence: int
    version: str | None
    previous: str | None
    at: int
    who: str
    how: How
    reason: str = ""
    run_id: str | None = None
    #: false when nothing had to be done: the version serves already
    changed: bool = True

    def document(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


def moves(connection: Connection, thing: str | None = None) -> list[Move]:
    """All moves of a thing, or of all of them, in order."""
    table = CHAMPION_MOVES
    statement = select(table).order_by(table.c.thing, table.c.sequence)
    if thing is not None:
        statement = statement.where(table.c.thing == thing)
    return [
        Move(row.thing, row.sequence, row.version, row.previous, row.at, row.who, row.how, row.reason, row.run_id)
        for row in connection.execute(statement)
    ]


def head(connection: Connection, thing: str) -> Move | None:
    """The last move; ``None`` while nothing ever served."""
    return serving(moves(connection, thing))


def append(connection: Connection, move: Move) -> Move:
    """Append a move and its audit row in the caller's (changing) transaction.

    ``at`` never goes backwards within a thing, so that "what served at T" has one answer whatever clocks do.

    Raises:
        MovedMeanwhile: the last move is not the one before ``move.sequence``.
    """
    last = head(connection, move.thing)
    reached = last.sequence if last is not None else 0
    if reached != move.sequence - 1:
        raise moved_meanwhile(move.thing, move.sequence - 1, last)
    if last is not None and move.at <= last.at:
        move = Move(**{**asdict(move), "at": last.at + 1})
    row = {name: value for name, value in asdict(move).items() if name != "changed"}
    try:
        connection.execute(insert(CHAMPION_MOVES).values(row))
    except IntegrityError as error:
        raise moved_meanwhile(move.thing, move.sequence - 1, last) from error
    audit.record(
        connection,
        at=move.at,
        who=move.who,
        action=f"registry.{move.how}",
        target=move.thing,
        details={"sequence": move.sequence, "version": move.version, "previous": move.previous, "reason": move.reason},
    )
    return move


def bring_back(connection: Connection, history: Sequence[Move]) -> None:
    """Append moves of a thing that has none, as they were; they were audited where they were made."""
    rows = [{name: value for name, value in asdict(move).items() if name != "changed"} for move in history]
    connection.execute(insert(CHAMPION_MOVES), rows)


def moved_meanwhile(thing: str, seen: int, last: Move | None) -> MovedMeanwhile:
    """What the loser of two moves is told, who had seen move ``seen``."""
    state = "nothing serves" if last is None else f"{last.who} has {_words(last)}"
    return MovedMeanwhile(
        f"{thing}: somebody else moved it since move {seen} was read: {state}. Nothing was changed; look at "
        f"aiops registry show {thing}, judge again, and promote if it should still serve"
    )


def serving(history: Sequence[Move], at: int | None = None) -> Move | None:
    """The move that decides what serves at an instant (now unless given)."""
    before = [move for move in history if at is None or move.at <= at]
    return before[-1] if before else None


def brought_in(history: Sequence[Move], at: int | None = None) -> Move | None:
    """The move since which the version that serves at an instant has served without a break.

    Later moves may have left it in place: the revocation of another version, or the mark of a restore.
    """
    found = None
    for move in history:
        if at is not None and move.at > at:
            break
        if found is None or move.version != found.version:
            found = move
    return found


def revoked(history: Sequence[Move]) -> dict[str, Move]:
    """Version → the move that revoked it."""
    return {str(move.previous): move for move in history if move.how == "revoked"}


def succession(history: Sequence[Move]) -> list[str]:
    """Versions that served one after the other and may serve again: the last is the present one.

    A rollback takes those off that came after its target, a revocation takes its version out everywhere.
    """
    line: list[str] = []
    for move in history:
        if move.how == "revoked":
            line = _without_repeats([version for version in line if version != move.previous])
        elif move.how == "rolled_back":
            while line and line[-1] != move.version:
                line.pop()
            line = line or ([move.version] if move.version else [])
        elif move.version is not None and line[-1:] != [move.version]:
            line.append(move.version)
    return line


def rolled_back_from(history: Sequence[Move]) -> dict[str, Move]:
    """Version → the rollback that left it, unless it was promoted again since."""
    found: dict[str, Move] = {}
    for move in history:
        if move.how == "rolled_back" and move.previous is not None:
            found[move.previous] = move
        elif move.how in {"promoted", "overridden"} and move.version is not None:
            found.pop(move.version, None)
    return found


def _without_repeats(line: Sequence[str]) -> list[str]:
    return [version for place, version in enumerate(line) if place == 0 or line[place - 1] != version]


def _words(move: Move) -> str:
    version = move.version[:12] if move.version else "nothing"
    words = {
        "promoted": f"promoted {version}",
        "overridden": f"promoted {version} by an override",
        "rolled_back": f"rolled back to {version}",
        "revoked": f"revoked {str(move.previous)[:12]}, so that {version} serves",
        "restored": f"restored {version} from an archive",
    }
    return f"{words[move.how]} (move {move.sequence})"
