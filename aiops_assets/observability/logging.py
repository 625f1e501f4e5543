"""Logs: one JSON object a line, to a rotating file and to standard error, with secrets taken out.

What belongs here: handlers, format and the filter. What does not: what is worth logging. A process calls ``configure``
once; each long-running process has a log file of its own, because rotation does not work for two.
"""

from __future__ import annotations

import logging
import re
import sys
import traceback
from contextvars import ContextVar
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import TextIO

import orjson

from aiops_assets.hours import MICROS_PER_SECOND, instant

#: (trace id, span id) of the work under way, in W3C hex; part of every line written meanwhile
trace_context: ContextVar[tuple[str, str] | None] = ContextVar("trace_context", default=None)

MAX_FILE_BYTES = 10 * 1024 * 1024
KEPT_FILES = 5

#: libraries that say at level INFO what nobody reads
_TALKATIVE = ("alembic.runtime.plugins", "httpx", "httpcore")
_HIDDEN = "***"
_KEY = re.compile(r"\b(aiops_[A-Za-z0-9]+_)[A-Za-z0-9_-]{8,}")
_CREDENTIAL = re.compile(
    r"""(?ix) (\b(?:authorization|x-api-key|cookie|set-cookie|password|passwd|secret|community|auth_key|priv_key
        |api_key)\b ["']? \s* [:=] \s* (?: b?["'] | (?:bearer|token|key|basic)\s+ )* ) [^\s"',;}\]]+"""
)
_URL_PASSWORD = re.compile(r"(://[^/\s:@]*:)[^@/\s]+(@)")
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message", "taskName"}


def without_secrets(text: str) -> str:
    """The text with keys, passwords and other credentials replaced by ``***``."""
    text = _KEY.sub(rf"\1{_HIDDEN}", text)
    text = _CREDENTIAL.sub(rf"\1{_HIDDEN}", text)
    return _URL_PASSWORD.sub(rf"\1{_HIDDEN}\2", text)


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON: timestamp (UTC, RFC 3339), severity, logger, body, trace ids and extra fields."""

    def __init__(self, component: str) -> None:
        super().__init__()
        self.component = component

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "timestamp": instant(int(record.created * MICROS_PER_SECOND)).isoformat(timespec="milliseconds"),
            "severity": record.levelname,
            "component": self.component,
            "logger": record.name,
            "body": without_secrets(record.getMessage()),
        }
        trace = trace_context.get()
        if trace is not None:
            line["trace_id"], line["span_id"] = trace
        for name, value in vars(record).items():
            if name not in _STANDARD:
                line[name] = value if isinstance(value, int | float) else without_secrets(str(value))
        if record.exc_info:
            line["exception"] = without_secrets("".join(traceback.format_exception(*record.exc_info)))
        return orjson.dumps(line, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


def configure(component: str, folder: Path | None, level: str = "INFO", stream: TextIO | None = None) -> None:
    """Send every log record of this process to ``<folder>/<component>.log`` and to a stream (standard error).

    Calling it again replaces the handlers. A folder that cannot be written leaves the stream alone in charge, and says
    so there.
    """
    root = logging.getLogger()
    for handler in root.handlers[:]:
        root.removeHandler(handler)
        handler.close()
    root.setLevel(level.upper())
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
    handlers: list[logging.Handler] = [logging.StreamHandler(stream or sys.stderr)]
    problem: OSError | None = None
    if folder is not None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            handlers.append(
                RotatingFileHandler(
                    folder / f"{component}.log", maxBytes=MAX_FILE_BYTES, backupCount=KEPT_FILES, encoding="utf-8"
                )
            )
        except OSError as error:
            problem = error
    for handler in handlers:
        handler.setFormatter(JsonFormatter(component))
        root.addHandler(handler)
    if problem is not None:
        logging.getLogger(__name__).warning("no log file: %s", problem)
