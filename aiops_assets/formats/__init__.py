"""Bytes to rows: one module a wire format, pure and vectorised.

What belongs here: parsers that take deliveries and return a ``Parsed`` batch, and the mapping of senders' names to
canonical metric names. What does not: where bytes come from (``gateway``, ``collectors``) and where rows go (``live``).

A parser never raises on what a delivery holds. Every delivery gives points, changes or entities, or else a ``Reject``;
one bad line, metric or item is rejected alone, and a delivery that gives nothing at all is rejected whole, as it
arrived. Within a delivery points keep the order of the payload. Names with control characters, and hosts, metrics and
labels longer than 1,024 characters, are rejected, never altered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aiops_assets.config import Reading
    from aiops_assets.formats.batch import Parsed
    from aiops_assets.landing.segment import Delivery

#: format name → module with ``parse(deliveries) -> Parsed``, imported when first needed
_MODULES = {
    "telegraf": "telegraf",
    "generic": "generic_json",
    "collected": "collected",
    "prometheus_range": "prometheus_range",
    "remote_write": "remote_write",
    "otlp_metrics": "otlp_metrics",
    "otlp_logs": "otlp_logs",
    "otlp_traces": "otlp_traces",
    "collectd": "collectd",
    "netdata": "netdata",
    "alertmanager": "alertmanager",
    "grafana": "grafana",
    "datadog": "datadog",
    "cloudevents": "cloudevents",
    "redfish_event": "redfish_event",
    "redfish_log": "redfish_log",
    "sentry": "sentry",
    "sentry_envelope": "sentry_envelope",
    "hec": "hec",
    "hec_raw": "hec_raw",
    "json_lines": "json_lines",
    "elastic_bulk": "elastic_bulk",
    "journal": "journal",
    "syslog": "syslog",
    "text": "text",
    "snmp_trap": "snmp_trap",
    "datadog_api": "datadog_api",
    "splunk_export": "splunk_export",
    "thousandeyes": "thousandeyes",
    "servicenow": "servicenow",
    "documents": "documents",
    "rows": "rows",
}


def parser(format_name: str) -> Callable[[Sequence[Delivery]], Parsed]:
    """The parser of a format.

    Raises:
        KeyError: no format has this name.
    """
    module = import_module(f"{__name__}.{_MODULES[format_name]}")
    parse_: Callable[[Sequence[Delivery]], Parsed] = module.parse
    return parse_


def _lazy(format_name: str) -> Callable[[Sequence[Delivery]], Parsed]:
    def parse_(deliveries: Sequence[Delivery]) -> Parsed:
        return parser(format_name)(deliveries)

    return parse_


FORMATS: Mapping[str, Callable[[Sequence[Delivery]], Parsed]] = {name: _lazy(name) for name in _MODULES}


def parse(format_name: str, deliveries: Sequence[Delivery], readings: Sequence[Reading] = ()) -> Parsed:
    """Read deliveries of one format; with an unknown format every delivery is rejected whole.

    Generic JSON of a source for which ``aiops.yaml`` declares ``readings`` is read by those.
    """
    if readings and format_name == "generic":
        from aiops_assets.formats.mapped import parse as parse_mapped

        return parse_mapped(deliveries, readings)
    if format_name in FORMATS:
        return FORMATS[format_name](deliveries)
    from aiops_assets.formats.batch import Parsed, Reject

    reason = f"unknown format {format_name[:64]!r}; allowed: {', '.join(FORMATS)}"
    return Parsed(rejects=[Reject(index, 0, reason, delivery.body) for index, delivery in enumerate(deliveries)])
