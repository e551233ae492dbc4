"""The index of what ran: one entry for each execution, without code and output. Pure.

Code and output stay in the journal; an entry says where. It is rebuilt from the
journal when a new shim takes the session over.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from sandcell_gateway.journal.records import Record
from sandcell_wire import frames

MAX_EXECUTIONS = 100_000
"""Most entries that are kept; the oldest ended ones go first."""

MAX_MISSED = 100
"""Most executions that are shown to somebody who attaches."""


class Outcome(StrEnum):
    """How far an execution is, or how it ended."""

    QUEUED = "queued"
    RUNNING = "running"
    OK = "ok"
    ERROR = "error"
    ABORTED = "aborted"
    UNKNOWN = "unknown"
    """Its end was lost with the session's supervisor."""


@dataclass(slots=True)
class Execution:
    """One cell. Times are Unix seconds."""

    id: str
    """The request's `msg_id`."""
    client: str
    first: int
    """The journal's number of its request."""
    submitted: float
    last: int | None = None
    """The journal's number of its reply."""
    started: float | None = None
    ended: float | None = None
    status: Outcome = Outcome.QUEUED
    count: int | None = None
    """The interpreter's execution count."""
    detached: bool = False
    """Whether it was started without anybody who waits for it."""
    timed_out: bool = False
    """Whether it was interrupted because it ran as long as it may."""

    def as_json(self) -> dict[str, Any]:
        """For the wire."""
        return asdict(self)


@dataclass(slots=True)
class _Unseen:
    """An execution of which nobody has seen the end."""

    execution: Execution
    shown: int = 0
    """The number of its last record that everybody may see: its reply is its client's alone."""
    told: set[str] = field(default_factory=set[str])
    """Clients to which it is shown: its own, and those that attached."""

    def seen_by(self, client: str, seq: int) -> bool:
        """Whether this client, which has everything up to `seq`, has seen its end."""
        return self.execution.last is not None and client in self.told and self.shown <= seq


def code_of(record: Record) -> str:
    """The code of a recorded execute_request; empty if it is none."""
    code = frames.decode(record.frame)[1].content_if_any().get("code", "")
    return code if isinstance(code, str) else ""


class Executions:
    """All that ran in the session, in the order in which it was asked for."""

    def __init__(self, most: int = MAX_EXECUTIONS) -> None:
        self._all: OrderedDict[str, Execution] = OrderedDict()
        self._unseen: dict[str, _Unseen] = {}
        self._most = most
        self.total = 0
        """How many have ever ended."""

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Execution]:
        return iter(self._all.values())

    def get(self, id: str) -> Execution | None:
        """The entry of this request, if it is known."""
        return self._all.get(id)

    def asked(self, execution: Execution) -> None:
        """A cell was asked for."""
        self._all[execution.id] = execution
        if not execution.detached:
            self._unseen[execution.id] = _Unseen(execution, told={execution.client})
        if len(self._all) > self._most:
            for old in self._all.values():
                if old.ended is not None:
                    del self._all[old.id]
                    self._unseen.pop(old.id, None)
                    break

    def started(self, id: str, now: float) -> None:
        """It runs."""
        found = self._all.get(id)
        if found is not None and found.started is None:
            found.started, found.status = now, Outcome.RUNNING

    def shown(self, id: str, seq: int) -> None:
        """Its last record so far that everybody may see has this number."""
        found = self._unseen.get(id)
        if found is not None:
            found.shown = seq

    def ended(self, id: str, now: float, seq: int, status: str, count: object) -> None:
        """Its reply, with this status, was recorded under this number."""
        found = self._all.get(id)
        if found is not None:
            self.total += found.ended is None
            found.ended, found.last = now, seq
            known = status in (Outcome.OK, Outcome.ERROR, Outcome.ABORTED)
            found.status = Outcome(status) if known else Outcome.UNKNOWN
            found.count = count if isinstance(count, int) and count > 0 else None

    def ended_after(self, seq: int) -> int:
        """How many have ended, their reply recorded behind this number."""
        return sum(1 for found in self._all.values() if found.last is not None and found.last > seq)

    def heard(self, client: str, seq: int) -> None:
        """A client says that it has everything up to this number."""
        for unseen in list(self._unseen.values()):
            if unseen.seen_by(client, seq):
                del self._unseen[unseen.execution.id]

    def trust(self) -> None:
        """What has ended counts as seen: who saw it is forgotten."""
        for unseen in list(self._unseen.values()):
            if unseen.execution.last is not None:
                del self._unseen[unseen.execution.id]

    def missed(self, client: str) -> tuple[list[Execution], int]:
        """What this client is shown: those of which nobody saw the end, and the ones left out.

        Its word counts from now on for all of them: it learns how many were left out.
        """
        for unseen in self._unseen.values():
            unseen.told.add(client)
        found = [unseen.execution for unseen in self._unseen.values()]
        return found[-MAX_MISSED:], max(0, len(found) - MAX_MISSED)

    def page(
        self, *, limit: int, offset: int = 0, detached: bool | None = None, newest: bool = False
    ) -> tuple[list[Execution], int]:
        """A part of those that are wanted, and how many these are in all."""
        found = [
            execution
            for execution in self._all.values()
            if detached is None or execution.detached is detached
        ]
        if newest:
            found.reverse()
        return found[offset : offset + limit], len(found)
