"""Datadog's webhook: monitor notifications are external alerts under one key, other events log events."""

from __future__ import annotations

from functools import partial
from typing import Any
from urllib.parse import urlencode

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiops_assets.formats import parse
from tests.examples import examples
from tests.unit.mutations import accounted, delivery, entities, external, mutated

DATE = 1_795_160_829_000
TITLE = "[P2] [Triggered on {host:web-1,env:prod}] CPU is high"
#: the payload that Datadog sends unless another is written
DEFAULT: dict[str, Any] = {
    "body": "%%%\nCPU is high @webhook-aiops\n%%%",
    "last_updated": str(DATE),
    "event_type": "query_alert_monitor",
    "title": TITLE,
    "date": str(DATE),
    "org": {"id": "11", "name": "acme"},
    "id": "3141",
}
#: one that people write with the variables they need
OWN: dict[str, Any] = DEFAULT | {
    "alert_id": "1234",
    "aggreg_key": "9bd4ac313a4d1e8fae2482df7b77628",
    "alert_transition": "Triggered",
    "alert_metric": "system.cpu.user",
    "priority": "P1",
    "hostname": "web-1",
    "tags": "env:prod,service:shop,region:eu-1,solo",
    "link": "https://app.datadoghq.com/monitors/1234",
    "snapshot": "https://p.datadoghq.com/x.png",
}
EVENT: dict[str, Any] = DEFAULT | {"event_type": "event", "title": "Deployed shop 1.2", "alert_type": "info"}


def test_the_default_payload_tells_an_alert_by_its_title() -> None:
    (alert,) = external(parse("datadog", [delivery(DEFAULT)]))
    assert (alert["state"], alert["host"], alert["name"]) == ("firing", "web-1", "CPU is high")
    assert alert["severity_number"] == 17
    assert alert["labels"] == {"env": "prod", "host": "web-1"}
    assert alert["ts"] == DATE * 1_000
    assert alert["evidence"]["org"] == "acme"


@pytest.mark.parametrize("prefix", ["Triggered", "Re-Triggered", "Recovered", "Warn", "No data", "No Data"])
def test_a_monitor_keeps_its_key_through_all_its_states(prefix: str) -> None:
    states = [delivery(DEFAULT), delivery(DEFAULT | {"title": TITLE.replace("Triggered", prefix)})]
    first, second = external(parse("datadog", states))
    assert first["key"] == second["key"]
    assert second["state"] == ("resolved" if prefix == "Recovered" else "firing")


def test_groups_of_one_monitor_are_different_alerts() -> None:
    other = DEFAULT | {"title": TITLE.replace("web-1", "web-2")}
    first, second = external(parse("datadog", [delivery(DEFAULT), delivery(other)]))
    assert first["key"] != second["key"]


def test_a_template_of_the_users_own_is_understood() -> None:
    parsed = parse("datadog", [delivery(OWN)])
    (alert,) = external(parsed)
    assert alert["key"] == "1234:9bd4ac313a4d1e8fae2482df7b77628"
    assert (alert["severity_number"], alert["metric"], alert["host"]) == (21, "system.cpu.user", "web-1")
    assert alert["labels"]["service"] == "shop"
    assert alert["labels"]["solo"] == "solo"
    assert alert["evidence"]["link"] == OWN["link"]
    assert alert["evidence"]["sent"] == OWN
    assert entities(parsed) == {"web-1": ("host", "eu-1", []), "shop": ("service", "eu-1", ["web-1"])}


@pytest.mark.parametrize(
    "rename",
    [
        {"alert_id": "ALERT_ID", "aggreg_key": "AGGREG_KEY", "alert_transition": "ALERT_TRANSITION"},
        {"alert_id": "alertId", "aggreg_key": "aggregKey", "alert_transition": "alertTransition"},
        {"alert_id": "Monitor ID", "aggreg_key": "aggregation_key", "alert_transition": "transition"},
    ],
)
def test_the_spelling_of_fields_does_not_matter(rename: dict[str, str]) -> None:
    own = {rename.get(name, name): value for name, value in OWN.items()}
    (alert,) = external(parse("datadog", [delivery({"payload": own})]))
    assert alert["key"] == "1234:9bd4ac313a4d1e8fae2482df7b77628"
    assert alert["state"] == "firing"


def test_alert_and_organisation_may_stand_in_objects() -> None:
    body = {"alert": {"id": "1234", "transition": "Recovered", "title": "CPU"}, "org": {"name": "acme"}, "date": DATE}
    (alert,) = external(parse("datadog", [delivery(body)]))
    assert (alert["key"], alert["state"], alert["ends_at"]) == ("1234", "resolved", DATE * 1_000)


@pytest.mark.parametrize("unfilled", ["$AGGREG_KEY", "null", "", None, "None"])
def test_variables_that_were_not_filled_are_not_there(unfilled: str | None) -> None:
    (alert,) = external(parse("datadog", [delivery(OWN | {"aggreg_key": unfilled, "alert_metric": unfilled})]))
    assert alert["key"] == "1234:web-1"
    assert alert["metric"] is None


def test_news_without_a_start_belongs_to_the_open_alert() -> None:
    (alert,) = external(parse("datadog", [delivery(OWN | {"alert_transition": "Re-Triggered"})]))
    assert alert["starts_at"] is None


def test_other_events_are_log_events() -> None:
    parsed = parse("datadog", [delivery(EVENT)])
    (event,) = parsed.logs.to_dicts()
    assert event["event_id"] == "datadog:3141"
    assert (event["app"], event["severity_number"], event["ts"]) == ("datadog", 9, DATE * 1_000)
    assert orjson.loads(event["attributes"])["title"] == "Deployed shop 1.2"
    assert parsed.external.is_empty()


@pytest.mark.parametrize(
    "fields",
    [
        {name: value for name, value in OWN.items() if isinstance(value, str)},
        {"payload": orjson.dumps(OWN).decode()},
    ],
)
def test_payloads_encoded_as_forms_are_read(fields: dict[str, str]) -> None:
    sent = delivery(urlencode(fields).encode(), content_type="application/x-www-form-urlencoded; charset=utf-8")
    assert external(parse("datadog", [sent]))[0]["key"] == "1234:9bd4ac313a4d1e8fae2482df7b77628"


def test_a_form_without_an_event_is_kept_as_it_arrived() -> None:
    (reject,) = parse("datadog", [delivery(b"a=1", content_type="application/x-www-form-urlencoded")]).rejects
    assert reject.content == b"a=1"


@pytest.mark.parametrize("body", [b"{}", b"[]", b"3", b'{"a": 1}', b"title=x"])
def test_what_is_no_event_is_rejected_whole(body: bytes) -> None:
    (reject,) = parse("datadog", [delivery(body)]).rejects
    assert reject.content == body


@given(st.integers(0, 2**32), st.lists(st.sampled_from([DEFAULT, OWN, EVENT, [OWN, EVENT]]), min_size=1, max_size=3))
@settings(max_examples=examples(300), deadline=None)
def test_damaged_payloads_are_rows_or_rejects(seed: int, samples: list[Any]) -> None:
    deliveries = [delivery(mutated(sample, seed + number)) for number, sample in enumerate(samples)]
    accounted(partial(parse, "datadog"), deliveries)
