"""With real shims and sandboxes: the whole way from the SDK, and nothing left behind."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from sandcell import AsyncSession, Client, ClientSettings, EngineUnavailable
from sandcell_gateway.engines import registry
from sandcell_gateway.sessions import keeper, processes
from tests.gateway.support import alive, reaches, running_gateway, wait_for
from tests.support.home import Home
from tests.support.processes import processes_of

ENGINES = ["bubblewrap", pytest.param("process", marks=pytest.mark.not_root)]


def _needs(engine: str) -> None:
    probe = registry.load(engine).probe()
    if not probe.works:
        assert engine != "process", probe
        pytest.skip(probe.reason)


def shims(home: Home) -> list[int]:
    return [
        process.pid
        for process in processes_of(home.path.parent)
        if "sandcell_gateway.shim" in process.cmdline()
    ]


@pytest.mark.linux
@pytest.mark.parametrize("engine", ENGINES)
def test_a_real_session(home: Home, monkeypatch: pytest.MonkeyPatch, engine: str) -> None:
    _needs(engine)
    monkeypatch.setenv("SANDCELL_ENGINE", engine)
    with Client(settings=ClientSettings.load()) as client:
        session = client.sessions.create(wait=60)
        assert (session.status.value, session.reason) == ("idle", None)
        assert session.model.engine == engine
        assert session.model.isolated == (engine == "bubblewrap")
        interpreter = session.model.interpreter
        assert session.restart(interpreter="0" * 32).model.interpreter == "0" * 32 != interpreter
        session.interrupt()
        (first,) = shims(home)
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: not alive(first), "the shim's end")
        wait_for(lambda: shims(home), "the next shim")
        wait_for(lambda: session.refresh().status.value == "idle", "adoption")
        assert session.model.interpreter == "0" * 32, "the same interpreter was adopted"
        assert session.close().status.value == "terminated"
    assert list((home.state / "sessions").iterdir()) == []


@pytest.mark.root
def test_root_is_refused_an_engine_without_isolation(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SANDCELL_ENGINE", "process")
    with (
        Client(settings=ClientSettings.load()) as client,
        pytest.raises(EngineUnavailable, match=r"root of this machine.*as an ordinary user"),
    ):
        client.sessions.create()
    assert list((home.state / "sessions").iterdir()) == []


@pytest.mark.root
def test_the_session_never_has_our_uid(home: Home) -> None:
    with Client(settings=ClientSettings.load()) as client:
        session = client.sessions.create(wait=60)
        state = home.state / "sessions" / str(session.id)
        owner = (state / "workspace").stat().st_uid
        assert owner != 0
        assert state.stat().st_uid == 0
        assert state.stat().st_mode & 0o077 == 0
        sockets = home.runtime / "s" / session.id.hex[:16] / "k"
        assert sockets.stat().st_uid == owner
        session.close()


@asynccontextmanager
async def sandboxed(home: Home, engine: str) -> AsyncGenerator[tuple[AsyncSession, list[int]]]:
    """A ready session of a gateway in this process, and the processes of its sandbox."""
    _needs(engine)
    async with running_gateway(engine=engine) as gateway, gateway.client() as client:
        session = await client.sessions.create(wait=60)
        assert session.status.value == "idle", session.reason
        inside = {process.pid for process in processes_of(home.path.parent)} - set(shims(home))
        assert inside
        yield session, sorted(inside)


@pytest.mark.linux
@pytest.mark.parametrize("engine", ENGINES)
async def test_a_shim_that_never_closes(
    home: Home, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    """It is ended, and the gateway ends the sandbox itself."""
    monkeypatch.setattr(keeper, "CLOSE_TIMEOUT", 0.5)
    async with sandboxed(home, engine) as (session, inside):
        (shim,) = shims(home)
        os.kill(shim, signal.SIGSTOP)
        assert (await session.close()).status.value == "terminated"
        assert [pid for pid in (shim, *inside) if alive(pid)] == []
        assert shims(home) == []
    assert list((home.state / "sessions").iterdir()) == []


@pytest.mark.linux
@pytest.mark.parametrize("engine", ENGINES)
async def test_a_session_whose_shims_all_fail_can_be_closed(
    home: Home, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    async with sandboxed(home, engine) as (session, inside):
        monkeypatch.setattr(processes, "SHIM_MODULE", "no_such_module")
        (shim,) = shims(home)
        os.kill(shim, signal.SIGKILL)
        await reaches(session, "error")
        assert [pid for pid in inside if alive(pid)] == inside, "the sandbox outlives its shims"
        assert (await session.close()).status.value == "terminated"
        assert [pid for pid in inside if alive(pid)] == []
