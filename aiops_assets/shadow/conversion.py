"""Alert rules of Prometheus as rules of ``aiops.yaml``: what means the same is converted, everything else is listed.

What belongs here: what a PromQL expression says and which of our rules says that. What does not: reading rule files
(``rule_files``) and running rules (``judging``). Nothing is converted by resemblance: an expression that is not in the
table below is listed with the reason.

====================================  ==================================================================================
``m{…} > N`` (``>= < <=``)            threshold. Exact: the same verdict at the same samples.
``m{…} == 0`` and the like            threshold, where the metric can have no value beyond (``up``, ``probe_success``,
                                      counters).
``rate(m[w]) > N``, ``increase``      rate over ``w``, for counters. Close: two samples instead of an extrapolation, and
                                      no verdict for ``w`` after a reset.
``delta(m[w]) > N``                   rate over ``w``, for gauges. Close, likewise.
``predict_linear(m[w], s) < N``       fill_up. Close: the line must explain 85 % of the variance and move that way.
``absent(m{…})``, ``…_over_time``     absence, where the history has one host that matches. Close: Prometheus looks back
                                      for five minutes before it calls a series absent.
====================================  ==================================================================================

Around each of them constants may be added, subtracted, multiplied and divided, on either side of the comparison.
Labels are compared by ``=``, and by ``=~`` where patterns say the same (``matchers``).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from fractions import Fraction
from typing import Any, Literal

import promql_parser as promql
from pydantic import ValidationError

from aiops_assets.config import Rule
from aiops_assets.formats.prometheus_range import kind_of
from aiops_assets.landing.segment import is_name
from aiops_assets.shadow.matchers import NotExact, literal, patterns_of
from aiops_assets.shadow.rule_files import AlertRule

#: how far back Prometheus looks for a sample of a series by default
LOOKBACK_SECONDS = 300.0
_COMPARISONS = (">", ">=", "<", "<=", "==", "!=")
_MIRRORED = {">": "<", ">=": "<=", "<": ">", "<=": ">=", "==": "==", "!=": "!="}
_SETS = {"and", "or", "unless"}
#: metrics that are 0 or 1 and nothing else
_BOOLEAN = frozenset({"up", "probe_success"})
_SEVERITY = {
    "critical": "critical", "crit": "critical", "page": "critical", "emergency": "critical", "fatal": "critical",
    "error": "error", "high": "error", "major": "error", "warning": "warning", "warn": "warning",
    "medium": "warning", "minor": "warning", "low": "info", "info": "info", "none": "info",
    "debug": "debug",
}  # fmt: skip
_WORDS = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+")

Exactness = Literal["exact", "close"]
#: metric pattern and label patterns → hosts of the imported series that fit
HostsOf = Callable[[str, Mapping[str, tuple[str, ...]]], Collection[str]]


@dataclass(frozen=True, slots=True)
class Converted:
    """A rule that was converted. ``notes`` say where the two may differ."""

    source: AlertRule
    rule: Rule
    exactness: Exactness
    notes: tuple[str, ...] = ()

    @property
    def static_labels(self) -> dict[str, str]:
        """Labels that the rule puts on its alerts, without those that are templates."""
        return {name: value for name, value in self.source.labels.items() if "{{" not in value}


@dataclass(frozen=True, slots=True)
class Unconverted:
    """A rule that was not converted, and why."""

    source: AlertRule
    reason: str


@dataclass(frozen=True, slots=True)
class Conversion:
    """Every alert rule is in one of the two."""

    converted: tuple[Converted, ...] = ()
    unconverted: tuple[Unconverted, ...] = ()


@dataclass(frozen=True, slots=True)
class _Core:
    """What is compared: ``slope · f(selector) + offset``; for ``f`` ``value`` is the selector itself."""

    function: str
    selector: Any
    window: float = 0.0
    horizon: float = 0.0
    slope: Fraction = field(default_factory=lambda: Fraction(1))
    offset: Fraction = field(default_factory=Fraction)


def convert(
    rules: Sequence[AlertRule],
    *,
    metadata: Mapping[str, Any] | None = None,
    hosts_of: HostsOf | None = None,
) -> Conversion:
    """Convert alert rules.

    Args:
        metadata: of metrics, as ``/api/v1/metadata`` gives it (one entry a metric): which ones are counters.
        hosts_of: the hosts of the imported history; without it no ``absent`` is converted.
    """
    converted: list[Converted] = []
    unconverted: list[Unconverted] = []
    taken: set[str] = set()
    for source in rules:
        try:
            fields, exactness, notes = _meaning(source, metadata or {}, hosts_of)
            name = _free_name(source, taken)
            severity, severity_note = _severity(source.labels)
            rule = Rule.model_validate(
                {
                    **fields,
                    "name": name,
                    "for": fields.get("for", source.hold),
                    "severity": severity,
                    "description": _description(source),
                }
            )
        except NotExact as error:
            unconverted.append(Unconverted(source, str(error)))
        except ValidationError as error:
            text = "; ".join(f"{'.'.join(map(str, item['loc'])) or 'rule'}: {item['msg']}" for item in error.errors())
            unconverted.append(Unconverted(source, f"our rules refuse it: {text}"))
        else:
            taken.add(name)
            converted.append(Converted(source, rule, exactness, (*notes, *severity_note)))
    return Conversion(tuple(converted), tuple(unconverted))


def rule_yaml(conversion: Conversion) -> str:
    """The converted rules as the ``rules:`` section of ``aiops.yaml``."""
    import yaml

    entries = []
    for entry in conversion.converted:
        dumped = entry.rule.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        entries.append({key: value for key, value in dumped.items() if value not in ("", {}, None)})
    return yaml.safe_dump({"rules": entries}, sort_keys=False, allow_unicode=True, width=120)


def _meaning(
    source: AlertRule, metadata: Mapping[str, Any], hosts_of: HostsOf | None
) -> tuple[dict[str, Any], Exactness, tuple[str, ...]]:
    """Fields of our rule, how close it is, and notes.

    Raises:
        NotExact: no rule of ours means this.
    """
    if source.problem:
        raise NotExact(source.problem)
    if source.keep_firing:
        raise NotExact("keep_firing_for: our alerts end with the condition, or at 'clear', never by time")
    try:
        expression = promql.parse(source.expr)
    except ValueError as error:
        raise NotExact(f"the expression cannot be parsed: {error}") from error
    expression = _bare(expression)
    if isinstance(expression, promql.Call) and expression.func.name in {"absent", "absent_over_time"}:
        return _absence(expression, source, hosts_of)
    if not isinstance(expression, promql.BinaryExpr):
        raise NotExact(_no_comparison(expression))
    operator = str(expression.op)
    if operator in _SETS:
        raise NotExact(f"'{operator}' joins two conditions; each rule of ours has one")
    if operator not in _COMPARISONS:
        raise NotExact("nothing is compared: the alert fires for whatever value there is")
    modifier = expression.modifier
    if modifier is not None and modifier.return_bool:
        raise NotExact("a comparison with 'bool' always has a value, so that alert always fires")
    left, right = _constant(expression.lhs), _constant(expression.rhs)
    if left is not None and right is not None:
        raise NotExact("it compares two constants; ours compare one metric with a constant")
    if right is not None:
        subject, limit = expression.lhs, right
    elif left is not None:
        operator, subject, limit = _MIRRORED[operator], expression.rhs, left
    else:
        raise NotExact("it compares two vectors; ours compare one metric with a constant")
    inner = _bare(subject)
    if isinstance(inner, promql.Call) and inner.func.name in {"absent", "absent_over_time"}:
        if _always_with_one(operator, limit):
            return _absence(inner, source, hosts_of)
        raise NotExact(f"{inner.func.name}() is 1 or nothing; compared like this it never fires")
    return _compared(_core(subject), operator, limit, metadata)


def _compared(
    core: _Core, operator: str, limit: Fraction, metadata: Mapping[str, Any]
) -> tuple[dict[str, Any], Exactness, tuple[str, ...]]:
    if core.slope == 0:
        raise NotExact("the metric is multiplied by 0")
    value = (limit - core.offset) / core.slope
    if core.slope < 0:
        operator = _MIRRORED[operator]
    notes: list[str] = []
    if core.slope != 1 or core.offset != 0:
        notes.append(f"constants moved to the limit: {_number(value)}; values within rounding of it may differ")
    fields = _selected(core.selector)
    name = fields["metric"]
    counter = kind_of(name, metadata) == "counter"
    if core.function == "value":
        if operator in {"==", "!="}:
            operator, note = _equality(name, operator, value, counter)
            notes.append(note)
        return {**fields, "kind": "threshold", "op": operator, "value": _float(value)}, "exact", tuple(notes)
    if operator in {"==", "!="}:
        raise NotExact(f"'{operator}' on {core.function}(): our rules know > >= < <=")
    if core.function == "predict_linear":
        if core.window < 1 or core.horizon <= 0:
            raise NotExact("predict_linear() looks back or ahead by less than a second")
        op = ">=" if operator in {">", ">="} else "<="
        notes.append("fires only while the line moves towards the limit and explains 85 % of the variance")
        made = {"kind": "fill_up", "op": op, "value": _float(value), "window": core.window, "horizon": core.horizon}
        return {**fields, **made}, "close", tuple(notes)
    if core.function in {"rate", "increase"} and not counter:
        raise NotExact(f"{core.function}() of {name}, which is no counter as far as name and metadata say")
    if core.function == "delta" and "*" in name:
        raise NotExact("delta() of a pattern of names: some may be counters, which ours treats otherwise")
    if core.function == "delta" and counter:
        raise NotExact(f"delta() of {name}, which is a counter: ours would take a reset for one")
    if core.window < 1:
        raise NotExact("the window is shorter than a second")
    per_second = value if core.function == "rate" else value / Fraction(core.window)
    notes.append("change between two samples over the window, not extrapolated to its edges")
    if counter:
        notes.append(f"after a counter reset there is no verdict for {core.window:g} s")
    made = {"kind": "rate", "op": operator, "value": _float(per_second), "window": core.window}
    return {**fields, **made}, "close", tuple(notes)


def _equality(name: str, operator: str, value: Fraction, counter: bool) -> tuple[str, str]:
    """An inequality that says the same as ``== value`` or ``!= value``, for metrics of which the range is known."""
    if name in _BOOLEAN and value in {0, 1}:
        said = {("==", 0): "<=", ("==", 1): ">=", ("!=", 0): ">", ("!=", 1): "<"}[operator, int(value)]
        return said, f"'{operator} {int(value)}' written as '{said} {int(value)}': {name} is 0 or 1"
    if counter and value == 0:
        said = "<=" if operator == "==" else ">"
        return said, f"'{operator} 0' written as '{said} 0': a counter is never negative"
    raise NotExact(f"'{operator}' on {name}: our rules know > >= < <=, and which values it can have is not known")


def _absence(
    call: Any, source: AlertRule, hosts_of: HostsOf | None
) -> tuple[dict[str, Any], Exactness, tuple[str, ...]]:
    (argument,) = call.args
    argument = _bare(argument)
    over_time = call.func.name == "absent_over_time"
    if over_time and isinstance(argument, promql.MatrixSelector):
        selector, silent = argument.vector_selector, _seconds(argument.range)
    elif not over_time and isinstance(argument, promql.VectorSelector):
        selector, silent = argument, LOOKBACK_SECONDS
    else:
        raise NotExact(f"{call.func.name}() of an expression; ours watch one metric")
    fields = _selected(selector)
    hosts = sorted(hosts_of(fields["metric"], fields["labels"])) if hosts_of is not None else None
    if not hosts:
        known = "no host has it in the imported history" if hosts is not None else "the history is not known"
        raise NotExact(f"{call.func.name}() is converted where one host has the metric; {known}")
    if len(hosts) > 1:
        raise NotExact(
            f"{call.func.name}() asks whether all {len(hosts)} hosts are silent; ours watch each host by itself"
        )
    note = "counts from the last sample: " + (
        "the window is part of 'for'" if over_time else "the five minutes that Prometheus looks back are part of 'for'"
    )
    return {**fields, "kind": "absence", "for": source.hold + silent}, "close", (note,)


def _no_comparison(expression: Any) -> str:
    if isinstance(expression, promql.VectorSelector):
        return "nothing is compared: the alert fires for as long as the series exists"
    return f"{_what(expression)}: ours compare one metric with a constant"


def _core(expression: Any) -> _Core:
    """What an expression without constants around it is.

    Raises:
        NotExact: naming the part that no rule of ours has.
    """
    expression = _bare(expression)
    if isinstance(expression, promql.VectorSelector):
        return _Core("value", expression)
    if isinstance(expression, promql.UnaryExpr):
        inner = _core(expression.expr)
        return _scaled(inner, Fraction(-1), Fraction())
    if isinstance(expression, promql.BinaryExpr):
        return _arithmetic(expression)
    if isinstance(expression, promql.Call):
        return _function(expression)
    raise NotExact(f"{_what(expression)} has no counterpart")


def _arithmetic(expression: Any) -> _Core:
    operator = str(expression.op)
    left, right = _constant(expression.lhs), _constant(expression.rhs)
    if operator not in {"+", "-", "*", "/"}:
        raise NotExact(f"'{operator}' within the expression has no counterpart")
    if right is not None:
        inner = _core(expression.lhs)
        if operator == "/":
            if right == 0:
                raise NotExact("a division by 0")
            return _scaled(inner, 1 / right, Fraction())
        if operator == "*":
            return _scaled(inner, right, Fraction())
        return _scaled(inner, Fraction(1), right if operator == "+" else -right)
    if left is None:
        raise NotExact(f"'{operator}' between two vectors; ours watch one metric")
    inner = _core(expression.rhs)
    if operator == "/":
        raise NotExact("the metric is a divisor: which way the comparison points depends on its sign")
    if operator == "*":
        return _scaled(inner, left, Fraction())
    return _scaled(inner, Fraction(1 if operator == "+" else -1), left)


def _scaled(core: _Core, slope: Fraction, offset: Fraction) -> _Core:
    return _Core(
        core.function, core.selector, core.window, core.horizon, core.slope * slope, core.offset * slope + offset
    )


def _function(call: Any) -> _Core:
    name = call.func.name
    arguments = list(call.args)
    if name not in {"rate", "increase", "delta", "predict_linear"}:
        raise NotExact(f"{name}() has no counterpart")
    matrix = _bare(arguments[0])
    if not isinstance(matrix, promql.MatrixSelector):
        raise NotExact(f"{name}() of a subquery has no counterpart")
    horizon = Fraction()
    if name == "predict_linear":
        found = _constant(arguments[1])
        if found is None:
            raise NotExact("predict_linear() with a horizon that is no constant")
        horizon = found
    return _Core(name, matrix.vector_selector, _seconds(matrix.range), float(horizon))


def _selected(selector: Any) -> dict[str, Any]:
    """``metric`` and ``labels`` of our rule for a vector selector."""
    if selector.offset is not None or selector.at is not None:
        raise NotExact("'offset' and '@' have no counterpart")
    if selector.matchers.or_matchers:
        raise NotExact("'or' between matchers has no counterpart")
    metric: str | None = literal(selector.name) if selector.name else None
    labels: dict[str, tuple[str, ...]] = {}
    for matcher in selector.matchers.matchers:
        operator = str(matcher.op).rpartition(".")[2]
        patterns = _patterns(matcher, operator)
        if matcher.name == "__name__":
            if metric is not None or len(patterns) != 1:
                raise NotExact("several metric names in one rule; ours have one name or pattern")
            metric = patterns[0]
        elif matcher.name in labels:
            raise NotExact(f"two matchers for the label {matcher.name!r}; ours have one")
        else:
            labels[matcher.name] = patterns
    if not metric:
        raise NotExact("no metric name")
    return {"metric": metric, "labels": labels}


def _patterns(matcher: Any, operator: str) -> tuple[str, ...]:
    if operator == "Equal":
        return (literal(matcher.value),)
    if operator == "Re":
        try:
            return patterns_of(matcher.value)
        except NotExact as error:
            raise NotExact(f"{matcher.name}=~{matcher.value!r}: {error}") from error
    sign = "!=" if operator == "NotEqual" else "!~"
    raise NotExact(f"{matcher.name}{sign}{matcher.value!r}: our patterns say what a label is, not what it is not")


def _constant(expression: Any) -> Fraction | None:
    """The value of an expression of numbers; ``None`` when it is none.

    Raises:
        NotExact: it is not finite.
    """
    expression = _bare(expression)
    if isinstance(expression, promql.NumberLiteral):
        if not math.isfinite(expression.val):
            raise NotExact("a limit that is infinite or no number")
        # The shortest decimals that mean this float are what was written.
        return Fraction(repr(expression.val))
    if isinstance(expression, promql.UnaryExpr):
        inner = _constant(expression.expr)
        return None if inner is None else -inner
    if not isinstance(expression, promql.BinaryExpr):
        return None
    left, right = _constant(expression.lhs), _constant(expression.rhs)
    if left is None or right is None:
        return None
    operator = str(expression.op)
    if operator == "+":
        return left + right
    if operator == "-":
        return left - right
    if operator == "*":
        return left * right
    if operator == "/" and right != 0:
        return left / right
    if operator == "^" and right.denominator == 1 and abs(right) <= 64 and (left != 0 or right > 0):
        return left ** int(right)
    raise NotExact(f"'{operator}' between these constants is not worked out")


def _always_with_one(operator: str, limit: Fraction) -> bool:
    """Whether ``1 operator limit`` holds."""
    return {
        ">": limit < 1, ">=": limit <= 1, "<": limit > 1, "<=": limit >= 1, "==": limit == 1, "!=": limit != 1
    }[operator]  # fmt: skip


def _bare(expression: Any) -> Any:
    while isinstance(expression, promql.ParenExpr):
        expression = expression.expr
    return expression


def _what(expression: Any) -> str:
    if isinstance(expression, promql.AggregateExpr):
        return f"the aggregation {expression.op}()"
    if isinstance(expression, promql.Call):
        return f"{expression.func.name}()"
    if isinstance(expression, promql.SubqueryExpr):
        return "a subquery"
    return f"this kind of expression ({type(expression).__name__})"


def _seconds(span: timedelta) -> float:
    return span.total_seconds()


def _float(value: Fraction) -> float:
    try:
        return float(value)
    except OverflowError as error:
        raise NotExact("a limit beyond what a float can hold") from error


def _number(value: Fraction) -> str:
    return f"{_float(value):.12g}"


def _severity(labels: Mapping[str, str]) -> tuple[str, tuple[str, ...]]:
    given = labels.get("severity", "")
    known = _SEVERITY.get(given.lower())
    if known is not None:
        return known, ()
    said = f"the severity {given!r} is not one of ours" if given else "it has no severity"
    return "error", (f"{said}: 'error' was taken",)


def _description(source: AlertRule) -> str:
    texts = (source.annotations.get(name, "").strip() for name in ("description", "summary"))
    return next((text for text in texts if text), "")


def _free_name(source: AlertRule, taken: Collection[str]) -> str:
    """``HostOutOfMemory`` → ``host-out-of-memory``; a name that is taken gets the severity, then a number."""
    words = "-".join(word.lower() for word in _WORDS.findall(source.alert))[:48].strip("-") or "alert"
    severity = "-".join(_WORDS.findall(source.labels.get("severity", "").lower()))[:10]
    candidates = [words, *([f"{words}-{severity}"] if severity else [])]
    name = next((name for name in candidates if name not in taken and is_name(name)), None)
    number = 2
    while name is None:
        name = None if f"{words}-{number}" in taken else f"{words}-{number}"
        number += 1
    return name
