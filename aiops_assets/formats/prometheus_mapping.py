"""From the labels of a Prometheus series to host, canonical metric, unit, kind and labels.

What belongs here: the table of exporters' names and the rules for hosts, units and kinds. What does not: reading bytes.

A name that is not in the table stays as it is. All labels are kept as they are, so that two series of Prometheus are
never one series here; where several names become one metric, a label tells them apart (a series that has a label of
that name already keeps its own name).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from aiops_assets.formats.batch import labels_json
from aiops_assets.formats.columns import checked_texts
from aiops_assets.formats.payload import Refused, name_problem
from aiops_assets.formats.prometheus_range import kind_of, unit_of, without_port

#: labels that name the host, in this order; ``instance`` without its port
HOST_LABELS = ("instance", "host", "hostname", "nodename", "node", "job")
NO_HOST = "prometheus"
#: labels that name the site of the host
SITE_LABELS = ("site", "datacenter", "dc")


class Series(NamedTuple):
    """What a series of Prometheus is stored as; the first five are columns of ``batch.SERIES_SCHEMA``."""

    host: str
    metric: str
    unit: str
    labels: str
    kind: str
    site: str | None


class _Rule(NamedTuple):
    metric: str
    unit: str
    kind: str
    extra: tuple[str, str] | None = None


def _counter(metric: str, unit: str, label: str, value: str) -> _Rule:
    return _Rule(metric, unit, "counter", (label, value))


def _state(metric: str, state: str) -> _Rule:
    return _Rule(metric, "By", "gauge", ("state", state))


_RULES: dict[str, _Rule] = {
    "node_cpu_seconds_total": _Rule("system.cpu.time", "s", "counter"),
    "node_load1": _Rule("system.cpu.load_average.1m", "1", "gauge"),
    "node_load5": _Rule("system.cpu.load_average.5m", "1", "gauge"),
    "node_load15": _Rule("system.cpu.load_average.15m", "1", "gauge"),
    "node_memory_MemTotal_bytes": _Rule("system.memory.limit", "By", "gauge"),
    "node_memory_MemAvailable_bytes": _Rule("system.linux.memory.available", "By", "gauge"),
    "node_memory_MemFree_bytes": _state("system.memory.usage", "free"),
    "node_memory_Buffers_bytes": _state("system.memory.usage", "buffers"),
    "node_memory_Cached_bytes": _state("system.memory.usage", "cached"),
    "node_memory_SwapTotal_bytes": _Rule("system.paging.limit", "By", "gauge"),
    "node_memory_SwapFree_bytes": _state("system.paging.usage", "free"),
    "node_filesystem_size_bytes": _Rule("system.filesystem.limit", "By", "gauge"),
    "node_filesystem_free_bytes": _state("system.filesystem.usage", "free"),
    "node_network_receive_bytes_total": _counter("system.network.io.total", "By", "direction", "receive"),
    "node_network_transmit_bytes_total": _counter("system.network.io.total", "By", "direction", "transmit"),
    "node_network_receive_packets_total": _counter("system.network.packets.total", "{packet}", "direction", "receive"),
    "node_network_transmit_packets_total": _counter(
        "system.network.packets.total", "{packet}", "direction", "transmit"
    ),
    "node_network_receive_errs_total": _counter("system.network.errors.total", "{error}", "direction", "receive"),
    "node_network_transmit_errs_total": _counter("system.network.errors.total", "{error}", "direction", "transmit"),
    "node_network_receive_drop_total": _counter("system.network.dropped.total", "{packet}", "direction", "receive"),
    "node_network_transmit_drop_total": _counter("system.network.dropped.total", "{packet}", "direction", "transmit"),
    "node_network_up": _Rule("system.network.up", "1", "gauge"),
    "node_disk_read_bytes_total": _counter("system.disk.io.total", "By", "direction", "read"),
    "node_disk_written_bytes_total": _counter("system.disk.io.total", "By", "direction", "write"),
    "node_disk_reads_completed_total": _counter("system.disk.operations.total", "{operation}", "direction", "read"),
    "node_disk_writes_completed_total": _counter("system.disk.operations.total", "{operation}", "direction", "write"),
    "node_disk_io_time_seconds_total": _Rule("system.disk.io_time.total", "s", "counter"),
    "node_procs_running": _Rule("system.processes.running", "{process}", "gauge"),
    "node_procs_blocked": _Rule("system.processes.blocked", "{process}", "gauge"),
    "node_hwmon_temp_celsius": _Rule("hw.temperature", "Cel", "gauge"),
    "node_hwmon_fan_rpm": _Rule("hw.fan.speed", "rpm", "gauge"),
    "node_hwmon_in_volts": _Rule("hw.voltage", "V", "gauge"),
    "node_hwmon_power_average_watt": _Rule("hw.power", "W", "gauge"),
    "node_hwmon_curr_amps": _Rule("hw.current", "A", "gauge"),
    "up": _Rule("up", "1", "gauge"),
}


def resolve(labels: Mapping[str, str], metadata: Mapping[str, Any] | None = None) -> Series:
    """What a series with these labels (``__name__`` among them) is stored as.

    ``metadata`` is by metric ``{"type", "unit"}``, as the sender says it of the names it knows.

    Raises:
        Refused: no name, or one that cannot be stored.
    """
    given = dict(labels)
    name = given.pop("__name__", "")
    if not name:
        raise Refused("a series without the label __name__")
    problem = name_problem("__name__", name)
    if problem:
        raise Refused(problem)
    # Prometheus knows no empty labels: one that is empty is one that is not there.
    if "" in given.values():
        given = {label: value for label, value in given.items() if value}
    host = NO_HOST
    for label in HOST_LABELS:
        if label in given:
            host = without_port(given[label]) if label == "instance" else given[label]
            break
    site = next((given[label] for label in SITE_LABELS if label in given), None)
    checked_texts(given)
    rule = _RULES.get(name)
    if rule is not None and (rule.extra is None or rule.extra[0] not in given):
        if rule.extra is not None:
            given[rule.extra[0]] = rule.extra[1]
        return Series(host, rule.metric, rule.unit, labels_json(given), rule.kind, site)
    return Series(host, name, unit_of(name, metadata), labels_json(given), kind_of(name, metadata), site)
