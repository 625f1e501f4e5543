"""Who reports and who mends: made-up people by handle, each with a location, a persona and a language.

What belongs here: handles and the callers of a configuration. What does not: who reports what (``declared``). Handles
(``mira.k``) are no names of people: one invented given name, a letter, and a number where two would be alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from aiops_assets.synthetic.golden.config import LANGUAGES, GoldenConfig
from aiops_assets.synthetic.golden.draws import Draws, cumulated

Ints = NDArray[np.int64]

MONITORING = "svc.monitoring"
_STARTS = ("al", "be", "da", "el", "fi", "ga", "ha", "is", "jo", "ka", "le", "mi", "no", "os", "pe", "ri", "sa", "ti")
_ENDS = ("ra", "no", "lle", "mo", "ska", "den", "via", "ro", "na", "rik", "sa", "vin")
_LETTERS = "abcdefghijklmnoprstuvwz"
_GIVEN = tuple(start + end for start in _STARTS for end in _ENDS)


def handle(number: int) -> str:
    """The handle of a person by number; different numbers have different handles."""
    scattered = number * 7_919 % (len(_GIVEN) * len(_LETTERS))
    again = number // (len(_GIVEN) * len(_LETTERS))
    made = f"{_GIVEN[scattered % len(_GIVEN)]}.{_LETTERS[scattered // len(_GIVEN)]}"
    return f"{made}{again + 1}" if again else made


@dataclass(frozen=True)
class Population:
    """Callers in buckets of location × persona, then technicians in groups; all by number in one list of handles."""

    handles: pl.Series
    persona: Ints  # of callers
    location: Ints
    language: Ints  # position in LANGUAGES
    department: Ints  # position in the departments of the persona
    bucket_first: Ints  # [locations × personas]
    bucket_size: Ints
    group_first: Ints  # number of the first technician of each group
    group_size: Ints

    @property
    def callers(self) -> int:
        """How many callers there are."""
        return len(self.persona)


def persona_shares(config: GoldenConfig) -> NDArray[np.float64]:
    """Weight of each persona at each location: [locations × personas]."""
    made = np.zeros((len(config.locations), len(config.personas)))
    for column, persona in enumerate(config.personas):
        for row, location in enumerate(config.locations):
            if not persona.locations or location.name in persona.locations:
                made[row, column] = persona.weight
    empty = made.sum(axis=1) <= 0
    made[empty] = 1.0
    return np.asarray(made / made.sum(axis=1, keepdims=True))


def population(config: GoldenConfig) -> Population:
    """Everybody of a configuration; the same for every seed, as a company's people are."""
    places = np.array([location.weight for location in config.locations])
    expected = places[:, None] / places.sum() * persona_shares(config) * config.callers
    sizes = np.where(expected > 0, np.maximum(np.round(expected), 1), 0).astype(np.int64)
    flat = sizes.ravel()
    first = np.concatenate(([0], np.cumsum(flat)))
    bucket = np.repeat(np.arange(len(flat)), flat)
    persona, location = bucket % len(config.personas), bucket // len(config.personas)
    draws = Draws(0, np.arange(len(bucket)))
    language = draws.chosen("language", _languages(config), bucket)
    departments = np.array([len(entry.departments) for entry in config.personas])
    members = np.array([group.members for group in config.groups])
    before = np.concatenate(([0], np.cumsum(members)))
    everybody = len(bucket) + int(members.sum())
    # People of one bucket should not follow each other in the alphabet either.
    step = next(n for n in range(2_593, 2_593 + everybody + 1) if math.gcd(n, everybody) == 1)
    return Population(
        handles=pl.Series([handle(number * step % everybody) for number in range(everybody)], dtype=pl.String),
        persona=persona,
        location=location,
        language=language,
        department=draws.below("department", departments[persona]),
        bucket_first=first[:-1].reshape(sizes.shape),
        bucket_size=sizes,
        group_first=len(bucket) + before[:-1],
        group_size=members,
    )


def _languages(config: GoldenConfig) -> NDArray[np.float64]:
    """Cumulative weights of languages for each bucket."""
    rows = []
    for location in config.locations:
        spoken = np.array([location.languages.get(language, 0.0) for language in LANGUAGES])  # type: ignore[call-overload]
        for persona in config.personas:
            wanted = np.array([float(language in persona.languages) for language in LANGUAGES])
            both = spoken * wanted
            rows.append(spoken if not persona.languages else both if both.sum() > 0 else wanted)
    return cumulated(np.array(rows))
