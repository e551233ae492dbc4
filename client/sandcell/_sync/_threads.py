"""Blocking calls, and several at once. Written by hand: the one module here that is."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO, ParamSpec, TypeVar

PIECE = 1 << 20

P = ParamSpec("P")
T = TypeVar("T")
A = TypeVar("A")


def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call it."""
    return function(*args, **kwargs)


def pieces(file: BinaryIO) -> Generator[bytes]:
    """What is in a file, at most `PIECE` bytes at once."""
    while piece := file.read(PIECE):
        yield piece


def pause(seconds: float) -> None:
    """Wait so long."""
    time.sleep(seconds)


class _Shared(Iterator[tuple[int, A]]):
    """Numbered tasks that several threads take from."""

    def __init__(self, tasks: Sequence[A]) -> None:
        self._tasks: Iterator[tuple[int, A]] = iter(enumerate(tasks))
        self._lock = threading.Lock()

    def __next__(self) -> tuple[int, A]:
        with self._lock:
            return next(self._tasks)

    def stop(self) -> None:
        """Hand out no more."""
        with self._lock:
            self._tasks = iter(())


def fan_out(
    tasks: Sequence[A],
    workers: int,
    work: Callable[[Iterator[tuple[int, A]], Callable[[int, T], None]], None],
) -> Generator[tuple[int, T]]:
    """Have so many workers share numbered tasks; what they give, as it comes.

    The first that fails ends the others after what they do now, as does who leaves early.
    """
    coming: queue.Queue[tuple[int, T] | None] = queue.Queue()
    shared = _Shared(tasks)

    def worker() -> None:
        try:
            work(shared, lambda number, result: coming.put((number, result)))
        finally:
            coming.put(None)

    with ThreadPoolExecutor(max(workers, 1)) as pool:
        running = [pool.submit(worker) for _ in range(workers)]
        try:
            left = workers
            while left:
                found = coming.get()
                if found is not None:
                    yield found
                    continue
                left -= 1
                for future in running:
                    if future.done():
                        future.result()
            for future in running:
                future.result()
        finally:
            shared.stop()
