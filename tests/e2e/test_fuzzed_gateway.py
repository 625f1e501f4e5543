"""Damaged payloads over HTTP, format after format: never a server error, and what is acknowledged is accounted for."""

from __future__ import annotations

from collections import Counter
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from aiops_assets.lake.tables import Lake
from aiops_assets.landing.quarantine import Quarantine
from aiops_assets.live.pipeline import Pipeline
from aiops_assets.live.progress import read_progress
from aiops_assets.settings import Settings
from tests.corpus import SEEDS, mutated
from tests.gateway_process import served
from tests.home import home

PER_FORMAT, PER_FORMAT_SOAK = 40, 10_000
TABLES = ("metric_points", "log_events", "error_events", "spans", "tickets", "changes", "alerts")


def test_damaged_payloads_are_stored_or_quarantined_and_nothing_fails(tmp_path: Path) -> None:
    _fuzz(home(tmp_path / "home"), PER_FORMAT)


@pytest.mark.soak
def test_many_damaged_payloads_are_stored_or_quarantined_and_nothing_fails(tmp_path: Path) -> None:
    _fuzz(home(tmp_path / "home"), PER_FORMAT_SOAK)


def _fuzz(settings: Settings, per_format: int) -> None:
    answers: Counter[int] = Counter()
    acknowledged: set[str] = set()
    with served(settings) as (url, key):
        connection = HTTPConnection(urlsplit(url).netloc, timeout=20)
        for name in sorted(SEEDS):
            for payload in mutated(name, per_format, seed=3):
                headers = {"authorization": f"Bearer {key}", "content-type": payload.content_type}
                headers |= {k: v for k, v in payload.headers.items() if k.startswith(("ce-", "content-"))}
                connection.request("POST", f"/webhooks/{name}", payload.body, headers)
                answer = connection.getresponse()
                answer.read()
                answers[answer.status] += 1
                if answer.status < 300:
                    acknowledged.add(str(answer.headers["x-delivery-id"]))
        connection.close()
    assert max(answers) < 500, answers
    assert len(acknowledged) >= 0.99 * sum(answers.values()), "poison is accepted, so that nobody repeats it for ever"
    pipeline = Pipeline(settings)
    pipeline.open()
    while pipeline.step() is not None:
        pass
    pipeline.close()
    assert sum(source.deliveries for source in read_progress(settings.paths.live).sources.values()) == len(acknowledged)
    assert list(Quarantine(settings.paths.quarantine).entries())
    lake = Lake(settings.paths.lake)
    assert {name for name in TABLES if not lake.read(name).is_empty()} == set(TABLES)
