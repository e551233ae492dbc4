"""Opening the store: migrate, then connect."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Coroutine, Generator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, create_engine, event, inspect
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)

from sandcell_gateway.store.tables import Base

HEAD = "0007"
"""The newest migration. Named here so that an up-to-date store opens without alembic."""
BUSY_SECONDS = 10.0
"""How long a statement waits for another's lock."""

T = TypeVar("T")


async def to_the_end(work: Coroutine[Any, Any, T]) -> T:
    """Wait for it also when cancelled: its thread would answer to a loop that is closed."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


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
    """Make the store, or bring it up to date; all of it or nothing. Harmless when it is."""
    revision = revision_of(path)
    if revision == HEAD:
        return
    with writing(path) as connection:
        if revision is None and not inspect(connection).get_table_names():
            _create(connection)
        else:
            upgrade(connection)


@contextmanager
def writing(path: Path) -> Generator[Connection]:
    """A store whose tables are changed, in one transaction."""
    path.touch(mode=0o600)
    engine = create_engine(f"sqlite:///{path}")
    event.listen(engine, "connect", _leave_transactions_to_us)
    event.listen(engine, "begin", _begin)
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


def _create(connection: Connection) -> None:
    """The tables as they are now, without their history: a first start is waited for."""
    Base.metadata.create_all(connection)
    connection.exec_driver_sql(
        "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL, "
        "CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))"
    )
    connection.exec_driver_sql("INSERT INTO alembic_version VALUES (?)", (HEAD,))


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Run the migrations up to this one."""
    # Heavy, and needed by the stores of earlier versions only.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


def _leave_transactions_to_us(connection: Any, _record: Any) -> None:
    # Otherwise the driver begins one before data is changed only: tables change outside.
    connection.isolation_level = None


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _on_connect(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


class Database:
    """An open store: any number read, and one writes after the other.

    SQLite has one writer at a time. Who waits for its lock asks for it now and then, so
    that among many the unlucky wait for ever; here they come in their order.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._sessions = async_sessionmaker(engine, expire_on_commit=False)
        self._turn = asyncio.Lock()

    def reading(self) -> AsyncSession:
        """A context manager for queries."""
        return self._sessions()

    @asynccontextmanager
    async def writing(self) -> AsyncGenerator[AsyncSession]:
        """A transaction, committed at its end. Do nothing in it that waits for others."""
        async with self._turn, self._sessions.begin() as session:
            yield session


@asynccontextmanager
async def open_database(path: Path) -> AsyncGenerator[Database]:
    """The migrated store, write-ahead logged."""
    await asyncio.to_thread(migrate, path)
    engine = create_async_engine(
        f"sqlite+aiosqlite:///{path}", connect_args={"timeout": BUSY_SECONDS}
    )
    event.listen(engine.sync_engine, "connect", _on_connect)
    try:
        yield Database(engine)
    finally:
        await engine.dispose()
