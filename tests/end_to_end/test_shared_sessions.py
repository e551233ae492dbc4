"""Two notebooks in one session: what one does, or what breaks for it, hangs neither."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

import sandcell
from tests.support import gateways
from tests.support.gateways import eventually
from tests.support.home import Home
from tests.support.kernels import Kernel, kernel
from tests.support.route import wait_for_output
from tests.support.sessions import close_all

pytestmark = pytest.mark.linux

NEW = "interpreter is a new one"
WAIT = """\
import os, time
print('begun')
while not os.path.exists('go'): time.sleep(0.05)
"""


def go(home: Home) -> None:
    """Let `WAIT` end."""
    (workspace,) = [path / "workspace" for path in gateways.session_directories(home)]
    (workspace / "go").touch()


def status() -> str:
    """Of the only session."""
    with sandcell.Client() as client:
        (session,) = client.sessions.list()
        return session.status.value


@pytest.fixture
def pair(home: Home) -> Iterator[tuple[Kernel, Kernel]]:
    """Two notebooks of one session."""
    environ = home.environ | {"SANDCELL_SESSION": "shared"}
    with ExitStack() as stack:
        kernels: list[Kernel] = []
        for name in ("one", "two"):
            directory = home.path / name
            directory.mkdir()
            kernels.append(stack.enter_context(kernel("sandcell", environ, directory)))
        kernels[0].front.run("import time")
        kernels[1].front.run("import time")
        yield kernels[0], kernels[1]
    close_all()


def test_a_question_with_a_name_that_is_no_text_is_asked(running: Kernel) -> None:
    code = "answer = input('delete \\udc80? ')"
    result = running.front.run(code, prompts=["yes"], allow_stdin=True)
    assert result.content["status"] == "ok"
    assert running.front.value("answer") == "'yes'"


def have_come(*codes: str) -> bool:
    """Whether the session has all these cells."""
    with sandcell.Client() as client:
        (session,) = client.sessions.list()
        found = session.history(limit=10, newest=True, outputs=False)
        return {execution.code for execution in found.executions}.issuperset(codes)


def test_an_interrupt_of_a_cell_behind_another_notebook_s_ends_it_at_once(
    pair: tuple[Kernel, Kernel], home: Home
) -> None:
    one, two = pair
    first = one.front.client.execute(WAIT)
    wait_for_output(one.front, first, "begun\n")
    quick = two.front.client.execute("'quick'")
    # On another socket, so it might come before the cell and be for whatever runs.
    eventually("the cell waits", lambda: have_come("'quick'"))
    two.manager.interrupt_kernel()
    assert two.front.collect(quick).content["ename"] == "KeyboardInterrupt"
    assert status() == "active"
    go(home)
    assert one.front.collect(first).content["status"] == "ok"
    assert two.front.value("1 + 1") == "2"


def test_a_failed_cell_aborts_nothing_of_another_notebook(
    pair: tuple[Kernel, Kernel], home: Home
) -> None:
    one, two = pair
    first = one.front.client.execute(WAIT + "1 / 0")
    wait_for_output(one.front, first, "begun\n")
    behind = one.front.client.execute("'behind'")
    theirs = two.front.client.execute("'theirs'")
    eventually("the cells wait", lambda: have_come("'behind'", "'theirs'"))
    go(home)
    assert one.front.collect(first).content["ename"] == "ZeroDivisionError"
    assert one.front.collect(behind).content["status"] == "aborted"
    assert two.front.collect(theirs).content["status"] == "ok"


@pytest.mark.parametrize("end", ["%sandbox restart", "import os; os._exit(3)"])
def test_who_did_not_end_the_interpreter_is_told_once_that_it_is_another(
    pair: tuple[Kernel, Kernel], end: str
) -> None:
    one, two = pair
    two.front.run("x = 1")
    one.front.run(end)
    told = one.front.run("2").stream("stderr")
    assert NEW not in told
    assert ("starting a fresh interpreter" in told) == ("exit" in end)
    result = two.front.run("x")
    assert result.error == "NameError"
    assert NEW in result.stream("stderr")
    assert two.front.run("3").stream("stderr") == ""


def test_what_was_shown_under_an_attach_is_not_shown_under_the_next(home: Home) -> None:
    """Nothing ran in between that would have moved a number on."""
    environ = home.environ | {"SANDCELL_SESSION": "shown"}
    directory = home.path / "lost"
    directory.mkdir()
    with ExitStack() as stack:
        lost = stack.enter_context(kernel("sandcell", environ, directory))
        msg_id = lost.front.client.execute(WAIT)
        wait_for_output(lost.front, msg_id, "begun\n")
        lost.manager.signal_kernel(signal.SIGKILL)
        go(home)
        eventually("the cell ends", lambda: status() == "idle")
        texts: list[str] = []
        for _ in range(2):
            with kernel("sandcell", home.environ, home.path) as attached:
                texts.append(attached.front.run("%sandbox attach shown").stream())
        assert texts == ["begun\n", ""]
    close_all()
