"""Sessions as programs find and change them: both forms of the SDK against a gateway."""

from __future__ import annotations

import asyncio

import pytest

from sandcell import AsyncClient, Client, ConflictError, RequestInvalid, SessionExpiredError
from tests.gateway.support import TOKEN, Gateway


async def test_update(client: AsyncClient) -> None:
    session = await client.sessions.create(name="one", metadata={"team": "a"})
    await session.update(metadata={"team": None, "type": "notebook"})
    assert (session.name, session.model.metadata) == ("one", {"type": "notebook"})
    await session.update(name="two")
    assert (session.name, session.model.metadata) == ("two", {"type": "notebook"})
    other = await client.sessions.create(name="other")
    with pytest.raises(ConflictError, match="'other'"):
        await session.update(name="other")
    with pytest.raises(RequestInvalid, match=r"^name: expected 1 to 64"):
        await session.update(name="a b")
    await other.close()
    await session.update(name="other")
    assert (await session.update(name=None)).name is None
    with pytest.raises(SessionExpiredError):
        await other.update(name="late")


async def test_iterate_takes_all_pages(client: AsyncClient, gateway: Gateway) -> None:
    for name in "abcde":
        kind = "vowel" if name in "ae" else "consonant"
        await client.sessions.create(name=name, metadata={"type": kind})
    found = [s.name async for s in client.sessions.iterate(order_by="name", page=2)]
    assert found == ["a", "b", "c", "d", "e"]
    assert [s.name for s in await client.sessions.list(type="vowel", order_by="-name")] == [
        "e",
        "a",
    ]
    assert [s.name for s in await client.sessions.list(search="cons", limit=1)] == ["d"]

    def twin() -> list[str | None]:
        with Client(gateway.url, TOKEN) as other:
            pages = other.sessions.iterate(type="consonant", order_by="name", page=1)
            return [session.name for session in pages]

    assert await asyncio.to_thread(twin) == ["b", "c", "d"]


async def test_iterating_gives_none_twice(client: AsyncClient) -> None:
    """The newest come first: one that is made meanwhile pushes the others to the next page."""
    for name in ("a", "b", "c"):
        await client.sessions.create(name=name)
    found: list[str | None] = []
    async for session in client.sessions.iterate(page=2):
        if not found:
            await client.sessions.create(name="d")
        found.append(session.name)
    assert found == ["c", "b", "a"]
