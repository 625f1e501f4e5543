"""``aiops doctor``: every thing the platform stands on, asked one by one, with what to do where the answer is no.

What belongs here: the questions and their remedies. Each answers within seconds and changes nothing; small files that
are written to measure the disk are removed again. What the running platform says about itself is ``aiops status``.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import socket
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from aiops_assets.cli.output import PROBLEM, clean, console, load, print_json

if TYPE_CHECKING:
    from aiops_assets.settings import Settings

Outcome = Literal["ok", "warn", "fail"]
_FREE_WARN, _FREE_FAIL = 5 * 1024**3, 512 * 1024**2
_FSYNC_WARN_SECONDS = 0.03
_FSYNC_TRIES = 15


@dataclass(frozen=True, slots=True)
class Finding:
    """The answer to one question; ``remedy`` says what to do unless all is well."""

    outcome: Outcome
    name: str
    detail: str
    remedy: str = ""


def doctor(as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False) -> None:
    """Check each thing the platform needs and say what to do. Exit code 1 when something must be done.

    Example:

      aiops doctor
    """
    settings = load()
    findings: list[Finding] = []
    out = console()
    colours = {"ok": "green", "warn": "yellow", "fail": "red"}
    for question in QUESTIONS:
        for finding in question(settings):
            findings.append(finding)
            if not as_json:
                out.print(
                    f"[{colours[finding.outcome]}]{finding.outcome:<4}[/]  {finding.name:<12} {clean(finding.detail)}"
                )
                if finding.remedy and finding.outcome != "ok":
                    out.print(f"      {'':<12} → {clean(finding.remedy)}")
    failed = sum(finding.outcome == "fail" for finding in findings)
    if as_json:
        print_json([asdict(finding) for finding in findings])
    elif failed:
        out.print(f"\n{failed} of {len(findings)} checks failed")
    else:
        out.print("\nnothing must be done")
    raise typer.Exit(PROBLEM if failed else 0)


def python(settings: Settings) -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    fits = (3, 11) <= sys.version_info[:2] < (3, 14)
    yield Finding("ok" if fits else "fail", "python", f"{version} at {sys.executable}", "use Python 3.11, 3.12 or 3.13")


def packages(settings: Settings) -> Iterator[Finding]:
    from packaging.requirements import Requirement

    needed = [Requirement(text) for text in importlib.metadata.requires("aiops-assets") or ()]
    needed = [requirement for requirement in needed if requirement.marker is None or requirement.marker.evaluate()]
    wrong = []
    for requirement in needed:
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing")
            continue
        if version not in requirement.specifier:
            wrong.append(f"{requirement.name} {version} is not {requirement.specifier}")
    if wrong:
        yield Finding("fail", "packages", "; ".join(wrong), "run: make install")
    else:
        yield Finding("ok", "packages", f"all {len(needed)} are there")


def home(settings: Settings) -> Iterator[Finding]:
    root = settings.paths.root
    if not root.exists():
        yield Finding("warn", "home", f"{root} does not exist yet", "aiops init makes it; so does aiops up")
        return
    if not os.access(root, os.W_OK | os.X_OK):
        yield Finding("fail", "home", f"{root} cannot be written", f"give it to this user: chown -R $(id -un) {root}")
        return
    yield Finding("ok", "home", f"{root} can be written")
    keys = settings.paths.keys
    if keys.exists() and stat.S_IMODE(keys.stat().st_mode) & 0o077:
        yield Finding("fail", "home", f"{keys} can be read by others", f"chmod 700 {keys}")
    elif (admin := keys / "admin.key").exists() and stat.S_IMODE(admin.stat().st_mode) & 0o077:
        yield Finding("fail", "home", f"{admin} can be read by others", f"chmod 600 {admin}")


def disk(settings: Settings) -> Iterator[Finding]:
    place = _existing(settings.paths.root)
    free = shutil.disk_usage(place).free
    outcome: Outcome = "fail" if free < _FREE_FAIL else "warn" if free < _FREE_WARN else "ok"
    yield Finding(
        outcome, "disk", f"{free / 1024**3:.1f} GiB free at {place}", "make room, or set AIOPS_HOME elsewhere"
    )
    if not os.access(place, os.W_OK):
        return
    took = sorted(_fsync_seconds(place))
    median = took[len(took) // 2]
    yield Finding(
        "ok" if median < _FSYNC_WARN_SECONDS else "warn",
        "fsync",
        f"{median * 1000:.1f} ms (median of {len(took)}, longest {took[-1] * 1000:.1f} ms)",
        "every delivery waits for one fsync: a faster disk, or larger batches from the senders",
    )


def _fsync_seconds(place: Path) -> list[float]:
    took = []
    with tempfile.NamedTemporaryFile(dir=place, prefix=".aiops-doctor-") as file:
        for _ in range(_FSYNC_TRIES):
            file.write(b"x" * 4096)
            file.flush()
            begun = time.perf_counter()
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - begun)
    return took


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


def configuration(settings: Settings) -> Iterator[Finding]:
    from aiops_assets.config import ConfigError, load_config

    path = settings.paths.config
    try:
        config = load_config(path)
    except ConfigError as error:
        for problem in error.problems:
            yield Finding("fail", "config", problem, "mend the line; the running platform keeps the last good version")
        return
    said = f"{path} is right" if path.exists() else f"{path} does not exist, the defaults are in force"
    yield Finding("ok", "config", f"{said}: {len(config.devices)} devices, {len(config.active_rules)} rules")


def keys(settings: Settings) -> Iterator[Finding]:
    from aiops_assets.gateway.keys import KeysDamaged, list_keys

    folder = settings.paths.keys
    if not folder.exists():
        yield Finding("warn", "keys", "there are none yet", "aiops init makes the first")
        return
    try:
        found = list_keys(folder)
    except KeysDamaged as error:
        yield Finding("fail", "keys", str(error), "restore keys.json, or remove it and start anew: aiops init")
        return
    valid = sum(key.revoked_at is None for key in found)
    remedy = "aiops init" if not found else "aiops keys create NAME"
    yield Finding("ok" if valid else "fail", "keys", f"{valid} in force, {len(found) - valid} revoked", remedy)


def operations(settings: Settings) -> Iterator[Finding]:
    from sqlalchemy import make_url
    from sqlalchemy.exc import SQLAlchemyError

    from aiops_assets.operations.database import HEAD, connect, schema_revision

    url = settings.paths.operations_url
    parsed = make_url(url)
    shown = parsed.render_as_string(hide_password=True)
    if parsed.get_backend_name() == "sqlite" and not Path(parsed.database or "").exists():
        yield Finding("warn", "operations", f"{shown} does not exist yet", "the first start makes it")
        return
    try:
        engine = connect(url)
        try:
            with engine.connect() as connection:
                revision = schema_revision(connection)
        finally:
            engine.dispose()
    except (SQLAlchemyError, ValueError) as error:
        reason = str(error).splitlines()[0]
        yield Finding("fail", "operations", f"{shown}: {reason}", "start the database, or correct AIOPS_OPERATIONS_URL")
        return
    if revision == HEAD:
        yield Finding("ok", "operations", f"{shown} is at migration {revision}")
    else:
        remedy = "the next start of the platform migrates it" if (revision or "") < HEAD else "update this program"
        detail = f"{shown} is at migration {revision or 'none'}, this program wants {HEAD}"
        yield Finding("warn" if (revision or "") < HEAD else "fail", "operations", detail, remedy)


def lake(settings: Settings) -> Iterator[Finding]:
    from deltalake.exceptions import DeltaError

    from aiops_assets.lake.tables import Lake
    from aiops_assets.tables import TABLES

    root = settings.paths.lake
    if "://" not in root and not Path(root).exists():
        yield Finding("warn", "lake", f"{root} does not exist yet", "the first start makes it")
        return
    opened, broken = 0, []
    for name in TABLES:
        try:
            opened += Lake(root).open(name) is not None
        except (DeltaError, OSError) as error:
            broken.append(f"{name}: {error}")
    for text in broken:
        yield Finding("fail", "lake", text, "look at the folder's _delta_log and at permissions")
    if not broken:
        yield Finding("ok", "lake", f"{root}: {opened} of {len(TABLES)} tables have been written, all readable")


def landing(settings: Settings) -> Iterator[Finding]:
    from aiops_assets.landing.reader import backlog, gaps, writers
    from aiops_assets.live.progress import read_progress
    from aiops_assets.observability.health import check_backlog, check_session

    zone = settings.paths.landing
    if not zone.exists():
        return
    for writer in writers(zone):
        if missing := gaps(zone / writer):
            detail = f"{writer} lacks {len(missing)} segments: {', '.join(map(str, missing[:5]))}"
            yield Finding("fail", "landing", detail, "restore them from a backup; acknowledged data is in them")
    progress = read_progress(settings.paths.live)
    waiting = backlog(zone, progress.taken)
    for check in (check_backlog(waiting, settings.gateway_max_backlog_bytes), check_session(waiting, progress)):
        remedy = f"look at the live_session runs in Dagster and at {settings.paths.logs}/dagster-daemon.log"
        yield Finding("ok" if check.ok else "fail", "landing", check.detail, remedy)


def dagster(settings: Settings) -> Iterator[Finding]:
    folder = settings.paths.dagster
    if not (folder / "dagster.yaml").exists():
        yield Finding("warn", "dagster", f"{folder} is not set up yet", "aiops init does it")
        return
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1024**2
    yield Finding("ok", "dagster", f"{folder} is set up, {size:.0f} MiB of runs and events")


def services(settings: Settings) -> Iterator[Finding]:
    from aiops_assets.cli.output import Problem
    from aiops_assets.cli.supervisor import running
    from aiops_assets.cli.up import COMPONENTS, check_ports, gateway_answers, gateway_url, location_problems

    state = running(settings.paths.root)
    if state is None:
        try:
            check_ports(settings, COMPONENTS)
        except Problem as problem:
            for line in str(problem).splitlines():
                yield Finding("fail", "ports", line, "")
        else:
            ports = f"{settings.gateway_port} and {settings.dagster_port} are free"
            yield Finding("ok", "ports", ports)
        yield Finding("warn", "services", "the platform does not run for this home folder", "start it: aiops up")
        return
    for name, child in state.children.items():
        up = "ready" if child.ready else "starting" if child.pid else "down"
        trouble = f", restarted {child.restarts} times, last: {child.last_exit}" if child.restarts else ""
        outcome: Outcome = "ok" if child.ready else "warn" if child.pid else "fail"
        yield Finding(outcome, "services", f"{name} {up}{trouble}", f"see {settings.paths.logs / name}.log")
    answers = gateway_answers(settings)
    yield Finding(
        "ok" if answers else "fail",
        "gateway",
        f"{gateway_url(settings)} {'answers' if answers else 'does not answer'}",
        f"see {settings.paths.logs / 'gateway.log'}",
    )
    for text in location_problems(settings):
        yield Finding("fail", "dagster", text, f"see {settings.paths.logs / 'dagster-webserver.log'}")


def optional(settings: Settings) -> Iterator[Finding]:
    for programs, use in (
        (("snmpd", "/usr/sbin/snmpd"), "tests poll a real SNMP agent"),
        (("chromium", "chromium-browser", "google-chrome"), "tests look at the pages"),
        (("postgres", *map(str, Path("/usr/lib/postgresql").glob("*/bin/postgres"))), "tests of grown storage"),
    ):
        found = next((path for name in programs if (path := shutil.which(name))), None)
        if found:
            yield Finding("ok", "optional", f"{found} ({use})")
        else:
            yield Finding(
                "warn", "optional", f"{programs[0]} is not installed; only {use} with it", f"apt install {programs[0]}"
            )


def clock(settings: Settings) -> Iterator[Finding]:
    year = time.gmtime().tm_year
    outcome: Outcome = "ok" if 2025 <= year < 2100 else "fail"
    now = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime())
    yield Finding(outcome, "clock", f"{now} on {socket.gethostname()}", "set the clock; NTP keeps it right")


QUESTIONS: tuple[Callable[[Settings], Iterator[Finding]], ...] = (
    python, packages, clock, home, disk, configuration, keys, operations, lake, landing, dagster, services, optional,
)  # fmt: skip
