"""Profiles: which objects of an agent mean which metric, as data in ``profiles/*.yaml``.

What belongs here: the shape of a profile, its loading with readable errors, and the small expression language of its
values. What does not: fetching (``walk``) and keeping samples from poll to poll (``poll``).

An expression is arithmetic (``+ - * /`` and parentheses) over numbers, names of columns or single objects, and these
functions. Anything missing or non-numeric makes the whole expression ``None``, and then there is no point::

    rate(a, b, limit=x)      per-second growth of the first of these counters that the row has; limit bounds a wrap
    first(x, y, …)           the first that is not missing
    number(x)                a number that the agent writes as text
    u32(x)                   an Integer32 that overflowed, read as unsigned
    equals(x, y, …)          1 when x is one of the others (numbers, texts or dotted object identifiers), else 0
    matches(x, 'regex')      1 when the text is found, else 0
    elsewhere(x, key, 'v')   x of the row whose column key has the text v
    si(value, scale, precision)   ENTITY-SENSOR-MIB scaling (RFC 3433) to the base unit
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from aiops_assets.collectors.snmp.engine import NUMBERS, OBJECT_ID, OCTETS, Oid, Value, oid_text, parse_oid
from aiops_assets.collectors.snmp.sensors import (
    MemorySpec,
    ProcessorSpec,
    Reading,
    SensorSpec,
    compile_readings,
)
from aiops_assets.collectors.snmp.sensors import describe as reading_metrics

#: libyaml where PyYAML has it: ten times as fast, and there are many files
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

Number = float | int | None
Cell = tuple[str, Value]


class ProfileError(Exception):
    """A profile is wrong; the text names file and field."""


class Row(Protocol):
    """What an expression may look at: one row of a table, and the single objects beside it."""

    def cell(self, name: str) -> Cell | None:
        """The type and value of a column in this row, or of a single object."""
        ...

    def other(self, column: str, key: str, text: str) -> Cell | None:
        """The cell of ``column`` in the row of the same table whose ``key`` reads ``text``."""
        ...

    def growth(self, name: str, cell: Cell, limit: float | None) -> float | None:
        """Per-second growth of a counter since the poll before."""
        ...


Evaluate = Callable[[Row], Number]


def text(cell: Cell | None) -> str | None:
    """A cell as people read it; octets that are not UTF-8 text as hexadecimal."""
    if cell is None or cell[1] is None:
        return None
    kind, value = cell
    if kind == OCTETS and isinstance(value, bytes):
        stripped = value.rstrip(b"\x00").strip()
        try:
            decoded = stripped.decode("utf-8")
        except UnicodeDecodeError:
            return value.hex(":")
        return decoded if decoded.isprintable() else "".join(c if c.isprintable() else " " for c in decoded).strip()
    if kind == OBJECT_ID and isinstance(value, tuple):
        return oid_text(value)
    return str(value)


def numeric(cell: Cell | None) -> Number:
    """A cell as a number; ``None`` when it is none."""
    if cell is not None and cell[0] in NUMBERS and isinstance(cell[1], int):
        return cell[1]
    return None


# --- expressions ---------------------------------------------------------------------------------------------------


def compile_expression(source: str, names: frozenset[str]) -> Evaluate:
    """Turn an expression into a function of a row.

    Raises:
        ValueError: says what is not understood.
    """
    try:
        tree = ast.parse(source, mode="eval").body
    except SyntaxError as error:
        raise ValueError(f"{source!r} is not an expression: {error.msg}") from error
    return _compile(tree, names, source)


def _compile(node: ast.expr, names: frozenset[str], source: str) -> Evaluate:
    match node:
        case ast.Constant(value=bool() | str() | bytes() | None):
            raise ValueError(f"{source!r}: {node.value!r} does not belong here")
        case ast.Constant(value=int() | float() as value):
            return lambda row: value
        case ast.Name(id=name):
            _known(name, names, source)
            return lambda row: numeric(row.cell(name))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            inner = _compile(operand, names, source)
            return lambda row: None if (x := inner(row)) is None else -x
        case ast.BinOp(left=left, op=operator, right=right):
            return _binary(operator, _compile(left, names, source), _compile(right, names, source), source)
        case ast.Call(func=ast.Name(id=function)):
            return _call(function, node, names, source)
    raise ValueError(f"{source!r}: {ast.unparse(node)!r} is not allowed; use + - * /, names, numbers and functions")


def _binary(operator: ast.operator, left: Evaluate, right: Evaluate, source: str) -> Evaluate:
    def both(combine: Callable[[float, float], Number]) -> Evaluate:
        def evaluate(row: Row) -> Number:
            # Both sides are always evaluated, so that every counter is sampled.
            x, y = left(row), right(row)
            return None if x is None or y is None else combine(x, y)

        return evaluate

    match operator:
        case ast.Add():
            return both(lambda x, y: x + y)
        case ast.Sub():
            return both(lambda x, y: x - y)
        case ast.Mult():
            return both(lambda x, y: x * y)
        case ast.Div():
            return both(lambda x, y: x / y if y else None)
    raise ValueError(f"{source!r}: only + - * / are allowed")


def _call(function: str, node: ast.Call, names: frozenset[str], source: str) -> Evaluate:
    arguments = node.args
    keywords = {keyword.arg: keyword.value for keyword in node.keywords}
    if keywords and not (function == "rate" and set(keywords) == {"limit"}):
        raise ValueError(f"{source!r}: {function} has no such named argument")
    if not arguments:
        raise ValueError(f"{source!r}: {function} needs arguments")
    match function:
        case "rate":
            limit = _compile(keywords["limit"], names, source) if keywords else None
            return _rate([_name(argument, names, source) for argument in arguments], limit)
        case "first":
            return _first([_compile(argument, names, source) for argument in arguments])
        case "number":
            name = _name(arguments[0], names, source)
            return lambda row: _parsed(row.cell(name))
        case "u32":
            inner = _compile(arguments[0], names, source)
            return lambda row: x + (1 << 32) if (x := inner(row)) is not None and x < 0 else x
        case "equals":
            name, wanted = _name(arguments[0], names, source), {_literal(a, source) for a in arguments[1:]}
            return lambda row: None if (cell := row.cell(name)) is None else int(text(cell) in wanted)
        case "matches":
            name, pattern = _name(arguments[0], names, source), re.compile(_literal(arguments[1], source))
            return lambda row: None if (t := text(row.cell(name))) is None else int(pattern.search(t) is not None)
        case "elsewhere":
            column, key = _name(arguments[0], names, source), _name(arguments[1], names, source)
            wanted_text = _literal(arguments[2], source)
            return lambda row: numeric(row.other(column, key, wanted_text))
        case "si":
            value, scale, precision = (_compile(argument, names, source) for argument in arguments)
            return lambda row: _si(value(row), scale(row), precision(row))
    raise ValueError(f"{source!r}: the function {function!r} is unknown")


def _rate(columns: list[str], limit: Evaluate | None) -> Evaluate:
    def evaluate(row: Row) -> Number:
        for name in columns:
            cell = row.cell(name)
            if cell is not None and numeric(cell) is not None:
                return row.growth(name, cell, limit(row) if limit else None)
        return None

    return evaluate


def _first(options: list[Evaluate]) -> Evaluate:
    def evaluate(row: Row) -> Number:
        for option in options:
            value = option(row)
            if value is not None:
                return value
        return None

    return evaluate


def _parsed(cell: Cell | None) -> Number:
    written = text(cell)
    try:
        return float(written) if written is not None else None
    except ValueError:
        return None


def _si(value: Number, scale: Number, precision: Number) -> Number:
    """RFC 3433: scale is an exponent of ten in steps of three (9 means units), precision the decimal places."""
    if value is None:
        return None
    exponent = 0 if scale is None else (int(scale) - 9) * 3
    places = 0 if precision is None else int(precision)
    return value * 10.0 ** (exponent - places) if abs(exponent - places) <= 60 else None


def _name(node: ast.expr, names: frozenset[str], source: str) -> str:
    if not isinstance(node, ast.Name):
        raise ValueError(f"{source!r}: {ast.unparse(node)!r} must be the name of a column")
    return _known(node.id, names, source)


def _known(name: str, names: frozenset[str], source: str) -> str:
    if name not in names:
        raise ValueError(f"{source!r}: {name!r} is no column; known: {', '.join(sorted(names))}")
    return name


def _literal(node: ast.expr, source: str) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | str) and not isinstance(node.value, bool):
        return str(node.value)
    raise ValueError(f"{source!r}: {ast.unparse(node)!r} must be a number or a text in quotes")


# --- the file ------------------------------------------------------------------------------------------------------


def _oid(value: object) -> Oid:
    return parse_oid(str(value))


OidField = Annotated[Oid, BeforeValidator(_oid)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LabelSpec(_Model):
    """A label: the first of these columns that is not empty (``index`` is the row's own), cut before ``cut``."""

    first: tuple[str, ...] = Field(min_length=1)
    cut: str | None = None


def _label(value: object) -> object:
    if isinstance(value, str):
        return {"first": [value]}
    return {"first": value} if isinstance(value, list) else value


class PointSpec(_Model):
    """A metric and the expression of its value; ``when`` must be non-zero for there to be a point.

    In a table, ``bare`` leaves out the labels of the row, and ``aggregate`` makes one point of all rows.
    """

    metric: str
    unit: str
    kind: Literal["gauge", "rate", "ratio"] = "gauge"
    value: str
    when: str | None = None
    labels: Mapping[str, str] = Field(default_factory=dict)
    bare: bool = False
    aggregate: Literal["mean", "sum"] | None = None


class TableSpec(_Model):
    """A conceptual table. ``identity`` columns change rarely and are read again only now and then."""

    name: str
    identity: Mapping[str, OidField] = Field(default_factory=dict)
    columns: Mapping[str, OidField]
    labels: Mapping[str, Annotated[LabelSpec, BeforeValidator(_label)]] = Field(default_factory=dict)
    #: rows for which this is zero are left out
    when: str | None = None
    #: when this column of a row changes, its counters began anew
    discontinuity: str | None = None
    #: prefix ← identity column whose text describes a row without identifying it; becomes an entity label
    describe: Mapping[str, str] = Field(default_factory=dict)
    #: identity columns that make a row even where no other column has it
    rows_of: tuple[str, ...] = ()
    points: tuple[PointSpec, ...] = ()


class ProfileSpec(_Model):
    """One file."""

    name: str
    description: str
    #: profiles with a lower number win where two give the same series
    order: int = 100
    identity: Mapping[str, OidField] = Field(default_factory=dict)
    scalars: Mapping[str, OidField] = Field(default_factory=dict)
    entity: Mapping[str, str] = Field(default_factory=dict, description="entity label ← single object")
    points: tuple[PointSpec, ...] = ()
    tables: tuple[TableSpec, ...] = ()
    #: the agents this is for: their sysObjectID, or a subtree they answer, begins with one of these. Empty: all
    applies: tuple[OidField, ...] = ()
    #: where sensors, processors and memory continue with identifiers that begin with a dot
    base: OidField | None = None
    sensors: tuple[SensorSpec, ...] = ()
    processors: tuple[ProcessorSpec, ...] = ()
    memory: tuple[MemorySpec, ...] = ()


@dataclass(frozen=True, slots=True)
class Measure:
    """A compiled ``PointSpec``."""

    metric: str
    unit: str
    kind: Literal["gauge", "rate", "ratio"]
    labels: Mapping[str, str]
    value: Evaluate
    when: Evaluate | None
    bare: bool = False
    aggregate: Literal["mean", "sum"] | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """A compiled ``TableSpec``."""

    key: str
    identity: Mapping[str, Oid]
    columns: Mapping[str, Oid]
    labels: Mapping[str, LabelSpec]
    when: Evaluate | None
    discontinuity: str | None
    describe: Mapping[str, str]
    measures: tuple[Measure, ...]
    rows_of: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Profile:
    """A compiled profile; ``identity`` and ``scalars`` are single objects (without the final ``.0``)."""

    name: str
    description: str
    order: int
    identity: Mapping[str, Oid] = field(default_factory=dict)
    scalars: Mapping[str, Oid] = field(default_factory=dict)
    entity: Mapping[str, str] = field(default_factory=dict)
    measures: tuple[Measure, ...] = ()
    tables: tuple[Table, ...] = ()
    applies: tuple[Oid, ...] = ()
    readings: tuple[Reading, ...] = ()

    def fits(self, object_id: Oid, enterprises: Collection[int]) -> bool:
        """Whether an agent of this sysObjectID that answers in these enterprises' subtrees may know these objects."""
        if not self.applies:
            return True
        return any(
            object_id[: len(prefix)] == prefix or (len(prefix) == 7 and prefix[6] in enterprises)
            for prefix in self.applies
        )


#: every profile may use the agent's uptime
UPTIME: Mapping[str, Oid] = {"sysUpTime": (1, 3, 6, 1, 2, 1, 1, 3)}


def compile_profile(spec: ProfileSpec) -> Profile:
    """Check and compile a profile.

    Raises:
        ValueError: says which expression is wrong.
    """
    single = frozenset((*spec.identity, *spec.scalars, *UPTIME))
    for label, name in spec.entity.items():
        if name not in single:
            raise ValueError(f"entity.{label}: {name!r} is no single object of this profile")
    tables = []
    for table in spec.tables:
        names = single | frozenset((*table.identity, *table.columns))
        for label, entry in table.labels.items():
            for name in entry.first:
                if name != "index" and name not in table.identity:
                    raise ValueError(f"{table.name}.labels.{label}: {name!r} is no identity column")
        for name in table.rows_of:
            if name not in table.identity:
                raise ValueError(f"{table.name}.rows_of: {name!r} is no identity column")
        if table.discontinuity is not None and table.discontinuity not in table.columns:
            raise ValueError(f"{table.name}.discontinuity: {table.discontinuity!r} is no column")
        tables.append(
            Table(
                key=f"{spec.name}.{table.name}",
                identity=dict(table.identity),
                columns=dict(table.columns),
                labels=dict(table.labels),
                when=compile_expression(table.when, names) if table.when else None,
                discontinuity=table.discontinuity,
                describe=dict(table.describe),
                measures=tuple(_measure(entry, names) for entry in table.points),
                rows_of=table.rows_of,
            )
        )
    return Profile(
        name=spec.name,
        description=spec.description,
        order=spec.order,
        identity=dict(spec.identity),
        scalars=dict(spec.scalars),
        entity=dict(spec.entity),
        measures=tuple(_measure(entry, single) for entry in spec.points),
        tables=tuple(tables),
        applies=tuple(spec.applies),
        readings=compile_readings(spec.name, spec.base, spec.sensors, spec.processors, spec.memory),
    )


def _measure(spec: PointSpec, names: frozenset[str]) -> Measure:
    return Measure(
        spec.metric,
        spec.unit,
        spec.kind,
        dict(spec.labels),
        compile_expression(spec.value, names),
        compile_expression(spec.when, names) if spec.when else None,
        spec.bare or spec.aggregate is not None,
        spec.aggregate,
    )


def _yaml(content: str) -> object:
    loader = _LOADER(content)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def parse_profile(content: str, origin: str) -> Profile:
    """A profile from the text of its file.

    Raises:
        ProfileError: names the file and each field that is wrong.
    """
    try:
        return compile_profile(ProfileSpec.model_validate(_yaml(content)))
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_url=False)]
        raise ProfileError(f"{origin}: {'; '.join(problems)}") from error
    except (yaml.YAMLError, ValueError, re.error) as error:
        raise ProfileError(f"{origin}: {error}") from error


@cache
def shipped_profiles() -> tuple[Profile, ...]:
    """The profiles that ship with the product, in their order."""
    folder = resources.files("aiops_assets.collectors.snmp").joinpath("profiles")
    found = [
        parse_profile(entry.read_text("utf-8"), entry.name)
        for entry in folder.iterdir()
        if entry.name.endswith(".yaml")
    ]
    return tuple(sorted(found, key=lambda profile: (profile.order, profile.name)))


def load_profiles(folder: Path | None = None) -> tuple[Profile, ...]:
    """The shipped profiles and those in a folder; one of the same name replaces the shipped one.

    Raises:
        ProfileError: when a file is wrong.
    """
    by_name = {profile.name: profile for profile in shipped_profiles()}
    for path in sorted(folder.glob("*.yaml")) if folder is not None and folder.is_dir() else ():
        profile = parse_profile(path.read_text("utf-8"), str(path))
        by_name[profile.name] = profile
    return tuple(sorted(by_name.values(), key=lambda profile: (profile.order, profile.name)))


def select(profiles: Sequence[Profile], names: Sequence[str]) -> tuple[Profile, ...]:
    """The profiles with these names, all of them when there are none.

    Raises:
        ProfileError: names what is unknown and what there is.
    """
    known = {profile.name for profile in profiles}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ProfileError(f"unknown profile {', '.join(unknown)}; known: {', '.join(sorted(known))}")
    return tuple(profile for profile in profiles if not names or profile.name in names)


def single_objects(profiles: Sequence[Profile]) -> Iterator[tuple[str, Oid]]:
    """Name and OID of every single object that these profiles use, the uptime included."""
    yield from UPTIME.items()
    for profile in profiles:
        yield from profile.identity.items()
        yield from profile.scalars.items()


def describe(profiles: Sequence[Profile]) -> list[dict[str, Any]]:
    """Name, description and metrics of each profile, for listings."""
    return [
        {
            "name": profile.name,
            "description": profile.description,
            "metrics": sorted(
                {m.metric for m in profile.measures}
                | {m.metric for t in profile.tables for m in t.measures}
                | reading_metrics(profile.readings)
            ),
        }
        for profile in profiles
    ]
