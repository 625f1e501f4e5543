"""Keys: who may send to which source, who may read, who may act.

What belongs here: making, listing, revoking and verifying keys. What does not: how a key travels (``access``). A key is
``aiops_<id>_<secret>`` with 142 random bits in it, so ``keys.json`` holds its plain SHA-256: there is nothing to guess
that a slow, salted password hash would protect, and verification stays cheap enough for every request. Letters, digits
and underscores only, and 39 of them: so a key fits where clients are narrow, the DSN of Sentry's SDKs, the URL of a
journal upload, and the one line of base64 that netdata has for user and password.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import hmac
import logging
import os
import secrets
import string
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from aiops_assets.hours import MICROS_PER_SECOND
from aiops_assets.landing.segment import is_name
from aiops_assets.landing.writer import fsync_folder

log = logging.getLogger(__name__)

#: ``send``: deliver to its sources; ``read``: that, and see pages and metrics; ``operate``: that, and act on incidents
Role = Literal["send", "read", "operate"]
ANY_SOURCE = "*"
RELOAD_SECONDS = 1.0
MAX_KEY_BYTES = 200
_FILE, _ADMIN, _LOCK = "keys.json", "admin.key", ".keys.lock"
_ALPHABET, _SECRET_CHARS = string.ascii_letters + string.digits, 24
#: a key that is not known is looked for in the file at most so often, seconds
_LOOK_AGAIN_SECONDS = 0.05
_NOBODY = hashlib.sha256(b"").digest()


class KeysDamaged(Exception):
    """``keys.json`` cannot be understood; nobody is let in on a guess."""


class UnknownKey(Exception):
    """There is no such key."""


class Key(BaseModel):
    """What is stored of a key; the secret itself never is. Instants are microseconds since the epoch (UTC)."""

    model_config = ConfigDict(frozen=True)

    id: str
    name: str = Field(min_length=1, max_length=64)
    role: Role = "send"
    sources: tuple[str, ...] = (ANY_SOURCE,)
    digest: str = Field(pattern=r"^[0-9a-f]{64}$", repr=False)
    created_at: int
    revoked_at: int | None = None

    @field_validator("name")
    @classmethod
    def _printable(cls, name: str) -> str:
        if not name.isprintable():
            raise ValueError("a name of printable characters")
        return name

    @field_validator("sources")
    @classmethod
    def _names(cls, sources: tuple[str, ...]) -> tuple[str, ...]:
        for source in sources:
            if source != ANY_SOURCE and not is_name(source):
                raise ValueError(f"source {source!r}: use lower-case letters, digits, '_', '.', '-', or '*' for all")
        return sources


class _File(BaseModel):
    version: Literal[1] = 1
    keys: tuple[Key, ...] = ()


class Principal:
    """Who a verified key stands for."""

    __slots__ = ("key_id", "name", "only_source", "role", "sources")

    def __init__(self, key: Key) -> None:
        self.key_id, self.name, self.role = key.id, key.name, key.role
        self.sources = frozenset(key.sources)
        #: the source of deliveries that name none, when the key has exactly one
        self.only_source = key.sources[0] if len(key.sources) == 1 and ANY_SOURCE not in self.sources else None

    def may_send(self, source: str) -> bool:
        return source in self.sources or ANY_SOURCE in self.sources

    @property
    def may_read(self) -> bool:
        return self.role != "send"

    @property
    def may_operate(self) -> bool:
        return self.role == "operate"


def create_key(
    folder: Path, name: str, *, sources: Sequence[str] = (ANY_SOURCE,), role: Role = "send"
) -> tuple[Key, str]:
    """Make a key in a keys folder and return it with its clear text, which is kept nowhere else.

    Raises:
        pydantic.ValidationError: the name, a source or the role is not legal.
        KeysDamaged: ``keys.json`` cannot be understood.
    """
    with _locked(folder):
        return _create(folder, name, tuple(sources), role)


def list_keys(folder: Path) -> tuple[Key, ...]:
    """Every key ever made, revoked ones included, oldest first."""
    return _read(folder).keys


def revoke_key(folder: Path, key_id: str) -> Key:
    """End a key; running processes refuse it within ``RELOAD_SECONDS``. Revoking twice changes nothing.

    Raises:
        UnknownKey: there is no key with this id.
    """
    with _locked(folder):
        keys = _read(folder).keys
        found = next((key for key in keys if key.id == key_id), None)
        if found is None:
            raise UnknownKey(key_id)
        if found.revoked_at is not None:
            return found
        revoked = found.model_copy(update={"revoked_at": _now()})
        _write(folder, tuple(revoked if key.id == key_id else key for key in keys))
        return revoked


def ensure_admin_key(folder: Path) -> Path:
    """The file with the first key in clear text, for local tools; made when the folder has no keys yet.

    A file that somebody removed on purpose is not made again: create a key instead.
    """
    path = folder / _ADMIN
    with _locked(folder):
        if not (folder / _FILE).exists():
            key, clear = _new_key("admin", (ANY_SOURCE,), "operate")
            # The clear text first: after a crash in between, the next start makes both anew.
            write_private(path, clear.encode() + b"\n")
            _write(folder, (key,))
    return path


def write_private(path: Path, content: bytes) -> None:
    """Replace a file atomically and durably, readable by its owner alone."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


class KeyStore:
    """The keys in force, read again when the file changes.

    Raises:
        KeysDamaged: from the constructor only; a file that is damaged later is logged and the last good keys stay.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stamp: tuple[int, int, int] | None = None
        self._checked_at = 0.0
        self._keys: dict[bytes, tuple[bytes, Principal]] = {}
        self._load()

    def verify(self, key: bytes) -> Principal | None:
        """Who this key stands for; ``None`` for a key that is unknown, wrong or revoked."""
        now = time.monotonic()
        if now - self._checked_at >= RELOAD_SECONDS:
            self._reload(now)
        if len(key) > MAX_KEY_BYTES:
            return None
        key_id = key[6:].partition(b"_")[0]
        entry = self._keys.get(key_id)
        if entry is None and now - self._checked_at >= _LOOK_AGAIN_SECONDS:
            # It may have been made a moment ago, and some senders drop what is refused for its key.
            self._reload(now)
            entry = self._keys.get(key_id)
        digest = hashlib.sha256(key).digest()
        if entry is None:
            hmac.compare_digest(digest, _NOBODY)
            return None
        return entry[1] if hmac.compare_digest(digest, entry[0]) else None

    def principal(self, key_id: str) -> Principal | None:
        """Who a key id stands for, while the key is in force."""
        now = time.monotonic()
        if now - self._checked_at >= RELOAD_SECONDS:
            self._reload(now)
        entry = self._keys.get(key_id.encode())
        return entry[1] if entry else None

    def _reload(self, now: float) -> None:
        self._checked_at = now
        if self._stamp == _stamp(self.folder):
            return
        try:
            self._load()
        except KeysDamaged as error:
            log.error("the keys stay as they were: %s", error)

    def _load(self) -> None:
        stamp = _stamp(self.folder)
        keys = _read(self.folder).keys
        self._keys = {
            key.id.encode(): (bytes.fromhex(key.digest), Principal(key)) for key in keys if key.revoked_at is None
        }
        self._stamp, self._checked_at = stamp, time.monotonic()


def _new_key(name: str, sources: tuple[str, ...], role: Role) -> tuple[Key, str]:
    key_id = secrets.token_hex(4)
    clear = f"aiops_{key_id}_{''.join(secrets.choice(_ALPHABET) for _ in range(_SECRET_CHARS))}"
    digest = hashlib.sha256(clear.encode()).hexdigest()
    return Key(id=key_id, name=name, role=role, sources=sources, digest=digest, created_at=_now()), clear


def _create(folder: Path, name: str, sources: tuple[str, ...], role: Role) -> tuple[Key, str]:
    keys = _read(folder).keys
    key, clear = _new_key(name, sources, role)
    while any(key.id == other.id for other in keys):
        key, clear = _new_key(name, sources, role)
    _write(folder, (*keys, key))
    return key, clear


def _now() -> int:
    return time.time_ns() * MICROS_PER_SECOND // 1_000_000_000


def _stamp(folder: Path) -> tuple[int, int, int] | None:
    try:
        stat = (folder / _FILE).stat()
    except FileNotFoundError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def _read(folder: Path) -> _File:
    try:
        return _File.model_validate_json((folder / _FILE).read_bytes())
    except FileNotFoundError:
        return _File()
    except ValidationError as error:
        raise KeysDamaged(
            f"{folder / _FILE}: {error.error_count()} problems, first: {error.errors()[0]['msg']}"
        ) from None


def _write(folder: Path, keys: tuple[Key, ...]) -> None:
    write_private(folder / _FILE, _File(keys=keys).model_dump_json(indent=1).encode() + b"\n")


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process at a time changes the keys."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
