"""Logs: one JSON object a line, and never a secret in it."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from aiops_assets.observability.logging import configure, trace_context, without_secrets


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers = []
    yield io.StringIO()
    for handler in root.handlers:
        handler.close()
    root.handlers = handlers
    root.setLevel(level)


def test_a_line_is_one_object_whatever_the_message(tmp_path: Path, stream: io.StringIO) -> None:
    configure("gateway", tmp_path, "DEBUG", stream)
    token = trace_context.set(("a" * 32, "b" * 16))
    try:
        raise ValueError("password=hunter2")
    except ValueError:
        logging.getLogger("x").exception("first\nsecond %s", "<script>", extra={"device": "web-1", "count": 3})
    finally:
        trace_context.reset(token)
    (line,) = stream.getvalue().splitlines()
    entry = json.loads(line)
    assert entry["body"] == "first\nsecond <script>"
    assert (entry["severity"], entry["component"], entry["device"], entry["count"]) == ("ERROR", "gateway", "web-1", 3)
    assert (entry["trace_id"], entry["span_id"]) == ("a" * 32, "b" * 16)
    assert "hunter2" not in line
    assert "ValueError" in entry["exception"]
    assert (tmp_path / "gateway.log").read_text().strip() == line


def test_a_folder_that_cannot_be_written_leaves_the_stream(tmp_path: Path, stream: io.StringIO) -> None:
    (tmp_path / "file").write_text("")
    configure("gateway", tmp_path / "file", "INFO", stream)
    logging.getLogger("x").info("still here")
    assert [json.loads(line)["severity"] for line in stream.getvalue().splitlines()] == ["WARNING", "INFO"]


@pytest.mark.parametrize(
    "text",
    [
        "key aiops_1234abcd_S3CRET-S3CRET_S3CRET was used",
        "Authorization: Bearer S3CRET",
        "{'authorization': 'Token S3CRET'}",
        "headers [(b'authorization', b'Bearer x'), x-api-key=S3CRET]",
        '{"community": "S3CRET"}',
        "priv_key=S3CRET, auth_key: S3CRET",
        "postgresql://user:S3CRET@db/aiops",
        "password = S3CRET",
    ],
)
def test_secrets_are_taken_out(text: str) -> None:
    cleaned = without_secrets(text)
    assert "S3CRET" not in cleaned
    assert "***" in cleaned


@pytest.mark.parametrize("text", ["a key was revoked: 1234abcd", "the cookie jar", "http://127.0.0.1:8787/incidents"])
def test_ordinary_text_stays(text: str) -> None:
    assert without_secrets(text) == text
