"""``aiops up``: the platform on one machine, from an empty folder to addresses that answer.

What belongs here: which processes the platform consists of, what must be right before any of them starts, and what a
person is told. How processes are kept running is in ``supervisor``.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aiops_assets.cli.output import PROBLEM, USAGE, Problem, clean, console, load

if TYPE_CHECKING:
    from rich.console import Console

    from aiops_assets.cli.supervisor import ChildSpec, Event, SupervisorState
    from aiops_assets.config import Config
    from aiops_assets.settings import Home, Settings

#: what ``--only`` knows, and the processes each stands for
PARTS: dict[str, tuple[str, ...]] = {
    "gateway": ("gateway",),
    "collector": ("collector",),
    "listener": ("listener",),
    "dagster": ("code-live", "code-learning", "dagster-daemon", "dagster-webserver"),
}
COMPONENTS = tuple(name for names in PARTS.values() for name in names)
#: code location → module, as in ``workspace.yaml``
LOCATIONS = {"live": "aiops_assets.definitions.live", "learning": "aiops_assets.definitions.learning"}
#: the kernel takes at most 107 bytes as the path of a socket
_LONGEST_SOCKET_PATH = 100
#: how long the first process of all may take to make Dagster's databases, on a busy machine
_DATABASE_SECONDS = 120.0
_PROBE_SECONDS = 2.0
_RECONNECT_SECONDS = 20.0
#: the banner appears when everything is ready, or after this long with the names of what is not
_BANNER_AFTER_SECONDS = 90.0
_HEALTH_QUERY = "{ instance { daemonHealth { allDaemonStatuses { daemonType required healthy lastHeartbeatTime } } } }"
_LOCATIONS_QUERY = (
    "{ workspaceOrError { ... on Workspace { locationEntries { name loadStatus "
    "locationOrLoadError { __typename ... on PythonError { message } } } } } }"
)


def up(
    only: Annotated[
        list[str] | None,
        typer.Option(help=f"Only this part; may be repeated: {', '.join(PARTS)}.", show_default=False),
    ] = None,
) -> None:
    """Start the platform: gateway, collector, Dagster. Ctrl-C ends all of it.

    The home folder (AIOPS_HOME, default .aiops) is made when missing. A part that dies is named and started again.

    Examples:

      aiops up

      AIOPS_DAGSTER_PORT=3001 aiops up
    """
    from aiops_assets.cli.supervisor import AlreadyRunning, Supervisor, running

    settings = load()
    home = settings.paths
    for part in only or ():
        if part not in PARTS:
            raise Problem(f"there is no part {part!r}; parts: {', '.join(PARTS)}", USAGE)
    wanted = tuple(name for part in only or PARTS for name in PARTS[part])
    if (state := running(home.root)) is not None:
        raise Problem(_already_running(home, state), PROBLEM)
    config = prepare(settings)
    if not config.listen.declared:
        wanted = tuple(name for name in wanted if name != "listener")
    check_ports(settings, wanted)
    out = console()
    story = _Story(out, settings, config, wanted)
    try:
        backoff = settings.restart_backoff_seconds
        Supervisor(home.root, home.logs, children(settings, wanted), story.tell, longest_backoff=backoff).run()
    except AlreadyRunning as error:
        raise Problem(_already_running(home, error.state), PROBLEM) from error


def _already_running(home: Home, state: SupervisorState | None) -> str:
    pid = f" (process {state.pid})" if state is not None else ""
    return f"the platform is already running for {home.root}{pid}; see it with: {program()} status"


def prepare(settings: Settings) -> Config:
    """Make the home folder complete, or raise ``ConfigError`` before anything is written.

    Existing files of the user stay as they are; ``dagster.yaml`` is ours and follows the version installed.
    """
    from aiops_assets.config import load_config, template
    from aiops_assets.gateway.keys import ensure_admin_key

    home = settings.paths
    config = load_config(home.config)
    home.create()
    if not home.config.exists():
        home.config.parent.mkdir(parents=True, exist_ok=True)
        home.config.write_text(template(), "utf-8")
    _replace_if_different(home.dagster / "dagster.yaml", dagster_yaml(settings))
    _replace_if_different(home.dagster / "workspace.yaml", workspace_yaml(home))
    ensure_admin_key(home.keys)
    return config


def dagster_yaml(settings: Settings) -> str:
    """The Dagster instance configuration that belongs to these settings."""
    name = "dagster.postgres.yaml" if settings.postgres_url else "dagster.yaml"
    return resources.files("aiops_assets").joinpath("definitions", name).read_text("utf-8")


def _replace_if_different(path: Path, text: str) -> None:
    if not path.exists() or path.read_text("utf-8") != text:
        temporary = path.with_name(f".{path.name}.new")
        temporary.write_text(text, "utf-8")
        temporary.replace(path)


def workspace_yaml(home: Home) -> str:
    """Where Dagster finds the code servers that we run.

    They are ours because Dagster starts none again that was killed: with the ``python_module`` entries of the
    project's ``workspace.yaml`` the daemon would hold on to a dead one for ever. They also serve webserver and daemon
    alike, which halves memory and start-up.
    """
    sockets = {name: json.dumps(str(code_socket(home, name))) for name in LOCATIONS}
    entries = [f"  - grpc_server: {{socket: {path}, location_name: {name}}}" for name, path in sockets.items()]
    return "\n".join(["# Written by aiops up.", "load_from:", *entries, ""])


def code_socket(home: Home, location: str) -> Path:
    """The socket of a code server; below the system's folder for such things when the home's path is too long."""
    path = home.dagster / f"{location}.sock"
    if len(str(path).encode()) <= _LONGEST_SOCKET_PATH:
        return path
    digest = hashlib.sha256(str(home.root).encode()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"aiops-{os.getuid()}-{digest}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise Problem(f"{folder} belongs to somebody else; use a shorter path for AIOPS_HOME", USAGE)
    return folder / f"{location}.sock"


def children(settings: Settings, wanted: Sequence[str] = COMPONENTS) -> list[ChildSpec]:
    """The processes of the platform: intake first, then what makes incidents, then what people look at."""
    from aiops_assets.cli.supervisor import ChildSpec

    home = settings.paths
    environment = {
        "AIOPS_HOME": str(home.root),
        "AIOPS_CONFIG": str(home.config),
        "DAGSTER_HOME": str(home.dagster),
        "DAGSTER_DISABLE_TELEMETRY": "yes",
        "PYTHONUNBUFFERED": "1",
    }
    # Processes that make Dagster's databases at the same time break each other, so the first one goes first.
    databases = not settings.postgres_url and (home.dagster / "schedules" / "schedules.db").exists()
    first, hold = ("gateway", 10.0) if databases else ("code-live", _DATABASE_SECONDS)
    own = (sys.executable, "-m", "aiops_assets.cli")
    dagster = (sys.executable, "-m", "dagster")
    workspace = ("-w", str(home.dagster / "workspace.yaml"))
    address = ("-h", settings.dagster_host, "-p", str(settings.dagster_port))

    def spec(
        name: str, command: tuple[str, ...], ready: Callable[[float], bool], after: tuple[str, ...] = ()
    ) -> ChildSpec:
        held = hold if "code-live" in after else 10.0
        return ChildSpec(name, command, environment, ready, tuple(name for name in after if name in wanted), held)

    def code_server(location: str, after: str) -> ChildSpec:
        socket_path = code_socket(home, location)
        where = ("--socket", str(socket_path), "--module-name", LOCATIONS[location], "--location-name", location)
        command = (*dagster, "api", "grpc", *where, "--use-python-environment-entry-point", "--log-level", "warning")
        return spec(f"code-{location}", command, lambda started: _listens(socket_path), (after,))

    specs = (
        spec("gateway", (*own, "gateway"), lambda started: gateway_answers(settings)),
        spec("collector", (*own, "collect"), lambda started: _written_since(home.collector / "status.json", started)),
        spec("listener", (*own, "listen"), lambda started: _written_since(home.listener / "status.json", started)),
        code_server("live", after="gateway"),
        spec(
            "dagster-daemon",
            (sys.executable, "-m", "dagster._daemon", "run", *workspace),
            lambda started: _daemon_works(settings, started),
            (first,),
        ),
        spec(
            "dagster-webserver",
            (sys.executable, "-m", "dagster_webserver", *address, "--dagster-log-level", "warning", *workspace),
            lambda started: _fetch(f"{dagster_url(settings)}/server_info") is not None,
            (first,),
        ),
        code_server("learning", after="code-live"),
    )
    return [entry for entry in specs if entry.name in wanted]


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_PROBE_SECONDS)
        return probe.connect_ex(str(path)) == 0


def check_ports(settings: Settings, wanted: Sequence[str]) -> None:
    """Raise ``Problem`` with one line for each port that somebody else uses."""
    ports = (
        ("gateway", settings.gateway_host, settings.gateway_port, "AIOPS_GATEWAY_PORT"),
        ("dagster-webserver", settings.dagster_host, settings.dagster_port, "AIOPS_DAGSTER_PORT"),
    )
    lines = []
    for name, host, port, variable in ports:
        if name not in wanted:
            continue
        try:
            family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
        except OSError as error:
            if isinstance(error, socket.gaierror) or error.errno not in {98, 48}:
                lines.append(f"{name} cannot listen on {host}:{port}: {error.strerror}")
            else:
                lines.append(f"port {port} is used{_user_of(port)}; set {variable} to a free one")
    if lines:
        raise Problem("\n".join(lines), USAGE)


def _user_of(port: int) -> str:
    import psutil

    try:
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr[1:2] == (port,) and connection.pid:
                return f" by {psutil.Process(connection.pid).name()} (process {connection.pid})"
    except psutil.Error:
        return ""
    return ""


def reachable(host: str) -> str:
    """The address under which this machine reaches a server that listens on ``host``."""
    local = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}.get(host)  # noqa: S104
    return local or (f"[{host}]" if ":" in host else host)


def gateway_url(settings: Settings) -> str:
    """The gateway's address as seen from this machine."""
    return f"http://{reachable(settings.gateway_host)}:{settings.gateway_port}"


def dagster_url(settings: Settings) -> str:
    """The Dagster UI's address as seen from this machine."""
    return f"http://{reachable(settings.dagster_host)}:{settings.dagster_port}"


def gateway_answers(settings: Settings) -> bool:
    """Whether the gateway answers its health check."""
    return _fetch(f"{gateway_url(settings)}/health") is not None


def _fetch(url: str, query: str | None = None) -> object:
    """JSON (or text) of an address, by GET or a GraphQL query; ``None`` while it does not answer 200."""
    import httpx
    import orjson

    try:
        with httpx.Client(timeout=_PROBE_SECONDS, trust_env=False) as client:
            answer = client.get(url) if query is None else client.post(url, json={"query": query})
    except httpx.HTTPError:
        return None
    if answer.status_code != 200:
        return None
    try:
        return orjson.loads(answer.content)
    except ValueError:
        return answer.text


def _written_since(path: Path, started: float) -> bool:
    try:
        return path.stat().st_mtime >= started
    except FileNotFoundError:
        return False


def _daemon_works(settings: Settings, started: float) -> bool:
    answer = _fetch(f"{dagster_url(settings)}/graphql", _HEALTH_QUERY)
    if not isinstance(answer, dict) or not answer.get("data"):
        return False
    statuses = answer["data"]["instance"]["daemonHealth"]["allDaemonStatuses"]
    required = [status for status in statuses if status["required"]]
    return bool(required) and all(
        status["healthy"] and (status["lastHeartbeatTime"] or 0) >= started for status in required
    )


def location_problems(settings: Settings) -> list[str]:
    """One line for each Dagster code location that did not load."""
    answer = _fetch(f"{dagster_url(settings)}/graphql", _LOCATIONS_QUERY)
    if not isinstance(answer, dict) or not answer.get("data"):
        return []
    entries = answer["data"]["workspaceOrError"].get("locationEntries", [])
    lines = []
    for entry in entries:
        found = entry["locationOrLoadError"] or {}
        if found.get("__typename") == "PythonError":
            message = found["message"].strip().splitlines()
            lines.append(f"code location {entry['name']} does not load: {message[-1] if message else 'unknown'}")
    return lines


def _lasting_problems(settings: Settings) -> list[str]:
    """``location_problems`` that stay: the webserver finds a code server a few seconds after that one listens."""
    until = time.monotonic() + _RECONNECT_SECONDS
    found = location_problems(settings)
    while any("UserCodeUnreachable" in line for line in found) and time.monotonic() < until:
        time.sleep(_PROBE_SECONDS / 2)
        found = location_problems(settings)
    return found


def program() -> str:
    """How this command line is called from where the person stands."""
    if shutil.which("aiops"):
        return "aiops"
    path = Path(sys.executable).parent / "aiops"
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


class _Story:
    """What the person at the terminal reads while the platform starts and runs."""

    def __init__(self, out: Console, settings: Settings, config: Config, wanted: Sequence[str]) -> None:
        self._out, self._settings, self._config = out, settings, config
        self._waiting = set(wanted)
        self._begun = time.monotonic()
        self._lock = threading.Lock()
        self._told = False
        self._timer = threading.Timer(_BANNER_AFTER_SECONDS, self._banner)
        self._timer.daemon = True
        out.print(f"[bold]AIOps[/] starts in {clean(settings.paths.root)} (Ctrl-C ends it)")
        self._timer.start()

    def tell(self, event: Event) -> None:
        if event.kind == "started":
            return
        if event.kind == "ready":
            self._out.print(f"  [green]✓[/] {clean(event.text)}")
            self._waiting.discard(event.child)
            if not self._waiting:
                self._banner()
        elif event.kind == "died":
            self._out.print(f"[yellow]![/] {clean(event.text)}")
        else:
            self._timer.cancel()
            self._out.print(clean(event.text))

    def _banner(self) -> None:
        with self._lock:
            if self._told:
                return
            self._told = True
        self._timer.cancel()
        for line in banner(self._settings, self._config, tuple(self._waiting), time.monotonic() - self._begun):
            self._out.print(line)


def banner(settings: Settings, config: Config, waiting: Sequence[str], seconds: float) -> list[str]:
    """The lines (rich markup) that tell where everything is and what to do next."""
    from aiops_assets.live.progress import read_progress

    home, aiops = settings.paths, program()
    hosts = config.collect.host
    collected = []
    if hosts.enabled:
        what = "cpu, memory, filesystems, disks, network, load, processes"
        collected.append(f"this machine ({platform.node()}): {what}, every {hosts.interval:g} s")
    if config.devices:
        collected.append(f"{len(config.devices)} SNMP devices")
    collected += [f"{what} on {', '.join(addresses)}" for what, addresses in config.listen.addresses if addresses]
    if not collected:
        collected.append("nothing yet: add devices to aiops.yaml or send to a webhook")
    closed = read_progress(home.live).hours_closed
    rules = len(config.active_rules)
    learned = f"{closed} hours of history so far" if closed else "no closed hour of history yet"
    rows = [
        ("incidents", f"{gateway_url(settings)}/incidents"),
        ("Dagster", dagster_url(settings)),
        ("webhooks", f"POST {gateway_url(settings)}/webhooks/telegraf  (or /webhooks/generic)"),
        ("key", f"{home.keys / 'admin.key'}  (only you can read it; every page and webhook asks for it)"),
        ("data", f"{home.lake}  (Delta tables)"),
        ("settings", f"{home.config}  (read again when it changes)"),
        ("logs", str(home.logs)),
        ("collected", "; ".join(collected)),
        ("works now", f"{rules} absolute rules (filesystem, memory, processor, temperature, silence …)"),
        (
            "learning",
            f"statistics, {learned}: notices after a day of data, seasons from the fifth day, warnings from the second "
            "week (drastic ones sooner)",
        ),
    ]
    ready = f"The platform is ready after {seconds:.0f} s"
    if waiting:
        ready = f"Not ready yet: {', '.join(sorted(waiting))}; see the logs"
    lines = ["", f"[bold]{clean(ready)}[/]"]
    lines += [f"  [cyan]{name:<10}[/] {clean(text)}" for name, text in rows]
    lines += [f"  [red]problem[/]    {clean(problem)}" for problem in _lasting_problems(settings)]
    lines += [
        "",
        "[bold]What to try next[/], in a second terminal",
        f"  {aiops} try                an incident within a minute, on synthetic hosts",
        f"  {aiops} status --watch     sources, rates, lag, open incidents",
        f"  {aiops} doctor             checks everything the platform needs",
        f'  curl -H "Authorization: Bearer $(cat {home.keys / "admin.key"})" --data-binary '
        f"'shop,host=web-1 orders=12' {gateway_url(settings)}/webhooks/telegraf",
        "",
    ]
    return lines
