"""Paused sessions: nothing runs, nothing is lost, and whoever wants something resumes them."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator

import psutil
import pytest

import sandcell
from sandcell import Session
from tests.support import gateways
from tests.support.gateways import eventually
from tests.support.kernels import Kernel
from tests.support.processes import processes_of
from tests.support.route import Route

pytestmark = pytest.mark.linux

READY = 60.0
COUNTS = """\
import itertools, os
file = os.open("count", os.O_WRONLY | os.O_CREAT)
for n in itertools.count(): os.pwrite(file, b"%020d" % n, 0)
"""
"""Nothing in it is closed by a destructor, which would swallow an interrupt."""


@pytest.fixture
def session(own_route: Route) -> Iterator[Session]:
    with own_route.client() as client:
        yield client.sessions.create(wait=READY)


def count(route: Route) -> str:
    return (route.workspace / "count").read_text()


def inside(route: Route) -> list[psutil.Process]:
    """The sandbox's processes."""
    found = processes_of(route.home.state)
    return [process for process in found if "-m" not in process.cmdline()]


def processor_time(route: Route) -> float:
    """Of all processes in the sandbox, in seconds."""
    return sum(sum(process.cpu_times()[:2]) for process in inside(route))


def test_a_paused_session_does_nothing_and_goes_on_where_it_was(
    own_route: Route, session: Session
) -> None:
    session.execute("kept = 'variable'")
    session.start_job(COUNTS)
    eventually(
        "it counts", lambda: (own_route.workspace / "count").exists() and bool(count(own_route))
    )
    assert session.pause().status.value == "paused"
    assert session.pause().status.value == "paused", "twice is harmless"
    before, spent = count(own_route), processor_time(own_route)
    assert spent > 0
    time.sleep(0.5)
    assert (count(own_route), processor_time(own_route)) == (before, spent)
    assert session.resume().status.value == "active"
    eventually("it counts on", lambda: count(own_route) not in (before, ""))
    session.interrupt()
    assert session.execute("kept").text == "'variable'"
    assert session.resume().status.value in ("idle", "active"), "harmless when it is not paused"


def stands_still(route: Route) -> bool:
    """A new supervisor lets it go on for a moment, to find all of it."""
    before, spent = count(route), processor_time(route)
    time.sleep(0.3)
    return (count(route), processor_time(route)) == (before, spent)


@pytest.mark.parametrize("what", ["code", "command", "file", "restart"])
def test_whoever_wants_something_resumes_it(session: Session, what: str) -> None:
    session.execute("x = 20")
    session.pause()
    if what == "code":
        assert session.execute("x + 1").text == "21"
    elif what == "command":
        assert session.commands.run("echo hello").stdout == "hello\n"
    elif what == "file":
        assert session.files.write("a", "text").size == 4
    else:
        session.restart()
        assert session.execute("'x' in dir()").text == "False"
    eventually("it is idle", lambda: session.refresh().status.value == "idle")


def test_time_limits_stand_still_and_running_commands_go_on(session: Session) -> None:
    results = {}

    def run() -> None:
        results["code"] = session.execute("import time\ntime.sleep(0.1)", timeout=600)

    command = session.commands.start("sleep 3; echo end", timeout=4)
    runs = threading.Thread(target=run)
    runs.start()
    eventually("it runs", lambda: command.refresh().status == "running")
    session.pause()
    time.sleep(5)  # longer than it may run
    session.resume()
    assert command.wait().raise_for_error().stdout == "end\n"
    runs.join()
    assert results["code"].ok


def test_a_session_that_is_being_made_or_has_failed_cannot_be_paused(session: Session) -> None:
    session.execute("import os; os._exit(1)")
    eventually("it failed", lambda: session.refresh().status.value == "error")
    with pytest.raises(sandcell.ConflictError, match="error cannot pause"):
        session.pause()


def test_a_paused_session_closes(own_route: Route, session: Session) -> None:
    session.pause()
    session.close()
    assert inside(own_route) == []


@pytest.mark.parametrize("part", ["gateway", "shim"])
def test_it_stays_paused_when_others_are_killed(
    own_route: Route, session: Session, part: str
) -> None:
    session.start_job(COUNTS)
    eventually(
        "it counts", lambda: (own_route.workspace / "count").exists() and bool(count(own_route))
    )
    session.pause()
    if part == "shim":
        old = gateways.shim(own_route.home).pid
        gateways.kill(gateways.shim(own_route.home))
        eventually(
            "the next",
            lambda: (
                [p.pid for p in gateways.processes(own_route.home, "sandcell_gateway.shim")]
                not in ([], [old])
            ),
        )
    else:
        own_route.end_gateway(signal.SIGKILL)
        own_route.start_gateway()
    with own_route.client() as client:
        again = client.sessions.get(session.id)
        eventually("it stands still", lambda: stands_still(own_route))
        assert again.refresh().status.value == "paused"
        before = count(own_route)
        again.resume()
        eventually("it counts on", lambda: count(own_route) not in (before, ""))


def test_a_notebook_s_cell_resumes_it_and_attaching_does_not(running: Kernel) -> None:
    front = running.front
    front.run("x = 1")
    with sandcell.Client() as client:
        (session,) = client.sessions.list()
        session.pause()
        with running.another_front_end() as other:
            assert other.request("kernel_info_request", {}).content["status"] == "ok"
            assert session.refresh().status.value == "paused"
        assert front.value("x") == "1"
        msg_id = front.client.execute("import time\nprint('begun')\ntime.sleep(600)")
        eventually("it runs", lambda: session.refresh().status.value == "active")
        session.pause()
        running.manager.interrupt_kernel()
        assert front.collect(msg_id).error == "KeyboardInterrupt"
