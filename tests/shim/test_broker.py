"""The shim's core: exactly one busy, idle and reply; hostile kernels; deaths; repeats."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandcell_gateway.shim.broker import Broker
from sandcell_gateway.shim.journal import Kind
from sandcell_gateway.shim.request import Cause
from sandcell_wire.messages import Message, MessageError, dumps, envelope, make


class World:
    """A list in the place of journal, clients and kernel."""

    def __init__(self, *, ready: bool = True) -> None:
        self.time = 100.0
        self.records: list[tuple[Message, Kind, str]] = []
        self.sent: list[Message] = []
        self.woken = 0
        self.interrupts = 0
        self.active: list[bool] = []
        self.dropped: list[str] = []
        self.broker = Broker(self, "interp")
        if ready:
            self.broker.starting("interp")
            self.broker.became_ready()

    def now(self) -> float:
        self.time += 1
        return self.time

    def record(self, message: Message, kind: Kind, owner: str) -> int:
        self.records.append((message, kind, owner))
        return len(self.records)

    def to_kernel(self, message: Message) -> None:
        self.sent.append(message)

    def interrupt(self) -> None:
        self.interrupts += 1

    def wake(self) -> None:
        self.woken += 1

    def activity(self, active: bool) -> None:
        self.active.append(active)

    def drop(self, what: str) -> None:
        self.dropped.append(what)

    # what a client sees

    def seen(self, client: str = "a") -> list[str]:
        shown = []
        for message, kind, owner in self.records:
            if kind is Kind.REQUEST or owner not in ("", client):
                continue
            head = envelope(message)
            state = message.content_dict().get("execution_state", "")
            shown.append(f"{head.msg_type}:{state}" if state else head.msg_type)
        return shown

    def last(self, msg_type: str) -> dict[str, Any]:
        found = [m for m, k, _ in self.records if envelope(m).msg_type == msg_type]
        return found[-1].content_dict()

    # what clients and the kernel do

    def ask(
        self,
        msg_type: str = "execute_request",
        client: str = "a",
        *,
        seen: int = 10**9,
        channel: str = "shell",
        **content: Any,
    ) -> Message:
        message = make(channel, msg_type, content, session="client")
        self.broker.from_client(client, seen, message)
        return message

    def kernel(self, channel: str, msg_type: str, parent: Message, **content: Any) -> Message:
        message = make(channel, msg_type, content, session="interp", parent_header=parent.header)
        self.broker.from_kernel(message)
        return message

    def run(self, request: Message, status: str = "ok") -> None:
        """What ipykernel does: the reply leaves before the idle."""
        self.kernel("iopub", "status", request, execution_state="busy")
        reply = envelope(request).msg_type.replace("_request", "_reply")
        self.kernel(request.channel, reply, request, status=status)
        self.kernel("iopub", "status", request, execution_state="idle")


def test_a_reply_comes_after_the_idle_that_belongs_to_it() -> None:
    world = World()
    world.run(world.ask())
    assert world.seen() == ["status:busy", "status:idle", "execute_reply"]
    assert world.active == [True, False]


def test_a_reply_is_for_its_requester_and_output_for_all() -> None:
    world = World()
    request = world.ask(client="a")
    world.kernel("iopub", "stream", request, text="hi")
    world.run(request)
    assert world.seen("b") == ["stream", "status:busy", "status:idle"]


def test_a_repeated_request_runs_once() -> None:
    world = World()
    request = world.ask()
    world.broker.from_client("a", 0, request)
    world.run(request)
    world.broker.from_client("a", 0, request)
    assert len(world.sent) == 1
    world.broker.from_client("b", 10**9, request)  # another client's id is another request
    assert len(world.sent) == 2


def test_requests_queue_until_the_kernel_is_ready_in_order() -> None:
    world = World(ready=False)
    asked = [world.ask(), world.ask("complete_request"), world.ask("comm_open")]
    assert world.sent == []
    world.broker.became_ready()
    assert world.sent == asked


def test_forged_statuses_replies_and_prompts_are_not_passed_on() -> None:
    world = World()
    stranger = make("shell", "execute_request", {}, session="x")
    world.kernel("iopub", "status", stranger, execution_state="busy")
    world.kernel("shell", "execute_reply", stranger, status="ok")
    world.kernel("stdin", "input_request", stranger, prompt="password: ")
    request = world.ask()
    world.kernel("shell", "inspect_reply", request, status="ok")
    world.kernel("iopub", "status", request, execution_state="idle")  # idle before busy
    assert world.seen() == []
    world.run(request)
    world.run(request)  # everything twice
    assert world.seen() == ["status:busy", "status:idle", "execute_reply"]


@pytest.mark.parametrize("key", ['"sandcell"', '"\\u0073andcell"'])
def test_the_kernel_cannot_speak_in_the_shims_name(key: str) -> None:
    world = World()
    request = world.ask()
    message = make("iopub", "stream", {}, session="interp", parent_header=request.header)
    message.metadata = b'{"a": 1, ' + key.encode() + b": {}}"
    world.broker.from_kernel(message)
    assert json.loads(world.records[-1][0].metadata) == {"a": 1}


@given(
    header=st.binary(max_size=40), content=st.binary(max_size=40), metadata=st.binary(max_size=40)
)
def test_garbage_from_the_kernel_is_survived(
    header: bytes, content: bytes, metadata: bytes
) -> None:
    world = World()
    for channel in ("iopub", "shell", "stdin", "control"):
        world.broker.from_kernel(Message(channel, header, b"{}", metadata, content))
    real = make("iopub", "status", {}, session="i").header
    world.broker.from_kernel(Message("iopub", real, b"{}", metadata, content))
    world.run(world.ask())
    assert world.seen()[-1] == "execute_reply"


def test_an_answer_is_delivered_only_while_its_question_is_open() -> None:
    world = World()
    request = world.ask()
    question = world.kernel("stdin", "input_request", request, prompt="? ")
    answer = make("stdin", "input_reply", {"value": "x"}, session="c")
    world.broker.from_client("b", 0, answer)  # another client's
    assert len(world.sent) == 1
    reply = make("stdin", "input_reply", {}, session="c", parent_header=question.header)
    world.broker.from_client("a", 0, reply)
    assert world.sent[1:] == [reply]
    late = make("stdin", "input_reply", {"value": "secret"}, session="c")
    world.broker.from_client("a", 0, late)
    assert world.sent[1:] == [reply]


def test_a_question_closes_with_its_cell() -> None:
    world = World()
    request = world.ask()
    world.kernel("stdin", "input_request", request, prompt="? ")
    world.run(request)
    world.broker.from_client("a", 0, make("stdin", "input_reply", {}, session="c"))
    assert world.sent == [request]


def test_a_cell_sent_before_its_predecessors_error_was_seen_is_aborted() -> None:
    world = World()
    world.run(world.ask(stop_on_error=True), status="error")
    failed_at = len(world.records)
    world.ask(seen=failed_at - 1)
    assert world.last("execute_reply") == {"status": "aborted"}
    assert world.seen()[-3:] == ["status:busy", "status:idle", "execute_reply"]
    assert len(world.sent) == 1
    world.ask(client="b", seen=0)  # somebody else's cell
    world.ask(seen=failed_at)  # sent in spite of the error
    assert len(world.sent) == 3


def test_without_stop_on_error_nothing_is_aborted() -> None:
    world = World()
    world.run(world.ask(stop_on_error=False), status="error")
    world.ask(seen=0)
    assert len(world.sent) == 2


def test_an_interrupt_hits_only_what_it_was_meant_for() -> None:
    world = World()
    first = world.ask()
    world.run(first)
    second = world.ask()
    late = make("control", "interrupt_request", {}, session="c")
    late.metadata = dumps({"sandcell": {"executions": [envelope(first).msg_id]}})
    world.broker.from_client("a", 0, late)
    assert world.interrupts == 0
    assert world.last("interrupt_reply") == {"status": "ok"}
    meant = make("control", "interrupt_request", {}, session="c")
    meant.metadata = dumps({"sandcell": {"executions": [envelope(second).msg_id]}})
    world.broker.from_client("a", 0, meant)
    assert world.interrupts == 1


def test_an_interrupt_aborts_what_still_queues_and_answers_at_once() -> None:
    world = World(ready=False)
    world.ask()
    world.ask("complete_request")
    world.ask("interrupt_request", channel="control")
    assert world.last("execute_reply")["ename"] == "KeyboardInterrupt"
    assert world.last("interrupt_reply") == {"status": "ok"}
    world.broker.became_ready()
    assert [envelope(message).msg_type for message in world.sent] == ["complete_request"]


def test_death_gives_every_open_request_an_error_an_idle_and_a_reply() -> None:
    world = World()
    request = world.ask()
    world.kernel("iopub", "status", request, execution_state="busy")
    world.ask("complete_request")
    world.broker.ended(Cause("KernelDied", "killed by signal 9"))
    assert world.seen() == [
        "status:busy",
        "error",
        "status:idle",
        "execute_reply",
        "status:busy",
        "status:idle",
        "complete_reply",
    ]
    assert world.last("execute_reply")["evalue"] == "killed by signal 9"
    assert world.broker.open == {}
    assert world.active == [True, False]


def test_after_death_a_cell_wakes_an_interpreter_and_the_rest_is_refused() -> None:
    world = World()
    world.broker.ended(Cause("KernelDied", "exited with code 3"))
    world.ask("complete_request")
    assert world.last("complete_reply")["status"] == "error"
    world.ask()
    world.ask()
    assert world.woken == 1
    world.broker.starting("next")
    world.broker.became_ready()
    assert len(world.sent) == 2


def test_every_answer_of_ours_carries_the_interpreters_session() -> None:
    world = World()
    world.ask()
    world.broker.ended(Cause("KernelDied", "x"))
    made = [message for message, kind, _ in world.records if kind is Kind.SHIM]
    assert made
    assert {envelope(message).session for message in made} == {"interp"}


def test_the_reply_carries_the_stages_of_its_run() -> None:
    world = World()
    world.run(world.ask())
    metadata = json.loads(world.records[-1][0].metadata)["sandcell"]
    stamps = metadata["stamps"]
    assert stamps["received"] < stamps["busy"] < stamps["idle"] < stamps["replied"]
    assert metadata["stages"]["queue"] == stamps["busy"] - stamps["received"]
    assert metadata["stages"]["execute"] == stamps["idle"] - stamps["busy"]


def test_a_new_shim_knows_what_was_open_and_ends_what_the_kernel_forgot() -> None:
    old = World()
    done, running, late = old.ask(), old.ask(), old.ask()
    old.run(done)
    old.kernel("iopub", "status", running, execution_state="busy")
    old.run(late)
    new = World(ready=False)
    new.broker.restore((kind, owner, message) for message, kind, owner in old.records)
    assert list(new.broker.open) == [envelope(running).msg_id]
    assert not new.broker.waits_for_input()
    new.broker.from_client("a", 0, done)  # a repeat is still recognised
    new.broker.became_ready()
    assert new.sent == []
    new.broker.probed(set(new.broker.open))
    assert new.seen() == ["error", "status:idle", "execute_reply"]  # its busy was out already
    assert new.last("execute_reply")["ename"] == "OutcomeUnknown"


def test_a_new_shim_takes_the_answer_to_an_old_question() -> None:
    old = World()
    request = old.ask()
    old.kernel("stdin", "input_request", request, prompt="? ")
    new = World(ready=False)
    new.broker.restore((kind, owner, message) for message, kind, owner in old.records)
    assert new.broker.waits_for_input()
    new.broker.became_ready()
    answer = make("stdin", "input_reply", {"value": "x"}, session="c")
    new.broker.from_client("a", 0, answer)
    assert new.sent == [answer]
    assert not new.broker.waits_for_input()
    newest = World(ready=False)
    newest.broker.restore((k, o, m) for m, k, o in [*old.records, *new.records])
    assert not newest.broker.waits_for_input()


@pytest.mark.parametrize("channel", ["iopub", "elsewhere"])
def test_clients_do_not_speak_on_iopub(channel: str) -> None:
    with pytest.raises(MessageError, match="clients send on shell, control, stdin"):
        World().broker.from_client("a", 0, make(channel, "status", {}, session=""))
