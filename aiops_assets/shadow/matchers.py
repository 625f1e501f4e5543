"""Label matchers of PromQL as our patterns: literals and ``*``, of which one must match.

What belongs here: which sets of texts a matcher means, and whether patterns can say exactly that. What does not: whole
expressions (``conversion``). A regular expression is taken apart, never guessed: what patterns cannot say exactly is
refused with the reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

#: a regular expression that means more texts than this is refused
MAX_PATTERNS = 64
_ANY = "*"
_SPECIAL = frozenset(r"\.+*?()|[]{}^$")


class NotExact(Exception):
    """Patterns cannot say exactly this; the text says why."""


def literal(text: str) -> str:
    """A text as a pattern.

    Raises:
        NotExact: it holds ``*``, which every pattern reads as any run of characters.
    """
    if _ANY in text:
        raise NotExact(f"{text!r} holds '*', which our patterns cannot say literally")
    return text


def patterns_of(expression: str) -> tuple[str, ...]:
    """Patterns that together match exactly what an (anchored) RE2 expression matches.

    Understood are literals, alternatives, groups, ``.*``, ``?`` and classes such as ``[0-9a-f]`` or ``\\d``.

    Raises:
        NotExact: there are none, or more than ``MAX_PATTERNS``; the text names what stands in the way.
    """
    text = expression.removeprefix("^")
    if text.endswith("$") and not text.endswith("\\$"):
        text = text[:-1]
    parser = _Parser(text)
    found = parser.alternatives()
    if parser.place < len(text):
        raise NotExact(f"the regular expression {expression!r} is not balanced")
    return tuple(dict.fromkeys(found))


@dataclass(slots=True)
class _Parser:
    """Recursive descent over one expression; every method returns the patterns of what it has read."""

    text: str
    place: int = 0

    def alternatives(self) -> list[str]:
        found = self._sequence()
        while self._next("|"):
            found = [*found, *self._sequence()]
            self._limit(len(found))
        return found

    def _sequence(self) -> list[str]:
        found = [""]
        while self.place < len(self.text) and self.text[self.place] not in "|)":
            atom = self._atom()
            self._limit(len(found) * len(atom))
            found = [left + right for left, right in product(found, atom)]
        return found

    def _atom(self) -> list[str]:
        if self._next(".*"):
            self._no_laziness()
            return [_ANY]
        char = self.text[self.place]
        if char == "(":
            found = self._group()
        elif char == "[":
            found = self._class()
        elif char == "\\":
            found = self._escape()
        elif char in _SPECIAL:
            raise NotExact(f"{self.text[self.place : self.place + 2]!r} in a regular expression has no pattern")
        else:
            self.place += 1
            found = [literal(char)]
        if self.place < len(self.text) and self.text[self.place] in "*+{":
            raise NotExact(f"the repetition {self.text[self.place]!r} in a regular expression has no pattern")
        if self._next("?"):
            self._no_laziness()
            found = [*found, ""]
        return found

    def _group(self) -> list[str]:
        self.place += 1
        if self._next("?") and not self._next(":"):
            raise NotExact("a flag or name in a group of a regular expression has no pattern")
        found = self.alternatives()
        if not self._next(")"):
            raise NotExact(f"the regular expression {self.text!r} is not balanced")
        return found

    def _class(self) -> list[str]:
        end = self.text.find("]", self.place + 2)
        content = self.text[self.place + 1 : end]
        if end < 0 or content.startswith("^") or "[" in content or "\\" in content:
            raise NotExact(f"the class {self.text[self.place : end + 1 or None]!r} has no patterns")
        self.place = end + 1
        found: list[str] = []
        at = 0
        while at < len(content):
            if at + 2 < len(content) and content[at + 1] == "-":
                first, last = ord(content[at]), ord(content[at + 2])
                self._limit(last - first + 1)
                found += [literal(chr(code)) for code in range(first, last + 1)]
                at += 3
            else:
                found.append(literal(content[at]))
                at += 1
        return found

    def _escape(self) -> list[str]:
        escaped = self.text[self.place + 1 : self.place + 2]
        self.place += 2
        if escaped == "d":
            return list("0123456789")
        if not escaped or escaped.isalnum():
            raise NotExact(f"'\\{escaped}' in a regular expression has no pattern")
        return [literal(escaped)]

    def _no_laziness(self) -> None:
        # A lazy quantifier matches the same texts, a second one is an error or a possessive of another dialect.
        if not self._next("?") and self.place < len(self.text) and self.text[self.place] in "*+{":
            raise NotExact("two repetitions in a row in a regular expression have no pattern")

    def _next(self, text: str) -> bool:
        if self.text.startswith(text, self.place):
            self.place += len(text)
            return True
        return False

    @staticmethod
    def _limit(count: int) -> None:
        if count > MAX_PATTERNS:
            raise NotExact(f"the regular expression means more than {MAX_PATTERNS} patterns")
