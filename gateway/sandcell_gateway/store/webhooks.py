"""The rows behind webhooks."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from sandcell_gateway.store.database import Database
from sandcell_gateway.store.tables import WebhookRow

_PENDING = "pending"


class WebhookStore:
    """Rows of `webhooks`. Every method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, new: WebhookRow, expired: datetime) -> WebhookRow:
        """The row of its job: the one that is there, else `new`.

        Rows whose delivery is over, of jobs that ended before `expired`, are forgotten.
        """
        try:
            async with self._database.writing() as session:
                await session.execute(
                    delete(WebhookRow).where(
                        WebhookRow.state != _PENDING, WebhookRow.ended_at < expired
                    )
                )
                row = await _of_job(session, new.session_id, new.job_id)
                if row is None:
                    row = new
                    session.add(row)
                return row
        except IntegrityError:
            # The same request came twice at once, and the other was quicker.
            found = await self.get(new.session_id, new.job_id)
            if found is None:
                raise
            return found

    async def get(self, session_id: str, job_id: str) -> WebhookRow | None:
        """The row of one job."""
        async with self._database.reading() as session:
            return await _of_job(session, session_id, job_id)

    async def of(self, session_id: str, job_ids: Collection[str]) -> Sequence[WebhookRow]:
        """The rows of some of a session's jobs."""
        async with self._database.reading() as session:
            found = await session.scalars(
                select(WebhookRow).where(
                    WebhookRow.session_id == session_id, WebhookRow.job_id.in_(job_ids)
                )
            )
            return found.all()

    async def pending(self) -> Sequence[WebhookRow]:
        """All that are to be delivered yet."""
        async with self._database.reading() as session:
            found = await session.scalars(select(WebhookRow).where(WebhookRow.state == _PENDING))
            return found.all()

    async def count_pending(self, session_id: str) -> int:
        """How many of one session are to be delivered yet."""
        async with self._database.reading() as session:
            found = await session.scalar(
                select(func.count())
                .select_from(WebhookRow)
                .where(WebhookRow.session_id == session_id, WebhookRow.state == _PENDING)
            )
            return found or 0

    async def change(self, row_id: str, **values: Any) -> WebhookRow:
        """Set columns of one row and return it."""
        async with self._database.writing() as session:
            await session.execute(
                update(WebhookRow).where(WebhookRow.id == row_id).values(**values)
            )
            return await session.get_one(WebhookRow, row_id, populate_existing=True)


async def _of_job(session: AsyncSession, session_id: str, job_id: str) -> WebhookRow | None:
    found = await session.scalars(
        select(WebhookRow).where(WebhookRow.session_id == session_id, WebhookRow.job_id == job_id)
    )
    return found.one_or_none()
