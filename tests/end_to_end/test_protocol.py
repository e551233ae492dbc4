"""The whole Jupyter protocol through the whole path, each expectation proved on plain ipykernel.

Every test runs twice: on `python3`, which shows that the expectation is Jupyter's, and
on `sandcell`: local kernel, gateway, shim, sandbox, ipykernel.
"""

from __future__ import annotations

import queue
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import MakeHome
from tests.support.kernels import TIMEOUT, Kernel, Message, kernel

KERNELS = [
    pytest.param("python3", id="ipykernel"),
    pytest.param("sandcell", id="sandcell", marks=pytest.mark.linux),
]


@pytest.fixture(scope="module", params=KERNELS)
def running(request: pytest.FixtureRequest, home_factory: MakeHome) -> Iterator[Kernel]:
    """One kernel for the tests that leave it as it was."""
    with home_factory() as home, kernel(request.param, home.environ, home.path) as started:
        yield started


def test_output_of_every_kind_in_order(running: Kernel) -> None:
    result = running.front.run(
        "import sys\n"
        "print('out')\n"
        "print('err', file=sys.stderr)\n"
        "display({'text/html': '<b>x</b>', 'text/plain': 'x'}, raw=True)\n"
        "6 * 7"
    )
    assert result.stream() == "out\n"
    assert result.stream("stderr") == "err\n"
    assert result.of("display_data")[0]["data"]["text/html"] == "<b>x</b>"
    assert result.of("execute_result")[0]["data"] == {"text/plain": "42"}
    assert result.content["status"] == "ok"
    assert result.statuses == ["busy", "idle"]
    types = [message["header"]["msg_type"] for message in result.iopub]
    assert types.index("execute_input") == 1
    assert types.index("display_data") < types.index("execute_result")


def test_an_error_has_its_traceback_with_the_users_lines(running: Kernel) -> None:
    result = running.front.run("def broken():\n    return 1 / 0\n\nbroken()")
    assert result.error == "ZeroDivisionError"
    assert result.content["status"] == "error"
    text = "\n".join(result.of("error")[0]["traceback"])
    assert "return" in text
    assert "broken" in text


def test_execution_counts_go_up_by_one(running: Kernel) -> None:
    counts = [running.front.run("pass").content["execution_count"] for _ in range(3)]
    assert counts == [counts[0], counts[0] + 1, counts[0] + 2]


def test_silent_cells_leave_no_trace(running: Kernel) -> None:
    before = running.front.run("pass").content["execution_count"]
    result = running.front.run("x = 1", silent=True)
    assert result.of("execute_input") == []
    assert running.front.run("pass").content["execution_count"] == before + 1


def test_displays_can_be_updated_and_cleared(running: Kernel) -> None:
    result = running.front.run(
        "from IPython.display import display, clear_output\n"
        "handle = display('one', display_id='d1')\n"
        "handle.update('two')\n"
        "clear_output(wait=True)"
    )
    (update,) = result.of("update_display_data")
    assert update["transient"] == {"display_id": "d1"}
    assert update["data"]["text/plain"] == "'two'"
    assert result.of("clear_output") == [{"wait": True}]


def test_input_and_getpass(running: Kernel) -> None:
    code = (
        "import getpass\n"
        "name = input('name? ')\n"
        "secret = getpass.getpass('secret? ')\n"
        "print(name, len(secret))"
    )
    client = running.front.client
    msg_id = client.execute(code, allow_stdin=True)
    prompts = []
    for answer in ("Ada", "tops3cret"):
        asked = client.get_stdin_msg(timeout=TIMEOUT)
        assert asked["parent_header"]["msg_id"] == msg_id
        prompts.append((asked["content"]["prompt"], asked["content"]["password"]))
        client.input(answer)
    assert prompts == [("name? ", False), ("secret? ", True)]
    assert running.front.collect(msg_id).stream() == "Ada 9\n"


def test_without_stdin_input_says_so(running: Kernel) -> None:
    result = running.front.run("input()", allow_stdin=False)
    assert result.error == "StdinNotImplementedError"


def test_comms_carry_binary_buffers_both_ways(running: Kernel) -> None:
    running.front.run(
        "from ipykernel.comm import Comm\n"
        "def opened(comm, message):\n"
        "    def echo(message):\n"
        "        comm.send({'n': message['content']['data']['n'] + 1},\n"
        "                  buffers=[bytes(b)[::-1] for b in message['buffers']])\n"
        "    comm.on_msg(echo)\n"
        "get_ipython().kernel.comm_manager.register_target('echo', opened)"
    )
    client = running.front.client
    session = client.session
    body = bytes(range(256)) * 4096
    opening = session.msg("comm_open", {"comm_id": "c1", "target_name": "echo", "data": {}})
    client.shell_channel.send(opening)
    message = session.msg("comm_msg", {"comm_id": "c1", "data": {"n": 1}})
    session.send(client.shell_channel.socket, message, buffers=[body, b""])
    answer = next_iopub(running, "comm_msg")
    assert answer["content"] == {"comm_id": "c1", "data": {"n": 2}}
    assert [bytes(buffer) for buffer in answer["buffers"]] == [body[::-1], b""]


def next_iopub(running: Kernel, msg_type: str) -> Message:
    while True:
        message: Message = running.front.client.get_iopub_msg(timeout=TIMEOUT)
        if message["header"]["msg_type"] == msg_type:
            return message


def test_completion_inspection_and_completeness(running: Kernel) -> None:
    running.front.run("a_long_name = 1\ndef documented():\n    'What it does.'")
    request = running.front.request
    matches = request("complete_request", {"code": "a_long", "cursor_pos": 6}).content["matches"]
    assert matches == ["a_long_name"]
    asked = {"code": "documented", "cursor_pos": 10, "detail_level": 0}
    assert "What it does." in request("inspect_request", asked).content["data"]["text/plain"]
    for code, status in (("1", "complete"), ("for x in y:", "incomplete"), ("1 +* 2", "invalid")):
        assert request("is_complete_request", {"code": code}).content["status"] == status


def test_history_is_the_interpreters(running: Kernel) -> None:
    running.front.run("marker_of_this_test = 1", store_history=True)
    asked = {"hist_access_type": "tail", "n": 1, "output": False, "raw": True, "session": 0}
    history = running.front.request("history_request", asked).content["history"]
    assert history[-1][2] == "marker_of_this_test = 1"


def test_user_expressions(running: Kernel) -> None:
    msg_id = running.front.client.execute("x = 20", user_expressions={"y": "x + 1"})
    expressions = running.front.collect(msg_id).content["user_expressions"]
    assert expressions["y"]["data"]["text/plain"] == "21"


@pytest.mark.parametrize(
    "code",
    [
        pytest.param("import time\nprint('go', flush=True)\ntime.sleep(60)", id="sleep"),
        pytest.param("print('go', flush=True)\nwhile True: pass", id="busy-loop"),
        pytest.param("import os\nprint('go', flush=True)\nos.system('sleep 60')\n1/0", id="child"),
    ],
)
def test_an_interrupt_ends_the_cell_and_the_next_one_runs(running: Kernel, code: str) -> None:
    def interrupt(message: Message) -> None:
        if message["content"].get("text") == "go\n":
            running.manager.interrupt_kernel()

    result = running.front.run(code, seen=interrupt)
    assert result.error in {"KeyboardInterrupt", "ZeroDivisionError"}
    assert running.front.value("40 + 2") == "42"


def test_an_interrupt_ends_an_await(running: Kernel) -> None:
    if not running.sandboxed:
        pytest.skip("ipykernel 7.4 sees the interrupt only when the next message wakes its loop")

    def interrupt(message: Message) -> None:
        if message["content"].get("text") == "go\n":
            running.manager.interrupt_kernel()

    code = "import asyncio\nprint('go', flush=True)\nawait asyncio.sleep(60)"
    assert running.front.run(code, seen=interrupt).error == "CancelledError"
    assert running.front.value("40 + 2") == "42"


def test_an_error_aborts_the_cells_already_queued(running: Kernel) -> None:
    client = running.front.client
    first = client.execute("import time; time.sleep(0.2); 1/0")
    second = client.execute("print('never')")
    assert running.front.collect(first).error == "ZeroDivisionError"
    result = running.front.collect(second)
    assert result.content["status"] == "aborted"
    assert result.stream() == ""
    assert running.front.value("1") == "1"


def test_two_front_ends_share_output_but_not_replies_or_prompts(running: Kernel) -> None:
    with running.another_front_end() as other:
        msg_id = running.front.client.execute("print('for all'); n = input('mine? ')")
        asked = running.front.client.get_stdin_msg(timeout=TIMEOUT)
        assert asked["content"]["prompt"] == "mine? "
        running.front.client.input("yes")
        running.front.collect(msg_id)
        texts, state = [], ""
        while state != "idle":
            message = other.client.get_iopub_msg(timeout=TIMEOUT)
            if message["parent_header"].get("msg_id") == msg_id:
                texts.append(message["content"].get("text"))
                state = message["content"].get("execution_state", "")
        assert "for all\n" in texts
        assert other.value("n") == "'yes'"
        with pytest.raises(queue.Empty):
            other.client.get_stdin_msg(timeout=0)
        with pytest.raises(queue.Empty):
            other.client.get_shell_msg(timeout=0)


def test_fifty_megabytes_in_one_output(running: Kernel) -> None:
    size = 50 * 1024 * 1024
    result = running.front.run(f"display({{'text/plain': 'x' * {size}}}, raw=True)")
    data = result.of("display_data")[0]["data"]["text/plain"]
    assert len(data) == size
    assert set(data) == {"x"}


def test_a_hundred_thousand_lines_arrive_in_order(running: Kernel) -> None:
    result = running.front.run("for i in range(100_000): print(i)")
    assert result.stream() == "".join(f"{i}\n" for i in range(100_000))


THREADS_AND_CHILDREN = """
import multiprocessing, threading
def fill(letter): print(letter * 300_000)
threads = [threading.Thread(target=fill, args=(letter,)) for letter in 'ab']
for thread in threads: thread.start()
for thread in threads: thread.join()
child = multiprocessing.get_context('fork').Process(target=fill, args=('c',))
child.start(); child.join()
fill('d')
"""


def test_large_prints_of_threads_and_children_arrive_whole(running: Kernel) -> None:
    result = running.front.run(THREADS_AND_CHILDREN)
    text = result.stream()
    assert {letter: text.count(letter) for letter in "abcd"} == dict.fromkeys("abcd", 300_000)
    assert result.error == ""
    if running.sandboxed:
        assert max(len(content["text"]) for content in result.of("stream")) < 200_000


def test_ten_thousand_displays_arrive_in_order(running: Kernel) -> None:
    result = running.front.run("for i in range(10_000): display({'text/plain': str(i)}, raw=True)")
    shown = [content["data"]["text/plain"] for content in result.of("display_data")]
    assert shown == [str(i) for i in range(10_000)]


def test_the_debugger_answers(running: Kernel) -> None:
    request: dict[str, Any] = {
        "type": "request",
        "seq": 1,
        "command": "initialize",
        "arguments": {"clientID": "test", "adapterID": "", "pathFormat": "path"},
    }
    result = running.front.request("debug_request", request, channel="control")
    assert result.content["success"] is True
    info = {"type": "request", "seq": 2, "command": "debugInfo", "arguments": {}}
    body = running.front.request("debug_request", info, channel="control").content["body"]
    assert body["hashMethod"] == "Murmur2"


def test_a_subshell_runs_beside_the_main_shell(running: Kernel) -> None:
    front = running.front
    created = front.request("create_subshell_request", {}, channel="control").content
    subshell = created["subshell_id"]
    front.run("import threading; gate = threading.Event()")
    main = front.client.execute("gate.wait(60)")
    content = {
        "code": "gate.set()",
        "silent": False,
        "store_history": False,
        "user_expressions": {},
        "allow_stdin": False,
        "stop_on_error": True,
    }
    message = front.client.session.msg("execute_request", content)
    message["header"]["subshell_id"] = subshell
    front.client.shell_channel.send(message)
    assert front.collect(main).of("execute_result")[0]["data"]["text/plain"] == "True"
    listed = front.request("list_subshell_request", {}, channel="control").content
    assert listed["subshell_id"] == [subshell]
    deleting = {"subshell_id": subshell}
    deleted = front.request("delete_subshell_request", deleting, channel="control")
    assert deleted.content["status"] == "ok"


def test_a_sliders_callback_runs_and_its_output_comes_back(running: Kernel) -> None:
    front = running.front
    front.run(
        "import ipywidgets\n"
        "slider = ipywidgets.IntSlider(value=3)\n"
        "doubled = ipywidgets.Label()\n"
        "def changed(change): doubled.value = str(change['new'] * 2)\n"
        "slider.observe(changed, 'value')"
    )
    slider = front.value("slider.model_id").strip("'")
    label = front.value("doubled.model_id").strip("'")
    data = {"method": "update", "state": {"value": 21}, "buffer_paths": []}
    session = front.client.session
    front.client.shell_channel.send(session.msg("comm_msg", {"comm_id": slider, "data": data}))
    while True:
        message = next_iopub(running, "comm_msg")
        if message["content"]["comm_id"] == label:
            break
    assert message["content"]["data"]["state"] == {"value": "42"}


@pytest.mark.parametrize("name", KERNELS)
def test_a_restart_gives_a_fresh_interpreter(name: str, home_factory: MakeHome) -> None:
    with home_factory() as home, kernel(name, home.environ, home.path) as started:
        started.front.run("variable = 1\nopen('kept.txt', 'w').write('still here')")
        started.restart()
        assert started.front.run("variable").error == "NameError"
        assert started.front.value("open('kept.txt').read()") == "'still here'"
