"""Personal data and secrets taken out of texts: by a word that names the kind, or by made-up data of the same kind.

What belongs here: what is put in the place of a find. What does not: how it is found (``detect``). Replacements are
keyed (HMAC-SHA256), so that without the salt nobody can test a guess against them.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence

import polars as pl

from aiops_assets.privacy.detect import People, find, spans
from aiops_assets.privacy.spans import Span

#: what is left may look like something new beside its replacement; more rounds than this were never needed
_ROUNDS = 6


def redacted(text: str, *, people: People | None = None, reserved: bool = False) -> tuple[str, int]:
    """A text with every find replaced by ``[email]``, ``[secret]`` and so on, and how many there were.

    Redacting twice changes nothing. ``reserved``: forms that belong to nobody go too.
    """
    count = 0
    for _ in range(_ROUNDS):
        found = spans(text, people=people, reserved=reserved)
        if not found:
            break
        count += len(found)
        text = _with(text, found, [f"[{span.kind}]" for span in found])
    return text, count


def replaced(texts: Sequence[str | None] | pl.Series, salt: str, *, people: People | None = None) -> pl.Series:
    """Texts with personal data replaced by made-up data in reserved forms: the same find always by the same one.

    E-mail addresses become ones of example.com, telephone numbers ones of 555-0100 to 0199, IP addresses ones of
    RFC 5737 and RFC 3849, names ``person.NNNNNN``; secrets become ``[secret]``. Nulls stay. ``find`` on the result is
    empty.
    """
    column = texts.cast(pl.String) if isinstance(texts, pl.Series) else pl.Series(texts, dtype=pl.String)
    values: list[str | None] = column.to_list()
    rows = list(range(len(values)))
    for turn in range(_ROUNDS):
        found = find(pl.Series([values[row] for row in rows], dtype=pl.String), people=people)
        if found.is_empty():
            break
        changed = []
        for (local,), part in found.group_by("row", maintain_order=True):
            row = rows[int(str(local))]
            text = values[row] or ""
            hits = [Span(start, end, kind) for kind, start, end in part.select("kind", "start", "end").iter_rows()]
            # A made-up value that is taken for a real one where it stands gives way to the plain word.
            made = [
                _made_up(span.kind, text[span.start : span.end], salt) if turn == 0 else f"[{span.kind}]"
                for span in hits
            ]
            values[row] = _with(text, hits, made)
            changed.append(row)
        rows = changed
    return pl.Series(column.name, values, dtype=pl.String)


def _with(text: str, found: Sequence[Span], replacements: Sequence[str]) -> str:
    parts, end = [], 0
    for span, replacement in zip(found, replacements, strict=True):
        parts += [text[end : span.start], replacement]
        end = span.end
    return "".join([*parts, text[end:]])


def _made_up(kind: str, text: str, salt: str) -> str:
    """Made-up data of a kind, which depends on the original (as people would compare it) and on the salt alone."""
    plain = "".join(
        char for char in text.casefold() if char.isalnum() or (kind in {"email", "ip"} and not char.isspace())
    )
    number = int.from_bytes(hmac.digest(salt.encode(), f"{kind}:{plain}".encode(), "sha256")[:8])
    match kind:
        case "email":
            return f"user.{number % 16**10:010x}@example.com"
        case "phone":
            return f"+1-{200 + number // 100 % 800}-555-01{number % 100:02}"
        case "ssn":
            return f"000-{number // 10_000 % 100:02}-{number % 10_000:04}"
        case "card":
            return f"0000-0000-{number // 10_000 % 10_000:04}-{number % 10_000:04}"
        case "iban":
            return f"XX00 {number // 10_000 % 10_000:04} {number % 10_000:04}"
        case "ip" if ":" in text:
            return f"2001:db8::{number // 65_536 % 65_536:x}:{number % 65_536:x}"
        case "ip":
            block = ("192.0.2", "198.51.100", "203.0.113")[number // 254 % 3]
            return f"{block}.{1 + number % 254}"
        case "person":
            return f"person.{number % 1_000_000:06}"
        case _:
            return f"[{kind}]"
