"""Texts of documents as Markdown without markup that could run.

What belongs here: HTML to Markdown, and taking the sting out of Markdown that others wrote. What does not: files and
their kinds (``documents``), and records of ITSM systems (``servicenow``).

HTML is cleaned by nh3 (scripts, styles, frames, handlers and addresses other than the usual ones are gone) and turned
into Markdown by html-to-markdown. Markdown may hold HTML itself: outside code, tags are written as text and addresses
that would run are cut off.
"""

from __future__ import annotations

import html
import re

#: longer HTML is cut off before it is read (characters)
MAX_HTML_CHARS = 20_000_000
#: HTML nested more deeply than any page that people write is read as text: parsers take quadratic time for it
MAX_DEPTH = 400
#: in a longer line code is not told from text (characters)
MAX_SPAN_CHARS = 10_000
_NESTING = re.compile(
    r"<(/?)(?:div|span|ul|ol|dl|blockquote|table|section|article|main|aside|header|footer|nav|figure|details|center|font"
    r"|b|i|u|em|strong|small|big|code|pre|sub|sup|a|del|ins|s|q|cite|kbd|samp|var|abbr|h[1-6])\b",
    re.IGNORECASE,
)
_HIDDEN = re.compile(r"<(script|style)\b", re.IGNORECASE)
_ANY_TAG = re.compile(r"<[^<>]*>")
_FENCE = re.compile(r" {0,3}(`{3,}(?=[^`]*$)|~{3,})")
_SPAN = re.compile(r"(?<![`\\])(`+)(?!`)(.+?)(?<!`)\1(?!`)")
_TAG = re.compile(r"<(?=[A-Za-z/!?])(?!(?:https?://|mailto:)[^\s<>]*>)(?![\w.+-]+@[\w.-]+>)")
#: where an address stands: in a link or in the definition of one; or, broken off the line before, where a line begins
_ADDRESS = re.compile(r"(\]\(\s{0,99}<?\s{0,99}|^\s{0,99}\[[^\]]+\]:\s{0,99}<?\s{0,99})([^\s)>]+)")
_BROKEN_OFF = re.compile(r"^(\s*<?)([^\s()<>\[\]]+)")
_RUNS = re.compile(r"(?:javascript|vbscript|data|file):", re.IGNORECASE)
_RUNS_ALONE = re.compile(r"(?:javascript|vbscript|data:\s*text/html)", re.IGNORECASE)
_BLANK_LINES = re.compile(r"\n{3,}")
_TITLE = re.compile(r"<title[^>]*>(.*?)</title\s*>", re.IGNORECASE | re.DOTALL)
_LANGUAGE = re.compile(r"<html[^>]*?\slang\s*=\s*[\"']?([A-Za-z]{2,3}(?:-[A-Za-z0-9]{2,8})*)", re.IGNORECASE)
_HEADING = re.compile(r"^ {0,3}#{1,2}[ \t]+(\S.*)$", re.MULTILINE)
_UNDERLINED = re.compile(r"^(\S.*)\n=+[ \t]*$", re.MULTILINE)
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ufdd0-\ufdef\ufffe\uffff\ud800-\udfff]")


def from_html(page: str) -> str:
    """HTML (a page or a part of one) as Markdown."""
    import nh3
    from html_to_markdown import ConversionError, convert

    page = page[:MAX_HTML_CHARS]
    if _is_deep(page):
        return _text_of(page)
    tags = nh3.ALLOWED_TAGS - {"form", "input", "button", "svg", "math"}
    cleaned = nh3.clean(
        page,
        tags=tags,
        clean_content_tags={"script", "style", "title", "template", "noscript", "iframe", "object"},
        link_rel=None,
        url_schemes={"http", "https", "mailto", "ftp"},
    )
    try:
        return safe(convert(cleaned).content or "")
    except ConversionError:
        return _text_of(cleaned)


def _is_deep(page: str) -> bool:
    depth = 0
    for match in _NESTING.finditer(page):
        depth = max(0, depth - 1) if match[1] else depth + 1
        if depth > MAX_DEPTH:
            return True
    return False


def _text_of(page: str) -> str:
    """What a page says, without any of its structure."""
    return safe(html.unescape(_ANY_TAG.sub(" ", _without_scripts(page))))


def _without_scripts(page: str) -> str:
    """A page without what scripts and styles hold, in one pass."""
    parts: list[str] = []
    place = 0
    while begin := _HIDDEN.search(page, place):
        parts.append(page[place : begin.start()])
        end = re.compile(f"</{begin[1]}", re.IGNORECASE).search(page, begin.end())
        if end is None:
            return "".join(parts)
        place = end.start()
    return "".join((*parts, page[place:]))


def safe(text: str) -> str:
    """Markdown in which nothing runs: tags outside code become text, addresses that run are cut off.

    Line ends become ``\\n``; control characters are left out, as are more than two line ends in a row.
    """
    text = _CONTROL.sub("", text.replace("\r\n", "\n").replace("\r", "\n").replace("\u2028", "\n"))
    lines: list[str] = []
    fence = ""
    for line in text.split("\n"):
        match = _FENCE.match(line)
        if fence:
            if match and match[1][0] == fence[0] and len(match[1]) >= len(fence) and not line[match.end() :].strip():
                fence = ""
            lines.append(line)
        elif match:
            fence = match[1]
            lines.append(_TAG.sub("&lt;", line))
        else:
            lines.append(_safe_line(line))
    return _BLANK_LINES.sub("\n\n", "\n".join(lines)).strip()


def _safe_line(line: str) -> str:
    if "<" not in line and ":" not in line and "&" not in line:
        return line
    if len(line) > MAX_SPAN_CHARS:
        return _defused(line)
    parts: list[str] = []
    place = 0
    for match in _SPAN.finditer(line):
        parts += (_defused(line[place : match.start()]), match[0])
        place = match.end()
    parts.append(_defused(line[place:]))
    return "".join(parts)


def _defused(text: str) -> str:
    return _TAG.sub("&lt;", _BROKEN_OFF.sub(_address, _ADDRESS.sub(_address, text)))


def _address(match: re.Match[str]) -> str:
    """An address, or ``#`` instead of one that would run, however it is spelt."""
    spelt = html.unescape(match[2])
    spelt = "".join(letter for letter in spelt if letter > " " and letter != "\\")
    pattern = _RUNS if "]" in match[1] else _RUNS_ALONE
    return f"{match[1]}#" if pattern.match(spelt) else match[0]


def title_of_html(page: str) -> str | None:
    """What a page calls itself."""
    match = _TITLE.search(page[:20_000])
    return plain(match[1]) if match else None


def language_of_html(page: str) -> str | None:
    """The language that a page says it is in (BCP 47)."""
    match = _LANGUAGE.search(page[:10_000])
    return match[1] if match else None


def heading(text: str) -> str | None:
    """The first heading of the first or second level of Markdown."""
    head = text[:20_000]
    found = [match for match in (_HEADING.search(head), _UNDERLINED.search(head)) if match]
    first = min(found, key=lambda match: match.start(), default=None)
    return plain(first[1].rstrip().rstrip("#")) if first else None


def plain(text: str) -> str | None:
    """One line without entities and marks of emphasis, at most 500 characters."""
    text = " ".join(html.unescape(text).split()).strip("*_` ")
    return _CONTROL.sub("", text)[:500] or None
