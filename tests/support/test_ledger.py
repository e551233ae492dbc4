"""The ledger finds what is wrong, and plain ipykernel shows that its expectation is Jupyter's."""

from __future__ import annotations

from tests.support.home import Home
from tests.support.kernels import kernel
from tests.support.ledger import CLEAR, Cell, Item, Seen, compare, numbered

EXPECTED: list[Item] = [("stdout", "1"), ("stdout", "2"), ("clear", "6"), ("stdout", "7")]


def test_nothing_wrong() -> None:
    got = numbered(EXPECTED, [*EXPECTED[:2], CLEAR, EXPECTED[3]])
    assert compare(EXPECTED, got).wrong == {}


def test_everything_wrong() -> None:
    one, two, clear, seven = EXPECTED
    assert compare(EXPECTED, [one, clear, seven]).lost == [two]
    assert compare(EXPECTED, [one, two, two, clear, seven]).duplicated == [two]
    assert compare(EXPECTED, [two, one, clear, seven]).out_of_order == [one]
    assert compare(EXPECTED, [*EXPECTED, ("stdout", "9")]).unexpected == [("stdout", "9")]
    assert compare(EXPECTED, EXPECTED, ["id"]).wrong == {"repeated": ["id"]}


def test_clearings_are_told_apart_by_what_they_follow() -> None:
    one, two, clear, seven = EXPECTED
    assert compare(EXPECTED, numbered(EXPECTED, [one, two, CLEAR, CLEAR, seven])).duplicated == [
        clear
    ]
    assert compare(EXPECTED, numbered(EXPECTED, [one, two, seven])).lost == [clear]


def test_plain_ipykernel_sends_what_is_expected(home: Home) -> None:
    cell, seen = Cell(count=70, pause=0.0), Seen()
    with kernel("python3", home.environ, home.path) as started:
        started.front.run(cell.code, seen=seen.take)
    assert seen.ledger(cell.expected).wrong == {}
