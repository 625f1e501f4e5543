"""Deliveries of a storm: requests by format, retries, pacing, and the landing zone."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiops_assets.landing.reader import gaps, numbers, read_segment
from aiops_assets.landing.segment import Delivery
from aiops_assets.landing.writer import SegmentWriter
from aiops_assets.synthetic.storms.delivery import (
    Delivered,
    Gateway,
    Landing,
    NotDelivered,
    pause_of,
    play,
    request_of,
)
from aiops_assets.synthetic.storms.engine import Emission
from tests.storms import SECOND, START, fault, played, tiny


def emission(at: int = START, **more: object) -> Emission:
    return Emission(at, "storm-tiny", "telegraf", b"cpu value=1 1\n", {}, 1, **more)  # type: ignore[arg-type]


class Answers:
    """A gateway that answers what it is told to, then 202."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []
        self.lock = threading.Lock()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        with self.lock:
            self.requests.append(request)
            answer = self.answers.pop(0) if self.answers else httpx.Response(202)
        if isinstance(answer, Exception):
            raise answer
        return answer


def gateway(answers: Answers, **more: object) -> Gateway:
    return Gateway("http://gateway.example", "key", transport=httpx.MockTransport(answers), **more)  # type: ignore[arg-type]


def test_each_format_is_posted_as_its_senders_post_it() -> None:
    scenario = tiny(
        fault("bad_deploy", "web-1"),
        {**fault("psu_failure", "db-1"), "id": "psu"},
        {**fault("link_flapping", "switch-1"), "id": "link"},
        duration="15m",
    )
    by_format = {one.format: one for one in played(scenario)}
    requests = {name: request_of(one, "secret", history=False) for name, one in by_format.items()}
    assert set(requests) == {
        "telegraf", "collected", "syslog", "sentry_envelope", "redfish_event", "snmp_trap", "generic", "servicenow",
    }  # fmt: skip
    path, query, headers = requests["sentry_envelope"]
    assert path == "/api/1/envelope/"
    assert "sentry_key=secret" in headers["X-Sentry-Auth"]
    path, query, headers = requests["redfish_event"]
    assert (path, query["host"]) == ("/webhooks/redfish_event", "tiny-db-1")
    assert headers["Authorization"] == "Bearer secret"
    assert requests["telegraf"][2]["Content-Type"].startswith("text/plain")
    assert all(query["source"] == "storm-tiny" for _, query, _ in requests.values())
    assert len({headers["Idempotency-Key"] for _, _, headers in requests.values()}) == len(requests)


def test_history_says_so() -> None:
    answers = Answers()
    with gateway(answers) as target:
        for one in (emission(history=True), emission()):
            target.send(one)
    assert [request.headers.get("x-aiops-history") for request in answers.requests] == ["1", None]
    answers = Answers()
    with gateway(answers, marked="all") as target:
        target.send(emission())
    assert answers.requests[0].headers["x-aiops-history"] == "1"


def test_what_is_refused_for_now_is_sent_again_under_the_same_key() -> None:
    answers = Answers(
        httpx.Response(503, headers={"Retry-After": "0"}),
        httpx.Response(429, headers={"Retry-After": "0"}),
        httpx.ConnectError("no route"),
        httpx.ReadTimeout("slow"),
    )
    with gateway(answers) as target:
        target.send(emission())
    assert len(answers.requests) == 5
    assert len({request.headers["idempotency-key"] for request in answers.requests}) == 1
    assert target.delivered.repeated == 4
    assert target.delivered.points == 1


def test_what_is_refused_for_good_ends_the_run_with_the_reason() -> None:
    answers = Answers(httpx.Response(401, text="the key is not known"))
    with gateway(answers) as target, pytest.raises(NotDelivered, match=r"telegraf.*401: the key is not known"):
        target.send(emission())
    assert len(answers.requests) == 1


def test_a_gateway_that_stays_away_is_given_up_after_a_while() -> None:
    answers = Answers(*[httpx.Response(503, headers={"Retry-After": "30"})] * 3)
    with gateway(answers, patience=20.0) as target, pytest.raises(NotDelivered, match="503"):
        target.send(emission())
    assert len(answers.requests) == 1


def test_several_connections_deliver_everything_once() -> None:
    answers = Answers(*[httpx.Response(503, headers={"Retry-After": "0"})] * 5)
    with gateway(answers, connections=4) as target:
        for number in range(50):
            target.send(emission(START + number))
        target.flush()
    assert target.delivered.deliveries == 50
    accepted = [request.headers["idempotency-key"] for request in answers.requests]
    assert len(accepted) == 55
    assert len(set(accepted)) == 50


def test_an_error_on_one_of_several_connections_is_told() -> None:
    answers = Answers(httpx.Response(400, text="no"))
    with gateway(answers, connections=4) as target:
        target.send(emission())
        with pytest.raises(NotDelivered, match="400"):
            target.flush()


@given(st.integers(0, 1_000), st.one_of(st.none(), st.text(max_size=20), st.integers(0, 10**9).map(str)))
def test_pauses_are_bounded_whatever_the_other_side_says(attempt: int, told: str | None) -> None:
    assert 0.0 <= pause_of(attempt, told) <= 30.0


def landed(root: Path, writer: str) -> list[Delivery]:
    folder = root / writer
    assert gaps(folder) == []
    return [one for seq in sorted(numbers(folder, ".seg")) for one in read_segment(folder, seq).deliveries]


@pytest.mark.parametrize("received", ["now", "sent"])
def test_the_landing_zone_holds_what_was_sent_in_order(tmp_path: Path, received: str) -> None:
    found = played(tiny(fault("bad_deploy", "web-1"), history={"span": "10m"}))
    with SegmentWriter(tmp_path, "storm", max_bytes=1 << 20, max_age_seconds=60) as writer:
        target = Landing(writer, received=received)  # type: ignore[arg-type]
        outcome = play(iter(found), target, start_at=START)
    stored = landed(tmp_path, "storm")
    assert [one.body for one in stored] == [one.body for one in found]
    assert [one.headers.get("history") == "1" for one in stored] == [one.history for one in found]
    assert all(one.headers["format"] == sent.format for one, sent in zip(stored, found, strict=True))
    assert (outcome.deliveries, outcome.points) == (len(found), sum(one.points for one in found))
    if received == "sent":
        assert [one.received_at for one in stored] == [one.at for one in found]
    else:
        assert all(abs(one.received_at - time.time_ns() // 1000) < 600 * SECOND for one in stored)


class Noting:
    def __init__(self) -> None:
        self.delivered = Delivered()
        self.flushed = 0

    def send(self, emission: Emission) -> None:
        self.delivered.add(emission)

    def flush(self) -> None:
        self.flushed += 1


def test_deliveries_wait_for_their_time_and_history_does_not() -> None:
    target = Noting()
    sent = [emission(START - 3_600 * SECOND), emission(START), emission(START + 60 * SECOND)]
    begun = time.monotonic()
    play(sent, target, start_at=START, speed=600.0)
    assert time.monotonic() - begun >= 0.1
    assert target.delivered.deliveries == 3
    assert target.flushed == 2


def test_a_run_can_be_ended_while_it_waits() -> None:
    stop = threading.Event()
    target = Noting()
    threading.Timer(0.1, stop.set).start()
    play([emission(), emission(START + 3_600 * SECOND)], target, start_at=START, speed=1.0, stop=stop)
    assert target.delivered.deliveries == 1
