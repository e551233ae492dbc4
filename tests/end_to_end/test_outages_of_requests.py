"""A request that an outage strikes on its way runs once, and ends as without the outage."""

from __future__ import annotations

import queue
from collections.abc import Iterator

import pytest

from tests.support.gateways import eventually
from tests.support.kernels import TIMEOUT, FrontEnd, Kernel
from tests.support.proxy import Way
from tests.support.route import Route, wait_for_output

pytestmark = pytest.mark.linux

WAIT = """
import os, time
def wait_for(name):
    while not os.path.exists(name):
        time.sleep(0.01)
    os.unlink(name)
"""


@pytest.fixture(scope="module")
def running(route: Route) -> Iterator[Kernel]:
    with route.kernel(SANDCELL_KEEPALIVE="0.5") as started:
        started.front.run(WAIT)
        yield started


def effects(route: Route) -> str:
    """What the cells appended."""
    path = route.workspace / "effects.txt"
    return path.read_text() if path.exists() else ""


def append(text: str) -> str:
    """A cell whose side effect can be counted."""
    return f"with open('effects.txt', 'a') as file: file.write({text!r})"


def asked(front: FrontEnd) -> str:
    """Wait for a prompt."""
    prompt: str = front.client.get_stdin_msg(timeout=TIMEOUT)["content"]["prompt"]
    return prompt


def test_cut_between_a_request_and_its_acknowledgement(route: Route, running: Kernel) -> None:
    route.proxy.swallow(Way.DOWN)  # the request passes, and nothing that answers it
    msg_id = running.front.client.execute(append("acknowledged? "))
    eventually("the cell has run", lambda: effects(route).endswith("acknowledged? "))
    route.proxy.cut()
    result = running.front.collect(msg_id)
    assert (result.statuses, result.content["status"]) == (["busy", "idle"], "ok")
    running.front.run("pass")
    assert effects(route).count("acknowledged? ") == 1


def test_cut_before_a_request_arrives(route: Route, running: Kernel) -> None:
    route.proxy.swallow(Way.UP)
    msg_id = running.front.client.execute(append("never sent? "))
    result = running.front.collect(msg_id)  # the dead line is noticed, the request sent again
    assert (result.statuses, result.content["status"]) == (["busy", "idle"], "ok")
    assert effects(route).count("never sent? ") == 1


@pytest.mark.parametrize("after", [1, 500, 50_000])
def test_cut_in_the_middle_of_a_request(route: Route, running: Kernel, after: int) -> None:
    text = f"cut after {after}; "
    route.proxy.cut_after(Way.UP, after)
    result = running.front.run(append(text) + "\n#" + "x" * 100_000)
    assert (result.statuses, result.content["status"]) == (["busy", "idle"], "ok")
    assert effects(route).count(text) == 1


def test_cut_during_input(route: Route, running: Kernel) -> None:
    msg_id = running.front.client.execute("print(input('name? '))", allow_stdin=True)
    assert asked(running.front) == "name? "
    with route.proxy.down():
        running.front.client.input("Ada")
        eventually("the cell still waits", lambda: route.status() == "active")
    result = running.front.collect(msg_id)
    assert (result.stream(), result.content["status"]) == ("Ada\n", "ok")


def test_a_prompt_that_comes_during_an_outage(route: Route, running: Kernel) -> None:
    code = "print('go', flush=True)\nwait_for('ask')\nopen('asked', 'w')\nprint(input('late? '))"
    msg_id = running.front.client.execute(code, allow_stdin=True)
    wait_for_output(running.front, msg_id, "go")
    with route.proxy.down():
        (route.workspace / "ask").touch()
        eventually("it asks", (route.workspace / "asked").exists)
    assert asked(running.front) == "late? "
    running.front.client.input("yes")
    assert running.front.collect(msg_id).stream() == "yes\n"
    with pytest.raises(queue.Empty):
        running.front.client.get_stdin_msg(timeout=0)


def test_an_answer_is_cut_before_its_acknowledgement(route: Route, running: Kernel) -> None:
    code = (
        "first = input('first? ')\nopen('first', 'w')\nwait_for('on')\n"
        "print(first, input('second? '))"
    )
    msg_id = running.front.client.execute(code, allow_stdin=True)
    assert asked(running.front) == "first? "
    route.proxy.swallow(Way.DOWN)
    running.front.client.input("one")
    eventually("the answer came", (route.workspace / "first").exists)
    route.proxy.cut()
    (route.workspace / "on").touch()
    assert asked(running.front) == "second? "
    # Sent again after the cut, the first answer must not be taken for the second.
    running.front.client.input("two")
    assert running.front.collect(msg_id).stream() == "one two\n"


def test_an_input_reply_that_comes_too_late_is_dropped(route: Route, running: Kernel) -> None:
    client = running.front.client
    msg_id = client.execute("input('secret? ')", allow_stdin=True)
    assert asked(running.front) == "secret? "
    with route.proxy.down():
        with route.client() as direct:
            direct.sessions.list()[0].interrupt()
        eventually("the cell has ended", lambda: route.status() == "idle")
        client.input("tops3cret")
    assert running.front.collect(msg_id).error == "KeyboardInterrupt"
    second = client.execute("print(input('next? '))", allow_stdin=True)
    assert asked(running.front) == "next? "
    client.input("mine")
    result = running.front.collect(second)
    assert result.stream() == "mine\n"
    assert "an answer came after its question was gone" in result.stream("stderr")


def test_a_late_interrupt_hits_nothing(route: Route, running: Kernel) -> None:
    front = running.front
    msg_id = front.client.execute("print('go', flush=True)\nwait_for('on')")
    wait_for_output(front, msg_id, "go")
    with route.proxy.down():
        # Answered, so that it is known to have come before the cell after it.
        front.request("interrupt_request", {}, channel="control")
        later = front.client.execute("import time\ntime.sleep(0.5)\nprint('whole')")
        (route.workspace / "on").touch()
        eventually("the cell has ended", lambda: route.status() == "idle")
    assert front.collect(msg_id).content["status"] == "ok"
    result = front.collect(later)
    assert result.stream() == "whole\n"
    assert "an interrupt came after its cell had ended" in result.stream("stderr")


def test_a_failed_cell_aborts_those_behind_an_outage(route: Route, running: Kernel) -> None:
    """As plain ipykernel does with what is queued when a cell fails."""
    front = running.front
    msg_id = front.client.execute("print('go', flush=True)\nwait_for('fail')\n1 / 0")
    wait_for_output(front, msg_id, "go")
    with route.proxy.down():
        behind = [front.client.execute(append(f"behind {number} ")) for number in range(3)]
        (route.workspace / "fail").touch()
        eventually("the cell has failed", lambda: route.status() == "idle")
    assert front.collect(msg_id).error == "ZeroDivisionError"
    for waiting in behind:
        assert front.collect(waiting).content["status"] == "aborted"
    assert "behind" not in effects(route)
    assert front.run(append("afterwards ")).content["status"] == "ok"


def test_it_aborts_them_although_they_had_to_be_sent_twice(route: Route, running: Kernel) -> None:
    """What counts is what the user had seen when the cell was run, not when it was sent again."""
    front = running.front
    msg_id = front.client.execute("print('go', flush=True)\nwait_for('fail')\n1 / 0")
    wait_for_output(front, msg_id, "go")
    route.proxy.swallow(Way.UP)
    behind = front.client.execute(append("twice "))
    (route.workspace / "fail").touch()
    assert front.collect(msg_id).error == "ZeroDivisionError"
    result = front.collect(behind)  # sent again after the error was seen
    assert result.content["status"] == "aborted"
    assert "twice" not in effects(route)
