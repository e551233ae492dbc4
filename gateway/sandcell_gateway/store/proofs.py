"""The rows of signed statements."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker

from sandcell_gateway.store.tables import ProofRow


class ProofStore:
    """Rows of `proofs`. Every method is one transaction."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._open = async_sessionmaker(engine, expire_on_commit=False)

    async def find(self, session_id: str, seq: int, chain: str, key_id: str) -> ProofRow | None:
        """The statement of this key that says just this."""
        async with self._open() as database:
            return await database.scalar(
                select(ProofRow).where(
                    ProofRow.session_id == session_id,
                    ProofRow.seq == seq,
                    ProofRow.chain == chain,
                    ProofRow.key_id == key_id,
                )
            )

    async def add(self, row: ProofRow) -> None:
        """Insert."""
        async with self._open.begin() as database:
            database.add(row)

    async def all(self, session_id: str) -> Sequence[ProofRow]:
        """A session's, in the order in which they were signed."""
        async with self._open() as database:
            found = await database.scalars(
                select(ProofRow).where(ProofRow.session_id == session_id).order_by(ProofRow.id)
            )
            return found.all()

    async def page(
        self, session_id: str, limit: int, offset: int
    ) -> tuple[Sequence[ProofRow], int]:
        """A part of a session's, the newest first, and how many there are."""
        mine = ProofRow.session_id == session_id
        async with self._open() as database:
            found = await database.scalars(
                select(ProofRow)
                .where(mine)
                .order_by(ProofRow.id.desc())
                .limit(limit)
                .offset(offset)
            )
            total = await database.scalar(select(func.count()).where(mine))
            return found.all(), total or 0
