"""Gateways for tests: in this process or as a program, with shims that have no sandbox."""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from websockets.asyncio.client import ClientConnection, connect

from sandcell import AsyncClient, AsyncSession
from sandcell_gateway import paths
from sandcell_gateway.app import create_app
from sandcell_gateway.auth import Authenticator
from sandcell_gateway.server import Server, listen_tcp, listen_unix, make_server
from sandcell_gateway.sessions.service import SessionService
from sandcell_gateway.settings import GatewaySettings, load
from sandcell_wire.frames import SUBPROTOCOL
from tests.support.home import Home

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "a-token-for-tests-only"
FAKE_SHIM = "tests.gateway.fake_shim"
PATIENCE = 20.0
"""Seconds that a test waits for what must happen; only a failing test waits so long."""

RUN_FAKED = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from sandcell_gateway.sessions import engines, processes
processes.SHIM_MODULE = {FAKE_SHIM!r}
engines.EngineChoice._choose = lambda self: engines.Chosen("process", False)
sys.argv[0] = "sandcell"
from sandcell.cli import main
main()
"""
"""The program `sandcell` whose gateway uses fake shims."""


@dataclass
class Gateway:
    """A gateway that serves on TCP and on a Unix socket."""

    app: FastAPI
    server: Server
    settings: GatewaySettings
    url: str
    socket: Path

    @property
    def service(self) -> SessionService:
        service: SessionService = self.app.state.service
        return service

    def client(self, token: str = TOKEN) -> AsyncClient:
        return AsyncClient(self.url, token)

    def state(self, session_id: object) -> Path:
        return self.settings.state_dir / paths.SESSIONS / str(session_id)

    @asynccontextmanager
    async def channel(
        self, session_id: object, query: str = "client=c", *, token: str = TOKEN, **options: Any
    ) -> AsyncGenerator[ClientConnection]:
        """An open channel."""
        target = self.url.replace("http", "ws", 1) + f"/v1/sessions/{session_id}/channels?{query}"
        async with connect(
            target,
            additional_headers={"Authorization": f"Bearer {token}"},
            subprotocols=options.pop("subprotocols", [SUBPROTOCOL]),
            compression=None,
            max_size=None,
            **options,
        ) as channel:
            yield channel


@asynccontextmanager
async def running_gateway(*, embedded: bool = False, **given: Any) -> AsyncGenerator[Gateway]:
    """A real server on a free port and a socket, in this loop, ended like by SIGTERM."""
    settings = load({"token": TOKEN, "port": 0, "engine": "process", **given})
    paths.prepare(settings)
    app = create_app(settings, Authenticator(TOKEN), embedded=embedded)
    path = settings.runtime_dir / "extra.sock"
    async with AsyncExitStack() as stack:
        stack.enter_context(paths.GatewayLock(settings)).acquire(PATIENCE)
        tcp = stack.enter_context(listen_tcp("127.0.0.1", 0))
        unix = stack.enter_context(listen_unix(path))
        url = f"http://127.0.0.1:{tcp.getsockname()[1]}"
        started = asyncio.Event()
        server = make_server(app, started.set)
        task = asyncio.create_task(server.serve(sockets=[tcp, unix]))
        try:
            async with asyncio.timeout(PATIENCE):
                await started.wait()
            yield Gateway(app, server, settings, url, path)
        finally:
            server.should_exit = True
            await task
            path.unlink(missing_ok=True)


@dataclass
class Program:
    """`sandcell gateway` as a process of its own."""

    process: subprocess.Popen[str]
    url: str
    output: str


@contextmanager
def gateway_program(environ: dict[str, str], *arguments: str) -> Generator[Program]:
    """Run it until the end of the block."""
    process = subprocess.Popen(
        [sys.executable, "-c", RUN_FAKED, "gateway", "--port", "0", *arguments],
        env=environ | {"SANDCELL_TOKEN": TOKEN, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3)]
        found = re.search(r"http://\S+", lines[0])
        if found is None:
            process.kill()
            raise AssertionError(f"the gateway did not start: {process.communicate()}")
        yield Program(process, found[0], "".join(lines))
    finally:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=PATIENCE)


def wait_for(condition: Callable[[], object], what: str) -> None:
    """Poll until it holds, for what has no event in this process."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {PATIENCE:g} s for: {what}")
        time.sleep(0.01)


async def until(condition: Callable[[], object], what: str) -> None:
    """The same without holding up a gateway in this loop."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {PATIENCE:g} s for: {what}")
        await asyncio.sleep(0.01)


async def reaches(session: AsyncSession, *wanted: str) -> None:
    """Ask until the status is one of `wanted`."""
    async with asyncio.timeout(PATIENCE):
        for _ in count():
            if (await session.refresh()).status.value in wanted:
                return
            await asyncio.sleep(0.02)


def change_rows(home: Home, table: str, **values: Any) -> None:
    """What only a crash or another machine could have stored; while no gateway runs."""
    sets = ", ".join(f"{column} = ?" for column in values)
    with closing(sqlite3.connect(home.state / "gateway.db")) as store, store:
        store.execute(f"UPDATE {table} SET {sets}", tuple(values.values()))


async def hello(gateway: Gateway, session: AsyncSession) -> Any:
    """What a session's shim says first."""
    async with gateway.channel(session.id) as channel:
        return json.loads(await channel.recv())


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"
