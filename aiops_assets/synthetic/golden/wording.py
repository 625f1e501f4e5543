"""Sentences from phrases with slots, for whole columns at once.

What belongs here: phrase files read into roles, and roles filled from columns: a text is a concatenation of gathered
pieces, never a loop over rows. What does not: which role tells what (``telling``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
import polars as pl
import yaml
from numpy.typing import NDArray

from aiops_assets.synthetic.golden.draws import Ints

_SLOT = re.compile(r"\{([a-z_A-Z]+)\}")


class Slots:
    """Columns that phrases refer to: of the tickets, and for texts of events also of the events."""

    def __init__(self, of_tickets: Mapping[str, pl.Series], of_events: Mapping[str, pl.Series] | None = None) -> None:
        self.of_tickets = dict(of_tickets)
        self.of_events = dict(of_events or {})

    def __setitem__(self, name: str, values: pl.Series) -> None:
        self.of_tickets[name] = values


@dataclass(frozen=True)
class Role:
    """Phrases of all contexts in one list; each is cut into pieces before, between and after its slots."""

    pieces: tuple[pl.Series, ...]  # most slots + 1, each as long as there are phrases
    slots: tuple[NDArray[np.int64], ...]  # position in ``names`` for each phrase, 0: none
    names: tuple[str, ...]
    first: Ints  # of each context
    size: Ints
    silent: tuple[bool, ...]  # which pieces are empty in all phrases

    def texts(self, phrase: Ints, slots: Slots, rows: Ints | None = None) -> pl.Series:
        """The text of one phrase a row, filled in; ``rows`` are tickets of events, none: one text a ticket."""
        count = len(phrase)
        rows = np.arange(count) if rows is None else rows
        of_event = np.zeros(len(self.names), np.bool_)
        offset = np.zeros(len(self.names), np.int64)
        columns = [pl.Series([""])]
        filled = 1
        for position, name in enumerate(self.names[1:], 1):
            of_event[position] = name in slots.of_events
            column = slots.of_events[name] if of_event[position] else slots.of_tickets[name]
            offset[position] = filled
            filled += len(column)
            columns.append(column)
        every = pl.lit(pl.concat(columns))
        events = np.arange(count)
        spoken = pl.lit(_positions(phrase))
        parts = [] if self.silent[0] else [pl.lit(self.pieces[0]).gather(spoken)]
        for number, which in enumerate(self.slots, 1):
            slot = which[phrase]
            own = np.where(of_event[slot], events, rows) if of_event.any() else rows
            parts.append(every.gather(pl.lit(_positions(np.where(slot == 0, 0, offset[slot] + own)))))
            if not self.silent[number]:
                parts.append(pl.lit(self.pieces[number]).gather(spoken))
        return pl.select(pl.concat_str(parts).alias("text")).to_series()

    def chosen(self, uniform: NDArray[np.float64], context: Ints) -> Ints:
        """The phrase of each row by a uniform number and its context."""
        size = self.size[context]
        return np.asarray(self.first[context] + np.minimum((uniform * size).astype(np.int64), size - 1))


def _positions(values: Ints) -> pl.Series:
    """Positions as Polars gathers by them."""
    return pl.Series(values.astype(np.uint32))


def role(contexts: Sequence[Sequence[str]]) -> Role:
    """A role of phrases by context; none of the contexts may be empty."""
    phrases = [phrase for context in contexts for phrase in context]
    size = np.array([len(context) for context in contexts])
    names = ("", *sorted({name for phrase in phrases for name in _SLOT.findall(phrase)}))
    cut = [_SLOT.split(phrase) for phrase in phrases]
    most = max(len(parts) // 2 for parts in cut)
    pieces = tuple(
        pl.Series([parts[2 * n] if 2 * n < len(parts) else "" for parts in cut], dtype=pl.String)
        for n in range(most + 1)
    )
    slots = tuple(
        np.array([names.index(parts[2 * n + 1]) if 2 * n + 1 < len(parts) else 0 for parts in cut]) for n in range(most)
    )
    silent = tuple(bool((piece == "").all()) and len(pieces) > 1 for piece in pieces)
    return Role(pieces, slots, names, np.cumsum(size) - size, size, silent)


def capital(text: str) -> str:
    """With a capital first letter; a slot at the start stays."""
    return text[:1].upper() + text[1:]


@dataclass(frozen=True)
class Topic:
    """What may go wrong with one subcategory, in one language."""

    symptoms: tuple[str, ...]
    errors: tuple[str, ...]
    causes: tuple[tuple[str, str, str], ...]  # cause, what was done, code
    fits: tuple[tuple[int, ...], ...]  # of each symptom, the positions of the causes that explain it


@cache
def phrases(language: str) -> Mapping[str, Any]:
    """The general phrases of a language: role → phrases, or role → context → phrases."""
    loaded: dict[str, Any] = _read(f"phrases_{language}.yaml")
    return loaded


@cache
def topics(language: str) -> Mapping[tuple[str, str], Topic]:
    """What is known about (topic, subcategory) in a language; messages without translation are those in English."""
    made = {}
    english, fits = _read("topics_en.yaml"), _read("fits.yaml")
    for topic, subcategories in _read(f"topics_{language}.yaml").items():
        for subcategory, entry in subcategories.items():
            errors = entry.get("e") or english[topic][subcategory]["e"]
            causes = [tuple(part.strip() for part in line.split("|")) for line in entry["c"]]
            explained = fits[topic][subcategory]
            of_symptoms = tuple(
                tuple(cause for cause, symptoms in enumerate(explained) if symptom in symptoms)
                for symptom in range(1, len(entry["s"]) + 1)
            )
            made[topic, subcategory] = Topic(tuple(entry["s"]), tuple(errors), tuple(causes), of_symptoms)
    return made


def _read(name: str) -> Any:
    text = resources.files("aiops_assets.synthetic.golden").joinpath("phrases", name).read_text("utf-8")
    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - both are safe


def contexts_of(language: str, name: str, keys: Sequence[str]) -> list[list[str]]:
    """Phrases of a role by context, those of ``any`` in each, those of ``person`` in each but ``system``."""
    found = phrases(language)[name]
    if isinstance(found, list):
        return [list(found) for _ in keys]
    common, person = found.get("any", []), found.get("person", [])
    return [[*common, *(() if key in {"system", "person"} else person), *found.get(key, [])] for key in keys]
