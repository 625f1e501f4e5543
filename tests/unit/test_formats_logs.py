"""Log formats: what each sender's own words become, and that nothing is lost whatever comes."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aiops_assets.formats import parse
from aiops_assets.formats.batch import LOGS_SCHEMA, Parsed
from aiops_assets.formats.framing import FILE, FRAMING, PEERS, RECORDS, addressed, escaped, numbered, unescaped
from aiops_assets.landing.segment import Delivery

NOW = 1_795_160_899_000_000
CAPTURES = Path(os.environ.get("AIOPS_REAL_DATA", "../shared/data")) / "captures"
needs_captures = pytest.mark.skipif(not CAPTURES.exists(), reason=f"no captures in {CAPTURES}")


def delivery(body: bytes, at: int = NOW, **headers: str) -> Delivery:
    return Delivery("d", at, "src", "", body, headers)


def syslog(*messages: str | bytes, at: int = NOW, zone: str = "UTC") -> list[dict[str, Any]]:
    raw = [message.encode() if isinstance(message, str) else message for message in messages]
    body = addressed((at, "192.0.2.7", message) for message in raw)
    parsed = parse("syslog", [delivery(body, at, framing=PEERS, zone=zone)])
    assert parsed.rejects == []
    return parsed.logs.iter_rows(named=True)  # type: ignore[return-value]


def one_syslog(message: str | bytes, **options: Any) -> dict[str, Any]:
    (row,) = syslog(message, **options)
    return row


def when(row: dict[str, Any]) -> str:
    return pl.Series([row["ts"]]).cast(pl.Datetime("us")).dt.strftime("%Y-%m-%d %H:%M:%S%.6f")[0]


@pytest.mark.parametrize(
    ("message", "host", "app", "pid", "severity", "body", "at"),
    [
        ("<27>Nov 20 07:48:19 vm bgpd BGP down", "vm", "bgpd", None, 17, "BGP down", "2026-11-20 07:48:19"),
        ("<38>Nov  2 07:48:19 vm sshd[12]: in", "vm", "sshd", 12, 9, "in", "2026-11-02 07:48:19"),
        ("<30>Nov 20 07:48:19 sshd[77]: no host", "192.0.2.7", "sshd", 77, 9, "no host", "2026-11-20 07:48:19"),
        (
            '<165>1 2026-11-20T07:48:19.003+01:00 h app 8 ID [x@1 a="b"] \ufeffmsg',
            *("h", "app", 8, 10, "msg", "2026-11-20 06:48:19.003"),
        ),
        ("<13>1 - - - - - -", "192.0.2.7", None, None, 10, "", "2026-11-20 07:48:19"),
        (
            "<189>45: sw1: Nov 20 07:48:19.123 EST: %LINK-3-UPDOWN: Interface Gi0/1, down",
            *("sw1", "LINK-3-UPDOWN", None, 10, "%LINK-3-UPDOWN: Interface Gi0/1, down", "2026-11-20 12:48:19.123"),
        ),
        (
            "<166>Nov 20 2026 07:48:19 fw1 : %ASA-6-302013: Built",
            *("fw1", "ASA-6-302013", None, 9, "%ASA-6-302013: Built", "2026-11-20 07:48:19"),
        ),
        (
            "<187>: 2026 Nov 20 07:48:19 UTC: %ETHPORT-5-IF_UP: up",
            *("192.0.2.7", "ETHPORT-5-IF_UP", None, 17, "%ETHPORT-5-IF_UP: up", "2026-11-20 07:48:19"),
        ),
        ("<134>1 1795160899.5 MX84 flows src=1", "MX84", "flows", None, 9, "src=1", "2026-11-20 07:48:19.5"),
        ("<13>2026-11-20T07:48:19Z esx Hostd: info", "esx", "Hostd", None, 10, "info", "2026-11-20 07:48:19"),
        ("Dec 31 23:59:59 vm cron[1]: late", "vm", "cron", 1, None, "late", "2025-12-31 23:59:59"),
        ("<34>no rule at all", "192.0.2.7", None, None, 21, "no rule at all", "2026-11-20 07:48:19"),
        ("<999>x", "192.0.2.7", None, None, None, "<999>x", "2026-11-20 07:48:19"),
    ],
)
def test_syslog_dialects(
    message: str, host: str, app: str | None, pid: int | None, severity: int | None, body: str, at: str
) -> None:
    row = one_syslog(message)
    assert (row["host"], row["app"], row["pid"], row["severity_number"], row["body"]) == (
        host,
        app,
        pid,
        severity,
        body,
    )
    assert when(row).startswith(at)


def test_syslog_years_turn_and_zones_count() -> None:
    new_year = 1_798_761_700_000_000  # 2027-01-01 00:01:40
    assert when(one_syslog("<13>Dec 31 23:59:59 h a: x", at=new_year)).startswith("2026-12-31 23:59:59")
    assert when(one_syslog("<13>Jan  1 00:00:01 h a: x", at=new_year - 200_000_000)).startswith("2027-01-01")
    assert when(one_syslog("<13>Jul  1 12:00:00 h a: x", zone="Europe/Berlin")).startswith("2026-07-01 10:00:00")


def test_syslog_structured_data_with_escapes_and_repeated_names() -> None:
    row = one_syslog(r'<13>1 - h a - - [x@1 a="q\"[\]" ip="1" ip="2"][y z="=,{}"] body')
    assert orjson.loads(row["attributes"])["syslog.structured_data"] == {
        "x@1": {"a": 'q"[]', "ip": ["1", "2"]},
        "y": {"z": "=,{}"},
    }
    assert row["body"] == "body"


def test_syslog_keeps_line_feeds_latin_1_and_cut_characters() -> None:
    rows = list(syslog("<13>1 - h a - - - two\nlines\0x", "Gerät".encode("latin-1"), "cut ä".encode()[:-1]))
    assert [row["body"] for row in rows] == ["two\nlines\0x", "Gerät", "cut \\xc3"]


@needs_captures
def test_captured_syslog_of_real_senders() -> None:
    for path in sorted(CAPTURES.glob("*syslog*.bin")) + sorted(CAPTURES.glob("logger*.bin")):
        data = path.read_bytes()
        data = data.split(b" ", 1)[1] if "octetcount" in path.name else data
        for row in syslog(*data.split(b"\n")):
            assert row["host"] == "vm", path
            assert row["app"] in {"a", "bgpd", "kernel", "sshd"}
            assert row["severity_number"] in {9, 10, 17}
            assert when(row).startswith("2026-11-20 07:48:19")


def test_framing_is_lossless() -> None:
    for record in (b"", b"\0", b"\n", b"\0n", b"\n0", b"\0000\n\0n0"):
        assert unescaped(escaped(record)) == record
        assert b"\n" not in escaped(record)


def rows_of(name: str, body: bytes, **headers: str) -> tuple[list[dict[str, Any]], Parsed]:
    parsed = parse(name, [delivery(body, **headers)])
    assert dict(parsed.logs.schema) == LOGS_SCHEMA
    return list(parsed.logs.iter_rows(named=True)), parsed


@pytest.mark.parametrize(
    "line",
    [
        b'{"@timestamp":"2026-11-20T07:48:19Z","host":{"name":"h"},"message":"m","log":{"level":"error"},'
        b'"service":{"name":"a"},"agent":{"type":"filebeat"}}',
        b'{"date":1795160899.0,"log":"m\\n","kubernetes":{"host":"h","labels":{"app":"a"}},"level":"ERROR"}',
        b'{"timestamp":"2026-11-20T07:48:19Z","host":"h","message":"m","appname":"a","severity":"err"}',
        b'{"time":1795160899000,"hostname":"h","name":"a","msg":"m","level":50,"pid":4}',
    ],
    ids=["filebeat", "fluent-bit", "vector", "pino"],
)
def test_json_logs_of_every_shipper(line: bytes) -> None:
    for body in (line, b"[" + line + b"]", line + b"\n" + line, b'{"logs":[' + line + b"]}"):
        rows, parsed = rows_of("json_lines", body)
        assert parsed.rejects == []
        for row in rows:
            assert (row["host"], row["app"], row["body"]) == ("h", "a", "m")
            assert row["severity_number"] in {17, 21}
            assert row["ts"] == NOW
        assert "h" in parsed.entities["name"].to_list()


def test_json_trace_identifiers_move_and_the_rest_stays() -> None:
    (row,), _ = rows_of("json_lines", b'{"msg":"m","traceId":"4BF92F3577B34DA6A3CE929D0E0E4736","spanId":"no","n":1}')
    assert row["trace_id"] == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert orjson.loads(row["attributes"]) == {"spanId": "no", "n": 1}


def test_followed_json_lines_have_identifiers_and_plain_lines_are_text() -> None:
    body = numbered([(0, b'{"msg":"a"}'), (12, b"2026-11-20 07:48:19 WARN plain")])
    rows, parsed = rows_of("json_lines", body, **{FRAMING: RECORDS, FILE: "f", "host": "h", "path": "/var/log/x.log"})
    assert [(row["event_id"], row["body"][:5], row["host"]) for row in rows] == [
        ("f-0", "a", "h"),
        ("f-12", "2026-", "h"),
    ]
    assert rows[1]["severity_number"] == 13
    assert parsed.rejects == []


def test_hec_events_follow_each_other_without_separators() -> None:
    rows, parsed = rows_of(
        "hec",
        b'{"time":"1795160899.25","host":"h","source":"s","sourcetype":"t","event":"a}{b","fields":{"level":"warn"}}'
        b'{"host":"h","event":{"message":"m","level":"error"}}{"event":""}{"host":"h","event":"metric",'
        b'"time":1795160899,"fields":{"metric_name:cpu":1.5,"metric_name:mem":"2","region":"eu"}}\n{bad}\n{"event":"last"}',
    )
    assert [row["body"] for row in rows] == ["a}{b", "m", "last"]
    assert (rows[0]["ts"], rows[0]["severity_number"], rows[0]["app"]) == (NOW + 250_000, 13, "t")
    assert orjson.loads(rows[0]["attributes"])["com.splunk.source"] == "s"
    assert parsed.points["value"].to_list() == [1.5, 2.0]
    assert [reject.reason.split(":")[0] for reject in parsed.rejects] == ["event", "not JSON"]


def test_hec_raw_takes_its_metadata_from_the_query() -> None:
    rows, _ = rows_of("hec_raw", b"one\ntwo ERROR\n", query="host=h&sourcetype=t&index=i&time=1795160899")
    assert [(row["host"], row["app"], row["body"], row["ts"]) for row in rows] == [
        ("h", "t", "one", NOW),
        ("h", "t", "two ERROR", NOW),
    ]
    assert rows[1]["severity_number"] == 17


def test_elastic_bulk_pairs_actions_with_documents() -> None:
    rows, parsed = rows_of(
        "elastic_bulk",
        b'{"index":{"_index":"logs","_id":"1"}}\n{"@timestamp":"2026-11-20T07:48:19Z","message":"m","host":"h"}\n'
        b'{"delete":{"_id":"2"}}\n{"create":{}}\n{"message":"n"}\n{"update":{"_id":"1"}}\n{"doc":{"message":"u"}}\n'
        b'{"index":{}}\n',
    )
    assert [(row["event_id"], row["body"]) for row in rows] == [("1", "m"), (None, "n"), (None, "u")]
    assert orjson.loads(rows[0]["attributes"])["elasticsearch.index"] == "logs"
    assert [reject.reason for reject in parsed.rejects] == [
        "delete: log events are not removed",
        "index: the document is missing",
    ]


def test_journal_entries_with_binary_fields() -> None:
    rows, parsed = rows_of(
        "journal",
        b"__CURSOR=c1\n__REALTIME_TIMESTAMP=1795160899000000\n_HOSTNAME=vm\nPRIORITY=3\nSYSLOG_IDENTIFIER=app\n_PID=5\n"
        b"SYSLOG_FACILITY=3\nMESSAGE\n\x05\0\0\0\0\0\0\0a\n\nbc\n\nX=1\nMESSAGE=last\n",
    )
    assert (rows[0]["event_id"], rows[0]["body"], rows[0]["pid"], rows[0]["severity_number"]) == (
        "c1",
        "a\n\nbc",
        5,
        17,
    )
    assert orjson.loads(rows[0]["attributes"])["syslog.facility"] == "daemon"
    assert [row["body"] for row in rows] == ["a\n\nbc", "last"]
    assert parsed.rejects == []


@pytest.mark.parametrize(
    "line",
    [
        "2026-11-20 07:48:19,000 ERROR [main] x",
        "2026-11-20T08:48:19.000+01:00 x",
        '127.0.0.1 - - [20/Nov/2026:07:48:19 +0000] "GET / HTTP/1.1" 200 1',
        "2026/11/20 07:48:19 [error] 12#0: x",
        "Nov 20 07:48:19 vm sshd[1]: x",
        "[Fri Nov 20 07:48:19.000000 2026] [core:error] x",
        "20-Nov-2026 07:48:19.000 INFO x",
        "1795160899.0 x",
        "1795160899000 x",
        "I1120 07:48:19.000000 1 main.go:3] x",
        "Nov 20, 2026 7:48:19 AM java.x",
        'level=info ts=2026-11-20T07:48:19Z msg="x"',
        "1234:M 20 Nov 2026 07:48:19.000 * x",
    ],
)
def test_text_lines_tell_their_time(line: str) -> None:
    (row,), _ = rows_of("text", line.encode(), path="/var/log/app.log")
    assert row["ts"] == NOW
    assert row["body"] == line
    assert row["app"] == "app"


def test_traps_become_logs_alerts_that_end_and_changes() -> None:
    def trap(oid: str, *varbinds: list[Any]) -> bytes:
        made = {"ts": NOW, "peer": "192.0.2.7", "host": "core1", "request": 1, "trap": oid, "varbinds": list(varbinds)}
        return orjson.dumps(made)

    index = ["1.3.6.1.2.1.2.2.1.1.7", "integer", 7]
    rows, parsed = rows_of(
        "snmp_trap",
        b"\n".join(
            [
                trap("1.3.6.1.6.3.1.1.5.3", index, ["1.3.6.1.2.1.2.2.1.8.7", "integer", 2]),
                trap("1.3.6.1.6.3.1.1.5.4", index),
                trap("1.3.6.1.6.3.1.1.5.1"),
                trap("1.3.6.1.4.1.318.0.5"),
                trap("1.3.6.1.4.1.99999.0.1"),
                b"[]",
                b'{"trap":1}',
            ]
        ),
    )
    assert [row["body"].split()[0] for row in rows] == [
        *("linkDown", "linkUp", "coldStart", "upsOnBattery", "1.3.6.1.4.1.99999.0.1"),
    ]
    assert rows[0]["body"] == "linkDown ifIndex=7 ifOperStatus=down"
    assert parsed.external.select("key", "state").rows() == [
        ("core1/linkDown/7", "firing"),
        ("core1/linkDown/7", "resolved"),
        ("core1/upsOnBattery", "firing"),
    ]
    assert parsed.changes["kind"].to_list() == ["reboot"]
    assert len({row["event_id"] for row in rows}) == 5
    assert parsed.entities.rows()[0][:2] == ("device", "core1")
    assert [reject.reason[:4] for reject in parsed.rejects] == ["trap"]


SEEDS: dict[str, list[bytes]] = {
    "syslog": [
        b"<27>Nov 20 07:48:19 vm bgpd[3]: x",
        b'<165>1 2026-11-20T07:48:19.003Z h a 8 ID [x@1 a="b\\"]" c="d"][y] \xef\xbb\xbfm',
        b"<189>45: sw1: *Nov 20 07:48:19.123 EST: %LINK-3-UPDOWN: Interface",
        b'<189>date=2026-11-20 time=07:48:19 devname="F" tz="+0100" level="notice" eventtime=1795160899123456789',
        b"<134>1 1795160899.5 MX84 flows a=b",
    ],
    "text": [
        b"2026-11-20 07:48:19,123 ERROR x", b"[20/Nov/2026:07:48:19 +0100]", b"1795160899.5 x", b"I1120 07:48:19.1 x"
    ],
    "json_lines": [
        b'{"@timestamp":"2026-11-20T07:48:19Z","host":{"name":"h"},"message":"m","level":30}\n{"log":"x","time":1e9}',
        b'{"streams":[{"stream":{"a":"b"},"values":[["1795160899000000000","l"]]}]}',
    ],
    "hec": [b'{"time":1795160899.5,"host":"h","event":{"a":[1]},"fields":{"b":null}}{"event":"metric","host":"h",'
            b'"fields":{"metric_name:x":1e400,"metric_name":"y","_value":"3"}}'],
    "hec_raw": [b"a\nb\n\xff"],
    "elastic_bulk": [b'{"index":{"_index":"i","_id":"1"}}\n{"message":"m","severity":3}\n{"delete":{}}\n'],
    "journal": [
        b"__CURSOR=1\n__REALTIME_TIMESTAMP=1795160899000000\nMESSAGE\n"
        b"\x03\0\0\0\0\0\0\0a\nb\nPRIORITY=3\n\nMESSAGE=x\n"
    ],
    "snmp_trap": [
        b'{"ts":1795160899000000,"peer":"192.0.2.7","request":1,"trap":"1.3.6.1.6.3.1.1.5.3","uptime":5,'
        b'"varbinds":[["1.3.6.1.2.1.2.2.1.1.7","integer",7],["1.3.6.1.2.1.2.2.1.2.7","octets","e"]]}'
    ],
}  # fmt: skip
_PIECES = (
    *(bytes([code]) for code in b'\0\n"\\[]{}<>: -\x0b\xff'),
    *(b"null", b"NaN", b"1e999", b"-1", b"\\ud800", b"9" * 25, b"[[", b"{}", b"<0>", b"\r\n", b"\x1f\x8b"),
    *("é".encode(), "\u2028".encode()),
)
JUNK = st.one_of(st.binary(max_size=12), st.sampled_from(_PIECES))


def mutated(seeds: list[bytes]) -> st.SearchStrategy[bytes]:
    @st.composite
    def make(draw: st.DrawFn) -> bytes:
        data = bytearray(draw(st.sampled_from(seeds)))
        for _ in range(draw(st.integers(0, 5))):
            at = draw(st.integers(0, len(data)))
            data[at : at + draw(st.integers(0, 6))] = draw(JUNK)
        return bytes(data)

    return make()


@pytest.mark.parametrize("name", sorted(SEEDS))
@settings(
    max_examples=int(os.environ.get("AIOPS_FUZZ_EXAMPLES", "15")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_mutated_payloads_never_raise_and_every_delivery_is_accounted_for(name: str, data: st.DataObject) -> None:
    bodies = data.draw(st.lists(st.one_of(mutated(SEEDS[name]), st.binary(max_size=60)), min_size=1, max_size=4))
    headers: dict[str, str] = {}
    if name in {"syslog", "text", "json_lines"}:
        framing = data.draw(st.sampled_from(["", PEERS, RECORDS]))
        if framing == PEERS:
            bodies = [addressed([(NOW, "192.0.2.7", body)]) for body in bodies]
        elif framing == RECORDS:
            bodies = [numbered([(5, body)]) for body in bodies]
        headers = {FRAMING: framing, FILE: "f"} if framing else {}
    deliveries = [delivery(body, **headers) for body in bodies]
    parsed = parse(name, deliveries)
    check_accounts(parsed, len(bodies))
    assert parse(name, deliveries).logs.equals(parsed.logs)


def check_accounts(parsed: Parsed, deliveries: int) -> None:
    """Every delivery gave rows or a reject, and every row can be stored."""
    assert dict(parsed.logs.schema) == LOGS_SCHEMA
    accounted = {reject.delivery for reject in parsed.rejects} | set(parsed.logs["delivery"].to_list())
    accounted |= set(parsed.points["delivery"].to_list()) | set(parsed.changes["delivery"].to_list())
    assert accounted == set(range(deliveries))
    for attributes in parsed.logs["attributes"]:
        assert isinstance(orjson.loads(attributes), dict)
    for host in parsed.logs["host"].drop_nulls():
        assert host
        assert "\n" not in host
    assert parsed.logs["ts"].drop_nulls().is_between(-62_135_596_800_000_000, 253_402_300_799_999_999).all()
    assert parsed.logs["severity_number"].drop_nulls().is_between(1, 24).all()


@pytest.mark.parametrize("name", sorted(SEEDS))
def test_ten_thousand_mutated_payloads_are_all_accounted_for(name: str) -> None:
    chance = random.Random(name)

    def payload() -> bytes:
        data = bytearray(chance.choice(SEEDS[name]))
        for _ in range(chance.randrange(6)):
            at = chance.randrange(len(data) + 1)
            piece = chance.choice(_PIECES) if chance.random() < 0.7 else chance.randbytes(chance.randrange(8))
            data[at : at + chance.randrange(6)] = piece
        return bytes(data[: chance.randrange(len(data) + 1)] if chance.random() < 0.1 else data)

    for _ in range(20):
        deliveries = [delivery(payload()) for _ in range(500)]
        if name == "syslog":
            deliveries = [delivery(addressed([(NOW, "192.0.2.7", one.body)]), framing=PEERS) for one in deliveries]
        check_accounts(parse(name, deliveries), len(deliveries))
