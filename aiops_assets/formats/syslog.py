"""syslog: RFC 5424, RFC 3164 and what vendors make of it, to log events.

What belongs here: reading messages, whatever brought them (``framing`` tells): our listener, a file, a request with one
message a line. Header ``zone`` names the time zone of stamps without one, ``host`` the host of messages that name none
and have no sender's address. Severity and facility come from the PRI; a message without one has neither. Structured
data, facility, message id and the sender's address (where it is not the host) are kept in ``attributes``. The tag of
RFC 3164 becomes ``app`` and ``pid``; everything after it is the body. What follows no rule is a body as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

import orjson
import polars as pl

from aiops_assets.formats import instants
from aiops_assets.formats.batch import LOGS_SCHEMA, MAX_NAME_CHARS, Parsed
from aiops_assets.formats.framing import records
from aiops_assets.formats.payload import FORBIDDEN, Refused, Rejects
from aiops_assets.formats.records import MAX_MICROS, MIN_MICROS, Entities
from aiops_assets.formats.severity import SYSLOG, of_text, of_word
from aiops_assets.landing.segment import Delivery

FACILITIES: tuple[str, ...] = (
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp", "ntp",
    "audit", "alert", "clock", *(f"local{number}" for number in range(8)),
)  # fmt: skip
MAX_PRI = 191

_RFC5424 = r"^\d{1,2} (?:-|\d{4}-\d\d-\d\dT\S+) "
_RFC3164 = r"^[JFMASOND][a-z]{2} [ 0-3]\d \d\d:\d\d:\d\d \S"
#: RFC 3164 stamps followed by a year, a zone or Cisco's mnemonic instead of a host
_MORE_THAN_3164 = r"^.{15} (?:(?:19|20)\d\d[ :]|[A-Z]{3,4}: |: |%)"
_ISO = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\S* \S"

_ELEMENTS = r'(?s)^((?:\[[^"\]]*(?:"(?:[^"\\]|\\.)*"[^"\]]*)*\])+)(?: |$)'
#: one element that becomes JSON by replacing its separators: no escapes, controls, '=' or brackets in its values
_PLAIN_ELEMENT = r'^\[[^\s="\[\]\\]+(?: [^\s="\[\]\\]+="(?:[^ "=\\\[\]\x00-\x1f][^"=\\\[\]\x00-\x1f]*)?")+\]$'
_PARAMETER = re.compile(r'([^\s=\]"]+)="((?:[^"\\]|\\.)*)"', re.DOTALL)
_ELEMENT = re.compile(r'\[([^\s=\]"]*)((?:[^"\]]|"(?:[^"\\]|\\.)*")*)\]', re.DOTALL)
_ESCAPE = re.compile(r'\\(["\\\]])')

_PROGRAM = r"^[a-z][a-z0-9_./-]{1,31}$"
#: words that look like a program's name and are none
_LEVELS = ("emerg", "alert", "crit", "critical", "err", "error", "warning", "warn", "notice", "info", "debug")
_FORBIDDEN_IN_NAMES = FORBIDDEN.pattern.replace("\ud800-\udfff", "")

_STAMP = (
    r"(?P<a>\d{4} )?(?P<month>[A-Z][a-z]{2}) +(?P<day>\d{1,2}) (?P<b>\d{4} )?"
    r"(?P<h>\d\d):(?P<m>\d\d):(?P<s>\d\d)(?:[.,](?P<f>\d{1,9}))?"
    r"(?P<c> \d{4}(?![\d.-]))?(?: (?P<zone>[A-Z]{1,5})(?=:| ))?"
)
_CISCO = re.compile(
    rf"\s*(?:(?P<seq>\d+): )?(?::? ?)(?:(?P<host>[\w.:-]+?): )?[*.]?{_STAMP}(?P<colon>:)?(?: (?P<rest>.*))?",
    re.DOTALL,
)
_HOST_THEN_MNEMONIC = re.compile(r"(\S+?):? ?(?:: )?(%[A-Z][A-Z0-9_-]*-\d-.*)", re.DOTALL)
_MNEMONIC = re.compile(r"%([A-Z][A-Z0-9_-]*)-(\d)-([A-Z0-9_]+)")
_EPOCH = re.compile(r"1 (\d{9,10})\.(\d{1,9}) (\S+) (\S+)(?: (.*))?", re.DOTALL)
_KEY_VALUE = re.compile(r'([a-zA-Z_]+)=(?:"([^"]*)"|(\S*))')
_SPACED_ISO = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:[.,]\d+)?(?: ?Z|[+-]\d\d:?\d\d)?)[ :]+(.*)", re.DOTALL)
_TAG = re.compile(r"([A-Za-z][\w./-]{0,63})(?:\[(\d{1,10})\])?: ?(.*)", re.DOTALL)

#: what the readers of dialects give; ``elements`` is structured data as JSON, ``told`` a severity beside the PRI
_PART: dict[str, pl.DataType] = {
    "row": pl.UInt32(),
    "ts": pl.Int64(),
    "host": pl.String(),
    "app": pl.String(),
    "pid": pl.Int64(),
    "body": pl.String(),
    "procid": pl.String(),
    "msgid": pl.String(),
    "elements": pl.String(),
    "told": pl.Int32(),
    "device": pl.Boolean(),
}


def parse(deliveries: Sequence[Delivery]) -> Parsed:
    """Read syslog messages. Never raises on their content: what cannot be read is in ``rejects``."""
    rejects = Rejects()
    frame = records(deliveries, rejects)
    productive = set(frame["delivery"].unique().to_list())
    if frame.is_empty():
        return Parsed(rejects=rejects.finish(deliveries, productive))
    zones = pl.Series([instants.known_zone(one.headers.get("zone", "UTC")) for one in deliveries], dtype=pl.String)
    hosts = pl.Series([one.headers.get("host") or one.source for one in deliveries], dtype=pl.String)
    apps = pl.Series([one.headers.get("app") or None for one in deliveries], dtype=pl.String)
    frame = frame.with_columns(zone=zones[frame["delivery"]], app=apps[frame["delivery"]])
    frame = frame.with_columns(fallback=pl.coalesce("peer", hosts[frame["delivery"]]))
    read = read_messages(frame)
    logs = frame.hstack(read.drop("row", "app")).with_columns(read["app"].fill_null(frame["app"]))
    logs = logs.with_columns(
        host=pl.coalesce("host", "fallback"),
        ts=pl.coalesce(
            # A wrong clock may tell a year that no table can hold.
            pl.when(pl.col("ts").is_between(MIN_MICROS, MAX_MICROS)).then("ts"),
            pl.when(pl.col("peer").is_not_null()).then("received"),
        ),
        trace_id=pl.lit(None, pl.String),
        span_id=pl.lit(None, pl.String),
    )
    return Parsed(
        entities=_entities(logs),
        logs=logs.with_columns(attributes=_attributes(logs)).select(list(LOGS_SCHEMA)),
        rejects=rejects.finish(deliveries, productive),
    )


def read_messages(frame: pl.DataFrame) -> pl.DataFrame:
    """What messages say, a row each in the same order.

    Args:
        frame: ``text``, ``received`` (microseconds, UTC) and ``zone`` (of stamps that name none).

    Returns:
        ``_PART``, ``severity_number`` (null without PRI) and ``facility`` (its name or null). ``ts`` is null where the
        message tells no time, ``host`` where it names none.
    """
    frame = frame.select("text", "received", "zone").with_row_index("row")
    parts = frame["text"].str.splitn(">", 2).struct.unnest()
    head = parts["field_0"]
    pri = pl.select(
        pl.when(head.str.starts_with("<") & (head.str.len_bytes() <= 4)).then(
            head.str.slice(1).str.strip_chars_start().cast(pl.UInt16, strict=False)
        )
    ).to_series()
    with_pri = (pri <= MAX_PRI).fill_null(False) & parts["field_1"].is_not_null()
    frame = frame.with_columns(
        text=pl.when(with_pri).then(parts["field_1"].str.strip_chars_start(" ")).otherwise("text"),
        pri=pl.when(with_pri).then(pri).otherwise(None).cast(pl.Int32),
    )
    dialect = pl.select(
        pl.when(frame["text"].str.contains(_RFC5424))
        .then(0)
        .when(frame["text"].str.contains(_RFC3164) & ~frame["text"].str.contains(_MORE_THAN_3164))
        .then(1)
        .when(frame["text"].str.contains(_ISO))
        .then(2)
        .otherwise(3)
    ).to_series()
    read = []
    for number, reader in enumerate((_rfc5424, _rfc3164, _iso, _others)):
        chosen = frame if (dialect == number).all() else frame.filter(dialect == number)
        if chosen.height:
            read.append(reader(chosen))
    result = read[0] if len(read) == 1 else pl.concat(read).sort("row")
    result = _with_storable_names(result, frame)
    severity = (frame["pri"] % 8).replace_strict(dict(enumerate(SYSLOG)), default=None, return_dtype=pl.Int32)
    facility = (frame["pri"] // 8).replace_strict(dict(enumerate(FACILITIES)), default=None, return_dtype=pl.String)
    unknown = severity.is_null() & result["told"].is_null()
    if unknown.any():
        spoken = of_text(pl.select(pl.when(unknown).then(result["body"])).to_series())
        severity = pl.select(pl.coalesce(severity, result["told"], spoken)).to_series()
    return result.with_columns(severity.alias("severity_number"), facility.alias("facility"))


def _part(**columns: object) -> pl.DataFrame:
    frame = pl.DataFrame(columns)
    lacking = [pl.lit(None, dtype).alias(name) for name, dtype in _PART.items() if name not in columns]
    return frame.with_columns(lacking).select(pl.col(name).cast(dtype) for name, dtype in _PART.items())


def _dashed(column: pl.Series) -> pl.Series:
    """NILVALUE as null."""
    return pl.select(pl.when((column != "-") & (column != "")).then(column)).to_series()


def _rfc5424(frame: pl.DataFrame) -> pl.DataFrame:
    parts = frame["text"].str.splitn(" ", 7).struct.unnest()
    rest = parts["field_6"]
    if rest.null_count():
        # Too few fields: not this dialect after all.
        short = rest.is_null()
        return pl.concat([_others(frame.filter(short)), _rfc5424_whole(frame.filter(~short), parts.filter(~short))])
    return _rfc5424_whole(frame, parts)


def _rfc5424_whole(frame: pl.DataFrame, parts: pl.DataFrame) -> pl.DataFrame:
    rest = parts["field_6"]
    message = pl.select(
        pl.when(rest == "-").then(pl.lit("")).when(rest.str.starts_with("- ")).then(rest.str.slice(2)).otherwise(rest)
    ).to_series()
    elements = pl.select(pl.repeat(None, len(rest), dtype=pl.String)).to_series()
    structured = rest.str.starts_with("[")
    if structured.any():
        elements, after = _structured(pl.select(pl.when(structured).then(rest)).to_series())
        message = pl.select(pl.when(elements.is_not_null()).then(after).otherwise(message)).to_series()
    procid = _dashed(parts["field_4"])
    pid = procid.cast(pl.Int64, strict=False)
    return _part(
        row=frame["row"],
        ts=instants.iso(parts["field_1"], frame["zone"]),
        host=_dashed(parts["field_2"]),
        app=_dashed(parts["field_3"]),
        pid=pid,
        procid=pl.select(pl.when(pid.is_null()).then(procid)).to_series(),
        msgid=_dashed(parts["field_5"]),
        elements=elements,
        body=message.str.strip_prefix("\ufeff").str.strip_chars_start(" "),
    )


def _rfc3164(frame: pl.DataFrame) -> pl.DataFrame:
    stamps = frame["text"].str.slice(0, 15)
    ts = instants.syslog(stamps, frame["received"], frame["zone"])
    return _tagged(frame, ts, frame["text"].str.slice(16))


def _iso(frame: pl.DataFrame) -> pl.DataFrame:
    parts = frame["text"].str.splitn(" ", 2).struct.unnest()
    return _tagged(frame, instants.iso(parts["field_0"], frame["zone"]), parts["field_1"])


def _tagged(frame: pl.DataFrame, ts: pl.Series, rest: pl.Series) -> pl.DataFrame:
    """``HOST TAG: message``: the host may be left out, the tag may have a process identifier or be none."""
    first = rest.str.splitn(" ", 2).struct.unnest()
    host, after = first["field_0"], first["field_1"].fill_null("")
    # A host that ends like a tag is one, unless Cisco's mnemonic follows.
    is_tag = host.str.ends_with(":") & ~after.str.contains(r"^:? ?%")
    if is_tag.any():
        after = pl.select(pl.when(is_tag).then(rest).otherwise(after)).to_series()
        host = pl.select(pl.when(~is_tag).then(host)).to_series()
    host = host.str.strip_suffix(":")
    second = after.str.splitn(" ", 2).struct.unnest()
    word, message = second["field_0"], second["field_1"].fill_null("")
    columns = pl.DataFrame({"word": word, "after": after, "message": message})
    whole_tag = pl.col("word").str.ends_with(":") | pl.col("word").str.ends_with("]")
    mnemonic = pl.col("word").str.starts_with("%")
    program = pl.col("word").str.contains(_PROGRAM) & ~pl.col("word").is_in(_LEVELS)
    opened = pl.col("word").str.contains("[", literal=True)
    closed = columns.select(
        "after",
        "message",
        tag=pl.col("word").str.strip_suffix(":"),
        whole=whole_tag & ~mnemonic & (pl.col("word").str.len_chars() <= 128) & (pl.col("word") != ":"),
        program=program,
        mnemonic=mnemonic,
        opened=opened,
    )
    tag = pl.col("tag")
    name = pl.when("opened").then(tag.str.replace(r"\[[^\[\]]*\]$", "")).otherwise(tag)
    procid = pl.when(pl.col("opened") & pl.col("whole")).then(tag.str.extract(r"\[([^\[\]]*)\]$", 1))
    joined = tag.str.extract(r"^([A-Za-z][\w./-]{0,63})(?:\[|:)", 1)
    read = closed.select(
        app=pl.when("whole")
        .then(name)
        .when("mnemonic")
        .then(tag.str.strip_prefix("%"))
        .when("program")
        .then(tag)
        .otherwise(joined),
        procid=procid,
        body=pl.when(pl.col("whole") | pl.col("program")).then("message").otherwise("after"),
        device="mnemonic",
    )
    pid = read["procid"].cast(pl.Int64, strict=False)
    app = read["app"]
    return _part(
        row=frame["row"],
        ts=ts,
        host=host,
        app=pl.select(pl.when(app != "").then(app)).to_series(),
        pid=pid,
        procid=pl.select(pl.when(pid.is_null() & (read["procid"] != "")).then(read["procid"])).to_series(),
        body=read["body"].str.strip_chars_start(" "),
        device=read["device"],
    )


def _others(frame: pl.DataFrame) -> pl.DataFrame:
    rows = [
        (row, *_other(text, received, zone))
        for row, text, received, zone in frame.select("row", "text", "received", "zone").iter_rows()
    ]
    return pl.DataFrame(rows, schema=_PART, orient="row")


#: ts, host, app, pid, body, procid, msgid, elements, told severity, whether a network device wrote it
_Other = tuple[
    int | None, str | None, str | None, int | None, str, str | None, str | None, str | None, int | None, bool
]


def _other(text: str, received: int, zone: str) -> _Other:
    """Messages of network devices and others with rules of their own; as a last resort the text is the body."""
    plain = text.lstrip()
    ts: int | None
    if plain.startswith(("date=", "devname=", "timestamp=")) and "=" in plain:
        return _key_values(plain, zone)
    match = _EPOCH.fullmatch(plain)
    if match is not None:
        ts = int(match[1]) * 1_000_000 + int(match[2][:6].ljust(6, "0"))
        return ts, match[3], match[4], None, match[5] or "", None, None, None, None, True
    match = _SPACED_ISO.fullmatch(plain)
    if match is not None:
        ts = _iso_one(match[1], zone)
        return ts, *_host_and_tag(match[2])
    match = _CISCO.fullmatch(plain)
    if match is not None:
        ts = _stamp(match, received, zone)
        if ts is not None:
            host, *more = _host_and_tag(match["rest"] or "", host_stands=not match["colon"])
            return ts, match["host"] or host, *more  # type: ignore[return-value]
    return None, *_host_and_tag(plain, host_stands=False)


def _host_and_tag(
    rest: str, host_stands: bool = True
) -> tuple[str | None, str | None, int | None, str, str | None, str | None, str | None, int | None, bool]:
    """``[HOST] TAG: message`` or ``[HOST] %FACILITY-SEVERITY-MNEMONIC: message``, the body with the mnemonic."""
    host = None
    rest = rest.lstrip(": ") if rest.startswith((":", " ")) else rest
    if not rest.startswith("%"):
        match = _HOST_THEN_MNEMONIC.fullmatch(rest) if host_stands else None
        if match is not None:
            host, rest = match[1].rstrip(":"), match[2]
        elif host_stands and " " in rest and not _TAG.match(rest):
            first, _, after = rest.partition(" ")
            if _TAG.match(after):
                host, rest = first, after
    mnemonic = _MNEMONIC.match(rest)
    if mnemonic is not None:
        return host, mnemonic[0][1:], None, rest, None, None, None, SYSLOG[min(int(mnemonic[2]), 7)], True
    tag = _TAG.fullmatch(rest)
    if tag is not None:
        pid = int(tag[2]) if tag[2] else None
        return host, tag[1], pid, tag[3], None, None, None, None, False
    return host, None, None, rest, None, None, None, None, False


def _stamp(match: re.Match[str], received: int, zone: str) -> int | None:
    month = instants.MONTHS.get(match["month"].lower())
    if month is None:
        return None
    fraction = int((match["f"] or "")[:6].ljust(6, "0"))
    clock = int(match["h"]), int(match["m"]), int(match["s"]), fraction
    year = match["a"] or match["b"] or match["c"]
    day = int(match["day"])
    if year is None:
        wall = instants.year_that_fits(month, day, clock, received)
    else:
        wall = instants.wall_clock(int(year), month, day, *clock)
    if wall is None:
        return None
    minutes = instants.ABBREVIATIONS.get(match["zone"] or "")
    return instants.in_zone(wall, zone, None if minutes is None else minutes * 60_000_000)


def _iso_one(text: str, zone: str) -> int | None:
    return instants.iso(pl.Series([text]), pl.Series([zone]))[0]


def _key_values(text: str, zone: str) -> _Other:
    """Fortinet and alike: ``date=… time=… devname="…" level="…"``; the body stays whole."""
    pairs = {name.lower(): quoted or plain for name, quoted, plain in _KEY_VALUE.findall(text)}
    ts: int | None = None
    if pairs.get("eventtime", "").isdigit() and len(pairs["eventtime"]) >= 10:
        digits = pairs["eventtime"]
        ts = int(digits[:10]) * 1_000_000 + int(digits[10:16].ljust(6, "0"))
    elif "date" in pairs and "time" in pairs:
        ts = _iso_one(f"{pairs['date']} {pairs['time']}{pairs.get('tz', '')}", zone)
    app = "/".join(pairs[name] for name in ("type", "subtype") if pairs.get(name)) or None
    host = pairs.get("devname") or pairs.get("device_name") or None
    return ts, host, app, None, text, None, pairs.get("logid"), None, of_word(pairs.get("level")), True


def _with_storable_names(read: pl.DataFrame, frame: pl.DataFrame) -> pl.DataFrame:
    """A host or program that cannot be one (control characters, too long) is none: the message stays whole instead."""
    wrong = pl.lit(False)
    for name in ("host", "app"):
        column = pl.col(name)
        wrong |= (column.str.len_chars() > MAX_NAME_CHARS).fill_null(False)
        wrong |= column.str.contains(_FORBIDDEN_IN_NAMES).fill_null(False)
    found = read.select(wrong.alias("wrong"))["wrong"]
    if not found.any():
        return read
    text = frame["text"]
    return read.with_columns(
        *(pl.when(found).then(None).otherwise(name).alias(name) for name in ("host", "app", "pid", "procid")),
        *(pl.when(found).then(None).otherwise(name).alias(name) for name in ("msgid", "elements")),
        pl.when(found).then(text).otherwise("body").alias("body"),
    )


def _attributes(logs: pl.DataFrame) -> pl.Series:
    """What has no column of its own, as JSON."""
    pairs = [
        pl.lit('"syslog.facility":"') + pl.col("facility") + pl.lit('"'),
        pl.lit('"syslog.peer":"') + pl.when(pl.col("peer") != pl.col("host")).then("peer") + pl.lit('"'),
    ]
    columns = logs.select("facility", "peer", "host")
    for name, key in (("procid", "syslog.procid"), ("msgid", "syslog.msgid")):
        if logs[name].null_count() < logs.height:
            columns = columns.with_columns(_quoted(logs[name]).alias(name))
            pairs.append(pl.lit(f'"{key}":') + pl.col(name))
    if logs["elements"].null_count() < logs.height:
        columns = columns.with_columns(logs["elements"])
        pairs.append(pl.lit('"syslog.structured_data":') + pl.col("elements"))
    if logs["peer"].null_count() < logs.height and logs["peer"].str.contains(r'["\\\x00-\x1f]').any():
        columns = columns.with_columns(peer=logs["peer"].str.replace_all(r'["\\\x00-\x1f]', "?"))
    inside = pl.concat_str(pairs, separator=",", ignore_nulls=True)
    return columns.select(pl.concat_str(pl.lit("{"), inside, pl.lit("}")).alias("attributes"))["attributes"]


def _quoted(texts: pl.Series) -> pl.Series:
    """Texts as JSON strings."""
    if texts.str.contains(r'["\\\x00-\x1f]').any():
        distinct = texts.drop_nulls().unique().to_list()
        quoted = {text: orjson.dumps(text).decode() for text in distinct}
        return texts.replace_strict(quoted, default=None, return_dtype=pl.String)
    return pl.select(pl.lit('"') + texts + pl.lit('"')).to_series()


def _structured(rest: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Structured data at the beginning as JSON, ``{"id":{"name":"value"}}``, and the message after it; null and null
    where there is none. A name that is repeated in an element has an array of values."""
    split = rest.str.splitn('"] ', 2).struct.unnest()
    first = pl.select(pl.when(split["field_1"].is_not_null()).then(split["field_0"] + pl.lit('"]'))).to_series()
    first = pl.select(pl.coalesce(first, rest)).to_series()
    plain = (first.str.contains(_PLAIN_ELEMENT) & (first.str.count_matches(' ip="', literal=True) < 2)).fill_null(False)
    elements = _plain_json(pl.select(pl.when(plain).then(first)).to_series())
    message = split["field_1"].fill_null("")
    if not (plain | rest.is_null()).all():
        odd = pl.select(pl.when(~plain).then(rest)).to_series()
        text = odd.str.extract(_ELEMENTS, 1)
        by_text = {entry: _element_json(entry) for entry in text.drop_nulls().unique().to_list()}
        careful = text.replace_strict(by_text, default=None, return_dtype=pl.String)
        elements = pl.select(pl.coalesce(elements, careful)).to_series()
        after = odd.str.slice(text.str.len_chars().cast(pl.Int64) + 1)
        message = pl.select(pl.when(plain).then(message).otherwise(after)).to_series()
    return elements, message


def _plain_json(elements: pl.Series) -> pl.Series:
    """Elements that match ``_PLAIN_ELEMENT`` as JSON."""
    parts = elements.str.strip_prefix("[").str.strip_suffix("]").str.splitn(" ", 2).struct.unnest()
    inside = parts["field_1"].str.replace_all('" ', '","', literal=True).str.replace_all('="', '":"', literal=True)
    return pl.select(pl.lit('{"') + parts["field_0"] + pl.lit('":{"') + inside + pl.lit("}}")).to_series()


@lru_cache(maxsize=4096)
def _element_json(text: str) -> str:
    found: dict[str, dict[str, str | list[str]]] = {}
    for name, parameters in _ELEMENT.findall(text):
        element = found.setdefault(name, {})
        for key, escaped in _PARAMETER.findall(parameters):
            value = _ESCAPE.sub(r"\1", escaped)
            earlier = element.get(key)
            if earlier is None:
                element[key] = value
            else:
                element[key] = [*earlier, value] if isinstance(earlier, list) else [earlier, value]
    return orjson.dumps(found).decode()


def _entities(logs: pl.DataFrame) -> pl.DataFrame:
    entities = Entities()
    hosts = logs.group_by("host", maintain_order=True).agg(pl.col("device").fill_null(False).any())
    for host, device in hosts.iter_rows():
        try:
            entities.add(host, {"kind": "device" if device else "host"})
        except Refused:
            # The name of a delivery's source or its declared host, which nothing checked.
            continue
    return entities.frame()
