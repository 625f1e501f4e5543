"""Regular expressions of Go's RE2 dialect, run by Rust's linear-time engine.

What belongs here: translating one dialect into the other and matching whole label values. What does not: selecting
series (``index``). Both engines are automata without backtracking, so no pattern can make matching hang; the compiled
size is bounded by the engine. Their dialects differ in few places, and each is translated or refused: in Rust ``\\d``,
``\\w``, ``\\s`` and ``\\b`` are Unicode, brackets nest, ``&&``, ``--`` and ``~~`` are set operations inside them, and
``{`` must be escaped where it is no repetition (Go: regexp/syntax; Rust: regex, "Syntax").
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import polars as pl

from aiops_assets.telemetry.promql.errors import QueryError, bad_data

MAX_PATTERN_CHARS = 65_536
_ASCII_CLASSES = {"d": "0-9", "w": "0-9A-Za-z_", "s": "\\t\\n\\f\\r "}
_SAME_ESCAPES = frozenset("aftnrvxpPAz")
_REPETITION = re.compile(r"\{\d{1,4}(,\d{0,4})?\}")
_GROUP = re.compile(r"\(\?(?:P?<[A-Za-z_]\w*>|[imsU]*(?:-[imsU]+)?[:)])")
_POSIX = re.compile(r"\[:\^?[a-z]+:\]")
_BRACED = re.compile(r"[xpP]\{\^?\w+\}")


def anchored(pattern: str) -> str:
    """The Rust pattern that matches a whole text exactly where Go's ``^(?:pattern)$`` does.

    Raises:
        QueryError: the pattern uses something that Go has and Rust has not (``\\C``, octal escapes), or neither has.
    """
    if len(pattern) > MAX_PATTERN_CHARS:
        raise bad_data(f"a regular expression may have at most {MAX_PATTERN_CHARS} characters")
    return f"^(?:{_translated(pattern)})$"


def matching(values: Sequence[str], pattern: str) -> list[bool]:
    """For each text, whether the whole of it matches.

    Raises:
        QueryError: the pattern is not legal, or too large when compiled.
    """
    return _run(pattern, pl.Series(values, dtype=pl.String).str.contains).to_list()


def replaced(values: Sequence[str], pattern: str, replacement: str) -> list[str | None]:
    """For each text that matches as a whole, the replacement with ``$1`` and ``${name}`` filled in, else ``None``."""
    texts = pl.Series("text", values, dtype=pl.String)

    def expression(rust: str) -> pl.Series:
        found = texts.str.contains(rust)
        return pl.select(pl.when(found).then(texts.str.replace(rust, replacement))).to_series()

    return _run(pattern, expression).to_list()


def _run(pattern: str, work: Callable[[str], pl.Series]) -> pl.Series:
    try:
        return work(anchored(pattern))
    except pl.exceptions.ComputeError as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.startswith("error:")), str(error))
        raise bad_data(f"regular expression {pattern!r}: {reason.splitlines()[0]}") from error


def _translated(pattern: str) -> str:
    out: list[str] = []
    at = 0
    while at < len(pattern):
        char = pattern[at]
        if char == "\\":
            text, at = _escape(pattern, at, inside=False)
            out.append(text)
        elif char == "[":
            text, at = _class(pattern, at)
            out.append(text)
        elif char == "{":
            found = _REPETITION.match(pattern, at)
            out.append(found[0] if found else "\\{")
            at += len(found[0]) if found else 1
        elif pattern.startswith("(?", at):
            group = _GROUP.match(pattern, at)
            if group is None:
                raise _not_supported(pattern, pattern[at : at + 4])
            out.append(group[0])
            at += len(group[0])
        else:
            out.append("\\}" if char == "}" else char)
            at += 1
    return "".join(out)


def _escape(pattern: str, at: int, *, inside: bool) -> tuple[str, int]:
    """The translation of an escape that starts at ``at``, and where it ends."""
    if at + 1 >= len(pattern):
        raise bad_data(f"regular expression {pattern!r}: it ends with a backslash")
    char = pattern[at + 1]
    if char in _ASCII_CLASSES:
        return (_ASCII_CLASSES[char] if inside else f"[{_ASCII_CLASSES[char]}]"), at + 2
    if char.lower() in _ASCII_CLASSES:
        return f"[^{_ASCII_CLASSES[char.lower()]}]", at + 2
    if char == "b" and not inside:
        return "(?-u:\\b)", at + 2
    if char == "Q" and not inside:
        end = pattern.find("\\E", at)
        end = len(pattern) if end < 0 else end
        return re.escape(pattern[at + 2 : end]), end + 2
    if char in _SAME_ESCAPES and not (inside and char in "Az"):
        braced = _BRACED.match(pattern, at + 1)
        text = "\\" + (braced[0] if braced else char)
        return text, at + len(text)
    if char.isascii() and not char.isalnum() and char not in "<>":
        return "\\" + char, at + 2
    if char in "<>":
        return char, at + 2
    raise _not_supported(pattern, "\\" + char)


def _class(pattern: str, at: int) -> tuple[str, int]:
    """The translation of a bracket expression that starts at ``at``, and where it ends."""
    out, at = ["["], at + 1
    if pattern.startswith("^", at):
        out.append("^")
        at += 1
    first = True
    while at < len(pattern):
        char = pattern[at]
        posix = _POSIX.match(pattern, at)
        if char == "]" and not first:
            return "".join([*out, "]"]), at + 1
        if char == "\\":
            text, at = _escape(pattern, at, inside=True)
            out.append(text)
        elif posix:
            out.append(posix[0])
            at += len(posix[0])
        elif char == "-":
            ends = first or pattern.startswith("]", at + 1)
            out.append("\\-" if ends else "-")
            at += 1
        else:
            out.append("\\" + char if char in "[]&~^" else char)
            at += 1
        first = False
    raise bad_data(f"regular expression {pattern!r}: a '[' is not closed")


def _not_supported(pattern: str, what: str) -> QueryError:
    return bad_data(f"regular expression {pattern!r}: {what!r} is not supported")
