"""The store: migrations make what the tables say, and rows are found."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, text

from sandcell_gateway.store import database
from sandcell_gateway.store.tables import Base


def test_head_is_the_newest_migration() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(database.__file__).parent / "migrations"))
    assert ScriptDirectory.from_config(config).get_heads() == [database.HEAD]


def upgraded(path: Path, revision: str = "head") -> Path:
    """A store as the migrations up to this one make it."""
    with database.writing(path) as connection:
        database.upgrade(connection, revision)
    return path


def test_a_new_store_is_made_once_and_private(tmp_path: Path) -> None:
    path = tmp_path / "gateway.db"
    assert database.revision_of(path) is None
    database.migrate(path)
    assert database.revision_of(path) == database.HEAD
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = path.read_bytes()
    database.migrate(path)
    assert path.read_bytes() == before, "twice is harmless"


def test_the_migrations_make_the_tables(tmp_path: Path) -> None:
    path = upgraded(tmp_path / "gateway.db")
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
    engine.dispose()


@pytest.mark.parametrize("revision", ["0001", "0004"])
def test_a_store_of_an_earlier_version_is_brought_up_to_date(tmp_path: Path, revision: str) -> None:
    path = upgraded(tmp_path / "gateway.db", revision)
    assert database.revision_of(path) == revision
    database.migrate(path)
    assert database.revision_of(path) == database.HEAD
    assert schema(path) == schema(upgraded(tmp_path / "other.db"))


@pytest.mark.parametrize("statements", [*range(1, 12, 3), *range(12, 40, 9)])
@pytest.mark.parametrize("revision", [None, "0001"])
def test_a_change_of_the_store_that_is_cut_short_is_done_again(
    tmp_path: Path, revision: str | None, statements: int
) -> None:
    """By a kill -9, for example: SQLite forgets what was not committed."""
    killed = tmp_path / "killed.db"
    if revision:
        upgraded(killed, revision)
    program = (
        "import os, sys, pathlib\n"
        "from sqlalchemy import event, Engine\n"
        "from sandcell_gateway.store import database\n"
        "left = int(sys.argv[2])\n"
        "@event.listens_for(Engine, 'after_cursor_execute')\n"
        "def count(*_):\n"
        "    global left\n"
        "    left -= 1\n"
        "    if left == 0: os.kill(os.getpid(), 9)\n"
        "database.migrate(pathlib.Path(sys.argv[1]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(killed), str(statements)], check=False, timeout=60
    )
    assert done.returncode in (-9, 0)
    assert database.revision_of(killed) == (revision if done.returncode else database.HEAD)
    database.migrate(killed)
    assert database.revision_of(killed) == database.HEAD
    whole = tmp_path / "whole.db"
    if revision:
        upgraded(whole)
    else:
        database.migrate(whole)
    assert schema(killed) == schema(whole)


def schema(path: Path) -> list[tuple[str]]:
    with closing(sqlite3.connect(path)) as store:
        return store.execute("SELECT sql FROM sqlite_master ORDER BY sql").fetchall()


def test_the_unique_indexes_are_for_live_sessions_only(tmp_path: Path) -> None:
    """Which the comparison above does not look at."""
    migrated, made = upgraded(tmp_path / "migrated.db"), tmp_path / "made.db"
    database.migrate(made)
    found: list[set[str]] = []
    for path in migrated, made:
        with closing(sqlite3.connect(path)) as store:
            rows = store.execute("SELECT sql FROM sqlite_master WHERE type = 'index'")
            found.append({row[0] for row in rows if row[0] and "alembic" not in row[0]})
    assert found[0] == found[1]
    assert any("terminated" in sql for sql in found[0])


async def test_it_is_write_ahead_logged(tmp_path: Path) -> None:
    async with database.open_database(tmp_path / "s.db") as opened, opened.reading() as session:
        result = await session.execute(text("PRAGMA journal_mode"))
        assert result.scalar() == "wal"


async def test_writers_come_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However short SQLite waits: who asks it for its lock may ask in vain for ever."""
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.0)
    done: list[int] = []

    async def write(opened: database.Database, number: int) -> None:
        async with opened.writing() as session:
            await session.execute(text("UPDATE sessions SET name = NULL"))
            await asyncio.sleep(0.005)
            done.append(number)

    async with database.open_database(tmp_path / "s.db") as opened:
        await asyncio.gather(*(write(opened, number) for number in range(20)))
    assert done == list(range(20))
