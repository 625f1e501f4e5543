"""States of the past: from the shelf, or derived again from the nearest state that is kept.

What belongs here: finding the state at the end of an hour, as a revision of it left it. What does not: which states are
kept on the shelf (``live``) and comparing anything (``replay``).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from aiops_assets.detection.derive import Derived, derive
from aiops_assets.detection.handover import HandOver, Shelf, merged
from aiops_assets.detection.judge import Judge
from aiops_assets.detection.judgement import Judgement
from aiops_assets.detection.receipts import (
    Receipt,
    Reference,
    has_inputs,
    pinned_judgements,
    pinned_lessons,
    pinned_rows,
)
from aiops_assets.lake.tables import Lake
from aiops_assets.telemetry.series import SeriesDirectory

#: states that stay in memory beside those needed
KEPT = 3


class InputsExpired(Exception):
    """What an hour was derived from is not (completely) stored any more; ``hour`` says which, where one is to blame."""

    def __init__(self, text: str, hour: str | None = None) -> None:
        super().__init__(text)
        self.hour = hour


class Past:
    """The derivations of the past over one lake. ``receipts``: every revision that may be needed."""

    def __init__(
        self,
        lake: Lake,
        shelf: Shelf,
        directory: SeriesDirectory,
        judgements: Mapping[str, Judgement],
        receipts: Iterable[Receipt],
    ) -> None:
        self.lake, self.shelf, self.directory = lake, shelf, directory
        self.judgements = judgements
        self.receipts: dict[Reference, Receipt] = {(receipt.hour, receipt.revision): receipt for receipt in receipts}
        #: states that this object computed or was given, by hour and revision
        self.known: dict[Reference, HandOver] = {}

    def state(self, reference: Reference) -> HandOver:
        """The state at the end of an hour.

        Raises:
            InputsExpired: it is not kept, and neither is what it would be derived from.
        """
        waiting = [reference]
        while waiting:
            now = waiting[-1]
            if now in self.known:
                waiting.pop()
                continue
            stored = self.shelf.get(*now)
            if stored is not None:
                self.known[now] = stored
                continue
            receipt = self.receipts.get(now)
            if receipt is None:
                raise InputsExpired(f"there is no receipt of hour {now[0]}, revision {now[1]}")
            lacking = [entry for entry in receipt.state_in if entry not in self.known]
            if lacking:
                waiting += lacking
                continue
            _, self.known[now] = self.again(receipt)
            needed = {entry for waits in waiting if waits in self.receipts for entry in self.receipts[waits].state_in}
            self.forget({*waiting, *needed})
        return self.known[reference]

    def forget(self, needed: Collection[Reference]) -> None:
        """Keep the states needed and the ``KEPT`` that came last: a state may be tens of megabytes."""
        spare = [entry for entry in self.known if entry not in needed]
        for entry in spare[:-KEPT]:
            del self.known[entry]

    def handed_over(self, references: Sequence[Reference]) -> HandOver:
        """The joined state of several hours, as an hour starts from.

        Raises:
            InputsExpired: see ``state``.
        """
        joined = HandOver()
        for reference in references:
            joined = self.joined(joined, self.state(reference))
        return joined

    def joined(self, base: HandOver, other: HandOver) -> HandOver:
        """``handover.merged``, with the rules of ``base`` put in force in ``other`` first."""
        if base.parts and other.parts and base.document["config"] != other.document["config"]:
            judge = self.judge(other)
            judge.reconfigure(self.judgements[base.document["config"]])
            other = judge.export()
        return merged(base, other)

    def judge(self, state: HandOver, otherwise: Judgement | None = None) -> Judge:
        """A judge that holds a state; an empty one starts with the judgement ``otherwise``.

        Raises:
            InputsExpired: the rules of the state are not stored.
            ValueError: the state is of another detector version.
        """
        if not state.parts:
            if otherwise is None:
                raise InputsExpired("the first hour has no state, and no rules were given")
            return Judge(otherwise, self.directory)
        judgement = self.judgements.get(state.document["config"])
        if judgement is None:
            raise InputsExpired(f"config version {state.document['config']} is not in config_versions")
        judge = Judge(judgement, self.directory)
        judge.adopt(state)
        return judge

    def again(self, receipt: Receipt) -> tuple[Derived, HandOver]:
        """Derive an hour once more from its pinned inputs.

        Raises:
            InputsExpired: they are not stored any more.
        """
        rows = pinned_rows(self.lake, receipt)
        if not has_inputs(receipt, rows):
            raise InputsExpired(
                f"hour {receipt.hour}, revision {receipt.revision}: {receipt.rows} rows were its input, "
                f"{rows.height} of its ingest positions are stored"
                + (" with other content" if rows.height == receipt.rows else ""),
                receipt.hour,
            )
        try:
            segments = pinned_judgements(self.judgements, receipt.config)
            lessons = pinned_lessons(self.lake, receipt.baselines)
        except LookupError as error:
            raise InputsExpired(f"hour {receipt.hour}, revision {receipt.revision}: {error}") from error
        judge = self.judge(self.handed_over(receipt.state_in), segments[0][1])
        derived = derive(judge, receipt.start, rows, lessons, segments)
        return derived, judge.export()
