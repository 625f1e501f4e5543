"""Redfish over HTTP and TLS: sessions, certificates, faults of real controllers, and the way to the landing zone."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import os
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
import yaml

from aiops_assets.collectors.document import Poll
from aiops_assets.collectors.redfish.poll import RedfishPoller, poll_once
from aiops_assets.config import Config, Device
from aiops_assets.formats import parse
from aiops_assets.landing.reader import read_segment, writers
from aiops_assets.landing.segment import Delivery
from tests.redfish_service import PASSWORD, USER, Certificate, RedfishService, certificate, entry
from tests.stack import free_port, wait_until

RACK = Path(os.environ.get("AIOPS_REAL_DATA", "../shared/data")) / "devices" / "redfish" / "public-rackmount1"
SEL = "Systems/1/LogServices/SEL/Entries"
needs_sushy = pytest.mark.skipif(
    importlib.util.find_spec("sushy_tools") is None, reason="sushy-tools is not installed (pip install sushy-tools)"
)


@pytest.fixture(scope="module")
def own_certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return certificate(tmp_path_factory.mktemp("certificate"))


def device(
    service: RedfishService, name: str = "web-1", redfish: dict[str, Any] | None = None, **fields: Any
) -> Device:
    credentials: dict[str, Any] = {"scheme": "http", "user": USER, "password": PASSWORD} | (redfish or {})
    given = {"timeout": 5, "retries": 1} | fields
    return Device(name=name, kind="redfish", address=service.address, redfish=credentials, **given)


def polled(target: Device, count: int = 1, between: Callable[[int], None] | None = None) -> list[Poll]:
    """Polls of one poller, closed at the end; ``between`` is called before each but the first."""

    async def run() -> list[Poll]:
        poller = RedfishPoller(target)
        outcomes = []
        try:
            for number in range(count):
                if number and between is not None:
                    between(number)
                outcomes.append(await poller.poll())
                if outcomes[-1].delivered is not None:
                    outcomes[-1].delivered()
        finally:
            closing = poller.close()
            if closing is not None:
                await closing
        return outcomes

    return asyncio.run(run())


def temperatures(outcome: Poll) -> dict[str, float]:
    return {p["labels"]["hw.id"]: p["value"] for p in outcome.points if p["metric"] == "hw.temperature"}


INTAKE, CPU = "Chassis/new/Sensors/intake", "Chassis/old/Thermal#/Temperatures/0"


# --- who we are and whom we talk to -----------------------------------------------------------------------------------


def test_one_session_serves_all_polls_and_is_ended_at_the_close() -> None:
    with RedfishService() as service:
        outcomes = polled(device(service), 3)
        assert [outcome.error for outcome in outcomes] == [None, None, None]
        assert temperatures(outcomes[0])[INTAKE] == 22.5
        assert (service.counts["login"], service.counts["logout"]) == (1, 1)
        assert service.tokens == {}
        assert service.authorizations == []


def test_a_session_that_ends_is_renewed_once_and_nothing_is_missing() -> None:
    with RedfishService() as service:
        fresh, expired = polled(device(service), 2, lambda _: service.expire())
        assert expired.error is None
        assert temperatures(expired)[INTAKE] == 22.5
        assert service.counts["login"] == 2
        assert fresh.up


def test_a_session_that_ends_amid_a_poll_is_renewed() -> None:
    with RedfishService() as service:
        seen: list[str] = []

        def before(path: str) -> None:
            seen.append(path)
            if len(seen) == 20:
                service.expire()

        service.before = before
        [outcome] = polled(device(service))
        assert outcome.error is None
        assert service.counts["login"] == 2


def test_where_sessions_are_refused_basic_authentication_serves() -> None:
    with RedfishService(sessions=False) as service:
        [outcome] = polled(device(service))
        assert outcome.error is None
        assert temperatures(outcome)[INTAKE] == 22.5
        assert service.counts["login"] == 1
        assert service.authorizations


def test_basic_authentication_can_be_asked_for() -> None:
    with RedfishService() as service:
        [outcome] = polled(device(service, redfish={"session": False}))
        assert outcome.error is None
        assert service.counts["login"] == 0


@pytest.mark.parametrize("session", [True, False])
def test_refused_credentials_are_not_tried_again_at_once(session: bool) -> None:
    with RedfishService(password="another one") as service:
        outcomes = polled(device(service, redfish={"session": session}), 4)
        assert not any(outcome.up for outcome in outcomes)
        assert all("refused (401)" in str(outcome.error) for outcome in outcomes)
        tries = service.counts["login"] + len(service.authorizations)
        assert tries <= (1 if session else 4)
        assert PASSWORD not in "".join(str(outcome.error) for outcome in outcomes)


def test_a_resource_that_may_not_be_read_is_named_and_sessions_do_not_pile_up() -> None:
    with RedfishService() as service:
        service.before = lambda path: (401, {}, b"{}") if path == "Systems/1/Storage" else None
        outcomes = polled(device(service, interval=1), 3)
        assert outcomes[0].up
        assert "Systems/1/Storage: may not be read (401)" in str(outcomes[0].error)
        assert temperatures(outcomes[0])[INTAKE] == 22.5
        assert service.tokens == {}


def test_an_unknown_certificate_is_refused_before_anything_is_sent(own_certificate: Certificate) -> None:
    with RedfishService(tls=own_certificate) as service:
        [outcome] = polled(device(service, redfish={"scheme": "https"}))
        assert not outcome.up
        assert "not trusted" in str(outcome.error)
        assert f"redfish.fingerprint: {own_certificate.fingerprint}" in str(outcome.error)
        assert sum(service.counts.values()) == 0


@pytest.mark.parametrize("how", ["ca_file", "fingerprint", "fingerprint with colons"])
def test_a_known_certificate_is_accepted(own_certificate: Certificate, how: str) -> None:
    digest = own_certificate.fingerprint
    colons = ":".join(digest[at : at + 2] for at in range(0, 64, 2)).upper()
    trust = {"ca_file": str(own_certificate.pem)} if how == "ca_file" else {"fingerprint": digest}
    trust = {"fingerprint": colons} if "colons" in how else trust
    with RedfishService(tls=own_certificate) as service:
        [outcome] = polled(device(service, redfish={"scheme": "https", **trust}))
        assert outcome.error is None
        assert temperatures(outcome)[INTAKE] == 22.5


def test_another_certificate_than_the_pinned_one_is_refused_before_anything_is_sent(
    own_certificate: Certificate,
) -> None:
    with RedfishService(tls=own_certificate) as service:
        [outcome] = polled(device(service, redfish={"scheme": "https", "fingerprint": "ab" * 32}))
        assert not outcome.up
        assert own_certificate.fingerprint in str(outcome.error)
        assert sum(service.counts.values()) == 0


def test_a_certificate_of_another_authority_is_refused(own_certificate: Certificate, tmp_path: Path) -> None:
    other = certificate(tmp_path, "other")
    with RedfishService(tls=own_certificate) as service:
        [outcome] = polled(device(service, redfish={"scheme": "https", "ca_file": str(other.pem)}))
        assert not outcome.up
        assert sum(service.counts.values()) == 0


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_wrong_authority_file_is_named(content: str | None, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    target = Device(name="a", kind="redfish", address="127.0.0.1:9", redfish={"ca_file": str(file)})  # type: ignore[arg-type]
    [outcome] = polled(target)
    assert f"redfish.ca_file {file}" in str(outcome.error)


def test_no_secret_is_ever_logged(own_certificate: Certificate, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with RedfishService(tls=own_certificate) as service:
        trust = {"scheme": "https", "fingerprint": own_certificate.fingerprint}
        outcomes = polled(device(service, redfish=trust), 2, lambda _: service.expire())
        tokens = list(service.tokens)
        service.sessions = False
        outcomes += polled(device(service, redfish=trust))
        service.password = "changed"
        outcomes += polled(device(service, redfish=trust))
    said = caplog.text + repr(outcomes)
    assert PASSWORD not in said
    assert not [token for token in tokens if token in said]
    assert not [header for header in service.authorizations if header in said]


# --- what real controllers do -----------------------------------------------------------------------------------------


def test_a_controller_that_is_not_there_is_down_with_a_reason() -> None:
    target = Device(name="a", kind="redfish", address=f"127.0.0.1:{free_port()}", redfish={"scheme": "http"}, retries=1)  # type: ignore[arg-type]
    [outcome] = polled(target)
    assert not outcome.up
    assert "no connection" in str(outcome.error)


def test_a_slow_controller_is_cut_named_and_read_bit_by_bit() -> None:
    with RedfishService() as service:
        service.delays["*"] = 0.12
        outcomes = polled(device(service, deadline=1.0, interval=1), 8)
        assert outcomes[0].cut
        assert "cut after 1 s" in str(outcomes[0].error)
        seen: set[str] = set()
        for outcome in outcomes:
            seen.update(temperatures(outcome))
        assert {INTAKE, CPU} <= seen


def test_a_resource_that_never_answers_costs_its_timeout_only() -> None:
    release = threading.Event()
    with RedfishService() as service:

        def before(path: str) -> None:
            if path == "Chassis/old/Thermal":
                release.wait(20)

        service.before = before
        outcomes = polled(device(service, timeout=0.5, retries=0), 3)
        release.set()
        assert outcomes[0].up
        assert "Chassis/old/Thermal: no answer within 0.5 s" in str(outcomes[0].error)
        assert all(temperatures(outcome)[INTAKE] == 22.5 for outcome in outcomes)


def test_a_busy_controller_is_asked_again_after_the_time_it_names() -> None:
    with RedfishService() as service:
        refused: list[float] = []

        def before(path: str) -> tuple[int, dict[str, str], bytes] | None:
            if path == "Systems" and len(refused) < 1:
                refused.append(time.monotonic())
                return 503, {"Retry-After": "1"}, b"{}"
            if path == "Systems":
                refused.append(time.monotonic())
            return None

        service.before = before
        [outcome] = polled(device(service))
        assert outcome.error is None
        assert refused[1] - refused[0] >= 0.95


def test_redirects_are_followed_on_the_device_only() -> None:
    with RedfishService() as service:

        def before(path: str) -> tuple[int, dict[str, str], bytes] | None:
            if path == "Chassis/new":
                return (308, {"Location": "/redfish/v1/Chassis/moved"}, b"")
            if path == "Chassis/old":
                return (302, {"Location": "http://elsewhere.example/redfish/v1/Chassis/old"}, b"")
            return None

        service.answers.tree["Chassis/moved"] = service.answers.tree["Chassis/new"]
        service.before = before
        [outcome] = polled(device(service))
        assert temperatures(outcome)[INTAKE] == 22.5
        assert "redirects away" in str(outcome.error)


def test_garbage_broken_answers_and_empty_bodies_cost_their_resource_only() -> None:
    with RedfishService() as service:
        service.answers.wrong["Systems/1/Memory"] = b"\xff\xfe<html>"
        service.answers.wrong["Systems/1/Processors"] = b"[1, 2]"
        service.answers.wrong["Systems/1/Storage"] = b""
        service.before = lambda path: (200, {"Content-Length": "9999"}, b"{") if path == "Chassis/old/Power" else None
        [outcome] = polled(device(service, timeout=1, retries=0))
        assert outcome.up
        assert temperatures(outcome)[INTAKE] == 22.5
        assert temperatures(outcome)[CPU] == 55
        assert "and 1 more resources" in str(outcome.error)


def test_a_log_that_has_not_changed_is_not_sent_again() -> None:
    with RedfishService() as service:
        now = time.time()
        service.answers.tree[SEL] = {"Members": [entry(number, now - 60) for number in range(50)]}
        first, second, third = polled(device(service, interval=60), 3, lambda _: None)
        assert [len(outcome.fetched) for outcome in (first, second, third)] == [2, 0, 0]


# --- the way to the landing zone --------------------------------------------------------------------------------------


def landed(home: Path) -> list[Delivery]:
    return [
        delivery
        for writer in writers(home / "landing")
        for folder in [home / "landing" / writer]
        for path in sorted(folder.glob("*.seg"))
        for delivery in read_segment(folder, int(path.stem)).deliveries
    ]


def status(home: Path) -> dict[str, Any]:
    try:
        return dict(orjson.loads((home / "collector" / "status.json").read_bytes()))
    except FileNotFoundError:
        return {"devices": {}, "problems": []}


@contextlib.contextmanager
def collector(home: Path, *devices: dict[str, Any]) -> Iterator[subprocess.Popen[bytes]]:
    """A collector process of a home; killed without a word at the end unless it has ended."""
    home.mkdir(exist_ok=True)
    (home / "aiops.yaml").write_text(
        yaml.safe_dump({"collect": {"host": {"enabled": False}}, "devices": list(devices)}), "utf-8"
    )
    script = "import sys, logging; logging.basicConfig(level=10); from aiops_assets.settings import load_settings; "
    script += "from aiops_assets.collectors.scheduler import run; sys.exit(run(load_settings()))"
    with (home / "log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", script], env=os.environ | {"AIOPS_HOME": str(home)}, stderr=log
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait(10)


def events(home: Path) -> list[str]:
    """The bodies of all log events in the landing zone."""
    deliveries = [delivery for delivery in landed(home) if delivery.headers["format"] == "redfish_log"]
    result = parse("redfish_log", deliveries)
    assert result.rejects == []
    assert result.logs.height == result.logs["event_id"].n_unique()
    return sorted(result.logs["body"].to_list())


def temperature_readings(home: Path, name: str) -> int:
    deliveries = [delivery for delivery in landed(home) if delivery.headers["format"] == "collected"]
    result = parse("collected", deliveries)
    assert result.rejects == []
    rows = result.series.with_row_index("series").filter(host=name, metric="hw.temperature")["series"]
    return result.points["series"].is_in(rows.to_list()).sum()


def test_readings_and_log_entries_reach_the_landing_zone_once_across_restarts(
    tmp_path: Path, own_certificate: Certificate
) -> None:
    home = tmp_path / "home"
    now = time.time()
    with (
        RedfishService(tls=own_certificate) as service,
        RedfishService(password=None) as slow,
    ):
        log = service.answers.tree[SEL]["Members"]
        log.extend(entry(number, now - 100 + number) for number in (1, 2))
        slow.delays["*"] = 1.5
        mine = {
            "name": "web-1", "kind": "redfish", "address": service.address, "interval": 1,
            "redfish": {"user": USER, "password": PASSWORD, "fingerprint": own_certificate.fingerprint},
        }  # fmt: skip
        other = {
            "name": "slow-1", "kind": "redfish", "address": slow.address, "interval": 1, "deadline": 4,
            "redfish": {"scheme": "http"},
        }  # fmt: skip
        with collector(home, mine, other) as process:
            wait_until(lambda: events(home) == ["it happened 1", "it happened 2"], 60, "the first entries are stored")
            wait_until(lambda: temperature_readings(home, "web-1") >= 9, 60, "temperatures are stored")
            wait_until(lambda: status(home)["devices"].get("slow-1", {}).get("slow"), 60, "the slow one is named")
            assert status(home)["devices"]["web-1"]["ok"]
            assert "cut after 4 s" in str(status(home)["devices"]["slow-1"]["error"])
            process.terminate()
            process.wait(30)
        assert service.tokens == {}, "the session was not ended"
        log.append(entry(3, now, "while nobody looked"))
        state = home / "collector" / "state.json"
        for kill in (True, False):
            with collector(home, mine) as process:
                wait_until(lambda: "while nobody looked 3" in events(home), 60, "the entry in between is stored")
                wait_until(lambda: b'"last_id":3' in state.read_bytes(), 60, "the mark is saved")
                wait_until(lambda p=process: status(home)["pid"] == p.pid, 60, "this collector is at work")
                if not kill:
                    process.terminate()
                    process.wait(30)
        assert events(home) == ["it happened 1", "it happened 2", "while nobody looked 3"]
        said = (home / "log").read_text() + (home / "collector" / "status.json").read_text()
        said += (home / "collector" / "state.json").read_text()
        assert PASSWORD not in said
        assert "X-Auth-Token" not in said


# --- emulators that others wrote --------------------------------------------------------------------------------------


@contextlib.contextmanager
def rack() -> Iterator[str]:
    """The published mockup of a server behind a static server, as its own mockup server serves it."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            path = self.path.partition("?")[0].strip("/").removeprefix("redfish/v1").strip("/")
            file = RACK / path / "index.json"
            found = file.exists()
            body = file.read_bytes() if found else b"{}"
            self.send_response(200 if found else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Nobody reads it."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


@pytest.mark.skipif(not RACK.exists(), reason=f"no mockup at {RACK}")
def test_the_published_mockup_of_a_rack_server_is_read_whole() -> None:
    with rack() as address:
        target = Device(name="rack", kind="redfish", address=address, redfish={"scheme": "http"})  # type: ignore[arg-type]
        first, second = polled(target, 2)
    assert (first.up, first.error) == (True, None)
    found = temperatures(first)
    assert found["Chassis/1U/Sensors/CPU1Temp"] == 37
    assert found["Chassis/1U/Sensors/IntakeTemp"] == 24.8
    metrics = {p["metric"] for p in first.points}
    assert {
        "hw.temperature", "hw.fan.speed", "hw.fan.speed_ratio", "hw.host.power", "hw.power", "hw.voltage", "hw.current",
        "hw.power_supply.limit", "hw.power_supply.usage", "hw.memory.size", "hw.physical_disk.size", "hw.network.up",
        "hw.energy.total", "hw.battery.charge", "hw.status", "hw.host.power_state",
    } <= metrics  # fmt: skip
    degraded = {
        p["labels"]["hw.id"]
        for p in first.points
        if p["metric"] == "hw.status" and p["labels"]["hw.state"] == "degraded" and p["value"] == 1
    }
    assert degraded == {
        "Chassis/1U/PowerSubsystem/PowerSupplies/Bay1",
        "Systems/437XR1138R2/SimpleStorage/1",
        "Systems/437XR1138R2/SimpleStorage/1#/Devices/1",
    }
    assert first.entity is not None
    assert first.entity["labels"]["serial"] == "437XR1138R2"
    assert second.points[-1]["metric"] == "aiops.device.poll.requests"
    assert second.points[-1]["value"] <= 50


@contextlib.contextmanager
def sushy(folder: Path, own: Certificate) -> Iterator[str]:
    """A sushy-emulator with a fake server behind it, over HTTPS with basic authentication."""
    import bcrypt

    port = free_port()
    (folder / "users").write_bytes(USER.encode() + b":" + bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)) + b"\n")
    (folder / "state").mkdir()
    (folder / "emulator.conf").write_text(
        f"SUSHY_EMULATOR_AUTH_FILE = {str(folder / 'users')!r}\nSUSHY_EMULATOR_STATE_DIR = {str(folder / 'state')!r}\n"
    )
    command = [
        str(Path(sys.executable).with_name("sushy-emulator")), "--config", str(folder / "emulator.conf"),
        "-i", "127.0.0.1", "-p", str(port), "--fake",
        "--ssl-certificate", str(own.pem), "--ssl-key", str(own.key),
    ]  # fmt: skip
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    try:
        with httpx.Client(verify=ssl.create_default_context(cafile=own.pem)) as client:

            def answers() -> bool:
                assert process.poll() is None, (folder / "log").read_text()
                with contextlib.suppress(httpx.TransportError):
                    return client.get(f"https://127.0.0.1:{port}/redfish/v1/").status_code == 200
                return False

            wait_until(answers, 60, "sushy-emulator answers")
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait(10)


@needs_sushy
def test_the_sushy_emulator_over_https(tmp_path: Path, own_certificate: Certificate) -> None:
    with sushy(tmp_path, own_certificate) as address:
        credentials = {"user": USER, "password": PASSWORD, "ca_file": str(own_certificate.pem)}
        target = Device(name="fake", kind="redfish", address=address, redfish=credentials)  # type: ignore[arg-type]
        document, outcome = asyncio.run(poll_once(target))
        assert outcome.up, outcome.error
        assert sorted(temperatures(outcome).values()) == [25, 41]
        speeds = [p["value"] for p in outcome.points if p["metric"] == "hw.fan.speed"]
        assert sorted(speeds) == [2050, 2100]
        assert document["entity"]["labels"]["vendor"] == "Sushy Emulator"
        on = {"SystemId": "", "ResetType": "On"}
        trust = ssl.create_default_context(cafile=own_certificate.pem)
        with httpx.Client(verify=trust, auth=(USER, PASSWORD)) as client:
            base = f"https://{address}"
            system = client.get(f"{base}/redfish/v1/Systems").json()["Members"][0]["@odata.id"]
            assert client.post(f"{base}{system}/Actions/ComputerSystem.Reset", json=on).is_success

        def powered() -> list[float]:
            points = asyncio.run(poll_once(target))[1].points
            return [p["value"] for p in points if p["metric"] == "hw.host.power_state"]

        wait_until(lambda: powered() == [1.0], 60, "the server is on")
        wrong = Device(name="fake", kind="redfish", address=address, redfish=credentials | {"password": "wrong"})  # type: ignore[arg-type]
        assert "refused (401)" in str(asyncio.run(poll_once(wrong))[1].error)


def test_a_configuration_with_redfish_devices_is_checked() -> None:
    def problem(redfish: dict[str, Any]) -> str:
        with pytest.raises(ValueError, match="redfish") as caught:
            Config.model_validate({"devices": [{"name": "a", "kind": "redfish", "address": "b", "redfish": redfish}]})
        return str(caught.value)

    assert "64 hexadecimal digits" in problem({"fingerprint": "abc"})
    assert "not both" in problem({"fingerprint": "ab" * 32, "ca_file": "x"})
    assert "for scheme https" in problem({"scheme": "http", "ca_file": "x"})
    assert "needs 'user'" in problem({"password": "x"})
    slow = Device(name="a", kind="redfish", address="b")
    assert (slow.timeout, slow.deadline) == (10, 45)
    assert Device(name="a", kind="redfish", address="b", timeout=3).timeout == 3


@pytest.mark.parametrize("address", ["user:x@host", "host/path", "host:port", "", "[::1", "host?x=1"])
def test_an_address_that_is_none_is_named(address: str) -> None:
    target = Device.model_construct(**dict(Device(name="a", kind="redfish", address="b")) | {"address": address})
    outcome = asyncio.run(RedfishPoller(target).poll())
    assert not outcome.up
    assert "expected host or host:port" in str(outcome.error)
