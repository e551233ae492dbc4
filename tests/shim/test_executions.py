"""The index is bounded and can be looked at in parts."""

from __future__ import annotations

from sandcell_gateway.shim.executions import Execution, Executions


def filled(count: int, most: int = 1000) -> Executions:
    index = Executions(most)
    for number in range(count):
        index.asked(Execution(f"{number}", "c", number, 0.0, detached=number % 3 == 0))
        index.ended(f"{number}", 1.0, number, "ok", number)
    return index


def test_the_oldest_that_have_ended_go_first() -> None:
    index = Executions(2)
    index.asked(Execution("open", "c", 1, 0.0))
    for name in ("a", "b"):
        index.asked(Execution(name, "c", 2, 0.0))
        index.ended(name, 1.0, 3, "ok", 1)
    assert [entry.id for entry in index] == ["open", "b"]


def test_pages() -> None:
    index = filled(10)
    page, total = index.page(limit=2, offset=3)
    assert ([entry.id for entry in page], total) == (["3", "4"], 10)
    page, total = index.page(limit=2, newest=True, detached=True)
    assert ([entry.id for entry in page], total) == (["9", "6"], 4)


def test_what_is_not_known_is_ignored() -> None:
    index = Executions()
    index.started("x", 0.0)
    index.ended("x", 0.0, 1, "ok", 1)
    assert len(index) == 0


def test_a_reply_with_an_unknown_status_or_count_is_unknown() -> None:
    index = Executions()
    index.asked(Execution("x", "c", 1, 0.0))
    index.ended("x", 1.0, 2, "marvellous", "many")
    (entry,) = index
    assert (entry.status, entry.count) == ("unknown", None)


def ended(index: Executions, id: str, client: str, shown: int) -> None:
    index.asked(Execution(id, client, shown - 1, 0.0))
    index.shown(id, shown)
    index.ended(id, 1.0, shown + 1, "ok", 1)


def missed(index: Executions, client: str = "new") -> list[str]:
    return [execution.id for execution in index.missed(client)[0]]


def test_what_its_own_client_saw_is_not_missed() -> None:
    index = Executions()
    ended(index, "x", "a", 5)
    index.heard("b", 100)  # another notebook was further on, and showed nothing of it
    index.heard("a", 4)
    assert missed(index) == ["x"]
    index.heard("a", 5)
    assert missed(index) == []


def test_what_was_shown_once_is_not_shown_again() -> None:
    """Who follows another's execution never sees its reply, which has the last number."""
    index = Executions()
    ended(index, "x", "a", 5)
    assert missed(index, "b") == ["x"]
    assert missed(index, "c") == ["x"]
    index.heard("b", 5)
    assert missed(index, "c") == []


def test_what_still_runs_is_not_seen() -> None:
    index = Executions()
    index.asked(Execution("x", "a", 1, 0.0))
    index.heard("a", 100)
    assert missed(index) == ["x"]
    index.trust()
    assert missed(index) == ["x"]
    index.ended("x", 1.0, 3, "ok", 1)
    index.trust()
    assert missed(index) == []


def test_a_hundred_are_shown_and_the_others_counted() -> None:
    index = Executions()
    for number in range(103):
        ended(index, f"{number}", "a", 2)
    found, left_out = index.missed("b")
    assert ([found[0].id, found[-1].id], left_out) == (["3", "102"], 3)
    index.heard("b", 2)
    assert index.missed("c") == ([], 0)
