"""Conditional distributions with back-off: a field given those before it, the specific context smoothed by the general.

What belongs here: one field's chain of contexts, how it is learnt (interpolated back-off with a pseudo-count a level,
as in Teh, "A hierarchical Bayesian language model", 2006, in its mean-field form; contexts chosen greedily by the
likelihood of each row left out) and how it is drawn from. What does not: which fields there are (``fitting``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.int64]
Uniforms = NDArray[np.float64]

_WEIGHTS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
_LEAST_GAIN = 0.005
#: pseudo-counts that tell left-out rows best let combinations appear that never do; this share of them is used to draw
SHARPNESS = 0.05


@dataclass(frozen=True, slots=True)
class Level:
    """Counts of values in the contexts that ``parents`` span.

    ``keys`` (sorted) are the contexts, ``ends`` where those of each end in ``values`` and ``counts`` (how often each
    value stands in the context). ``weight`` is the pseudo-count of the level above; 0 never backs off from a known
    context.
    """

    parents: tuple[str, ...]
    sizes: tuple[int, ...]
    weight: float
    keys: Codes
    ends: Codes
    values: Codes
    counts: Codes

    def to_arrays(self) -> dict[str, Codes]:
        """The arrays of the level, for storage without pickle."""
        return {"keys": self.keys, "ends": self.ends, "values": self.values, "counts": self.counts}

    def to_json(self) -> dict[str, Any]:
        """Everything else of the level."""
        return {"parents": list(self.parents), "sizes": list(self.sizes), "weight": self.weight}


@dataclass(frozen=True, slots=True)
class Chain:
    """Distribution of ``target`` given its parents: ``levels[0]`` has no context, each next one has one more parent."""

    target: str
    levels: tuple[Level, ...]

    @property
    def parents(self) -> tuple[str, ...]:
        """The fields that the last level conditions on."""
        return self.levels[-1].parents

    def draw(self, known: Mapping[str, Codes], points: Points) -> Codes:
        """Codes drawn for every row, given codes of the parents; ``points`` is used up by what was decided."""
        rows = points.value.size
        out = np.zeros(rows, dtype=np.int64)
        undecided = np.arange(rows)
        for number in range(len(self.levels) - 1, -1, -1):
            level = self.levels[number]
            if not undecided.size:
                break
            key = _keys([known[name][undecided] for name in level.parents], level.sizes, undecided.size)
            at = np.minimum(np.searchsorted(level.keys, key), level.keys.size - 1)
            found = level.keys[at] == key
            running = np.cumsum(level.counts)
            before = np.where(at > 0, running[np.maximum(level.ends[at - 1], 1) - 1], 0)
            total = running[level.ends[at] - 1] - before
            share = np.where(found, total / (total + level.weight), 0.0) if number else np.ones(undecided.size)
            stays = points.split(undecided, share)
            rank = before + points.value[undecided] * total
            place = np.searchsorted(running, rank, side="right")
            place = np.minimum(place, level.ends[at] - 1)
            drawn = undecided[stays]
            out[drawn] = level.values[place[stays]]
            own = np.where(place > 0, running[np.maximum(place, 1) - 1], 0)
            points.narrow(drawn, ((own - before) / total)[stays], (level.counts[place] / total)[stays])
            undecided = undecided[~stays]
        return out


@dataclass(slots=True)
class Points:
    """A number in [0, 1) a row that decides one field after the other, as an arithmetic decoder does.

    What is left of a number after a decision is as even as the number was: rows whose numbers are evenly spread show
    every combination as often as it is likely, up to one row, instead of by chance. When a number is used up (its
    interval is smaller than ``_FINEST``), fresh chance takes over.
    """

    value: Uniforms
    fresh: Callable[[Codes], Uniforms]
    left: Uniforms = field(init=False)

    def __post_init__(self) -> None:
        self.left = np.ones(self.value.size)

    def split(self, rows: Codes, share: Uniforms) -> NDArray[np.bool_]:
        """Whether the number of each row lies below ``share``; the part in which it lies becomes its whole."""
        value = self.value[rows]
        below = value < share
        self.narrow(rows, np.where(below, 0.0, share), np.where(below, share, 1.0 - share))
        return np.asarray(below)

    def narrow(self, rows: Codes, start: Uniforms, length: Uniforms) -> None:
        """The interval from ``start`` becomes the whole of each row."""
        length = np.maximum(length, 1e-300)
        self.value[rows] = np.clip((self.value[rows] - start) / length, 0.0, _BELOW_ONE)
        self.left[rows] *= length
        used = rows[self.left[rows] < _FINEST]
        if used.size:
            self.value[used] = self.fresh(used)
            self.left[used] = 1.0


_FINEST = 2.0**-36
_BELOW_ONE = 1.0 - 2.0**-53


def learn(
    target: str,
    data: Mapping[str, Codes],
    sizes: Mapping[str, int],
    *,
    candidates: Sequence[str],
    hard: Sequence[str] = (),
    least: int = 5,
    most: int = 4,
    sharpness: float = SHARPNESS,
    rows: NDArray[np.bool_] | None = None,
) -> Chain:
    """The chain of ``target``, learnt from codes.

    ``hard`` parents come first and always condition; of ``candidates`` at most ``most`` are added, each the one that
    raises the likelihood of left-out rows most, while it does so by ``_LEAST_GAIN`` nats a row. Contexts of the added
    parents with fewer than ``least`` rows are not kept, so that no single row can be told from them.
    """
    kept = np.arange(next(iter(data.values())).size) if rows is None else np.flatnonzero(rows)
    codes = {name: data[name][kept] for name in {target, *candidates, *hard}}
    size = sizes[target]
    y = codes[target]
    counts = np.bincount(y, minlength=size).astype(np.float64)
    left_out = (counts[y] - 1 + 0.5) / max(1.0, y.size - 1 + 0.5 * size)
    levels = [_level((), (), 0.0, codes, y, 1)]
    parents: tuple[str, ...] = ()
    for name in hard:
        parents = (*parents, name)
        own = tuple(sizes[parent] for parent in parents)
        left_out = _left_out(_keys([codes[p] for p in parents], own, y.size), y, left_out, 0.05, 1)
        levels.append(_level(parents, own, 0.0, codes, y, 1))
    remaining = [name for name in candidates if name not in parents]
    while remaining and len(parents) < most + len(hard):
        best: tuple[float, str, float, Uniforms] | None = None
        for name in remaining:
            own = tuple(sizes[parent] for parent in (*parents, name))
            key = _keys([codes[p] for p in (*parents, name)], own, y.size)
            for weight in _WEIGHTS:
                tried = _left_out(key, y, left_out, weight, least)
                score = float(np.log(tried).mean())
                if best is None or score > best[0]:
                    best = (score, name, weight, tried)
        if best is None or best[0] < float(np.log(left_out).mean()) + _LEAST_GAIN:
            break
        _, name, weight, left_out = best
        parents = (*parents, name)
        remaining.remove(name)
        own = tuple(sizes[parent] for parent in parents)
        levels.append(_level(parents, own, weight * sharpness, codes, y, least))
    return Chain(target, tuple(levels))


def linked(
    data: Mapping[str, Codes],
    sizes: Mapping[str, int],
    *,
    scored: Sequence[str],
    candidates: Sequence[str],
    least: int,
    most: int = 3,
) -> tuple[str, ...]:
    """The fields that tell ``scored`` best, summed over them, the best first; contexts of ``least`` rows count."""
    rows = next(iter(data.values())).size
    left_out: dict[str, Uniforms] = {}
    for name in scored:
        counts = np.bincount(data[name], minlength=sizes[name]).astype(np.float64)
        left_out[name] = (counts[data[name]] - 1 + 0.5) / max(1.0, rows - 1 + 0.5 * sizes[name])
    parents: tuple[str, ...] = ()
    remaining = list(candidates)
    while remaining and len(parents) < most:
        found: list[tuple[float, str, dict[str, Uniforms]]] = []
        for name in remaining:
            key = _keys([data[p] for p in (*parents, name)], [sizes[p] for p in (*parents, name)], rows)
            tried = {
                field: max(
                    (_left_out(key, data[field], left_out[field], weight, least) for weight in _WEIGHTS),
                    key=lambda values: float(np.log(values).sum()),
                )
                for field in scored
            }
            found.append((sum(float(np.log(values).mean()) for values in tried.values()), name, tried))
        score, name, tried = max(found, key=lambda entry: entry[0])
        if score < sum(float(np.log(values).mean()) for values in left_out.values()) + _LEAST_GAIN * len(scored):
            break
        left_out, parents = tried, (*parents, name)
        remaining.remove(name)
    return parents


def strata(columns: Sequence[Codes], sizes: Sequence[int], rows: int, least: int) -> Codes:
    """A number a row: rows that agree in all columns, or in the first ones where fewer than ``least`` agree in all."""
    out = np.full(rows, -1, dtype=np.int64)
    following = 0
    for depth in range(len(columns), -1, -1):
        free = np.flatnonzero(out < 0)
        key = _keys([column[free] for column in columns[:depth]], sizes[:depth], free.size)
        _, context, counts = np.unique(key, return_inverse=True, return_counts=True)
        kept = (counts >= least)[context.reshape(-1)] if free.size else np.zeros(0, dtype=np.bool_)
        out[free[kept]] = following + context.reshape(-1)[kept]
        following += counts.size
    out[out < 0] = np.bincount(out[out >= 0]).argmax() if (out >= 0).any() else 0
    return np.unique(out, return_inverse=True)[1].reshape(-1).astype(np.int64)


def restored(target: str, levels: Sequence[tuple[Mapping[str, Any], Mapping[str, Codes]]]) -> Chain:
    """The chain of what ``Level.to_json`` and ``Level.to_arrays`` gave."""
    return Chain(
        target,
        tuple(
            Level(tuple(said["parents"]), tuple(said["sizes"]), float(said["weight"]), **arrays)
            for said, arrays in levels
        ),
    )


def _keys(columns: Sequence[Codes], sizes: Sequence[int], rows: int) -> Codes:
    key = np.zeros(rows, dtype=np.int64)
    for column, size in zip(columns, sizes, strict=True):
        key = key * size + column
    return key


def _left_out(key: Codes, y: Codes, above: Uniforms, weight: float, least: int) -> Uniforms:
    _, context = np.unique(key, return_inverse=True)
    _, pair = np.unique(np.stack([context, y]), axis=1, return_inverse=True)
    in_context = np.bincount(context)[context].astype(np.float64)
    in_pair = np.bincount(pair)[pair].astype(np.float64)
    own = (in_pair - 1 + weight * above) / (in_context - 1 + weight)
    return np.asarray(np.where(in_context >= max(2, least), own, above))


def _level(
    parents: tuple[str, ...], sizes: tuple[int, ...], weight: float, codes: Mapping[str, Codes], y: Codes, least: int
) -> Level:
    key = _keys([codes[name] for name in parents], sizes, y.size)
    pairs, counts = np.unique(np.stack([key, y]), axis=1, return_counts=True)
    contexts, begins = np.unique(pairs[0], return_index=True)
    ends = np.append(begins[1:], pairs.shape[1])
    totals = np.add.reduceat(counts, begins)
    keep = totals >= least
    if not parents:
        keep[:] = True
    keys, values, kept, bounds = [], [], [], []
    length = 0
    for at in np.flatnonzero(keep):
        part = slice(begins[at], ends[at])
        keys.append(contexts[at])
        values.append(pairs[1][part])
        kept.append(counts[part])
        length += ends[at] - begins[at]
        bounds.append(length)
    empty = np.zeros(0, dtype=np.int64)
    if not keys:
        return Level(parents, sizes, weight, np.array([-1]), np.array([1]), np.array([0]), np.array([1]))
    return Level(
        parents,
        sizes,
        weight,
        np.array(keys, dtype=np.int64),
        np.array(bounds, dtype=np.int64),
        np.concatenate([empty, *values]).astype(np.int64),
        np.concatenate([empty, *kept]).astype(np.int64),
    )
