"""The generator's configuration: a company, what breaks in it, who reports and who mends it, and by which clock.

What belongs here: the typed shape, its defaults (``golden_default.yaml``), its loading with errors that name
file, line, field and allowed values, and its digest. What does not: drawing incidents (``declared``) and wording.

A file says only what differs: a section that it leaves out is the shipped one. Where it brings categories of its own,
references of shipped personas, groups and services to categories that are gone are dropped with them, and a category
that no service covers gets a service of its own name.
"""

from __future__ import annotations

import copy
import hashlib
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import orjson
import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from aiops_assets.config import ConfigError, Duration, Instant, Zone, problems_in

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
LANGUAGES = ("en", "de")
#: a specialty or a coverage of everything
ANY = "*"
SHIPPED = "golden_default.yaml"

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
Language = Literal["en", "de"]
Weight = Annotated[float, Field(ge=0, le=1e9)]
Share = Annotated[float, Field(ge=0, le=1)]
PriorityKey = Annotated[int, Field(ge=1, le=5)]
_CLOCK = re.compile(r"([01]?\d|2[0-4]):([0-5]\d)")


def _minutes(value: object) -> int:
    """Minutes since midnight of ``"08:30"``; YAML reads an unquoted 18:00 as 1080, which is the same."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 1440:
        return value
    match = _CLOCK.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None or int(match[1]) * 60 + int(match[2]) > 1440:
        raise ValueError("a time of day such as 08:30, at most 24:00")
    return int(match[1]) * 60 + int(match[2])


def _english() -> dict[Language, float]:
    return {"en": 1.0}


def _positive(value: Mapping[Any, float]) -> Mapping[Any, float]:
    if not value or sum(value.values()) <= 0:
        raise ValueError("at least one weight must be above 0")
    return value


Clock = Annotated[int, BeforeValidator(_minutes)]
Weights = Annotated[dict[str, Weight], AfterValidator(_positive)]
PriorityWeights = Annotated[dict[PriorityKey, Weight], AfterValidator(_positive)]


class Misfit(ValueError):
    """What stands at a place does not fit what stands elsewhere; ``location`` is that place."""

    def __init__(self, location: tuple[str | int, ...], message: str) -> None:
        super().__init__(message)
        self.location = location


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Range(_Model):
    """The middle 80% of a duration: a tenth lies below ``low``, a tenth above ``high`` (log-normal between)."""

    low: Annotated[Duration, Field(gt=0)]
    high: Annotated[Duration, Field(gt=0)]

    @model_validator(mode="before")
    @classmethod
    def _pair(cls, given: Any) -> Any:
        if isinstance(given, list | tuple):
            if len(given) != 2:
                raise ValueError("two durations such as [30m, 8h]")
            return {"low": given[0], "high": given[1]}
        return given

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if self.high < self.low:
            raise ValueError("'low' must not be above 'high'")
        return self


class Subcategory(_Model):
    """A kind of failure. Phrases of its own replace those of its topic."""

    name: str = Field(min_length=1, max_length=100)
    weight: Weight = 1.0
    symptoms: dict[Language, tuple[str, ...]] = Field(
        default_factory=dict, description="main clauses; {service}, {ci} and {error} stand for the record's own"
    )
    errors: tuple[str, ...] = Field((), description="messages that callers quote")
    monitored: Share | None = Field(None, description="share that monitoring reports; default: that of the category")

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, given: Any) -> Any:
        return {"name": given} if isinstance(given, str) else given


class Category(_Model):
    """A class of incidents; ``topic`` takes the phrases of a shipped category of another name."""

    name: str = Field(min_length=1, max_length=100)
    weight: Weight = 1.0
    subcategories: tuple[Subcategory, ...] = Field(min_length=1)
    priorities: PriorityWeights = Field(
        default_factory=lambda: {1: 2.0, 2: 8.0, 3: 60.0, 4: 20.0, 5: 10.0}, description="priority to weight"
    )
    resolution: dict[PriorityKey, Range] = Field(
        default_factory=dict, description="working time until it is solved, by priority; default: the common one"
    )
    monitored: Share = Field(0.0, description="share that monitoring reports instead of people")
    first_line: Share = Field(0.2, description="share that groups of level 1 solve, where others could as well")
    reported_by: tuple[str, ...] = Field((), description="personas that report such things; empty: all")
    topic: str | None = None

    @model_validator(mode="after")
    def _some_weight(self) -> Category:
        if sum(entry.weight for entry in self.subcategories) <= 0:
            raise ValueError("'subcategories': at least one weight must be above 0")
        return self


class Domain(_Model):
    """A part of the business."""

    name: str = Field(min_length=1, max_length=100)
    description: str = ""

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, given: Any) -> Any:
        return {"name": given} if isinstance(given, str) else given


class Persona(_Model):
    """A kind of caller; the technical level decides how such people write."""

    name: str = Field(min_length=1, max_length=100)
    weight: Weight = 1.0
    departments: tuple[str, ...] = Field(("Operations",), min_length=1)
    common_issues: tuple[str, ...] = Field((), description="categories that they report more often than others do")
    technical_level: Literal["low", "medium", "high"] = "medium"
    locations: tuple[str, ...] = Field((), description="where such people work; empty: everywhere")
    languages: tuple[Language, ...] = Field((), description="which they write; empty: that of their location")


class Hours(_Model):
    """Opening hours on the days named."""

    open: Clock = 8 * 60
    close: Clock = 18 * 60
    days: tuple[Day, ...] = Field(("mon", "tue", "wed", "thu", "fri"), min_length=1)

    @model_validator(mode="after")
    def _ordered(self) -> Hours:
        if self.close <= self.open:
            raise ValueError("'close' must be later than 'open'")
        return self


class Location(_Model):
    """A site: its clock, its languages, its hours."""

    name: str = Field(min_length=1, max_length=100)
    weight: Weight = 1.0
    time_zone: Zone = "UTC"
    languages: Annotated[dict[Language, Weight], AfterValidator(_positive)] = Field(default_factory=_english)
    hours: Hours = Hours()
    holidays: tuple[date, ...] = ()


class Group(_Model):
    """Technicians who work together. Specialties are ``Category``, ``Category/Subcategory`` or ``*``."""

    name: str = Field(min_length=1, max_length=100)
    specialties: tuple[str, ...] = Field(min_length=1)
    level: int = Field(2, ge=1, le=3, description="escalation level: 1 service desk, 2 specialists, 3 experts")
    members: int = Field(8, ge=1, le=500)
    locations: tuple[str, ...] = Field((), description="whose callers they serve; empty: all")


class Item(_Model):
    """A pattern of names of configuration items; each # is a digit, and four or more belong to one caller."""

    pattern: str = Field(min_length=1, max_length=100)
    only: tuple[str, ...] = Field((), alias="for", description="subcategories that concern it; empty: all")

    @model_validator(mode="before")
    @classmethod
    def _pattern_alone(cls, given: Any) -> Any:
        return {"pattern": given} if isinstance(given, str) else given


class Service(_Model):
    """What the business uses. ``categories`` (as specialties are written) says which incidents hit it."""

    name: str = Field(min_length=1, max_length=100)
    domain: str = Field(min_length=1)
    categories: tuple[str, ...] = Field(min_length=1)
    weight: Weight = 1.0
    items: tuple[Item, ...] = Field((), description="configuration items, such as 'app-erp-0#' or 'nb-####'")


class Bursts(_Model):
    """Outages that many people report within a short time."""

    per_month: float = Field(1.5, ge=0, le=100)
    share: Share = Field(0.03, description="of all incidents, that belong to bursts")
    length: Range = Range(low=1200.0, high=10800.0)


class Seasonality(_Model):
    """When incidents are opened, in the local time of their location; numbers are relative."""

    hours: tuple[Weight, ...] = Field(min_length=24, max_length=24)
    weekdays: Annotated[dict[Day, Weight], AfterValidator(_positive)]
    months: tuple[Weight, ...] = Field(tuple([1.0] * 12), min_length=12, max_length=12)
    month_end: float = Field(1.0, ge=0, le=100, description="factor on the last two and the first working days")
    holidays: float = Field(0.2, ge=0, le=10, description="factor on holidays of the location")
    trend: float = Field(0.0, ge=-0.95, le=20, description="growth a year: 0.1 is ten per cent")
    bursts: Bursts = Bursts()

    @model_validator(mode="after")
    def _something(self) -> Seasonality:
        if sum(self.hours) <= 0 or sum(self.months) <= 0:
            raise ValueError("'hours' and 'months' need a weight above 0")
        return self


class Sla(_Model):
    """What is promised for a priority; around the clock, or in the business hours of the location."""

    response: Annotated[Duration, Field(gt=0)]
    resolution: Annotated[Duration, Field(gt=0)]
    around_the_clock: bool = False


class Rates(_Model):
    """How often things happen in the life of a ticket (shares of tickets)."""

    misrouted: Share = Field(0.09, description="first sent to a group whose work it is not")
    reassigned: Share = Field(0.14, description="handed on once by a group that fits; again with half that chance")
    waiting_user: Share = 0.22
    waiting_vendor: Share = 0.06
    reopened: Share = 0.045
    identified: Share = Field(0.88, description="with a configuration item, of those whose service has any")
    confirmed: Share = Field(0.3, description="closed by the caller before the closing job comes")
    response: float = Field(0.45, gt=0, le=10, description="median time to respond, relative to the SLA's")


class Closing(_Model):
    """The job that closes what stayed resolved."""

    after: int = Field(5, ge=0, le=60, description="business days")
    at: Clock = 3 * 60 + 15


class Wording(_Model):
    """How callers write."""

    typos: Share = 0.06
    telegraphic: Share = Field(0.08, description="lower case, without courtesy")


class GoldenConfig(_Model):
    """Everything that golden incidents are made from, apart from their number and the seed."""

    company: str = Field(min_length=1, max_length=100)
    start: Instant
    end: Instant
    as_of: Instant | None = Field(None, description="the instant at which tickets are seen; default: the end")
    domains: tuple[Domain, ...] = Field(min_length=1)
    categories: tuple[Category, ...] = Field(min_length=1)
    personas: tuple[Persona, ...] = Field(min_length=1)
    locations: tuple[Location, ...] = Field(min_length=1)
    groups: tuple[Group, ...] = Field(min_length=1)
    services: tuple[Service, ...] = Field(min_length=1)
    seasonality: Seasonality
    sla: dict[PriorityKey, Sla]
    resolution: dict[PriorityKey, Range]
    matrix: tuple[tuple[PriorityKey, PriorityKey, PriorityKey], ...] = Field(
        min_length=3, max_length=3, description="priority by impact (row: 1, 2, 3) and urgency (column: 1, 2, 3)"
    )
    contact_types: Weights
    rates: Rates = Rates()
    closing: Closing = Closing()
    wording: Wording = Wording()
    callers: int = Field(3_000, ge=1, le=200_000, description="people who may report something")
    prefix: str = Field("INC", max_length=10, pattern="^[A-Za-z-]*$")

    @property
    def seen_at(self) -> datetime:
        """The instant at which tickets are seen."""
        return self.as_of or self.end

    @model_validator(mode="after")
    def _fits_together(self) -> GoldenConfig:
        if self.end <= self.start:
            raise Misfit(("end",), "must be later than 'start'")
        if (self.end - self.start).days > 3_660:
            raise Misfit(("end",), "lies more than ten years after 'start'")
        if self.as_of is not None and self.as_of < self.end:
            raise Misfit(("as_of",), "must not be before 'end': tickets would be seen before they are opened")
        for field in ("domains", "categories", "personas", "locations", "groups", "services"):
            names = [entry.name for entry in getattr(self, field)]
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise Misfit((field, names.index(twice[0])), f"the name {twice[0]!r} stands twice")
            if field in {"categories", "personas", "locations"} and sum(e.weight for e in getattr(self, field)) <= 0:
                raise Misfit((field,), "at least one weight must be above 0")
        for number, category in enumerate(self.categories):
            names = [entry.name for entry in category.subcategories]
            if len(set(names)) < len(names):
                raise Misfit(("categories", number, "subcategories"), f"{category.name!r} has a subcategory twice")
        self._references()
        self._priorities()
        return self

    def _references(self) -> None:
        known = _coverable(self.categories)
        places = {entry.name for entry in self.locations}
        domains = {entry.name for entry in self.domains}
        personas = {entry.name for entry in self.personas}
        subs = {sub.name for category in self.categories for sub in category.subcategories}
        for number, persona in enumerate(self.personas):
            issues = {category.name for category in self.categories}
            _known(persona.common_issues, issues, ("personas", number, "common_issues"))
            _known(persona.locations, places, ("personas", number, "locations"))
        for number, category in enumerate(self.categories):
            _known(category.reported_by, personas, ("categories", number, "reported_by"))
        for number, group in enumerate(self.groups):
            _known(group.specialties, known, ("groups", number, "specialties"))
            _known(group.locations, places, ("groups", number, "locations"))
        for number, service in enumerate(self.services):
            _known(service.categories, known, ("services", number, "categories"))
            for place, item in enumerate(service.items):
                _known(item.only, subs, ("services", number, "items", place, "for"))
            _known([service.domain], domains, ("services", number, "domain"))
        for category in self.categories:
            for sub in category.subcategories:
                for field, entries in (("groups", self.groups), ("services", self.services)):
                    if not any(covers(_coverage(entry), category.name, sub.name) for entry in entries):
                        raise Misfit(
                            (field,), f"none covers {category.name}/{sub.name}; add it to one, or give one '{ANY}'"
                        )
        if not any(not persona.locations for persona in self.personas):
            reached = {place for persona in self.personas for place in persona.locations}
            if places - reached:
                raise Misfit(("personas",), f"nobody works in {sorted(places - reached)[0]!r}")

    def _priorities(self) -> None:
        made = {cell for row in self.matrix for cell in row}
        for field in ("sla", "resolution"):
            missing = sorted(made - set(getattr(self, field)))
            if missing:
                raise Misfit((field,), f"priority {missing[0]} of the matrix is missing")
        for number, category in enumerate(self.categories):
            if not any(weight for priority, weight in category.priorities.items() if priority in made):
                allowed = ", ".join(map(str, sorted(made)))
                raise Misfit(("categories", number, "priorities"), f"none of them is in the matrix; allowed: {allowed}")


def _coverage(entry: Group | Service) -> tuple[str, ...]:
    return entry.specialties if isinstance(entry, Group) else entry.categories


def covers(entries: Iterable[str], category: str, subcategory: str) -> bool:
    """Whether specialties or covered categories include a subcategory."""
    return any(entry in {ANY, category, f"{category}/{subcategory}"} for entry in entries)


def _coverable(categories: Iterable[Category]) -> set[str]:
    known = {ANY}
    for category in categories:
        known |= {category.name, *(f"{category.name}/{sub.name}" for sub in category.subcategories)}
    return known


def _known(names: Iterable[str], allowed: set[str], where: tuple[str | int, ...]) -> None:
    for name in names:
        if name not in allowed:
            shown = sorted(entry for entry in allowed if "/" not in entry)
            raise Misfit(where, f"{name!r} is unknown; allowed: {', '.join(shown)}")


def _shipped() -> dict[str, Any]:
    """The values of the shipped file, a copy of one's own."""
    return copy.deepcopy(_shipped_once())


@cache
def _shipped_once() -> dict[str, Any]:
    text = resources.files("aiops_assets.synthetic.golden").joinpath(SHIPPED).read_text("utf-8")
    values: dict[str, Any] = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - safe
    return values


@cache
def default_config() -> GoldenConfig:
    """The shipped configuration: a mid-size company."""
    return GoldenConfig.model_validate(_shipped())


def load_golden_config(path: Path | None) -> GoldenConfig:
    """The configuration in a YAML or JSON file; ``None``: the shipped one.

    Raises:
        ConfigError: with one readable line for each mistake.
    """
    if path is None:
        return default_config()
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path}: cannot be read: {error}; without a file the shipped one is used"]) from error
    return parse_golden_config(text, str(path))


def parse_golden_config(text: str, origin: str) -> GoldenConfig:
    """``load_golden_config`` for text; ``origin`` names it in messages."""
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise ConfigError([f"{origin}{line}: not valid YAML or JSON: {getattr(error, 'problem', error)}"]) from error
    if values is None:
        return default_config()
    if not isinstance(values, dict):
        raise ConfigError([f"{origin}:1: expected a mapping at the top, for example 'company: Example Ltd'"])
    try:
        return GoldenConfig.model_validate(_completed(values))
    except ValidationError as error:
        raise ConfigError(problems_in(text, origin, error, GoldenConfig)) from error


def _completed(given: dict[str, Any]) -> dict[str, Any]:
    """What was given, with shipped sections for what was left out; shipped references that lead nowhere are gone."""
    shipped = _shipped()
    merged = {**shipped, **given}
    for field in ("seasonality", "rates", "closing", "wording"):
        if isinstance(given.get(field), dict) and isinstance(shipped.get(field), dict):
            merged[field] = {**shipped[field], **given[field]}
    for field in ("sla", "resolution"):
        if isinstance(given.get(field), dict):
            merged[field] = {**shipped[field], **given[field]}
    if "start" in given and "end" not in given and "as_of" not in given:
        merged["end"] = _year_later(given["start"]) or merged["end"]
    try:
        categories = tuple(Category.model_validate(entry) for entry in merged["categories"])
    except (ValidationError, TypeError):
        return merged  # told with its line when the whole is validated
    if not {"categories", "domains", "locations", "personas"} & set(given):
        return merged
    _prune(merged, given, categories)
    return merged


def _year_later(start: object) -> datetime | None:
    if isinstance(start, str):
        try:
            start = datetime.fromisoformat(start)
        except ValueError:
            return None
    if isinstance(start, date) and not isinstance(start, datetime):
        start = datetime(start.year, start.month, start.day, tzinfo=UTC)
    if not isinstance(start, datetime):
        return None
    return start.replace(year=start.year + 1, day=min(start.day, 28))


def _prune(merged: dict[str, Any], given: dict[str, Any], categories: tuple[Category, ...]) -> None:
    known = _coverable(categories)
    names = {category.name for category in categories}
    places = _names(merged["locations"])
    if "categories" not in given:
        people = _names(merged["personas"])
        merged["categories"] = [
            {**category, "reported_by": [name for name in category.get("reported_by", ()) if name in people]}
            for category in merged["categories"]
        ]
    domains = _names(merged["domains"])
    if "personas" not in given:
        kept = []
        for persona in merged["personas"]:
            here = [place for place in persona.get("locations", ()) if place in places]
            if persona.get("locations") and not here:
                continue
            issues = [name for name in persona.get("common_issues", ()) if name in names]
            kept.append({**persona, "common_issues": issues, "locations": here})
        merged["personas"] = kept
    if "groups" not in given:
        merged["groups"] = [
            {**group, "specialties": left, "locations": [p for p in group.get("locations", ()) if p in places]}
            for group in merged["groups"]
            if (left := [name for name in group["specialties"] if name in known])
        ]
    if "services" not in given and domains:
        subs = {sub.name for category in categories for sub in category.subcategories}
        services = [
            {
                **service,
                "categories": left,
                "domain": service["domain"] if service["domain"] in domains else domains[0],
                "items": [kept for item in service.get("items", ()) if (kept := _kept(item, subs))],
            }
            for service in merged["services"]
            if (left := [name for name in service["categories"] if name in known])
        ]
        for category in categories:
            if not all(
                any(covers(service["categories"], category.name, sub.name) for service in services)
                for sub in category.subcategories
            ):
                services.append(
                    {"name": f"{category.name} service", "domain": domains[0], "categories": [category.name]}
                )
        merged["services"] = services


def _kept(item: Any, subcategories: set[str]) -> Any:
    """A shipped item without subcategories that are gone; nothing where none is left."""
    if isinstance(item, str):
        return item
    left = [name for name in item["for"] if name in subcategories]
    return {**item, "for": left} if left else None


def _names(entries: Any) -> list[str]:
    if not isinstance(entries, list):
        return []
    return [str(entry.get("name") if isinstance(entry, dict) else entry) for entry in entries]


def digest(config: GoldenConfig) -> str:
    """SHA-256 (hex) of everything that the configuration says; equal for equal content, however it was written."""
    content = config.model_dump(mode="json")
    return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)).hexdigest()
