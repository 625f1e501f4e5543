"""Finding personal data and secrets in a column of texts.

What belongs here: the vectorised scan that all detectors share, and its result as a frame. What does not: the patterns
(``addresses``, ``numbers``, ``names``, ``secrets``) and what is done about finds (``redact``).

A text is looked at closely only where a pattern in Rust, which is a superset of the exact one, says that it may hold
something: a column without finds costs one pass a kind.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial

import polars as pl

from aiops_assets.privacy import addresses, names, numbers, secrets
from aiops_assets.privacy.names import People
from aiops_assets.privacy.spans import KINDS, PERSONAL, Detector, Span, settled

__all__ = ["KINDS", "PERSONAL", "People", "Span", "find", "spans"]

SCHEMA = pl.Schema(
    {"row": pl.UInt32(), "kind": pl.String(), "start": pl.Int32(), "end": pl.Int32(), "text": pl.String()}
)
#: texts scanned at once: bounds the memory of the scan
_CHUNK = 20_000


def find(
    texts: Sequence[str | None] | pl.Series,
    *,
    people: People | None = None,
    kinds: Iterable[str] = KINDS,
    reserved: bool = False,
    infrastructure: bool = False,
) -> pl.DataFrame:
    """Every find in every text: ``row`` (index from 0), ``kind``, ``start`` and ``end`` (characters), ``text``.

    Finds of a text do not overlap and are in order. Nulls have none. ``people`` are real people whose full names are
    found in any form; ``reserved`` counts forms that standards set aside (example.com, 555-01xx, RFC 5737, test cards);
    ``infrastructure`` counts private addresses (RFC 1918, RFC 6598, RFC 4193).

    Raises:
        ValueError: a kind that does not exist.
    """
    wanted = _kinds(kinds)
    column = texts.cast(pl.String) if isinstance(texts, pl.Series) else pl.Series(texts, dtype=pl.String)
    parts = [
        _chunk(column.slice(start, _CHUNK), start, wanted, people, reserved, infrastructure)
        for start in range(0, len(column), _CHUNK)
    ]
    return pl.concat(parts) if parts else pl.DataFrame(schema=SCHEMA)


def spans(
    text: str,
    *,
    people: People | None = None,
    kinds: Iterable[str] = KINDS,
    reserved: bool = False,
    infrastructure: bool = False,
) -> list[Span]:
    """``find`` for a single text."""
    wanted = _kinds(kinds)
    found = [span for detector in _detectors(wanted, infrastructure) for span in detector.spans(text)]
    if "person" in wanted:
        found += _people(text, people)
    return settled(span for span in found if reserved or not span.reserved)


def _kinds(kinds: Iterable[str]) -> frozenset[str]:
    wanted = frozenset(kinds)
    unknown = wanted - set(KINDS)
    if unknown:
        raise ValueError(f"no kind {', '.join(sorted(unknown))}; there are {', '.join(KINDS)}")
    return wanted


def _detectors(kinds: frozenset[str], infrastructure: bool) -> list[Detector]:
    ip = Detector("ip", addresses.IP_PREFILTER, partial(addresses.addresses, infrastructure=infrastructure))
    everything = (secrets.SECRET, addresses.EMAIL, numbers.CARD, numbers.IBAN, numbers.SSN, numbers.PHONE, ip)
    return [detector for detector in everything if detector.kind in kinds]


def _people(text: str, people: People | None) -> Iterator[Span]:
    yield from names.names(text)
    if people is not None:
        yield from (Span(match.start(), match.end(), "person") for match in people.pattern.finditer(text))


def _chunk(
    column: pl.Series,
    offset: int,
    kinds: frozenset[str],
    people: People | None,
    reserved: bool,
    infrastructure: bool,
) -> pl.DataFrame:
    found: dict[int, list[Span]] = {}

    def look(mask: pl.Series, search: partial[Iterator[Span]] | object) -> None:
        rows = mask.fill_null(False).arg_true()
        for row, text in zip(rows.to_list(), column.gather(rows).to_list(), strict=True):
            hits = [span for span in search(text) if reserved or not span.reserved]  # type: ignore[operator]
            if hits:
                found.setdefault(row, []).extend(hits)

    for detector in _detectors(kinds, infrastructure):
        look(column.str.contains(detector.prefilter), detector.spans)
    if "person" in kinds:
        mask = names.suspects(column)
        if people is not None and people.surnames:
            mask = mask | column.str.to_lowercase().str.contains_any(people.surnames).fill_null(False)
        look(mask, partial(_people, people=people))
    if not found:
        return pl.DataFrame(schema=SCHEMA)
    texts = dict(zip(found, column.gather(list(found)).to_list(), strict=True))
    rows = [
        (offset + row, span.kind, span.start, span.end, texts[row][span.start : span.end])
        for row in sorted(found)
        for span in settled(found[row])
    ]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")
