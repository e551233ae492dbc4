"""What a new shim knows of the session from the journal of an earlier one. Pure.

Output that was dropped from the journal leaves tombstones, which do not say what they
were: a request from before one may have been busy, or idle.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from sandcell_gateway.journal.records import Kind, Record, Tombstone
from sandcell_gateway.shim.executions import Execution, Executions
from sandcell_gateway.shim.request import (
    Input,
    Request,
    outcome,
    read_execute,
)
from sandcell_wire import frames
from sandcell_wire.execution import sandcell_metadata
from sandcell_wire.messages import Envelope, Message, envelope


@dataclass
class Past:
    """What was asked, and what of it has not ended."""

    known: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    """Client and id of every message of a client."""
    open: dict[str, Request] = field(default_factory=dict[str, Request])
    inputs: dict[str, Input] = field(default_factory=dict[str, Input])
    executions: Executions = field(default_factory=Executions)


def read_past(records: Iterable[Record | Tombstone]) -> Past:
    """Read a journal, oldest record first."""
    past = Past()
    for record in records:
        if isinstance(record, Tombstone):
            _lost_sight(past)
            continue
        _, message = frames.decode(record.frame)
        head = envelope(message)
        if record.kind is Kind.REQUEST:
            past.known.append((record.owner, head.msg_id))
            _asked(past, record, head, message)
            continue
        request = past.open.get(head.parent_id)
        if request is not None:
            _answered(past, request, record, head, message)
    return past


def _lost_sight(past: Past) -> None:
    for name, request in list(past.open.items()):
        if request.wants_reply:
            request.busy = request.busy or request.received
        else:
            del past.open[name]


def _asked(past: Past, record: Record, head: Envelope, message: Message) -> None:
    if message.channel == "stdin":
        close_input(past.inputs, record.owner, head)
        return
    request = Request(record.owner, message, head, record.time, sent=True)
    past.open[head.msg_id] = request
    if request.executes:
        read_execute(request)
        index(past.executions, request, record.seq)


def _answered(
    past: Past, request: Request, record: Record, head: Envelope, message: Message
) -> None:
    name = request.envelope.msg_id
    if head.msg_type == "status":
        state = message.content_dict().get("execution_state")
        if state == "busy":
            request.busy = record.time
            past.executions.started(name, record.time)
        else:
            request.idle = record.time
            if not request.wants_reply:
                del past.open[name]
    elif head.msg_type == "input_request":
        _question(past, record, head, message)
    elif head.msg_type == "execute_input":
        request.echoed = True
    elif head.msg_type == request.envelope.reply_type:
        del past.open[name]
        past.inputs.pop(name, None)
        if request.executes:
            ended = outcome(message, record.kind)
            past.executions.ended(name, record.time, record.seq, ended.status, ended.count)


def _question(past: Past, record: Record, head: Envelope, message: Message) -> None:
    """A new one of the kernel, or an open one that the shim put to one more client."""
    found = past.inputs.get(head.parent_id)
    if record.kind is Kind.SHIM and found is not None:
        found.asked[record.owner] = head.msg_id
        return
    content, asked = message.content_dict(), {record.owner: head.msg_id}
    past.inputs[head.parent_id] = Input(past.open[head.parent_id], content, asked)


def index(executions: Executions, request: Request, seq: int) -> None:
    """Enter an execution that people see."""
    if not request.silent:
        detached = sandcell_metadata(request.message).get("detached") is True
        name, now = request.envelope.msg_id, request.received
        executions.asked(Execution(name, request.client, seq, now, detached=detached))


def close_input(inputs: dict[str, Input], client: str, head: Envelope) -> bool:
    """Whether a client's answer fits an open question; the question is open no longer."""
    for parent, waiting in list(inputs.items()):
        asked = waiting.asked.get(client)
        if asked is not None and head.parent_id in ("", asked, parent):
            del inputs[parent]
            return True
    return False
