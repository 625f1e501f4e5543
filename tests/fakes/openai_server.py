"""A server that speaks OpenAI's chat completions on loopback, as Azure and Ollama do too, and misbehaves when told to.

It answers any JSON schema with an instance of it (or with what ``content`` makes of a request), counts requests and
how many are under way at once, and keeps their bodies. Faults happen in the order of ``faults``, or as ``behave``
decides for each request. Run as a program it serves until it is stopped:

    python -m tests.fakes.openai_server --port 21300 --latency 0.2
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tests.fakes.serving import serving

PORTS = range(21_200, 21_600)
API_KEY = "sk-test-0123456789abcdefghijklmnopqrstuvwxyzABCD"


@dataclass(frozen=True)
class Trouble:
    """One answer that is not the wanted one.

    ``kind``: status (with ``status``, ``headers`` and ``message``, ``code``, ``param`` of the error), slow (right, but
    after ``seconds``), hang (no answer until the client goes or ``seconds`` are over), truncated (finish_reason
    length), filtered (finish_reason content_filter), refused (a refusal), empty (no content), broken_json,
    wrong_schema, prose (no JSON), content (``message`` is it), reset (RST before any answer), torn (half of the body,
    then the end), html (200 with a page), stream (server-sent events nobody asked for), garbage (bytes), no_choices.
    """

    kind: str
    status: int = 503
    headers: dict[str, str] = field(default_factory=dict)
    message: str = "The server had an error while processing your request"
    code: str | None = None
    param: str | None = None
    seconds: float = 60.0


class _Protocol(HttpToolsProtocol):
    """uvicorn's own, which also shows its transport to the application, so that it can be reset."""

    def on_headers_complete(self) -> None:
        super().on_headers_complete()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["transport"] = self.transport  # type: ignore[typeddict-unknown-key]


class FakeOpenAI:
    """``latency`` is in seconds; ``unsupported`` are features that are refused with 400, as servers do that lack them:
    json_schema, json_object, tools, temperature, seed, max_tokens, max_completion_tokens."""

    def __init__(
        self,
        *,
        latency: float = 0.0,
        content: Callable[[dict[str, Any]], str] | None = None,
        api_key: str | None = API_KEY,
        unsupported: frozenset[str] = frozenset(),
        usage: bool = True,
    ) -> None:
        self.latency, self.content, self.api_key = latency, content, api_key
        self.unsupported, self.usage = unsupported, usage
        self.faults: list[Trouble] = []
        self.behave: Callable[[int, dict[str, Any]], Trouble | None] = lambda number, body: None
        #: bodies of all requests, what they asked for, and their headers
        self.bodies: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.statuses: Counter[int] = Counter()
        self.under_way = 0
        self.most_at_once = 0
        self.url = ""
        self._lock = threading.Lock()
        self._app = Starlette(
            routes=[
                Route("/v1/chat/completions", self._openai, methods=["POST"]),
                Route("/openai/v1/chat/completions", self._azure, methods=["POST"]),
                Route("/openai/deployments/{deployment}/chat/completions", self._azure, methods=["POST"]),
                Route("/v1/models", self._models),
            ]
        )

    @property
    def requests(self) -> int:
        """How many requests have come in."""
        return len(self.bodies)

    @property
    def seen(self) -> str:
        """Everything that was ever sent here, as one text."""
        return json.dumps([self.bodies, self.paths], ensure_ascii=False)

    @contextmanager
    def serving(self) -> Iterator[FakeOpenAI]:
        """Serve on a free port of loopback, in a thread; ``url`` is then the address without a path."""
        with serving(self, ports=PORTS, http=_Protocol) as url:
            self.url = url
            yield self

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._app(scope, receive, send)

    async def _models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [{"id": "fake-1", "object": "model", "owned_by": "tests"}]})

    async def _openai(self, request: Request) -> Response:
        given = request.headers.get("authorization", "")
        if self.api_key is not None and given != f"Bearer {self.api_key}":
            return self._error(401, f"Incorrect API key provided: {given[7:]}.", "invalid_api_key")
        return await self._counted(request)

    async def _azure(self, request: Request) -> Response:
        given = request.headers.get("api-key") or request.headers.get("authorization", "").removeprefix("Bearer ")
        if self.api_key is not None and given != self.api_key:
            return self._error(401, "Access denied due to invalid subscription key or wrong API endpoint.", "401")
        if "deployment" in request.path_params:
            if "api-version" not in request.query_params:
                return self._error(404, "Resource not found", "404")
            if request.path_params["deployment"] == "missing":
                return self._error(404, "The API deployment for this resource does not exist.", "DeploymentNotFound")
        return await self._counted(request)

    async def _counted(self, request: Request) -> Response:
        body = json.loads(await request.body())
        with self._lock:
            self.bodies.append(body)
            number = len(self.bodies)
            query = f"?{request.url.query}" if request.url.query else ""
            self.paths.append(request.url.path + query)
            self.headers.append(dict(request.headers))
            self.under_way += 1
            self.most_at_once = max(self.most_at_once, self.under_way)
            trouble = self.faults.pop(0) if self.faults else self.behave(number, body)
        try:
            response = await self._answer(request, body, trouble)
        finally:
            with self._lock:
                self.under_way -= 1
        self.statuses[response.status_code] += 1
        return response

    async def _answer(self, request: Request, body: dict[str, Any], trouble: Trouble | None) -> Response:
        kind = trouble.kind if trouble else ""
        if trouble and kind in {"slow", "hang"}:
            for _ in range(round(trouble.seconds / 0.01)):
                if await request.is_disconnected():
                    break
                await asyncio.sleep(0.01)
        elif self.latency and kind not in {"reset", "status"}:
            await asyncio.sleep(self.latency)
        if trouble and kind == "status":
            return self._error(trouble.status, trouble.message, trouble.code, trouble.param, trouble.headers)
        if kind == "reset":
            transport = request.scope["transport"]
            handle = transport.get_extra_info("socket")
            handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()
            return Response(status_code=499)
        refused = self._unsupported(body)
        if refused is not None:
            return refused
        if kind == "html":
            return Response("<html><body>Welcome to the proxy</body></html>", media_type="text/html")
        if kind == "stream":
            return Response(
                'data: {"choices":[{"delta":{"content":"{"}}]}\n\ndata: [DONE]\n\n',
                200,
                {"content-type": "text/event-stream"},
            )
        if kind == "garbage":
            return Response(b'\x00\xff{"choices": [[[', 200, {"content-type": "application/json"})
        if kind == "no_choices":
            return JSONResponse({"id": "x", "object": "chat.completion", "choices": []})
        document = self._completion(body, trouble)
        if kind == "torn":
            return _torn(json.dumps(document).encode())
        return JSONResponse(document)

    def _completion(self, body: dict[str, Any], trouble: Trouble | None) -> dict[str, Any]:
        kind = trouble.kind if trouble else ""
        content: str | None = self.content(body) if self.content else json.dumps(instance_of(_schema(body)))
        reason, refusal = "stop", None
        match kind:
            case "truncated":
                content, reason = (content or "")[: max(1, len(content or "") // 2)], "length"
            case "filtered":
                content, reason = None, "content_filter"
            case "refused":
                content, refusal = None, "I'm sorry, I can't assist with that request."
            case "empty":
                content = ""
            case "broken_json":
                content = (content or "")[:-1] + ",,}"
            case "wrong_schema":
                content = json.dumps({"unexpected": True})
            case "prose":
                content = "Certainly! Here is what you asked for."
            case "content":
                content = trouble.message if trouble else ""
        message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": refusal}
        if body.get("tools") and refusal is None and content is not None:
            name = body["tools"][0]["function"]["name"]
            call = {"id": "call_1", "type": "function", "function": {"name": name, "arguments": content}}
            message |= {"content": None, "tool_calls": [call]}
        document: dict[str, Any] = {
            "id": f"chatcmpl-{len(self.bodies)}",
            "object": "chat.completion",
            "created": 1_767_225_600,
            "model": body.get("model", "fake-1"),
            "choices": [{"index": 0, "message": message, "finish_reason": reason, "logprobs": None}],
        }
        if self.usage:
            asked = sum(len(str(entry.get("content") or "")) for entry in body["messages"]) // 4 + 3
            told = len(content or "") // 4 + 1
            document["usage"] = {"prompt_tokens": asked, "completion_tokens": told, "total_tokens": asked + told}
        return document

    def _unsupported(self, body: dict[str, Any]) -> Response | None:
        form = (body.get("response_format") or {}).get("type")
        asked = {
            form,
            *(name for name in ("tools", "temperature", "seed", "max_tokens", "max_completion_tokens") if name in body),
        }
        for name in sorted(asked & self.unsupported, key=str):
            param = "response_format" if name in {"json_schema", "json_object"} else name
            text = f"Unsupported parameter: '{param}' is not supported with this model: {name}."
            return self._error(400, text, "unsupported_parameter", param)
        return None

    def _error(
        self,
        status: int,
        message: str,
        code: str | None = None,
        param: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> Response:
        error = {"message": message, "type": "invalid_request_error", "param": param, "code": code}
        return JSONResponse({"error": error}, status, headers)


def _schema(body: dict[str, Any]) -> dict[str, Any]:
    form = body.get("response_format") or {}
    if form.get("type") == "json_schema":
        return dict(form["json_schema"]["schema"])
    if body.get("tools"):
        return dict(body["tools"][0]["function"]["parameters"])
    # In the other modes the schema stands in the text of a message.
    for message in reversed(body.get("messages", [])):
        text = str(message.get("content"))
        start = text.find('{"')
        while start >= 0:
            try:
                found, _ = json.JSONDecoder().raw_decode(text[start:])
            except ValueError:
                found = None
            if isinstance(found, dict) and ("properties" in found or "$defs" in found):
                return found
            start = text.find('{"', start + 1)
    return {"type": "object"}


def instance_of(schema: dict[str, Any], definitions: dict[str, Any] | None = None) -> Any:
    """The simplest value that a JSON schema allows."""
    definitions = definitions if definitions is not None else schema.get("$defs", {})
    if "$ref" in schema:
        return instance_of(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    for several in ("anyOf", "oneOf", "allOf"):
        if several in schema:
            return instance_of(schema[several][0], definitions)
    match schema.get("type"):
        case "object":
            return {name: instance_of(entry, definitions) for name, entry in schema.get("properties", {}).items()}
        case "array":
            return [instance_of(schema.get("items", {}), definitions)] * max(1, schema.get("minItems", 1))
        case "integer":
            return int(schema.get("minimum", 1))
        case "number":
            return float(schema.get("minimum", 0.5))
        case "boolean":
            return True
        case "null":
            return None
        case _:
            return "A made-up answer"


def _torn(body: bytes) -> Response:
    async def half() -> Any:
        yield body[: len(body) // 2]
        raise ConnectionAbortedError

    return StreamingResponse(half(), headers={"content-length": str(len(body))}, media_type="application/json")


def main() -> None:
    """Serve on a given port until stopped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=21_300)
    parser.add_argument("--latency", type=float, default=0.2, help="seconds")
    arguments = parser.parse_args()
    app = FakeOpenAI(latency=arguments.latency, api_key=None)
    uvicorn.run(app, host="127.0.0.1", port=arguments.port, log_level="warning", http=_Protocol)


if __name__ == "__main__":
    main()
