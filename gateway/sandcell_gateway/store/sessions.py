"""The sessions' rows: plain reads, and writes that say what they change."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import delete, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker

from sandcell_gateway.store.tables import SessionRow
from sandcell_wire.states import FINAL, Status

Order = Literal["created_at", "-created_at", "updated_at", "-updated_at", "name", "-name"]
_FINAL = sorted(status.value for status in FINAL)


class Duplicate(Exception):
    """Another live session has the value that must be unique."""

    def __init__(self, column: str) -> None:
        super().__init__(column)
        self.column = column


@dataclass(frozen=True)
class Query:
    """Which of an owner's sessions are wanted."""

    owner: str
    statuses: Collection[Status]
    """Stored statuses, so `idle` stands for `active` too."""
    labels: dict[str, str] = field(default_factory=dict[str, str])
    search: str | None = None
    """Part of the name, or beginning of the id."""
    order_by: Order = "-created_at"


class SessionStore:
    """Rows of `sessions`. Every method is one transaction."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._open = async_sessionmaker(engine, expire_on_commit=False)

    async def add(self, row: SessionRow) -> None:
        """Insert. Raises `Duplicate` for a name or uid that a live session has."""
        try:
            async with self._open.begin() as database:
                database.add(row)
        except IntegrityError as error:
            for column in ("name", "uid"):
                if f"sessions.{column}" in str(error.orig):
                    raise Duplicate(column) from error
            raise

    async def get(self, session_id: str) -> SessionRow | None:
        """One row."""
        async with self._open() as database:
            return await database.get(SessionRow, session_id)

    async def change(self, session_id: str, **values: Any) -> SessionRow | None:
        """Set columns of one row and return it."""
        async with self._open.begin() as database:
            await database.execute(
                update(SessionRow).where(SessionRow.id == session_id).values(**values)
            )
            return await database.get(SessionRow, session_id, populate_existing=True)

    async def remove(self, session_id: str) -> None:
        """Delete one row."""
        async with self._open.begin() as database:
            await database.execute(delete(SessionRow).where(SessionRow.id == session_id))

    async def live(self) -> Sequence[SessionRow]:
        """All rows that are not final."""
        async with self._open() as database:
            found = await database.scalars(
                select(SessionRow).where(SessionRow.status.not_in(_FINAL))
            )
            return found.all()

    async def find(self, query: Query) -> Sequence[SessionRow]:
        """An owner's rows in order."""
        column = getattr(SessionRow, query.order_by.removeprefix("-"))
        ordered = column.desc() if query.order_by.startswith("-") else column.asc()
        statement = select(SessionRow).where(
            SessionRow.owner == query.owner,
            SessionRow.status.in_(sorted(status.value for status in query.statuses)),
        )
        if query.search:
            statement = statement.where(
                or_(
                    SessionRow.name.contains(query.search, autoescape=True),
                    SessionRow.id.startswith(query.search, autoescape=True),
                )
            )
        async with self._open() as database:
            found = await database.scalars(statement.order_by(ordered, SessionRow.id))
            # Not in SQL: a label's key may hold anything, a JSON path may not.
            return [row for row in found if query.labels.items() <= row.labels.items()]

    async def prune(self, before: datetime) -> None:
        """Forget final rows that did not change since `before`."""
        async with self._open.begin() as database:
            await database.execute(
                delete(SessionRow).where(
                    SessionRow.status.in_(_FINAL), SessionRow.updated_at < before
                )
            )
