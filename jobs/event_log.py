"""Keeping Dagster's own event log small without losing what the asset graph shows.

What belongs here: what goes and what stays in Dagster's tables. What does not: the platform's data (``lake``), and
ticks, which the daemon purges by itself (``retention`` in dagster.yaml).

Of every (asset, partition) the newest materialisation and observation stays for ever, of every (check, partition) the
newest evaluation; so partitions, lineage, freshness and check states survive. Everything else of finished runs goes
after ``keep_days``; a run's record goes when nothing of it is left. ``DagsterInstance`` can only delete a run with all
its events, partitions included, hence the statements on its tables, which a test pins to the installed version.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import sqlalchemy as sa
from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable, AssetEventTagsTable
from dagster._core.storage.event_log.schema import SqlEventLogStorageTable as Events
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage

#: a run's SQLite file at most this large holds nothing any more
EMPTY_SHARD_BYTES = 64 * 1024
#: rows that one statement deletes: a lock is held for milliseconds, not minutes
CHUNK = 2_000
_SUPERSEDED = ("ASSET_MATERIALIZATION", "ASSET_OBSERVATION")
_EVALUATION = "ASSET_CHECK_EVALUATION"
#: written by Dagster's freshness daemon, one row when a state changes
_STATES = ("FRESHNESS_STATE_CHANGE", "FRESHNESS_STATE_EVALUATION")
_FINISHED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]


@dataclass(slots=True)
class Pruned:
    """What went, or would go: event rows, check executions, run logs emptied, run records."""

    events: int = 0
    evaluations: int = 0
    logs: int = 0
    runs: int = 0
    #: whether the budget ended before the work did; the next run continues
    unfinished: bool = False


@dataclass(frozen=True, slots=True)
class Budget:
    """How much one call may do."""

    rows: int = 500_000
    runs: int = 5_000
    seconds: float = 300.0


def prune(
    instance: dg.DagsterInstance,
    *,
    keep_days: float,
    keep_runs_days: float,
    dry_run: bool,
    budget: Budget | None = None,
    now: datetime | None = None,
) -> Pruned:
    """Delete what is older than ``keep_days`` and not needed, in small chunks, until done or the budget is spent.

    Raises:
        dg.Failure: the instance stores its events in something else than SQLite, Postgres or MySQL.
    """
    storage = instance.event_log_storage
    if not isinstance(storage, SqlEventLogStorage):
        raise dg.Failure(f"do not know how to prune {type(storage).__name__}", allow_retries=False)
    budget = budget or Budget()
    now = now or datetime.now(UTC)
    before = (now - timedelta(days=keep_days)).replace(tzinfo=None)
    until = time.monotonic() + budget.seconds
    pruned = Pruned()

    def spent() -> bool:
        over = time.monotonic() > until or pruned.events + pruned.evaluations >= budget.rows
        pruned.unfinished |= over
        return over

    for select in (_superseded_events(before), _old_events(before, _unfinished_runs(instance))):
        pruned.events += _delete_events(storage, select, dry_run, spent)
    pruned.evaluations += _delete_evaluations(storage, before, dry_run, spent)
    _delete_runs(instance, storage, now, keep_days, keep_runs_days, dry_run, budget, spent, pruned)
    return pruned


def _superseded_events(before: datetime) -> sa.Select[tuple[int]]:
    """Ids of materialisations and observations that a newer one of the same asset, partition and type follows."""
    newer = Events.alias("newer")
    follows = (
        sa.select(sa.literal(1))
        .where(
            newer.c.asset_key == Events.c.asset_key,
            newer.c.dagster_event_type == Events.c.dagster_event_type,
            sa.or_(
                newer.c.partition == Events.c.partition,
                sa.and_(newer.c.partition.is_(None), Events.c.partition.is_(None)),
            ),
            newer.c.id > Events.c.id,
        )
        .exists()
    )
    return sa.select(Events.c.id).where(
        Events.c.dagster_event_type.in_(_SUPERSEDED), Events.c.timestamp < before, follows
    )


def _old_events(before: datetime, unfinished: list[str]) -> sa.Select[tuple[int]]:
    """Ids of everything that says nothing about an asset's present state, of runs that are over."""
    kind = Events.c.dagster_event_type
    return sa.select(Events.c.id).where(
        Events.c.timestamp < before,
        sa.or_(kind.is_(None), kind.not_in([*_SUPERSEDED, _EVALUATION, *_STATES])),
        Events.c.run_id.not_in(unfinished) if unfinished else sa.true(),
    )


def _unfinished_runs(instance: dg.DagsterInstance) -> list[str]:
    statuses = [status for status in dg.DagsterRunStatus if status not in _FINISHED]
    return [run.run_id for run in instance.get_runs(dg.RunsFilter(statuses=statuses))]


def _delete_events(
    storage: SqlEventLogStorage, select: sa.Select[tuple[int]], dry_run: bool, spent: Callable[[], bool]
) -> int:
    if dry_run:
        with storage.index_connection() as connection:
            return int(connection.execute(sa.select(sa.func.count()).select_from(select.subquery())).scalar_one())
    total = 0
    while not spent():
        with storage.index_connection() as connection:
            ids = list(connection.execute(select.limit(CHUNK)).scalars())
            if ids:
                connection.execute(AssetEventTagsTable.delete().where(AssetEventTagsTable.c.event_id.in_(ids)))
                connection.execute(Events.delete().where(Events.c.id.in_(ids)))
        total += len(ids)
        if len(ids) < CHUNK:
            break
    return total


def _delete_evaluations(storage: SqlEventLogStorage, before: datetime, dry_run: bool, spent: Callable[[], bool]) -> int:
    """Old evaluations of checks that a newer one of the same check and partition follows, with their event rows."""
    own = AssetCheckExecutionsTable
    newer = own.alias("newer")
    follows = (
        sa.select(sa.literal(1))
        .where(
            newer.c.asset_key == own.c.asset_key,
            newer.c.check_name == own.c.check_name,
            sa.or_(
                newer.c.partition == own.c.partition, sa.and_(newer.c.partition.is_(None), own.c.partition.is_(None))
            ),
            newer.c.id > own.c.id,
        )
        .exists()
    )
    select = sa.select(own.c.id).where(own.c.evaluation_event_timestamp < before, follows)
    # Within a run a check's execution row is updated in place; the event rows of its earlier evaluations stay behind.
    referred = sa.select(own.c.evaluation_event_storage_id).where(own.c.evaluation_event_storage_id.is_not(None))
    stray = sa.select(Events.c.id).where(
        Events.c.dagster_event_type == _EVALUATION, Events.c.timestamp < before, Events.c.id.not_in(referred)
    )
    if dry_run:
        with storage.index_connection() as connection:
            counts = [
                connection.execute(sa.select(sa.func.count()).select_from(s.subquery())).scalar_one()
                for s in (select, stray)
            ]
        return sum(map(int, counts))
    total = 0
    while not spent():
        with storage.index_connection() as connection:
            ids: list[int] = list(connection.execute(select.limit(CHUNK)).scalars())
            if ids:
                connection.execute(own.delete().where(own.c.id.in_(ids)))
        total += len(ids)
        if len(ids) < CHUNK:
            break
    return total + _delete_events(storage, stray, dry_run, spent)


def _delete_runs(
    instance: dg.DagsterInstance,
    storage: SqlEventLogStorage,
    now: datetime,
    keep_days: float,
    keep_runs_days: float,
    dry_run: bool,
    budget: Budget,
    spent: Callable[[], bool],
    pruned: Pruned,
) -> None:
    """Files of old runs (SQLite keeps one a run, captured output another), and records of runs with nothing left."""
    oldest_kept = now - timedelta(days=keep_runs_days)
    for seen, (run_id, created) in enumerate(_old_runs(instance, now - timedelta(days=keep_days))):
        if spent() or seen >= budget.runs:
            pruned.unfinished = True
            return
        gone = created < oldest_kept and not _has_asset_events(storage, run_id)
        shard = Path(storage.path_for_shard(run_id)) if isinstance(storage, SqliteEventLogStorage) else None
        full = shard is not None and shard.exists() and shard.stat().st_size > EMPTY_SHARD_BYTES
        if not dry_run:
            instance.compute_log_manager.delete_logs(prefix=[run_id])
            if gone:
                instance.delete_run(run_id)
            if shard is not None and gone:
                for path in (shard, Path(f"{shard}-wal"), Path(f"{shard}-shm")):
                    path.unlink(missing_ok=True)
            elif shard is not None and full:
                _empty(shard)
        pruned.logs += full
        pruned.runs += gone


def _empty(shard: Path) -> None:
    """Reduce a run's SQLite file to the one empty table that is read of it.

    It is not removed while the run's record stays: a webserver that has shown the run takes the file for granted.
    """
    with contextlib.closing(sqlite3.connect(shard, timeout=20, isolation_level=None)) as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        connection.execute("DELETE FROM event_logs")
        for name in names:
            if name not in {"event_logs", "alembic_version"} and not name.startswith("sqlite_"):
                connection.execute(f"DROP TABLE {_identifier(name)}")
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _old_runs(instance: dg.DagsterInstance, before: datetime) -> Iterator[tuple[str, datetime]]:
    cursor: str | None = None
    while True:
        records = instance.get_run_records(
            dg.RunsFilter(statuses=_FINISHED, created_before=before), limit=200, cursor=cursor
        )
        for record in records:
            created = record.create_timestamp
            yield record.dagster_run.run_id, created if created.tzinfo else created.replace(tzinfo=UTC)
        if len(records) < 200:
            return
        cursor = records[-1].dagster_run.run_id


def _has_asset_events(storage: SqlEventLogStorage, run_id: str) -> bool:
    kinds = [*_SUPERSEDED, _EVALUATION]
    statement = sa.select(Events.c.id).where(Events.c.run_id == run_id, Events.c.dagster_event_type.in_(kinds)).limit(1)
    with storage.index_connection() as connection:
        return connection.execute(statement).first() is not None
