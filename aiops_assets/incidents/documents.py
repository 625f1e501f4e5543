"""Incidents, alerts and silences as JSON documents: the answers of the API.

Instants are RFC 3339 strings in UTC with microseconds; text is as it was sent, so whoever shows it must escape it.
"""

from __future__ import annotations

import math
from typing import Any

import orjson

from aiops_assets.hours import instant
from aiops_assets.incidents.amendments import Correction
from aiops_assets.incidents.correlation import severity_word
from aiops_assets.incidents.history import Strip
from aiops_assets.incidents.store import Amendment, Event, Incident, Member, Silence, Suspect


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
        "withdrawn": incident.withdrawn_alerts,
        "amended": incident.amended_alerts,
        "withdrawn_because": incident.withdrawn_because,
        "started_at": time_text(incident.started_at),
        "last_symptom_at": time_text(incident.last_symptom_at),
        "ended_at": time_text(incident.ended_at),
        "opened_at": time_text(incident.opened_at),
        "acknowledged_at": time_text(incident.acknowledged_at),
        "resolved_at": time_text(incident.resolved_at),
        "resolved_by": incident.resolved_by,
        "resolution": incident.resolution,
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
    """An entry of the timeline; of an amendment with the reason and what it changed."""
    document: dict[str, Any] = {
        "event_id": event.event_id,
        "at": time_text(event.at),
        "event_time": time_text(event.event_time),
        "who": event.who,
        "kind": event.kind,
        "text": event.text,
        "alert_id": event.alert_id,
    }
    if event.amendment is not None:
        document["amendment"] = {
            "kind": event.amendment,
            "revision": event.revision,
            "reason": event.reason,
            "corrections": [correction_document(entry) for entry in event.corrections],
        }
    return document


def correction_document(entry: Correction) -> dict[str, Any]:
    """What changed; instants as text."""
    times = entry.what in {"start", "end"}

    def side(value: Any) -> Any:
        return time_text(value) if times else finite(value) if isinstance(value, float) else value

    return {"what": entry.what, "before": side(entry.before), "after": side(entry.after)}


def strip_document(strip: Strip, amendments: tuple[Amendment, ...]) -> dict[str, Any]:
    """Hours and what was amended, newest first; ``alerts`` are those that an amendment of the hour concerned."""
    alerts: dict[str, list[dict[str, Any]]] = {}
    for entry in amendments:
        names = ("kind", "reason", "alert_id", "revision", "host", "incident_id")
        told = {name: getattr(entry, name) for name in names} | {"title": entry.alert_title, "at": time_text(entry.at)}
        alerts.setdefault(entry.hour, []).append(told)
    return {
        "hours": [
            {"hour": hour.hour, "state": hour.state, "revision": hour.revision, "late_rows": hour.late_rows}
            for _, hours in strip.days
            for hour in reversed(hours)
        ],
        "amendments": [
            {name: getattr(entry, name) for name in ("hour", "revision", "reason", "rows", "late_rows")}
            | {name: getattr(entry, name) for name in ("raised", "amended", "withdrawn")}
            | {"derived_at": time_text(entry.derived_at)}
            for entry in strip.amendments
        ],
        "alerts": alerts,
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
