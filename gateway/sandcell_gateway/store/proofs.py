"""The rows of signed statements."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import func, select

from sandcell_gateway.store.database import Database
from sandcell_gateway.store.tables import ProofRow


class ProofStore:
    """Rows of `proofs`. Every method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, session_id: str, seq: int, chain: str, key_id: str) -> ProofRow | None:
        """The statement of this key that says just this."""
        async with self._database.reading() as session:
            return await session.scalar(
                select(ProofRow).where(
                    ProofRow.session_id == session_id,
                    ProofRow.seq == seq,
                    ProofRow.chain == chain,
                    ProofRow.key_id == key_id,
                )
            )

    async def add(self, row: ProofRow) -> None:
        """Insert."""
        async with self._database.writing() as session:
            session.add(row)

    async def all(self, session_id: str) -> Sequence[ProofRow]:
        """A session's, in the order in which they were signed."""
        async with self._database.reading() as session:
            found = await session.scalars(
                select(ProofRow).where(ProofRow.session_id == session_id).order_by(ProofRow.id)
            )
            return found.all()

    async def page(
        self, session_id: str, limit: int, offset: int
    ) -> tuple[Sequence[ProofRow], int]:
        """A part of a session's, the newest first, and how many there are."""
        mine = ProofRow.session_id == session_id
        async with self._database.reading() as session:
            found = await session.scalars(
                select(ProofRow)
                .where(mine)
                .order_by(ProofRow.id.desc())
                .limit(limit)
                .offset(offset)
            )
            total = await session.scalar(select(func.count()).where(mine))
            return found.all(), total or 0
