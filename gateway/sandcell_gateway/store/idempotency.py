"""The rows behind `Idempotency-Key`."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import delete, update

from sandcell_gateway.store.database import Database
from sandcell_gateway.store.tables import KeyRow


class KeyPlace(NamedTuple):
    """What a key is unique in."""

    owner: str
    route: str
    key: str


class KeyStore:
    """Rows of `idempotency_keys`. Every method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin(self, new: KeyRow, expired: datetime) -> KeyRow:
        """The row at its place: what an earlier request noted, else `new`.

        Rows that were noted before `expired` are forgotten first.
        """
        async with self._database.writing() as session:
            await session.execute(delete(KeyRow).where(KeyRow.created_at < expired))
            row = await session.get(KeyRow, KeyPlace(new.owner, new.route, new.key))
            if row is None:
                row = new
                session.add(row)
            return row

    async def finish(self, place: KeyPlace, answer: dict[str, Any]) -> None:
        """Note the answer."""
        async with self._database.writing() as session:
            await session.execute(update(KeyRow).where(*_at(place)).values(answer=answer))

    async def forget(self, place: KeyPlace) -> None:
        """As if the key had not been used."""
        async with self._database.writing() as session:
            await session.execute(delete(KeyRow).where(*_at(place)))


def _at(place: KeyPlace) -> tuple[Any, ...]:
    return KeyRow.owner == place.owner, KeyRow.route == place.route, KeyRow.key == place.key
