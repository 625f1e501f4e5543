"""``aiops ingest``: a file into the landing zone, in deliveries small enough for a live session.

What belongs here: cutting files into deliveries at record borders, without ever holding a large file in memory. What a
record means is for ``formats``; what it becomes is for the live session, which treats the deliveries as any others.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from aiops_assets.cli.output import USAGE, Problem, console, duration, fail, load, plain, print_json, size

if TYPE_CHECKING:
    from aiops_assets.landing.segment import Delivery
    from aiops_assets.landing.writer import SegmentWriter
    from aiops_assets.settings import Settings

DELIVERY_BYTES = 1_000_000
_GZIP = b"\x1f\x8b"
_WRITERS = 16
#: JSON that is one document has to be read whole
_WHOLE_JSON_BYTES = 256 * 1024 * 1024
_APPEND_BYTES = 8 * 1024 * 1024


def ingest(
    file: Annotated[
        Path, typer.Argument(help="Line protocol, JSON, JSON lines or CSV (timestamp,value); .gz is fine.")
    ],
    source: Annotated[str, typer.Option(help="The source that the data belongs to.")],
    format_name: Annotated[
        str | None, typer.Option("--format", help="telegraf, generic or collected. Default: seen from the file.")
    ] = None,
    metric: Annotated[str | None, typer.Option(help="CSV: the metric's name. Default: the file's name.")] = None,
    host: Annotated[str | None, typer.Option(help="CSV: the host's name. Default: the source.")] = None,
    live: Annotated[
        bool, typer.Option("--live", help="Treat it as of now: alerts may page. Default: history.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Come back when the live session has stored it all.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The result as one JSON document.")] = False,
) -> None:
    """Import a file: durable in the landing zone when the command ends, in the tables as soon as a session takes it.

    Imported history fills tables and baselines and never pages anybody. A file that was imported before adds nothing.

    Examples:

      aiops ingest metrics.lp.gz --source telegraf

      aiops ingest ec2_cpu.csv --source cloudwatch --metric aws.ec2.cpu --host i-825cc2
    """
    from aiops_assets.landing.segment import is_name
    from aiops_assets.landing.writer import LandingFull

    settings = load()
    if not is_name(source):
        fail(f"source {source!r}: use lower-case letters, digits, '_', '.' and '-', at most 63", USAGE)
    if not file.is_file():
        fail(f"{file}: there is no such file", USAGE)
    settings.paths.create()
    begun = time.monotonic()
    with file.open("rb") as raw:
        kind, chosen = recognise(raw, file.name, format_name)
        if kind == "csv":
            name = metric or file.name.removesuffix(".gz").removesuffix(".csv")
            pieces = csv_pieces(_opened(raw), name, host or source)
        elif kind == "json":
            pieces = json_pieces(_opened(raw))
        else:
            pieces = line_pieces(_opened(raw))
        with free_writer(settings) as writer, _progress(file, raw, quiet=as_json) as advance:
            try:
                deliveries, written = land(pieces, writer, source, chosen, history=not live, advance=advance)
            except LandingFull as error:
                fail(f"{error}; what was taken so far stays, run the same command again when there is room")
            writer.seal()
            name, seq = writer.writer_id, writer.last_sealed
    seconds = time.monotonic() - begun
    result: dict[str, object] = {
        "file": str(file), "source": source, "format": chosen, "deliveries": deliveries, "bytes": written,
        "seconds": round(seconds, 3), "writer": name, "seq": seq,
    }  # fmt: skip
    if wait:
        result["stored_after_seconds"] = _wait_until_stored(settings, name, seq, quiet=as_json)
    if as_json:
        print_json(result)
        return
    console().print(
        f"{deliveries:,} deliveries ({size(written)}) of source {source} are durable after {duration(seconds)}"
        + ("" if wait else "; the live session stores them: aiops status")
    )


def recognise(raw: BinaryIO, name: str, format_name: str | None) -> tuple[str, str]:
    """(how the file is cut: ``lines``, ``json`` or ``csv``; the format of its deliveries). The file is rewound."""
    head = _opened(raw).read(4096).lstrip()
    raw.seek(0)
    if format_name not in {None, "telegraf", "generic", "collected"}:
        fail(f"format {format_name!r}: allowed are telegraf, generic, collected", USAGE)
    if head[:1] in {b"{", b"["}:
        if format_name is not None:
            return "json", format_name
        if b'"fields"' in head:
            return "json", "telegraf"
        return "json", "collected" if b'"points"' in head else "generic"
    if format_name is None and name.removesuffix(".gz").endswith(".csv"):
        return "csv", "collected"
    return "lines", format_name or "telegraf"


def _opened(raw: BinaryIO) -> BinaryIO:
    compressed = raw.read(2) == _GZIP
    raw.seek(0)
    return gzip.GzipFile(fileobj=raw) if compressed else raw  # type: ignore[return-value]


def line_pieces(stream: BinaryIO, limit: int = DELIVERY_BYTES) -> Iterator[bytes]:
    """Cut at line ends into pieces of at most ``limit`` bytes; a longer line is a piece of its own."""
    carry = b""
    while block := stream.read(limit):
        block = carry + block
        while len(block) > limit:
            end = block.rfind(b"\n", 0, limit) + 1 or block.find(b"\n", limit) + 1
            if not end:
                break
            yield block[:end]
            block = block[end:]
        carry = block
    if carry.strip():
        yield carry


def json_pieces(stream: BinaryIO, limit: int = DELIVERY_BYTES) -> Iterator[bytes]:
    """Cut JSON lines, or the elements of one JSON array, into arrays of at most ``limit`` bytes."""
    import orjson

    first = stream.readline()
    while first and not first.strip():
        first = stream.readline()
    try:
        document = orjson.loads(first)
    except orjson.JSONDecodeError:
        text = first + stream.read(_WHOLE_JSON_BYTES)
        if stream.read(1):
            fail(f"one JSON document of more than {size(_WHOLE_JSON_BYTES)}; write JSON lines instead")
        try:
            document = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            fail(f"not JSON: {error}")
        rest: Iterable[bytes] = ()
    else:
        rest = stream
    records = document if isinstance(document, list) else _batch(document)
    yield from _arrays(_chain((orjson.dumps(record) for record in records), rest), limit)


def _batch(document: object) -> list[object]:
    """The members of Telegraf's batch document ``{"metrics": […]}``, else the document as the only record."""
    if isinstance(document, dict) and isinstance(document.get("metrics"), list) and len(document) == 1:
        return list(document["metrics"])
    return [document]


def _chain(first: Iterable[bytes], rest: Iterable[bytes]) -> Iterator[bytes]:
    yield from first
    for line in rest:
        if stripped := line.strip():
            yield stripped


def _arrays(records: Iterable[bytes], limit: int) -> Iterator[bytes]:
    held: list[bytes] = []
    length = 0
    for record in records:
        if held and length + len(record) + 2 > limit:
            yield b"[" + b",".join(held) + b"]"
            held, length = [], 0
        held.append(record)
        length += len(record) + 1
    if held:
        yield b"[" + b",".join(held) + b"]"


def csv_pieces(stream: BinaryIO, metric: str, host: str, points: int = 20_000) -> Iterator[bytes]:
    """Turn ``timestamp,value`` rows into deliveries of one series.

    Timestamps are ISO 8601 (UTC unless they say otherwise) or seconds since the epoch. A first row that is not data is
    taken for a header; any other row that cannot be read ends the import with its number.
    """
    import orjson

    held: list[dict[str, object]] = []
    text = codecs.iterdecode(stream, "utf-8-sig", "replace")
    for number, row in enumerate(csv.reader(text), 1):
        if not row:
            continue
        try:
            point = {"metric": metric, "kind": "gauge", "ts": csv_instant(row[0]), "value": float(row[1])}
        except (ValueError, IndexError):
            if number == 1:
                continue
            fail(f"row {number} is not timestamp,value: {','.join(row)[:80]!r}")
        held.append(point)
        if len(held) >= points:
            yield orjson.dumps({"host": host, "points": held})
            held = []
    if held:
        yield orjson.dumps({"host": host, "points": held})


def csv_instant(text: str) -> int:
    """Microseconds since the epoch of a CSV timestamp."""
    from aiops_assets.hours import MICROS_PER_SECOND, micros

    try:
        return round(float(text) * MICROS_PER_SECOND)
    except ValueError:
        found = datetime.fromisoformat(text.strip())
        return micros(found.replace(tzinfo=UTC) if found.tzinfo is None else found)


def free_writer(settings: Settings, base: str = "ingest") -> SegmentWriter:
    """The first landing writer ``ingest``, ``ingest-2``, … that no other process uses."""
    from aiops_assets.landing.writer import SegmentWriter, WriterBusy

    for number in range(1, _WRITERS + 1):
        name = base if number == 1 else f"{base}-{number}"
        try:
            return SegmentWriter(
                settings.paths.landing,
                name,
                max_bytes=settings.segment_max_bytes,
                max_age_seconds=settings.segment_max_age_seconds,
            )
        except WriterBusy:
            continue
    raise Problem(f"{_WRITERS} imports are under way already; wait for one to end")


def land(
    pieces: Iterable[bytes],
    writer: SegmentWriter,
    source: str,
    format_name: str,
    *,
    history: bool,
    advance: Callable[[], None] = lambda: None,
) -> tuple[int, int]:
    """Append pieces as deliveries, several to one fsync; (number of deliveries, bytes)."""
    count = total = held_bytes = 0
    held: list[Delivery] = []
    for piece in pieces:
        held.append(delivery_of(piece, source, format_name, history=history))
        held_bytes += len(piece)
        if held_bytes >= _APPEND_BYTES:
            writer.append_deliveries(held)
            count, total = count + len(held), total + held_bytes
            held, held_bytes = [], 0
        advance()
    if held:
        writer.append_deliveries(held)
    return count + len(held), total + held_bytes


def delivery_of(body: bytes, source: str, format_name: str, *, history: bool) -> Delivery:
    """A delivery accepted now."""
    from ulid import ULID

    from aiops_assets.landing.segment import Delivery

    headers = {"format": format_name, **({"history": "1"} if history else {})}
    return Delivery(
        delivery_id=str(ULID()),
        received_at=time.time_ns() // 1000,
        source=source,
        content_type="text/plain" if format_name == "telegraf" and body[:1] not in b"[{" else "application/json",
        body=body,
        headers=headers,
    )


@contextmanager
def _progress(file: Path, raw: BinaryIO, *, quiet: bool) -> Iterator[Callable[[], None]]:
    """A bar over the bytes read from the file; the function it gives moves it. Silent when nobody watches."""
    out = console(stderr=True)
    if quiet or not out.is_terminal:
        yield lambda: None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=out) as bar:
        task = bar.add_task(plain(file.name), total=file.stat().st_size)
        yield lambda: bar.update(task, completed=raw.tell())


def _wait_until_stored(settings: Settings, writer: str, seq: int, *, quiet: bool) -> float:
    """Wait until a live session has taken a segment; says so when none is at work. Ctrl-C ends the wait only."""
    import threading

    from aiops_assets.live.lease import live_lease
    from aiops_assets.live.progress import read_progress

    home = settings.paths
    begun = time.monotonic()
    tick = threading.Event()
    told = quiet
    while read_progress(home.live).taken.get(writer, 0) < seq:
        if not told and time.monotonic() - begun > 10 and live_lease(home.live).holder() is None:
            console(stderr=True).print("no live session is at work yet; `aiops up` starts them")
            told = True
        tick.wait(0.2)
    return round(time.monotonic() - begun, 3)
