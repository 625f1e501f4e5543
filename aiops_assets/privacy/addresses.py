"""E-mail and IP addresses in text.

What belongs here: addresses of RFC 5321 and RFC 6531, IPv4 and IPv6, and what only looks like one in logs. What does
not: telephone and account numbers (``numbers``).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from aiops_assets.privacy.spans import Detector, Span

_LABEL = r"[^\W_](?:[\w-]{0,61}[^\W_])?"
_AT = re.compile(rf"(?:@|%40)((?:{_LABEL}\.){{1,8}}(xn--[\w-]{{2,59}}|[^\W\d_]{{2,24}}))(?![\w-]|\.[^\W\d_])")
_LOCAL = re.compile(r"(?:\"[^\"\r\n]{1,62}\"|[\w!#$%&'*+/=?^`{|}~.-]{1,64})\Z")
#: what stands before an address in logs and belongs to its surroundings: ``to=<x@y>``, ``user=x@y``, ``'x@y'``
_SURROUNDINGS = re.compile(r".*[=/|'`{}?&*#^]")
#: what stands before is the start of an address such as ``ssh://git@host`` or ``postgres://app:key@host``
_USER_INFO = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{1,20}://[^\s/@]{0,64}\Z")
#: RFC 2606 and RFC 6761: names that are never anybody's
_RESERVED_DOMAINS = frozenset({"example.com", "example.net", "example.org"})
_RESERVED_TOP = frozenset({"example", "invalid", "test", "localhost"})
#: last labels of unit and file names, which are no top-level domains
_SUFFIXES = (
    "service socket timer mount automount target slice scope device swap path png jpg jpeg gif svg webp ico css js ts "
    "json html htm xml yaml yml toml ini conf cfg txt log csv pdf doc docx xls xlsx jar war class java exe dll bin "
    "tmp bak pem crt key lock whl deb rpm tgz gz bz"
)
_NOT_A_DOMAIN = frozenset(_SUFFIXES.split())
#: domains of names like ``aes128-gcm@openssh.com``, RFC 4251 section 6
_ALGORITHMS = frozenset({"openssh.com", "libssh.org", "lysator.liu.se", "ssh.com", "putty.projects.tartarus.org"})


def emails(text: str) -> Iterator[Span]:
    """Mail addresses; those in domains of RFC 2606 and RFC 6761 are reserved."""
    for match in _AT.finditer(text):
        domain, top = match[1].lower(), match[2].lower()
        before = _LOCAL.search(text, max(0, match.start() - 64), match.start())
        if before is None or top in _NOT_A_DOMAIN:
            continue
        local = before[0]
        if not local.startswith('"'):
            around = _SURROUNDINGS.match(local)
            local = (local[around.end() :] if around else local).lstrip(".-")
        if _USER_INFO.search(text, max(0, match.start() - 96), match.start() - len(local)):
            continue
        if not local or local.endswith(".") or ".." in local or not any(char.isalnum() for char in local):
            continue
        if domain in _ALGORITHMS or (local == "git" and text[match.end() : match.end() + 1] in {":", "/"}):
            continue
        reserved = top in _RESERVED_TOP or any(
            domain == name or domain.endswith(f".{name}") for name in _RESERVED_DOMAINS
        )
        yield Span(match.start() - len(local), match.end(), "email", reserved)


_OCTET = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_V4 = re.compile(r"\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}(?![\w-]|\.\w)", re.ASCII)
_V6 = re.compile(
    rf"(?:[23][0-9A-Fa-f]{{3}}|[Ff][CcDd][0-9A-Fa-f]{{2}}|:):(?:[0-9A-Fa-f]{{0,4}}:){{1,6}}"
    rf"(?:(?:{_OCTET}\.){{3}}{_OCTET}|[0-9A-Fa-f]{{1,4}}|)(?![\w:]|\.\w)",
    re.ASCII,
)
#: a word and a colon before an address, as in ``src:2a00::1``; a word of hexadecimal digits would be a part of it
_LABELLED = re.compile(r"(?<![\w:])[A-Za-z_]*[G-Zg-z_][A-Za-z_]*:\Z")
#: before a number in four parts that is a version: ``Chrome/124.0.0.0``, ``firmware 1.2.3.4``, ``pkg-1.2.3.4``
_VERSION_BEFORE = re.compile(
    r"(?:\b(?:v|ver|version|versions|release|rel|build|firmware|revision|rev|oid|driver|bios|patch|update|upgraded?|"
    r"downgraded?|agent|client|sdk|kernel)\b[\s:=\"'(]{0,3}(?:to |from )?[\"']?|[A-Za-z][\w.+]*[-/_]v?)\Z",
    re.IGNORECASE,
)
_ADDRESS_BEFORE = re.compile(
    r"(?:https?|ftp|tcp|udp|ssh|ip|ipv4|addr|address|host|src|dst|from|to|peer|client|remote|ldap|rtsp|"
    r"sip)[:=/\s]{0,3}/{0,2}\Z",
    re.IGNORECASE,
)


def addresses(text: str, *, infrastructure: bool = False) -> Iterator[Span]:
    """Public IP addresses. ``infrastructure``: private and shared ones too (RFC 1918, RFC 6598, RFC 4193).

    Documentation ranges (RFC 5737, RFC 3849) are reserved; loopback, link-local and multicast addresses never count.
    """
    for match in _V4.finditer(text):
        before = text[max(0, match.start() - 32) : match.start()]
        if before and (before[-1].isalnum() or before[-1] in "._"):
            continue
        if _VERSION_BEFORE.search(before) and not _ADDRESS_BEFORE.search(before):
            continue
        yield from _judged(match, infrastructure)
    if ":" not in text:
        return
    for match in _V6.finditer(text):
        inside = match.start() > 0 and (text[match.start() - 1].isalnum() or text[match.start() - 1] in "_.:")
        if inside and not _LABELLED.search(text, max(0, match.start() - 16), match.start()):
            continue
        yield from _judged(match, infrastructure)


_DOCUMENTATION = tuple(
    map(
        ipaddress.ip_network,
        ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32", "3fff::/20", "198.18.0.0/15"),
    )
)
_INTERNAL = tuple(
    map(ipaddress.ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"))
)
#: RFC 4291: what of IPv6 is given out; anything else with colons is code or a name
_UNICAST = ipaddress.ip_network("2000::/3")
#: the root of all SNMP object identifiers is no address
_OID = "1.3.6.1"


def _judged(match: re.Match[str], infrastructure: bool) -> Iterator[Span]:
    try:
        found: ipaddress.IPv4Address | ipaddress.IPv6Address = ipaddress.ip_address(match[0])
    except ValueError:
        return
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    if match[0] == _OID:
        return
    if any(found in network for network in _DOCUMENTATION):
        yield Span(match.start(), match.end(), "ip", reserved=True)
    elif any(found in network for network in _INTERNAL):
        if infrastructure:
            yield Span(match.start(), match.end(), "ip")
    elif found.is_global and not found.is_multicast and (found.version == 4 or found in _UNICAST):
        yield Span(match.start(), match.end(), "ip")


EMAIL = Detector("email", r"(?:@|%40)[^\s@]{1,190}\.(?:\p{L}{2}|xn--)", emails)
IP_PREFILTER = r"\d\.\d{1,3}\.\d{1,3}\.\d|(?i:[23][0-9a-f]{2,3}:[0-9a-f]{0,4}:)"
