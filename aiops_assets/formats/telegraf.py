"""What Telegraf's ``outputs.http`` sends: line protocol or JSON, told apart delivery by delivery.

What belongs here: the choice of the parser. The content type is set by hand and often missing or wrong, so the first
byte decides: a body that begins with a brace or bracket and is JSON is JSON, everything else is line protocol.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from aiops_assets.formats.batch import Parsed
from aiops_assets.formats.columns import joined
from aiops_assets.formats.line_protocol import BadLine, LineReader, scan_line
from aiops_assets.formats.payload import Rejects, UnreadableBody, unpacked
from aiops_assets.formats.telegraf_json import JsonReader
from aiops_assets.landing.segment import Delivery


def parse(deliveries: Sequence[Delivery]) -> Parsed:
    """Read deliveries of either kind. Never raises on their content: what cannot be read is in ``rejects``."""
    rejects = Rejects()
    lines, json = LineReader(rejects), JsonReader(rejects)
    for index, delivery in enumerate(deliveries):
        try:
            body = delivery.body
            if body[:2] == b'{"' and not delivery.headers.get("content-encoding"):
                json.feed(index, delivery, body)
                continue
            body = unpacked(delivery)
            if looks_like_json(body):
                json.feed(index, delivery, body)
            else:
                lines.feed(index, delivery, body)
        except UnreadableBody as error:
            rejects.add(index, 0, str(error), delivery.body)
    series, points = joined([lines.finish(), json.finish()])
    logs = pl.concat([lines.texts.frame(), json.texts.frame()]).sort("delivery", maintain_order=True)
    productive = set(points.get_column("delivery").unique().to_list()) | set(logs.get_column("delivery").to_list())
    return Parsed(series, points, logs=logs, rejects=rejects.finish(deliveries, productive))


def looks_like_json(body: bytes) -> bool:
    """Whether a body begins like JSON and its first line is not line protocol (where a name may begin with a brace)."""
    start = body[:256].lstrip()
    if start[:1] not in {b"{", b"["}:
        return False
    if len(start) > 1 and start[1:].lstrip()[:1] in {b'"', b"{", b"[", b"]", b"}", b""}:
        return True
    try:
        return scan_line(body.split(b"\n", 1)[0][:65_536].decode()) is None
    except (BadLine, UnicodeDecodeError):
        return True
