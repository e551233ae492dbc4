"""Sessions are kept: through dead shims, dead gateways and put-off closes."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import sqlite3
import uuid
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import cast

import pytest

from sandcell import AsyncClient, AsyncSession, ConflictError, HostDisconnected, SessionExpiredError
from sandcell_gateway.sessions import keeper, service
from sandcell_gateway.sessions.places import Places
from sandcell_gateway.sessions.view import follow
from sandcell_gateway.settings import load
from sandcell_gateway.shim.spec import SANDBOX_FILE, SPEC_FILE
from sandcell_gateway.store.sessions import SessionStore
from sandcell_gateway.store.tables import SessionRow
from sandcell_wire.states import FINAL, IllegalTransition, Status
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


async def test_idle_and_active_are_seen_but_not_stored(
    gateway: Gateway, client: AsyncClient
) -> None:
    session = await client.sessions.create(wait=PATIENCE)
    async with gateway.channel(session.id) as channel:
        await channel.recv()
        await channel.send("busy")
        await channel.recv()
        await reaches(session, "active")
        assert [s.id for s in await client.sessions.list(status=["active"])] == [session.id]
        assert await client.sessions.list(status=["idle"]) == []
    with closing(sqlite3.connect(gateway.settings.state_dir / "gateway.db")) as store:
        assert store.execute("SELECT status FROM sessions").fetchall() == [("idle",)]


async def test_a_killed_shim_is_replaced(gateway: Gateway, client: AsyncClient) -> None:
    session = await client.sessions.create(wait=PATIENCE)
    first = await hello(gateway, session)
    os.kill(first["pid"], signal.SIGKILL)
    await until(lambda: not alive(first["pid"]), "the shim's end")
    second = await hello(gateway, session)
    assert second["adopted"]
    assert second["pid"] != first["pid"]
    await reaches(session, "idle")
    await session.close()
    await until(lambda: not alive(second["pid"]), "the second shim's end")


async def test_a_shim_that_keeps_crashing_is_given_up(
    gateway: Gateway, client: AsyncClient
) -> None:
    session = await client.sessions.create(env={"FAKE_SHIM": "crash"}, wait=PATIENCE)
    await reaches(session, "error")
    assert session.reason is not None
    assert session.reason.code == "shim_crashed"
    assert "3 times" in session.reason.text
    log = gateway.state(session.id) / "shim.log"
    assert log.read_text().count("crashed as asked") == 3
    with pytest.raises(HostDisconnected, match="supervisor"):
        await session.interrupt()
    await session.restart()
    assert session.status.value == "error"
    assert log.read_text().count("crashed as asked") == 6, "a restart tries again"
    await session.close()
    assert session.status is Status.TERMINATED


async def test_a_failed_interpreter_can_be_restarted(client: AsyncClient) -> None:
    session = await client.sessions.create(env={"FAKE_SHIM": "fail"}, wait=PATIENCE)
    assert (session.status, session.reason and session.reason.text) == (Status.ERROR, "it failed")
    await session.restart()
    assert (session.status, session.reason) == (Status.IDLE, None)


async def test_a_deaf_shim_is_ended_on_close(
    client: AsyncClient, gateway: Gateway, log: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is killed, and no other one is started, which would be deaf as well."""
    monkeypatch.setattr(keeper, "CLOSE_TIMEOUT", 0.3)
    monkeypatch.setattr(service, "INTERRUPT_TIMEOUT", 0.2)
    session = await client.sessions.create(env={"FAKE_SHIM": "deaf"}, wait=PATIENCE)
    pid = (await hello(gateway, session))["pid"]
    with pytest.raises(HostDisconnected, match="did not answer"):
        await session.interrupt()
    monkeypatch.setattr(service, "CLOSE_WAIT", 0.05)
    await session.close()
    assert session.status is not Status.TERMINATED, "an unfinished close is not called finished"
    await reaches(session, "terminated")
    assert not alive(pid)
    assert log.getvalue().count('"shim started"') == 1


async def test_a_close_can_be_put_off(client: AsyncClient) -> None:
    session = await client.sessions.create(wait=PATIENCE)
    await session.close(grace=0.3)
    assert session.status is Status.IDLE
    assert session.model.closes_at is not None
    await reaches(session, "terminated")


async def test_a_new_gateway_finds_sessions_shims_and_put_off_closes(fake_shims: Home) -> None:
    async with running_gateway() as gateway, gateway.client() as client:
        stays = await client.sessions.create(name="stays", wait=PATIENCE)
        later = await client.sessions.create(wait=PATIENCE)
        soon = await client.sessions.create(wait=PATIENCE)
        before = await hello(gateway, stays)
        await later.close(grace=3600)
        await soon.close(grace=0.5)
        ids = stays.id, later.id, soon.id
    assert alive(before["pid"]), "shims outlive the gateway"
    await asyncio.sleep(0.6)
    async with running_gateway() as gateway, gateway.client() as client:
        stays, later, soon = [await client.sessions.get(one) for one in ids]
        await reaches(soon, "terminated")
        assert later.model.closes_at is not None
        assert await hello(gateway, stays) == before, "the same shim"
        await later.close()
        await stays.close()
    assert not alive(before["pid"])


async def test_a_session_whose_shim_died_with_the_gateway(fake_shims: Home) -> None:
    async with running_gateway() as gateway, gateway.client() as client:
        session = await client.sessions.create(wait=PATIENCE)
        pid = (await hello(gateway, session))["pid"]
    os.kill(pid, signal.SIGKILL)
    await until(lambda: not alive(pid), "the shim's end")
    async with running_gateway() as gateway, gateway.client() as client:
        session = await client.sessions.get(session.id)
        assert (await hello(gateway, session))["adopted"]
        await session.close()


async def test_a_shim_that_nobody_had_noted_is_found(fake_shims: Home) -> None:
    """The gateway died between starting it and storing its process."""
    async with running_gateway() as gateway, gateway.client() as client:
        session = await client.sessions.create(wait=PATIENCE)
        before = await hello(gateway, session)
    change_rows(fake_shims, "sessions", shim=None)
    async with running_gateway() as gateway, gateway.client() as client:
        session = await client.sessions.get(session.id)
        assert await hello(gateway, session) == before
        await session.close()


async def test_after_a_reboot_the_host_is_lost(fake_shims: Home) -> None:
    async with running_gateway() as gateway, gateway.client() as client:
        session = await client.sessions.create(wait=PATIENCE)
        pid = (await hello(gateway, session))["pid"]
        state = gateway.state(session.id)
    os.kill(pid, signal.SIGKILL)
    stored = {"pid": pid, "start_time": 1, "boot_id": "another boot"}
    change_rows(fake_shims, "sessions", shim=json.dumps(stored))
    async with running_gateway() as gateway, gateway.client() as client:
        session = await client.sessions.get(session.id)
        await reaches(session, "error")
        assert session.reason is not None
        assert session.reason.code == "host_lost"
        (state / "workspace" / "kept").write_text("x")
        await session.restart()
        assert session.status is Status.IDLE
        assert not (await hello(gateway, session))["adopted"], "the sandbox went with the machine"
        assert (state / "workspace" / "kept").exists()
        await session.close()


async def test_a_create_cut_short_says_so(fake_shims: Home) -> None:
    async with running_gateway() as gateway, gateway.client() as client:
        session = await client.sessions.create(wait=PATIENCE)
        pid = (await hello(gateway, session))["pid"]
        state = gateway.state(session.id)
    os.kill(pid, signal.SIGKILL)
    (state / SPEC_FILE).unlink()
    (state / SANDBOX_FILE).unlink()
    change_rows(fake_shims, "sessions", shim=None, status="initializing")
    async with running_gateway() as gateway, gateway.client() as client:
        session = await client.sessions.get(session.id)
        await reaches(session, "error")
        assert session.reason is not None
        assert session.reason.code == "start_failed"
        await session.close()


async def test_directories_without_a_session_are_removed(fake_shims: Home) -> None:
    async with running_gateway() as gateway:
        strays = [
            gateway.settings.state_dir / "sessions" / str(uuid.uuid4()),
            gateway.settings.runtime_dir / "s" / ("0" * 16),
        ]
    for stray in strays:
        (stray / "k").mkdir(parents=True)
    async with running_gateway():
        assert [stray for stray in strays if stray.exists()] == []


async def test_old_closed_sessions_are_forgotten(fake_shims: Home) -> None:
    async with running_gateway() as gateway, gateway.client() as client:
        session = await client.sessions.create(wait=PATIENCE)
        await session.close()
        assert len(await client.sessions.list(status=["terminated"])) == 1
    async with running_gateway(keep_closed=0) as gateway, gateway.client() as client:
        async with asyncio.timeout(PATIENCE):
            for _ in count():
                if not await client.sessions.list(status=["terminated"]):
                    break
                await asyncio.sleep(0.02)


async def test_many_at_once(client: AsyncClient, gateway: Gateway) -> None:
    """Uids and names stay unique, and all end."""
    made = await asyncio.gather(
        *(client.sessions.create(wait=PATIENCE) for _ in range(6)),
        *(client.sessions.create(name="same", wait=PATIENCE) for _ in range(3)),
        return_exceptions=True,
    )
    sessions = [one for one in made if isinstance(one, AsyncSession)]
    refused = [one for one in made if not isinstance(one, AsyncSession)]
    assert (len(sessions), [type(one) for one in refused]) == (7, [ConflictError] * 2)
    if os.getuid() == 0:
        owners = {(gateway.state(one.id) / "workspace").stat().st_uid for one in sessions}
        assert len(owners) == 7
        assert 0 not in owners
    await asyncio.gather(*(one.close() for one in sessions))
    await until(lambda: gateway.service.live == 0, "the end of all keepers")


async def test_the_shim_inherits_no_secrets(
    gateway: Gateway, client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SANDCELL_TOKEN", "secret")
    monkeypatch.setenv("SANDCELL_WEBHOOK_SECRET", "secret")
    monkeypatch.setenv("SANDCELL_JWT_SECRET", "secret")
    monkeypatch.setenv("JPY_PARENT_PID", "1")
    session = await client.sessions.create(wait=PATIENCE, env={"MINE": "1"})
    async with gateway.channel(session.id) as channel:
        await channel.recv()
        await channel.send("env")
        environ = json.loads(await channel.recv())
    assert not {"SANDCELL_TOKEN", "JPY_PARENT_PID", "MINE"} & environ.keys()
    assert not {"SANDCELL_WEBHOOK_SECRET", "SANDCELL_JWT_SECRET"} & environ.keys()
    spec: Path = gateway.state(session.id) / SPEC_FILE
    assert spec.stat().st_mode & 0o077 == 0


async def test_nothing_can_be_done_with_a_closed_session(client: AsyncClient) -> None:
    session = await client.sessions.create(wait=PATIENCE)
    await session.close()
    with pytest.raises(SessionExpiredError, match="terminated: closed on request"):
        await session.restart()


@pytest.mark.parametrize("known", [s for s in Status if s not in FINAL])
@pytest.mark.parametrize(
    "reported", [Status.INITIALIZING, Status.IDLE, Status.ACTIVE, Status.ERROR, Status.TERMINATED]
)
def test_any_report_of_a_live_session_can_be_followed(known: Status, reported: Status) -> None:
    assert follow(known, reported) is reported


@pytest.mark.parametrize("known", sorted(FINAL))
def test_a_final_session_stays_final(known: Status) -> None:
    with pytest.raises(IllegalTransition):
        follow(known, Status.INITIALIZING)


def test_a_session_in_error_is_not_given_up_before_its_shim_was_looked_for(home: Home) -> None:
    """Its supervisor may be alive, and know how its jobs ended."""
    settings = load()
    row = SessionRow(
        id="12345678-1234-4234-8234-123456789abc",
        status="error",
        desired="running",
        interpreter="0" * 32,
        unused_since=None,
    )
    store, places = cast("SessionStore", None), Places.of(settings, row.id)

    def given_up(*, recovered: bool) -> bool:
        made = keeper.Keeper(row, store, places, recovered=recovered, orphan_timeout=60)
        return made.given_up

    assert given_up(recovered=False)
    assert not given_up(recovered=True)
