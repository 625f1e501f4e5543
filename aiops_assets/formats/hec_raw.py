"""Splunk HTTP Event Collector, raw endpoint: a body of lines, metadata in the query of the request.

What belongs here: putting that metadata on the lines, which are read as ``text``.
"""

from __future__ import annotations

from collections.abc import Sequence

import orjson
import polars as pl

from aiops_assets.formats import text
from aiops_assets.formats.batch import Parsed
from aiops_assets.formats.framing import records
from aiops_assets.formats.hec import metadata
from aiops_assets.formats.log_record import LogRows, time_of
from aiops_assets.formats.payload import Rejects, name_problem
from aiops_assets.landing.segment import Delivery


def parse(deliveries: Sequence[Delivery]) -> Parsed:
    """Read raw HEC bodies. Never raises on their content: what cannot be read is in ``rejects``."""
    rejects = Rejects()
    frame = records(deliveries, rejects)
    productive = set(frame["delivery"].unique().to_list())
    logs = text.read_lines(frame, deliveries)
    entities = LogRows()
    if logs.height:
        rows = []
        for delivery in deliveries:
            given = metadata(delivery)
            host = given.get("host")
            host = host if host and not name_problem("host", host) else None
            names = ("source", "sourcetype", "index")
            attributes = {f"com.splunk.{name}": given[name] for name in names if name in given}
            app = given.get("sourcetype") or given.get("source")
            rows.append((host, app, time_of(given.get("time")), orjson.dumps(attributes).decode()))
            entities.seen(host, None, None)
        schema = {"given_host": pl.String, "given_app": pl.String, "given_ts": pl.Int64, "given": pl.String}
        about = pl.DataFrame(rows, schema=schema, orient="row")[logs["delivery"]]
        logs = logs.hstack(about).with_columns(
            host=pl.coalesce("given_host", "host"),
            app=pl.coalesce("given_app", "app"),
            # A time in the query holds for all lines, as in Splunk.
            ts=pl.coalesce("given_ts", "ts"),
            attributes="given",
        )
    return Parsed(
        logs=logs.drop("given_host", "given_app", "given_ts", "given", strict=False),
        entities=entities.entities(),
        rejects=rejects.finish(deliveries, productive),
    )
