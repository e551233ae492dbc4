"""With real shims and sandboxes: the whole way from the SDK, and nothing left behind."""

from __future__ import annotations

import os
import signal

import pytest

from sandcell import Client, ClientSettings
from sandcell_gateway.engines import registry
from sandcell_gateway.engines.base import EngineError
from tests.gateway.support import alive, wait_for
from tests.support.home import Home
from tests.support.processes import processes_of


def shims(home: Home) -> list[int]:
    return [
        process.pid
        for process in processes_of(home.path.parent)
        if "sandcell_gateway.shim" in process.cmdline()
    ]


@pytest.mark.linux
@pytest.mark.parametrize("engine", ["bubblewrap", "process"])
def test_a_real_session(home: Home, monkeypatch: pytest.MonkeyPatch, engine: str) -> None:
    try:
        registry.choose(engine)
    except EngineError as error:
        pytest.skip(str(error))
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
