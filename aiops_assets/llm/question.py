"""What is asked and what comes back.

What belongs here: the shapes that callers of the room use. What does not: how an answer is had (``client``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from pydantic import BaseModel

T = TypeVar("T", bound=BaseModel)

#: answered and repaired come from the model; with any other the value is the offline one
Outcome = Literal[
    "answered",
    "repaired",
    "truncated",
    "refused",
    "filtered",
    "not_json",
    "wrong_schema",
    "empty",
    "failed",
    "timed_out",
    "degraded",
]
_PURPOSE = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True)
class Question(Generic[T]):
    """A question whose answer is an instance of ``schema``.

    ``purpose`` names what it is for in ledger and budget. ``offline`` gives the answer without a model: it must be
    deterministic and cheap, and raises only when the caller is wrong. ``temperature`` and ``seed`` are left out where
    they are ``None`` or the model does not take them.

    Raises:
        ValueError: a purpose that is no name, no messages, or no room for an answer.
    """

    purpose: str
    messages: Sequence[Message]
    schema: type[T]
    offline: Callable[[], T]
    temperature: float | None = 0.0
    seed: int | None = None
    max_tokens: int = 1024

    def __post_init__(self) -> None:
        if not _PURPOSE.fullmatch(self.purpose):
            raise ValueError(f"purpose {self.purpose!r}: use lower-case letters, digits, '_', '.', '-', at most 64")
        if not self.messages:
            raise ValueError(f"question for {self.purpose!r} has no messages")
        if self.max_tokens < 1:
            raise ValueError(f"question for {self.purpose!r}: max_tokens is {self.max_tokens}, at least 1 is needed")


@dataclass(frozen=True)
class Answer(Generic[T]):
    """What came of a question. ``value`` always is a valid instance of its schema.

    ``reason`` says why it did not go as asked; ``attempts`` are requests sent; ``latency`` and ``waited`` (for a slot)
    are seconds; ``cost`` is in the currency of the configured prices; ``digest`` is the key of the cache.
    """

    question: Question[T]
    value: T
    outcome: Outcome
    provider: str
    model: str
    reason: str | None = None
    cached: bool = False
    attempts: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    latency: float = 0.0
    waited: float = 0.0
    redactions: int = 0
    digest: str = ""

    @property
    def degraded(self) -> bool:
        """Whether the offline answer stands in for one of the configured model."""
        return self.outcome not in {"answered", "repaired"}
