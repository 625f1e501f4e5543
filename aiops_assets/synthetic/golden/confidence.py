"""How far a record can be relied on: the weighted share of checks on the record itself that hold.

What belongs here: checks of one record against itself, the configuration and the names that it may bear. What does not:
measures over a whole data set (``synthetic.gate``). Nothing is taken from whoever made the record, so that records of
a language model, of the simulation and of files are scored alike.

Half of the weight lies on fields that must agree (priority, times, state, group, SLA, entries), half on what the texts
give: whether they name the object, show what category it is, are specific and complete, and tell the same as the
fields. A record whose fields are right and whose report says little scores about 0.8.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache, lru_cache

import numpy as np
import polars as pl

from aiops_assets.synthetic.golden.config import LANGUAGES, GoldenConfig
from aiops_assets.synthetic.golden.grammar import CONTEXTS
from aiops_assets.synthetic.golden.skeleton import Vocabulary
from aiops_assets.synthetic.golden.wording import contexts_of, topics

#: weight of each check; the score is the weight of those that hold over the weight of all
WEIGHTS: Mapping[str, float] = {
    "priority_by_matrix": 2.0,
    "times_in_order": 2.0,
    "state_fits_times": 2.0,
    "names_known": 1.0,
    "group_fits_category": 1.0,
    "sla_agrees": 1.0,
    "entries_in_order": 1.0,
    "entries_cover_changes": 1.0,
    "updates_cover_entries": 1.0,
    "resolution_told": 2.0,
    "resolution_in_entries": 2.0,
    "category_evident": 3.0,
    "object_named": 2.0,
    "specific": 2.0,
    "complete": 1.5,
    "summary_is_short": 1.0,
}
_WORD = re.compile(r"[^\W\d_]{5,}")
_LONG = r"[^\W\d_]{6,}"
_FOUR_WORDS = r"[A-Za-zÀ-ÿ]+ [A-Za-zÀ-ÿ]+ [A-Za-zÀ-ÿ]+ [A-Za-zÀ-ÿ]+"
_FEWEST_WORDS = 18


#: name and topic of a category, and its subcategories with phrases of their own
_Symptoms = tuple[str, str, tuple[tuple[str, tuple[str, ...]], ...]]


def confidence(frame: pl.DataFrame, config: GoldenConfig, vocabulary: Vocabulary | None = None) -> pl.Series:
    """The score of each record: Float64 in [0, 1], rounded to four digits.

    Args:
        frame: of ``record.SCHEMA``.
        vocabulary: the names that records may bear; default: those of the configuration.
    """
    if frame.is_empty():
        return pl.Series("ai_confidence_score", [], dtype=pl.Float64)
    held = checks(frame, config, vocabulary)
    total = sum(WEIGHTS.values())
    score = sum((pl.col(name).cast(pl.Float64) * weight for name, weight in WEIGHTS.items()), pl.lit(0.0)) / total
    return held.select(score.round(4).alias("ai_confidence_score")).to_series()


def checks(frame: pl.DataFrame, config: GoldenConfig, vocabulary: Vocabulary | None = None) -> pl.DataFrame:
    """One Boolean column a check of ``WEIGHTS``, one row a record."""
    known = vocabulary or _declared(config)
    pairs = pl.DataFrame(
        [(category, sub, True) for category, subs in sorted(known.categories.items()) for sub in sorted(subs)],
        schema={"category": pl.String, "subcategory": pl.String, "named": pl.Boolean},
        orient="row",
    )
    fitting = pl.DataFrame(
        [(category, group, True) for category, groups in sorted(known.fitting.items()) for group in sorted(groups)],
        schema={"category": pl.String, "assignment_group": pl.String, "fitting": pl.Boolean},
        orient="row",
    )
    limited = pl.Series(list(known.fitting), dtype=pl.String)
    notes = pl.col("work_notes")
    wide = (
        frame.lazy()
        .join(pairs.lazy(), on=["category", "subcategory"], how="left", maintain_order="left")
        .join(fitting.lazy(), on=["category", "assignment_group"], how="left", maintain_order="left")
        .with_columns(
            _written=notes.list.eval(pl.element().struct.field("written_at")),
            _told=notes.list.eval(pl.element().struct.field("note")).list.join(" "),
            _entries=notes.list.len().cast(pl.Int64),
            _text=pl.concat_str(pl.col("short_description"), pl.lit(" "), pl.col("description")).str.to_lowercase(),
        )
        .collect()
    )
    resolved, closed = pl.col("resolved_at").is_not_null(), pl.col("closed_at").is_not_null()
    seen = pl.col("generation_timestamp")
    changes = pl.col("reassignment_count") + 2 * pl.col("reopen_count") + resolved + closed
    groups = pl.Series(list(known.groups), dtype=pl.String)
    moved_on = pl.col("state").is_in(["Resolved", "Closed"])
    made = wide.select(
        priority_by_matrix=_by_matrix(config),
        times_in_order=_in_order(),
        state_fits_times=_state_fits(),
        names_known=pl.col("named").fill_null(False)
        & (pl.col("assignment_group").is_in(groups.implode()) | pl.col("assignment_group").is_null()),
        # A ticket that is still on its way may lie with a group whose work it is not.
        group_fits_category=pl.col("fitting").fill_null(False)
        | ~pl.col("category").is_in(limited.implode())
        | ~moved_on,
        sla_agrees=(pl.col("made_sla") == (pl.coalesce("resolved_at", seen) <= pl.col("resolution_due_at")))
        & (pl.col("response_due_at") > pl.col("opened_at")),
        entries_in_order=(pl.col("_entries") > 0)
        & (pl.col("_written").list.first() >= pl.col("opened_at"))
        & (pl.col("_written").list.last() <= seen)
        & pl.lit(_ascending(wide)),
        entries_cover_changes=pl.col("_entries") >= 1 + changes.cast(pl.Int64),
        updates_cover_entries=pl.col("update_count") + 1 >= pl.col("_entries"),
        resolution_told=pl.when(resolved)
        .then((pl.col("resolution_notes").str.len_chars() >= 25) & pl.col("close_code").is_not_null())
        .otherwise(pl.col("resolution_notes").is_null() & pl.col("close_code").is_null())
        .fill_null(False),
        resolution_in_entries=_told_in_entries(wide),
        object_named=_names_object(),
        specific=pl.col("_text").str.contains(r"\d{3}|\d:\d\d|[\"„“]"),
        complete=(pl.col("description").str.count_matches(" ", literal=True) + 1 >= _FEWEST_WORDS)
        & (pl.col("description").str.count_matches(r"[.!?:]( |$)") >= 2),
        summary_is_short=pl.col("short_description").str.len_chars().is_between(12, 110),
    )
    made = made.with_columns(category_evident=_evident(wide, config))
    return made.select(pl.col(name).fill_null(False) for name in WEIGHTS)


def _declared(config: GoldenConfig) -> Vocabulary:
    from aiops_assets.synthetic.golden.declared import Declared

    return Declared(config).vocabulary()


def _by_matrix(config: GoldenConfig) -> pl.Expr:
    expected = pl.lit(None, pl.Int32)
    for impact, row in enumerate(config.matrix, 1):
        for urgency, priority in enumerate(row, 1):
            cell = (pl.col("impact") == impact) & (pl.col("urgency") == urgency)
            expected = pl.when(cell).then(priority).otherwise(expected)
    return pl.col("priority") == expected


def _in_order() -> pl.Expr:
    opened, seen = pl.col("opened_at"), pl.col("generation_timestamp")
    order = [
        opened <= pl.col("first_response_at"),
        pl.coalesce("first_response_at", "opened_at") <= pl.col("resolved_at"),
        pl.col("resolved_at") <= pl.col("closed_at"),
        pl.col("reopened_at") >= opened,
        pl.col("reopened_at") <= pl.coalesce("resolved_at", seen),
        *(pl.col(name) <= seen for name in ("opened_at", "first_response_at", "resolved_at", "closed_at")),
    ]
    return pl.all_horizontal(condition.fill_null(True) for condition in order)


def _state_fits() -> pl.Expr:
    resolved, closed = pl.col("resolved_at").is_not_null(), pl.col("closed_at").is_not_null()
    responded = pl.col("first_response_at").is_not_null()
    expected = pl.when(closed).then(pl.lit("Closed")).when(resolved).then(pl.lit("Resolved"))
    exact = pl.col("state") == expected.otherwise(pl.lit(None, pl.String))
    open_still = (
        pl.when(responded).then(pl.col("state").is_in(["In Progress", "On Hold"])).otherwise(pl.col("state") == "New")
    )
    reopened = (pl.col("reopened_at").is_not_null()) == (pl.col("reopen_count") > 0)
    return pl.when(resolved | closed).then(exact & (resolved | ~closed)).otherwise(open_still) & reopened


def _ascending(wide: pl.DataFrame) -> pl.Series:
    """Whether no entry is older than the one before it."""
    entries = wide["_entries"].to_numpy()
    written = wide["_written"].explode(empty_as_null=False).dt.epoch("us").to_numpy()
    owner = np.repeat(np.arange(len(entries)), entries)
    backwards = (np.diff(written) < 0) & (owner[1:] == owner[:-1])
    return pl.Series(np.bincount(owner[1:][backwards], minlength=len(entries)) == 0)


def _told_in_entries(wide: pl.DataFrame) -> pl.Series:
    """Whether four words in a row of the resolution stand in the entries, or at least half of its long words."""
    # Without its first letter, which may be a capital in one place and not in the other.
    phrase = pl.col("resolution_notes").str.extract(_FOUR_WORDS, 0).str.slice(1)
    found = wide.select(
        pl.col("resolved_at").is_null() | pl.col("_told").str.contains(phrase, literal=True).fill_null(False)
    ).to_series()
    rest = np.flatnonzero(~found.to_numpy())
    if not len(rest):
        return found
    words = pl.col("resolution_notes").str.to_lowercase().str.extract_all(_LONG).list.unique()
    told = pl.col("_told").str.to_lowercase().str.extract_all(_LONG)
    shared = words.list.set_intersection(told).list.len()
    same = (shared * 2 >= words.list.len()) & (words.list.len() > 0)
    return found.scatter(rest, wide[rest].select(same.fill_null(False)).to_series())


def _names_object() -> pl.Expr:
    """Whether the report names the configuration item or the service."""
    text = pl.col("_text")
    return (
        text.str.contains(pl.col("configuration_item").str.to_lowercase(), literal=True).fill_null(False)
        | text.str.contains(pl.col("business_service").str.to_lowercase(), literal=True)
        | text.str.contains(pl.col("subcategory").str.to_lowercase(), literal=True)
    )


def _evident(frame: pl.DataFrame, config: GoldenConfig) -> pl.Series:
    """Whether the report holds a word that no other category's symptoms hold."""
    words = _telling_words(config)
    made = np.zeros(frame.height, np.bool_)
    category = frame["category"]
    for name in category.unique(maintain_order=True).to_list():
        rows = np.flatnonzero((category == name).to_numpy())
        text = frame["_text"].gather(rows)
        found = pl.select(pl.lit(text).str.contains_any(sorted({*words.get(name, ()), name.casefold()})))
        made[rows] = found.to_series().to_numpy()
    rest = np.flatnonzero(~made)
    if len(rest):
        own = pl.col("subcategory").str.to_lowercase()
        named = frame[rest].select(pl.col("_text").str.contains(own, literal=True)).to_series()
        made[rest] = named.to_numpy()
    return pl.Series(made)


@cache
def _general_words() -> frozenset[str]:
    """Words of the phrases that any ticket may hold."""
    texts = [
        text
        for language in LANGUAGES
        for name, keys in CONTEXTS.items()
        for context in contexts_of(language, name, keys)
        for text in context
    ]
    return frozenset(word for text in texts for word in _WORD.findall(text.casefold()))


def _telling_words(config: GoldenConfig) -> Mapping[str, frozenset[str]]:
    """Words of the symptoms of each category that no other category uses."""
    return _rare_words(
        tuple(
            (
                category.name,
                category.topic or category.name,
                tuple(
                    (sub.name, tuple(text for texts in sub.symptoms.values() for text in texts))
                    for sub in category.subcategories
                ),
            )
            for category in config.categories
        )
    )


@lru_cache(maxsize=8)
def _rare_words(categories: tuple[_Symptoms, ...]) -> Mapping[str, frozenset[str]]:
    used: dict[str, set[str]] = {}
    for name, topic, subcategories in categories:
        found: set[str] = set()
        for sub, symptoms in subcategories:
            known = [topics(language).get((topic, sub)) for language in LANGUAGES]
            texts = [sub, *symptoms, *(text for entry in known if entry for text in entry.symptoms)]
            found |= {word for text in texts for word in _WORD.findall(text.casefold())}
        used[name] = found
    general = _general_words()
    return {
        name: frozenset(word for word in words - general if sum(word in other for other in used.values()) == 1)
        for name, words in used.items()
    }
