"""What the journal's tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from sandcell_gateway.journal.journal import Journal
from sandcell_gateway.journal.records import Kind, Record, Tombstone
from sandcell_gateway.journal.store import stored_entries
from sandcell_gateway.journal.verify import Verified, verify
from sandcell_wire import frames
from sandcell_wire.messages import Message


def message(body: bytes = b"{}", channel: str = "iopub") -> Message:
    return Message(channel, b'{"msg_id":"1","msg_type":"stream"}', content=body)


def body_of(record: Record | Tombstone | None) -> bytes:
    """The content that was appended."""
    assert isinstance(record, Record)
    number, read = frames.decode(record.frame)
    assert number == record.seq
    return bytes(read.content)


def fill(journal: Journal, count: int, size: int = 500) -> None:
    """Cells of a request, three outputs and a reply, `count` records in all."""
    for _ in range(count // 5):
        journal.append(message(b"code", "shell"), Kind.REQUEST, "a")
        for _ in range(3):
            journal.append(message(os.urandom(size)), Kind.KERNEL)
        journal.append(message(b"reply", "shell"), Kind.KERNEL, "a")


def verified(directory: Path) -> Verified:
    return verify(stored_entries(directory))


def files(directory: Path) -> Iterator[Path]:
    return (path for path in sorted(directory.iterdir()) if path.is_file())


def total_bytes(directory: Path) -> int:
    return sum(path.stat().st_size for path in files(directory))
