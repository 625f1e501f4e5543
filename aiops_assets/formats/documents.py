"""Files of document folders: Markdown, HTML, PDF, DOCX and text, each as one document of the knowledge base.

What belongs here: bytes of a file to a title, Markdown text and attributes, within bounds of size, pages and time. What
does not: finding files (``collectors.folders``) and records of ITSM systems (``servicenow``).

Headers of a delivery: ``uri``, ``folder``, ``path`` (within the folder), ``media-type``, ``modified`` (microseconds
since the epoch, UTC) and ``removed`` when the file is gone. The title is that of the front matter, else the first
heading, else that of the file's metadata, else the file's name. What a file says about itself (YAML front matter,
author, pages) is in ``attributes``. The libraries that read PDF and DOCX are imported when the first such file comes.
"""

from __future__ import annotations

import io
import logging
import re
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import polars as pl
import yaml

from aiops_assets.formats.batch import DOCUMENTS_SCHEMA, Parsed
from aiops_assets.formats.events import as_json, one_line, storable
from aiops_assets.formats.markdown import from_html, heading, language_of_html, plain, safe, title_of_html
from aiops_assets.formats.payload import Rejects
from aiops_assets.formats.servicenow import content_hash
from aiops_assets.landing.segment import Delivery

MARKDOWN, HTML, PDF = "text/markdown", "text/html", "application/pdf"
DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
TEXT = "text/plain"
#: file name ending → media type
MEDIA_TYPES: Mapping[str, str] = {
    ".md": MARKDOWN, ".markdown": MARKDOWN, ".mdown": MARKDOWN, ".mkd": MARKDOWN,
    ".html": HTML, ".htm": HTML, ".xhtml": HTML, ".pdf": PDF, ".docx": DOCX,
    ".txt": TEXT, ".text": TEXT, ".rst": TEXT, ".adoc": TEXT, ".asciidoc": TEXT,
}  # fmt: skip
MAX_TEXT_CHARS = 4_000_000
MAX_PAGES = 1_000
#: a PDF is read for so long (seconds); what was read by then counts
MAX_SECONDS = 30.0
#: a DOCX may unpack to so many bytes, its text alone to so many, in so many files
MAX_UNPACKED_BYTES, MAX_PART_BYTES, MAX_PARTS = 200 << 20, 8 << 20, 10_000
MAX_FRONT_MATTER_CHARS, MAX_FRONT_MATTER_DEPTH = 16_384, 20
#: the C parser takes linear time where the other one's is quadratic
_SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_FRONT_MATTER = re.compile(r"\A---[ \t]*\n(.*?)\n(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL)
_CHARSET = re.compile(rb"charset\s*=\s*[\"']?([A-Za-z0-9._-]{2,40})", re.IGNORECASE)
_ENTITY = re.compile(rb"<!(?:DOCTYPE|ENTITY)", re.IGNORECASE)
_CORE = {
    "title": re.compile(r"<dc:title>([^<]*)</dc:title>"),
    "author": re.compile(r"<dc:creator>([^<]*)</dc:creator>"),
    "keywords": re.compile(r"<cp:keywords>([^<]*)</cp:keywords>"),
}


class Unreadable(Exception):
    """A file that gives no text; the message says why, for people."""


@dataclass(slots=True)
class Extract:
    """What a file says. ``text`` is Markdown; ``cut`` says why some of it is missing."""

    text: str
    title: str | None = None
    language: str | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    cut: str | None = None


def parse(deliveries: Sequence[Delivery]) -> Parsed:
    """Read files. Never raises on their content: what cannot be read is in ``rejects`` with the reason."""
    rejects = Rejects()
    rows: list[dict[str, Any]] = []
    productive: set[int] = set()
    for index, delivery in enumerate(deliveries):
        try:
            rows.append(_row(index, delivery))
        except Unreadable as error:
            rejects.add(index, 0, f"{delivery.headers.get('path', 'a file')[:300]}: {error}", delivery.body)
        else:
            productive.add(index)
    return Parsed(
        documents=pl.DataFrame(rows, schema=DOCUMENTS_SCHEMA, orient="row"),
        rejects=rejects.finish(deliveries, productive),
    )


def _row(index: int, delivery: Delivery) -> dict[str, Any]:
    headers = delivery.headers
    path = headers.get("path") or ""
    if not path:
        raise Unreadable("the header 'path' is missing: the place in the folder")
    media = headers.get("media-type") or MEDIA_TYPES.get(PurePosixPath(path).suffix.lower(), "")
    modified = headers.get("modified", "")
    row: dict[str, Any] = {
        "delivery": index,
        "ts": int(modified) if modified.isdecimal() and len(modified) < 18 else None,
        "document_id": f"{headers.get('folder') or delivery.source}/{path}",
        "kind": "runbook" if "runbook" in path.lower() else "file",
        "uri": headers.get("uri") or path,
        "media_type": media,
        "language": None,
    }
    if headers.get("removed"):
        name = PurePosixPath(path).stem
        return {**row, "content_hash": "", "title": name, "text": "", "removed": True, "attributes": "{}"}
    found = extract(delivery.body, media)
    title = one_line(found.title, 500) or PurePosixPath(path).stem
    text = storable(found.text)
    attributes = {**found.attributes, **({"cut": found.cut} if found.cut else {})}
    return {
        **row,
        "content_hash": content_hash(title, text),
        "title": title,
        "text": text,
        "language": found.language,
        "removed": False,
        "attributes": as_json(attributes),
    }


def extract(body: bytes, media_type: str) -> Extract:
    """What the bytes of a file say.

    Raises:
        Unreadable: of no kind that is read, damaged, encrypted, too large when unpacked, or without any text.
    """
    reader = _READERS.get(media_type)
    if reader is None:
        raise Unreadable(f"media type {media_type[:80]!r}: allowed: {', '.join(_READERS)}")
    found = reader(body)
    if len(found.text) > MAX_TEXT_CHARS:
        found.text = found.text[:MAX_TEXT_CHARS]
        found.cut = f"after {MAX_TEXT_CHARS} characters"
    if not found.text.strip():
        raise Unreadable("it holds no text (is it scanned? then it needs text recognition first)")
    return found


def _markdown(body: bytes) -> Extract:
    text = decoded(body).replace("\r\n", "\n")
    attributes, rest = front_matter(text)
    cleaned = safe(rest)
    title = attributes.get("title")
    language = attributes.get("lang") or attributes.get("language")
    return Extract(
        cleaned,
        title if isinstance(title, str) else heading(cleaned),
        language if isinstance(language, str) else None,
        attributes,
    )


def _text(body: bytes) -> Extract:
    return Extract(safe(decoded(body)))


def _html(body: bytes) -> Extract:
    page = decoded(body)
    text = from_html(page)
    return Extract(text, title_of_html(page) or heading(text), language_of_html(page))


def _pdf(body: bytes) -> Extract:
    from pypdf import PdfReader
    from pypdf.errors import PyPdfError

    # What it finds odd in a file is of use to nobody here.
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)
    until = time.monotonic() + MAX_SECONDS
    try:
        reader = PdfReader(io.BytesIO(body), strict=False)
        if reader.is_encrypted and not reader.decrypt(""):
            raise Unreadable("the PDF is encrypted; store it without a password")
        pages: list[str] = []
        size, cut = 0, None
        total = len(reader.pages)
        for number, page in enumerate(reader.pages):
            if number >= MAX_PAGES:
                cut = f"after {MAX_PAGES} of {total} pages"
            elif time.monotonic() > until:
                cut = f"after {number} of {total} pages, because reading them took {MAX_SECONDS:g} s"
            elif size > MAX_TEXT_CHARS:
                cut = f"after {number} of {total} pages, because they hold more than {MAX_TEXT_CHARS} characters"
            if cut:
                break
            pages.append(page.extract_text().strip())
            size += len(pages[-1])
        about = reader.metadata
        title = about.title if about else None
        author = about.author if about else None
    except Unreadable:
        raise
    except (PyPdfError, ValueError, KeyError, TypeError, IndexError, AttributeError, OSError, RecursionError) as error:
        # A damaged file fails wherever its damage is met.
        raise Unreadable(f"the PDF is damaged: {type(error).__name__}: {error}"[:300]) from error
    except (AssertionError, ArithmeticError, NotImplementedError, LookupError, MemoryError) as error:
        raise Unreadable(f"the PDF cannot be read: {type(error).__name__}: {error}"[:300]) from error
    text = safe("\n\n".join(page for page in pages if page))
    attributes: dict[str, Any] = {"pages": total, **({"author": author} if isinstance(author, str) else {})}
    named = plain(title) if isinstance(title, str) else None
    return Extract(text, named or _first_line(text), None, attributes, cut)


def _docx(body: bytes) -> Extract:
    import mammoth

    core = _checked_archive(body)
    try:
        result = mammoth.convert_to_html(io.BytesIO(body), convert_image=mammoth.images.img_element(_no_image))
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError, AttributeError, OSError, RecursionError) as error:
        raise Unreadable(f"the DOCX is damaged: {type(error).__name__}: {error}"[:300]) from error
    except Exception as error:
        # The XML reader beneath has errors of its own.
        raise Unreadable(f"the DOCX cannot be read: {type(error).__name__}: {error}"[:300]) from error
    text = from_html(result.value)
    about = {name: match[1] for name, pattern in _CORE.items() if (match := pattern.search(core))}
    title = plain(about.pop("title", "")) or heading(text)
    return Extract(text, title, None, {name: value for name, value in about.items() if value})


def _no_image(_: object) -> dict[str, str]:
    return {"src": ""}


def _checked_archive(body: bytes) -> str:
    """The core properties of a DOCX, empty when it has none, after a look at how large it becomes.

    Raises:
        Unreadable: no archive, encrypted, too large, or with declarations that XML bombs are made of.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            parts = archive.infolist()
            if len(parts) > MAX_PARTS:
                raise Unreadable(f"the DOCX holds more than {MAX_PARTS} files")
            if sum(part.file_size for part in parts) > MAX_UNPACKED_BYTES:
                raise Unreadable(f"the DOCX unpacks to more than {MAX_UNPACKED_BYTES >> 20} MiB")
            if any(part.flag_bits & 1 for part in parts):
                raise Unreadable("the DOCX is encrypted; store it without a password")
            core = ""
            for part in parts:
                if not part.filename.endswith((".xml", ".rels")):
                    continue
                if part.file_size > MAX_PART_BYTES:
                    raise Unreadable(f"{part.filename[:100]} in the DOCX is larger than {MAX_PART_BYTES >> 20} MiB")
                content = archive.read(part)
                if _ENTITY.search(content):
                    raise Unreadable(f"{part.filename[:100]} in the DOCX declares entities, which no DOCX needs")
                if part.filename == "docProps/core.xml":
                    core = content.decode("utf-8", "replace")
            return core
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError, EOFError, zlib.error) as error:
        encrypted = body[:8] == b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
        reason = "encrypted, or of the old binary kind; store it as a plain .docx" if encrypted else f"damaged: {error}"
        raise Unreadable(f"the DOCX is {reason}"[:300]) from error


def front_matter(text: str) -> tuple[dict[str, Any], str]:
    """The YAML at the head of a Markdown file, as plain JSON values, and the rest; ``{}`` when there is none."""
    match = _FRONT_MATTER.match(text[: MAX_FRONT_MATTER_CHARS + 10])
    if match is None:
        return {}, text
    try:
        if not _is_small(match[1]):
            return {}, text
        found = yaml.load(match[1], Loader=_SafeLoader)  # noqa: S506 - both are safe
    except (yaml.YAMLError, ValueError, RecursionError):
        return {}, text
    if not isinstance(found, dict):
        return {}, text
    return {str(key): _jsonable(value) for key, value in found.items()}, text[match.end() :]


def _is_small(text: str) -> bool:
    """Whether YAML stays small when it is read: nested little, and without the aliases that bombs are made of."""
    depth = 0
    for event in yaml.parse(text, _SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_FRONT_MATTER_DEPTH or isinstance(event, yaml.AliasEvent):
            return False
    return True


def _jsonable(value: object) -> object:
    if isinstance(value, dict):
        return {str(key): _jsonable(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set):
        return [_jsonable(inner) for inner in value]
    return value if isinstance(value, str | int | float | bool) or value is None else str(value)


def decoded(body: bytes) -> str:
    """Text of bytes: by a byte-order mark, as UTF-8, by the ``charset`` that HTML names, else as Windows-1252.

    Raises:
        Unreadable: it is no text.
    """
    for mark, encoding in ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if body.startswith(mark):
            return body.decode(encoding, "replace")
    if b"\0" in body:
        raise Unreadable("it is no text: it holds zero bytes")
    for encoding in _encodings(body):
        try:
            return body.decode(encoding)
        except (UnicodeDecodeError, LookupError):
            continue
    return body.decode("windows-1252", "replace")


def _encodings(body: bytes) -> Iterator[str]:
    yield "utf-8"
    named = _CHARSET.search(body[:4096])
    if named:
        yield named[1].decode("ascii")


def _first_line(text: str) -> str | None:
    return next((plain(line) for line in text.split("\n") if 3 <= len(line.strip()) <= 120), None)


_READERS: Mapping[str, Callable[[bytes], Extract]] = {
    MARKDOWN: _markdown,
    HTML: _html,
    PDF: _pdf,
    DOCX: _docx,
    TEXT: _text,
}
