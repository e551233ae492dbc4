"""Every process in the path is killed once; the notebook gets a reason and goes on."""

from __future__ import annotations

import signal
import socket

import psutil
import pytest

import sandcell
from tests.support import gateways
from tests.support.gateways import eventually
from tests.support.home import Home
from tests.support.kernels import Kernel, Message, kernel

pytestmark = pytest.mark.linux


def test_kill_9_of_the_gateway_in_the_middle_of_a_cell(running: Kernel, home: Home) -> None:
    running.front.run("variable = 'kept'")
    with sandcell.Client() as client:
        (before,) = client.sessions.list()

    def kill(message: Message) -> None:
        if message["content"].get("text") == "go\n":
            gateways.kill(gateways.gateway(home))

    result = running.front.run(
        "import time\n"
        "print('go', flush=True)\n"
        "for i in range(20): print(i, flush=True); time.sleep(0.05)",
        seen=kill,
    )
    lines = "go\n" + "".join(f"{i}\n" for i in range(20))
    assert result.stream() == lines
    assert result.statuses == ["busy", "idle"]
    assert running.front.value("variable") == "'kept'"
    with sandcell.Client() as client:
        (after,) = client.sessions.list()
        assert after.id == before.id
        # The gateway learns a moment later that a cell has ended.
        eventually("it is idle", lambda: after.refresh().status.value == "idle")


def test_kill_9_of_the_shim_gives_a_reason_and_keeps_the_variables(
    running: Kernel, home: Home
) -> None:
    running.front.run("variable = 'kept'")

    (workspace,) = home.state.glob("sessions/*/workspace")

    def kill(message: Message) -> None:
        text = message["content"].get("text", "")
        if text == "go\n":
            gateways.kill(gateways.shim(home))
        elif "supervisor was restarted" in text:
            (workspace / "on").touch()

    result = running.front.run(
        "import os, time\n"
        "print('go', flush=True)\n"
        "while not os.path.exists('on'): time.sleep(0.05)\n"
        "print('end')",
        seen=kill,
    )
    assert "supervisor was restarted" in result.stream("stderr")
    assert result.stream() == "go\nend\n"
    assert result.statuses == ["busy", "idle"]
    assert result.content["status"] == "ok"  # its reply came: the sockets kept their identity
    assert running.front.value("variable") == "'kept'"


def test_kill_9_of_the_shim_between_cells_is_not_noticed(running: Kernel, home: Home) -> None:
    running.front.run("variable = 'kept'")
    gateways.kill(gateways.shim(home))
    assert running.front.value("variable") == "'kept'"


def test_a_full_disk_stops_no_cell_and_its_user_is_told_once(running: Kernel, home: Home) -> None:
    """The shim's files may grow no more; a full disk refuses its journal in the same way."""
    running.front.run("variable = 'kept'")
    shim = gateways.shim(home)
    _, hard = shim.rlimit(psutil.RLIMIT_FSIZE)
    shim.rlimit(psutil.RLIMIT_FSIZE, (4096, hard))
    told = "the session's journal cannot be written (File too large); the cell goes on"
    (workspace,) = home.state.glob("sessions/*/workspace")

    def go(message: Message) -> None:
        if told in message["content"].get("text", ""):
            (workspace / "go").touch()

    result = running.front.run(
        "import os, time\n"
        "for i in range(300): print(i, flush=True)\n"
        "while not os.path.exists('go'): time.sleep(0.01)",
        seen=go,
    )
    assert result.stream() == "".join(f"{i}\n" for i in range(300))
    assert result.statuses == ["busy", "idle"]
    assert result.stream("stderr").count(told) == 1
    assert running.front.run("print(variable)").stream("stderr") == ""
    shim.rlimit(psutil.RLIMIT_FSIZE, (hard, hard))
    assert running.front.value("variable") == "'kept'"


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import os, signal; os.kill(os.getpid(), 9)", "killed by signal 9 (SIGKILL)"),
        ("import os; os._exit(3)", "exited with code 3"),
        ("import ctypes; ctypes.string_at(0)", "killed by signal 11 (SIGSEGV)"),
    ],
)
def test_a_dead_interpreter_says_why_and_the_next_cell_starts_afresh(
    running: Kernel, code: str, says: str
) -> None:
    running.front.run("variable = 1; open('kept.txt', 'w').write('kept')")
    result = running.front.run(code)
    assert result.error == "KernelDied"
    assert says in result.content["evalue"]
    assert result.statuses == ["busy", "idle"]
    after = running.front.run("print(open('kept.txt').read())\nvariable")
    assert says in after.stream("stderr")
    assert "variables are gone" in after.stream("stderr")
    assert after.stream() == "kept\n"
    assert after.error == "NameError"


def test_the_whole_sandbox_killed_from_outside(running: Kernel, home: Home) -> None:
    running.front.run("open('kept.txt', 'w').write('kept')")
    (launcher,) = gateways.shim(home).children()
    (init,) = launcher.children()
    init.send_signal(signal.SIGKILL)
    with sandcell.Client() as client:
        eventually("it is noticed", lambda: client.sessions.list()[0].status.value == "error")
        (session,) = client.sessions.list()
        assert session.reason is not None
        assert "signal 9" in session.reason.text
    assert running.front.value("open('kept.txt').read()") == "'kept'"


def test_without_a_gateway_the_first_cell_says_what_to_do_and_nothing_hangs(home: Home) -> None:
    environ = home.environ | {"SANDCELL_URL": "http://127.0.0.1:1", "SANDCELL_TOKEN": "t"}
    with kernel("sandcell", environ, home.path) as started:
        for _ in range(2):
            result = started.front.run("1")
            assert result.error == "SandboxUnavailable"
            assert "http://127.0.0.1:1" in result.content["evalue"]
            assert result.content["evalue"].endswith(". Does it run? Is SANDCELL_URL right?")
        asked = {"code": "a", "cursor_pos": 1}
        assert started.front.request("complete_request", asked).content["status"] == "error"


def test_an_interrupt_ends_the_cells_that_wait_for_a_gateway_that_does_not_answer(
    home: Home,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        environ = home.environ | {"SANDCELL_URL": url, "SANDCELL_TOKEN": "t"}
        with kernel("sandcell", environ, home.path) as started:
            client = started.front.client
            first, second = client.execute("1"), client.execute("%sandbox status")
            started.front.request("interrupt_request", {}, channel="control")
            assert started.front.collect(first).error == "KeyboardInterrupt"
            assert started.front.collect(second).content["status"] == "aborted"


def test_a_bad_setting_is_named_in_the_first_cell(home: Home) -> None:
    environ = home.environ | {"SANDCELL_CLOSE_GRACE": "soon"}
    with kernel("sandcell", environ, home.path) as started:
        result = started.front.run("1")
        assert "SANDCELL_CLOSE_GRACE" in result.content["evalue"]
        assert "soon" in result.content["evalue"]


def test_a_closed_session_says_so_once_and_the_next_cell_starts_a_new_one(
    running: Kernel,
) -> None:
    running.front.run("variable = 1")
    with sandcell.Client() as client:
        (session,) = client.sessions.list()
        session.close()
    first, second = (running.front.client.execute("variable") for _ in range(2))
    result = running.front.collect(first)
    assert result.error == "SandboxUnavailable"
    assert "the session is gone: it was closed. " in result.content["evalue"]
    assert "variables are gone" in result.content["evalue"]
    # It is aborted if it had come when the first was told, and else the first one of the next.
    behind = running.front.collect(second)
    assert behind.content["status"] == "aborted" or behind.error == "NameError"
    assert running.front.value("1 + 1") == "2"
    with sandcell.Client() as client:
        (new,) = client.sessions.list()
        assert new.id != session.id


def test_a_cell_that_replaces_its_socket_by_a_link_does_not_get_others_cells(
    home: Home,
) -> None:
    """A cell removes its kernel's sockets, plants links, and dies: nothing must follow them."""
    with (
        kernel("sandcell", home.environ, home.path) as victim,
        kernel("sandcell", home.environ, home.path) as attacker,
    ):
        victim.front.run("secret = 1")
        sockets = home.runtime / "s"
        runs = {path.name: path for path in sockets.iterdir()}
        assert len(runs) == 2
        attacker.front.run(
            "import glob, os\n"
            "mine = sorted(glob.glob('/run/sandcell/*'))\n"
            "for path in mine:\n"
            "    os.unlink(path)\n"
            f"    for other in {[str(path) for path in runs.values()]!r}:\n"
            "        try: os.symlink(other + '/k/' + os.path.basename(path), path)\n"
            "        except FileExistsError: pass\n"
        )
        gone = attacker.front.run("import os; os._exit(0)")
        assert gone.error == "KernelDied"
        result = attacker.front.run("secret")
        assert result.error in {"NameError", "SessionFailed"}
        assert victim.front.value("secret") == "1"
