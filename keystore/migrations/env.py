"""What Alembic runs: the migrations on the connection that keystore.migrate opened, inside its transaction."""

from alembic import context

from keystore.tables import VERSION_TABLE, metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    transactional_ddl=True,  # on SQLite too: engine.py begins its transactions itself
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
