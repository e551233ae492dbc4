"""What a look at a session's use calls for."""

from __future__ import annotations

from sandcell_gateway.engines.base import DiskUsage, Limits, Usage
from sandcell_gateway.shim.watchdog import Watch

LIMITS = Limits(memory_bytes=1 << 30, disk_bytes=10 << 20)
SOFT = frozenset({"memory", "disk"})
HARD = frozenset({"disk"})


def used(memory: int = 0, kills: int = 0, peak: int = 1 << 30) -> Usage:
    return Usage(memory, peak, kills, 0.0, 1)


def disk(mebibytes: float, *, complete: bool = True) -> DiskUsage:
    return DiskUsage(int(mebibytes * (1 << 20)), 3, complete)


def test_soft_memory_beyond_the_limit_ends_the_largest_process() -> None:
    watch = Watch(LIMITS, SOFT)
    assert not watch.memory(used(1 << 30)).end_largest
    assert watch.memory(used((1 << 30) + 1)).end_largest


def test_hard_memory_is_the_kernel_s_business() -> None:
    assert not Watch(LIMITS, HARD).memory(used(2 << 30)).end_largest


def test_no_limit_is_never_exceeded() -> None:
    watch = Watch(Limits(), SOFT)
    assert not watch.memory(used(1 << 40)).end_largest
    assert not watch.disk(disk(1e9)).interrupt


def test_an_ended_process_is_told_of_once_and_at_the_look_after() -> None:
    watch = Watch(LIMITS, HARD)
    assert watch.memory(used(kills=1)).tell == ""
    told = watch.memory(used(kills=1)).tell
    assert "at the session's limit of 1 GiB (peak 1 GiB)" in told
    assert watch.memory(used(kills=1)).tell == ""
    watch.memory(used(kills=2))
    assert watch.memory(used(kills=2)).tell


def test_the_interpreter_s_end_is_explained_and_not_told_again() -> None:
    watch = Watch(LIMITS, HARD)
    watch.memory(used(kills=1))
    assert watch.explains(used(kills=1))
    assert not watch.explains(used(kills=1))
    assert watch.memory(used(kills=1)).tell == ""


def test_a_kill_far_below_the_limit_was_the_machine_s() -> None:
    watch = Watch(LIMITS, HARD)
    watch.memory(used(kills=1))
    assert "the machine ran out of memory" in watch.memory(used(kills=1, peak=1 << 20)).tell


def test_who_fills_the_disk_is_interrupted_and_who_goes_on_is_ended() -> None:
    watch = Watch(LIMITS, SOFT)
    assert not watch.disk(disk(10)).interrupt
    first = watch.disk(disk(11))
    assert (first.interrupt, first.end) == (True, False)
    assert "11 MiB; the session's limit is 10 MiB" in first.tell
    second = watch.disk(disk(12))
    assert (second.interrupt, second.end) == (False, True)


def test_who_stopped_writing_may_work_on_and_delete() -> None:
    watch = Watch(LIMITS, SOFT)
    watch.disk(disk(20))
    for size in (20, 15, 12):
        doing = watch.disk(disk(size))
        assert not doing.interrupt
        assert not doing.end
    assert watch.disk(disk(13)).interrupt
    assert not watch.disk(disk(5)).interrupt
    assert watch.disk(disk(11)).interrupt


def test_what_cannot_be_counted_is_too_much() -> None:
    watch = Watch(LIMITS, SOFT)
    doing = watch.disk(disk(1, complete=False))
    assert doing.interrupt
    assert "more files than can be counted" in doing.tell
