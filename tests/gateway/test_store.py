"""The store: migrations make what the tables say, and rows are found."""

from __future__ import annotations

import sqlite3
import stat
from contextlib import closing
from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

from sandcell_gateway.store import database
from sandcell_gateway.store.tables import Base


def test_head_is_the_newest_migration() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(database.__file__).parent / "migrations"))
    assert ScriptDirectory.from_config(config).get_heads() == [database.HEAD]


def test_the_migrations_make_the_tables(tmp_path: Path) -> None:
    path = tmp_path / "gateway.db"
    assert database.revision_of(path) is None
    database.migrate(path)
    assert database.revision_of(path) == database.HEAD
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = path.read_bytes()
    database.migrate(path)
    assert path.read_bytes() == before, "twice is harmless"
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
    engine.dispose()


def test_the_unique_indexes_are_for_live_sessions_only(tmp_path: Path) -> None:
    """Which the comparison above does not look at."""
    paths = tmp_path / "migrated.db", tmp_path / "declared.db"
    database.migrate(paths[0])
    engine = create_engine(f"sqlite:///{paths[1]}")
    Base.metadata.create_all(engine)
    engine.dispose()
    found: list[set[str]] = []
    for path in paths:
        with closing(sqlite3.connect(path)) as store:
            rows = store.execute("SELECT sql FROM sqlite_master WHERE type = 'index'")
            found.append({row[0] for row in rows if row[0] and "alembic" not in row[0]})
    assert found[0] == found[1]
    assert any("terminated" in sql for sql in found[0])


async def test_it_is_write_ahead_logged(tmp_path: Path) -> None:
    async with (
        database.open_database(tmp_path / "s.db") as engine,
        engine.connect() as connection,
    ):
        result = await connection.exec_driver_sql("PRAGMA journal_mode")
        assert result.scalar() == "wal"
