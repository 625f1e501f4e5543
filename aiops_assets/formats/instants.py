"""Times as log lines write them, a column at once: ISO 8601, syslog, access logs, and whatever else is common.

What belongs here: texts to microseconds since the epoch (UTC). What does not: finding the time in a line (``syslog``,
``text``), and times in JSON (``payload``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import numpy.typing as npt
import polars as pl

from aiops_assets.hours import micros

Int64s = npt.NDArray[np.int64]

MONTHS = {name: number for number, name in enumerate(
    ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"), 1
)}  # fmt: skip
#: a time without a year lies at most this far after the moment in which it was received
AHEAD_MICROS = 2 * 86_400_000_000
_OFFSET = re.compile(r"([+-])(\d\d):?(\d\d)?")
#: abbreviations that stand for one offset everywhere (minutes); others are read in the zone that was declared
ABBREVIATIONS: Mapping[str, int] = {
    "UTC": 0, "GMT": 0, "Z": 0, "UCT": 0, "WET": 0, "CET": 60, "CEST": 120, "EET": 120, "EEST": 180, "MSK": 180,
    "EST": -300, "EDT": -240, "CDT": -300, "MST": -420, "MDT": -360, "PST": -480, "PDT": -420, "JST": 540, "KST": 540,
    "HKT": 480, "SGT": 480, "AEST": 600, "AEDT": 660, "NZST": 720, "NZDT": 780,
}  # fmt: skip


def known_zone(name: str) -> str:
    """A time zone's name if there is such a zone, else UTC."""
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return "UTC"
    return name


def offset_micros(text: str) -> int | None:
    """The offset from UTC that ``Z``, ``+01:00``, ``-0530`` or ``+02`` tells; ``None`` when it is none."""
    if text in {"Z", "z"}:
        return 0
    match = _OFFSET.fullmatch(text)
    if match is None:
        return None
    minutes = int(match[2]) * 60 + int(match[3] or 0)
    return (-minutes if match[1] == "-" else minutes) * 60_000_000


def local_to_utc(local: pl.Series, zones: pl.Series) -> pl.Series:
    """Microseconds of the clock on the wall (Int64) in the zone of each row as microseconds since the epoch (UTC).

    Of an hour that occurs twice the earlier one is meant; one that is left out is read as if it were not.
    """
    names = zones.unique().to_list()
    if names == ["UTC"]:
        return local
    frame = pl.DataFrame({"local": local, "zone": zones})
    moment = pl.col("local").cast(pl.Datetime("us"))
    chain = pl.col("local")
    for name in names:
        if name is not None and name != "UTC":
            there = moment.dt.replace_time_zone(known_zone(name), ambiguous="earliest", non_existent="null")
            chain = pl.when(pl.col("zone") == name).then(pl.coalesce(there.dt.epoch("us"), "local")).otherwise(chain)
    return frame.select(chain.alias("utc"))["utc"]


def iso(stamps: pl.Series, zones: pl.Series) -> pl.Series:
    """ISO 8601 with seconds, an optional fraction and offset; null where it is none.

    Args:
        stamps: texts such as ``2026-01-02T03:04:05.678+01:00``, also with a blank or a comma as separators.
        zones: by row, the zone of those without an offset.
    """
    frame = pl.DataFrame({"stamp": stamps, "zone": zones})
    head, tail = pl.col("stamp").str.slice(0, 19), pl.col("stamp").str.slice(19)
    columns = frame.select(
        "zone",
        head.str.to_datetime("%Y-%m-%dT%H:%M:%S", strict=False, time_unit="us")
        .fill_null(head.str.to_datetime("%Y-%m-%d %H:%M:%S", strict=False, time_unit="us"))
        .dt.epoch("us")
        .alias("base"),
        tail.str.extract(r"^[.,](\d{1,9})", 1)
        .str.pad_end(6, "0")
        .str.slice(0, 6)
        .cast(pl.Int64, strict=False)
        .fill_null(0)
        .alias("fraction"),
        tail.str.replace(r"^[.,]\d+", "").str.strip_chars().alias("offset"),
    )
    texts = columns["offset"].unique()
    offsets = {text: offset_micros(text) for text in texts.to_list() if text}
    told = columns["offset"].replace_strict(offsets, default=None, return_dtype=pl.Int64)
    wall = columns["base"] + columns["fraction"]
    plain = columns["offset"] == ""
    if plain.any():
        there = local_to_utc(wall, columns["zone"])
        return pl.select(pl.when(plain).then(there).otherwise(wall - told)).to_series()
    return wall - told


def without_year(
    month: pl.Series, day: pl.Series, seconds: pl.Series, received: pl.Series, zones: pl.Series
) -> pl.Series:
    """Times that name no year: the latest that is not more than two days after ``received``. Null where there is none.

    Args:
        month: 1 to 12.
        day: 1 to 31.
        seconds: microseconds since midnight.
        received: microseconds since the epoch (UTC).
        zones: by row, the zone of the clock.
    """
    valid = month.is_between(1, 12) & day.is_between(1, 31) & seconds.is_between(0, 86_400_000_000 - 1)
    valid = valid.fill_null(False)
    months, days = month.fill_null(1).to_numpy(), day.fill_null(1).to_numpy()
    clock = seconds.fill_null(0).to_numpy()
    got = received.to_numpy()
    year = (got // 1_000_000).astype("datetime64[s]").astype("datetime64[Y]").astype(np.int64) + 1970
    chosen = _wall(year - 1, months, days, clock)
    for candidate in (year, year + 1):
        wall = _wall(candidate, months, days, clock)
        chosen = np.where(wall <= got + AHEAD_MICROS, wall, chosen)
    return pl.select(
        pl.when(valid).then(local_to_utc(pl.Series(chosen, dtype=pl.Int64), zones)).alias("ts")
    ).to_series()


def _wall(year: Int64s, month: Int64s, day: Int64s, clock: Int64s) -> Int64s:
    months = ((year - 1970) * 12 + month.astype(np.int64) - 1).astype("datetime64[M]")
    days = months.astype("datetime64[D]").astype(np.int64) + day.astype(np.int64) - 1
    return days * 86_400_000_000 + clock.astype(np.int64)


def syslog(stamps: pl.Series, received: pl.Series, zones: pl.Series) -> pl.Series:
    """``Jan  2 03:04:05`` in the year that fits; null where it is none."""
    stamp = stamps.alias("stamp").to_frame()
    number = {name: pl.col("stamp").str.slice(place, 2) for name, place in _PLACES.items()}
    parts = stamp.select(
        pl.col("stamp").str.slice(0, 3).str.to_lowercase().replace_strict(MONTHS, default=None, return_dtype=pl.Int64)
        .alias("month"),
        *(text.str.strip_chars_start().cast(pl.Int64, strict=False).alias(name) for name, text in number.items()),
    )  # fmt: skip
    seconds = (parts["hour"] * 3600 + parts["minute"] * 60 + parts["second"]) * 1_000_000
    return without_year(parts["month"], parts["day"], seconds, received, zones)


_PLACES = {"day": 4, "hour": 7, "minute": 10, "second": 13}


def wall_clock(year: int, month: int, day: int, hour: int, minute: int, second: int, micro: int) -> int | None:
    """Microseconds on the wall of a date, ``None`` when there is none such."""
    try:
        return micros(datetime(year, month, day, hour, minute, min(second, 59), micro, tzinfo=UTC))
    except (ValueError, OverflowError):
        return None


def in_zone(wall: int, zone: str, offset: int | None = None) -> int:
    """``local_to_utc`` for one; ``offset`` in microseconds when the text told one."""
    if offset is not None:
        return wall - offset
    if zone == "UTC":
        return wall
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=wall)
    return micros(moment.replace(tzinfo=ZoneInfo(known_zone(zone))))


def year_that_fits(month: int, day: int, clock: tuple[int, int, int, int], received: int) -> int | None:
    """``without_year`` for one, on the wall; ``clock`` is hour, minute, second, microsecond."""
    now = datetime.fromtimestamp(received / 1_000_000, UTC).year
    for year in (now + 1, now, now - 1):
        wall = wall_clock(year, month, day, *clock)
        if wall is not None and wall <= received + AHEAD_MICROS:
            return wall
    return None
