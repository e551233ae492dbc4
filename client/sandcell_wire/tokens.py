"""The bodies of `/v1/tokens`, shared by server and client."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import Field, StringConstraints

from sandcell_wire.models import Answer, Model, Name
from sandcell_wire.scopes import Scope
from sandcell_wire.words import OWNER


class TokenCreate(Model):
    """Body of `POST /v1/tokens`."""

    name: Name
    """For people: what the token is for."""
    owner: Annotated[str, StringConstraints(pattern=OWNER)] | None = None
    """Whose sessions it is for. Left out: whoever asks. Others are the operator's to name."""
    scopes: list[Scope] = Field([Scope.RUN], min_length=1, max_length=len(Scope))
    expires_in: Annotated[float, Field(gt=0, le=10 * 365 * 86_400, strict=True)] | None = None
    """Seconds from now; left out, it is valid until it is revoked."""


class TokenModel(Answer):
    """A token as the gateway shows it: everything but the secret."""

    id: UUID
    name: str
    owner: str
    scopes: list[Scope]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    """Up to a minute ago it may have been used again."""


class NewToken(TokenModel):
    """Answer of `POST /v1/tokens`."""

    token: str
    """The secret. It is shown once, and nobody can find it out later."""


class TokenList(Answer):
    """Answer of `GET /v1/tokens`."""

    tokens: list[TokenModel]
    total: int
    limit: int
    offset: int
