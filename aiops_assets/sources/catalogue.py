"""The sources there are: those that ship with the product and those that ``aiops.yaml`` adds.

To add a source write its format in ``formats``, if it needs one, and an entry here or under ``sources`` in aiops.yaml.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta

from aiops_assets.config import Config


@dataclass(frozen=True, slots=True)
class SourceEntry:
    """One source. ``freshness`` is the age at which it is called late; ``None``: it comes when somebody asks for it."""

    name: str
    format: str
    description: str
    point_here: str
    freshness: timedelta | None
    kinds: tuple[str, ...] = ()


TELEGRAF_SNIPPET = """
```toml
[[outputs.http]]
  url = "GATEWAY/webhooks/telegrafQUERY"
  data_format = "influx"        # or "json"
  content_encoding = "gzip"
  [outputs.http.headers]
    Authorization = "Bearer <key>"
```
"""
GENERIC_SNIPPET = """
```sh
curl -H "Authorization: Bearer <key>" -H "Content-Type: application/json" \\
  -d '{"host": "web-1", "metric": "shop.queue.length", "value": 42}' \\
  "GATEWAY/webhooks/genericQUERY"
```
"""

SHIPPED: tuple[SourceEntry, ...] = (
    SourceEntry(
        "host",
        "collected",
        "The machine the platform runs on: processors, memory, filesystems, disks, network, processes.",
        "Nothing to do: the collector reads it every few seconds (`collect.host` in aiops.yaml).",
        timedelta(minutes=5),
        ("python",),
    ),
    SourceEntry(
        "snmp",
        "collected",
        "Network devices and servers polled over SNMP v1, v2c and v3.",
        "Add the device under `devices` in aiops.yaml; it is polled from the next round on.",
        timedelta(minutes=10),
        ("snmp",),
    ),
    SourceEntry(
        "telegraf",
        "telegraf",
        "Metrics pushed by Telegraf agents, as line protocol or JSON.",
        f"In `telegraf.conf`:\n{TELEGRAF_SNIPPET}",
        timedelta(minutes=15),
        ("influxdb",),
    ),
    SourceEntry(
        "generic",
        "generic",
        "Metrics and changes pushed by anything that can send JSON over HTTP.",
        f"For example:\n{GENERIC_SNIPPET}",
        timedelta(minutes=15),
        ("json",),
    ),
    SourceEntry(
        "try",
        "telegraf",
        "Synthetic telemetry of `aiops try`, clearly marked; `aiops try --clean` removes every trace.",
        "Run `aiops try`.",
        None,
        ("python",),
    ),
)


def entries(config: Config, gateway: str = "http://127.0.0.1:8787") -> tuple[SourceEntry, ...]:
    """All sources: the shipped ones with the freshness that aiops.yaml sets, then those it adds, by name.

    ``gateway`` is the address that senders are told to use.
    """
    found = []
    for entry in SHIPPED:
        own = config.sources.get(entry.name)
        late = timedelta(seconds=own.freshness) if own and entry.freshness else entry.freshness
        found.append(replace(entry, freshness=late, point_here=_addressed(entry.point_here, gateway)))
    shipped = {entry.name for entry in SHIPPED}
    for name, source in sorted(config.sources.items()):
        if name not in shipped:
            how = source.format or "generic"
            snippet = {"telegraf": TELEGRAF_SNIPPET, "generic": GENERIC_SNIPPET}.get(how)
            found.append(
                SourceEntry(
                    name,
                    how,
                    f"Deliveries that name themselves `?source={name}` (aiops.yaml).",
                    _addressed(snippet, gateway, name) if snippet else "Written to the landing zone by a collector.",
                    timedelta(seconds=source.freshness),
                    (how,) if how != "collected" else (),
                )
            )
    return tuple(found)


def _addressed(snippet: str, gateway: str, source: str = "") -> str:
    return snippet.replace("GATEWAY", gateway).replace("QUERY", f"?source={source}" if source else "")
