"""Fixtures of the gateway's tests."""

from __future__ import annotations

import io
import logging
from collections.abc import AsyncGenerator, Generator

import pytest
import structlog

from sandcell import AsyncClient
from sandcell_gateway import logs
from sandcell_gateway.sessions import engines, processes
from tests.gateway.support import FAKE_SHIM, PATIENCE, ROOT, Gateway, running_gateway
from tests.support.home import Home


@pytest.fixture
def fake_shims(home: Home, monkeypatch: pytest.MonkeyPatch) -> Generator[Home]:
    """Sessions have shims that need no engine; see `fake_shim` for what they can do wrong."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(processes, "SHIM_MODULE", FAKE_SHIM)
    monkeypatch.setattr(
        engines.EngineChoice, "_choose", lambda self: engines.Chosen("process", False)
    )
    yield home
    while processes.LEFT_RUNNING:
        processes.LEFT_RUNNING.pop().wait(PATIENCE)


@pytest.fixture
def log() -> Generator[io.StringIO]:
    """Everything that the gateway of this process logs."""
    stream = io.StringIO()
    handlers = list(logging.root.handlers)
    logs.configure("debug", stream)
    yield stream
    structlog.reset_defaults()
    logging.root.handlers[:] = handlers


@pytest.fixture
async def gateway(fake_shims: Home, log: io.StringIO) -> AsyncGenerator[Gateway]:
    """A running gateway with fake shims; its sessions are closed at the end."""
    async with running_gateway() as running:
        yield running
        async with running.client() as client:
            for session in await client.sessions.list():
                await session.close()


@pytest.fixture
async def client(gateway: Gateway) -> AsyncGenerator[AsyncClient]:
    """The SDK over TCP, as the owner of the token."""
    async with gateway.client() as client:
        yield client
