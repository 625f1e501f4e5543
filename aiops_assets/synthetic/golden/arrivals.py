"""When incidents are opened: hours, weekdays, months, month ends, holidays, a trend, and bursts, by location.

What belongs here: the intensity over the period in cells of a quarter of an hour, and arrivals drawn from it. What does
not: what arrives.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from aiops_assets.hours import MICROS_PER_SECOND, micros
from aiops_assets.synthetic.golden.calendars import offsets
from aiops_assets.synthetic.golden.config import DAYS, GoldenConfig, Location
from aiops_assets.synthetic.golden.draws import Draws, Floats, Ints, cumulated, pick, sorted_uniforms

CELL = 900 * MICROS_PER_SECOND
_MONTH_DAYS = 365.25 / 12
_NINETIETH = 1.2815515594600038


@dataclass(frozen=True)
class Arrivals:
    """The intensity of one data set; cells of ``CELL`` from ``start`` on."""

    start: int
    end: int
    cumulative: Floats  # [cells + 1], from 0 to 1
    locations: Floats  # cumulative [cells × locations]
    burst: Ints  # [cells], -1 where there is none
    burst_share: Floats  # [cells], of what arrives there

    def drawn(self, draws: Draws, start: int, count: int, total: int) -> tuple[Ints, Ints, Ints]:
        """(microseconds, location, burst or -1) of arrivals ``start`` … ``start + count`` of ``total``, in order."""
        position = sorted_uniforms(start, count, total, draws.seed)
        cell = np.searchsorted(self.cumulative, position, side="right") - 1
        cell = np.clip(cell, 0, len(self.burst) - 1)
        low, high = self.cumulative[cell], self.cumulative[cell + 1]
        inside = (position - low) / np.where(high > low, high - low, 1.0)
        at = self.start + cell * CELL + (inside * CELL).astype(np.int64)
        at = np.minimum(at, self.end - MICROS_PER_SECOND) // MICROS_PER_SECOND * MICROS_PER_SECOND
        location = pick(draws.uniform("location"), self.locations, cell)
        burst = np.where(draws.uniform("burst") < self.burst_share[cell], self.burst[cell], -1)
        return at, location, burst


def arrivals(config: GoldenConfig, seed: int) -> Arrivals:
    """The intensity by a configuration; bursts are the seed's own."""
    start, end = micros(config.start), micros(config.end)
    cells = max(1, -(-(end - start) // CELL))
    at = start + np.arange(cells, dtype=np.int64) * CELL
    weights = np.array([location.weight for location in config.locations])
    profile = np.stack([_profile(config, location, at) for location in config.locations], axis=1)
    profile *= weights / weights.sum() / np.maximum(profile.sum(axis=0), 1e-300)
    if profile.sum() <= 0:
        profile += 1.0 / profile.size
    base = profile.sum(axis=1)
    base /= base.sum()
    burst, extra = _bursts(config, seed, base)
    share = config.seasonality.bursts.share if extra.sum() > 0 else 0.0
    total = (1 - share) * base + share * extra / max(extra.sum(), 1e-300)
    part = np.where(total > 0, share * extra / max(extra.sum(), 1e-300) / np.maximum(total, 1e-300), 0.0)
    cumulative = np.concatenate(([0.0], np.cumsum(total)))
    return Arrivals(start, end, cumulative / cumulative[-1], cumulated(profile), burst, part)


def _profile(config: GoldenConfig, location: Location, at: Ints) -> Floats:
    """Relative intensity of one location in each cell."""
    season = config.seasonality
    local = (at + offsets(at, location.time_zone)).astype("M8[us]")
    day = local.astype("M8[D]")
    month = local.astype("M8[M]")
    weekdays = np.array([season.weekdays.get(name, 0.0) for name in DAYS])  # type: ignore[call-overload]
    made = np.array(season.hours)[(local - day).astype("m8[h]").astype(int)]
    made = made * weekdays[(day.astype(int) + 3) % 7]
    made = made * np.array(season.months)[month.astype(int) % 12]
    first = month.astype("M8[D]")
    following = (month + 1).astype("M8[D]")
    turn = (np.busday_count(day, following) <= 2) | (np.busday_count(first, day + 1) <= 1)
    made = made * np.where(turn, season.month_end, 1.0)
    holidays = np.array(sorted(location.holidays), "M8[D]")
    made = made * np.where(np.isin(day, holidays), season.holidays, 1.0)
    years = (at - at[0]) / (365.25 * 86_400 * MICROS_PER_SECOND)
    return np.asarray(made * np.power(1.0 + season.trend, years))


def _bursts(config: GoldenConfig, seed: int, base: Floats) -> tuple[Ints, Floats]:
    """(number of the burst or -1, relative intensity) in each cell; each burst swells at once and ebbs away."""
    settings = config.seasonality.bursts
    number = np.full(len(base), -1, np.int64)
    extra = np.zeros(len(base))
    months = len(base) * CELL / MICROS_PER_SECOND / 86_400 / _MONTH_DAYS
    count = _poisson(settings.per_month * months, float(Draws(seed, np.zeros(1, np.int64)).uniform("bursts")[0]))
    draws = Draws(seed, np.arange(count, dtype=np.int64))
    begin = pick(draws.uniform("burst:start"), cumulated(base))
    low, high = math.log(settings.length.low), math.log(settings.length.high)
    length = np.exp((low + high) / 2 + (high - low) / 2 / _NINETIETH * draws.normal("burst:length"))
    size = 0.5 + draws.uniform("burst:size")
    for burst in range(count):
        cells = max(1, math.ceil(length[burst] * MICROS_PER_SECOND / CELL))
        span = slice(int(begin[burst]), min(int(begin[burst]) + cells, len(base)))
        ebbing = np.exp(-2.5 * np.arange(span.stop - span.start) / cells)
        number[span] = burst
        extra[span] += size[burst] * ebbing / ebbing.sum()
    return number, extra


def _poisson(mean: float, uniform: float) -> int:
    """A Poisson number by inversion."""
    chance = below = math.exp(-min(mean, 700.0))
    made = 0
    while below < uniform and made < 10_000:
        made += 1
        chance *= mean / made
        below += chance
    return made
