"""Sessions whose kernel was killed and never came back."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from sandcell import AsyncClient, AsyncSession
from sandcell_gateway.sessions.use import SETTLE, PutOff, Use, expires_at
from sandcell_gateway.store.tables import SessionRow
from tests.gateway.support import (
    PATIENCE,
    Gateway,
    alive,
    change_rows,
    hello,
    reaches,
    running_gateway,
    until,
)
from tests.support.home import Home

OF_A_KERNEL = {"client": "kernel", "notebook": "a.ipynb"}
MOMENT = datetime(2026, 1, 1, tzinfo=UTC)


def test_use() -> None:
    use = Use(MOMENT)
    use.channel(1, MOMENT + timedelta(1))
    use.execution(True, MOMENT + timedelta(2))
    use.channel(-1, MOMENT + timedelta(3))
    assert use.unused_since is None, "something runs"
    use.execution(False, MOMENT + timedelta(4))
    use.execution(False, MOMENT + timedelta(5))
    assert use.unused_since == MOMENT + timedelta(4)


@pytest.mark.parametrize(
    ("name", "labels", "expires"),
    [
        (None, OF_A_KERNEL, True),
        ("named", OF_A_KERNEL, False),
        (None, {}, False),
        (None, {"client": "mine"}, False),
    ],
)
def test_only_what_a_kernel_made_for_itself_expires(
    name: str | None, labels: dict[str, str], expires: bool
) -> None:
    row, use = SessionRow(name=name, labels=labels), Use(MOMENT)
    assert expires_at(row, use, 10) == (MOMENT + timedelta(seconds=10) if expires else None)
    use.channel(1, MOMENT)
    assert expires_at(row, use, 10) is None


async def of_a_kernel(client: AsyncClient) -> AsyncSession:
    return await client.sessions.create(metadata=OF_A_KERNEL, wait=PATIENCE)


async def expired(session: AsyncSession) -> None:
    await reaches(session, "terminated")
    assert session.reason is not None
    assert session.reason.code == "expired"


async def left_active(gateway: Gateway, session: AsyncSession) -> None:
    """Attach, begin an execution, and go."""
    async with gateway.channel(session.id) as channel:
        await channel.recv()
        await channel.send("busy")
        await channel.recv()
        await reaches(session, "active")


def an_hour_passes(gateway: Gateway, *sessions: AsyncSession) -> None:
    for session in sessions:
        keeper = gateway.service._reconciler.get(str(session.id))
        assert keeper is not None
        if keeper._use.unused_since is not None:
            keeper._use.unused_since -= timedelta(hours=1)
            keeper._wake.set()


async def reaches_unused(gateway: Gateway, session: AsyncSession) -> None:
    keeper = gateway.service._reconciler.get(str(session.id))
    assert keeper is not None
    await until(lambda: keeper._use.unused_since, "the end of its use")


async def test_one_that_nobody_uses_is_closed(fake_shims: Home) -> None:
    async with running_gateway(orphan_timeout=3600) as gateway, gateway.client() as client:
        others = [
            await client.sessions.create(wait=PATIENCE),
            await client.sessions.create(name="n", metadata=OF_A_KERNEL, wait=PATIENCE),
        ]
        runs = await of_a_kernel(client)
        await left_active(gateway, runs)
        used = await of_a_kernel(client)
        async with gateway.channel(used.id) as channel:
            await channel.recv()
            unused = await of_a_kernel(client)
            pid = (await hello(gateway, unused))["pid"]
            await reaches_unused(gateway, unused)
            an_hour_passes(gateway, *others, runs, used, unused)
            await expired(unused)
            assert not alive(pid)
            for session, status in ((runs, "active"), (used, "idle"), (others[0], "idle")):
                assert (await session.refresh()).status.value == status
                assert session.model.closes_at is None
        await reaches_unused(gateway, used)
        an_hour_passes(gateway, *others, runs, used)
        await expired(used)
        assert [one.id for one in await client.sessions.list()] == [
            runs.id,
            *(one.id for one in reversed(others)),
        ]
        async with gateway.channel(runs.id) as channel:
            await channel.recv()
            await channel.send("rest")
        await reaches_unused(gateway, runs)
        an_hour_passes(gateway, *others, runs)
        await expired(runs)
        for session in others:
            await session.close()


async def test_it_says_when_and_an_earlier_wish_counts(fake_shims: Home) -> None:
    async with running_gateway(orphan_timeout=3600) as gateway, gateway.client() as client:
        session = await of_a_kernel(client)
        closes_at = session.model.closes_at
        assert closes_at is not None
        assert timedelta(0) < closes_at - session.model.created_at <= timedelta(seconds=3600)
        await session.close(grace=0.1)
        await reaches(session, "terminated")
        assert session.reason is not None
        assert session.reason.code == "closed"


async def test_a_new_gateway_counts_on(fake_shims: Home) -> None:
    """From when it was left, or from now if it was in use when the last gateway ended."""
    async with running_gateway() as gateway, gateway.client() as client:
        left, used = await of_a_kernel(client), await of_a_kernel(client)
    change_rows(fake_shims, "sessions", unused_since="2026-01-01 00:00:00.000000")
    with closing(sqlite3.connect(fake_shims.state / "gateway.db")) as store, store:
        store.execute("UPDATE sessions SET unused_since = NULL WHERE id = ?", (str(used.id),))
    before = datetime.now(UTC)
    async with running_gateway(orphan_timeout=3600) as gateway, gateway.client() as client:
        await expired(await client.sessions.get(left.id))
        again = await client.sessions.get(used.id)
        assert again.model.closes_at is not None
        assert again.model.closes_at >= before + timedelta(seconds=3600)
        await again.close()


async def later(gateway: Gateway, session: AsyncSession) -> None:
    """All that was noted of a close that was put off is two minutes old."""
    keeper = gateway.service._reconciler.keepers[str(session.id)]
    await until(
        lambda: keeper._use.left and keeper.row.closes_at == keeper.closes_at,
        "the end of a channel, stored",
    )
    await until(lambda: not keeper._unsaved, "all that is stored")
    assert keeper.row.closes_at is not None
    ago, use, put_off = timedelta(minutes=2), keeper._use, keeper._put_off
    keeper.row.closes_at -= ago
    keeper._put_off = replace(put_off, asked=put_off.asked - ago)
    use.left = use.left - ago if use.left is not None else None
    keeper._wake.set()


async def closes_at(session: AsyncSession) -> datetime | None:
    return (await session.refresh()).model.closes_at


async def no_longer_closes(session: AsyncSession) -> None:
    async with asyncio.timeout(PATIENCE):
        while await closes_at(session) is not None:
            pass


async def test_who_is_attached_when_a_close_falls_due_keeps_the_session(fake_shims: Home) -> None:
    async with running_gateway() as gateway, gateway.client() as client:
        session = await client.sessions.create(wait=PATIENCE)
        async with gateway.channel(session.id, "client=b") as other:
            await other.recv()
            async with gateway.channel(session.id, "client=a") as leaving:
                await leaving.recv()
                await session.close(grace=60, client="a")
            await later(gateway, session)
            await no_longer_closes(session)
            await other.send("still here")
            assert await other.recv() == "still here"
        assert session.status.value == "idle"
        assert await closes_at(session) is None, "nor does its end of the line close it"
        await session.close()
        assert session.status.value == "terminated"


async def test_a_put_off_close_counts_from_when_the_last_one_went(fake_shims: Home) -> None:
    async with running_gateway() as gateway, gateway.client() as client:
        session = await client.sessions.create(wait=PATIENCE)
        async with gateway.channel(session.id, "client=a") as leaving:
            await leaving.recv()
            asked = (await session.close(grace=60)).model.closes_at
        await reaches_unused(gateway, session)
        counted = await closes_at(session)
        assert asked is not None
        assert counted is not None
        assert counted > asked
        await later(gateway, session)
        await reaches(session, "terminated")


async def test_a_leaving_client_closes_at_once_only_what_others_do_not_use(
    fake_shims: Home,
) -> None:
    async with running_gateway() as gateway, gateway.client() as client:
        session = await client.sessions.create(wait=PATIENCE)
        async with gateway.channel(session.id, "client=a") as mine:
            await mine.recv()
            async with gateway.channel(session.id, "client=b") as other:
                await other.recv()
                await session.close(client="a")
                assert (session.status.value, session.model.closes_at) == ("idle", None)
            await until(
                lambda: not gateway.service._reconciler.keepers[str(session.id)].attached(but="a"),
                "the end of the other",
            )
            await session.close(client="a")
            assert session.status.value == "terminated"


async def test_an_explicit_close_asks_nobody(fake_shims: Home) -> None:
    async with running_gateway() as gateway, gateway.client() as client:
        session = await client.sessions.create(wait=PATIENCE)
        async with gateway.channel(session.id, "client=b") as other:
            await other.recv()
            await session.close()
            assert session.status.value == "terminated"


def test_who_asks_for_a_close_has_a_moment_to_go() -> None:
    use, put_off = Use(MOMENT), PutOff(MOMENT, timedelta(seconds=1))
    due = MOMENT + timedelta(seconds=1)
    use.channel(1, MOMENT, "a")
    assert put_off.withdrawn(due, use) == MOMENT + SETTLE
    assert replace(put_off, client="a").withdrawn(due, use) is None
    use.channel(-1, due, "a")
    assert put_off.withdrawn(due, use) is None
    assert put_off.due(due, use) == MOMENT + timedelta(seconds=2)


async def test_who_was_attached_to_the_last_gateway_has_time_to_come_back(
    fake_shims: Home,
) -> None:
    async with running_gateway() as gateway, gateway.client() as client:
        session = await client.sessions.create(wait=PATIENCE)
    past = "2026-01-01 00:00:00.000000"
    change_rows(fake_shims, "sessions", closes_at=past, unused_since=None)
    async with running_gateway() as gateway, gateway.client() as client:
        async with gateway.channel(session.id, "client=b") as other:
            await other.recv()
            session = await client.sessions.get(session.id)
            assert (session.status.value, session.model.closes_at) == ("idle", None)
        await session.close()
