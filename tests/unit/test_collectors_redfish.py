"""What a Redfish poll makes of resources: both generations of schemas, partial services, changes, entities."""

from __future__ import annotations

import asyncio
import copy
import math
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiops_assets.collectors.document import Poll, document, encode
from aiops_assets.collectors.redfish.client import Answer, Missing, Service, ServiceError
from aiops_assets.collectors.redfish.poll import MOST_REQUESTS, RedfishPoller
from aiops_assets.config import Device
from aiops_assets.formats import parse
from aiops_assets.landing.segment import Delivery
from tests.examples import examples
from tests.redfish_service import Answers, Tree, below_root, entry, server_tree

NOW = 1_790_000_000.0


class Stub(Service):
    """A service without a wire: what ``answers`` holds is there at once."""

    answers: Answers

    async def get(self, path: str, etag: str | None = None) -> Answer:
        self.requests += 1
        status, body = self.answers.find(path)
        if status == 404:
            raise Missing(f"GET {path}: not there (404)")
        if status != 200:
            raise ServiceError(f"GET {path}: answers {status}")
        try:
            content = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise ServiceError(f"GET {path}: not JSON: {error}") from error
        if not isinstance(content, dict):
            raise ServiceError(f"GET {path}: expected a JSON object")
        return Answer(content)


class Bench:
    """A poller of a stub, with clocks in the test's hand."""

    def __init__(self, answers: Answers | None = None, state: dict[str, Any] | None = None, **fields: Any) -> None:
        self.answers = answers or Answers()
        self.now = NOW
        device = Device(name="web-1", kind="redfish", address="192.0.2.7", **fields)
        self.poller = RedfishPoller(device, state, self._service, lambda: self.now, lambda: self.now)

    def _service(self, device: Device) -> Stub:
        stub = Stub(device)
        stub.answers = self.answers
        return stub

    def poll(self, later: float = 60.0) -> Poll:
        self.now += later
        self.answers.asked.clear()
        return asyncio.run(self.poller.poll())

    @property
    def asked(self) -> list[str]:
        return [below_root(target) for target in self.answers.asked]


def values(outcome: Poll, metric: str, *labels: str) -> dict[Any, float]:
    """By hw.id, or by the labels named, the values of a metric."""
    names = labels or ("hw.id",)
    return {
        tuple(p["labels"].get(name) for name in names) if len(names) > 1 else p["labels"].get(names[0]): p["value"]
        for p in outcome.points
        if p["metric"] == metric
    }


def states(outcome: Poll) -> dict[str, str]:
    """The state of each component, by hw.id."""
    return {
        p["labels"]["hw.id"]: p["labels"]["hw.state"]
        for p in outcome.points
        if p["metric"] == "hw.status" and p["value"] == 1
    }


@pytest.fixture(scope="module")
def first() -> Poll:
    outcome = Bench().poll()
    assert outcome.up
    assert outcome.error is None
    return outcome


def test_temperatures_come_from_sensors_and_from_the_first_generation(first: Poll) -> None:
    found = values(first, "hw.temperature")
    assert found["Chassis/new/Sensors/intake"] == 22.5
    assert found["Chassis/old/Thermal#/Temperatures/0"] == 55
    assert found["Systems/1/Processors/1/Metrics"] == 61.5
    assert found["Chassis/new/ThermalSubsystem/ThermalMetrics#/TemperatureReadingsCelsius/1"] == 38


def test_a_place_named_twice_gives_two_series(first: Poll) -> None:
    assert values(first, "hw.temperature")["Chassis/old/Thermal#/Temperatures/1"] == 44


def test_null_absent_and_disabled_sensors_give_no_reading(first: Poll) -> None:
    assert {"Unread", "Not there", "Not in service"} & set(values(first, "hw.temperature", "hw.name")) == set()


def test_where_both_generations_are_there_the_one_that_tells_more_is_believed(first: Poll) -> None:
    assert "Intake, as it was" not in values(first, "hw.temperature", "hw.name")


def test_the_first_generation_stands_in_where_the_second_has_no_readings() -> None:
    bench = Bench()
    for path in [path for path in bench.answers.tree if path.startswith("Chassis/new/Sensors")]:
        del bench.answers.tree[path]
    del bench.answers.tree["Chassis/new/ThermalSubsystem/ThermalMetrics"]
    bench.answers.tree["Chassis/new/EnvironmentMetrics"] = {}
    outcome = bench.poll()
    assert outcome.up
    assert values(outcome, "hw.temperature", "hw.name")["Intake, as it was"] == 21
    again = bench.poll()
    assert values(again, "hw.temperature", "hw.name")["Intake, as it was"] == 21


def test_fans_have_speeds_and_ratios(first: Poll) -> None:
    speeds, ratios = values(first, "hw.fan.speed"), values(first, "hw.fan.speed_ratio")
    assert speeds["Chassis/new/Sensors/fan1"] == 4200
    assert ratios["Chassis/new/Sensors/fan1"] == pytest.approx(0.4)
    assert speeds["Chassis/old/Thermal#/Fans/a"] == 5100
    assert ratios["Chassis/old/Thermal#/Fans/b"] == pytest.approx(0.35)


def test_power_of_the_whole_is_told_from_that_of_parts(first: Poll) -> None:
    whole, parts = values(first, "hw.host.power"), values(first, "hw.power")
    assert whole == {"Chassis/new/Sensors/total": 212, "Chassis/old/Power#/PowerControl/0": 301}
    assert parts["Chassis/old/Power#/PowerControl/1"] == 120
    assert "Chassis/new/Sensors/total" not in parts


def test_power_supplies_have_input_output_capacity_and_health(first: Poll) -> None:
    new, old = "Chassis/new/PowerSubsystem/PowerSupplies/1", "Chassis/old/Power#/PowerSupplies/0"
    assert values(first, "hw.power_supply.limit") == {new: 800, old: 600}
    assert values(first, "hw.power_supply.usage") == {f"{new}/Metrics#/OutputPowerWatts": 190, old: 150}
    assert values(first, "hw.power_supply.utilization") == {old: 0.25}
    power = values(first, "hw.power")
    assert (power[f"{new}/Metrics#/InputPowerWatts"], power[old]) == (210, 160)
    volts = values(first, "hw.voltage")
    assert (volts[f"{new}/Metrics#/InputVoltage"], volts[old]) == (230.5, 119)
    assert values(first, "hw.energy.total") == {f"{new}/Metrics#/EnergykWh": 7_200_000}
    assert (states(first)[new], states(first)[old]) == ("ok", "failed")


def test_redundancy_has_a_state(first: Poll) -> None:
    found = states(first)
    assert found["Chassis/new/PowerSubsystem#/PowerSupplyRedundancy/0"] == "ok"
    assert found["Chassis/new/ThermalSubsystem#/FanRedundancy/0"] == "failed"
    assert found["Chassis/old/Power#/Redundancy/0"] == "degraded"


def test_drives_have_health_life_left_and_announced_failure(first: Poll) -> None:
    disk = "Systems/1/Storage/1/Drives/0"
    found = values(first, "hw.status", "hw.id", "hw.state")
    assert found[disk, "ok"] == 1
    assert found[disk, "predicted_failure"] == 1
    assert found["Systems/1/Storage/1/Drives/1", "failed"] == 1
    assert found["Systems/1/Storage/1/Drives/1", "predicted_failure"] == 0
    assert values(first, "hw.physical_disk.endurance_utilization") == {disk: 0.87}
    sizes = values(first, "hw.physical_disk.size", "hw.id", "hw.physical_disk.type")
    assert sizes[disk, "SSD"] == 960e9


def test_a_drive_of_controller_and_chassis_belongs_to_the_controller(first: Poll) -> None:
    parents = values(first, "hw.physical_disk.size", "hw.id", "hw.parent")
    assert ("Systems/1/Storage/1/Drives/0", "Systems/1/Storage/1") in parents


def test_volumes_memory_processors_and_links(first: Poll) -> None:
    found = states(first)
    assert found["Systems/1/Storage/1/Volumes/1"] == "degraded"
    assert found["Systems/1/Memory/A1"] == "degraded"
    assert "Systems/1/Memory/A2" not in found
    assert found["Systems/1/Processors/1"] == "ok"
    assert values(first, "hw.logical_disk.utilization") == {"Systems/1/Storage/1/Volumes/1": 0.75}
    assert values(first, "hw.memory.size") == {"Systems/1/Memory/A1": 16384 * 1024 * 1024}
    assert values(first, "hw.errors.total", "error.type") == {"correctable": 12, "uncorrectable": 0}
    assert values(first, "hw.cpu.speed") == {"Systems/1/Processors/1": 2.4e9}
    ports = "Chassis/new/NetworkAdapters/1/Ports"
    assert values(first, "hw.network.up") == {
        f"{ports}/1": 1, f"{ports}/2": 0, "Systems/1/EthernetInterfaces/eno1": 1,
    }  # fmt: skip
    assert values(first, "hw.network.bandwidth.limit")[f"{ports}/1"] == 1.25e9


def test_roll_up_health_power_state_and_unknown_sensors(first: Poll) -> None:
    found = states(first)
    assert found["Chassis/new"] == "degraded"
    assert found["Systems/1/Storage/1"] == "failed"
    assert "Chassis/bare" not in found
    assert values(first, "hw.host.power_state") == {"Systems/1": 1}
    assert values(first, "hw.sensor.altitude") == {"Chassis/new/Sensors/odd": 411}


def test_every_hardware_point_names_its_component_and_kind(first: Poll) -> None:
    for made in first.points:
        if made["metric"].startswith("hw."):
            assert made["labels"]["hw.id"]
            assert made["labels"]["hw.type"]


def test_the_device_is_an_entity_that_depends_on_its_chassis(first: Poll) -> None:
    assert first.entity is not None
    labels = first.entity["labels"]
    assert {name: labels[name] for name in ("vendor", "model", "serial", "sku", "bios_version", "bmc_version")} == {
        "vendor": "Example", "model": "R1", "serial": "S-1", "sku": "K-1", "bios_version": "U30 2.10",
        "bmc_version": "5.10",
    }  # fmt: skip
    assert labels["firmware.System BIOS"] == "U30 2.10"
    assert labels["firmware.Disk 0"] == "F1"
    assert "U30 2.00" not in labels.values()
    assert first.entity["depends_on"] == ["chassis CH-1", "chassis ENC-9"]
    [chassis] = [one for one in first.fetched if one.format == "collected"]
    documents = orjson.loads(chassis.body)
    assert [(one["host"], one["entity"]["depends_on"]) for one in documents] == [
        ("chassis CH-1", ["chassis ENC-9"]),
        ("chassis ENC-9", []),
    ]


def test_series_keep_their_names_from_poll_to_poll_and_none_comes_twice(first: Poll) -> None:
    bench = Bench()
    known = {orjson.dumps([p["metric"], p["labels"]], option=orjson.OPT_SORT_KEYS) for p in bench.poll().points}
    for _ in range(6):
        keys = [orjson.dumps([p["metric"], p["labels"]], option=orjson.OPT_SORT_KEYS) for p in bench.poll().points]
        assert len(keys) == len(set(keys))
        assert set(keys) <= known


def test_later_polls_read_readings_always_and_the_rest_in_turns() -> None:
    bench = Bench(interval=60)
    bench.poll()
    whole = len(bench.asked)
    second = bench.poll()
    assert len(bench.asked) < whole / 2
    assert values(second, "hw.temperature")["Chassis/old/Thermal#/Temperatures/0"] == 55
    seen: set[str] = set()
    for _ in range(16):
        bench.poll()
        seen.update(bench.asked)
        assert len(bench.asked) <= MOST_REQUESTS
    assert "Systems/1/Memory/A1" in seen
    assert "UpdateService/FirmwareInventory/BIOS" in seen


def test_collections_that_can_be_expanded_come_in_one_request() -> None:
    plain, bench = Bench(), Bench(Answers(expands=True))
    features = {"ExpandQuery": {"NoLinks": True, "ExpandAll": True, "Levels": True}}
    bench.answers.tree[""]["ProtocolFeaturesSupported"] = features
    one, other = plain.poll(), bench.poll()
    assert len(bench.asked) < 0.75 * len(plain.asked)
    assert "Chassis/new/Sensors/intake" not in bench.asked
    assert values(one, "hw.temperature") == values(other, "hw.temperature")
    assert values(one, "hw.status", "hw.id", "hw.state") == values(other, "hw.status", "hw.id", "hw.state")
    plain.poll()
    bench.poll()
    assert len(bench.asked) < len(plain.asked)


def test_expansion_that_is_advertised_but_fails_is_left_alone() -> None:
    bench = Bench()
    bench.answers.tree[""]["ProtocolFeaturesSupported"] = {"ExpandQuery": {"NoLinks": True, "Levels": True}}
    find = bench.answers.find
    bench.answers.find = lambda target: (501, b"{}") if "$expand" in target else find(target)  # type: ignore[method-assign]
    outcome = bench.poll()
    assert outcome.error is None
    assert values(outcome, "hw.temperature")["Chassis/new/Sensors/intake"] == 22.5
    bench.poll(1000)
    assert not [target for target in bench.answers.asked if "$expand" in target]


def test_collections_come_in_pages_and_pages_that_turn_in_circles_end() -> None:
    bench = Bench(Answers(page=2))
    assert values(bench.poll(), "hw.temperature") == values(Bench().poll(), "hw.temperature")
    circle = Bench()
    circle.answers.tree["Chassis"]["Members@odata.nextLink"] = "/redfish/v1/Chassis?$skiptoken=1"
    assert circle.poll().up
    assert circle.asked.count("Chassis") == 2


def test_a_service_without_root_is_read_at_the_usual_places() -> None:
    bench = Bench()
    del bench.answers.tree[""]
    outcome = bench.poll()
    assert outcome.up
    assert values(outcome, "hw.temperature")["Chassis/new/Sensors/intake"] == 22.5


def test_names_in_another_case_and_untyped_resources_are_read() -> None:
    def lowered(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                key if key.startswith("@") else key.lower(): lowered(inner)
                for key, inner in value.items()
                if key != "@odata.type"
            }
        return [lowered(inner) for inner in value] if isinstance(value, list) else value

    bench = Bench(Answers({path: lowered(body) for path, body in server_tree().items()}))
    assert values(bench.poll(), "hw.temperature") == values(Bench().poll(), "hw.temperature")


def test_a_chassis_without_anything_and_links_to_nowhere_take_nothing_away() -> None:
    bench = Bench()
    for path in ("Chassis/new/EnvironmentMetrics", "Chassis/old/Power", "Systems/1/Memory", "Chassis/bare"):
        del bench.answers.tree[path]
    outcome = bench.poll()
    assert outcome.up
    assert outcome.error is None
    assert values(outcome, "hw.temperature")["Chassis/old/Thermal#/Temperatures/0"] == 55


def test_what_cannot_be_read_is_named_and_the_rest_is_there() -> None:
    bench = Bench()
    bench.answers.wrong["Chassis/old/Thermal"] = b"<html>busy</html>"
    bench.answers.wrong["Systems/1/Storage"] = 500
    outcome = bench.poll()
    assert outcome.up
    assert "Chassis/old/Thermal: not JSON" in str(outcome.error)
    assert "Systems/1/Storage: answers 500" in str(outcome.error)
    assert values(outcome, "hw.temperature")["Chassis/new/Sensors/intake"] == 22.5
    bench.answers.wrong.clear()
    later = bench.poll()
    assert values(later, "hw.temperature")["Chassis/old/Thermal#/Temperatures/0"] == 55
    assert bench.poll().error is None


def test_a_resource_that_is_not_there_is_asked_for_ever_more_rarely() -> None:
    bench = Bench()
    bench.answers.wrong["Chassis/old/Thermal"] = 404
    asked = 0
    for _ in range(30):
        bench.poll()
        asked += bench.asked.count("Chassis/old/Thermal")
    assert 3 <= asked <= 8


def test_members_that_vanish_are_forgotten() -> None:
    bench = Bench()
    bench.poll()
    bench.answers.tree["Chassis"]["Members"] = bench.answers.tree["Chassis"]["Members"][:1]
    bench.poll(1000)
    bench.poll()
    assert not [path for path in bench.asked if path.startswith("Chassis/old")]


def test_nothing_but_the_device_is_ever_asked() -> None:
    bench = Bench()
    tree = bench.answers.tree
    tree["Chassis/old"]["Thermal"] = {"@odata.id": "https://elsewhere.example/redfish/v1/Chassis/x/Thermal"}
    tree["Chassis/old"]["Power"] = {"@odata.id": "/redfish/v1/../../etc/passwd"}
    tree["Chassis/new"]["Thermal"] = {"@odata.id": "//elsewhere.example/redfish/v1/x"}
    tree["Systems/1"]["Memory"] = {"@odata.id": "/admin/users"}
    tree["Systems/1"]["Processors"] = {"@odata.id": "https://192.0.2.7/redfish/v1/Systems/1/Processors"}
    outcome = bench.poll()
    assert outcome.up
    assert all(target.startswith("/redfish/") and ".." not in target for target in bench.answers.asked)
    assert "Systems/1/Processors/1" in bench.asked


# --- changes ----------------------------------------------------------------------------------------------------------


def restarted(bench: Bench) -> Bench:
    """Another life of the collector with the state of the one before."""
    state = orjson.loads(orjson.dumps(bench.poller.state()))
    other = Bench(bench.answers, state)
    other.now = bench.now
    return other


def test_a_new_firmware_version_is_one_change_whoever_reports_it() -> None:
    bench = Bench()
    assert bench.poll().changes == []
    bench = restarted(bench)
    bench.answers.tree["Systems/1"]["BiosVersion"] = "U30 2.20"
    bench.answers.tree["UpdateService/FirmwareInventory/BIOS"]["Version"] = "U30 2.20"
    [change] = bench.poll().changes
    assert change["kind"] == "firmware"
    assert change["details"]["version_before"] == "U30 2.10"
    assert change["details"]["version"] == "U30 2.20"
    assert bench.poll().changes == []


def test_a_version_within_an_identifier_is_no_other_component() -> None:
    bench = Bench()
    bench.poll()
    tree = bench.answers.tree
    body = tree.pop("UpdateService/FirmwareInventory/Installed-9-1.2__NIC.Slot.1")
    moved = "UpdateService/FirmwareInventory/Installed-9-1.3__NIC.Slot.1"
    tree[moved] = body | {"Id": moved.rpartition("/")[2], "Version": "1.3"}
    tree["UpdateService/FirmwareInventory"]["Members"][2] = {"@odata.id": f"/redfish/v1/{moved}"}
    [change] = [change for _ in range(3) for change in bench.poll(500).changes]
    assert (change["details"]["version_before"], change["details"]["version"]) == ("1.2", "1.3")


def test_a_restart_is_told_by_the_time_of_the_last_reset() -> None:
    bench = Bench()
    bench.poll()
    bench = restarted(bench)
    bench.answers.tree["Systems/1"]["LastResetTime"] = "2026-09-21T14:13:00Z"
    outcome = bench.poll()
    [change] = outcome.changes
    assert (change["kind"], change["title"]) == ("reboot", "web-1 restarted")
    assert (bench.now - 60) * 1e6 <= change["ts"] <= bench.now * 1e6
    assert bench.poll().changes == []


def test_a_restart_is_told_by_the_count_of_boots() -> None:
    bench = Bench()
    bench.poll()
    bench.answers.tree["Systems/1"]["Oem"]["Example"]["BootCount"] = 8
    assert [change["kind"] for change in bench.poll().changes] == ["reboot"]


def test_after_a_restart_of_the_controller_everything_is_looked_at_anew() -> None:
    bench = Bench()
    bench.answers.tree["Managers/bmc"]["LastResetTime"] = "2026-01-01T00:00:00Z"
    bench.poll()
    whole = len(bench.asked)
    bench.answers.tree["Managers/bmc"]["LastResetTime"] = "2026-09-21T14:13:00Z"
    [change] = bench.poll().changes
    assert change["title"] == "management controller of web-1 restarted"
    bench.poll()
    assert len(bench.asked) >= whole - 2


def test_a_reset_time_that_is_counted_back_from_now_is_no_restart() -> None:
    bench = Bench()
    bench.poll()
    bench.answers.tree["Systems/1"]["LastResetTime"] = "2026-01-02T03:04:39Z"
    assert bench.poll().changes == []


# --- event logs -------------------------------------------------------------------------------------------------------


def fetched_entries(outcome: Poll) -> list[str]:
    return [
        record["Id"]
        for one in outcome.fetched
        if one.format == "redfish_log"
        for record in orjson.loads(one.body)["entries"]
    ]


def with_log(*entries: dict[str, Any]) -> Bench:
    bench = Bench()
    bench.answers.tree["Systems/1/LogServices/SEL/Entries"] = {"Members": list(entries)}
    return bench


def test_new_log_entries_are_delivered_once_and_old_ones_not_at_all() -> None:
    bench = with_log(entry(1, NOW - 90 * 86_400), entry(2, NOW - 3600))
    outcome = bench.poll()
    assert fetched_entries(outcome) == ["2"]
    assert outcome.delivered is not None
    outcome.delivered()
    assert fetched_entries(bench.poll()) == []
    bench.answers.tree["Systems/1/LogServices/SEL/Entries"]["Members"].append(entry(3, bench.now))
    outcome = bench.poll()
    assert fetched_entries(outcome) == ["3"]


def test_entries_that_were_not_stored_are_fetched_again_with_the_same_identity() -> None:
    bench = with_log(entry(1, NOW - 600))
    lost = bench.poll()
    bench = restarted(bench)
    again = bench.poll()
    assert fetched_entries(again) == ["1"]
    first_id, second_id = (
        next(one.delivery_id for one in outcome.fetched if one.format == "redfish_log") for outcome in (lost, again)
    )
    assert first_id == second_id
    assert again.delivered is not None
    again.delivered()
    assert fetched_entries(restarted(bench).poll()) == []


def test_entries_under_way_to_the_landing_zone_are_not_fetched_meanwhile() -> None:
    bench = with_log(entry(1, NOW - 600))
    outcome = bench.poll()
    assert fetched_entries(bench.poll()) == []
    assert outcome.delivered is not None
    outcome.delivered()
    bench.answers.tree["Systems/1/LogServices/SEL/Entries"]["Members"].append(entry(2, bench.now))
    assert fetched_entries(bench.poll()) == ["2"]


def test_a_long_log_is_read_on_from_its_last_page_and_nothing_is_missed() -> None:
    bench = with_log(*(entry(number, NOW - 6 * 86_400 + number) for number in range(1, 96)))
    bench.answers.page = 10
    log = bench.answers.tree["Systems/1/LogServices/SEL/Entries"]["Members"]
    stored: list[str] = []

    def read_log() -> int:
        outcome = bench.poll()
        stored.extend(fetched_entries(outcome))
        if outcome.delivered is not None:
            outcome.delivered()
        return bench.asked.count("Systems/1/LogServices/SEL/Entries")

    assert read_log() == 10
    log.append(entry(96, bench.now))
    assert read_log() == 1
    for number in range(97, 131):
        log.append(entry(number, bench.now))
    assert read_log() <= 5
    # The oldest make room for more than a page of new ones.
    del log[:60]
    log.extend(entry(number, bench.now) for number in range(131, 171))
    read_log()
    read_log()
    log.clear()
    log.append(entry(1, bench.now, "cleared"))
    read_log()
    assert stored == [*(str(number) for number in range(1, 171)), "1"]


def test_logs_that_hold_only_links_are_followed() -> None:
    bench = Bench()
    paths = [f"Systems/1/LogServices/SEL/Entries/{number}" for number in (1, 2)]
    bench.answers.tree["Systems/1/LogServices/SEL/Entries"] = {
        "Members": [{"@odata.id": f"/redfish/v1/{path}"} for path in paths]
    }
    for number, path in enumerate(paths, 1):
        bench.answers.tree[path] = entry(number, NOW - 600)
    assert sorted(fetched_entries(bench.poll())) == ["1", "2"]


def test_an_unset_clock_of_the_controller_is_noticed() -> None:
    bench = with_log(entry(1, 1_000_000_000))
    bench.answers.tree["Managers/bmc"]["DateTime"] = "2001-09-09T01:46:45Z"
    bench.poll()
    bench.answers.tree["Systems/1/LogServices/SEL/Entries"]["Members"].append(entry(2, 1_000_000_100))
    bench.answers.tree["Managers/bmc"]["DateTime"] = "2001-09-09T01:48:45Z"
    outcome = restarted(bench).poll()
    [one] = [one for one in outcome.fetched if one.format == "redfish_log"]
    ahead = orjson.loads(one.body)["clock_ahead_us"]
    assert abs(ahead / 1e6 - (1_000_000_125 - bench.now)) < 200


# --- anything at all --------------------------------------------------------------------------------------------------

JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**62), 2**62)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(["OK", "Critical", "LinkUp", "2026-01-01T00:00:00Z", "/redfish/v1/Chassis/new", "-1", "NaN"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["@odata.id", "Members", "Status", "Reading", "Name", "Id", "x"]), inner, max_size=3
        )
    ),
    max_leaves=4,
)


def mutated(tree: Tree, changes: list[tuple[int, Any]]) -> Tree:
    """The tree with junk in the places that the numbers name."""
    tree = copy.deepcopy(tree)
    places: list[tuple[Any, Any]] = []

    def collect(value: Any) -> None:
        pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, inner in list(pairs):
            places.append((value, key))
            collect(inner)

    collect(tree)
    for number, junk in changes:
        holder, key = places[number % len(places)]
        holder[key] = junk
    return tree


@settings(max_examples=examples(120), deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10_000), JUNK), min_size=1, max_size=25), st.booleans())
def test_no_content_makes_a_poll_fail_or_a_document_unreadable(changes: list[tuple[int, Any]], expands: bool) -> None:
    tree = server_tree()
    tree["Systems/1/LogServices/SEL/Entries"] = {"Members": [entry(number, NOW - number) for number in range(3)]}
    tree[""]["ProtocolFeaturesSupported"] = {"ExpandQuery": {"NoLinks": True, "Levels": True}}
    tree = mutated(tree, changes)
    answers = Answers(tree, expands=expands)
    find = answers.find

    def tolerant(target: str) -> tuple[int, bytes]:
        try:
            return find(target)
        except (TypeError, KeyError, AttributeError):
            return 200, orjson.dumps(tree.get(below_root(target)))

    answers.find = tolerant  # type: ignore[method-assign]
    bench = Bench(answers)
    for _ in range(2):
        outcome = bench.poll()
        made = document("web-1", "redfish", int(bench.now * 1e6), outcome, 0.1)
        assert all(math.isfinite(p["value"]) for p in made["points"])
        bodies = [("collected", encode(made)), *((one.format, one.body) for one in outcome.fetched)]
        for name, body in bodies:
            delivery = Delivery("d", int(bench.now * 1e6), "redfish", "application/json", body, {"format": name})
            assert parse(name, [delivery]).rejects == []
        orjson.dumps(bench.poller.state())
        if outcome.delivered is not None:
            outcome.delivered()
