"""What is told about a ticket as a whole: the columns that phrases refer to, the caller's report, the resolution.

What belongs here: one text a ticket. What does not: the dated entries (``entries``).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from aiops_assets.hours import MICROS_PER_SECOND
from aiops_assets.synthetic.golden.calendars import offsets
from aiops_assets.synthetic.golden.config import LANGUAGES, GoldenConfig
from aiops_assets.synthetic.golden.draws import Draws, Ints
from aiops_assets.synthetic.golden.grammar import MACHINE, PARTS, Grammar
from aiops_assets.synthetic.golden.lifecycle import Kind, Life
from aiops_assets.synthetic.golden.wording import Slots, phrases

_MINUTE = 60 * MICROS_PER_SECOND
_TYPO_GROUPS = 4
_SUMMARY = 160
#: parts of the day (positions in PARTS) by hour
_PART = np.array([0] * 6 + [1] * 5 + [2] * 2 + [3] * 5 + [4] * 4 + [0] * 2)
_CLOCKS = pl.Series([f"{minute // 60:02d}:{minute % 60:02d}" for minute in range(1440)])
#: of so many people a report speaks, by impact
_FEWEST, _MOST = np.array([0, 40, 3, 2]), np.array([0, 400, 30, 9])
_NUMBERS = pl.Series([str(number) for number in range(10_000)])


@dataclass(frozen=True)
class Voices:
    """Who reports each ticket, and how: positions in LANGUAGES, STYLES and MODES."""

    language: Ints
    style: Ints
    mode: Ints
    department: pl.Series

    @property
    def machine(self) -> NDArray[np.bool_]:
        """Reported by monitoring."""
        return np.asarray(self.style == MACHINE)


class Scene:
    """The tickets of one chunk, with everything that texts need."""

    def __init__(
        self,
        config: GoldenConfig,
        grammar: Grammar,
        frame: pl.DataFrame,
        draws: Draws,
        life: Life,
        voices: Voices,
        place: Ints,
        subject: Ints,
    ) -> None:
        self.config, self.grammar, self.frame, self.draws = config, grammar, frame, draws
        self.life, self.voices = life, voices
        self.about = grammar.subject_context(voices.language, subject)
        self._symptom = grammar.symptom(draws.uniform("say:symptom"), self.about, voices.machine)
        self._local = life.opened + _offsets(config, life.opened, place)
        self.slots = self._slots()

    def say(self, name: str, key: Ints | int, field: str | None = None) -> pl.Series:
        """One text a ticket of a role by language and key."""
        role = self.grammar.roles[name]
        context = self.grammar.context(name, self.voices.language, key)
        return role.texts(role.chosen(self.draws.uniform(f"say:{field or name}"), context), self.slots)

    def cause(self, attempt: Ints, rows: Ints | None = None) -> Ints:
        """The phrase in roles of causes: the real one for attempt 0, others for attempts before it."""
        about, symptom, uniform = self.about, self._symptom, self.draws.uniform("say:cause")
        if rows is not None:
            about, symptom, uniform = about[rows], symptom[rows], uniform[rows]
        return self.grammar.cause(uniform, about, symptom, attempt)

    def _slots(self) -> Slots:
        frame, draws, voices = self.frame, self.draws, self.voices
        service = frame["business_service"]
        impact = np.clip(frame["impact"].to_numpy(), 1, 3)
        minute = (self._local // _MINUTE) % 1440
        before = 5 + draws.below("slot:clock", 85)
        spoken = np.where(voices.machine, np.minimum(before // 8, 4), before)
        weekday = (self._local // (1440 * _MINUTE) + 3) % 7
        working = np.where((weekday == 0) | (weekday > 4), 4, weekday - 1)
        bits = draws.bits("slot:codes")
        room = _NUMBERS.gather(100 + draws.below("slot:room", 480))
        slots = Slots(
            {
                "service": service,
                "ci": frame["configuration_item"].fill_null(service)
                if frame["configuration_item"].null_count()
                else frame["configuration_item"],
                "device": self._devices(room),
                "location": frame["location"],
                "category": frame["category"],
                "subcategory": frame["subcategory"],
                "department": voices.department,
                "caller": frame["caller_id"],
                "priority": _NUMBERS.gather(np.maximum(frame["priority"].to_numpy(), 0)),
                "impact": _NUMBERS.gather(impact),
                "urgency": _NUMBERS.gather(np.clip(frame["urgency"].to_numpy(), 1, 3)),
                "n": _NUMBERS.gather(_FEWEST[impact] + draws.below("slot:n", _MOST[impact] - _FEWEST[impact])),
                "k": _NUMBERS.gather(2 + draws.below("slot:k", 8)),
                "pc": _NUMBERS.gather(90 + draws.below("slot:pc", 10)),
                "code": _NUMBERS.gather(1_000 + draws.below("slot:code", 9_000)),
                "room": room,
                "clock": _CLOCKS.gather((minute - spoken) % 1440),
                "later": _CLOCKS.gather((minute + 45 + before * 2) % 1440),
                "weekday": self.grammar.weekdays.gather(voices.language * 7 + working),
                "hex": _hexadecimal(bits),
                "ref": _numbered("CS", draws.below("slot:ref", 9_000_000) + 1_000_000),
                "change": _numbered("CHG", draws.below("slot:change", 900_000) + 1_000_000),
                "days": pl.Series([str(self.config.closing.after)]).new_from_index(0, frame.height),
            }
        )
        symptom = self._symptom
        slots["symptom"] = self.grammar.roles["symptom"].texts(symptom, slots)
        slots["Symptom"] = self.grammar.roles["Symptom"].texts(symptom, slots)
        error = self.grammar.roles["error"].chosen(draws.uniform("say:error"), self.about)
        slots["error"] = self.grammar.roles["error"].texts(error, slots)
        cause = self.cause(np.zeros(frame.height, np.int64))
        for name in ("cause", "Cause", "fix"):
            slots[name] = self.grammar.roles[name].texts(cause, slots)
        self.slots = slots
        slots["when"] = self.say("when", _PART[minute // 60] % len(PARTS))
        slots["verified"] = self.say("verified", voices.machine.astype(np.int64))
        slots["short"] = self.say("short", voices.style)
        return slots

    def _devices(self, room: pl.Series) -> pl.Series:
        """What callers call their device: an item with a number of its own, else the computer in their room."""
        computer = pl.Series([phrases(language)["computer"] for language in LANGUAGES])
        made = pl.select(
            pl.when(self.frame["configuration_item"].str.contains(r"\d{4}$"))
            .then(self.frame["configuration_item"])
            .otherwise(pl.concat_str(pl.lit(computer.gather(self.voices.language)), pl.lit(room), separator=" "))
        )
        return made.to_series()

    def report(self) -> tuple[pl.Series, pl.Series]:
        """(short description, description) as the caller gave them, typing errors and haste included."""
        slots, voices, draws = self.slots, self.voices, self.draws
        for name in ("sentence", "onset", "message", "tried", "place"):
            slots[name] = self.say(name, voices.style)
        slots["effect"] = self.say("effect", np.clip(self.frame["impact"].to_numpy(), 1, 3) - 1)
        slots["pressure"] = self.say("pressure", np.clip(self.frame["urgency"].to_numpy(), 1, 3) - 1)
        for name in ("opening", "closing"):
            slots[name] = self.say(name, voices.mode)
        description = self.say("paragraph", voices.mode).str.strip_chars_start(" ")
        short = slots.of_tickets["short"]
        person = ~voices.machine
        hasty = np.flatnonzero(draws.happens("haste", self.config.wording.telegraphic) & person)
        if len(hasty):
            description = description.scatter(hasty, description.gather(hasty).str.to_lowercase())
            short = short.clone().scatter(hasty, short.gather(hasty).str.to_lowercase())
        # A number of characters that ITSM tools allow for a summary; what is longer is cut off there as well.
        short = short.str.head(_SUMMARY)
        return short, self._mistyped(description, draws.happens("typos", self.config.wording.typos) & person)

    def _mistyped(self, texts: pl.Series, chosen: NDArray[np.bool_]) -> pl.Series:
        group = self.draws.below("typos:which", _TYPO_GROUPS)
        for language in range(len(LANGUAGES)):
            for number in range(_TYPO_GROUPS):
                rows = np.flatnonzero(chosen & (self.voices.language == language) & (group == number))
                pairs = self.grammar.typos[language][number::_TYPO_GROUPS]
                if len(rows) and pairs:
                    old, new = [f" {pair[0]} " for pair in pairs], [f" {pair[1]} " for pair in pairs]
                    wrong = pl.select(pl.lit(texts.gather(rows)).str.replace_many(old, new)).to_series()
                    texts = texts.scatter(rows, wrong)
        return texts

    def resolution(self) -> tuple[pl.Series, pl.Series]:
        """(resolution notes, close code), null while a ticket is not resolved."""
        resolved = self.life.resolved < np.iinfo(np.int64).max
        visible = np.bincount(self.life.events.row[self.life.events.kind == Kind.SOLVED], minlength=len(resolved)) > 0
        provisional = np.flatnonzero(resolved & ~visible)
        code = self.grammar.codes.gather(self.cause(np.where(visible, 0, 1)))
        given = self.frame["close_code"]
        code = code if given.null_count() == len(given) else given.fill_null(code)
        text = self.say("resolution", 0)
        if len(provisional):
            text = text.scatter(provisional, self._first_attempt(provisional))
        flag = pl.Series(resolved)
        made = pl.select(
            text=pl.when(flag).then(text),
            code=pl.when(flag).then(code),
        )
        return made["text"], made["code"]

    def _first_attempt(self, rows: Ints) -> pl.Series:
        """Resolutions of tickets that will be reopened: what was done first."""
        roles, phrase = self.grammar.roles, self.cause(np.ones(len(rows), np.int64), rows)
        other = {name: roles[name].texts(phrase, self.slots, rows) for name in ("cause", "Cause", "fix")}
        context = self.grammar.context("first_solved", self.voices.language[rows])
        chosen = roles["first_solved"].chosen(self.draws.uniform("say:first")[rows], context)
        return roles["first_solved"].texts(chosen, Slots(self.slots.of_tickets, other), rows)


def _offsets(config: GoldenConfig, at: Ints, place: Ints) -> Ints:
    made = np.zeros(len(at), np.int64)
    for number, location in enumerate(config.locations):
        rows = np.flatnonzero(place == number)
        made[rows] = offsets(at[rows], location.time_zone)
    return made


def _numbered(prefix: str, numbers: Ints) -> pl.Series:
    return pl.select(pl.lit(prefix) + pl.Series(numbers).cast(pl.String)).to_series()


_HEX = pl.Series([f"{value:04x}" for value in range(65_536)])


def _hexadecimal(bits: NDArray[np.uint64]) -> pl.Series:
    """Eight hexadecimal digits of random bits."""
    high = _HEX.gather((bits & np.uint64(0xFFFF)).astype(np.int64))
    low = _HEX.gather(((bits >> np.uint64(16)) & np.uint64(0xFFFF)).astype(np.int64))
    return pl.select(pl.lit(high) + pl.lit(low)).to_series()
