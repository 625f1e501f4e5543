"""``aiops llm``: is the language model reachable, what was asked, what it cost, what may it still cost."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from aiops_assets.cli.output import PROBLEM, USAGE, ago, clean, console, duration, fail, group, load, print_json, table

if TYPE_CHECKING:
    from aiops_assets.config import Llm
    from aiops_assets.settings import Settings

llm = group("llm", "The language model: try it, see what was asked and what it cost.")
cache = group("cache", "Stored answers.")
llm.add_typer(cache)

AsJson = Annotated[bool, typer.Option("--json", help="One JSON document.")]


def _config() -> tuple[Settings, Llm]:
    from aiops_assets.config import load_config

    settings = load()
    return settings, load_config(settings.paths.config).llm


@llm.command("test")
def test(as_json: AsJson = False) -> None:
    """Ask the configured provider one small question, past the cache, and say what came of it.

    Example:

      aiops llm test
    """
    import asyncio

    from pydantic import BaseModel

    from aiops_assets.llm.client import Answer, Message, Misconfigured, Question, language_model

    class Small(BaseModel):
        """An answer of one word and one number."""

        greeting: str
        sum: int
        provider: Literal["model", "offline"]

    settings, config = _config()
    settings.paths.create()
    config = config.model_copy(update={"cache": config.cache.model_copy(update={"enabled": False}), "retries": 1})
    text = 'Answer with a greeting of one word, the sum of 19 and 23, and the provider "model".'
    question = Question(
        "llm-test",
        [Message("user", text)],
        Small,
        lambda: Small(greeting="hello", sum=42, provider="offline"),
        max_tokens=200,
    )

    async def ask() -> Answer[Small]:
        async with language_model(settings, config) as model:
            return await model.structured(question)

    try:
        answer = asyncio.run(ask())
    except Misconfigured as error:
        fail(str(error), USAGE)
    found = _diagnosis(config, answer)
    if as_json:
        print_json(found)
    else:
        shown = table("what", "value")
        for name, value in found.items():
            if value is not None:
                shown.add_row(name.replace("_", " "), clean(value))
        console().print(shown)
    if answer.degraded:
        raise typer.Exit(PROBLEM)


def _diagnosis(config: Llm, answer: Any) -> dict[str, Any]:
    advice = {
        "timed_out": "raise 'llm.timeout', or see whether the server is overloaded",
        "truncated": "the model needs more tokens than 200 for a tiny answer: a reasoning model? use another one",
        "refused": "the model does not answer harmless questions: use another one",
        "filtered": "the provider's content filter is too strict for a greeting: see its settings",
        "not_json": "the model does not keep to JSON: use another one, or 'llm.structured: tools'",
        "wrong_schema": "the model does not keep to a schema: use another one, or 'llm.structured: tools'",
        "empty": "the model said nothing: use another one",
    }
    wrong = not answer.degraded and answer.provider != "offline" and answer.value.sum != 42
    return {
        "provider": answer.provider,
        "model": answer.model,
        "address": config.base_url,
        "outcome": answer.outcome,
        "reason": answer.reason,
        "next_step": advice.get(answer.outcome),
        "note": "the offline provider needs no server; set 'llm.provider' in aiops.yaml to ask a model"
        if answer.provider == "offline"
        else "the answer has the right form, but the sum is wrong: a very small model?"
        if wrong
        else None,
        "latency_seconds": round(answer.latency, 3),
        "requests": answer.attempts,
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": answer.completion_tokens,
        "cost": answer.cost,
    }


@llm.command("calls")
def calls(
    days: Annotated[float, typer.Option(help="How far back.", min=0.001, max=3660)] = 1.0,
    last: Annotated[int, typer.Option(help="How many single calls to show.", min=0, max=10_000)] = 20,
    purpose: Annotated[str | None, typer.Option(help="Only this purpose.")] = None,
    degraded: Annotated[bool, typer.Option(help="Only calls that the offline answer stood in for.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show recent calls and their sums by purpose and model.

    Example:

      aiops llm calls --days 7 --degraded
    """
    import polars as pl

    from aiops_assets.lake.tables import Lake
    from aiops_assets.llm.ledger import recent, sums

    settings = load()
    found = recent(Lake(settings.paths.lake), days)
    if purpose is not None:
        found = found.filter(pl.col("purpose") == purpose)
    if degraded:
        found = found.filter(~pl.col("outcome").is_in(["answered", "repaired"]))
    totals = sums(found)
    if as_json:
        print_json({"days": days, "sums": totals.to_dicts(), "calls": found.head(last).to_dicts()})
        return
    if found.is_empty():
        console().print(f"no call in the last {duration(days * 86_400)}")
        return
    numbers = ("calls", "stored", "degraded", "repaired", "requests", "tokens in", "out", "cost", "redacted", "median")
    shown = table("purpose", "model", *numbers, right=numbers)
    for row in totals.iter_rows(named=True):
        median = "–" if row["latency_p50"] is None else duration(row["latency_p50"])
        counts = [row[name] for name in ("calls", "cached", "degraded", "repaired", "requests")]
        tokens = [row["prompt_tokens"], row["completion_tokens"]]
        cells = [f"{value:,}" for value in (*counts, *tokens)]
        model = clean(f"{row['provider']} {row['model']}")
        shown.add_row(clean(row["purpose"]), model, *cells, f"{row['cost']:.4f}", f"{row['redactions']:,}", median)
    console().print(shown)
    if last:
        each = table("when", "purpose", "model", "outcome", "tokens", "cost", "took", right=("tokens", "cost", "took"))
        for row in found.head(last).iter_rows(named=True):
            outcome = row["outcome"] + (" (stored)" if row["cache_hit"] else "")
            outcome += f": {row['reason']}" if row["reason"] else ""
            each.add_row(
                ago(round(row["ts"].timestamp() * 1e6)),
                clean(row["purpose"]),
                clean(row["model"]),
                clean(outcome),
                f"{row['prompt_tokens'] + row['completion_tokens']:,}",
                f"{row['cost']:.4f}",
                duration(row["latency_seconds"]),
            )
        console().print(each)


@llm.command("budget")
def budget(
    day: Annotated[str | None, typer.Option(help="YYYY-MM-DD (UTC); default: today.")] = None, as_json: AsJson = False
) -> None:
    """Show what a day has used of its budget, what calls under way have reserved included."""
    from datetime import date

    from aiops_assets.config import LlmBudget
    from aiops_assets.llm.budget import day_of, spent
    from aiops_assets.operations.database import connect, reading, upgrade

    settings, config = _config()
    settings.paths.create()
    chosen = day or day_of(time.time())
    try:
        chosen = date.fromisoformat(chosen).isoformat()
    except ValueError:
        fail(f"--day {day!r}: write YYYY-MM-DD", USAGE)
    upgrade(settings.paths.operations_url)
    engine = connect(settings.paths.operations_url)
    try:
        with reading(engine) as connection:
            rows = spent(connection, chosen)
    finally:
        engine.dispose()
    entries = []
    for purpose in sorted({*rows, *config.budgets}):
        entries.append(_line(purpose, rows.get(purpose), config.budgets.get(purpose, LlmBudget())))
    whole = {name: sum(entry[name] for entry in entries) for name in ("calls", "tokens", "cost")}
    total = {"purpose": "all", **whole, "limits": config.budget.model_dump(), "left": _left(whole, config.budget)}
    priced = config.prompt_price > 0 or config.completion_price > 0
    limited = any(limits.cost is not None for limits in (config.budget, *config.budgets.values()))
    note = "cost is limited but no price is configured: set 'llm.prompt_price' and 'llm.completion_price'"
    notes = [note] if limited and not priced else []
    if as_json:
        print_json({"day": chosen, "purposes": entries, "all": total, "notes": notes})
        return
    shown = table("purpose", "calls", "tokens", "cost", "left", right=("calls", "tokens", "cost"))
    for entry in [*entries, total]:
        left = ", ".join(f"{value:,.6g} {name}" for name, value in entry["left"].items()) or "no limit"
        numbers = (f"{entry['calls']:,}", f"{entry['tokens']:,}", f"{entry['cost']:.4f}")
        shown.add_row(clean(entry["purpose"]), *numbers, left)
    console().print(f"{chosen} (UTC)")
    console().print(shown)
    for line in notes:
        console(stderr=True).print(line)


def _line(purpose: str, use: Any, limits: Any) -> dict[str, Any]:
    used = {
        "calls": use.calls if use else 0,
        "tokens": use.prompt_tokens + use.completion_tokens if use else 0,
        "cost": use.cost_micros / 1e6 if use else 0.0,
    }
    return {"purpose": purpose, **used, "limits": limits.model_dump(), "left": _left(used, limits)}


def _left(used: dict[str, Any], limits: Any) -> dict[str, float]:
    return {name: max(0, limit - used[name]) for name, limit in limits.model_dump().items() if limit is not None}


@cache.command("prune")
def prune(
    older_than: Annotated[str | None, typer.Option(help="12h, 30d …; default: 'llm.cache.max_age'.")] = None,
    as_json: AsJson = False,
) -> None:
    """Remove stored answers that are too old to be used.

    Example:

      aiops llm cache prune --older-than 30d
    """
    from aiops_assets.config import parse_duration
    from aiops_assets.llm.cache import AnswerCache

    settings, config = _config()
    try:
        seconds = config.cache.max_age if older_than is None else parse_duration(older_than)
    except ValueError as error:
        fail(f"--older-than {older_than!r}: {error}", USAGE)
    gone, left = AnswerCache(settings.paths.lake, config.cache.max_age).prune(seconds)
    if as_json:
        print_json({"removed": gone, "left": left})
    else:
        console().print(f"{gone:,} stored answers removed, {left:,} left")
