"""Runs migrations on the connection that ``operations.database.upgrade`` hands over, inside its transaction.

A new migration: copy the newest file in ``versions``, raise its number, set ``down_revision`` and ``database.HEAD``.
"""

from __future__ import annotations

from alembic import context

from aiops_assets.operations.database import VERSION_TABLE
from aiops_assets.operations.models import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    version_table=VERSION_TABLE,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
