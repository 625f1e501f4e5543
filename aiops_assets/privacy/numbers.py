"""Telephone, social security, card and bank account numbers in text.

What belongs here: numbers that standards give a form and a check (E.164, ISO/IEC 7812, ISO 13616), and what in logs has
a similar form. What does not: addresses (``addresses``) and secrets (``secrets``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from aiops_assets.privacy.spans import Detector, Span

_DASH = r"[-\u2010-\u2013]"
_SEPARATOR = rf"(?:[ \u00a0./]|{_DASH})"
#: international: E.164 has at most 15 digits; at least 8 here, since shorter ones are offsets and differences
_INTERNATIONAL = re.compile(
    rf"(?<![\w+.-])(?:\+[ \u00a0]?|00(?=[1-9]\d{{0,2}}{_SEPARATOR}))[1-9](?:(?:{_SEPARATOR}|[ ]?\([ ]?|[ ]?\)[ ]?|"
    rf"\)[-./])?\d){{7,14}}(?!\d)"
)
#: North America: area code and exchange begin with 2 to 9
_NANP = re.compile(
    rf"(?<![\w.+])(?<!\d[-/:])(?:(?:001|1){_SEPARATOR}?)?(?:\((?P<a>[2-9]\d\d)\)[ \u00a0-]?|"
    rf"(?P<b>[2-9]\d\d)(?P<s>{_SEPARATOR}))"
    rf"(?P<x>[2-9]\d\d)(?P<t>{_SEPARATOR})(?P<l>\d{{4}})(?:[ ]?(?:x|ext\.?|#)[ ]?\d{{1,6}})?(?![\w]|[-.:/]\d)"
)
#: elsewhere: the trunk prefix 0, an area code, groups
_TRUNK = re.compile(
    rf"(?<![\w.+/-])(?<![\d\W]:)(?<!\d[ ,])(?:\(0[1-9]\d{{0,4}}\)[ ]?|0[1-9]\d{{0,4}}(?:[ ]?/[ ]?|[ \u00a0]|"
    rf"{_DASH}))\d{{2,8}}"
    rf"(?:(?:[ \u00a0.]|{_DASH})\d{{2,6}}){{0,4}}(?!\d|[.,/-]\d|:\S|[ ]\d|[ ][0-9a-f]{{2}}\b|\w)"
)
#: France with dots; and an area code in brackets before groups with hyphens, whatever the country
_PAIRS = re.compile(r"(?<![\w.+:/-])0[1-9](?:\.\d\d){4}(?!\d|[.:/-]\d|\w)")
_BRACKETED = re.compile(
    r"(?:(?<![\w.+/-])[1-9][ ]?)?\([1-9]\d{1,3}\)[ ]?\d{3,5}-\d{2,4}(?:-\d{2,4})?(?!\d|\w|[-.:/]\d)"
)
#: any separated or bare digits, when a word before says what they are
_CALLED = re.compile(
    r"\b(?:tele?(?:ph?on[eo]?)?|phone|ph|mobile|cell(?:phone)?|mob|fax|handy|rufnummer|callback|call(?:ed| back)?|"
    r"dial(?:ed)?|"
    r"contact number|reach(?:ed|able)?(?: (?:me|him|her|them|us))?|t[ée]l[ée]phone|tel[ée]fono|sms|whatsapp)\b\.?"
    r"[ \t]*(?:no\.?|number|nr\.?|num|#)?[ \t]*(?:at|on|is|to|under)?[ \t]*[:=]?[ \t]*\"?'?"
    rf"(\(?\+?\(?\d(?:(?:{_SEPARATOR}|[ ]?\(|\)[ ]?)?\d){{6,14}})(?!\d|\w|[.:/-]\d)",
    re.IGNORECASE,
)
_DIGITS = re.compile(r"\d+")
_DATE = re.compile(
    r"(?:0\d|[12]\d|3[01])[-/. ](?:0\d|1[0-2])[-/. ](?:19|20)\d\d|(?:19|20)\d\d[-/.](?:0\d|1[0-2])[-/.](?:0\d|"
    r"[12]\d|3[01])"
)


#: cheap signs of the forms above: most texts with digits have none of them
_PLUS = re.compile(r"\+[ \u00a0]?[1-9]|00[1-9]")
_TAIL = re.compile(r"[2-9]\d\d[-. \u00a0\u2010-\u2013]\d{4}(?!\d)")
_ZERO = re.compile(r"0[1-9]\d{0,4}[-) /\u00a0\u2010-\u2013]")
_CALLS = (
    "tel",
    "tél",
    "phone",
    "ph",
    "mob",
    "cell",
    "fax",
    "handy",
    "rufn",
    "call",
    "dial",
    "contact",
    "reach",
    "sms",
    "whats",
)


def phones(text: str) -> Iterator[Span]:
    """Telephone numbers; those of the North American exchange 555 from 0100 to 0199 are reserved for fiction."""
    if _PLUS.search(text):
        for match in _INTERNATIONAL.finditer(text):
            digits = _digits(match[0]).removeprefix("00")
            if len(digits) <= 15 and not _DATE.search(match[0]) and len(set(digits)) > 2:
                yield Span(match.start(), match.end(), "phone", _fictional(digits))
    if _TAIL.search(text):
        for match in _NANP.finditer(text):
            if digits := _north_american(text, match):
                yield Span(match.start(), match.end(), "phone", _fictional(digits))
    for zero in _ZERO.finditer(text):
        bracket = text[zero.start() - 1 : zero.start()] == "("
        if found := (bracket and _TRUNK.match(text, zero.start() - 1)) or _TRUNK.match(text, zero.start()):
            digits = _digits(found[0])
            if 9 <= len(digits) <= 12 and not _DATE.search(found[0]) and _grouped(found[0]) and len(set(digits)) > 2:
                yield Span(found.start(), found.end(), "phone")
    if "0" in text and (found := _PAIRS.search(text)):
        yield from (Span(found.start(), found.end(), "phone") for found in _PAIRS.finditer(text))
    if "(" in text:
        for match in _BRACKETED.finditer(text):
            if 9 <= len(_digits(match[0])) <= 12:
                yield Span(match.start(), match.end(), "phone", _fictional(_digits(match[0])))
    lower = text.lower()
    if any(word in lower for word in _CALLS):
        for match in _CALLED.finditer(text):
            digits = _digits(match[1])
            if len(digits) <= 15 and not _DATE.search(match[1]):
                yield Span(match.start(1), match.end(1), "phone", _fictional(digits))


def _north_american(text: str, match: re.Match[str]) -> str:
    """The ten digits of a match; empty when they are no number of the North American plan."""
    first, second = match["s"] or "", match["t"]
    mixed = first and first != second and {first, second} != {" ", "-"}
    if match["x"].endswith("11") or mixed or "/" in {first, second} or _measured(text, match.end()):
        return ""
    digits = (match["a"] or match["b"]) + str(match["x"]) + str(match["l"])
    return digits if len(set(digits)) > 2 else ""


def _digits(text: str) -> str:
    return "".join(char for char in text if char.isdigit())


def _fictional(digits: str) -> bool:
    """Whether a number is one of NXX-555-0100 to NXX-555-0199, with or without the country code 1."""
    return len(digits) in {7, 10, 11} and digits[-7:-2] == "55501" and (len(digits) < 11 or digits[0] == "1")


def _measured(text: str, end: int) -> bool:
    """Whether a unit follows, which telephone numbers have none of."""
    return re.match(r"[ ]?(?:ms|us|ns|s|sec|kB|KB|MB|GB|bytes|%)\b", text[end : end + 8]) is not None


def _grouped(number: str) -> bool:
    """Whether a number with a trunk prefix is grouped as people group them, not as dumps and tables are."""
    groups = [len(group) for group in _DIGITS.findall(number)]
    if groups == [3, 2, 4]:
        return False
    bracketed_or_slashed = "(" in number or "/" in number
    if len(groups) == 2:
        return bracketed_or_slashed or (3 <= groups[0] <= 6 and groups[1] >= 5 and sum(groups) >= 10)
    within = groups[0] >= 2 and all(2 <= group <= 4 for group in groups[1:-1]) and 2 <= groups[-1] <= 5
    return within or bracketed_or_slashed


_SSN = re.compile(
    rf"(?<![\w.+])(?<!\d[-\u2010-\u2013])(?<!\d )(?!000|666|9)\d{{3}}(?P<s>{_DASH}|"
    rf" )(?!00)\d{{2}}(?P=s)(?!0000)\d{{4}}(?!\w|[-.]\d| \d)"
)
_SSN_NAMED = re.compile(
    r"\b(?:ssn|social[ -]security(?:[ -](?:no\.?|number|nr|#))?|soc\.? ?sec\.?|tax(?:payer)?[ -]?id)\b[^\d\n]{0,16}"
    r"((?!000|666|9)\d{3}[- ]?(?!00)\d{2}[- ]?(?!0000)\d{4})(?!\d|-\d)",
    re.IGNORECASE,
)
#: printed in advertisements and on sample cards, void since
_VOID_SSN = frozenset({"078051120", "219099999", "123456789", "457555462"})


def social_security(text: str) -> Iterator[Span]:
    """US social security numbers in ranges that are given out: not 000, 666 or 9xx, no group of zeros."""
    for match in _SSN.finditer(text):
        if match["s"] != " ":
            yield Span(match.start(), match.end(), "ssn", _digits(match[0]) in _VOID_SSN)
    for match in _SSN_NAMED.finditer(text):
        yield Span(match.start(1), match.end(1), "ssn", _digits(match[1]) in _VOID_SSN)


_CARD = re.compile(
    rf"(?<![\w.+])(?<!\d[-\u2010-\u2013 ])(?<![_ =(,:]-)(?<!^-)"
    rf"(?:[2-6]\d{{12,18}}|[2-6]\d{{3}}(?P<s>[ \u00a0]|{_DASH})\d{{4}}(?P=s)\d{{4}}(?P=s)\d{{1,4}}(?:(?P=s)\d{{3}})?"
    rf"|3\d{{3}}(?P<t>[ \u00a0]|{_DASH})\d{{6}}(?P=t)\d{{4,5}})(?!\w|[-.]\d| \d{{3}})"
)
_CARD_WORD = re.compile(
    r"card|credit|debit|visa|master|amex|maestro|diners|discover|jcb|\bpan\b|karte|carte|tarjeta", re.IGNORECASE
)
#: ISO/IEC 7812 issuer ranges by first digits: (from, to, lengths)
_ISSUERS: tuple[tuple[int, int, frozenset[int]], ...] = (
    (4, 4, frozenset({13, 16, 19})),
    (51, 55, frozenset({16})),
    (2221, 2720, frozenset({16})),
    (34, 34, frozenset({15})),
    (37, 37, frozenset({15})),
    (300, 305, frozenset({14, 16, 19})),
    (3095, 3095, frozenset({14, 16, 19})),
    (36, 36, frozenset({14, 16, 19})),
    (38, 39, frozenset({14, 16, 19})),
    (3528, 3589, frozenset({16, 19})),
    (6011, 6011, frozenset({16, 19})),
    (644, 649, frozenset({16, 19})),
    (65, 65, frozenset({16, 19})),
    (62, 62, frozenset({16, 17, 18, 19})),
    (5018, 5018, frozenset(range(13, 20))),
    (5020, 5020, frozenset(range(13, 20))),
    (5038, 5038, frozenset(range(13, 20))),
    (5893, 5893, frozenset(range(13, 20))),
    (6304, 6304, frozenset(range(13, 20))),
    (6759, 6759, frozenset(range(13, 20))),
    (6761, 6763, frozenset(range(13, 20))),
    (2200, 2204, frozenset({16, 17, 18, 19})),
    (60, 60, frozenset({16})),
    (81, 82, frozenset({16})),
)
#: numbers that payment services publish for tests
_PUBLISHED = (
    "4111111111111111 4242424242424242 4012888888881881 4000056655665556 4222222222222 5555555555554444 "
    "5105105105105100 5200828282828210 2223003122003222 378282246310005 371449635398431 378734493671000 "
    "6011111111111117 6011000990139424 30569309025904 38520000023237 3056930009020004 36227206271667 "
    "3530111333300000 3566002020360505 6200000000000005 6759649826438453 4917610000000000 4000000000000002 "
    "4000002500003155 2222420000001113 5454545454545454"
)
_TEST_CARDS = frozenset(_PUBLISHED.split())


def cards(text: str) -> Iterator[Span]:
    """Payment cards: an issuer's digits and length, and the Luhn check; published test numbers are reserved."""
    for match in _CARD.finditer(text):
        digits = _digits(match[0])
        if not is_card(digits):
            continue
        bare = match["s"] is None and match["t"] is None
        named = _CARD_WORD.search(text, max(0, match.start() - 40), match.start()) is not None
        # One id in ten passes Luhn: lengths that are rare on cards need a word that says so.
        if bare and len(digits) not in {14, 15, 16} and not named:
            continue
        yield Span(match.start(), match.end(), "card", digits in _TEST_CARDS)


def is_card(digits: str) -> bool:
    """Whether digits have an issuer, a length that it uses and a right check digit; no run of one digit."""
    if len(set(digits)) < 3 and digits not in _TEST_CARDS:
        return False
    known = any(
        low <= int(digits[: len(str(low))]) <= high and len(digits) in lengths for low, high, lengths in _ISSUERS
    )
    return known and luhn(digits)


def luhn(digits: str) -> bool:
    """The check digit of ISO/IEC 7812-1, annex B."""
    total = 0
    for place, char in enumerate(reversed(digits)):
        value = int(char) * (1 + place % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


#: ISO 13616: countries and the length of their account numbers
_COUNTRIES = (
    "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18 DO28 EE20 EG29 "
    "ES24 FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 "
    "LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28 NL18 NO15 OM23 PK24 PL28 PS29 "
    "PT25 QA29 RO24 RS22 RU33 SA24 SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 "
    "YE30"
)
IBAN_LENGTHS = {entry[:2]: int(entry[2:]) for entry in _COUNTRIES.split()}
_IBAN = re.compile(r"(?<![^\W_])[A-Za-z]{2}\d{2}(?=[ \u00a0-]?[A-Za-z0-9]{4})", re.ASCII)


def accounts(text: str) -> Iterator[Span]:
    """International bank account numbers: the country's length and the check of ISO 7064 (mod 97-10)."""
    for match in _IBAN.finditer(text):
        length = IBAN_LENGTHS.get(match[0][:2].upper())
        if length is None or not 2 <= int(match[0][2:]) <= 98:
            continue
        end = _end_of_account(text, match.start(), length)
        if end is None:
            continue
        number = "".join(char for char in text[match.start() : end] if char.isalnum()).upper()
        if mod_97(number) == 1:
            yield Span(match.start(), end, "iban")


def _end_of_account(text: str, start: int, length: int) -> int | None:
    """Where ``length`` letters and digits end, written in one or in groups of four; ``None`` when they do not."""
    place, taken = start, 0
    while taken < length:
        if place >= len(text):
            return None
        char = text[place]
        if char.isascii() and char.isalnum():
            taken += 1
        elif not (char in " \u00a0-" and taken % 4 == 0):
            return None
        place += 1
    following = text[place : place + 1]
    return None if following and (following.isalnum() or following == "_") else place


def mod_97(number: str) -> int:
    """The remainder, 1 for a right account number: first four characters moved to the end, letters as 10 to 35."""
    return int("".join(str(int(char, 36)) for char in number[4:] + number[:4])) % 97


PHONE = Detector(
    "phone",
    r"\+[ ]?\(?[1-9][\d ().\-/\x{2010}-\x{2013}\x{a0}]{6}|\b00[1-9]\d{0,2}[ .\-/]\d|"
    r"[2-9]\d\d\)?[ .\-\x{2010}-\x{2013}\x{a0}][2-9]\d\d[ .\-\x{2010}-\x{2013}\x{a0}]\d{4}|\([2-9]\d\d\)[2-9]\d\d"
    r"|\b0[1-9]\.\d\d\.\d\d\.|\([1-9]\d{1,3}\)[ ]?\d{3,5}-\d|(?:^|[^\w.+/\-])\(?0\d{1,5}(?:\)[ ]?|[ ]?/[ ]?|"
    r"[ \-\x{2010}-\x{2013}\x{a0}])\d{2}"
    r"|(?i:\b(?:t[eé]l|phone|ph|mob|cell|fax|handy|rufnummer|call|dial|contact number|reach|sms|"
    r"whatsapp)[^\d\n]{0,32}\d[\d ().\-/]{5})",
    phones,
)
SSN = Detector(
    "ssn", r"\d{3}[-\x{2010}-\x{2013}]\d{2}[-\x{2010}-\x{2013}]\d{4}|(?i:\b(?:ssn|soc|tax))", social_security
)
CARD = Detector(
    "card",
    r"[2-6]\d{12}|[2-6]\d{3}[ \-\x{2010}-\x{2013}\x{a0}]\d{4}[ \-\x{2010}-\x{2013}\x{a0}]\d{4}|"
    r"3\d{3}[ \-\x{2010}-\x{2013}\x{a0}]\d{6}[ \-\x{2010}-\x{2013}\x{a0}]\d{4}",
    cards,
)
IBAN = Detector("iban", r"[A-Za-z]{2}\d{2}[ \-\x{a0}]?[A-Za-z0-9]{4}[ \-\x{a0}]?[A-Za-z0-9]{4}", accounts)
