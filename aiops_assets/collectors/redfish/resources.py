"""What each kind of Redfish resource means: readings, what it consists of, what is known about it.

What belongs here: one reader for each kind of resource, from a JSON object to what was found in it, and the table of
kinds with how often each is read. What does not: fetching (``client``) and the choice of what to fetch (``poll``).

Names follow the OpenTelemetry semantic conventions for hardware; the states of ``hw.status`` are series of their own,
1 or 0. A reading is identified by the sensor it comes from (``DataSourceUri``) where it is an excerpt of one, so that
the same sensor has the same name whichever resource brought it. Sources of the schemas: DMTF DSP0268 (properties) and
DSP2046 (mockups); both the Thermal and Power resources and what replaced them are read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiops_assets.collectors.document import Kind
from aiops_assets.collectors.redfish.fields import field as get
from aiops_assets.collectors.redfish.fields import (
    health,
    instant,
    is_absent,
    link,
    measured,
    number,
    records,
    short,
    text,
)

#: how often resources are read (seconds); readings in every poll
EVERY_POLL = 0.0
COMPONENTS = 300.0
STRUCTURE = 900.0
#: event logs at most this often
LOGS = 60.0

_STATES = ("ok", "degraded", "failed")
_MIB, _GIB = 1 << 20, 1 << 30
_KWH = 3_600_000.0

#: ReadingType, and where it is not given ReadingUnits, of a sensor → metric, unit, factor, kind, hw.type
_SENSORS: Mapping[str, tuple[str, str, float, Kind, str]] = {
    "temperature": ("hw.temperature", "Cel", 1.0, "gauge", "temperature"),
    "rotational": ("hw.fan.speed", "rpm", 1.0, "gauge", "fan"),
    "voltage": ("hw.voltage", "V", 1.0, "gauge", "voltage"),
    "current": ("hw.current", "A", 1.0, "gauge", "current"),
    "power": ("hw.power", "W", 1.0, "gauge", "power"),
    "frequency": ("hw.frequency", "Hz", 1.0, "gauge", "frequency"),
    "humidity": ("hw.humidity", "1", 0.01, "ratio", "humidity"),
    "percent": ("hw.utilization", "1", 0.01, "ratio", "percent"),
    "energykwh": ("hw.energy.total", "J", _KWH, "counter", "energy"),
    "energywh": ("hw.energy.total", "J", 3_600.0, "counter", "energy"),
    "energyjoules": ("hw.energy.total", "J", 1.0, "counter", "energy"),
    "pressurekpa": ("hw.pressure", "Pa", 1_000.0, "gauge", "pressure"),
    "pressurepa": ("hw.pressure", "Pa", 1.0, "gauge", "pressure"),
    "airflowcmm": ("hw.airflow", "m3/min", 1.0, "gauge", "airflow"),
    "liquidflowlpm": ("hw.liquid_flow", "L/min", 1.0, "gauge", "liquid_flow"),
}
_UNITS: Mapping[str, str] = {
    "cel": "temperature", "c": "temperature", "celsius": "temperature", "degc": "temperature",
    "rpm": "rotational", "{rev}/min": "rotational", "v": "voltage", "volts": "voltage", "a": "current",
    "amps": "current", "w": "power", "watts": "power", "hz": "frequency", "kw.h": "energykwh", "kwh": "energykwh",
    "j": "energyjoules", "%": "percent", "kpa": "pressurekpa", "pa": "pressurepa",
}  # fmt: skip
#: excerpts that resources have under these names, as far as they are not treated one by one
_EXCERPTS: Mapping[str, str] = {
    "TemperatureCelsius": "temperature",
    "HumidityPercent": "humidity",
    "PowerWatts": "power",
    "CurrentAmps": "current",
    "Voltage": "voltage",
    "EnergykWh": "energykwh",
    "EnergyJoules": "energyjoules",
    "FrequencyHz": "frequency",
    "InputVoltage": "voltage",
    "InputCurrentAmps": "current",
    "OutputVoltages": "voltage",
    "OutputCurrentAmps": "current",
    "RailVoltage": "voltage",
    "RailCurrentAmps": "current",
    "RailPowerWatts": "power",
    "CellVoltages": "voltage",
}
_LINK_UP = frozenset({"linkup", "up", "training"})
_LINK_DOWN = frozenset({"linkdown", "down", "nolink"})
#: values for what cannot be measured, which some services write as numbers
_COLDEST = -273.15
_LETTERS = re.compile(r"[^a-z0-9]+")


@dataclass(slots=True)
class Reading:
    """One value. ``id`` is that of its sensor or component, ``origin`` the resource that brought it.

    ``rank`` 0 is the sensor itself, 1 an excerpt of it elsewhere: of several the lowest names the series.
    ``old`` marks the Thermal and Power resources, which a chassis may have beside what replaced them.
    """

    metric: str
    unit: str
    value: float
    kind: Kind
    id: str
    type: str
    name: str | None = None
    parent: str | None = None
    location: str | None = None
    more: tuple[tuple[str, str], ...] = ()
    rank: int = 0
    old: bool = False

    @property
    def key(self) -> tuple[str, ...]:
        return (self.metric, self.id, *(value for _, value in self.more))

    @property
    def family(self) -> str:
        """What a chassis has sensors for: of each family one generation of schemas is believed."""
        return "power" if self.metric.startswith("hw.host.") else self.type


@dataclass(frozen=True, slots=True)
class Child:
    """A resource that another one leads to; ``parent`` is the identifier of the component it belongs to."""

    kind: str
    path: str
    collection: bool = False
    parent: str | None = None


@dataclass(slots=True)
class Found:
    """What one resource holds."""

    readings: list[Reading] = field(default_factory=list)
    children: list[Child] = field(default_factory=list)
    #: labels of the device's entity
    facts: dict[str, str] = field(default_factory=dict)
    #: component → (its name, version)
    firmware: dict[str, tuple[str, str]] = field(default_factory=dict)
    #: microseconds: when the system or controller was last reset, and its own clock
    reset_at: int | None = None
    clock: int | None = None
    boots: float | None = None
    #: event log: name
    log: str | None = None
    #: a chassis: what it is, and the chassis that hold it or the system
    entity: dict[str, str] = field(default_factory=dict)
    within: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Resource:
    """A resource under the eyes of a reader."""

    path: str
    body: dict[str, Any]
    #: identifier of the component it belongs to, and what kind of component that is
    parent: str | None = None
    owner: str = "enclosure"
    found: Found = field(default_factory=Found)

    @property
    def id(self) -> str:
        return short(self.path)

    @property
    def name(self) -> str | None:
        return text(get(self.body, "Name")) or text(get(self.body, "Id"))

    # --- what readers do -------------------------------------------------------------------------------------------

    def leads(self, name: str, kind: str, *, collection: bool = False, within: Any = None) -> bool:
        """Follow a property that is a link; whether there is one."""
        target = link(get(self.body if within is None else within, name))
        if target is not None:
            self.found.children.append(Child(kind, target, collection, self.parent))
        return target is not None

    def leads_each(self, name: str, kind: str, within: Any = None) -> bool:
        """Follow an array of links; whether there was one."""
        targets = [link(entry) for entry in records(get(self.body if within is None else within, name))]
        self.found.children.extend(Child(kind, target, False, self.parent) for target in targets if target is not None)
        return bool(targets)

    def reads(
        self,
        metric: str,
        unit: str,
        value: float | None,
        type_: str,
        *,
        kind: Kind = "gauge",
        id_: str | None = None,
        name: str | None = None,
        parent: str | None = None,
        location: str | None = None,
        more: tuple[tuple[str, str], ...] = (),
        rank: int = 0,
        old: bool = False,
    ) -> None:
        """Add a value unless there is none or it cannot be one."""
        if value is None or (metric == "hw.temperature" and value <= _COLDEST):
            return
        if kind == "ratio":
            if not -0.05 <= value <= 1.05:
                return
            value = min(1.0, max(0.0, value))
        own = id_ or self.id
        self.found.readings.append(
            Reading(metric, unit, value, kind, own, type_, name, parent, location, more, rank, old)
        )

    def status(
        self,
        record: object,
        type_: str,
        *,
        rollup: bool = False,
        id_: str | None = None,
        name: str | None = None,
        failing: bool | None = None,
        old: bool = False,
    ) -> None:
        """The states of a component; ``failing`` when it may announce its failure."""
        state = health(record, rollup=rollup)
        if state is None:
            return
        above = self.parent if self.parent != (id_ or self.id) else None
        values = {each_state: float(each_state == state) for each_state in _STATES}
        if failing is not None:
            values["predicted_failure"] = float(failing)
        for label, value in values.items():
            self.reads(
                "hw.status", "1", value, type_, id_=id_, name=name or self.name, parent=above,
                more=(("hw.state", label),), old=old,
            )  # fmt: skip

    def excerpt(
        self,
        record: object,
        sensor: str,
        *,
        id_: str,
        name: str | None = None,
        instead: tuple[str, str] | None = None,
        location: str | None = None,
    ) -> None:
        """A sensor's reading within another resource: an object with ``Reading``, or a plain number.

        ``instead`` is (metric, hw.type) where the place says more than the sensor does.
        """
        metric, unit, factor, kind, type_ = _SENSORS[sensor]
        if instead is not None:
            metric, type_ = instead
        value = number(get(record, "Reading")) if isinstance(record, dict) else number(record)
        source = link(get(record, "DataSourceUri"))
        identity = short(source) if source is not None and source.startswith("/") else id_
        named = text(get(record, "DeviceName")) or name
        if value is not None:
            self.reads(
                metric, unit, value * factor, type_, kind=kind, id_=identity, name=named, parent=self.parent,
                location=location or text(get(record, "PhysicalContext")), rank=1,
            )  # fmt: skip
        speed = number(get(record, "SpeedRPM"))
        if type_ == "fan":
            self.reads(
                "hw.fan.speed", "rpm", speed, "fan", id_=identity, name=named, parent=self.parent,
                location=location or text(get(record, "PhysicalContext")), rank=1,
            )  # fmt: skip

    def version(self, component: str, name: str | None, value: object) -> None:
        """A firmware version of a component."""
        written = text(value)
        if written:
            self.found.firmware[component] = (name or component, written)

    def fact(self, label: str, value: object) -> None:
        """A label of the device, unless it says nothing."""
        written = text(value)
        if written and written.lower() not in {"n/a", "none", "unknown", "not available", "to be filled by o.e.m."}:
            self.found.facts[label] = written


Read = Callable[[Resource], None]


@dataclass(frozen=True, slots=True)
class KindOf:
    """How a kind of resource is read and how often (seconds)."""

    read: Read
    every: float
    #: what hangs below it belongs to a component of this type; ``None``: to the one above
    owner: str | None = None


# --- services and what stands at the top -----------------------------------------------------------------------------


def _root(resource: Resource) -> None:
    body = resource.body
    for name, kind in (("Chassis", "chassis"), ("Systems", "system"), ("Managers", "manager")):
        resource.leads(name, kind, collection=True)
    resource.leads("UpdateService", "update")
    resource.fact("redfish_version", get(body, "RedfishVersion"))
    vendor = get(body, "Vendor")
    resource.fact("service_vendor", vendor)
    resource.fact("product", get(body, "Product"))


def _chassis(resource: Resource) -> None:
    body = resource.body
    resource.parent = resource.id
    resource.status(body, "enclosure", rollup=True)
    for name in ("Thermal", "Power"):
        resource.leads(name, name.lower())
    resource.leads("ThermalSubsystem", "thermal_subsystem")
    resource.leads("PowerSubsystem", "power_subsystem")
    resource.leads("EnvironmentMetrics", "environment")
    resource.leads("Sensors", "sensor", collection=True)
    resource.leads("NetworkAdapters", "adapter", collection=True)
    resource.leads("LogServices", "log_service", collection=True)
    if not resource.leads("Drives", "drive", collection=True):
        resource.leads_each("Drives", "drive", within=get(body, "Links"))
    labels = (
        ("vendor", "Manufacturer"),
        ("model", "Model"),
        ("serial", "SerialNumber"),
        ("sku", "SKU"),
        ("part_number", "PartNumber"),
        ("asset_tag", "AssetTag"),
        ("chassis_type", "ChassisType"),
    )
    found = resource.found
    for label, name in labels:
        resource.fact(label, get(body, name))
    placement = get(get(body, "Location"), "Placement")
    for label, name in (("location.row", "Row"), ("location.rack", "Rack"), ("location.rack_offset", "RackOffset")):
        resource.fact(label, get(placement, name))
    found.entity, found.facts = found.facts, {}
    above = link(get(get(body, "Links"), "ContainedBy"))
    found.within = [above] if above is not None else []


def _system(resource: Resource) -> None:
    body, found = resource.body, resource.found
    resource.parent = resource.id
    resource.status(body, "system", rollup=True)
    power = text(get(body, "PowerState"))
    on = {"on": 1.0, "paused": 1.0, "poweringoff": 1.0, "off": 0.0, "poweringon": 0.0}.get((power or "").lower())
    resource.reads("hw.host.power_state", "1", on, "system", name=resource.name)
    for name, kind in (("Processors", "processor"), ("Memory", "memory")):
        if not resource.leads(name, kind, collection=True):
            type_ = "cpu" if kind == "processor" else "memory"
            summary = get(body, f"{name.removesuffix('s')}Summary")
            resource.status(summary, type_, rollup=True, id_=f"{resource.id}#/{kind}", name=f"{name} of {resource.id}")
    if not resource.leads("Storage", "storage", collection=True):
        resource.leads("SimpleStorage", "simple_storage", collection=True)
    resource.leads("EthernetInterfaces", "ethernet", collection=True)
    resource.leads("LogServices", "log_service", collection=True)
    for label, name in (
        ("vendor", "Manufacturer"),
        ("model", "Model"),
        ("serial", "SerialNumber"),
        ("sku", "SKU"),
        ("part_number", "PartNumber"),
        ("asset_tag", "AssetTag"),
        ("bios_version", "BiosVersion"),
        ("uuid", "UUID"),
        ("hostname", "HostName"),
        ("system_type", "SystemType"),
    ):
        resource.fact(label, get(body, name))
    processors = get(body, "ProcessorSummary")
    resource.fact("processors", get(processors, "Count"))
    resource.fact("processor_model", get(processors, "Model"))
    resource.fact("memory_gib", get(get(body, "MemorySummary"), "TotalSystemMemoryGiB"))
    resource.version(f"{resource.id}/BIOS", "BIOS", get(body, "BiosVersion"))
    found.reset_at = instant(get(body, "LastResetTime"))
    found.boots = _boots(body)
    chassis = [link(entry) for entry in records(get(get(body, "Links"), "Chassis"))]
    found.within = [target for target in chassis if target is not None]


def _boots(body: dict[str, Any]) -> float | None:
    """How often a system was started, which only vendors' extensions tell."""
    extensions = get(body, "Oem")
    for record in (body, *(records(list(extensions.values())) if isinstance(extensions, dict) else ())):
        for name in ("BootCount", "RebootCount", "PowerOnCount"):
            count = number(get(record, name))
            if count is not None:
                return count
    return None


def _manager(resource: Resource) -> None:
    body, found = resource.body, resource.found
    resource.parent = resource.id
    resource.status(body, "manager", rollup=True)
    resource.leads("LogServices", "log_service", collection=True)
    resource.fact("bmc_version", get(body, "FirmwareVersion"))
    resource.fact("bmc_model", get(body, "Model"))
    resource.version(resource.id, resource.name, get(body, "FirmwareVersion"))
    found.reset_at = instant(get(body, "LastResetTime"))
    found.clock = instant(get(body, "DateTime"))


def _update(resource: Resource) -> None:
    resource.leads("FirmwareInventory", "firmware", collection=True)


def _firmware(resource: Resource) -> None:
    own = text(get(resource.body, "Id")) or resource.id.rpartition("/")[2]
    # Some services list images that do not run, and put the version of those that do into the identifier.
    if own.lower().startswith(("previous", "available", "rollback")):
        return
    component = own.rpartition("__")[2] if own.lower().startswith(("installed-", "current-")) else own
    resource.version(f"firmware/{component}", resource.name, get(resource.body, "Version"))


# --- thermal and power, the first generation -------------------------------------------------------------------------


def _place(resource: Resource, array: str, position: int, record: dict[str, Any], taken: set[str]) -> str:
    """The identifier of an object in an array of a resource: its own, unless another there has the same."""
    own = link(record)
    place = short(own) if own is not None and "#" in own else ""
    if not place or place in taken:
        member = text(get(record, "MemberId"))
        place = f"{resource.id}#/{array}/{member if member is not None else position}"
    if place in taken:
        place = f"{resource.id}#/{array}/{position}"
    taken.add(place)
    return place


def _entries(resource: Resource, array: str) -> Iterator[tuple[str, str | None, dict[str, Any]]]:
    """(identifier, name, object) of each object of an array where something is in place."""
    taken: set[str] = set()
    for position, record in enumerate(records(get(resource.body, array))):
        place = _place(resource, array, position, record, taken)
        if not is_absent(record):
            yield place, text(get(record, "Name")) or text(get(record, "FanName")), record


def _thermal(resource: Resource) -> None:
    above = resource.parent
    for place, name, record in _entries(resource, "Temperatures"):
        location = text(get(record, "PhysicalContext"))
        resource.reads(
            "hw.temperature", "Cel", measured(record, "ReadingCelsius"), "temperature",
            id_=place, name=name, parent=above, location=location, old=True,
        )  # fmt: skip
        resource.status(record, "temperature", id_=place, name=name, old=True)
    for place, name, record in _entries(resource, "Fans"):
        value = measured(record, "Reading", "ReadingRPM")
        percent = (text(get(record, "ReadingUnits")) or text(get(record, "Units")) or "RPM").lower() in {"percent", "%"}
        location = text(get(record, "PhysicalContext"))
        if percent and value is not None:
            resource.reads(
                "hw.fan.speed_ratio", "1", value / 100, "fan",
                kind="ratio", id_=place, name=name, parent=above, location=location, old=True,
            )  # fmt: skip
        elif value is not None and value >= 0:
            resource.reads(
                "hw.fan.speed", "rpm", value, "fan", id_=place, name=name, parent=above, location=location, old=True
            )
        resource.status(record, "fan", id_=place, name=name, old=True)
    for place, name, record in _entries(resource, "Redundancy"):
        resource.status(record, "fan", id_=place, name=name or "fan redundancy", old=True)


def _power(resource: Resource) -> None:
    above = resource.parent
    for number_, (place, name, record) in enumerate(_entries(resource, "PowerControl")):
        # The first is the whole, the others are parts of it.
        metric, type_ = ("hw.host.power", "enclosure") if number_ == 0 else ("hw.power", "power")
        value = measured(record, "PowerConsumedWatts")
        resource.reads(metric, "W", value, type_, id_=place, name=name, parent=above, old=True)
        for limit, watts in (
            ("max", number(get(record, "PowerCapacityWatts"))),
            ("throttled", number(get(get(record, "PowerLimit"), "LimitInWatts"))),
        ):
            if watts:
                resource.reads(
                    f"{metric}.limit", "W", watts, type_, id_=place, name=name, parent=above,
                    more=(("hw.limit_type", limit),), old=True,
                )  # fmt: skip
    for place, name, record in _entries(resource, "Voltages"):
        resource.reads(
            "hw.voltage", "V", measured(record, "ReadingVolts"), "voltage",
            id_=place, name=name, parent=above, location=text(get(record, "PhysicalContext")), old=True,
        )  # fmt: skip
        resource.status(record, "voltage", id_=place, name=name, old=True)
    for place, name, record in _entries(resource, "PowerSupplies"):
        output = measured(record, "PowerOutputWatts", "LastPowerOutputWatts")
        capacity = number(get(record, "PowerCapacityWatts"))
        _supply(resource, place, name, output, capacity, old=True)
        for metric, unit, value in (
            ("hw.power", "W", measured(record, "PowerInputWatts")),
            ("hw.voltage", "V", measured(record, "LineInputVoltage")),
        ):
            resource.reads(
                metric, unit, value, "power_supply",
                id_=place, name=name, parent=above, location="input", old=True,
            )  # fmt: skip
        resource.status(record, "power_supply", id_=place, name=name, old=True)
        resource.version(place, name, get(record, "FirmwareVersion"))
    for place, name, record in _entries(resource, "Redundancy"):
        resource.status(record, "power_supply", id_=place, name=name or "power supply redundancy", old=True)


def _supply(
    resource: Resource,
    place: str,
    name: str | None,
    output: float | None,
    capacity: float | None,
    *,
    old: bool = False,
) -> None:
    above = resource.parent if resource.parent != place else None
    capacity = capacity or None
    resource.reads("hw.power_supply.usage", "W", output, "power_supply", id_=place, name=name, parent=above, old=old)
    resource.reads(
        "hw.power_supply.limit", "W", capacity, "power_supply", id_=place, name=name, parent=above,
        more=(("hw.limit_type", "max"),), old=old,
    )  # fmt: skip
    if output is not None and capacity is not None:
        resource.reads(
            "hw.power_supply.utilization", "1", output / capacity, "power_supply",
            kind="ratio", id_=place, name=name, parent=above, old=old,
        )  # fmt: skip


# --- thermal and power, the second generation ------------------------------------------------------------------------


def _thermal_subsystem(resource: Resource) -> None:
    resource.leads("Fans", "fan", collection=True)
    resource.leads("ThermalMetrics", "thermal_metrics")
    _redundancy(resource, "FanRedundancy", "fan")


def _power_subsystem(resource: Resource) -> None:
    resource.leads("PowerSupplies", "power_supply", collection=True)
    resource.leads("Batteries", "battery", collection=True)
    _redundancy(resource, "PowerSupplyRedundancy", "power_supply")
    capacity = number(get(resource.body, "CapacityWatts"))
    resource.reads(
        "hw.host.power.limit", "W", capacity or None, "enclosure", name=resource.name, parent=resource.parent,
        more=(("hw.limit_type", "max"),),
    )  # fmt: skip


def _redundancy(resource: Resource, array: str, type_: str) -> None:
    for position, record in enumerate(records(get(resource.body, array))):
        kind = text(get(record, "RedundancyType"))
        name = " ".join(part for part in (type_.replace("_", " "), "redundancy", kind) if part)
        resource.status(record, type_, id_=f"{resource.id}#/{array}/{position}", name=name)


def _thermal_metrics(resource: Resource) -> None:
    for position, record in enumerate(records(get(resource.body, "TemperatureReadingsCelsius"))):
        resource.excerpt(record, "temperature", id_=f"{resource.id}#/TemperatureReadingsCelsius/{position}")
    summary = get(resource.body, "TemperatureSummaryCelsius")
    for place in ("Internal", "Intake", "Ambient", "Exhaust"):
        where = f"{resource.id}#/TemperatureSummaryCelsius/{place}"
        resource.excerpt(get(summary, place), "temperature", id_=where, name=place, location=place)


def _environment(resource: Resource) -> None:
    _excerpts(resource, {"PowerWatts": ("hw.host.power", "enclosure")} if resource.owner == "enclosure" else {})
    limit = number(get(get(resource.body, "PowerLimitWatts"), "SetPoint"))
    if resource.owner == "enclosure":
        resource.reads(
            "hw.host.power.limit", "W", limit or None, "enclosure", name=resource.name, parent=resource.parent,
            more=(("hw.limit_type", "throttled"),),
        )  # fmt: skip


def _excerpts(resource: Resource, instead: Mapping[str, tuple[str, str]]) -> None:
    """Every reading that a metrics resource may have; ``instead``: property → (metric, hw.type)."""
    body, owner = resource.body, resource.owner
    for name, sensor in _EXCERPTS.items():
        value = get(body, name)
        meaning = instead.get(name)
        if meaning is None and owner != "enclosure" and sensor in {"power", "energykwh", "energyjoules"}:
            meaning = (_SENSORS[sensor][0], owner)
        location = "input" if name.startswith("Input") else "output" if name.startswith("Output") else None
        entries = enumerate(value) if isinstance(value, list) else [(None, value)]
        for position, record in entries:
            place = f"{resource.id}#/{name}" if position is None else f"{resource.id}#/{name}/{position}"
            named = _named(resource, name) if position is None else f"{_named(resource, name)} {position + 1}"
            resource.excerpt(record, sensor, id_=place, name=named, instead=meaning, location=location)
    for name in ("FanSpeedsPercent", "FanSpeedPercent"):
        for position, record in enumerate(records(get(body, name))):
            place = f"{resource.id}#/{name}/{position}"
            fan = ("hw.fan.speed_ratio", "fan")
            resource.excerpt(record, "percent", id_=place, name=_named(resource, name), instead=fan)


def _named(resource: Resource, name: str) -> str:
    own = (resource.parent or resource.id).rpartition("/")[2]
    return f"{own} {name}"


def _fan(resource: Resource) -> None:
    body = resource.body
    if is_absent(body):
        return
    resource.status(body, "fan")
    resource.excerpt(
        get(body, "SpeedPercent"), "percent", id_=resource.id, name=resource.name,
        instead=("hw.fan.speed_ratio", "fan"), location=text(get(body, "PhysicalContext")),
    )  # fmt: skip


def _power_supply(resource: Resource) -> None:
    body = resource.body
    if is_absent(body):
        return
    resource.status(body, "power_supply")
    _supply(resource, resource.id, resource.name, None, number(get(body, "PowerCapacityWatts")))
    resource.version(resource.id, resource.name, get(body, "FirmwareVersion"))
    resource.parent = resource.id
    resource.leads("Metrics", "supply_metrics")


def _supply_metrics(resource: Resource) -> None:
    _excerpts(resource, {})
    for name, metric in (("InputPowerWatts", "hw.power"), ("OutputPowerWatts", "hw.power_supply.usage")):
        record = get(resource.body, name)
        location = "input" if metric == "hw.power" else None
        resource.excerpt(
            record, "power", id_=f"{resource.id}#/{name}", name=_named(resource, name),
            instead=(metric, "power_supply"), location=location,
        )  # fmt: skip


def _battery(resource: Resource) -> None:
    resource.status(resource.body, "battery")
    resource.parent = resource.id
    resource.leads("Metrics", "battery_metrics")


def _battery_metrics(resource: Resource) -> None:
    _excerpts(resource, {})
    for name, metric in (("ChargePercent", "hw.battery.charge"), ("StateOfHealthPercent", "hw.battery.health")):
        resource.excerpt(
            get(resource.body, name), "percent", id_=f"{resource.id}#/{name}", name=_named(resource, name),
            instead=(metric, "battery"),
        )  # fmt: skip
    for name in ("InputPowerWatts", "OutputPowerWatts"):
        resource.excerpt(
            get(resource.body, name), "power", id_=f"{resource.id}#/{name}", name=_named(resource, name),
            instead=("hw.power", "battery"), location=name.partition("Power")[0].lower(),
        )  # fmt: skip


def _sensor(resource: Resource) -> None:
    body = resource.body
    if is_absent(body):
        return
    units = text(get(body, "ReadingUnits")) or ""
    written = text(get(body, "ReadingType")) or ""
    kind = written.lower()
    value = measured(body, "Reading")
    name, location = resource.name, text(get(body, "PhysicalContext"))
    related = next((link(entry) for entry in records(get(body, "RelatedItem")) if link(entry)), None)
    parent = short(related) if related is not None else resource.parent
    # What has no name yet keeps its own.
    own = _LETTERS.sub("_", (written or units or "reading").lower()).strip("_") or "reading"
    unnamed: tuple[str, str, float, Kind, str] = (f"hw.sensor.{own}", units[:60], 1.0, "gauge", "sensor")
    known = _SENSORS.get(kind) or _SENSORS.get(_UNITS.get(units.lower(), ""))
    metric, unit, factor, point_kind, type_ = known or unnamed
    if metric == "hw.utilization" and (
        location == "Fan" or "fan" in f"{name} {resource.id.rpartition('/')[2]}".lower()
    ):
        metric, type_ = "hw.fan.speed_ratio", "fan"
    if metric == "hw.utilization" and value is not None and not -5 <= value <= 105:
        point_kind = "gauge"
    scaled = None if value is None else value * factor
    resource.reads(metric, unit, scaled, type_, kind=point_kind, name=name, parent=parent, location=location)
    if type_ == "fan":
        speed = number(get(body, "SpeedRPM"))
        if metric != "hw.fan.speed":
            resource.reads("hw.fan.speed", "rpm", speed, "fan", name=name, parent=parent, location=location)
    resource.status(body, type_)


# --- components ------------------------------------------------------------------------------------------------------


def _processor(resource: Resource) -> None:
    body = resource.body
    if is_absent(body):
        return
    kind = (text(get(body, "ProcessorType")) or "CPU").lower()
    resource.owner = {"core": "cpu", "thread": "cpu"}.get(kind, kind)
    resource.status(body, resource.owner, name=_socketed(resource))
    speed = number(get(body, "OperatingSpeedMHz"))
    if speed:
        above = resource.parent
        resource.reads("hw.cpu.speed", "Hz", speed * 1e6, resource.owner, name=_socketed(resource), parent=above)
    resource.version(resource.id, _socketed(resource), get(body, "FirmwareVersion"))
    resource.parent = resource.id
    resource.leads("EnvironmentMetrics", "environment")
    resource.leads("Metrics", "processor_metrics")


def _socketed(resource: Resource) -> str | None:
    """Processors are often all called Processor: their socket tells them apart."""
    socket, name = text(get(resource.body, "Socket")), resource.name
    return f"{name} {socket}"[:200] if name and socket and socket not in name else name or socket


def _processor_metrics(resource: Resource) -> None:
    body, above = resource.body, resource.parent
    own = _named(resource, "temperature")
    value = number(get(body, "TemperatureCelsius"))
    resource.reads("hw.temperature", "Cel", value, "temperature", name=own, parent=above)
    watts = number(get(body, "ConsumedPowerWatt"))
    resource.reads("hw.power", "W", watts, resource.owner, name=_named(resource, "power"), parent=above)
    for name, kind in (("CorrectableECCErrorCount", "correctable"), ("UncorrectableECCErrorCount", "uncorrectable")):
        for cache in records(get(body, "CacheMetricsTotal")):
            _errors(resource, number(get(get(cache, "LifeTime"), name)), kind, resource.owner)


def _errors(resource: Resource, count: float | None, kind: str, type_: str) -> None:
    resource.reads(
        "hw.errors.total", "{error}", count, type_, kind="counter", name=_named(resource, "errors"),
        parent=resource.parent, more=(("error.type", kind),),
    )  # fmt: skip


def _memory(resource: Resource) -> None:
    body = resource.body
    if is_absent(body):
        return
    resource.status(body, "memory")
    size = number(get(body, "CapacityMiB"))
    if size:
        resource.reads("hw.memory.size", "By", size * _MIB, "memory", name=resource.name, parent=resource.parent)
    resource.version(resource.id, resource.name, get(body, "FirmwareRevision"))
    resource.parent, resource.owner = resource.id, "memory"
    resource.leads("EnvironmentMetrics", "environment")
    resource.leads("Metrics", "memory_metrics")


def _memory_metrics(resource: Resource) -> None:
    total = get(resource.body, "LifeTime")
    for name, kind in (("CorrectableECCErrorCount", "correctable"), ("UncorrectableECCErrorCount", "uncorrectable")):
        _errors(resource, number(get(total, name)), kind, "memory")


def _storage(resource: Resource) -> None:
    body = resource.body
    resource.status(body, "disk_controller", rollup=True)
    resource.parent = resource.id
    if not resource.leads("Controllers", "controller", collection=True):
        for place, name, record in _entries(resource, "StorageControllers"):
            resource.status(record, "disk_controller", id_=place, name=name)
            resource.version(place, name, get(record, "FirmwareVersion"))
    resource.leads_each("Drives", "drive")
    resource.leads("Volumes", "volume", collection=True)


def _controller(resource: Resource) -> None:
    resource.status(resource.body, "disk_controller")
    resource.version(resource.id, resource.name, get(resource.body, "FirmwareVersion"))


def _drive(resource: Resource) -> None:
    _disk(resource, resource.body, resource.id, resource.name)
    resource.version(resource.id, resource.name, get(resource.body, "Revision"))
    resource.parent, resource.owner = resource.id, "physical_disk"
    resource.leads("EnvironmentMetrics", "environment")


def _disk(resource: Resource, record: dict[str, Any], place: str, name: str | None) -> None:
    if is_absent(record):
        return
    failing = get(record, "FailurePredicted")
    resource.status(
        record, "physical_disk", id_=place, name=name, failing=failing if isinstance(failing, bool) else None
    )
    media = text(get(record, "MediaType"))
    kind = (("hw.physical_disk.type", media),) if media else ()
    above = resource.parent
    left = number(get(record, "PredictedMediaLifeLeftPercent"))
    if left is not None and 0 <= left <= 100:
        resource.reads(
            "hw.physical_disk.endurance_utilization", "1", left / 100, "physical_disk", kind="ratio",
            id_=place, name=name, parent=above, more=(("hw.physical_disk.state", "remaining"), *kind),
        )  # fmt: skip
    size = number(get(record, "CapacityBytes"))
    if size:
        resource.reads(
            "hw.physical_disk.size", "By", size, "physical_disk", id_=place, name=name, parent=above, more=kind
        )


def _simple_storage(resource: Resource) -> None:
    resource.status(resource.body, "disk_controller", rollup=True)
    resource.parent = resource.id
    for place, name, record in _entries(resource, "Devices"):
        _disk(resource, record, place, name)


def _volume(resource: Resource) -> None:
    body = resource.body
    resource.status(body, "logical_disk")
    level = text(get(body, "RAIDType"))
    raid = (("hw.logical_disk.raid_level", level),) if level and level != "None" else ()
    above, name = resource.parent, resource.name
    size = number(get(body, "CapacityBytes"))
    resource.reads("hw.logical_disk.limit", "By", size, "logical_disk", name=name, parent=above, more=raid)
    left = number(get(body, "RemainingCapacityPercent"))
    if left is not None and 0 <= left <= 100:
        resource.reads(
            "hw.logical_disk.utilization", "1", 1 - left / 100, "logical_disk", kind="ratio", name=name, parent=above,
            more=(("hw.logical_disk.state", "used"), *raid),
        )  # fmt: skip


def _adapter(resource: Resource) -> None:
    body = resource.body
    resource.status(body, "network")
    for position, record in enumerate(records(get(body, "Controllers"))):
        version = get(record, "FirmwarePackageVersion")
        resource.version(f"{resource.id}#/Controllers/{position}", resource.name, version)
    resource.parent = resource.id
    if not resource.leads("Ports", "port", collection=True):
        resource.leads("NetworkPorts", "port", collection=True)


def _port(resource: Resource) -> None:
    body = resource.body
    speed = number(get(body, "CurrentSpeedGbps"))
    megabits = number(get(body, "CurrentLinkSpeedMbps")) if speed is None else speed * 1_000
    _network(resource, megabits)


def _ethernet(resource: Resource) -> None:
    _network(resource, number(get(resource.body, "SpeedMbps")))


def _network(resource: Resource, megabits: float | None) -> None:
    body, above = resource.body, resource.parent
    if is_absent(body):
        return
    name = resource.name
    own = text(get(body, "Id"))
    # Interfaces are often all called alike.
    named = f"{name} {own}" if name and own and own not in name else name
    resource.status(body, "network", name=named)
    word = (text(get(body, "LinkStatus")) or "").lower()
    up = 1.0 if word in _LINK_UP else 0.0 if word in _LINK_DOWN else None
    resource.reads("hw.network.up", "1", up, "network", name=named, parent=above)
    if megabits and up:
        resource.reads("hw.network.bandwidth.limit", "By/s", megabits * 125_000, "network", name=named, parent=above)


def _log_service(resource: Resource) -> None:
    body = resource.body
    own = text(get(body, "Id")) or resource.id.rpartition("/")[2]
    # Codes of the firmware's start and memory dumps are no events.
    if get(body, "ServiceEnabled") is False or own.lower() in {"postcodes", "dump", "dumps", "crashdump"}:
        return
    if resource.leads("Entries", "entries"):
        resource.found.log = own


def _nothing(resource: Resource) -> None:
    """Entries of event logs are read in ``logs``."""


KINDS: Mapping[str, KindOf] = {
    "root": KindOf(_root, STRUCTURE),
    "chassis": KindOf(_chassis, EVERY_POLL, "enclosure"),
    "system": KindOf(_system, EVERY_POLL, "system"),
    "manager": KindOf(_manager, EVERY_POLL, "manager"),
    "update": KindOf(_update, STRUCTURE),
    "firmware": KindOf(_firmware, STRUCTURE),
    "thermal": KindOf(_thermal, EVERY_POLL),
    "power": KindOf(_power, EVERY_POLL),
    "thermal_subsystem": KindOf(_thermal_subsystem, COMPONENTS),
    "power_subsystem": KindOf(_power_subsystem, COMPONENTS),
    "thermal_metrics": KindOf(_thermal_metrics, EVERY_POLL),
    "environment": KindOf(_environment, EVERY_POLL),
    "fan": KindOf(_fan, EVERY_POLL),
    "power_supply": KindOf(_power_supply, EVERY_POLL, "power_supply"),
    "supply_metrics": KindOf(_supply_metrics, EVERY_POLL),
    "battery": KindOf(_battery, COMPONENTS, "battery"),
    "battery_metrics": KindOf(_battery_metrics, COMPONENTS),
    "sensor": KindOf(_sensor, EVERY_POLL),
    "processor": KindOf(_processor, COMPONENTS),
    "processor_metrics": KindOf(_processor_metrics, EVERY_POLL),
    "memory": KindOf(_memory, COMPONENTS),
    "memory_metrics": KindOf(_memory_metrics, COMPONENTS),
    "storage": KindOf(_storage, COMPONENTS),
    "controller": KindOf(_controller, COMPONENTS),
    "drive": KindOf(_drive, COMPONENTS),
    "simple_storage": KindOf(_simple_storage, COMPONENTS),
    "volume": KindOf(_volume, COMPONENTS),
    "adapter": KindOf(_adapter, COMPONENTS),
    "port": KindOf(_port, COMPONENTS),
    "ethernet": KindOf(_ethernet, COMPONENTS),
    "log_service": KindOf(_log_service, STRUCTURE),
    "entries": KindOf(_nothing, LOGS),
}


def read(
    kind: str, path: str, body: dict[str, Any], parent: str | None = None, owner: str = "enclosure"
) -> tuple[Found, str]:
    """What a resource of this kind holds, and the type of component that what it leads to belongs to.

    Never raises on content. ``path`` is that of the resource, ``parent`` the identifier of the component above.
    """
    resource = Resource(path, body, parent, owner)
    KINDS[kind].read(resource)
    return resource.found, KINDS[kind].owner or resource.owner
