"""The table of session states: DESIGN, "Sessions"."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandcell_wire.states import (
    FINAL,
    GROUPS,
    LIVE,
    Event,
    IllegalTransition,
    Status,
    expand,
    next_status,
)


@pytest.mark.parametrize("status", sorted(LIVE))
def test_every_live_state_can_be_closed_and_can_fail(status: Status) -> None:
    assert next_status(status, Event.CLOSE) is Status.TERMINATED
    assert next_status(status, Event.FAIL) is Status.ERROR


@given(st.sampled_from(sorted(FINAL)), st.sampled_from(list(Event)))
def test_nothing_leaves_a_final_state(status: Status, event: Event) -> None:
    with pytest.raises(IllegalTransition):
        next_status(status, event)


def test_an_illegal_move_names_both_ends_and_what_is_allowed() -> None:
    with pytest.raises(IllegalTransition, match=r"idle cannot done.*allows: .*busy.*close"):
        next_status(Status.IDLE, Event.DONE)


def test_the_life_of_a_session() -> None:
    status = Status.INITIALIZING
    for event, expected in [
        (Event.READY, Status.IDLE),
        (Event.BUSY, Status.ACTIVE),
        (Event.DONE, Status.IDLE),
        (Event.FAIL, Status.ERROR),
        (Event.RESTART, Status.INITIALIZING),
        (Event.READY, Status.IDLE),
        (Event.PAUSE, Status.PAUSED),
        (Event.HIBERNATE, Status.HIBERNATED),
        (Event.RESUME, Status.INITIALIZING),
        (Event.CLOSE, Status.TERMINATED),
    ]:
        status = next_status(status, event)
        assert status is expected


def test_groups_expand_and_a_bad_word_is_named() -> None:
    assert expand(["running"]) == GROUPS["running"]
    assert expand(["paused", "error"]) == GROUPS["paused"] | {Status.ERROR}
    with pytest.raises(ValueError, match="unknown status 'sleeping'"):
        expand(["sleeping"])
