"""Scoring against LibreNMS: what counts as found is found for a reason, on recordings made up here and on real ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from aiops_assets.collectors.snmp.engine import COUNTER32, INTEGER, IP_ADDRESS, NULL, OBJECT_ID, OCTETS
from aiops_assets.collectors.snmp.evaluate import evaluate_snmp, family
from aiops_assets.collectors.snmp.recording import read

DATA = Path(__file__).parents[3] / "shared" / "data" / "devices" / "snmp"
UPS = "1.3.6.1.2.1.33.1"


def write(folder: Path, name: str, lines: list[str], result: dict[str, Any]) -> None:
    for part in ("recordings", "results"):
        (folder / part).mkdir(exist_ok=True)
    (folder / "recordings" / f"{name}.snmprec").write_text("\n".join(lines) + "\n")
    (folder / "results" / f"{name}.json").write_text(json.dumps(result))


def sensor(kind: str, oid: str, current: float | None, **more: Any) -> dict[str, Any]:
    return {"sensor_class": kind, "sensor_oid": f".{oid}", "sensor_current": current, "poller_type": "snmp"} | more


def score(folder: Path) -> dict[str, Any]:
    return evaluate_snmp(folder / "recordings", folder / "results")


def test_recordings_are_read_with_their_types_and_damaged_lines_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.snmprec"
    path.write_bytes(
        b"1.3.6.1.2.1.1.1.0|4|a | b\n.1.3.6.1.2.1.1.2.0|6|.1.3.6.1.4.1.9\n1.3.6.1.2.1.1.3.0|4x|00ff\n"
        b"1.3.6.1.2.1.1.4.0|65|7\n1.3.6.1.2.1.1.5.0|2|\n1.3.6.1.2.1.1.6.0|64|192.0.2.1\n1.3.6.1.2.1.1.7.0|5|\n"
        b"1.3.6.1.2.1.1.8.0|2:writecache|value=1\nnonsense\n1.3.6.1.2.1.1.9.0|4|\xe9\n"
    )
    values = {oid[-2]: cell for oid, cell in read(path).items()}
    assert values == {
        1: (OCTETS, b"a | b"),
        2: (OBJECT_ID, (1, 3, 6, 1, 4, 1, 9)),
        3: (OCTETS, b"\x00\xff"),
        4: (COUNTER32, 7),
        6: (IP_ADDRESS, bytes([192, 0, 2, 1])),
        7: (NULL, None),
        9: (OCTETS, b"\xe9"),
    }
    assert INTEGER not in {kind for kind, _ in values.values()}


def test_a_sensor_counts_only_from_its_own_object_in_its_class_with_its_value(tmp_path: Path) -> None:
    lines = [f"{UPS}.2.4.0|2|87", f"{UPS}.2.5.0|2|2726", f"{UPS}.2.7.0|2|22", f"{UPS}.4.1.0|2|3"]
    rows = [
        sensor("charge", f"{UPS}.2.4.0", 87),
        sensor("voltage", f"{UPS}.2.5.0", 272.6),
        sensor("temperature", f"{UPS}.2.7.0", 35),  # another value
        sensor("voltage", f"{UPS}.2.7.0", 22),  # another class
        sensor("temperature", f"{UPS}.2.8.0", 22),  # another object
        sensor("state", f"{UPS}.4.1.0", 3, state_name="upsOutputSourceState"),
        sensor("temperature", f"{UPS}.2.7.0", 22, sensor_deleted=1),
        sensor("temperature", "1.3.6.1.4.1.1.1", 22, poller_type="ipmi"),
    ]
    write(tmp_path, "ups", lines, {"sensors": {"discovery": {"sensors": rows}, "poller": "matches discovery"}})
    found = score(tmp_path)
    assert found["counts"]["sensors"] == {"there": 6, "found": 3}
    assert found["share"] == {"ports": None, "processors": None, "mempools": None, "sensors": 0.5}
    assert found["classes"]["temperature"] == {"there": 2, "found": 0}
    assert len(found["missing"]["ups"]) == 3


def test_another_power_of_ten_is_found_and_counted_as_scaled(tmp_path: Path) -> None:
    write(
        tmp_path,
        "ups",
        [f"{UPS}.2.5.0|2|2726"],
        {"sensors": {"discovery": {"sensors": [sensor("voltage", f"{UPS}.2.5.0", 27.26)]}}},
    )
    found = score(tmp_path)
    assert found["counts"]["sensors"]["found"] == 1
    assert found["scaled"] == 1


def test_ports_are_found_by_their_index_state_and_counters(tmp_path: Path) -> None:
    interfaces, more = "1.3.6.1.2.1.2.2.1", "1.3.6.1.2.1.31.1.1.1"
    lines = []
    for index in range(1, 5):
        lines += [f"{interfaces}.2.{index}|4|eth{index}", f"{interfaces}.8.{index}|2|1"]
        lines += [f"{interfaces}.10.{index}|65|{1000 + index}", f"{more}.6.{index}|70|{2**32 + 1000 + index}"]
    lines.append(f"{interfaces}.2.6|4|only a name")

    def port(index: int, **more: Any) -> dict[str, Any]:
        return {"ifIndex": index, "ifOperStatus": "up", "ifInOctets": 2**32 + 1000 + index, "deleted": 0} | more

    polled = [
        port(1), port(2, ifOperStatus="down"), port(3, ifInOctets=5), port(4, ifInOctets=1004), port(5),
        port(6, ifOperStatus=None, ifInOctets=None), port(7, deleted=1),
    ]  # fmt: skip
    discovered = [{"ifIndex": row["ifIndex"], "ifName": "x", "deleted": row["deleted"]} for row in polled]
    write(tmp_path, "sw", lines, {"ports": {"discovery": {"ports": discovered}, "poller": {"ports": polled}}})
    assert score(tmp_path)["counts"]["ports"] == {"there": 6, "found": 3}


def test_one_reading_of_ours_counts_for_one_pool_or_processor_only(tmp_path: Path) -> None:
    load, storage = "1.3.6.1.2.1.25.3.3.1.2", "1.3.6.1.2.1.25.2.3.1"
    lines = [f"{storage}.2.1|6|1.3.6.1.2.1.25.2.1.2", f"{storage}.3.1|4|RAM", f"{storage}.4.1|2|1024"]
    lines += [f"{storage}.5.1|2|1000", f"{storage}.6.1|2|370", f"{load}.1|2|12"]
    pool = {"mempool_type": "hrstorage", "mempool_used_oid": f".{storage}.6.1", "mempool_perc": 37}
    processor = {"processor_oid": f".{load}.1", "processor_usage": 12}
    result = {
        "mempools": {"discovery": {"mempools": [pool | {"mempool_index": "1"}, pool | {"mempool_index": "2"}]}},
        "processors": {"discovery": {"processors": [processor, processor | {"processor_oid": f".{load}.2"}]}},
    }
    write(tmp_path, "host", lines, result)
    counts = score(tmp_path)["counts"]
    assert counts["mempools"] == {"there": 2, "found": 1}
    # the mean of all processors is a second point of the same value
    assert counts["processors"] == {"there": 2, "found": 2}


def test_missing_halves_and_damaged_results_are_said_and_do_no_harm(tmp_path: Path) -> None:
    write(tmp_path, "good", [f"{UPS}.2.4.0|2|87"], {"sensors": {"discovery": {"sensors": []}}})
    write(tmp_path, "odd", ["1.3.6.1.2.1.1.1.0|4|x"], {"sensors": "none", "ports": {"discovery": {"ports": None}}})
    write(tmp_path, "broken", [], {})
    (tmp_path / "results" / "broken.json").write_text("{")
    (tmp_path / "results" / "alone.json").write_text("{}")
    found = score(tmp_path)
    assert found["recordings"] == 3
    assert found["unpaired"] == 1
    assert found["devices"]["broken"]["error"]
    assert found["devices"]["odd"]["error"] is None


def test_folders_without_a_pair_are_refused_with_what_is_expected(tmp_path: Path) -> None:
    (tmp_path / "recordings").mkdir()
    with pytest.raises(FileNotFoundError, match="results is no folder"):
        score(tmp_path)
    (tmp_path / "results").mkdir()
    with pytest.raises(FileNotFoundError, match=r"NAME\.snmprec and NAME\.json"):
        score(tmp_path)


def test_families_are_named_by_operating_system() -> None:
    assert {family(name) for name in ("ios_4506", "ios", "arris-c3", "dlink_dgs-1510-28x-me")} == {
        "ios", "arris-c3", "dlink",
    }  # fmt: skip


@pytest.mark.skipif(not (DATA / "recordings").is_dir(), reason="recordings of devices are not here")
def test_real_recordings_give_what_librenms_finds(tmp_path: Path) -> None:
    names = [
        "netmanplus_mct20", "routeros_rb750gr3", "ios_4506", "zxr10_5928", "cnmatrix", "dsm_ds214se-dsm6", "gaia_1490",
        "brother_hl5370dw",
    ]  # fmt: skip
    for part, ending in (("recordings", "snmprec"), ("librenms_results", "json")):
        (tmp_path / part).mkdir()
        for name in names:
            (tmp_path / part / f"{name}.{ending}").symlink_to(DATA / part / f"{name}.{ending}")
    found = evaluate_snmp(tmp_path / "recordings", tmp_path / "librenms_results")
    assert found["recordings"] == len(names)
    for kind, bar in {"ports": 0.99, "processors": 0.9, "mempools": 0.9, "sensors": 0.8}.items():
        assert found["share"][kind] >= bar, found["missing"]
    assert max(device["requests_later"] for device in found["devices"].values()) < 15, "later polls are cheap"
