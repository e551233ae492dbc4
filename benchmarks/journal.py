"""What the journal costs: appending with and without its chain, and replay beside `cat`.

    python -m benchmarks.journal [--rounds N]

"bare" encodes the frame and writes it, "unchained" is the journal with digests that cost
nothing, "journal" is all of it. Rounds are interleaved; figures are medians, but for the
slowest append. Replay reads from the page cache, as `cat` does.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

from sandcell_gateway.journal import journal as module
from sandcell_gateway.journal import records
from sandcell_gateway.journal.journal import Journal
from sandcell_gateway.journal.records import GENESIS, Kind
from sandcell_wire import frames
from sandcell_wire.messages import Message

HEADER = b'{"msg_id":"0123456789abcdef0123456789abcdef","msg_type":"stream"}'
SIZES = {"600 B": (450, 20_000), "64 kB": (64_000, 500), "50 MB": (50_000_000, 3)}
"""Content's bytes, and how many are appended in a round."""


class _NoHash:
    """In the place of BLAKE3."""

    def __init__(self, data: bytes) -> None:
        pass

    def digest(self) -> bytes:
        return GENESIS


class Bare:
    """Numbers, frames and a file, and nothing else."""

    def __init__(self, directory: Path) -> None:
        self._fd = os.open(directory / "bare", os.O_RDWR | os.O_CREAT)
        self._seq = self._at = 0

    def append(self, message: Message, kind: Kind) -> None:
        self._seq += 1
        self._at += os.pwrite(self._fd, frames.encode(self._seq, message), self._at)

    def close(self) -> None:
        os.close(self._fd)


@contextlib.contextmanager
def opened(way: str) -> Iterator[Bare | Journal]:
    """One of the three, in a directory of its own."""
    directory = Path(tempfile.mkdtemp(prefix="sc-bench-"))
    unhashed = mock.patch.object(records, "blake3", _NoHash)
    with unhashed if way == "unchained" else contextlib.nullcontext():
        journal = Bare(directory) if way == "bare" else Journal(directory, max_bytes=1 << 30)
        try:
            yield journal
        finally:
            journal.close()
            shutil.rmtree(directory)


def append(way: str, size: int, count: int) -> tuple[float, float]:
    """Seconds of one append: in the mean, and of the slowest."""
    message = Message("iopub", HEADER, content=os.urandom(size))
    slowest = 0.0
    with opened(way) as journal:
        begun = last = time.perf_counter()
        for _ in range(count):
            journal.append(message, Kind.KERNEL)
            now = time.perf_counter()
            slowest, last = max(slowest, now - last), now
        return (time.perf_counter() - begun) / count, slowest


def replay(size: int, count: int) -> tuple[float, float]:
    """Bytes a second: of the journal, of `cat`."""
    directory = Path(tempfile.mkdtemp(prefix="sc-bench-"))
    message = Message("iopub", HEADER, content=os.urandom(size))
    try:
        with Journal(directory, max_bytes=1 << 30) as journal:
            for _ in range(count):
                journal.append(message, Kind.KERNEL)
        paths = sorted(directory.glob("*.journal"))
        total = sum(path.stat().st_size for path in paths)
        with Journal(directory, max_bytes=1 << 30) as journal:
            ours = _seconds(lambda: sum(len(record) for record in journal.scan()))
        command = ["cat", *map(str, paths)]
        plain = _seconds(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL))
        return total / ours, total / plain
    finally:
        shutil.rmtree(directory)


def _seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def main() -> None:
    """Measure and print two tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    ways = ("bare", "unchained", "journal")
    print(f"{'append, ms':12}" + "".join(f"{way:>12}" for way in (*ways, "ratio", "slowest")))
    for name, (size, count) in SIZES.items():
        times: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
        for turn in range(rounds):
            for way in ways if turn % 2 else ways[::-1]:
                times[way].append(append(way, size, count))
        means = [statistics.median(mean for mean, _ in times[way]) * 1e3 for way in ways]
        slowest = max(slowest for _, slowest in times["journal"]) * 1e3
        figures = (*means, means[2] / means[0], slowest)
        print(f"{name:12}" + "".join(f"{figure:12.4f}" for figure in figures))
    print(f"\n{'replay, MB/s':12}{'journal':>12}{'cat':>12}")
    with mock.patch.object(module, "RECENT_BYTES", 0):
        for name, (size, count) in SIZES.items():
            speeds = [replay(size, count) for _ in range(rounds)]
            ours, plain = (statistics.median(pair) / 1e6 for pair in zip(*speeds, strict=True))
            print(f"{name:12}{ours:12.0f}{plain:12.0f}")


if __name__ == "__main__":
    main()
