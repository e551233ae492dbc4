"""Sessions in numbers."""

from __future__ import annotations

import platform
from typing import NoReturn

import httpx
import pytest

from sandcell import AsyncClient, __version__
from sandcell_gateway.clock import now
from sandcell_gateway.errors import EngineUnavailable
from sandcell_gateway.sessions import engines
from sandcell_wire.states import Status
from tests.gateway.support import PATIENCE, Gateway, running_gateway
from tests.support.home import Home


async def test_what_there_is(gateway: Gateway, client: AsyncClient) -> None:
    assert set((await client.stats()).sessions.items()) == {(status, 0) for status in Status}
    await (await client.sessions.create()).close()
    await client.sessions.create(wait=PATIENCE)
    await client.sessions.create(env={"FAKE_SHIM": "slow"})
    busy = await client.sessions.create(wait=PATIENCE)
    async with gateway.channel(busy.id) as channel:
        await channel.send("busy")
        await busy.wait_for("active", timeout=PATIENCE)
        found = await client.stats()
    counted = {status.value: number for status, number in found.sessions.items() if number}
    assert counted == {"idle": 1, "active": 1, "initializing": 1, "terminated": 1}
    assert found.engine is not None
    assert (found.engine.name, found.engine.isolated, found.engine_problem) == (
        "process",
        False,
        None,
    )
    assert found.limits == busy.limits
    assert found.versions == {"sandcell": __version__, "python": platform.python_version()}
    assert found.started_at < now()


async def test_sessions_of_others_are_not_counted(gateway: Gateway, client: AsyncClient) -> None:
    await client.sessions.create()
    transport = httpx.AsyncHTTPTransport(uds=str(gateway.socket))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as other:
        answer = await other.get("/v1/stats")
    assert sum(answer.json()["sessions"].values()) == 0


async def test_a_machine_that_makes_no_sandboxes(
    fake_shims: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: engines.EngineChoice) -> NoReturn:
        raise EngineUnavailable("no namespaces here")

    monkeypatch.setattr(engines.EngineChoice, "_choose", fail)
    async with running_gateway() as gateway, gateway.client() as client:
        found = await client.stats()
    assert (found.engine, found.engine_problem) == (None, "no namespaces here")
