"""The sessions' rows: plain reads, and writes that say what they change."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import delete, select, update
from sqlalchemy.exc import IntegrityError

from sandcell_gateway.store.database import Database
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
    labels: frozenset[tuple[str, str]] = frozenset()
    """Keys and values that all must be there."""
    search: str | None = None
    """Part of the name or of a label's value, or beginning of the id; small letters or large."""
    order_by: Order = "-created_at"

    def fits(self, row: SessionRow) -> bool:
        """Whether labels and search find it.

        Not in SQL: a label's key may hold anything, a JSON path may not.
        """
        if not self.labels <= row.labels.items():
            return False
        word = (self.search or "").lower()
        texts = (row.name or "", *row.labels.values())
        return row.id.startswith(word) or any(word in text.lower() for text in texts)


class SessionStore:
    """Rows of `sessions`. Every method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, row: SessionRow) -> None:
        """Insert. Raises `Duplicate` for a name or uid that a live session has."""
        try:
            async with self._database.writing() as session:
                session.add(row)
        except IntegrityError as error:
            raise _duplicate(error) from error

    async def get(self, session_id: str) -> SessionRow | None:
        """One row."""
        async with self._database.reading() as session:
            return await session.get(SessionRow, session_id)

    async def change(self, session_id: str, **values: Any) -> SessionRow | None:
        """Set columns of one row and return it. Raises `Duplicate`."""
        try:
            async with self._database.writing() as session:
                await session.execute(
                    update(SessionRow).where(SessionRow.id == session_id).values(**values)
                )
                return await session.get(SessionRow, session_id, populate_existing=True)
        except IntegrityError as error:
            raise _duplicate(error) from error

    async def remove(self, session_id: str) -> None:
        """Delete one row."""
        async with self._database.writing() as session:
            await session.execute(delete(SessionRow).where(SessionRow.id == session_id))

    async def live(self) -> Sequence[SessionRow]:
        """All rows that are not final."""
        async with self._database.reading() as session:
            found = await session.scalars(
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
        async with self._database.reading() as session:
            found = await session.scalars(statement.order_by(ordered, SessionRow.id))
            return [row for row in found if query.fits(row)]

    async def prune(self, before: datetime) -> None:
        """Forget final rows that did not change since `before`."""
        async with self._database.writing() as session:
            await session.execute(
                delete(SessionRow).where(
                    SessionRow.status.in_(_FINAL), SessionRow.updated_at < before
                )
            )


def _duplicate(error: IntegrityError) -> Exception:
    for column in ("name", "uid"):
        if f"sessions.{column}" in str(error.orig):
            return Duplicate(column)
    return error
