"""Why a query has no answer, in the words of the Prometheus HTTP API.

What belongs here: the error and its kinds. What does not: how it is sent (``gateway.prometheus``).
"""

from __future__ import annotations

from typing import Literal

Kind = Literal["bad_data", "execution", "timeout", "canceled", "unavailable", "not_found", "internal"]


class QueryError(Exception):
    """A query that is refused or failed; ``kind`` is Prometheus' ``errorType``, the text is for people."""

    def __init__(self, kind: Kind, message: str) -> None:
        super().__init__(message)
        self.kind: Kind = kind


def bad_data(message: str) -> QueryError:
    """The request cannot be understood, or asks for what is not supported."""
    return QueryError("bad_data", message)


def execution(message: str) -> QueryError:
    """The expression is legal, but cannot be evaluated on this data or within the limits."""
    return QueryError("execution", message)
