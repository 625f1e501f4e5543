"""Whether made-up incidents pass for real ones, and whether one can learn from them what one would from real ones.

What belongs here: the discriminator, training on synthetic and testing on real records, distances to the closest
record. What does not: judging the numbers (``gates``). Methods: discriminator as in propensity-score measures (Snoke et
al., "General and specific
utility measures for synthetic data", 2018), train on synthetic, test on real (Esteban et al., 2017), distance to the
closest record (Park et al., "Data synthesis based on generative adversarial networks", 2018).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from aiops_assets.synthetic.gate.features import CATEGORICAL, NUMERIC, TIMES, features, present

Floats = NDArray[np.float64]
_FOLDS = 5
#: a learner sees at most this many rows of each side
_MOST_ROWS = 2_500


@dataclass(frozen=True, slots=True)
class Discrimination:
    """How well a classifier tells made-up from real: ``auc`` 0.5 not at all, 1 always.

    ``error`` is its standard error (Hanley and McNeil 1982); ``scores`` and ``labels`` (1: made up) draw the ROC curve;
    ``tells`` names features by how much shuffling them costs.
    """

    auc: float
    error: float
    scores: Floats
    labels: NDArray[np.int64]
    tells: tuple[tuple[str, float], ...]


def discriminate(real: pl.DataFrame, made: pl.DataFrame, *, seed: int = 0, explain: bool = True) -> Discrimination:
    """Cross-validated area under the ROC curve of gradient-boosted trees that shall tell ``made`` from ``real``.

    Both sides are sampled down to the same number of rows. Names are told by codes, how often they occur and, within
    the training folds, by how often they were made up.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.inspection import permutation_importance
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold
    from sklearn.preprocessing import TargetEncoder

    fields = present(real, made)
    rows = min(real.height, made.height, _MOST_ROWS)
    sides = [_sampled(side.select(fields), rows, seed) for side in (real, made)]
    both = pl.concat([_alike(side) for side in sides])
    told = features(both, fields)
    labels = np.repeat([0, 1], rows)
    scores = np.zeros(2 * rows)
    tells = np.zeros(len(told.names))
    coded = list(told.coded)
    for train, test in StratifiedKFold(_FOLDS, shuffle=True, random_state=seed).split(told.values, labels):
        x_train, x_test = told.values[train].copy(), told.values[test].copy()
        if coded:
            encoder = TargetEncoder(target_type="binary", cv=StratifiedKFold(_FOLDS, shuffle=True, random_state=seed))
            seen = [np.nan_to_num(part[:, coded], nan=-1.0) for part in (x_train, x_test)]
            x_train[:, coded] = encoder.fit_transform(seen[0], labels[train])
            x_test[:, coded] = encoder.transform(seen[1])
            x_train = np.column_stack([x_train, told.values[train][:, coded]])
            x_test = np.column_stack([x_test, told.values[test][:, coded]])
        learner = HistGradientBoostingClassifier(
            max_iter=120, learning_rate=0.08, max_leaf_nodes=15, min_samples_leaf=10, random_state=seed
        )
        learner.fit(x_train, labels[train])
        scores[test] = learner.predict_proba(x_test)[:, 1]
        if explain:
            found = permutation_importance(
                learner, x_test, labels[test], scoring="roc_auc", n_repeats=2, random_state=seed
            ).importances_mean
            tells += found[: tells.size]
            for column, extra in zip(coded, found[tells.size :], strict=True):
                tells[column] += extra
    auc = float(roc_auc_score(labels, scores))
    order = np.argsort(-tells)[:10]
    return Discrimination(
        auc,
        _auc_error(auc, rows, rows),
        scores,
        labels,
        tuple((told.names[i], float(tells[i] / _FOLDS)) for i in order),
    )


def _auc_error(auc: float, positives: int, negatives: int) -> float:
    q1, q2 = auc / (2 - auc), 2 * auc * auc / (1 + auc)
    spread = auc * (1 - auc) + (positives - 1) * (q1 - auc**2) + (negatives - 1) * (q2 - auc**2)
    return float(np.sqrt(max(0.0, spread) / (positives * negatives)))


def _sampled(frame: pl.DataFrame, rows: int, seed: int) -> pl.DataFrame:
    return frame if frame.height <= rows else frame.sample(rows, seed=seed)


def _alike(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(
        *(pl.col(name).cast(pl.String) for name in frame.columns if name in CATEGORICAL),
        *(pl.col(name).cast(pl.Float64) for name in frame.columns if name in NUMERIC),
        *(pl.col(name).cast(pl.Datetime("us", "UTC")) for name in frame.columns if name in TIMES),
    )


@dataclass(frozen=True, slots=True)
class Utility:
    """What a learner that was trained on made-up records achieves on real ones, beside one trained on real ones.

    ``score`` is macro-F1 (higher is better) or the mean absolute error of the logarithm of hours to resolve (lower is
    better); ``loss`` is how much worse made-up training is, relatively (negative: better).
    """

    target: str
    real: float
    made: float
    rows: int

    @property
    def loss(self) -> float:
        """Relative loss of training on made-up records."""
        if self.target == "time to resolve":
            return self.made / max(self.real, 1e-9) - 1
        return 1 - self.made / max(self.real, 1e-9)


_TARGETS = ("category", "priority", "assignment_group")
#: what decides a target by definition is not among what predicts it
_GIVEN_AWAY = {
    "category": {"category", "subcategory", "business_service"},
    "priority": {"priority", "impact", "urgency"},
    "assignment_group": {"assignment_group", "assigned_to"},
    "time to resolve": {"made_sla"},
}


def utility(real_train: pl.DataFrame, real_test: pl.DataFrame, made: pl.DataFrame, *, seed: int = 0) -> list[Utility]:
    """Training on ``made`` against training on ``real_train``, both tested on ``real_test``.

    The targets are category, priority and assignment group from the other fields, and the time to resolve; classes with
    fewer than five real test rows are not scored. As many made-up records are taken as there are, up to a limit: that
    there can be more of them is what they are made for.
    """
    fields = present(real_train, real_test, made)
    made, real_train = _sampled(made, _MOST_ROWS, seed), _sampled(real_train, _MOST_ROWS, seed)
    rows = made.height
    sides = [_alike(side.select(fields)) for side in (real_train, made, real_test)]
    both = pl.concat(sides)
    ends = np.cumsum([side.height for side in sides])
    parts = [slice(0, ends[0]), slice(ends[0], ends[1]), slice(ends[1], ends[2])]
    out: list[Utility] = []
    for target in _TARGETS:
        if target in fields:
            given = [name for name in fields if name not in _GIVEN_AWAY[target] and name != "caller_id"]
            scores = [_classified(both, given, target, parts[side], parts[2], seed) for side in (0, 1)]
            if scores[0] is not None and scores[1] is not None:
                out.append(Utility(target, scores[0], scores[1], rows))
    if {"opened_at", "resolved_at"} <= set(fields):
        given = [
            n for n in fields if n not in _GIVEN_AWAY["time to resolve"] and n not in TIMES[1:] and n != "caller_id"
        ]
        errors = [_timed(both, given, parts[side], parts[2], seed) for side in (0, 1)]
        out.append(Utility("time to resolve", errors[0], errors[1], rows))
    return out


def _matrix(both: pl.DataFrame, given: Sequence[str]) -> tuple[Floats, list[int]]:
    told = features(both, given)
    values = told.values.copy()
    for column in told.coded:
        values[values[:, column] >= 250, column] = 250
    return values, list(told.coded)


def _classified(
    both: pl.DataFrame, given: Sequence[str], target: str, train: slice, test: slice, seed: int
) -> float | None:
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.metrics import f1_score

    values, _ = _matrix(both, given)
    labels = both[target].cast(pl.String).fill_null("?").to_numpy()
    counts = pl.Series(labels[test]).value_counts()
    kept = counts.filter(pl.col("count") >= 5).to_series(0).to_list()
    if len(kept) < 2:
        return None
    learner = RandomForestClassifier(80, min_samples_leaf=2, max_features=0.5, random_state=seed, n_jobs=-1)
    learner.fit(np.nan_to_num(values[train], nan=-1.0), labels[train])
    return float(
        f1_score(
            labels[test],
            learner.predict(np.nan_to_num(values[test], nan=-1.0)),
            labels=kept,
            average="macro",
            zero_division=0,
        )
    )


def _timed(both: pl.DataFrame, given: Sequence[str], train: slice, test: slice, seed: int) -> float:
    from sklearn.ensemble import RandomForestRegressor

    values, _ = _matrix(both, given)
    hours = ((both["resolved_at"] - both["opened_at"]).dt.total_seconds() / 3600).to_numpy().astype(np.float64)
    goal = np.log1p(np.maximum(0.0, hours))
    rows = np.arange(both.height)
    trained = rows[train][np.isfinite(goal[train])]
    tested = rows[test][np.isfinite(goal[test])]
    learner = RandomForestRegressor(80, min_samples_leaf=3, max_features=0.5, random_state=seed, n_jobs=-1)
    learner.fit(np.nan_to_num(values[trained], nan=-1.0), goal[trained])
    return float(np.mean(np.abs(learner.predict(np.nan_to_num(values[tested], nan=-1.0)) - goal[tested])))


@dataclass(frozen=True, slots=True)
class Closeness:
    """Distances (share of shared fields that differ, numbers by rank) of records to the closest real one.

    ``made`` are those of made-up records to the reference, ``real`` those of reference records to each other.
    ``copies`` is the share of made-up records that equal a real one in every shared field; ``close`` the share nearer
    to a real record than 99% of real records are to each other.
    """

    made: Floats
    real: Floats
    copies: float
    close: float


def closeness(real: pl.DataFrame, made: pl.DataFrame, *, most: int = 2_000, seed: int = 0) -> Closeness:
    """Distance to the closest record: Gower's, over shared fields, times and counts by their ranks among real ones."""
    fields = present(real, made)
    real, made = (_alike(_sampled(side.select(fields), most, seed)) for side in (real, made))
    both = pl.concat([real, made])
    columns: list[Floats] = []
    exact: list[bool] = []
    for name in fields:
        if name in CATEGORICAL:
            columns.append(both[name].fill_null("").rank("dense").to_numpy().astype(np.float64))
            exact.append(True)
        else:
            numbers = (
                both[name].cast(pl.Float64).fill_null(-1.0).to_numpy()
                if name not in TIMES
                else both[name].dt.epoch("s").cast(pl.Float64).fill_null(-1.0).to_numpy()
            )
            ordered = np.sort(numbers[: real.height])
            columns.append(np.searchsorted(ordered, numbers) / max(1, real.height))
            exact.append(False)
    values = np.column_stack(columns)
    own, theirs = values[: real.height], values[real.height :]
    flags = np.array(exact)
    made_nearest, _ = _nearest(theirs, own, flags, same=False)
    real_nearest, _ = _nearest(own, own, flags, same=True)
    copied = made.join(real.unique(), on=list(fields), how="semi", nulls_equal=True).height / max(1, made.height)
    limit = float(np.quantile(real_nearest, 0.01))
    return Closeness(made_nearest, real_nearest, copied, float(np.mean(made_nearest < limit)))


def _nearest(rows: Floats, others: Floats, exact: NDArray[np.bool_], *, same: bool) -> tuple[Floats, NDArray[np.int64]]:
    best = np.zeros(rows.shape[0])
    which = np.zeros(rows.shape[0], dtype=np.int64)
    for begin in range(0, rows.shape[0], 256):
        part = rows[begin : begin + 256]
        distance = np.zeros((part.shape[0], others.shape[0]))
        for column in range(rows.shape[1]):
            gap = np.abs(part[:, column, None] - others[None, :, column])
            distance += (gap > 0) if exact[column] else gap
        if same:
            distance[np.arange(part.shape[0]), np.arange(begin, begin + part.shape[0])] = np.inf
        which[begin : begin + part.shape[0]] = distance.argmin(axis=1)
        best[begin : begin + part.shape[0]] = distance.min(axis=1) / rows.shape[1]
    return best, which
