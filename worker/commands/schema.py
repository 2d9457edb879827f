"""`db upgrade`: the tables and views, brought to this program's version."""

from __future__ import annotations

from worker.commands.options import ConfigOption, explained, settings_of, stdout


@explained
def db_upgrade(config: ConfigOption = None) -> None:
    """Bring the database's tables and views up to date; safe to run again, and by several at once.

    Needed on PostgreSQL before the first start and after an update; SQLite is brought up to date by `serve`.
    """
    from worker import database as db

    engine = db.create_database_engine(settings_of(config, quiet=True).resolved_database_url)
    try:
        db.upgrade(engine)
        db.require_schema(engine)
    finally:
        engine.dispose()
    where = engine.url.render_as_string(hide_password=True)
    stdout.print(f"the database {where} is up to date", markup=False)
