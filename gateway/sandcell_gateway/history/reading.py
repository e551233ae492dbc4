"""Executions with their code and outputs, from the entries of a journal. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sandcell_gateway.clock import from_unix
from sandcell_gateway.journal.records import Entry, Kind, State
from sandcell_wire import frames
from sandcell_wire.messages import Envelope, Message, MessageError, envelope
from sandcell_wire.models import ExecutionModel
from sandcell_wire.outputs import Displays, Outputs
from sandcell_wire.showing import Output, text_of


@dataclass
class _Found:
    """One execution: what the index says of it, and what the journal has."""

    entry: Mapping[str, Any]
    outputs: Outputs
    code: str = ""
    lost: int = 0
    """Messages that were dropped, or were this execution's perhaps."""

    def covers(self, seq: int) -> bool:
        """Whether the record may be its output."""
        first, last = self.entry["first"], self.entry["last"]
        return bool(first < seq and (last is None or seq < last))


class Reader:
    """Collects what entries say of the executions that are wanted."""

    def __init__(self, wanted: Iterable[Mapping[str, Any]]) -> None:
        """`wanted` are entries of the shim's index (`shim.executions.Execution`), with or
        without `code`.
        """
        displays = Displays()
        self._found = {
            str(entry["id"]): _Found(entry, Outputs(displays), text_of(entry.get("code", "")))
            for entry in wanted
        }

    @property
    def span(self) -> tuple[int, int | None]:
        """The first and last record that matter; None for the newest there is."""
        entries = [found.entry for found in self._found.values()]
        first = min((entry["first"] for entry in entries), default=1)
        last = [entry["last"] for entry in entries]
        return first, None if None in last else max(last, default=0)

    def take(self, entry: Entry) -> None:
        """One entry, in the order of the journal."""
        head, body = entry
        if head.state is State.STORED and body is not None:
            _, message = frames.decode(body)
            try:
                self._message(head.kind, envelope(message), message)
            except (MessageError, RecursionError):
                return  # recorded as it came, and shown nowhere
        elif head.state is State.DROPPED and head.kind is not Kind.REQUEST:
            self._dropped(head.seq)

    def _message(self, kind: Kind | None, head: Envelope, message: Message) -> None:
        if kind is Kind.REQUEST:
            if head.msg_id in self._found:
                self._found[head.msg_id].code = text_of(message.content_dict().get("code", ""))
        elif message.channel == "iopub" and head.parent_id in self._found:
            self._found[head.parent_id].outputs.add(head.msg_type, message.content_dict())

    def _dropped(self, seq: int) -> None:
        for found in self._found.values():
            found.lost += found.covers(seq)

    def executions(self, *, outputs: bool = True) -> list[ExecutionModel]:
        """All that was wanted, with what was found."""
        return [
            _model(name, found, found.outputs.shown if outputs else None)
            for name, found in self._found.items()
        ]


def _model(name: str, found: _Found, shown: list[Output] | None) -> ExecutionModel:
    entry = found.entry
    return ExecutionModel(
        id=name,
        code=found.code,
        status=entry["status"],
        execution_count=entry["count"],
        detached=entry["detached"],
        submitted_at=from_unix(entry["submitted"]),
        started_at=from_unix(entry["started"]) if entry["started"] else None,
        ended_at=from_unix(entry["ended"]) if entry["ended"] else None,
        outputs=shown,
        timed_out=entry.get("timed_out", False),
        lost_messages=found.lost,
    )
