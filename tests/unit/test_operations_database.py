"""The operations database: migrations, transactions and leases, on SQLite and on a real Postgres where there is one."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config as AlembicConfig
from alembic.migration import MigrationContext
from sqlalchemy import MetaData, Table, insert, text

from aiops_assets.incidents.store import IncidentStore
from aiops_assets.live.fence import Fence
from aiops_assets.operations import database
from aiops_assets.operations.database import HEAD, UnknownSchema, change_number, changing, connect, reading, upgrade
from aiops_assets.operations.leases import DatabaseLease, LeaseLost
from aiops_assets.operations.models import Base
from aiops_assets.tables import CHANGES, ENTITIES
from tests.unit.test_incidents_store import CONFIG, T0, alert, alerts


def postgres_bin() -> Path | None:
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in folders if (folder / "initdb").exists() and (folder / "postgres").exists()), None)


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """A throw-away Postgres server on loopback; the URL of its database."""
    folder = postgres_bin()
    if folder is None:
        pytest.skip("no Postgres server programs on this machine")
    # Postgres refuses to run as root; its own account runs it then.
    account = "postgres" if os.geteuid() == 0 else None
    if account is not None and not any(entry.pw_name == account for entry in pwd.getpwall()):
        pytest.skip("Postgres does not run as root, and there is no account 'postgres'")
    home = Path(tempfile.mkdtemp(prefix="aiops-postgres-"))
    home.chmod(0o777)
    data = home / "data"
    initdb = [folder / "initdb", "-D", data, "-U", "aiops", "-A", "trust", "-E", "UTF8", "--no-sync"]
    subprocess.run(initdb, check=True, capture_output=True, timeout=120, user=account, cwd="/")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    serve = [folder / "postgres", "-D", data, "-p", str(port), "-h", "127.0.0.1", "-k", home, "-F"]
    with (home / "log").open("wb") as log:
        server = subprocess.Popen(serve, stdout=log, stderr=log, user=account, cwd="/")
    try:
        until = time.monotonic() + 60
        ready = [folder / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]
        while subprocess.run(ready, check=False, timeout=10).returncode != 0:
            assert server.poll() is None and time.monotonic() < until, (home / "log").read_text()
            time.sleep(0.05)
        yield f"postgresql+psycopg2://aiops@127.0.0.1:{port}/postgres"
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(timeout=30)
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'operations.db'}"
    server: str = request.getfixturevalue("postgres")
    name = f"t{time.time_ns()}"
    engine = connect(server)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return server.removesuffix("/postgres") + f"/{name}"


def test_migrations_make_exactly_the_tables_of_the_models(url: str) -> None:
    upgrade(url)
    engine = connect(url)
    with engine.connect() as connection, connection.begin():
        options = {"version_table": database.VERSION_TABLE, "compare_type": True}
        differences = compare_metadata(MigrationContext.configure(connection, opts=options), Base.metadata)
        assert differences == []
        assert database.schema_revision(connection) == HEAD
    engine.dispose()


def test_a_database_of_the_first_version_keeps_its_incidents(url: str) -> None:
    folder = str(resources.files("aiops_assets.operations").joinpath("migrations"))
    config = AlembicConfig()
    config.set_main_option("script_location", folder)
    engine = connect(url)
    with engine.connect().execution_options(aiops_writes=True) as connection, connection.begin():
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        values = {"title": "disk full", "state": "open", "priority": 2, "impact": 1, "urgency": 2, "assignee": "kim"}
        values |= {"started_at": T0, "last_symptom_at": T0, "opened_at": T0, "updated_at": T0, "change_number": 1}
        values |= {"incident_id": "INC-OLD", "touched": True, "held_open": False, "assessment": '{"hosts":["web-1"]}'}
        connection.execute(insert(Table("incidents", MetaData(), autoload_with=connection)).values(values))
    engine.dispose()
    store = IncidentStore(url)
    [incident] = store.list()
    assert (incident.title, incident.assignee, incident.resolution, incident.withdrawn_alerts) == (
        "disk full", "kim", None, 0,
    )  # fmt: skip
    assert store.resolve("INC-OLD", "kim", "cleaned up").resolution == "cleaned up"
    store.close()


def test_upgrading_again_does_nothing(url: str) -> None:
    upgrade(url)
    upgrade(url)
    engine = connect(url)
    with reading(engine) as connection:
        assert change_number(connection) == 0
    engine.dispose()


def test_processes_that_start_together_all_find_a_migrated_database(url: str) -> None:
    code = "import sys; from aiops_assets.operations.database import upgrade; upgrade(sys.argv[1])"
    starting = [subprocess.Popen([sys.executable, "-c", code, url], stderr=subprocess.PIPE) for _ in range(3)]
    errors = [process.communicate(timeout=60)[1].decode() for process in starting]
    assert [process.returncode for process in starting] == [0] * 3, errors
    engine = connect(url)
    with reading(engine) as connection:
        assert change_number(connection) == 0
    engine.dispose()


def test_a_database_of_a_newer_version_is_refused_by_name(url: str) -> None:
    upgrade(url)
    engine = connect(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE operations_version SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(UnknownSchema, match="'9999'"):
        upgrade(url)


def test_sqlite_runs_in_wal_with_foreign_keys_and_a_busy_timeout(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'operations.db'}"
    upgrade(url)
    engine = connect(url)
    with engine.connect() as connection:
        pragmas = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "foreign_keys", "busy_timeout", "synchronous")
        }
    engine.dispose()
    assert pragmas == {"journal_mode": "wal", "foreign_keys": 1, "busy_timeout": 15_000, "synchronous": 2}


def test_only_files_and_postgres_are_accepted() -> None:
    for url in ("sqlite://", "sqlite:///:memory:", "mysql://host/name"):
        with pytest.raises((ValueError, ModuleNotFoundError)):
            connect(url)


def test_changing_transactions_of_several_processes_follow_one_another(url: str) -> None:
    upgrade(url)
    code = """
import sys
from sqlalchemy import MetaData, Table, insert, text
from aiops_assets.operations.database import changing, connect
engine = connect(sys.argv[1])
for _ in range(25):
    with changing(engine) as transaction:
        transaction.mark()
"""
    writers = [subprocess.Popen([sys.executable, "-c", code, url], stderr=subprocess.PIPE) for _ in range(2)]
    errors = [process.communicate(timeout=60)[1].decode() for process in writers]
    assert [process.returncode for process in writers] == [0] * 2, errors
    engine = connect(url)
    with reading(engine) as connection:
        assert change_number(connection) == 50
    engine.dispose()


def test_a_failed_transaction_leaves_nothing(url: str) -> None:
    upgrade(url)
    engine = connect(url)
    with pytest.raises(RuntimeError, match="half way"), changing(engine) as transaction:
        transaction.mark()
        raise RuntimeError("half way")
    with reading(engine) as connection:
        assert change_number(connection) == 0
    engine.dispose()


def test_a_lease_has_one_holder_and_tokens_only_grow(url: str) -> None:
    upgrade(url)
    engine = connect(url)
    first, second = DatabaseLease(engine, "live/0", "a"), DatabaseLease(engine, "live/0", "b")
    assert first.acquire() and not second.acquire()
    assert first.acquire() and first.token == 1
    first.release()
    assert second.acquire() and second.token == 2 and second.check() == 2
    with pytest.raises(LeaseLost):
        first.check()
    second.release()
    assert first.acquire() and first.token == 3
    engine.dispose()


def test_a_lease_that_ran_out_is_lost_to_whoever_takes_it(url: str) -> None:
    upgrade(url)
    engine = connect(url)
    now = [1_000_000]
    first = DatabaseLease(engine, "live/0", "a", seconds=1, clock=lambda: now[0])
    second = DatabaseLease(engine, "live/0", "b", seconds=1, clock=lambda: now[0])
    assert first.acquire()
    now[0] += 900_000
    first.renew()
    now[0] += 900_000
    assert first.check() == 1 and not second.acquire()
    now[0] += 200_000
    assert second.acquire() and second.token == 2
    with pytest.raises(LeaseLost):
        first.renew()
    first.release()
    assert second.check() == 2
    engine.dispose()


def test_of_processes_that_want_a_new_lease_exactly_one_gets_it(url: str) -> None:
    upgrade(url)
    code = """
import sys
from aiops_assets.operations.database import connect
from aiops_assets.operations.leases import DatabaseLease
print(int(DatabaseLease(connect(sys.argv[1]), "live/0", sys.argv[2]).acquire()))
"""
    asking = [subprocess.Popen([sys.executable, "-c", code, url, str(n)], stdout=subprocess.PIPE) for n in range(3)]
    answers = [int(process.communicate(timeout=60)[0]) for process in asking]
    assert sum(answers) == 1


def test_incidents_live_on_every_database(url: str) -> None:
    store = IncidentStore(url)
    nasty = "<script>'; drop table incidents; --\x00"
    first = alert("a", nasty, evidence='{"x":"\\u0000"}')
    empty = {"entities": ENTITIES.empty(), "changes": CHANGES.empty()}
    [incident_id] = store.apply(alerts(first, alert("b", "web-1")), config=CONFIG, now=T0, **empty)[:1]
    assert store.apply(alerts(first), config=CONFIG, now=T0, **empty) == []
    for action in ("acknowledge", "assign", "note", "resolve", "reopen"):
        store.act(action, incident_id, "kim", "because", "sam")  # type: ignore[arg-type]
    assert [event.kind for event in store.get(incident_id).events][-2:] == ["resolved", "reopened"]
    assert len(store.list(search="DROP table", host="*drop*")) == 1
    assert store.snapshot(T0).height == 2 and store.changed_since(0)[0] == store.change_number() == 6
    gone = alert("b", "web-1", revision=1, state="withdrawn", amended_by="hour 2025-10-09T08 re-derived")
    late = alert("c", "lonely", ends=T0 + 9, amended_by="hour 2025-10-09T08 re-derived")
    for _ in range(2):
        store.apply(alerts(gone, late), config=CONFIG, now=T0, **empty)
    assert [entry.kind for entry in store.amendments("2025-10-09T08", "2025-10-09T08")] == ["withdrawn", "found"]
    assert len(store.pages()) == 2 and store.prune(T0 + 10) == 0
    silence = store.create_silence(author="kim", reason="r", host="h", starts_at=T0, ends_at=T0 + 1, at=T0)
    assert store.expire_silence(silence.silence_id, "sam", at=T0).expired_by == "sam"
    store.close()


def test_two_sessions_that_take_the_same_alerts_make_one_incident(url: str) -> None:
    first, second = IncidentStore(url), IncidentStore(url)
    rows = alerts(*(alert(f"{n}", f"h{n}") for n in range(40)))

    def take(store: IncidentStore) -> list[str]:
        return store.apply(rows, config=CONFIG, entities=ENTITIES.empty(), changes=CHANGES.empty(), now=T0)

    with ThreadPoolExecutor(2) as pool:
        taken = [future.result(timeout=60) for future in [pool.submit(take, first), pool.submit(take, second)]]
    assert sorted(map(len, taken)) == [0, 40]
    assert first.counts()["open"] == 40
    first.close()
    second.close()


def test_of_two_hosts_on_one_database_one_works_and_the_other_follows(postgres: str) -> None:
    first, second = Fence(postgres, "host-a"), Fence(postgres, "host-b")
    assert first.acquire(lambda: False)
    first.check()
    assert not second.acquire(lambda: False)
    first.release()
    assert second.acquire(lambda: False)
    second.check()
    second.release()


def test_a_host_that_stalled_past_its_row_must_not_commit_again(postgres: str) -> None:
    stalled, other = Fence(postgres, "host-a", seconds=0.2), Fence(postgres, "host-b", seconds=30)
    assert stalled.acquire(lambda: False)
    until = time.monotonic() + 10
    assert other.acquire(lambda: time.monotonic() < until)
    with pytest.raises(LeaseLost):
        stalled.check()
    other.check()
    other.release()


def test_on_one_host_the_fence_does_nothing(tmp_path: Path) -> None:
    fence = Fence(f"sqlite:///{tmp_path / 'operations.db'}", "only")
    assert fence.acquire(lambda: False)
    fence.check()
    fence.release()
    assert not (tmp_path / "operations.db").exists()
