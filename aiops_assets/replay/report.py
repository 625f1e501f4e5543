"""What a replay says, for people and scripts: Markdown with two pictures, and JSON-able values.

What belongs here: wording, tables, drawing, and the files in the replay's folder. What does not: comparing
(``difference``, ``assessment``).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import orjson
import polars as pl

from aiops_assets.detection.wording import duration
from aiops_assets.hours import instant
from aiops_assets.lake.drawing import line_plot, markdown_image, markdown_table, markdown_text
from aiops_assets.replay.asnow import Shadow
from aiops_assets.replay.assessment import Assessment
from aiops_assets.replay.difference import count_by
from aiops_assets.replay.labels import Score
from aiops_assets.replay.period import Period
from aiops_assets.replay.recorded import Verification

#: rows of a list that the Markdown shows; the JSON file has them all
SHOWN = 30
#: ranges up to so many hours are drawn by the hour, longer ones by the day
DRAWN_BY_HOUR = 72
MARKDOWN, JSON, ALERTS_PICTURE, PAGES_PICTURE = "report.md", "report.json", "alerts.svg", "pages.svg"
#: of alerts and of pages over time, as Markdown beside the files shows them
PICTURES = (f"![Alerts over time]({ALERTS_PICTURE})", f"![Pages over time]({PAGES_PICTURE})")


def document(shadow: Shadow, found: Assessment) -> dict[str, Any]:
    """Everything as JSON-able values; instants in ISO 8601 UTC."""
    journal, request = shadow.journal, shadow.journal.request
    return {
        "replay": request.replay_id,
        "folder": str(shadow.folder),
        "from": _iso(instant(request.period.start)),
        "to": _iso(instant(request.period.end)),
        "host": request.host,
        "set": list(request.sets),
        "mask": [{"from": _iso(instant(start)), "to": _iso(instant(end))} for start, end in request.masks],
        "config": request.config,
        "code": request.code,
        "began": journal.began,
        "hours": len(journal.hours),
        "hours_still_open": journal.open_hours,
        "hours_without_receipt": found.without_receipt,
        "hours_with_other_baselines": journal.recomputed,
        "points": journal.points,
        "seconds": round(journal.seconds, 3),
        "anomalies": found.anomalies,
        "alerts": {
            "recorded": found.recorded.alerts.height,
            "replayed": found.replayed.alerts.height,
            "same": found.alerts.same,
            "raised": _rows(found.alerts.raised),
            "vanished": _rows(found.alerts.vanished),
            "changed": _rows(found.alerts.changed),
        },
        "rules": rules_table(found).to_dicts(),
        "incidents": {
            "recorded": found.recorded.incidents.filter(~pl.col("withdrawn")).height,
            "replayed": found.replayed.incidents.filter(~pl.col("withdrawn")).height,
            "same": found.incidents.same,
            "raised": _rows(found.incidents.raised),
            "vanished": _rows(found.incidents.vanished),
            "changed": _rows(found.incidents.changed),
        },
        "pages": {
            "recorded": found.recorded.pages.height,
            "replayed": found.replayed.pages.height,
            "by_day": days_table(found).to_dicts(),
        },
        "labels": {
            name: None if score is None else score.document()
            for name, score in (("recorded", found.score_recorded), ("replayed", found.score_replayed))
        },
    }


def is_empty(content: dict[str, Any]) -> bool:
    """Whether a replay's document says that nothing differs."""
    lists = [content[part][kind] for part in ("alerts", "incidents") for kind in ("raised", "vanished", "changed")]
    counts = [content["anomalies"].get(kind, 0) for kind in ("raised", "vanished", "changed")]
    pages = any(row["recorded"] != row["replayed"] for row in content["pages"]["by_day"])
    return not any(lists) and not any(counts) and not pages


def rules_table(found: Assessment) -> pl.DataFrame:
    """One row a rule or detector: alerts of both sides, what differs, and pages of both sides."""
    sides = [count_by(side.alerts, "name") for side in (found.recorded, found.replayed)]
    kinds = [count_by(frame, "name") for frame in (found.alerts.raised, found.alerts.vanished, found.alerts.changed)]
    pages = [
        dict(frame.group_by("rule").agg(pl.col("pages").sum()).iter_rows())
        for frame in (found.pages_recorded, found.pages_replayed)
    ]
    columns = [*sides, *kinds, *pages]
    names = sorted({name for column in columns for name in column})
    named = ("recorded", "replayed", "raised", "vanished", "changed", "pages_recorded", "pages_replayed")
    schema = {"rule": pl.String(), **dict.fromkeys(named, pl.Int64())}
    rows = [(name, *(column.get(name, 0) for column in columns)) for name in names]
    return pl.DataFrame(rows, schema=schema, orient="row")


def days_table(found: Assessment) -> pl.DataFrame:
    """One row a day and rule with pages: how many on either side."""
    both = found.pages_recorded.rename({"pages": "recorded"}).join(
        found.pages_replayed.rename({"pages": "replayed"}), on=["day", "rule"], how="full", coalesce=True
    )
    counted = both.with_columns(pl.col("recorded", "replayed").fill_null(0).cast(pl.Int64))
    return counted.select("day", "rule", "recorded", "replayed").sort("day", "rule")


def write(shadow: Shadow, found: Assessment) -> dict[str, Any]:
    """Write the files of a replay into its folder; its document."""
    content = document(shadow, found)
    period = shadow.journal.request.period
    (shadow.folder / ALERTS_PICTURE).write_text(alerts_plot(found, period), "utf-8")
    (shadow.folder / PAGES_PICTURE).write_text(pages_plot(found, period), "utf-8")
    (shadow.folder / MARKDOWN).write_text(markdown(content, found, PICTURES), "utf-8")
    (shadow.folder / JSON).write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2, default=str))
    return content


def alerts_plot(found: Assessment, period: Period) -> str:
    """Alerts that fired, over time, as an SVG document."""
    return _plot(found.recorded.alerts["fired_at"], found.replayed.alerts["fired_at"], period, "Alerts")


def pages_plot(found: Assessment, period: Period) -> str:
    """Pages over time, as an SVG document."""
    return _plot(found.recorded.pages["at"], found.replayed.pages["at"], period, "Pages")


def _plot(recorded: pl.Series, replayed: pl.Series, period: Period, title: str) -> str:
    by_hour = period.end - period.start <= DRAWN_BY_HOUR * 3600 * 1_000_000
    every = "1h" if by_hour else "1d"
    ticks = pl.datetime_range(
        instant(period.start), instant(period.end), every, closed="left", time_unit="us", time_zone="UTC", eager=True
    ).dt.truncate(every)
    parts = []
    for label, at in (("recorded", recorded), ("replayed", replayed)):
        counts = at.drop_nulls().dt.truncate(every).alias("ts").to_frame().group_by("ts").len("value")
        line = ticks.unique().alias("ts").to_frame().join(counts, on="ts", how="left")
        parts.append(line.select(pl.lit(label).alias("label"), "ts", pl.col("value").fill_null(0).cast(pl.Float64)))
    return line_plot(pl.concat(parts), f"{title} per {'hour' if by_hour else 'day'}", "count")


def inline_pictures(found: Assessment, period: Period) -> tuple[str, str]:
    """``PICTURES`` for Markdown that stands alone."""
    return (
        markdown_image(alerts_plot(found, period), "Alerts over time"),
        markdown_image(pages_plot(found, period), "Pages over time"),
    )


def markdown(content: dict[str, Any], found: Assessment, pictures: tuple[str, str]) -> str:
    """The report; ``pictures`` of alerts and of pages, as Markdown."""
    parts = [
        f"# Replay of {content['from']} to {content['to']} with what is known now",
        _head(content),
        "## In short",
        markdown_table(short_table(content)),
    ]
    if is_empty(content):
        parts.append("**Nothing differs**: the same anomalies, alerts, incidents and pages as recorded.")
    scores = [score for score in (found.score_recorded, found.score_replayed) if score is not None]
    if scores:
        parts += ["## Against the labels", markdown_table(_scores(scores)), _SCORES_TEXT]
    parts += [
        "## By rule",
        markdown_table(rules_table(found)),
        pictures[0],
        "## Pages by day",
        markdown_table(days_table(found)),
        pictures[1],
    ]
    shown = ("name", "host", "metric", "severity_number", "starts_at", "fired_at", "ends_at", "suppressed_by", "title")
    for title, frame in (("Alerts raised", found.alerts.raised), ("Alerts vanished", found.alerts.vanished)):
        parts += _listed(title, frame.select(shown))
    parts += _listed("Alerts changed", _changes(found.alerts.changed))
    columns = ("incident_id", "priority", "started_at", "resolved_at", "title")
    for title, frame in (
        ("Incidents raised", found.incidents.raised),
        ("Incidents vanished", found.incidents.vanished),
    ):
        parts += _listed(title, frame.select(columns))
    parts += _listed("Incidents changed", found.incidents.changed)
    return "\n\n".join(parts) + "\n"


_SCORES_TEXT = (
    "An alert is right when it is open during a labelled window of its host (and metric, where the window names one). "
    "Precision: right alerts of all that fired with at least the severity warning. Recall: windows that an alert saw. "
    "A page is right when an alert of its incident is."
)


def _head(content: dict[str, Any]) -> str:
    lines = [
        f"{content['hours']:,} hours, {content['points']:,} points, in {duration(content['seconds'])}; "
        f"{markdown_text(content['began'], 300)}."
    ]
    if content["set"]:
        lines.append("Changed: " + ", ".join(markdown_text(entry, 200) for entry in content["set"]) + ".")
    for mask in content["mask"]:
        lines.append(f"Masked, as if nothing had come: {mask['from']} to {mask['to']}.")
    if content["host"] != "*":
        lines.append(f"Only hosts that match {markdown_text(content['host'])}.")
    if content["hours_still_open"]:
        lines.append(f"Left out, still open: {', '.join(content['hours_still_open'])}.")
    if content["hours_without_receipt"]:
        lines.append(f"{len(content['hours_without_receipt'])} hours have no receipt; what was told stands for them.")
    if content["hours_with_other_baselines"]:
        lines.append(f"Baselines computed anew for {len(content['hours_with_other_baselines'])} hours.")
    lines.append("Rules that were changed begin without a past at the first hour.")
    return "\n".join(f"- {line}" for line in lines)


def short_table(content: dict[str, Any]) -> pl.DataFrame:
    """One row a kind of result: both sides and how many differ."""
    rows = [("anomalies", *(content["anomalies"].get(name, 0) for name in _SHORT))]
    for part in ("alerts", "incidents"):
        entry = content[part]
        lists = [len(entry[name]) for name in ("raised", "vanished", "changed")]
        rows.append((part, entry["recorded"], entry["replayed"], entry["same"], *lists))
    pages = content["pages"]
    rows.append(("pages", pages["recorded"], pages["replayed"], None, None, None, None))
    return pl.DataFrame(rows, schema={"": pl.String(), **dict.fromkeys(_SHORT, pl.Int64())}, orient="row")


_SHORT = ("recorded", "replayed", "same", "raised", "vanished", "changed")


def _scores(scores: Sequence[Score]) -> pl.DataFrame:
    return pl.DataFrame(
        [
            {
                "side": side,
                "windows": score.windows,
                "seen": score.seen,
                "alerts": score.alerts,
                "right": score.right,
                "precision": _share(score.precision),
                "recall": _share(score.recall),
                "pages": score.pages,
                "right pages": score.pages_right,
                "precision of pages": _share(score.page_precision),
            }
            for side, score in zip(("recorded", "replayed"), scores, strict=True)
        ]
    )


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _changes(changed: pl.DataFrame) -> pl.DataFrame:
    """Only what differs, before → after, in one column."""
    rows = []
    for row in changed.iter_rows(named=True):
        what = []
        for name in ("starts_at", "fired_at", "ends_at", "severity_number", "suppressed_by"):
            before, after = row[f"before_{name}"], row[f"after_{name}"]
            if before != after:
                what.append(f"{name}: {_value(before)} → {_value(after)}")
        rows.append((row["name"], row["host"], row["metric"], "; ".join(what), row["title"]))
    schema = dict.fromkeys(("name", "host", "metric", "change", "title"), pl.String())
    return pl.DataFrame(rows, schema=schema, orient="row")


def _value(value: object) -> str:
    if value is None:
        return "–"
    return value.strftime("%Y-%m-%d %H:%M:%S") if isinstance(value, datetime) else str(value)


def _listed(title: str, frame: pl.DataFrame) -> list[str]:
    if frame.is_empty():
        return []
    more = f"{frame.height - SHOWN:,} more are in {JSON}." if frame.height > SHOWN else ""
    return [f"## {title} ({frame.height:,})", markdown_table(frame.head(SHOWN)), *([more] if more else [])]


def _rows(frame: pl.DataFrame) -> list[dict[str, Any]]:
    return [
        {name: _iso(value) if isinstance(value, datetime) else value for name, value in row.items()}
        for row in frame.iter_rows(named=True)
    ]


def _iso(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


# -- as recorded ------------------------------------------------------------------------------------------------------


def verdict(found: Verification) -> str:
    """The result of a verification in one line."""
    counted = f"{found.hours:,} hours, {found.rows:,} rows"
    left = f"; inputs expired for {len(found.expired):,} hours" if found.expired else ""
    if found.identical:
        return f"identical: {counted}{left}"
    hours = len({entry.hour for entry in found.differences})
    return f"{len(found.differences):,} differences in {hours:,} of {counted}{left}"


def verification_markdown(found: Verification) -> str:
    """A verification as people read it."""
    parts = [f"**{verdict(found)}**"]
    if found.differences:
        frame = pl.DataFrame(
            [
                (entry.hour, entry.revision, entry.what, entry.expected, entry.found, entry.row)
                for entry in found.differences
            ],
            schema=["hour", "revision", "what", "expected", "found", "first row"],
            orient="row",
        )
        parts += _listed("Differences", frame)
    if found.expired:
        rows = pl.DataFrame(list(found.expired.items()), schema=["hour", "why"], orient="row")
        parts += _listed("Inputs expired", rows)
    if found.derived_by_other:
        parts.append("Derived by other code or libraries: " + "; ".join(map(markdown_text, found.derived_by_other)))
    return "\n\n".join(parts)
