"""Whether a journal is the one that was signed; pure.

It is not, when a record differs from the one that was chained, when the chain at a signed
number is another one, when it ends before a signed number, or when a record is missing
that was there when the statement was signed. Bodies that were dropped to save space, and
records that were dropped from the beginning, are no difference: the chain goes on.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sandcell_gateway.journal.records import Head
from sandcell_gateway.journal.verify import ChainError, Follower, Verified
from sandcell_gateway.proofs.proof import Holes, Statement


@dataclass(frozen=True)
class Difference:
    """The first place where a journal is not the one that was signed."""

    seq: int
    """The first record that differs or is missing; where `last` is greater, it is the first
    one that may."""
    last: int
    reason: str

    def __str__(self) -> str:
        if self.last > self.seq:
            return f"one of the records {self.seq} to {self.last}: {self.reason}"
        return f"record {self.seq}: {self.reason}"


class Examination:
    """Compares a journal, entry by entry, with statements whose signatures are right."""

    def __init__(self, statements: Iterable[Statement]) -> None:
        self.difference: Difference | None = None
        """The first one; what follows it is not looked at."""
        self.confirmed: list[Statement] = []
        """Those that the journal fits, in the order of their numbers."""
        self._waiting = sorted(statements, key=lambda statement: statement.seq)
        self._follower = Follower()
        self._compare()  # a statement about a journal without records

    @property
    def found(self) -> Verified:
        """What is whole."""
        return self._follower.found

    @property
    def proven(self) -> int:
        """The number up to which a statement confirms the journal; 0 for none."""
        return self.confirmed[-1].seq if self.confirmed else 0

    @property
    def open(self) -> list[Statement]:
        """After `finish`: those with which nothing could be compared any more."""
        return list(self._waiting)

    def take(self, head: Head, body: bytes | None) -> None:
        """The next entry."""
        if self.difference is not None:
            return
        known = len(self.found.holes)
        try:
            self._follower.take(head, body)
        except ChainError as error:
            self.difference = Difference(error.seq, error.seq, error.reason)
            return
        for first, last in self.found.holes[known:]:  # at most one
            self._missing(first, last)
        if self.difference is None:
            self._compare()

    def damaged(self, reason: str) -> None:
        """What follows the last entry is none."""
        if self.difference is None:
            self.difference = Difference(self.found.seq + 1, self.found.seq + 1, reason)

    def finish(self) -> None:
        """There are no more entries."""
        if self.difference is None and self._waiting:
            longest = self._waiting[-1]
            if longest.seq > self.found.seq:
                self._differs(
                    self.found.seq + 1,
                    f"the journal ends before it; {longest.seq} records were signed at "
                    f"{longest.time}",
                )

    def _differs(self, seq: int, reason: str, last: int | None = None) -> None:
        self.difference = Difference(seq, seq if last is None else last, reason)

    def _missing(self, first: int, last: int) -> None:
        """These records are not there: were they, when a statement was signed?"""
        for statement in self._waiting:
            seq = _first_beside(first, min(last, statement.seq), statement.holes)
            if seq is not None and (self.difference is None or seq < self.difference.seq):
                self._differs(seq, f"it is missing, and was there at {statement.time}")

    def _compare(self) -> None:
        """Statements about the number that is reached now; those before it stay open."""
        found, ahead = self.found, list[Statement]()
        for statement in self._waiting:
            if statement.seq != found.seq:
                ahead.append(statement)
            elif bytes.fromhex(statement.chain) == found.chain:
                self.confirmed.append(statement)
            else:
                first = max(self.proven + 1, found.first)
                text = f"they are not the records that were signed at {statement.time}"
                self._differs(min(first, found.seq), text, found.seq)
                return
        self._waiting = ahead


def _first_beside(first: int, last: int, holes: Holes) -> int | None:
    """The first of these numbers that is in none of the holes."""
    at = first
    for begin, end in sorted(holes):
        if begin <= at <= end:
            at = end + 1
    return at if at <= last else None
