"""A query as a checked plan: what the parser read, reduced to what is supported.

What belongs here: the nodes of a plan, and the refusal by name of everything else. What does not: computing (
``evaluate``). Parsing is done by the ``promql-parser`` package; it recurses, so texts that nest or chain too deeply
are refused before it sees them. Durations and instants are microseconds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Any, Literal

from aiops_assets.hours import micros
from aiops_assets.telemetry.promql.errors import QueryError, bad_data
from aiops_assets.telemetry.promql.names import NAME

MAX_QUERY_CHARS = 131_072
#: brackets and operators of one query; the parser's own recursion would end the process at some thousands
MAX_OPERATORS = 500
At = int | Literal["start", "end"] | None
Kind = Literal["scalar", "vector", "matrix", "string"]

OVER_TIME = (
    "absent_over_time",
    "avg_over_time",
    "changes",
    "count_over_time",
    "delta",
    "deriv",
    "idelta",
    "increase",
    "irate",
    "last_over_time",
    "max_over_time",
    "min_over_time",
    "predict_linear",
    "present_over_time",
    "quantile_over_time",
    "rate",
    "resets",
    "stddev_over_time",
    "stdvar_over_time",
    "sum_over_time",
)
PER_VALUE = (
    "abs", "acos", "acosh", "asin", "asinh", "atan", "atanh", "ceil", "clamp", "clamp_max", "clamp_min", "cos", "cosh",
    "day_of_month", "day_of_week", "day_of_year", "days_in_month", "deg", "exp", "floor", "hour", "ln", "log10", "log2",
    "minute", "month", "rad", "round", "sgn", "sin", "sinh", "sqrt", "tan", "tanh", "timestamp", "year",
)  # fmt: skip
OTHER_FUNCTIONS = (
    "absent", "histogram_quantile", "label_join", "label_replace", "pi", "scalar", "sort", "sort_desc", "time",
    "vector",
)  # fmt: skip
FUNCTIONS = frozenset((*OVER_TIME, *PER_VALUE, *OTHER_FUNCTIONS))
AGGREGATIONS = frozenset(
    ("avg", "bottomk", "count", "count_values", "group", "max", "min", "quantile", "stddev", "stdvar", "sum", "topk")
)
SET_OPERATORS = frozenset(("and", "or", "unless"))
COMPARISONS = frozenset(("==", "!=", ">", "<", ">=", "<="))
OPERATORS = frozenset(("+", "-", "*", "/", "%", "^", "atan2")) | COMPARISONS | SET_OPERATORS
_SCALARS = frozenset(("time", "pi", "scalar"))
_DOCUMENTATION = "https://prometheus.io/docs/prometheus/latest/querying/functions/"


@dataclass(frozen=True, slots=True)
class Matcher:
    """One condition on a label: ``=``, ``!=``, ``=~`` or ``!~``."""

    name: str
    op: Literal["=", "!=", "=~", "!~"]
    value: str


@dataclass(frozen=True, slots=True)
class Selector:
    """An instant vector from stored series."""

    matchers: tuple[Matcher, ...]
    offset: int = 0
    at: At = None
    kind: Kind = "vector"


@dataclass(frozen=True, slots=True)
class Window:
    """The points of a selector in the last ``width`` microseconds."""

    selector: Selector
    width: int
    kind: Kind = "matrix"


@dataclass(frozen=True, slots=True)
class Subquery:
    """An expression evaluated every ``step`` (``None``: the default) over the last ``width``."""

    inner: Node
    width: int
    step: int | None
    offset: int = 0
    at: At = None
    kind: Kind = "matrix"


@dataclass(frozen=True, slots=True)
class Number:
    value: float
    kind: Kind = "scalar"


@dataclass(frozen=True, slots=True)
class Text:
    value: str
    kind: Kind = "string"


@dataclass(frozen=True, slots=True)
class Call:
    name: str
    arguments: tuple[Node, ...]
    kind: Kind


@dataclass(frozen=True, slots=True)
class Aggregation:
    """``labels`` by which groups are made, or, with ``without``, those that are left out."""

    op: str
    inner: Node
    parameter: Node | None
    labels: tuple[str, ...]
    without: bool
    kind: Kind = "vector"


@dataclass(frozen=True, slots=True)
class Matching:
    """How two vectors find each other. ``on``: compare ``labels`` alone, else all but them."""

    on: bool = False
    labels: tuple[str, ...] = ()
    group: Literal["", "left", "right"] = ""
    include: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Binary:
    op: str
    left: Node
    right: Node
    matching: Matching
    returns_bool: bool
    kind: Kind


@dataclass(frozen=True, slots=True)
class Negation:
    inner: Node
    kind: Kind


Node = Selector | Window | Subquery | Number | Text | Call | Aggregation | Binary | Negation


@lru_cache(maxsize=512)
def plan(query: str) -> Node:
    """The plan of a query.

    Raises:
        QueryError: ``bad_data``: the text is no PromQL, or uses something that is not supported, which is named.
    """
    _guard(query)
    return _node(_parsed(query))


def selector(text: str) -> tuple[Matcher, ...]:
    """The matchers of a ``match[]`` argument.

    Raises:
        QueryError: ``bad_data``: it is something else than a plain selector.
    """
    node = plan(text)
    if not isinstance(node, Selector) or node.offset or node.at is not None:
        raise bad_data(f'match[] takes a selector such as up{{host="web-1"}}, not {text!r}')
    return node.matchers


def supported() -> str:
    """What is supported, in one line for error messages."""
    return (
        f"supported functions: {', '.join(sorted(FUNCTIONS))}; aggregations: {', '.join(sorted(AGGREGATIONS))}; "
        f"operators: {' '.join(sorted(OPERATORS))}; offset, @, subqueries, on, ignoring, group_left, group_right, bool"
    )


def _not_supported(what: str) -> QueryError:
    return bad_data(f"{what} is not supported here; {supported()}")


_TOKEN = re.compile(
    r"""
    (?P<skip>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|`[^`]*`|\#[^\n]*)
    |(?P<count>[(\[{]|[-+*/%^]|[<>!=]=?~?|\b(?:and|or|unless|atan2)\b)
    """,
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)


def _guard(query: str) -> None:
    if len(query) > MAX_QUERY_CHARS:
        raise bad_data(f"a query may have at most {MAX_QUERY_CHARS} characters, this one has {len(query)}")
    found = sum(match.lastgroup == "count" for match in _TOKEN.finditer(query))
    if found > MAX_OPERATORS:
        raise bad_data(f"a query may have at most {MAX_OPERATORS} brackets and operators, this one has {found}")


def _parsed(query: str) -> Any:
    import promql_parser

    try:
        return promql_parser.parse(query)
    except ValueError as error:
        message = str(error)
        unknown = re.fullmatch(r"unknown function with name '(.*)'", message)
        if unknown:
            raise _not_supported(f"function {unknown[1]!r}") from error
        raise bad_data(f'invalid parameter "query": {message}') from error


def _node(parsed: Any) -> Node:
    build = _BUILDERS.get(type(parsed).__name__)
    if build is None:
        raise _not_supported(f"{type(parsed).__name__} ({parsed})")
    built: Node = build(parsed)
    return built


def _selector(parsed: Any) -> Selector:
    if parsed.matchers.or_matchers:
        raise _not_supported("'or' between matchers of one selector")
    matchers = [Matcher(NAME, "=", parsed.name)] if parsed.name is not None else []
    matchers += [Matcher(entry.name, _op(entry.op), entry.value) for entry in parsed.matchers.matchers]
    return Selector(tuple(matchers), _micros(parsed.offset), _at(parsed.at))


def _op(op: Any) -> Literal["=", "!=", "=~", "!~"]:
    import promql_parser

    if op == promql_parser.MatchOp.Equal:
        return "="
    if op == promql_parser.MatchOp.NotEqual:
        return "!="
    return "=~" if op == promql_parser.MatchOp.Re else "!~"


def _window(parsed: Any) -> Window:
    return Window(_selector(parsed.vector_selector), _micros(parsed.range))


def _subquery(parsed: Any) -> Subquery:
    inner = _node(parsed.expr)
    if inner.kind != "vector":
        raise bad_data(f"subquery is only allowed on instant vector, got {inner.kind}")
    step = _micros(parsed.step) if parsed.step is not None else None
    return Subquery(inner, _micros(parsed.range), step, _micros(parsed.offset), _at(parsed.at))


def _call(parsed: Any) -> Call:
    name = parsed.func.name
    if name not in FUNCTIONS:
        raise _not_supported(f"function {name!r} ({_DOCUMENTATION}#{name})")
    arguments = tuple(_node(argument) for argument in parsed.args)
    return Call(name, arguments, "scalar" if name in _SCALARS else "vector")


def _aggregation(parsed: Any) -> Aggregation:
    op = str(parsed.op)
    if op not in AGGREGATIONS:
        raise _not_supported(f"aggregation {op!r}")
    modifier = parsed.modifier
    parameter = _parameter(parsed.param) if parsed.param is not None else None
    without = modifier is not None and str(modifier.type).endswith("Without")
    return Aggregation(op, _node(parsed.expr), parameter, tuple(modifier.labels if modifier else ()), without)


def _parameter(parsed: Any) -> Node:
    if isinstance(parsed, str):
        return Text(parsed)
    return Number(float(parsed)) if isinstance(parsed, int | float) else _node(parsed)


def _binary(parsed: Any) -> Binary:
    op = str(parsed.op)
    if op not in OPERATORS:
        raise _not_supported(f"operator {op!r}")
    left, right = _node(parsed.lhs), _node(parsed.rhs)
    matching, returns_bool = Matching(), False
    if parsed.modifier is not None:
        modifier = parsed.modifier
        fill = modifier.fill_values
        if fill is not None and (fill.lhs is not None or fill.rhs is not None):
            raise _not_supported("'fill' between vectors")
        returns_bool = modifier.return_bool
        cardinality = str(modifier.card)
        group: Literal["", "left", "right"] = ""
        if cardinality.endswith("ManyToOne"):
            group = "left"
        elif cardinality.endswith("OneToMany"):
            group = "right"
        on = modifier.matching is not None and str(modifier.matching.type).endswith("Include")
        labels = tuple(modifier.matching.labels) if modifier.matching is not None else ()
        matching = Matching(on, labels, group, tuple(modifier.group_labels or ()))
    kind: Kind = "scalar" if left.kind == right.kind == "scalar" else "vector"
    return Binary(op, left, right, matching, returns_bool, kind)


def _negation(parsed: Any) -> Node:
    inner = _node(parsed.expr)
    return Number(-inner.value) if isinstance(inner, Number) else Negation(inner, inner.kind)


def _at(parsed: Any) -> At:
    if parsed is None:
        return None
    form = str(parsed.type)
    if form.endswith("Start"):
        return "start"
    return "end" if form.endswith("End") else micros(parsed.at)


def _micros(duration: timedelta | None) -> int:
    return duration // timedelta(microseconds=1) if duration is not None else 0


_BUILDERS: dict[str, Any] = {
    "VectorSelector": _selector,
    "MatrixSelector": _window,
    "SubqueryExpr": _subquery,
    "NumberLiteral": lambda parsed: Number(parsed.val),
    "StringLiteral": lambda parsed: Text(parsed.val),
    "ParenExpr": lambda parsed: _node(parsed.expr),
    "Call": _call,
    "AggregateExpr": _aggregation,
    "BinaryExpr": _binary,
    "UnaryExpr": _negation,
}
