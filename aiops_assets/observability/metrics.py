"""The one catalogue of metric names, and how samples become a Prometheus page.

What belongs here: every name the platform exposes, with its help and labels, and the exposition in text format 0.0.4
or OpenMetrics 1.0. What does not: where values come from (``readings``, the gateway's counters).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.exposition import choose_encoder


@dataclass(frozen=True, slots=True)
class Metric:
    """One name of the catalogue. Names carry their unit (seconds, bytes) as Prometheus prescribes."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    description: str
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sample:
    """A value of a catalogue name; ``labels`` are in the catalogue's order."""

    name: str
    value: float
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Histogram:
    """A distribution: ``counts`` has one entry a bucket (not cumulative) and a last one beyond the last bound."""

    name: str
    bounds: Sequence[float]
    counts: Sequence[int]
    total: float


CATALOGUE: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        # gateway
        Metric("aiops_gateway_deliveries_total", "counter", "deliveries accepted, durable", ("source", "format")),
        Metric("aiops_gateway_body_bytes_total", "counter", "body bytes accepted, as they came", ("source", "format")),
        Metric("aiops_gateway_refused_total", "counter", "requests refused, by reason", ("reason",)),
        Metric(
            "aiops_gateway_acknowledge_seconds", "histogram", "from the body's last byte to its durable place on disk"
        ),
        Metric("aiops_gateway_in_flight_bytes", "gauge", "body bytes received and not yet durable"),
        Metric("aiops_gateway_connections", "gauge", "open connections"),
        # landing
        Metric("aiops_landing_backlog_bytes", "gauge", "sealed bytes that no session has taken yet"),
        Metric("aiops_landing_backlog_segments", "gauge", "sealed segments that no session has taken yet"),
        Metric("aiops_landing_backlog_age_seconds", "gauge", "age of the oldest segment that waits, 0 when none does"),
        Metric("aiops_landing_free_bytes", "gauge", "room left on the landing zone's file system"),
        # live session
        Metric("aiops_live_updated_timestamp_seconds", "gauge", "when a live session last said something"),
        Metric("aiops_live_batches_total", "counter", "micro-batches committed by the present session"),
        Metric("aiops_live_series", "gauge", "series known"),
        Metric("aiops_live_watermark_timestamp_seconds", "gauge", "event time reached"),
        Metric(
            "aiops_live_lag_seconds", "gauge", "from acceptance to commit of the newest batch, by stage", ("stage",)
        ),
        Metric("aiops_live_taken_segment", "gauge", "last segment taken, by landing writer", ("writer",)),
        Metric("aiops_live_open_alerts", "gauge", "alerts firing now"),
        Metric("aiops_live_hours_closed_total", "counter", "hours closed by the present session"),
        Metric("aiops_live_problems", "gauge", "problems that need a person, see aiops status"),
        # sources
        Metric("aiops_source_deliveries_total", "counter", "deliveries taken into the lake", ("source",)),
        Metric("aiops_source_points_total", "counter", "points stored", ("source",)),
        Metric(
            "aiops_source_duplicates_total", "counter", "points that were already stored with this value", ("source",)
        ),
        Metric(
            "aiops_source_conflicts_total", "counter", "points that differ from the one already stored", ("source",)
        ),
        Metric("aiops_source_quarantined_total", "counter", "pieces of input in quarantine", ("source",)),
        Metric("aiops_source_refused_series_total", "counter", "series refused above the source's limit", ("source",)),
        Metric("aiops_source_late_total", "counter", "points for hours that were already closed", ("source",)),
        Metric("aiops_source_points_per_second", "gauge", "points stored a second, over the last minute", ("source",)),
        Metric("aiops_source_last_received_timestamp_seconds", "gauge", "newest delivery taken", ("source",)),
        Metric("aiops_source_last_event_timestamp_seconds", "gauge", "newest event time stored", ("source",)),
        # collector
        Metric("aiops_collector_updated_timestamp_seconds", "gauge", "when the collector last said something"),
        Metric("aiops_collector_device_up", "gauge", "1 when the last poll of the device succeeded", ("device",)),
        Metric("aiops_collector_poll_seconds", "gauge", "duration of the last poll", ("device",)),
        Metric("aiops_collector_poll_points", "gauge", "points of the last poll", ("device",)),
        Metric("aiops_collector_slow", "gauge", "1 when the device is slower than its deadline", ("device",)),
        Metric("aiops_collector_skipped_total", "counter", "polls skipped because one was still running", ("device",)),
        # incidents
        Metric("aiops_incidents", "gauge", "incidents, by state", ("state",)),
        # lake
        Metric("aiops_table_rows", "gauge", "rows of a table", ("table",)),
        Metric("aiops_table_bytes", "gauge", "size of a table's live files", ("table",)),
        Metric("aiops_table_files", "gauge", "live files of a table", ("table",)),
        Metric("aiops_table_version", "gauge", "Delta version of a table", ("table",)),
    )
}


def families(samples: Iterable[Sample | Histogram]) -> list[Family]:
    """Samples grouped into Prometheus families, in the catalogue's order.

    Raises:
        KeyError: for a name that the catalogue does not have.
    """
    grouped: dict[str, list[Sample | Histogram]] = {}
    for sample in samples:
        grouped.setdefault(CATALOGUE[sample.name].name, []).append(sample)
    return [_family(metric, grouped[name]) for name, metric in CATALOGUE.items() if name in grouped]


def _family(metric: Metric, samples: list[Sample | Histogram]) -> Family:
    family: CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily
    if metric.kind == "histogram":
        family = HistogramMetricFamily(metric.name, metric.description)
        for sample in samples:
            if isinstance(sample, Histogram):
                family.add_metric([], _cumulative(sample), sample.total)
        return family
    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family = kind(metric.name, metric.description, labels=metric.labels)
    for sample in samples:
        if isinstance(sample, Sample):
            family.add_metric(sample.labels, sample.value)
    return family


def _cumulative(histogram: Histogram) -> list[tuple[str, float]]:
    buckets: list[tuple[str, float]] = []
    seen = 0
    for bound, count in zip((*histogram.bounds, float("inf")), histogram.counts, strict=True):
        seen += count
        buckets.append(("+Inf" if bound == float("inf") else repr(float(bound)), float(seen)))
    return buckets


class _Samples:
    """A registry's collector of samples that were taken beforehand."""

    def __init__(self, samples: Iterable[Sample | Histogram]) -> None:
        self._families = families(samples)

    def collect(self) -> list[Family]:
        return self._families


def exposition(samples: Iterable[Sample | Histogram], accept: str) -> tuple[bytes, str]:
    """(page, content type): samples and this process's own figures, in the format the ``Accept`` header asks for."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Samples(samples))
    ProcessCollector(registry=registry)
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type
