"""The number that was given last, kept beside the segments."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

from sandcell_gateway.journal.records import GENESIS, HEAD_BYTES, Damaged, State, base, parse

FILE = "newest"


class Mark:
    """A small file overwritten in place, which works on a full disk, too.

    It holds two bases: the last number whose record is stored and synced, so that damage
    is told from a torn tail; and the last number that was given, which is not given again
    though the disk refused its record. Used by two threads.
    """

    def __init__(self, directory: Path, *, writable: bool = True) -> None:
        self.seq = 0
        self.chain = GENESIS
        """The chain after record `seq`."""
        self.synced = 0
        self.damaged = False
        self._lock = threading.Lock()
        flags = os.O_RDWR | os.O_CREAT if writable else os.O_RDONLY
        try:
            self._fd = os.open(directory / FILE, flags | os.O_CLOEXEC, 0o600)
        except OSError:
            self._fd = -1
            return
        self._read()
        if writable and self.seq == 0:
            self._write()  # so that it has its place on the disk

    def close(self) -> None:
        """Close the file. Harmless when closed."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    __del__ = close

    def _read(self) -> None:
        data = os.pread(self._fd, 2 * HEAD_BYTES + 1, 0)
        if not data:
            return
        try:
            synced, middle = parse(data)
            given, end = parse(data, middle)
        except Damaged:
            self.damaged = True
            return
        self.damaged = {synced.state, given.state} != {State.BASE} or end != len(data)
        if not self.damaged:
            self.synced, self.seq, self.chain = synced.seq, given.seq, given.chain

    def advance(self, seq: int, chain: bytes, *, synced: int = 0) -> None:
        """Move it forward, never back; a disk that refuses leaves the file where it is."""
        with self._lock:
            if seq > self.seq:
                self.seq, self.chain = seq, chain
            self.synced = max(synced, self.synced)
            self._write()

    def _write(self) -> None:
        if self._fd >= 0:
            data = base(self.synced, GENESIS) + base(self.seq, self.chain)
            with contextlib.suppress(OSError):
                os.pwrite(self._fd, data, 0)
