"""One Sentry event, as SDKs send it and as webhooks carry it, to the row of an error, without personal data.

What belongs here: the reading of Sentry's event schema. What does not: envelopes (``sentry_envelope``) and webhooks
(``sentry``). Users, addresses and e-mails become pseudonyms, cookies, headers and local variables are left out: they
are not needed to tell what failed where.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from aiops_assets.formats.events import as_json, first_of, instant_of, one_line, prose, pseudonym, storable

#: severity numbers of Sentry's levels
LEVELS: dict[str, int] = {
    "fatal": 21, "critical": 21, "error": 17, "warning": 13, "warn": 13, "info": 9, "log": 9, "debug": 5, "trace": 1,
    "sample": 1,
}  # fmt: skip
MAX_FRAMES = 60
MAX_BREADCRUMBS = 20
_FRAME = ("function", "module", "filename", "lineno", "colno", "in_app")
_MAX_LINE = 300
_PERSONAL = frozenset(
    word
    for words in (
        "email mail username user_name full_name ip ip_address ip_addr remote_addr client_ip client_address phone geo",
        "contact_email user_email user.id user.email user.name user.username user.ip user.ip_address client.address",
    )
    for word in words.split()
)
_SECRET = re.compile(
    r"passw|secret|token|authori[sz]ation|cookie|api_?key|private_?key|session_?id|credential|argv", re.I
)
_PROJECT_URL = re.compile(r"/projects/[^/]+/([^/?#]+)/")
_MAX_DEPTH = 8


def error_row(event: Mapping[str, Any], project: str | None) -> dict[str, Any]:
    """Columns of an error event (``batch.ERRORS_SCHEMA`` without delivery and ts)."""
    main, others = _exceptions(event)
    tags = tags_of(event)
    trace = _mapping(_mapping(event.get("contexts")).get("trace"))
    frames = _frames(event, main)
    kind, value = prose(main.get("type")), prose(main.get("value"))
    if main and not kind:
        kind = prose(main.get("module")) or "Error"
    message = message_of(event)
    return {
        "event_id": event_id(event.get("event_id") or event.get("eventID") or event.get("id")),
        "project": project,
        "platform": prose(event.get("platform")),
        "severity_number": level(event.get("level") or tags.get("level")),
        "type": kind,
        "value": value or message or prose(event.get("title")),
        "culprit": one_line(event.get("culprit") or event.get("transaction") or tags.get("transaction"))
        or _innermost(frames),
        "handled": _handled(main, tags),
        "stack": as_json([_frame(frame) for frame in frames]) if frames else None,
        "host": host_of_event(event),
        "service": service_of(event, project),
        "release": prose(release_of(event)),
        "environment": prose(event.get("environment") or tags.get("environment")),
        "fingerprint": as_json(event["fingerprint"]) if isinstance(event.get("fingerprint"), list) else None,
        "trace_id": trace.get("trace_id"),
        "span_id": trace.get("span_id"),
        "attributes": attributes_of(event)
        | _present({"message": message if value and message != value else None, "exceptions": others}),
    }


def level(word: object, default: int = 17) -> int:
    """Severity number of a Sentry level; an event without one is an error."""
    return LEVELS.get(str(word).lower(), default) if word else default


def event_id(value: object) -> str | None:
    """An event's id without dashes, so that all ways in which Sentry tells of it are one."""
    return value.replace("-", "").lower() if isinstance(value, str) and len(value) <= 64 else None


def instant_of_event(event: Mapping[str, Any]) -> int | None:
    """Microseconds at which it happened, ``None`` when it does not say."""
    for field in ("timestamp", "datetime", "dateCreated", "received"):
        found = instant_of(event.get(field))
        if found is not None:
            return found
    return None


def host_of_event(event: Mapping[str, Any]) -> str | None:
    """The machine it happened on."""
    resource = _mapping(_mapping(_mapping(event.get("contexts")).get("otel")).get("resource"))
    tags = tags_of(event)
    return prose(event.get("server_name") or tags.get("server_name") or resource.get("host.name") or tags.get("host"))


def service_of(event: Mapping[str, Any], project: str | None) -> str | None:
    """The service: named by a tag or by OpenTelemetry, else the package of the release, else the project."""
    tags = tags_of(event)
    resource = _mapping(_mapping(_mapping(event.get("contexts")).get("otel")).get("resource"))
    named = first_of(tags, ("service", "service.name", "service_name")) or service_of_attributes(resource)
    return prose(named) or package_of(release_of(event)) or project


def service_of_attributes(attributes: Mapping[str, Any]) -> str | None:
    """The service that OpenTelemetry attributes name, unless it is one that an SDK puts there for want of any."""
    named = prose(attributes.get("service.name"))
    invented = attributes.get("service.namespace") == "sentry" or (named or "").startswith("unknown_service")
    return None if invented else named


def release_of(event: Mapping[str, Any]) -> object:
    """The version of the application; webhooks carry it as an object, too."""
    release = event.get("release") or tags_of(event).get("release") or tags_of(event).get("sentry:release")
    return release.get("version") if isinstance(release, dict) else release


def package_of(release: object) -> str | None:
    """The package of ``package@version``."""
    package, separator, _ = release.partition("@") if isinstance(release, str) else ("", "", "")
    return prose(package) if separator else None


def project_of_url(*urls: object) -> str | None:
    """The project's slug in the addresses that webhooks carry."""
    for url in urls:
        found = _PROJECT_URL.search(url[:2_000]) if isinstance(url, str) else None
        if found:
            return found[1]
    return None


def tags_of(event: Mapping[str, Any]) -> dict[str, str]:
    """Tags, which are an object or an array of pairs, with people replaced by pseudonyms."""
    tags = event.get("tags")
    if isinstance(tags, dict):
        pairs = list(tags.items())
    elif isinstance(tags, list):
        pairs = [_pair(tag) for tag in tags]
    else:
        return {}
    return {
        name: pseudonym(value) if _is_personal(name) or name == "user" else value
        for name, value in ((storable(str(name)), prose(value)) for name, value in pairs)
        if value and not _SECRET.search(name)
    }


def _pair(tag: object) -> tuple[Any, Any]:
    if isinstance(tag, list) and len(tag) == 2:
        return tag[0], tag[1]
    if isinstance(tag, dict):
        return tag.get("key", ""), tag.get("value")
    return "", None


def message_of(event: Mapping[str, Any]) -> str | None:
    """The message of an event: a text, or an entry with a template and its formatted form."""
    for field in ("logentry", "sentry.interfaces.Message", "message"):
        entry = event.get(field)
        if isinstance(entry, dict):
            entry = entry.get("formatted") or entry.get("message")
        text = prose(entry)
        if text:
            return text
    return None


def attributes_of(event: Mapping[str, Any]) -> dict[str, Any]:
    """What else an event tells, without personal data."""
    request = _mapping(event.get("request"))
    user = event.get("user")
    return _present(
        {
            "tags": tags_of(event),
            "contexts": without_people(event.get("contexts")),
            "extra": without_people(event.get("extra")),
            "user": user_of(user) if isinstance(user, dict) else None,
            "request": _present({"method": prose(request.get("method"), 16), "url": url_of(request.get("url"))}),
            "logger": prose(event.get("logger"), 256),
            "transaction": prose(event.get("transaction"), 256),
            "dist": prose(event.get("dist"), 256),
            "sdk": _present({name: prose(_mapping(event.get("sdk")).get(name), 64) for name in ("name", "version")}),
            "breadcrumbs": _breadcrumbs(event.get("breadcrumbs")),
            "measurements": event.get("measurements"),
            "title": prose(event.get("title"), 1_024),
            "issue_id": prose(event.get("issue_id"), 64),
            "web_url": prose(event.get("web_url"), 1_024),
        }
    )


def user_of(user: Mapping[str, Any]) -> str | None:
    """The pseudonym of the one who was affected."""
    known = first_of(user, ("id", "email", "username", "ip_address"))
    return pseudonym(known) if known is not None else None


def url_of(url: object) -> str | None:
    """An address without query, fragment and user, which may name people or hold secrets."""
    text = prose(url, 2_000)
    if not text:
        return None
    try:
        parts = urlsplit(text)
    except ValueError:
        return re.split(r"[?#]", text, maxsplit=1)[0]
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}" if parts.scheme and host else parts.path


def without_people(value: object, depth: int = 0) -> Any:
    """A value whose personal fields are pseudonyms and whose secrets are left out."""
    if isinstance(value, dict):
        if depth >= _MAX_DEPTH:
            return "…"
        return {
            name: user_of(inner) if name == "user" and isinstance(inner, dict)
            else pseudonym(inner) if _is_personal(name)
            else without_people(inner, depth + 1)
            for name, inner in value.items()
            if isinstance(name, str) and inner is not None and not _SECRET.search(name)
        }  # fmt: skip
    if isinstance(value, list):
        return "…" if depth >= _MAX_DEPTH else [without_people(inner, depth + 1) for inner in value]
    return value


def _is_personal(name: object) -> bool:
    return isinstance(name, str) and name.lower() in _PERSONAL


def _exceptions(event: Mapping[str, Any]) -> tuple[Mapping[str, Any], list[dict[str, Any]]]:
    """The exception that ended it (the last), and type and value of those that caused it."""
    found = event.get("exception", event.get("sentry.interfaces.Exception"))
    values = found.get("values", [found]) if isinstance(found, dict) else found
    chain = [value for value in values if isinstance(value, dict)] if isinstance(values, list) else []
    if not chain:
        return {}, []
    others = [
        {"type": prose(value.get("type"), 256), "value": prose(value.get("value"), 1_024)} for value in chain[:-1]
    ]
    return chain[-1], others[-10:]


def _frames(event: Mapping[str, Any], main: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    for place in (main.get("stacktrace"), event.get("stacktrace"), *_threads(event)):
        frames = _mapping(place).get("frames")
        if isinstance(frames, list) and frames:
            return [frame for frame in frames if isinstance(frame, dict)][-MAX_FRAMES:]
    return []


def _threads(event: Mapping[str, Any]) -> Iterator[object]:
    threads = event.get("threads")
    values = threads.get("values") if isinstance(threads, dict) else threads
    for thread in values if isinstance(values, list) else ():
        if isinstance(thread, dict) and (thread.get("crashed") or thread.get("current")):
            yield thread.get("stacktrace")


def _frame(frame: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: frame.get(name) for name in _FRAME}
    for name in ("function", "module", "filename"):
        kept[name] = prose(kept[name] or (frame.get("abs_path") if name == "filename" else None), _MAX_LINE)
    line = frame.get("context_line", frame.get("contextLine"))
    kept["context_line"] = prose(line.strip() if isinstance(line, str) else None, _MAX_LINE)
    return {name: value for name, value in kept.items() if value is not None and not isinstance(value, dict | list)}


def _innermost(frames: Sequence[Mapping[str, Any]]) -> str | None:
    """Where it happened: the innermost frame of the application itself."""
    own = [frame for frame in frames if frame.get("in_app")] or frames
    if not own:
        return None
    place = prose(own[-1].get("module")) or prose(own[-1].get("filename")) or ""
    function = prose(own[-1].get("function"))
    return one_line(f"{place} in {function}" if place and function else place or function)


def _handled(main: Mapping[str, Any], tags: Mapping[str, str]) -> bool | None:
    handled = _mapping(main.get("mechanism")).get("handled")
    if isinstance(handled, bool):
        return handled
    return {"yes": True, "true": True, "no": False, "false": False}.get(tags.get("handled", ""))


def _breadcrumbs(found: object) -> list[dict[str, Any]]:
    values = found.get("values") if isinstance(found, dict) else found
    crumbs = [value for value in values if isinstance(value, dict)] if isinstance(values, list) else []
    return [
        _present({name: prose(crumb.get(name), 500) for name in ("timestamp", "category", "level", "message")})
        for crumb in crumbs[-MAX_BREADCRUMBS:]
    ]


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _present(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value not in (None, "", [], {})}
