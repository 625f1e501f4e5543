"""Sentry's integration webhooks: errors, alerts, issues, and the log of the integration itself.

What belongs here: what each resource (header ``sentry-hook-resource``) becomes. Errors, and the event that triggered an
alert, are error events; issues and both kinds of alerts are external alerts; installations, comments and resources that
are not known are log events. What does not: signatures (checked where deliveries are accepted), and SDK envelopes
(``sentry_envelope``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aiops_assets.formats.batch import Parsed
from aiops_assets.formats.events import (
    Events,
    finite,
    instant_of,
    prose,
    read_json,
)
from aiops_assets.formats.payload import Refused
from aiops_assets.formats.sentry_event import (
    error_row,
    instant_of_event,
    level,
    project_of_url,
    tags_of,
    without_people,
)
from aiops_assets.landing.segment import Delivery

_EXPECTED = 'expected {"action", "data", "installation", "actor"} as Sentry sends it'
#: where the data of a resource stands, by which it is told when the header is missing
_PLACES = {
    "error": "error",
    "event_alert": "event",
    "issue": "issue",
    "metric_alert": "metric_alert",
    "installation": "installation",
    "comment": "comment",
}
_ENDED = frozenset({"resolved", "ignored", "archived", "deleted"})
_RULE = ("aggregate", "query", "dataset", "timeWindow", "thresholdType", "resolveThreshold", "triggers")
_METRIC_ALERT_SEVERITY = {"critical": 21, "warning": 13, "resolved": 9, "open": 17}


def parse(deliveries: Sequence[Delivery]) -> Parsed:
    """Read webhook deliveries. Never raises on their content: what cannot be read is in ``rejects``."""
    return read_json(deliveries, _webhook)


def _webhook(events: Events, index: int, delivery: Delivery, offset: int, document: object) -> None:
    if not isinstance(document, dict) or not isinstance(document.get("data"), dict):
        raise Refused(_EXPECTED)
    data: dict[str, Any] = document["data"]
    resource = delivery.headers.get("sentry-hook-resource") or next(
        (name for name, place in _PLACES.items() if place in data), "unknown"
    )
    action = prose(document.get("action"), 64) or ""
    sent_at = instant_of(delivery.headers.get("sentry-hook-timestamp"))
    if resource == "error" and isinstance(data.get("error"), dict):
        _error(events, index, data["error"], sent_at)
    elif resource == "event_alert" and isinstance(data.get("event"), dict):
        _event_alert(events, index, data, data["event"], sent_at)
    elif resource == "issue" and isinstance(data.get("issue"), dict):
        _issue(events, index, action, data["issue"], sent_at)
    elif resource == "metric_alert" and isinstance(data.get("metric_alert"), dict):
        _metric_alert(events, index, action, data, data["metric_alert"], sent_at)
    else:
        _log(events, index, delivery, resource, action, document, sent_at)


def _project(event: Mapping[str, Any]) -> str:
    named = event.get("project_slug") or event.get("project_name")
    found = project_of_url(event.get("url"), event.get("issue_url")) or named or event.get("project")
    return prose(found, 256) or "unknown"


def _error(events: Events, index: int, event: dict[str, Any], sent_at: int | None) -> dict[str, Any]:
    row = error_row(event, _project(event))
    ts = instant_of_event(event)
    events.error(index, sent_at if ts is None else ts, row)
    if row["host"]:
        events.entity("host", row["host"])
    events.entity("service", row["service"], depends_on=[row["host"]] if row["host"] else [])
    return row


def _event_alert(
    events: Events, index: int, data: Mapping[str, Any], event: dict[str, Any], sent_at: int | None
) -> None:
    row = _error(events, index, event, sent_at)
    ts = instant_of_event(event)
    rule = prose(data.get("triggered_rule"), 256)
    settings = data.get("issue_alert")
    title = prose(event.get("title")) or ": ".join(text for text in (row["type"], row["value"]) if text)
    issue = prose(event.get("issue_id"), 64) or _last_part(event.get("issue_url"))
    events.alert(
        index,
        sent_at if ts is None else ts,
        key=f"issue:{issue}" if issue else f"event:{row['project']}:{rule}:{title[:256]}",
        name=rule or "Sentry alert",
        firing=True,
        severity_number=row["severity_number"],
        host=row["host"] or row["service"],
        title=title,
        labels=_labels(project=row["project"], environment=row["environment"], release=row["release"]),
        evidence={
            "rule": rule,
            "issue_alert": settings,
            "event_id": row["event_id"],
            "culprit": row["culprit"],
            "web_url": event.get("web_url"),
            "issue_url": event.get("issue_url"),
            "tags": tags_of(event),
        },
    )


def _issue(events: Events, index: int, action: str, issue: Mapping[str, Any], sent_at: int | None) -> None:
    status = issue.get("status")
    firing = status not in _ENDED if isinstance(status, str) and status else action not in _ENDED
    project = issue.get("project")
    slug = prose(project.get("slug") or project.get("name"), 256) if isinstance(project, dict) else prose(project, 256)
    first_seen, last_seen = instant_of(issue.get("firstSeen")), instant_of(issue.get("lastSeen"))
    now = sent_at if sent_at is not None else last_seen
    created = action == "created"
    if issue.get("id") in (None, ""):
        raise Refused("data.issue.id: is required")
    events.alert(
        index,
        first_seen if created and first_seen is not None else now,
        key=f"issue:{prose(issue['id'], 64)}",
        name=issue.get("shortId") or "Sentry issue",
        firing=firing,
        severity_number=level(issue.get("level")),
        host=slug,
        title=issue.get("title"),
        labels=_labels(project=slug, platform=issue.get("platform"), short_id=issue.get("shortId")),
        starts_at=first_seen if created else None,
        ends_at=None if firing else now,
        value=finite(issue.get("count")),
        evidence={
            "action": action,
            "assigned": "assigned" if issue.get("assignedTo") else None,
            **{
                name: issue.get(name)
                for name in (
                    "status", "substatus", "statusDetails", "priority", "culprit", "metadata", "type", "issueCategory",
                    "count", "userCount", "firstSeen", "lastSeen", "permalink", "web_url", "isUnhandled", "logger",
                )
            },
        },
    )  # fmt: skip
    events.entity("service", slug)


def _metric_alert(
    events: Events,
    index: int,
    action: str,
    data: Mapping[str, Any],
    alert: Mapping[str, Any],
    sent_at: int | None,
) -> None:
    given = alert.get("alert_rule")
    rule: Mapping[str, Any] = given if isinstance(given, dict) else {}
    projects = alert.get("projects") or rule.get("projects")
    names = [project for project in projects if isinstance(project, str)] if isinstance(projects, list) else []
    project = names[0] if names else None
    starts_at = instant_of(alert.get("dateStarted") or alert.get("dateDetected") or alert.get("dateCreated"))
    ends_at = instant_of(alert.get("dateClosed"))
    firing = action != "resolved"
    key = alert.get("id") or alert.get("identifier")
    if key in (None, ""):
        raise Refused("data.metric_alert.id: is required")
    now = sent_at if sent_at is not None else starts_at
    events.alert(
        index,
        now if firing else ends_at if ends_at is not None else sent_at,
        key=f"metric_alert:{prose(key, 64)}",
        name=rule.get("name") or alert.get("title") or "Sentry metric alert",
        firing=firing,
        severity_number=_METRIC_ALERT_SEVERITY.get(action, 17),
        host=project,
        title=data.get("description_title") or alert.get("title"),
        labels=_labels(project=project, environment=rule.get("environment")),
        starts_at=starts_at,
        ends_at=ends_at if ends_at is not None else sent_at,
        threshold=_threshold(rule, action),
        evidence={
            "action": action,
            "description": data.get("description_text"),
            "web_url": data.get("web_url"),
            "projects": names,
            **{name: rule.get(name) for name in _RULE},
        },
    )
    for name in names:
        events.entity("service", name)


def _threshold(rule: Mapping[str, Any], action: str) -> float | None:
    triggers = rule.get("triggers")
    found = [trigger for trigger in triggers if isinstance(trigger, dict)] if isinstance(triggers, list) else []
    labelled = [trigger for trigger in found if trigger.get("label") == action] or found
    return finite(labelled[0].get("alertThreshold")) if labelled else None


def _log(
    events: Events,
    index: int,
    delivery: Delivery,
    resource: str,
    action: str,
    document: Mapping[str, Any],
    sent_at: int | None,
) -> None:
    data = document["data"]
    request = delivery.headers.get("request-id")
    host = prose(data.get("project_slug"), 256) or "sentry"
    ts = instant_of(data.get("timestamp"))
    comment = prose(data.get("comment"))
    actor = document.get("actor")
    given = data.get("installation")
    # its code is exchanged for a token
    installation = without_people({k: v for k, v in given.items() if k != "code"}) if isinstance(given, dict) else None
    events.log(
        index,
        sent_at if ts is None else ts,
        host,
        f"comment {action}: {comment}" if comment else f"{resource} {action}".strip(),
        app="sentry",
        event_id=f"sentry:{request}" if request else None,
        severity_number=9,
        attributes={
            "resource": resource,
            "action": action,
            "actor": {name: actor.get(name) for name in ("type", "id")} if isinstance(actor, dict) else None,
            "data": without_people(data) | ({"installation": installation} if installation else {}),
        },
    )
    if host != "sentry":
        events.entity("service", host)


def _labels(**given: object) -> dict[str, str]:
    texts = {name: prose(value) for name, value in given.items()}
    return {name: text for name, text in texts.items() if text}


def _last_part(url: object) -> str | None:
    return url.rstrip("/").rpartition("/")[2][:64] or None if isinstance(url, str) else None
