"""The canonical tables: the one source for Delta schemas, Dagster column metadata, checks and documentation.

What belongs here: names, types, units, keys, owners and descriptions of tables. What does not: how rows come about
(the domain rooms) and how they are stored (``lake``). All timestamps are UTC with microsecond precision; names follow
OpenTelemetry semantic conventions where one exists.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import polars as pl

TIMESTAMP = pl.Datetime("us", "UTC")
PLATFORM = "team:platform"
OPERATIONS = "team:operations"


@dataclass(frozen=True, slots=True)
class Column:
    """One column: ``unit`` is a UCUM code or ``None``; ``nullable`` says whether nulls are legal."""

    name: str
    dtype: pl.DataType
    description: str
    unit: str | None = None
    nullable: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """A canonical table. ``partition`` names the partition column's grain; ``key`` identifies a row."""

    name: str
    description: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]
    partition: Literal["hour", "day", None] = None
    owner: str = PLATFORM
    schema_version: int = 1
    #: event-time column from which the partition is derived
    time_column: str = "ts"
    #: whether every row lies in the partition of its own time; else in that of the hour that decided about it
    placed_by_time: bool = True
    #: columns by which compaction sorts, so that equal values lie together
    sort: tuple[str, ...] = field(default=())

    @property
    def schema(self) -> dict[str, pl.DataType]:
        """Column name → polars dtype, partition column included and last."""
        schema = {column.name: column.dtype for column in self.columns}
        if self.partition:
            schema[self.partition] = pl.String()
        return schema

    def empty(self) -> pl.DataFrame:
        """A frame without rows and with the table's schema."""
        return pl.DataFrame(schema=self.schema)


_POSITION = (
    Column("received_at", TIMESTAMP, "when the delivery was accepted"),
    Column("writer", pl.String(), "ingest position: the landing writer"),
    Column("seq", pl.Int64(), "ingest position: the writer's segment number"),
)

METRIC_POINTS = Table(
    "metric_points",
    "Every accepted measurement, one row a point, in the hour of its own timestamp.",
    key=("series_id", "ts"),
    partition="hour",
    sort=("series_id", "ts"),
    columns=(
        Column("ts", TIMESTAMP, "event time of the measurement"),
        Column("series_id", pl.Int64(), "hash of host, metric and labels (bits of an unsigned 64-bit hash)"),
        Column("value", pl.Float64(), "the measurement in the unit of its metric"),
        Column("host", pl.String(), "the host, device or service that was measured"),
        Column("metric", pl.String(), "OpenTelemetry metric name where one exists, else the sender's own"),
        Column("unit", pl.String(), "UCUM unit, empty when unknown", nullable=True),
        Column("source", pl.String(), "the source that delivered it"),
        *_POSITION,
    ),
)

SERIES = Table(
    "series",
    "The dictionary of series: what each series_id stands for.",
    key=("series_id",),
    columns=(
        Column("series_id", pl.Int64(), "hash of host, metric and labels"),
        Column("host", pl.String(), "the host, device or service that is measured"),
        Column("metric", pl.String(), "metric name"),
        Column("unit", pl.String(), "UCUM unit, empty when unknown", nullable=True),
        Column("labels", pl.String(), "labels as canonical JSON: sorted keys, string values"),
        Column("kind", pl.String(), "gauge, rate, counter or ratio"),
        Column("source", pl.String(), "the source that first delivered it"),
        Column("first_seen", TIMESTAMP, "event time of the first point stored"),
    ),
)

BASELINES = Table(
    "baselines",
    "Mergeable statistics of one series in one closed hour.",
    key=("series_id", "hour", "baseline_version"),
    partition="hour",
    time_column="hour_start",
    sort=("series_id",),
    columns=(
        Column("series_id", pl.Int64(), "the series"),
        Column("hour_start", TIMESTAMP, "first instant of the hour"),
        Column("baseline_version", pl.Int32(), "1 at closing, higher after late data"),
        Column("count", pl.Int64(), "points in the hour"),
        Column("mean", pl.Float64(), "arithmetic mean"),
        Column("m2", pl.Float64(), "sum of squared deviations from the mean"),
        Column("min", pl.Float64(), "smallest value"),
        Column("max", pl.Float64(), "largest value"),
        Column(
            "quantiles",
            pl.List(pl.Float64()),
            "values at the probabilities 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99 (linear interpolation)",
        ),
    ),
)

ENTITIES = Table(
    "entities",
    "Hosts, services and devices, discovered or declared, and what they depend on.",
    key=("entity_id",),
    owner=OPERATIONS,
    columns=(
        Column("entity_id", pl.String(), "stable name, for example host:web-1"),
        Column("kind", pl.String(), "host, service or device"),
        Column("name", pl.String(), "name as senders write it"),
        Column("site", pl.String(), "where it stands", nullable=True),
        Column("owner", pl.String(), "who answers for it", nullable=True),
        Column("labels", pl.String(), "labels as canonical JSON"),
        Column("depends_on", pl.List(pl.String()), "entity_ids it needs"),
        Column("origin", pl.String(), "declared (aiops.yaml) or discovered (from telemetry)"),
        Column("first_seen", TIMESTAMP, "when it was first known"),
    ),
)

CHANGES = Table(
    "changes",
    "Deploys, configuration changes, device reboots and firmware updates.",
    key=("change_id",),
    partition="day",
    owner=OPERATIONS,
    columns=(
        Column("change_id", pl.String(), "deterministic: hash of host, kind, time and title"),
        Column("ts", TIMESTAMP, "when the change took effect"),
        Column("kind", pl.String(), "deploy, config, reboot, firmware or other"),
        Column("host", pl.String(), "the host or device that changed"),
        Column("service", pl.String(), "the service that changed", nullable=True),
        Column("title", pl.String(), "one line for people"),
        Column("actor", pl.String(), "who or what made it", nullable=True),
        Column("details", pl.String(), "the original fields as JSON"),
        Column("source", pl.String(), "the source that delivered it"),
        *_POSITION,
    ),
)

MAINTENANCE = Table(
    "maintenance",
    "Maintenance windows and silences, with who set them and why.",
    key=("window_id",),
    owner=OPERATIONS,
    columns=(
        Column("window_id", pl.String(), "stable identifier"),
        Column("kind", pl.String(), "window (aiops.yaml) or silence (set by a person)"),
        Column("matchers", pl.String(), "label matchers as canonical JSON"),
        Column("starts_at", TIMESTAMP, "from"),
        Column("ends_at", TIMESTAMP, "to"),
        Column("author", pl.String(), "who set it"),
        Column("reason", pl.String(), "why"),
    ),
)

ANOMALIES = Table(
    "anomalies",
    "Points that a statistical detector found unusual, with the evidence.",
    key=("series_id", "ts"),
    partition="hour",
    sort=("series_id", "ts"),
    columns=(
        Column("ts", TIMESTAMP, "event time of the unusual point"),
        Column("series_id", pl.Int64(), "the series"),
        Column("host", pl.String(), "the host"),
        Column("metric", pl.String(), "the metric"),
        Column("value", pl.Float64(), "the value seen"),
        Column("expected", pl.Float64(), "the centre of what was expected", nullable=True),
        Column("lower", pl.Float64(), "lower edge of the expected band", nullable=True),
        Column("upper", pl.Float64(), "upper edge of the expected band", nullable=True),
        Column("score", pl.Float64(), "0 (ordinary) to 1 (certain)"),
        Column("detector", pl.String(), "what found it: robust_z, spike, level_shift, flatline …"),
        Column("detector_version", pl.String(), "version of the detector's code and parameters"),
        Column("evidence", pl.String(), "the numbers behind the score, as JSON"),
        Column("opens_event", pl.Boolean(), "true on the row that starts an event"),
        *_POSITION,
    ),
)

ALERTS = Table(
    "alerts",
    "Every state an alert went through; the highest revision of an alert_id is its present state.",
    key=("alert_id", "revision"),
    partition="hour",
    time_column="starts_at",
    owner=OPERATIONS,
    columns=(
        Column("alert_id", pl.String(), "deterministic: hash of fingerprint and starts_at"),
        Column("revision", pl.Int32(), "0 when it fires, then one more for each change"),
        Column("fingerprint", pl.String(), "what the alert is about: kind, name and series"),
        Column("kind", pl.String(), "rule, anomaly, absence or external"),
        Column("name", pl.String(), "the rule or detector"),
        Column("state", pl.String(), "firing, resolved, suppressed or withdrawn"),
        Column("severity_number", pl.Int32(), "OpenTelemetry severity 1 to 24"),
        Column("host", pl.String(), "the host"),
        Column("metric", pl.String(), "the metric", nullable=True),
        Column("series_id", pl.Int64(), "the series", nullable=True),
        Column("labels", pl.String(), "labels as canonical JSON"),
        Column("starts_at", TIMESTAMP, "event time of the first bad point"),
        Column("ends_at", TIMESTAMP, "event time of the recovery", nullable=True),
        Column("changed_at", TIMESTAMP, "event time at which this revision was decided"),
        Column("title", pl.String(), "one line for people"),
        Column("value", pl.Float64(), "the value that decided", nullable=True),
        Column("threshold", pl.Float64(), "the limit it was compared with", nullable=True),
        Column("evidence", pl.String(), "the numbers behind the decision, as JSON"),
        Column("suppressed_by", pl.String(), "window_id and reason when suppressed", nullable=True),
        Column("amended_by", pl.String(), "why a later revision corrected it", nullable=True),
        *_POSITION,
    ),
)

ALERT_DECISIONS = Table(
    "alert_decisions",
    "What closed hours decide about alerts, as derived from their pinned inputs and without regard to silences.",
    key=("alert_id", "revision", "receipt_revision"),
    partition="hour",
    time_column="changed_at",
    placed_by_time=False,
    owner=OPERATIONS,
    sort=("receipt_revision", "changed_at", "alert_id", "revision"),
    columns=(
        Column("receipt_revision", pl.Int32(), "the revision of the hour's receipt that this belongs to"),
        *(column for column in ALERTS.columns if column.name not in {"suppressed_by", "amended_by"}),
    ),
)

HOUR_RECEIPTS = Table(
    "hour_receipts",
    "What every closed hour was derived from and what came out: enough to derive it again and compare.",
    key=("table", "hour", "revision"),
    partition="hour",
    time_column="hour_start",
    columns=(
        Column("table", pl.String(), "the table whose hour was closed: metric_points"),
        Column("hour_start", TIMESTAMP, "first instant of the hour"),
        Column("revision", pl.Int32(), "1 at closing, one more for each amendment"),
        Column("reason", pl.String(), "closed, late rows, backfill, restated, rows removed"),
        Column("derived_at", TIMESTAMP, "wall-clock time of the derivation"),
        Column("rows", pl.Int64(), "rows of the hour that it was derived from"),
        Column("late_rows", pl.Int64(), "rows among them that no earlier revision had (0 at closing)"),
        Column("positions", pl.String(), "ingest positions up to which rows counted: JSON, writer to segment"),
        Column("input_hash", pl.String(), "hash of those rows"),
        Column(
            "config", pl.String(), "JSON: [[from event time in microseconds or null, digest in config_versions], …]"
        ),
        Column("baselines", pl.String(), "JSON: [[hour, version replaced or null, version], …] learnt at its start"),
        Column("state_in", pl.String(), "JSON: hours and revisions whose final state was handed over"),
        Column("state_in_hash", pl.String(), "hash of the detector state at the start of the hour"),
        Column("state_out_hash", pl.String(), "hash of the detector state at its end"),
        Column("baseline_version", pl.Int32(), "version of the baselines that closing it computed"),
        Column("baseline_hash", pl.String(), "hash of those baselines"),
        Column("anomalies", pl.Int64(), "rows of anomalies in the hour"),
        Column("anomalies_hash", pl.String(), "hash of those rows"),
        Column("decisions", pl.Int64(), "rows of alert_decisions in the hour"),
        Column("decisions_hash", pl.String(), "hash of those rows"),
        Column("raised", pl.Int64(), "alerts that an amendment added"),
        Column("amended", pl.Int64(), "alerts that it corrected"),
        Column("withdrawn", pl.Int64(), "alerts that it withdrew"),
        Column("windows", pl.String(), "JSON: maintenance windows and silences known then"),
        Column("detector_version", pl.String(), "version of the detector"),
        Column("code_version", pl.String(), "hash of the platform's code"),
        Column("libraries", pl.String(), "JSON: versions of Python and of the libraries that compute"),
    ),
)

CONFIG_VERSIONS = Table(
    "config_versions",
    "Every version of the rules and detector settings that judged an hour.",
    key=("config_digest",),
    owner=OPERATIONS,
    columns=(
        Column("config_digest", pl.String(), "hash of the document"),
        Column("document", pl.String(), "rules and settings as canonical JSON"),
        Column("first_used", TIMESTAMP, "when it was first in force"),
    ),
)

INCIDENTS = Table(
    "incidents",
    "Daily snapshot of the incidents in the operations database.",
    key=("incident_id",),
    partition="day",
    schema_version=2,
    time_column="snapshot_at",
    owner=OPERATIONS,
    columns=(
        Column("snapshot_at", TIMESTAMP, "when the snapshot was taken"),
        Column("incident_id", pl.String(), "deterministic: derived from the alert that opened it"),
        Column("title", pl.String(), "one line for people"),
        Column("state", pl.String(), "open, acknowledged, resolved or reopened"),
        Column("priority", pl.Int32(), "1 (highest) to 5, from impact and urgency"),
        Column("impact", pl.Int32(), "1 (widest) to 3"),
        Column("urgency", pl.Int32(), "1 (most urgent) to 3"),
        Column("assignee", pl.String(), "who works on it", nullable=True),
        Column("hosts", pl.List(pl.String()), "hosts involved"),
        Column("alert_ids", pl.List(pl.String()), "member alerts"),
        Column("started_at", TIMESTAMP, "start of the earliest symptom"),
        Column("opened_at", TIMESTAMP, "when the platform opened it"),
        Column("acknowledged_at", TIMESTAMP, "first acknowledgement", nullable=True),
        Column("resolved_at", TIMESTAMP, "last resolution", nullable=True),
        Column("resolved_by", pl.String(), "who resolved it last; aiops when it resolved itself", nullable=True),
        Column("first_resolved_at", TIMESTAMP, "first resolution, kept when it was reopened", nullable=True),
        Column("reopened", pl.Int32(), "how often it was reopened, by a person or by a new alert", nullable=True),
        Column("merged_into", pl.String(), "the incident that took over its alerts", nullable=True),
        Column("alerts", pl.Int32(), "member alerts that count: neither suppressed nor withdrawn", nullable=True),
        Column("suppressed_alerts", pl.Int32(), "member alerts that a window or silence suppressed", nullable=True),
        Column("withdrawn_alerts", pl.Int32(), "member alerts that an amendment withdrew", nullable=True),
        Column("withdrawn_because", pl.String(), "why all of them were withdrawn, and it with them", nullable=True),
        Column("kinds", pl.List(pl.String()), "kinds of the alerts that count, sorted", nullable=True),
        Column("ended_at", TIMESTAMP, "event time at which the last member alert ended", nullable=True),
        Column("updated_at", TIMESTAMP, "when anything about it last changed", nullable=True),
    ),
)

LOG_EVENTS = Table(
    "log_events",
    "Every log line and event, one row each, in the hour of its own timestamp.",
    key=("source", "event_id"),
    partition="hour",
    sort=("host", "app", "ts", "event_id"),
    columns=(
        Column("event_id", pl.String(), "the sender's own identifier, else derived from the delivery"),
        Column("ts", TIMESTAMP, "when it happened, else when it was accepted"),
        Column("host", pl.String(), "the host, device or service that wrote it"),
        Column("app", pl.String(), "program, service or logger", nullable=True),
        Column("pid", pl.Int64(), "process identifier", nullable=True),
        Column("severity_number", pl.Int32(), "OpenTelemetry severity 1 to 24", nullable=True),
        Column("body", pl.String(), "the message as it was written"),
        Column("template_id", pl.String(), "the template it follows", nullable=True),
        Column("params", pl.List(pl.String()), "what stands in the template's places", nullable=True),
        Column("trace_id", pl.String(), "trace it belongs to, lower-case hex", nullable=True),
        Column("span_id", pl.String(), "span it belongs to, lower-case hex", nullable=True),
        Column("attributes", pl.String(), "everything else that was sent, as JSON"),
        Column("source", pl.String(), "the source that delivered it"),
        *_POSITION,
    ),
)

ERROR_EVENTS = Table(
    "error_events",
    "Errors and exceptions of applications, one row an event.",
    key=("source", "event_id"),
    partition="hour",
    sort=("project", "ts", "event_id"),
    columns=(
        Column("event_id", pl.String(), "the sender's own identifier, else derived"),
        Column("ts", TIMESTAMP, "when it happened"),
        Column("project", pl.String(), "the project or application"),
        Column("platform", pl.String(), "python, javascript, …", nullable=True),
        Column("severity_number", pl.Int32(), "OpenTelemetry severity 1 to 24", nullable=True),
        Column("type", pl.String(), "class of the exception; empty for a message"),
        Column("value", pl.String(), "its message"),
        Column("culprit", pl.String(), "where it happened: transaction or function", nullable=True),
        Column("handled", pl.Boolean(), "whether the application caught it", nullable=True),
        Column("stack", pl.String(), "frames as JSON, innermost last", nullable=True),
        Column("host", pl.String(), "the host", nullable=True),
        Column("service", pl.String(), "the service", nullable=True),
        Column("release", pl.String(), "version of the application", nullable=True),
        Column("environment", pl.String(), "production, staging, …", nullable=True),
        Column("fingerprint", pl.String(), "what groups it, as the sender says it: JSON array", nullable=True),
        Column("category", pl.String(), "what kind of error it is", nullable=True),
        Column("trace_id", pl.String(), "trace it belongs to, lower-case hex", nullable=True),
        Column("span_id", pl.String(), "span it belongs to, lower-case hex", nullable=True),
        Column("attributes", pl.String(), "tags, contexts and the rest as JSON"),
        Column("source", pl.String(), "the source that delivered it"),
        *_POSITION,
    ),
)

SPANS = Table(
    "spans",
    "Spans of traces as they came, in the hour in which each began.",
    key=("trace_id", "span_id"),
    partition="hour",
    sort=("service", "ts", "span_id"),
    columns=(
        Column("trace_id", pl.String(), "32 lower-case hex digits"),
        Column("span_id", pl.String(), "16 lower-case hex digits"),
        Column("parent_span_id", pl.String(), "the span that caused it", nullable=True),
        Column("ts", TIMESTAMP, "when it began"),
        Column("duration", pl.Float64(), "how long it took", "s"),
        Column("name", pl.String(), "the operation"),
        Column("kind", pl.String(), "internal, server, client, producer or consumer"),
        Column("service", pl.String(), "the service"),
        Column("host", pl.String(), "the host", nullable=True),
        Column("status", pl.String(), "unset, ok or error"),
        Column("status_message", pl.String(), "why it failed", nullable=True),
        Column("attributes", pl.String(), "attributes, events and links as JSON"),
        Column("source", pl.String(), "the source that delivered it"),
        *_POSITION,
    ),
)

TICKETS = Table(
    "tickets",
    "Tickets of ITSM systems as they came, one row for each state that was seen.",
    key=("source", "ticket_id", "ts"),
    partition="day",
    owner=OPERATIONS,
    sort=("ticket_id", "ts"),
    columns=(
        Column("ticket_id", pl.String(), "identifier in its system, for example sys_id"),
        Column("ts", TIMESTAMP, "when it was last updated"),
        Column("number", pl.String(), "the number people use", nullable=True),
        Column("kind", pl.String(), "incident, problem, change, request or other"),
        Column("state", pl.String(), "as its system words it", nullable=True),
        Column("title", pl.String(), "one line for people"),
        Column("description", pl.String(), "the long text", nullable=True),
        Column("priority", pl.Int32(), "1 (highest) to 5", nullable=True),
        Column("impact", pl.Int32(), "1 (widest) to 3", nullable=True),
        Column("urgency", pl.Int32(), "1 (most urgent) to 3", nullable=True),
        Column("category", pl.String(), "category", nullable=True),
        Column("service", pl.String(), "business service", nullable=True),
        Column("host", pl.String(), "configuration item", nullable=True),
        Column("assignment_group", pl.String(), "the group that works on it", nullable=True),
        Column("assignee", pl.String(), "who works on it", nullable=True),
        Column("opened_at", TIMESTAMP, "when it was opened", nullable=True),
        Column("resolved_at", TIMESTAMP, "when it was resolved", nullable=True),
        Column("closed_at", TIMESTAMP, "when it was closed", nullable=True),
        Column("resolution", pl.String(), "how it was resolved", nullable=True),
        Column("details", pl.String(), "the original fields as JSON"),
        Column("source", pl.String(), "the source that delivered it"),
        *_POSITION,
    ),
)

DOCUMENTS = Table(
    "documents",
    "Documents of the knowledge base, one row for each version that was seen.",
    key=("source", "document_id", "content_hash"),
    partition="day",
    owner=OPERATIONS,
    sort=("document_id", "ts"),
    columns=(
        Column("document_id", pl.String(), "stable: the source and the place in it"),
        Column("content_hash", pl.String(), "hash of title and text; empty when the document was removed"),
        Column("ts", TIMESTAMP, "when this version was written"),
        Column("kind", pl.String(), "article, runbook, page or file"),
        Column("uri", pl.String(), "where people find it"),
        Column("title", pl.String(), "title"),
        Column("text", pl.String(), "the text as Markdown, without markup that could run"),
        Column("media_type", pl.String(), "media type of the original"),
        Column("language", pl.String(), "BCP 47 tag", nullable=True),
        Column("removed", pl.Boolean(), "true when it is no longer there"),
        Column("attributes", pl.String(), "author, category, tags … as JSON"),
        Column("source", pl.String(), "the source that delivered it"),
        *_POSITION,
    ),
)

LLM_CALLS = Table(
    "llm_calls",
    "Every question to a language model: purpose, model, tokens, latency, cost and how it went.",
    key=("call_id",),
    partition="day",
    sort=("ts", "call_id"),
    columns=(
        Column("call_id", pl.String(), "ULID of the call"),
        Column("ts", TIMESTAMP, "when the call began"),
        Column("purpose", pl.String(), "what it was for, for example golden-incident"),
        Column("provider", pl.String(), "offline, openai, azure, ollama or compatible"),
        Column("model", pl.String(), "model or deployment name; the offline provider's own name and version"),
        Column(
            "outcome",
            pl.String(),
            "answered, repaired; or the offline answer was taken: truncated, refused, filtered, not_json, "
            "wrong_schema, empty, failed, timed_out, degraded (nobody was asked)",
        ),
        Column("reason", pl.String(), "why it did not go as asked: error, refusal, budget", nullable=True),
        Column("cache_hit", pl.Boolean(), "whether a stored answer was used and nobody was called"),
        Column("attempts", pl.Int32(), "requests sent, repetitions and the repair included; 0 for stored answers"),
        Column("prompt_tokens", pl.Int64(), "tokens of all requests, as the provider counts them", "{token}"),
        Column("completion_tokens", pl.Int64(), "tokens of all answers", "{token}"),
        Column("latency_seconds", pl.Float64(), "from the call to its answer, waiting for a slot left out", "s"),
        Column("waited_seconds", pl.Float64(), "waiting for a free slot", "s"),
        Column("cost", pl.Float64(), "by the configured prices; 0 where none is configured"),
        Column("redactions", pl.Int32(), "personal data and secrets replaced before sending"),
        Column("request_digest", pl.String(), "hash of model, messages, schema and parameters: the cache's key"),
        Column("run_id", pl.String(), "the Dagster run that asked, if one did", nullable=True),
    ),
)

REGISTRY_VERSIONS = Table(
    "registry_versions",
    "Every version of everything that is promoted: models, forecasters, data sets. Immutable, named by content.",
    key=("thing", "version"),
    sort=("thing", "created_at"),
    time_column="created_at",
    columns=(
        Column("thing", pl.String(), "what is promoted, for example golden_incidents"),
        Column("kind", pl.String(), "dataset, model or forecaster"),
        Column("version", pl.String(), "hash of the contents of its files (hex)"),
        Column("created_at", TIMESTAMP, "when it was first registered"),
        Column("inputs", pl.String(), "JSON: table versions, config digest, code version, seed, provider"),
        Column("files", pl.String(), "JSON: path, sha256 and size of each file"),
        Column("metrics", pl.String(), "JSON: numbers that describe it"),
        Column("size", pl.Int64(), "bytes of all files", "By"),
        Column("run_id", pl.String(), "the Dagster run that made it, if one did", nullable=True),
    ),
)

REGISTRY_GATES = Table(
    "registry_gates",
    "What every gate said about every version, each time it was asked.",
    key=("thing", "version", "gate", "evaluated_at"),
    sort=("thing", "version", "evaluated_at"),
    time_column="evaluated_at",
    columns=(
        Column("thing", pl.String(), "what is promoted"),
        Column("version", pl.String(), "the version that was judged"),
        Column("gate", pl.String(), "the check"),
        Column("evaluated_at", TIMESTAMP, "when it was judged"),
        Column("passed", pl.Boolean(), "whether the version may pass this gate"),
        Column("blocking", pl.Boolean(), "whether failing it keeps the version from being promoted"),
        Column("summary", pl.String(), "one sentence: what was found"),
        Column("advice", pl.String(), "what to do when it failed", nullable=True),
        Column("numbers", pl.String(), "JSON: measures with limits; skipped; champion and move it was judged against"),
        Column("details", pl.String(), "JSON: rows that show it, at most 100"),
        Column("run_id", pl.String(), "the Dagster run that judged, if one did", nullable=True),
    ),
)

_NOTE = pl.Struct({"written_at": TIMESTAMP, "author": pl.String(), "note": pl.String()})

GOLDEN_INCIDENTS = Table(
    "golden_incidents",
    "Synthetic ITSM incidents, one row each for every version of the data set that was ever promoted.",
    key=("version", "incident_id"),
    owner=OPERATIONS,
    sort=("version", "incident_id"),
    time_column="opened_at",
    columns=(
        Column("version", pl.String(), "the version of the data set (registry_versions.version)"),
        Column("incident_id", pl.String(), "number of the incident, unique in its data set"),
        Column("short_description", pl.String(), "what the caller reports, one line"),
        Column("description", pl.String(), "what the caller tells"),
        Column("category", pl.String(), "category by the configuration"),
        Column("subcategory", pl.String(), "subcategory of that category"),
        Column("priority", pl.Int32(), "1 critical to 5 planning, from impact and urgency"),
        Column("urgency", pl.Int32(), "1 high to 3 low"),
        Column("impact", pl.Int32(), "1 high to 3 low"),
        Column("state", pl.String(), "New, In Progress, On Hold, Resolved or Closed at generation_timestamp"),
        Column("assigned_to", pl.String(), "technician who has it or solved it", nullable=True),
        Column("assignment_group", pl.String(), "technician group that has it or solved it", nullable=True),
        Column("caller_id", pl.String(), "who reported it, a made-up person"),
        Column("contact_type", pl.String(), "how it was reported"),
        Column("location", pl.String(), "site of the caller"),
        Column("opened_at", TIMESTAMP, "when it was opened"),
        Column("first_response_at", TIMESTAMP, "when a technician first took it up", nullable=True),
        Column("resolved_at", TIMESTAMP, "when it was last resolved", nullable=True),
        Column("reopened_at", TIMESTAMP, "when it was last reopened", nullable=True),
        Column("closed_at", TIMESTAMP, "when it was closed", nullable=True),
        Column("configuration_item", pl.String(), "the item that is broken", nullable=True),
        Column("business_service", pl.String(), "the service that suffers"),
        Column("business_domain", pl.String(), "the part of the business that owns the service"),
        Column("work_notes", pl.List(_NOTE), "dated entries of their authors, oldest first"),
        Column("resolution_notes", pl.String(), "what solved it", nullable=True),
        Column("close_code", pl.String(), "how it was solved", nullable=True),
        Column("reassignment_count", pl.Int32(), "times that it went to another group"),
        Column("reopen_count", pl.Int32(), "times that it was reopened"),
        Column("update_count", pl.Int32(), "times that anybody changed it"),
        Column("response_due_at", TIMESTAMP, "when a technician has to take it up by the SLA"),
        Column("resolution_due_at", TIMESTAMP, "when it has to be resolved by the SLA"),
        Column("made_sla", pl.Boolean(), "whether it was resolved in time, or is not overdue yet"),
        Column("language", pl.String(), "language of its texts, ISO 639-1"),
        Column("ai_confidence_score", pl.Float64(), "share of the record's checks that hold, weighted; computed"),
        Column("generation_timestamp", TIMESTAMP, "the instant at which the record is seen: what is later is null"),
        Column("model_version", pl.String(), "generator and version, or provider and model"),
    ),
)

TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        METRIC_POINTS,
        SERIES,
        BASELINES,
        HOUR_RECEIPTS,
        CONFIG_VERSIONS,
        ENTITIES,
        CHANGES,
        MAINTENANCE,
        ANOMALIES,
        ALERTS,
        ALERT_DECISIONS,
        INCIDENTS,
        LOG_EVENTS,
        ERROR_EVENTS,
        SPANS,
        TICKETS,
        DOCUMENTS,
        LLM_CALLS,
        REGISTRY_VERSIONS,
        REGISTRY_GATES,
        GOLDEN_INCIDENTS,
    )
}
