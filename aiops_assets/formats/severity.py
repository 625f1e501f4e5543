"""Severities of log events: the words and numbers that senders use as OpenTelemetry severity numbers.

What belongs here: that mapping, and finding a level word where a line of text carries one. What does not: formats.
"""

from __future__ import annotations

import math
import re

import polars as pl

#: syslog severities 0 (emergency) to 7 (debug)
SYSLOG: tuple[int, ...] = (24, 22, 21, 17, 13, 10, 9, 5)

WORDS: dict[str, int] = {
    **dict.fromkeys(("trace", "finest", "all", "t"), 1),
    **dict.fromkeys(("verbose", "finer"), 3),
    **dict.fromkeys(("debug", "dbg", "debg", "fine", "d"), 5),
    **dict.fromkeys(("info", "information", "informational", "inf", "log", "i", "config", "success", "ok"), 9),
    **dict.fromkeys(("notice", "note", "n"), 10),
    **dict.fromkeys(("warn", "warning", "wrn", "w", "minor"), 13),
    **dict.fromkeys(("error", "err", "eror", "e", "failure", "severe", "high", "major"), 17),
    **dict.fromkeys(("critical", "crit", "c", "fatal", "f", "dpanic"), 21),
    **dict.fromkeys(("alert", "panic"), 22),
    **dict.fromkeys(("emergency", "emerg"), 24),
}
_DIGITS = re.compile(r"-?\d{1,6}(?:\.0+)?")

#: level words where log lines carry them: alone, between brackets, or as level=…; only the first 200 characters count
_SPOKEN = (
    r"(?:^|[\s\[(|<:,;])(?:(?:level|lvl|severity|loglevel)=\"?)?"
    r"(TRACE|FINEST|FINER|VERBOSE|DEBUG|DBG|INFO|INFORMATION|NOTICE|WARN|WARNING|ERROR|ERR|SEVERE|CRITICAL|CRIT|FATAL"
    r"|ALERT|PANIC|EMERG|EMERGENCY"
    r"|(?:level|lvl|severity|loglevel)=\"?[a-z]+)"
    r"(?:[\s\])|>:,;\"]|$)"
)
_BRACKETED = r"[\[(<:](trace|debug|info|notice|warn|warning|error|err|crit|critical|alert|fatal|panic|emerg)[\])>]"
_GLOG = r"^([IWEF])\d{4} \d\d:\d\d:\d\d"
_LOOKED_AT = 200


def of_word(value: object) -> int | None:
    """The severity number of a level as senders write it: a word, a syslog severity 0 to 7, a level of bunyan, pino or
    Python's logging (10 to 60); ``None`` when it says nothing."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float):
        return of_number(value)
    if not isinstance(value, str) or len(value) > 64:
        return None
    word = value.strip().lower()
    found = WORDS.get(word)
    if found is None and word:
        if _DIGITS.fullmatch(word):
            return of_number(float(word))
        head = re.match(r"[a-z]+", word)
        found = WORDS.get(head[0]) if head else None
    return found


def of_number(value: float) -> int | None:
    """The severity number of a numeric level whose scale is told by its size: 0 to 7 is syslog's, 10 to 60 Python's,
    bunyan's and pino's."""
    if not math.isfinite(value):
        return None
    if 0 <= value <= 7:
        return SYSLOG[int(value)]
    if 10 <= value < 100:
        steps = ((60, 21), (50, 21), (40, 17), (30, 13), (20, 9), (10, 5))
        return next(severity for least, severity in steps if value >= least)
    return None


def of_text(texts: pl.Series) -> pl.Series:
    """Severity numbers (Int32, null where none is told) of lines, from the level word at their beginning."""
    head = pl.col("text").str.slice(0, _LOOKED_AT)
    word = pl.coalesce(
        head.str.extract(_SPOKEN, 1).str.to_lowercase().str.replace(r"^.*=\"?", ""),
        head.str.extract(_BRACKETED, 1),
        head.str.extract(_GLOG, 1).str.to_lowercase(),
    )
    found = texts.alias("text").to_frame().select(word.alias("word"))["word"]
    return found.replace_strict(WORDS, default=None, return_dtype=pl.Int32)
