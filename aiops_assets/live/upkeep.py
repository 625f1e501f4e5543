"""What the live plane no longer needs, and the care of its tables while a session stands aside.

What belongs here: up to which landing segment everything that could be asked again has been kept and read back, and
the order of lease, work and release for compaction and retention. What does not: removing segments
(``landing.retention``), packing them (``landing.packing``) and the work on files (``lake.upkeep``, ``lake.retention``).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson

from aiops_assets.config import load_config
from aiops_assets.hours import HOUR_FORMAT
from aiops_assets.lake.retention import Expired, expire
from aiops_assets.lake.tables import Lake
from aiops_assets.lake.upkeep import Compacted, Tidied, compact, compactable, tidy
from aiops_assets.lake.verification import Finding, Verification, known_clean, remember_clean, verify
from aiops_assets.landing.packing import DamagedPack, Packed, pack, packs, read_pack
from aiops_assets.landing.reader import gaps, writers
from aiops_assets.live.events import EVENT_TABLES
from aiops_assets.live.ownership import owned
from aiops_assets.promotion.store import FOLDER as VERSIONS
from aiops_assets.promotion.store import VersionStore
from aiops_assets.promotion.verification import NEXT_STEP
from aiops_assets.promotion.verification import verify as verify_versions
from aiops_assets.settings import Settings
from aiops_assets.tables import CHANGES, ENTITIES, METRIC_POINTS, REGISTRY_VERSIONS, SERIES, TABLES

#: hours that ended this long ago are closed, late rows apart
OPEN_HOURS = 2
#: a session stands aside at most this long at a time; what is left waits for the next time
COMPACTION_SECONDS = 120.0
#: segments that were sealed this long ago are packed
PACK_AFTER_HOURS = 1.0
#: tables that nothing but landing segments could fill again
_FROM_SEGMENTS = {table.name for table in (METRIC_POINTS, SERIES, CHANGES, ENTITIES, *EVENT_TABLES.values())}

Tell = Callable[[str, int, int], None]


def _quiet(what: str, done: int, total: int) -> None:
    """Tells nobody."""


def releasable(settings: Settings) -> dict[str, int]:
    """Writer → last segment that may go: taken by ``metric_points`` and read back from it without a finding.

    Before the first verification nothing may go.
    """
    verified = known_clean(settings.paths.care / "verified")
    return {name: min(seq, verified.get(name, 0)) for name, seq in settled(settings).items()}


def settled(settings: Settings) -> dict[str, int]:
    """Writer → last segment that ``metric_points`` has: a session goes on after it, all else follows from the rows."""
    names = writers(settings.paths.landing)
    return Lake(settings.paths.lake).taken("metric_points", names)


def compact_closed(settings: Settings, *, dry_run: bool, now: datetime, tell: Tell = _quiet) -> list[Compacted]:
    """Rewrite closed partitions that are not one sorted file; the session is asked aside only when there are any."""
    lake = Lake(settings.paths.lake)
    before = {
        name: (now.astimezone(UTC) - timedelta(hours=OPEN_HOURS)).strftime(HOUR_FORMAT)[: 13 if grain == "hour" else 10]
        for name, grain in ((name, table.partition) for name, table in TABLES.items())
        if grain is not None
    }
    if dry_run:
        return compact(lake, before, dry_run=True, tell=tell)
    if not any(compactable(lake, TABLES[name], first) for name, first in before.items()):
        return []
    with owned(settings, "lake compaction") as check_lease:
        until = time.monotonic() + COMPACTION_SECONDS
        return compact(
            lake,
            before,
            dry_run=False,
            check_lease=check_lease,
            keep_going=lambda: time.monotonic() < until,
            tell=tell,
        )


def expire_rows(settings: Settings, *, dry_run: bool, now: datetime) -> list[Expired]:
    """Let partitions go that have passed the retention in ``aiops.yaml``; the session is asked aside where need be."""
    lake, days = Lake(settings.paths.lake), load_config(settings.paths.config).retention.days
    planned = expire(lake, days, now, dry_run=True)
    if dry_run or not planned:
        return planned
    with owned(settings, "lake retention"):
        return expire(lake, days, now, dry_run=False)


def vacuum(settings: Settings, *, dry_run: bool, keep_hours: float, now: datetime) -> list[Tidied]:
    """Remove files without a use, old log entries, and versions that were never finished; runs beside the session."""
    memory = settings.paths.care / "unused"
    lake = Lake(settings.paths.lake)
    done = tidy(lake, memory, keep_hours=keep_hours, dry_run=dry_run, now=now.timestamp())
    if "://" not in lake.root and (Path(lake.root) / VERSIONS).is_dir():
        store = VersionStore(Path(lake.root) / VERSIONS)
        swept = store.sweep(dry_run=dry_run)
        versions = sum(len(store.versions(thing)) for thing in store.things())
        done.append(Tidied(VERSIONS, swept.removed, swept.size, 0, versions, swept.waiting))
    return done


def pack_segments(
    settings: Settings, *, dry_run: bool, now: datetime, after_hours: float = PACK_AFTER_HOURS, tell: Tell = _quiet
) -> list[Packed]:
    """Pack landing segments that the live plane will not read again; runs beside the session and the gateway."""
    horizon = now.timestamp() - after_hours * 3600
    done = []
    for writer, upto in settled(settings).items():
        folder = settings.paths.landing / writer
        done.append(pack(folder, upto, horizon, dry_run=dry_run, tell=_named(tell, writer)))
    return done


def _named(tell: Tell, name: str) -> Callable[[int, int], None]:
    return lambda done, total: tell(name, done, total)


def verify_all(settings: Settings, *, full: bool, now: datetime, tell: Tell = _quiet) -> Verification:
    """Verify the lake, the packs and the numbers of segments; remembers what was whole."""
    home = settings.paths
    memory, lake = home.care / "verified", Lake(home.lake)
    names = writers(home.landing)
    reached = lake.taken("metric_points", names) if _opens(lake) else {}
    days = load_config(home.config).retention.days
    outcome = verify(lake, memory, full=full, keep_days=days, now=now, tell=tell)
    outcome.findings += _verify_landing(home.landing, memory, full, tell)
    outcome.findings += _verify_versions(lake, memory, full, tell, outcome)
    if reached and not any(finding.table in _FROM_SEGMENTS for finding in outcome.findings):
        remember_clean(memory, reached)
    return outcome


def _opens(lake: Lake) -> bool:
    from deltalake.exceptions import DeltaError

    try:
        return lake.open("metric_points") is not None
    except (DeltaError, OSError, ValueError):
        # ``verify`` says so in detail.
        return False


def _verify_landing(landing: Path, memory: Path, full: bool, tell: Tell) -> list[Finding]:
    """Missing segments, and packs that do not give back what was put into them (new ones, or all of them)."""
    found = []
    whole: dict[str, int] = {}
    known = {} if full else _recall_packs(memory / "packs.json")
    every = [(writer, path) for writer in writers(landing) for _, _, path in packs(landing / writer)]
    for number, (writer, path) in enumerate(every):
        tell("packs", number, len(every))
        name = f"{writer}/{path.name}"
        try:
            size = path.stat().st_size
            if known.get(name) != size:
                for _ in read_pack(path):
                    pass
            whole[name] = size
        except FileNotFoundError:
            # Released meanwhile.
            continue
        except DamagedPack as error:
            found.append(
                Finding("landing", "files_whole", error.reason, "restore it from a backup", writer, str(error.path))
            )
    for writer in writers(landing):
        if missing := gaps(landing / writer):
            shown = ", ".join(map(str, missing[:5])) + (" …" if len(missing) > 5 else "")
            found.append(
                Finding(
                    "landing", "files_whole", f"segments missing: {shown}", "restore them from a backup", writer
                )
            )  # fmt: skip
    memory.mkdir(parents=True, exist_ok=True)
    temporary = memory / ".packs.json"
    temporary.write_bytes(orjson.dumps(whole))
    temporary.replace(memory / "packs.json")
    return found


def _verify_versions(lake: Lake, memory: Path, full: bool, tell: Tell, outcome: Verification) -> list[Finding]:
    """Versions of what is promoted against their manifests (new ones, or all of them)."""
    remembered = memory / "versions.json"
    unreadable = any(finding.table == REGISTRY_VERSIONS.name for finding in outcome.findings)
    flaws, whole = verify_versions(
        lake, () if full else _recall_packs(remembered), readable=not unreadable, tell=tell
    )  # fmt: skip
    memory.mkdir(parents=True, exist_ok=True)
    temporary = memory / ".versions.json"
    temporary.write_bytes(orjson.dumps(dict.fromkeys(whole, 0)))
    temporary.replace(remembered)
    return [
        Finding(REGISTRY_VERSIONS.name, "files_whole", flaw.what, NEXT_STEP, f"{flaw.thing}/{flaw.version[:12]}")
        for flaw in flaws
    ]


def _recall_packs(path: Path) -> dict[str, int]:
    try:
        return {str(name): int(size) for name, size in orjson.loads(path.read_bytes()).items()}
    except (FileNotFoundError, orjson.JSONDecodeError, AttributeError, TypeError, ValueError):
        # Forgotten: they are read again.
        return {}
