"""The dbt project as the platform runs it: where it is, its manifest, and the arguments of a build.

What belongs here: what stands between settings and dbt's command line. What does not: Dagster (``assets``) and SQL
(``dbt/``). dbt runs in a child process, always: it keeps global state, and its imports take seconds.

The manifest is parsed when there is none for the present files of the project: a few seconds once, without network.
Its name carries the hash of the files, so a stale one cannot be taken, and it is put in place by one rename under a
lock, so several code servers may load at once.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from aiops_assets.settings import Settings, child_environment

#: parsing takes about four seconds; a machine that starts everything at once needs more
PARSE_SECONDS = 120.0
_PROJECT_FILES = ("*.sql", "*.yml", "*.md")
_SHIFT = re.compile(r"(\d{1,2})-(\d{1,2})")
_KEPT_MANIFESTS = 3


class ProjectProblem(Exception):
    """The dbt project cannot be used; the text says why and what to do."""


def project_folder(settings: Settings) -> Path:
    """The dbt project's folder.

    Raises:
        ProjectProblem: it is not there.
    """
    folder = settings.dbt_project.expanduser().resolve()
    if not (folder / "dbt_project.yml").is_file():
        raise ProjectProblem(
            f"{folder} is no dbt project (no dbt_project.yml there): set AIOPS_DBT_PROJECT to the folder `dbt` of the "
            "source tree"
        )
    return folder


def dbt_executable() -> str:
    """The ``dbt`` of this environment, whatever PATH says."""
    beside = Path(sys.executable).parent / "dbt"
    return str(beside) if beside.is_file() else shutil.which("dbt") or "dbt"


def variables(settings: Settings, first_day: date | None = None, last_day: date | None = None) -> dict[str, str]:
    """The dbt variables of a build: places, limits, shifts, and the days of daily models (both included).

    Raises:
        ProjectProblem: AIOPS_TIME_ZONE or AIOPS_SHIFTS is wrong.
    """
    home = settings.paths
    values = {
        "lake": home.lake,
        "marts": str(home.marts),
        "memory": settings.marts_memory,
        "scratch": str(home.root / "marts" / ".scratch"),
        "time_zone": _time_zone(settings.time_zone),
        "shifts": ",".join(f"{start:02d}-{end:02d}" for start, end in shifts(settings.shifts)),
    }
    if first_day is not None:
        values |= {"first_day": f"{first_day}", "last_day": f"{last_day or first_day}"}
    return values


def shifts(text: str) -> list[tuple[int, int]]:
    """Shifts such as ``08-16,16-24,00-08`` as (from, to) hours; they must cover each hour of a day once.

    Raises:
        ProjectProblem: they do not.
    """
    problem = f"AIOPS_SHIFTS: {text!r}: write hours from-to that cover a day once, for example 08-16,16-24,00-08"
    found = []
    for part in text.split(","):
        match = _SHIFT.fullmatch(part.strip())
        if match is None:
            raise ProjectProblem(problem)
        found.append((int(match[1]), int(match[2])))
    if sorted(hour for start, end in found for hour in range(start, end)) != list(range(24)):
        raise ProjectProblem(problem)
    return found


def _time_zone(name: str) -> str:
    try:
        return ZoneInfo(name).key
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ProjectProblem(f"AIOPS_TIME_ZONE: {name!r} is no time zone; an example is Europe/Berlin") from error


def digest(folder: Path) -> str:
    """Twenty hex digits over the project's files and the versions that parse them."""
    found = hashlib.sha256(f"{_versions()}\n{folder}\n".encode())
    for path in sorted({path for pattern in _PROJECT_FILES for path in folder.rglob(pattern)}):
        relative = path.relative_to(folder)
        if relative.parts[0] not in {"target", "logs", "dbt_packages"}:
            found.update(f"{relative.as_posix()}\n".encode() + path.read_bytes() + b"\0")
    return found.hexdigest()[:20]


@cache
def _versions() -> str:
    return " ".join(f"{name}={version(name)}" for name in ("dbt-core", "dbt-duckdb"))


def manifest_path(settings: Settings) -> Path:
    """The manifest of the project as it is now, parsed if there is none yet.

    It lies in ``target/`` of the project, or, where that cannot be written, in a folder of the system's temporary files
    that only this user can write.

    Raises:
        ProjectProblem: the project is not there, or dbt refuses it; the text has dbt's words.
    """
    folder = project_folder(settings)
    name = f"manifest-{digest(folder)}.json"
    for place in (folder / "target", *([settings.paths.root / "dbt"] if settings.paths.root.is_dir() else [])):
        if (place / name).is_file():
            return place / name
    place = _writable(folder / "target") or _writable_home(settings) or Path(tempfile.mkdtemp(prefix="aiops-dbt-"))
    with _locked(place / ".manifest.lock"):
        if not (place / name).is_file():
            _parse(folder, place / name)
            for old in sorted(place.glob("manifest-*.json"), key=lambda path: path.stat().st_mtime)[:-_KEPT_MANIFESTS]:
                old.unlink(missing_ok=True)
    return place / name


def load_manifest(settings: Settings) -> Mapping[str, Any]:
    """The manifest as dbt's JSON has it."""
    found: Mapping[str, Any] = json.loads(manifest_path(settings).read_bytes())
    return found


def _parse(folder: Path, final: Path) -> None:
    with tempfile.TemporaryDirectory(prefix=".parse-", dir=final.parent) as scratch:
        command = [dbt_executable(), "--no-use-colors", "--quiet", "parse", "--no-partial-parse"]
        places = {
            "DBT_PROJECT_DIR": folder,
            "DBT_PROFILES_DIR": folder,
            "DBT_TARGET_PATH": scratch,
            "DBT_LOG_PATH": scratch,
        }
        environment = child_environment(
            {**{name: str(path) for name, path in places.items()}, "DBT_SEND_ANONYMOUS_USAGE_STATS": "false"}
        )
        try:
            done = subprocess.run(
                command,
                cwd=folder,
                env=environment,
                capture_output=True,
                text=True,
                timeout=PARSE_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ProjectProblem(f"dbt could not parse {folder}: {error}") from error
        if done.returncode != 0:
            raise ProjectProblem(f"dbt could not parse {folder}:\n{(done.stdout + done.stderr).strip()}")
        (Path(scratch) / "manifest.json").replace(final)


def build_arguments(settings: Settings, first_day: date | None = None, last_day: date | None = None) -> list[str]:
    """``dbt build`` for some days of daily models; a selection is added by the caller."""
    return ["build", "--vars", json.dumps(variables(settings, first_day, last_day), sort_keys=True)]


def build(
    settings: Settings,
    first_day: date,
    last_day: date,
    *,
    select: Sequence[str] = (),
    timeout: float = 3600.0,
) -> str:
    """Build marts outside Dagster: ``dbt build`` in a child process; what it said.

    Raises:
        ProjectProblem: it failed; the text has dbt's words.
    """
    folder = project_folder(settings)
    settings.paths.marts.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".run-", dir=settings.paths.marts) as scratch:
        command = [dbt_executable(), "--no-use-colors", *build_arguments(settings, first_day, last_day)]
        command += ["--select", *select] if select else []
        places = {"DBT_PROJECT_DIR": str(folder), "DBT_PROFILES_DIR": str(folder), "DBT_TARGET_PATH": scratch}
        environment = child_environment({**places, "DBT_LOG_PATH": scratch, "DBT_SEND_ANONYMOUS_USAGE_STATS": "false"})
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=timeout, check=False
        )
    if done.returncode != 0:
        raise ProjectProblem(f"dbt build failed:\n{(done.stdout + done.stderr).strip()}")
    return done.stdout


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _writable(folder: Path) -> Path | None:
    """The folder, made if need be, when files can be put there."""
    try:
        folder.mkdir(exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder):
            return folder
    except OSError:
        return None


def _writable_home(settings: Settings) -> Path | None:
    """A folder in the home; loading never makes the home itself."""
    return _writable(settings.paths.root / "dbt") if settings.paths.root.is_dir() else None
