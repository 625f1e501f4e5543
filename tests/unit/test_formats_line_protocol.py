"""Line protocol: what is read, what is rejected and why, and that the fast path and the scanner agree."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiops_assets.formats import line_protocol, payload
from aiops_assets.formats.batch import Parsed
from aiops_assets.formats.line_protocol import BadLine, parse, scan_line
from aiops_assets.formats.payload import MAX_REJECTS, Refused, micros_of_any
from aiops_assets.formats.telegraf_mapping import resolve, rule
from aiops_assets.landing.segment import Delivery
from tests.examples import examples

NOW = 1_760_000_000_123_456
T = 1_750_000_000


def delivery(body: bytes | str, **headers: str) -> Delivery:
    return Delivery("id", NOW, "telegraf", "", body.encode() if isinstance(body, str) else body, headers)


def rows(parsed: Parsed) -> list[tuple[int, str, str, str, int, float]]:
    """(delivery, host, metric, labels, ts, value) of every point, in order."""
    series = parsed.series.rows(named=True)
    return [
        (of, series[number]["host"], series[number]["metric"], series[number]["labels"], ts, value)
        for of, number, ts, value in parsed.points.iter_rows()
    ]


def values(body: bytes | str) -> dict[str, float]:
    return {metric: value for _, _, metric, _, _, value in rows(parse([delivery(body)]))}


def reasons(body: bytes | str) -> list[str]:
    return [reject.reason for reject in parse([delivery(body)]).rejects]


def test_reads_every_numeric_type() -> None:
    assert values(f"m,host=a f=1.5,e=-2e3,i=-7i,u=18446744073709551615u,t=t,T=T,yes=true,F=F,no=FALSE {T}") == {
        "m.f": 1.5, "m.e": -2000.0, "m.i": -7.0, "m.u": 2.0**64, "m.t": 1.0, "m.T": 1.0, "m.yes": 1.0, "m.F": 0.0,
        "m.no": 0.0,
    }  # fmt: skip


def test_reads_escapes_in_measurement_tags_and_fields() -> None:
    parsed = parse([delivery(rf"my\ m\,x,host=a\ b,ta\=g=c\,d\=e fie\ ld=1,k\,2=2 {T}")])
    assert rows(parsed) == [
        (0, "a b", "my m,x.fie ld", '{"ta=g":"c,d=e"}', T * 1_000_000, 1.0),
        (0, "a b", "my m,x.k,2", '{"ta=g":"c,d=e"}', T * 1_000_000, 2.0),
    ]


def test_double_backslashes_go_the_way_of_telegrafs_parser() -> None:
    parsed = parse([delivery(rf"m,host=a,path=C:\\x\ y v=1 {T}" + "\n" + rf"m,host=a,path=\\,b=c v=1 {T}")])
    assert [row[3] for row in rows(parsed)] == [r'{"path":"C:\\\\x y"}']
    assert len(parsed.rejects) == 1


@pytest.mark.parametrize(
    "text", ["plain", "a b, c=d 1 2", r"with \" quote", r"back \\", "=", ",", " ", "", "#", "line\nbreak"]
)
def test_text_fields_are_left_out_whatever_they_hold(text: str) -> None:
    body = f'm,host=a a=1,s="{text}",b=2 {T}\nn,host=a v=3 {T}'
    parsed = parse([delivery(body)])
    assert [row[2] for row in rows(parsed)] == ["m.a", "m.b", "n.v"]
    assert {row[4] for row in rows(parsed)} == {T * 1_000_000}
    assert not parsed.rejects


def test_lines_inside_a_text_field_are_not_points() -> None:
    parsed = parse([delivery(f'm,host=a v=1,s="first\ncpu,host=b x=1\n\nlast" {T}\nn,host=a v=2 {T}\n')])
    assert [row[2] for row in rows(parsed)] == ["m.v", "n.v"]
    assert not parsed.rejects


def test_an_open_quote_rejects_its_line_alone() -> None:
    body = f'a,host=h v=1 {T}\nb,host=h s="open {T}\nc,host=h v=1 {T}\nd,host=h s="closed",v=2 {T}\n'
    parsed = parse([delivery(body)])
    assert [row[2] for row in rows(parsed)] == ["a.v", "c.v", "d.v"]
    assert [(reject.offset, reject.content) for reject in parsed.rejects] == [
        (body.index("b,"), f'b,host=h s="open {T}'.encode())
    ]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("m,host=a v=NaN", "NaN or infinite"),
        ("m,host=a v=-inf", "NaN or infinite"),
        ("m,host=a v=1e400", "too large"),
        ("m,host=a v=1.5i", "allowed: a number"),
        ("m,host=a v=9223372036854775808i", "range of its integer type"),
        ("m,host=a v=-1u", "range of its integer type"),
        ("m,host=a v=yes", "allowed: a number"),
        ("m,host=a v=", "has no value"),
        ("m,host=a v=1,", "expected a field"),
        ("m,host=a =1", "expected a field"),
        ("m,host=a", "no fields"),
        ("m,host= v=1", "expected a tag"),
        ("m,host v=1", "expected a tag"),
        ("m,host=a,host=b v=1", "appears twice"),
        (",host=a v=1", "expected a measurement"),
        ("m,host=a v=1 12x", "timestamp"),
        ("m,host=a v=1 1.5", "timestamp"),
        ("m,host=a v=1 9999999999999999999", "64 bits"),
        ("m,host=a v=1 -9223372036854775808", "64 bits"),
        ("m,host=a v=1 1 2", "timestamp"),
        ('m,host=a s="text"x', "comma, a blank"),
        ("m,host=a\x01b v=1", "control character U+0001"),
        ("m,host=a\ufdd0b v=1", "control character U+FDD0"),
        ("m,host=a f\x7f=1", "control character U+007F"),
        (f"m,host={'x' * 1025} v=1", "longer than 1024"),
        (f"{'m' * 1000},host=a {'f' * 40}=1", "metric name is longer"),
        ("m," + ",".join(f"t{n}={'x' * 1000}" for n in range(20)) + " v=1", "the tags together"),
    ],
)
def test_a_bad_line_is_rejected_alone_with_its_reason(line: str, reason: str) -> None:
    body = f"good,host=a v=1 {T}\n{line}\ngood,host=a v=2 {T + 1}\n".encode()
    parsed = parse([delivery(body)])
    assert [row[-1] for row in rows(parsed)] == [1.0, 2.0]
    (reject,) = parsed.rejects
    assert reason in reject.reason
    assert reject.content == line.encode()
    assert body[reject.offset : reject.offset + len(reject.content)] == reject.content


def test_invalid_utf8_rejects_its_line_alone_at_the_right_offset() -> None:
    body = b"a,host=h v=1\nb,host=\xff\xfe v=1\nc,host=h v=2\nd d=\n"
    parsed = parse([delivery(body)])
    assert [row[2] for row in rows(parsed)] == ["a.v", "c.v"]
    assert [(body[r.offset : r.offset + len(r.content)], r.content) for r in parsed.rejects] == [
        (b"b,host=\xff\xfe v=1", b"b,host=\xff\xfe v=1"),
        (b"d d=", b"d d="),
    ]


@pytest.mark.parametrize("factor", [1, 10**3, 10**6, 10**9])
def test_the_unit_of_timestamps_is_told_by_their_magnitude(factor: int) -> None:
    assert rows(parse([delivery(f"m,host=a v=1 {T * factor}")]))[0][4] == T * 1_000_000


@pytest.mark.parametrize(
    ("precision", "stamp", "micros"),
    [
        ("ns", 5_000, 5),
        ("us", 5, 5),
        ("ms", 5, 5_000),
        ("s", 5, 5_000_000),
        ("h", 1, 3_600_000_000),
        ("?", 5, 5_000_000),
    ],
)
def test_a_precision_header_decides(precision: str, stamp: int, micros: int) -> None:
    assert rows(parse([delivery(f"m,host=a v=1 {stamp}", precision=precision)]))[0][4] == micros


def test_a_timestamp_beyond_its_precision_is_rejected_not_wrapped() -> None:
    parsed = parse([delivery(f"m,host=a v=1 {10**18}\nm,host=a v=2 {T}\nm,host=a v=3", precision="s")])
    assert [row[-1] for row in rows(parsed)] == [2.0, 3.0]
    assert "range of its precision" in parsed.rejects[0].reason


def test_a_missing_timestamp_is_the_time_of_acceptance() -> None:
    assert rows(parse([delivery("m,host=a v=1")]))[0][4] == NOW


def test_negative_timestamps_lie_before_the_epoch() -> None:
    assert rows(parse([delivery("m,host=a v=1 -1500000000000000001")]))[0][4] == -1_500_000_000_000_001


def test_blank_lines_comments_and_crlf_are_harmless() -> None:
    body = f"\r\n# comment a=1 2\r\n  # more\n\n   \nm,host=a v=1 {T}\r\nm,host=a v=2\r\n  m,host=a   v=3    {T}  \n"
    parsed = parse([delivery(body)])
    assert [row[-1] for row in rows(parsed)] == [1.0, 2.0, 3.0]
    assert not parsed.rejects


@pytest.mark.parametrize("body", [b"", b"\n\n", b"# only a comment\n", b"  \r\n"])
def test_a_delivery_without_content_is_rejected_as_empty(body: bytes) -> None:
    parsed = parse([delivery(body)])
    assert [(reject.reason, reject.content) for reject in parsed.rejects] == [("empty", body)]


def test_a_delivery_that_gives_nothing_is_rejected_whole() -> None:
    (reject,) = parse([delivery(b"one\ntwo\nthree\n")]).rejects
    assert reject.content == b"one\ntwo\nthree\n"
    assert "2 more problems" in reject.reason


def test_points_keep_the_order_of_the_payload_across_fast_and_careful_lines() -> None:
    lines = [
        f"m,host=a v=0 {T}",
        f"m,host=a  v=1 {T}",
        f'm,host=a v=2,s="x y" {T}',
        rf"m,host=a,x=y\ z v=3 {T}",
        f"m,host=a v=4i,w=5 {T}",
        f"m,host=a v=6,\tw=7 {T}".replace("\t", ""),
    ]
    parsed = parse([delivery("\n".join(lines)), delivery("m,host=b v=8")])
    assert [row[-1] for row in rows(parsed)] == [float(n) for n in range(9)]
    assert [row[0] for row in rows(parsed)] == [0] * 8 + [1]


def test_tags_in_another_order_are_the_same_series() -> None:
    parsed = parse([delivery("m,host=a,x=1,y=2 v=1 1\nm,y=2,x=1,host=a v=2 2\nm,y=2,x=1,host=a  v=3 3")])
    assert parsed.series.height == 1
    assert parsed.points["series"].to_list() == [0, 0, 0]


def test_many_rejects_of_a_delivery_are_joined_and_nothing_is_lost() -> None:
    bad = [f"bad {n}" for n in range(MAX_REJECTS + 500)]
    parsed = parse([delivery("\n".join([*bad, "m,host=a v=1"]))])
    assert len(parsed.rejects) == MAX_REJECTS + 1
    assert b"\n".join(reject.content for reject in parsed.rejects).decode().split("\n") == bad


def test_a_flood_of_lines_without_fields_is_rejected_and_nothing_is_lost() -> None:
    bad = [f"bad{n}" for n in range(20_000)]
    parsed = parse([delivery("\n".join([*bad, "m,host=a v=1"]))])
    assert parsed.points.height == 1
    assert b"\n".join(reject.content for reject in parsed.rejects).decode().split("\n") == bad


def test_a_line_of_ten_megabytes_is_read() -> None:
    count = 600_000
    line = "m,host=a " + ",".join(f"field_{n % 1000}={n}i" for n in range(count)) + f" {T}"
    assert len(line) > 10_000_000
    parsed = parse([delivery(f"before,host=a v=1\n{line}\nafter,host=a v=1")])
    assert parsed.points.height == count + 2
    assert not parsed.rejects


def test_a_bad_line_of_ten_megabytes_is_rejected_alone() -> None:
    for line in ("x" * 10_000_000, 'm v="' + "x" * 10_000_000, "m," + "a=b," * 2_500_000, "\\" * 10_000_000):
        parsed = parse([delivery(f"before,host=a v=1\n{line}\nafter,host=a v=1")])
        assert parsed.points.height == 2
        assert [len(reject.content) for reject in parsed.rejects] == [len(line)]


def test_a_hundred_thousand_distinct_tag_sets_are_read() -> None:
    lines = "\n".join(f"m,host=h{n} a=1,b=2 {T}" for n in range(100_000))
    parsed = parse([delivery(lines)])
    assert parsed.series.height == parsed.points.height == 200_000


def test_bodies_larger_than_a_piece_are_read_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_protocol, "PIECE_BYTES", 100)
    body = "\n".join(f"m{n % 7},host=a v={n} {T}" if n % 10 else "bad" for n in range(1_000))
    parsed = parse([delivery(body), delivery(body)])
    assert [row[-1] for row in rows(parsed)] == [float(n) for n in range(1_000) if n % 10] * 2
    assert all(body[r.offset : r.offset + 4].strip() == "bad" for r in parsed.rejects)
    assert len(parsed.rejects) == 200


def test_a_line_is_rejected_once_whatever_else_is_wrong_with_it() -> None:
    body = f'm,host=a v=bad {10**18}\nm,host=a s="x\nm,host=a v=1 {10**18}\n",v=5 {T}\nm,host=a v=1 {T}'
    parsed = parse([delivery(body, precision="s")])
    assert [row[-1] for row in rows(parsed)] == [5.0, 1.0]
    assert [reject.content for reject in parsed.rejects] == [f"m,host=a v=bad {10**18}".encode()]


def test_text_that_repeats_a_number_is_left_out_without_a_reject() -> None:
    parsed = parse([delivery(f'system,host=a uptime_format="1 day, 2:03" {T}\nsystem,host=a uptime=7i {T}')])
    assert [row[2] for row in rows(parsed)] == ["system.uptime"]
    assert not parsed.rejects


def test_many_lines_with_surplus_blanks_are_read() -> None:
    lines = [f"  m,host=a   v={n},w=1  {T} " if n % 2 else f"m,host=a\tv={n},w=1\t{T}\t" for n in range(30_000)]
    parsed = parse([delivery("\n".join([*lines, "m,host=a  v=", ""]))])
    assert parsed.points["value"].to_list()[::2] == [float(n) for n in range(30_000)]
    assert [reject.content for reject in parsed.rejects] == [b"m,host=a  v="]


def test_a_delivery_full_of_problems_is_kept_whole_and_its_good_lines_land(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payload, "MAX_PROBLEMS", 50)
    body = "\n".join(["m,host=a v=1", *["m,host=a v="] * 500, "m,host=a v=2"])
    parsed = parse([delivery(body), delivery("m,host=a v=3\nbad")])
    assert [row[-1] for row in rows(parsed)] == [1.0, 2.0, 3.0]
    assert [reject.content for reject in parsed.rejects] == [body.encode(), b"bad"]


def test_a_large_text_without_fields_is_one_reject() -> None:
    body = b"\0" * 20_000_000
    (reject,) = parse([delivery(body)]).rejects
    assert reject.content is body


Points = list[tuple[str, str, str, int, float]]
Texts = list[tuple[str, str, str, int, str]]


def expected(body: str) -> tuple[Points, Texts, list[str]]:
    """What the scanner alone makes of a body without text fields that span lines: points, log events, bad lines."""
    texts: Texts = []
    points: Points = []
    bad: list[str] = []
    for text in body.split("\n"):
        try:
            line = scan_line(text.removesuffix("\r"))
            if line is None:
                continue
            key = resolve(line.measurement, line.tags)
        except (BadLine, Refused):
            bad.append(text.removesuffix("\r"))
            continue
        ts = NOW if line.stamp is None else int(micros_of_any(line_protocol.np.array([line.stamp]))[0])
        for name, value in zip(line.names, line.values, strict=True):
            made = rule(key.family, key.measurement, name)
            labels = key.labels_text if made.extra is None else _with(key.labels, made.extra)
            points.append((key.host, made.metric, labels, ts, value / made.divisor + made.offset))
        for name, value_ in line.texts:
            field = "telegraf.field" if "field" in key.labels else "field"
            texts.append((key.host, key.measurement, _with(key.labels, (field, name)), ts, value_))
    return points, sorted(texts), bad


def _with(labels: dict[str, str], extra: tuple[str, str]) -> str:
    return line_protocol_labels({**labels, extra[0]: extra[1]})


def line_protocol_labels(labels: dict[str, str]) -> str:
    from aiops_assets.formats.batch import labels_json

    return labels_json(labels)


PIECES = st.sampled_from(
    ["cpu", "mem", "net", "m", ",", ",", "=", "=", " ", " ", "host", "cpu-total", "interface", "eth0", "bytes_recv",
     "usage_idle", "used_percent", "v", "1", "2.5", "7i", "8u", "t", "false", "nan", "1e999", '"', '""', '"a b"',
     '="x, y"', "\\", "\\ ", "\\,", "\\=", '\\"', "\\\\", "\t", "\r", "#", "é", "\ufdd1", "\x00", "1750000000",
     "1750000000000000000", "-5", "+", ".", "_"]
)  # fmt: skip
NAME = st.sampled_from(["m", "cpu", "net", "a b", "c,d", "e=f", 'q"r', "s\\t", "é", "x.y", "100%2E", "#h"])
VALUE = st.one_of(
    st.floats().map(repr),
    st.integers(-(2**64), 2**65).map(lambda n: f"{n}i"),
    st.integers(-5, 2**65).map(lambda n: f"{n}u"),
    st.sampled_from(
        ["t", "F", "true", "False", "maybe", "", '"text"', '"a, b=c"', '"q\\"r"', '"b\\\\"', '"open', "1_0"]
    ),
)


def _escaped(name: str) -> str:
    return name.replace(",", "\\,").replace("=", "\\=").replace(" ", "\\ ")


@st.composite
def lines(draw: st.DrawFn) -> str:
    tags = "".join(
        f",{_escaped(name)}={_escaped(value)}" for name, value in draw(st.lists(st.tuples(NAME, NAME), max_size=3))
    )
    fields = ",".join(
        f"{_escaped(name)}={value}" for name, value in draw(st.lists(st.tuples(NAME, VALUE), min_size=1, max_size=3))
    )
    stamp = draw(st.one_of(st.just(""), st.integers(-(2**64), 2**64).map(lambda n: f" {n}")))
    return f"{_escaped(draw(NAME))}{tags} {fields}{stamp}"


@settings(max_examples=examples(400), deadline=None)
@given(st.lists(st.one_of(lines(), st.lists(PIECES, max_size=14).map("".join)), max_size=8))
def test_the_fast_path_and_the_scanner_agree(found: list[str]) -> None:
    # an open text field may be closed by a later line, which the scanner alone does not know
    found = [line for line in found if not _open(line)]
    body = "\n".join(found)
    parsed = parse([delivery(body)])
    points, texts, bad = expected(body)
    assert [row[1:] for row in rows(parsed)] == points
    assert sorted(parsed.logs.select("host", "app", "attributes", "ts", "body").rows()) == texts
    assert all(math.isfinite(value) for *_, value in points)
    if points or texts:
        assert [reject.content.decode() for reject in parsed.rejects] == bad
    else:
        assert len(parsed.rejects) == 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(line_protocol, "MANY_LINES", 0)
        again = parse([delivery(body)])
    assert [row[1:] for row in rows(again)] == points
    if points:
        assert sorted("\n".join(reject.content.decode() for reject in again.rejects).split("\n")) == sorted(bad or [""])


def _open(line: str) -> bool:
    try:
        scan_line(line)
    except line_protocol.OpenString:
        return True
    except BadLine:
        return False
    return False


@settings(max_examples=examples(200), deadline=None)
@given(
    st.lists(st.one_of(st.binary(max_size=200), st.lists(PIECES, max_size=40).map("".join).map(str.encode)), max_size=5)
)
def test_any_bytes_are_points_or_rejects(bodies: list[bytes]) -> None:
    parsed = parse([delivery(body) for body in bodies])
    seen = set(parsed.points["delivery"].to_list()) | {reject.delivery for reject in parsed.rejects}
    assert seen == set(range(len(bodies)))
    assert parsed.points["value"].is_finite().all()
    assert parsed.points["delivery"].is_sorted()
    for reject in parsed.rejects:
        if reject.content is not bodies[reject.delivery]:
            assert bodies[reject.delivery][reject.offset :].startswith(reject.content)
