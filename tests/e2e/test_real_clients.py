"""Real clients, unchanged but for an address and a key: what they send arrives, and what they are refused comes once.

All of them start together against a gateway that is closed (its backlog is too long), are refused, and deliver when it
opens; then each test looks at what one client brought. Clients that are not installed are skipped by name.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import shutil
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import polars as pl
import pytest

from aiops_assets.formats import FORMATS, parse
from aiops_assets.formats.batch import Parsed
from aiops_assets.gateway.keys import create_key
from aiops_assets.lake.tables import Lake
from aiops_assets.landing.quarantine import Quarantine
from aiops_assets.landing.reader import numbers, read_segment
from aiops_assets.landing.segment import Delivery
from aiops_assets.live.pipeline import Pipeline
from aiops_assets.live.progress import Progress, write_progress
from aiops_assets.settings import Settings
from tests.gateway_process import served
from tests.stack import free_port, wait_until

NODE_CLIENTS = Path(__file__).parents[2] / "out" / "node-clients" / "node_modules"
JOURNAL_UPLOAD, JOURNAL_REMOTE = (
    Path("/lib/systemd/systemd-journal-upload"),
    Path("/lib/systemd/systemd-journal-remote"),
)
PACKAGES = {
    "alertmanager": ("prometheus-alertmanager", "prometheus-alertmanager"),
    "prometheus": ("prometheus", "prometheus"),
    "collectd": ("collectd", "collectd-core libyajl2 libcurl3-gnutls"),
    "rsyslog": ("rsyslogd", "rsyslog rsyslog-elasticsearch"),
    "netdata": ("netdata", "netdata-core"),
}
SENTRY = """
import sys, sentry_sdk
dsn, algorithm, word = sys.argv[1:]
sentry_sdk.init(dsn=dsn, traces_sample_rate=1.0, release="shop@1.2.3", environment="lab", server_name="edge1",
                _experiments={"transport_compression_algo": algorithm})
sentry_sdk.capture_message(f"a message {word}")
try:
    {}["price"]
except KeyError:
    sentry_sdk.capture_exception()
with sentry_sdk.start_transaction(name="checkout", op="task"):
    pass
scope = sentry_sdk.get_isolation_scope()
scope.start_session()
scope.end_session()
sentry_sdk.flush(10)
until = sentry_sdk.get_client().transport._disabled_until
print("told to wait" if until else "sent", flush=True)
"""
SENTRY_NODE = """
const Sentry = require('@sentry/node');
Sentry.init({
  dsn: process.argv[2], tracesSampleRate: 1.0, release: 'shop@1.2.3', environment: 'lab', serverName: 'edge1'
});
Sentry.captureMessage('a message ' + process.argv[3]);
try { undefined.price } catch (error) { Sentry.captureException(error) }
Sentry.startSpan({name: 'checkout', op: 'task'}, () => {});
Sentry.startSession(); Sentry.endSession();
Sentry.flush(10000).then(() => { console.log('sent'); process.exit(0) });
"""
OTLP = """
import logging, sys
from opentelemetry._logs import set_logger_provider
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
logging.basicConfig(stream=sys.stdout, level=logging.WARNING)
resource = Resource.create({"service.name": "shop", "host.name": "edge1"})
meters = MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter(), 3_600_000)], resource=resource)
logs, spans = LoggerProvider(resource=resource), TracerProvider(resource=resource)
logs.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter()))
spans.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
counter = meters.get_meter("shop").create_counter("orders", unit="{order}")
counter.add(3, {"region": "eu"})
meters.get_meter("shop").create_histogram("latency", unit="s").record(0.2)
own = logging.getLogger("shop")
own.addHandler(LoggingHandler(logger_provider=logs))
with spans.get_tracer("shop").start_as_current_span("checkout"):
    own.warning("stock is low")
import threading
threads = [threading.Thread(target=one.force_flush, args=(40_000,)) for one in (meters, logs, spans)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print("sent", flush=True)
"""


@dataclass
class World:
    """A gateway that was closed and is open now, the clients that run against it, and what they delivered."""

    folder: Path
    home: Path
    url: str
    key: str
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    #: when the gateway was opened, microseconds
    opened_at: int = 0

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def run(self, name: str, *command: str | Path, **environment: str) -> None:
        """Start a client; its output goes to a file of its name."""
        import os

        with (self.folder / f"{name}.log").open("ab") as log:
            arguments = [str(part) for part in command]
            variables = {**os.environ, **environment}
            self.processes[name] = subprocess.Popen(
                arguments, stdout=log, stderr=log, cwd=self.folder, env=variables, start_new_session=True
            )

    def log(self, name: str) -> str:
        path = self.folder / f"{name}.log"
        return path.read_text("utf-8", "replace") if path.exists() else ""

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def source_key(self, source: str) -> str:
        """A key that may send to one source, which is thereby the source of what it sends."""
        path = self.folder / f"{source}.key"
        if not path.exists():
            path.write_text(create_key(self.home / "keys", source, sources=[source])[1])
        return path.read_text()

    def deliveries(self, source: str) -> list[Delivery]:
        folder = self.home / "landing" / "gateway"
        sealed = [read_segment(folder, seq) for seq in sorted(numbers(folder, ".seg"))]
        return [one for segment in sealed for one in segment.deliveries if one.source == source]

    def arrived(self, source: str, count: int = 1, seconds: float = 60) -> list[Delivery]:
        """What a source delivered, once it is so many deliveries."""
        wait_until(lambda: len(self.deliveries(source)) >= count, seconds, f"{count} deliveries of {source}")
        return self.deliveries(source)


def installed(name: str) -> bool:
    return shutil.which(PACKAGES[name][0], path="/usr/local/bin:/usr/bin:/usr/sbin:/bin:/sbin") is not None


def needs(name: str) -> None:
    if not installed(name):
        pytest.skip(f"{name} is not installed (Debian: apt install {PACKAGES[name][1]})")


def needs_node() -> None:
    if shutil.which("node") is None:
        pytest.skip("node is not installed (Debian: apt install nodejs npm)")
    if not (NODE_CLIENTS / "@sentry" / "node").exists():
        pytest.skip("@sentry/node is not installed (npm install --prefix out/node-clients @sentry/node@9)")


def read(deliveries: list[Delivery]) -> Parsed:
    """What the format makes of them, with nothing rejected."""
    parsed = parse(deliveries[0].headers["format"], deliveries)
    assert [(reject.reason, reject.content[:200]) for reject in parsed.rejects] == []
    return parsed


def start_alertmanager(world: World) -> None:
    port = free_port()
    receiver = {
        "url": f"{world.url}/webhooks/alertmanager",
        "http_config": {"authorization": {"credentials": world.source_key("alertmanager")}},
    }
    route = {"receiver": "aiops", "group_by": ["alertname"], "group_wait": "1s", "group_interval": "5s"}
    config = {"route": route, "receivers": [{"name": "aiops", "webhook_configs": [receiver]}]}
    path = world.write("alertmanager.yml", json.dumps(config))
    listen = ["--web.listen-address", f"127.0.0.1:{port}", "--cluster.listen-address="]
    storage = ["--storage.path", str(world.folder / "alertmanager")]
    world.run("alertmanager", "prometheus-alertmanager", "--config.file", path, *storage, *listen)
    labels = {"alertname": "DiskFull", "instance": "edge1:9100", "severity": "critical"}
    alert = {"labels": labels, "annotations": {"summary": "disk full"}, "generatorURL": "http://lab/graph"}

    def told() -> bool:
        with contextlib.suppress(httpx.HTTPError):
            url = f"http://127.0.0.1:{port}/api/v2/alerts"
            return httpx.post(url, json=[alert], timeout=5).status_code == 200
        return False

    wait_until(told, 60, "Alertmanager takes an alert")


def start_prometheus(world: World) -> None:
    port = free_port()
    scrape = {
        "job_name": "self",
        "static_configs": [{"targets": [f"127.0.0.1:{port}"], "labels": {"site": "lab"}}],
        "metric_relabel_configs": [{"source_labels": ["__name__"], "regex": "process_.*", "action": "keep"}],
    }
    queue = {"batch_send_deadline": "1s", "min_backoff": "100ms", "max_backoff": "1s", "max_shards": 1}
    write = {
        "url": f"{world.url}/api/v1/write",
        "authorization": {"credentials": world.source_key("prometheus")},
        "queue_config": queue,
        "metadata_config": {"send": True, "send_interval": "5s"},
    }
    limits = {"scrape_interval": "1s", "scrape_timeout": "1s"}
    config = {"global": limits, "scrape_configs": [scrape], "remote_write": [write]}
    path = world.write("prometheus.yml", json.dumps(config))
    storage = ["--storage.tsdb.path", str(world.folder / "prometheus")]
    listen = ["--web.listen-address", f"127.0.0.1:{port}"]
    world.run("prometheus", "prometheus", "--config.file", path, *storage, *listen)


def start_collectd(world: World) -> None:
    node = "\n".join(
        [
            f'URL "{world.url}/webhooks/collectd"',
            'Format "JSON"',
            f'Header "Authorization: Bearer {world.source_key("collectd")}"',
            "BufferSize 1024",
            "LogHttpError true",
        ]
    )
    config = f"""
        BaseDir "{world.folder}"
        PIDFile "{world.folder}/collectd.pid"
        Hostname "edge1.example"
        Interval 1
        LoadPlugin load
        LoadPlugin write_http
        <Plugin write_http>
        <Node "aiops">
        {node}
        </Node>
        </Plugin>
    """
    world.run("collectd", "/usr/sbin/collectd", "-f", "-C", world.write("collectd.conf", config))


def start_rsyslog(world: World) -> None:
    port = free_port()
    config = f"""
        module(load="imudp")
        input(type="imudp" address="127.0.0.1" port="{port}")
        module(load="omelasticsearch")
        template(name="json" type="list") {{
          constant(value="{{\\"@timestamp\\":\\"") property(name="timereported" dateFormat="rfc3339")
          constant(value="\\",") property(outname="host" name="hostname" format="jsonf")
          constant(value=",") property(outname="severity" name="syslogseverity-text" format="jsonf")
          constant(value=",") property(outname="program" name="programname" format="jsonf")
          constant(value=",") property(outname="message" name="msg" format="jsonf")
          constant(value="}}")
        }}
        action(type="omelasticsearch" server="127.0.0.1" serverport="{world.port}" uid="aiops"
          pwd="{world.source_key("rsyslog")}" bulkmode="on" searchIndex="syslog" searchType="" template="json"
          errorfile="{world.folder}/rsyslog.err" queue.type="LinkedList"
          action.resumeRetryCount="-1" action.resumeInterval="1")
        action(type="omfile" file="{world.folder}/rsyslog.all")
    """
    path = world.write("rsyslog.conf", config)
    world.run("rsyslog", "/usr/sbin/rsyslogd", "-n", "-f", path, "-i", world.folder / "rsyslog.pid")
    copy = world.folder / "rsyslog.all"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:

        def is_heard() -> bool:
            with contextlib.suppress(ConnectionError):
                sender.sendto(b"<13>Nov 20 10:00:00 edge1 probe: are you there", ("127.0.0.1", port))
            return copy.exists() and "are you there" in copy.read_text()

        wait_until(is_heard, 60, "rsyslog hears")
        for number in range(20):
            sender.sendto(f"<11>Nov 20 10:00:01 edge1 shop[7]: order {number} failed".encode(), ("127.0.0.1", port))


def start_netdata(world: World) -> None:
    folder = world.folder / "netdata"
    for name in ("cache", "lib", "log"):
        (folder / name).mkdir(parents=True)
    off = ("timex", "tc", "idlejitter", "cgroups", "checks", "apps", "python.d", "charts.d", "go.d", "perf", "ebpf")
    config = f"""
[global]
  update every = 1
  run as user = {_user()}
[directories]
  config = {folder}
  stock config = {folder}
  cache = {folder}/cache
  lib = {folder}/lib
  log = {folder}/log
[db]
  mode = ram
[web]
  bind to = 127.0.0.1:{free_port()}
[ml]
  enabled = no
[health]
  enabled = no
[statsd]
  enabled = no
[plugins]
  enable running new plugins = no
""" + "".join(f"  {name} = no\n" for name in (*off, "nfacct", "slabinfo", "ioping", "freeipmi", "diskspace"))
    exporting = f"""
[exporting:global]
  enabled = yes
[json:http:aiops]
  enabled = yes
  destination = 127.0.0.1:{world.port}
  update every = 1
  username = aiops
  password = {world.source_key("netdata")}
  hostname = edge1
  send charts matching = system.load system.cpu
"""
    world.write("netdata/exporting.conf", exporting)
    path = world.write("netdata/netdata.conf", config)
    world.run("netdata", "/usr/sbin/netdata", "-D", "-c", path)


def _user() -> str:
    import getpass

    return getpass.getuser()


def upload_journal(world: World) -> subprocess.CompletedProcess[str]:
    """Run journal-upload over a journal of 2,000 entries; it keeps its place in a state file."""
    journal = world.folder / "journal" / "edge1.journal"
    if not journal.exists():
        journal.parent.mkdir()
        entries = "".join(
            f"__REALTIME_TIMESTAMP={1_763_652_000_000_000 + number}\nMESSAGE=entry {number}\nPRIORITY=4\n"
            f"_HOSTNAME=edge1\nSYSLOG_IDENTIFIER=shop\n_PID=7\n\n"
            for number in range(2000)
        )
        path = world.write("journal.export", entries)
        command = [str(JOURNAL_REMOTE), f"--output={journal}", str(path)]
        subprocess.run(command, check=True, capture_output=True, timeout=30)
    url = f"--url=http://aiops:{world.source_key('journal')}@127.0.0.1:{world.port}"
    command = [
        str(JOURNAL_UPLOAD),
        url,
        f"--file={journal}",
        f"--save-state={world.folder}/journal.state",
        "--follow=no",
    ]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)


def start_sentry(world: World, name: str, word: str, algorithm: str = "gzip") -> None:
    dsn = f"http://{world.source_key(name)}@127.0.0.1:{world.port}/42"
    if "node" in name:
        script = world.write("sentry.js", SENTRY_NODE)
        world.run(f"{name} {word}", "node", script, dsn, word, NODE_PATH=str(NODE_CLIENTS))
    else:
        world.run(f"{name} {word}", sys.executable, world.write("sentry.py", SENTRY), dsn, algorithm, word)


def start_otlp(world: World, name: str, compression: str) -> None:
    variables = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": world.url,
        "OTEL_EXPORTER_OTLP_HEADERS": f"authorization=Bearer%20{world.source_key(name)}",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "40",
        "OTEL_EXPORTER_OTLP_COMPRESSION": compression,
    }
    world.run(name, sys.executable, world.write("otlp.py", OTLP), **variables)


def has_node() -> bool:
    return shutil.which("node") is not None and (NODE_CLIENTS / "@sentry" / "node").exists()


def starts(world: World) -> dict[str, Callable[[], None]]:
    """What starts each client, and below in ``refusals`` how it shows that it was refused."""
    found: dict[str, Callable[[], None]] = {
        name: lambda start=start: start(world)  # type: ignore[misc]
        for name, start in (
            ("alertmanager", start_alertmanager),
            ("prometheus", start_prometheus),
            ("collectd", start_collectd),
            ("rsyslog", start_rsyslog),
            ("netdata", start_netdata),
        )
        if installed(name)
    }
    found["sentry"] = lambda: start_sentry(world, "sentry", "refused")
    if has_node():
        found["sentry node"] = lambda: start_sentry(world, "sentry-node", "refused")
    found["otlp"] = lambda: start_otlp(world, "otlp", "gzip")
    return found


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("clients")
    home = folder / "home"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIOPS_GATEWAY_MAX_BACKLOG_BYTES", "1")
        patch.setenv("AIOPS_SEGMENT_MAX_AGE_SECONDS", "0.2")
        with served(Settings(home=home)) as (url, key):
            made = World(folder, home, url, key)
            try:
                run_all(made)
                yield made
            finally:
                for process in made.processes.values():
                    process.terminate()
                for process in made.processes.values():
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(10)
                    process.kill()
                    process.wait(10)


def run_all(world: World) -> None:
    """Close the gateway, start every client, wait until each was refused, open the gateway."""
    headers = {"x-api-key": world.key}

    def is_closed() -> bool:
        answer = httpx.post(f"{world.url}/webhooks/generic", content=b"{}", headers=headers, timeout=5)
        return answer.status_code == 503

    wait_until(is_closed, 60, "the gateway closes")
    for start in starts(world).values():
        start()
    if JOURNAL_UPLOAD.exists() and JOURNAL_REMOTE.exists():
        refused = upload_journal(world)
        world.write("journal refused.log", f"{refused.returncode} {refused.stderr}")
    for name, sign in REFUSALS.items():
        if name in world.processes:
            wait_until(lambda name=name, sign=sign: sign in world.log(name), 60, f"{name} is refused")  # type: ignore[misc]
    world.opened_at = time.time_ns() // 1000
    write_progress(world.home / "live", Progress(taken={"gateway": 1_000_000}))
    wait_until(lambda: not is_closed(), 60, "the gateway opens")
    for algorithm in ("gzip", "br"):
        start_sentry(world, f"sentry-{algorithm}", "taken", algorithm)
    if has_node():
        start_sentry(world, "sentry-node", "taken")


#: what clients write when they are refused
REFUSALS = {
    "alertmanager": "unexpected status code 503",
    "prometheus": "server returned HTTP status 503",
    "collectd": "503",
    "rsyslog": "suspend",
    "sentry refused": "told to wait",
    "sentry-node refused": "sent",
    "otlp": "Transient error",
}


def test_alertmanager_repeats_until_it_is_taken_and_then_stops(world: World) -> None:
    needs("alertmanager")
    (delivery,) = world.arrived("alertmanager")
    assert dict(delivery.headers) == {"format": "alertmanager"}
    assert delivery.content_type == "application/json"
    assert json.loads(delivery.body)["alerts"][0]["labels"]["alertname"] == "DiskFull"
    alerts = read([delivery]).external
    assert alerts.select("name", "state", "host", "severity_number").rows() == [("DiskFull", "firing", "edge1", 21)]


def test_prometheus_delivers_each_sample_once_also_those_from_before_the_opening(world: World) -> None:
    needs("prometheus")
    deliveries = world.arrived("prometheus", 3)
    assert {one.headers["format"] for one in deliveries} == {"remote_write"}
    assert {one.headers["content-encoding"] for one in deliveries} == {"snappy"}
    points = read(deliveries).points
    assert points.height > 0
    assert points.select("series", "ts").is_duplicated().any() is False
    assert points["ts"].min() < world.opened_at  # type: ignore[operator]


def test_collectd_drops_what_it_is_refused_by_its_own_design_and_goes_on(world: World) -> None:
    needs("collectd")
    deliveries = world.arrived("collectd")
    assert {one.headers["format"] for one in deliveries} == {"collectd"}
    assert json.loads(deliveries[0].body)[0]["host"] == "edge1.example"
    points = read(deliveries).points
    assert points.height > 0


def test_rsyslog_sends_each_line_once_after_it_was_refused(world: World) -> None:
    needs("rsyslog")
    seen: Counter[str] = Counter()

    def all_there() -> bool:
        seen.clear()
        for delivery in world.deliveries("rsyslog"):
            assert delivery.headers["format"] == "elastic_bulk"
            seen.update(json.loads(line).get("message", "").strip() for line in delivery.body.split(b"\n") if line)
        return all(f"order {number} failed" in seen for number in range(20))

    wait_until(all_there, 60, "rsyslog delivers every line")
    assert {seen[f"order {number} failed"] for number in range(20)} == {1}
    logs = read(world.deliveries("rsyslog")).logs
    assert logs.filter(logs["body"].str.contains("order"))["host"].unique().to_list() == ["edge1"]


def test_netdata_delivers_and_its_empty_rounds_are_no_deliveries(world: World) -> None:
    needs("netdata")
    deliveries = world.arrived("netdata", 2)
    assert {one.headers["format"] for one in deliveries} == {"netdata"}
    assert all(json.loads(one.body) for one in deliveries)
    assert read(deliveries).points.height > 0


def test_a_journal_is_uploaded_once_after_a_first_try_was_refused(world: World) -> None:
    if not (JOURNAL_UPLOAD.exists() and JOURNAL_REMOTE.exists()):
        pytest.skip("systemd-journal-upload is not installed (Debian: apt install systemd-journal-remote)")
    assert world.log("journal refused").startswith("1 ")
    assert "503" in world.log("journal refused")
    assert world.deliveries("journal") == []
    for _ in range(2):
        uploaded = upload_journal(world)
        assert uploaded.returncode == 0, uploaded.stderr
    deliveries = world.arrived("journal")
    assert {one.content_type for one in deliveries} == {"application/vnd.fdo.journal"}
    body = b"".join(one.body for one in deliveries)
    assert [body.count(f"MESSAGE=entry {number}\n".encode()) for number in (0, 999)] == [1, 1]
    # The client begins its second upload with the last entry of the first, whose cursor tells that it is the same.
    assert read(deliveries).logs["event_id"].n_unique() == 2000


def test_the_python_sentry_sdk_drops_what_it_is_refused_by_its_own_design_and_waits(world: World) -> None:
    assert world.deliveries("sentry") == [] or all(
        b"message refused" not in _plain(one) for one in world.deliveries("sentry")
    )
    assert "told to wait" in world.log("sentry refused")


@pytest.mark.parametrize("algorithm", ["gzip", "br"])
def test_the_python_sentry_sdk_delivers_errors_messages_transactions_and_sessions(world: World, algorithm: str) -> None:
    name = f"sentry-{algorithm}"
    deliveries = world.arrived(name, 4)
    assert {one.headers["content-encoding"] for one in deliveries} == {algorithm}
    assert {(one.headers["format"], one.headers["project"]) for one in deliveries} == {("sentry_envelope", "42")}
    assert all(world.source_key(name) not in str(dict(one.headers)) for one in deliveries)
    plain = b"\n".join(_plain(one) for one in deliveries)
    for part in (b"a message taken", b"KeyError", b"checkout", b'"type":"session'):
        assert part in plain
    parsed = read(deliveries)
    assert "KeyError" in parsed.errors["type"].to_list()


def test_the_node_sentry_sdk_delivers_with_nothing_but_its_dsn(world: World) -> None:
    needs_node()
    deliveries = world.arrived("sentry-node", 3)
    assert {(one.headers["format"], one.headers["project"]) for one in deliveries} == {("sentry_envelope", "42")}
    assert all(world.source_key("sentry-node") not in str(dict(one.headers)) for one in deliveries)
    wait_until(lambda: "sent" in world.log("sentry-node taken"), 60, "the Node SDK is done")
    plain = b"\n".join(_plain(one) for one in world.deliveries("sentry-node"))
    for part in (b"a message taken", b"TypeError", b"checkout", b'"type":"session'):
        assert part in plain
    assert b"a message refused" not in plain
    parsed = read(world.deliveries("sentry-node"))
    assert "TypeError" in parsed.errors["type"].to_list()


def _plain(delivery: Delivery) -> bytes:
    from aiops_assets.formats.payload import unpacked

    return unpacked(delivery)


def test_opentelemetry_exporters_repeat_until_they_are_taken_and_then_stop(world: World) -> None:
    deliveries = world.arrived("otlp", 3)
    wait_until(lambda: "sent" in world.log("otlp"), 60, "the exporters are done")
    deliveries = world.deliveries("otlp")
    by_format: dict[str, list[Delivery]] = {}
    for one in deliveries:
        by_format.setdefault(one.headers["format"], []).append(one)
    assert {name: len(by_format[name]) for name in ("otlp_logs", "otlp_traces")} == {"otlp_logs": 1, "otlp_traces": 1}
    assert {one.headers["content-encoding"] for one in deliveries} == {"gzip"}
    assert all(gzip.decompress(one.body) for one in deliveries)
    points = read(by_format["otlp_metrics"]).points
    assert points.height >= 1
    assert points.select("series", "ts").is_duplicated().any() is False
    assert read(by_format["otlp_logs"]).logs.select("body", "severity_number").rows() == [("stock is low", 13)]
    spans = read(by_format["otlp_traces"]).spans
    assert spans.select("name", "service", "host").rows() == [("checkout", "shop", "edge1")]


def test_what_real_clients_sent_becomes_rows_and_nothing_of_it_is_quarantined(world: World, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home")
    settings.paths.create()
    shutil.copytree(world.home / "landing", settings.paths.landing, dirs_exist_ok=True)
    pipeline = Pipeline(settings)
    pipeline.open()
    while pipeline.step() is not None:
        pass
    pipeline.close()
    lake = Lake(settings.paths.lake)

    def sources(table: str) -> set[str]:
        return set(lake.read(table)["source"].to_list())

    came = set(world.processes) | {"sentry-gzip", "sentry-br"}
    assert {"prometheus", "collectd", "netdata", "otlp"} & came <= sources("metric_points")
    assert {"rsyslog", "otlp"} & came <= sources("log_events")
    assert {"sentry-gzip", "sentry-br"} <= sources("error_events")
    assert {"otlp", "sentry-gzip"} <= sources("spans")
    assert {entry.source for entry in Quarantine(settings.paths.quarantine).entries()} <= {"generic"}
    if "journal" in sources("log_events"):
        logs = lake.read("log_events").filter(pl.col("source") == "journal")
        assert logs.height == 2000


def test_no_key_of_any_client_is_in_the_gateways_log(world: World) -> None:
    (log,) = world.folder.glob("gateway-*.log")
    text = log.read_text()
    for path in world.folder.glob("*.key"):
        assert path.read_text() not in text
    assert "Traceback" not in text


def test_every_format_of_a_real_client_is_a_format(world: World) -> None:
    folder = world.home / "landing" / "gateway"
    sealed = [read_segment(folder, seq) for seq in sorted(numbers(folder, ".seg"))]
    assert {one.headers["format"] for segment in sealed for one in segment.deliveries} <= set(FORMATS)
