"""No route lets anybody in who may not: a walk over all that the gateway offers."""

from __future__ import annotations

import asyncio
import importlib
import json
import pkgutil
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from fastapi import APIRouter
from starlette.routing import WebSocketRoute
from websockets.exceptions import ConnectionClosedError, InvalidStatus

from sandcell import AsyncClient, AsyncSession, AuthenticationError, Scope
from sandcell_gateway import routes
from sandcell_gateway.access.guard import PUBLIC
from sandcell_gateway.clock import now
from sandcell_gateway.engines import registry
from tests.gateway.support import PATIENCE, Gateway, running_gateway, until
from tests.support.home import Home
from tests.support.openapi import Call, calls

SESSION = "{session_id}"


@dataclass
class Real:
    """A gateway with a session in a real sandbox."""

    gateway: Gateway
    session: AsyncSession

    @property
    def calls(self) -> Sequence[Call]:
        """One for each operation."""
        known = {"session_id": str(self.session.id), "path": "file.txt"}
        return [*calls(self.gateway.app.openapi(), known)]

    async def token(self, owner: str, *scopes: str, **options: Any) -> str:
        """A new one."""
        async with self.gateway.client() as client:
            made = await client.tokens.create("t", owner=owner, scopes=scopes, **options)
        return made.token

    async def answers(self, token: str, chosen: Iterable[Call]) -> dict[str, tuple[int, str]]:
        """Status and code that each of these calls brings."""
        headers = {"Authorization": f"Bearer {token}"}
        found: dict[str, tuple[int, str]] = {}
        async with httpx.AsyncClient(
            base_url=self.gateway.url, headers=headers, timeout=PATIENCE
        ) as http:
            for call in chosen:
                async with http.stream(call.method, call.url, **call.options) as answer:
                    # A stream of events would not end.
                    is_problem = "problem+json" in answer.headers.get("content-type", "")
                    problem = json.loads(await answer.aread()) if is_problem else {}
                found[str(call)] = (answer.status_code, problem.get("code", ""))
        return found


def channel_paths() -> Collection[str]:
    """Those of WebSockets, which OpenAPI does not know."""
    modules = [
        importlib.import_module(found.name)
        for found in pkgutil.iter_modules(routes.__path__, f"{routes.__name__}.")
    ]
    routers: list[APIRouter] = [m.router for m in modules if hasattr(m, "router")]
    return [
        route.path
        for router in routers
        for route in router.routes
        if isinstance(route, WebSocketRoute)
    ]


def engine() -> str:
    """One that works here and may be used."""
    for name in ("bubblewrap", "process"):
        if registry.load(name).probe().works:
            return name
    pytest.skip("no engine works here")


@pytest.fixture
async def real(home: Home) -> AsyncGenerator[Real]:
    async with running_gateway(engine=engine()) as gateway, gateway.client() as client:
        session = await client.sessions.create(wait=60)
        assert session.status.value == "idle", session.reason
        await session.files.write("file.txt", "mine")
        yield Real(gateway, session)
        await session.close()


@pytest.mark.linux
async def test_every_route(real: Real) -> None:
    """One after the other, because a real session takes seconds to make."""
    await another_owner(real)
    await expired_and_revoked(real)
    await reading_only(real)
    await running_only(real)
    assert (await real.session.refresh()).status.value == "idle"
    assert await real.session.files.read_text("file.txt") == "mine"
    assert not (await real.session.history()).executions


async def another_owner(real: Real) -> None:
    chosen = [call for call in real.calls if SESSION in call.path]
    assert {call.method for call in chosen} >= {"GET", "POST", "PUT", "DELETE"}
    found = await real.answers(await real.token("mallory", "admin"), chosen)
    assert found == dict.fromkeys(map(str, chosen), (404, "session_not_found"))
    assert channel_paths() == [f"/v1/sessions/{SESSION}/channels"]
    token = await real.token("mallory", "admin")
    async with real.gateway.channel(real.session.id, token=token) as channel:
        with pytest.raises(ConnectionClosedError):
            await channel.recv()
        assert (channel.close_code, channel.close_reason) == (4404, "session_not_found")


async def expired_and_revoked(real: Real) -> None:
    chosen = [call for call in real.calls if call.path not in PUBLIC]
    assert len(chosen) == len(real.calls) - 1
    expired = await real.token("token", "admin", expires_in=0.001)
    revoked = await real.token("token", "admin")
    async with real.gateway.client() as client:
        last, first = (await client.tokens.list())[:2]
        assert first.expires_at is not None
        ends = first.expires_at
        await until(lambda: now() >= ends, "the token's end")
        await client.tokens.revoke(last.id)
    for token, word in ((expired, "expired"), (revoked, "revoked")):
        found = await real.answers(token, chosen)
        assert found == dict.fromkeys(map(str, chosen), (401, "unauthorized")), word
        await refused(real, token, 401, word)


async def reading_only(real: Real) -> None:
    token = await real.token("token", "read")
    chosen = [call for call in real.calls if call.path not in PUBLIC]
    changing = [call for call in chosen if call.method != "GET" or "tokens" in call.path]
    found = await real.answers(token, changing)
    assert found == dict.fromkeys(map(str, changing), (403, "forbidden"))
    looking = [call for call in chosen if call not in changing]
    found = await real.answers(token, looking)
    assert {call: status for call, (status, _) in found.items() if status in (401, 403)} == {}
    assert found[f"GET /v1/sessions/{SESSION}"] == (200, "")
    await refused(real, token, 403, "run")


async def running_only(real: Real) -> None:
    token = await real.token("token", "run")
    admin = [call for call in real.calls if "tokens" in call.path]
    assert len(admin) >= 3
    found = await real.answers(token, admin)
    assert found == dict.fromkeys(map(str, admin), (403, "forbidden"))
    async with real.gateway.channel(real.session.id, token=token) as channel:
        assert json.loads(await channel.recv())["type"] == "hello"


async def refused(real: Real, token: str, status: int, word: str) -> None:
    """The channel."""
    with pytest.raises(InvalidStatus) as caught:
        async with real.gateway.channel(real.session.id, token=token):
            pass
    assert caught.value.response.status_code == status
    assert word in json.loads(caught.value.response.body)["detail"]


FOREVER = {"code": "import time; print('begun', flush=True); time.sleep(3600)"}
BIG = 64 << 20


@pytest.mark.linux
async def test_what_is_open_ends_with_its_token(real: Real) -> None:
    await execution_ends(real)
    await real.session.interrupt()
    await download_ends(real)
    await upload_ends(real)


async def execution_ends(real: Real) -> None:
    token = await real.token("token", "run")
    headers = {"Authorization": f"Bearer {token}", "Accept": "application/x-ndjson"}
    url = f"{real.gateway.url}/v1/sessions/{real.session.id}/code"
    async with (
        httpx.AsyncClient(timeout=PATIENCE) as http,
        http.stream("POST", url, headers=headers, json=FOREVER) as answer,
        AsyncClient(real.gateway.url, token) as client,
    ):
        assert answer.status_code == 200
        lines = answer.aiter_lines()
        while json.loads(await anext(lines))["type"] != "output":
            pass
        running = json.loads((await http.get(url[:-4] + "history", headers=headers)).text)
        name = running["executions"][0]["id"]
        session = await client.sessions.get(real.session.id)
        execution = asyncio.create_task(session.execute(FOREVER["code"], id=name))
        await revoke(real)
        last = json.loads([line async for line in lines if line][-1])
        assert (last["type"], last["problem"]["code"]) == ("failed", "unauthorized")
        assert last["problem"]["hint"]
        with pytest.raises(AuthenticationError, match="revoked"):
            await execution


async def revoke(real: Real) -> None:
    """The newest token."""
    async with real.gateway.client() as client:
        await client.tokens.revoke((await client.tokens.list(limit=1))[0].id)


async def download_ends(real: Real) -> None:
    await real.session.files.write("big", b"x" * BIG)
    token = await real.token("token", "read")
    url = f"{real.gateway.url}/v1/sessions/{real.session.id}/files/big"
    headers = {"Authorization": f"Bearer {token}"}
    async with (
        httpx.AsyncClient(timeout=PATIENCE) as http,
        http.stream("GET", url, headers=headers) as answer,
    ):
        pieces = answer.aiter_raw()
        await anext(pieces)
        await revoke(real)
        with pytest.raises(httpx.RemoteProtocolError):
            await read_on(pieces)


async def read_on(pieces: AsyncIterator[bytes]) -> None:
    async for _ in pieces:
        pass


async def upload_ends(real: Real) -> None:
    token = await real.token("token", Scope.RUN)
    url = f"{real.gateway.url}/v1/sessions/{real.session.id}/files/upload"

    async def pieces() -> AsyncGenerator[bytes]:
        yield b"x"
        await revoke(real)
        yield b"y"

    async with httpx.AsyncClient(timeout=PATIENCE) as http:
        headers = {"Authorization": f"Bearer {token}"}
        answer = await http.put(url, headers=headers, content=pieces())
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
    names = [found.path for found in await real.session.files.list()]
    assert "upload" not in names
