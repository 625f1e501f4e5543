"""What our own collectors write: JSON with one object a device and poll, canonical names throughout.

What belongs here: reading that shape, which anybody may write::

    {"host": "web-1", "ts": 1760000000000000,
     "points": [{"metric": "system.cpu.utilization", "value": 0.4, "unit": "1", "kind": "gauge",
                 "labels": {"cpu": "0"}, "ts": 1760000000000000}],
     "entity": {"kind": "device", "site": "x", "labels": {}, "depends_on": []},
     "changes": [{"ts": 1760000000000000, "kind": "reboot", "title": "…", "details": {}}]}

or an array of such objects. ``ts`` is always microseconds since the epoch (UTC); a point without one takes that of its
object, an object without one the time of acceptance. Only ``host`` and a point's ``metric`` and ``value`` are needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aiops_assets.formats.batch import Parsed
from aiops_assets.formats.columns import PointColumns, number
from aiops_assets.formats.payload import Refused, Rejects, UnreadableBody, documents, json_bytes, plain_body
from aiops_assets.formats.records import Changes, Entities, checked_host
from aiops_assets.landing.segment import Delivery

_EXPECTED = 'expected {"host", "ts", "points": […]} or an array of them'


def parse(deliveries: Sequence[Delivery]) -> Parsed:
    """Read deliveries of collected JSON. Never raises on their content: what cannot be read is in ``rejects``."""
    reader = _Reader()
    for index, delivery in enumerate(deliveries):
        try:
            reader.feed(index, delivery)
        except UnreadableBody as error:
            reader.rejects.add(index, 0, str(error), delivery.body)
    series, points = reader.columns.finish()
    changes, entities = reader.changes.frame(), reader.entities.frame()
    return Parsed(series, points, changes, entities, reader.rejects.finish(deliveries, reader.productive))


class _Reader:
    def __init__(self) -> None:
        self.columns = PointColumns()
        self.changes = Changes()
        self.entities = Entities()
        self.rejects = Rejects()
        self.productive: set[int] = set()
        #: by host: a metric, or a metric with the names and values of its labels as sent → number of the series
        self._codes: dict[str, dict[Any, int]] = {}

    def feed(self, index: int, delivery: Delivery) -> None:
        body = plain_body(delivery.body)
        for offset, document in documents(index, body, self.rejects):
            items = document if isinstance(document, list) else [document]
            for position, item in enumerate(items):
                place = f"item {position + 1}: " if len(items) > 1 else ""
                try:
                    self._item(index, delivery.received_at, item, offset, place, body)
                except Refused as error:
                    self.rejects.add(index, offset, f"{place}{error}", json_bytes(item, body))
                if self.rejects.full(index):
                    break

    def _item(self, index: int, received_at: int, item: object, offset: int, place: str, body: bytes) -> None:
        if not isinstance(item, dict):
            raise Refused(_EXPECTED)
        host = checked_host(item.get("host"))
        stamp = item.get("ts")
        ts = received_at if stamp is None else _micros(stamp)
        points = item.get("points")
        changes = item.get("changes")
        entity = item.get("entity")
        for name, value in (("points", points), ("changes", changes)):
            if value is not None and not isinstance(value, list):
                raise Refused(f"{name}: expected an array")
        if entity is not None:
            try:
                self.entities.add(host, entity)
            except Refused as error:
                self.rejects.add(index, offset, f"{place}{error}", json_bytes({"host": host, "entity": entity}, body))
            else:
                self.productive.add(index)
        for change in changes or ():
            try:
                self.changes.add(index, host, _change_micros(change, ts), change)
            except Refused as error:
                content = json_bytes({"host": host, "ts": ts, "changes": [change]}, body)
                self.rejects.add(index, offset, f"{place}{error}", content)
                if self.rejects.full(index):
                    break
            else:
                self.productive.add(index)
        if points:
            self._points(index, host, ts, points, offset, place, body)
        elif points is None and not changes and entity is None:
            raise Refused(_EXPECTED)

    def _points(self, index: int, host: str, ts: int, points: list[Any], offset: int, place: str, body: bytes) -> None:
        columns, codes = self.columns, self._codes.setdefault(host, {})
        add_series, add_ts, add_value = columns.series.append, columns.ts.append, columns.value.append
        before = len(columns.ts)
        for point in points:
            try:
                labels = point.get("labels")
                code = codes.get((point["metric"], *labels, *labels.values()) if labels else point["metric"])
                value = point["value"]
                stamp = point.get("ts", ts)
                plain = (
                    code is not None
                    and (type(value) is int or (type(value) is float and value - value == 0.0))
                    and type(stamp) is int
                    and -(2**63) <= stamp < 2**63
                )
            except (TypeError, KeyError, AttributeError):
                plain = False
            if not plain:
                try:
                    code, stamp, value = self._careful(host, ts, point)
                except Refused as error:
                    content = json_bytes({"host": host, "ts": ts, "points": [point]}, body)
                    self.rejects.add(index, offset, f"{place}{error}", content)
                    if self.rejects.full(index):
                        break
                    continue
            add_series(code)  # type: ignore[arg-type]
            add_ts(stamp)
            add_value(value)
        added = len(columns.ts) - before
        if added:
            columns.delivery.extend([index] * added)
            self.productive.add(index)

    def _careful(self, host: str, ts: int, point: object) -> tuple[int, int, float]:
        """Series, microseconds and value of a point that is new, or not plainly valid."""
        if not isinstance(point, dict):
            raise Refused('points: expected {"metric", "value", …}')
        labels = point.get("labels")
        code = self.columns.code(host, point.get("metric"), point.get("unit"), point.get("kind"), labels)
        if not labels:
            self._codes[host][point["metric"]] = code
        elif all(type(value) is str for value in labels.values()):
            self._codes[host][point["metric"], *labels, *labels.values()] = code
        stamp = point.get("ts")
        return code, ts if stamp is None else _micros(stamp), number("value", point.get("value"))


def _change_micros(change: object, ts: int) -> int:
    stamp = change.get("ts") if isinstance(change, dict) else None
    return ts if stamp is None else _micros(stamp)


def _micros(stamp: object) -> int:
    if type(stamp) is not int or not -(2**63) <= stamp < 2**63:
        raise Refused("ts: expected microseconds since the epoch as an integer")
    return stamp
