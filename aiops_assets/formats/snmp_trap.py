"""SNMP notifications as our listener writes them: log events, alerts that end, and changes.

What belongs here: the names of notifications and what each means. The listener (``collectors.traps``) has done the
decoding; a body is one JSON object a line::

    {"ts": 1760000000000000, "peer": "192.0.2.7", "host": "core1", "version": "2c", "kind": "trap", "request": 17,
     "uptime": 181296, "trap": "1.3.6.1.6.3.1.1.5.3", "varbinds": [["1.3.6.1.2.1.2.2.1.1.7", "integer", 7]]}

``ts`` is when it came (microseconds, UTC): a notification has no time of its own. ``uptime`` is in hundredths of a
second. Text varbinds are strings, other octets hex with type ``hex``. A notification that is sent again, because its
answer was lost, has the same ``event_id``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import orjson
import polars as pl
import xxhash

from aiops_assets.formats.batch import EXTERNAL_SCHEMA, Parsed, labels_json
from aiops_assets.formats.log_record import LogRows, strict_value
from aiops_assets.formats.payload import Refused, Rejects, UnreadableBody, documents, json_bytes, name_problem, unpacked
from aiops_assets.formats.records import MAX_MICROS, MIN_MICROS, Changes, checked_host
from aiops_assets.landing.segment import Delivery

INFO, NOTICE, WARNING, ERROR, CRITICAL = 9, 10, 13, 17, 21
MAX_VARBINDS = 1_000


@dataclass(frozen=True, slots=True)
class Notification:
    """What is known of a notification. ``alert`` names the condition that it begins (``firing``) or ends; ``by`` are
    the objects whose instance or value tell one condition of a device from another; ``change`` is a kind of change."""

    name: str
    severity: int = NOTICE
    alert: str | None = None
    firing: bool = True
    by: tuple[str, ...] = ()
    change: str | None = None


def _n(name: str, severity: int = NOTICE, **more: Any) -> Notification:
    return Notification(name, severity, **more)


_INTERFACE = ("ifIndex", "ifDescr", "ifName", "ifAdminStatus", "ifOperStatus")

#: object identifier of a notification (without the ``.0.`` that SMIv1 puts before its last number) → what it is
NOTIFICATIONS: dict[str, Notification] = {
    "1.3.6.1.6.3.1.1.5.1": _n("coldStart", WARNING, change="reboot"),
    "1.3.6.1.6.3.1.1.5.2": _n("warmStart", WARNING, change="reboot"),
    "1.3.6.1.6.3.1.1.5.3": _n("linkDown", ERROR, alert="linkDown", by=_INTERFACE),
    "1.3.6.1.6.3.1.1.5.4": _n("linkUp", INFO, alert="linkDown", firing=False, by=_INTERFACE),
    "1.3.6.1.6.3.1.1.5.5": _n("authenticationFailure", WARNING),
    "1.3.6.1.6.3.1.1.5.6": _n("egpNeighborLoss", ERROR),
    "1.3.6.1.2.1.15.7.1": _n("bgpEstablished", INFO, alert="bgpSessionDown", firing=False, by=("bgpPeer",)),
    "1.3.6.1.2.1.15.7.2": _n("bgpBackwardTransition", ERROR, alert="bgpSessionDown", by=("bgpPeer",)),
    "1.3.6.1.2.1.15.1": _n("bgpEstablished", INFO, alert="bgpSessionDown", firing=False, by=("bgpPeer",)),
    "1.3.6.1.2.1.15.2": _n("bgpBackwardTransition", ERROR, alert="bgpSessionDown", by=("bgpPeer",)),
    "1.3.6.1.2.1.14.16.2.2": _n("ospfNbrStateChange", WARNING, alert="ospfNeighborDown", by=("ospfNbr",)),
    "1.3.6.1.2.1.14.16.2.16": _n("ospfIfStateChange", NOTICE),
    "1.3.6.1.2.1.16.1": _n("risingAlarm", WARNING, alert="rmonAlarm", by=("alarmIndex",)),
    "1.3.6.1.2.1.16.2": _n("fallingAlarm", INFO, alert="rmonAlarm", firing=False, by=("alarmIndex",)),
    "1.3.6.1.2.1.17.1": _n("newRoot", WARNING),
    "1.3.6.1.2.1.17.2": _n("topologyChange", NOTICE),
    "1.3.6.1.2.1.33.2.1": _n("upsTrapOnBattery", ERROR, alert="upsOnBattery"),
    "1.3.6.1.2.1.33.2.2": _n("upsTrapTestCompleted", NOTICE),
    "1.3.6.1.2.1.33.2.3": _n("upsTrapAlarmEntryAdded", ERROR, alert="upsAlarm", by=("upsAlarmDescr",)),
    "1.3.6.1.2.1.33.2.4": _n("upsTrapAlarmEntryRemoved", INFO, alert="upsAlarm", firing=False, by=("upsAlarmDescr",)),
    "1.3.6.1.2.1.43.18.2.1": _n("printerV2Alert", WARNING),
    "1.3.6.1.2.1.47.2.1": _n("entConfigChange", NOTICE, change="config"),
    "1.3.6.1.2.1.68.1": _n("vrrpTrapNewMaster", WARNING),
    "1.3.6.1.2.1.80.1": _n("pingProbeFailed", WARNING),
    "1.3.6.1.2.1.88.2.1": _n("mteTriggerFired", WARNING, alert="mteTrigger", by=("mteHotTrigger",)),
    "1.3.6.1.2.1.88.2.2": _n("mteTriggerRising", WARNING, alert="mteTrigger", by=("mteHotTrigger",)),
    "1.3.6.1.2.1.88.2.3": _n("mteTriggerFalling", INFO, alert="mteTrigger", firing=False, by=("mteHotTrigger",)),
    "1.3.6.1.2.1.99.1": _n("entStateOperEnabled", INFO),
    "1.3.6.1.2.1.105.1": _n("pethPsePortOnOffNotification", NOTICE),
    "1.3.6.1.2.1.105.2": _n("pethMainPowerUsageOnNotification", WARNING, alert="poeBudget"),
    "1.3.6.1.2.1.105.3": _n("pethMainPowerUsageOffNotification", INFO, alert="poeBudget", firing=False),
    "1.0.8802.1.1.2.1": _n("lldpRemTablesChange", NOTICE),
    # net-snmp
    "1.3.6.1.4.1.8072.4.1": _n("nsNotifyStart", NOTICE),
    "1.3.6.1.4.1.8072.4.2": _n("nsNotifyShutdown", WARNING),
    "1.3.6.1.4.1.8072.4.3": _n("nsNotifyRestart", NOTICE),
    # Cisco
    "1.3.6.1.4.1.9.0": _n("reload", WARNING, change="reboot"),
    "1.3.6.1.4.1.9.9.41.2.1": _n("clogMessageGenerated", NOTICE),
    "1.3.6.1.4.1.9.9.43.2.1": _n("ciscoConfigManEvent", NOTICE, change="config"),
    "1.3.6.1.4.1.9.9.43.2.2": _n("ccmCLIRunningConfigChanged", NOTICE, change="config"),
    "1.3.6.1.4.1.9.9.13.3.1": _n("ciscoEnvMonShutdownNotification", CRITICAL),
    "1.3.6.1.4.1.9.9.13.3.2": _n("ciscoEnvMonVoltageNotification", ERROR),
    "1.3.6.1.4.1.9.9.13.3.3": _n("ciscoEnvMonTemperatureNotification", ERROR),
    "1.3.6.1.4.1.9.9.13.3.4": _n("ciscoEnvMonFanNotification", ERROR),
    "1.3.6.1.4.1.9.9.13.3.5": _n("ciscoEnvMonRedundantSupplyNotification", ERROR),
    "1.3.6.1.4.1.9.9.117.2.1": _n("cefcModuleStatusChange", WARNING),
    "1.3.6.1.4.1.9.9.117.2.2": _n("cefcPowerStatusChange", WARNING),
    "1.3.6.1.4.1.9.9.117.2.3": _n("cefcFRUInserted", NOTICE),
    "1.3.6.1.4.1.9.9.117.2.4": _n("cefcFRURemoved", WARNING),
    "1.3.6.1.4.1.9.9.187.1": _n("cbgpFsmStateChange", WARNING),
    "1.3.6.1.4.1.9.9.109.2.1": _n("cpmCPURisingThreshold", WARNING, alert="cpuThreshold"),
    "1.3.6.1.4.1.9.9.109.2.2": _n("cpmCPUFallingThreshold", INFO, alert="cpuThreshold", firing=False),
    # Juniper
    "1.3.6.1.4.1.2636.4.1.1": _n("jnxPowerSupplyFailure", ERROR, alert="jnxPowerSupply"),
    "1.3.6.1.4.1.2636.4.1.2": _n("jnxFanFailure", ERROR, alert="jnxFan"),
    "1.3.6.1.4.1.2636.4.1.3": _n("jnxOverTemperature", ERROR, alert="jnxTemperature"),
    "1.3.6.1.4.1.2636.4.2.1": _n("jnxPowerSupplyOK", INFO, alert="jnxPowerSupply", firing=False),
    "1.3.6.1.4.1.2636.4.2.2": _n("jnxFanOK", INFO, alert="jnxFan", firing=False),
    "1.3.6.1.4.1.2636.4.2.3": _n("jnxTemperatureOK", INFO, alert="jnxTemperature", firing=False),
    "1.3.6.1.4.1.2636.4.5.1": _n("jnxCmCfgChange", NOTICE, change="config"),
    # APC PowerNet
    "1.3.6.1.4.1.318.1": _n("communicationLost", ERROR, alert="apcCommunication"),
    "1.3.6.1.4.1.318.2": _n("upsOverload", CRITICAL, alert="apcOverload"),
    "1.3.6.1.4.1.318.3": _n("upsDiagnosticsFailed", ERROR),
    "1.3.6.1.4.1.318.4": _n("upsDischarged", CRITICAL, alert="apcDischarged"),
    "1.3.6.1.4.1.318.5": _n("upsOnBattery", ERROR, alert="upsOnBattery"),
    "1.3.6.1.4.1.318.7": _n("lowBattery", CRITICAL, alert="apcLowBattery"),
    "1.3.6.1.4.1.318.8": _n("communicationEstablished", INFO, alert="apcCommunication", firing=False),
    "1.3.6.1.4.1.318.9": _n("powerRestored", INFO, alert="upsOnBattery", firing=False),
    "1.3.6.1.4.1.318.11": _n("returnFromLowBattery", INFO, alert="apcLowBattery", firing=False),
    "1.3.6.1.4.1.318.15": _n("upsRebootStarted", WARNING, change="reboot"),
    "1.3.6.1.4.1.318.18": _n("upsRecroutine", NOTICE),
    # Eaton, Fortinet, VMware, Synology
    "1.3.6.1.4.1.534.1.11.4.1.3": _n("upstdOnBattery", ERROR, alert="upsOnBattery"),
    "1.3.6.1.4.1.12356.101.2.101": _n("fgTrapCpuThreshold", WARNING),
    "1.3.6.1.4.1.12356.101.2.401": _n("fgTrapHaSwitch", WARNING),
    "1.3.6.1.4.1.12356.100.1.3.101": _n("fnTrapCpuThreshold", WARNING),
    "1.3.6.1.4.1.12356.100.1.3.201": _n("fnTrapIpChange", NOTICE),
    "1.3.6.1.4.1.6876.4.1.1": _n("vmwVmPoweredOn", INFO),
    "1.3.6.1.4.1.6876.4.1.2": _n("vmwVmPoweredOff", WARNING),
    "1.3.6.1.4.1.6876.4.1.3": _n("vmwVmHBLost", ERROR, alert="vmwVmHeartbeat", by=("vmwVmID",)),
    "1.3.6.1.4.1.6876.4.1.4": _n("vmwVmHBDetected", INFO, alert="vmwVmHeartbeat", firing=False, by=("vmwVmID",)),
}

#: object identifier of a column or scalar → its name, longest first
OBJECTS: dict[str, str] = {
    "1.3.6.1.2.1.1.1": "sysDescr", "1.3.6.1.2.1.1.2": "sysObjectID", "1.3.6.1.2.1.1.3": "sysUpTime",
    "1.3.6.1.2.1.1.4": "sysContact", "1.3.6.1.2.1.1.5": "sysName", "1.3.6.1.2.1.1.6": "sysLocation",
    "1.3.6.1.2.1.2.2.1.1": "ifIndex", "1.3.6.1.2.1.2.2.1.2": "ifDescr", "1.3.6.1.2.1.2.2.1.3": "ifType",
    "1.3.6.1.2.1.2.2.1.7": "ifAdminStatus", "1.3.6.1.2.1.2.2.1.8": "ifOperStatus",
    "1.3.6.1.2.1.31.1.1.1.1": "ifName", "1.3.6.1.2.1.31.1.1.1.18": "ifAlias",
    "1.3.6.1.2.1.15.3.1.2": "bgpPeerState", "1.3.6.1.2.1.15.3.1.14": "bgpPeerLastError",
    "1.3.6.1.2.1.15.3.1.7": "bgpPeerRemoteAddr", "1.3.6.1.2.1.14.10.1.6": "ospfNbrState",
    "1.3.6.1.2.1.14.10.1.1": "ospfNbrIpAddr", "1.3.6.1.2.1.14.10.1.3": "ospfNbrRtrId",
    "1.3.6.1.2.1.14.1.1": "ospfRouterId", "1.3.6.1.2.1.16.3.1.1.1": "alarmIndex",
    "1.3.6.1.2.1.16.3.1.1.3": "alarmVariable", "1.3.6.1.2.1.16.3.1.1.5": "alarmValue",
    "1.3.6.1.2.1.33.1.2.3": "upsEstimatedMinutesRemaining", "1.3.6.1.2.1.33.1.2.2": "upsSecondsOnBattery",
    "1.3.6.1.2.1.33.1.9.7": "upsConfigLowBattTime", "1.3.6.1.2.1.33.1.6.2.1.1": "upsAlarmId",
    "1.3.6.1.2.1.33.1.6.2.1.2": "upsAlarmDescr", "1.3.6.1.2.1.88.2.1.1": "mteHotTrigger",
    "1.3.6.1.2.1.88.2.1.2": "mteHotTargetName", "1.3.6.1.2.1.88.2.1.5": "mteHotOID",
    "1.3.6.1.2.1.88.2.1.6": "mteHotValue", "1.3.6.1.6.3.1.1.4.1": "snmpTrapOID",
    "1.3.6.1.6.3.1.1.4.3": "snmpTrapEnterprise", "1.3.6.1.6.3.18.1.3": "snmpTrapAddress",
    "1.3.6.1.6.3.18.1.4": "snmpTrapCommunity",
    "1.3.6.1.4.1.9.9.43.1.1.6.1.3": "ccmHistoryEventCommandSource",
    "1.3.6.1.4.1.9.9.43.1.1.6.1.5": "ccmHistoryEventConfigDestination",
    "1.3.6.1.4.1.9.9.43.1.1.6.1.4": "ccmHistoryEventConfigSource",
    "1.3.6.1.4.1.9.9.13.1.3.1.2": "ciscoEnvMonTemperatureStatusDescr",
    "1.3.6.1.4.1.9.9.13.1.4.1.2": "ciscoEnvMonFanStatusDescr",
    "1.3.6.1.4.1.9.9.13.1.5.1.2": "ciscoEnvMonSupplyStatusDescr",
    "1.3.6.1.4.1.9.9.41.1.2.3.1.2": "clogHistFacility", "1.3.6.1.4.1.9.9.41.1.2.3.1.5": "clogHistMsgText",
    "1.3.6.1.4.1.9.2.1.2": "whyReload", "1.3.6.1.4.1.318.2.3.3": "mtrapargsString",
    "1.3.6.1.4.1.2636.3.1.15.1.5": "jnxFruName", "1.3.6.1.4.1.2636.3.1.8.1.6": "jnxContentsDescr",
    "1.3.6.1.4.1.6876.2.4.1": "vmwVmID", "1.3.6.1.4.1.6876.4.1": "vmwVmEvent",
}  # fmt: skip
_STATUS = {1: "up", 2: "down", 3: "testing", 4: "unknown", 5: "dormant", 6: "notPresent", 7: "lowerLayerDown"}
_OSPF_FULL = 8
#: upsAlarmOnBattery: its removal is the only sign that mains power is back
_ON_BATTERY = "1.3.6.1.2.1.33.1.6.3.2"
_LEFT_OUT = frozenset({"snmpTrapOID", "sysUpTime", "snmpTrapCommunity"})


def parse(deliveries: Sequence[Delivery]) -> Parsed:
    """Read notifications. Never raises on their content: what cannot be read is in ``rejects``."""
    rows, changes, rejects = LogRows(), Changes(), Rejects()
    external: list[tuple[Any, ...]] = []
    productive: set[int] = set()
    for index, delivery in enumerate(deliveries):
        try:
            body = unpacked(delivery)
            for offset, document in documents(index, body, rejects):
                for item in document if isinstance(document, list) else [document]:
                    try:
                        _item(index, delivery.received_at, item, rows, changes, external)
                        productive.add(index)
                    except Refused as error:
                        rejects.add(index, offset, str(error), json_bytes(item, body))
        except UnreadableBody as error:
            rejects.add(index, 0, str(error), delivery.body)
    return Parsed(
        changes=changes.frame(),
        entities=rows.entities().with_columns(kind=pl.lit("device")),
        rejects=rejects.finish(deliveries, productive),
        logs=rows.frame(),
        external=pl.DataFrame(external, schema=EXTERNAL_SCHEMA, orient="row"),
    )


def notification(trap: str) -> Notification:
    """What is known of a notification by its object identifier; an unknown one has its identifier as its name."""
    found = NOTIFICATIONS.get(trap)
    if found is None:
        head, _, last = trap.rpartition(".")
        found = NOTIFICATIONS.get(f"{head.removesuffix('.0')}.{last}") if head.endswith(".0") else None
    return found or Notification(trap)


def object_name(oid: str) -> tuple[str | None, str]:
    """(name, instance) of an object; (``None``, the identifier) when it has no name here."""
    head, instance = oid, ""
    while "." in head:
        head, _, last = head.rpartition(".")
        instance = f"{last}.{instance}" if instance else last
        if head in OBJECTS:
            return OBJECTS[head], instance
    return None, oid


def _item(
    index: int, received_at: int, item: object, rows: LogRows, changes: Changes, external: list[tuple[Any, ...]]
) -> None:
    if not isinstance(item, dict):
        raise Refused('expected {"ts", "peer", "trap", "varbinds"}')
    try:
        orjson.dumps(item)
    except orjson.JSONEncodeError:
        item = cast(dict[str, Any], strict_value(item))
    trap = item.get("trap")
    if not isinstance(trap, str) or not trap or name_problem("trap", trap):
        raise Refused("trap: expected an object identifier")
    host = checked_host(item.get("host") or item.get("peer"))
    ts = item.get("ts", received_at)
    if type(ts) is not int or not MIN_MICROS <= ts <= MAX_MICROS:
        raise Refused("ts: expected microseconds since the epoch")
    varbinds = _varbinds(item.get("varbinds"))
    known = notification(trap)
    named: dict[str, Any] = {}
    instances: dict[str, str] = {}
    for oid, kind, value in varbinds:
        name, instance = object_name(oid)
        if name in _LEFT_OUT:
            continue
        key = name or oid
        named.setdefault(key if key not in named else oid, _shown(name, kind, value))
        if name is not None:
            instances.setdefault(name, instance)
    if known.alert == "upsAlarm" and named.get("upsAlarmDescr") == _ON_BATTERY:
        known = replace(known, alert="upsOnBattery", by=())
    firing = known.firing and named.get("ospfNbrState") != _OSPF_FULL
    body = " ".join([known.name, *(f"{name}={_word(value)}" for name, value in named.items())])
    about = {"snmp.trap.oid": trap, "snmp.trap.name": known.name, **{f"snmp.{k}": v for k, v in named.items()}}
    for field in ("version", "kind", "uptime", "user", "engine", "context", "agent"):
        if item.get(field) not in {None, ""} if not isinstance(item.get(field), list | dict) else False:
            about[f"snmp.{field}"] = item[field]
    if isinstance(item.get("peer"), str) and item["peer"] != host:
        about["snmp.peer"] = item["peer"]
    identity = [item.get(field) for field in ("peer", "version", "request", "uptime", "trap", "varbinds", "engine")]
    event_id = None if item.get("request") is None else xxhash.xxh3_128_hexdigest(json_bytes(identity, b""))
    rows.add(
        index, ts, body, host=host, app="snmp", severity=known.severity if firing else INFO, event_id=event_id,
        attributes=about,
    )  # fmt: skip
    if known.change is not None:
        changes.add(index, host, ts, {"kind": known.change, "title": f"{known.name} on {host}", "details": about})
    if known.alert is not None:
        external.append(_alert(index, ts, host, known, firing, named, instances, body, about))


def _alert(
    index: int,
    ts: int,
    host: str,
    known: Notification,
    firing: bool,
    named: dict[str, Any],
    instances: dict[str, str],
    body: str,
    about: dict[str, Any],
) -> tuple[Any, ...]:
    place = _place(known, named, instances)
    labels = {"notification": known.alert or known.name}
    if place:
        labels["instance"] = place
    for name in ("ifName", "ifDescr", "ifAlias"):
        value = named.get(name)
        if isinstance(value, str) and value and not name_problem(name, value):
            labels[name] = value
    return (
        index,
        ts,
        "/".join(part for part in (host, known.alert, place) if part),
        known.alert,
        "firing" if firing else "resolved",
        known.severity,
        host,
        None,
        labels_json(labels),
        ts if firing else None,
        None if firing else ts,
        f"{body[:200]} on {host}" if firing else f"{known.name} on {host}",
        None,
        None,
        orjson.dumps(about).decode(),
    )


def _place(known: Notification, named: dict[str, Any], instances: dict[str, str]) -> str:
    """What tells this condition from others of the device: the value of an index, else an instance."""
    for name in known.by:
        for found, instance in instances.items():
            if found == name or (found.startswith(name) and name in {"bgpPeer", "ospfNbr"}):
                value = named.get(found)
                if name in {"ifIndex", "alarmIndex", "mteHotTrigger", "vmwVmID", "upsAlarmDescr"} and value is not None:
                    return _word(value)[:256]
                return instance
    return ""


def _varbinds(given: object) -> list[tuple[str, str, Any]]:
    if given is None:
        return []
    if not isinstance(given, list) or len(given) > MAX_VARBINDS:
        raise Refused(f"varbinds: expected an array of at most {MAX_VARBINDS} [identifier, type, value]")
    found = []
    for entry in given:
        if not (
            isinstance(entry, list) and len(entry) == 3 and isinstance(entry[0], str) and isinstance(entry[1], str)
        ):
            raise Refused("varbinds: expected [identifier, type, value]")
        found.append((entry[0], entry[1], entry[2]))
    return found


def _shown(name: str | None, kind: str, value: Any) -> Any:
    if name in {"ifAdminStatus", "ifOperStatus"} and isinstance(value, int):
        return _STATUS.get(value, value)
    return value


def _word(value: Any) -> str:
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    return f'"{text}"' if " " in text else text
