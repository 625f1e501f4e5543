"""The tables of the operations database.

Every instant is a 64-bit integer of microseconds since the Unix epoch (UTC), the same on SQLite and Postgres; it
becomes a ``datetime`` only at the edges. JSON is stored as text in canonical form, because it is read whole and never
queried. A change here needs a migration beside it (``migrations/versions``); a test compares the two.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

#: SQLite numbers rows by itself only for its own INTEGER type
_RowNumber = BigInteger().with_variant(Integer, "sqlite")


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class IncidentRow(Base):
    """One incident and its present state; ``assessment`` (JSON) holds reasons, causes, changes, related incidents."""

    __tablename__ = "incidents"
    __table_args__ = (
        Index(None, "state", "priority", "last_symptom_at"),
        Index(None, "last_symptom_at"),
        Index(None, "change_number"),
    )

    incident_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    title: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(String(16))
    priority: Mapped[int] = mapped_column(Integer)
    impact: Mapped[int] = mapped_column(Integer)
    urgency: Mapped[int] = mapped_column(Integer)
    assignee: Mapped[str | None] = mapped_column(Text)
    #: start of the earliest symptom (event time)
    started_at: Mapped[int] = mapped_column(BigInteger)
    #: start of the newest symptom (event time)
    last_symptom_at: Mapped[int] = mapped_column(BigInteger)
    #: when the last member alert ended (event time); null while one fires
    ended_at: Mapped[int | None] = mapped_column(BigInteger)
    opened_at: Mapped[int] = mapped_column(BigInteger)
    #: first acknowledgement
    acknowledged_at: Mapped[int | None] = mapped_column(BigInteger)
    #: last resolution; null while not resolved
    resolved_at: Mapped[int | None] = mapped_column(BigInteger)
    resolved_by: Mapped[str | None] = mapped_column(Text)
    #: why it is resolved, in words; null while it is not
    resolution: Mapped[str | None] = mapped_column(Text)
    #: the highest priority (lowest number) at which somebody was paged since it last began; null: nobody was
    paged_priority: Mapped[int | None] = mapped_column(Integer)
    #: the incident that took over the members of this one
    merged_into: Mapped[str | None] = mapped_column(String(32), ForeignKey("incidents.incident_id"))
    #: a person acted on it, so it is never merged away
    touched: Mapped[bool] = mapped_column(Boolean)
    #: a person reopened it, so it does not resolve itself until a new alert joins
    held_open: Mapped[bool] = mapped_column(Boolean)
    assessment: Mapped[str] = mapped_column(Text)
    updated_at: Mapped[int] = mapped_column(BigInteger)
    #: the value of the change counter when this row last changed
    change_number: Mapped[int] = mapped_column(BigInteger)


class IncidentAlertRow(Base):
    """The newest revision of an alert, and the incident it belongs to (null: none, as for most suppressed ones)."""

    __tablename__ = "incident_alerts"
    __table_args__ = (
        Index(None, "incident_id"),
        Index(None, "activity_at"),
        Index(None, "starts_at"),
        Index(None, "series_id"),
        Index(None, "host"),
    )

    alert_id: Mapped[str] = mapped_column(String(255), primary_key=True)
    revision: Mapped[int] = mapped_column(Integer)
    incident_id: Mapped[str | None] = mapped_column(String(32), ForeignKey("incidents.incident_id"))
    #: how it came to the incident: opened, same_series, same_host, dependency, change, service or label
    link: Mapped[str | None] = mapped_column(String(16))
    link_text: Mapped[str | None] = mapped_column(Text)
    #: how many steps of the dependency graph lie between it and the alert that opened the incident
    hops: Mapped[int] = mapped_column(Integer)
    fingerprint: Mapped[str] = mapped_column(Text)
    kind: Mapped[str] = mapped_column(String(32))
    name: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(String(16))
    severity_number: Mapped[int] = mapped_column(Integer)
    host: Mapped[str] = mapped_column(Text)
    metric: Mapped[str | None] = mapped_column(Text)
    series_id: Mapped[int | None] = mapped_column(BigInteger)
    labels: Mapped[str] = mapped_column(Text)
    starts_at: Mapped[int] = mapped_column(BigInteger)
    ends_at: Mapped[int | None] = mapped_column(BigInteger)
    changed_at: Mapped[int] = mapped_column(BigInteger)
    title: Mapped[str] = mapped_column(Text)
    value: Mapped[float | None] = mapped_column(Float)
    threshold: Mapped[float | None] = mapped_column(Float)
    evidence: Mapped[str] = mapped_column(Text)
    suppressed_by: Mapped[str | None] = mapped_column(Text)
    amended_by: Mapped[str | None] = mapped_column(Text)
    #: the later of start and end, by which correlation finds alerts nearby
    activity_at: Mapped[int] = mapped_column(BigInteger)


class IncidentEventRow(Base):
    """The timeline of an incident: who did what, when."""

    __tablename__ = "incident_events"
    __table_args__ = (Index(None, "incident_id", "event_id"),)

    event_id: Mapped[int] = mapped_column(_RowNumber, primary_key=True, autoincrement=True)
    incident_id: Mapped[str] = mapped_column(String(32), ForeignKey("incidents.incident_id"))
    at: Mapped[int] = mapped_column(BigInteger)
    who: Mapped[str] = mapped_column(Text)
    kind: Mapped[str] = mapped_column(String(32))
    text: Mapped[str] = mapped_column(Text)
    details: Mapped[str] = mapped_column(Text)


class AlertAmendmentRow(Base):
    """What an amendment said of an alert, once a revision; ``hour`` is the one that was derived again."""

    __tablename__ = "alert_amendments"
    __table_args__ = (Index(None, "hour"),)

    alert_id: Mapped[str] = mapped_column(String(255), primary_key=True)
    revision: Mapped[int] = mapped_column(Integer, primary_key=True)
    hour: Mapped[str] = mapped_column(String(13))
    #: found, corrected, withdrawn or restored
    kind: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str] = mapped_column(Text)
    at: Mapped[int] = mapped_column(BigInteger)


class IncidentPageRow(Base):
    """A moment at which somebody is paged (``incidents.paging``); whoever sends pages takes them from here."""

    __tablename__ = "incident_pages"
    __table_args__ = (Index(None, "at"), Index(None, "incident_id"))

    page_id: Mapped[int] = mapped_column(_RowNumber, primary_key=True, autoincrement=True)
    incident_id: Mapped[str] = mapped_column(String(32), ForeignKey("incidents.incident_id"))
    at: Mapped[int] = mapped_column(BigInteger)
    priority: Mapped[int] = mapped_column(Integer)
    #: opened, reopened or raised
    reason: Mapped[str] = mapped_column(String(16))


class SilenceRow(Base):
    """A silence that a person set: alerts that match are recorded as suppressed, with this reason."""

    __tablename__ = "silences"
    __table_args__ = (Index(None, "ends_at"),)

    silence_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    #: patterns with '*'
    host: Mapped[str] = mapped_column(Text)
    rule: Mapped[str] = mapped_column(Text)
    #: label → pattern, canonical JSON
    labels: Mapped[str] = mapped_column(Text)
    starts_at: Mapped[int] = mapped_column(BigInteger)
    ends_at: Mapped[int] = mapped_column(BigInteger)
    author: Mapped[str] = mapped_column(Text)
    reason: Mapped[str] = mapped_column(Text)
    created_at: Mapped[int] = mapped_column(BigInteger)
    expired_at: Mapped[int | None] = mapped_column(BigInteger)
    expired_by: Mapped[str | None] = mapped_column(Text)


class AuditRow(Base):
    """Everything that a person (or a key) did, in order; rows are only ever added."""

    __tablename__ = "audit"
    __table_args__ = (Index(None, "target"),)

    audit_id: Mapped[int] = mapped_column(_RowNumber, primary_key=True, autoincrement=True)
    at: Mapped[int] = mapped_column(BigInteger)
    who: Mapped[str] = mapped_column(Text)
    action: Mapped[str] = mapped_column(String(64))
    target: Mapped[str] = mapped_column(Text)
    details: Mapped[str] = mapped_column(Text)


class LeaseRow(Base):
    """A lease across hosts. The row stays when nobody holds it, so that ``token`` only ever grows."""

    __tablename__ = "leases"

    name: Mapped[str] = mapped_column(String(255), primary_key=True)
    owner: Mapped[str | None] = mapped_column(Text)
    token: Mapped[int] = mapped_column(BigInteger)
    expires_at: Mapped[int] = mapped_column(BigInteger)


class CounterRow(Base):
    """Counters that order transactions; ``changes`` grows by one with every transaction that changes something."""

    __tablename__ = "counters"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    value: Mapped[int] = mapped_column(BigInteger)


class ChampionMoveRow(Base):
    """Every move of a champion pointer, in order; rows are only ever added.

    ``sequence`` counts the moves of one thing from 1: of two that move it at once, one finds its number taken.
    """

    __tablename__ = "champion_moves"
    __table_args__ = (UniqueConstraint("thing", "sequence"), Index(None, "thing", "at"))

    move_id: Mapped[int] = mapped_column(_RowNumber, primary_key=True, autoincrement=True)
    thing: Mapped[str] = mapped_column(String(128))
    sequence: Mapped[int] = mapped_column(Integer)
    #: what serves from now on; null: nothing does
    version: Mapped[str | None] = mapped_column(String(64))
    #: what served before; of a revocation the version that was revoked
    previous: Mapped[str | None] = mapped_column(String(64))
    at: Mapped[int] = mapped_column(BigInteger)
    who: Mapped[str] = mapped_column(Text)
    #: promoted, overridden, rolled_back, revoked or restored
    how: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str] = mapped_column(Text)
    run_id: Mapped[str | None] = mapped_column(String(64))


class LlmSpendRow(Base):
    """What calls of language models have used on one day (UTC) for one purpose; the budget is held against it."""

    __tablename__ = "llm_spend"

    day: Mapped[str] = mapped_column(String(10), primary_key=True)
    purpose: Mapped[str] = mapped_column(String(64), primary_key=True)
    calls: Mapped[int] = mapped_column(BigInteger)
    prompt_tokens: Mapped[int] = mapped_column(BigInteger)
    completion_tokens: Mapped[int] = mapped_column(BigInteger)
    #: spent and reserved by calls under way, in millionths of the currency of the prices
    cost_micros: Mapped[int] = mapped_column(BigInteger)


INCIDENTS: Table = Base.metadata.tables["incidents"]
INCIDENT_ALERTS: Table = Base.metadata.tables["incident_alerts"]
INCIDENT_EVENTS: Table = Base.metadata.tables["incident_events"]
ALERT_AMENDMENTS: Table = Base.metadata.tables["alert_amendments"]
INCIDENT_PAGES: Table = Base.metadata.tables["incident_pages"]
SILENCES: Table = Base.metadata.tables["silences"]
AUDIT: Table = Base.metadata.tables["audit"]
LEASES: Table = Base.metadata.tables["leases"]
COUNTERS: Table = Base.metadata.tables["counters"]
CHAMPION_MOVES: Table = Base.metadata.tables["champion_moves"]
LLM_SPEND: Table = Base.metadata.tables["llm_spend"]
