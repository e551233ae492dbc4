"""What the gateway answers, as values, or as the errors that it stands for. No I/O."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar, cast

from pydantic import BaseModel, TypeAdapter, ValidationError

from sandcell.errors import GatewayError, error_of
from sandcell_wire.commands import CommandEvent
from sandcell_wire.models import ExecutionEvent, SessionEvent, StreamFailed

_EXECUTION_EVENT = TypeAdapter[ExecutionEvent](ExecutionEvent)
_COMMAND_EVENT = TypeAdapter[CommandEvent](CommandEvent)

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")


def parse(model: type[M], status: int, headers: Mapping[str, str], body: bytes) -> M:
    """The answer as a model. Raises the `GatewayError` that it stands for."""
    check(status, headers, body)
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise _misunderstood(f"a {model.__name__}", status) from error


def _misunderstood(expected: str, status: int | None = None) -> GatewayError:
    return GatewayError(
        f"expected {expected} from the gateway, got something else",
        hint="Is this really the address of a sandcell gateway, of a fitting version?",
        status=status,
    )


class Lines:
    """Cuts a stream into lines. Only at line feeds: JSON may hold other line separators."""

    def __init__(self) -> None:
        self._begun: list[bytes] = []

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """The lines that this piece ends; the empty ones left out."""
        *ended, rest = piece.split(b"\n")
        for line in ended:
            whole = b"".join((*self._begun, line))
            self._begun.clear()
            if whole:
                yield whole
        if rest:
            self._begun.append(rest)


def execution_event(line: bytes) -> ExecutionEvent:
    """One line of a stream. Raises the `GatewayError` of one that failed."""
    return _event(_EXECUTION_EVENT, line)


def command_event(line: bytes) -> CommandEvent:
    """One line of a stream. Raises the `GatewayError` of one that failed."""
    return _event(_COMMAND_EVENT, line)


def is_end(event: ExecutionEvent | CommandEvent) -> bool:
    """Whether nothing comes after it."""
    return event.type == "ended"


def _event(kind: TypeAdapter[T], line: bytes) -> T:
    try:
        event = kind.validate_json(line)
    except ValidationError as error:
        raise _misunderstood("an event") from error
    if isinstance(event, StreamFailed):
        problem = event.problem
        raise error_of(problem.status, problem.model_dump(mode="json"))
    return event


class EventFeed:
    """Reads server-sent events: each has an id, and behind it its data on one line."""

    def __init__(self) -> None:
        self.last: str | None = None
        """The id of the newest event that was taken."""
        self._coming: str | None = None
        self._known: SessionEvent | None = None

    def take(self, line: bytes) -> SessionEvent | None:
        """One line; the event that it ends, unless that says nothing new.

        Raises `GatewayError`.
        """
        name, _, value = line.decode(errors="replace").partition(":")
        if name == "id":
            self._coming = value.strip()
        if name != "data":
            return None
        try:
            event = SessionEvent.model_validate_json(value)
        except ValidationError as error:
            raise _misunderstood("a session's event") from error
        self.last = self._coming
        known = self._known
        if event.old is None and known is not None:
            # The present state, after events that nobody has kept: what is it to us?
            if event.new is not known.new:
                event = event.model_copy(update={"old": known.new})
            elif known.type in (event.type, "error"):
                return None
            else:
                event = event.model_copy(update={"old": known.old})
        self._known = event
        return event


def check(status: int, headers: Mapping[str, str], body: bytes) -> None:
    """Raises the `GatewayError` that an answer stands for, if it does."""
    if not 200 <= status < 300:
        raise _failure(status, headers, body)


def _failure(status: int, headers: Mapping[str, str], body: bytes) -> GatewayError:
    try:
        problem: object = json.loads(body)
    except ValueError:
        problem = None
    known = cast("dict[str, Any]", problem) if isinstance(problem, dict) else {}
    return error_of(status, known, headers)
