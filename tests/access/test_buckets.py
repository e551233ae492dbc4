"""Token buckets, by a clock that the test moves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandcell_gateway.access import limits
from sandcell_gateway.access.buckets import Buckets
from sandcell_gateway.access.limits import FAILURES_PER_MINUTE, AccessLimits
from sandcell_gateway.errors import RateLimited


class Clock:
    """Tells what it is told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_and_then_the_rate() -> None:
    clock = Clock()
    buckets = Buckets(120, clock)
    assert [buckets.take("k").remaining for _ in range(120)] == [*reversed(range(120))]
    empty = buckets.take("k")
    assert (empty.allowed, empty.limit, empty.remaining) == (False, 120, 0)
    assert (empty.retry_after, empty.reset) == (0.5, 60)
    clock.now += 0.25
    assert not buckets.take("k").allowed
    clock.now += 0.25
    assert buckets.take("k").allowed, "asking in vain costs nothing"
    assert not buckets.take("k").allowed
    clock.now += 3600
    assert buckets.take("k").remaining == 119, "it never holds more than a minute's"


def test_keys_do_not_share() -> None:
    buckets = Buckets(1, Clock())
    assert buckets.take("a").allowed
    assert buckets.take("b").allowed
    assert not buckets.take("a").allowed


def test_looking_takes_nothing() -> None:
    buckets = Buckets(1, Clock())
    assert all(buckets.look("k").allowed for _ in range(3))
    assert len(buckets) == 0
    assert buckets.take("k").allowed
    assert not buckets.look("k").allowed


def test_the_table_is_bounded_and_forgets_who_was_away_longest() -> None:
    buckets = Buckets(1, Clock(), most=3)
    for key in ("a", "b", "c", "a", "d"):
        buckets.take(key)
    assert len(buckets) == 3
    assert not buckets.look("a").allowed
    assert buckets.look("b").allowed, "forgotten"


@given(
    st.integers(1, 10_000),
    st.lists(st.floats(0, 100, allow_nan=False), min_size=1, max_size=200),
)
def test_no_more_than_a_burst_and_the_rate(limit: int, steps: list[float]) -> None:
    clock = Clock()
    buckets = Buckets(limit, clock)
    taken = 0
    for step in steps:
        clock.now += step
        taken += buckets.take("k").allowed
    assert taken <= limit + sum(steps) * limit / 60 + 1


def test_requests_are_counted_by_credential() -> None:
    access = AccessLimits(2, Clock())
    access.use("a")
    access.use("a")
    with pytest.raises(RateLimited) as caught:
        access.use("a")
    access.use("b")
    assert dict(caught.value.headers) == {
        "RateLimit-Limit": "2",
        "RateLimit-Remaining": "0",
        "RateLimit-Reset": "60",
        "Retry-After": "30",
    }


def test_without_a_limit_nothing_is_counted() -> None:
    access = AccessLimits(0, Clock())
    for _ in range(10_000):
        access.use("a")


def fail(access: AccessLimits, address: str, times: int = FAILURES_PER_MINUTE) -> None:
    for number in range(times):
        access.check(address, f"guess {number}")
        access.failed(address)


def test_who_guesses_is_not_listened_to_for_a_while() -> None:
    clock = Clock()
    access = AccessLimits(0, clock)
    access.succeeded("good")
    fail(access, "10.0.0.1")
    with pytest.raises(RateLimited, match="wrong tokens"):
        access.check("10.0.0.1", "right, at last")
    access.check("10.0.0.1", "good")
    access.check("10.0.0.2", "another's")
    clock.now += 1
    access.check("10.0.0.1", "right, at last")


@pytest.mark.parametrize(
    ("address", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("::ffff:10.0.0.1", "::ffff:10.0.0.2", False),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("unknown", "unknown", True),
    ],
)
def test_what_is_one_address(address: str, other: str, same: bool) -> None:
    access = AccessLimits(0, Clock())
    fail(access, address)
    if same:
        with pytest.raises(RateLimited):
            access.check(other, "x")
    else:
        access.check(other, "x")


def test_good_tokens_are_remembered_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_BUCKETS", 2)
    access = AccessLimits(0, Clock())
    for token in ("a", "b", "a", "c"):
        access.succeeded(token)
    fail(access, "h")
    access.check("h", "a")
    with pytest.raises(RateLimited):
        access.check("h", "b")
