"""`/v1/sessions`: make, find, look at, restart, interrupt and close sessions."""

from __future__ import annotations

import re
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Query, Request
from pydantic import StringConstraints, WithJsonSchema

from sandcell_gateway.auth import Principal, current_principal
from sandcell_gateway.errors import BadRequest
from sandcell_gateway.idempotency import KEY_PATTERN, IdempotencyKeys, Keyed
from sandcell_gateway.openapi import LIVE_SESSION, SESSION, problems_of
from sandcell_gateway.routes.pages import Limit, Offset
from sandcell_gateway.sessions.service import MAX_WAIT, Page, SessionService
from sandcell_gateway.store.sessions import Order
from sandcell_wire.codes import Code
from sandcell_wire.models import (
    MAX_VALUE,
    TYPE_LABEL,
    SessionCreate,
    SessionList,
    SessionModel,
    SessionRestart,
    SessionUpdate,
)
from sandcell_wire.states import GROUPS, LIVE, Status, expand
from sandcell_wire.words import CLIENT, LABEL

router = APIRouter(prefix="/v1/sessions", tags=["sessions"])

MAX_GRACE = 86_400.0
"""Most seconds that a close can be put off."""

_WAIT = re.compile(r"(?:^|,)\s*wait\s*=\s*\"?(\d+(?:\.\d+)?)\"?\s*(?:,|;|$)", re.IGNORECASE)


StatusWord = Annotated[
    str, WithJsonSchema({"type": "string", "enum": list(dict.fromkeys([*GROUPS, *Status]))})
]
Label = Annotated[str, StringConstraints(pattern=LABEL)]


def service_of(request: Request) -> SessionService:
    """The dependency that finds the service."""
    service: SessionService = request.app.state.service
    return service


def principal_of(request: Request) -> Principal:
    """The dependency that finds the caller."""
    return current_principal(request)


def keys_of(request: Request) -> IdempotencyKeys:
    """The dependency that finds the keys of requests."""
    keys: IdempotencyKeys = request.app.state.keys
    return keys


Service = Annotated[SessionService, Depends(service_of)]
Caller = Annotated[Principal, Depends(principal_of)]
Keys = Annotated[IdempotencyKeys, Depends(keys_of)]


def preferred_wait(prefer: str | None) -> float:
    """The seconds of `Prefer: wait=SECONDS` (RFC 7240, section 4.3); 0 when it asks for none."""
    found = _WAIT.search(prefer or "")
    return min(float(found[1]), MAX_WAIT) if found else 0.0


def _labels(words: list[str], type: str | None) -> frozenset[tuple[str, str]]:
    given = [f"{TYPE_LABEL}={type}"] if type is not None else []
    return frozenset(
        (key, value) for key, _, value in (word.partition("=") for word in (*words, *given))
    )


def _statuses(name: str, words: list[str]) -> frozenset[Status]:
    try:
        return expand(words)
    except ValueError as error:
        raise BadRequest(f"{name}: {error}") from error


@router.post(
    "",
    responses=problems_of(
        Code.CONFLICT, Code.REQUEST_IN_FLIGHT, Code.QUOTA_EXCEEDED, Code.ENGINE_UNAVAILABLE
    ),
)
async def create_session(
    body: SessionCreate,
    service: Service,
    caller: Caller,
    keys: Keys,
    prefer: Annotated[str | None, Header(alias="Prefer")] = None,
    idempotency_key: Annotated[
        str | None, Header(alias="Idempotency-Key", pattern=KEY_PATTERN)
    ] = None,
) -> SessionModel:
    """Make a session. `Prefer: wait=SECONDS` answers when it is ready or has failed.

    Sent again with the same `Idempotency-Key`, it answers with the session that the
    first request made.
    """
    made = await keys.once(
        Keyed(caller.owner, "POST /v1/sessions", idempotency_key, body),
        SessionModel,
        lambda session_id: service.create(caller, body, session_id),
    )
    return await service.settled(made, preferred_wait(prefer))


@router.get("")
async def list_sessions(
    service: Service,
    caller: Caller,
    limit: Limit = 100,
    offset: Offset = 0,
    status: Annotated[list[StatusWord] | None, Query()] = None,
    label: Annotated[list[Label] | None, Query()] = None,
    type: Annotated[str | None, Query(max_length=MAX_VALUE)] = None,
    search: Annotated[str | None, Query(max_length=64)] = None,
    order_by: Order = "-created_at",
) -> SessionList:
    """Your sessions; live ones unless `status` names others.

    `label` is KEY=VALUE and may be repeated, `type` is the label of that name, and `search`
    part of a name or of a label's value, or the beginning of an id.
    """
    statuses = _statuses("status", status) if status else LIVE
    return await service.list(
        caller,
        Page(limit, offset),
        statuses=statuses,
        labels=_labels(label or [], type),
        search=search,
        order_by=order_by,
    )


@router.get("/{session_id}", responses=problems_of(*SESSION))
async def get_session(
    session_id: UUID,
    service: Service,
    caller: Caller,
    until: Annotated[list[StatusWord] | None, Query()] = None,
    wait: Annotated[float, Query(ge=0, le=MAX_WAIT)] = 0.0,
) -> SessionModel:
    """One session; with `until` and `wait` when it is in such a status, or after so many seconds.

    One that has ended is not waited for.
    """
    return await service.get(caller, str(session_id), _statuses("until", until or []), wait)


@router.patch("/{session_id}", responses=problems_of(*LIVE_SESSION, Code.CONFLICT))
async def update_session(
    session_id: UUID, body: SessionUpdate, service: Service, caller: Caller
) -> SessionModel:
    """Change its name and its labels: a JSON merge patch (RFC 7396)."""
    return await service.update(caller, str(session_id), body)


@router.delete("/{session_id}", responses=problems_of(*SESSION))
async def close_session(
    session_id: UUID,
    service: Service,
    caller: Caller,
    grace: Annotated[float, Query(ge=0, le=MAX_GRACE)] = 0.0,
    client: Annotated[str | None, Query(pattern=CLIENT)] = None,
) -> SessionModel:
    """Close it, at once or after `grace` seconds in which nobody attached.

    With `client`, the name of its channel, that client leaves: it is not closed while others
    are attached.
    """
    return await service.close(caller, str(session_id), grace, client)


@router.post("/{session_id}/restart", responses=problems_of(*LIVE_SESSION, Code.CONFLICT))
async def restart_session(
    session_id: UUID, service: Service, caller: Caller, body: SessionRestart | None = None
) -> SessionModel:
    """A fresh interpreter; files and packages stay."""
    return await service.restart(caller, str(session_id), body.interpreter if body else None)


@router.post("/{session_id}/pause", responses=problems_of(*LIVE_SESSION, Code.CONFLICT))
async def pause_session(session_id: UUID, service: Service, caller: Caller) -> SessionModel:
    """Freeze it: it uses no processor, and keeps its memory. Running code goes on later.

    Harmless when it is paused. Running code or a command, or using its files, resumes it.
    """
    return await service.pause(caller, str(session_id))


@router.post("/{session_id}/resume", responses=problems_of(*LIVE_SESSION))
async def resume_session(session_id: UUID, service: Service, caller: Caller) -> SessionModel:
    """Let a paused session go on where it was. Harmless when it is not paused."""
    return await service.resume(caller, str(session_id))


@router.post("/{session_id}/interrupt", responses=problems_of(*LIVE_SESSION, Code.CONFLICT))
async def interrupt_session(session_id: UUID, service: Service, caller: Caller) -> SessionModel:
    """Interrupt whatever runs."""
    return await service.interrupt(caller, str(session_id))
