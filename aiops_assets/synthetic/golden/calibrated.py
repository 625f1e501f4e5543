"""Skeletons like those of a real reference, drawn from what was learnt of it.

What belongs here: drawing the fields in order with counter-based random numbers, so that any slice can be made alone.
What does not: learning (``fitting``) and telling the story of a skeleton.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from numpy.typing import NDArray

from aiops_assets.synthetic.golden import clocks
from aiops_assets.synthetic.golden.chains import Codes, Points
from aiops_assets.synthetic.golden.fitting import Fitted, Numbers, cut
from aiops_assets.synthetic.golden.skeleton import NOBODY, SKELETON_SCHEMA, Vocabulary

Floats = NDArray[np.float64]
_DEFAULT_MATRIX = {"1/1": 1, "1/2": 2, "2/1": 2, "1/3": 3, "2/2": 3, "3/1": 3, "2/3": 4, "3/2": 4, "3/3": 4}


@dataclass(frozen=True)
class Calibrated:
    """A ``SkeletonSource`` that draws from a fit."""

    fitted: Fitted
    _streams: dict[str, int] = field(default_factory=dict, repr=False, compare=False)

    def vocabulary(self) -> Vocabulary:
        """The names of the reference; which groups fit a category is what it showed."""
        names = self.fitted.names
        groups = names["assignment_group"].values if "assignment_group" in names else (_NO_GROUP,)
        services = names["business_service"].values if "business_service" in names else ()
        return Vocabulary(
            categories=self._children("subcategory"),
            groups=groups,
            fitting={},
            services=frozenset(services),
        )

    def _children(self, target: str) -> dict[str, frozenset[str]]:
        categories = self.fitted.names["category"].values
        joint = self.fitted.joints.get("work")
        if joint is None or target not in joint.fields:
            return {name: frozenset({name}) for name in categories}
        values = self.fitted.names[target].values
        own, other = (joint.codes[:, joint.fields.index(field)] for field in ("category", target))
        found: dict[str, frozenset[str]] = {}
        for key in range(len(categories)):
            children = np.unique(other[own == key])
            if names := frozenset(values[code] for code in children if code < len(values)):
                found[categories[key]] = names
        return {name: found.get(name, frozenset({name})) for name in categories}

    def skeletons(self, start: int, count: int, total: int, seed: int) -> pl.DataFrame:
        """Incidents ``start`` … ``start + count`` of ``total``; see ``SkeletonSource``."""
        fitted = self.fitted
        index = np.arange(start, start + count, dtype=np.int64)
        share = (index + _uniform(seed, "opened", index, 1)[:, 0]) / max(1, total)
        opened = fitted.arrivals.at(share)
        opened = opened // fitted.step * fitted.step
        codes: dict[str, Codes] = {"weekday": clocks.weekday(opened), "hour": clocks.hour(opened)}
        codes |= self._joined(seed, index, total)
        points = Points(_uniform(seed, "spread", index, 1)[:, 0], _Fresh(seed, index))
        resolved = closed = opened
        is_closed = np.ones(count, dtype=np.bool_)
        for chain in fitted.chains:
            name = chain.target
            if name in {"response", "way"} and "resolved" not in codes:
                resolved = self._resolved(seed, index, opened, codes)
                codes["resolved"] = cut(resolved // clocks.MINUTE, fitted.cuts.get("resolved", ()))
                due = resolved // clocks.MINUTE + (fitted.job.after if fitted.job else 0)
                codes["due"] = cut(due, fitted.cuts.get("due", ()))
            codes[name] = chain.draw(codes, points)
        if "resolved" not in codes:
            resolved = self._resolved(seed, index, opened, codes)
        if fitted.ways:
            phase = codes.get("phase", np.zeros(count, dtype=np.int64))
            closed, is_closed = clocks.closed_at(
                fitted.ways,
                fitted.job,
                codes["way"],
                phase,
                resolved,
                _uniform(seed, "closed", index, 1)[:, 0],
                fitted.step,
            )
        else:
            closed = resolved + 5 * clocks.DAY
        seconds = (resolved - opened) / clocks.SECOND
        response = self._number(fitted.responses, codes.get("response"), seed, "response_within", index, 0) * 60.0
        severity = (
            [fitted.names["severity"].values[code].split("/") for code in codes["severity"]]
            if "severity" in codes
            else [("3", "3")] * count
        )
        impact = np.array([int(pair[0]) for pair in severity], dtype=np.int32)
        urgency = np.array([int(pair[1]) for pair in severity], dtype=np.int32)
        matrix = _DEFAULT_MATRIX | dict(fitted.matrix)
        priority = np.array([matrix.get("/".join(pair), 3) for pair in severity], dtype=np.int32)
        category = self._names("category", codes)
        group = self._names("assignment_group", codes)
        moves = self._count("reassignment_count", codes, seed, index)
        reopenings = self._count("reopen_count", codes, seed, index)
        columns = {
            "index": pl.Series(index),
            "opened_at": pl.Series(opened),
            "category": category,
            "subcategory": self._names("subcategory", codes).fill_null(category),
            "business_service": self._names("business_service", codes).fill_null(category),
            "business_domain": pl.Series([_NO_DOMAIN]).new_from_index(0, count),
            "contact_type": self._names("contact_type", codes).fill_null(_NO_CONTACT),
            "location": self._names("location", codes).fill_null(_NO_LOCATION),
            "caller_id": self._callers(seed, index, codes),
            "impact": pl.Series(impact),
            "urgency": pl.Series(urgency),
            "priority": pl.Series(priority),
            "assignment_group": group.fill_null(_NO_GROUP),
            "assigned_to": self._names("assigned_to", codes).fill_null(NOBODY)
            if "assigned_to" in codes
            else self._names("assigned_to", codes),
            "configuration_item": self._names("configuration_item", codes),
            "reassignment_count": pl.Series(moves),
            "reopen_count": pl.Series(reopenings),
            "response_seconds": pl.Series(np.minimum(response, seconds)),
            "resolve_seconds": pl.Series(seconds),
            "close_seconds": pl.Series((closed - resolved) / clocks.SECOND).set(pl.Series(~is_closed), None),
            "update_count": pl.Series(self._count("update_count", codes, seed, index))
            if "update_count" in codes
            else pl.Series([None] * count, dtype=pl.Int32),
            "made_sla": pl.Series(codes["made_sla"] == 1)
            if "made_sla" in codes
            else pl.Series([None] * count, dtype=pl.Boolean),
            "close_code": self._names("close_code", codes),
        }
        return pl.DataFrame([columns[name].cast(dtype).alias(name) for name, dtype in SKELETON_SCHEMA.items()])

    def _joined(self, seed: int, index: Codes, total: int) -> dict[str, Codes]:
        """Codes of what is drawn together: every part as often as every other one, and with ever other parts.

        Each incident has a donor, of which the first part is taken; the others are those of the donor some places on in
        its stratum, as many for all that are the donor's n-th: each round uses each part once.
        """
        donors = next(iter(self.fitted.joints.values())).at.size
        spread = _shuffled(index, total, seed) * donors
        donor = spread // max(1, total)
        turn = spread % max(1, total) // donors
        codes: dict[str, Codes] = {}
        for number, (name, joint) in enumerate(self.fitted.joints.items()):
            begin, size, at = joint.begin[donor], joint.size[donor], joint.at[donor]
            shift = (
                (_mixed(turn * donors + begin, _key(seed, f"joint/{name}")) % size.astype(np.uint64)).astype(np.int64)
                if number
                else np.zeros(index.size, dtype=np.int64)
            )
            row = begin + (at + shift) % size
            codes |= {field: joint.codes[row, column] for column, field in enumerate(joint.fields)}
        if "assigned_to" in codes:
            codes["nobody"] = (codes["assigned_to"] == len(self.fitted.names["assigned_to"].values)).astype(np.int64)
        return codes

    def _resolved(self, seed: int, index: Codes, opened: Codes, codes: dict[str, Codes]) -> Codes:
        empty = np.zeros(index.size, dtype=np.int64)
        return clocks.resolved_at(
            self.fitted.spans,
            codes["span"],
            opened,
            codes.get("weekend", empty),
            codes.get("later_hour", empty),
            _uniform(seed, "resolved", index, 2),
            self.fitted.step,
        )

    def _names(self, name: str, codes: dict[str, Codes]) -> pl.Series:
        count = codes["hour"].size
        if name not in codes:
            return pl.Series([None], dtype=pl.String).new_from_index(0, count)
        values = pl.Series([*self.fitted.names[name].values, None], dtype=pl.String)
        return values.gather(pl.Series(codes[name]))

    def _callers(self, seed: int, index: Codes, codes: dict[str, Codes]) -> pl.Series:
        crowd = self.fitted.crowd
        if crowd is None:
            pick = (_uniform(seed, "caller", index, 1)[:, 0] * 3_000).astype(np.int64)
            return pl.select(pl.format("caller.{}", pl.lit(pl.Series(pick + 1_000)))).to_series()
        regular = self._names("caller_id", codes)
        place = codes.get("location", np.zeros(index.size, dtype=np.int64))
        someone = (_uniform(seed, "caller", index, 1)[:, 0] * crowd.size).astype(np.int64)
        # who of the crowd it is, is drawn; where he works and what he is called follow from who he is
        figure = crowd.low + (
            _mixed(someone * 1_009 + place, np.uint64(97)) % np.uint64(crowd.high - crowd.low + 1)
        ).astype(np.int64)
        before, after = crowd.pattern.split("#")
        made = pl.select(pl.format("{}{}{}", pl.lit(before), pl.lit(pl.Series(figure)), pl.lit(after))).to_series()
        return pl.select(pl.when(regular == "#").then(made).otherwise(regular)).to_series()

    def _count(self, name: str, codes: dict[str, Codes], seed: int, index: Codes) -> Codes:
        return self._number(self.fitted.counts.get(name), codes.get(name), seed, f"{name}_within", index, 0)

    @staticmethod
    def _number(
        classes: Numbers | None, codes: Codes | None, seed: int, stream: str, index: Codes, default: int
    ) -> Codes:
        if classes is None or codes is None or not classes.low:
            return np.full(index.size, default, dtype=np.int64)
        low = np.array(classes.low, dtype=np.float64)[codes]
        high = np.array(classes.high, dtype=np.float64)[codes]
        draw = _uniform(seed, stream, index, 1)[:, 0]
        value = np.exp(np.log(np.maximum(low, 0.5)) + draw * np.log((high + 1) / np.maximum(low, 0.5)))
        return np.clip(np.floor(value), low, high).astype(np.int64)


_NO_GROUP = "unassigned"
_NO_DOMAIN = "Business"
_NO_CONTACT = "phone"
_NO_LOCATION = "unknown"


@dataclass(slots=True)
class _Fresh:
    """New numbers for rows whose number was used up: the next of each row's own sequence."""

    seed: int
    index: Codes
    taken: Codes = field(init=False)

    def __post_init__(self) -> None:
        self.taken = np.zeros(self.index.size, dtype=np.int64)

    def __call__(self, rows: Codes) -> Floats:
        self.taken[rows] += 1
        counter = self.index[rows].astype(np.uint64) * np.uint64(64) + self.taken[rows].astype(np.uint64)
        return _unit(_mixed(counter, _key(self.seed, "fresh")))


def _shuffled(index: Codes, total: int, seed: int) -> Codes:
    """A permutation of 0 … ``total`` - 1 at ``index``: a Feistel network that walks until it is in range.

    After Black and Rogaway, "Ciphers with arbitrary finite domains" (2002).
    """
    half = max(1, (max(2, total) - 1).bit_length() + 1) // 2
    mask = np.uint64((1 << half) - 1)
    out = np.minimum(index, max(0, total - 1)).astype(np.uint64)
    outside = np.ones(index.size, dtype=np.bool_)
    while outside.any():
        left, right = out[outside] >> np.uint64(half), out[outside] & mask
        for turn in range(4):
            left, right = right, left ^ (_mixed(right, _key(seed, f"shuffled{turn}")) & mask)
        out[outside] = (left << np.uint64(half)) | right
        outside = out >= np.uint64(max(1, total))
    return out.astype(np.int64)


def _uniform(seed: int, stream: str, index: Codes, columns: int) -> Floats:
    """Uniform numbers in [0, 1), a function of seed, stream, index and column alone."""
    counter = index[:, None].astype(np.uint64) * np.uint64(64) + np.arange(columns, dtype=np.uint64)[None, :]
    return _unit(_mixed(counter, _key(seed, stream)))


def _key(seed: int, stream: str) -> np.uint64:
    return np.uint64(int.from_bytes(hashlib.blake2b(f"{seed}/{stream}".encode(), digest_size=8).digest(), "big"))


def _unit(bits: NDArray[np.uint64]) -> Floats:
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mixed(counter: NDArray[np.generic], key: np.uint64) -> NDArray[np.uint64]:
    """SplitMix64 (Steele, Lea, Flood 2014) of counters under a key."""
    with np.errstate(over="ignore"):
        z = (counter.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) + key
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(z ^ (z >> np.uint64(31)))
