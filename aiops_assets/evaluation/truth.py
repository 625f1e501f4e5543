"""What a score is measured against: faults with the series they touch, and what was ordinary although it looked odd.

What belongs here: the values that scoring needs of a truth, and how they follow from the truth of a storm or from its
file. What does not: making a truth (``synthetic.storms.truth``) and scoring (``scoring``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import orjson

if TYPE_CHECKING:
    from aiops_assets.synthetic.storms.truth import Truth as StormTruth


@dataclass(frozen=True, slots=True)
class Symptom:
    """Where a fault shows, from ``start`` up to ``end`` (microseconds since the epoch, UTC).

    Attributes:
        metric: ``None`` for a trace beside metrics: an event of the hardware, a trap, log lines.
        labels: canonical JSON, as the platform stores them; ``None`` where they are not known.
        silent: whether no sample comes at all.
    """

    host: str
    metric: str | None
    start: int
    end: int
    labels: str | None = None
    silent: bool = False


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that went wrong. Instants are microseconds since the epoch (UTC).

    Attributes:
        kind: what kind of fault, for recall by kind.
        roots: names of entities any of which is the right answer to "where did it begin".
        end: nothing of it is left from then on.
        recovers_at: from then on it goes back to normal.
        visible_at: from when it could be told from noise in principle; ``start`` where nobody can say.
        incident: faults of the same name here are one matter and belong into one incident.
        change: title of the change that caused it, where one did.
    """

    fault_id: str
    kind: str
    roots: tuple[str, ...]
    start: int
    end: int
    visible_at: int
    incident: str
    symptoms: tuple[Symptom, ...]
    recovers_at: int
    change: str | None = None
    title: str = ""


@dataclass(frozen=True, slots=True)
class Benign:
    """Something ordinary that looks unusual: a deploy that went well, a backup, the end of a month."""

    event_id: str
    kind: str
    hosts: tuple[str, ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Truth:
    """Everything that happened between ``start`` and ``end`` (microseconds since the epoch, UTC)."""

    start: int
    end: int
    faults: Sequence[Fault] = ()
    benign: Sequence[Benign] = ()
    scenario: str = ""
    seed: int = 0
    series: int = 0


class TruthProblem(Exception):
    """A file of truth cannot be used; the text says where and why."""


def truth_of(storm: StormTruth) -> Truth:
    """What scoring needs of the truth of a storm."""
    return truth_from(storm.as_json())


def read_truth(path: Path) -> Truth:
    """The truth in a JSON file as ``aiops storm truth`` writes it.

    Raises:
        TruthProblem: it cannot be read, or lacks a field.
    """
    try:
        document = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        raise TruthProblem(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(document, dict):
        raise TruthProblem(f"{path}: expected an object as `aiops storm truth SCENARIO --json` writes it")
    try:
        return truth_from(document)
    except (KeyError, TypeError) as error:
        raise TruthProblem(f"{path}: lacks what `aiops storm truth SCENARIO --json` writes: {error}") from error


def truth_from(document: Mapping[str, Any]) -> Truth:
    """What scoring needs of the JSON form of the truth of a storm."""
    symptoms: dict[str, list[Symptom]] = {}
    for entry in document["affected"]:
        # What never stands out from noise explains nothing: an alert on it is a coincidence.
        if entry["visible_at"] is not None or entry["what"] == "absence":
            symptoms.setdefault(entry["fault_id"], []).append(_of_series(entry))
    for entry in document["traces"]:
        if entry["kind"] in _TELLING:
            trace = Symptom(entry["host"], None, entry["first_at"], entry["last_at"])
            symptoms.setdefault(entry["fault_id"], []).append(trace)
    return Truth(
        document["start"],
        document["end"],
        tuple(_fault(entry, tuple(symptoms.get(entry["id"], ()))) for entry in document["faults"]),
        tuple(
            Benign(entry["id"], entry["kind"], tuple(entry["hosts"]), entry["start"], entry["end"])
            for entry in document["benign"]
            # Those of the history are what was learnt from.
            if entry["end"] >= document["start"]
        ),
        document["scenario"],
        document["seed"],
        document["series"],
    )


#: traces that say that something is wrong; a change or a ticket does not
_TELLING: frozenset[Literal["log", "error", "hardware", "trap"]] = frozenset({"log", "error", "hardware", "trap"})


def _of_series(entry: Mapping[str, Any]) -> Symptom:
    return Symptom(
        entry["host"], entry["metric"], entry["start"], entry["end"], entry["labels"], entry["what"] == "absence"
    )


def _fault(entry: Mapping[str, Any], symptoms: tuple[Symptom, ...]) -> Fault:
    return Fault(
        entry["id"],
        entry["kind"],
        tuple(dict.fromkeys((entry["root"], *entry["roots"]))),
        entry["start"],
        entry["over_at"],
        entry["start"] if entry["visible_at"] is None else max(entry["start"], entry["visible_at"]),
        entry["incident"],
        symptoms,
        entry["end"],
        (entry["change"] or {}).get("title"),
        entry["title"],
    )
