"""Moves of champion pointers, and what language models have used."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_ROW_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "champion_moves",
        sa.Column("move_id", _ROW_NUMBER, autoincrement=True, nullable=False),
        sa.Column("thing", sa.String(128), nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("version", sa.String(64)),
        sa.Column("previous", sa.String(64)),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("who", sa.Text(), nullable=False),
        sa.Column("how", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("run_id", sa.String(64)),
        sa.PrimaryKeyConstraint("move_id", name="pk_champion_moves"),
        sa.UniqueConstraint("thing", "sequence", name="uq_champion_moves_thing_sequence"),
    )
    op.create_index("ix_champion_moves_thing_at", "champion_moves", ["thing", "at"])
    op.create_table(
        "llm_spend",
        sa.Column("day", sa.String(10), nullable=False),
        sa.Column("purpose", sa.String(64), nullable=False),
        sa.Column("calls", sa.BigInteger(), nullable=False),
        sa.Column("prompt_tokens", sa.BigInteger(), nullable=False),
        sa.Column("completion_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cost_micros", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("day", "purpose", name="pk_llm_spend"),
    )


def downgrade() -> None:
    op.drop_table("llm_spend")
    op.drop_table("champion_moves")
