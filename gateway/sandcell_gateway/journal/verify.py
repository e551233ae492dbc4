"""Whether a row of records is the one that its chain says; pure, and needs no file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from sandcell_gateway.journal.records import (
    GENESIS,
    Damaged,
    Entry,
    Head,
    State,
    digest_of,
    link,
)


class ChainError(Exception):
    """A record that differs from the one that was chained, or is missing."""

    def __init__(self, seq: int, reason: str) -> None:
        self.seq = seq
        """The first record that differs."""
        self.reason = reason
        super().__init__(f"record {seq}: {reason}")


@dataclass
class Verified:
    """What was found to be whole."""

    first: int
    """The number from which it holds."""
    seq: int
    """The number up to which it holds; `first` - 1 when there was no record."""
    chain: bytes
    """The chain after `seq`, to be compared with a proof's."""
    tombstones: int = 0
    """Records whose body was dropped: number, time and digest are proven, the body is not there."""
    holes: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    """First and last number of records that could not be stored. The chain says that they
    were there, not what they were."""


class Follower:
    """Follows the chain over consecutive entries, one at a time."""

    def __init__(self, start: tuple[int, bytes] | None = None) -> None:
        """`start` is the number and chain before the first entry.

        Without one the first entry is believed if it is a base, and must be record 1
        otherwise.
        """
        self.found = Verified(start[0] + 1, *start) if start else Verified(1, 0, GENESIS)
        """What is whole so far."""
        self._began = start is not None

    def take(self, head: Head, body: bytes | None) -> None:
        """The next entry. Raises `ChainError` naming the first record that differs."""
        if not self._began and head.state is State.BASE:
            self.found = Verified(head.seq + 1, head.seq, head.chain)
        self._began = True
        _follow(self.found, head, body)


def verify(entries: Iterable[Entry], start: tuple[int, bytes] | None = None) -> Verified:
    """Follow the chain over consecutive entries, from `start` as for a `Follower`.

    Raises `ChainError` naming the first record that differs.
    """
    follower = Follower(start)
    walk = iter(entries)
    while True:
        try:
            head, body = next(walk)
        except StopIteration:
            return follower.found
        except Damaged as error:
            raise ChainError(follower.found.seq + 1, str(error)) from error
        follower.take(head, body)


def _follow(found: Verified, head: Head, body: bytes | None) -> None:
    if head.state is State.BASE:
        _rebase(found, head)
        return
    seq = found.seq + 1
    if head.seq != seq:
        raise ChainError(seq, f"record {head.seq} stands in its place")
    if link(found.chain, head) != head.chain:
        raise ChainError(seq, "its head or its place in the chain was changed")
    if head.state is State.DROPPED:
        found.tombstones += 1
    elif body is None or len(body) != head.length or digest_of(body) != head.digest:
        raise ChainError(seq, "its body is not the one that was recorded")
    found.seq, found.chain = seq, head.chain


def _rebase(found: Verified, head: Head) -> None:
    if head.seq < found.seq:
        raise ChainError(found.seq, f"the chain is said to continue after {head.seq}")
    if head.seq == found.seq:
        if head.chain != found.chain:
            raise ChainError(found.seq, "the chain is continued from another value")
        return
    found.holes.append((found.seq + 1, head.seq))
    found.seq, found.chain = head.seq, head.chain
