"""The line between notebook and gateway fails in every way; nothing is lost, doubled or moved."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.support.gateways import eventually
from tests.support.kernels import Kernel
from tests.support.ledger import Cell, Seen
from tests.support.proxy import Way, random_intervals
from tests.support.route import Route, account

pytestmark = pytest.mark.linux

CELL = Cell(count=140, pause=0.02)
"""Every kind of output twenty times, within three seconds at least."""
EARLY = 30
"""So many items are shown before the fault begins."""

Record = Callable[[str, object], None]


@pytest.fixture(scope="module")
def running(route: Route) -> Iterator[Kernel]:
    # Half-open lines are noticed after three times this.
    with route.kernel(SANDCELL_KEEPALIVE="0.5") as started:
        started.front.run("pass")
        yield started


def later(seconds: float, act: Callable[[], object]) -> None:
    """Do it after so long; the outage's length is what the test is about."""
    timer = threading.Timer(seconds, act)
    timer.daemon = True
    timer.start()


def outage(route: Route, seconds: float, *, reset: bool = True) -> Callable[[], None]:
    """Something that begins an outage of this length."""

    def begin() -> None:
        stack = ExitStack()
        stack.enter_context(route.proxy.down(reset=reset))
        later(seconds, stack.close)

    return begin


def proved(
    running: Kernel, record: Record, fault: str, seen: Seen, cell: Cell = CELL, **options: float
) -> None:
    """Run the cell; everything must be there once and in order, with one busy, idle and reply."""
    ledger, result = account(running.front, cell, seen, **options)
    ledger.record(record, fault)
    assert ledger.wrong == {}
    assert result.statuses == ["busy", "idle"]
    assert result.content["status"] == "ok"


def test_without_a_fault(running: Kernel, record_property: Record) -> None:
    proved(running, record_property, "none", Seen())


@pytest.mark.parametrize("reset", [True, False], ids=["rst", "fin"])
def test_a_cut_of_one_second(
    route: Route, running: Kernel, record_property: Record, reset: bool
) -> None:
    seen = Seen(at={EARLY: outage(route, 1.0, reset=reset)})
    proved(running, record_property, f"cut for 1 s ({'RST' if reset else 'FIN'})", seen)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_cut_of_sixty_seconds(route: Route, running: Kernel, record_property: Record) -> None:
    seen = Seen(at={EARLY: outage(route, 60.0)})
    cell = Cell(count=210, pause=0.35)
    proved(running, record_property, "cut for 60 s", seen, cell, timeout=150.0)
    told = [notice for notice in seen.notices if "connection lost" in notice]
    assert len(told) == 1, "the user is told once"


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_repeated_random_cuts(
    route: Route, running: Kernel, record_property: Record, seed: int
) -> None:
    before = route.proxy.cuts
    with route.proxy.cutting(random_intervals(seed, 15, 0.02, 0.5)):
        proved(running, record_property, f"15 random cuts (seed {seed})", Seen())
    assert route.proxy.cuts > before + 2


@pytest.mark.parametrize("ways", [(), (Way.UP,), (Way.DOWN,)], ids=["both", "up", "down"])
def test_a_half_open_connection(
    route: Route, running: Kernel, record_property: Record, ways: tuple[Way, ...]
) -> None:
    before = route.proxy.accepted
    seen = Seen(at={EARLY: lambda: route.proxy.swallow(*ways)})
    what = " and ".join(way.value for way in ways) or "both ways"
    proved(running, record_property, f"half-open, packets swallowed {what}", seen)
    eventually("the line is made anew", lambda: route.proxy.accepted > before)
    eventually("the dead one is given up at the other end", lambda: route.connections == 1)


def test_every_packet_swallowed_for_a_while(
    route: Route, running: Kernel, record_property: Record
) -> None:
    def begin() -> None:
        stack = ExitStack()
        stack.enter_context(route.proxy.black_hole())
        later(3.0, stack.close)

    proved(running, record_property, "all packets swallowed for 3 s", Seen(at={EARLY: begin}))


@pytest.mark.parametrize("after", [1, 7, 100, 1_000, 3_333, 10_001])
def test_a_cut_in_the_middle_of_a_frame(
    route: Route, running: Kernel, record_property: Record, after: int
) -> None:
    before = route.proxy.cuts
    seen = Seen(at={EARLY: lambda: route.proxy.cut_after(Way.DOWN, after)})
    proved(running, record_property, f"cut after {after} bytes", seen)
    assert route.proxy.cuts > before


def test_a_stall(route: Route, running: Kernel, record_property: Record) -> None:
    def begin() -> None:
        stack = ExitStack()
        stack.enter_context(route.proxy.stalled())
        later(1.0, stack.close)

    proved(running, record_property, "stalled for 1 s", Seen(at={EARLY: begin}))


def test_a_slow_line(route: Route, running: Kernel, record_property: Record) -> None:
    route.proxy.delay(0.1)
    try:
        proved(running, record_property, "delayed by 0.1 s", Seen())
    finally:
        route.proxy.delay(0.0)
