"""A request that is sent again is not done again, also after a kill -9."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncGenerator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from sandcell import AsyncClient, RequestInvalid
from sandcell_gateway import idempotency
from sandcell_gateway.errors import GatewayError, KeyReused, RequestInFlight
from sandcell_gateway.idempotency import IdempotencyKeys, Keyed
from sandcell_gateway.shim.spec import SANDBOX_FILE, SPEC_FILE
from sandcell_gateway.store.database import open_database
from sandcell_gateway.store.idempotency import KeyStore
from sandcell_wire.models import SessionCreate, SessionRestart
from tests.gateway.support import (
    PATIENCE,
    TOKEN,
    Gateway,
    change_rows,
    hello,
    reaches,
    running_gateway,
)
from tests.support.home import Home

REQUEST = Keyed("owner", "POST /x", "key", SessionCreate(name="n"))
OTHER_BODY = Keyed("owner", "POST /x", "key", SessionCreate(name="m"))


@pytest.fixture
async def store(tmp_path: Path) -> AsyncGenerator[KeyStore]:
    async with open_database(tmp_path / "gateway.db") as database:
        yield KeyStore(database)


class Maker:
    """Makes answers that tell under which id and how often it was called."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.failure: Exception | None = None

    async def __call__(self, id: str) -> SessionRestart:
        self.ids.append(id)
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        return SessionRestart(interpreter=id)


async def test_a_repeat_gets_the_first_answer(store: KeyStore) -> None:
    make = Maker()
    keys = IdempotencyKeys(store)
    first = await keys.once(REQUEST, SessionRestart, make)
    again = await IdempotencyKeys(store).once(REQUEST, SessionRestart, make)
    assert first == again
    assert len(make.ids) == 1
    for other in (
        Keyed("another", "POST /x", "key", REQUEST.body),
        Keyed("owner", "POST /y", "key", REQUEST.body),
        Keyed("owner", "POST /x", "other", REQUEST.body),
        Keyed("owner", "POST /x", None, REQUEST.body),
        Keyed("owner", "POST /x", None, REQUEST.body),
    ):
        assert await keys.once(other, SessionRestart, make) != first
    with pytest.raises(KeyReused):
        await keys.once(OTHER_BODY, SessionRestart, make)
    assert len(set(make.ids)) == len(make.ids) == 6


async def test_while_the_first_is_being_done(store: KeyStore) -> None:
    make, keys = Maker(), IdempotencyKeys(store)
    make.gate.clear()
    first = asyncio.create_task(keys.once(REQUEST, SessionRestart, make))
    async with asyncio.timeout(PATIENCE):
        while not make.ids:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    with pytest.raises(RequestInFlight):
        await keys.once(REQUEST, SessionRestart, make)
    with pytest.raises(KeyReused):
        await keys.once(OTHER_BODY, SessionRestart, make)
    make.gate.set()
    assert (await first).interpreter == make.ids[0]
    assert await keys.once(REQUEST, SessionRestart, make) == await first


@pytest.mark.parametrize("how", [asyncio.CancelledError(), ZeroDivisionError()])
async def test_what_was_cut_short_goes_on_under_the_same_id(
    store: KeyStore, how: BaseException
) -> None:
    make, keys = Maker(), IdempotencyKeys(store)
    make.failure = how  # type: ignore[assignment]
    with pytest.raises(type(how)):
        await keys.once(REQUEST, SessionRestart, make)
    make.failure = None
    assert (await keys.once(REQUEST, SessionRestart, make)).interpreter == make.ids[0]
    assert make.ids == [make.ids[0]] * 2


async def test_a_refusal_uses_up_no_key(store: KeyStore) -> None:
    make, keys = Maker(), IdempotencyKeys(store)
    make.failure = GatewayError("no")
    with pytest.raises(GatewayError, match="no"):
        await keys.once(REQUEST, SessionRestart, make)
    make.failure = None
    await keys.once(OTHER_BODY, SessionRestart, make)
    assert make.ids[0] != make.ids[1]


async def test_keys_are_forgotten_in_time(store: KeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    make, keys = Maker(), IdempotencyKeys(store)
    await keys.once(REQUEST, SessionRestart, make)
    monkeypatch.setattr(idempotency, "KEPT", timedelta(seconds=-1))
    await keys.once(OTHER_BODY, SessionRestart, make)
    assert len(make.ids) == 2


async def post(gateway: Gateway, body: dict[str, Any], key: str, wait: int = 0) -> httpx.Response:
    headers = {
        "Authorization": f"Bearer {TOKEN}",
        "Idempotency-Key": key,
        "Prefer": f"wait={wait}",
    }
    async with httpx.AsyncClient(base_url=gateway.url, headers=headers, timeout=30) as http:
        return await http.post("/v1/sessions", json=body)


async def test_create_with_a_key(gateway: Gateway, client: AsyncClient) -> None:
    first = await post(gateway, {"name": "n", "env": {"A": "1", "B": "2"}}, "k")
    again = await post(gateway, {"env": {"B": "2", "A": "1"}, "name": "n"}, "k", wait=20)
    assert (first.status_code, again.status_code) == (200, 200)
    assert first.json()["id"] == again.json()["id"]
    assert again.json()["status"] == "idle", "a repeat shows the session as it is now"
    other = await post(gateway, {"name": "other"}, "k")
    assert (other.status_code, other.json()["code"]) == (422, "validation_error")
    assert (await post(gateway, {}, "not a key")).status_code == 422
    assert len(await client.sessions.list()) == 1
    await client.sessions.create(idempotency_key="mine", name="m")
    with pytest.raises(RequestInvalid, match="Idempotency-Key"):
        await client.sessions.create(idempotency_key="mine", name="o")
    await client.sessions.create()
    await client.sessions.create()
    assert len(await client.sessions.list()) == 4


async def test_a_create_that_a_kill_cut_short_is_completed(fake_shims: Home) -> None:
    """The row was stored, the shim's spec was not: what only a kill -9 can leave."""
    async with running_gateway() as gateway, gateway.client() as client:
        session = await client.sessions.create(idempotency_key="k", wait=PATIENCE)
        pid = (await hello(gateway, session))["pid"]
        state = gateway.state(session.id)
    os.kill(pid, signal.SIGKILL)
    (state / SPEC_FILE).unlink()
    (state / SANDBOX_FILE).unlink()
    change_rows(fake_shims, "sessions", shim=None, status="initializing")
    change_rows(fake_shims, "idempotency_keys", answer=None)
    async with running_gateway() as gateway, gateway.client() as client:
        await reaches(await client.sessions.get(session.id), "error")
        again = await client.sessions.create(idempotency_key="k", wait=PATIENCE)
        assert (again.id, again.status.value) == (session.id, "idle")
        await again.close()
        late = await client.sessions.create(idempotency_key="k")
        assert (late.id, late.status.value) == (session.id, "terminated")
