"""Tickets told: skeletons become records, whose fields and texts come from one life.

What belongs here: putting together who acts, what happened and what was said. What does not: events (``lifecycle``),
texts (``scene``, ``entries``), the score (``confidence``). A ticket's cause, its analysis, its resolution and the code
with which it is closed come from one draw, so that entries and fields tell one story.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cached_property

import numpy as np
import polars as pl
import xxhash

from aiops_assets.synthetic.golden import lifecycle
from aiops_assets.synthetic.golden.calendars import Calendars, calendars
from aiops_assets.synthetic.golden.config import LANGUAGES, GoldenConfig
from aiops_assets.synthetic.golden.draws import Draws, Ints, named
from aiops_assets.synthetic.golden.entries import Crew, Entries
from aiops_assets.synthetic.golden.grammar import MACHINE, MONITORED, STYLES, Grammar, how_reported
from aiops_assets.synthetic.golden.lifecycle import Life, instants
from aiops_assets.synthetic.golden.population import MONITORING, Population, population
from aiops_assets.synthetic.golden.record import SCHEMA, STATES
from aiops_assets.synthetic.golden.scene import Scene, Voices
from aiops_assets.synthetic.golden.skeleton import NOBODY, Vocabulary

#: changes when the same seed and configuration would give other records
MODEL_VERSION = "aiops-golden-offline/1"
_SYSTEM = "system"
_SEPARATOR = "\x1f"
#: technicians of a group that the configuration does not know
_STRANGERS = 6


class Telling:
    """Tells skeletons of one source by one configuration."""

    def __init__(self, config: GoldenConfig, vocabulary: Vocabulary) -> None:
        self.config = config
        self.vocabulary = vocabulary
        self.grammar = Grammar(config)
        self._known_calendars: dict[int, Calendars] = {}

    @cached_property
    def _population(self) -> Population:
        return population(self.config)

    def _calendars(self, opened: pl.Series) -> Calendars:
        """Calendars that reach back to the year of the first opening: a source may lie before the configured period."""
        years = opened.dt.year()
        year = min(int(years.to_numpy().min()), self.config.start.year)
        if year not in self._known_calendars:
            begin = min(self.config.start, datetime(year, 1, 1, tzinfo=UTC))
            self._known_calendars[year] = calendars(self.config.locations, begin, self.config.seen_at)
        return self._known_calendars[year]

    @cached_property
    def _desk(self) -> int:
        """Position of the service desk among the groups of the vocabulary, -1 where there is none."""
        groups = self.vocabulary.groups
        return next((groups.index(g.name) for g in self.config.groups if g.level == 1 and g.name in groups), -1)

    @cached_property
    def _crew(self) -> Crew:
        people, config = self._population, self.config
        position = {group.name: number for number, group in enumerate(config.groups)}
        handles = people.handles.to_list()
        first, size = [], []
        for name in (*self.vocabulary.groups, _SYSTEM):
            known = position.get(name)
            first.append(len(handles) if known is None else int(people.group_first[known]))
            size.append(_STRANGERS if known is None else int(people.group_size[known]))
            if known is None:
                handles += [f"tech.{named(member, name) % 9_000 + 1_000}" for member in range(_STRANGERS)]
        return Crew(
            handles=pl.Series([*handles, MONITORING, _SYSTEM]),
            first=np.array(first),
            size=np.array(size),
            groups=pl.Series([*self.vocabulary.groups, None], dtype=pl.String),
            desk=self._desk if self._desk >= 0 else len(self.vocabulary.groups),
        )

    def told(self, frame: pl.DataFrame, seed: int) -> pl.DataFrame:
        """Records (``record.SCHEMA``, the score still 0) of skeletons (``SKELETON_SCHEMA``).

        Raises:
            ValueError: an assignment group is not in the vocabulary of the source, or a ticket is opened after the
                instant at which it is to be seen.
        """
        if frame.is_empty():
            return pl.DataFrame(schema=SCHEMA)
        last = frame["opened_at"].max()
        if isinstance(last, datetime) and last > self.config.seen_at:
            raise ValueError(f"opened_at: {last} is later than 'as_of', {self.config.seen_at}; set a later 'as_of'")
        draws, crew = Draws(seed, frame["index"].to_numpy()), self._crew
        place = np.maximum(codes(frame["location"], [entry.name for entry in self.config.locations]), 0)
        group = self._groups(frame["assignment_group"])
        voices = self._voices(frame, draws)
        people = lifecycle.People(
            groups=len(self.vocabulary.groups),
            desk=self._desk,
            by_desk=group == self._desk,
            final=group,
            monitoring=voices.machine,
        )
        life = lifecycle.live(frame, draws, self.config, self._calendars(frame["opened_at"]), place, people)
        scene = Scene(self.config, self.grammar, frame, draws, life, voices, place, self._subjects(frame))
        short, description = scene.report()
        nobody = (frame["assigned_to"] == NOBODY).fill_null(False)
        assignee = frame["assigned_to"].set(nobody, None)
        if assignee.null_count():
            assignee = assignee.fill_null(crew.handles.gather(crew.member(draws, group)))
        entries = Entries(scene, crew, assignee)
        resolution, close_code = scene.resolution()
        assigned_to, assignment_group = self._holders(life, assignee, nobody, entries)
        made = frame.select(
            "category",
            "subcategory",
            "priority",
            "urgency",
            "impact",
            "caller_id",
            "contact_type",
            "location",
            "opened_at",
            "configuration_item",
            "business_service",
            "business_domain",
            incident_id=pl.lit(self.config.prefix) + (pl.col("index") + 1).cast(pl.String).str.zfill(7),
            short_description=short,
            description=description,
            state=pl.Series(STATES).gather(life.state),
            assigned_to=assigned_to,
            assignment_group=assignment_group,
            first_response_at=instants(life.responded),
            resolved_at=instants(life.resolved),
            reopened_at=instants(life.reopened),
            closed_at=instants(life.closed),
            work_notes=entries.told(),
            resolution_notes=resolution,
            close_code=close_code,
            reassignment_count=pl.Series(life.moves),
            reopen_count=pl.Series(life.reopenings),
            update_count=pl.Series(life.updates),
            response_due_at=instants(life.response_due),
            resolution_due_at=instants(life.resolution_due),
            made_sla=pl.Series(life.made_sla),
            language=pl.Series(LANGUAGES).gather(voices.language),
            ai_confidence_score=pl.lit(0.0),
            generation_timestamp=pl.lit(self.config.seen_at),
            model_version=pl.lit(MODEL_VERSION),
        )
        return made.select(pl.col(name).cast(dtype) for name, dtype in SCHEMA.items())

    def _groups(self, names: pl.Series) -> Ints:
        made = codes(names, self.vocabulary.groups)
        if (made < 0).any():
            unknown = names.gather(np.flatnonzero(made < 0)[:1]).to_list()[0]
            raise ValueError(f"assignment_group: {unknown!r} is not among the groups of the source's vocabulary")
        return made

    def _subjects(self, frame: pl.DataFrame) -> Ints:
        pairs = frame.select(pl.concat_str("category", "subcategory", separator=_SEPARATOR)).to_series()
        made = codes(pairs, [_SEPARATOR.join(pair) for pair in self.grammar.subjects])
        return np.where(made < 0, self.grammar.generic, made)

    def _voices(self, frame: pl.DataFrame, draws: Draws) -> Voices:
        """Callers of the configuration are as it says; of others, each resembles one of them by his name."""
        people, personas = self._population, self.config.personas
        contacts = frame["contact_type"].unique(maintain_order=True).to_list()
        mode = codes(frame["contact_type"], contacts, [how_reported(name) for name in contacts])
        machine = mode == MONITORED
        caller = codes(frame["caller_id"], people.handles.head(people.callers).to_list())
        strange = np.flatnonzero((caller < 0) & ~machine)
        if len(strange):
            names = frame["caller_id"].gather(strange)
            different = names.unique(maintain_order=True).to_list()
            like = [xxhash.xxh3_64_intdigest(name.encode()) % people.callers for name in different]
            caller[strange] = codes(names, different, like)
        # What monitoring reports concerns some department all the same.
        caller = np.where(caller < 0, draws.below("department", people.callers), caller)
        levels = np.array([STYLES.index(persona.technical_level) for persona in personas])
        departments = pl.Series([name for persona in personas for name in persona.departments])
        before = np.cumsum([0, *(len(persona.departments) for persona in personas)])
        return Voices(
            language=np.where(machine, 0, people.language[caller]),
            style=np.where(machine, MACHINE, levels[people.persona[caller]]),
            mode=mode,
            department=departments.gather(before[people.persona[caller]] + people.department[caller]),
        )

    def _holders(
        self, life: Life, assignee: pl.Series, nobody: pl.Series, entries: Entries
    ) -> tuple[pl.Series, pl.Series]:
        """(assigned to, assignment group) at the instant at which tickets are seen."""
        crew, group = self._crew, life.group
        untouched = (life.state == 0) & (life.events.counts == 1) & (group != self._desk)
        names = crew.groups.gather(np.where(untouched, len(self.vocabulary.groups), group))
        passing = life.moves < life.all_moves
        rows = np.arange(len(group))
        other = crew.handles.gather(crew.member(entries.address(rows, life.moves), group))
        holder = (
            pl.when(pl.Series(life.state == 0) | nobody)
            .then(pl.lit(None, pl.String))
            .when(pl.Series(passing))
            .then(pl.lit(other))
            .otherwise(pl.lit(assignee))
        )
        return pl.select(holder).to_series(), names


def codes(values: pl.Series, names: Sequence[str], numbers: Sequence[int] | None = None) -> Ints:
    """The number (by default the position) of each value among names, -1 where it is none of them."""
    wanted = list(range(len(names))) if numbers is None else list(numbers)
    return values.replace_strict(list(names), wanted, default=-1, return_dtype=pl.Int64).to_numpy().copy()
