"""The bodies of the REST interface, shared by server and client.

Times are RFC 3339 in UTC, durations are seconds, ids are UUID4.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from sandcell_wire.codes import Code
from sandcell_wire.states import Status

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
EnvName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")]
Interpreter = Annotated[str, StringConstraints(pattern=r"^[0-9a-f-]{32,36}$")]


class Model(BaseModel):
    """Base of all bodies: unknown fields are refused, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Reason(BaseModel):
    """Why a session is in its status."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    code: str
    """Stable word: `out_of_memory`, `signal`, `exit`, `host_lost`, `closed`, `start_failed`, …"""
    text: str
    """One sentence for people."""


class SessionCreate(Model):
    """Body of `POST /v1/sessions`. Everything is optional."""

    name: Name | None = None
    """Unique among the owner's live sessions; a named session outlives its kernel."""
    language: str = "python"
    metadata: dict[str, str] = Field(default_factory=dict, max_length=64)
    """Labels, free for the owner's use."""
    env: dict[EnvName, str] = Field(default_factory=dict, max_length=256)
    """Environment of the session's processes; never listed or logged."""
    interpreter: Interpreter | None = None
    """The id that the interpreter's messages carry in `header.session`."""
    image: str | None = None
    """Prefix of the Python environment to run in; only an embedded gateway accepts one."""


class SessionRestart(Model):
    """Body of `POST /v1/sessions/{id}/restart`."""

    interpreter: Interpreter | None = None
    """The new interpreter's id in `header.session`."""


class SessionModel(BaseModel):
    """A session as the gateway shows it."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    id: UUID
    name: str | None
    status: Status
    reason: Reason | None
    language: str
    engine: str
    isolated: bool
    """False when the engine isolates nothing from the host."""
    metadata: dict[str, str]
    interpreter: str
    created_at: datetime
    updated_at: datetime
    closes_at: datetime | None
    """When the session will be closed if nobody attaches before."""


class SessionList(BaseModel):
    """Answer of `GET /v1/sessions`."""

    sessions: list[SessionModel]
    total: int
    limit: int
    offset: int


class Health(BaseModel):
    """Answer of `GET /health`."""

    status: str
    version: str


class Problem(BaseModel):
    """An error as an RFC 9457 problem document (`application/problem+json`)."""

    model_config = ConfigDict(extra="allow")

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: Code
    hint: str | None = None
    """What to do next."""
    request_id: str | None = None
    errors: list[dict[str, Any]] | None = None
    """For `validation_error`: each bad field with its place and reason."""
