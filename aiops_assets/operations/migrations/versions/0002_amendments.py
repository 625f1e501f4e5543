"""Amendments of alerts, pages, and why an incident is resolved."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_ROW_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column("incidents", sa.Column("resolution", sa.Text()))
    op.add_column("incidents", sa.Column("paged_priority", sa.Integer()))
    # People know of the incidents that are there: a correction of one must not page them again.
    op.execute(sa.text("UPDATE incidents SET paged_priority = priority"))
    op.create_table(
        "alert_amendments",
        sa.Column("alert_id", sa.String(255), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("hour", sa.String(13), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("alert_id", "revision", name="pk_alert_amendments"),
    )
    op.create_index("ix_alert_amendments_hour", "alert_amendments", ["hour"])
    op.create_table(
        "incident_pages",
        sa.Column("page_id", _ROW_NUMBER, autoincrement=True, nullable=False),
        sa.Column("incident_id", sa.String(32), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("reason", sa.String(16), nullable=False),
        sa.PrimaryKeyConstraint("page_id", name="pk_incident_pages"),
        sa.ForeignKeyConstraint(
            ["incident_id"], ["incidents.incident_id"], name="fk_incident_pages_incident_id_incidents"
        ),
    )
    op.create_index("ix_incident_pages_at", "incident_pages", ["at"])
    op.create_index("ix_incident_pages_incident_id", "incident_pages", ["incident_id"])


def downgrade() -> None:
    op.drop_table("incident_pages")
    op.drop_table("alert_amendments")
    with op.batch_alter_table("incidents") as table:
        table.drop_column("paged_priority")
        table.drop_column("resolution")
