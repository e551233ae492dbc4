"""The rows behind opaque tokens."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, delete, func, or_, select, true, update

from sandcell_gateway.store.database import Database
from sandcell_gateway.store.tables import TokenRow


class TokenStore:
    """Rows of `tokens`. Every method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, row: TokenRow, moment: datetime, forgotten: datetime, most: int) -> bool:
        """Insert, unless the owner has `most` that are valid at this moment; whether it was done.

        Rows that ended before `forgotten` are deleted first.
        """
        valid = TokenRow.revoked_at.is_(None) & or_(
            TokenRow.expires_at.is_(None), TokenRow.expires_at > moment
        )
        async with self._database.writing() as session:
            await session.execute(
                delete(TokenRow).where(
                    or_(TokenRow.revoked_at < forgotten, TokenRow.expires_at < forgotten)
                )
            )
            count = await session.scalar(
                select(func.count()).select_from(TokenRow).where(TokenRow.owner == row.owner, valid)
            )
            if (count or 0) >= most:
                return False
            session.add(row)
            return True

    async def by_hash(self, hash: str) -> TokenRow | None:
        """The row of a secret."""
        async with self._database.reading() as session:
            found = await session.scalars(select(TokenRow).where(TokenRow.hash == hash))
            return found.one_or_none()

    async def used(self, token_id: str, moment: datetime) -> None:
        """Note when it was used."""
        async with self._database.writing() as session:
            await session.execute(
                update(TokenRow).where(TokenRow.id == token_id).values(last_used_at=moment)
            )

    async def page(
        self, owner: str | None, limit: int, offset: int
    ) -> tuple[Sequence[TokenRow], int]:
        """Rows of one owner or of all, the newest first, and how many there are."""
        wanted = _of(owner)
        async with self._database.reading() as session:
            total = await session.scalar(select(func.count()).select_from(TokenRow).where(wanted))
            found = await session.scalars(
                select(TokenRow)
                .where(wanted)
                .order_by(TokenRow.created_at.desc(), TokenRow.id)
                .limit(limit)
                .offset(offset)
            )
            return found.all(), total or 0

    async def revoke(self, token_id: str, owner: str | None, moment: datetime) -> TokenRow | None:
        """Note that it was revoked, unless it was before; the row, if this or any owner has it."""
        mine = TokenRow.id == token_id, _of(owner)
        async with self._database.writing() as session:
            await session.execute(
                update(TokenRow)
                .where(*mine, TokenRow.revoked_at.is_(None))
                .values(revoked_at=moment)
            )
            found = await session.scalars(select(TokenRow).where(*mine))
            return found.one_or_none()


def _of(owner: str | None) -> ColumnElement[bool]:
    return true() if owner is None else TokenRow.owner == owner
