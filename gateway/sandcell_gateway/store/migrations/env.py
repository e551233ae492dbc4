"""Alembic's entry: runs on the connection that `store.database` hands over."""

from __future__ import annotations

from alembic import context

from sandcell_gateway.store.tables import Base

connection = context.config.attributes["connection"]
# SQLite cannot alter a table in place, so alembic copies it in a batch.
context.configure(
    connection=connection,
    target_metadata=Base.metadata,
    render_as_batch=True,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
