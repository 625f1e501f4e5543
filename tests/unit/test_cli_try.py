"""What `aiops try` counts on: nothing is called sent before it was acknowledged, and clean finds exactly its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import polars as pl
import pytest

from aiops_assets.cli.try_clean import remove_traces
from aiops_assets.cli.try_load import Killer, Ledger, Outgoing, Sender, count_stored
from aiops_assets.hours import hour_key, instant
from aiops_assets.lake.tables import Lake, TableWriter
from aiops_assets.landing.reader import read_segment
from aiops_assets.landing.segment import Delivery
from aiops_assets.landing.writer import SegmentWriter
from aiops_assets.live.lease import held, live_lease
from aiops_assets.live.rederive import read_request
from aiops_assets.settings import Settings
from aiops_assets.tables import METRIC_POINTS, SERIES

NOW = 1_760_000_000_000_000


class Gateway:
    """Answers with the given statuses, then with 204; remembers what it accepted, by idempotency key."""

    def __init__(self, statuses: list[int]) -> None:
        self.statuses, self.accepted, self.requests = statuses, [], []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.requests.append((self.path, self.headers["Authorization"], self.headers["Idempotency-Key"]))
                status = outer.statuses.pop(0) if outer.statuses else 204
                if status < 300:
                    outer.accepted.append((self.headers["Idempotency-Key"], body))
                if status == 0:
                    self.connection.close()
                    return
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def gateway() -> Iterator[Callable[..., Gateway]]:
    made: list[Gateway] = []

    def make(*statuses: int) -> Gateway:
        made.append(Gateway(list(statuses)))
        return made[-1]

    yield make
    for one in made:
        one.server.shutdown()
        one.server.server_close()


def test_a_delivery_is_repeated_with_its_key_until_it_is_acknowledged(gateway: Callable[..., Gateway]) -> None:
    peer = gateway(503, 0, 429, 204)
    sender = Sender(peer.url, "secret")
    sender.start()
    sender.send(Outgoing("collected", b"{}", 7, key="k1"))
    sender.send(Outgoing("collected", b"[]", 5, key="k2"))
    assert sender.finish(20)
    # The second answer was lost after the delivery was taken, so it came again, with the key by which that is seen.
    assert [key for key, _ in peer.accepted] == ["k1", "k1", "k2"]
    assert [key for _, _, key in peer.requests] == ["k1", "k1", "k1", "k1", "k2"]
    assert peer.requests[0][:2] == ("/webhooks/collected?source=try", "Bearer secret")
    assert (sender.acknowledged, sender.repeated) == (12, 3)


def test_a_refusal_that_will_stay_ends_the_sending_and_is_told(gateway: Callable[..., Gateway]) -> None:
    sender = Sender(gateway(401).url, "wrong")
    sender.start()
    sender.send(Outgoing("collected", b"{}", 7))
    assert not sender.finish(20)
    assert sender.refusal is not None
    assert "401" in sender.refusal
    assert sender.acknowledged == 0


def test_what_nobody_answers_is_not_called_sent() -> None:
    sender = Sender("http://127.0.0.1:1", "key")
    sender.start()
    sender.send(Outgoing("collected", b"{}", 7))
    assert not sender.finish(0.5)
    assert sender.acknowledged == 0


def test_the_ledger_sends_what_it_counts(gateway: Callable[..., Gateway]) -> None:
    peer = gateway()
    sender = Sender(peer.url, "key")
    ledger = Ledger(sender, series=3, pause=0.01)
    sender.start()
    ledger.start()
    deadline = time.monotonic() + 20
    while sender.acknowledged < 30 and time.monotonic() < deadline:
        threading.Event().wait(0.01)
    ledger.stop()
    assert sender.finish(20)
    assert sender.acknowledged == ledger.points >= 30


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    made = Settings(home=tmp_path / "home")
    made.paths.create()
    return made


def points(source: str, *series_and_ts: tuple[int, int]) -> pl.DataFrame:
    rows = [
        {
            "ts": instant(ts), "series_id": series, "value": 1.0, "host": "h", "metric": "m", "unit": "",
            "source": source, "received_at": instant(ts), "writer": "gateway", "seq": 1, "hour": hour_key(ts),
        }
        for series, ts in series_and_ts
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=METRIC_POINTS.schema)


def test_stored_points_are_counted_by_key_between_two_instants(settings: Settings) -> None:
    writer = TableWriter(Lake(settings.paths.lake), METRIC_POINTS)
    writer.append(
        points("try", (1, NOW), (1, NOW), (2, NOW), (1, NOW + 1), (1, NOW - 1), (1, NOW + 99)), {"gateway": 1}
    )
    writer.append(points("host", (3, NOW)), {"gateway": 2})
    assert count_stored(settings, NOW, NOW + 1) == (4, 3)


def test_nothing_is_killed_while_no_platform_runs(settings: Settings) -> None:
    killer = Killer(settings, pause=0.0)
    assert [killer.kill_when_due() for _ in range(5)] == [None] * 5
    assert killer.kills == {}


def test_clean_removes_its_own_rows_and_deliveries_and_keeps_the_rest(settings: Settings) -> None:
    home = settings.paths
    lake = Lake(home.lake)
    writer = TableWriter(lake, METRIC_POINTS)
    writer.append(points("try", (1, NOW), (2, NOW)), {"gateway": 1})
    writer.append(points("host", (3, NOW)), {"gateway": 2})
    series = [
        {"series_id": n, "host": "h", "metric": "m", "unit": "", "labels": "{}", "kind": "gauge", "source": source}
        | {"first_seen": instant(NOW)}
        for n, source in ((1, "try"), (2, "try"), (3, "host"))
    ]
    TableWriter(lake, SERIES).append(pl.DataFrame(series, schema=SERIES.schema), {})
    with SegmentWriter(home.landing, "gateway", max_bytes=1 << 20, max_age_seconds=60) as segments:
        for source in ("try", "host", "try"):
            segments.append_deliveries([Delivery(f"{source}-1", NOW, source, "", b"body")])
        segments.seal()
        segments.append_deliveries([Delivery("try-2", NOW, "try", "", b"body")])
    (home.quarantine / "try").mkdir()

    said = "\n".join(remove_traces(settings))

    assert "landing zone: 3 deliveries" in said
    assert "metric_points: 2 rows" in said
    assert "series: 2 rows" in said
    assert lake.read("metric_points")["series_id"].to_list() == [3]
    assert lake.read("series")["series_id"].to_list() == [3]
    kept = [read_segment(home.landing / "gateway", seq) for seq in (1, 2)]
    assert [[delivery.delivery_id for delivery in segment.deliveries] for segment in kept] == [["host-1"], []]
    assert all(segment.damage is None for segment in kept)
    assert not (home.quarantine / "try").exists()
    request = read_request(home.live)
    assert request is not None and request.hours == [hour_key(NOW)]
    assert list(remove_traces(settings)) == []


def test_clean_waits_for_the_session_and_says_when_it_does_not_give_way(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from aiops_assets.cli.output import Problem

    monkeypatch.setattr("aiops_assets.cli.try_clean._LEASE_SECONDS", 0.2)
    with (
        held(live_lease(settings.paths.live), "run-1", wait_seconds=1),
        pytest.raises(Problem, match="did not give way"),
    ):
        list(remove_traces(settings))
    assert list(remove_traces(settings)) == []


def test_a_lease_that_is_asked_for_says_so_until_the_asker_has_it(settings: Settings) -> None:
    lease = live_lease(settings.paths.live)
    assert not lease.wanted()
    with lease.requested():
        assert lease.wanted()
    assert not lease.wanted()
