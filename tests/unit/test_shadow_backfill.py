"""The backfill against a server that fails in every way: each sample once, politely, and on from where it stopped."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import polars as pl
import pytest

from aiops_assets.formats import parse
from aiops_assets.landing.reader import read_segment, writers
from aiops_assets.landing.segment import Delivery
from aiops_assets.landing.writer import SegmentWriter
from aiops_assets.settings import Settings
from aiops_assets.shadow import run as shadow_run
from aiops_assets.shadow.client import Access, Prometheus, PrometheusError, TooMuch, checked_url, retry_after
from aiops_assets.shadow.journal import Journal, JournalBusy, JournalDamaged
from aiops_assets.shadow.run import NothingImported, Options, Outcome, run
from aiops_assets.telemetry.series import SeriesDirectory
from tests.prometheus_peer import Fault, Peer

NOW = 1_700_003_580
HOUR = 3600


def series(hosts: int, metrics: int = 3) -> list[dict[str, str]]:
    return [
        {"__name__": f"metric_{m}", "instance": f"web-{h}:9100", "job": "node"}
        for m in range(metrics)
        for h in range(hosts)
    ]


def value(labels: object, at: int) -> str | None:
    text = str(sorted(labels.items()))  # type: ignore[attr-defined]
    number = (at // 60 * 7 + sum(map(ord, text))) % 1000
    return None if number == 13 else "NaN" if number == 17 else str(number)


def expected(peer: Peer, start: int, end: int, step: int) -> set[tuple[str, str, int, float]]:
    return {
        (labels["__name__"], labels["instance"].partition(":")[0], at * 1_000_000, float(text))
        for labels in peer.series
        for at in range(start, end, step)
        if (text := value(labels, at)) not in {None, "NaN"} and text is not None
    }


def options(peer: Peer, **fields: object) -> Options:
    access = Access(peer.url, requests_per_second=1000.0, timeout_seconds=30.0, attempts=4)
    return Options(access=access, **{"days": 1.0, "statistics": False, **fields})  # type: ignore[arg-type]


def settings_of(tmp_path: Path) -> Settings:
    made = Settings(home=tmp_path / "home")
    made.paths.create()
    return made


def import_all(asked: Options, made: Settings, now: float = NOW) -> Outcome:
    def writer() -> SegmentWriter:
        return SegmentWriter(made.paths.landing, "ingest", max_bytes=1 << 20, max_age_seconds=0.5)

    return run(asked, made, writer, now)


def deliveries(made: Settings) -> list[Delivery]:
    found = []
    for writer in writers(made.paths.landing):
        folder = made.paths.landing / writer
        for path in sorted(folder.glob("*.seg")):
            found += read_segment(folder, int(path.stem)).deliveries
    return found


def landed(made: Settings) -> list[tuple[str, str, int, float]]:
    parsed = parse("prometheus_range", deliveries(made))
    joined = parsed.points.join(parsed.series.with_row_index("series"), on="series", how="left", maintain_order="left")
    return joined.select("metric", "host", "ts", "value").rows()


def grid(days: float, step: int, now: int = NOW) -> tuple[int, int]:
    end = (now - HOUR) // step * step
    return end - round(days * 86_400) // step * step, end


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aiops_assets.shadow.client._FIRST_PAUSE_SECONDS", 0.01)


@pytest.mark.parametrize("compress", [True, False])
def test_every_sample_of_every_series_lands_once_in_the_order_of_time(tmp_path: Path, compress: bool) -> None:
    made = settings_of(tmp_path)
    with Peer(series(4), value, compress=compress) as peer:
        outcome = import_all(options(peer), made)
    found = landed(made)
    wanted = expected(peer, *grid(1.0, 60), 60)
    assert Counter(found) == Counter(wanted)
    assert outcome.imported.samples == len(wanted)
    assert outcome.imported.refused == sum(
        value(labels, at) == "NaN" for labels in peer.series for at in range(*grid(1.0, 60), 60)
    )
    headers = {tuple(sorted(delivery.headers)) for delivery in deliveries(made)}
    assert headers == {("format", "history", "refused", "samples")}
    assert {delivery.source for delivery in deliveries(made)} == {"prometheus"}
    assert outcome.imported.end == NOW - HOUR


def test_no_answer_is_asked_for_with_more_points_than_a_server_gives_and_none_is_large(tmp_path: Path) -> None:
    made = settings_of(tmp_path)
    many = [{"__name__": "wide", "instance": f"web-{n}:1"} for n in range(700)] + series(3)
    constant = lambda labels, at: "1" if at % 60 == 0 else None  # noqa: E731
    with Peer(many, constant) as peer:
        outcome = import_all(options(peer, days=0.5), made)
    assert outcome.imported.samples == len(many) * 720
    assert all((end - start) // 60 + 1 <= 11_000 for _, start, end in peer.answered)
    per_answer = Counter(delivery.delivery_id for delivery in deliveries(made))
    assert max(per_answer.values()) == 1
    assert max(int(delivery.headers["samples"]) for delivery in deliveries(made)) <= 250_000


def test_a_busy_torn_hanging_server_is_asked_again_and_nothing_is_lost_or_doubled(tmp_path: Path) -> None:
    made = settings_of(tmp_path)
    faults = [
        Fault("status", 429, {"Retry-After": "0"}),
        Fault("status", 503),
        Fault("torn"),
        Fault("garbage"),
        Fault("status", 502, body=b"<html>bad gateway</html>"),
    ]
    with Peer(series(3), value, faults=faults) as peer:
        outcome = import_all(options(peer), made)
    assert Counter(landed(made)) == Counter(expected(peer, *grid(1.0, 60), 60))
    assert not peer.faults
    assert outcome.imported.retries == 3


def test_an_answer_that_does_not_come_in_time_is_given_up(tmp_path: Path) -> None:
    made = settings_of(tmp_path)
    with Peer(series(2), value, faults=[Fault("hang")]) as peer:
        asked = options(peer)
        access = Access(peer.url, requests_per_second=1000.0, timeout_seconds=1.0, attempts=4)
        import_all(Options(access=access, days=asked.days, statistics=False), made)
    assert Counter(landed(made)) == Counter(expected(peer, *grid(1.0, 60), 60))


def test_a_query_that_is_too_much_for_the_server_is_cut_in_time(tmp_path: Path) -> None:
    made = settings_of(tmp_path)
    with Peer(series(3), value, most_samples=1_000) as peer:
        import_all(options(peer), made)
    assert Counter(landed(made)) == Counter(expected(peer, *grid(1.0, 60), 60))
    assert len([query for query, *_ in peer.answered if not query.startswith("ALERTS")]) > 8


def test_a_server_that_stays_away_ends_the_import_with_what_came_and_the_next_run_goes_on(tmp_path: Path) -> None:
    made = settings_of(tmp_path)
    with Peer(series(2), value) as peer:
        asked = options(peer, days=3.0)
        peer.faults = []
        original = peer.matrix

        def breaking(query: str, start: int, end: int, step: int) -> list[dict[str, object]]:
            if len(peer.answered) >= 5:
                peer.faults = [Fault("status", 500)] * 40
            return original(query, start, end, step)

        peer.matrix = breaking  # type: ignore[method-assign, assignment]
        with pytest.raises(PrometheusError, match="attempts failed, the last: HTTP 500"):
            import_all(asked, made)
        with Journal(made.paths.root / "shadow", asked.shadow_id, asked.question) as journal:
            (leg,) = journal.legs
            delivered = {
                (chunk.query, chunk.start, chunk.end - 60) for chunk in leg.chunks() if chunk.key in journal.done
            }
        assert 0 < len(landed(made)) < len(expected(peer, *grid(3.0, 60), 60))
        assert delivered
        peer.faults, peer.matrix = [], original  # type: ignore[method-assign]
        peer.answered.clear()
        import_all(asked, made, NOW + 600)
    assert Counter(landed(made)) == Counter(expected(peer, *grid(3.0, 60), 60))
    assert not delivered & set(peer.answered)


def test_what_was_delivered_but_not_written_down_is_known_again(tmp_path: Path) -> None:
    made = settings_of(tmp_path)
    with Peer(series(2), value) as peer:
        asked = options(peer, days=3.0)
        import_all(asked, made)
        folder = made.paths.root / "shadow" / asked.shadow_id
        lines = (folder / "done.jsonl").read_bytes().splitlines(keepends=True)
        (folder / "done.jsonl").write_bytes(b"".join(lines[:2]) + lines[2][:10])
        asked_before = len(peer.answered)
        import_all(asked, made)
        again = [query for query, *_ in peer.answered[asked_before:] if not query.startswith("ALERTS")]
    assert Counter(landed(made)) == Counter(expected(peer, *grid(3.0, 60), 60))
    assert again == []


def test_a_later_run_fetches_only_what_is_new(tmp_path: Path) -> None:
    made = settings_of(tmp_path)
    with Peer(series(2), value) as peer:
        import_all(options(peer), made)
        before = len(peer.answered)
        outcome = import_all(options(peer), made, NOW + 2 * HOUR)
        later = peer.answered[before:]
    start, _ = grid(1.0, 60)
    _, end = grid(1.0, 60, NOW + 2 * HOUR)
    assert min(first for _, first, _ in later) == NOW - HOUR
    assert Counter(landed(made)) == Counter(expected(peer, start, end, 60))
    assert (outcome.imported.start, outcome.imported.end) == (start, end)


def test_overlapping_selectors_judge_each_sample_once(tmp_path: Path) -> None:
    made = settings_of(tmp_path)
    with Peer(series(3), value) as peer:
        asked = options(peer, selectors=("metric_0", '{job="node"}'))
        outcome = import_all(asked, made)
        with Journal(made.paths.root / "shadow", asked.shadow_id, asked.question) as journal:
            directory = SeriesDirectory()
            windows = list(shadow_run.history.windows(journal, made.paths.landing, made.paths.lake, directory))
    assert outcome.imported.series == 9
    keys = [key for w in windows for key in zip(w.number.tolist(), w.ts.tolist(), strict=True)]
    assert len(keys) == len(set(keys)) == len(expected(peer, *grid(1.0, 60), 60))
    assert set(landed(made)) == expected(peer, *grid(1.0, 60), 60)


def test_secrets_reach_the_server_and_nothing_else(tmp_path: Path) -> None:
    made = settings_of(tmp_path)
    with Peer(series(1), value) as peer:
        access = Access(peer.url, token="s3cret", headers={"X-Scope-OrgID": "team"}, requests_per_second=1000.0)
        import_all(Options(access=access, days=0.1, statistics=False), made)
    assert {headers["authorization"] for _, headers in peer.requests} == {"Bearer s3cret"}
    assert {headers["x-scope-orgid"] for _, headers in peer.requests} == {"team"}
    assert "s3cret" not in repr(access)
    stored = [path.read_bytes() for path in made.paths.root.rglob("*") if path.is_file()]
    assert not any(b"s3cret" in content for content in stored)


def test_requests_keep_the_pace_that_was_asked_for() -> None:
    with Peer(series(1), value) as peer, Prometheus(Access(peer.url, requests_per_second=20.0)) as prometheus:
        begun = time.monotonic()
        for _ in range(5):
            prometheus.data("/api/v1/metadata")
        assert time.monotonic() - begun >= 4 / 20


@pytest.mark.parametrize(
    ("fault", "error", "text"),
    [
        (Fault("status", 401, body=b"no"), PrometheusError, "--token-file"),
        (Fault("status", 404, body=b"no"), PrometheusError, "is a path missing"),
        (Fault("status", 302, {"Location": "/login"}), PrometheusError, "/login"),
        (
            Fault("status", 400, body=b'{"status":"error","errorType":"bad_data","error":"parse"}'),
            PrometheusError,
            "parse",
        ),
        (Fault("status", 413), TooMuch, "unavailable"),
    ],
)
def test_refusals_that_asking_again_cannot_change_are_said_at_once(
    fault: Fault, error: type[Exception], text: str
) -> None:
    with Peer(series(1), value, faults=[fault]) as peer, Prometheus(Access(peer.url)) as prometheus:
        with pytest.raises(error, match=text):
            prometheus.query_range("x", 0, 60, 60)
        assert len(peer.requests) == 1


def test_a_server_that_is_not_there_is_named() -> None:
    access = Access("http://127.0.0.1:1", attempts=2, requests_per_second=1000)
    with (
        Prometheus(access) as prometheus,
        pytest.raises(PrometheusError, match=r"http://127\.0\.0\.1:1/api/v1/metadata"),
    ):
        prometheus.data("/api/v1/metadata")


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None), ("7", 7.0), ("0.5", 0.5), ("-3", 0.0), ("99999", 300.0), ("soon", None), ("nan", None),
        ("Thu, 01 Jan 1970 00:01:40 GMT", 90.0),
    ],
)  # fmt: skip
def test_retry_after_is_understood_in_both_forms_and_bounded(header: str | None, seconds: float | None) -> None:
    assert retry_after(header, 10.0) == seconds


def test_addresses_with_passwords_are_refused() -> None:
    assert checked_url("prom:9090/") == "http://prom:9090"
    assert checked_url("https://x/prometheus/") == "https://x/prometheus"
    for text in ("http://user:pw@prom:9090", "ftp://x", "http://", "http://x?a=b"):
        with pytest.raises(PrometheusError):
            checked_url(text)


def test_an_empty_prometheus_is_said_so(tmp_path: Path) -> None:
    with Peer([], value) as peer, pytest.raises(PrometheusError, match="has no series"):
        import_all(options(peer), settings_of(tmp_path))


def test_looking_without_fetching_needs_an_import_that_is_complete(tmp_path: Path) -> None:
    made = settings_of(tmp_path)
    with Peer(series(1), value) as peer:
        with pytest.raises(NothingImported, match="without --no-fetch"):
            import_all(options(peer, fetch=False), made)
        import_all(options(peer), made)
        before = len(peer.answered)
        outcome = import_all(options(peer, fetch=False), made, NOW + 86_400)
        assert len(peer.answered) == before
    assert outcome.imported.end == NOW - HOUR


def test_two_imports_of_the_same_do_not_meet(tmp_path: Path) -> None:
    made = settings_of(tmp_path)
    with Peer(series(1), value) as peer:
        asked = options(peer)
        with Journal(made.paths.root / "shadow", asked.shadow_id, asked.question), pytest.raises(JournalBusy):
            import_all(asked, made)


def test_a_damaged_journal_is_named(tmp_path: Path) -> None:
    made = settings_of(tmp_path)
    with Peer(series(1), value) as peer:
        asked = options(peer)
        import_all(asked, made)
        path = made.paths.root / "shadow" / asked.shadow_id / "done.jsonl"
        path.write_bytes(b"nonsense\n" + path.read_bytes())
        with pytest.raises(JournalDamaged, match=r"done\.jsonl:1"):
            import_all(asked, made)


def test_the_lake_stands_in_for_segments_that_are_gone(tmp_path: Path) -> None:
    from aiops_assets.lake.tables import Lake, TableWriter
    from aiops_assets.tables import METRIC_POINTS, SERIES
    from aiops_assets.telemetry.series import series_ids

    made = settings_of(tmp_path)
    with Peer(series(2), value) as peer:
        asked = options(peer, days=0.5)
        import_all(asked, made)
    found = deliveries(made)
    parsed = parse("prometheus_range", found)
    described = parsed.series.with_columns(
        pl.Series("series_id", series_ids(parsed.series)),
        pl.lit("prometheus").alias("source"),
        pl.lit(0).cast(pl.Datetime("us", "UTC")).alias("first_seen"),
    )
    lake = Lake(made.paths.lake)
    TableWriter(lake, SERIES).append(described.select(list(SERIES.schema)), {})
    points = parsed.points.join(described.with_row_index("series"), on="series").with_columns(
        pl.col("ts").cast(pl.Datetime("us", "UTC")),
        pl.lit(0).cast(pl.Datetime("us", "UTC")).alias("received_at"),
        pl.lit("ingest").alias("writer"),
        pl.lit(1).alias("seq"),
    )
    points = points.with_columns(pl.col("ts").dt.strftime("%Y-%m-%dT%H").alias("hour"))
    TableWriter(lake, METRIC_POINTS).append(points.select(list(METRIC_POINTS.schema)), {"ingest": 1})

    def read() -> list[tuple[str, int, float]]:
        with Journal(made.paths.root / "shadow", asked.shadow_id, asked.question) as journal:
            directory = SeriesDirectory()
            windows = list(shadow_run.history.windows(journal, made.paths.landing, made.paths.lake, directory))
        names = (directory.frame["host"] + directory.frame["metric"]).to_list()
        rows = [(w.number.tolist(), w.ts.tolist(), w.value.tolist()) for w in windows]
        flat = [(names[n], ts, v) for numbers, at, values in rows for n, ts, v in zip(numbers, at, values, strict=True)]
        return sorted(flat)

    from_landing = read()
    for path in (made.paths.landing / "ingest").glob("*.seg"):
        path.unlink()
    assert read() == from_landing
    assert len(from_landing) == len(expected(peer, *grid(0.5, 60), 60))
