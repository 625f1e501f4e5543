"""Sentry's integration webhooks: every resource, people as pseudonyms, alerts that open and end under one key."""

from __future__ import annotations

from functools import partial
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiops_assets.formats import parse
from aiops_assets.landing.segment import Delivery
from tests.examples import examples
from tests.unit.mutations import accounted, delivery, entities, external, mutated

SENT = 1_795_161_600
MICROS = SENT * 1_000_000
EVENT: dict[str, Any] = {
    "event_id": "e4874d664c3540c1a32eab185f12c5ab",
    "project": 1,
    "timestamp": SENT - 5.5,
    "platform": "python",
    "level": "error",
    "title": "ValueError: bad pay",
    "culprit": "shop.pay in charge",
    "release": "shop@1.2",
    "environment": "prod",
    "url": "https://sentry.io/api/0/projects/acme/shop-api/events/e4874d664c3540c1a32eab185f12c5ab/",
    "web_url": "https://sentry.io/organizations/acme/issues/77/events/e48/",
    "issue_url": "https://sentry.io/api/0/issues/77/",
    "issue_id": "77",
    "tags": [["server_name", "web-1"], ["handled", "no"], ["user", "email:jo@example.com"], ["level", "error"]],
    "user": {"id": "7", "email": "jo@example.com", "ip_address": "203.0.113.9"},
    "exception": {
        "values": [
            {"type": "ZeroDivisionError", "value": "division by zero"},
            {
                "type": "ValueError",
                "value": "bad pay",
                "mechanism": {"type": "generic", "handled": False},
                "stacktrace": {
                    "frames": [
                        {
                            "function": "run",
                            "module": "lib.run",
                            "filename": "lib/run.py",
                            "lineno": 3,
                            "in_app": False,
                        },
                        {
                            "function": "charge",
                            "module": "shop.pay",
                            "filename": "shop/pay.py",
                            "lineno": 42,
                            "colno": 7,
                            "in_app": True,
                            "context_line": "    raise ValueError('bad pay')",
                            "vars": {"card": "4111111111111111"},
                        },
                    ]
                },
            },
        ]
    },
    "request": {
        "url": "https://shop.example/pay?token=abc&email=jo@example.com",
        "method": "POST",
        "cookies": [["session", "s3cret"]],
        "headers": [["Authorization", "Bearer s3cret"]],
        "env": {"REMOTE_ADDR": "203.0.113.9"},
    },
    "contexts": {"trace": {"trace_id": "0af7651916cd43dd8448eb211c80319c", "span_id": "b7ad6b7169203331"}},
    "extra": {"api_key": "s3cret", "cart": 3, "username": "jo"},
    "fingerprint": ["{{ default }}"],
}
FRAME: dict[str, Any] = {"installation": {"uuid": "a8e5d37a"}, "actor": {"type": "user", "id": 789, "name": "Jo Doe"}}
ERROR = FRAME | {"action": "created", "data": {"error": EVENT}}
EVENT_ALERT = FRAME | {
    "action": "triggered",
    "data": {"event": EVENT, "triggered_rule": "Send me everything", "issue_alert": {"id": 3, "title": "x"}},
}
ISSUE: dict[str, Any] = {
    "id": "77",
    "shortId": "SHOP-1",
    "title": "ValueError: bad pay",
    "culprit": "shop.pay in charge",
    "level": "fatal",
    "status": "unresolved",
    "project": {"id": "1", "name": "Shop API", "slug": "shop-api"},
    "metadata": {"type": "ValueError", "value": "bad pay"},
    "firstSeen": "2026-11-20T07:00:00.000000Z",
    "lastSeen": "2026-11-20T08:00:00Z",
    "count": "12",
    "userCount": 3,
    "permalink": "https://sentry.io/organizations/acme/issues/77/",
}
METRIC_ALERT: dict[str, Any] = {
    "id": "931",
    "identifier": "14",
    "title": "Too many errors",
    "dateStarted": "2026-11-20T07:55:00Z",
    "dateClosed": None,
    "projects": ["shop-api"],
    "alert_rule": {
        "id": "7",
        "name": "Error rate",
        "aggregate": "count()",
        "query": "level:error",
        "environment": "prod",
        "triggers": [{"label": "critical", "alertThreshold": 100}, {"label": "warning", "alertThreshold": 50}],
    },
}
INSTALLATION = FRAME | {
    "action": "created",
    "data": {
        "installation": {"app": {"slug": "aiops"}, "organization": {"slug": "acme"}, "uuid": "a8", "code": "s3cret"}
    },
}
COMMENT = FRAME | {
    "action": "created",
    "data": {"comment": "looking", "comment_id": 1, "issue_id": 77, "project_slug": "shop-api", "timestamp": SENT},
}


def issue(action: str, **changes: Any) -> dict[str, Any]:
    return FRAME | {"action": action, "data": {"issue": ISSUE | changes}}


def metric_alert(action: str, **changes: Any) -> dict[str, Any]:
    data = {
        "metric_alert": METRIC_ALERT | changes,
        "description_title": "Critical: Error rate",
        "description_text": "9",
    }
    return FRAME | {"action": action, "data": data}


def hook(resource: str, body: object, **headers: str) -> Delivery:
    kept = {"sentry-hook-resource": resource, "sentry-hook-timestamp": str(SENT), **headers}
    return delivery(body, {name.replace("_", "-"): value for name, value in kept.items()})


def test_an_error_is_an_error_event() -> None:
    parsed = parse("sentry", [hook("error", ERROR)])
    (row,) = parsed.errors.to_dicts()
    assert (row["event_id"], row["project"], row["platform"]) == (EVENT["event_id"], "shop-api", "python")
    assert (row["type"], row["value"], row["culprit"]) == ("ValueError", "bad pay", "shop.pay in charge")
    assert (row["severity_number"], row["handled"], row["host"]) == (17, False, "web-1")
    assert (row["service"], row["release"], row["environment"]) == ("shop", "shop@1.2", "prod")
    assert row["ts"] == MICROS - 5_500_000
    assert row["trace_id"] == "0af7651916cd43dd8448eb211c80319c"
    assert orjson.loads(row["fingerprint"]) == ["{{ default }}"]
    assert entities(parsed) == {"web-1": ("host", None, []), "shop": ("service", None, ["web-1"])}


def test_frames_are_kept_innermost_last_without_local_variables() -> None:
    (row,) = parse("sentry", [hook("error", ERROR)]).errors.to_dicts()
    outer, inner = orjson.loads(row["stack"])
    assert inner == {
        "function": "charge", "module": "shop.pay", "filename": "shop/pay.py", "lineno": 42, "colno": 7,
        "in_app": True, "context_line": "raise ValueError('bad pay')",
    }  # fmt: skip
    assert outer["in_app"] is False


def test_people_and_secrets_do_not_reach_the_rows() -> None:
    parsed = parse("sentry", [hook("error", ERROR), hook("event_alert", EVENT_ALERT)])
    text = repr(parsed.errors.to_dicts()) + repr(parsed.external.to_dicts())
    for secret in ("jo@example.com", "203.0.113.9", "s3cret", "4111111111111111", "'jo'"):
        assert secret not in text
    attributes = orjson.loads(parsed.errors["attributes"][0])
    assert attributes["request"] == {"method": "POST", "url": "https://shop.example/pay"}
    assert attributes["extra"]["cart"] == 3
    assert len(attributes["user"]) == 16


def test_the_same_person_has_the_same_pseudonym() -> None:
    other = ERROR | {"data": {"error": EVENT | {"user": {"id": "8"}}}}
    parsed = parse("sentry", [hook("error", body) for body in (ERROR, ERROR, other)])
    users = [orjson.loads(text)["user"] for text in parsed.errors["attributes"]]
    assert users[0] == users[1] != users[2]


def test_an_event_alert_is_an_error_and_an_alert_of_its_issue() -> None:
    parsed = parse("sentry", [hook("event_alert", EVENT_ALERT)])
    assert parsed.errors["event_id"].to_list() == [EVENT["event_id"]]
    (alert,) = external(parsed)
    assert (alert["key"], alert["name"], alert["state"]) == ("issue:77", "Send me everything", "firing")
    assert (alert["host"], alert["title"], alert["severity_number"]) == ("web-1", "ValueError: bad pay", 17)
    assert alert["labels"] == {"environment": "prod", "project": "shop-api", "release": "shop@1.2"}


def test_issues_open_change_and_end_under_one_key() -> None:
    bodies = [
        issue("created"),
        issue("assigned", assignedTo={"name": "Jo"}),
        issue("resolved", status="resolved"),
        issue("ignored", status="ignored"),
        issue("archived", status="ignored"),
        issue("unresolved"),
    ]
    found = external(parse("sentry", [hook("issue", body) for body in bodies]))
    assert {alert["key"] for alert in found} == {"issue:77"}
    assert [alert["state"] for alert in found] == ["firing", "firing", *["resolved"] * 3, "firing"]
    assert found[0]["starts_at"] == MICROS - 3_600_000_000
    assert found[2]["ends_at"] == MICROS
    assert found[5]["starts_at"] is None
    assert (found[0]["severity_number"], found[0]["host"], found[0]["value"]) == (21, "shop-api", 12.0)
    assert "Jo" not in repr(found[1]["evidence"])


def test_metric_alerts_escalate_and_end_under_one_key() -> None:
    bodies = [
        metric_alert("warning"),
        metric_alert("critical"),
        metric_alert("resolved", dateClosed="2026-11-20T08:10:00Z"),
    ]
    warning, critical, resolved = external(parse("sentry", [hook("metric_alert", body) for body in bodies]))
    assert warning["key"] == critical["key"] == resolved["key"] == "metric_alert:931"
    assert (warning["severity_number"], critical["severity_number"]) == (13, 21)
    assert (warning["threshold"], critical["threshold"]) == (50.0, 100.0)
    assert warning["starts_at"] == critical["starts_at"] == MICROS - 300_000_000
    assert (resolved["state"], resolved["ends_at"]) == ("resolved", MICROS + 600_000_000)
    assert critical["name"] == "Error rate"


def test_installations_comments_and_unknown_resources_are_log_events() -> None:
    parsed = parse(
        "sentry",
        [
            hook("installation", INSTALLATION, request_id="r-1"),
            hook("comment", COMMENT),
            hook("seer", FRAME | {"action": "done", "data": {"x": 1}}),
        ],
    )
    first, second, third = parsed.logs.to_dicts()
    assert (first["body"], first["host"], first["event_id"]) == ("installation created", "sentry", "sentry:r-1")
    assert (second["body"], second["host"]) == ("comment created: looking", "shop-api")
    assert third["body"] == "seer done"
    assert "s3cret" not in first["attributes"]
    assert "Jo Doe" not in first["attributes"]


def test_the_resource_is_told_by_the_data_when_the_header_is_missing() -> None:
    parsed = parse("sentry", [delivery(ERROR), delivery(issue("created")), delivery(metric_alert("critical"))])
    assert (parsed.errors.height, parsed.external.height, parsed.rejects) == (1, 2, [])


@pytest.mark.parametrize("body", [b"", b"{}", b'{"action": "x"}', b'{"data": []}', b"[]"])
def test_what_is_no_webhook_is_rejected_whole(body: bytes) -> None:
    (reject,) = parse("sentry", [hook("error", body)]).rejects
    assert reject.content == body


SAMPLES = {
    "error": ERROR,
    "event_alert": EVENT_ALERT,
    "issue": issue("created"),
    "metric_alert": metric_alert("critical"),
    "installation": INSTALLATION,
    "comment": COMMENT,
}


@given(st.integers(0, 2**32), st.lists(st.sampled_from(sorted(SAMPLES)), min_size=1, max_size=3))
@settings(max_examples=examples(400), deadline=None)
def test_damaged_webhooks_are_rows_or_rejects(seed: int, names: list[str]) -> None:
    deliveries = [hook(name, mutated(SAMPLES[name], seed + number)) for number, name in enumerate(names)]
    accounted(partial(parse, "sentry"), deliveries)
