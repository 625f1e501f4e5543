"""Learning what a reference is like: parts of incidents that go together, clocks, and what follows from them.

What belongs here: which fields there are and in which order, how they become codes, names of people, storage as JSON
and plain arrays. What does not: reading references (``reference``), drawing (``calibrated``), clocks and chains.
Sequential synthesis after Reiter, "Using CART to generate partially synthetic public use microdata" (2005), with parts
of donors, shuffled within strata, and back-off chains in place of trees. A fit holds no whole incident, but parts of
real ones: it is as confidential as its reference.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import polars as pl
from numpy.typing import NDArray

from aiops_assets.synthetic.golden import clocks
from aiops_assets.synthetic.golden.chains import Chain, Codes, learn, linked, restored, strata
from aiops_assets.synthetic.golden.reference import FIELDS, known

FORMAT = 2
#: contexts with fewer incidents are not kept
LEAF = 2
#: a caller with fewer incidents is one of many, and gets a new name; pseudonyms may recur a little sooner
_REGULAR_CALLER, _REGULAR_PSEUDONYM = 3, 2

#: fields that are names, in the order in which they are drawn
NAMES = (
    "category",
    "subcategory",
    "contact_type",
    "location",
    "assignment_group",
    "assigned_to",
    "business_service",
    "configuration_item",
    "caller_id",
    "close_code",
)
#: fields of records that are never null: an unknown value of the reference is drawn anew
_ALWAYS = frozenset({"category", "subcategory", "contact_type", "location", "assignment_group", "caller_id"})
_COUNTS = ("reassignment_count", "reopen_count", "update_count")
#: what is drawn together: whose work it is, who reports from where, how it goes
_WORK = ("category", "subcategory", "assignment_group", "assigned_to")
_SITE = ("contact_type", "location", "caller_id")
_COURSE = ("severity", *_COUNTS, "span", "weekend", "later_hour", "made_sla", "close_code")
#: as many incidents at least stand behind a combination that is drawn to go with others
_BEHIND = 5
_PARTS = ("codes", "begin", "size", "at")
_PEOPLE = ("assigned_to", "caller_id")


class FittedProblem(ValueError):
    """A stored fit cannot be used: names the file and what is wrong."""


@dataclass(frozen=True, slots=True)
class Names:
    """Values of a field that is a name; the code after the last one stands for null."""

    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Numbers:
    """Classes of a count: both ends belong to a class."""

    low: tuple[int, ...]
    high: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Joint:
    """Fields that are drawn together: a part of an incident, never the whole of one.

    ``codes`` has a row for each part, in an order that is shuffled within strata. What may go with donor ``i`` (a row
    of the first joint) are the rows from ``begin[i]`` on, ``size[i]`` of them; ``at[i]`` is the place of the donor.
    """

    fields: tuple[str, ...]
    codes: Codes
    begin: Codes
    size: Codes
    at: Codes


@dataclass(frozen=True, slots=True)
class Crowd:
    """Callers who report too rarely to be told apart: how their names look and how many there may be.

    ``pattern`` has ``#`` for a number between ``low`` and ``high``; ``size`` is the estimated number of such callers
    (Chao, "Nonparametric estimation of the number of classes in a population", 1984).
    """

    pattern: str
    low: int
    high: int
    size: int


@dataclass(frozen=True, slots=True)
class Fitted:
    """All that is known of a reference.

    ``chains`` are in the order in which they are drawn; ``matrix`` maps ``impact/urgency`` to the priority, where the
    reference decides it so; ``report`` says what was learnt, for people.
    """

    step: int
    arrivals: clocks.Arrivals
    names: Mapping[str, Names]
    counts: Mapping[str, Numbers]
    spans: tuple[clocks.Span, ...]
    responses: Numbers
    ways: tuple[clocks.Closing, ...]
    job: clocks.Job | None
    cuts: Mapping[str, tuple[int, ...]]
    crowd: Crowd | None
    matrix: Mapping[str, int]
    joints: Mapping[str, Joint]
    chains: tuple[Chain, ...]
    report: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """SHA-256 of what is stored."""
        return hashlib.sha256(b"".join(self.stored().values())).hexdigest()

    def stored(self) -> dict[str, bytes]:
        """The files ``fitted.json`` and ``fitted.npz``, the same bytes for the same fit."""
        said = {
            "format": FORMAT,
            "step": self.step,
            "names": {name: entry.values for name, entry in self.names.items()},
            "counts": {name: asdict(entry) for name, entry in self.counts.items()},
            "spans": [asdict(span) for span in self.spans],
            "responses": asdict(self.responses),
            "ways": [asdict(way) for way in self.ways],
            "job": None if self.job is None else asdict(self.job),
            "cuts": self.cuts,
            "crowd": None if self.crowd is None else asdict(self.crowd),
            "matrix": self.matrix,
            "joints": [{"name": name, "fields": joint.fields} for name, joint in self.joints.items()],
            "chains": [{"target": c.target, "levels": [level.to_json() for level in c.levels]} for c in self.chains],
            "report": self.report,
        }
        arrays: dict[str, NDArray[Any]] = {
            "arrivals/edges": self.arrivals.edges,
            "arrivals/cumulative": self.arrivals.cumulative,
        }
        for name, joint in self.joints.items():
            arrays |= {f"joint/{name}/{part}": getattr(joint, part) for part in _PARTS}
        for chain in self.chains:
            for number, level in enumerate(chain.levels):
                arrays |= {f"{chain.target}/{number}/{name}": values for name, values in level.to_arrays().items()}
        packed = io.BytesIO()
        np.savez(packed, allow_pickle=False, **arrays)
        text = orjson.dumps(said, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)
        return {"fitted.json": text, "fitted.npz": packed.getvalue()}

    def save(self, folder: Path) -> None:
        """Write both files into ``folder``."""
        for name, content in self.stored().items():
            (folder / name).write_bytes(content)


def load(folder: Path) -> Fitted:
    """What ``Fitted.save`` wrote.

    Raises:
        FittedProblem: a file is missing, cannot be read, or is of another format.
    """
    try:
        said = orjson.loads((folder / "fitted.json").read_bytes())
        with np.load(folder / "fitted.npz", allow_pickle=False) as packed:
            arrays = {name: packed[name] for name in packed.files}
        if said.get("format") != FORMAT:
            raise FittedProblem(f"{folder / 'fitted.json'}: format {said.get('format')}, this version reads {FORMAT}")
        return Fitted(
            step=said["step"],
            arrivals=clocks.Arrivals(arrays["arrivals/edges"], arrays["arrivals/cumulative"]),
            names={name: Names(tuple(values)) for name, values in said["names"].items()},
            counts={name: _numbers(entry) for name, entry in said["counts"].items()},
            spans=tuple(clocks.Span(**span) for span in said["spans"]),
            responses=_numbers(said["responses"]),
            ways=tuple(clocks.Closing(**way) for way in said["ways"]),
            job=None
            if said["job"] is None
            else clocks.Job(**{**said["job"], "minutes": tuple(said["job"]["minutes"])}),
            cuts={name: tuple(cuts) for name, cuts in said["cuts"].items()},
            crowd=None if said["crowd"] is None else Crowd(**said["crowd"]),
            matrix=said["matrix"],
            joints={
                entry["name"]: Joint(
                    tuple(entry["fields"]), *(arrays[f"joint/{entry['name']}/{part}"] for part in _PARTS)
                )
                for entry in said["joints"]
            },
            chains=tuple(
                restored(
                    chain["target"],
                    [
                        (
                            level,
                            {
                                name: arrays[f"{chain['target']}/{number}/{name}"]
                                for name in ("keys", "ends", "values", "counts")
                            },
                        )
                        for number, level in enumerate(chain["levels"])
                    ],
                )
                for chain in said["chains"]
            ),
            report=said["report"],
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, FittedProblem):
            raise
        raise FittedProblem(f"{folder}: cannot be read as a fit ({error}); fit the reference anew") from error


def _numbers(entry: Mapping[str, Sequence[int]]) -> Numbers:
    return Numbers(tuple(entry["low"]), tuple(entry["high"]))


def fit(reference: pl.DataFrame, *, leaf: int = LEAF) -> Fitted:
    """What a frame of ``reference.FIELDS`` is like. Deterministic.

    Incidents that were not resolved are left out of what is learnt of times; where fewer than half have a resolution,
    nothing can be learnt.

    Raises:
        ValueError: too few incidents, or too few that were resolved.
    """
    told = set(known(reference))
    frame = reference.filter(pl.col("resolved_at").is_not_null() & (pl.col("resolved_at") >= pl.col("opened_at")))
    if frame.height < 50 or frame.height < 0.5 * reference.height:
        raise ValueError(
            f"{frame.height} of {reference.height} incidents of the reference have a resolution after their opening; "
            "at least 50, and half of them, are needed to learn from"
        )
    frame = frame.sort("opened_at", "incident_id")
    opened, resolved = _micros(frame["opened_at"]), _micros(frame["resolved_at"])
    step = max(1, min(clocks.grid(_micros(frame[name].drop_nulls())) for name in ("opened_at", "resolved_at")))
    data: dict[str, Codes] = {"weekday": clocks.weekday(opened), "hour": clocks.hour(opened)}
    sizes: dict[str, int] = {"weekday": 7, "hour": 24}
    names: dict[str, Names] = {}
    counts: dict[str, Numbers] = {}
    joints: dict[str, Joint] = {}
    linked_by: dict[str, list[str]] = {}
    chains: list[Chain] = []
    crowd: Crowd | None = None

    def add(
        target: str,
        codes: Codes,
        size: int,
        candidates: Sequence[str],
        hard: Sequence[str] = (),
        rows: NDArray[np.bool_] | None = None,
    ) -> None:
        data[target], sizes[target] = codes, size
        usable = [name for name in candidates if name in data]
        chain = learn(
            target, data, sizes, candidates=usable, hard=[h for h in hard if h in data], least=leaf, rows=rows
        )
        chains.append(chain)

    def encode(field: str) -> bool:
        """Codes of a field that is a name; those of null come last."""
        nonlocal crowd
        if field not in told:
            return False
        values = frame[field]
        if field == "caller_id":
            values, crowd = _crowd(values)
        elif field == "assigned_to" and not pseudonymous(values.drop_nulls().unique().to_list()):
            values = pl.Series(field, [None if v is None else handle("tech", str(v)) for v in values], dtype=pl.String)
        levels = tuple(sorted(values.drop_nulls().unique().to_list()))
        code = values.replace_strict(levels, list(range(len(levels))), default=None, return_dtype=pl.Int64)
        names[field] = Names(levels)
        data[field], sizes[field] = code.fill_null(len(levels)).to_numpy().astype(np.int64), len(levels) + 1
        return True

    def add_name(field: str, candidates: Sequence[str], hard: Sequence[str] = (), nulls: bool = False) -> None:
        if encode(field):
            empty = data[field] == len(names[field].values)
            rows = None if nulls or not empty.any() else ~empty
            add(field, data[field], sizes[field], candidates, hard, rows)

    def add_joint(name: str, fields: Sequence[str], candidates: Sequence[str]) -> None:
        together = tuple(field for field in fields if field in data)
        if not together:
            return
        own = {field: codes[donors] for field, codes in data.items()}
        usable = [candidate for candidate in candidates if candidate in own]
        links = linked(own, sizes, scored=together, candidates=usable, least=_BEHIND)
        linked_by[name] = list(links)
        stratum = strata([own[link] for link in links], [sizes[link] for link in links], donors.size, _BEHIND)
        shuffle = np.random.default_rng([len(joints), donors.size]).permutation(donors.size)
        order = shuffle[np.argsort(stratum[shuffle], kind="stable")]
        counts = np.bincount(stratum)
        begin = (np.cumsum(counts) - counts)[stratum]
        place = np.empty(donors.size, dtype=np.int64)
        place[np.argsort(stratum, kind="stable")] = np.arange(donors.size)
        table = (
            np.column_stack([own[field] for field in together])[order]
            if joints
            else np.column_stack([own[field] for field in together])
        )
        joints[name] = Joint(together, table, begin, counts[stratum], place - begin)

    for field in (*_WORK, *_SITE):
        encode(field)
    whole = np.ones(frame.height, dtype=np.bool_)
    for field in _ALWAYS & set(data):
        whole &= data[field] != len(names[field].values)
    donors = np.flatnonzero(whole) if whole.mean() > 0.5 else np.arange(frame.height)
    donors = donors[np.lexsort([data[field][donors] for field in reversed(_WORK) if field in data])]
    add_joint("work", _WORK, ())
    matrix: dict[str, int] = {}
    severity = _pair(frame)
    if severity is not None:
        names["severity"] = Names(severity[0])
        data["severity"], sizes["severity"] = severity[1], len(severity[0])
        matrix = _matrix(frame)
    add_name("business_service", ("category", "subcategory", "assignment_group"), hard=("category",))
    add_name("configuration_item", ("category", "subcategory", "business_service", "assignment_group"), nulls=True)
    add_joint("site", _SITE, _WORK)

    for field in _COUNTS:
        if field in told:
            counts[field], data[field] = _classes(frame[field].fill_null(0).to_numpy().astype(np.int64), leaf)
            sizes[field] = len(counts[field].low)
    encode("close_code")
    spans, span = clocks.learn_spans(opened, resolved, leaf)
    later = np.array([entry.kind == "days" for entry in spans])[span]
    data["span"], sizes["span"] = span, len(spans)
    data["weekend"], sizes["weekend"] = np.where(later, np.maximum(0, clocks.weekday(resolved) - 4), 0), 3
    data["later_hour"], sizes["later_hour"] = np.where(later, clocks.hour(resolved), 0), 24
    if "made_sla" in told:
        data["made_sla"], sizes["made_sla"] = frame["made_sla"].fill_null(True).to_numpy().astype(np.int64), 2
    given: tuple[str, ...] = _WORK
    if "assigned_to" in data:
        data["nobody"] = (data["assigned_to"] == sizes["assigned_to"] - 1).astype(np.int64)
        sizes["nobody"] = 2
        given = ("nobody", *given)
    add_joint("course", _COURSE, given)
    earlier: tuple[str, ...] = (*given, *_SITE, *_COURSE, "hour", "weekday")
    cuts: dict[str, tuple[int, ...]] = {}
    minutes = (resolved - opened) // clocks.MINUTE

    responses = Numbers((), ())
    if "first_response_at" in told:
        first = frame["first_response_at"].fill_null(frame["resolved_at"])
        waited = np.clip((_micros(first) - opened) // clocks.MINUTE, 0, np.maximum(0, minutes))
        responses, codes = _classes(waited, 2 * leaf, exact=1)
        add("response", codes, len(responses.low), earlier)

    ways: tuple[clocks.Closing, ...] = ()
    job: clocks.Job | None = None
    if "closed_at" in told:
        has = (frame["closed_at"] >= frame["resolved_at"]).fill_null(False).to_numpy()
        closed = _micros(frame["closed_at"].fill_null(frame["resolved_at"]))
        ways, job, way = clocks.learn_closings(resolved, closed, has, leaf)
        cuts["resolved"] = _cuts(resolved // clocks.MINUTE, way, max(2, leaf // 2))
        data["resolved"] = _cut(resolved // clocks.MINUTE, cuts["resolved"])
        sizes["resolved"] = len(cuts["resolved"]) + 1
        add("way", way, len(ways), earlier, hard=("resolved",))
        if job is not None and job.minutes:
            due = np.array([entry.kind == "due" for entry in ways])[way]
            at = closed % clocks.HOUR // clocks.MINUTE
            listed = due & np.isin(at, job.minutes)
            phase = np.where(listed, np.searchsorted(job.minutes, at), 0)
            when = resolved // clocks.MINUTE + job.after
            cuts["due"] = _cuts(when[listed], phase[listed], max(2, leaf // 2))
            data["due"], sizes["due"] = _cut(when, cuts["due"]), len(cuts["due"]) + 1
            add("phase", phase, len(job.minutes), (), hard=("due",), rows=listed)

    return Fitted(
        step=step,
        arrivals=clocks.learn_arrivals(opened, step),
        names=names,
        counts=counts,
        spans=spans,
        responses=responses,
        ways=ways,
        job=job,
        cuts=cuts,
        crowd=crowd,
        matrix=matrix,
        joints=joints,
        chains=tuple(chains),
        report={
            "incidents": reference.height,
            "learnt_from": frame.height,
            "fields": sorted(told),
            "from": frame["opened_at"].min().isoformat(),  # type: ignore[union-attr]
            "to": frame["opened_at"].max().isoformat(),  # type: ignore[union-attr]
            "parents": linked_by | {chain.target: list(chain.parents) for chain in chains},
        },
    )


def pseudonymous(values: Sequence[str]) -> bool:
    """Whether names of people are already numbers or hashes (``Caller 4416``) rather than names."""
    if not values:
        return True
    if all(re.fullmatch(r"[0-9a-f]{16,64}", value) for value in values):
        return True
    masks = [re.sub(r"\d+", "#", value) for value in values]
    common = sorted({mask: masks.count(mask) for mask in set(masks)}.items(), key=lambda entry: -entry[1])[:3]
    return sum(often for mask, often in common if "#" in mask) >= 0.95 * len(values)


def handle(kind: str, name: str) -> str:
    """A made-up handle that always stands for the same name: ``tech.4127``."""
    return f"{kind}.{int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], 'big') % 900_000 + 100_000}"


def _crowd(values: pl.Series) -> tuple[pl.Series, Crowd]:
    often = values.drop_nulls().value_counts()
    seen = often["count"].to_numpy()
    once, twice = int((seen == 1).sum()), int((seen == 2).sum())
    open_names = pseudonymous(often[values.name].to_list())
    least = _REGULAR_PSEUDONYM if open_names else _REGULAR_CALLER
    rare = int((seen < least).sum())
    size = max(10, rare + once * (once - 1) // (2 * (twice + 1)))
    regular = often.filter(pl.col("count") >= least)[values.name].sort().to_list()
    shown = {name: name if open_names else handle("caller", name) for name in regular}
    kept = values.replace_strict(shown, default=pl.lit("#"), return_dtype=pl.String)
    kept = pl.select(pl.when(values.is_null()).then(None).otherwise(kept)).to_series().alias(values.name)
    numbered = [match for name in often[values.name] if (match := re.fullmatch(r"(\D*)(\d{1,12})(\D*)", name))]
    if open_names and numbered:
        first = numbered[0]
        figures = [int(match[2]) for match in numbered]
        return kept, Crowd(f"{first[1]}#{first[3]}", min(figures), max(figures), size)
    return kept, Crowd("caller.#", 100_000, 999_999, size)


def _micros(values: pl.Series) -> NDArray[np.int64]:
    return values.dt.cast_time_unit("us").to_physical().to_numpy().astype(np.int64)


def _pair(frame: pl.DataFrame) -> tuple[tuple[str, ...], Codes] | None:
    filled = [
        frame[name].fill_null(frame[name].drop_nulls().mode().sort().first() or 2) for name in ("impact", "urgency")
    ]
    if any(frame[name].null_count() == frame.height for name in ("impact", "urgency")):
        if frame["priority"].null_count():
            return None
        filled = [frame["priority"].replace_strict(side, default=3) for side in _FROM_PRIORITY]
    text = pl.select(pl.format("{}/{}", *filled)).to_series()
    levels = tuple(sorted(text.unique().to_list()))
    return levels, text.replace_strict(levels, list(range(len(levels))), return_dtype=pl.Int64).to_numpy()


#: a reference with priorities alone: impact and urgency that give them in ServiceNow's own matrix
_FROM_PRIORITY = ({1: 1, 2: 1, 3: 2, 4: 2, 5: 3}, {1: 1, 2: 2, 3: 2, 4: 3, 5: 3})


def _matrix(frame: pl.DataFrame) -> dict[str, int]:
    """``impact/urgency`` → the priority that at least 95% of its incidents have, if every cell is that clear."""
    full = frame.select("impact", "urgency", "priority").drop_nulls()
    if full.is_empty():
        return {}
    cells = full.group_by("impact", "urgency").agg(
        pl.col("priority").mode().min(), share=(pl.col("priority") == pl.col("priority").mode().min()).mean()
    )
    return {f"{impact}/{urgency}": priority for impact, urgency, priority, _ in sorted(cells.rows())}


def _classes(values: NDArray[np.int64], leaf: int, exact: int = 40) -> tuple[Numbers, Codes]:
    single = [v for v in range(exact + 1) if np.count_nonzero(values == v) >= leaf]
    rest = values[~np.isin(values, single)]
    pairs = [(v, v) for v in single]
    if rest.size:
        number = int(np.clip(rest.size // leaf, 1, 12))
        ends = np.unique(np.quantile(rest, np.linspace(0, 1, number + 1)).astype(np.int64))
        lows = [int(ends[0]), *(int(end) + 1 for end in ends[1:-1])]
        pairs += [(low, int(high)) for low, high in zip(lows, ends[1:] if ends.size > 1 else ends, strict=False)]
    code = np.zeros(values.size, dtype=np.int64)
    for number, (low, high) in enumerate(pairs):
        inside = (values >= low) & (values <= high)
        code[inside if low == high else inside & ~np.isin(values, single)] = number
    return Numbers(tuple(low for low, _ in pairs), tuple(high for _, high in pairs)), code


def _cuts(values: NDArray[np.int64], labels: Codes, leaf: int) -> tuple[int, ...]:
    """Where a number is best cut to tell labels apart: thresholds of a pruned decision tree."""
    from sklearn.tree import DecisionTreeClassifier

    if np.unique(labels).size < 2:
        return ()
    tree = DecisionTreeClassifier(
        criterion="entropy", min_samples_leaf=leaf, max_leaf_nodes=64, min_impurity_decrease=0.002, random_state=0
    )
    offset = int(values.min())
    tree.fit((values - offset).reshape(-1, 1).astype(np.float64), labels)
    inner = tree.tree_.feature >= 0
    return tuple(sorted({int(np.floor(cut)) + offset for cut in tree.tree_.threshold[inner]}))


def _cut(values: NDArray[np.int64], cuts: Sequence[int]) -> Codes:
    return np.searchsorted(np.array(cuts, dtype=np.int64), values, side="left").astype(np.int64)


def cut(values: NDArray[np.int64], cuts: Sequence[int]) -> Codes:
    """The class of each value between ``cuts``; a cut belongs to the class below."""
    return _cut(values, cuts)


__all__ = ["FIELDS", "Fitted", "FittedProblem", "cut", "fit", "handle", "load", "pseudonymous"]
