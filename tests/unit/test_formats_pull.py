"""What pulled APIs answer becomes points, logs, alerts, tickets, changes and documents with their entities."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from aiops_assets.formats import parse
from aiops_assets.formats.batch import Parsed
from aiops_assets.landing.segment import Delivery

AT = 1_790_000_000
MICROS = AT * 1_000_000


def read(format_name: str, document: Any, **headers: str) -> Parsed:
    body = document if isinstance(document, bytes) else orjson.dumps(document)
    return parse(
        format_name, [Delivery("d", MICROS, "src", "application/json", body, {"format": format_name, **headers})]
    )


def points(parsed: Parsed) -> list[dict[str, Any]]:
    return parsed.points.join(parsed.series.with_row_index("series"), on="series").to_dicts()


def series(**more: Any) -> dict[str, Any]:
    given = {"metric": "redis.net.commands", "tag_set": ["host:db-1", "env:prod", "service:cache"], "aggr": "avg"}
    return {**given, "pointlist": [[AT * 1000.0, 4.5], [AT * 1000.0 + 60_000, None]], **more}


def test_datadog_series_have_host_labels_and_unit_and_gaps_are_no_points() -> None:
    unit = [{"name": "byte"}, {"name": "second"}]
    parsed = read("datadog_api", {"status": "ok", "series": [series(unit=unit)]})
    (found,) = points(parsed)
    assert (found["host"], found["metric"], found["unit"], found["value"]) == (
        "db-1",
        "redis.net.commands",
        "By/s",
        4.5,
    )
    assert found["ts"] == MICROS
    assert orjson.loads(found["labels"]) == {"datadog.aggr": "avg", "env": "prod", "service": "cache"}
    entities = {row["name"]: row for row in parsed.entities.iter_rows(named=True)}
    assert entities["db-1"]["kind"] == "host"
    assert entities["cache"]["depends_on"] == ["db-1"]
    assert parsed.rejects == []


@pytest.mark.parametrize(
    ("metric", "value", "expected"),
    [
        ("system.cpu.idle", 75.0, ("system.cpu.utilization", 0.25, "1")),
        ("system.cpu.user", 20.0, ("system.cpu.user.utilization", 0.2, "1")),
        ("system.mem.pct_usable", 0.25, ("system.memory.utilization", 0.75, "1")),
        ("system.load.1", 2.0, ("system.cpu.load_average.1m", 2.0, "1")),
        ("my.own", 2.0, ("my.own", 2.0, "")),
    ],
)
def test_datadog_metrics_that_mean_a_canonical_one_get_its_name(
    metric: str, value: float, expected: tuple[str, float, str]
) -> None:
    (found,) = points(read("datadog_api", {"series": [series(metric=metric, pointlist=[[AT * 1000, value]])]}))
    assert (found["metric"], found["value"], found["unit"]) == expected


def test_a_bad_datadog_series_is_rejected_alone_and_can_be_sent_again() -> None:
    bad = series(pointlist=[["x", 1]])
    parsed = read("datadog_api", {"series": [series(), bad, series(metric=7), series(scope="*", tag_set=[])]})
    assert len(parsed.rejects) == 2
    assert orjson.loads(parsed.rejects[0].content) == {"series": [bad]}
    assert {row["host"] for row in points(parsed)} == {"db-1", "src"}


def test_a_named_datadog_query_gives_its_name() -> None:
    (found,) = points(read("datadog_api", {"series": [series()]}, **{"datadog-name": "shop.load"}))
    assert found["metric"] == "shop.load"


def test_datadog_logs_keep_their_id_time_level_and_attributes() -> None:
    attributes = {
        "timestamp": "2026-09-21T14:13:20.250Z", "host": "web-1", "service": "shop", "status": "error",
        "message": "it failed", "tags": ["env:prod", "loose"], "attributes": {"http": {"status_code": 500}},
    }  # fmt: skip
    parsed = read("datadog_api", {"data": [{"id": "AQ1", "type": "log", "attributes": attributes}]})
    (row,) = parsed.logs.iter_rows(named=True)
    assert (row["event_id"], row["host"], row["app"], row["body"]) == ("AQ1", "web-1", "shop", "it failed")
    assert (row["severity_number"], row["ts"]) == (17, MICROS + 250_000)
    assert orjson.loads(row["attributes"])["tags"] == {"env": "prod", "tags": "loose"}


def test_splunk_results_become_logs_and_previews_and_messages_do_not() -> None:
    lines = [
        {"preview": True, "offset": 0, "result": {"_raw": "no"}},
        {"messages": [{"type": "INFO", "text": "x"}]},
        {"preview": False, "offset": 0, "result": {"_time": "2026-09-21T16:13:20.000+02:00", "_raw": "WARN disk",
                                                   "host": "a", "sourcetype": "st", "_bkt": "b", "_cd": "1:2",
                                                   "pid": "77"}},
        {"preview": False, "offset": 1, "lastrow": True, "result": {"host": "b", "count": "3", "log_level": "ERROR"}},
    ]  # fmt: skip
    parsed = read("splunk_export", b"\n".join(map(orjson.dumps, lines)))
    first, second = parsed.logs.iter_rows(named=True)
    assert (first["event_id"], first["ts"], first["severity_number"]) == ("b:1:2", MICROS, 13)
    assert (first["host"], first["app"], first["pid"], first["body"]) == ("a", "st", 77, "WARN disk")
    assert second["severity_number"] == 17
    assert orjson.loads(second["body"]) == {"count": "3", "log_level": "ERROR"}
    assert second["ts"] is None
    assert parsed.rejects == []


def te(kind: str, test: dict[str, Any], *items: dict[str, Any]) -> dict[str, Any]:
    name = "alerts" if kind == "alerts" else "results"
    return {"thousandeyes": 7, "kind": kind, "tests": {"9": {"testId": "9", **test}}, "answer": {name: list(items)}}


def test_thousandeyes_values_are_of_what_was_tested_with_the_agent_as_a_label() -> None:
    agent = {"agentId": "3", "agentName": "Berlin", "location": "Berlin, Germany"}
    result = {"agent": agent, "roundId": AT, "loss": 1.5, "avgLatency": 20, "healthScore": -1.0, "packets": None}
    parsed = read("thousandeyes", te("network", {"testName": "VPN", "server": "vpn.example.org:443"}, result))
    found = {row["metric"]: row for row in points(parsed)}
    assert found.keys() == {"network.loss", "network.latency"}
    latency = found["network.latency"]
    assert (latency["host"], latency["value"], latency["unit"]) == ("vpn.example.org", 0.02, "s")
    labels = orjson.loads(latency["labels"])
    assert labels["thousandeyes.source.agent.name"] == "Berlin"
    assert labels["thousandeyes.test.name"] == "VPN"
    assert {(row["kind"], row["name"], row["site"]) for row in parsed.entities.iter_rows(named=True)} == {
        ("service", "vpn.example.org", None),
        ("device", "Berlin", "Berlin, Germany"),
    }


def test_a_thousandeyes_page_that_cannot_be_reached_is_unavailable_and_a_log_event() -> None:
    result = {"agent": {"agentId": "3"}, "roundId": AT, "errorType": "DNS", "errorDetails": "NXDOMAIN"}
    parsed = read("thousandeyes", te("http-server", {"url": "https://shop.example.org:8443/x"}, result))
    (found,) = points(parsed)
    assert (found["metric"], found["value"], found["host"]) == (
        "http.server.request.availability",
        0.0,
        "shop.example.org",
    )
    assert parsed.logs["body"].to_list() == ["NXDOMAIN"]
    assert parsed.logs["severity_number"].to_list() == [17]


def test_thousandeyes_alerts_fire_and_resolve_by_their_id() -> None:
    links = {"test": {"href": "https://api.thousandeyes.com/v7/tests/9?aid=1"}}
    alert = {"id": "a-1", "alertType": "http-server", "alertState": "trigger", "alertSeverity": "critical",
             "startDate": "2026-09-21T14:13:20Z", "violationCount": 2, "_links": links}  # fmt: skip
    ended = {**alert, "alertState": "clear", "duration": 60}
    test = {"testName": "Shop", "url": "https://shop.example.org/"}
    firing, resolved = read("thousandeyes", te("alerts", test, alert, ended)).external.iter_rows(named=True)
    assert (firing["key"], firing["state"], firing["severity_number"], firing["host"]) == (
        "a-1", "firing", 21, "shop.example.org",
    )  # fmt: skip
    assert firing["title"] == "ThousandEyes http-server: Shop"
    assert (firing["starts_at"], firing["ts"], firing["ends_at"]) == (MICROS, MICROS, None)
    assert (resolved["state"], resolved["ends_at"], resolved["ts"]) == (
        "resolved", MICROS + 60_000_000, MICROS + 60_000_000,
    )  # fmt: skip


def both(**fields: str) -> dict[str, Any]:
    return {
        name: {"value": value.partition("|")[0], "display_value": value.rpartition("|")[2]}
        for name, value in fields.items()
    }


INCIDENT = {
    "sys_id": "a" * 32, "number": "INC0010001", "sys_updated_on": "2026-09-21 14:13:20|21.09.2026 16:13:20",
    "opened_at": "2026-09-21 14:00:00|x", "short_description": "Mail is down", "description": "Since 2 pm",
    "state": "2|In Progress", "priority": "1|1 - Critical", "impact": "1|1 - High", "urgency": "2|2 - Medium",
    "category": "email|Email", "cmdb_ci": "ci1|mx-1", "business_service": "bs1|Mail",
    "assignment_group": "g|Messaging", "assigned_to": "u|Ada Lovelace", "close_code": "", "close_notes": "",
}  # fmt: skip


@pytest.mark.parametrize("style", ["both", "plain", "reference"])
def test_servicenow_incidents_become_tickets_however_values_are_shown(style: str) -> None:
    record: dict[str, Any] = both(**INCIDENT)
    if style == "plain":
        record = {name: value.partition("|")[0] for name, value in INCIDENT.items()}
    if style == "reference":
        record["cmdb_ci"] = {"link": "https://x/api/now/table/cmdb_ci/ci1", "value": "ci1"}
    parsed = read("servicenow", {"result": [record]}, **{"servicenow-table": "incident"})
    (row,) = parsed.tickets.iter_rows(named=True)
    assert (row["ticket_id"], row["number"], row["kind"], row["ts"]) == ("a" * 32, "INC0010001", "incident", MICROS)
    assert (row["priority"], row["impact"], row["urgency"]) == (1, 1, 2)
    assert row["opened_at"] == MICROS - 800_000_000
    assert row["resolved_at"] is None
    assert row["host"] == ("mx-1" if style == "both" else "ci1")
    if style == "both":
        assert (row["state"], row["assignee"], row["service"]) == ("In Progress", "Ada Lovelace", "Mail")
        assert {(e["kind"], e["name"]) for e in parsed.entities.iter_rows(named=True)} == {
            ("host", "mx-1"),
            ("service", "Mail"),
        }


def test_a_change_that_is_carried_out_is_a_change_and_stays_one_while_its_ticket_goes_on() -> None:
    base = {**INCIDENT, "number": "CHG0030", "short_description": "Upgrade", "category": "Software|Software"}
    planned = both(**{**base, "state": "-2|Scheduled", "start_date": "2026-09-21 14:00:00"})
    begun = both(
        **{**base, "state": "-1|Implement", "start_date": "2026-09-21 14:00:00", "work_start": "2026-09-21 14:05:00"}
    )
    closed = both(**{**base, "state": "3|Closed", "work_start": "2026-09-21 14:05:00", "close_notes": "fine"})
    header = {"servicenow-table": "change_request"}
    assert read("servicenow", {"result": [planned]}, **header).changes.is_empty()
    first, second = (read("servicenow", {"result": [record]}, **header) for record in (begun, closed))
    assert first.changes.drop("delivery").equals(second.changes.drop("delivery"))
    (row,) = first.changes.iter_rows(named=True)
    assert (row["kind"], row["host"], row["service"], row["title"]) == ("deploy", "mx-1", "Mail", "CHG0030: Upgrade")
    assert first.tickets["kind"].to_list() == ["change"]


def test_knowledge_articles_become_documents_and_retired_ones_are_removed() -> None:
    article = both(
        sys_id="k1", number="KB0001", short_description="Reset a password", workflow_state="published|Published",
        text="<h2>Steps</h2><p onclick=x()>Call <a href='javascript:y'>us</a></p><script>z()</script>",
        sys_updated_on="2026-09-21 14:13:20", language="en", author="u|Ada", kb_category="c|Accounts",
    )  # fmt: skip
    header = {"servicenow-table": "kb_knowledge", "servicenow-instance": "https://x.service-now.com"}
    (row,) = read("servicenow", {"result": [article]}, **header).documents.iter_rows(named=True)
    assert row["text"] == "## Steps\n\nCall us"
    assert row["uri"] == "https://x.service-now.com/kb_view.do?sys_kb_id=k1"
    assert (row["title"], row["language"], row["kind"], row["removed"]) == ("Reset a password", "en", "article", False)
    assert orjson.loads(row["attributes"])["category"] == "Accounts"
    retired = {**article, "workflow_state": {"value": "retired", "display_value": "Retired"}}
    (gone,) = read("servicenow", {"result": [retired]}, **header).documents.iter_rows(named=True)
    assert gone["removed"]
    assert (gone["document_id"], gone["text"], gone["content_hash"]) == (row["document_id"], "", "")


def test_a_servicenow_record_without_an_id_or_a_time_is_rejected_alone() -> None:
    good = both(**INCIDENT)
    parsed = read("servicenow", {"result": [good, {**good, "sys_id": ""}, {**good, "sys_updated_on": "soon"}, 7]})
    assert parsed.tickets.height == 1
    assert [reject.reason.partition(": ")[2].partition(":")[0] for reject in parsed.rejects][:2] == [
        "sys_id",
        "sys_updated_on",
    ]
