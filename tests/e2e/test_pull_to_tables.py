"""From an API and a folder to the tables: what is there is there once, also after the collector was killed."""

from __future__ import annotations

import time
from pathlib import Path

import orjson
import polars as pl
import pytest

from aiops_assets.lake.tables import Lake
from tests.fakes import servicenow
from tests.fakes.datadog import API_KEY, APPLICATION_KEY, FakeDatadog
from tests.fakes.servicenow import FakeServiceNow
from tests.fakes.serving import Clock
from tests.stack import running, wait_until


class _Wall(Clock):
    """The clock on the wall."""

    def __init__(self) -> None:
        super().__init__(0.0)

    def __call__(self) -> float:
        return time.time()


def stored(lake: Lake, table: str, column: str) -> list[str]:
    """A column of a table, sorted."""
    return sorted(lake.scan(table).select(pl.col(column)).collect()[column].to_list())


@pytest.mark.soak
def test_logs_tickets_and_documents_are_in_the_tables_once(tmp_path: Path) -> None:
    home, folder = tmp_path / "home", tmp_path / "kb"
    home.mkdir()
    folder.mkdir()
    (folder / "disk.md").write_text("# Disk full\n\nRun `df -h`.\n")
    now = time.time()
    dd, sn = FakeDatadog(_Wall()), FakeServiceNow(_Wall())
    events = [dd.add(n, now - 2000 + n) for n in range(500)]
    for n in range(50):
        sn.put("incident", f"{n:032x}", now - 2000 + n, number=f"INC{n}", short_description="Mail", cmdb_ci="1|mx-1")
    with dd.serving() as dd_url, sn.serving() as sn_url:
        keys = {"token": API_KEY, "application_key": APPLICATION_KEY}
        basic = {"user": servicenow.USER, "password": servicenow.PASSWORD, "tables": ["incident"]}
        content = {
            "collect": {"host": {"enabled": False}},
            "pull": [
                {"name": "dd", "kind": "datadog", "url": dd_url, "logs": "*", "interval": "2s", "page": 50, **keys},
                {"name": "sn", "kind": "servicenow", "url": sn_url, "interval": "2s", **basic},
            ],
            "folders": [{"name": "kb", "path": str(folder), "interval": "2s"}],
        }
        (home / "aiops.yaml").write_bytes(orjson.dumps(content))
        with running(home) as stack:
            lake = Lake(home / "lake")
            wait_until(lambda: stored(lake, "log_events", "event_id") == sorted(events), 90, "the logs are stored")
            assert stack.kill("collector")
            events += [dd.add(1000 + n, time.time() - 30 + n / 10) for n in range(100)]
            sn.put("incident", f"{7:032x}", time.time(), state="6")
            wait_until(
                lambda: stored(lake, "log_events", "event_id") == sorted(events), 90, "the later logs are stored"
            )
            wait_until(lambda: len(stored(lake, "tickets", "ticket_id")) == 51, 60, "the tickets are stored")
            assert stored(lake, "documents", "title") == ["Disk full"]
    assert stored(lake, "log_events", "event_id") == sorted(events)
