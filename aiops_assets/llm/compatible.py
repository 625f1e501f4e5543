"""OpenAI, Azure OpenAI, Ollama and every server that speaks OpenAI's chat completions.

What belongs here: clients and their credentials, one request, its reply, and the errors as ``Failure``; what a server
does not support is remembered and left out. What does not: repetition, budget, what an answer means (``client``).
``openai`` is imported when a client is made, never before.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson
from pydantic import BaseModel

from aiops_assets.config import Llm
from aiops_assets.llm.question import Message
from aiops_assets.llm.retrying import Failure, passes, retry_after
from aiops_assets.llm.schema import strict
from aiops_assets.privacy.redact import redacted

log = logging.getLogger(__name__)

OPENAI_URL = "https://api.openai.com/v1"
OLLAMA_URL = "http://127.0.0.1:11434/v1"
_AZURE_SCOPE = "https://cognitiveservices.azure.com/.default"
_LONGEST_MESSAGE = 300
#: modes of structured output, each with the one that takes its place where a server refuses it
_NEXT_MODE = {"json_schema": "json_object", "tools": "json_object", "json_object": "text"}
_TOOL = "answer"


class Misconfigured(Exception):
    """The configured provider cannot be asked: the message says what to change."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Which fields requests have."""

    mode: str
    length_field: str
    temperature: bool = True
    seed: bool = True
    #: whether the other name of the length was tried: it is once, not in turns
    renamed: bool = False


@dataclass(frozen=True, slots=True)
class Reply:
    """What a server said; tokens are ``None`` where it did not count them."""

    content: str | None
    finish_reason: str | None
    refusal: str | None
    prompt_tokens: int | None
    completion_tokens: int | None


class CompatibleProvider:
    """One client; ``send`` may be awaited many times at once.

    Raises:
        Misconfigured: a library or a credential is missing.
    """

    def __init__(self, config: Llm) -> None:
        self._config = config
        self._client = client_of(config)
        hosted = config.provider in {"openai", "azure"}
        self.shape = Shape(config.structured, "max_completion_tokens" if hosted else "max_tokens")

    async def send(
        self,
        messages: Sequence[Message],
        schema: type[BaseModel],
        *,
        temperature: float | None,
        seed: int | None,
        max_tokens: int,
        seconds: float,
        shape: Shape,
    ) -> Reply:
        """One request and its reply, within ``seconds``.

        Raises:
            Failure: there was no reply.
        """
        import openai

        body: dict[str, Any] = {"model": self._config.model, "messages": [_plain(message) for message in messages]}
        body[shape.length_field] = max_tokens
        if temperature is not None and shape.temperature:
            body["temperature"] = temperature
        if seed is not None and shape.seed:
            body["seed"] = seed
        body |= _structured(schema, shape.mode, body["messages"])
        # The client walks through typed arguments entry by entry, which for a schema costs more than all of the rest.
        extra = {name: body.pop(name) for name in ("response_format", "tools") if name in body}
        try:
            async with asyncio.timeout(seconds):
                raw = await self._client.chat.completions.with_raw_response.create(
                    **body, extra_body=extra, timeout=seconds
                )
        except (openai.APITimeoutError, TimeoutError) as error:
            raise Failure("timed_out", f"no answer within {seconds:.0f} s", passing=True) from error
        except openai.APIStatusError as error:
            raise self._refused(error.status_code, error.response.headers, error.body) from error
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            what = f"{type(cause).__name__} {cause}".strip()
            text = f"no connection to {self._address()} ({what}); check 'llm.base_url' and the server"
            raise Failure("connection", self.said(text), passing=True) from error
        except openai.OpenAIError as error:
            raise Failure("client", self.said(f"{type(error).__name__}: {error}"), hopeless=True) from error
        return self._reply(raw.content)

    def adapted(self, shape: Shape, failure: Failure) -> Shape | None:
        """The shape to use after a server objected to a field; ``None`` when that is not what it objected to."""
        if failure.status not in {400, 415, 422, 501}:
            return None
        if self.shape != shape:
            return self.shape
        text, field = failure.message.lower(), failure.param or ""
        other = "max_tokens" if shape.length_field == "max_completion_tokens" else "max_completion_tokens"
        made: Shape | None = None
        about_length = field == shape.length_field or (not field and shape.length_field in text)
        if about_length and not shape.renamed:
            made = replace(shape, length_field=other, renamed=True)
        elif shape.temperature and (field == "temperature" or (not field and "temperature" in text)):
            made = replace(shape, temperature=False)
        elif shape.seed and (field == "seed" or (not field and "seed" in text)):
            made = replace(shape, seed=False)
        elif shape.mode in _NEXT_MODE and _about_structure(field, text):
            made = replace(shape, mode=_NEXT_MODE[shape.mode])
        if made is not None:
            log.info("%s does not take what was asked: %s now", self._config.model, made)
            self.shape = made
        return made

    def said(self, text: str) -> str:
        """A text of a server or a library, short, on one line, without secrets."""
        key = self._config.api_key
        if key is not None and key.get_secret_value():
            text = text.replace(key.get_secret_value(), "[secret]")
        text = redacted(" ".join(text.split()), reserved=True)[0]
        return text if len(text) <= _LONGEST_MESSAGE else f"{text[: _LONGEST_MESSAGE - 1]}…"

    async def close(self) -> None:
        """Close connections."""
        await self._client.close()

    def _address(self) -> str:
        return str(self._client.base_url).split("?")[0]

    def _refused(self, status: int, headers: Mapping[str, str], body: object) -> Failure:
        error = body.get("error", body) if isinstance(body, dict) else body
        fields = error if isinstance(error, dict) else {"message": error}
        text = self.said(str(fields.get("message") or fields.get("detail") or ""))
        code = str(fields.get("code") or "")
        if code in {"insufficient_quota", "billing_hard_limit_reached"}:
            return Failure("status", f"{status} {text}: add credit with the provider", status, hopeless=True)
        if status == 400 and code == "content_filter":
            return Failure("filtered", f"the content filter refused the question: {text}", status)
        advice = _ADVICE.get(status, "")
        message = f"{status} {text}" + (f"; check {advice.format(**self._named())}" if advice else "")
        param = fields.get("param")
        return Failure(
            "status",
            message,
            status,
            passing=passes(status),
            hopeless=status in {401, 403, 404},
            retry_after=retry_after(headers),
            param=str(param) if param else None,
        )

    def _named(self) -> dict[str, str]:
        return {"model": self._config.model, "address": self._address()}

    def _reply(self, content: bytes) -> Reply:
        try:
            document = orjson.loads(content)
            choice = document["choices"][0]
            message = choice["message"]
            calls = message.get("tool_calls") or []
            text = calls[0]["function"]["arguments"] if calls else message.get("content")
            usage = document.get("usage") or {}
            if text is not None and not isinstance(text, str):
                raise TypeError("content is no text")
            return Reply(
                text,
                choice.get("finish_reason"),
                message.get("refusal"),
                _count(usage.get("prompt_tokens")),
                _count(usage.get("completion_tokens")),
            )
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            start = content[:80].decode("utf-8", "replace")
            text = f"{self._address()} answered with something else than a chat completion: {start!r}; check base_url"
            raise Failure("not_ours", self.said(text), passing=True) from error


_ADVICE = {
    400: "model '{model}' and its limits",
    401: "'llm.api_key' in aiops.yaml",
    403: "that this key or identity may use model '{model}'",
    404: "'llm.model' ('{model}') and 'llm.base_url' ('{address}')",
}


def _about_structure(field: str, text: str) -> bool:
    words = ("response_format", "json_schema", "json_object", "schema", "structured", "tool", "grammar")
    return any(word in field for word in words) or any(word in text for word in words)


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and value >= 0 else None


def _plain(message: Message) -> dict[str, str]:
    return {"role": message.role, "content": message.content}


def _structured(schema: type[BaseModel], mode: str, messages: list[dict[str, str]]) -> dict[str, Any]:
    """The fields that hold an answer to a schema; where a mode does not carry it, it is put into a message."""
    wanted, is_strict = strict(schema)
    if mode == "json_schema":
        form = {"name": _TOOL, "schema": wanted, "strict": is_strict}
        return {"response_format": {"type": "json_schema", "json_schema": form}}
    if mode == "tools":
        function = {"name": _TOOL, "description": "Gives the answer.", "parameters": wanted, "strict": is_strict}
        choice = {"type": "function", "function": {"name": _TOOL}}
        return {"tools": [{"type": "function", "function": function}], "tool_choice": choice}
    text = "Answer with one JSON document that fits this JSON schema, and nothing else:\n"
    messages.insert(0, {"role": "system", "content": text + json.dumps(wanted, ensure_ascii=False)})
    return {"response_format": {"type": "json_object"}} if mode == "json_object" else {}


def client_of(config: Llm) -> Any:
    """An ``openai`` client for a configured provider; its own repetition is off, since ours is bounded by a deadline.

    Raises:
        Misconfigured: a library or a credential is missing, or the provider is offline.
    """
    if config.provider == "offline":
        raise Misconfigured("provider 'offline' has no client; set 'llm.provider' in aiops.yaml")
    try:
        import openai
    except ImportError as error:
        raise Misconfigured("the library 'openai' is missing: install it, or set 'llm.provider: offline'") from error
    key = config.api_key.get_secret_value() if config.api_key is not None else None
    common: dict[str, Any] = {"max_retries": 0, "timeout": config.timeout}
    try:
        if config.provider == "azure":
            endpoint = (config.base_url or "").rstrip("/")
            credential: Any = key or azure_identity()
            if endpoint.endswith("/openai/v1"):
                # The v1 form takes a key or a token as OpenAI does.
                return openai.AsyncOpenAI(api_key=credential, base_url=endpoint, **common)
            common |= {"api_key": key} if key else {"azure_ad_token_provider": credential}
            common |= {"azure_deployment": config.model, "api_version": config.api_version}
            return openai.AsyncAzureOpenAI(azure_endpoint=endpoint, **common)
        default = OLLAMA_URL if config.provider == "ollama" else OPENAI_URL
        # Servers of one's own often want no key, but the client does; none is looked for in the environment.
        return openai.AsyncOpenAI(api_key=key or "none", base_url=config.base_url or default, **common)
    except openai.OpenAIError as error:
        raise Misconfigured(
            f"provider {config.provider!r}: {type(error).__name__}: {redacted(str(error))[0]}"
        ) from error


def azure_identity() -> Callable[[], Awaitable[str]]:
    """Tokens of the managed identity (or of whoever is logged in) for Azure OpenAI.

    Raises:
        Misconfigured: ``azure-identity`` is not installed.
    """
    try:
        from azure.identity import DefaultAzureCredential, get_bearer_token_provider
    except ImportError as error:
        raise Misconfigured(
            "provider 'azure' without 'llm.api_key' uses the managed identity and needs azure-identity: "
            "pip install 'aiops-assets[azure]', or set 'llm.api_key'"
        ) from error
    token = get_bearer_token_provider(DefaultAzureCredential(), _AZURE_SCOPE)

    async def provided() -> str:
        # The library asks the identity endpoint over the network and blocks meanwhile.
        return str(await asyncio.to_thread(token))

    return provided
