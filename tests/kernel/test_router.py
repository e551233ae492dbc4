"""The local kernel's core: answer here, forward, or both."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from sandcell_kernel.cells import Line
from sandcell_kernel.kernel_info import KernelInfo
from sandcell_kernel.router import MAX_WAITING, REPLACED, Router, State
from sandcell_wire.messages import Message, envelope, make

FRONT = [b"front-end"]


class World:
    """Lists in the place of the sockets."""

    def __init__(self, tmp: Path, *, connected: bool = True, detaches: bool = False) -> None:
        self.fronts: list[tuple[str, list[bytes], Message]] = []
        self.iopub: list[Message] = []
        self.session: list[tuple[int, Message]] = []
        self.wanted = 0
        self.ended: list[bool] = []
        self.lines: list[tuple[str, list[str]]] = []
        info = KernelInfo.load(tmp / "info.json")
        self.router = Router(self, "interp", info, detaches=detaches)
        self.seq = 0
        if connected:
            self.router.connected()

    def to_front(self, channel: str, identities: Sequence[bytes], message: Message) -> None:
        self.fronts.append((channel, list(identities), message))

    def publish(self, message: Message) -> None:
        self.iopub.append(message)

    def to_session(self, seen: int, message: Message) -> None:
        self.session.append((seen, message))

    def want_session(self) -> None:
        self.wanted += 1

    def run_lines(self, msg_id: str, lines: Sequence[Line]) -> None:
        self.lines.append((msg_id, [line.text for line in lines]))

    def cancel_lines(self) -> None:
        self.router.lines_done(self.lines[-1][0], ("KeyboardInterrupt", "interrupted"))

    def shutdown(self, restart: bool) -> None:
        self.ended.append(restart)

    def ask(
        self,
        msg_type: str = "execute_request",
        identities: Sequence[bytes] = FRONT,
        channel: str = "shell",
        **content: Any,
    ) -> Message:
        message = make(channel, msg_type, content, session="front")
        self.router.from_front(list(identities), message)
        return message

    def remote(self, channel: str, msg_type: str, parent: Message, **content: Any) -> Message:
        self.seq += 1
        message = make(channel, msg_type, content, session="interp", parent_header=parent.header)
        self.router.from_session(self.seq, message)
        return message

    def published(self) -> list[str]:
        names = []
        for message in self.iopub:
            state = message.content_dict().get("execution_state", "")
            kind = envelope(message).msg_type
            names.append(f"{kind}:{state}" if state else kind)
        return names

    def reply(self) -> dict[str, Any]:
        return self.fronts[-1][2].content_dict()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def offline(tmp_path: Path) -> World:
    return World(tmp_path, connected=False)


@pytest.mark.parametrize("channel", ["shell", "control"])
def test_kernel_info_is_answered_at_once_without_a_session(offline: World, channel: str) -> None:
    request = offline.ask("kernel_info_request", channel=channel)
    assert offline.published() == ["status:busy", "status:idle"]
    where, identities, reply = offline.fronts[0]
    assert (where, identities) == (channel, FRONT)
    assert reply.parent_header == request.header
    assert offline.reply()["language_info"]["name"] == "python"
    assert offline.reply()["supported_features"] == []
    assert offline.session == []


def test_messages_are_forwarded_as_they_are(world: World) -> None:
    message = make("shell", "comm_msg", {"data": {}}, session="front")
    message.buffers = [b"\x00\xff"]
    world.router.from_front(FRONT, message)
    assert world.session == [(0, message)]


def test_replies_find_the_front_end_that_asked(world: World) -> None:
    one = world.ask(identities=[b"one"])
    two = world.ask(identities=[b"two"])
    world.remote("shell", "execute_reply", two)
    world.remote("shell", "execute_reply", one)
    assert [identities for _, identities, _ in world.fronts] == [[b"two"], [b"one"]]


def test_a_prompt_goes_to_the_stdin_socket_of_the_front_end_that_runs_the_cell(
    world: World,
) -> None:
    request = world.ask(identities=[b"one"])
    prompt = world.remote("stdin", "input_request", request, prompt="? ")
    assert world.fronts == [("stdin", [b"one"], prompt)]


def test_the_remotes_starting_is_swallowed(world: World) -> None:
    world.remote("iopub", "status", make("shell", "x", {}, session=""), execution_state="starting")
    assert world.iopub == []


def test_requests_wait_for_the_line_and_are_sent_again_until_acknowledged(offline: World) -> None:
    first, second = offline.ask(), offline.ask()
    assert offline.session == []
    offline.router.connected()
    assert [message for _, message in offline.session] == [first, second]
    offline.router.acknowledged([envelope(first).msg_id])
    offline.router.disconnected()
    offline.router.connected()
    assert [message for _, message in offline.session] == [first, second, second]


def test_what_was_seen_is_told_and_not_shown_twice(world: World) -> None:
    request = world.ask()
    output = world.remote("iopub", "stream", request, text="x")
    world.router.from_session(world.seq, output)
    assert len(world.iopub) == 1
    world.ask()
    assert [seen for seen, _ in world.session] == [0, 1]


def test_without_a_session_the_cell_says_so_and_a_later_one_tries_again(offline: World) -> None:
    waiting = offline.ask()
    offline.router.failed("no gateway at http://x. Check SANDCELL_URL.")
    assert offline.published() == ["status:busy", "error", "status:idle"]
    assert offline.reply()["evalue"] == "no gateway at http://x. Check SANDCELL_URL."
    assert offline.fronts[-1][2].parent_header == waiting.header
    offline.ask("complete_request")
    assert offline.reply()["status"] == "error"
    assert offline.wanted == 0
    offline.ask()
    assert (offline.wanted, offline.router.state) == (1, State.WAITING)
    offline.router.connected()
    assert len(offline.session) == 1


def test_a_lost_session_is_told_to_exactly_one_cell(world: World) -> None:
    world.router.failed("closed; variables are gone", lost=True)
    world.ask(code="x")
    behind = [world.ask(code="y"), world.ask(code="%sandbox status")]  # by "Run All"
    done(world)
    assert [reply.parent_header for _, _, reply in world.fronts[1:]] == [m.header for m in behind]
    assert statuses(world) == ["error", *ABORTED]
    assert world.fronts[0][2].content_dict()["evalue"] == "closed; variables are gone"
    assert (world.wanted, world.lines[0][1], len(world.lines)) == (0, [], 1)
    world.ask(code="x")
    assert world.wanted == 1
    world.router.connected()
    assert len(world.session) == 1


def test_an_error_given_here_repeats_the_last_execution_count(world: World) -> None:
    request = world.ask()
    world.remote("shell", "execute_reply", request, execution_count=7)
    world.ask()
    world.router.failed("gone")
    assert world.reply()["execution_count"] == 7


def test_a_front_end_that_floods_a_dead_line_is_refused_not_remembered(offline: World) -> None:
    for _ in range(MAX_WAITING):
        offline.ask("complete_request")
    assert offline.fronts == []
    offline.ask()
    assert "already wait" in offline.reply()["evalue"]


def statuses(world: World) -> list[str]:
    """The replies' statuses, in the order in which they went out."""
    return [message.content_dict().get("status", "") for _, _, message in world.fronts]


def interrupts(message: Message) -> list[str]:
    """What an interrupt that went to the session is for."""
    return json.loads(message.metadata)["sandcell"]["interrupts"]


def ids(*messages: Message) -> list[str]:
    return [envelope(message).msg_id for message in messages]


def test_an_interrupt_names_what_it_is_for_and_is_answered_at_once_and_once(
    world: World,
) -> None:
    cell = world.ask()
    widget = world.ask("comm_msg")
    world.router.acknowledged(ids(widget))
    subshell = make("shell", "execute_request", {"code": "1"}, session="front")
    subshell.header = subshell.header.replace(b"{", b'{"subshell_id":"s",', 1)
    world.router.from_front(FRONT, subshell)
    interrupt = world.ask("interrupt_request", channel="control")
    assert interrupts(world.session[-1][1]) == ids(cell, widget)  # SIGINT hits no subshell
    assert (world.reply(), world.published()) == ({"status": "ok"}, ["status:busy", "status:idle"])
    for state in ("busy", "idle"):
        world.remote("iopub", "status", interrupt, execution_state=state)
    world.remote("control", "interrupt_reply", interrupt, status="ok")
    assert (len(world.fronts), len(world.iopub)) == (1, 2)


def test_a_widgets_message_is_over_when_the_kernel_is_idle_again(world: World) -> None:
    widget = world.ask("comm_msg")
    world.remote("iopub", "status", widget, execution_state="busy")
    world.remote("iopub", "status", widget, execution_state="idle")
    world.ask("interrupt_request", channel="control")
    assert interrupts(world.session[-1][1]) == []


def test_an_interrupt_ends_what_waits_for_the_session(offline: World) -> None:
    asked = offline.ask("complete_request")
    for code in ("1", "2", "%sandbox status", "3"):
        offline.ask(code=code)
    offline.ask("interrupt_request", channel="control")
    assert statuses(offline) == ["ok", "error", *["aborted"] * 3]
    assert offline.fronts[1][2].content_dict()["ename"] == "KeyboardInterrupt"
    assert offline.lines == []
    offline.router.connected()
    assert [message for _, message in offline.session] == [asked]  # the interrupt is done


def test_what_may_have_reached_the_session_is_interrupted_there(world: World) -> None:
    sent = world.ask(code="1")
    world.router.disconnected()
    world.ask(code="2")
    world.ask(code="%sandbox status")
    interrupt = world.ask("interrupt_request", channel="control")
    assert statuses(world) == ["ok", "aborted", "aborted"]
    world.router.connected()
    assert [message for _, message in world.session] == [sent, sent, interrupt]
    assert interrupts(interrupt) == ids(sent)
    world.remote("shell", "execute_reply", sent, status="error", ename="KeyboardInterrupt")
    assert statuses(world)[-1] == "error"


def probe(world: World) -> Message:
    """The newest message to the session, which asks it whether it is there yet."""
    message = world.session[-1][1]
    assert envelope(message).msg_type == "kernel_info_request"
    return message


def answer(world: World, asked: Message) -> None:
    for state in ("busy", "idle"):
        world.remote("iopub", "status", asked, execution_state=state)
    world.remote(asked.channel, "kernel_info_reply", asked, status="ok")


def test_a_request_whose_end_was_lost_ends_as_unknown(world: World) -> None:
    lost, runs = world.ask(code="1"), world.ask(code="2")
    world.router.acknowledged(ids(lost, runs))
    world.router.still_open(ids(runs))
    asked = probe(world)
    assert (asked.channel, statuses(world)) == ("control", [])
    world.iopub.clear()
    answer(world, asked)
    assert world.published() == ["status:busy", "error", "status:idle"]
    assert world.fronts[-1][2].parent_header == lost.header
    assert (len(world.fronts), world.reply()["ename"]) == (1, "OutcomeUnknown")
    world.remote("shell", "execute_reply", runs, status="ok")
    assert statuses(world) == ["error", "ok"]


def test_an_end_that_comes_after_the_lost_messages_counts(world: World) -> None:
    cell = world.ask(code="1")
    world.router.acknowledged(ids(cell))
    world.router.still_open([])
    asked = probe(world)
    world.remote("shell", "execute_reply", cell, status="ok")
    answer(world, asked)
    assert statuses(world) == ["ok"]


def test_a_request_that_may_have_come_too_late_to_be_named_is_waited_for(world: World) -> None:
    subshell = make("shell", "execute_request", {"code": "1"}, session="front")
    subshell.header = subshell.header.replace(b"{", b'{"subshell_id":"s",', 1)
    world.router.from_front(FRONT, subshell)
    world.router.still_open([])
    asked = probe(world)
    assert (asked.channel, envelope(asked).subshell_id) == ("shell", "s")
    answer(world, asked)
    assert world.reply()["ename"] == "OutcomeUnknown"


def test_what_waits_for_the_line_or_was_named_is_not_asked_about(world: World) -> None:
    named = world.ask(code="1")
    world.router.disconnected()
    world.ask(code="2")
    world.router.still_open(ids(named))
    assert [message for _, message in world.session] == [named]


def test_cells_that_wait_here_do_not_run_when_an_end_was_lost(world: World) -> None:
    cell = world.ask(code="1")
    world.router.acknowledged(ids(cell))
    world.ask(code="%sandbox status")
    world.router.still_open([])
    answer(world, probe(world))
    assert statuses(world) == ["error", "aborted"]


def test_a_lost_busy_or_idle_is_made_up_for(world: World) -> None:
    cell, widget = world.ask(code="1"), world.ask("comm_msg")
    world.remote("iopub", "status", widget, execution_state="idle")
    world.remote("iopub", "status", cell, execution_state="busy")
    world.remote("shell", "execute_reply", cell, status="ok")
    assert world.published() == ["status:busy", "status:idle"] * 2


def test_an_interrupt_reaches_each_subshells_waiting_cells(offline: World) -> None:
    offline.ask(code="1")
    subshell = make("shell", "execute_request", {"code": "2"}, session="front")
    subshell.header = subshell.header.replace(b"{", b'{"subshell_id":"s",', 1)
    offline.router.from_front(FRONT, subshell)
    offline.ask("interrupt_request", channel="control")
    assert statuses(offline) == ["ok", "error", "error"]


def test_shutdown_is_answered_here(world: World) -> None:
    world.ask("shutdown_request", channel="control", restart=True)
    assert world.reply() == {"status": "ok", "restart": True}
    assert world.ended == [True]
    assert world.session == []


def test_an_interrupt_that_belongs_to_a_shutdown_does_not_reach_a_shared_session(
    tmp_path: Path,
) -> None:
    world = World(tmp_path, detaches=True)
    world.ask("interrupt_request", channel="control")
    assert world.router.holds_interrupt
    world.ask("shutdown_request", channel="control", restart=False)
    world.router.release_interrupt()
    assert world.session == []


def test_an_interrupt_of_a_shared_session_is_delivered_when_nothing_follows(
    tmp_path: Path,
) -> None:
    world = World(tmp_path, detaches=True)
    interrupt = world.ask("interrupt_request", channel="control")
    world.router.release_interrupt()
    world.router.release_interrupt()
    assert [message for _, message in world.session] == [interrupt]


def test_answers_given_here_carry_the_interpreters_session(world: World) -> None:
    world.ask("kernel_info_request")
    sessions = {envelope(message).session for message in world.iopub}
    assert sessions == {"interp"}


def test_the_true_kernel_info_is_kept_for_the_next_kernel(tmp_path: Path) -> None:
    file = tmp_path / "cache" / "info.json"
    content = {"supported_features": ["debugger"], "banner": "IPython 9"}
    KernelInfo.load(file).learn(content, "bubblewrap", True)
    assert KernelInfo.load(file).content()["supported_features"] == ["debugger"]
    file.write_text("garbage")
    assert KernelInfo.load(file).content()["supported_features"] == []


@pytest.mark.parametrize(
    ("installed", "features"),
    [
        ("ipykernel-7.4.0.dist-info debugpy-1.8.0.dist-info", ["kernel subshells", "debugger"]),
        ("ipykernel-10.0.0rc1.dist-info", ["kernel subshells"]),
        ("ipykernel-6.29.5.egg-info debugpy-1.6.3-py3.11.egg-info", ["debugger"]),
        ("debugpy-1.8.0.dist-info ipykernel_helper-8.0.dist-info", []),
    ],
)
def test_before_the_first_session_what_is_installed_tells_the_features(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: str, features: list[str]
) -> None:
    packages = tmp_path / "site-packages"
    for name in ["IPython-9.1.0.dist-info", *installed.split()]:
        (packages / name).mkdir(parents=True)
    monkeypatch.setattr("sys.path", [str(tmp_path / "nowhere"), str(packages)])
    known = KernelInfo.load(tmp_path / "info.json", own_image=True).content()
    assert known["supported_features"] == features
    assert known["implementation_version"] == ("9.1.0" if "ipykernel-" in installed else "")
    elsewhere = KernelInfo.load(tmp_path / "info.json").content()
    assert elsewhere["supported_features"] == []


def test_the_banner_warns_of_an_engine_that_isolates_nothing(tmp_path: Path) -> None:
    file = tmp_path / "info.json"
    KernelInfo.load(file).learn({}, "process", False)
    assert "'process' isolates nothing" in KernelInfo.load(file).content()["banner"]


def done(world: World, error: tuple[str, str] | None = None) -> None:
    world.router.lines_done(world.lines[-1][0], error)


def test_a_cell_of_sandbox_lines_is_answered_here_with_the_last_count(world: World) -> None:
    earlier = world.ask(code="1")
    world.remote("shell", "execute_reply", earlier, execution_count=4)
    world.iopub.clear()
    cell = world.ask(code="%sandbox status\n%sandbox list")
    assert world.lines == [(envelope(cell).msg_id, ["status", "list"])]
    world.router.lines_output(
        envelope(cell).msg_id, "display_data", {"data": {"text/plain": "idle"}}
    )
    done(world)
    assert world.published() == ["status:busy", "execute_input", "display_data", "status:idle"]
    assert world.reply()["execution_count"] == 4
    assert len(world.session) == 1


def test_sandbox_lines_wait_for_what_was_asked_before(world: World) -> None:
    earlier = world.ask(code="1")
    world.ask(code="%sandbox status")
    assert world.lines == []
    world.remote("shell", "execute_reply", earlier)
    assert len(world.lines) == 1


def test_what_follows_sandbox_lines_waits_for_them(world: World) -> None:
    world.ask(code="%sandbox status")
    later = world.ask(code="2")
    subshell = make("shell", "execute_request", {"code": "3"}, session="front")
    subshell.header = subshell.header.replace(b"{", b'{"subshell_id":"s",', 1)
    world.router.from_front(FRONT, subshell)
    assert [message for _, message in world.session] == [subshell]
    done(world)
    assert [message for _, message in world.session] == [subshell, later]


def test_the_rest_of_the_cell_is_forwarded_unchanged_and_marked(world: World) -> None:
    code = "%sandbox status\nx = 1"
    cell = world.ask(code=code)
    done(world)
    ((_, sent),) = world.session
    assert sent.content_dict()["code"] == code
    assert json.loads(sent.metadata)["sandcell"] == {"lines_done": 1}
    world.remote("iopub", "status", cell, execution_state="busy")
    world.remote("iopub", "status", cell, execution_state="idle")
    assert world.published() == ["status:busy", "status:idle"]  # one of each


@pytest.mark.parametrize(("stop", "forwarded"), [(True, 0), (False, 1)])
def test_a_failed_line_ends_its_cell_and_aborts_those_behind(
    world: World, stop: bool, forwarded: int
) -> None:
    world.ask(code="%sandbox stauts\nx = 1", stop_on_error=stop)
    world.ask(code="y = 2")
    done(world, ("UsageError", "did you mean %sandbox status?"))
    replies = [message.content_dict()["status"] for _, _, message in world.fronts]
    assert replies == (["error", "aborted"] if stop else ["error"])
    assert len(world.session) == forwarded


ABORTED = ["aborted", "aborted"]


@pytest.mark.parametrize(
    ("first", "status", "aborts"),
    [
        ({}, "error", True),
        ({}, "ok", False),
        ({"stop_on_error": False}, "error", False),
        ({"silent": True}, "error", False),
    ],
)
def test_cells_that_wait_here_do_not_run_when_the_one_before_fails(
    world: World, first: dict[str, Any], status: str, aborts: bool
) -> None:
    earlier = world.ask(code="1 / 0", **first)
    world.ask(code="%sandbox status\nx = 1")
    world.ask("complete_request", code="x")
    world.ask(code="y = 2")
    sent = len(world.session)
    world.remote("shell", "execute_reply", earlier, status=status)
    assert statuses(world) == ([status, *ABORTED] if aborts else [status])
    assert len(world.lines) == (0 if aborts else 1)
    assert len(world.session) == sent + (1 if aborts else 0)  # the completion
    later = world.ask(code="%sandbox status")
    if aborts:
        world.remote("shell", "complete_reply", world.session[-1][1])
        assert world.lines == [(envelope(later).msg_id, ["status"])]


def test_an_error_in_another_subshell_aborts_nothing(world: World) -> None:
    subshell = make("shell", "execute_request", {"code": "1 / 0"}, session="front")
    subshell.header = subshell.header.replace(b"{", b'{"subshell_id":"s",', 1)
    world.router.from_front(FRONT, subshell)
    main = world.ask(code="1")
    world.ask(code="%sandbox status")
    world.remote("shell", "execute_reply", subshell, status="error")
    assert statuses(world) == ["error"]
    world.remote("shell", "execute_reply", main, status="ok")
    assert len(world.lines) == 1


def test_cells_that_wait_here_do_not_run_when_the_session_cannot_be_had(offline: World) -> None:
    offline.ask("complete_request", code="x")
    offline.ask(code="1")
    offline.ask(code="%sandbox status")
    offline.ask(code="2")
    offline.router.failed("no gateway")
    assert statuses(offline) == ["error", "error", *ABORTED]
    assert offline.lines == []


def test_a_silent_failed_line_aborts_nothing(world: World) -> None:
    world.ask(code="%sandbox stauts", silent=True)
    world.ask(code="y = 2")
    done(world, ("UsageError", "did you mean %sandbox status?"))
    assert statuses(world) == ["error"]
    assert len(world.session) == 1


def test_a_silent_cell_of_sandbox_lines_is_not_echoed(world: World) -> None:
    world.ask(code="%sandbox status", silent=True)
    done(world)
    assert world.published() == ["status:busy", "status:idle"]


def test_an_interrupt_ends_the_lines_that_run(world: World) -> None:
    world.ask(code="%sandbox status")
    world.ask("interrupt_request", channel="control")
    replies = [message.content_dict() for _, _, message in world.fronts]
    assert replies[0] == {"status": "ok"}
    assert replies[1]["ename"] == "KeyboardInterrupt"
    assert world.session == []


def test_sandbox_lines_run_although_the_session_cannot_be_had(offline: World) -> None:
    offline.router.failed("no gateway")
    offline.ask(code="%sandbox status")
    assert len(offline.lines) == 1
    done(offline, ("UsageError", "no gateway"))
    assert offline.wanted == 0


def run(world: World, **reply: Any) -> str:
    """A cell from its request to its reply; what it showed on stderr."""
    before = len(world.iopub)
    request = world.ask(code="")
    world.remote("iopub", "status", request, execution_state="busy")
    world.remote("iopub", "status", request, execution_state="idle")
    world.remote("shell", "execute_reply", request, **reply)
    return "".join(message.content_dict().get("text", "") for message in world.iopub[before:])


def test_another_interpreter_is_told_under_the_next_cell(world: World) -> None:
    run(world, status="ok")
    world.router.replaced()
    assert run(world, status="ok") == REPLACED
    assert run(world, status="ok") == ""


@pytest.mark.parametrize("name", ["KernelDied", "KernelRestarted"])
def test_who_saw_the_interpreter_end_is_not_told_of_the_next(world: World, name: str) -> None:
    run(world, status="error", ename=name)
    world.router.replaced()
    assert run(world, status="ok") == ""
    world.router.replaced()
    assert run(world, status="ok") == REPLACED


def test_a_cell_that_waits_for_the_next_interpreter_is_told_by_the_session(world: World) -> None:
    world.ask(code="")
    world.router.replaced()
    assert [name for name in world.published() if name == "stream"] == []
