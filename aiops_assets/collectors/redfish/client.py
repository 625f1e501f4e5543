"""The connection to one Redfish service: certificates, sessions, bounded requests.

What belongs here: how a resource is asked for and what can go wrong with that, in words for people. What does not:
which resources are asked for (``poll``) and what they mean (``resources``).

Nothing but the device itself is ever asked: links and redirects that lead elsewhere are refused, so neither a session
nor a password leaves for another host. Messages name resources and statuses, never credentials or tokens.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import logging
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import orjson

from aiops_assets.collectors.redfish.fields import LONGEST_PATH, ROOT, link
from aiops_assets.collectors.redfish.fields import field as property_of
from aiops_assets.config import Device

log = logging.getLogger(__name__)

#: of one resource no more than this is read
MAX_BODY_BYTES = 16 * 1024 * 1024
MAX_REDIRECTS = 3
#: requests under way at once; more than a few slow down the controller itself
CONCURRENCY = 3
#: a service that is busy is waited for no longer than this before it is asked again (seconds)
LONGEST_PAUSE = 5.0
FIRST_PAUSE = 0.25
#: refused credentials are not tried again before this, doubling each time, so that no account gets locked (seconds)
REFUSED_SECONDS = 300.0
LONGEST_REFUSED_SECONDS = 3_600.0
#: sessions that were refused for another reason than the credentials are tried again after this (seconds)
SESSIONS_AGAIN_SECONDS = 3_600.0
LOGOUT_SECONDS = 3.0
KEEP_ALIVE_SECONDS = 100.0
MOST_ADDRESSES = 5_000
#: an answer that keeps coming may take so many times the timeout
WHOLE_ANSWER = 4

_BUSY = frozenset({429, 502, 503, 504})
_GONE = frozenset({404, 410})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_SESSIONS = f"{ROOT}/SessionService/Sessions"

for _name in ("httpx", "httpcore"):
    # Their debug messages hold headers, session tokens among them.
    logging.getLogger(_name).setLevel(logging.WARNING)


class ServiceError(Exception):
    """A resource could not be had; the message says why, for people."""


class Missing(ServiceError):
    """The resource does not exist (404, 410)."""


class Slow(ServiceError):
    """No answer within the timeout of a request."""


class Forbidden(ServiceError):
    """These credentials may not read this resource, others they may (401 with a fresh session, 403)."""


class Broken(ServiceError):
    """The connection broke before the answer was whole."""


class Unreachable(ServiceError):
    """No connection: nothing else of this device need be tried in this poll."""


class Refused(ServiceError):
    """The credentials or the certificate are not accepted: nothing else need be tried either."""


@dataclass(slots=True)
class Answer:
    """A resource as it came: ``body`` is a JSON object, empty with ``unchanged`` (304)."""

    body: dict[str, Any]
    etag: str | None = None
    unchanged: bool = False


@dataclass(slots=True)
class _Login:
    """How requests are authenticated at the moment; ``generation`` counts logins."""

    token: str | None = None
    location: str | None = None
    basic: bool = False
    #: a request has succeeded with it
    proven: bool = False
    generation: int = 0
    sessions_again_at: float = 0.0
    refused_until: float = 0.0
    refusals: int = 0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class _Pinned(ssl.SSLObject):
    """A TLS connection that is given up unless the other side's certificate is the pinned one."""

    def do_handshake(self) -> None:
        super().do_handshake()
        found = hashlib.sha256(self.getpeercert(binary_form=True) or b"").hexdigest()
        wanted = getattr(self.context, "pinned", None)
        if found != wanted:
            raise ssl.SSLCertVerificationError(1, f"its certificate has the fingerprint {found}, not the pinned one")


class _PinnedContext(ssl.SSLContext):
    """Verifies by fingerprint alone: who issued the certificate, for which name and for how long does not count."""

    pinned: str


def pinned_context(fingerprint: str) -> ssl.SSLContext:
    """A client context that accepts the one certificate with this SHA-256 fingerprint (64 hex digits)."""
    context = _PinnedContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.sslobject_class = _Pinned
    context.pinned = plain_fingerprint(fingerprint)
    return context


def plain_fingerprint(fingerprint: str) -> str:
    """A fingerprint without colons and in lower case."""
    return fingerprint.lower().removeprefix("sha256:").replace(":", "").replace(" ", "")


@lru_cache(maxsize=64)
def _trusting(ca_file: str | None, changed_at: int) -> ssl.SSLContext:
    """A context shared by all devices of one authority, because it holds all its certificates."""
    return ssl.create_default_context(cafile=ca_file)


def context_of(device: Device) -> ssl.SSLContext:
    """How the certificate of a device is verified.

    Raises:
        Refused: the CA file cannot be read; the message names the field.
    """
    redfish = device.redfish
    if redfish.fingerprint:
        return pinned_context(redfish.fingerprint)
    try:
        changed_at = Path(redfish.ca_file).stat().st_mtime_ns if redfish.ca_file else 0
        return _trusting(redfish.ca_file, changed_at)
    except (OSError, ssl.SSLError) as error:
        raise Refused(f"redfish.ca_file {redfish.ca_file}: expected a PEM file with certificates: {error}") from error


def base_url(device: Device) -> httpx.URL:
    """Where the service of a device is.

    Raises:
        Refused: the address is no host or host:port.
    """
    address = device.address
    if address.count(":") > 1 and not address.startswith("["):
        address = f"[{address}]"
    try:
        parts = urlsplit(f"//{address}")
        if not parts.hostname or parts.username is not None or parts.path or parts.query or parts.fragment:
            raise ValueError("something else")
        return httpx.URL(scheme=device.redfish.scheme, host=parts.hostname, port=parts.port)
    except (ValueError, httpx.InvalidURL) as error:
        raise Refused(f"address {device.address}: expected host or host:port") from error


class Service:
    """One Redfish service. Requests of several tasks may be under way at once."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._url = base_url(device)
        self._login = _Login()
        self._client: httpx.AsyncClient | None = None
        self._sessions: str | None = _SESSIONS
        self._urls: dict[str, httpx.URL] = {}
        #: requests sent since the start
        self.requests = 0

    # --- paths -----------------------------------------------------------------------------------------------------

    def path(self, target: str) -> str | None:
        """A link as a path of this service (with its query), ``None`` when it leads elsewhere or nowhere."""
        target = target.partition("#")[0].strip()
        if "://" in target or target.startswith("//"):
            try:
                url = httpx.URL(target)
                same = url.host == self._url.host and (not url.scheme or url.scheme in {"http", "https"})
                target = url.raw_path.decode("ascii") if same else ""
            except (httpx.InvalidURL, UnicodeError):
                return None
        if target and not target.startswith("/"):
            target = f"/{target}"
        before, mark, query = target.partition("?")
        before = before.rstrip("/")
        usable = before.lower().startswith("/redfish") and ".." not in before and "\\" not in before
        usable = usable and before.isprintable() and query.isprintable() and len(target) <= LONGEST_PATH
        return f"{before}{mark}{query}" if usable else None

    # --- requests --------------------------------------------------------------------------------------------------

    async def get(self, path: str, etag: str | None = None) -> Answer:
        """A resource as JSON object.

        A busy service (429, 502, 503, 504) and a broken connection are tried again, ``retries`` times. An answer that
        does not come in time is not: the controller is still at it.

        Raises:
            ServiceError: one of its kinds, each of which says how far the trouble reaches.
        """
        headers = {"If-None-Match": etag} if etag else {}
        # The root is open to everybody, and says whether there are sessions.
        is_open = path.rstrip("/") == ROOT
        generation = self._login.generation if is_open else await self._logged_in()
        response, body = await self._patiently("GET", path, headers)
        if response.status_code == 401 and self._device.redfish.user and await self._log_in_again(generation):
            response, body = await self._patiently("GET", path, headers)
        if response.is_success and not is_open:
            self._login.proven = True
        return self._answer(path, response, body)

    def _answer(self, path: str, response: httpx.Response, body: bytes) -> Answer:
        status = response.status_code
        if status == 304:
            return Answer({}, response.headers.get("etag"), unchanged=True)
        if status in _GONE:
            raise Missing(f"GET {path}: not there ({status})")
        if status in {401, 403}:
            hint = " by this user" if self._device.redfish.user else "; give redfish.user and redfish.password"
            raise Forbidden(f"GET {path}: may not be read ({status}){hint}")
        if not 200 <= status < 300:
            raise ServiceError(f"GET {path}: answers {status}")
        try:
            content = orjson.loads(body.removeprefix(b"\xef\xbb\xbf"))
        except orjson.JSONDecodeError as error:
            raise ServiceError(f"GET {path}: not JSON: {error}") from error
        if not isinstance(content, dict):
            raise ServiceError(f"GET {path}: expected a JSON object")
        return Answer(content, response.headers.get("etag"))

    async def _patiently(
        self, method: str, path: str, headers: Mapping[str, str], content: bytes | None = None
    ) -> tuple[httpx.Response, bytes]:
        pause = FIRST_PAUSE
        for attempt in range(self._device.retries + 1):
            last = attempt == self._device.retries
            try:
                response, body = await self._following(method, path, headers, content)
            except (Broken, Unreachable):
                if last:
                    raise
            else:
                if response.status_code not in _BUSY or last:
                    return response, body
                pause = max(pause, min(_retry_after(response), LONGEST_PAUSE))
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)
        raise AssertionError("the last attempt returns or raises")

    async def _following(
        self, method: str, path: str, headers: Mapping[str, str], content: bytes | None
    ) -> tuple[httpx.Response, bytes]:
        """Follow redirects that stay on this device, for GET only."""
        wanted, trailing = path, False
        for _ in range(MAX_REDIRECTS + 1):
            response, body = await self._once(method, f"{wanted}/" if trailing else wanted, headers, content)
            if response.status_code not in _REDIRECTS or method != "GET":
                return response, body
            target = response.headers.get("location", "")
            found = self.path(target)
            url = _parsed(target)
            if found is None or url is None or (url.scheme and url.scheme != self._url.scheme):
                hint = "; redfish.scheme: https may help" if target.startswith("https://") else ""
                raise ServiceError(f"{method} {path}: redirects away from the service{hint}")
            trailing = url.path.endswith("/") and not url.query
            wanted = found
        raise ServiceError(f"{method} {path}: more than {MAX_REDIRECTS} redirects")

    async def _once(
        self, method: str, path: str, headers: Mapping[str, str], content: bytes | None
    ) -> tuple[httpx.Response, bytes]:
        client = self._open()
        self.requests += 1
        auth = self._authorization() if method != "POST" else {}
        kind = {"Content-Type": "application/json"} if content is not None else {}
        try:
            async with (
                asyncio.timeout(self._device.timeout * WHOLE_ANSWER),
                client.stream(method, self._at(path), headers={**headers, **kind, **auth}, content=content) as response,
            ):
                return response, await _body(response, f"{method} {path}")
        except TimeoutError as error:
            limit = self._device.timeout * WHOLE_ANSWER
            raise Slow(f"{method} {path}: its answer takes more than {limit:g} s") from error
        except httpx.TimeoutException as error:
            if isinstance(error, httpx.ConnectTimeout):
                raise Unreachable(f"no connection within {self._device.timeout:g} s") from error
            raise Slow(f"{method} {path}: no answer within {self._device.timeout:g} s") from error
        except httpx.TransportError as error:
            certificate = _certificate_problem(error)
            if certificate is not None:
                raise Refused(await self._explain(certificate)) from error
            if isinstance(error, httpx.ConnectError):
                raise Unreachable(f"no connection: {_why(error)}") from error
            raise Broken(f"{method} {path}: the connection broke: {_why(error)}") from error
        except (httpx.DecodingError, httpx.InvalidURL, UnicodeError) as error:
            raise ServiceError(f"{method} {path}: {_why(error)}") from error

    def _at(self, path: str) -> httpx.URL:
        """The address of a path, remembered because the same ones are asked for again and again."""
        url = self._urls.get(path)
        if url is None:
            if len(self._urls) >= MOST_ADDRESSES:
                self._urls.clear()
            url = self._urls[path] = self._url.join(path)
        return url

    def _open(self) -> httpx.AsyncClient:
        if self._client is None:
            device = self._device
            self._client = httpx.AsyncClient(
                verify=context_of(device) if device.redfish.scheme == "https" else False,
                timeout=httpx.Timeout(device.timeout),
                limits=httpx.Limits(
                    max_connections=CONCURRENCY,
                    max_keepalive_connections=CONCURRENCY,
                    keepalive_expiry=KEEP_ALIVE_SECONDS,
                ),
                headers={"Accept": "application/json", "OData-Version": "4.0", "User-Agent": "aiops"},
                follow_redirects=False,
                # Proxies and authorities of the environment are not for devices.
                trust_env=False,
            )
        return self._client

    # --- who we are ------------------------------------------------------------------------------------------------

    def _authorization(self) -> dict[str, str]:
        login, redfish = self._login, self._device.redfish
        if login.token is not None:
            return {"X-Auth-Token": login.token}
        if login.basic and redfish.user:
            password = redfish.password.get_secret_value() if redfish.password else ""
            return {"Authorization": f"Basic {base64.b64encode(f'{redfish.user}:{password}'.encode()).decode()}"}
        return {}

    async def _logged_in(self) -> int:
        """Log in unless that is done; returns which login is in force."""
        login = self._login
        if not self._device.redfish.user:
            return 0
        async with login.lock:
            self._check_refused()
            stale = login.basic and self._device.redfish.session and time.monotonic() >= login.sessions_again_at
            if (login.token is None and not login.basic) or stale:
                await self._log_in()
            return login.generation

    async def _log_in_again(self, generation: int) -> bool:
        """The session has ended: begin another, once for all requests that noticed. Whether to ask again."""
        login = self._login
        async with login.lock:
            if login.generation != generation:
                return True
            self._check_refused()
            if login.basic:
                if login.proven:
                    return False
                self._note_refusal()
                self._check_refused()
            if login.location is not None:
                # Where it is a matter of rights, the session still lives and would never be used again.
                await self._patiently("DELETE", login.location, {})
            await self._log_in()
            return True

    def _check_refused(self) -> None:
        wait = self._login.refused_until - time.monotonic()
        if wait > 0:
            raise Refused(f"user {self._device.redfish.user} is refused (401); tried again in {wait:.0f} s")

    def _note_refusal(self) -> None:
        login = self._login
        pause = min(REFUSED_SECONDS * 2.0**login.refusals, LONGEST_REFUSED_SECONDS)
        login.refusals = min(login.refusals + 1, 16)
        login.refused_until = time.monotonic() + pause
        login.token = login.location = None
        login.basic = False

    async def _log_in(self) -> None:
        login, redfish = self._login, self._device.redfish
        login.token = login.location = None
        login.basic = login.proven = False
        if redfish.session and self._sessions is not None:
            password = redfish.password.get_secret_value() if redfish.password else ""
            content = orjson.dumps({"UserName": redfish.user, "Password": password})
            try:
                response, body = await self._patiently("POST", self._sessions, {}, content)
            except (Slow, Broken) as error:
                raise Unreachable(f"no session: {error}") from error
            token = response.headers.get("x-auth-token")
            if response.is_success and token:
                location = response.headers.get("location") or _location(body)
                login.token, login.location = token, self.path(location) if location else None
                login.refusals = 0
                login.generation += 1
                return
            if response.status_code == 401:
                self._note_refusal()
                raise Refused(f"user {redfish.user} is refused (401): check redfish.user and redfish.password")
            log.info("%s gives no session (%d): basic authentication", self._device.name, response.status_code)
        login.basic = True
        login.sessions_again_at = time.monotonic() + SESSIONS_AGAIN_SECONDS
        login.generation += 1

    def sessions_at(self, root: Mapping[str, Any]) -> None:
        """Learn from the service root where sessions are made, or that there are none."""
        target = link(property_of(property_of(root, "Links"), "Sessions"))
        service = link(property_of(root, "SessionService"))
        found = self.path(target) if target is not None else None
        if found is not None:
            self._sessions = found
        elif service is None and property_of(root, "Systems") is not None:
            self._sessions = None

    # --- the end ---------------------------------------------------------------------------------------------------

    async def close(self) -> None:
        """End the session and close connections; what the device says to that does not matter."""
        client, login = self._client, self._login
        location, token = login.location, login.token
        self._client = None
        if client is None:
            return
        try:
            if location is not None and token is not None:
                with contextlib.suppress(httpx.HTTPError, TimeoutError):
                    async with asyncio.timeout(LOGOUT_SECONDS):
                        await client.delete(self._url.join(location), headers={"X-Auth-Token": token})
        finally:
            login.token = login.location = None
            await client.aclose()

    async def _explain(self, problem: str) -> str:
        """What is wrong with the certificate, and which fingerprint could be pinned instead."""
        if self._device.redfish.fingerprint:
            return f"{problem}; if it was replaced on purpose, change redfish.fingerprint"
        found = await self._fingerprint()
        pin = f" or, when it is its own, redfish.fingerprint: {found}" if found else " or redfish.fingerprint"
        return f"its certificate is not trusted ({problem}): give redfish.ca_file{pin}"

    async def _fingerprint(self) -> str | None:
        """The fingerprint of the certificate that the device shows; nothing is sent to it."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        try:
            async with asyncio.timeout(self._device.timeout), _connection(self._url, context) as writer:
                shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
                return hashlib.sha256(shown).hexdigest() if shown else None
        except (OSError, TimeoutError):
            return None


@contextlib.asynccontextmanager
async def _connection(url: httpx.URL, context: ssl.SSLContext) -> AsyncIterator[asyncio.StreamWriter]:
    _, writer = await asyncio.open_connection(url.host, url.port or 443, ssl=context, server_hostname=url.host)
    try:
        yield writer
    finally:
        writer.transport.abort()


async def _body(response: httpx.Response, what: str) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in response.aiter_bytes():
        size += len(part)
        if size > MAX_BODY_BYTES:
            raise ServiceError(f"{what}: more than {MAX_BODY_BYTES // 1024 // 1024} MiB")
        parts.append(part)
    return b"".join(parts)


def _location(body: bytes) -> str | None:
    """Where a new session is, for services that say so in the body only."""
    try:
        return link(orjson.loads(body))
    except orjson.JSONDecodeError:
        return None


def _parsed(target: str) -> httpx.URL | None:
    try:
        return httpx.URL(target)
    except httpx.InvalidURL:
        return None


def _retry_after(response: httpx.Response) -> float:
    value = response.headers.get("retry-after", "")
    return float(value) if value.isascii() and value.isdigit() and len(value) < 9 else 0.0


def _certificate_problem(error: BaseException | None) -> str | None:
    """What is wrong with the certificate, when that is what ended the connection."""
    seen = 0
    while error is not None and seen < 8:
        if isinstance(error, ssl.SSLCertVerificationError):
            return getattr(error, "verify_message", None) or str(error.args[-1] if error.args else error)
        error, seen = error.__cause__ or error.__context__, seen + 1
    return None


def _why(error: BaseException) -> str:
    return str(error) or type(error).__name__


def advertised_expand(root: Mapping[str, Any]) -> str | None:
    """The query that makes a collection bring its members, when the service root says that it can."""
    query = property_of(property_of(root, "ProtocolFeaturesSupported"), "ExpandQuery")
    if not isinstance(query, dict):
        return None
    sign = "." if property_of(query, "NoLinks") is True else "*" if property_of(query, "ExpandAll") is True else None
    if sign is None:
        return None
    return f"$expand={sign}($levels=1)" if property_of(query, "Levels") is True else f"$expand={sign}"
