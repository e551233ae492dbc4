"""Every process on the way dies or stops in the middle of a cell, behind a real network line."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.support import gateways
from tests.support.gateways import eventually
from tests.support.kernels import TIMEOUT, FrontEnd, Kernel
from tests.support.ledger import Cell, Seen
from tests.support.route import Route, account, replayed, wait_for_output

pytestmark = pytest.mark.linux

CELL = Cell(count=140, pause=0.02)
EARLY = 30
"""So many items are shown before the fault begins."""
SHIM = "sandcell_gateway.shim"
ADOPTED = "supervisor was restarted"
"""What the user is told when output may be missing."""

Record = Callable[[str, object], None]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["kill-9", "graceful"])
def test_the_gateway_restarts(own_route: Route, record_property: Record, number: int) -> None:
    def restart() -> None:
        own_route.end_gateway(signal.Signals(number))
        own_route.start_gateway()

    with own_route.kernel() as running:
        running.front.run("variable = 'kept'")
        seen = Seen(at={EARLY: lambda: threading.Thread(target=restart).start()})
        ledger, result = account(running.front, CELL, seen)
        how = "kill -9" if number == signal.SIGKILL else "graceful"
        ledger.record(record_property, f"gateway restarts ({how})")
        assert ledger.wrong == {}
        assert (result.statuses, result.content["status"]) == (["busy", "idle"], "ok")
        assert running.front.value("variable") == "'kept'"


@pytest.mark.parametrize("attached", [False, True], ids=["takes-over", "attaches"])
def test_kill_9_of_the_local_kernel(
    own_route: Route, record_property: Record, attached: bool
) -> None:
    """The cell goes on, the next kernel goes on with it, and the journal has it all."""
    environ = {"SANDCELL_SESSION": "kept"} if attached else {}
    with ExitStack() as stack:
        first = stack.enter_context(own_route.kernel(**environ))
        seen = Seen()
        msg_id = first.front.client.execute("variable = 'kept'\n" + CELL.code)
        wait_for_output(first.front, msg_id, "\n")
        if attached:
            first.manager.signal_kernel(signal.SIGKILL)
            running = stack.enter_context(own_route.kernel("other", **environ))
        else:
            first.kill_and_start()  # with the same connection file
            running = first
        assert running.front.value("variable") == "'kept'"
        for message in replayed(own_route, msg_id):
            seen.take(message)
        ledger = seen.ledger(CELL.expected)
        how = "another attaches" if attached else "the next takes over"
        ledger.record(record_property, f"local kernel kill -9, {how}")
        assert ledger.wrong == {}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_local_kernel_is_stopped_for_a_minute_while_200_megabytes_are_printed(
    own_route: Route, record_property: Record
) -> None:
    size, count = 1 << 20, 200
    with own_route.kernel(SANDCELL_KEEPALIVE="0.5") as running:
        running.front.run("pass")
        msg_id = running.front.client.execute(
            f"print('go', flush=True)\n"
            f"for i in range({count}): print(f'{{i:0{size - 1}}}', flush=True)"
        )
        wait_for_output(running.front, msg_id, "go")
        (process,) = gateways.processes(own_route.home, "sandcell_kernel")
        process.suspend()
        begun = time.monotonic()
        try:
            eventually("the cell ends", lambda: own_route.status() == "idle")
            time.sleep(max(0.0, begun + 60 - time.monotonic()))  # so long is the fault
        finally:
            process.resume()
        result = running.front.collect(msg_id)
    lines = result.stream().splitlines()
    record_property("fault", "client stopped while 200 MB are printed")
    expected = [f"{i:0{size - 1}}" for i in range(count)]
    record_property("sent", len(expected))
    record_property("lost", len(set(expected) - set(lines)))
    record_property("duplicated", len(lines) - len(set(lines)))
    record_property("out_of_order", int(lines != sorted(lines)))
    assert lines == expected
    assert result.content["status"] == "ok"


def test_two_clients_one_of_them_slow(own_route: Route, record_property: Record) -> None:
    """Two kernels share a session; the one that is stopped holds up nobody and gets it all."""
    with (
        own_route.kernel("fast", SANDCELL_SESSION="shared") as fast,
        own_route.kernel("slow", SANDCELL_SESSION="shared") as slow,
    ):
        slow.front.run("pass")
        fast.front.run("pass")
        by_directory = {
            process.cwd(): process
            for process in gateways.processes(own_route.home, "sandcell_kernel")
        }
        stopped = by_directory[str(own_route.home.path / "slow")]
        stopped.suspend()
        try:
            seen = Seen()
            ledger, result = account(fast.front, CELL, seen)
        finally:
            stopped.resume()
        ledger.record(record_property, "two clients: the fast one")
        assert ledger.wrong == {}
        late = Seen()
        _watch(slow.front, result.reply["parent_header"]["msg_id"], late)
        late.ledger(CELL.expected).record(record_property, "two clients: the slow one")
        assert late.ledger(CELL.expected).wrong == {}


def _watch(front: FrontEnd, msg_id: str, seen: Seen) -> None:
    """What another front end's cell shows, to its end."""
    while True:
        message = front.client.get_iopub_msg(timeout=TIMEOUT)
        if message["parent_header"].get("msg_id") == msg_id:
            seen.take(message)
            if message["content"].get("execution_state") == "idle":
                return


# -- the shim ---------------------------------------------------------------------------------


@pytest.fixture
def running(own_route: Route) -> Iterator[Kernel]:
    with own_route.kernel() as started:
        started.front.run("variable = 'kept'")
        yield started


def test_kill_9_of_the_shim_between_cells(
    own_route: Route, running: Kernel, record_property: Record
) -> None:
    gateways.kill(gateways.shim(own_route.home))
    ledger, result = account(running.front, CELL, Seen())
    ledger.record(record_property, "shim kill -9, idle")
    assert ledger.wrong == {}
    assert result.content["status"] == "ok"
    assert running.front.value("variable") == "'kept'"


def test_kill_9_of_the_shim_in_a_cell(
    own_route: Route, running: Kernel, record_property: Record
) -> None:
    seen = Seen(at={EARLY: lambda: gateways.kill(gateways.shim(own_route.home))})
    ledger, result = account(running.front, CELL, seen)
    ledger.record(record_property, "shim kill -9, in a cell (told: output may be missing)")
    told = [notice for notice in seen.notices if ADOPTED in notice]
    assert len(told) == 1
    assert {name for name in ledger.wrong if name != "lost"} == set()
    assert result.statuses == ["busy", "idle"]
    assert result.content["status"] == "ok"
    assert running.front.value("variable") == "'kept'"


def test_kill_9_of_the_shim_in_input(own_route: Route, running: Kernel) -> None:
    client = running.front.client
    msg_id = client.execute("print(input('name? '))", allow_stdin=True)
    assert client.get_stdin_msg(timeout=TIMEOUT)["content"]["prompt"] == "name? "
    old = gateways.shim(own_route.home)
    gateways.kill(old)
    eventually("there is a new one", lambda: bool(gateways.processes(own_route.home, SHIM)))
    wait_for_output(running.front, msg_id, "waits for input")
    client.input("Ada")
    result = running.front.collect(msg_id)
    assert result.stream() == "Ada\n"
    assert result.content["status"] == "ok"
    assert running.front.value("variable") == "'kept'"


def test_an_answer_that_comes_before_the_new_shim_is_ready(
    own_route: Route, running: Kernel
) -> None:
    client = running.front.client
    msg_id = client.execute("print(input('name? '))", allow_stdin=True)
    assert client.get_stdin_msg(timeout=TIMEOUT)["content"]["prompt"] == "name? "
    (interpreter,) = [
        process
        for process in gateways.shim(own_route.home).children(recursive=True)
        if any("kernel_launcher" in word for word in process.cmdline()) and not process.children()
    ]
    interpreter.suspend()  # so that it cannot be adopted yet
    try:
        gateways.kill(gateways.shim(own_route.home))
        client.input("an answer in time")
        eventually("the shim has it", lambda: journaled(own_route, b"an answer in time"))
    finally:
        interpreter.resume()
    try:
        result = running.front.collect(msg_id)
        assert result.stream() == "an answer in time\n"
    finally:
        running.manager.interrupt_kernel()


def journaled(own_route: Route, text: bytes) -> bool:
    """Whether the only session's journal has this."""
    journal = own_route.workspace.parent / "journal"
    return any(text in path.read_bytes() for path in journal.glob("*.journal"))


def test_an_outcome_that_cannot_be_known_is_said_to_be_unknown(
    own_route: Route, running: Kernel
) -> None:
    """The cell ends while there is no shim: its reply went nowhere, and it is not run again."""
    front = running.front
    code = (
        "import os, time\n"
        "print('go', flush=True)\n"
        "while not os.path.exists('end'): time.sleep(0.01)\n"
        "with open('effects.txt', 'a') as file: file.write('once ')"
    )
    msg_id = front.client.execute(code)
    wait_for_output(front, msg_id, "go")
    own_route.end_gateway(signal.SIGKILL)  # so that nobody starts another shim yet
    gateways.kill(gateways.shim(own_route.home))
    (own_route.workspace / "end").touch()
    effects = own_route.workspace / "effects.txt"
    eventually("it has run", lambda: effects.exists() and effects.read_text() == "once ")
    own_route.start_gateway()
    result = front.collect(msg_id)
    # The interpreter may still have the reply for us: then the outcome is known.
    assert result.error in {"OutcomeUnknown", ""}
    assert front.value("variable") == "'kept'"
    assert effects.read_text() == "once "
