"""The main job on real input: this machine, a real snmpd, and CloudWatch series sent as Telegraf line protocol."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import polars as pl
import pytest

from aiops_assets.lake.tables import Lake
from aiops_assets.landing.quarantine import Quarantine
from aiops_assets.live.progress import SourceProgress, read_progress
from aiops_assets.settings import load_settings
from tests.stack import Stack, free_port, running, wait_until

SNMPD = shutil.which("snmpd") or shutil.which("snmpd", path="/usr/sbin")
CLOUDWATCH = load_settings().real_data / "nab" / "data" / "realAWSCloudwatch"

CONFLICT = "another value is stored for this series and time"

CONFIG = """
devices:
  - name: lab-agent
    address: 127.0.0.1:{port}
    interval: 5s
    snmp: {{version: "2c", community: lab}}
rules:
  - {{name: cloudwatch-high, metric: "cloudwatch.*", op: ">", value: 1e12}}
  - {{name: queue-too-long, metric: shop.queue, op: ">=", value: 500, severity: critical}}
entities:
  - {{name: shop-1, kind: host, impact: 1}}
"""


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A real snmpd on loopback; its port."""
    if SNMPD is None:
        pytest.skip("snmpd is not installed (Debian: apt-get install snmpd)")
    folder, port = tmp_path_factory.mktemp("snmpd"), free_port()
    (folder / "snmpd.conf").write_text(
        f"agentAddress udp:127.0.0.1:{port}\nrocommunity lab\n[snmp] persistentDir {folder}\n"
    )
    log = (folder / "snmpd.log").open("wb")
    process = subprocess.Popen(
        [SNMPD, "-f", "-Lo", "-C", "-c", str(folder / "snmpd.conf"), "-p", str(folder / "pid")], stdout=log, stderr=log
    )
    try:
        wait_until(lambda: process.poll() is None and _listens(port), 10, "snmpd listens")
        yield port
    finally:
        process.terminate()
        process.wait(10)
        log.close()


def _listens(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
        return False


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, agent: int) -> Iterator[Stack]:
    home = tmp_path_factory.mktemp("platform") / "home"
    home.mkdir()
    (home / "aiops.yaml").write_text(CONFIG.format(port=agent))
    with running(home) as stack:
        yield stack


def post(stack: Stack, body: str, path: str = "/webhooks/telegraf", **headers: str) -> None:
    headers |= {"Authorization": f"Bearer {stack.key}"}
    answer = httpx.post(stack.url + path, content=body, headers=headers, timeout=30)
    assert answer.is_success, answer.text


def points(stack: Stack, source: str) -> pl.DataFrame:
    return Lake(stack.home / "lake").scan("metric_points").filter(pl.col("source") == source).collect()


def test_this_machine_is_measured(stack: Stack) -> None:
    expected = {
        "system.cpu.utilization",
        "system.memory.utilization",
        "system.filesystem.utilization",
        "system.network.io",
    }
    wait_until(lambda: expected <= set(points(stack, "host")["metric"]), 60, "host metrics are stored")
    busy = points(stack, "host").filter(pl.col("metric") == "system.cpu.utilization")["value"]
    assert busy.is_between(0, 1).all()


def test_a_real_snmp_agent_is_polled(stack: Stack) -> None:
    wait_until(lambda: "system.network.io" in points(stack, "snmp")["metric"], 60, "interface rates are stored")
    rows = points(stack, "snmp").filter(pl.col("host") == "lab-agent")
    assert {"aiops.device.up", "system.uptime", "system.network.io", "system.network.up"} <= set(rows["metric"])
    assert rows.filter(pl.col("metric") == "aiops.device.up")["value"].eq(1).all()


def repetitions(stack: Stack, source: str) -> int:
    seen = read_progress(stack.home / "live").sources.get(source, SourceProgress())
    return seen.duplicates + seen.conflicts


def lines_of(path: Path) -> pl.DataFrame:
    return pl.read_csv(path, try_parse_dates=True).with_columns(pl.col("timestamp").dt.epoch("ns"))


@pytest.mark.skipif(not CLOUDWATCH.is_dir(), reason=f"no real data at {CLOUDWATCH} (AIOPS_REAL_DATA)")
def test_cloudwatch_series_arrive_whole_as_line_protocol(stack: Stack) -> None:
    sent: dict[str, pl.DataFrame] = {}
    for path in sorted(CLOUDWATCH.glob("*.csv")):
        series = lines_of(path)
        sent[path.stem] = series.unique("timestamp", keep="first", maintain_order=True)
        lines = [f"cloudwatch,host={path.stem} value={value} {at}" for at, value in series.iter_rows()]
        for start in range(0, len(lines), 1000):
            part = "\n".join(lines[start : start + 1000])
            post(stack, part, "/webhooks/telegraf?source=cloudwatch", **{"X-Aiops-History": "1"})
    total = sum(frame.height for frame in sent.values())
    wait_until(lambda: points(stack, "cloudwatch").height >= total, 90, f"{total} CloudWatch points are stored")
    stored = points(stack, "cloudwatch")
    assert stored.height == total
    assert stored.select("series_id", "ts").is_unique().all()
    for host, frame in sent.items():
        mine = stored.filter(pl.col("host") == host).sort("ts")
        assert mine["value"].to_list() == frame.sort("timestamp")["value"].cast(pl.Float64).to_list()
    # The session tells of a batch after its commit. What repeats a time with another value waits in quarantine.
    repeated = sum(lines_of(path).height for path in CLOUDWATCH.glob("*.csv")) - total
    wait_until(lambda: repetitions(stack, "cloudwatch") >= repeated, 30, f"{repeated} repetitions are counted")
    assert set(Quarantine(stack.home / "quarantine").counts().get("cloudwatch", {})) <= {CONFLICT}


def test_a_breached_rule_becomes_an_incident_with_a_page(stack: Stack) -> None:
    post(stack, f"shop,host=shop-1 queue=900 {time.time_ns()}")

    def incidents() -> list[dict[str, object]]:
        answer = httpx.get(f"{stack.url}/api/incidents", headers={"Authorization": f"Bearer {stack.key}"}, timeout=10)
        found = answer.json()["incidents"]
        return [entry for entry in found if "shop-1" in entry["hosts"]]

    wait_until(incidents, 30, "an incident for shop-1")
    (incident,) = incidents()
    assert incident["priority"] == 1
    headers = {"Authorization": f"Bearer {stack.key}"}
    page = httpx.get(f"{stack.url}/incidents/{incident['incident_id']}", headers=headers, timeout=10)
    assert page.status_code == 200
    assert "shop-1" in page.text


def test_the_asset_graph_shows_what_was_stored(stack: Stack) -> None:
    query = "{ assetNodes { assetKey { path } assetMaterializations(limit: 1) { partition } } }"

    def materialised() -> set[str]:
        answer = httpx.post(f"http://127.0.0.1:{stack.dagster_port}/graphql", json={"query": query}, timeout=20)
        nodes = answer.json()["data"]["assetNodes"]
        return {"/".join(node["assetKey"]["path"]) for node in nodes if node["assetMaterializations"]}

    wanted = {"metric_points", "series", "entities", "drops/host", "drops/snmp"}
    wait_until(lambda: wanted <= materialised(), 60, f"{wanted} are materialised")
