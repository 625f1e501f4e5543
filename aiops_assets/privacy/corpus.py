"""Texts with known personal data and secrets in them, made from the standards that say what such data looks like.

What belongs here: generators of valid items (ITU-T E.164 and national numbering plans, ISO/IEC 7812, ISO 13616, RFC
5321, RFC 4291, documented token forms), sentences of tickets and log lines around them, lines that only look alike, and
the score of finds against what was planted. What does not: any pattern of the detectors, which this must not know.
"""

from __future__ import annotations

import base64
import ipaddress
import random
import string
from collections.abc import Callable
from dataclasses import dataclass

import polars as pl

from aiops_assets.privacy.spans import KINDS

#: names from telephone books of several countries, drawn up apart from the lexicon
_GIVEN = (
    "Anna Peter Maria Thomas Sarah Michael Jennifer David Linda James Emily Robert Laura Daniel Karen Stefan Julia "
    "Mehmet Fatima "
    "Priya Rahul Wei Yuki Hiroshi Ingrid Lars Søren Zoë Chloé François Jürgen Günter Łukasz Katarzyna Giulia Marco "
    "Carlos Lucía "
    "João Beatriz Olga Dmitri Nikolai Ahmed Omar Leila Aoife Siobhán Gareth Nkechi Chinedu Thandiwe Sipho Mei "
    "Rohit Deepak Ayşe Emre "
    "Dirk Femke Sven Astrid Mikko Aino Tereza Pavel Zsófia László Andrei Ioana Eleni Giorgos Noa Yael Kofi Amara "
    "Tyrone Latoya"
)
_SURNAMES = (
    "Smith Johnson Williams Brown Miller Davis Wilson Anderson Taylor Moore Jackson Thompson Harris Clarke "
    "Robinson Wright Evans "
    "Müller Schmidt Schneider Fischer Weber Wagner Becker Schulz Hoffmann Garcia Martinez Rodriguez Lopez Gonzalez "
    "Perez Sanchez "
    "Rossi Russo Ferrari Bianchi Dubois Moreau Laurent Lefebvre Nowak Kowalski Wiśniewski Novák Horvath Nagy "
    "Popescu Ivanov Petrov "
    "Sokolov Jansen de Vries Andersen Hansen Nielsen Johansson Lindqvist Virtanen Korhonen Yılmaz Demir Kaya "
    "Sharma Patel Gupta "
    "Singh Iyer Wang Li Zhang Chen Liu Tanaka Suzuki Nguyen Tran Kim Park Okafor Adeyemi Mensah Dlamini Nkosi "
    "Cohen Levy Papadopoulos "
    "O'Brien McCarthy Fitzgerald Abernathy Whitmore Castellanos Vandenberg Ostrowski"
)
_ENTERPRISES = (
    "contoso.com fabrikam.net northwind.co.uk adatum.de litware.io wingtip.fr proseware.org tailspin.eu "
    "bluesky.dev acme-corp.com "
    "globex.co.jp initech.com.au umbrella.nl stark.industries hooli.xyz mail.vandelay.com kunde.example-bank.ch "
    "posta.firma.com.tr"
)
#: country code, lengths of groups; the first digit of the first group is never 0
_INTERNATIONAL = (
    ("1", (3, 3, 4)),
    ("44", (4, 6)),
    ("44", (2, 4, 4)),
    ("49", (2, 8)),
    ("49", (3, 7)),
    ("33", (1, 2, 2, 2, 2)),
    ("34", (3, 3, 3)),
    ("39", (3, 7)),
    ("31", (2, 7)),
    ("48", (3, 3, 3)),
    ("61", (1, 4, 4)),
    ("91", (5, 5)),
    ("81", (2, 4, 4)),
    ("86", (3, 4, 4)),
    ("55", (2, 5, 4)),
    ("353", (2, 3, 4)),
    ("420", (3, 3, 3)),
    ("972", (2, 3, 4)),
)
_NATIONAL = (
    ("0", (2, 4, 4), " "),
    ("0", (3, 3, 4), " "),
    ("0", (4, 6), " "),
    ("0", (1, 2, 2, 2, 2), " "),
    ("0", (2, 8), "/"),
    ("0", (3, 7), "/"),
    ("0", (3, 3, 3), " "),
    ("0", (1, 4, 4), " "),
)
_ISSUERS = (
    ("4", 16, 4),
    ("51", 16, 4),
    ("55", 16, 4),
    ("2221", 16, 4),
    ("2720", 16, 4),
    ("34", 15, 6),
    ("37", 15, 6),
    ("6011", 16, 4),
    ("65", 16, 4),
    ("3530", 16, 4),
    ("36", 14, 6),
    ("62", 16, 4),
)
#: ISO 13616 registry: country, form of the account part (n digits, a capital letters, c either)
_ACCOUNTS = (
    ("DE", "18n"),
    ("GB", "4a14n"),
    ("FR", "10n11c2n"),
    ("NL", "4a10n"),
    ("ES", "20n"),
    ("IT", "1a10n12c"),
    ("CH", "5n12c"),
    ("AT", "16n"),
    ("BE", "12n"),
    ("PL", "24n"),
    ("SE", "20n"),
    ("NO", "11n"),
    ("IE", "4a14n"),
    ("PT", "21n"),
    ("TR", "5n1n16c"),
    ("MT", "4a5n18c"),
    ("SA", "2n18c"),
)


def email(draw: random.Random) -> str:
    """A mail address of a person or a role in an organisation that is not reserved."""
    first, last = (_ascii(draw.choice(names.split())) for names in (_GIVEN, _SURNAMES))
    forms = (
        f"{first}.{last}",
        f"{first[0]}{last}",
        f"{last}.{first}",
        f"{first}_{last}{draw.randint(1, 99)}",
        f"{first}+{draw.choice(['alerts', 'vpn', 'test'])}",
        f"{last}-{first}",
        draw.choice(["billing", "hr", "j.doe", "x", "info42"]),
    )
    local = draw.choice(forms).lower() if draw.random() < 0.8 else draw.choice(forms)
    return f"{local}@{draw.choice(_ENTERPRISES.split())}"


def phone(draw: random.Random) -> str:
    """A telephone number as people write it: international, North American or with a trunk prefix."""
    style = draw.random()
    if style < 0.5:
        country, groups = draw.choice(_INTERNATIONAL)
        digits = [_digits(draw, size, first="2345678") for size in groups]
        if country == "1":
            digits = _nanp(draw)
        separator = draw.choice([" ", " ", "-", ".", ""])
        if separator == " " and country == "44" and draw.random() < 0.3:
            return f"+{country} (0){' '.join(digits)}"
        joined = separator.join(digits)
        return draw.choice([f"+{country}{separator}{joined}", f"+{country} {joined}", f"00{country} {joined}"])
    if style < 0.8:
        area, exchange, line = _nanp(draw)
        forms = (
            f"({area}) {exchange}-{line}",
            f"{area}-{exchange}-{line}",
            f"{area}.{exchange}.{line}",
            f"1-{area}-{exchange}-{line}",
            f"({area}){exchange}-{line}",
            f"{area}-{exchange}-{line} ext. {draw.randint(10, 9999)}",
            f"{area} {exchange} {line}",
        )
        return draw.choice(forms)
    trunk, groups, separator = draw.choice(_NATIONAL)
    first, *rest = (
        _digits(draw, size, first="123456789" if n == 0 else string.digits) for n, size in enumerate(groups)
    )
    return trunk + first + separator + separator.join(rest)


def _nanp(draw: random.Random) -> list[str]:
    while True:
        area, exchange = (_digits(draw, 3, first="23456789") for _ in range(2))
        if exchange not in {"555"} and not area.endswith("11") and not exchange.endswith("11"):
            return [area, exchange, _digits(draw, 4)]


def ssn(draw: random.Random) -> str:
    """A social security number in a range that is given out."""
    area = draw.choice([n for n in range(1, 900) if n != 666])
    return f"{area:03}-{draw.randint(1, 99):02}-{draw.randint(1, 9999):04}"


def card(draw: random.Random) -> str:
    """A card number with an issuer's digits and a right check digit, in one or in groups."""
    prefix, length, second = draw.choice(_ISSUERS)
    body = prefix + _digits(draw, length - len(prefix) - 1)
    total = sum(sum(divmod(int(d) * (2 if n % 2 == 0 else 1), 10)) for n, d in enumerate(reversed(body)))
    number = body + str(-total % 10)
    separator = draw.choice(["", " ", "-"])
    if not separator:
        return number
    if second == 6:
        return separator.join((number[:4], number[4:10], number[10:]))
    return separator.join(number[n : n + 4] for n in range(0, length, 4))


def iban(draw: random.Random) -> str:
    """An account number with right check digits, in one or in groups of four."""
    country, form = draw.choice(_ACCOUNTS)
    account, size = "", ""
    for char in form:
        if char.isdigit():
            size += char
            continue
        letters = {"n": string.digits, "a": string.ascii_uppercase, "c": string.digits + string.ascii_uppercase}[char]
        account += "".join(draw.choices(letters, k=int(size)))
        size = ""
    value = int("".join(str(int(char, 36)) for char in f"{account}{country}00"))
    number = f"{country}{98 - value % 97:02}{account}"
    return number if draw.random() < 0.5 else " ".join(number[n : n + 4] for n in range(0, len(number), 4))


def ip(draw: random.Random) -> str:
    """A public address."""
    while True:
        if draw.random() < 0.7:
            found: ipaddress.IPv4Address | ipaddress.IPv6Address = ipaddress.IPv4Address(draw.getrandbits(32))
            if int(found) >> 24 < 4:
                continue
        else:
            high = draw.choice([0x2A00, 0x2600, 0x2001, 0x2400, 0x2804])
            rest = draw.getrandbits(112) if draw.random() < 0.5 else draw.getrandbits(28) << 84 | draw.getrandbits(16)
            found = ipaddress.IPv6Address(high << 112 | rest)
        if found.is_global and not found.is_multicast:
            return str(found)


def person(draw: random.Random) -> str:
    """A full name."""
    given, surnames = _GIVEN.split(), _SURNAMES.replace("de Vries", "de_Vries").split()
    first, last = draw.choice(given), draw.choice(surnames).replace("_", " ")
    form = draw.random()
    if form < 0.1:
        return f"{first} {draw.choice(string.ascii_uppercase)}. {last}"
    if form < 0.2:
        return f"{last}, {first}"
    return f"{first} {last}"


def secret(draw: random.Random) -> str:
    """A token of a documented form, or a password; ``_around`` says where it may stand."""
    alphabet = string.ascii_letters + string.digits
    forms: tuple[Callable[[], str], ...] = (
        lambda: "AKIA" + _text(draw, string.ascii_uppercase + "234567", 16),
        lambda: "ghp_" + _text(draw, alphabet, 36),
        lambda: "github_pat_" + _text(draw, alphabet, 22) + "_" + _text(draw, alphabet, 59),
        lambda: "glpat-" + _text(draw, alphabet + "-_", 19) + draw.choice(alphabet),
        lambda: f"xoxb-{_digits(draw, 12)}-{_digits(draw, 13)}-{_text(draw, alphabet, 24)}",
        lambda: "sk-proj-" + _text(draw, alphabet, 48),
        lambda: "AIza" + _text(draw, alphabet, 35),
        lambda: "hvs." + _text(draw, alphabet, 90),
        lambda: "npm_" + _text(draw, alphabet, 36),
        lambda: _jwt(draw),
        lambda: _pem(draw),
    )
    return draw.choice(forms)()


def password(draw: random.Random) -> str:
    """What people choose."""
    word = draw.choice(["Winter", "Sommer", "welcome", "Hunter", "Dragon", "qwertz", "letmein", "Berlin"])
    return word + draw.choice(["2024!", "123", "#99", "_01", "!Q7", "$2025", "42x"])


def _jwt(draw: random.Random) -> str:
    parts = (
        '{"alg":"HS256","typ":"JWT"}',
        f'{{"sub":"{draw.randint(1, 10**9)}","iat":{draw.randint(10**9, 2 * 10**9)}}}',
    )
    head, body = (base64.urlsafe_b64encode(part.encode()).decode().rstrip("=") for part in parts)
    return f"{head}.{body}.{_text(draw, string.ascii_letters + string.digits + '-_', 42)}A"


def _pem(draw: random.Random) -> str:
    kind = draw.choice(["RSA ", "EC ", "", "OPENSSH "])
    lines = "\n".join(_text(draw, string.ascii_letters + string.digits + "+/", 64) for _ in range(3))
    return f"-----BEGIN {kind}PRIVATE KEY-----\n{lines}\n-----END {kind}PRIVATE KEY-----"


def _digits(draw: random.Random, count: int, first: str = string.digits) -> str:
    return draw.choice(first) + "".join(draw.choices(string.digits, k=count - 1))


def _text(draw: random.Random, alphabet: str, count: int) -> str:
    return "".join(draw.choices(alphabet, k=count))


def _ascii(name: str) -> str:
    import unicodedata

    plain = unicodedata.normalize("NFKD", name.replace("ł", "l").replace("Ł", "L").replace("ø", "o").replace("ı", "i"))
    return "".join(char for char in plain if char.isascii() and char.isalpha())


MAKERS: dict[str, Callable[[random.Random], str]] = {
    "email": email,
    "phone": phone,
    "ssn": ssn,
    "card": card,
    "iban": iban,
    "ip": ip,
    "person": person,
    "secret": secret,
}
#: where items of a kind stand; ``{}`` is the item
_AROUND: dict[str, tuple[str, ...]] = {
    "email": (
        "User {} cannot log in since this morning.",
        "From: <{}>\nSubject: VPN",
        "postfix/smtp[2211]: 3F2A: to=<{}>, relay=mx1[10.0.0.9]:25, status=bounced",
        "mailto:{}?subject=help",
        'login failed user="{}" src=10.1.2.3',
        "Please reply to {}, thank you",
        "{};{};active",
        "CC {}.",
    ),
    "phone": (
        "Call back under {} after 14:00.",
        "Phone: {}",
        "caller reachable at {}, desk 4.12",
        "Tel. {} / Room 301",
        "mobile {}.",
        "He left the number {} with the desk.",
        'phone="{}"',
    ),
    "ssn": ("SSN {} was in the attachment.", "employee record {} is locked", "social security number: {}", "({})"),
    "card": ("Payment with card {} declined.", "card={} amount=12.50", "customer read out {} on the phone", "PAN {}"),
    "iban": ("Refund to {} please.", "IBAN: {}", "account {}, reference 4711", "transfer from {} failed"),
    "ip": (
        "Connection from {} refused.",
        "sshd[811]: Failed password for root from {} port 50122 ssh2",
        "src={} dst=10.0.0.4 proto=tcp",
        "firewall dropped packets of {}.",
        "[client {}] request failed",
        "blocked {} after 5 attempts",
        '{} - - [10/Oct/2025:13:55:36 +0000] "GET / HTTP/1.1" 200 2326',
    ),
    "person": (
        "{} reports that the printer is offline.",
        "Spoke to {} about the outage.",
        "Assigned to {} for follow-up.",
        "Caller: {}\nLocation: Berlin",
        "Ticket was opened by {} yesterday.",
        "Regards,\n{}",
        "Kind regards\n{}\nAccounting",
        "The laptop of {} does not start.",
        "Approved by {}.",
        "cc {} and the desk",
    ),
    "secret": (
        "The key {} was pushed to the repository.",
        "export TOKEN={}",
        'config: {{"api_key": "{}"}}',
        "Authorization: Bearer {}",
        "pasted in chat: {}",
        "log: using credential {}",
    ),
}
_PASSWORDS = (
    "password={}",
    "pwd: {}",
    "user=app password='{}' host=db1",
    "postgres://app:{}@db.internal:5432/prod",
    "Server=sql1;Database=x;User Id=sa;Password={};Encrypt=true",
    "new password is {}",
    'DB_PASSWORD="{}"',
    "mysql -uroot --password={} prod",
    '{{"client_secret": "{}"}}',
)
#: lines in which nothing is personal, though much looks alike
NEGATIVES = (
    "2025-03-14T09:26:53.589793Z web-1 nginx: upstream timed out (110: Connection timed out)",
    "Mar 14 09:26:53 node-17 kernel: [123456.789012] eth0: link is up at 1000 Mbps",
    "upgraded openssl from 3.0.13 to 3.0.14, kernel 5.15.0-105-generic, driver 535.161.08.01",
    "firmware version 10.2.3.4 on switch sw-07, build 2024.11.20.1",
    "request id 550e8400-e29b-41d4-a716-446655440000 took 1234567890 ns",
    "blk_-1608999687919862906 replicated to 10.251.73.220:50010 and 10.251.91.84:50010",
    "order 4000123412341235 shipped, tracking 1Z999AA10123456784",
    "epoch 1767225600123456 and 1767225600123 ms, offset +02:00",
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/124.0.6367.91 Safari/537.36",
    "cluster 192.168.10.5, 172.16.4.9, 10.0.0.1 and 127.0.0.1 answered; docs use 203.0.113.7",
    "mac 00:1a:2b:3c:4d:5e, fe80::1, ::1, 2001:db8::5",
    "commit 9fceb02d0ae598e95dc970b74767f19372d61af8 deployed at 14:03:22",
    "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "password expired for service account, token: refreshed, secret: not found",
    "Failed password for invalid user admin from 10.0.0.8 port 22 ssh2",
    "kex: algorithm curve25519-sha256@libssh.org, cipher aes256-gcm@openssh.com",
    "systemd: user@1000.service entered failed state; getty@tty1.service restarted",
    "Contact the Service Desk at support@example.com or 555-0142 for help.",
    "Assigned to Network Operations, group Database Administrators, owner Platform Team",
    "Regards,\nService Desk",
    "Thanks,\nThe Monitoring Team",
    "Dear Customer, your request was received. Hello Team, please check.",
    "May Day holiday: Grant Access to Page Rank on Mark Three, Austin Data Center is closed",
    "Oracle Linux, Red Hat, Apache Spark and Jenkins Build 4512 are up",
    "disk usage 95% on /dev/sda1 (0012-3456), inode 4532015112830367",
    "oid 1.3.6.1.2.1.2.2.1.10.3 = 4294967295",
    "x=0x7ffeefbff5c8 y=3.14159265358979 z=-1.602e-19",
    "PO 2024-001-12345, invoice 2024-11-20/4711, room 030-12",
    "latency p50 212-867 ms, port range 32768-60999, pid 30123",
    "temperature 21.5 22.0 22.5 23.0, bytes 01 23 45 67 89 ab cd ef",
    "INC0012345 CHG0034567 PRB0001234 KB5034441 CVE-2024-12345",
    "tokens per second: 1200, token bucket size=100, key=value, primary key id",
    "user mira.k updated ticket, tech.4127 closed it",
    "std::vector<int>::push_back(a::b) at foo.cpp:1234:56",
    "java.lang.NullPointerException at com.shop.cart.Service@1b2c3d4",
    "AT20 rack and GB12 slot are free; DE44 ABCD is a label",
)


@dataclass(frozen=True, slots=True)
class Corpus:
    """Texts and what was planted: ``row``, ``kind``, ``start``, ``end`` (characters), ``text``."""

    texts: pl.Series
    truth: pl.DataFrame


def corpus(count: int, seed: int = 0) -> Corpus:
    """Texts of one to six lines, each line with one item or with none; the same seed gives the same texts."""
    draw = random.Random(seed)  # noqa: S311 - reproducible on purpose
    texts, truth = [], []
    for row in range(count):
        text = ""
        for _ in range(draw.randint(1, 6)):
            if draw.random() < 0.4:
                text += draw.choice(NEGATIVES) + "\n"
                continue
            kind = draw.choice(KINDS)
            item, frame = MAKERS[kind](draw), draw.choice(_AROUND[kind])
            if kind == "secret" and draw.random() < 0.4:
                item, frame = password(draw), draw.choice(_PASSWORDS)
            line = frame.replace("{{", "\0").replace("}}", "\1")
            for n, part in enumerate(line.split("{}")):
                if n:
                    truth.append((row, kind, len(text), len(text) + len(item), item))
                    text += item
                text += part.replace("\0", "{").replace("\1", "}")
            text += "\n"
        texts.append(text)
    schema = {"row": pl.UInt32, "kind": pl.String, "start": pl.Int32, "end": pl.Int32, "text": pl.String}
    return Corpus(pl.Series("text", texts), pl.DataFrame(truth, schema=schema, orient="row"))


def score(found: pl.DataFrame, truth: pl.DataFrame) -> pl.DataFrame:
    """A row a kind: ``planted``, ``found`` and ``recall`` (wholly covered by finds of that kind), ``covered`` (by any
    kind), ``finds``, ``right`` and ``precision`` (finds that overlap something planted of their kind)."""
    pairs = truth.with_row_index("item").join(found.with_row_index("find"), on="row", suffix="_found")
    pairs = pairs.filter((pl.col("start") < pl.col("end_found")) & (pl.col("start_found") < pl.col("end")))
    whole = (pl.col("start_found") <= pl.col("start")) & (pl.col("end_found") >= pl.col("end"))
    same = pl.col("kind") == pl.col("kind_found")
    hits = {
        "found": set(pairs.filter(whole & same)["item"]),
        "covered": set(pairs.filter(whole)["item"]),
        "right": set(pairs.filter(same)["find"]),
    }
    items, finds = truth.with_row_index("item"), found.with_row_index("find")
    rows = []
    for kind in KINDS:
        planted = set(items.filter(pl.col("kind") == kind)["item"])
        own = set(finds.filter(pl.col("kind") == kind)["find"])
        got, covered, right = planted & hits["found"], planted & hits["covered"], own & hits["right"]
        rows.append(
            {
                "kind": kind,
                "planted": len(planted),
                "found": len(got),
                "recall": len(got) / len(planted) if planted else None,
                "covered": len(covered) / len(planted) if planted else None,
                "finds": len(own),
                "right": len(right),
                "precision": len(right) / len(own) if own else None,
            }
        )
    return pl.DataFrame(rows)


def misses(found: pl.DataFrame, truth: pl.DataFrame) -> pl.DataFrame:
    """Planted items that no find covers."""
    pairs = truth.with_row_index("item").join(found, on="row", suffix="_found")
    whole = (pl.col("start_found") <= pl.col("start")) & (pl.col("end_found") >= pl.col("end"))
    return truth.with_row_index("item").join(pairs.filter(whole), on="item", how="anti").drop("item")
