"""How a key travels in a request.

What belongs here: finding a key in headers and a session in a cookie, and telling a page's own requests from those of
other sites. What does not: whether a key is good (``keys``). ``Forwarded`` and ``X-Forwarded-*`` are never believed:
there is no privilege in being local, so there is nothing they could forge.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

_SCHEMES = frozenset({b"bearer", b"token", b"key"})


def key_of(headers: Mapping[bytes, bytes]) -> bytes | None:
    """The key in ``Authorization: Bearer|Token|Key <key>`` or ``X-Api-Key: <key>``, if there is one.

    It may also be the password of ``Authorization: Basic``; the user name says nothing.
    """
    authorization = headers.get(b"authorization")
    if authorization is not None:
        scheme, _, key = authorization.partition(b" ")
        if scheme.lower() in _SCHEMES:
            return key.strip()
        if scheme.lower() == b"basic":
            return _password(key.strip())
    return headers.get(b"x-api-key")


def _password(encoded: bytes) -> bytes | None:
    try:
        _, colon, password = base64.b64decode(encoded, validate=True).partition(b":")
    except binascii.Error:
        return None
    return password if colon else None


def cookie_of(headers: Mapping[bytes, bytes], name: str) -> str | None:
    """The value of a cookie, if it is there and readable."""
    text = headers.get(b"cookie")
    if text is None:
        return None
    cookies: SimpleCookie = SimpleCookie()
    try:
        cookies.load(text.decode("latin-1"))
    except CookieError:
        return None
    morsel = cookies.get(name)
    return morsel.value if morsel else None


def is_same_origin(headers: Mapping[bytes, bytes]) -> bool:
    """Whether a browser says that one of our own pages sent this; without any word from it the answer is no.

    ``Sec-Fetch-Site`` where browsers send it, else ``Origin`` compared with ``Host``
    (OWASP, Cross-Site Request Forgery Prevention, "Fetch Metadata headers" and "Verifying origin").
    """
    site = headers.get(b"sec-fetch-site")
    if site is not None:
        return site == b"same-origin"
    origin, host = headers.get(b"origin"), headers.get(b"host")
    if origin is None or not host:
        return False
    try:
        return urlsplit(origin.decode("latin-1")).netloc.lower() == host.decode("latin-1").lower()
    except ValueError:
        return False


def local_target(target: str) -> str:
    """A path on this site to return to after login; anything else becomes the incident list."""
    if not target.startswith("/") or target.startswith("//") or "\\" in target or not target.isprintable():
        return "/incidents"
    return target
