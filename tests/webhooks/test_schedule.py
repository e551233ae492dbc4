"""When a delivery is tried again, and what answers mean."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandcell_gateway.webhooks.schedule import Answer, Schedule, retry_after

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
CHANCES = st.floats(0, 1)


def times(schedule: Schedule, chance: float, asked: float | None = None) -> list[float]:
    """Seconds after the job's end at which attempts are made that take no time and fail."""
    found = [0.0]
    for attempts in count(1):
        pause = schedule.next(attempts, found[-1], asked, chance)
        if pause is None:
            return found
        found.append(found[-1] + pause)
    raise AssertionError


def test_the_usual_schedule() -> None:
    found = times(Schedule(), 1.0)
    assert found[:6] == [0, 5, 20, 65, 200, 605]
    assert found[-1] <= 86400 < found[-1] + 7200


@given(CHANCES)
def test_it_ends_within_a_day_and_a_delay_is_between_half_and_all(chance: float) -> None:
    found = times(Schedule(), chance)
    assert found[-1] <= 86400
    assert 14 <= len(found) <= 40
    full = [5.0 * 3.0**step for step in range(len(found))]
    for before, after, most in zip(found, found[1:], full, strict=False):
        bound = min(most, 7200)
        assert bound / 2 - 1e-6 <= after - before <= bound + 1e-6


@given(CHANCES, st.floats(0, 1e9), st.integers(1, 100_000))
def test_receivers_can_only_put_off_and_not_for_ever(
    chance: float, asked: float, attempts: int
) -> None:
    schedule = Schedule()
    usual = schedule.next(attempts, 0, None, chance)
    wanted = schedule.next(attempts, 0, asked, chance)
    assert usual is not None
    assert wanted is not None
    assert wanted == max(usual, min(asked, 6 * 3600))


def test_deliveries_that_failed_together_spread() -> None:
    assert [Schedule().next(1, 0, None, chance) for chance in (0, 0.5, 1)] == [2.5, 3.75, 5]


def test_no_attempt_is_later_than_the_patience() -> None:
    assert Schedule().next(1, 86399, None, 0) is None
    assert Schedule(first=1).next(1, 86399, None, 1) == 1


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (Answer(200), "delivered"),
        (Answer(204), "delivered"),
        (Answer(299), "delivered"),
        (Answer(410), "given_up"),
        (Answer(error="no answer"), "pending"),
        *((Answer(code), "pending") for code in (101, 301, 302, 307, 400, 404, 429, 500, 503)),
    ],
    ids=str,
)
def test_what_answers_mean(answer: Answer, verdict: str) -> None:
    assert answer.verdict == verdict


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120),
        ("0", 0),
        ("Thu, 01 Jan 2026 12:01:00 GMT", 60),
        ("Thu, 01 Jan 2026 12:01:00 -0000", 60),
        ("Thu, 01 Jan 2026 11:00:00 GMT", 0),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("١٢", None),
        ("9" * 10, None),
        ("Thu, 99 Jan 2026 12:01:00 GMT", None),
    ],
)
def test_retry_after(text: str, seconds: float | None) -> None:
    assert retry_after(text, NOW) == seconds


@given(st.text(max_size=60))
def test_no_header_harms(text: str) -> None:
    found = retry_after(text, NOW)
    assert found is None or found >= 0
