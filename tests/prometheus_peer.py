"""A small Prometheus on loopback that a test can make fail: what real ones do when they are busy, proxied or killed.

What belongs here: the four endpoints that a backfill uses, over series computed from their labels, and faults in the
order in which they shall happen. Real behaviour is tested against the real server (``tests/e2e/test_shadow.py``).
"""

from __future__ import annotations

import gzip
import json
import re
import threading
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import promql_parser as promql

Labels = Mapping[str, str]
#: value of a series at an instant (seconds), ``None`` when it has none
Value = Callable[[Labels, int], str | None]


@dataclass
class Fault:
    """One answer that is not the wanted one. ``kind``: status, torn, hang, garbage."""

    kind: str
    status: int = 503
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b'{"status":"error","errorType":"unavailable","error":"busy"}'


@dataclass
class Peer:
    """What the server knows and what was asked of it."""

    series: list[dict[str, str]]
    value: Value
    alerts: Callable[[int], list[dict[str, str]]] = lambda at: []
    rules: list[dict[str, Any]] = field(default_factory=list)
    metadata: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    most_samples: int = 1 << 40
    compress: bool = True
    #: (query, start, end) of range queries that were answered in full, and all requests' paths and headers
    answered: list[tuple[str, int, int]] = field(default_factory=list)
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    #: set while range queries shall wait, to hold a backfill in the middle
    hold: threading.Event = field(default_factory=threading.Event)
    hold_after: int = 1 << 40
    url: str = ""

    def __enter__(self) -> Peer:
        peer = self

        class Handler(_Handler):
            def answer_for(self) -> Peer:
                return peer

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.hold.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def select(self, selector: str) -> list[dict[str, str]]:
        parsed = promql.parse(selector)
        matchers = [(str(m.op).rpartition(".")[2], m.name, m.value) for m in parsed.matchers.matchers]  # type: ignore[attr-defined]
        if parsed.name:  # type: ignore[attr-defined]
            matchers.append(("Equal", "__name__", parsed.name))  # type: ignore[attr-defined]
        return [labels for labels in self.series if all(_fits(labels.get(n, ""), op, v) for op, n, v in matchers)]

    def matrix(self, query: str, start: int, end: int, step: int) -> list[dict[str, Any]]:
        if query.startswith("ALERTS"):
            found: dict[str, list[Any]] = {}
            for at in range(start, end + 1, step):
                for labels in self.alerts(at):
                    key = json.dumps({"__name__": "ALERTS", "alertstate": "firing", **labels})
                    found.setdefault(key, []).append([at, "1"])
            return [{"metric": json.loads(key), "values": values} for key, values in found.items()]
        result = []
        for labels in self.select(query):
            values = [[at, text] for at in range(start, end + 1, step) if (text := self.value(labels, at)) is not None]
            if values:
                result.append({"metric": labels, "values": values})
        return result


def _fits(text: str, operator: str, value: str) -> bool:
    if operator in {"Equal", "NotEqual"}:
        return (text == value) == (operator == "Equal")
    return (re.fullmatch(value, text) is not None) == (operator == "Re")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer_for(self) -> Peer:
        raise NotImplementedError

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer(dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(self.path).query)))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self._answer(dict(urllib.parse.parse_qsl(body.decode())))

    def _answer(self, form: dict[str, str]) -> None:
        peer = self.answer_for()
        path = urllib.parse.urlsplit(self.path).path
        peer.requests.append((path, {name.lower(): value for name, value in self.headers.items()}))
        if path == "/api/v1/query_range" and peer.faults:
            self._fail(peer.faults.pop(0))
        elif path == "/api/v1/series":
            self._json(200, {"status": "success", "data": peer.select(form["match[]"])})
        elif path == "/api/v1/metadata":
            self._json(200, {"status": "success", "data": peer.metadata})
        elif path == "/api/v1/rules":
            groups = [{"name": "g", "file": "rules.yml", "rules": peer.rules}]
            self._json(200, {"status": "success", "data": {"groups": groups}})
        elif path == "/api/v1/query_range":
            self._range(peer, form)
        else:
            self._json(404, {})

    def _range(self, peer: Peer, form: dict[str, str]) -> None:
        start, end, step = (int(form[name]) for name in ("start", "end", "step"))
        if (end - start) // step + 1 > 11_000:
            self._json(400, {"status": "error", "errorType": "bad_data", "error": "exceeded maximum resolution"})
            return
        if len(peer.answered) >= peer.hold_after:
            peer.hold.wait(30)
        result = peer.matrix(form["query"], start, end, step)
        if sum(len(entry["values"]) for entry in result) > peer.most_samples:
            error = "query processing would load too many samples into memory in query execution"
            self._json(422, {"status": "error", "errorType": "execution", "error": error})
            return
        peer.answered.append((form["query"], start, end))
        self._json(200, {"status": "success", "data": {"resultType": "matrix", "result": result}})

    def _fail(self, fault: Fault) -> None:
        if fault.kind == "hang":
            self.answer_for().hold.wait(3)
            self.close_connection = True
            return
        self.send_response(200 if fault.kind in {"torn", "garbage"} else fault.status)
        for name, value in fault.headers.items():
            self.send_header(name, value)
        missing = 100 if fault.kind == "torn" else 0
        body = b'{"status":"success","data":{"resultType":"ma' if fault.kind != "status" else fault.body
        self.send_header("Content-Length", str(len(body) + missing))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    def _json(self, status: int, document: object) -> None:
        body = json.dumps(document, separators=(",", ":")).encode()
        packed = self.answer_for().compress and "gzip" in self.headers.get("accept-encoding", "")
        body = gzip.compress(body) if packed else body
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        if packed:
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
