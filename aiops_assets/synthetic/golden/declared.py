"""Skeletons drawn from a configuration: who reports what, when and where, how bad it is, who solves it and how fast.

What belongs here: the draws of ``SkeletonSource`` that keep a configuration's declared weights and ranges. What does
not: the arrival grid (``arrivals``), the tickets' lives (``lifecycle``) and words (``telling``).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import polars as pl
from numpy.typing import NDArray

from aiops_assets.hours import MICROS_PER_SECOND
from aiops_assets.synthetic.golden.arrivals import Arrivals, arrivals
from aiops_assets.synthetic.golden.calendars import Calendars, calendars, local_midnight_after
from aiops_assets.synthetic.golden.config import ANY, GoldenConfig, Group, Range, covers
from aiops_assets.synthetic.golden.draws import Draws, Floats, Ints, cumulated
from aiops_assets.synthetic.golden.lifecycle import CONFIRMED_WITHIN, when_the_job_runs
from aiops_assets.synthetic.golden.population import MONITORING, Population, persona_shares, population
from aiops_assets.synthetic.golden.skeleton import SKELETON_SCHEMA, Vocabulary

MONITORING_CONTACT = "Monitoring"
#: how much more often a persona reports its common issues
_COMMON = 3.0
#: standard normal deviate of the 90th percentile
_NINETIETH = 1.2815515594600038
#: spread of response times (standard deviation of the logarithm)
_RESPONSE_SPREAD = 0.75
_LEVEL_WEIGHT = {1: 1.0, 2: 1.0, 3: 0.35}
#: numbers of configuration items by digits: as many as a company of that size has
_ITEMS = np.array([0, 4, 24, 180, 2_600, 9_000, 90_000, 900_000])


@dataclass(frozen=True)
class _Tables:
    """A configuration as arrays; S subcategories in order of the categories."""

    category_of: Ints  # [S]
    categories: Floats  # cumulative [C]
    subcategories: Floats  # cumulative [C × most]
    first_subcategory: Ints  # [C]
    cells: Floats  # cumulative [C × 9], impact-major
    priority: Ints  # [9]
    resolution_middle: Floats  # [C × 6], logarithm of seconds
    resolution_spread: Floats
    sla_response: Floats  # [6]
    around_the_clock: NDArray[np.bool_]  # [6]
    personas: Floats  # cumulative [(L·C) × P]
    services: Floats  # cumulative [S × services]
    groups: Floats  # cumulative [(S·L) × groups]
    monitored: Floats  # [S]


class Declared:
    """The ``SkeletonSource`` of a configuration."""

    def __init__(self, config: GoldenConfig) -> None:
        self.config = config

    def vocabulary(self) -> Vocabulary:
        """Names of the configuration."""
        config = self.config
        fitting = {
            category.name: frozenset(
                group.name
                for group in config.groups
                if any(covers(group.specialties, category.name, sub.name) for sub in category.subcategories)
            )
            for category in config.categories
        }
        return Vocabulary(
            categories={c.name: frozenset(sub.name for sub in c.subcategories) for c in config.categories},
            groups=tuple(group.name for group in config.groups),
            fitting=fitting,
            services=frozenset(service.name for service in config.services),
        )

    @cached_property
    def people(self) -> Population:
        """Callers and technicians."""
        return population(self.config)

    @cached_property
    def calendars(self) -> Calendars:
        """Working time by location."""
        return calendars(self.config.locations, self.config.start, self.config.seen_at)

    @cached_property
    def _tables(self) -> _Tables:
        return _tables(self.config)

    @cached_property
    def _patterns(self) -> _Patterns:
        return _Patterns(self.config)

    @cached_property
    def _names(self) -> _Names:
        return _Names(self.config)

    @lru_cache(maxsize=4)  # noqa: B019 - few sources live, and each as long as what it draws
    def _arrivals(self, seed: int) -> Arrivals:
        return arrivals(self.config, seed)

    def skeletons(self, start: int, count: int, total: int, seed: int) -> pl.DataFrame:
        """``SkeletonSource.skeletons``."""
        config, tables = self.config, self._tables
        index = np.arange(start, start + count, dtype=np.int64)
        if count == 0:
            return pl.DataFrame(schema=SKELETON_SCHEMA)
        draws = Draws(seed, index)
        grid = self._arrivals(seed)
        opened, location, burst = grid.drawn(draws, start, count, total)
        # A burst is drawn as if it were one incident: what is hit is the same for all that report it.
        about = Draws(seed, np.where(burst >= 0, -1 - burst, index))
        category = about.chosen("category", tables.categories)
        subcategory = tables.first_subcategory[category] + about.chosen("subcategory", tables.subcategories, category)
        service = about.chosen("service", tables.services, subcategory)
        cell = draws.chosen("cell", tables.cells, category)
        impact, urgency = cell // 3 + 1, cell % 3 + 1
        priority = tables.priority[cell]
        persona = draws.chosen("persona", tables.personas, location * len(config.categories) + category)
        people = self.people
        bucket = np.array([len(config.personas), 1]) @ np.array([location, persona])
        sizes = people.bucket_size.ravel()[bucket]
        # Some call more often than others.
        among = np.minimum((draws.uniform("caller") ** 1.6 * sizes).astype(np.int64), np.maximum(sizes - 1, 0))
        caller = people.bucket_first.ravel()[bucket] + among
        monitoring = draws.happens("monitored", tables.monitored[subcategory])
        group = draws.chosen("group", tables.groups, subcategory * len(config.locations) + location)
        technician = people.group_first[group] + draws.below("technician", people.group_size[group])
        times = self._times(draws, opened, location, category, priority)
        names = self._names
        callers = people.handles.gather(caller)
        contact = names.contacts.gather(
            np.where(monitoring, len(config.contact_types), draws.chosen("contact", names.contact_weights))
        )
        frame = pl.DataFrame(
            {
                "index": index,
                "opened_at": opened,
                "category": names.categories.gather(category),
                "subcategory": names.subcategories.gather(subcategory),
                "business_service": names.services.gather(service),
                "business_domain": names.domains.gather(service),
                "contact_type": contact,
                "location": names.locations.gather(location),
                "caller_id": names.either(monitoring, MONITORING, callers),
                "impact": impact,
                "urgency": urgency,
                "priority": priority,
                "assignment_group": names.groups.gather(group),
                "assigned_to": people.handles.gather(technician),
                "configuration_item": self._items(draws, about, service, subcategory, caller, monitoring),
                **times,
                "update_count": pl.Series([None], dtype=pl.Int32).new_from_index(0, count),
                "made_sla": pl.Series([None], dtype=pl.Boolean).new_from_index(0, count),
                "close_code": pl.Series([None], dtype=pl.String).new_from_index(0, count),
            }
        )
        return frame.select(pl.col(name).cast(dtype) for name, dtype in SKELETON_SCHEMA.items())

    def _times(
        self, draws: Draws, opened: Ints, location: Ints, category: Ints, priority: Ints
    ) -> dict[str, NDArray[np.generic]]:
        """Counts and wall-clock seconds of ``SKELETON_SCHEMA``."""
        config, tables, clock = self.config, self._tables, self.calendars
        which = np.where(tables.around_the_clock[priority], clock.always, location)
        longest = np.clip(draws.normal("resolution"), -3.0, 2.8)
        working = np.exp(
            tables.resolution_middle[category, priority] + tables.resolution_spread[category, priority] * longest
        )
        response = tables.sla_response[priority] * config.rates.response
        response = response * np.exp(_RESPONSE_SPREAD * draws.normal("response"))
        response = np.minimum(response, working * (0.2 + 0.5 * draws.uniform("response:part")))
        responded = _whole(clock.later(opened, response, which))
        resolved = _whole(clock.later(opened, working, which))
        resolved = np.maximum(resolved, responded + 60 * MICROS_PER_SECOND)
        # What is handed on or reopened takes longer; the chance grows with the rank of the duration, its mean stays.
        rank = 2.0 * _rank(longest)
        rates = config.rates
        misrouted = draws.happens("misrouted", np.minimum(rates.misrouted * rank, 1.0))
        handed = draws.happens("reassigned", np.minimum(rates.reassigned * rank, 1.0))
        again = handed & draws.happens("reassigned:again", 0.5)
        reopened = draws.happens("reopened", np.minimum(rates.reopened * rank, 1.0))
        twice = reopened & draws.happens("reopened:again", 0.12)
        closed = self._closed(draws, resolved, location)
        return {
            "reassignment_count": misrouted.astype(np.int32) + handed + again,
            "reopen_count": reopened.astype(np.int32) + twice,
            "response_seconds": (responded - opened) / MICROS_PER_SECOND,
            "resolve_seconds": (resolved - opened) / MICROS_PER_SECOND,
            "close_seconds": (closed - resolved) / MICROS_PER_SECOND,
        }

    def _closed(self, draws: Draws, resolved: Ints, location: Ints) -> Ints:
        """By the caller, or by the job at its clock time after so many business days."""
        config, clock = self.config, self.calendars
        day = np.array([(entry.hours.close - entry.hours.open) * 60.0 for entry in config.locations])
        waited = clock.later(resolved, config.closing.after * day[location], location)
        job = local_midnight_after(waited, config.locations[0].time_zone, config.closing.at)
        # At the job's time of day, but one closing takes its seconds.
        job = _whole(job + (draws.uniform("job") * 240 * MICROS_PER_SECOND).astype(np.int64))
        hours = np.exp(np.log(5_400.0) + 1.3 * draws.normal("confirmed"))
        by_caller = _whole(clock.later(resolved, hours, location)) + 30 * MICROS_PER_SECOND
        by_caller = by_caller + np.where(when_the_job_runs(config, by_caller), 600 * MICROS_PER_SECOND, 0)
        soon = (by_caller < job) & (by_caller - resolved < CONFIRMED_WITHIN)
        confirmed = draws.happens("confirmed:is", config.rates.confirmed) & soon
        return np.asarray(np.where(confirmed, by_caller, job))

    def _items(
        self, draws: Draws, about: Draws, service: Ints, subcategory: Ints, caller: Ints, monitoring: NDArray[np.bool_]
    ) -> pl.Series:
        """Names of configuration items, null where none is known; numbers of many digits belong to the caller."""
        patterns = self._patterns
        pair = service * patterns.subcategories + subcategory
        count = patterns.count[pair]
        which = about.below("item", count)
        row = patterns.rows[np.minimum(patterns.first[pair] + which, len(patterns.rows) - 1)]
        digits = patterns.digits[row]
        own = digits >= 4
        of_caller = Draws(0, caller * 64 + row % 64).uniform("item:own")
        position = np.where(own & ~monitoring, of_caller, about.uniform("item:number"))
        limit = _ITEMS[np.minimum(digits, 7)]
        number = np.where(own, limit // 10, 0) + (position * limit * np.where(own, 0.9, 1.0)).astype(np.int64) + 1
        number = np.minimum(number, 10**digits - 1)
        known = (count > 0) & (draws.happens("item:known", self.config.rates.identified) | monitoring)
        return patterns.named(row, number, known)


class _Names:
    """Names of a configuration as columns to gather from."""

    def __init__(self, config: GoldenConfig) -> None:
        self.categories = pl.Series([c.name for c in config.categories])
        self.subcategories = pl.Series([sub.name for c in config.categories for sub in c.subcategories])
        self.services = pl.Series([s.name for s in config.services])
        self.domains = pl.Series([s.domain for s in config.services])
        self.locations = pl.Series([entry.name for entry in config.locations])
        self.groups = pl.Series([group.name for group in config.groups])
        self.contacts = pl.Series([*config.contact_types, MONITORING_CONTACT])
        self.contact_weights = cumulated(np.array(list(config.contact_types.values())))

    @staticmethod
    def either(flag: NDArray[np.bool_], value: str, other: pl.Series) -> pl.Series:
        """``value`` where the flag is set."""
        return pl.select(pl.when(pl.Series(flag)).then(pl.lit(value)).otherwise(other)).to_series()


class _Patterns:
    """Patterns of configuration items, ``app-erp-0#``: what stands before and after the digits, and who has which."""

    def __init__(self, config: GoldenConfig) -> None:
        subs = [sub.name for category in config.categories for sub in category.subcategories]
        items = [(number, item) for number, service in enumerate(config.services) for item in service.items]
        cut = [item.pattern.partition("#") for _, item in items]
        more = [len(tail) - len(tail.lstrip("#")) for _, _, tail in cut]
        self.digits = np.array([1 + n if mark else 0 for (_, mark, _), n in zip(cut, more, strict=True)] or [0])
        self._before = pl.Series([head for head, _, _ in cut] or [""])
        self._after = pl.Series([tail[n:] for (_, _, tail), n in zip(cut, more, strict=True)] or [""])
        fitting = [
            [row for row, (owner, item) in enumerate(items) if owner == service and (not item.only or sub in item.only)]
            for service in range(len(config.services))
            for sub in subs
        ]
        self.subcategories = len(subs)
        self.count = np.array([len(rows) for rows in fitting])
        self.first = np.cumsum(self.count) - self.count
        self.rows = np.array([row for rows in fitting for row in rows] or [0])

    def named(self, row: Ints, number: Ints, known: NDArray[np.bool_]) -> pl.Series:
        """Names by row of the patterns and number; null where not known."""
        made = pl.DataFrame(
            {
                "before": self._before.gather(row),
                "number": pl.Series(number + 10_000_000).cast(pl.String),
                "digits": self.digits[row],
                "after": self._after.gather(row),
                "known": known,
            }
        )
        text = pl.concat_str("before", pl.col("number").str.tail(pl.col("digits")), "after")
        return made.select(pl.when("known").then(text)).to_series()


def _tables(config: GoldenConfig) -> _Tables:
    categories, places = config.categories, config.locations
    pairs = [(c, category, sub) for c, category in enumerate(categories) for sub in category.subcategories]
    most = max(len(category.subcategories) for category in categories)
    shares = np.zeros((len(categories), most))
    for row, category in enumerate(categories):
        shares[row, : len(category.subcategories)] = [sub.weight for sub in category.subcategories]
    priority = np.array([cell for line in config.matrix for cell in line])
    cells = np.array([[c.priorities.get(int(p), 0.0) / (priority == p).sum() for p in priority] for c in categories])
    middle, spread = np.zeros((len(categories), 6)), np.zeros((len(categories), 6))
    for row, category in enumerate(categories):
        for level in range(1, 6):
            middle[row, level], spread[row, level] = _log_normal(
                category.resolution.get(level) or config.resolution.get(level)
            )
    present = persona_shares(config)[:, None, :] * np.array(
        [[float(not c.reported_by or p.name in c.reported_by) for p in config.personas] for c in categories]
    )
    # Where nobody of those who report such things works, everybody may.
    present = np.where(present.sum(axis=2, keepdims=True) > 0, present, persona_shares(config)[:, None, :])
    common = np.array([[_COMMON if c.name in p.common_issues else 1.0 for p in config.personas] for c in categories])
    levels = range(6)
    return _Tables(
        category_of=np.array([c for c, _, _ in pairs]),
        categories=cumulated(np.array([category.weight for category in categories])),
        subcategories=cumulated(shares),
        first_subcategory=np.concatenate(([0], np.cumsum([len(c.subcategories) for c in categories])[:-1])),
        cells=cumulated(cells),
        priority=priority,
        resolution_middle=middle,
        resolution_spread=spread,
        sla_response=np.array([config.sla[n].response if n in config.sla else 0.0 for n in levels]),
        around_the_clock=np.array([n in config.sla and config.sla[n].around_the_clock for n in levels]),
        personas=cumulated((present * common[None, :, :]).reshape(-1, len(config.personas))),
        services=cumulated(np.array([_service_weights(config, c.name, sub.name) for _, c, sub in pairs])),
        groups=cumulated(
            np.array(
                [
                    _group_weights(config.groups, category.name, sub.name, place.name, category.first_line)
                    for _, category, sub in pairs
                    for place in places
                ]
            )
        ),
        monitored=np.array([c.monitored if sub.monitored is None else sub.monitored for _, c, sub in pairs]),
    )


def _log_normal(values: Range | None) -> tuple[float, float]:
    if values is None:
        return 0.0, 0.0
    low, high = float(np.log(values.low)), float(np.log(values.high))
    return (low + high) / 2, (high - low) / 2 / _NINETIETH


def _service_weights(config: GoldenConfig, category: str, subcategory: str) -> list[float]:
    """Services that name the subcategory or its category; those that cover everything where there are none."""
    for wanted in ({category, f"{category}/{subcategory}"}, {ANY}):
        found = [s.weight * any(entry in wanted for entry in s.categories) for s in config.services]
        if sum(found) > 0:
            return found
    return [float(covers(s.categories, category, subcategory)) for s in config.services]


def _group_weights(
    groups: tuple[Group, ...], category: str, subcategory: str, place: str, first_line: float
) -> list[float]:
    fits = [covers(group.specialties, category, subcategory) for group in groups]
    here = [fit and (not group.locations or place in group.locations) for group, fit in zip(groups, fits, strict=True)]
    fits = here if any(here) else fits
    first = np.array([fit and group.level == 1 for group, fit in zip(groups, fits, strict=True)], float)
    other = np.array(
        [_LEVEL_WEIGHT[g.level] * (fit and g.level > 1) for g, fit in zip(groups, fits, strict=True)], float
    )
    if not first.any() or not other.any():
        return list(first + other)
    return list(first / first.sum() * first_line + other / other.sum() * (1 - first_line))


def _whole(at: Ints) -> Ints:
    """Up to the next whole second."""
    return np.asarray(-(-at // MICROS_PER_SECOND) * MICROS_PER_SECOND)


def _rank(normal: Floats) -> Floats:
    """Rank in (0, 1) of standard normal deviates (logistic approximation, off by less than 0.01)."""
    return np.asarray(1.0 / (1.0 + np.exp(-1.702 * normal)))
