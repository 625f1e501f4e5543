"""What the gateway counts about itself.

What belongs here: plain numbers, cheap enough for every request, and their samples for the catalogue. What does not:
names and help (``observability.metrics``).
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter

from aiops_assets.observability.metrics import Histogram, Sample

#: upper bounds of the acknowledgement time, seconds
BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
#: distinct (source, format) pairs that get figures of their own; the rest is counted as source "other"
MAX_LABELS = 1000


class Counters:
    """Counts since the process started; used from the event loop only."""

    def __init__(self) -> None:
        self.deliveries: dict[tuple[str, str], list[int]] = {}
        self.refused: Counter[str] = Counter()
        self.buckets = [0] * (len(BOUNDS) + 1)
        self.seconds = 0.0
        self.in_flight_bytes = 0

    def accepted(self, source: str, format_name: str, size: int, seconds: float) -> None:
        """Count one durable delivery of ``size`` body bytes, acknowledged after ``seconds``."""
        entry = self.deliveries.get((source, format_name))
        if entry is None:
            labels = (source, format_name) if len(self.deliveries) < MAX_LABELS else ("other", format_name)
            entry = self.deliveries.setdefault(labels, [0, 0])
        entry[0] += 1
        entry[1] += size
        self.buckets[bisect_left(BOUNDS, seconds)] += 1
        self.seconds += seconds

    def samples(self, connections: int) -> list[Sample | Histogram]:
        """Everything counted, for exposition."""
        samples: list[Sample | Histogram] = []
        for labels, (count, size) in self.deliveries.items():
            samples.append(Sample("aiops_gateway_deliveries_total", count, labels))
            samples.append(Sample("aiops_gateway_body_bytes_total", size, labels))
        samples += [Sample("aiops_gateway_refused_total", count, (reason,)) for reason, count in self.refused.items()]
        samples += [
            Histogram("aiops_gateway_acknowledge_seconds", BOUNDS, self.buckets, self.seconds),
            Sample("aiops_gateway_in_flight_bytes", self.in_flight_bytes),
            Sample("aiops_gateway_connections", connections),
        ]
        return samples
