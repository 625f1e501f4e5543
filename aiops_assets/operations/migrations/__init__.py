"""Alembic migrations of the operations database; applied by ``operations.database.upgrade``."""
