"""Names of people in text: by a lexicon of common names, by what letters say around them, and by a configured list.

What belongs here: the rules that tell a name from other capitalised words, and the lexicon (``names.yaml``). What does
not: user ids such as ``mira.k`` or ``tech.4127``, which are nobody's full name.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property, lru_cache
from importlib import resources

import polars as pl
import yaml

from aiops_assets.privacy.spans import Span


@dataclass(frozen=True, slots=True)
class Lexicon:
    """Names in folded form; ``words`` are names that are ordinary words too, ``never`` are words that are none."""

    given: frozenset[str]
    surnames: frozenset[str]
    words: frozenset[str]
    never: frozenset[str]
    organisations: frozenset[str]


@cache
def lexicon() -> Lexicon:
    """The names that ship with the product."""
    text = resources.files("aiops_assets.privacy").joinpath("names.yaml").read_text("utf-8")
    found = {kind: frozenset(str(names).split()) for kind, names in yaml.safe_load(text).items()}
    return Lexicon(found["given"], found["surname"], found["words"], found["never"], found["organisations"])


@lru_cache(maxsize=65_536)
def folded(name: str) -> str:
    """A name without accents, in lower case: ``Müller`` → ``muller``, ``O’Brien`` → ``obrien``."""
    if name.isascii():
        return name.lower().replace("'", "")
    plain = name.translate(_LETTERS).casefold()
    plain = unicodedata.normalize("NFKD", plain)
    return "".join(char for char in plain if not unicodedata.combining(char) and char not in "'’")


_LETTERS = str.maketrans({"ł": "l", "Ł": "L", "ø": "o", "Ø": "O", "đ": "d", "Đ": "D", "ı": "i", "æ": "ae", "Æ": "Ae"})


@dataclass(frozen=True)
class People:
    """Real people that an installation knows: full names (``Anna Smith``), found in any case and either order."""

    names: frozenset[str] = field(default_factory=frozenset)

    @classmethod
    def of(cls, names: Iterable[str]) -> People:
        """People of full names; names of a single word are left out, they would match anything."""
        return cls(frozenset(name.strip() for name in names if len(name.split()) > 1))

    @cached_property
    def surnames(self) -> list[str]:
        """The last words of all names, lower case: every form has one of them."""
        return sorted({name.lower().split()[-1] for name in self.names})

    @cached_property
    def literals(self) -> list[str]:
        """Every form in which a name is looked for, lower case."""
        forms = set()
        for name in self.names:
            parts = name.lower().split()
            first, last = " ".join(parts[:-1]), parts[-1]
            forms |= {f"{first} {last}", f"{last}, {first}", f"{last} {first}", f"{first}.{last}", f"{first}_{last}"}
        return sorted(forms)

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """One pattern for all of them."""
        forms = sorted(self.literals, key=len, reverse=True)
        joined = "|".join(re.escape(form).replace(r"\ ", r"\s+") for form in forms)
        return re.compile(rf"(?<!\w)(?:{joined})(?!\w)", re.IGNORECASE) if forms else re.compile(r"(?!)")


_WORD = r"[^\W\d_](?:[^\W\d_]|['’-](?=[^\W\d_]))*"
_INITIAL = r"(?:[^\W\d_]\.[ ]?){1,2}"
_PARTICLE = r"(?:von|van|de|der|den|del|della|di|da|dos|la|le|ter|bin|al|zu)[ ]"
#: a word and its neighbour, of which one may be a given name and the other a surname
_PAIR = re.compile(
    rf"({_WORD})(?P<gap>[ \t]+|,[ ]|[._](?=[a-z]))(?:{_INITIAL}[ ]?)?((?:{_PARTICLE}){{0,2}}{_WORD})(?![\w@])"
)
_TITLES = "Mr|Mrs|Ms|Miss|Mx|Dr|Prof|Herrn?|Frau|Sra?|Srta|Mme|Mlle|Monsieur|Madame|Signora?|Pan|Pani"
_TITLE = re.compile(
    rf"(?<!\w)(?:{_TITLES})(?:\.[ ]?|[ ])(?:(?:{_TITLES})\.?[ ])?((?:{_INITIAL})?{_WORD}(?:[ ]"
    rf"(?:{_PARTICLE})?{_WORD})?)"
)
_CLOSINGS = (
    r"(?:(?:kind|kindest|best|warm|many)[ ]+)?(?:regards|wishes|thanks|greetings)|(?:all the )?best|warmly|"
    r"thank you|thanks(?: a lot| again| in advance)?|"
    r"thx|cheers|sincerely|yours(?: sincerely| faithfully| truly)?|br|rgds|"
    r"(?:mit )?(?:freundlichen|besten|vielen|viele) (?:gr[uü](?:ß|ss)en?|dank)|(?:viele |beste )?gr[uü](?:ß|ss)e|"
    r"mfg|vg|"
    r"cordialement|bien [àa] vous|merci|saludos(?: cordiales)?|gracias|atentamente|cordiali saluti|grazie|obrigad[oa]|"
    r"met vriendelijke groet(?:en)?|pozdrawiam"
)
_CLOSING = re.compile(
    rf"(?<!\w)(?i:{_CLOSINGS})[ \t]*[,.!–-]*[ \t]*\r?\n?[ \t]*\r?\n?[ \t]*[–—-]*[ \t]*"
    rf"({_WORD}(?:[ ](?:{_INITIAL}[ ]?)?(?:{_PARTICLE}){{0,2}}{_WORD})?)(?=[ \t]*(?:$|[\r\n,.;|(/–-]))"
)
_LINE_BEGINS = re.compile(r"(?:^|[\n>.!?,;][ \t>]*)\Z")
_GREETINGS = (
    r"hi|hello|hey|dear|good (?:morning|afternoon|evening)|hallo|liebe[rs]?|guten (?:tag|morgen)|bonjour|ch[eè]re?|"
    r"hola|"
    r"estimad[oa]|ciao|ol[aá]"
)
_GREETING = re.compile(rf"(?<!\w)(?i:{_GREETINGS})[ ]+({_WORD}(?:[ ](?:{_PARTICLE}){{0,2}}{_WORD})?)(?=[ ]*[,!:\n–-])")
_ROLES = (
    r"caller|user|contact|customer|employee|requester|requestor|requested by|reported by|opened by|raised by|logged by|"
    r"resolved by|closed by|assigned to|assignee|escalated to|approved by|approver|manager|owner|supervisor|"
    r"on behalf of|"
    r"colleague|technician|engineer|name|full name|spoke (?:to|with)|talked to|called by|call from|e?-?mail from|"
    r"message from|ansprechpartner(?:in)?|signed|attn|cc|from|author"
)
_ROLE = re.compile(
    rf"(?<!\w)(?i:(?:{_ROLES})\b[ ]?(?:name)?[ ]?(?:is|was)?)[ ]*[:=-]?[ ]*[\"'(]?"
    rf"((?=[^\W\d_a-z]){_WORD}[ ](?:{_INITIAL}[ ]?)?(?:{_PARTICLE}){{0,2}}(?=[^\W\d_a-z]){_WORD})(?![\w@])"
)


#: the last words of all of the above, by which a capitalised word behind them is looked at
_TITLE_ENDS = "mr mrs ms miss mx dr prof herr herrn frau sr sra srta mme mlle monsieur madame signor signora pan pani"
_CLOSING_ENDS = (
    "regards wishes thanks greetings best warmly you lot again advance thx cheers sincerely yours faithfully truly "
    "br rgds grüsse "
    "grüße gruß grüssen grüßen grussen dank mfg vg cordialement vous merci saludos cordiales gracias atentamente "
    "saluti "
    "grazie obrigado obrigada groet groeten pozdrawiam"
)
_GREETING_ENDS = (
    "hi hello hey dear morning afternoon evening hallo liebe lieber liebes tag bonjour cher chere chère hola estimado "
    "estimada ciao ola olá"
)
_ROLE_ENDS = (
    "caller user contact customer employee requester requestor by to assignee approver manager owner supervisor of "
    "colleague technician engineer name with from ansprechpartner ansprechpartnerin signed attn cc author is was"
)
_ANNOUNCING = {
    word: pattern
    for pattern, ends in (
        (_TITLE, _TITLE_ENDS),
        (_CLOSING, _CLOSING_ENDS),
        (_GREETING, _GREETING_ENDS),
        (_ROLE, _ROLE_ENDS),
    )
    for word in ends.split(" ")
}
_CAPITALISED = re.compile(r"[A-Z\u00c0-\u00de\u0100-\u024f\u0370-\u03ff\u0400-\u052f](?:[^\W\d_]|['’-](?=[^\W\d_]))*")
_HANDLE = re.compile(r"[a-z]{3,}[._][a-z]{3,}")
#: how far before a name what announces it begins
_REACH = 40


def names(text: str) -> Iterator[Span]:
    """Names of people by lexicon and by surroundings."""
    known = lexicon()
    for word in _CAPITALISED.finditer(text):
        start = word.start()
        before = text[start - 1] if start else " "
        if before.isalnum() or before in "_@":
            continue
        if text[word.end() : word.end() + 1] in {" ", ",", "\t"} and (match := _PAIR.match(text, start)):
            found = _pair(match, known)
            if found is not None:
                yield found
        if pattern := _ANNOUNCING.get(_word_before(text, start)):
            yield from _announced(pattern, text, start, known)
    for handle in _HANDLE.finditer(text):
        if handle[0].replace("_", ".").split(".")[0] in known.given and (match := _PAIR.match(text, handle.start())):
            before = text[handle.start() - 1] if handle.start() else " "
            found = None if before.isalnum() or before in "_@.-/" else _pair(match, known)
            if found is not None:
                yield found


def _word_before(text: str, start: int) -> str:
    """The word before a position, lower case, whatever signs and line ends stand between."""
    part = text[max(0, start - 24) : start].rstrip(" \t\r\n,.!:;=-\"'(>–—*|")
    begin = len(part)
    while begin and part[begin - 1].isalpha():
        begin -= 1
    return part[begin:].lower()


def _announced(pattern: re.Pattern[str], text: str, start: int, known: Lexicon) -> Iterator[Span]:
    """The name at ``start``, behind a title, a closing, a greeting or a role."""
    for match in pattern.finditer(text, max(0, start - _REACH), min(len(text), start + 80)):
        if match.start(1) != start:
            continue
        if pattern is _TITLE:
            end = _end_of_titled(match, known)
        elif pattern is _CLOSING:
            begins = _LINE_BEGINS.search(text, max(0, match.start() - 8), match.start())
            apart = any(sign in text[match.start() : start] for sign in "\n,-–—")
            end = match.end(1) if begins and _signs(match[1], known, apart=apart) else 0
        elif pattern is _GREETING:
            end = _end_of_greeted(match, known)
        else:
            end = match.end(1) if _has_role(match[1], known) else 0
        if end:
            yield Span(start, end, "person")


def _has_role(name: str, known: Lexicon) -> bool:
    """Whether what follows a role is a name, of which one half at least is in the lexicon."""
    parts = [folded(part) for part in name.split() if "." not in part]
    if known.never.intersection(parts):
        return False
    given, surname = parts[0] in known.given, parts[-1] in known.surnames
    if given and surname:
        return True
    return (given and parts[0] not in known.words) or (surname and parts[-1] not in known.words)


def _end_of_greeted(match: re.Match[str], known: Lexicon) -> int:
    """Where the name behind a greeting ends; 0 when it is none."""
    words = match[1].split()
    first, last = folded(words[0]), folded(words[-1])
    if not _capital(words[0]) or first in known.never:
        return 0
    if len(words) > 1 and _capital(words[-1]) and last not in known.never:
        return match.end(1) if first in known.given or last in known.surnames else 0
    return match.start(1) + len(words[0]) if first in known.given and first not in known.words else 0


def _pair(match: re.Match[str], known: Lexicon) -> Span | None:
    first, second, gap = match[1], match[3], match["gap"]
    last = second.split()[-1]
    one, two = _parts(first), folded(last)
    if gap in {".", "_"}:
        # anna.smith: a user id made of a full name
        whole = first.islower() and second.islower() and len(first) > 2 and len(two) > 2
        if not (whole and one & known.given and two in known.surnames) or one & known.words or two in known.words:
            return None
        return Span(match.start(1), match.end(3), "person")
    if not _capital(first) or not _capital(last):
        return None
    if gap.startswith(","):
        one, two = {folded(last)}, folded(first)
    if f"{folded(first)}-{two}" in known.organisations:
        return None
    listed = two in known.surnames or folded(second).replace(" ", "-") in known.surnames
    if not (one & known.given and listed):
        return Span(match.start(1), match.end(3), "person") if _half_known(match, one, two, last, known) else None
    doubtful = bool(one & known.words) and two in known.words
    shouted = first.isupper() and last.isupper()
    if doubtful or (shouted and (one & known.words or two in known.words or min(len(first), len(last)) < 3)):
        return None
    if gap.startswith(",") and one & known.words and not shouted:
        return None
    return Span(match.start(1), match.end(3), "person")


#: endings of surnames that hardly a common noun has in English, German, French, Spanish or Italian
_SURNAME_LIKE = re.compile(
    r".{2,}(?:[^r]ski|[oe]vsky|w?ńsk[ia]|wska|cki|wicz|[oe]vi[cć]|[^d]ov[aá]|[^en]ev[aá]|[aeiou]nko|czyk|escu|idis|akis|poulos|"
    r"o[gğ]lu|sson|qvist|quist|str[öø]m|shvili|d[oó]ttir|dijk|[jdl]k?stra|elli|etti|ucci|[aeiouá]ndez|[ií]nez|[aá]nchez|"
    r"[aeií]guez|murthy|swamy)",
    re.IGNORECASE,
)
#: what a person does in a ticket, after the name that begins a sentence
_DOES = re.compile(
    r"[ ](?:reports?|reported|called|calls|says|said|tells|told|can ?not|can't|complain(?:s|ed)|asks?|asked|confirm"
    r"(?:s|ed)|writes|"
    r"wrote|mention(?:s|ed)|needs|wants|requests|requested|phoned|emailed|noticed|claims|tried|is|was|has|had|will|"
    r"would|"
    r"could|works|lost|forgot|got|gets|uses|opened|sent|tries|wanted|needed|replied|accepted|approved)\b|[ ][(–-]|'s\b"
)
_SENTENCE = re.compile(r"(?:^|[.!?;\n\r|*•-][ \t]*)\Z")


def _half_known(match: re.Match[str], one: set[str], two: str, last: str, known: Lexicon) -> bool:
    """Whether a pair is a name of which only one half is in the lexicon."""
    if known.never & {*one, two} or match["gap"].startswith(",") or last.isupper():
        return False
    if one & known.given and not one & known.words:
        # A given name that is no ordinary word is personal whatever follows; a capital behind it is a surname.
        return two not in known.words and len(last) > 2 and match["gap"] == " "
    strange = not one & (known.words | known.surnames) and two not in known.words and match["gap"] == " "
    if strange and min(len(last) - 3, len(match[1])) > 2 and match[1][1:].islower() and _SURNAME_LIKE.fullmatch(last):
        return True
    if two in known.surnames and two not in known.words and not one & (known.words | known.surnames):
        begins = _SENTENCE.search(match.string, max(0, match.start() - 4), match.start()) is not None
        known_to_act = _DOES.match(match.string, match.end(3)) is not None
        return len(match[1]) > 2 and (known_to_act or not begins) and match[1][1:].islower()
    return False


def _parts(first: str) -> set[str]:
    """The forms in which a given name may be listed: whole, and the parts around a hyphen."""
    plain = folded(first)
    return {plain, *plain.split("-")}


def _capital(word: str) -> bool:
    return word[0].isupper()


def _end_of_titled(match: re.Match[str], known: Lexicon) -> int:
    """Where the name behind a title ends; 0 when it is none."""
    words = match[1].split()
    title = match[0][: match.start(1) - match.start()]
    plain = [folded(word) for word in words if "." not in word]
    if not plain or plain[0] in known.never or not _capital(next(word for word in words if "." not in word)):
        return 0
    strict = title.strip() in {"Sr", "Pan", "Miss", "Ms", "Dr", "Frau", "Sra"} or title.startswith("Pan")
    if strict and not known.given.union(known.surnames).intersection(plain):
        return 0
    if len(plain) > 1 and (not _capital(words[-1]) or plain[-1] in known.never):
        return match.start(1) + len(match[1]) - len(words[-1]) - 1
    return match.end(1)


def _signs(name: str, known: Lexicon, *, apart: bool) -> bool:
    """Whether words behind a closing are a name; ``apart``: on their own line, or behind a comma or a dash."""
    words = [word for word in name.split() if "." not in word]
    plain = [folded(word) for word in words]
    if not words or not all(_capital(word) or folded(word) in _PARTICLES for word in words):
        return False
    if known.never.intersection(plain) or any(len(word) > 1 and word.isupper() and len(word) < 4 for word in words):
        return False
    if len(words) == 1:
        return plain[0] in known.given and plain[0] not in known.words
    return plain[0] in known.given or plain[-1] in known.surnames or (apart and not set(plain) & known.words)


_PARTICLES = frozenset(_PARTICLE[3:-4].split("|"))

#: words after which a name of a single part, or an unknown one, may stand
_AROUND = (
    rf"\b(?:{_TITLES})(?:\.[ ]?|[ ])\p{{L}}"
    rf"|(?i:\b(?:{_CLOSINGS})[ \t]*[,.!–-]*[ \t]*(?:\r?\n){{0,2}}[ \t]*[–—-]*[ \t]*)\p{{Lu}}"
    rf"|(?i:\b(?:{_GREETINGS}))[ ]+\p{{Lu}}"
)
_PLAIN = {"ł": "l", "ø": "o", "đ": "d", "ı": "i", "æ": "ae", "ß": "ss"}


@cache
def _listed() -> pl.Expr:
    known = lexicon()
    return pl.lit(pl.Series(sorted(known.given | (known.surnames - known.words)))).implode()


def suspects(texts: pl.Series) -> pl.Series:
    """Which texts may hold a name: a mask over the column, vectorised, with no find left out."""
    around = texts.str.contains(_AROUND).fill_null(False)
    rest = pl.DataFrame({"row": pl.int_range(len(texts), dtype=pl.Int64, eager=True), "text": texts}).filter(~around)
    head = (
        pl.col("word").str.split_exact(".", 1).struct.field("field_0").str.split_exact("_", 1).struct.field("field_0")
    )
    plain = (
        head.str.to_lowercase()
        .str.replace_many(list(_PLAIN), list(_PLAIN.values()))
        .str.normalize("NFKD")
        .str.replace_all(r"[\p{M}'’]", "")
    )
    hits = (
        rest.lazy()
        # Capitalised words with a neighbour, and user ids made of two words.
        .select("row", pl.col("text").str.extract_all(_NEIGHBOURED).alias("word"))
        .explode("word", empty_as_null=False)
        .with_columns(pl.col("word").str.strip_chars_end(" ,\t"))
        .select("row", "word", plain.alias("head"))
        .filter(
            pl.col("head").is_in(_listed())
            | pl.col("head").str.contains("-", literal=True)
            | pl.col("word").str.contains(rf"^(?i:{_SURNAME_LIKE.pattern})$")
        )
        .select(pl.col("row").unique())
        .collect()["row"]
    )
    mask = around.to_list()
    for row in hits.to_list():
        mask[row] = True
    return pl.Series(mask, dtype=pl.Boolean)


_NEIGHBOURED = r"\p{Lu}[\p{L}'’-]+(?:[ \t,]|$)?|\b[a-z]{3,}[._][a-z]{3,}"
