"""What a gate is and what it says: measured values beside their limits, rows that show it, a plot, and what to do.

What belongs here: the shape of gates and of their results, for every kind of thing that is promoted. What does not:
what the gates of one thing measure (its room), and how results are stored and shown (``registry``, ``assets``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MOST_DETAILS = 100


@dataclass(frozen=True, slots=True)
class Measure:
    """A measured value and its limits; ``None`` where there is none on that side."""

    value: float
    least: float | None = None
    most: float | None = None
    unit: str = ""

    @property
    def holds(self) -> bool:
        """Whether the value lies within its limits; a value that is not a number never does."""
        above = self.least is None or self.value >= self.least
        return self.value == self.value and above and (self.most is None or self.value <= self.most)


@dataclass(frozen=True, slots=True)
class GateResult:
    """What one gate says of one version.

    ``details`` are rows that show the finding (at most ``MOST_DETAILS`` are kept), ``plot`` is a whole SVG document,
    ``advice`` says what to do when it failed, ``skipped`` why nothing could be measured (a skipped gate passes only
    when it is not needed, for example without a reference).
    """

    passed: bool
    summary: str
    measures: Mapping[str, Measure] = field(default_factory=dict)
    details: Sequence[Mapping[str, Any]] = ()
    plot: str | None = None
    advice: str = ""
    skipped: str = ""


@dataclass(frozen=True, slots=True)
class VersionFiles:
    """An immutable version as a gate sees it: its files in ``folder`` (read only), its recorded inputs and metrics."""

    thing: str
    version: str
    folder: Path
    inputs: Mapping[str, Any]
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Gate:
    """One check. ``judge`` gets the candidate and the champion that serves now (``None``: none does).

    An exception of ``judge`` is a failure of this gate, told as such; the other gates are still asked.
    """

    name: str
    description: str
    judge: Callable[[VersionFiles, VersionFiles | None], GateResult]
    blocking: bool = True


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a version was made from: enough to make it again.

    ``tables`` maps lake tables to Delta versions, ``files`` other inputs to their SHA-256, ``more`` holds parameters
    that are plain JSON.
    """

    code_version: str
    config_digest: str = ""
    seed: int | None = None
    provider: str = "offline"
    tables: Mapping[str, int] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Candidate:
    """What ``produce`` hands over: inputs and numbers of the files in its working folder, all of which are taken."""

    inputs: Inputs
    metrics: Mapping[str, float] = field(default_factory=dict)
    rows: int | None = None
    preview: Sequence[Mapping[str, Any]] = ()
