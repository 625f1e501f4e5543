"""The roles of a configuration: general phrases and what is known of its topics, in all languages, ready to be filled.

What belongs here: contexts of roles and their compilation. What does not: the phrases (``phrases/``) and drawing among
them (``scene``, ``entries``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from aiops_assets.synthetic.golden.config import LANGUAGES, Category, GoldenConfig, Subcategory
from aiops_assets.synthetic.golden.draws import Floats, Ints
from aiops_assets.synthetic.golden.wording import Role, Topic, capital, contexts_of, phrases, role, topics

#: how a caller writes: technical level of the persona, or a machine
STYLES = ("low", "medium", "high", "system")
MACHINE = STYLES.index("system")
#: how it was reported
MODES = ("mail", "form", "phone", "visit", "chat", "system")
MONITORED = MODES.index("system")
PARTS = ("night", "morning", "noon", "afternoon", "evening")
LEVELS = ("1", "2", "3")
WHOM = ("desk", "wrong")
HOW = ("person", "system")
_ONE = ("any",)
#: roles that are worded alike whoever reported
_ALIKE = (
    "asked",
    "answered",
    "vendor_asked",
    "vendor_answered",
    "chased",
    "breached",
    "solved",
    "first_solved",
    "solved_again",
    "reopened",
    "reopened_system",
    "confirmed",
    "confirmed_system",
    "auto_closed",
    "resolution",
)
#: keys of the contexts of each role; the context of a row is language × keys + key
CONTEXTS: dict[str, tuple[str, ...]] = {
    "when": PARTS,
    "short": STYLES,
    "sentence": STYLES,
    "onset": STYLES,
    "message": STYLES,
    "tried": STYLES,
    "place": STYLES,
    "effect": LEVELS,
    "pressure": LEVELS,
    "opening": MODES,
    "closing": MODES,
    "paragraph": MODES,
    "opened": MODES,
    "moved": WHOM,
    **dict.fromkeys(("verified", "triaged", "accepted", "examined", "progress"), HOW),
    **dict.fromkeys(
        _ALIKE,
        _ONE,
    ),
}


#: parts of longer texts; they bring the space before them, so that none is left where they are empty
_PARTS = frozenset(
    ("opening", "sentence", "onset", "message", "effect", "pressure", "tried", "place", "closing", "verified")
)
_PERSONAL = re.compile(r"\b(I|my|me|we|our|us|nobody|somebody|colleagues?|complain)\b")
_SPACE = re.compile(r" \{(" + "|".join(sorted(_PARTS)) + r")\}")


def _spaced(name: str, phrase: str) -> str:
    """A phrase whose spaces have moved from before the parts into them."""
    inside = _SPACE.sub(r"{\1}", phrase)
    return f" {inside}" if name in _PARTS and inside else inside


def how_reported(contact_type: str) -> int:
    """Position in ``MODES`` of a contact type, by words that its name may hold."""
    name = contact_type.casefold()
    for words, mode in (
        (("monitor", "event", "alert", "alarm", "überwach"), "system"),
        (("mail",), "mail"),
        (("phone", "call", "telefon", "anruf"), "phone"),
        (("walk", "person", "persönlich", "counter"), "visit"),
        (("chat", "messag"), "chat"),
    ):
        if any(word in name for word in words):
            return MODES.index(mode)
    return MODES.index("form")


class Grammar:
    """Roles by name, and the subjects: subcategories of the configuration, the last for what it does not know."""

    def __init__(self, config: GoldenConfig) -> None:
        self.subjects = {
            (category.name, sub.name): number
            for number, (category, sub) in enumerate(
                (category, sub) for category in config.categories for sub in category.subcategories
            )
        }
        self.roles = {
            name: role(
                [
                    [_spaced(name, phrase) for phrase in context]
                    for language in LANGUAGES
                    for context in contexts_of(language, name, keys)
                ]
            )
            for name, keys in CONTEXTS.items()
        }
        known = [
            [*(_topic(language, c, sub) for c in config.categories for sub in c.subcategories), _general(language)]
            for language in LANGUAGES
        ]
        every = [topic for of_language in known for topic in of_language]
        self.generic = len(self.subjects)
        self.roles["symptom"] = role([topic.symptoms for topic in every])
        self.roles["Symptom"] = role([[capital(text) for text in topic.symptoms] for topic in every])
        machine = [
            [number for number, text in enumerate(topic.symptoms) if not _PERSONAL.search(text)]
            or list(range(len(topic.symptoms)))
            for topic in every
        ]
        self._machine_size = np.array([len(numbers) for numbers in machine])
        self._machine_first = np.cumsum(self._machine_size) - self._machine_size
        self._machine = np.array([number for numbers in machine for number in numbers])
        self.roles["error"] = role([topic.errors for topic in every])
        fits = [fit for topic in every for fit in topic.fits]
        self._fit_size = np.array([len(fit) for fit in fits])
        self._fit_first = np.cumsum(self._fit_size) - self._fit_size
        self._fits = np.array([cause for fit in fits for cause in fit])
        self.roles["cause"] = self._of_causes(every, lambda cause: cause[0])
        self.roles["Cause"] = self._of_causes(every, lambda cause: capital(cause[0]))
        self.roles["fix"] = self._of_causes(every, lambda cause: cause[1])
        names = phrases(LANGUAGES[0])["codes"]
        self.codes = pl.Series([names[cause[2]] for topic in every for cause in topic.causes], dtype=pl.String)
        self.weekdays = pl.Series([day for language in LANGUAGES for day in phrases(language)["weekday"]])
        self.typos = [[tuple(pair) for pair in phrases(language)["typos"]] for language in LANGUAGES]

    @staticmethod
    def _of_causes(every: Sequence[Topic], part: Callable[[tuple[str, str, str]], str]) -> Role:
        return role([[part(cause) for cause in topic.causes] for topic in every])

    def symptom(self, uniform: Floats, context: Ints, machine: NDArray[np.bool_]) -> Ints:
        """The phrase in the role ``symptom``; monitoring never speaks of itself as a person."""
        role = self.roles["symptom"]
        size = self._machine_size[context]
        number = self._machine[self._machine_first[context] + np.minimum((uniform * size).astype(np.int64), size - 1)]
        return np.where(machine, role.first[context] + number, role.chosen(uniform, context))

    def cause(self, uniform: Floats, context: Ints, symptom: Ints, attempt: Ints) -> Ints:
        """The phrase in roles of causes: for attempt 0 one that explains the symptom, for others another one.

        Args:
            context: ``subject_context``.
            symptom: phrase in the role ``symptom``.
        """
        size = self._fit_size[symptom]
        own = self._fits[self._fit_first[symptom] + np.minimum((uniform * size).astype(np.int64), size - 1)]
        role = self.roles["cause"]
        return np.asarray(role.first[context] + (own + attempt) % role.size[context])

    def context(self, name: str, language: Ints, key: Ints | int = 0) -> Ints:
        """The context of each row in a role of ``CONTEXTS``."""
        return language * len(CONTEXTS[name]) + key

    def subject_context(self, language: Ints, subject: Ints) -> Ints:
        """The context of each row in roles that depend on the subject."""
        return language * (self.generic + 1) + subject


def _topic(language: str, category: Category, sub: Subcategory) -> Topic:
    """What is known of a subcategory: its own phrases, else those of the topic, else the general ones."""
    general = _general(language)
    found = topics(language).get((category.topic or category.name, sub.name), general)
    own = sub.symptoms.get(language)  # type: ignore[call-overload]
    symptoms = own or found.symptoms
    fits = found.fits if own is None else (tuple(range(len(found.causes))),) * len(symptoms)
    return Topic(symptoms, sub.errors or found.errors, found.causes, fits)


def _general(language: str) -> Topic:
    spoken = phrases(language)
    causes = [tuple(part.strip() for part in line.split("|")) for line in spoken["cause"]]
    symptoms = tuple(spoken["symptom"])
    fits = (tuple(range(len(causes))),) * len(symptoms)
    return Topic(symptoms, tuple(spoken["error"]), tuple(causes), fits)
