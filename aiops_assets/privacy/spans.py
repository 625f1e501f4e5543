"""What detectors have in common: kinds, spans, and the choice between finds that overlap.

What belongs here: the words that the detectors and their callers share. What does not: any pattern.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

#: kinds from the most to the least telling: of overlapping finds the first kind names the whole
KINDS = ("secret", "email", "card", "iban", "ssn", "phone", "ip", "person")
#: kinds that say something about a person
PERSONAL = tuple(kind for kind in KINDS if kind != "secret")
_RANK = {kind: rank for rank, kind in enumerate(KINDS)}


class Span(NamedTuple):
    """A find in one text, in characters; ``reserved`` forms are set aside by standards and belong to nobody."""

    start: int
    end: int
    kind: str
    reserved: bool = False


@dataclass(frozen=True, slots=True)
class Detector:
    """One kind: a pattern (Rust syntax, no look-around) that every text with a find matches, and the exact search."""

    kind: str
    prefilter: str
    spans: Callable[[str], Iterator[Span]]


def settled(spans: Iterable[Span]) -> list[Span]:
    """Spans in order without overlaps: what overlaps becomes one span over all of it, of the most telling kind.

    Nothing that any detector found is left outside, so a redacted text cannot keep the tail of a longer find.
    """
    chosen: list[Span] = []
    for span in sorted(spans, key=lambda entry: (entry.start, -entry.end, _RANK[entry.kind])):
        if chosen and span.start < chosen[-1].end:
            last = chosen[-1]
            kind = min(last.kind, span.kind, key=_RANK.__getitem__)
            chosen[-1] = Span(last.start, max(last.end, span.end), kind, last.reserved and span.reserved)
        else:
            chosen.append(span)
    return chosen
