"""What the texts of a data set are worth: variety, whether they say what the fields say, personal data.

What belongs here: gates that read texts. What does not: rules of single records (``rules``), frequencies
(``statistics``). Near duplicates by MinHash with banding (Broder 1997; Leskovec et al., "Mining of massive datasets"),
confirmed by the Jaccard index; distinct-n after Li et al., "A diversity-promoting objective function" (2016).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from aiops_assets.promotion.gates import GateResult, Measure
from aiops_assets.synthetic.gate.statistics import _verdict
from aiops_assets.synthetic.gate.subject import Subject

_PERMUTATIONS, _BANDS = 64, 16
_SIMILAR = 0.8
#: words over which variety is measured, so that it does not depend on the number of records
_WORDS = 60_000
_MOST_LEARNT = 4_000
_MOST_FIT = 1_500


def diversity(subject: Subject) -> GateResult:
    """Few near duplicates, many words and phrases, no template that dominates."""
    frame = subject.frame
    text = frame.select(pl.concat_str("short_description", "description", separator=" ")).to_series()
    twins, pairs = near_duplicates(text)
    masked = (
        frame["description"].str.replace_all(r"[\w.-]*\d[\w.:-]*", "#").str.replace_all(r"\s+", " ").str.to_lowercase()
    )
    often = masked.value_counts(sort=True)
    first = (
        frame["short_description"].str.replace_all(r"[\w.-]*\d[\w.:-]*", "#").str.to_lowercase().value_counts(sort=True)
    )
    n = max(1, frame.height)
    measures = {
        "near_duplicates": Measure(float(twins.mean()), most=0.01, unit="share"),
        "commonest_description": Measure(float(often["count"][0]) / n, most=max(0.01, 3 / n), unit="share"),
        "commonest_summary": Measure(float(first["count"][0]) / n, most=max(0.03, 4 / n), unit="share"),
    }
    for name, share in variety(text).items():
        least = {"distinct_1": 0.008, "distinct_2": 0.05, "distinct_3": 0.1, "vocabulary": 350}[name]
        measures[name] = Measure(share, least=least if name != "vocabulary" else min(least, 2.0 * n))
    numbers = frame["incident_id"]
    rows = [{"incident": numbers[a], "like": numbers[b], "text": text[a][:160]} for a, b in pairs[:20]] + [
        {"incident": "", "like": f"{row['count']} times", "text": row["description"][:160]}
        for row in often.head(5).to_dicts()
        if row["count"] > 2
    ]
    return _verdict(
        measures, rows, None, "diversity", "Give the categories more phrases, or make fewer records of them."
    )


def near_duplicates(texts: pl.Series, similar: float = _SIMILAR) -> tuple[NDArray[np.bool_], list[tuple[int, int]]]:
    """Which texts have a near duplicate (Jaccard index of word triples at least ``similar``), and some of the pairs."""
    documents, shingles = _shingles(texts)
    n = texts.len()
    twin = np.zeros(n, dtype=np.bool_)
    if not shingles.size:
        return twin, []
    begins = np.flatnonzero(np.r_[True, documents[1:] != documents[:-1]])
    owners = documents[begins]
    rng = np.random.default_rng(7)
    odd = rng.integers(1, 2**63, _PERMUTATIONS, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    signatures = np.empty((owners.size, _PERMUTATIONS), dtype=np.uint64)
    with np.errstate(over="ignore"):
        for number, factor in enumerate(odd):
            mixed = shingles * factor
            mixed ^= mixed >> np.uint64(32)
            signatures[:, number] = np.minimum.reduceat(mixed * np.uint64(0x9E3779B97F4A7C15), begins)
    ends = np.append(begins[1:], shingles.size)
    members = [shingles[a:b] for a, b in zip(begins, ends, strict=True)]
    width = _PERMUTATIONS // _BANDS
    seen: set[tuple[int, int]] = set()
    found: list[tuple[int, int]] = []
    for band in range(_BANDS):
        part = np.ascontiguousarray(signatures[:, band * width : (band + 1) * width])
        order = np.lexsort(part.T)
        same = np.all(part[order[1:]] == part[order[:-1]], axis=1)
        for at in np.flatnonzero(same):
            a, b = sorted((int(order[at]), int(order[at + 1])))
            if (a, b) in seen:
                continue
            seen.add((a, b))
            shared = np.intersect1d(members[a], members[b], assume_unique=True).size
            if shared >= similar * (members[a].size + members[b].size - shared):
                found.append((int(owners[a]), int(owners[b])))
                twin[owners[[a, b]]] = True
    return twin, found


def _shingles(texts: pl.Series) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Sorted distinct hashes of the word triples of each text, with the number of the text."""
    words = (
        pl.DataFrame({"text": texts.fill_null("")})
        .with_row_index("at")
        .with_columns(pl.col("text").str.to_lowercase().str.extract_all(r"[\p{L}\p{N}]+"))
        .explode("text")
        .with_columns(
            triple=pl.concat_str(
                "text", pl.col("text").shift(-1).over("at"), pl.col("text").shift(-2).over("at"), separator=" "
            )
        )
        .drop_nulls("triple")
        .select("at", pl.col("triple").hash(seed=7).alias("shingle"))
        .unique()
        .sort("at", "shingle")
    )
    return words["at"].cast(pl.Int64).to_numpy(), words["shingle"].to_numpy()


def variety(texts: pl.Series) -> dict[str, float]:
    """Distinct words, pairs and triples over all of them in about ``_WORDS`` words, and the number of words used."""
    words = (
        texts.sample(fraction=1.0, shuffle=True, seed=3).str.to_lowercase().str.extract_all(r"[\p{L}\p{N}]+").explode()
    )
    words = words.drop_nulls().head(_WORDS)
    out: dict[str, float] = {}
    for n in (1, 2, 3):
        grams = pl.select(pl.concat_str([words.shift(-k) for k in range(n)], separator=" ")).to_series().drop_nulls()
        out[f"distinct_{n}"] = grams.n_unique() / max(1, grams.len()) * min(1.0, grams.len() / _WORDS) ** 0.4
    out["vocabulary"] = float(words.n_unique())
    return out


def text_consistency(subject: Subject) -> GateResult:
    """Texts say what fields say: category, language, how it was resolved."""
    frame = subject.frame
    measures: dict[str, Measure] = {}
    rows: list[dict[str, Any]] = []
    text = frame.select(pl.concat_str("short_description", "description", separator=" ")).to_series()
    share, confused = _category_told(text, frame["category"])
    if share is not None:
        # with few records of a category there is little to learn its words from
        each = frame.height / max(1, frame["category"].n_unique())
        measures["category_from_text"] = Measure(share, least=0.75 * min(1.0, (each / 50) ** 0.5), unit="share")
        rows += confused
    language = frame["language"]
    whole = frame.select(
        pl.concat_str(
            "short_description", "description", pl.col("resolution_notes").fill_null(""),
            pl.col("work_notes").list.eval(pl.element().struct.field("note")).list.join(" ").fill_null(""),
            separator=" ",
        )
    ).to_series()  # fmt: skip
    for name, texts, least in (("language_of_report", text, 0.97), ("language_of_all", whole, 0.985)):
        guessed = languages(texts)
        told = guessed.is_not_null()
        right = (guessed == language).filter(told)
        measures[name] = Measure(float(right.mean() or 0.0), least=least, unit="share")  # type: ignore[arg-type]
    inner = _entry_languages(frame)
    measures["entries_in_its_language"] = Measure(inner, least=0.95, unit="share")
    measures["resolution_in_entries"] = Measure(_resolution_told(frame), least=0.9, unit="share")
    measures["entries_name_the_object"] = _object_named(subject)
    return _verdict(measures, rows, None, "text consistency",
                    "Texts and fields tell different tickets: were rows shuffled, or columns replaced?")  # fmt: skip


def _category_told(text: pl.Series, category: pl.Series) -> tuple[float | None, list[dict[str, Any]]]:
    """Share of records whose category a linear model reads from the text, in cross-validation."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import SGDClassifier
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline

    frame = pl.DataFrame({"text": text, "category": category}).drop_nulls()
    if frame.height > _MOST_LEARNT:
        frame = frame.sample(_MOST_LEARNT, seed=5)
    frame = frame.filter(pl.len().over("category") >= 6)
    if frame["category"].n_unique() < 2 or frame.height < 60:
        return None, []
    learner = make_pipeline(
        TfidfVectorizer(sublinear_tf=True, min_df=2, ngram_range=(1, 2), max_features=40_000),
        SGDClassifier(alpha=2e-5, max_iter=12, tol=None, random_state=0),
    )
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    said = cross_val_predict(learner, frame["text"].to_numpy(), frame["category"].to_numpy(), cv=folds)
    right = frame["category"] == pl.Series(said)
    confused = (
        frame.with_columns(read=pl.Series(said)).filter(~right).group_by("category", "read").len()
        .sort("len", "category", "read", descending=[True, False, False]).head(8)
    )  # fmt: skip
    return float(right.mean() or 0.0), [  # type: ignore[arg-type]
        {"category": a, "read from the text": b, "records": n} for a, b, n in confused.iter_rows()
    ]


_STOPWORDS = {
    "en": "the and is are was were to of in on for with it this that not we my can has have been since from at by "
    "after when cannot again i our be all will a an no only same works working user before still now they he she",
    "de": "der die das und ist sind war waren zu von im am für mit es nicht wir mein meine kann hat haben seit aus bei "
    "nach wenn wieder ich unser sein alle wird ein eine kein keine nur auch auf dem den des vor noch jetzt sie er beim "
    "vom zum",
}


def languages(texts: pl.Series) -> pl.Series:
    """The language whose common words a text holds more of; null where neither is."""
    words = texts.fill_null("").str.to_lowercase()
    counts = {
        name: words.str.count_matches(rf"\b(?:{'|'.join(re.escape(word) for word in stop.split())})\b")
        for name, stop in _STOPWORDS.items()
    }
    english, german = counts["en"].cast(pl.Int64), counts["de"].cast(pl.Int64)
    return pl.select(
        pl.when(english > german + 1).then(pl.lit("en")).when(german > english + 1).then(pl.lit("de"))
        .otherwise(pl.lit(None, pl.String))
    ).to_series()  # fmt: skip


def _entry_languages(frame: pl.DataFrame) -> float:
    """Share of tickets whose entries, where they show a language, show that of the ticket."""
    notes = frame.head(_MOST_FIT * 2).select("language", pl.col("work_notes")).explode("work_notes").drop_nulls()
    if notes.is_empty():
        return 0.0
    guessed = languages(notes["work_notes"].struct.field("note"))
    right = (guessed == notes["language"]).filter(guessed.is_not_null())
    return float(right.mean() if right.len() else 1.0)  # type: ignore[arg-type]


def _resolution_told(frame: pl.DataFrame) -> float:
    """Share of resolved tickets at least half of whose long words of the resolution stand in its entries."""
    resolved = frame.filter(pl.col("resolution_notes").is_not_null() & pl.col("resolved_at").is_not_null())
    if resolved.is_empty():
        return 1.0
    long_word = r"[^\W\d_]{6,}"
    words = resolved["resolution_notes"].str.to_lowercase().str.extract_all(long_word).list.unique()
    told = resolved["work_notes"].list.eval(pl.element().struct.field("note")).list.join(" ").str.to_lowercase()
    shared = words.list.set_intersection(told.str.extract_all(long_word)).list.len()
    return float((shared * 2 >= words.list.len()).mean() or 0.0)  # type: ignore[arg-type]


def _object_named(subject: Subject) -> Measure:
    """Share of tickets whose texts name their item or service, beside that of expected data."""

    def share(frame: pl.DataFrame) -> float:
        text = frame.select(
            pl.concat_str("short_description", "description", separator=" ").str.to_lowercase()
        ).to_series()
        named = pl.DataFrame({"t": text, "i": frame["configuration_item"], "s": frame["business_service"]}).select(
            pl.col("t").str.contains(pl.col("i").str.to_lowercase(), literal=True).fill_null(False)
            | pl.col("t").str.contains(pl.col("s").str.to_lowercase(), literal=True).fill_null(False)
        )
        return float(named.to_series().mean() or 0.0)  # type: ignore[arg-type]

    return Measure(share(subject.frame), least=0.8 * share(subject.expected.head(_MOST_FIT)), unit="share")


_SEARCHED = ("short_description", "description", "resolution_notes")


def personal_data(frame: pl.DataFrame, people: Sequence[str]) -> pl.DataFrame:
    """Finds of personal data and secrets in all texts: incident_id, field, kind, text."""
    from aiops_assets.privacy.detect import find
    from aiops_assets.privacy.names import People

    known = People.of(people) if people else None
    parts = []
    columns = {name: frame[name] for name in _SEARCHED if name in frame.columns}
    if "work_notes" in frame.columns:
        columns["work_notes"] = frame["work_notes"].list.eval(pl.element().struct.field("note")).list.join("\n")
    for name in ("caller_id", "assigned_to", "configuration_item"):
        if name in frame.columns:
            columns[name] = frame[name]
    for name, column in columns.items():
        found = find(column, people=known)
        if found.height:
            ids = frame["incident_id"].gather(found["row"])
            parts.append(
                pl.DataFrame(
                    {"incident_id": ids, "field": [name] * found.height, "kind": found["kind"], "text": found["text"]}
                )
            )
    schema = {"incident_id": pl.String, "field": pl.String, "kind": pl.String, "text": pl.String}
    return pl.concat(parts) if parts else pl.DataFrame(schema=schema)
