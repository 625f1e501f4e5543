"""Pulling from APIs: nothing lost and nothing twice through outages, kills, limits and indexes that lag."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import orjson
import promql_parser as promql
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from aiops_assets.collectors.pull.http import ApiError, Paused
from aiops_assets.collectors.pull.limits import LONGEST_WAIT, exhausted_until, refused_until, retry_after
from aiops_assets.collectors.pull.marks import Pace, halved
from aiops_assets.collectors.pull.prometheus import PrometheusClient
from aiops_assets.config import ConfigError, Pull, parse_config
from tests.examples import examples
from tests.fakes import datadog, servicenow, splunk, thousandeyes
from tests.fakes.datadog import FakeDatadog
from tests.fakes.journey import Journey, keys, repeated
from tests.fakes.servicenow import FakeServiceNow
from tests.fakes.serving import Clock, Fault, Limit
from tests.fakes.splunk import FakeSplunk, Indexed
from tests.fakes.thousandeyes import AGENTS, FakeThousandEyes
from tests.prometheus_peer import Fault as PeerFault
from tests.prometheus_peer import Peer

NOW = 1_790_000_000.0
MINUTE, HOUR = 60.0, 3600.0
NO_SHRINKING = (Phase.explicit, Phase.reuse, Phase.generate)


@pytest.fixture
def clock() -> Clock:
    return Clock(NOW)


@pytest.fixture
def dd(clock: Clock) -> Iterator[FakeDatadog]:
    fake = FakeDatadog(clock)
    with fake.serving():
        yield fake


@pytest.fixture
def sp(clock: Clock) -> Iterator[FakeSplunk]:
    fake = FakeSplunk(clock)
    with fake.serving():
        yield fake


@pytest.fixture
def te(clock: Clock) -> Iterator[FakeThousandEyes]:
    fake = FakeThousandEyes(clock)
    with fake.serving():
        yield fake


@pytest.fixture
def sn(clock: Clock) -> Iterator[FakeServiceNow]:
    fake = FakeServiceNow(clock)
    with fake.serving():
        yield fake


def dd_pull(url: str, **more: Any) -> Pull:
    keys_ = {"token": datadog.API_KEY, "application_key": datadog.APPLICATION_KEY}
    return Pull.model_validate({"name": "dd", "kind": "datadog", "url": url, "logs": "*", **keys_, **more})


def sp_pull(url: str, **more: Any) -> Pull:
    given_ = {"name": "sp", "kind": "splunk", "url": url, "token": splunk.TOKEN, "queries": ["index=main"]}
    return Pull.model_validate({**given_, **more})


def te_pull(url: str, **more: Any) -> Pull:
    return Pull.model_validate({"name": "te", "kind": "thousandeyes", "url": url, "token": thousandeyes.TOKEN, **more})


def sn_pull(url: str, **more: Any) -> Pull:
    given_ = {"name": "sn", "kind": "servicenow", "url": url, "user": servicenow.USER, "password": servicenow.PASSWORD}
    return Pull.model_validate({**given_, **more})


# Datadog


def test_datadog_logs_come_once_although_the_index_lags_and_turns_overlap(dd: FakeDatadog, clock: Clock) -> None:
    chance = random.Random(1)
    expected = [dd.add(n, NOW + n * 7.3, NOW + n * 7.3 + chance.uniform(0, 280)) for n in range(500)]

    async def scene() -> Journey:
        journey = Journey(dd_pull(dd.url, page=40), clock)
        await journey.run(5000)
        await journey.close()
        return journey

    journey = asyncio.run(scene())
    assert keys(journey.parsed().logs, "event_id") == sorted(expected)
    assert [poll.error for poll in journey.polls if poll.error] == []


def test_after_an_outage_datadog_catches_up_from_its_mark_oldest_first_in_bounded_steps(
    dd: FakeDatadog, clock: Clock
) -> None:
    expected = [dd.add(n, NOW + n * 60, NOW + n * 60 + 5) for n in range(2400)]

    async def scene() -> Journey:
        journey = Journey(dd_pull(dd.url, page=100, since="10m"), clock)
        await journey.run(30 * MINUTE)
        dd.down = True
        await journey.outage(40 * HOUR)
        dd.down = False
        before = len(journey.landed)
        await journey.run(10 * MINUTE)
        await journey.close()
        windows = [orjson.loads(one.body)["data"][0]["id"] for one in journey.landed[before:]]
        assert windows == sorted(windows)
        return journey

    journey = asyncio.run(scene())
    assert keys(journey.parsed().logs, "event_id") == sorted(expected)
    assert any("502" in (poll.error or "") and not poll.up for poll in journey.polls)


@settings(max_examples=examples(5), deadline=None, phases=NO_SHRINKING)
@given(st.integers(0, 10_000))
def test_whatever_happens_datadog_logs_are_there_once(seed: int) -> None:
    """Kills with state that is old, a landing zone that refuses, server errors, torn answers, limits, late records."""
    chance, clock = random.Random(seed), Clock(NOW)
    fake = FakeDatadog(clock)
    expected = [fake.add(n, at := NOW + chance.uniform(0, HOUR), at + chance.uniform(0, 290)) for n in range(250)]
    faults = [
        Fault("torn"),
        Fault("cut"),
        Fault("status", 500),
        Fault("status", 503, {"retry-after": "40"}),
        Fault("status", 400, body=b'{"errors":["invalid cursor"]}'),
    ]

    async def scene(url: str) -> Journey:
        journey = Journey(dd_pull(url, page=chance.choice([7, 50, 1000]), since="30m"), clock)
        fake.limit = Limit(chance.choice([3, 10, 1000]), 60)
        until = NOW + 2 * HOUR
        while clock.now < until:
            calm = clock.now > NOW + 1.6 * HOUR
            if not calm:
                fake.down = chance.random() < 0.1
                fake.faults = [chance.choice(faults)] if chance.random() < 0.2 else []
            else:
                fake.down, fake.limit = False, None
            await journey.turn(durable=calm or chance.random() > 0.05, save=chance.random() > 0.3)
            if not calm and (chance.random() < 0.08 or journey.poller._waiting is not None):
                await journey.kill()
            clock.now += 60
        await journey.close()
        return journey

    with fake.serving() as url:
        journey = asyncio.run(scene(url))
    parsed = journey.parsed()
    assert sorted(set(parsed.logs["event_id"])) == sorted(expected)
    assert parsed.rejects == []


def test_datadog_is_not_asked_before_the_pause_it_asked_for_is_over(dd: FakeDatadog, clock: Clock) -> None:
    dd.limit = Limit(2, 600)
    for n in range(100):
        dd.add(n, NOW - 100)

    async def scene() -> None:
        journey = Journey(dd_pull(dd.url, page=10), clock)
        poll = await journey.turn()
        assert poll.up
        assert "asked to wait until" in str(poll.error)
        asked = len(dd.asked)
        await journey.kill()
        poll = await journey.turn()
        assert poll.up
        assert "asked to wait until" in str(poll.error)
        assert len(dd.asked) == asked
        await journey.run(2 * HOUR)
        await journey.close()
        assert dd.refused == 0
        # What a kill forgets may come again; the identifiers are the same.
        assert len(set(keys(journey.parsed().logs, "event_id"))) == 100

    asyncio.run(scene())


def test_datadog_metrics_are_whole_buckets_without_gaps_and_repetitions_agree(dd: FakeDatadog, clock: Clock) -> None:
    dd.hosts = ["web-1", "web-2"]
    dd.value = lambda host, at: float(at % 7919) / 100
    query = "avg:system.cpu.user{env:prod} by {host}"

    async def scene() -> Journey:
        journey = Journey(dd_pull(dd.url, logs=None, queries=[query], step=60, since="30m"), clock)
        await journey.run(20 * MINUTE)
        dd.down = True
        await journey.outage(5 * HOUR)
        await journey.kill()
        dd.down = False
        await journey.run(30 * MINUTE)
        await journey.close()
        return journey

    journey = asyncio.run(scene())
    parsed = journey.parsed()
    points = parsed.points.join(parsed.series.with_row_index("series"), on="series")
    assert points["metric"].unique().to_list() == ["system.cpu.user.utilization"]
    assert points["unit"].unique().to_list() == ["1"]
    for host in dd.hosts:
        one = dict(points.filter(host=host).select("ts", "value").rows())
        stamps = sorted(at // 1_000_000 for at in one)
        assert stamps == list(range(stamps[0], stamps[-1] + 60, 60))
        assert stamps[-1] >= clock.now - 240
        assert all(value == pytest.approx((at // 1_000_000 % 7919) / 10_000) for at, value in one.items())
        assert set(points.filter(host=host).select("ts", "value").rows()) == set(one.items())
    # The overlap is read again at most twice, not at every turn.
    assert points.height < 3 * points.unique(["host", "ts"]).height


# Splunk


@pytest.mark.parametrize("time", ["index", "event"])
def test_splunk_events_come_once_however_late_they_were_indexed(sp: FakeSplunk, clock: Clock, time: str) -> None:
    chance = random.Random(3)
    latest = 5 * HOUR if time == "index" else 250.0
    for n in range(400):
        at = NOW + n * 11.7
        sp.events.append(Indexed(n, at, at + chance.uniform(0, latest)))

    async def scene() -> Journey:
        journey = Journey(sp_pull(sp.url, time=time, interval="3m"), clock)
        await journey.run(7 * HOUR)
        await journey.close()
        return journey

    journey = asyncio.run(scene())
    parsed = journey.parsed()
    found = keys(parsed.logs, "event_id")
    assert len(found) == 400
    assert repeated(found) == []
    assert parsed.logs["severity_number"].unique().to_list() == [17]
    assert sorted(parsed.entities["name"]) == ["pay-0", "pay-1"]


def test_splunk_streams_that_break_off_are_asked_again_and_errors_hold_the_mark(sp: FakeSplunk, clock: Clock) -> None:
    sp.events = [Indexed(n, NOW + n, NOW + n + 3) for n in range(600)]
    sp.break_after = [5, 0, 30]

    async def scene() -> Journey:
        journey = Journey(sp_pull(sp.url, since="5m"), clock)
        clock.now += 300
        poll = await journey.turn()
        assert "broke off" in str(poll.error)
        await journey.run(3 * MINUTE)
        sp.messages = [{"type": "ERROR", "text": "Unable to distribute to peer named idx2"}]
        mark = journey.saved["streams"]["index=main"]["mark"]
        poll = await journey.turn()
        assert "Unable to distribute" in str(poll.error)
        assert poll.up
        assert journey.saved["streams"]["index=main"]["mark"] == mark
        await journey.run(15 * MINUTE)
        assert journey.saved["streams"]["index=main"]["mark"] > mark
        await journey.close()
        return journey

    found = keys(asyncio.run(scene()).parsed().logs, "event_id")
    assert len(found) == 600
    assert repeated(found) == []


def test_a_splunk_answer_that_is_too_much_is_taken_in_parts(
    sp: FakeSplunk, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aiops_assets.collectors.pull.splunk.MAX_TURN_BYTES", 20_000)
    monkeypatch.setattr("aiops_assets.collectors.pull.poller.MAX_TURN_BYTES", 20_000)
    sp.events = [Indexed(n, NOW - 3000 + n * 4, NOW - 3000 + n * 4) for n in range(700)]

    async def scene() -> Journey:
        journey = Journey(sp_pull(sp.url), clock)
        await journey.run(60 * MINUTE)
        await journey.close()
        return journey

    journey = asyncio.run(scene())
    found = keys(journey.parsed().logs, "event_id")
    assert len(found) == 700
    assert repeated(found) == []
    assert max(sum(len(one.body) for one in poll.fetched) for poll in journey.polls) < 60_000


# ThousandEyes


def test_thousandeyes_results_come_once_in_each_round_through_limits_and_an_outage(
    te: FakeThousandEyes, clock: Clock
) -> None:
    te.limit = Limit(25, 60)

    async def scene() -> Journey:
        journey = Journey(te_pull(te.url, since="10m"), clock)
        await journey.run(15 * MINUTE)
        te.down = True
        await journey.outage(3 * HOUR)
        await journey.kill()
        te.down = False
        await journey.run(30 * MINUTE)
        await journey.close()
        return journey

    journey = asyncio.run(scene())
    parsed = journey.parsed()
    points = parsed.points.join(parsed.series.with_row_index("series"), on="series")
    loss = points.filter(metric="network.loss", host="vpn.example.org")
    expected = [at * 1_000_000 for at in te.rounds() for _ in AGENTS]
    # What a kill forgets may come again; series and instant are the same.
    found = keys(loss.unique(["ts", "labels"]), "ts")
    assert found == expected[: len(found)]
    assert len(found) >= len(expected) - 8 * len(AGENTS)
    assert repeated(loss.filter(ts=expected[0]).select("ts", "labels").rows()) == []
    assert points.filter(metric="http.client.request.duration")["unit"].unique().to_list() == ["s"]
    refused = parsed.logs.filter(host="shop.example.org")
    assert refused["body"].unique().to_list() == ["Connection refused"]
    assert sorted(parsed.entities.filter(kind="device")["name"]) == sorted(AGENTS)


def test_thousandeyes_alerts_open_and_end_whenever_they_do(te: FakeThousandEyes, clock: Clock) -> None:
    te.raise_alert("short", NOW + 65, NOW + 75)
    te.raise_alert("long", NOW + 130, NOW + 3 * HOUR, "102")
    te.raise_alert("deleted", NOW + 130, NOW + 9 * HOUR)
    for n in range(5):
        te.raise_alert(f"burst-{n}", NOW + 400 + n, NOW + 900 + n)

    async def scene() -> Journey:
        journey = Journey(te_pull(te.url, since="5m"), clock)
        await journey.run(20 * MINUTE)
        clock.now += 2 * HOUR
        te.alerts = [alert for alert in te.alerts if alert["id"] != "deleted"]
        clock.now += 40 * MINUTE
        await journey.run(15 * MINUTE)
        await journey.close()
        return journey

    news = asyncio.run(scene()).parsed().external
    by_key = {key: frame["state"].to_list() for (key,), frame in news.group_by("key", maintain_order=True)}
    assert by_key.pop("short") == ["resolved"]
    assert by_key == {key: ["firing", "resolved"] for key in ("long", "deleted", *(f"burst-{n}" for n in range(5)))}
    long = news.filter(key="long")
    assert long["host"].unique().to_list() == ["vpn.example.org"]
    assert long["severity_number"].unique().to_list() == [17]
    assert long["ends_at"].to_list() == [None, int((NOW + 3 * HOUR) * 1e6)]


def test_links_to_another_server_are_not_followed(te: FakeThousandEyes, clock: Clock) -> None:
    journey = Journey(te_pull(te.url), clock)

    async def scene() -> None:
        journey.poller._client.api.begin(5)
        with pytest.raises(ApiError, match="another server"):
            await journey.poller._client.api.ask("GET", "https://evil.example.org/v7/alerts")
        await journey.close()

    asyncio.run(scene())


# ServiceNow


def test_servicenow_records_are_complete_although_they_change_while_pages_are_read(
    sn: FakeServiceNow, clock: Clock
) -> None:
    chance = random.Random(5)
    for n in range(300):
        # A bulk update leaves many records with one time.
        at = NOW - 1000 if n < 120 else NOW - 900 + n
        sn.put("incident", f"{n:032x}", at, number=f"INC{n:07d}", short_description=f"Mail {n}", state="2")
    sn.hidden = {f"{n:032x}" for n in range(40, 65)}
    updates = {"left": 60}

    def meanwhile() -> None:
        if updates["left"]:
            updates["left"] -= 1
            sn.put("incident", f"{chance.randrange(300):032x}", clock.now - 1, state="6")

    sn.meanwhile = meanwhile

    async def scene() -> Journey:
        journey = Journey(sn_pull(sn.url, page=10, tables=["incident"]), clock)
        await journey.run(20 * MINUTE)
        await journey.close()
        return journey

    tickets = asyncio.run(scene()).parsed().tickets
    shown = {key: row for key, row in sn.tables["incident"].items() if key not in sn.hidden}
    assert set(tickets["ticket_id"]) == set(shown)
    assert repeated(tickets.select("ticket_id", "ts").rows()) == []
    last = {row["ticket_id"]: row for row in tickets.sort("ts").iter_rows(named=True)}
    assert all(last[key]["state"] == row["state"] for key, row in shown.items())


def test_servicenow_catches_up_through_limits_kills_and_an_outage(sn: FakeServiceNow, clock: Clock) -> None:
    sn.limit = Limit(6, 300)

    async def scene() -> Journey:
        journey = Journey(sn_pull(sn.url, page=5, since="1h"), clock)
        for n in range(240):
            sn.put("incident", f"{n:032x}", clock.now, number=f"INC{n:07d}", short_description="x", cmdb_ci="1|web-1")
            sn.put(
                "kb_knowledge",
                f"k{n % 7:031x}",
                clock.now,
                number="KB1",
                text=f"<p>{n}</p>",
                workflow_state="published",
            )
            sn.down = 60 < n < 150
            await journey.turn(save=n % 3 == 0)
            if n % 40 == 39:
                await journey.kill()
            clock.now += 60
        sn.limit = None
        await journey.run(20 * MINUTE)
        await journey.close()
        return journey

    journey = asyncio.run(scene())
    parsed = journey.parsed()
    assert sorted(set(parsed.tickets["ticket_id"])) == [f"{n:032x}" for n in range(240)]
    assert parsed.tickets["host"].unique().to_list() == ["web-1"]
    texts = parsed.documents.sort("ts").group_by("document_id", maintain_order=True).last()["text"].to_list()
    assert sorted(map(int, texts)) == list(range(233, 240))
    assert parsed.rejects == []


# Prometheus


def pr_pull(url: str, **more: Any) -> Pull:
    given_ = {"name": "pr", "kind": "prometheus", "url": url, "queries": ["node_load1", "node_cpu_seconds_total"]}
    return Pull.model_validate({**given_, "step": 60, "token": "prom-token-123456", **more})


def test_prometheus_has_every_instant_after_faults_and_an_outage_and_asks_for_less_when_told(clock: Clock) -> None:
    names = ("node_load1", "node_cpu_seconds_total")
    series = [{"__name__": name, "instance": f"web-{n}:9100", "job": "node"} for n in range(3) for name in names]
    metadata = {"node_cpu_seconds_total": [{"type": "counter", "help": "", "unit": "seconds"}]}
    with Peer(series, lambda labels, at: str(at % 997), metadata=metadata, most_samples=200) as peer:
        faults = [PeerFault("torn"), PeerFault("status"), PeerFault("status", 429, {"Retry-After": "1"})]

        async def scene() -> Journey:
            journey = Journey(pr_pull(peer.url, since="30m", page=5), clock)
            await journey.run(10 * MINUTE)
            peer.faults = [PeerFault("garbage"), *faults]
            await journey.run(5 * MINUTE)
            peer.faults = [PeerFault("status", 502)] * 24
            await journey.outage(9 * HOUR)
            peer.faults = []
            await journey.kill()
            await journey.run(10 * MINUTE)
            await journey.close()
            return journey

        journey = asyncio.run(scene())
        authorised = {headers.get("authorization") for _, headers in peer.requests}
    assert authorised == {"Bearer prom-token-123456"}
    parsed = journey.parsed()
    points = parsed.points.join(parsed.series.with_row_index("series"), on="series").unique(["series", "ts", "value"])
    assert points.unique(["series", "ts"]).height == points.height
    assert set(parsed.series.select("metric", "kind", "unit").rows()) == {
        ("node_load1", "gauge", ""),
        ("node_cpu_seconds_total", "counter", "s"),
    }
    for (host, metric), frame in points.group_by("host", "metric"):
        stamps = sorted(at // 1_000_000 for at in frame["ts"])
        assert stamps == list(range(stamps[0], stamps[-1] + 60, 60)), (host, metric)
        assert stamps[0] <= NOW - 29 * MINUTE
        assert stamps[-1] >= clock.now - 3 * MINUTE
    assert parsed.rejects == []


def test_an_expression_of_promql_keeps_the_name_that_it_is_given() -> None:
    pull = pr_pull("http://x", queries=[{"name": "shop:errors", "query": "sum(rate(http_errors[5m])) by (job) > 0"}])
    client = PrometheusClient(pull)
    (expression,) = client._queries.values()
    assert expression.startswith('label_replace(sum(rate(http_errors[5m])) by (job) > 0, "__name__", "shop:errors"')
    promql.parse(expression)


# What all have in common


def test_no_secret_is_ever_told(dd: FakeDatadog, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    secret = datadog.APPLICATION_KEY
    told = orjson.dumps({"errors": [f"key {secret} is wrong, see https://x.example/?api_key={secret}&token=abc"]})

    async def scene() -> list[str]:
        journey = Journey(dd_pull(dd.url, queries=["avg:a{*}"]), clock)
        texts = []
        for status in (400, 403, 500, 418):
            dd.faults = [Fault("status", status, body=told)] * 8
            poll = await journey.turn()
            texts.append(str(poll.error))
            texts += [repr(poll), repr(journey.poller.state()), repr(journey.pull)]
        await journey.close()
        return texts

    with caplog.at_level(logging.DEBUG):
        texts = asyncio.run(scene())
    whole = "\n".join(texts) + caplog.text
    for hidden in (secret, datadog.API_KEY, "token=abc"):
        assert hidden not in whole
    assert "***" in whole


def self_signed(path: Path) -> Path:
    """Key and certificate of 127.0.0.1 in one PEM file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    plain = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(plain + made.public_bytes(pem))
    return path


def test_a_certificate_that_nobody_vouches_for_is_refused_unless_its_authority_is_given(
    clock: Clock, tmp_path: Path
) -> None:
    certificate = self_signed(tmp_path / "server.pem")
    fake = FakeDatadog(clock)
    fake.add(1, NOW - 100)

    async def scene(url: str) -> None:
        for more, problem in (({}, "CERTIFICATE_VERIFY_FAILED"), ({"ca_file": str(tmp_path / "no.pem")}, "ca_file")):
            journey = Journey(dd_pull(url, **more), clock)
            poll = await journey.turn()
            await journey.close()
            assert not poll.up
            assert problem in str(poll.error)
        assert fake.asked == []
        journey = Journey(dd_pull(url, ca_file=str(certificate)), clock)
        await journey.turn()
        await journey.close()
        assert keys(journey.parsed().logs, "event_id") == ["AQAAA00000001"]

    with fake.serving(certificate) as url:
        asyncio.run(scene(url))


def test_wrong_credentials_are_named_and_not_tried_again_and_again(dd: FakeDatadog, clock: Clock) -> None:
    async def scene() -> None:
        journey = Journey(dd_pull(dd.url, token="wrong-key"), clock)
        poll = await journey.turn()
        await journey.close()
        assert not poll.up
        assert "HTTP 403" in str(poll.error)
        assert "credentials in aiops.yaml" in str(poll.error)

    asyncio.run(scene())
    assert len(dd.asked) == 0


def test_a_slow_server_is_cut_by_the_deadline_and_what_came_counts(dd: FakeDatadog, clock: Clock) -> None:
    for n in range(30):
        dd.add(n, NOW - 1000 + n)
    dd.faults = [Fault("slow", seconds=0.0), Fault("slow", seconds=5.0)]

    async def scene() -> Journey:
        journey = Journey(dd_pull(dd.url, page=10, deadline=1, timeout=60), clock)
        poll = await journey.turn()
        assert poll.up
        assert "next turn goes on" in str(poll.error)
        assert len(journey.parsed().logs) == 10
        await journey.turn()
        await journey.close()
        return journey

    assert len(keys(asyncio.run(scene()).parsed().logs, "event_id")) == 30


def test_nothing_more_is_fetched_while_the_landing_zone_takes_nothing(
    dd: FakeDatadog, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    dd.add(1, NOW - 100)

    async def scene() -> None:
        journey = Journey(dd_pull(dd.url), clock)
        await journey.turn(durable=False)
        asked = len(dd.asked)
        poll = await journey.turn()
        assert "not durable yet" in str(poll.error)
        assert len(dd.asked) == asked
        monkeypatch.setattr("aiops_assets.collectors.pull.poller.DURABLE_PATIENCE", 0.0)
        await journey.turn()
        await journey.close()
        assert keys(journey.parsed().logs, "event_id") == ["AQAAA00000001"]
        assert journey.landed[0].delivery_id == journey.polls[0].fetched[0].delivery_id

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("headers", "until"),
    [
        ({"retry-after": "30"}, NOW + 30),
        ({"retry-after": "Mon, 21 Sep 2026 14:14:20 GMT"}, NOW + 60),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "12"}, NOW + 12),
        ({"x-ratelimit-reset": str(int(NOW) + 90), "x-ratelimit-limit": "100"}, NOW + 90),
        ({"x-organization-rate-limit-remaining": "0", "x-organization-rate-limit-reset": str(int(NOW) + 7)}, NOW + 7),
        ({"ratelimit": "limit=10, remaining=0, reset=5"}, NOW + 5),
        ({"ratelimit": '"default";r=0;t=9'}, NOW + 9),
        ({"ratelimit-remaining": "0", "ratelimit-reset": "8"}, NOW + 8),
        ({"x-ratelimit-period": "10"}, NOW + 10),
        ({"retry-after": "never"}, NOW + 60),
        ({"retry-after": "1e99"}, NOW + LONGEST_WAIT),
    ],
)
def test_every_way_to_ask_for_a_pause_is_understood(headers: dict[str, str], until: float) -> None:
    assert refused_until(headers, NOW) == pytest.approx(until)


@given(st.text(max_size=40), st.sampled_from(["retry-after", "ratelimit", "x-ratelimit-reset", "ratelimit-remaining"]))
def test_headers_of_any_content_never_raise(text: str, name: str) -> None:
    headers = {name: text, "x-ratelimit-remaining": "0"}
    assert NOW <= refused_until(headers, NOW) <= NOW + LONGEST_WAIT
    exhausted_until(headers, NOW)
    retry_after(text, NOW)


@given(
    st.lists(st.tuples(st.integers(1, 5000), st.booleans(), st.booleans()), min_size=1, max_size=60),
    st.integers(0, 900),
    st.integers(1, 4000),
    st.sampled_from([0, 1, 60]),
    st.booleans(),
)
def test_windows_cover_all_time_without_gaps_and_marks_never_pass_what_may_still_come(
    turns: list[tuple[int, bool, bool]], overlap: int, window: int, step: int, lazily: bool
) -> None:
    """Every instant is asked for at least once ``overlap`` after it, before the mark passes it."""
    second = 1_000_000
    pace = Pace(overlap * second, window * second)
    now = int(NOW) * second
    state: dict[str, Any] = {"mark": now - 3600 * second}
    asked: list[tuple[int, int, int]] = []
    for wait, answers, too_much in turns:
        now += wait * second
        for _ in range(4):
            found = pace.next(state, now, step=step * second)
            if found is None or not answers:
                break
            assert found.end - found.start <= max(window * second, step * second) + 2 * step * second
            smaller = halved(state, found, max(step, 1) * second) if too_much else None
            if smaller is not None:
                state = smaller
                continue
            asked.append((found.start, found.end, found.asked))
            before = state["mark"]
            state = pace.closed(state, found, lazily=lazily)
            assert state["mark"] >= before
            assert state["mark"] <= now
            if found.last:
                break
    if not asked:
        return
    mark, at = state["mark"], asked[0][0]
    late = [(start, end) for start, end, when in asked for end in [min(end, when - overlap * second)] if end > start]
    for start, end in sorted(late):
        if start <= at:
            at = max(at, end)
    assert mark <= max(at, asked[0][0])


def test_a_pull_that_lacks_something_is_refused_with_the_field_and_without_the_secret() -> None:
    text = "pull:\n- {name: dd, kind: datadog, url: 'https://user:hunter2@api.datadoghq.eu', token: x}\n"
    with pytest.raises(ConfigError) as error:
        parse_config(text, "aiops.yaml")
    assert "'url' holds a user or password" in str(error.value)
    assert "hunter2" not in str(error.value)
    for given_, problem in (
        ({"kind": "datadog", "token": "a"}, "application_key"),
        ({"kind": "splunk", "token": "a"}, "needs 'queries'"),
        ({"kind": "thousandeyes"}, "needs 'token'"),
        ({"kind": "servicenow", "user": "a"}, "'user' and 'password'"),
    ):
        with pytest.raises(ValueError, match=problem):
            Pull.model_validate({"name": "p", "url": "https://x.example", **given_})


def test_a_pause_is_told_with_its_end() -> None:
    assert str(Paused(NOW)) == "asked to wait until 14:13:20Z"
