"""One API as a polite guest uses it: verified TLS, deadlines, bounded retries and answers, limits obeyed.

What belongs here: requests and what their failures mean, and that no secret is ever part of a message. What does not:
which requests are made (the clients) and what becomes of the answers (``poller``).
"""

from __future__ import annotations

import asyncio
import base64
import logging
import random
import re
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import orjson

from aiops_assets.collectors.pull.limits import exhausted_until, refused_until
from aiops_assets.config import Pull

#: an answer is never longer than this, unpacked
MAX_ANSWER_BYTES = 64 * 1024 * 1024
ATTEMPTS = 4
#: waits up to this long are waited out within a poll (seconds)
SHORT_WAIT = 5.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 8.0
_CONNECT_SECONDS = 10.0
#: less time than this is not enough for a request (seconds)
_LEAST_SECONDS = 0.05
_AGAIN = frozenset({408, 425, 500, 502, 503, 504})
_QUERY = re.compile(r"(https?://[^\s'\"?]+)\?[^\s'\"]*")

# Their messages hold whole addresses and, when debugging, headers.
for _name in ("httpx", "httpcore", "h11"):
    logging.getLogger(_name).setLevel(logging.WARNING)


class ApiError(Exception):
    """The API cannot be asked, or refuses; the text says why and what to do, without secrets."""

    #: the HTTP status, 0 when there was no answer
    status: int = 0

    def __init__(self, text: str, status: int = 0) -> None:
        super().__init__(text)
        self.status = status


class Paused(Exception):
    """The server asked not to be asked before ``until`` (seconds since the epoch)."""

    def __init__(self, until: float) -> None:
        super().__init__(f"asked to wait until {clock(until)}")
        self.until = until


class OutOfTime(Exception):
    """The deadline of this poll has come."""


class TooMuch(Exception):
    """The answer is larger than is taken, or than the server gives, at once: ask for a shorter time."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer with status 200; ``headers`` have lower-case names."""

    body: bytes
    headers: Mapping[str, str]

    def json(self) -> Any:
        """Its JSON.

        Raises:
            ApiError: it is none.
        """
        try:
            return orjson.loads(self.body)
        except orjson.JSONDecodeError as error:
            kind = self.headers.get("content-type", "no content type")
            raise ApiError(f"the answer is no JSON ({kind}): {error}") from error


def clock(at: float) -> str:
    """An instant (seconds since the epoch) for people."""
    return time.strftime("%H:%M:%SZ", time.gmtime(at))


class Api:
    """The requests of one pull. ``begin`` opens a turn; every request of the turn keeps its deadline."""

    def __init__(
        self,
        pull: Pull,
        headers: Mapping[str, str],
        *,
        clock: Callable[[], float] = time.time,
        pause: float = _FIRST_PAUSE,
    ) -> None:
        self.base = pull.url.rstrip("/")
        self._timeout = pull.timeout
        self._clock, self._first_pause = clock, pause
        self._headers = {"Accept-Encoding": "gzip, deflate", "User-Agent": "aiops-collector", **headers}
        self._ca_file = pull.ca_file
        self._secrets = _spellings(pull, headers)
        self._until = 0.0
        #: not before this instant (seconds since the epoch)
        self.paused_until = 0.0
        #: whether the length of the last streamed answer was told, so that one that breaks off is noticed
        self.framed = True
        self._client: httpx.AsyncClient | None = None
        self._random = random.Random()  # noqa: S311 - spreads retries, protects nothing

    def begin(self, seconds: float) -> None:
        """A turn begins that may take this long."""
        self._until = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds that are left of the turn."""
        return self._until - time.monotonic()

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def ask(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        form: Mapping[str, Any] | None = None,
        json: object = None,
        again: Callable[[bytes], bool] = lambda body: False,
    ) -> Answer:
        """One whole answer, asked for again when that may help; ``again`` says that a body is torn.

        ``path`` is a path, or a whole address on the same server (a link that the server gave).

        Raises:
            ApiError: it refuses, or does not answer after ``ATTEMPTS``.
            Paused, OutOfTime, TooMuch: as their names say.
        """
        problem = ""
        for attempt in range(ATTEMPTS):
            await self._ready(attempt)
            try:
                async with self._stream(method, path, params, form, json) as answer:
                    parts: list[bytes] = []
                    size = 0
                    async for part in answer.aiter_bytes():
                        size += len(part)
                        if size > MAX_ANSWER_BYTES:
                            raise TooMuch(f"an answer of more than {MAX_ANSWER_BYTES >> 20} MiB")
                        parts.append(part)
                    body = b"".join(parts)
                    problem = self._judged(answer, body, path)
                    if not problem:
                        if not again(body):
                            return Answer(body, _lower(answer.headers))
                        problem = "the answer is torn"
            except httpx.HTTPError as error:
                problem = self._told(error)
        raise ApiError(f"{self._shown_address(path)}: {ATTEMPTS} attempts failed, the last: {problem}")

    async def lines(self, method: str, path: str, form: Mapping[str, Any]) -> AsyncIterator[bytes]:
        """The lines of an answer that streams, as they come. Only the beginning is asked for again.

        Raises:
            ApiError: also when it breaks off; what came before was given.
            Paused, OutOfTime: as ``ask``; out of time also in the middle.
        """
        problem = ""
        for attempt in range(ATTEMPTS):
            await self._ready(attempt)
            begun = False
            try:
                async with self._stream(method, path, None, form, None) as answer:
                    if answer.status_code != 200:
                        problem = self._judged(answer, await answer.aread(), path)
                        continue
                    begun = True
                    self.framed = not {"content-length", "transfer-encoding"}.isdisjoint(answer.headers)
                    self._judged(answer, b"", path)
                    rest = b""
                    async for part in answer.aiter_bytes():
                        *whole, rest = (rest + part).split(b"\n")
                        if len(rest) > MAX_ANSWER_BYTES:
                            raise TooMuch(f"a line of more than {MAX_ANSWER_BYTES >> 20} MiB")
                        for line in whole:
                            yield line
                    if rest.strip():
                        yield rest
                    return
            except httpx.HTTPError as error:
                problem = self._told(error)
                if begun:
                    raise ApiError(f"{self._shown_address(path)}: the answer broke off: {problem}") from None
        raise ApiError(f"{self._shown_address(path)}: {ATTEMPTS} attempts failed, the last: {problem}")

    def shown(self, text: str) -> str:
        """A text without secrets and without the query strings of addresses."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return _QUERY.sub(r"\1?…", text)

    def _shown_address(self, path: str) -> str:
        """The address of a request for people: without its query."""
        return self.shown((path if "://" in path else f"{self.base}{path}").partition("?")[0])

    def _told(self, error: httpx.HTTPError) -> str:
        if isinstance(error, httpx.TimeoutException):
            return f"no answer within {self._timeout:g} s"
        return self.shown(f"{type(error).__name__}: {error}"[:300])

    async def _ready(self, attempt: int) -> None:
        """Wait for this attempt's turn.

        Raises:
            Paused: longer than a poll waits.
            OutOfTime: the deadline comes first.
        """
        wait = 0.0
        if attempt:
            longest = min(self._first_pause * 2 ** (attempt - 1), _LONGEST_PAUSE)
            wait = longest * (0.5 + self._random.random() / 2)
        asked = self.paused_until - self._clock()
        if asked > SHORT_WAIT or (asked > 0 and asked > self.left):
            raise Paused(self.paused_until)
        wait = max(wait, asked)
        if self.left - wait < _LEAST_SECONDS:
            raise OutOfTime
        if wait > 0:
            await asyncio.sleep(wait)

    @asynccontextmanager
    async def _stream(
        self, method: str, path: str, params: Mapping[str, Any] | None, form: Mapping[str, Any] | None, json: object
    ) -> AsyncIterator[httpx.Response]:
        """An answer whose head is there; the deadline holds for all of it, the timeout for each piece.

        Raises:
            OutOfTime: the deadline came.
        """
        client = self._opened()
        given: dict[str, Any] = {}
        if params:
            given["params"] = params
        if form is not None:
            given["data"] = form
        if json is not None:
            given["content"] = orjson.dumps(json)
            given["headers"] = {"Content-Type": "application/json"}
        try:
            async with (
                asyncio.timeout(max(self.left, 0.0)) as limit,
                client.stream(method, self._address(path), **given) as answer,
            ):
                yield answer
        except TimeoutError:
            if limit.expired():
                raise OutOfTime from None
            raise

    def _address(self, path: str) -> str:
        """The whole address.

        Raises:
            ApiError: a link to another server, which must never see our credentials.
        """
        if "://" not in path:
            return f"{self.base}{path}"
        given, own = urlsplit(path), urlsplit(self.base)
        if (given.scheme, given.netloc.lower()) != (own.scheme, own.netloc.lower()):
            raise ApiError(f"a link leads to another server ({given.scheme}://{given.netloc}), which is not followed")
        return path

    def _judged(self, answer: httpx.Response, body: bytes, path: str) -> str:
        """What an answer's head means: "" when it is good, the problem when asking again may help.

        Raises:
            ApiError: asking again cannot help.
            Paused: not now.
        """
        status, headers, now = answer.status_code, _lower(answer.headers), self._clock()
        exhausted = exhausted_until(headers, now)
        if exhausted is not None:
            self.paused_until = max(self.paused_until, exhausted)
        if status == 200:
            return ""
        text = _error_text(body)
        said = self.shown(f"HTTP {status}" + (f": {text}" if text else ""))
        where = f"{self._shown_address(path)}: {said}"
        if status == 429 or (status == 503 and "retry-after" in headers):
            self.paused_until = max(self.paused_until, refused_until(headers, now))
            return said
        if status in _AGAIN:
            return said
        if status in {401, 403}:
            raise ApiError(f"{where}; are the credentials in aiops.yaml right, and may they read this?", status)
        if status == 413:
            raise TooMuch(where)
        if 300 <= status < 400:
            target = urlsplit(answer.headers.get("location", ""))
            address = f"{target.scheme}://{target.netloc}{target.path}"
            raise ApiError(f"{where}; it sends to {address}: give that as 'url'", status)
        raise ApiError(where, status)

    def _opened(self) -> httpx.AsyncClient:
        if self._client is None:
            verify: ssl.SSLContext | bool = True
            if self._ca_file is not None:
                try:
                    verify = ssl.create_default_context(cafile=self._ca_file)
                except OSError as error:
                    raise ApiError(f"ca_file {self._ca_file}: {error}") from error
            self._client = httpx.AsyncClient(
                headers=self._headers,
                verify=verify,
                timeout=httpx.Timeout(self._timeout, connect=min(_CONNECT_SECONDS, self._timeout)),
                limits=httpx.Limits(max_connections=2, max_keepalive_connections=1),
            )
        return self._client


def basic(user: str, password: str) -> str:
    """The value of an ``Authorization`` header."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def _spellings(pull: Pull, headers: Mapping[str, str]) -> list[str]:
    """The secrets in every spelling in which they may turn up, the longest first."""
    plain = [
        secret.get_secret_value() for secret in (pull.token, pull.password, pull.application_key) if secret is not None
    ]
    plain += [value.partition(" ")[2] for value in headers.values() if value.startswith(("Basic ", "Bearer "))]
    found = {spelling for secret in plain for spelling in (secret, quote(secret, safe=""), repr(secret)[1:-1])}
    return sorted((secret for secret in found if secret), key=len, reverse=True)


def _lower(headers: httpx.Headers) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _error_text(body: bytes) -> str:
    """What an error's body says, in one line of at most 200 characters."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        text = body[:400].decode("utf-8", "replace")
        return " ".join(text.split())[:200] if not text.lstrip().startswith("<") else ""
    for name in ("errors", "error", "messages", "message", "error_description", "title", "detail"):
        found = document.get(name) if isinstance(document, dict) else None
        if found:
            return _flat(found)[:200]
    return ""


def _flat(value: object) -> str:
    if isinstance(value, list):
        return "; ".join(_flat(entry) for entry in value[:3])
    if isinstance(value, dict):
        return ": ".join(str(value[name]) for name in ("title", "message", "text", "detail") if value.get(name))
    return str(value)
