"""Incidents, alerts and silences as JSON documents: the answers of the API.

Instants are RFC 3339 strings in UTC with microseconds; text is as it was sent, so whoever shows it must escape it.
"""

from __future__ import annotations

import math
from typing import Any

import orjson

from aiops_assets.hours import instant
from aiops_assets.incidents.correlation import severity_word
from aiops_assets.incidents.store import Event, Incident, Member, Silence, Suspect


def incident_document(incident: Incident, *, whole: bool = True) -> dict[str, Any]:
    """An incident; ``whole`` adds members, suppressed alerts, changes and timeline."""
    document: dict[str, Any] = {
        "incident_id": incident.incident_id,
        "title": incident.title,
        "state": incident.state,
        "priority": incident.priority,
        "impact": incident.impact,
        "impact_reason": incident.impact_text,
        "urgency": incident.urgency,
        "urgency_reason": incident.urgency_text,
        "assignee": incident.assignee,
        "hosts": list(incident.hosts),
        "alerts": incident.alerts,
        "firing": incident.firing,
        "suppressed": incident.suppressed_alerts,
        "started_at": time_text(incident.started_at),
        "last_symptom_at": time_text(incident.last_symptom_at),
        "ended_at": time_text(incident.ended_at),
        "opened_at": time_text(incident.opened_at),
        "acknowledged_at": time_text(incident.acknowledged_at),
        "resolved_at": time_text(incident.resolved_at),
        "resolved_by": incident.resolved_by,
        "merged_into": incident.merged_into,
        "related": list(incident.related),
        "allowed_actions": list(incident.allowed),
        "updated_at": time_text(incident.updated_at),
        "change_number": incident.change_number,
    }
    if whole:
        document |= {
            "probable_causes": [{"host": host, "reason": text} for host, text in incident.causes],
            "changes": [suspect_document(suspect) for suspect in incident.suspects],
            "members": [member_document(member) for member in incident.members],
            "suppressed_alerts": [member_document(member) for member in incident.suppressed],
            "timeline": [event_document(event) for event in incident.events],
        }
    return document


def member_document(member: Member) -> dict[str, Any]:
    """An alert, the incident it belongs to and why."""
    alert = member.alert
    return {
        "alert_id": alert.alert_id,
        "revision": alert.revision,
        "incident_id": member.incident_id,
        "link": member.link,
        "link_reason": member.link_text,
        "kind": alert.kind,
        "name": alert.name,
        "state": alert.state,
        "severity_number": alert.severity_number,
        "severity": severity_word(alert.severity_number),
        "host": alert.host,
        "metric": alert.metric,
        # a 64-bit number does not survive JavaScript
        "series_id": None if alert.series_id is None else str(alert.series_id),
        "labels": orjson.loads(alert.labels or "{}"),
        "starts_at": time_text(alert.starts_at),
        "ends_at": time_text(alert.ends_at),
        "changed_at": time_text(alert.changed_at),
        "title": alert.title,
        "value": finite(alert.value),
        "threshold": finite(alert.threshold),
        "evidence": orjson.loads(alert.evidence or "{}"),
        "suppressed_by": alert.suppressed_by,
        "amended_by": alert.amended_by,
    }


def suspect_document(suspect: Suspect) -> dict[str, Any]:
    """A change near an incident."""
    return {
        "change_id": suspect.change_id,
        "at": time_text(suspect.ts),
        "kind": suspect.kind,
        "host": suspect.host,
        "service": suspect.service,
        "title": suspect.title,
        "actor": suspect.actor,
        "relation": suspect.text,
        "before_first_symptom": suspect.before,
    }


def event_document(event: Event) -> dict[str, Any]:
    """An entry of the timeline."""
    return {
        "event_id": event.event_id,
        "at": time_text(event.at),
        "event_time": time_text(event.event_time),
        "who": event.who,
        "kind": event.kind,
        "text": event.text,
        "alert_id": event.alert_id,
    }


def silence_document(silence: Silence, now: int) -> dict[str, Any]:
    """A silence and whether it holds at ``now``."""
    return {
        "silence_id": silence.silence_id,
        "state": silence.state(now),
        "host": silence.host,
        "rule": silence.rule,
        "labels": dict(silence.labels),
        "starts_at": time_text(silence.starts_at),
        "ends_at": time_text(silence.ends_at),
        "author": silence.author,
        "reason": silence.reason,
        "expired_at": time_text(silence.expired_at),
        "expired_by": silence.expired_by,
    }


def time_text(at: int | None) -> str | None:
    """RFC 3339 in UTC of microseconds since the epoch."""
    return None if at is None else instant(at).isoformat(timespec="microseconds").replace("+00:00", "Z")


def finite(value: float | None) -> float | None:
    """A number that JSON can say."""
    return value if value is not None and math.isfinite(value) else None
