"""Opening the store: migrate, then connect."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

HEAD = "0001"
"""The newest migration. Named here so that an up-to-date store opens without alembic."""
BUSY_SECONDS = 10.0
"""How long a statement waits for another's lock."""


def revision_of(path: Path) -> str | None:
    """The migration that a store is at; None when it is new."""
    if not path.exists():
        return None
    with closing(sqlite3.connect(path)) as connection:
        try:
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        except sqlite3.OperationalError:
            return None
    return None if row is None else str(row[0])


def migrate(path: Path) -> None:
    """Bring the store up to date. Harmless when it is."""
    if revision_of(path) == HEAD:
        return
    # Heavy, and needed at the first start only.
    from alembic import command
    from alembic.config import Config

    path.touch(mode=0o600)
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    engine = create_engine(f"sqlite:///{path}")
    try:
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    finally:
        engine.dispose()


def _on_connect(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


@asynccontextmanager
async def open_database(path: Path) -> AsyncGenerator[AsyncEngine]:
    """The migrated store, write-ahead logged."""
    await asyncio.to_thread(migrate, path)
    engine = create_async_engine(
        f"sqlite+aiosqlite:///{path}", connect_args={"timeout": BUSY_SECONDS}
    )
    event.listen(engine.sync_engine, "connect", _on_connect)
    try:
        yield engine
    finally:
        await engine.dispose()
