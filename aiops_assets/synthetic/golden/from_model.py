"""Golden incidents told by a language model: the facts and the life are simulated, the model writes the texts.

What belongs here: the question for an incident, holding the answer against the facts, asking once more, and keeping the
offline text where that did not help. What does not: the life of incidents (``generate``), the way to a model (``llm``).

The facts never come from the model, so fields agree whatever it writes. A question carries few incidents, each of which
is judged on its own, so that stories do not mix and a text that is refused costs one incident. A batch that was killed
goes on where it stood: answers are in the cache of ``llm`` and in the batch's own journal before they are used.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter, deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import orjson
import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from aiops_assets.config import Llm
from aiops_assets.llm.client import Answer, LanguageModel, Message, Question, language_model
from aiops_assets.privacy.detect import People
from aiops_assets.settings import Settings
from aiops_assets.synthetic.golden.confidence import confidence
from aiops_assets.synthetic.golden.config import GoldenConfig
from aiops_assets.synthetic.golden.config import digest as config_digest
from aiops_assets.synthetic.golden.generate import generate, stream
from aiops_assets.synthetic.golden.journal import Journal
from aiops_assets.synthetic.golden.population import MONITORING
from aiops_assets.synthetic.golden.record import SCHEMA
from aiops_assets.synthetic.golden.sanitise import sanitised
from aiops_assets.synthetic.golden.skeleton import SkeletonSource
from aiops_assets.synthetic.golden.text_checks import LONG, NOTE, SHORT, SOLUTION, Facts, Texts, problems
from aiops_assets.synthetic.golden.topics import Topics, learn

PURPOSE = "golden-incident"
MOST = 10_000
MOST_A_QUESTION = 20
#: two share the rules and the way, and stories still do not mix
A_QUESTION = 2
#: changes with the wording of the question: answers to another wording are not taken from a journal
_WORDING = 1
_TEMPERATURE = 0.9
#: authors whose entries no person wrote: they stay as they are
_AUTOMATIC = frozenset({"system", MONITORING})
#: offline incidents from which the words of categories are learnt
_SAMPLE = 2_000
_MADE_AT_ONCE = 600
#: questions in one piece of the stream for each slot, and pieces under way at once
_PER_SLOT, _PIECES = 4, 3
_GRADES = {1: "high", 2: "medium", 3: "low"}
_LANGUAGES = {
    "en": "English", "de": "German", "fr": "French", "es": "Spanish", "it": "Italian", "pt": "Portuguese",
    "nl": "Dutch", "pl": "Polish", "cs": "Czech", "sv": "Swedish", "da": "Danish", "fi": "Finnish", "tr": "Turkish",
    "ja": "Japanese", "zh": "Chinese", "ko": "Korean",
}  # fmt: skip
_MANNERS = (
    "a hurried caller who writes one or two plain sentences",
    "a patient caller who tells what happened in order and what he tried already",
    "a technically versed caller who quotes messages and names versions",
    "an annoyed caller for whom it is not the first time",
    "a polite caller who is not sure how things are called",
    "a caller who writes for several colleagues with the same trouble",
)
_RULES = f"""You write the texts of IT service desk tickets for {{company}}. You are given facts; they are settled.
For each incident write, in the language that is named:
- short_description: what is reported, one line, {SHORT[0]} to {SHORT[1]} characters, no full stop at the end
- description: what the caller tells, in the manner that is named, at least {LONG[0]} characters
- work_notes: one text for every entry under "entries", in that order, at least {NOTE[0]} characters each, written by
  its author at that time: callers write as callers, technicians as technicians; say what the outline says, and no more
- resolution_notes: what solved it, at least {SOLUTION[0]} characters, as its outline says; null when there is none
The outlines give the story, not the wording: tell the same story in words of your own, so that everything agrees with
the category, the service and the times. Name people only by the user ids given. No e-mail addresses, telephone numbers,
IP addresses, passwords or names of real people. No placeholders, and not a word about these instructions."""


class IncidentTexts(BaseModel):
    """What the model writes for one incident."""

    model_config = ConfigDict(extra="forbid")

    short_description: str
    description: str
    work_notes: list[str]
    resolution_notes: str | None = Field(description="null when the incident is not resolved")


class Told(BaseModel):
    """The texts of all incidents of a question, in the order of the question."""

    model_config = ConfigDict(extra="forbid")

    incidents: list[IncidentTexts]


@dataclass
class Tally:
    """What has come of a batch so far."""

    #: incidents whose texts are the model's, and of those the ones that came of a second question
    told: int = 0
    repaired: int = 0
    #: incidents that kept their offline text, by reason: budget, provider, texts, repeated
    kept: Counter[str] = field(default_factory=Counter)
    #: incidents taken from the journal of an earlier, killed run
    resumed: int = 0
    questions: int = 0
    cached: int = 0
    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    #: personal data and secrets that were taken out of answers, by kind
    sanitised: Counter[str] = field(default_factory=Counter)
    #: the last thing that a provider or the budget gave as a reason
    reason: str = ""

    def document(self) -> dict[str, Any]:
        """The same as plain JSON."""
        plain = {name: value for name, value in vars(self).items() if name not in {"kept", "sanitised"}}
        return {**plain, "kept": dict(self.kept), "sanitised": dict(self.sanitised)}


class ModelBatch:
    """Incidents ``start`` … ``start + count`` of a data set of ``total``, told by the configured model.

    Use it as a context manager and call ``finish`` when the result is safe: until then a journal in the home folder
    keeps what was answered. ``topics`` are learnt from offline incidents unless given.

    Raises:
        ValueError: more incidents than ``MOST``, or a number a question outside 1 to ``MOST_A_QUESTION``.
        journal.BatchBusy: another process works on the same batch.
        llm.client.Misconfigured: the provider cannot be asked.
    """

    def __init__(
        self,
        settings: Settings,
        llm: Llm,
        config: GoldenConfig,
        *,
        seed: int,
        count: int,
        start: int = 0,
        total: int | None = None,
        source: SkeletonSource | None = None,
        a_question: int = A_QUESTION,
        topics: Topics | None = None,
        run_id: str | None = None,
    ) -> None:
        if not 1 <= a_question <= MOST_A_QUESTION:
            raise ValueError(f"{a_question} incidents a question: allowed are 1 to {MOST_A_QUESTION}")
        if not 1 <= count <= MOST:
            raise ValueError(f"{count:,} incidents by a model: allowed are 1 to {MOST:,} in a batch")
        self.tally = Tally()
        self.model_version = f"{llm.provider}/{llm.model or 'default'}"
        self._settings, self._llm, self._config, self._run_id = settings, llm, config, run_id
        self._seed, self._a_question = seed, a_question
        self._slice = (start, count, start + count if total is None else total)
        self._source = source
        self._topics = topics or learn(generate(config, count=_SAMPLE, seed=0, skeletons=source))
        self._salt = f"golden:{config_digest(config)}:{seed}"
        self._people = People.of(llm.people)
        self._seen: set[bytes] = set()
        name = _hash([config_digest(config), seed, self._slice, llm.provider, llm.model, llm.base_url, a_question])
        self._journal = Journal(settings.paths.root / "golden", name[:24])

    def __enter__(self) -> ModelBatch:
        self._journal.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._journal.__exit__(kind, error, trace)

    def finish(self) -> None:
        """The result is safe: forget the journal."""
        self._journal.remove()

    def frames(self) -> Iterator[pl.DataFrame]:
        """Frames of ``record.SCHEMA`` in order of ``opened_at``, with the model's texts where they hold.

        Runs an event loop of its own; call it where none runs.
        """
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            told = self.told()
            try:
                while (frame := runner.run(_next(told))) is not None:
                    yield frame
            finally:
                runner.run(told.aclose())

    async def told(self) -> AsyncGenerator[pl.DataFrame, None]:
        """``frames`` inside a running event loop."""
        size = _PER_SLOT * self._llm.concurrency * self._a_question
        offline = self._offline(size)
        under_way: deque[tuple[pl.DataFrame, list[asyncio.Task[list[_Result]]]]] = deque()
        async with language_model(self._settings, self._llm, run_id=self._run_id) as model:
            try:
                while (piece := await asyncio.to_thread(next, offline, None)) is not None:
                    rows = piece.rows(named=True)
                    batches = [
                        rows[start : start + self._a_question] for start in range(0, len(rows), self._a_question)
                    ]
                    under_way.append((piece, [asyncio.create_task(self._batch(model, batch)) for batch in batches]))
                    if len(under_way) >= _PIECES:
                        yield await self._finished(*under_way.popleft())
                while under_way:
                    yield await self._finished(*under_way.popleft())
            finally:
                tasks = [task for _, entries in under_way for task in entries]
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    def _offline(self, size: int) -> Iterator[pl.DataFrame]:
        """Offline incidents in pieces; they are made in larger ones, which costs less."""
        start, count, total = self._slice
        first = min(size, count)
        chunk = size * max(1, _MADE_AT_ONCE // size)
        # The first ones alone, so that asking begins at once.
        for begin, number in ((start, first), (start + first, count - first)):
            for frame in stream(
                self._config,
                count=number,
                seed=self._seed,
                start=begin,
                total=total,
                chunk=chunk,
                skeletons=self._source,
            ):
                yield from frame.iter_slices(size)

    async def _finished(self, piece: pl.DataFrame, tasks: list[asyncio.Task[list[_Result]]]) -> pl.DataFrame:
        try:
            results = [result for entries in await asyncio.gather(*tasks) for result in entries]
        except BaseException:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise
        # Away from the event loop, which has answers to read meanwhile.
        return await asyncio.to_thread(self._applied, piece, results)

    async def _batch(self, model: LanguageModel, rows: list[dict[str, Any]]) -> list[_Result]:
        """The results of the incidents of one question."""
        asked = [_Incident(row) for row in rows]
        keys = [_hash([_WORDING, self.model_version, incident.facts]) for incident in asked]
        stored = [self._journal.get(key) for key in keys]
        if all(entry is not None for entry in stored):
            self.tally.resumed += len(rows)
            return [_Result(entry["texts"] and _texts(entry["texts"]), entry["reason"]) for entry in stored if entry]
        messages = self._messages(asked)
        results = await self._asked(model, asked, messages)
        for key, result in zip(keys, results, strict=True):
            if result.final:
                self._journal.put(key, {"texts": result.texts and _plain(result.texts), "reason": result.reason})
        return results

    async def _asked(
        self, model: LanguageModel, asked: Sequence[_Incident], messages: Sequence[Message]
    ) -> list[_Result]:
        answer = await model.structured(self._question(asked, messages))
        self._count(answer)
        if answer.degraded:
            return self._kept(answer, len(asked))
        results, wrong = self._judged(asked, answer.value)
        if not wrong:
            return results
        text = "\n".join(f"- {problem}" for problem in wrong[:20])
        again = (
            *messages,
            Message("assistant", answer.value.model_dump_json()),
            Message("user", f"This has to be mended:\n{text}\nGive all texts of all incidents again."),
        )
        second = await model.structured(self._question(asked, again))
        self._count(second)
        if second.degraded:
            better: list[_Result] = self._kept(second, len(asked))
        else:
            better, _ = self._judged(asked, second.value)
        return [
            first if first.texts else _Result(other.texts, other.reason, repaired=bool(other.texts), final=other.final)
            for first, other in zip(results, better, strict=True)
        ]

    def _judged(self, asked: Sequence[_Incident], value: Told) -> tuple[list[_Result], list[str]]:
        """What can be taken of an answer, and what is wrong with the rest."""
        if len(value.incidents) != len(asked):
            text = f"'incidents' needs exactly {len(asked)} entries, not {len(value.incidents)}"
            return [_Result(None, "texts") for _ in asked], [text]
        results, wrong = [], []
        for number, (incident, given) in enumerate(zip(asked, value.incidents, strict=True), 1):
            texts = _stripped(given)
            found = problems(texts, incident.checked, self._topics)
            results.append(_Result(None, "texts") if found else _Result(texts))
            wrong += [f"incident {number}: {problem}" if len(asked) > 1 else problem for problem in found]
        return results, wrong

    def _kept(self, answer: Answer[Told], count: int) -> list[_Result]:
        """Without an answer the offline texts stay; only what was refused for good is not asked again."""
        self.tally.reason = answer.reason or answer.outcome
        reason = "budget" if answer.outcome == "degraded" else "provider"
        final = answer.outcome in {"refused", "filtered", "truncated", "not_json", "wrong_schema", "empty"}
        return [_Result(None, reason, final=final) for _ in range(count)]

    def _count(self, answer: Answer[Told]) -> None:
        tally = self.tally
        tally.questions += 1
        tally.cached += answer.cached
        tally.requests += answer.attempts
        tally.prompt_tokens += answer.prompt_tokens
        tally.completion_tokens += answer.completion_tokens
        tally.cost += answer.cost

    def _messages(self, asked: Sequence[_Incident]) -> list[Message]:
        facts = [incident.facts for incident in asked]
        text = orjson.dumps({"incidents": facts}).decode()
        return [Message("system", _RULES.format(company=self._config.company)), Message("user", text)]

    def _question(self, asked: Sequence[_Incident], messages: Sequence[Message]) -> Question[Told]:
        notes = sum(incident.checked.notes for incident in asked)
        number = int(hashlib.sha256(f"{self._seed}:{asked[0].row['incident_id']}".encode()).hexdigest()[:7], 16)
        return Question(
            purpose=PURPOSE,
            messages=messages,
            schema=Told,
            offline=lambda: Told(incidents=[incident.offline() for incident in asked]),
            temperature=_TEMPERATURE,
            seed=number,
            max_tokens=800 * len(asked) + 200 * notes,
        )

    def _applied(self, piece: pl.DataFrame, results: Sequence[_Result]) -> pl.DataFrame:
        """The piece with the texts that were taken, without personal data, with its confidence computed anew."""
        self._journal.sync()
        rows = piece.select("short_description", "description", "work_notes", "resolution_notes", "model_version").rows(
            named=True
        )
        for row, result in zip(rows, results, strict=True):
            texts, reason = result.texts, result.reason
            if texts is not None:
                same = hashlib.sha256(" ".join(texts.description.casefold().split()).encode()).digest()[:12]
                if same in self._seen:
                    texts, reason = None, "repeated"
                self._seen.add(same)
            if texts is None:
                self.tally.kept[reason] += 1
                row["model_version"] = f"{row['model_version']} for {self.model_version}"
                continue
            self.tally.told += 1
            self.tally.repaired += result.repaired
            written = iter(texts.work_notes)
            row |= {
                "short_description": texts.short_description,
                "description": texts.description,
                "resolution_notes": texts.resolution_notes,
                "work_notes": [
                    entry if entry["author"] in _AUTOMATIC else {**entry, "note": next(written)}
                    for entry in row["work_notes"]
                ],
                "model_version": self.model_version,
            }
        schema = {name: SCHEMA[name] for name in rows[0]} if rows else {}
        clean = sanitised(piece.with_columns(pl.DataFrame(rows, schema=schema)), self._salt, people=self._people)
        self.tally.sanitised.update(clean.finds)
        vocabulary = self._source.vocabulary() if self._source else None
        return clean.frame.with_columns(confidence(clean.frame, self._config, vocabulary))


@dataclass(frozen=True, slots=True)
class _Result:
    """``texts`` that can be taken, or the reason why not; ``final``: asking again would not help."""

    texts: Texts | None
    reason: str = ""
    repaired: bool = False
    final: bool = True


class _Incident:
    """One incident as it is asked for."""

    def __init__(self, row: dict[str, Any]) -> None:
        self.row = row
        self._entries = [entry for entry in row["work_notes"] if entry["author"] not in _AUTOMATIC]
        self.checked = Facts(
            category=row["category"],
            language=row["language"],
            notes=len(self._entries),
            resolved=row["resolution_notes"] is not None,
        )
        self.facts = self._facts()

    def offline(self) -> IncidentTexts:
        """The offline texts in the shape of an answer."""
        row = self.row
        return IncidentTexts(
            short_description=row["short_description"],
            description=row["description"],
            work_notes=[entry["note"] for entry in self._entries],
            resolution_notes=row["resolution_notes"],
        )

    def _facts(self) -> dict[str, Any]:
        row = self.row
        manner = _MANNERS[int(_hash(row["incident_id"])[:8], 16) % len(_MANNERS)]
        given = (
            "incident_id", "category", "subcategory", "business_service", "business_domain", "configuration_item",
            "location", "contact_type", "caller_id", "assignment_group", "assigned_to", "state", "priority",
            "close_code", "reassignment_count", "reopen_count",
        )  # fmt: skip
        return {
            "language": _LANGUAGES.get(row["language"], f"the language with the ISO 639-1 code {row['language']}"),
            "manner": manner if row["caller_id"] not in _AUTOMATIC else "an automatic message of a monitoring system",
            **{name: row[name] for name in given if row[name] is not None},
            "impact": _GRADES.get(row["impact"], str(row["impact"])),
            "urgency": _GRADES.get(row["urgency"], str(row["urgency"])),
            "opened_at": _minute(row["opened_at"]),
            "report_outline": [row["short_description"], row["description"]],
            "entries": [
                {
                    "at": _minute(entry["written_at"]),
                    "author": entry["author"],
                    "role": "caller" if entry["author"] == row["caller_id"] else "technician",
                    "outline": entry["note"],
                }
                for entry in self._entries
            ],
            "resolution_outline": row["resolution_notes"],
        }


def _minute(at: Any) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"


def _stripped(given: IncidentTexts) -> Texts:
    return Texts(
        given.short_description.strip().rstrip("."),
        given.description.strip(),
        tuple(note.strip() for note in given.work_notes),
        (given.resolution_notes or "").strip() or None,
    )


def _plain(texts: Texts) -> list[Any]:
    return [texts.short_description, texts.description, list(texts.work_notes), texts.resolution_notes]


def _texts(stored: list[Any]) -> Texts:
    return Texts(stored[0], stored[1], tuple(stored[2]), stored[3])


def _hash(value: object) -> str:
    return hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).hexdigest()


async def _next(frames: AsyncIterator[pl.DataFrame]) -> pl.DataFrame | None:
    return await anext(frames, None)
