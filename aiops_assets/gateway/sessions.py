"""Browser sessions: a signed cookie in place of a key in every request.

What belongs here: signing and checking the cookie. What does not: the login form (``pages``) and what a principal may
do (``keys``, ``access``). The cookie names a key, never contains it, and dies with it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
import time
from pathlib import Path

from aiops_assets.gateway.keys import KeyStore, Principal, write_private

COOKIE = "aiops_session"
LIFETIME_SECONDS = 12 * 3600
_SECRET_BYTES = 32


class Sessions:
    """Signs and checks session cookies with HMAC-SHA256; the secret lies in ``session.secret``, mode 0600."""

    def __init__(self, folder: Path, keys: KeyStore) -> None:
        self._keys = keys
        self._secret = _secret(folder / "session.secret")

    def issue(self, principal: Principal, now: float | None = None) -> str:
        """A cookie value for this principal; ``now`` in seconds since the epoch."""
        expires = int((time.time() if now is None else now) + LIFETIME_SECONDS)
        payload = f"{principal.key_id}.{expires}"
        return f"{payload}.{self._signature(payload)}"

    def principal(self, cookie: str, now: float | None = None) -> Principal | None:
        """Who a cookie stands for; ``None`` when it is forged, too old, or its key was revoked."""
        payload, _, signature = cookie.rpartition(".")
        if not hmac.compare_digest(signature.encode("utf-8", "replace"), self._signature(payload).encode()):
            return None
        key_id, _, expires = payload.partition(".")
        if int(expires) <= (time.time() if now is None else now):
            return None
        return self._keys.principal(key_id)

    def _signature(self, payload: str) -> str:
        digest = hmac.digest(self._secret, b"session:" + payload.encode("utf-8", "replace"), hashlib.sha256)
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def _secret(path: Path) -> bytes:
    try:
        secret = base64.b64decode(path.read_bytes(), validate=False)
    except (FileNotFoundError, binascii.Error):
        secret = b""
    if len(secret) < _SECRET_BYTES:
        secret = secrets.token_bytes(_SECRET_BYTES)
        write_private(path, base64.b64encode(secret) + b"\n")
    return secret
