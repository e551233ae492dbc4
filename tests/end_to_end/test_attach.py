"""Coming back to a session: attach, what was missed, replay, cells that nobody waits for."""

from __future__ import annotations

import queue
import re
import signal
import time
from contextlib import ExitStack

import pytest

import sandcell
from tests.support import gateways
from tests.support.gateways import eventually
from tests.support.home import Home
from tests.support.kernels import Kernel, Result, kernel
from tests.support.route import wait_for_output
from tests.support.sessions import close_all, only_session, session_ids

pytestmark = pytest.mark.linux

WAIT = """\
import os, time
print('begun')
while not os.path.exists('go'): time.sleep(0.05)
for i in range(20): print('line', i)
"""
LINES = "".join(f"line {i}\n" for i in range(20))
PICTURE = "from IPython.display import Image\nprint('text')\nImage(data=b'\\x89PNG', format='png')"


def shown(result: Result) -> list[str]:
    """What the cell's lines say."""
    return [content["data"]["text/plain"] for content in result.of("display_data")]


def let_go(home: Home) -> None:
    """Let every cell that waits go on."""
    for directory in gateways.session_directories(home):
        (directory / "workspace" / "go").touch()


def lost_kernel(home: Home, stack: ExitStack, **environ: str) -> None:
    """A kernel that is killed for good while its cell waits to go on."""
    directory = home.path / "lost"
    directory.mkdir()
    lost = stack.enter_context(kernel("sandcell", home.environ | environ, directory))
    msg_id = lost.front.client.execute(WAIT)
    wait_for_output(lost.front, msg_id, "begun\n")
    lost.manager.signal_kernel(signal.SIGKILL)


def test_attach_shows_what_runs_from_its_beginning_to_its_end(home: Home) -> None:
    with ExitStack() as stack:
        lost_kernel(home, stack)
        session = only_session()
        second = stack.enter_context(kernel("sandcell", home.environ, home.path))

        def go_on(message: object) -> None:
            if "'begun\\n'" in str(message):
                let_go(home)

        result = second.front.run(f"%sandbox attach {str(session.id)[:6]}", seen=go_on)
        assert shown(result) == [f"Attached to session {str(session.id)[:8]} (active)."]
        assert result.stream() == "begun\n" + LINES
        assert "missed output of In [1]: import os, time…" in result.stream("stderr")
        assert result.content["status"] == "ok"
        assert second.front.value("i") == "19"
        # Nothing ran in the session that it had before.
        assert only_session().id == session.id
        second.front.run("variable = 'kept'")
    assert only_session().id == session.id
    close_all()


def test_what_ended_while_nobody_was_there_is_shown_under_the_first_cell(home: Home) -> None:
    with ExitStack() as stack:
        lost_kernel(home, stack, SANDCELL_SESSION="analysis")
        let_go(home)
        eventually("the cell ends", lambda: only_session().status.value == "idle")
        environ = home.environ | {"SANDCELL_SESSION": "analysis"}
        second = stack.enter_context(kernel("sandcell", environ, home.path))
        result = second.front.run("i")
        assert result.stream() == "begun\n" + LINES
        assert result.of("execute_result")[0]["data"]["text/plain"] == "19"
        assert second.front.run("pass").iopub[1:-1][0]["header"]["msg_type"] == "execute_input"
    # What was seen is not shown again.
    with kernel("sandcell", environ, home.path) as third:
        assert third.front.run("i").stream() == ""
    close_all()


def test_a_notebook_opened_again_after_its_server_was_killed_goes_on(home: Home) -> None:
    notebook = {"JPY_SESSION_NAME": str(home.path / "a.ipynb"), "SANDCELL_CLOSE_GRACE": "60"}
    with ExitStack() as stack:
        lost_kernel(home, stack, **notebook)
        again = stack.enter_context(kernel("sandcell", home.environ | notebook, home.path))
        msg_id = again.front.client.execute("print(i)")
        wait_for_output(again.front, msg_id, "begun\n")
        let_go(home)
        text = ""
        while "19\n19\n" not in text:
            message = again.front.client.get_iopub_msg(timeout=30)
            if message["parent_header"].get("msg_id") == msg_id:
                text += message["content"].get("text", "")
        assert "continuing session" in text or "line 19\n19\n" in text
    close_all()


@pytest.mark.parametrize("line", ["%sandbox attach asks", "pass"])
def test_a_question_that_nobody_can_answer_any_more_is_asked_again(home: Home, line: str) -> None:
    environ = {} if line.startswith("%") else {"SANDCELL_SESSION": "asks"}
    with ExitStack() as stack:
        directory = home.path / "lost"
        directory.mkdir()
        asks = home.environ | {"SANDCELL_SESSION": "asks"}
        lost = stack.enter_context(kernel("sandcell", asks, directory))
        lost.front.client.execute("name = input('who? ')", allow_stdin=True)
        assert lost.front.client.get_stdin_msg(timeout=30)["content"]["prompt"] == "who? "
        lost.manager.signal_kernel(signal.SIGKILL)
        eventually("the line is gone", lambda: not gateways.processes(home, "sandcell_kernel"))
        second = stack.enter_context(kernel("sandcell", home.environ | environ, home.path))
        result = second.front.run(line, prompts=["Ada"], allow_stdin=True)
        assert result.content["status"] == "ok"
        assert second.front.value("name") == "'Ada'"
    close_all()


def test_attach_to_nothing_says_what_there_is(running: Kernel) -> None:
    (error,) = running.front.run("%sandbox attach nothing").of("error")
    assert "you have no live session 'nothing'" in error["evalue"]
    assert running.front.value("1 + 1") == "2"


def test_what_has_run_before_is_left_and_can_be_come_back_to(running: Kernel) -> None:
    front = running.front
    front.run("variable = 'first'")
    first = str(only_session().id)[:8]
    result = front.run("%sandbox start second\nvariable")
    assert result.error == "NameError"
    assert "Started second; it is kept until you close it." in shown(result)
    assert f"session {first} goes on without this kernel" in result.stream("stderr")
    front.run(f"%sandbox attach {first}")
    assert front.value("variable") == "'first'"
    close_all()


def test_start_ends_nothing_that_runs(running: Kernel) -> None:
    front = running.front
    front.run("variable = 'kept'")
    (error,) = front.run("%sandbox start").of("error")
    assert "%sandbox close ends it" in error["evalue"]
    assert front.value("variable") == "'kept'"
    front.run("%sandbox close")
    result = front.run("%sandbox start")
    assert re.match(r"Started session [0-9a-f]{8}\.", shown(result)[0])
    assert front.run("variable").error == "NameError"


def test_a_session_that_is_gone_is_made_anew_if_the_user_wants_it(home: Home) -> None:
    environ = home.environ | {"SANDCELL_RECREATE": "true"}
    with kernel("sandcell", environ, home.path) as running:
        running.front.run("variable = 1")
        first = str(only_session().id)
        close_all()
        eventually("there is another", lambda: session_ids() not in ([], [first]))
        result = running.front.run("variable")
        assert "the session is gone: it was closed; this is a new one" in result.stream("stderr")
        assert result.error == "NameError"


def test_replay_shows_the_last_outputs_again(running: Kernel) -> None:
    front = running.front
    front.run("print('one')")
    front.run(PICTURE)
    front.run("1 / 0")
    assert shown(front.run("%sandbox replay"))[0].startswith("In [3]: 1 / 0 (error, ")
    result = front.run("%sandbox replay 2")
    assert result.stream() == "text\n"
    pictures = [c["data"] for c in result.of("display_data") if "image/png" in c["data"]]
    assert len(pictures) == 1
    assert "ZeroDivisionError" in result.stream("stderr")
    assert (result.error, result.content["status"]) == ("", "ok")
    assert result.stream() + front.run("%sandbox replay 9").stream() == "text\none\ntext\n"


def test_a_detached_cell_runs_on_while_others_run_and_after_the_notebook(home: Home) -> None:
    environ = home.environ | {"JPY_SESSION_NAME": str(home.path / "a.ipynb")}
    with kernel("sandcell", environ, home.path) as running:
        front = running.front
        front.run("start = 1")
        (text,) = shown(front.run(f"%%sandbox --detach\nstart += 1\n{WAIT}start"))
        found = re.match(r"Job ([0-9a-f]{8}) runs", text)
        assert found is not None
        name = found[1]
        assert "running" in shown(front.run("%sandbox jobs"))[0]
        late = shown(front.run(f"%sandbox wait {name} --timeout 0.1"))
        assert late[0] == "1 of 1 still run after 0.1 s."
    assert only_session().status.value == "active"
    let_go(home)
    with kernel("sandcell", environ, home.path) as again:
        (table,) = shown(again.front.run("%sandbox wait"))[-1:]
        assert table == "No job runs." or "ok" in table
        result = again.front.run(f"%sandbox result {name}")
        assert result.stream() == "begun\n" + LINES
        assert shown(result)[-1] == "2"
        # It was not shown as something that was missed.
        assert again.front.run("i").stream() == ""
        (error,) = again.front.run("%sandbox result nonesuch").of("error")
        assert "there is no job 'nonesuch'" in error["evalue"]
    close_all()


def test_an_interrupt_ends_following_and_not_what_is_followed(home: Home) -> None:
    with ExitStack() as stack:
        lost_kernel(home, stack)
        session = only_session()
        second = stack.enter_context(kernel("sandcell", home.environ, home.path))
        msg_id = second.front.client.execute(f"%sandbox attach {session.id}")
        wait_for_output(second.front, msg_id, "begun\n")
        second.manager.interrupt_kernel()
        assert second.front.collect(msg_id).error == "KeyboardInterrupt"
        eventually("the other one is closed", lambda: session_ids() == [str(session.id)])
        assert only_session().status.value == "active"
        let_go(home)
        result = second.front.run("i")
        assert result.stream() == LINES
        assert result.of("execute_result")[0]["data"]["text/plain"] == "19"
    close_all()


def test_a_cell_magic_below_something_else_says_so(running: Kernel) -> None:
    result = running.front.run("# first\n%%sandbox --detach\n1")
    assert result.content["status"] == "error"


def test_attaching_to_what_does_not_answer_can_be_given_up(home: Home) -> None:
    with kernel("sandcell", home.environ, home.path) as running, sandcell.Client() as client:
        front = running.front
        front.run("precious = 1")
        mine = str(only_session().id)
        target = client.sessions.create(name="target", wait=30)
        (shim,) = [
            process
            for process in gateways.processes(home, "sandcell_gateway.shim")
            if str(target.id) in str(process.cmdline())
        ]
        shim.suspend()
        try:
            msg_id = front.client.execute("%sandbox attach target")
            eventually("it changes", lambda: busy(running, msg_id))
            running.manager.interrupt_kernel()
            assert front.collect(msg_id).error == "KeyboardInterrupt"
            assert front.value("precious") == "1"
        finally:
            shim.resume()
        target.close()
        assert str(only_session().id) == mine


def busy(running: Kernel, msg_id: str) -> bool:
    """Whether the cell's lines run; they have begun to attach a moment later."""
    try:
        message = running.front.client.get_iopub_msg(timeout=0.5)
    except queue.Empty:
        return False
    return message["msg_type"] == "execute_input"


def test_the_session_that_the_user_names_goes_before_the_one_of_last_time(home: Home) -> None:
    notebook = {"JPY_SESSION_NAME": str(home.path / "a.ipynb")}
    with kernel("sandcell", home.environ | notebook, home.path) as first:
        first.front.run("%sandbox start other\nvariable = 1")
    environ = home.environ | notebook | {"SANDCELL_SESSION": "wanted"}
    with kernel("sandcell", environ, home.path) as second:
        assert second.front.run("variable").error == "NameError"
        assert "wanted" in shown(second.front.run("%sandbox status"))[0]
    close_all()


def test_a_kept_session_that_was_closed_meanwhile_is_missed(home: Home) -> None:
    environ = home.environ | {"JPY_SESSION_NAME": str(home.path / "a.ipynb")}
    with kernel("sandcell", environ, home.path) as first:
        first.front.run("%sandbox start kept\nvariable = 1")
    close_all()
    with kernel("sandcell", environ, home.path) as second:
        result = second.front.run("variable")
        assert "which this notebook used, has ended" in result.stream("stderr")
        assert result.error == "NameError"
    close_all()


def test_a_named_session_is_made_anew_once_and_said_once(home: Home) -> None:
    environ = home.environ | {"SANDCELL_RECREATE": "true", "SANDCELL_SESSION": "named"}
    with kernel("sandcell", environ, home.path) as running:
        running.front.run("variable = 1")
        first = str(only_session().id)
        close_all()
        eventually("there is another", lambda: session_ids() not in ([], [first]))
        result = running.front.run("variable")
        assert result.stream("stderr").count("this is a new one") == 1
        assert result.error == "NameError"
    close_all()


def test_who_writes_no_text_is_told_as_in_ipykernel(running: Kernel) -> None:
    result = running.front.run("import sys\nsys.stdout.write(5)")
    assert result.of("error")[0]["evalue"] == "write() argument must be str, not <class 'int'>"


@pytest.mark.parametrize("grace", ["0", "1"])
def test_the_first_kernels_end_does_not_close_what_another_uses(home: Home, grace: str) -> None:
    environ = home.environ | {"SANDCELL_CLOSE_GRACE": grace}
    with kernel("sandcell", environ, home.path) as first:
        first.front.run("variable = 'kept'")
        mine = str(only_session().id)
        second = kernel("sandcell", home.environ | {"SANDCELL_SESSION": mine}, home.path)
        started = second.__enter__()
        assert started.front.value("variable") == "'kept'"
    time.sleep(float(grace) + 0.5)  # the time after which it would be closed
    try:
        assert started.front.value("variable") == "'kept'"
        assert str(only_session().id) == mine
    finally:
        second.__exit__(None, None, None)
    close_all()
