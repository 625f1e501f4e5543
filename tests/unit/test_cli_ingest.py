"""Importing files: cut at record borders, nothing lost, durable in the landing zone."""

from __future__ import annotations

import gzip
import io
import json
import sys
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from typer.testing import CliRunner

from aiops_assets.cli import app
from aiops_assets.cli.ingest import csv_instant, csv_pieces, free_writer, json_pieces, line_pieces, recognise
from aiops_assets.cli.output import Problem
from aiops_assets.formats import parse
from aiops_assets.landing.reader import read_segment
from aiops_assets.landing.segment import Delivery
from aiops_assets.settings import Settings

LINES = st.lists(st.binary(max_size=60).map(lambda line: line.replace(b"\n", b"")), max_size=40)


@given(LINES, st.integers(1, 80), st.booleans())
def test_line_pieces_hold_every_byte_and_cut_only_at_line_ends(lines: list[bytes], limit: int, ends: bool) -> None:
    text = b"\n".join(lines) + (b"\n" if ends else b"")
    pieces = list(line_pieces(io.BytesIO(text), limit))
    assert b"".join(pieces).rstrip() == text.rstrip()
    assert all(piece.endswith(b"\n") for piece in pieces[:-1])
    for piece in pieces:
        assert len(piece) <= limit or piece.rstrip(b"\n").count(b"\n") == 0


JSON = st.recursive(st.integers(-5, 5) | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3), max_leaves=4)
RECORDS = st.lists(st.dictionaries(st.sampled_from("abc"), JSON, min_size=1), min_size=1, max_size=20)


@given(RECORDS, st.integers(20, 200), st.sampled_from(["lines", "array", "indented"]))
def test_json_pieces_hold_every_record_in_order(records: list[dict[str, object]], limit: int, shape: str) -> None:
    if shape == "lines":
        text = "\n".join(json.dumps(record) for record in records)
    else:
        text = json.dumps(records, indent=1 if shape == "indented" else None)
    pieces = [orjson.loads(piece) for piece in json_pieces(io.BytesIO(text.encode()), limit)]
    assert [record for piece in pieces for record in piece] == records
    assert all(len(piece) == 1 or len(orjson.dumps(piece)) <= limit for piece in pieces)


def test_a_telegraf_batch_document_is_taken_apart() -> None:
    text = json.dumps({"metrics": [{"name": "a", "fields": {"v": n}} for n in range(3)]})
    assert [len(orjson.loads(piece)) for piece in json_pieces(io.BytesIO(text.encode()))] == [3]


def test_csv_becomes_one_series_with_exact_instants() -> None:
    text = b"timestamp,value\n2014-02-14 14:30:00,0.132\n1392388500.25,0.134\n\n2014-02-14T15:40:00+01:00,1e3\n"
    (body,) = csv_pieces(io.BytesIO(text), "aws.cpu", "i-1")
    delivery = Delivery("d", 0, "cloudwatch", "application/json", body, {"format": "collected"})
    parsed = parse("collected", [delivery])
    assert parsed.series.select("host", "metric").rows() == [("i-1", "aws.cpu")]
    assert parsed.points["value"].to_list() == [0.132, 0.134, 1000.0]
    assert parsed.points["ts"].to_list() == [1392388200_000_000, 1392388500_250_000, 1392388800_000_000]
    assert not parsed.rejects


def test_a_bad_csv_row_is_named() -> None:
    with pytest.raises(Problem, match="row 3 is not timestamp,value"):
        list(csv_pieces(io.BytesIO(b"timestamp,value\n2014-02-14 14:30:00,1\nnonsense,1\n"), "m", "h"))


def test_csv_instants_without_a_zone_are_utc() -> None:
    assert (
        csv_instant("1970-01-01 00:00:01") == csv_instant("1") == csv_instant("1970-01-01T01:00:01+01:00") == 1_000_000
    )


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.lp", b"cpu,host=a v=1 1\n", ("lines", "telegraf")),
        ("a.csv", b"timestamp,value\n", ("csv", "collected")),
        ("a.csv.gz", gzip.compress(b"timestamp,value\n", mtime=0), ("csv", "collected")),
        ("a.json", b'{"metrics":[{"fields":{}}]}', ("json", "telegraf")),
        ("a.json", b' [{"host":"h","points":[]}]', ("json", "collected")),
        ("a.ndjson", b'{"host":"h","metric":"m","value":1}', ("json", "generic")),
    ],
)
def test_files_are_recognised_by_their_beginning(name: str, content: bytes, expected: tuple[str, str]) -> None:
    stream = io.BytesIO(content)
    assert recognise(stream, name, None) == expected
    assert stream.tell() == 0


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("AIOPS_HOME", str(tmp_path / "home"))
    made = Settings()
    made.paths.create()
    return made


def test_a_compressed_file_lands_as_history_of_its_source(settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "metrics.lp.gz"
    lines = [f"cpu,host=web-{n % 7} usage={n}i {1_700_000_000 + n}000000000" for n in range(60_000)]
    file.write_bytes(gzip.compress("\n".join(lines).encode()))
    result = CliRunner().invoke(app, ["ingest", str(file), "--source", "telegraf", "--json"])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    folder = settings.paths.landing / "ingest"
    deliveries = [d for seq in range(1, told["seq"] + 1) for d in read_segment(folder, seq).deliveries]
    assert len(deliveries) == told["deliveries"] > 1
    assert all(len(delivery.body) <= 1_000_000 for delivery in deliveries)
    assert {(d.source, d.headers["format"], d.headers["history"]) for d in deliveries} == {
        ("telegraf", "telegraf", "1")
    }
    assert b"".join(delivery.body for delivery in deliveries).decode().split("\n") == lines


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.lp", "a.json"])
def test_the_progress_bar_reaches_the_end(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    contents = {
        "a.csv": b"timestamp,value\n2014-02-14 14:30:00,1\n",
        "a.csv.gz": gzip.compress(b"timestamp,value\n2014-02-14 14:30:00,1\n"),
        "a.lp": b"cpu,host=a v=1 1\n",
        "a.json": b'{"host":"h","metric":"m","value":1}',
    }
    shown = io.StringIO()
    terminal = Console(file=shown, force_terminal=True, width=100)
    monkeypatch.setattr(sys.modules["aiops_assets.cli.ingest"], "console", lambda **_: terminal)
    (tmp_path / name).write_bytes(contents[name])
    result = CliRunner().invoke(app, ["ingest", str(tmp_path / name), "--source", "s"])
    assert result.exit_code == 0, result.output
    assert name in shown.getvalue()
    assert "of source s are durable" in shown.getvalue()


def test_imports_at_the_same_time_use_writers_of_their_own(settings: Settings) -> None:
    with free_writer(settings) as first, free_writer(settings) as second:
        assert (first.writer_id, second.writer_id) == ("ingest", "ingest-2")
    with free_writer(settings) as again:
        assert again.writer_id == "ingest"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere.lp", "--source", "telegraf"], "there is no such file"),
        (["{file}", "--source", "../../x"], "use lower-case letters"),
        (["{file}", "--source", "a", "--format", "xml"], "allowed are telegraf, generic, collected"),
    ],
)
def test_wrong_usage_is_told_with_exit_code_2(
    settings: Settings, tmp_path: Path, arguments: list[str], said: str
) -> None:
    file = tmp_path / "a.lp"
    file.write_text("cpu v=1")
    result = CliRunner().invoke(app, ["ingest", *(argument.format(file=file) for argument in arguments)])
    assert result.exit_code == 2
    assert said in result.stderr
