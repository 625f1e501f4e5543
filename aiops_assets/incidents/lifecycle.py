"""The states of an incident and what people may do in each.

::

    open ──acknowledge──▶ acknowledged ──resolve──▶ resolved ──reopen, or a new alert──▶ reopened ──acknowledge──▶ …
      └────────────────────resolve──────────────────▲                                      │
                                                    └───────────────resolve────────────────┘
"""

from __future__ import annotations

from typing import Literal

Action = Literal["acknowledge", "assign", "note", "resolve", "reopen"]
STATES = ("open", "acknowledged", "resolved", "reopened")
#: the words of addresses and commands
ACTION_WORDS: dict[str, Action] = {
    "ack": "acknowledge",
    "assign": "assign",
    "note": "note",
    "resolve": "resolve",
    "reopen": "reopen",
}
_ALLOWED: dict[str, tuple[Action, ...]] = {
    "open": ("acknowledge", "assign", "note", "resolve"),
    "acknowledged": ("assign", "note", "resolve"),
    "reopened": ("acknowledge", "assign", "note", "resolve"),
    "resolved": ("note", "reopen"),
}


class IncidentNotFound(LookupError):
    """There is no such incident."""

    def __init__(self, incident_id: str) -> None:
        super().__init__(f"there is no incident {incident_id!r}")
        self.incident_id = incident_id


class ActionNotAllowed(Exception):
    """The incident's state does not allow the action; ``allowed`` names those that it does."""

    def __init__(self, action: Action, incident_id: str, state: str, allowed: tuple[Action, ...]) -> None:
        super().__init__(f"cannot {action} {incident_id}: it is {state}; allowed now: {', '.join(allowed)}")
        self.action, self.state, self.allowed = action, state, allowed


def allowed_actions(state: str, merged: bool = False) -> tuple[Action, ...]:
    """What people may do with an incident in a state; one that was merged into another only takes notes."""
    return ("note",) if merged else _ALLOWED[state]
