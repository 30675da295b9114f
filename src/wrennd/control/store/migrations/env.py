"""Alembic's entry: it works on the connection that `store/migrate.py` gives it."""

from alembic import context

from wrennd.control.store.schema import metadata

# Batches: SQLite can't alter a table in place.
context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
