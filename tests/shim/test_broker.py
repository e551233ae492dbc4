"""The shim's core: exactly one busy, idle and reply; hostile kernels; deaths; repeats."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandcell_gateway.journal.records import Kind, Record, Tombstone
from sandcell_gateway.shim.broker import BAD_QUESTION, LATE_ANSWER
from sandcell_gateway.shim.past import Past, read_past
from sandcell_gateway.shim.request import Cause
from sandcell_wire import frames
from sandcell_wire.messages import Message, MessageError, dumps, envelope, make
from tests.support.brokers import World


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


@pytest.mark.parametrize("key", ['"sandcell"', '"\\u0073andcell"', '"sandcell": {}, "sandcell"'])
@pytest.mark.parametrize("value", ["{}", "null"])
def test_the_kernel_cannot_speak_in_the_shims_name(key: str, value: str) -> None:
    world = World()
    request = world.ask()
    message = make("iopub", "stream", {}, session="interp", parent_header=request.header)
    message.metadata = b'{"a": 1, ' + f"{key}: {value}}}".encode()
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
    world.run(world.ask(client="b", seen=0))  # somebody else's cell
    world.ask(seen=failed_at)  # sent in spite of the error
    assert len(world.sent) == 3


def test_a_failure_aborts_what_waits_of_its_client_and_nothing_of_others() -> None:
    world = World()
    first = world.ask(client="a", stop_on_error=True)
    theirs, behind = world.ask(client="b"), world.ask(client="a")
    assert world.sent == [first]
    world.run(first, status="error")
    assert world.seen("a")[-3:] == ["status:busy", "status:idle", "execute_reply"]
    assert world.last("execute_reply") == {"status": "aborted"}
    assert world.sent == [first, theirs]
    assert behind not in world.sent


def test_a_silent_cell_s_error_aborts_nothing() -> None:
    world = World()
    world.run(world.ask(silent=True), status="error")
    world.ask(seen=0)
    assert len(world.sent) == 2


def test_an_open_request_s_id_cannot_be_taken_by_another_client() -> None:
    world = World()
    request = world.ask(client="a")
    with pytest.raises(MessageError, match="open request of another client"):
        world.broker.from_client("b", 10**9, request)
    world.run(request)
    assert world.seen("a")[-1] == "execute_reply"


def test_the_open_requests_of_a_client_are_known() -> None:
    world = World()
    done, running = world.ask(), world.ask()
    world.ask(client="b")
    world.run(done)
    assert world.broker.open_requests("a") == [envelope(running).msg_id]


def test_without_stop_on_error_nothing_is_aborted() -> None:
    world = World()
    world.run(world.ask(stop_on_error=False), status="error")
    world.ask(seen=0)
    assert len(world.sent) == 2


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


def past(*worlds: World, lost: bool = False) -> Past:
    """What the journal of these holds; with `lost`, without the bodies of output."""
    records: list[Record | Tombstone] = []
    for message, kind, owner in [record for world in worlds for record in world.records]:
        seq = len(records) + 1
        frame = frames.encode(seq, message)
        if lost and not owner:
            records.append(Tombstone(seq, 0.0, kind, owner, len(frame)))
        else:
            records.append(Record(seq, 0.0, kind, owner, frame))
    return read_past(records)


def test_a_new_shim_that_lost_the_output_knows_what_was_asked_and_how_it_ended() -> None:
    old = World()
    done, running, comm = old.ask(), old.ask(), old.ask("comm_msg")
    old.run(done)
    old.run(comm)
    old.kernel("iopub", "status", running, execution_state="busy")
    new = World(ready=False)
    new.broker.resume(past(old, lost=True))
    assert list(new.broker.open) == [envelope(running).msg_id]
    assert [entry.status for entry in new.broker.executions] == ["ok", "queued"]
    new.broker.became_ready()
    new.broker.probed(set(new.broker.open))
    assert new.seen() == ["error", "status:idle", "execute_reply"]
    assert [entry.status for entry in new.broker.executions] == ["ok", "unknown"]


def test_a_new_shim_has_the_same_index() -> None:
    old = World()
    old.run(old.ask())
    request = old.ask()
    request.metadata = dumps({"sandcell": {"detached": True}})
    old.run(old.ask(silent=True))
    found = [entry.as_json() for entry in past(old).executions]
    assert [(entry["first"], entry["status"], entry["detached"]) for entry in found] == [
        (1, "ok", False),
        (5, "queued", True),
    ]


def test_a_new_shim_knows_what_was_open_and_ends_what_the_kernel_forgot() -> None:
    old = World()
    done, running, late = old.ask(), old.ask(), old.ask()
    old.run(done)
    old.kernel("iopub", "status", running, execution_state="busy")
    old.run(late)
    new = World(ready=False)
    new.broker.resume(past(old))
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
    new.broker.resume(past(old))
    assert new.broker.waits_for_input()
    new.broker.became_ready()
    answer = make("stdin", "input_reply", {"value": "x"}, session="c")
    new.broker.from_client("a", 0, answer)
    assert new.sent == [answer]
    assert not new.broker.waits_for_input()
    newest = World(ready=False)
    newest.broker.resume(past(old, new))
    assert not newest.broker.waits_for_input()


def test_an_answer_that_comes_before_the_interpreter_is_adopted_waits_for_it() -> None:
    old = World()
    old.kernel("stdin", "input_request", old.ask(), prompt="? ")
    new = World(ready=False)
    new.broker.resume(past(old))
    answer = make("stdin", "input_reply", {"value": "x"}, session="c")
    new.broker.from_client("a", 0, answer)
    assert new.sent == []
    new.broker.became_ready()
    assert new.sent == [answer]


@pytest.mark.parametrize("channel", ["iopub", "elsewhere"])
def test_clients_do_not_speak_on_iopub(channel: str) -> None:
    with pytest.raises(MessageError, match="clients send on shell, control, stdin"):
        World().broker.from_client("a", 0, make(channel, "status", {}, session=""))


# -- the index of executions ------------------------------------------------------------------


def test_executions_are_indexed_with_where_they_are_and_how_they_ended() -> None:
    world = World()
    first = world.ask()
    world.ask("complete_request")
    world.ask(silent=True)
    second = world.ask()
    world.kernel("iopub", "status", first, execution_state="busy")
    world.kernel("iopub", "execute_input", first, code="")
    index = world.broker.executions
    assert [entry.id for entry in index] == [envelope(first).msg_id, envelope(second).msg_id]
    entry = index.get(envelope(first).msg_id)
    assert entry is not None
    assert (entry.status, entry.client, entry.last) == ("running", "a", None)
    assert world.records[entry.first - 1][0] is first
    world.kernel("shell", "execute_reply", first, status="ok", execution_count=7)
    world.kernel("iopub", "status", first, execution_state="idle")
    assert (entry.status, entry.count) == ("ok", 7)
    assert entry.last is not None
    assert envelope(world.records[entry.last - 1][0]).msg_type == "execute_reply"
    assert entry.started is not None
    assert entry.ended is not None
    assert entry.submitted < entry.started < entry.ended


def test_a_failed_and_an_aborted_execution_are_told_apart() -> None:
    world = World()
    world.run(world.ask(stop_on_error=True), status="error")
    world.ask(seen=0)
    world.ask()
    world.broker.ended(Cause("KernelDied", "x"))
    assert [entry.status for entry in world.broker.executions] == ["error", "aborted", "error"]


def test_a_question_with_bytes_that_are_no_text_is_asked() -> None:
    world = World()
    message = make("stdin", "input_request", {}, session="i", parent_header=world.ask().header)
    message.content = b'{"prompt": "delete \x80? "}'
    world.broker.from_kernel(message)
    assert world.seen() == ["input_request"]
    assert world.last("input_request") == {"prompt": "delete \ufffd? "}


def test_a_question_that_cannot_be_read_is_dropped_and_told() -> None:
    world = World()
    message = make("stdin", "input_request", {}, session="i", parent_header=world.ask().header)
    message.content = b"[]"
    world.broker.from_kernel(message)
    assert world.seen() == []
    assert world.notices == [("a", BAD_QUESTION)]


def asks(world: World, client: str) -> list[Message]:
    return [
        message
        for message, _, owner in world.records
        if owner == client and envelope(message).msg_type == "input_request"
    ]


def answer(world: World, client: str, question: Message) -> None:
    reply = make("stdin", "input_reply", {}, session="c", parent_header=question.header)
    world.broker.from_client(client, 0, reply)


@pytest.mark.parametrize(("first", "late"), [("a", "b"), ("b", "a")])
def test_everybody_who_was_asked_may_answer_and_the_first_counts(first: str, late: str) -> None:
    """A short outage takes nobody's question away."""
    world = World()
    world.kernel("stdin", "input_request", world.ask(), prompt="? ")
    assert asks(world, "b") == []
    world.clients = {"b"}
    world.broker.ask_again(["b"])
    world.broker.ask_again(["b"])  # and no more than once
    questions = {client: asks(world, client) for client in ("a", "b")}
    assert [len(found) for found in questions.values()] == [1, 1]
    world.clients = {"a", "b"}
    answer(world, first, questions[first][0])
    answer(world, late, questions[late][0])
    assert len(world.sent) == 2
    assert world.notices == [(late, LATE_ANSWER)]


def test_a_question_of_a_client_that_is_not_there_is_asked_of_those_who_are() -> None:
    world = World()
    world.clients = {"b"}
    world.kernel("stdin", "input_request", world.ask(), prompt="? ")
    assert len(asks(world, "b")) == 1


def test_who_was_asked_may_answer_after_the_shim_was_restarted() -> None:
    old = World()
    old.kernel("stdin", "input_request", old.ask(), prompt="? ")
    old.clients = set()
    old.broker.ask_again(["b"])
    for client in ("a", "b"):
        new = World(ready=False)
        new.broker.resume(past(old))
        (question,) = asks(old, client)
        answer(new, client, question)
        assert not new.broker.waits_for_input()


def test_a_cell_whose_content_is_no_object_is_answered_and_does_not_run() -> None:
    world = World()
    request = make("shell", "execute_request", {}, session="c")
    request.content = b"[]"
    for _ in range(2):
        assert world.broker.from_client("a", 0, request) == envelope(request).msg_id
    assert world.seen() == ["status:busy", "error", "status:idle", "execute_reply"]
    assert world.last("error")["ename"] == "MessageError"
    assert world.sent == []
    new = World(ready=False)
    new.broker.resume(past(world))
    assert not new.broker.open


def test_an_execution_is_seen_by_who_attached_with_its_idle() -> None:
    """Its reply, which comes later, is not for them."""
    world = World()
    world.run(world.ask())
    kinds = [envelope(message).msg_type for message, _, _ in world.records]
    assert kinds[-2:] == ["status", "execute_reply"]
    found, left_out = world.broker.executions.missed("b")
    assert (len(found), left_out) == (1, 0)
    world.broker.executions.heard("b", len(kinds) - 2)
    assert len(world.broker.executions.missed("c")[0]) == 1
    world.broker.executions.heard("b", len(kinds) - 1)
    assert world.broker.executions.missed("d") == ([], 0)
