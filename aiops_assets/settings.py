"""Every environment variable, once, typed; nothing else in the product reads ``os.environ``.

What belongs here: what differs between installations (places, addresses, limits of this machine) and the layout of the
home folder. What operations people tune while it runs (devices, rules, windows) is in ``aiops.yaml``, see ``config``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import date
from functools import cached_property
from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

MEBIBYTE = 1024 * 1024


class Settings(BaseSettings):
    """Installation settings, read from variables that begin with ``AIOPS_``."""

    model_config = SettingsConfigDict(env_prefix="AIOPS_", extra="ignore", frozen=True)

    home: Path = Field(Path(".aiops"), description="lake, landing zone, keys, logs and Dagster home")
    config: Path | None = Field(None, description="the aiops.yaml in force; default: inside the home folder")
    lake: str | None = Field(None, description="root of the Delta tables: a folder or an object-store URI")
    operations_url: SecretStr | None = Field(None, description="SQLAlchemy URL of the operations database")
    postgres_url: SecretStr | None = Field(None, description="Dagster storage on Postgres instead of SQLite")
    real_data: Path = Field(Path("../shared/data"), description="real data sets for tests; skipped when absent")

    gateway_host: str = "127.0.0.1"
    gateway_port: int = 8787
    dagster_host: str = "127.0.0.1"
    dagster_port: int = 3000
    gateway_max_body_bytes: int = Field(20 * MEBIBYTE, description="a larger request body is refused with 413")
    gateway_max_backlog_bytes: int = Field(2048 * MEBIBYTE, description="landing backlog above which intake says 503")
    sentry_max_per_minute: int = Field(
        0, ge=0, description="envelopes a minute that one key may send to one Sentry project; 0: no limit"
    )

    segment_max_bytes: int = Field(32 * MEBIBYTE, description="a landing segment is sealed at this size")
    segment_max_age_seconds: float = Field(0.5, description="or at this age")
    landing_retention_hours: float = Field(72, description="sealed segments are kept this long after the lake has them")

    session_seconds: float = Field(1800, description="a live session hands over to its successor after this time")
    session_quiet_seconds: float = Field(120, description="or ends when nothing has arrived for this long")
    session_batch_bytes: int = Field(64 * MEBIBYTE, description="most landing bytes taken in one micro-batch")
    close_grace_seconds: float = Field(120, description="an hour closes when event time is this far past its end")
    max_future_seconds: float = Field(600, description="points further in the future are quarantined")
    late_hours: float = Field(
        48, description="points that come later than this are quarantined, unless sent as history"
    )
    max_past_days: float = Field(7_300, description="history further in the past is quarantined")
    max_series_per_source: int = Field(250_000, description="series of one source beyond this are refused, visibly")

    dbt_project: Path = Field(
        Path(__file__).resolve().parents[1] / "dbt", description="the dbt project; the one beside the package"
    )
    marts_memory: str = Field("1GB", description="most memory that DuckDB takes for marts and `aiops query`")
    time_zone: str = Field("UTC", description="time zone in which teams work, for alert load per shift")
    shifts: str = Field("08-16,16-24,00-08", description="shifts of a day in that zone, hours from-to")

    prometheus_max_samples: int = Field(50_000_000, description="points that one query of the Prometheus API may read")
    prometheus_timeout_seconds: float = Field(30, description="a query of the Prometheus API may take this long")
    prometheus_cache_bytes: int = Field(64 * MEBIBYTE, description="memory for points that such queries read again")

    partitions_start: date = Field(date(2020, 1, 1), description="first day that the asset graph has partitions for")

    session_retry_seconds: float = Field(
        30,
        description="longest pause before a failed session is asked for again, ten times that when none gets further",
    )
    restart_backoff_seconds: float = Field(30, description="longest pause before `aiops up` restarts what died")

    log_level: str = "INFO"

    @cached_property
    def paths(self) -> Home:
        return Home(self.home.expanduser().resolve(), self)


class Home:
    """The layout of the home folder; every path in the product comes from here."""

    def __init__(self, root: Path, settings: Settings) -> None:
        self.root = root
        self.config = (settings.config or root / "aiops.yaml").expanduser().resolve()
        self.lake = settings.lake or str(root / "lake")
        self.landing = root / "landing"
        self.quarantine = root / "quarantine"
        self.keys = root / "keys"
        self.logs = root / "logs"
        #: parquet files that the dbt project writes; all of it can be built again from the lake
        self.marts = root / "marts"
        #: what lake care remembers: files found whole, files without a use, what was set aside
        self.care = root / "care"
        #: what replays came to: shadow tables and reports, each in a folder of its own
        self.replays = root / "replays"
        #: what every gate said of what was published: <thing>/<version>.{json,md,html}
        self.certificates = root / "certificates"
        #: leases, hand-over states and progress of live sessions
        self.live = root / "live"
        #: the collector's device state and its status file
        self.collector = root / "collector"
        #: the listener's status file and its SNMP engine id
        self.listener = root / "listener"
        self.dagster = root / "dagster"
        url = settings.operations_url
        self.operations_url = url.get_secret_value() if url else f"sqlite:///{root / 'operations.db'}"

    def create(self) -> None:
        """Make every folder of the home; keys are readable by their owner alone."""
        own = (self.live, self.collector, self.listener, self.dagster)
        for folder in (self.landing, self.quarantine, self.logs, *own):
            folder.mkdir(parents=True, exist_ok=True)
        self.keys.mkdir(parents=True, exist_ok=True, mode=0o700)
        if "://" not in self.lake:
            Path(self.lake).mkdir(parents=True, exist_ok=True)


def load_settings() -> Settings:
    """The settings in force, read anew from the environment."""
    return Settings()


def environment_variable(name: str) -> str | None:
    """An environment variable that ``aiops.yaml`` refers to as ``${NAME}``; ``None`` when it is not set."""
    return os.environ.get(name)


def child_environment(additions: Mapping[str, str]) -> dict[str, str]:
    """The environment of a process to be started: this one's, with additions."""
    return {**os.environ, **additions}
