"""Whose cells are in the interpreter: never those of two clients, nothing overtaken or lost."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sandcell_gateway.shim.request import Request
from sandcell_gateway.shim.turns import MAX_WAITING, Turns
from sandcell_wire.messages import envelope, make


def asked(
    client: str = "a",
    msg_type: str = "execute_request",
    channel: str = "shell",
    subshell: str | None = None,
) -> Request:
    message = make(channel, msg_type, {}, session="client", subshell_id=subshell)
    return Request(client, message, envelope(message), 0.0)


def inside(sent: list[Request], over: list[Request]) -> list[Request]:
    return [request for request in sent if request.executes and request not in over]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from("abc"), st.sampled_from(["execute_request", "comm_msg"])),
        st.sampled_from(["over", "begin", "stop"]),
    ),
    max_size=60,
)


@given(STEPS)
def test_cells_of_one_client_at_a_time_each_in_its_order(
    steps: list[tuple[str, str] | str],
) -> None:
    turns = Turns()
    came: list[Request] = []
    sent: list[Request] = []
    over: list[Request] = []
    for step in [*steps, "begin"]:
        if step == "over":
            for request in inside(sent, over)[:1]:
                over.append(request)
                sent += turns.left(request)
        elif step == "begin":
            sent += turns.begin()
        elif step == "stop":
            turns.stop()
        else:
            came.append(asked(*step))
            sent += turns.enter(came[-1])
        assert len({request.client for request in inside(sent, over)}) <= 1
    while inside(sent, over):
        over.append(inside(sent, over)[0])
        sent += turns.left(over[-1])
    for client in "abc":
        of = [request for request in came if request.client == client]
        assert [request for request in sent if request.client == client] == of
    cells = [request for request in came if request.executes]
    assert [request for request in sent if request.executes] == cells


def test_what_is_not_in_the_line_of_the_main_thread_never_waits_for_it() -> None:
    turns = Turns()
    turns.begin()
    turns.enter(asked("a"))
    assert turns.enter(asked("b")) == []
    for request in (
        asked("b", "interrupt_request", "control"),
        asked("b", subshell="s"),
        asked("c", "complete_request"),
    ):
        assert turns.enter(request) == [request]
    assert turns.enter(asked("b", "complete_request")) == []


def test_what_was_withdrawn_never_goes() -> None:
    turns = Turns()
    first, second, third = asked("a"), asked("b"), asked("b")
    for request in (first, second, third):
        turns.enter(request)
    assert turns.withdraw(lambda request: request is second) == [second]
    assert turns.begin() == [first]
    assert turns.left(second) == []
    assert turns.left(first) == [third]


def test_cells_of_an_earlier_supervisor_are_waited_for() -> None:
    turns = Turns()
    old = asked("a")
    turns.adopt(old)
    turns.begin()
    new = asked("b")
    assert turns.enter(new) == []
    assert turns.left(old) == [new]


def test_so_many_may_wait() -> None:
    turns = Turns()
    for _ in range(MAX_WAITING):
        assert not turns.is_full
        turns.enter(asked())
    assert turns.is_full
