"""A lease in the operations database: one owner across hosts, with a fencing token.

The lease ends by itself when it is not renewed in time, so its owner must ``check`` it before every outside effect, and
may hand ``token`` to whatever it writes to: a higher token has been given out since if the lease was ever lost. Method:
M. Kleppmann, "How to do distributed locking" (fencing tokens).
"""

from __future__ import annotations

import time
from collections.abc import Callable

from sqlalchemy import ColumnElement, Connection, Engine, insert, select, text, update
from sqlalchemy.exc import IntegrityError

from aiops_assets.hours import MICROS_PER_SECOND
from aiops_assets.operations.models import LEASES


class LeaseLost(Exception):
    """The lease ran out or somebody else holds it: stop before the next effect."""


class DatabaseLease:
    """A named lease. Instants come from the database server (Postgres) or this host's clock (SQLite).

    ``clock`` returns microseconds since the epoch and replaces both, for tests.
    """

    def __init__(
        self, engine: Engine, name: str, owner: str, *, seconds: float = 30.0, clock: Callable[[], int] | None = None
    ) -> None:
        self._engine, self.name, self.owner = engine, name, owner
        self._micros = int(seconds * MICROS_PER_SECOND)
        self._clock = clock
        self._token: int | None = None

    @property
    def token(self) -> int:
        """The fencing token: higher than that of every earlier holder.

        Raises:
            LeaseLost: it is not held.
        """
        if self._token is None:
            raise LeaseLost(f"lease {self.name!r} is not held")
        return self._token

    def acquire(self) -> bool:
        """Take the lease if it is free or has run out; returns whether we have it. Does not wait."""
        if self._token is not None:
            try:
                self.renew()
                return True
            except LeaseLost:
                pass
        with self._engine.connect().execution_options(aiops_writes=True) as connection:
            try:
                with connection.begin():
                    self._token = self._take(connection)
            except IntegrityError:
                # Another process inserted the row first, so it holds the lease.
                return False
        return self._token is not None

    def renew(self) -> None:
        """Prolong the lease from now on.

        Raises:
            LeaseLost: it ran out or somebody took it.
        """
        token = self.token
        with self._engine.connect().execution_options(aiops_writes=True) as connection, connection.begin():
            now = self._now(connection)
            statement = update(LEASES).where(*self._held(token, now)).values(expires_at=now + self._micros)
            renewed = connection.execute(statement).rowcount
        if not renewed:
            self._token = None
            raise LeaseLost(f"lease {self.name!r}: token {token} is no longer valid")

    def check(self) -> int:
        """Make sure that the lease is still ours; the token, when it is.

        Raises:
            LeaseLost: it is not.
        """
        token = self.token
        with self._engine.connect() as connection, connection.begin():
            now = self._now(connection)
            if connection.execute(select(LEASES.c.token).where(*self._held(token, now))).first() is None:
                self._token = None
                raise LeaseLost(f"lease {self.name!r}: token {token} is no longer valid")
        return token

    def release(self) -> None:
        """Give the lease free, if we still hold it."""
        if self._token is None:
            return
        with self._engine.connect().execution_options(aiops_writes=True) as connection, connection.begin():
            mine = (LEASES.c.name == self.name, LEASES.c.token == self._token)
            connection.execute(update(LEASES).where(*mine).values(owner=None, expires_at=0))
        self._token = None

    def _take(self, connection: Connection) -> int | None:
        row = connection.execute(select(LEASES).where(LEASES.c.name == self.name).with_for_update()).first()
        # The clock is read after the row lock, so that waiting for it does not make the time stale.
        now = self._now(connection)
        if row is None:
            fresh = {"name": self.name, "owner": self.owner, "token": 1, "expires_at": now + self._micros}
            connection.execute(insert(LEASES).values(fresh))
            return 1
        if row.owner is not None and row.expires_at > now:
            return None
        token = int(row.token) + 1
        taken = {"owner": self.owner, "token": token, "expires_at": now + self._micros}
        connection.execute(update(LEASES).where(LEASES.c.name == self.name).values(taken))
        return token

    def _held(self, token: int, now: int) -> tuple[ColumnElement[bool], ...]:
        return (
            LEASES.c.name == self.name,
            LEASES.c.token == token,
            LEASES.c.owner.is_not(None),
            LEASES.c.expires_at > now,
        )

    def _now(self, connection: Connection) -> int:
        if self._clock is not None:
            return self._clock()
        if connection.dialect.name == "postgresql":
            query = text("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")
            return int(connection.execute(query).scalar_one())
        return time.time_ns() // 1_000
