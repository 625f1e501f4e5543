"""Which category a text is about, learnt from texts whose category is known.

What belongs here: a multinomial naive Bayes over words, enough to see that a text tells of something else. What does
not: judging data sets (the gate has a classifier of its own), and other checks of texts (``text_checks``).

Source: McCallum and Nigam, "A comparison of event models for naive Bayes text classification" (1998), with Laplace
smoothing. Words that say little about the category are left out, so that greetings do not vote.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

_WORD = re.compile(r"[^\W\d_]{3,}")
#: words seen less often say nothing
_LEAST = 3
#: how much likelier (natural logarithm) another category must be before a text is said to be about that one
_MARGIN = 8.0
#: telling words that a text must have before it is judged
_LEAST_WORDS = 4
#: a word tells when its largest share among categories is this many times its share overall
_TELLING = 3.0


class Topics:
    """Judges texts by the words of each category; ``learn`` makes one."""

    def __init__(self, categories: Sequence[str], words: dict[str, int], log_shares: NDArray[np.float64]) -> None:
        self._categories = {name: number for number, name in enumerate(categories)}
        self._names = list(categories)
        self._words, self._log_shares = words, log_shares

    def other(self, category: str, text: str) -> str | None:
        """The category that a text is clearly about when it is not the given one; ``None``: nothing speaks against it.

        The text is a report with its resolution. A category that was never learnt, and texts with few telling words
        (another language), are not judged.
        """
        own = self._categories.get(category)
        known = [self._words[word] for word in {*_WORD.findall(text.casefold())} if word in self._words]
        if own is None or len(known) < _LEAST_WORDS:
            return None
        scores = self._log_shares[:, known].sum(axis=1)
        best = int(scores.argmax())
        return self._names[best] if scores[best] - scores[own] > _MARGIN else None


def learn(frame: pl.DataFrame) -> Topics:
    """Words by category of incidents (``record.SCHEMA``): descriptions and resolution."""
    text = pl.concat_str("short_description", "description", pl.col("resolution_notes").fill_null(""), separator=" ")
    counts = (
        frame.select("category", word=text.str.to_lowercase().str.extract_all(r"\p{L}{3,}").list.unique())
        .explode("word", empty_as_null=False)
        .group_by("category", "word")
        .agg(n=pl.len())
        .filter(pl.col("n").sum().over("word") >= _LEAST)
        .sort("word", "category")
    )
    categories = sorted(frame["category"].unique().to_list())
    names = counts["word"].unique(maintain_order=True).to_list()
    position = {word: number for number, word in enumerate(names)}
    number = {name: index for index, name in enumerate(categories)}
    table = np.ones((len(categories), len(names)))
    for category, word, n in counts.select("category", "word", "n").iter_rows():
        table[number[category], position[word]] += n
    sizes = np.array([[frame.filter(pl.col("category") == name).height + 2] for name in categories])
    shares = table / sizes
    overall = table.sum(axis=0) / sizes.sum()
    telling = (shares.max(axis=0) >= _TELLING * overall) if len(categories) > 1 else np.zeros(len(names), np.bool_)
    kept = np.flatnonzero(telling)
    return Topics(categories, {names[index]: place for place, index in enumerate(kept)}, np.log(shares[:, kept]))
