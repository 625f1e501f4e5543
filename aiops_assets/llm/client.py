"""``LanguageModel``: questions in, valid answers out, whatever the provider does.

Order of a question: redaction, digest, stored answer, breaker, budget, slot, requests with repetition, one repair,
storing, settling, ledger. Anything that goes wrong with a provider ends in the question's own offline answer with the
reason; only a mistake of the caller raises. What belongs here: that order. What does not: each step's own rules.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import orjson
from pydantic import BaseModel, ValidationError
from ulid import ULID

from aiops_assets.config import Llm
from aiops_assets.hours import MICROS_PER_SECOND
from aiops_assets.lake.tables import Lake
from aiops_assets.llm.budget import Budget, Reservation, Use, cost_micros
from aiops_assets.llm.cache import FOLDER, AnswerCache, Stored
from aiops_assets.llm.compatible import CompatibleProvider, Misconfigured, Reply
from aiops_assets.llm.ledger import Ledger
from aiops_assets.llm.question import Answer, Message, Outcome, Question
from aiops_assets.llm.retrying import Breaker, Failure, pause
from aiops_assets.llm.schema import Unfit, described, read
from aiops_assets.privacy.names import People
from aiops_assets.privacy.redact import redacted
from aiops_assets.settings import Settings

__all__ = ["Answer", "LanguageModel", "Message", "Misconfigured", "Question", "language_model"]

log = logging.getLogger(__name__)

T = TypeVar("T", bound=BaseModel)

OFFLINE = "offline/1"
#: questions read ahead for each slot, so that a slow one does not keep the others waiting in ordered answers
_AHEAD = 4
#: no repetition is begun with less than this left of a question's deadline (seconds)
_TOO_LATE = 0.05
_LONGEST_SHOWN = 4_000
#: characters a token has at least, nearly always: reservations are not too small
_CHARACTERS_A_TOKEN = 3


@dataclass
class _Lane:
    """What the models of one event loop that ask the same provider share: slots, and when it takes requests again."""

    slots: asyncio.Semaphore
    not_before: float = 0.0


_LANES: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str, str | None, int], _Lane]] = WeakKeyDictionary()


@dataclass
class _Course:
    """What has happened to one question so far."""

    began: float = field(default_factory=time.monotonic)
    at: float = field(default_factory=time.time)
    deadline: float | None = None
    attempts: int = 0
    waited: float = 0.0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    #: tokens of requests whose answer never came: a provider may count them, nobody knows
    unknown_tokens: int = 0
    redactions: int = 0
    digest: str = ""
    reserved: list[Reservation] = field(default_factory=list)


def language_model(settings: Settings, config: Llm, *, run_id: str | None = None) -> LanguageModel:
    """The configured language model; use it as ``async with language_model(…) as model``.

    Raises:
        Misconfigured: the provider cannot be asked; the message says what to change.
    """
    return LanguageModel(settings, config, run_id=run_id)


class LanguageModel:
    """Answers questions for one configuration, inside one event loop.

    All models of a loop that ask the same provider share its ``concurrency``. That is a fixed number: a provider with a
    rate limit says so by 429, and then everybody waits for as long as it asks.
    """

    def __init__(self, settings: Settings, config: Llm, *, run_id: str | None = None) -> None:
        self.config = config
        self._run_id = run_id
        self._provider = None if config.provider == "offline" else CompatibleProvider(config)
        self._lane: _Lane | None = None
        self._model = OFFLINE if self._provider is None else config.model
        paths = settings.paths
        self._cache = AnswerCache(paths.lake, config.cache.max_age) if config.cache.enabled else None
        self._budget = Budget(paths.operations_url, config)
        self._ledger = Ledger(Lake(paths.lake))
        self._breaker = Breaker(config.breaker.failures, config.breaker.pause)
        self._people = People.of(config.people)
        self._asked: dict[str, asyncio.Future[Answer[Any]]] = {}

    async def __aenter__(self) -> LanguageModel:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Write the rest of budget and ledger and close connections."""
        try:
            await self._budget.close()
        finally:
            try:
                await self._ledger.close()
            finally:
                if self._provider is not None:
                    await self._provider.close()

    async def structured(self, question: Question[T]) -> Answer[T]:
        """The answer to a question. Never raises for what a provider does."""
        course = _Course()
        if self._provider is None:
            return self._written(
                course,
                Answer(
                    question,
                    question.offline(),
                    "answered",
                    "offline",
                    OFFLINE,
                    digest=_digest(self, question, question.messages),
                ),
            )
        messages = self._outgoing(question, course)
        course.digest = _digest(self, question, messages)
        if self._cache is None:
            return self._written(course, await self._fresh(question, messages, course))
        while (first := self._asked.get(course.digest)) is not None:
            # The same question is under way: its answer is awaited, and nobody pays twice.
            await asyncio.wait([first])
            if not first.cancelled() and first.exception() is None:
                return self._written(course, self._same(question, first.result(), course))
        mine: asyncio.Future[Answer[Any]] = asyncio.get_running_loop().create_future()
        self._asked[course.digest] = mine
        try:
            answer = await self._stored(question, course) or await self._fresh(question, messages, course)
            mine.set_result(answer)
        finally:
            del self._asked[course.digest]
            mine.cancel()
        return self._written(course, answer)

    async def answers(
        self, questions: Iterable[Question[T]] | AsyncIterable[Question[T]], *, ordered: bool = True
    ) -> AsyncIterator[Answer[T]]:
        """Answers to any number of questions, as many under way as ``concurrency`` allows.

        The iterable is read only a little ahead of what is under way. ``ordered``: in the order of the questions; else
        as they come (``answer.question`` says to which one). Leaving the loop cancels what is under way.
        """
        ahead = _AHEAD * self.config.concurrency
        waiting: deque[asyncio.Task[Answer[T]]] = deque()
        try:
            async for question in _each(questions):
                waiting.append(asyncio.create_task(self.structured(question)))
                while len(waiting) >= ahead:
                    yield await self._next(waiting, ordered)
            while waiting:
                yield await self._next(waiting, ordered)
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def _next(self, waiting: deque[asyncio.Task[Answer[T]]], ordered: bool) -> Answer[T]:
        if ordered:
            answer = await waiting[0]
            waiting.popleft()
            return answer
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        done = next(task for task in waiting if task.done())
        waiting.remove(done)
        return done.result()

    def _outgoing(self, question: Question[T], course: _Course) -> list[Message]:
        return [self._clean(message, course) for message in question.messages]

    def _clean(self, message: Message, course: _Course) -> Message:
        if not self.config.redact:
            return message
        text, count = redacted(message.content, people=self._people)
        course.redactions += count
        return replace(message, content=text)

    async def _stored(self, question: Question[T], course: _Course) -> Answer[T] | None:
        if self._cache is None:
            return None
        try:
            stored = await asyncio.to_thread(self._cache.get, course.digest)
        except OSError:
            log.exception("stored answers cannot be read, the question is asked")
            return None
        if stored is None:
            return None
        try:
            value = question.schema.model_validate_json(stored.content)
        except ValidationError:
            # The checks of the schema have become stricter since: the question is asked again.
            return None
        return self._answer(question, course, value, "answered", cached=True)

    def _same(self, question: Question[T], answer: Answer[T], course: _Course) -> Answer[T]:
        value = question.offline() if answer.degraded else answer.value
        return self._answer(question, course, value, answer.outcome, answer.reason, cached=not answer.degraded)

    async def _fresh(self, question: Question[T], messages: list[Message], course: _Course) -> Answer[T]:
        refused = self._breaker.refuses()
        if refused is not None:
            return self._answer(question, course, question.offline(), "degraded", refused)
        with self._breaker.trying():
            return await self._paid(question, messages, course)

    async def _paid(self, question: Question[T], messages: list[Message], course: _Course) -> Answer[T]:
        reserved = await self._budget.reserve(question.purpose, self._most(question, messages))
        if reserved.refused is not None:
            return self._answer(question, course, question.offline(), "degraded", reserved.refused)
        course.reserved.append(reserved)
        finished = False
        try:
            answer = await self._conversation(question, messages, course)
            finished = True
            return answer
        finally:
            used = self._used(course)
            # Given up in the middle: what the requests under way have used nobody knows, so all of it stays counted.
            for number, reservation in enumerate(course.reserved):
                kept = Use() if finished else reservation.use
                self._budget.settle(reservation, kept.plus(used) if number == 0 else kept)

    async def _conversation(self, question: Question[T], messages: list[Message], course: _Course) -> Answer[T]:
        outcome: Outcome = "answered"
        for turn in range(2):
            try:
                reply = await self._reply(question, messages, course)
            except Failure as failure:
                return self._failed(question, course, failure)
            self._breaker.succeeded()
            self._count(reply, messages, course)
            ended = _ended(reply)
            if ended is not None:
                return self._answer(question, course, question.offline(), *ended)
            try:
                value = read(reply.content, question.schema)
            except Unfit as unfit:
                if turn == 0:
                    outcome = "repaired"
                    messages = [*messages, *self._repair(reply, unfit, course)]
                    more = await self._budget.reserve(question.purpose, self._most(question, messages))
                    course.reserved.append(more)
                    if more.refused is None:
                        continue
                return self._answer(question, course, question.offline(), unfit.kind, self._said(str(unfit)))
            await self._keep(question, value, course)
            return self._answer(question, course, value, outcome)
        raise AssertionError("a conversation has two turns at most")

    def _failed(self, question: Question[T], course: _Course, failure: Failure) -> Answer[T]:
        if failure.kind == "filtered":
            self._breaker.succeeded()
            return self._answer(question, course, question.offline(), "filtered", failure.message)
        # A request that the provider finds wrong says nothing about whether it is there.
        if failure.passing or failure.hopeless:
            self._breaker.failed(failure.message, hopeless=failure.hopeless)
        else:
            self._breaker.succeeded()
        outcome: Outcome = "timed_out" if failure.kind == "timed_out" else "failed"
        return self._answer(question, course, question.offline(), outcome, failure.message)

    def _repair(self, reply: Reply, unfit: Unfit, course: _Course) -> list[Message]:
        said = Message("assistant", (reply.content or "")[:_LONGEST_SHOWN])
        text = (
            f"This does not fit:\n{unfit}\nAnswer again with one JSON document that fits the schema, and nothing else."
        )
        both = [said, Message("user", text)] if said.content else [Message("user", text)]
        return [self._clean(message, course) for message in both]

    async def _reply(self, question: Question[T], messages: list[Message], course: _Course) -> Reply:
        """One reply, with repetition.

        Raises:
            Failure: there was none before the repetitions or the deadline were used up.
        """
        provider = self._asking
        repetition = 0
        while True:
            shape = provider.shape
            failure = None
            async with self._slot(course):
                left = self._left(course)
                if left < _TOO_LATE:
                    raise Failure("timed_out", f"no answer within {self.config.deadline:.0f} s", passing=True)
                course.attempts += 1
                try:
                    return await provider.send(
                        messages,
                        question.schema,
                        temperature=question.temperature,
                        seed=question.seed,
                        max_tokens=question.max_tokens,
                        seconds=min(self.config.timeout, left),
                        shape=shape,
                    )
                except Failure as caught:
                    failure = caught
            if failure.kind == "timed_out":
                course.unknown_tokens += _tokens(messages)
            if provider.adapted(shape, failure) is not None:
                continue
            if not failure.passing or repetition >= self.config.retries:
                raise failure
            seconds = pause(repetition, failure.retry_after, self.config.max_retry_after)
            if failure.retry_after:
                self.lane.not_before = max(self.lane.not_before, time.monotonic() + seconds)
            if self._left(course) <= seconds + _TOO_LATE:
                raise failure
            repetition += 1
            await asyncio.sleep(seconds)

    @asynccontextmanager
    async def _slot(self, course: _Course) -> AsyncIterator[None]:
        """One of the provider's slots, once it takes requests again; the wait is counted."""
        began = time.monotonic()
        async with self.lane.slots:
            while (seconds := self.lane.not_before - time.monotonic()) > 0:
                left = seconds if course.deadline is None else min(seconds, self._left(course))
                if left <= 0:
                    break
                await asyncio.sleep(left)
            course.waited += time.monotonic() - began
            yield

    @property
    def lane(self) -> _Lane:
        """What this model shares with others of its loop."""
        if self._lane is None:
            lanes = _LANES.setdefault(asyncio.get_running_loop(), {})
            key = (self.config.provider, self.config.base_url, self.config.concurrency)
            self._lane = lanes.setdefault(key, _Lane(asyncio.Semaphore(self.config.concurrency)))
        return self._lane

    @property
    def _asking(self) -> CompatibleProvider:
        if self._provider is None:
            raise Misconfigured("the offline provider sends nothing")
        return self._provider

    def _left(self, course: _Course) -> float:
        if course.deadline is None:
            course.deadline = time.monotonic() + self.config.deadline
        return course.deadline - time.monotonic()

    def _count(self, reply: Reply, messages: list[Message], course: _Course) -> None:
        course.prompt_tokens += _tokens(messages) if reply.prompt_tokens is None else reply.prompt_tokens
        told = len(reply.content or "") // _CHARACTERS_A_TOKEN
        course.completion_tokens += told if reply.completion_tokens is None else reply.completion_tokens

    def _most(self, question: Question[T], messages: list[Message]) -> Use:
        asked = _tokens(messages) + len(_described(question)) // _CHARACTERS_A_TOKEN
        return Use(1, asked, question.max_tokens, cost_micros(self.config, asked, question.max_tokens))

    def _used(self, course: _Course) -> Use:
        asked, told = course.prompt_tokens + course.unknown_tokens, course.completion_tokens
        return Use(course.attempts, asked, told, cost_micros(self.config, asked, told))

    async def _keep(self, question: Question[T], value: T, course: _Course) -> None:
        if self._cache is None:
            return
        stored = Stored(
            value.model_dump_json(),
            self._model,
            question.purpose,
            course.prompt_tokens,
            course.completion_tokens,
            time.time(),
        )
        try:
            await asyncio.to_thread(self._cache.put, course.digest, stored)
        except OSError:
            # The answer is paid for: it is handed on, and asked for again by a repeated batch.
            log.exception("an answer cannot be stored in %s", FOLDER)

    def _said(self, text: str) -> str:
        return text if self._provider is None else self._provider.said(text)

    def _answer(
        self,
        question: Question[T],
        course: _Course,
        value: T,
        outcome: Any,
        reason: str | None = None,
        *,
        cached: bool = False,
    ) -> Answer[T]:
        return Answer(
            question,
            value,
            outcome,
            self.config.provider,
            self._model,
            reason,
            cached,
            course.attempts,
            course.prompt_tokens,
            course.completion_tokens,
            cost_micros(self.config, course.prompt_tokens, course.completion_tokens) / MICROS_PER_SECOND,
            0.0,
            course.waited,
            course.redactions,
            course.digest,
        )

    def _written(self, course: _Course, answer: Answer[T]) -> Answer[T]:
        """The answer with its latency, once its row is on the way to the ledger."""
        answer = replace(answer, latency=time.monotonic() - course.began - course.waited)
        self._ledger.add(
            {
                "call_id": str(ULID()),
                "ts": round(course.at * MICROS_PER_SECOND),
                "purpose": answer.question.purpose,
                "provider": answer.provider,
                "model": answer.model,
                "outcome": answer.outcome,
                "reason": answer.reason,
                "cache_hit": answer.cached,
                "attempts": answer.attempts,
                "prompt_tokens": answer.prompt_tokens,
                "completion_tokens": answer.completion_tokens,
                "latency_seconds": answer.latency,
                "waited_seconds": answer.waited,
                "cost": answer.cost,
                "redactions": answer.redactions,
                "request_digest": answer.digest,
                "run_id": self._run_id,
            }
        )
        return answer


def _ended(reply: Reply) -> tuple[Outcome, str] | None:
    """The outcome of a reply that no repair can help; ``None`` for one that is to be read."""
    if reply.refusal:
        return "refused", "the model refused"
    if reply.finish_reason == "length":
        return "truncated", "the answer did not fit into max_tokens"
    if reply.finish_reason == "content_filter":
        return "filtered", "the provider's content filter stopped the answer"
    return None


def _described(question: Question[Any]) -> bytes:
    schema: type[BaseModel] = question.schema
    return described(schema)


def _tokens(messages: Iterable[Message]) -> int:
    """About how many tokens messages have, rather too many than too few."""
    return sum(len(message.content) // _CHARACTERS_A_TOKEN + 8 for message in messages)


def _digest(model: LanguageModel, question: Question[Any], messages: Iterable[Message]) -> str:
    """SHA-256 over everything that an answer depends on."""
    content = {
        "provider": model.config.provider,
        "model": model._model,
        "messages": [[message.role, message.content] for message in messages],
        "schema": _described(question).decode(),
        "temperature": question.temperature,
        "seed": question.seed,
        "max_tokens": question.max_tokens,
    }
    return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()


async def _each(questions: Iterable[Question[T]] | AsyncIterable[Question[T]]) -> AsyncIterator[Question[T]]:
    if isinstance(questions, AsyncIterable):
        async for question in questions:
            yield question
        return
    for question in questions:
        yield question
