"""Rehearsals give the incidents and pages that the live store gives, without it."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import polars as pl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aiops_assets.incidents.correlation import alerts_of
from aiops_assets.incidents.rehearsal import _chunks, incidents_of
from aiops_assets.incidents.store import IncidentStore
from aiops_assets.tables import ALERTS, CHANGES, ENTITIES
from tests.examples import examples
from tests.unit.test_incidents_store import CONFIG, MINUTE, SECOND, T0, alert, alerts, change, changes

HOSTS = ("web-1", "web-2", "db-1", "storage-1", "printer-1", "printer-2", "lonely")
REASON = "hour 2025-10-09T08 re-derived: 12 late rows of web-1"


@st.composite
def logs(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Logs of alerts as sessions write them: firing, sharper, resolved, suppressed, amended, withdrawn, found late."""
    rows: list[dict[str, Any]] = []
    for number in range(draw(st.integers(1, 9))):
        host = draw(st.sampled_from(HOSTS))
        starts = T0 + draw(st.integers(0, 90)) * MINUTE
        at = starts + draw(st.integers(0, 3)) * 20 * SECOND
        shared: dict[str, Any] = {"series_id": draw(st.integers(1, 5)), "fingerprint": f"f{draw(st.integers(0, 4))}"}
        shared["metric"] = draw(st.sampled_from(["cpu", "disk"]))
        severity = draw(st.sampled_from([9, 13, 17, 21]))
        quiet = {"state": "suppressed", "suppressed_by": "w: window"} if draw(st.integers(0, 6)) == 0 else {}
        found = REASON if draw(st.integers(0, 4)) == 0 else None
        first = alert(f"a{number}", host, starts, changed_at=at, severity_number=severity, amended_by=found, **shared)
        rows.append(first | quiet)
        for revision in range(1, draw(st.integers(1, 5))):
            at += draw(st.integers(0, 30)) * MINUTE
            what = draw(st.sampled_from(["sharper", "end", "again", "withdrawn", "amended end", "amended"]))
            row = {**first, **quiet, "revision": revision, "changed_at": at, "amended_by": None}
            if what == "sharper":
                row["severity_number"] = 21
            if what in {"end", "amended end"}:
                row |= {"state": "resolved", "ends_at": at, "evidence": '{"duration_seconds":1}'}
            if what == "withdrawn":
                row["state"] = "withdrawn"
            if what in {"withdrawn", "amended end", "amended"}:
                row["amended_by"] = REASON if draw(st.booleans()) else f"again {revision}"
            rows.append(row)
    return rows


def live(frame: pl.DataFrame, known: pl.DataFrame) -> tuple[list[Any], list[Any]]:
    """The same log through the store, in the batches in which it becomes known."""
    with tempfile.TemporaryDirectory() as folder:
        store = IncidentStore(f"sqlite:///{Path(folder) / 'operations.db'}")
        last = 0
        for rows in _chunks(alerts_of(frame)):
            last = max(last, *(row.changed_at for row in rows))
            store.auto_resolve(min(row.changed_at for row in rows), CONFIG)
            ids = [(row.alert_id, row.revision) for row in rows]
            keys = pl.DataFrame(ids, schema={"alert_id": pl.String, "revision": pl.Int32}, orient="row")
            lookback = pl.duration(seconds=CONFIG.grouping.change_lookback)
            batch = frame.join(keys, on=["alert_id", "revision"], how="semi")
            near = known.filter(
                (pl.col("ts") >= batch["starts_at"].min() - lookback) & (pl.col("ts").dt.timestamp("us") <= last)
            )
            store.apply(batch, config=CONFIG, entities=ENTITIES.empty(), changes=near, now=last)
        store.auto_resolve(last, CONFIG)
        incidents = [store.get(incident.incident_id) for incident in store.list(limit=1_000)]
        pages = [(page.incident_id, page.at, page.priority, page.reason) for page in store.pages()]
        store.close()
    told = []
    for incident in incidents:
        ids_of = [member.alert.alert_id for member in (*incident.members, *incident.suppressed)]
        head = (incident.incident_id, incident.title, incident.priority, incident.started_at, incident.resolved_at)
        told.append((*head, list(incident.hosts), sorted(ids_of), incident.withdrawn_because is not None))
    return sorted(told), sorted(pages)


def rehearsed(frame: pl.DataFrame, known: pl.DataFrame) -> tuple[list[Any], list[Any]]:
    incidents, pages = incidents_of(frame, config=CONFIG, entities=ENTITIES.empty(), changes=known)
    times = pl.col(pl.Datetime).dt.timestamp("us")
    listed = [(*row[:6], sorted(row[6]), row[7]) for row in incidents.with_columns(times).iter_rows()]
    return sorted(listed), sorted(pages.with_columns(times).iter_rows())


@settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(log=logs(), deploys=st.lists(st.tuples(st.sampled_from(HOSTS), st.integers(-30, 60)), max_size=3))
def test_a_rehearsal_gives_what_the_live_store_gives(log: list[dict[str, Any]], deploys: list[tuple[str, int]]) -> None:
    frame = alerts(*log)
    known = changes(*(change(f"c{n}", host, T0 + at * MINUTE, title="v2") for n, (host, at) in enumerate(deploys)))
    assert rehearsed(frame, known) == live(frame, known)


def test_the_order_of_rows_does_not_matter() -> None:
    rows = [alert(f"{n}", HOSTS[n % 7], T0 + n * MINUTE) for n in range(20)]
    rows += [alert(f"{n}", HOSTS[n % 7], T0 + n * MINUTE, ends=T0 + 2 * n * MINUTE) for n in range(1, 20)]
    assert rehearsed(alerts(*rows), CHANGES.empty()) == rehearsed(alerts(*reversed(rows)), CHANGES.empty())


def test_nothing_gives_nothing() -> None:
    incidents, pages = incidents_of(
        ALERTS.empty(), config=CONFIG, entities=ENTITIES.empty(), changes=CHANGES.empty(), until=T0
    )
    assert incidents.is_empty() and pages.is_empty() and "hosts" in incidents.columns and "at" in pages.columns


def test_incidents_resolve_themselves_up_to_an_instant() -> None:
    frame = alerts(alert("a", "web-1"), alert("a", "web-1", ends=T0 + MINUTE))
    for until, resolved in ((None, None), (T0 + 6 * MINUTE, T0 + 6 * MINUTE)):
        incidents, pages = incidents_of(
            frame, config=CONFIG, entities=ENTITIES.empty(), changes=CHANGES.empty(), until=until
        )
        assert incidents["resolved_at"].dt.timestamp("us").to_list() == [resolved] and pages.height == 1


def test_a_month_of_alerts_is_rehearsed_quickly() -> None:
    rows = []
    for number in range(4_000):
        starts = T0 + number * 10 * MINUTE
        host = f"host-{number * 7 % 200}"
        rows += [alert(f"a{number}", host, starts), alert(f"a{number}", host, starts, ends=starts + 7 * MINUTE)]
    started = time.perf_counter()
    incidents, _ = incidents_of(alerts(*rows), config=CONFIG, entities=ENTITIES.empty(), changes=CHANGES.empty())
    print(f"8,000 revisions in {time.perf_counter() - started:.2f} s")
    assert incidents.height == 4_000
