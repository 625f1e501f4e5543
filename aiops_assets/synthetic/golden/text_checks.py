"""What a model's texts for one incident must satisfy before they are taken.

What belongs here: lengths, language, left-over placeholders, chatter about being a model, agreement with the facts.
What does not: asking again (``from_model``), personal data (``sanitise``), judging data sets (the gate).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from aiops_assets.synthetic.golden.topics import Topics

#: characters of a text: least and most; the upper ones are those of the record
SHORT, LONG, NOTE, SOLUTION = (8, 200), (25, 4_000), (3, 2_000), (10, 2_000)
#: frequent words of languages that have no other use in the others; enough to tell languages apart, not to identify any
_FUNCTION_WORDS: Mapping[str, frozenset[str]] = {
    code: frozenset(words.split())
    for code, words in {
        "en": "the and is are was were this that with for not have has been you your please can when which from will "
        "they there after does cannot",
        "de": "der die das und ist sind war nicht mit für eine einen einem den dem des ich wir sie auf bei nach wird "
        "kann bitte seit wurde haben",
        "fr": "le les des une est sont dans pour avec pas que qui sur vous nous il elle été cette depuis merci ne plus "
        "aux du au",
        "es": "el los las una es son está para con que por del no se al lo como más pero desde gracias puede esta fue "
        "cuando",
        "it": "il gli una è sono della con che per non del nel alla questo dal più come stato può grazie quando dopo "
        "anche",
        "pt": "os as uma é são não com que para do da no na em foi está por mais como ao pelo desde obrigado pode "
        "quando",
        "nl": "het een is zijn niet met voor van dat die op te aan er ook wordt kan sinds heeft bij naar deze graag "
        "wij maar",
    }.items()
}
_LANGUAGES_OF: Mapping[str, tuple[str, ...]] = {
    word: tuple(code for code, words in _FUNCTION_WORDS.items() if word in words)
    for word in frozenset().union(*_FUNCTION_WORDS.values())
}
_PLACEHOLDER = re.compile(
    r"\{\w*\}|<[a-z_ ]{3,}>|\[(?:your|name|insert|todo|placeholder)[^\]]*\]|lorem ipsum|\bTODO\b", re.IGNORECASE
)
_CHATTER = re.compile(
    r"\bas an? (?:ai|language model)\b|\blanguage model\b|\bi(?:'m| am) (?:sorry, but i can|an ai)\b"
    r"|\bhere (?:is|are) the (?:texts?|incident|ticket)\b|^sure[,!]|^certainly[,!]|\bfictional\b",
    re.IGNORECASE | re.MULTILINE,
)
_WORD = re.compile(r"[^\W\d_]+")
#: function words of another language that must be there, and how many times as many as of its own
_LEAST_FOREIGN, _TIMES_FOREIGN = 4, 2


@dataclass(frozen=True, slots=True)
class Texts:
    """What is written for one incident: one text for each note that people wrote, in order."""

    short_description: str
    description: str
    work_notes: tuple[str, ...]
    resolution_notes: str | None


@dataclass(frozen=True, slots=True)
class Facts:
    """What the texts must agree with."""

    category: str
    language: str
    notes: int
    resolved: bool


def problems(texts: Texts, facts: Facts, topics: Topics | None = None) -> list[str]:
    """What is wrong, each as an instruction that a model can follow; empty when the texts can be taken."""
    found = []
    if "\n" in texts.short_description.strip():
        found.append("short_description must be a single line")
    found += _length("short_description", texts.short_description, SHORT)
    found += _length("description", texts.description, LONG)
    if len(texts.work_notes) != facts.notes:
        found.append(f"work_notes needs exactly {facts.notes} texts, one for each entry, not {len(texts.work_notes)}")
    for number, note in enumerate(texts.work_notes, 1):
        found += _length(f"work note {number}", note, NOTE)
    if facts.resolved:
        found += _length("resolution_notes", texts.resolution_notes or "", SOLUTION)
    elif (texts.resolution_notes or "").strip():
        found.append("resolution_notes must be null: the incident is not resolved")
    if len(set(texts.work_notes)) < len(texts.work_notes) - 1:
        found.append("work notes repeat each other; each entry tells what happened then")
    whole = "\n".join([texts.short_description, texts.description, *texts.work_notes, texts.resolution_notes or ""])
    if (match := _PLACEHOLDER.search(whole)) is not None:
        found.append(f"a placeholder is left: {match[0]!r}; write what would stand there, or leave it out")
    if (match := _CHATTER.search(whole)) is not None:
        found.append(f"{match[0]!r} is not what people write into a ticket")
    if (other := _language(whole, facts.language)) is not None:
        found.append(f"the texts must be in the language {facts.language!r}, these read like {other!r}")
    if topics is not None and (about := topics.other(facts.category, _report(texts))) is not None:
        found.append(f"the texts are about {about!r}, the category of the incident is {facts.category!r}")
    return found


def _report(texts: Texts) -> str:
    return "\n".join([texts.short_description, texts.description, texts.resolution_notes or ""])


def _length(name: str, text: str, limits: tuple[int, int]) -> list[str]:
    size = len(text.strip())
    least, most = limits
    return [] if least <= size <= most else [f"{name} has {size} characters, {least} to {most} are needed"]


def _language(text: str, wanted: str) -> str | None:
    """The language that a text clearly is in, when it is another one; unknown languages are not judged."""
    if wanted not in _FUNCTION_WORDS:
        return None
    counts = dict.fromkeys(_FUNCTION_WORDS, 0)
    for word in _WORD.findall(text.casefold()):
        for code in _LANGUAGES_OF.get(word, ()):
            counts[code] += 1
    best = max(counts, key=lambda code: counts[code])
    clearly = counts[best] >= _LEAST_FOREIGN and counts[best] > _TIMES_FOREIGN * counts[wanted]
    return best if best != wanted and clearly else None
