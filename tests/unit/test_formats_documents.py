"""Files become documents: their text as Markdown in which nothing runs, within bounds; what cannot be read is named."""

from __future__ import annotations

import io
import zipfile
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiops_assets.formats import documents, parse
from aiops_assets.formats.documents import DOCX, HTML, MARKDOWN, PDF, TEXT, Unreadable, extract, front_matter
from aiops_assets.formats.markdown import from_html, heading, safe
from aiops_assets.landing.segment import Delivery

AT = 1_790_000_000_000_000


def file(body: bytes, path: str, media: str, **headers: str) -> Delivery:
    given_ = {"folder": "kb", "path": path, "uri": f"file:///kb/{path}", "media-type": media, "modified": str(AT)}
    return Delivery("d", AT + 5, "kb", media, body, {"format": "documents", **given_, **headers})


def row(body: bytes, path: str, media: str, **headers: str) -> dict[str, Any]:
    parsed = parse("documents", [file(body, path, media, **headers)])
    assert parsed.rejects == []
    (found,) = parsed.documents.iter_rows(named=True)
    return found


def pdf(*pages: str, title: str | None = None) -> bytes:
    """A PDF with one line of text a page."""
    objects = [b"<< /Type /Catalog /Pages 2 0 R >>", b"", b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"]
    kids = []
    for text in pages:
        stream = f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET".encode("latin-1")
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream))
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents %d 0 R "
            b"/Resources << /Font << /F1 3 0 R >> >> >>" % len(objects)
        )
        kids.append(b"%d 0 R" % len(objects))
    objects[1] = b"<< /Type /Pages /Count %d /Kids [%s] >>" % (len(pages), b" ".join(kids))
    info = b""
    if title is not None:
        objects.append(f"<< /Title ({title}) /Author (Ada) >>".encode())
        info = b" /Info %d 0 R" % len(objects)
    out = io.BytesIO(b"%PDF-1.4\n")
    out.seek(0, io.SEEK_END)
    places = []
    for number, content in enumerate(objects, 1):
        places.append(out.tell())
        out.write(b"%d 0 obj\n%s\nendobj\n" % (number, content))
    start = out.tell()
    out.write(b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1))
    out.writelines(b"%010d 00000 n \n" % place for place in places)
    trailer = b"trailer\n<< /Size %d /Root 1 0 R%s >>\nstartxref\n%d\n%%%%EOF"
    out.write(trailer % (len(objects) + 1, info, start))
    return out.getvalue()


_WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"


def docx(body: str, core: str = "", **more: bytes) -> bytes:
    """A DOCX with this body; ``more`` are further parts."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(
            "[Content_Types].xml",
            '<?xml version="1.0"?><Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
            '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
            '<Override PartName="/word/document.xml" ContentType="application/vnd.openxmlformats-officedocument.'
            'wordprocessingml.document.main+xml"/></Types>',
        )
        archive.writestr(
            "_rels/.rels",
            '<?xml version="1.0"?><Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
            '<Relationship Id="r1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/'
            'officeDocument" Target="word/document.xml"/></Relationships>',
        )
        archive.writestr(
            "word/document.xml",
            f'<?xml version="1.0"?><w:document xmlns:w="{_WORD}"><w:body>{body}</w:body></w:document>',
        )
        if core:
            archive.writestr("docProps/core.xml", core)
        for name, content in more.items():
            archive.writestr(name.replace("__", "/") + ".xml", content)
    return out.getvalue()


def test_markdown_keeps_its_text_and_front_matter() -> None:
    head = "---\ntitle: Disk full\ntags: [disk, linux]\nowner: storage\nreviewed: 2026-03-01\n---\n"
    text = f"{head}# Other\n\nRun `df -h`.\n"
    found = row(text.encode(), "runbooks/disk.md", MARKDOWN)
    assert found["title"] == "Disk full"
    assert found["text"] == "# Other\n\nRun `df -h`."
    assert found["kind"] == "runbook"
    assert found["document_id"] == "kb/runbooks/disk.md"
    assert found["ts"] == AT
    attributes = orjson.loads(found["attributes"])
    assert attributes["tags"] == ["disk", "linux"]
    assert attributes["owner"] == "storage"
    assert attributes["reviewed"] == "2026-03-01"


@pytest.mark.parametrize(
    ("text", "title"),
    [("intro\n\n# The *Title* #\n\nx", "The *Title"), ("Under\n=====\n\nx", "Under"), ("no heading", "page-1")],
)
def test_the_title_is_the_first_heading_else_the_name_of_the_file(text: str, title: str) -> None:
    assert row(text.encode(), "a/page-1.md", MARKDOWN)["title"].strip("*") == title.strip("*")


def test_html_comes_without_scripts_styles_and_handlers() -> None:
    page = (
        b"<!doctype html><html lang='de-AT'><head><title>Netz &amp; Strom</title><style>p{}</style>"
        b"<script>alert(1)</script></head><body onload='x()'><h1>Eins</h1><p onclick='y()'>Hallo <b>Welt</b> "
        b"<a href='javascript:z()'>a</a> <a href='https://x.example/'>b</a></p><iframe src='//e'></iframe>"
        b"<p>&lt;script&gt;w()&lt;/script&gt;</p><table><tr><th>A</th></tr><tr><td>1</td></tr></table>"
        b"<pre><code>if a &lt; b:\n  c</code></pre></body></html>"
    )
    found = row(page, "net.html", HTML)
    assert found["title"] == "Netz & Strom"
    assert found["language"] == "de-AT"
    text = found["text"]
    assert "# Eins" in text
    assert "**Welt**" in text
    assert "[b](https://x.example/)" in text
    assert "| 1 " in text
    assert "if a < b:\n  c" in text
    for gone in ("alert", "onclick", "javascript", "z()", "<script", "<iframe", "p{}"):
        assert gone not in text


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        ("a <script>x</script> b", "a &lt;script>x&lt;/script> b"),
        ("a < b and <https://x.example> <me@x.example>", "a < b and <https://x.example> <me@x.example>"),
        ("`<b>` and <b>", "`<b>` and &lt;b>"),
        ("\\`<b>\\` x", "\\`&lt;b>\\` x"),
        ("```html\n<b>\n```\n<b>", "```html\n<b>\n```\n&lt;b>"),
        ("~~~\n```\n<b>\n~~~\n<b>", "~~~\n```\n<b>\n~~~\n&lt;b>"),
        ("[x](javascript:alert(1)) [y]( <JaVaScRiPt:z>)", "[x](#)) [y]( <#>)"),
        ("[x](java&#115;cript&colon;a) [y](  java\\script:b)", "[x](#) [y](  #)"),
        ("[x](\n  javascript:z)", "[x](\n  #)"),
        ("data: 5 & file: 6", "data: 5 & file: 6"),
        ("[r]: data:text/html;base64,xx", "[r]: #"),
        ("a\x00b\x1b[31m\r\n\r\n\r\n\r\nc", "ab[31m\n\nc"),
    ],
)
def test_markdown_of_others_is_defused_outside_code(given_: str, expected: str | None) -> None:
    found = safe(given_)
    assert expected is None or found == expected
    assert "javascript:" not in found.lower()


@given(st.text(max_size=300))
def test_no_text_raises_and_what_is_safe_stays_as_it_is(text: str) -> None:
    once = safe(text)
    assert safe(once) == once
    from_html(text)


@pytest.mark.parametrize("tag", ["div", "ul", "blockquote", "span"])
def test_html_that_is_nested_without_end_is_read_as_text(tag: str) -> None:
    page = f"<style>p{{}}</style>{f'<{tag}>' * 100_000}Hello <script>x()</script>&lt;b&gt; you"
    assert from_html(page).split() == ["Hello", "&lt;b>", "you"]


@pytest.mark.parametrize("text", ["](" + " " * 300_000, "`a``b" * 100_000, "<script" * 50_000, "# " + " #" * 50_000])
def test_text_that_is_made_to_be_slow_is_not(text: str) -> None:
    assert heading(safe(text)) is None or text.startswith("#")


def test_a_pdf_gives_its_pages_title_and_author() -> None:
    found = row(pdf("First page of it", "Second page", title="UPS manual"), "ups.pdf", PDF)
    assert found["title"] == "UPS manual"
    assert found["text"] == "First page of it\n\nSecond page"
    assert orjson.loads(found["attributes"]) == {"pages": 2, "author": "Ada"}


def test_a_pdf_is_cut_by_pages_time_and_size_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    body = pdf(*(f"page {n}" for n in range(9)))
    monkeypatch.setattr(documents, "MAX_PAGES", 4)
    found = extract(body, PDF)
    assert found.cut == "after 4 of 9 pages"
    assert found.text.endswith("page 3")
    monkeypatch.setattr(documents, "MAX_SECONDS", 0.0)
    with pytest.raises(Unreadable):
        extract(body, PDF)
    monkeypatch.setattr(documents, "MAX_SECONDS", 10.0)
    monkeypatch.setattr(documents, "MAX_TEXT_CHARS", 10)
    assert extract(body, PDF).text == "page 0\n\npa"


def encrypted_pdf() -> bytes:
    from pypdf import PdfReader, PdfWriter

    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(pdf("secret"))))
    writer.encrypt("hunter2", algorithm="AES-256")
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def bomb() -> bytes:
    return docx("<w:p/>", word__media=b"\0" * (documents.MAX_UNPACKED_BYTES + 1))


@pytest.mark.parametrize(
    ("make", "media", "reason"),
    [
        (encrypted_pdf, PDF, "encrypted"),
        (lambda: pdf("x")[:200], PDF, "damaged"),
        (lambda: b"no pdf", PDF, "damaged"),
        (lambda: pdf(""), PDF, "holds no text"),
        (bomb, DOCX, "unpacks to more than 200 MiB"),
        (lambda: docx("<w:p/>", word__big=b"\0" * (documents.MAX_PART_BYTES + 1)), DOCX, "larger than 8 MiB"),
        (lambda: docx("<w:p/>", word__x=b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>'), DOCX, "declares entities"),
        (lambda: docx("<w:p/>")[:300], DOCX, "damaged"),
        (lambda: b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600, DOCX, "encrypted, or of the old binary kind"),
        (lambda: docx("<w:p"), DOCX, "DOCX"),
        (lambda: b"\0\1\2", TEXT, "zero bytes"),
        (lambda: b"   \n", TEXT, "holds no text"),
        (lambda: b"x", "image/png", "allowed: text/markdown"),
    ],
)
def test_what_cannot_be_read_is_rejected_whole_with_the_reason(make: Any, media: str, reason: str) -> None:
    body = make()
    parsed = parse("documents", [file(body, "a/b.bin", media)])
    assert parsed.documents.is_empty()
    (reject,) = parsed.rejects
    assert reason in reject.reason
    assert reject.reason.startswith("a/b.bin: ")
    assert reject.content == body


def test_a_docx_gives_headings_lists_tables_and_its_properties() -> None:
    heading = '<w:p><w:pPr><w:pStyle w:val="Heading1"/></w:pPr><w:r><w:t>Failover</w:t></w:r></w:p>'
    plain = "<w:p><w:r><w:rPr><w:b/></w:rPr><w:t>Call</w:t></w:r>"
    plain += '<w:r><w:t xml:space="preserve"> us &lt;b&gt;</w:t></w:r></w:p>'
    core = "<x><dc:title>DB failover</dc:title><dc:creator>Grace</dc:creator></x>"
    found = row(docx(heading + plain, core), "f.docx", DOCX)
    assert found["title"] == "DB failover"
    assert "**Call** us" in found["text"]
    assert "<b>" not in found["text"]
    assert orjson.loads(found["attributes"]) == {"author": "Grace"}


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("grüße".encode(), "grüße"),
        ("grüße".encode("utf-8-sig"), "grüße"),
        ("grüße".encode("utf-16"), "grüße"),
        ("grüße".encode("cp1252"), "grüße"),
    ],
)
def test_text_is_read_in_the_encodings_in_which_it_is_written(body: bytes, text: str) -> None:
    assert row(body, "g.txt", TEXT)["text"] == text


def test_front_matter_that_would_explode_or_is_none_is_text() -> None:
    bomb_ = "---\na: &a [x,x]\nb: [*a,*a]\n---\ntext"
    assert front_matter(bomb_) == ({}, bomb_)
    assert front_matter("---\n- a\n---\ntext") == ({}, "---\n- a\n---\ntext")
    assert front_matter("---\n" + "[" * 30_000 + "\n---\nx")[0] == {}


def test_a_file_that_is_gone_is_a_removal() -> None:
    found = row(b"", "old.md", MARKDOWN, removed="true")
    assert found["removed"]
    assert (found["content_hash"], found["text"]) == ("", "")
    assert found["document_id"] == "kb/old.md"


def test_versions_differ_by_content_and_places_by_id() -> None:
    first, second = row(b"# A\n\nx", "a.md", MARKDOWN), row(b"# A\n\ny", "a.md", MARKDOWN)
    assert first["document_id"] == second["document_id"]
    assert first["content_hash"] != second["content_hash"]
    assert row(b"# A\n\nx", "a.md", MARKDOWN, modified="1")["content_hash"] == first["content_hash"]


@given(st.binary(max_size=400), st.sampled_from([MARKDOWN, HTML, PDF, DOCX, TEXT, ""]))
def test_bytes_of_any_kind_end_as_a_document_or_a_reject(body: bytes, media: str) -> None:
    parsed = parse("documents", [file(body, "x.md", media)])
    assert parsed.documents.height + len(parsed.rejects) == 1


@given(st.integers(0, 4000), st.integers(0, 255), st.sampled_from(["pdf", "docx"]))
def test_damaged_files_end_as_a_document_or_a_reject(place: int, value: int, kind: str) -> None:
    body = bytearray(pdf("some text", title="t") if kind == "pdf" else docx("<w:p><w:r><w:t>x</w:t></w:r></w:p>"))
    body[place % len(body)] = value
    parsed = parse("documents", [file(bytes(body), "x", PDF if kind == "pdf" else DOCX)])
    assert parsed.documents.height + len(parsed.rejects) == 1
