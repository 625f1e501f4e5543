"""Deviates that are pure functions of a salt and an index, so that any window of a storm can be made alone.

What belongs here: hashing, normal deviates, noise that wanders, counts. What does not: signals (``course``).

Hash: the finaliser of SplitMix64 (Steele, Lea and Flood 2014). Normal deviates: sums of four uniform ones (Irwin and
Hall), which end at 3.46 deviations; ``tails`` lifts the large ones by a cubic term (Fleishman 1978). Wandering noise:
octaves of interpolated lattice noise (Perlin 1985), whose spectrum falls about as 1/f.
"""

from __future__ import annotations

import numpy as np
import xxhash
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Salts = NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
#: periods (microseconds) and weights of the octaves of wandering noise
_OCTAVES = ((300_000_000, 0.5), (2_700_000_000, 0.6), (21_600_000_000, 0.62))


def salt(*parts: object) -> int:
    """A 64-bit salt of texts and numbers."""
    return xxhash.xxh3_64_intdigest("\x1f".join(map(str, parts)).encode())


def salts(seed: int, what: str, names: list[str]) -> Salts:
    """A salt for each name."""
    return np.array([salt(seed, what, name) for name in names], dtype=np.uint64)


def hashed(index: Ints, salted: Salts) -> Salts:
    """[T, H] uint64 of T indices and H salts."""
    with np.errstate(over="ignore"):
        mixed = index.astype(np.uint64)[:, None] * _GOLDEN + salted[None, :]
        mixed ^= mixed >> np.uint64(30)
        mixed *= _FIRST
        mixed ^= mixed >> np.uint64(27)
        mixed *= _SECOND
        mixed ^= mixed >> np.uint64(31)
    return mixed


def uniform(index: Ints, salted: Salts) -> Floats:
    """[T, H] in [0, 1)."""
    return (hashed(index, salted) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def normal(index: Ints, salted: Salts) -> Floats:
    """[T, H] with mean 0 and deviation 1, at most 3.46."""
    mixed = hashed(index, salted)
    total = (mixed & np.uint64(0xFFFF)).astype(np.float64)
    for shift in (16, 32, 48):
        total += ((mixed >> np.uint64(shift)) & np.uint64(0xFFFF)).astype(np.float64)
    total -= 2.0 * 65_535.0
    total *= np.sqrt(3.0) / 65_536.0
    return total


def with_tails(deviates: Floats, tails: float) -> Floats:
    """Deviates whose large values are larger; the deviation of the whole stays 1."""
    if tails == 0.0:
        return deviates
    cubed = deviates * deviates
    cubed *= deviates
    # moments of the sum of four: E z^4 = 2.7, E z^6 = 11.2
    scale = 1.0 / np.sqrt(1.0 + 2.0 * tails * 2.7 + tails * tails * 11.2)
    cubed *= tails
    cubed += deviates
    cubed *= scale
    return cubed


def wandering(at: Ints, salted: Salts) -> Floats:
    """[T, H] noise of deviation about 1 that wanders over minutes to hours; ``at`` in microseconds, ascending."""
    total: Floats = np.zeros((len(at), len(salted)))
    for number, (period, weight) in enumerate(_OCTAVES):
        cell = at // period
        first = int(cell[0])
        lattice = normal(np.arange(first, int(cell[-1]) + 2, dtype=np.int64), salted + np.uint64(number + 1))
        part = (at - cell * period) / period
        smooth = (part * part * (3.0 - 2.0 * part))[:, None]
        row = cell - first
        made = lattice[row]
        made += (lattice[row + 1] - made) * smooth
        # interpolation takes a quarter of the variance away on average
        made *= weight * 1.16
        total += made
    return total


def counts(mean: Floats, deviates: Floats) -> Ints:
    """Poisson counts of the given means by inversion of uniform ``deviates``; a rounded normal one from 30 on."""
    shape = np.broadcast_shapes(mean.shape, deviates.shape)
    mean, deviates = np.broadcast_to(mean, shape), np.broadcast_to(deviates, shape)
    found = np.zeros(shape, dtype=np.int64)
    probability = np.exp(-np.minimum(mean, 30.0))
    reached = probability.copy()
    open_ = (deviates >= reached) & (mean < 30.0)
    number = 0
    while open_.any() and number < 200:
        number += 1
        found[open_] += 1
        probability = probability * mean / number
        reached = reached + probability
        open_ &= deviates >= reached
    large = mean >= 30.0
    if large.any():
        # a logistic deviate is near enough to a normal one here
        u = np.clip(deviates[large], 1e-9, 1 - 1e-9)
        z = np.log(u / (1 - u)) * (np.sqrt(3.0) / np.pi)
        found[large] = np.maximum(0, np.rint(mean[large] + np.sqrt(mean[large]) * z)).astype(np.int64)
    return found
