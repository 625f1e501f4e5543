"""Secrets in text: tokens of known forms, credentials in headers, addresses and assignments, and random tokens.

What belongs here: forms that publishers document, and the words beside which a random token is a secret. What does not:
personal data (``addresses``, ``numbers``, ``names``).
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections import Counter
from collections.abc import Iterator

from aiops_assets.privacy.spans import Detector, Span

#: documented prefixes of tokens, each with what follows
_KNOWN = (
    r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}",
    r"gh[pousr]_[A-Za-z0-9]{36,255}",
    r"github_pat_[A-Za-z0-9_]{22,255}",
    r"gl(?:pat|dt|rt|cbt|ptt|ft|soat|agent|imt|oas|ffct)-[A-Za-z0-9_.-]{20,300}",
    r"xox[abceoprs]-[A-Za-z0-9-]{10,250}",
    r"xapp-\d-[A-Z0-9]+-\d+-[a-f0-9]{16,128}",
    r"https://hooks\.slack\.com/(?:services|workflows|triggers)/[A-Za-z0-9/_+-]{20,200}",
    r"https://discord(?:app)?\.com/api/webhooks/\d{10,25}/[\w-]{20,120}",
    r"(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{16,247}",
    r"whsec_[A-Za-z0-9+/=]{24,100}",
    r"AIza[A-Za-z0-9_-]{35}",
    r"ya29\.[A-Za-z0-9_-]{20,400}",
    r"GOCSPX-[A-Za-z0-9_-]{28}",
    r"sk-(?:proj-|ant-|svcacct-|or-v1-|admin-)?[A-Za-z0-9_-]{20,250}",
    r"npm_[A-Za-z0-9]{36}",
    r"pypi-AgEI[A-Za-z0-9_-]{30,400}",
    r"SG\.[A-Za-z0-9_-]{16,32}\.[A-Za-z0-9_-]{32,64}",
    r"hv[sbr]\.[A-Za-z0-9_-]{24,300}",
    r"do[opr]_v1_[a-f0-9]{64}",
    r"dapi[a-f0-9]{32}(?:-\d)?",
    r"hf_[A-Za-z0-9]{30,60}",
    r"shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}",
    r"NRAK-[A-Z0-9]{27}",
    r"glsa_[A-Za-z0-9]{32}_[a-fA-F0-9]{8}",
    r"ATATT3[A-Za-z0-9_=-]{50,250}",
    r"AGE-SECRET-KEY-1[A-Z0-9]{58}",
    r"\d{8,10}:AA[A-Za-z0-9_-]{33}",
    r"eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]*",
)
_TOKEN = re.compile(rf"(?<![A-Za-z0-9])(?:{'|'.join(_KNOWN)})(?![A-Za-z0-9])")
_PEM = re.compile(
    r"-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----(?:.*?-----END (?:[A-Z0-9]+ ){0,3}PRIVATE KEY"
    r"(?: BLOCK)?-----|.*)",
    re.DOTALL,
)
_HEADER = re.compile(
    r"\b(?:(?:proxy-)?authorization|x-api-key|api-key|x-auth-token|x-vault-token|private-token|"
    r"x-amz-security-token|cookie|set-cookie)"
    r"[\"']?[ ]*[:=][ ]*[\"']?(?:(?:bearer|basic|token|digest|apikey|splunk|negotiate|aws4-hmac-sha256|"
    r"key)[ ]+)?([^\s\"',;<>]{4,}(?:; ?[\w.-]+=[^\s\"',;<>]+)*)",
    re.IGNORECASE,
)
_BEARER = re.compile(r"\b(?:bearer|basic)[ ]+([A-Za-z0-9._~+/=-]{8,})", re.IGNORECASE)
_USER_INFO = re.compile(
    r"\b[a-z][a-z0-9+.-]{1,20}://([^\s/@:\"'<>]{0,100}:([^\s/\"'<>]{1,200}))@(?=[\w\[.-])", re.IGNORECASE
)
_WORDS = (
    r"pass(?:word|wd|phrase|code|wort)|passwort|kennwort|contrase[ñn]a|mot de passe|mdp|pwd|secret|token|api[_ -]?key|"
    r"access[_ -]?key(?:[_ -]?id)?|secret[_ -]?key|private[_ -]?key|account[_ -]?key|shared[_ -]?"
    r"(?:access[_ -]?)?key|client[_ -]?secret|auth[_ -]?token|"
    r"encryption[_ -]?key|signing[_ -]?key|master[_ -]?key|credentials?|community(?:[_ -]?string)?|psk|"
    r"pin[_ -]?code|otp"
)
_ASSIGNED = re.compile(
    rf"(?:(?<![A-Za-z])|(?-i:(?<=[a-z0-9])(?=[A-Z])))(?P<w>{_WORDS})(?:[_.-]?(?:value|string|hash|"
    rf"v?\d))?[\"']?[ ]*(?P<op>:=|=>|==?|:)[ ]*"
    r"(?P<v>\"(?:[^\"\\\n]|\\.){1,300}\"|'(?:[^'\\\n]|\\.){1,300}'|[^\s\"',;&<>()]{1,400})",
    re.IGNORECASE,
)
_SPOKEN = re.compile(
    rf"\b(?:{_WORDS})[ ]+(?:(?:is|was|set|reset|changed|now|to|ist|lautet|est|es|"
    rf"equals)[ ]+){{0,3}}[\"'`]?(?P<v>[^\s\"'`<>,;]{{6,200}})",
    re.IGNORECASE,
)
_RANDOM = re.compile(r"(?<![\w/+.-])[A-Za-z0-9_/+=-]{20,200}(?![\w/+=-])")
_NEAR = re.compile(
    r"(?:key|token|secret|passw|credential|auth|signature|sig|bearer|api|private)[^\n]{0,40}\Z", re.IGNORECASE
)
_PLACEHOLDER = re.compile(
    r"(?:[*x.•·#?_-]+|\[.*|\{.*|<.*|\$.*|%.*|%\w+%|null|none|nil|undefined|true|false|yes|no|on|off|empty|blank|"
    r"hidden|redacted|masked|filtered|"
    r"removed|required|missing|invalid|incorrect|wrong|expired|failed|failure|success|ok|error|unknown|changed|"
    r"reset|set|unset|n/?a|string|str|int|"
    r"optional|default|accepted|rejected|denied|ignored|disabled|enabled|auth(?:entication|orization)?|"
    r"keyboard-interactive|publickey|password|passwd|"
    r"token|secret|os\.environ.*|getenv.*|env\..*|process\.env.*|self\..*|config\..*|settings\..*|vault:.*|"
    r"secretref:.*|0|1|-1)\Z",
    re.IGNORECASE,
)


#: names of services and classes: ``com.example.service/12``, ``java.lang.String``
_NAMED = re.compile(r"[a-z]+(?:\.[A-Za-z]\w*){2,}")


#: with what the words above begin, lower case; and words near which a random token is a secret
_BEGINNINGS = re.compile(
    "pass|kennwort|contrase|mot de passe|mdp|pwd|secret|token|api|access|private|account|shared|client|auth|encryption|"
    "signing|master|credential|community|psk|pin|otp"
)
_NEARBY = re.compile("key|token|secret|passw|credential|auth|sig|bearer|api|private")
_HEADER_WORDS = ("authorization", "-key", "-token", "cookie")
_BEGIN = (
    "AKIA ASIA ABIA ACCA ghp_ gho_ ghu_ ghs_ ghr_ github_pat_ gl xox xapp- hooks.slack discord _live_ _test_ "
    "whsec_ AIza "
    "ya29. GOCSPX sk- npm_ pypi- SG. hvs. hvb. hvr. _v1_ dapi hf_ shp NRAK ATATT3 AGE- :AA eyJ"
)
_LITERALS = tuple(_BEGIN.split(" "))
_REACH = 64


def secrets(text: str) -> Iterator[Span]:
    """Credentials of all kinds; the find is the secret itself, not the word before it."""
    lower = text.lower()
    if len(lower) != len(text):
        # A few letters change their length: positions must hold in both.
        lower = "".join(char if len(char.lower()) > 1 else char.lower() for char in text)
    if "-----BEGIN" in text:
        yield from (Span(match.start(), match.end(), "secret") for match in _PEM.finditer(text))
    if any(literal in text for literal in _LITERALS):
        yield from (Span(match.start(), match.end(), "secret") for match in _TOKEN.finditer(text))
    if any(word in lower for word in _HEADER_WORDS):
        for match in _HEADER.finditer(text):
            if not _PLACEHOLDER.match(match[1]):
                yield Span(match.start(1), match.end(1), "secret")
    if "bearer " in lower or "basic " in lower:
        for match in _BEARER.finditer(text):
            if _credential(match[0].split()[0].lower(), match[1]):
                yield Span(match.start(1), match.end(1), "secret")
    if "://" in text and "@" in text:
        for match in _USER_INFO.finditer(text):
            if not _PLACEHOLDER.match(match[2]):
                yield Span(match.start(1), match.end(1), "secret")
    for hit in _BEGINNINGS.finditer(lower):
        if assigned := _ASSIGNED.match(text, hit.start()):
            yield from _assigned(assigned)
        if spoken := _SPOKEN.match(text, hit.start()):
            value = spoken["v"].rstrip(".,?:)")
            if _looks_chosen(value):
                yield Span(spoken.start("v"), spoken.start("v") + len(value), "secret")
    done = 0
    for hit in _NEARBY.finditer(lower):
        for match in _RANDOM.finditer(text, max(done, hit.end() - 1), min(len(text), hit.end() + _REACH + 200)):
            if match.start() > hit.end() + _REACH:
                break
            done = match.end()
            if _NEAR.search(text, max(0, match.start() - _REACH), match.start()) and _random(match[0]):
                yield Span(match.start(), match.end(), "secret")


def _assigned(match: re.Match[str]) -> Iterator[Span]:
    start, end = match.span("v")
    value, quoted = match["v"], match["v"][0] in "\"'"
    if quoted:
        start, end, value = start + 1, end - 1, value[1:-1]
    else:
        kept = value.rstrip(".]}:")
        end, value = end - len(value) + len(kept), kept
    if value and _worth_hiding(value, match["w"].lower(), match["op"], quoted=quoted):
        yield Span(start, end, "secret")


def _worth_hiding(value: str, word: str, operator: str, *, quoted: bool) -> bool:
    """Whether an assigned value is a secret rather than a state, a path or a reference to one."""
    if _PLACEHOLDER.match(value) or len(value) < 3:
        return False
    if word == "pwd" and value.startswith("/"):
        return False
    if word in {"token", "secret", "community", "credential", "credentials", "otp", "psk"} and value.isalpha():
        # "token: expired", "secret: mysecret": letters alone are a secret only when they were assigned like one
        return (operator != ":" or quoted) and len(value) >= 6 and word in {"secret", "community", "psk"}
    if operator == ":" and not quoted and value.isalpha():
        return word.startswith(("pass", "pwd", "kenn")) and not value.islower()
    if operator == ":" and not quoted and _NAMED.match(value):
        return False
    return not (operator == ":" and value.startswith(("/", "http://", "https://")))


def _looks_chosen(value: str) -> bool:
    """Whether a word after "password is" is one that somebody made up: letters with digits or signs in it."""
    if _PLACEHOLDER.match(value) or value.startswith(("/", "http", "[")) or re.fullmatch(r"[\w.-]+@[\w.-]+", value):
        return False
    digits = any(char.isdigit() for char in value)
    letters = any(char.isalpha() for char in value)
    signs = any(char in "!@#$%^&*?+=~" for char in value[:-1]) or value.endswith(("!", "#", "$"))
    mixed = any(char.isupper() for char in value[1:]) and any(char.islower() for char in value)
    timely = re.fullmatch(
        r"[\d:.TZ+-]+|\d+(?:ms|s|m|h|d)|v?\d+(?:\.\d+)+\w*|(?:CVE|INC|CHG|RFC|KB|PRB|TASK|REQ)-?\d+[\d-]*", value
    )
    return letters and not timely and ((digits and (mixed or signs or len(value) >= 8)) or (signs and mixed))


def _credential(scheme: str, value: str) -> bool:
    """Whether what follows Bearer or Basic is a credential and not a word of the sentence."""
    if scheme == "basic":
        try:
            return b":" in base64.b64decode(value + "=" * (-len(value) % 4), validate=True)
        except (binascii.Error, ValueError):
            return False
    return any(char.isdigit() for char in value) or len(value) >= 24


def _random(value: str) -> bool:
    """Whether a token is drawn at random: its entropy (Shannon, bits a character) is near that of its alphabet."""
    core = value.strip("=")
    if core.count("-") == 4 and len(core) == 36:
        return False
    if "/" in core and not any(char in core for char in "+=") and core.count("/") > 1:
        return False
    digits = sum(char.isdigit() for char in core)
    if digits < 2 or digits == len(core):
        return False
    entropy = -sum(n / len(core) * math.log2(n / len(core)) for n in Counter(core).values())
    if re.fullmatch(r"[0-9a-fA-F]+", core):
        return len(core) >= 32 and entropy >= 3.0
    upper, lower = any(c.isupper() for c in core), any(c.islower() for c in core)
    return upper and lower and entropy >= 3.7 and not re.search(r"[A-Za-z]{8,}", core)


SECRET = Detector(
    "secret",
    r"(?i:pass|kennw|contrase|mot de passe|mdp|pwd|secret|token|key|credential|community|psk|pin[_ -]?code|otp|"
    r"authori[sz]ation|cookie|bearer|basic |auth|sig)"
    r"|://[^\s/@:]{0,100}:[^\s/]{1,200}@|-----BEGIN|(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}|gh[pousr]_|github_pat_|"
    r"gl[a-z]{2,5}-|xox[abceoprs]-|xapp-|hooks\.slack|discord|"
    r"[srp]k_(?:live|test)_|whsec_|AIza|ya29\.|GOCSPX|sk-|npm_|pypi-|SG\.|hv[sbr]\.|do[opr]_v1|dapi|hf_|"
    r"shp[a-z]{2}_|NRAK|ATATT3|:AA[A-Za-z0-9_-]{33}|eyJ|API|api",
    secrets,
)
