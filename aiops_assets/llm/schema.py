"""Schemas as providers take them, and answers as they come, held against them.

What belongs here: the strict form of a JSON schema, the reading of an answer's text, the wording of what is wrong with
it. What does not: the conversation (``client``).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel, ValidationError

T = TypeVar("T", bound=BaseModel)

#: limits that not every provider takes in strict mode; they are said in words, and pydantic holds answers to them
_LIMITS = (
    "minLength maxLength pattern format minimum maximum exclusiveMinimum exclusiveMaximum multipleOf minItems maxItems "
    "uniqueItems minProperties maxProperties"
)
_IN_WORDS = frozenset(_LIMITS.split())
_LEFT_OUT = frozenset({"default", "title", "examples", "discriminator", "$schema", "$id"})
_FENCE = re.compile(r"\s*```[\w-]*\s*\n(.*?)\n?\s*```\s*\Z", re.DOTALL)
_THOUGHTS = re.compile(r"\s*<think(?:ing)?>.*?</think(?:ing)?>\s*", re.DOTALL)
_MOST_ERRORS = 8


class Unfit(Exception):
    """A text that is no answer: ``kind`` is empty, not_json or wrong_schema; the message says what to mend."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@lru_cache(maxsize=256)
def strict(model: type[BaseModel]) -> tuple[dict[str, Any], bool]:
    """The JSON schema of a model in the subset of OpenAI's structured outputs, and whether it lies in it.

    Every object is closed and all of its fields are required; limits become words. Objects with free keys and tuples
    have no strict form: then the second value is false and the provider is asked without ``strict``.
    """
    found = {"strict": True}
    schema = _strict(model.model_json_schema(), found)
    return schema, found["strict"]


@lru_cache(maxsize=256)
def described(model: type[BaseModel]) -> bytes:
    """The JSON schema of a model as canonical JSON, for digests."""
    return orjson.dumps(model.model_json_schema(), option=orjson.OPT_SORT_KEYS)


def _strict(node: Any, found: dict[str, bool]) -> Any:
    if isinstance(node, list):
        return [_strict(entry, found) for entry in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node and len(node) > 1:
        # A reference stands alone in strict mode: what is said beside it moves into a choice of one.
        beside = {key: value for key, value in node.items() if key not in {"$ref", *_LEFT_OUT}}
        return {"anyOf": [{"$ref": node["$ref"]}], **beside} if beside else {"$ref": node["$ref"]}
    made: dict[str, Any] = {}
    words = []
    for key, value in node.items():
        if key in _LEFT_OUT:
            continue
        if key in _IN_WORDS:
            words.append(f"{key} {value}")
        elif key in {"properties", "$defs"}:
            made[key] = {name: _strict(entry, found) for name, entry in value.items()}
        elif key == "oneOf":
            made["anyOf"] = _strict(value, found)
        else:
            made[key] = value if key in {"enum", "const", "required"} else _strict(value, found)
    if made.get("type") == "object":
        if "properties" in made:
            found["strict"] &= node.get("additionalProperties", False) is False
            made["required"] = list(made["properties"])
            made["additionalProperties"] = False
        else:
            found["strict"] = False
    if "prefixItems" in made:
        found["strict"] = False
    if words:
        made["description"] = " ".join(filter(None, [made.get("description"), f"({', '.join(words)})"]))
    return made


def read(text: str | None, model: type[T]) -> T:
    """An instance of ``model`` of what a language model wrote; a code fence or thoughts around the JSON do no harm.

    Raises:
        Unfit: it is empty, no JSON, or JSON of another form.
    """
    plain = _THOUGHTS.sub("", text or "", count=1).strip()
    if not plain:
        raise Unfit("empty", "the answer was empty")
    fenced = _FENCE.search(plain)
    try:
        document = orjson.loads(fenced[1] if fenced else plain)
    except orjson.JSONDecodeError as error:
        raise Unfit("not_json", f"the answer is not one JSON document: {error}") from error
    try:
        return model.model_validate_json(orjson.dumps(document))
    except ValidationError as error:
        raise Unfit("wrong_schema", _told(error)) from error


def _told(error: ValidationError) -> str:
    entries = error.errors(include_url=False, include_input=False, include_context=False)
    lines = [f"{'.'.join(map(str, entry['loc'])) or 'document'}: {entry['msg']}" for entry in entries[:_MOST_ERRORS]]
    more = len(entries) - _MOST_ERRORS
    return "\n".join([*lines, f"and {more} more"] if more > 0 else lines)
