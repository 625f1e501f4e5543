"""What senders tell of hosts, services and devices is joined, and declared entities win."""

from __future__ import annotations

import json
from typing import Any

import polars as pl

from aiops_assets.config import Config, parse_config
from aiops_assets.formats.batch import ENTITIES_SCHEMA
from aiops_assets.live.entities import EntityBook


def described(*rows: dict[str, Any]) -> pl.DataFrame:
    usual = {"kind": "host", "name": "web-1", "site": None, "labels": "{}", "depends_on": []}
    return pl.DataFrame([usual | row for row in rows], ENTITIES_SCHEMA)


def rows(book: EntityBook, config: Config | None = None) -> dict[str, dict[str, Any]]:
    return {row["entity_id"]: row for row in book.rows(config or Config()).iter_rows(named=True)}


def test_labels_of_several_senders_are_joined() -> None:
    book = EntityBook()
    book.discover(described({"labels": '{"os":"linux"}'}), 0)
    book.discover(described({"labels": '{"region":"eu"}', "site": "berlin", "depends_on": ["db-1"]}), 0)
    row = rows(book)["host:web-1"]
    assert json.loads(row["labels"]) == {"os": "linux", "region": "eu"}
    assert (row["site"], row["depends_on"]) == ("berlin", ["db-1"])


def test_a_value_that_differs_is_no_news_that_must_be_written_at_once() -> None:
    book = EntityBook()
    book.discover(described({"labels": '{"os":"linux"}'}), 0)
    book.written()
    book.discover(described({"labels": '{"os":"Linux"}'}), 0)
    assert (book.changed, book.altered) == (False, True)
    assert json.loads(rows(book)["host:web-1"]["labels"]) == {"os": "Linux"}
    book.written()
    book.discover(described({"labels": '{"os":"Linux"}'}), 0)
    assert (book.changed, book.altered) == (False, False)


def test_a_host_and_a_service_of_one_name_are_two() -> None:
    book = EntityBook()
    book.discover(described({"name": "shop"}, {"name": "shop", "kind": "service"}), 0)
    assert set(rows(book)) == {"host:shop", "service:shop"}


def test_a_host_known_from_series_becomes_the_device_that_is_described() -> None:
    book = EntityBook()
    book.discover(described({"name": "sw-1"}), 0)
    book.discover(described({"name": "sw-1", "kind": "device", "labels": '{"vendor":"x"}'}), 0)
    assert set(rows(book)) == {"device:sw-1"}


def test_what_is_declared_wins_and_keeps_what_was_discovered() -> None:
    book = EntityBook()
    book.discover(described({"name": "shop", "kind": "service", "labels": '{"a":"1","b":"2"}', "site": "x"}), 0)
    config = parse_config("entities: [{name: shop, kind: service, owner: eva, labels: {a: '9'}}]", "test")
    row = rows(book, config)["service:shop"]
    assert json.loads(row["labels"]) == {"a": "9", "b": "2", "impact": "2"}
    assert (row["origin"], row["owner"], row["site"]) == ("declared", "eva", "x")


def test_what_was_discovered_survives_a_restart() -> None:
    book = EntityBook()
    book.discover(described({"labels": '{"os":"linux"}'}), 0)
    again = EntityBook()
    again.load(book.rows(Config()))
    assert rows(again) == rows(book)
