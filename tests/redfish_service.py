"""A Redfish service in the test's hand: HTTP or HTTPS, both generations of schemas, the faults of real ones.

What belongs here: resources as JSON that tests may change, sessions and basic authentication, pages, expansion,
delays and wrong answers. What does not: anything of the collector.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import ipaddress
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import orjson
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

ROOT = "/redfish/v1"
USER, PASSWORD = "monitor", "correct horse battery"
OK = {"State": "Enabled", "Health": "OK"}

Tree = dict[str, dict[str, Any]]


def ref(path: str) -> dict[str, str]:
    return {"@odata.id": f"{ROOT}/{path}"}


def collection(*paths: str) -> dict[str, Any]:
    return {"Members": [ref(path) for path in paths], "Members@odata.count": len(paths)}


def entry(number: int, at: float, message: str = "it happened", severity: str = "Warning") -> dict[str, Any]:
    created = datetime.datetime.fromtimestamp(at, datetime.UTC).isoformat(timespec="seconds")
    own = f"Systems/1/LogServices/SEL/Entries/{number}"
    return ref(own) | {
        "Id": str(number), "Name": f"Log Entry {number}", "EntryType": "SEL", "Created": created,
        "Severity": severity, "Message": f"{message} {number}", "MessageId": "Base.1.0.Happened",
    }  # fmt: skip


def server_tree() -> Tree:
    """A server with one chassis of the second generation and one of the first, by path below the root."""
    return {
        "": {
            "Id": "RootService",
            "RedfishVersion": "1.15.0",
            "Vendor": "Example",
            "Chassis": ref("Chassis"),
            "Systems": ref("Systems"),
            "Managers": ref("Managers"),
            "UpdateService": ref("UpdateService"),
            "SessionService": ref("SessionService"),
            "Links": {"Sessions": ref("SessionService/Sessions")},
        },
        "Chassis": collection("Chassis/new", "Chassis/old", "Chassis/bare"),
        "Chassis/new": {
            "Id": "new",
            "Name": "Front",
            "Manufacturer": "Example",
            "Model": "R1",
            "SerialNumber": "CH-1",
            "Status": {"State": "Enabled", "Health": "OK", "HealthRollup": "Warning"},
            "ThermalSubsystem": ref("Chassis/new/ThermalSubsystem"),
            "PowerSubsystem": ref("Chassis/new/PowerSubsystem"),
            "Sensors": ref("Chassis/new/Sensors"),
            "EnvironmentMetrics": ref("Chassis/new/EnvironmentMetrics"),
            "Thermal": ref("Chassis/new/Thermal"),
            "NetworkAdapters": ref("Chassis/new/NetworkAdapters"),
            "Links": {"ContainedBy": ref("Chassis/bare"), "Drives": [ref("Systems/1/Storage/1/Drives/0")]},
        },
        "Chassis/new/Thermal": {
            "Temperatures": [
                {"MemberId": "0", "Name": "Intake, as it was", "ReadingCelsius": 21, "Status": OK},
            ],
        },
        "Chassis/new/ThermalSubsystem": {
            "Fans": ref("Chassis/new/ThermalSubsystem/Fans"),
            "ThermalMetrics": ref("Chassis/new/ThermalSubsystem/ThermalMetrics"),
            "FanRedundancy": [{"RedundancyType": "NPlusM", "Status": {"State": "Enabled", "Health": "Critical"}}],
        },
        "Chassis/new/ThermalSubsystem/Fans": collection("Chassis/new/ThermalSubsystem/Fans/1"),
        "Chassis/new/ThermalSubsystem/Fans/1": {
            "Id": "1",
            "Name": "Fan 1",
            "Status": OK,
            "PhysicalContext": "Chassis",
            "SpeedPercent": {"Reading": 40, "SpeedRPM": 4200, "DataSourceUri": f"{ROOT}/Chassis/new/Sensors/fan1"},
        },
        "Chassis/new/ThermalSubsystem/ThermalMetrics": {
            "TemperatureReadingsCelsius": [
                {"Reading": 22.5, "DeviceName": "Intake", "DataSourceUri": f"{ROOT}/Chassis/new/Sensors/intake"},
                {"Reading": 38, "DeviceName": "Exhaust"},
            ],
        },
        "Chassis/new/PowerSubsystem": {
            "CapacityWatts": 1600,
            "PowerSupplies": ref("Chassis/new/PowerSubsystem/PowerSupplies"),
            "PowerSupplyRedundancy": [{"RedundancyType": "Failover", "Status": {"State": "Enabled", "Health": "OK"}}],
        },
        "Chassis/new/PowerSubsystem/PowerSupplies": collection("Chassis/new/PowerSubsystem/PowerSupplies/1"),
        "Chassis/new/PowerSubsystem/PowerSupplies/1": {
            "Id": "1",
            "Name": "PSU 1",
            "Status": OK,
            "PowerCapacityWatts": 800,
            "FirmwareVersion": "2.1",
            "Metrics": ref("Chassis/new/PowerSubsystem/PowerSupplies/1/Metrics"),
        },
        "Chassis/new/PowerSubsystem/PowerSupplies/1/Metrics": {
            "InputVoltage": {"Reading": 230.5},
            "InputPowerWatts": {"Reading": 210},
            "InputCurrentAmps": {"Reading": 0.9},
            "OutputPowerWatts": {"Reading": 190},
            "EnergykWh": {"Reading": 2},
        },
        "Chassis/new/EnvironmentMetrics": {
            "PowerWatts": {"Reading": 212, "DataSourceUri": f"{ROOT}/Chassis/new/Sensors/total"},
            "TemperatureCelsius": {"Reading": 22.5, "DataSourceUri": f"{ROOT}/Chassis/new/Sensors/intake"},
        },
        "Chassis/new/Sensors": collection(
            *(f"Chassis/new/Sensors/{name}" for name in ("intake", "total", "fan1", "v12", "odd"))
        ),
        "Chassis/new/Sensors/intake": {
            "Id": "intake",
            "Name": "Intake",
            "ReadingType": "Temperature",
            "Reading": 22.5,
            "ReadingUnits": "Cel",
            "Status": OK,
            "PhysicalContext": "Intake",
        },
        "Chassis/new/Sensors/total": {
            "Id": "total",
            "Name": "Total power",
            "ReadingType": "Power",
            "Reading": 212,
            "ReadingUnits": "W",
            "Status": OK,
        },
        "Chassis/new/Sensors/fan1": {
            "Id": "fan1",
            "Name": "Fan 1 speed",
            "ReadingType": "Percent",
            "Reading": 40,
            "ReadingUnits": "%",
            "Status": OK,
        },
        "Chassis/new/Sensors/v12": {"Id": "v12", "Name": "12 V", "Reading": 12.1, "ReadingUnits": "V", "Status": OK},
        "Chassis/new/Sensors/odd": {
            "Id": "odd",
            "Name": "Altitude",
            "ReadingType": "Altitude",
            "Reading": 411,
            "ReadingUnits": "m",
            "Status": OK,
        },
        "Chassis/new/NetworkAdapters": collection("Chassis/new/NetworkAdapters/1"),
        "Chassis/new/NetworkAdapters/1": {
            "Id": "1",
            "Name": "NIC",
            "Status": OK,
            "Ports": ref("Chassis/new/NetworkAdapters/1/Ports"),
            "Controllers": [{"FirmwarePackageVersion": "7.10"}],
        },
        "Chassis/new/NetworkAdapters/1/Ports": collection(
            "Chassis/new/NetworkAdapters/1/Ports/1", "Chassis/new/NetworkAdapters/1/Ports/2"
        ),
        "Chassis/new/NetworkAdapters/1/Ports/1": {
            "Id": "1",
            "Name": "Port 1",
            "LinkStatus": "LinkUp",
            "CurrentSpeedGbps": 10,
        },
        "Chassis/new/NetworkAdapters/1/Ports/2": {"Id": "2", "Name": "Port 2", "LinkStatus": "NoLink"},
        "Chassis/old": {
            "Id": "old",
            "Name": "Shelf",
            "Status": OK,
            "Thermal": ref("Chassis/old/Thermal"),
            "Power": ref("Chassis/old/Power"),
        },
        "Chassis/old/Thermal": {
            "Temperatures": [
                {
                    "@odata.id": f"{ROOT}/Chassis/old/Thermal#/Temperatures/0",
                    "Name": "CPU",
                    "ReadingCelsius": 55,
                    "Status": OK,
                },
                {
                    "@odata.id": f"{ROOT}/Chassis/old/Thermal#/Temperatures/0",
                    "Name": "Same place",
                    "ReadingCelsius": 44,
                },
                {"Name": "Unread", "ReadingCelsius": None, "Status": OK},
                {"Name": "Not there", "ReadingCelsius": 0, "Status": {"State": "Absent"}},
                {"Name": "Not in service", "ReadingCelsius": 0, "Status": {"State": "Disabled"}},
            ],
            "Fans": [
                {"MemberId": "a", "FanName": "Rear", "Reading": 5100, "ReadingUnits": "RPM", "Status": OK},
                {
                    "MemberId": "b",
                    "Name": "Front",
                    "Reading": 35,
                    "ReadingUnits": "Percent",
                    "Status": {"Health": "Warning"},
                },
            ],
            "Redundancy": [{"MemberId": "0", "Name": "fans", "Status": OK}],
        },
        "Chassis/old/Power": {
            "PowerControl": [
                {"MemberId": "0", "Name": "all", "PowerConsumedWatts": 301, "PowerCapacityWatts": 900},
                {"MemberId": "1", "Name": "CPU part", "PowerConsumedWatts": 120},
            ],
            "Voltages": [{"MemberId": "0", "Name": "VRM", "ReadingVolts": 1.81, "Status": OK}],
            "PowerSupplies": [
                {
                    "MemberId": "0",
                    "Name": "PS0",
                    "PowerInputWatts": 160,
                    "LastPowerOutputWatts": 150,
                    "PowerCapacityWatts": 600,
                    "LineInputVoltage": 119,
                    "FirmwareVersion": "1.7",
                    "Status": {"State": "Enabled", "Health": "Critical"},
                },
            ],
            "Redundancy": [{"MemberId": "0", "Name": "supplies", "Status": {"Health": "Warning"}}],
        },
        "Chassis/bare": {"Id": "bare", "Name": "Enclosure", "SerialNumber": "ENC-9", "Status": None},
        "Systems": collection("Systems/1"),
        "Systems/1": {
            "Id": "1",
            "Name": "web",
            "Manufacturer": "Example",
            "Model": "R1",
            "SerialNumber": "S-1",
            "SKU": "K-1",
            "BiosVersion": "U30 2.10",
            "PowerState": "On",
            "Status": OK,
            "HostName": "web-1",
            "UUID": "u-1",
            "LastResetTime": "2026-01-02T03:04:05Z",
            "Oem": {"Example": {"BootCount": 7}},
            "Processors": ref("Systems/1/Processors"),
            "Memory": ref("Systems/1/Memory"),
            "Storage": ref("Systems/1/Storage"),
            "SimpleStorage": ref("Systems/1/SimpleStorage"),
            "EthernetInterfaces": ref("Systems/1/EthernetInterfaces"),
            "LogServices": ref("Systems/1/LogServices"),
            "Links": {"Chassis": [ref("Chassis/new")]},
        },
        "Systems/1/Processors": collection("Systems/1/Processors/1"),
        "Systems/1/Processors/1": {
            "Id": "1",
            "Name": "Processor",
            "Socket": "CPU 1",
            "ProcessorType": "CPU",
            "OperatingSpeedMHz": 2400,
            "Status": OK,
            "Metrics": ref("Systems/1/Processors/1/Metrics"),
        },
        "Systems/1/Processors/1/Metrics": {"TemperatureCelsius": 61.5, "ConsumedPowerWatt": 95},
        "Systems/1/Memory": collection("Systems/1/Memory/A1", "Systems/1/Memory/A2"),
        "Systems/1/Memory/A1": {
            "Id": "A1",
            "Name": "DIMM A1",
            "CapacityMiB": 16384,
            "Status": {"State": "Enabled", "Health": "Warning"},
            "Metrics": ref("Systems/1/Memory/A1/Metrics"),
        },
        "Systems/1/Memory/A1/Metrics": {"LifeTime": {"CorrectableECCErrorCount": 12, "UncorrectableECCErrorCount": 0}},
        "Systems/1/Memory/A2": {"Id": "A2", "Name": "DIMM A2", "Status": {"State": "Absent"}},
        "Systems/1/Storage": collection("Systems/1/Storage/1"),
        "Systems/1/Storage/1": {
            "Id": "1",
            "Name": "RAID",
            "Status": {"State": "Enabled", "Health": "OK", "HealthRollup": "Critical"},
            "StorageControllers": [{"MemberId": "0", "Name": "Card", "FirmwareVersion": "51.1", "Status": OK}],
            "Drives": [ref("Systems/1/Storage/1/Drives/0"), ref("Systems/1/Storage/1/Drives/1")],
            "Volumes": ref("Systems/1/Storage/1/Volumes"),
        },
        "Systems/1/Storage/1/Drives/0": {
            "Id": "0",
            "Name": "Disk 0",
            "MediaType": "SSD",
            "CapacityBytes": 960_000_000_000,
            "Revision": "F1",
            "PredictedMediaLifeLeftPercent": 87,
            "FailurePredicted": True,
            "Status": OK,
        },
        "Systems/1/Storage/1/Drives/1": {
            "Id": "1",
            "Name": "Disk 1",
            "MediaType": "HDD",
            "CapacityBytes": 4_000_000_000_000,
            "FailurePredicted": False,
            "PredictedMediaLifeLeftPercent": None,
            "Status": {"State": "Enabled", "Health": "Critical"},
        },
        "Systems/1/Storage/1/Volumes": collection("Systems/1/Storage/1/Volumes/1"),
        "Systems/1/Storage/1/Volumes/1": {
            "Id": "1",
            "Name": "Data",
            "RAIDType": "RAID1",
            "CapacityBytes": 960_000_000_000,
            "RemainingCapacityPercent": 25,
            "Status": {"State": "Enabled", "Health": "Warning"},
        },
        "Systems/1/EthernetInterfaces": collection("Systems/1/EthernetInterfaces/eno1"),
        "Systems/1/EthernetInterfaces/eno1": {
            "Id": "eno1",
            "Name": "Ethernet Interface",
            "LinkStatus": "LinkUp",
            "SpeedMbps": 1000,
            "Status": OK,
        },
        "Systems/1/LogServices": collection("Systems/1/LogServices/SEL"),
        "Systems/1/LogServices/SEL": {"Id": "SEL", "Name": "SEL", "Entries": ref("Systems/1/LogServices/SEL/Entries")},
        "Systems/1/LogServices/SEL/Entries": {"Members": []},
        "Managers": collection("Managers/bmc"),
        "Managers/bmc": {"Id": "bmc", "Name": "BMC", "FirmwareVersion": "5.10", "Model": "M4", "Status": OK},
        "UpdateService": {"FirmwareInventory": ref("UpdateService/FirmwareInventory")},
        "UpdateService/FirmwareInventory": collection(
            "UpdateService/FirmwareInventory/BIOS",
            "UpdateService/FirmwareInventory/Previous-BIOS",
            "UpdateService/FirmwareInventory/Installed-9-1.2__NIC.Slot.1",
        ),
        "UpdateService/FirmwareInventory/BIOS": {"Id": "BIOS", "Name": "System BIOS", "Version": "U30 2.10"},
        "UpdateService/FirmwareInventory/Previous-BIOS": {"Id": "Previous-BIOS", "Name": "BIOS", "Version": "U30 2.00"},
        "UpdateService/FirmwareInventory/Installed-9-1.2__NIC.Slot.1": {
            "Id": "Installed-9-1.2__NIC.Slot.1",
            "Name": "NIC",
            "Version": "1.2",
        },
        "SessionService": {"Sessions": ref("SessionService/Sessions"), "SessionTimeout": 1800},
    }


def below_root(path: str) -> str:
    return path.partition("?")[0].strip("/").removeprefix("redfish/v1").strip("/")


@dataclass
class Answers:
    """What is asked and what comes back; shared by the HTTP service and by what stands in for it."""

    tree: Tree = field(default_factory=server_tree)
    #: by path below the root: a status, bytes, or a function that makes (status, headers, body)
    wrong: dict[str, Any] = field(default_factory=dict)
    expands: bool = False
    #: collections are cut into pages of so many members
    page: int = 0
    asked: list[str] = field(default_factory=list)

    def find(self, target: str) -> tuple[int, bytes]:
        """(status, body) of a GET."""
        parts = urlsplit(target)
        path = below_root(parts.path)
        self.asked.append(target)
        wrong = self.wrong.get(path)
        if isinstance(wrong, int):
            return wrong, b"{}"
        if isinstance(wrong, bytes):
            return 200, wrong
        body = self.tree.get(path)
        if body is None:
            return 404, orjson.dumps({"error": {"code": "Base.1.0.ResourceMissing"}})
        query = parse_qs(parts.query)
        if "Members" in body:
            body = dict(body)
            if self.expands and "$expand" in query:
                body["Members"] = [
                    member | self.tree.get(below_root(member["@odata.id"]), {}) for member in body["Members"]
                ]
            if self.page:
                start = int(query.get("$skip", ["0"])[0])
                every = body["Members"]
                body["Members"] = every[start : start + self.page]
                if start + self.page < len(every):
                    body["Members@odata.nextLink"] = f"{ROOT}/{path}?$skip={start + self.page}"
        return 200, orjson.dumps({"@odata.id": f"{ROOT}/{path}".rstrip("/")} | body)


@dataclass
class Certificate:
    """A certificate made for loopback, signed by itself."""

    pem: Path
    key: Path
    fingerprint: str


def certificate(folder: Path, name: str = "bmc") -> Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, key_file = folder / f"{name}.pem", folder / f"{name}.key"
    pem.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    digest = hashlib.sha256(made.public_bytes(serialization.Encoding.DER)).hexdigest()
    return Certificate(pem, key_file, digest)


class RedfishService:
    """Serves ``answers`` on loopback; a context manager. Users must authenticate except at the root."""

    def __init__(
        self,
        answers: Answers | None = None,
        *,
        tls: Certificate | None = None,
        password: str | None = PASSWORD,
        sessions: bool = True,
    ) -> None:
        self.answers = answers or Answers()
        self.password, self.sessions = password, sessions
        self.tokens: dict[str, str] = {}
        self.counts: Counter[str] = Counter()
        #: seconds by path below the root; "*" for every one
        self.delays: dict[str, float] = {}
        #: called before each GET with its path below the root; what it returns, if anything, is (status, headers, body)
        self.before: Callable[[str], tuple[int, dict[str, str], bytes] | None] | None = None
        self.authorizations: list[str] = []
        self._lock = threading.Lock()
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                service._get(self)

            def do_POST(self) -> None:
                service._post(self)

            def do_DELETE(self) -> None:
                service._delete(self)

            def log_message(self, format: str, *args: Any) -> None:
                """Nobody reads it."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls.pem, tls.key)
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> RedfishService:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def expire(self) -> None:
        """End every session."""
        with self._lock:
            self.tokens.clear()

    def _allowed(self, handler: BaseHTTPRequestHandler) -> bool:
        if self.password is None:
            return True
        token = handler.headers.get("X-Auth-Token")
        if token is not None:
            return token in self.tokens
        given = handler.headers.get("Authorization", "")
        wanted = base64.b64encode(f"{USER}:{self.password}".encode()).decode()
        return given == f"Basic {wanted}"

    def _get(self, handler: BaseHTTPRequestHandler) -> None:
        path = below_root(handler.path)
        self.counts["GET"] += 1
        self.counts[path] += 1
        if handler.headers.get("Authorization"):
            self.authorizations.append(handler.headers["Authorization"])
        delay = self.delays.get(path, self.delays.get("*", 0.0))
        if delay:
            time.sleep(delay)
        special = self.before(path) if self.before is not None else None
        if special is not None:
            status, headers, body = special
            _send(handler, status, body, headers)
        elif path and not self._allowed(handler):
            _send(handler, 401, b"{}")
        else:
            status, body = self.answers.find(handler.path)
            etag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
            if status == 200 and handler.headers.get("If-None-Match") == etag:
                self.counts["304"] += 1
                _send(handler, 304, b"", {"ETag": etag})
            else:
                _send(handler, status, body, {"ETag": etag})

    def _post(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length", "0")))
        self.counts["login"] += 1
        if below_root(handler.path) != "SessionService/Sessions" or not self.sessions:
            _send(handler, 405, b"{}")
            return
        given = orjson.loads(body)
        if given != {"UserName": USER, "Password": self.password}:
            _send(handler, 401, b"{}")
            return
        with self._lock:
            token = hashlib.sha256(str(self.counts["login"]).encode()).hexdigest()
            location = f"{ROOT}/SessionService/Sessions/{self.counts['login']}"
            self.tokens[token] = location
        _send(handler, 201, b"{}", {"X-Auth-Token": token, "Location": location})

    def _delete(self, handler: BaseHTTPRequestHandler) -> None:
        token = handler.headers.get("X-Auth-Token", "")
        self.counts["logout"] += 1
        with self._lock:
            known = self.tokens.get(token) == handler.path
            if known:
                del self.tokens[token]
        _send(handler, 204 if known else 401, b"")


def _send(handler: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
    handler.send_response(status)
    for name, value in (headers or {}).items():
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)
