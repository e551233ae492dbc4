"""Who owns a session and what ends it, with the sequences of jupyter_client and of VS Code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from jupyter_client.connect import write_connection_file

import sandcell
from tests.support import gateways
from tests.support.gateways import eventually
from tests.support.home import Home
from tests.support.kernels import TIMEOUT, FrontEnd, connect, kernel
from tests.support.ports import kernel_ports
from tests.support.sessions import close_all, sessions

pytestmark = pytest.mark.linux


def test_ten_kernels_at_once_share_one_daemon_and_leave_nothing(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(home.environ, "SANDCELL_EMBEDDED_IDLE", "2")
    with ExitStack() as stack:
        specs = [
            stack.enter_context(raw_kernel(home, Path(f"{home.path}/c{i}.json"))) for i in range(10)
        ]
        for number, raw in enumerate(specs):
            assert raw.front.value(f"{number} * 2") == str(number * 2)
        assert len(gateways.processes(home, "sandcell_gateway")) == 1
        assert len(sessions()) == 10
        for raw in specs:
            raw.shut_down()
    eventually("no socket and no session is left", lambda: gateways.leftovers(home) == [])
    eventually("the daemon ends", lambda: not gateways.processes(home, "sandcell_gateway"))


def test_shutdown_with_grace_keeps_the_session_for_the_reopened_notebook(home: Home) -> None:
    environ = home.environ | {"SANDCELL_CLOSE_GRACE": "60", "JPY_SESSION_NAME": "a.ipynb"}
    with kernel("sandcell", environ, home.path) as first:
        first.front.run("variable = 'kept'")
    (session,) = sessions()
    assert session.model.closes_at is not None
    other = environ | {"JPY_SESSION_NAME": "b.ipynb"}
    with kernel("sandcell", other, home.path) as stranger:
        assert stranger.front.run("variable").error == "NameError"
    with kernel("sandcell", environ, home.path) as again:
        result = again.front.run("variable")
        assert "continuing session" in result.stream("stderr")
        assert result.of("execute_result")[0]["data"]["text/plain"] == "'kept'"
        assert session.id in {found.id for found in sessions() if not found.model.closes_at}
    close_all()


def test_a_grace_period_ends(home: Home) -> None:
    environ = home.environ | {"SANDCELL_CLOSE_GRACE": "0.5"}
    with kernel("sandcell", environ, home.path) as started:
        started.front.run("pass")
    eventually("the session closes", lambda: sessions() == [])


def test_a_named_session_is_only_left(home: Home) -> None:
    environ = home.environ | {"SANDCELL_SESSION": "analysis"}
    with kernel("sandcell", environ, home.path) as first:
        first.front.run("variable = 'kept'")
    with kernel("sandcell", environ, home.path) as second:
        assert second.front.value("variable") == "'kept'"
    (session,) = sessions()
    assert (session.name, session.model.closes_at) == ("analysis", None)
    close_all()


def test_jupyters_restart_keeps_session_and_files(home: Home) -> None:
    with kernel("sandcell", home.environ, home.path) as started:
        started.front.run("variable = 1; open('kept.txt', 'w').write('kept')")
        (before,) = sessions()
        started.restart()
        assert started.front.run("variable").error == "NameError"
        assert started.front.value("open('kept.txt').read()") == "'kept'"
        (after,) = sessions()
        assert after.id == before.id
        assert after.model.interpreter != before.model.interpreter


def test_kill_9_of_the_local_kernel_and_jupyters_restart_reattach(home: Home) -> None:
    with kernel("sandcell", home.environ, home.path) as started:
        started.front.run("variable = 'kept'")
        started.restart(now=True)  # SIGKILL, same connection file
        assert started.front.value("variable") == "'kept'"
        assert len(sessions()) == 1


class RawKernel:
    """A kernel started as VS Code starts one: argv of the kernelspec, raw ZMQ, no manager."""

    def __init__(self, home: Home, connection_file: Path) -> None:
        write_connection_file(str(connection_file), key=b"k" * 32, **kernel_ports())
        self.process = subprocess.Popen(
            [sys.executable, "-m", "sandcell_kernel", "-f", str(connection_file)],
            env=home.environ,
            cwd=home.path,
        )
        self.client = connect(json.loads(connection_file.read_text()))
        self.front = FrontEnd(self.client)

    def shut_down(self) -> None:
        """As jupyter_client asks for it."""
        self.front.request("shutdown_request", {"restart": False}, channel="control")
        self.process.wait(TIMEOUT)

    def end(self, sig: int) -> None:
        """As VS Code does on restart, close and reload: no request, just a signal."""
        os.kill(self.process.pid, sig)
        self.process.wait(TIMEOUT)


@contextmanager
def raw_kernel(home: Home, connection_file: Path) -> Iterator[RawKernel]:
    raw = RawKernel(home, connection_file)
    try:
        yield raw
    finally:
        raw.client.stop_channels()
        raw.process.kill()
        raw.process.wait(TIMEOUT)


@pytest.mark.parametrize(
    ("sig", "variables"), [(signal.SIGTERM, "NameError"), (signal.SIGKILL, "")]
)
def test_vs_codes_restart(home: Home, sig: int, variables: str) -> None:
    with raw_kernel(home, home.path / "one.json") as first:
        first.front.run("variable = 1; open('kept.txt', 'w').write('kept')")
        (before,) = sessions()
        first.end(sig)
    with raw_kernel(home, home.path / "two.json") as second:
        assert second.front.value("open('kept.txt').read()") == "'kept'"
        assert second.front.run("variable").error == variables
        (after,) = sessions()
        assert after.id == before.id
        second.shut_down()


def test_a_terminated_kernel_is_held_and_then_closed(home: Home) -> None:
    held = Home(home.path, home.state, home.runtime, home.environ | {"SANDCELL_HOLD": "0.5"})
    with raw_kernel(held, home.path / "one.json") as raw:
        raw.front.run("pass")
        raw.end(signal.SIGTERM)
    eventually("the session closes", lambda: sessions() == [])


def test_a_killed_kernel_that_never_comes_back_leaves_no_session(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is left to close it but the gateway, be it the next one."""
    with raw_kernel(home, home.path / "one.json") as raw:
        raw.front.run("pass")
        raw.end(signal.SIGKILL)
    assert len(sessions()) == 1
    monkeypatch.setenv("SANDCELL_ORPHAN_TIMEOUT", "1")
    gateways.gateway(home).kill()
    eventually("the gateway ends", lambda: not gateways.processes(home, "sandcell_gateway"))
    eventually("the session closes", lambda: sessions() == [])
    with sandcell.Client() as client:
        (session,) = client.sessions.list(status=["terminated"])
    assert session.reason is not None
    assert session.reason.code == "expired"


def test_a_kernel_ends_when_its_parent_is_killed(home: Home) -> None:
    connection_file = home.path / "c.json"
    write_connection_file(str(connection_file), key=b"k" * 32, **kernel_ports())
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import subprocess, sys; subprocess.run([sys.executable, *sys.argv[1:]])",
            "-m",
            "sandcell_kernel",
            "-f",
            str(connection_file),
        ],
        env=home.environ | {"SANDCELL_HOLD": "0"},
        cwd=home.path,
    )
    eventually("kernel runs", lambda: len(gateways.processes(home, "sandcell_kernel")) == 1)
    eventually("session exists", lambda: len(sessions()) == 1)
    parent.kill()
    parent.wait(TIMEOUT)
    eventually("kernel ends", lambda: not gateways.processes(home, "sandcell_kernel"))
    eventually("session closes", lambda: sessions() == [])


def test_ctrl_c_in_the_terminal_does_not_end_the_kernel(home: Home) -> None:
    with raw_kernel(home, home.path / "one.json") as raw:
        os.kill(raw.process.pid, signal.SIGINT)
        assert raw.front.value("1 + 1") == "2"
        raw.shut_down()


def test_a_cell_that_waits_when_the_kernel_shuts_down_does_not_hold_it(home: Home) -> None:
    with raw_kernel(home, home.path / "one.json") as raw:
        raw.client.execute("import time; time.sleep(600)")
        began = time.monotonic()
        raw.shut_down()
        assert time.monotonic() - began < TIMEOUT
    eventually("the session closes", lambda: sessions() == [])


def test_the_first_kernel_ever_knows_its_features_before_its_session(home: Home) -> None:
    with kernel("sandcell", home.environ, home.path) as started:
        first = started.front.request("kernel_info_request", {}).content
        started.front.run("pass")
        cache = home.path / ".cache" / "sandcell"
        eventually("the true answer is kept", lambda: any(cache.glob("kernel-info-*.json")))
        true = started.front.request("kernel_info_request", {}).content
    assert first["help_links"] != true["help_links"]  # it was not the kept one
    same = ("implementation", "implementation_version", "language_info", "supported_features")
    assert {key: first[key] for key in same} == {key: true[key] for key in same}
    assert first["supported_features"]
