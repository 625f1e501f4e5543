"""Work notes: a dated entry of its author for everything that happened to a ticket.

What belongs here: who writes which entry in which words. What does not: what happened (``lifecycle``).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from aiops_assets.synthetic.golden.draws import Draws, Ints
from aiops_assets.synthetic.golden.grammar import MODES, MONITORED
from aiops_assets.synthetic.golden.lifecycle import Kind
from aiops_assets.synthetic.golden.record import NOTE
from aiops_assets.synthetic.golden.scene import Scene
from aiops_assets.synthetic.golden.wording import Slots

_BY_CALLER = (Kind.ANSWERED, Kind.CHASED, Kind.REOPENED, Kind.CONFIRMED)
_BY_SYSTEM = (Kind.BREACHED, Kind.AUTO_CLOSED)
#: worded differently where nobody called
_BY_HOW = (Kind.TRIAGED, Kind.ACCEPTED, Kind.EXAMINED, Kind.PROGRESS)
_CAUSES = ("cause", "Cause", "fix")
#: answers follow the question that was asked: one draw for both
_TOGETHER = {Kind.ANSWERED: Kind.ASKED, Kind.VENDOR_ANSWERED: Kind.VENDOR_ASKED}
_BY_WORD = (MODES.index("phone"), MODES.index("visit"))


@dataclass(frozen=True)
class Crew:
    """Handles of technicians by group, the service desk last or among them; then monitoring and the system."""

    handles: pl.Series
    first: Ints
    size: Ints
    groups: pl.Series
    desk: int  # position in ``first``

    def member(self, draws: Draws, group: Ints) -> Ints:
        """Positions in ``handles`` of one member of each group."""
        return self.first[group] + draws.below("technician", self.size[group])


class Entries:
    """The entries of the tickets of a scene."""

    def __init__(self, scene: Scene, crew: Crew, assignee: pl.Series) -> None:
        self._scene, self._crew, self._assignee = scene, crew, assignee
        self._index = scene.frame["index"].to_numpy()

    def address(self, rows: Ints, ordinal: Ints | int) -> Draws:
        """Draws of their own for events of tickets."""
        return Draws(self._scene.draws.seed, np.asarray(self._index[rows] * 64 + ordinal, np.int64))

    def told(self) -> pl.Series:
        """``work_notes`` of each ticket."""
        scene, events = self._scene, self._scene.life.events
        texts, positions = [], []
        for kind in Kind:
            position = np.flatnonzero(events.kind == kind)
            if len(position):
                texts.append(self._texts(kind, events.row[position], events.ordinal[position]))
                positions.append(position)
        order = np.empty(len(events.row), np.int64)
        order[np.concatenate(positions)] = np.arange(len(events.row))
        flat = pl.DataFrame(
            {
                "row": events.row,
                "written_at": pl.Series(events.at).cast(NOTE.fields[0].dtype),  # type: ignore[attr-defined]
                "author": self._authors(),
                "note": pl.concat(texts).gather(order),
            }
        )
        made = flat.select(pl.col("row").set_sorted(), pl.struct("written_at", "author", "note").alias("work_notes"))
        notes = made.group_by("row", maintain_order=True).agg("work_notes")["work_notes"]
        if len(notes) != scene.frame.height:
            raise RuntimeError("every ticket has an entry of its opening")
        return notes

    def _texts(self, kind: Kind, rows: Ints, ordinal: Ints) -> pl.Series:
        scene = self._scene
        name, key = kind.name.lower(), np.zeros(len(rows), np.int64)
        special: dict[str, pl.Series] = {}
        chain = scene.life.chain
        if kind is Kind.OPENED:
            key = scene.voices.mode[rows]
        elif kind in _BY_HOW:
            key = (scene.voices.mode[rows] == MONITORED).astype(np.int64)
        if kind is Kind.TRIAGED:
            special["to"] = self._crew.groups.gather(chain[rows, 0])
        elif kind is Kind.MOVED:
            special["from"] = self._crew.groups.gather(chain[rows, ordinal])
            special["to"] = self._crew.groups.gather(chain[rows, ordinal + 1])
            key = (chain[rows, ordinal] != self._crew.desk).astype(np.int64)
        slots = Slots(scene.slots.of_tickets, special)
        if kind in {Kind.EXAMINED, Kind.FIRST_SOLVED}:
            # What is found before the first solution of a ticket that comes back is not yet the real cause.
            attempt = 1 + ordinal if kind is Kind.FIRST_SOLVED else (self._reopenings[rows] > 0).astype(np.int64)
            phrase = scene.cause(attempt, rows)
            for part in _CAUSES:
                slots.of_events[part] = scene.grammar.roles[part].texts(phrase, Slots(scene.slots.of_tickets), rows)
        if kind in {Kind.REOPENED, Kind.CONFIRMED}:
            machine = (scene.voices.mode[rows] == MONITORED).astype(np.int64)
            return self._either(rows, ordinal, machine, (name, f"{name}_system"), slots)
        if kind is Kind.SOLVED:
            return self._either(
                rows, ordinal, (self._reopenings[rows] > 0).astype(np.int64), ("solved", "solved_again"), slots
            )
        return self._said(name, kind, rows, ordinal, key, slots)

    @property
    def _reopenings(self) -> Ints:
        return self._scene.frame["reopen_count"].to_numpy().astype(np.int64)

    def _said(self, name: str, kind: Kind, rows: Ints, ordinal: Ints, key: Ints, slots: Slots) -> pl.Series:
        role = self._scene.grammar.roles[name]
        context = self._scene.grammar.context(name, self._scene.voices.language[rows], key)
        uniform = self.address(rows, ordinal).uniform(f"entry:{_TOGETHER.get(kind, kind).name}")
        return role.texts(role.chosen(uniform, context), slots, rows)

    def _either(self, rows: Ints, ordinal: Ints, second: Ints, names: tuple[str, str], slots: Slots) -> pl.Series:
        """Texts of one role, or of another where the flag is set."""
        made = pl.Series([""]).new_from_index(0, len(rows))
        for flag, name in enumerate(names):
            chosen = np.flatnonzero(second == flag)
            if len(chosen):
                part = Slots(slots.of_tickets, {key: of.gather(chosen) for key, of in slots.of_events.items()})
                key = np.zeros(len(chosen), np.int64)
                text = self._said(name, Kind.SOLVED, rows[chosen], ordinal[chosen], key, part)
                made = made.scatter(chosen, text)
        return made

    def _authors(self) -> pl.Series:
        """Who wrote each entry."""
        scene, crew, events = self._scene, self._crew, self._scene.life.events
        count = scene.frame.height
        kind, row, ordinal = events.kind, events.row, events.ordinal
        monitored = scene.voices.mode[row] == MONITORED
        # Callers, then those to whom tickets are assigned, then everybody else by position.
        system = 2 * count + len(crew.handles) - 1
        made = count + row
        desk = crew.member(self.address(np.arange(count), 0), np.full(count, crew.desk))
        by_desk = ((kind == Kind.OPENED) & np.isin(scene.voices.mode[row], _BY_WORD)) | (kind == Kind.TRIAGED)
        made = np.where(by_desk, 2 * count + desk[row], made)
        by_caller = np.isin(kind, _BY_CALLER) | ((kind == Kind.OPENED) & ~by_desk)
        made = np.where(by_caller, np.where(monitored, system - 1, row), made)
        made = np.where(np.isin(kind, _BY_SYSTEM), system, made)
        moved = (kind == Kind.MOVED) | ((kind == Kind.ACCEPTED) & (scene.life.all_moves[row] > 0))
        position = np.flatnonzero(moved)
        group = scene.life.chain[row[position], ordinal[position]]
        made[position] = 2 * count + crew.member(self.address(row[position], ordinal[position]), group)
        everybody = pl.concat([scene.frame["caller_id"], self._assignee, crew.handles])
        return everybody.gather(made)
