"""Prometheus' HTTP API as a polite guest uses it: paced, with deadlines, bounded retries and bounded answers.

What belongs here: requests and what their failures mean. What does not: which queries are made (``plan``) and what
becomes of the answers (``backfill``). Works with what speaks the same API (Thanos, Mimir, VictoriaMetrics).
"""

from __future__ import annotations

import base64
import email.utils
import math
import random
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx
import orjson

from aiops_assets.formats.payload import MAX_JSON_BYTES, UnreadableBody, gunzip

#: an answer is never longer than this on the wire
MAX_WIRE_BYTES = 64 * 1024 * 1024
#: the list of all series is one answer
MAX_SERIES_BYTES = 512 * 1024 * 1024
MAX_RETRY_AFTER_SECONDS = 300.0
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.5, 60.0
_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
_TOO_MUCH = (
    "too many samples",
    "maximum resolution",
    "too many points",
    "exceeds limit",
    "limit exceeded",
    "too large",
)
_CONNECT_SECONDS = 10.0


class PrometheusError(Exception):
    """Prometheus cannot be asked, or refuses; the text says why and what to do."""


class TooMuch(Exception):
    """The query asks for more than the server gives, or than is taken, at once: ask for a shorter time."""


class Stopped(Exception):
    """Somebody asked to stop."""


@dataclass(frozen=True, slots=True)
class Access:
    """How Prometheus is reached. ``token`` and ``basic`` (``user:password``) are secrets and never shown."""

    url: str
    token: str | None = field(default=None, repr=False)
    basic: str | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)
    ca_file: str | None = None
    requests_per_second: float = 5.0
    concurrency: int = 2
    timeout_seconds: float = 60.0
    attempts: int = 6


def checked_url(text: str) -> str:
    """The address without a closing slash.

    Raises:
        PrometheusError: it is no HTTP address, or carries a password.
    """
    parts = urlsplit(text if "://" in text else f"http://{text}")
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise PrometheusError(f"{text!r}: expected an address such as http://prometheus:9090")
    if parts.username or parts.password:
        raise PrometheusError(
            "the address holds a user or password, which other users of this machine can see; "
            "use --basic-file or AIOPS_PROMETHEUS_BASIC"
        )
    if parts.query or parts.fragment:
        raise PrometheusError(f"{text!r}: expected an address without '?' and '#'")
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"


@dataclass(slots=True)
class Counters:
    """What was asked so far."""

    requests: int = 0
    retries: int = 0
    wire_bytes: int = 0


class Prometheus:
    """One server. Threads may share it; all of them together keep the pace."""

    def __init__(self, access: Access, stop: threading.Event | None = None) -> None:
        self.access = access
        self.counters = Counters()
        self._stop = stop or threading.Event()
        self._lock = threading.Lock()
        self._next_at = 0.0
        self._random = random.Random()  # noqa: S311 - spreads retries, protects nothing
        headers = {"Accept-Encoding": "gzip", "User-Agent": "aiops-shadow", **access.headers}
        if access.token is not None:
            headers["Authorization"] = f"Bearer {access.token}"
        elif access.basic is not None:
            headers["Authorization"] = "Basic " + base64.b64encode(access.basic.encode()).decode()
        verify: ssl.SSLContext | bool = True
        if access.ca_file is not None:
            try:
                verify = ssl.create_default_context(cafile=access.ca_file)
            except OSError as error:
                raise PrometheusError(f"--ca-file {access.ca_file}: {error}") from error
        self._http = httpx.Client(
            headers=headers,
            verify=verify,
            timeout=httpx.Timeout(access.timeout_seconds, connect=min(_CONNECT_SECONDS, access.timeout_seconds)),
            limits=httpx.Limits(max_connections=access.concurrency, max_keepalive_connections=access.concurrency),
        )

    def __enter__(self) -> Prometheus:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def data(self, path: str, form: Mapping[str, str | list[str]] | None = None, *, method: str = "GET") -> Any:
        """The ``data`` of a small answer.

        Raises:
            PrometheusError, TooMuch, Stopped: as ``raw``.
        """
        form = form or {}
        body, packed = self.raw(method, path, form, limit=MAX_SERIES_BYTES)
        try:
            document = orjson.loads(gunzip(body, MAX_SERIES_BYTES) if packed else body)
        except (orjson.JSONDecodeError, UnreadableBody) as error:
            raise PrometheusError(f"{self.access.url}{path}: the answer is no JSON: {error}") from error
        if not isinstance(document, dict) or document.get("status") != "success":
            raise PrometheusError(f"{self.access.url}{path}: the answer is none of Prometheus' API")
        return document.get("data")

    def query_range(self, query: str, start: int, end: int, step: int) -> tuple[bytes, bool]:
        """The answer of a range query, as it was sent; whether it is gzip. Seconds; ``end`` is the last instant asked.

        The answer was unpacked and its end looked at: what is torn was asked for again.
        """
        form: dict[str, str | list[str]] = {
            "query": query,
            "start": str(start),
            "end": str(end),
            "step": str(step),
            "timeout": f"{self.access.timeout_seconds:g}s",
        }
        return self.raw("POST", "/api/v1/query_range", form, limit=MAX_JSON_BYTES, whole=_is_whole)

    def raw(
        self,
        method: str,
        path: str,
        form: Mapping[str, str | list[str]],
        *,
        limit: int,
        whole: Any = None,
    ) -> tuple[bytes, bool]:
        """Ask, again when that may help; the body as sent and whether it is gzip.

        Raises:
            PrometheusError: it refuses, or does not answer after ``attempts``.
            TooMuch: less should be asked for.
            Stopped: somebody asked to stop.
        """
        problem = ""
        timeouts = 0
        for attempt in range(self.access.attempts):
            self._pace()
            pause: float | None = None
            try:
                status, headers, body = self._once(method, path, form)
                packed = headers.get("content-encoding", "").lower() == "gzip"
                if status == 200:
                    plain = gunzip(body, limit) if packed else body
                    if len(plain) > limit:
                        raise TooMuch(f"an answer of {len(plain)} bytes")
                    if whole is None or whole(plain):
                        return body, packed
                    problem = "the answer is torn"
                else:
                    problem, pause = self._refused(status, headers, body, packed, path)
                    timeouts += "timeout" in problem or "timed out" in problem
            except httpx.TimeoutException:
                problem, timeouts = f"no answer within {self.access.timeout_seconds:g} s", timeouts + 1
            except httpx.HTTPError as error:
                problem = f"{type(error).__name__}: {error}"
            except UnreadableBody as error:
                if "more than" in str(error):
                    raise TooMuch(str(error)) from error
                problem = str(error)
            if timeouts >= 2:
                raise TooMuch(problem)
            if attempt + 1 < self.access.attempts:
                self._wait(pause if pause is not None else self._backoff(attempt))
        raise PrometheusError(f"{self.access.url}{path}: {self.access.attempts} attempts failed, the last: {problem}")

    def _once(self, method: str, path: str, form: Mapping[str, str | list[str]]) -> tuple[int, httpx.Headers, bytes]:
        self.counters.requests += 1
        until = time.monotonic() + self.access.timeout_seconds
        content = {"params": form} if method == "GET" else {"data": form}
        with self._http.stream(method, f"{self.access.url}{path}", **content) as answer:  # type: ignore[arg-type]
            parts: list[bytes] = []
            size = 0
            for part in answer.iter_raw():
                size += len(part)
                if size > MAX_WIRE_BYTES:
                    raise TooMuch(f"an answer of more than {MAX_WIRE_BYTES // 1024 // 1024} MiB")
                if time.monotonic() > until:
                    raise httpx.ReadTimeout("the answer takes too long")
                if self._stop.is_set():
                    raise Stopped
                parts.append(part)
            self.counters.wire_bytes += size
            return answer.status_code, answer.headers, b"".join(parts)

    def _refused(
        self, status: int, headers: httpx.Headers, body: bytes, packed: bool, path: str
    ) -> tuple[str, float | None]:
        """What a refusal says, and how long it asks to wait.

        Raises:
            PrometheusError: asking again cannot help.
            TooMuch: asking for less can.
        """
        text = _error_text(gunzip(body, MAX_JSON_BYTES) if packed else body)
        where = f"{self.access.url}{path}: HTTP {status}"
        if status in {401, 403}:
            raise PrometheusError(
                f"{where}: it wants credentials: --token-file, --basic-file, AIOPS_PROMETHEUS_TOKEN or …_BASIC"
            )
        if status == 413 or any(sign in text.lower() for sign in _TOO_MUCH):
            raise TooMuch(text or f"HTTP {status}")
        if 300 <= status < 400:
            raise PrometheusError(f"{where}: it sends to {headers.get('location')!r}; give the address behind that")
        if status == 404:
            raise PrometheusError(f"{where}: no Prometheus API there; is a path missing, such as /prometheus?")
        if status not in _AGAIN:
            raise PrometheusError(f"{where}: {text}")
        with self._lock:
            self.counters.retries += 1
        return f"HTTP {status}: {text}"[:300], retry_after(headers.get("retry-after"), time.time())

    def _pace(self) -> None:
        """Wait for this request's turn."""
        with self._lock:
            now = time.monotonic()
            at = max(now, self._next_at)
            self._next_at = at + 1.0 / self.access.requests_per_second
        self._wait(at - now)

    def _backoff(self, attempt: int) -> float:
        longest = min(_FIRST_PAUSE_SECONDS * 2**attempt, _LONGEST_PAUSE_SECONDS)
        return longest * (0.5 + self._random.random() / 2)

    def _wait(self, seconds: float) -> None:
        if self._stop.wait(seconds) if seconds > 0 else self._stop.is_set():
            raise Stopped


def retry_after(header: str | None, now: float) -> float | None:
    """Seconds that a ``Retry-After`` header asks for, at most ``MAX_RETRY_AFTER_SECONDS``; ``None`` without a sense."""
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(header).timestamp() - now
        except (ValueError, TypeError):
            return None
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_SECONDS) if math.isfinite(seconds) else None


def _is_whole(plain: bytes) -> bool:
    return plain[:1] == b"{" and plain[-64:].rstrip().endswith(b"}")


def _error_text(body: bytes) -> str:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return body[:200].decode("utf-8", "replace").strip()
    if isinstance(document, dict) and "error" in document:
        return f"{document.get('errorType', 'error')}: {document['error']}"[:300]
    return str(document)[:200]
