"""The sources there are: those that ship with the product and those that ``aiops.yaml`` adds.

To add a source write its format in ``formats``, if it needs one, an entry here (or under ``sources`` in aiops.yaml),
and in ``guides/<name>.md`` how to point a sender here. In guides GATEWAY stands for the gateway's address, SCHEME,
HOSTPORT, HOST and PORT for its parts, QUERY for what follows a path when the source has a name of its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import lru_cache
from importlib import resources
from urllib.parse import urlsplit

from aiops_assets.config import Config

_PLACE = re.compile(r"\b(?:GATEWAY|HOSTPORT|SCHEME|HOST|PORT)\b|QUERY\b")
_LATE = timedelta(minutes=15)
#: what tells only when something happens: logs, errors, alerts and the like
_HOUR, _DAY, _CALM = timedelta(hours=1), timedelta(days=1), timedelta(days=7)


_ANYTHING = frozenset({"metric_points", "log_events", "alerts", "changes", "entities"})
_POINTS = frozenset({"metric_points", "entities"})
_LOGS = frozenset({"log_events", "entities"})
_ALERTS = frozenset({"alerts", "log_events", "entities"})
#: format → tables that its rows go to
FEEDS: Mapping[str, frozenset[str]] = {
    "collected": _POINTS | {"changes"},
    "telegraf": _POINTS | _LOGS,
    "remote_write": _POINTS,
    "prometheus_range": _POINTS,
    "netdata": _POINTS,
    "collectd": _POINTS | _ALERTS,
    "otlp_metrics": _POINTS,
    "otlp_logs": _LOGS,
    "otlp_traces": frozenset({"spans", "entities"}),
    "alertmanager": _ALERTS,
    "grafana": _ALERTS,
    "datadog": _ALERTS | {"changes"},
    "sentry": _ALERTS | {"error_events"},
    "sentry_envelope": _POINTS | _ALERTS | {"error_events", "spans"},
    "cloudevents": _POINTS | _LOGS | {"changes"},
    "redfish_event": _POINTS | _ALERTS,
    "redfish_log": _LOGS,
    "hec": _POINTS | _LOGS,
    "hec_raw": _LOGS,
    "json_lines": _LOGS,
    "elastic_bulk": _LOGS,
    "journal": _LOGS,
    "syslog": _LOGS,
    "text": _LOGS,
    "snmp_trap": _ALERTS | {"changes"},
    "generic": _ANYTHING,
    "datadog_api": _POINTS | _LOGS,
    "splunk_export": _LOGS,
    "thousandeyes": _POINTS | _ALERTS,
    "servicenow": frozenset({"tickets", "documents", "changes", "entities"}),
    "documents": frozenset({"documents"}),
}


@dataclass(frozen=True, slots=True)
class SourceEntry:
    """One source. ``freshness`` is the age at which it is called late; ``None``: it comes when somebody asks for it.

    ``formats`` are the formats of its deliveries, the usual one first; ``kinds`` are tags in the asset graph;
    ``polled`` tells whether the collector fetches it.
    """

    name: str
    formats: tuple[str, ...]
    description: str
    freshness: timedelta | None = None
    kinds: tuple[str, ...] = ()
    polled: bool = False
    point_here: str = ""

    @property
    def feeds(self) -> frozenset[str]:
        """Tables that its deliveries can fill."""
        return frozenset().union(*(FEEDS.get(name, _ANYTHING) for name in self.formats))

    @property
    def format(self) -> str:
        """The usual format."""
        return self.formats[0]


SHIPPED: tuple[SourceEntry, ...] = (
    SourceEntry(
        "host",
        ("collected",),
        "The machine the platform runs on: processors, memory, filesystems, disks, network, processes.",
        timedelta(minutes=5),
        ("python",),
        polled=True,
    ),
    SourceEntry(
        "snmp",
        ("collected",),
        "Network devices and servers polled over SNMP v1, v2c and v3.",
        timedelta(minutes=10),
        ("snmp",),
        polled=True,
    ),
    SourceEntry(
        "redfish",
        ("collected", "redfish_log", "redfish_event"),
        "Servers over Redfish: temperatures, fans, power, voltages, drives, memory, event logs, events they push.",
        timedelta(minutes=15),
        ("redfish",),
        polled=True,
    ),
    SourceEntry(
        "snmp_trap",
        ("snmp_trap",),
        "SNMP traps and informs, v2c and v3: link changes, restarts and what vendors tell.",
        _CALM,
        ("snmp",),
    ),
    SourceEntry(
        "syslog",
        ("syslog",),
        "Syslog of programs and devices over UDP, TCP and TLS, RFC 3164 and RFC 5424.",
        _HOUR,
        ("syslog",),
    ),
    SourceEntry(
        "telegraf",
        ("telegraf",),
        "Metrics pushed by Telegraf agents, as line protocol or JSON.",
        _LATE,
        ("influxdb",),
    ),
    SourceEntry(
        "prometheus",
        ("remote_write", "prometheus_range"),
        "Metrics that a Prometheus writes here (remote write 1.0).",
        _LATE,
        ("prometheus",),
    ),
    SourceEntry(
        "otlp",
        ("otlp_metrics", "otlp_logs", "otlp_traces"),
        "Metrics, logs and traces of OpenTelemetry SDKs and collectors (OTLP/HTTP, protobuf or JSON).",
        _LATE,
        ("opentelemetry",),
    ),
    SourceEntry(
        "collectd",
        ("collectd",),
        "Metrics and notifications pushed by collectd (write_http).",
        _LATE,
        ("collectd",),
    ),
    SourceEntry(
        "netdata",
        ("netdata",),
        "Metrics pushed by Netdata's JSON exporter.",
        _LATE,
        ("netdata",),
    ),
    SourceEntry(
        "alertmanager",
        ("alertmanager",),
        "Alerts of a Prometheus Alertmanager (webhook version 4).",
        _CALM,
        ("prometheus",),
    ),
    SourceEntry("grafana", ("grafana",), "Alerts of Grafana (webhook contact point).", _CALM, ("grafana",)),
    SourceEntry(
        "datadog",
        ("datadog",),
        "Alerts and events of Datadog (webhook integration).",
        _CALM,
        ("datadog",),
    ),
    SourceEntry(
        "sentry",
        ("sentry_envelope", "sentry"),
        "Errors, messages, transactions and sessions of Sentry SDKs, and the webhooks of a Sentry integration.",
        _DAY,
        ("sentry",),
    ),
    SourceEntry(
        "cloudevents",
        ("cloudevents",),
        "CloudEvents 1.0, binary and structured: events, changes, and points where their data hold any.",
        _CALM,
        ("cloudevents",),
    ),
    SourceEntry(
        "hec",
        ("hec", "hec_raw"),
        "Events and metrics for a Splunk HTTP Event Collector, with acknowledgements.",
        _HOUR,
        ("splunk",),
    ),
    SourceEntry(
        "json_lines",
        ("json_lines",),
        "Log records as JSON: Fluent Bit, Vector, Filebeat and whatever else writes JSON lines.",
        _HOUR,
        ("json",),
    ),
    SourceEntry(
        "elastic",
        ("elastic_bulk",),
        "Log records for an Elasticsearch bulk interface: Filebeat, rsyslog, Fluentd.",
        _HOUR,
        ("elasticsearch",),
    ),
    SourceEntry(
        "journal",
        ("journal",),
        "Journals that systemd-journal-upload sends.",
        _HOUR,
        ("systemd",),
    ),
    SourceEntry(
        "generic",
        ("generic",),
        "Metrics, logs, alerts and changes pushed by anything that can send JSON over HTTP.",
        _LATE,
        ("json",),
    ),
    SourceEntry(
        "try",
        ("telegraf",),
        "Synthetic telemetry of `aiops try`, clearly marked; `aiops try --clean` removes every trace.",
        None,
        ("python",),
    ),
)
_PULLED: dict[str, tuple[tuple[str, ...], str]] = {
    "datadog": (("datadog_api",), "Metrics and logs fetched from Datadog."),
    "splunk": (("splunk_export",), "Results of searches exported from Splunk."),
    "thousandeyes": (("thousandeyes",), "Tests, results and alerts fetched from ThousandEyes."),
    "prometheus": (("prometheus_range",), "Series fetched from a Prometheus."),
    "servicenow": (("servicenow",), "Incidents, changes and knowledge articles fetched from ServiceNow."),
}


def entries(config: Config, gateway: str = "http://127.0.0.1:8787") -> tuple[SourceEntry, ...]:
    """All sources: the shipped ones with the freshness that aiops.yaml sets, then those it declares, by name.

    ``gateway`` is the address that senders are told to use.
    """
    found = [replace(entry, point_here=_addressed(guide(entry.name), gateway)) for entry in SHIPPED]
    found += _declared(config)
    names = {entry.name for entry in found}
    for name, source in sorted(config.sources.items()):
        if name not in names:
            how = source.format or "generic"
            text = guide(_source_of(how))
            found.append(
                SourceEntry(
                    name,
                    (how,),
                    f"Deliveries that name themselves `?source={name}` (aiops.yaml).",
                    timedelta(seconds=source.freshness),
                    (how,) if how != "collected" else (),
                    point_here=_addressed(text, gateway, name) or "Written to the landing zone by a collector.",
                )
            )
    return tuple(_with_freshness(entry, config) for entry in found)


@lru_cache
def guide(name: str) -> str:
    """How to point a sender here, as Markdown; "" where nothing is written."""
    path = resources.files("aiops_assets.sources").joinpath("guides", f"{name}.md")
    return path.read_text("utf-8").strip() if path.is_file() else ""


#: kinds of pulls and files that aiops.yaml can declare, as the documentation names them
_DECLARABLE = {
    "Datadog": "pull_datadog", "Splunk": "pull_splunk", "ThousandEyes": "pull_thousandeyes",
    "Prometheus": "pull_prometheus", "ServiceNow": "pull_servicenow", "Log files": "tail", "Document folders": "folder",
}  # fmt: skip


def documentation() -> str:
    """All that ships as a Markdown page: a row each, then how to point every sender here."""
    lines = [
        "# Sources",
        "",
        "Written by `aiops sources list --markdown`. The gateway is `http://127.0.0.1:8787` unless told otherwise; "
        "`<key>` stands for a key of `aiops keys create NAME --source SOURCE`.",
        "",
        "| source | formats | late after | goes to | what |",
        "| --- | --- | --- | --- | --- |",
    ]
    for entry in SHIPPED:
        late = _words(entry.freshness) if entry.freshness else "–"
        feeds = ", ".join(sorted(entry.feeds))
        lines.append(f"| {entry.name} | {', '.join(entry.formats)} | {late} | {feeds} | {entry.description} |")
    for entry in SHIPPED:
        lines += ["", f"## {entry.name}", "", _addressed(guide(entry.name), "http://127.0.0.1:8787")]
    for title, name in _DECLARABLE.items():
        lines += ["", f"## {title}, asked by the collector", "", guide(name)]
    return "\n".join(lines) + "\n"


def _words(age: timedelta) -> str:
    hours = age.total_seconds() / 3600
    return f"{hours * 60:.0f} min" if hours < 1 else f"{hours:.0f} h" if hours < 24 else f"{hours / 24:.0f} d"


def _declared(config: Config) -> list[SourceEntry]:
    """What the collector fetches because aiops.yaml says so."""
    found = []
    for pull in config.pull:
        formats, text = _PULLED[pull.kind]
        late = max(_LATE, 3 * timedelta(seconds=pull.interval))
        found.append(
            SourceEntry(
                pull.name,
                formats,
                f"{text} (`pull` in aiops.yaml)",
                late,
                (pull.kind,),
                True,
                guide(f"pull_{pull.kind}"),
            )
        )
    for tail in config.tail:
        text = f"Lines of {', '.join(tail.paths)} (`tail` in aiops.yaml)."
        found.append(SourceEntry(tail.name, (tail.format,), text, _LATE, ("file",), True, guide("tail")))
    for folder in config.folders:
        text = f"Documents in {folder.path} (`folders` in aiops.yaml)."
        found.append(SourceEntry(folder.name, ("documents",), text, _LATE, ("file",), True, guide("folder")))
    shipped = {entry.name for entry in SHIPPED}
    return [entry for entry in found if entry.name not in shipped]


def _with_freshness(entry: SourceEntry, config: Config) -> SourceEntry:
    own = config.sources.get(entry.name)
    if own is None or "freshness" not in own.model_fields_set:
        return entry
    return replace(entry, freshness=timedelta(seconds=own.freshness))


def _source_of(format_name: str) -> str:
    """The shipped source whose deliveries are written so."""
    return next((entry.name for entry in SHIPPED if format_name in entry.formats and not entry.polled), "generic")


def _addressed(text: str, gateway: str, source: str = "") -> str:
    at = urlsplit(gateway)
    stands = {
        "GATEWAY": gateway,
        "HOSTPORT": at.netloc,
        "SCHEME": at.scheme,
        "HOST": at.hostname or "",
        "PORT": str(at.port or {"https": 443}.get(at.scheme, 80)),
        "QUERY": f"?source={source}" if source else "",
    }
    return _PLACE.sub(lambda match: stands[match[0]], text)
