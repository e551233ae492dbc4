"""Requests and answers as values: what to send, and what came back. No I/O."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast
from urllib.parse import quote, urlencode
from uuid import UUID

from pydantic import BaseModel, ValidationError

from sandcell.errors import GatewayError, RequestInvalid, error_of
from sandcell_wire.models import SessionCreate, SessionRestart

SESSIONS = "/v1/sessions"
MAX_PAGE = 500
"""Sessions asked for at once when all are wanted."""

M = TypeVar("M", bound=BaseModel)
Param = str | int | float | None


@dataclass(frozen=True)
class ApiRequest:
    """One request, ready to send."""

    method: str
    path: str
    """With the query string."""
    body: dict[str, Any] | None = None
    headers: dict[str, str] = field(default_factory=dict[str, str])
    patience: float = 0.0
    """Seconds that the gateway may take on top of the usual."""


@dataclass(frozen=True)
class ChannelTarget:
    """Where to open a session's channel."""

    url: str
    """`ws://` or `wss://`."""
    headers: dict[str, str]
    unix_socket: Path | None
    """Connect here instead of to the URL's host."""


def _path(path: str, params: Sequence[tuple[str, Param]] = ()) -> str:
    given = [(key, value) for key, value in params if value is not None]
    return f"{path}?{urlencode(given)}" if given else path


def session_path(session_id: UUID | str, action: str = "") -> str:
    """The path of one session."""
    path = f"{SESSIONS}/{quote(str(session_id), safe='')}"
    return f"{path}/{action}" if action else path


def create(
    *,
    name: str | None,
    env: Mapping[str, str] | None,
    metadata: Mapping[str, str] | None,
    language: str,
    interpreter: str | None,
    image: str | None,
    wait: float,
) -> ApiRequest:
    """Make a session. Raises `RequestInvalid` for values that cannot be sent."""
    try:
        body = SessionCreate(
            name=name,
            env=dict(env or {}),
            metadata=dict(metadata or {}),
            language=language,
            interpreter=interpreter,
            image=image,
        )
    except ValidationError as error:
        raise _invalid(error) from None
    return ApiRequest(
        "POST",
        SESSIONS,
        body.model_dump(mode="json", exclude_none=True),
        {"Prefer": f"wait={wait:g}"} if wait > 0 else {},
        wait,
    )


def list_sessions(
    *,
    limit: int,
    offset: int,
    status: Sequence[str],
    labels: Mapping[str, str],
    search: str | None,
    order_by: str | None,
) -> ApiRequest:
    """A page of sessions."""
    params: list[tuple[str, Param]] = [("limit", limit), ("offset", offset)]
    params += [("status", word) for word in status]
    params += [("label", f"{key}={value}") for key, value in labels.items()]
    params += [("search", search), ("order_by", order_by)]
    return ApiRequest("GET", _path(SESSIONS, params))


def get(session_id: UUID | str) -> ApiRequest:
    """Look at one session."""
    return ApiRequest("GET", session_path(session_id))


def close(session_id: UUID | str, grace: float) -> ApiRequest:
    """Close one session."""
    path = _path(session_path(session_id), [("grace", grace if grace > 0 else None)])
    return ApiRequest("DELETE", path, patience=60.0)


def restart(session_id: UUID | str, interpreter: str | None) -> ApiRequest:
    """A fresh interpreter."""
    body = SessionRestart(interpreter=interpreter).model_dump(exclude_none=True)
    return ApiRequest("POST", session_path(session_id, "restart"), body, patience=120.0)


def interrupt(session_id: UUID | str) -> ApiRequest:
    """Interrupt what runs."""
    return ApiRequest("POST", session_path(session_id, "interrupt"))


def health() -> ApiRequest:
    """Is the gateway there?"""
    return ApiRequest("GET", "/health")


def channel_path(session_id: UUID | str, client: str, after: int | None) -> str:
    """The channel of one session."""
    return _path(session_path(session_id, "channels"), [("client", client), ("after", after)])


def authorization(token: str | None) -> dict[str, str]:
    """The header that carries the token."""
    return {"Authorization": f"Bearer {token}"} if token else {}


def websocket_url(url: str) -> str:
    """The WebSocket form of a gateway's address."""
    return "ws" + url.removeprefix("http").rstrip("/")


def parse(model: type[M], status: int, headers: Mapping[str, str], body: bytes) -> M:
    """The answer as a model. Raises the `GatewayError` that it stands for."""
    if not 200 <= status < 300:
        raise _failure(status, headers, body)
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise GatewayError(
            f"expected a {model.__name__} from the gateway, got something else",
            hint="Is this really the address of a sandcell gateway, of a fitting version?",
            status=status,
        ) from error


def _failure(status: int, headers: Mapping[str, str], body: bytes) -> GatewayError:
    try:
        problem: object = json.loads(body)
    except ValueError:
        problem = None
    after = headers.get("retry-after", "")
    return error_of(
        status,
        cast("dict[str, Any]", problem) if isinstance(problem, dict) else {},
        float(after) if after.isdecimal() else None,
    )


def _invalid(error: ValidationError) -> RequestInvalid:
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    return RequestInvalid(f"{place}: {first['msg']}")
