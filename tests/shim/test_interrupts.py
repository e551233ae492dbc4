"""Interrupts: they hit what they are for, at once or when it begins, and lose no reply."""

from __future__ import annotations

import pytest

from sandcell_wire.messages import Message, dumps, envelope, make
from tests.support.brokers import World


def test_an_interrupt_ends_a_cell_that_waits_for_another_client_at_once() -> None:
    world = World()
    running, waiting = world.ask(client="a"), world.ask(client="b")
    world.kernel("iopub", "status", running, execution_state="busy")
    world.kernel("iopub", "execute_input", running, code="")
    interrupt(world, waiting)
    assert world.last("execute_reply")["ename"] == "KeyboardInterrupt"
    assert world.interrupts == 0
    world.kernel("shell", "execute_reply", running, status="ok")
    world.kernel("iopub", "status", running, execution_state="idle")
    assert world.sent == [running]


def test_an_interrupt_for_all_ends_what_runs_and_what_waits() -> None:
    world = World()
    running, waiting = world.ask(client="a"), world.ask(client="b")
    world.kernel("iopub", "status", running, execution_state="busy")
    world.kernel("iopub", "execute_input", running, code="")
    interrupt(world)
    assert world.interrupts == 1
    assert world.broker.open_requests("b") == []
    assert waiting not in world.sent


def test_an_interrupt_hits_only_what_it_was_meant_for() -> None:
    world = World()
    first = world.ask()
    world.run(first)
    second = world.ask()
    world.kernel("iopub", "status", second, execution_state="busy")
    world.kernel("iopub", "execute_input", second, code="")
    late = make("control", "interrupt_request", {}, session="c")
    late.metadata = dumps({"sandcell": {"interrupts": [envelope(first).msg_id]}})
    world.broker.from_client("a", 0, late)
    assert world.interrupts == 0
    assert world.last("interrupt_reply") == {"status": "ok"}
    meant = make("control", "interrupt_request", {}, session="c")
    meant.metadata = dumps({"sandcell": {"interrupts": [envelope(second).msg_id]}})
    world.broker.from_client("a", 0, meant)
    assert world.interrupts == 1


def interrupt(world: World, *executions: Message) -> None:
    message = make("control", "interrupt_request", {}, session="c")
    if executions:
        names = [envelope(execution).msg_id for execution in executions]
        message.metadata = dumps({"sandcell": {"interrupts": names}})
    world.broker.from_client("a", 10**9, message)


@pytest.mark.parametrize("named", [True, False])
def test_an_interrupt_waits_for_its_cell_to_begin(named: bool) -> None:
    world = World()
    request = world.ask()
    interrupt(world, *([request] if named else []))
    assert world.last("interrupt_reply") == {"status": "ok"}
    world.kernel("iopub", "status", request, execution_state="busy")
    assert world.interrupts == 0
    world.kernel("iopub", "execute_input", request, code="")
    assert world.interrupts == 1
    world.kernel("iopub", "execute_input", request, code="")
    assert world.interrupts == 1


def test_an_interrupt_that_waited_for_a_cell_is_not_for_the_next() -> None:
    world = World()
    first = world.ask()
    interrupt(world, first)
    world.run(first)
    second = world.ask()
    world.kernel("iopub", "status", second, execution_state="busy")
    world.kernel("iopub", "execute_input", second, code="")
    assert world.interrupts == 0


def test_a_silent_cell_is_interrupted_when_it_is_busy() -> None:
    world = World()
    request = world.ask(silent=True)
    interrupt(world)
    world.kernel("iopub", "status", request, execution_state="busy")
    assert world.interrupts == 1


def test_a_widget_s_callback_is_interrupted() -> None:
    world = World()
    message = world.ask("comm_msg")
    world.kernel("iopub", "status", message, execution_state="busy")
    interrupt(world)
    assert world.interrupts == 1


def test_only_the_one_answer_to_our_probe_counts() -> None:
    world = World()
    probe = world.broker.make_probe()
    forged = make("shell", "execute_request", {}, session="x")
    forged.header = forged.header.replace(envelope(forged).msg_id.encode(), b"sandcell-probe-evil")
    world.kernel("shell", "kernel_info_reply", forged, banner="evil")
    world.kernel("shell", "execute_reply", probe, banner="evil")
    world.kernel("iopub", "kernel_info_reply", probe, banner="evil")
    assert world.probes == []
    true = world.kernel("shell", "kernel_info_reply", probe, banner="true")
    world.kernel("shell", "kernel_info_reply", probe, banner="evil")
    assert world.probes == [true]
    assert world.seen() == []


def test_an_interrupt_aborts_what_still_queues_and_answers_at_once() -> None:
    world = World(ready=False)
    world.ask()
    world.ask("complete_request")
    world.ask("interrupt_request", channel="control")
    assert world.last("execute_reply")["ename"] == "KeyboardInterrupt"
    assert world.last("interrupt_reply") == {"status": "ok"}
    world.broker.became_ready()
    assert [envelope(message).msg_type for message in world.sent] == ["complete_request"]


def begin(world: World, request: Message) -> None:
    world.kernel("iopub", "status", request, execution_state="busy")
    world.kernel("iopub", "execute_input", request, code="")


def test_a_cell_whose_reply_an_interrupt_swallowed_ends() -> None:
    world = World()
    first, second = world.ask(stop_on_error=False), world.ask()
    interrupt(world, second)
    world.run(first)
    begin(world, second)
    assert world.interrupts == 1
    world.kernel("iopub", "status", second, execution_state="idle")
    probe = world.sent[-1]
    assert envelope(probe).msg_type == "kernel_info_request"
    interrupt(world, second)  # it is over: the signal would hit the next one
    assert world.interrupts == 1
    world.kernel("shell", "kernel_info_reply", probe)
    assert world.seen()[-2:] == ["error", "execute_reply"]
    assert world.last("execute_reply")["ename"] == "KeyboardInterrupt"
    assert world.probes == []
    assert not world.broker.open


def test_a_reply_before_the_probe_s_is_the_cell_s() -> None:
    world = World()
    request = world.ask()
    begin(world, request)
    interrupt(world, request)
    world.kernel("iopub", "status", request, execution_state="idle")
    world.kernel("shell", "execute_reply", request, status="ok")
    world.kernel("shell", "kernel_info_reply", world.sent[-1])
    assert world.seen().count("execute_reply") == 1
    assert world.last("execute_reply") == {"status": "ok"}


def test_a_cell_without_a_reply_ends_when_a_later_request_is_answered() -> None:
    world = World()
    lost, later = world.ask(), world.ask("complete_request")
    begin(world, lost)
    world.kernel("iopub", "status", lost, execution_state="idle")
    assert len(world.sent) == 2  # nobody interrupted: no probe
    world.run(later)
    assert world.last("execute_reply")["ename"] == "OutcomeUnknown"
    assert not world.broker.open


def test_a_client_s_request_may_be_named_like_a_probe() -> None:
    world = World()
    request = make("shell", "execute_request", {}, session="c", msg_id="sandcell-probe-mine")
    world.broker.from_client("a", 0, request)
    world.run(request)
    assert world.seen()[-1] == "execute_reply"


@pytest.mark.parametrize("metadata", [b'{"sandcell"', b'{"sandcell":{"interrupts":1}}'])
def test_an_interrupt_that_names_nothing_readable_is_for_all(metadata: bytes) -> None:
    world = World()
    begin(world, world.ask())
    message = make("control", "interrupt_request", {}, session="c")
    message.metadata = metadata
    world.broker.from_client("a", 0, message)
    assert world.interrupts == 1
    assert world.last("interrupt_reply") == {"status": "ok"}


def timed(world: World, seconds: object) -> Message:
    message = make("shell", "execute_request", {"code": ""}, session="c")
    message.metadata = dumps({"sandcell": {"timeout": seconds}})
    world.broker.from_client("a", 0, message)
    return message


def test_a_cell_that_has_run_as_long_as_it_may_is_interrupted() -> None:
    world = World()
    request = timed(world, 5)
    name = envelope(request).msg_id
    world.kernel("iopub", "status", request, execution_state="busy")
    assert world.limits == []
    world.kernel("iopub", "execute_input", request, code="")
    assert world.limits == [(name, 5.0)]
    world.broker.expired(name)
    assert world.interrupts == 1
    execution = world.broker.executions.get(name)
    assert execution is not None
    assert execution.timed_out


def test_a_cell_that_ended_in_time_is_not_interrupted() -> None:
    world = World()
    request = timed(world, 5)
    world.kernel("iopub", "execute_input", request, code="")
    world.run(request)
    world.broker.expired(envelope(request).msg_id)
    assert world.interrupts == 0


@pytest.mark.parametrize("seconds", [0, -1, True, "5", None, [1]])
def test_a_timeout_that_is_no_time_is_none(seconds: object) -> None:
    world = World()
    request = timed(world, seconds)
    world.kernel("iopub", "execute_input", request, code="")
    assert world.limits == []
