"""Many records in one delivery: how listeners and followers of files put them together, and how they come apart again.

What belongs here: the container of records and the table of records that formats of lines start from. What does not:
the meaning of a record (``syslog``, ``text``, ``json_lines``).

A body holds one record a line. The header ``framing`` says what stands before each:

- absent: nothing, a plain text body as anybody may send it;
- ``records``: the byte offset in the file and a blank; the header ``file`` identifies the file, and both together the
  record, so that what is read again has the same ``event_id``;
- ``peers``: microseconds since the epoch (UTC) at which the message came, a blank, the sender's address, a blank.

In the last two a line feed inside a record is written as NUL ``n`` and a NUL as NUL ``0``. Bytes that are no UTF-8 are
read as Latin-1, those of a character that was cut off at the end are shown as ``\\xNN``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import polars as pl

from aiops_assets.formats.payload import Rejects, UnreadableBody, unpacked
from aiops_assets.landing.segment import Delivery

FRAMING, FILE = "framing", "file"
RECORDS, PEERS = "records", "peers"
#: ``delivery`` index, ``received`` microseconds (UTC), ``peer`` address or null, ``event_id`` or null, ``text``
SCHEMA: dict[str, pl.DataType] = {
    "delivery": pl.UInt32(),
    "received": pl.Int64(),
    "peer": pl.String(),
    "event_id": pl.String(),
    "text": pl.String(),
}


def escaped(record: bytes) -> bytes:
    """A record without line feeds."""
    if b"\0" in record:
        record = record.replace(b"\0", b"\x000")
    return record.replace(b"\n", b"\0n")


def unescaped(record: bytes) -> bytes:
    """What ``escaped`` was given."""
    return record.replace(b"\0n", b"\n").replace(b"\x000", b"\0") if b"\0" in record else record


def numbered(records: Iterable[tuple[int, bytes]]) -> bytes:
    """A body with framing ``records``: (offset in the file, record)."""
    return b"".join(b"%d %s\n" % (offset, escaped(record)) for offset, record in records)


def addressed(messages: Iterable[tuple[int, str, bytes]]) -> bytes:
    """A body with framing ``peers``: (microseconds, address of the sender, message)."""
    return b"".join(b"%d %s %s\n" % (at, peer.encode(), escaped(message)) for at, peer, message in messages)


def text_of(record: bytes) -> str:
    """A record as text, whatever its bytes are."""
    try:
        return record.decode()
    except UnicodeDecodeError as error:
        if error.reason == "unexpected end of data":
            return record.decode("utf-8", "backslashreplace")
        return record.decode("latin-1")


def _whole_text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError:
        return "\n".join(text_of(line) for line in body.split(b"\n"))


def records(deliveries: Sequence[Delivery], rejects: Rejects) -> pl.DataFrame:
    """Every record that is not blank, in order (``SCHEMA``). Unreadable bodies are added to ``rejects``."""
    parts = []
    for framing in ("", RECORDS, PEERS):
        chosen = [index for index, delivery in enumerate(deliveries) if _framing(delivery) == framing]
        if chosen:
            parts.append(_of_one_framing(deliveries, chosen, framing, rejects))
    if not parts:
        return pl.DataFrame(schema=SCHEMA)
    return parts[0] if len(parts) == 1 else pl.concat(parts).sort("delivery", maintain_order=True)


def _framing(delivery: Delivery) -> str:
    framing = delivery.headers.get(FRAMING, "")
    return framing if framing in {RECORDS, PEERS} else ""


def _of_one_framing(
    deliveries: Sequence[Delivery], chosen: Sequence[int], framing: str, rejects: Rejects
) -> pl.DataFrame:
    bodies: list[bytes] = []
    indices: list[int] = []
    for index in chosen:
        try:
            bodies.append(unpacked(deliveries[index]))
        except UnreadableBody as error:
            rejects.add(index, 0, str(error), deliveries[index].body)
        else:
            indices.append(index)
    texts = pl.Series([_whole_text(body) for body in bodies], dtype=pl.String)
    lines = texts.str.split("\n")
    delivery = np.repeat(np.array(indices, dtype=np.uint32), lines.list.len().to_numpy())
    text = lines.explode()
    received = np.array([one.received_at for one in deliveries], dtype=np.int64)[delivery]
    frame = pl.DataFrame({"delivery": delivery, "received": received, "text": text}).filter(pl.col("text") != "")
    if framing == PEERS:
        frame = _with_peers(frame)
    elif framing == RECORDS:
        frame = _with_identifiers(frame, [one.headers.get(FILE, "") for one in deliveries])
    else:
        frame = frame.with_columns(peer=pl.lit(None, pl.String), event_id=pl.lit(None, pl.String))
    if framing and any(b"\0" in body for body in bodies):
        plain = pl.col("text").str.replace_all("\0n", "\n", literal=True).str.replace_all("\x000", "\0", literal=True)
        frame = frame.with_columns(plain)
    if framing == RECORDS:
        # How many lines were joined may depend on when they were read.
        several = pl.col("text").str.contains("\n", literal=True)
        longer = pl.concat_str("event_id", pl.lit("+"), pl.col("text").str.len_bytes())
        frame = frame.with_columns(pl.when(several).then(longer).otherwise("event_id").alias("event_id"))
    frame = frame.with_columns(pl.col("text").str.strip_chars_end("\r\n\0"))
    return frame.filter(pl.col("text").str.strip_chars() != "").select(list(SCHEMA))


def _with_peers(frame: pl.DataFrame) -> pl.DataFrame:
    parts = frame["text"].str.splitn(" ", 3).struct.unnest()
    at = parts["field_0"].cast(pl.Int64, strict=False)
    whole = at.is_not_null() & parts["field_2"].is_not_null()
    split = frame.with_columns(at=at, peer=parts["field_1"], rest=parts["field_2"])
    if not whole.all():
        # Somebody else's container: what has no head is a record all the same.
        split = split.with_columns(
            at=pl.when(whole).then("at"), peer=pl.when(whole).then("peer"), rest=pl.when(whole).then("rest")
        ).with_columns(rest=pl.coalesce("rest", "text"))
    return split.select(
        "delivery",
        pl.coalesce("at", "received").alias("received"),
        "peer",
        pl.lit(None, pl.String).alias("event_id"),
        pl.col("rest").alias("text"),
    )


def _with_identifiers(frame: pl.DataFrame, files: Sequence[str]) -> pl.DataFrame:
    parts = frame["text"].str.splitn(" ", 2).struct.unnest()
    offset = parts["field_0"].cast(pl.Int64, strict=False)
    whole = offset.is_not_null() & parts["field_1"].is_not_null()
    file = pl.Series([name or None for name in files], dtype=pl.String)[frame["delivery"]]
    return frame.with_columns(file=file, offset=parts["field_0"], rest=parts["field_1"], whole=whole).select(
        "delivery",
        "received",
        pl.lit(None, pl.String).alias("peer"),
        pl.when("whole").then(pl.concat_str("file", "offset", separator="-")).alias("event_id"),
        pl.when("whole").then("rest").otherwise("text").alias("text"),
    )
