"""What is known of a live session now: its row, and above it what its shim reported."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from datetime import datetime

from sandcell_gateway.store.tables import SessionRow
from sandcell_wire.models import Reason, SessionModel
from sandcell_wire.states import Event, IllegalTransition, Status, next_status


def follow(known: Status, reported: Status) -> Status:
    """Go from the known to the reported status by the table of transitions.

    A report may come several moves later, after a time in which no gateway listened.
    Raises `IllegalTransition` when no moves lead there.
    """
    reached, todo = {known}, deque([known])
    while todo:
        status = todo.popleft()
        if status is reported:
            return status
        for event in Event:
            with suppress(IllegalTransition):
                after = next_status(status, event)
                if after not in reached:
                    reached.add(after)
                    todo.append(after)
    raise IllegalTransition(known, _LEADS_TO[reported])


_LEADS_TO = {
    Status.INITIALIZING: Event.RESTART,
    Status.IDLE: Event.READY,
    Status.ACTIVE: Event.BUSY,
    Status.PAUSED: Event.PAUSE,
    Status.HIBERNATED: Event.HIBERNATE,
    Status.COMPLETED: Event.COMPLETE,
    Status.TERMINATED: Event.CLOSE,
    Status.ERROR: Event.FAIL,
}
"""The event to name when a status cannot be reached."""


def stored_status(status: Status) -> Status:
    """What of a status is kept in the store: not every cell is worth a write."""
    return Status.IDLE if status is Status.ACTIVE else status


def row_reason(row: SessionRow) -> Reason | None:
    """The stored reason."""
    if row.reason_code is None:
        return None
    return Reason(code=row.reason_code, text=row.reason_text or "")


def stored_model(row: SessionRow) -> SessionModel:
    """A session that nobody keeps any more."""
    return model_of(row, Status(row.status), row_reason(row), row.interpreter, row.closes_at)


def model_of(
    row: SessionRow,
    status: Status,
    reason: Reason | None,
    interpreter: str,
    closes_at: datetime | None,
) -> SessionModel:
    """A session as the API shows it. Without its environment, which is never shown."""
    return SessionModel.model_validate(
        {
            "id": row.id,
            "name": row.name,
            "status": status,
            "reason": reason,
            "language": row.language,
            "engine": row.engine,
            "isolated": row.isolated,
            "metadata": row.labels,
            "interpreter": interpreter,
            "limits": row.limits,
            "created_at": row.created_at,
            "updated_at": row.updated_at,
            "closes_at": closes_at,
        }
    )
