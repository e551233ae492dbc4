"""The thread beside: it works after a while, at once, and a last time; trouble is told once."""

from __future__ import annotations

import threading

import pytest

from sandcell_gateway.journal.upkeep import Trouble, Upkeep

FOREVER = 3600.0


class Work:
    def __init__(self) -> None:
        self.began = threading.Semaphore(0)
        self.go_on = threading.Semaphore(0)
        self.turns = 0

    def __call__(self) -> None:
        self.began.release()
        assert self.go_on.acquire(timeout=60)
        self.turns += 1


def test_there_is_no_thread_while_there_is_no_work() -> None:
    before = threading.active_count()
    upkeep = Upkeep(lambda: None, FOREVER)
    upkeep.close()
    assert threading.active_count() == before


def test_soon_waits_for_more_and_now_does_not() -> None:
    work = Work()
    work.go_on.release(10)
    upkeep = Upkeep(work, FOREVER)
    upkeep.soon()
    assert not work.began.acquire(timeout=0.05)
    upkeep.now()
    assert work.began.acquire(timeout=60)
    upkeep.close()


def test_soon_comes_by_itself() -> None:
    work = Work()
    work.go_on.release(10)
    upkeep = Upkeep(work, 0.01)
    upkeep.soon()
    assert work.began.acquire(timeout=60)
    assert not work.began.acquire(timeout=0.1)  # and not again without a reason
    upkeep.close()


def test_what_comes_while_it_works_gets_another_turn_also_at_the_end() -> None:
    work = Work()
    upkeep = Upkeep(work, FOREVER)
    upkeep.now()
    assert work.began.acquire(timeout=60)
    upkeep.soon()
    closer = threading.Thread(target=upkeep.close)
    closer.start()
    while not upkeep._closing:
        pass
    work.go_on.release(10)
    closer.join(60)
    assert work.turns == 2


def test_a_turn_that_fails_is_logged_and_not_the_last(caplog: pytest.LogCaptureFixture) -> None:
    turns: list[int] = []

    def work() -> None:
        turns.append(1)
        raise ValueError("broken")

    upkeep = Upkeep(work, 0.0)
    upkeep.soon()
    upkeep.close()
    assert turns
    assert "broken" in caplog.text


def test_trouble_is_told_when_it_changes_and_over_when_it_is_calm() -> None:
    told: list[str | None] = []
    trouble = Trouble(5.0, told.append)
    trouble.works("write", 0.0)
    trouble.found("write", "full", 1.0)
    trouble.found("write", "full", 3.0)
    trouble.works("write", 7.9)
    assert (told, bool(trouble)) == (["full"], True)
    trouble.found("sync", "broken", 7.9)
    trouble.works("write", 8.0)
    assert told == ["full", "broken"]
    trouble.works("sync", 13.0)
    assert (told, bool(trouble)) == (["full", "broken", None], False)
