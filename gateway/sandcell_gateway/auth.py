"""Who is asking: a token on TCP, the peer's credentials on a Unix socket.

`access.guard` asks once for every request, before anything else looks at it.
"""

from __future__ import annotations

import hmac
import os
import secrets
import stat
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from starlette.requests import HTTPConnection

from sandcell_gateway.errors import Refused, Unauthorized
from sandcell_gateway.settings import SettingsError
from sandcell_wire.scopes import Scope

TOKEN_BYTES = 32
TOKEN_OWNER = "token"  # noqa: S105 (an owner's name)
PEER_UID = "peer_uid"
"""Key of the connection's state: the uid at the other end of a Unix socket."""
PRINCIPAL = "principal"
"""Key of the connection's state: whoever the request acts for."""


@dataclass(frozen=True)
class Principal:
    """Whoever a request acts for."""

    owner: str
    """Stable name of the owner of sessions."""
    scopes: frozenset[Scope]
    credential: str
    """Which of the owner's credentials was shown: what is counted, and what can end."""
    expires_at: datetime | None = None
    """When the credential ends by itself."""
    operator: bool = False
    """Whoever runs the gateway: tokens of all owners are theirs to manage."""


Check = Callable[[str], Awaitable[Principal | None]]
"""Looks at a token: whose it is, or None if it is none of its kind. Raises `Unauthorized`."""


def peer_owner(uid: int) -> str:
    """The owner's name of a local user."""
    return f"uid:{uid}"


def peer_allowed(uid: int) -> bool:
    """Only our own user and root may use the Unix socket."""
    return uid in (0, os.getuid())


class Authenticator:
    """Turns credentials into a `Principal`."""

    def __init__(self, token: str | None) -> None:
        """`token` is the gateway's own."""
        self._token = token.encode() if token else None
        self._checks: list[Check] = []

    def add(self, check: Check) -> None:
        """Tokens of one more kind are valid."""
        self._checks.append(check)

    def peer(self, uid: int) -> Principal:
        """Whoever is at the other end of the Unix socket. Raises `Refused` for others than us."""
        if not peer_allowed(uid):
            raise Refused(f"uid {uid} may not use this gateway's socket")
        owner = peer_owner(uid)
        return Principal(owner, frozenset(Scope), owner, operator=True)

    async def bearer(self, token: str) -> Principal:
        """Whose token it is. Raises `Unauthorized`."""
        if self._token is not None and hmac.compare_digest(token.encode(), self._token):
            return Principal(TOKEN_OWNER, frozenset(Scope), TOKEN_OWNER, operator=True)
        for check in self._checks:
            found = await check(token)
            if found is not None:
                return found
        raise Unauthorized("the token is not valid", "check SANDCELL_TOKEN")


def token_of(headers: Mapping[str, str]) -> str:
    """The token that a request shows. Raises `Unauthorized` when it shows none."""
    scheme, _, value = headers.get("authorization", "").partition(" ")
    shown = value.strip() if scheme.lower() == "bearer" else ""
    shown = shown or headers.get("x-api-key", "")
    if not shown:
        raise Unauthorized(
            "this gateway needs a token",
            "send `Authorization: Bearer TOKEN`; clients read SANDCELL_TOKEN",
        )
    return shown


def current_principal(connection: HTTPConnection) -> Principal:
    """Whoever the request acts for, as `access.guard` found out."""
    principal: Principal = getattr(connection.state, PRINCIPAL)
    return principal


def token_from_file(path: Path) -> tuple[str, bool]:
    """The token kept in `path`, made if missing; and whether it was made now.

    Raises `SettingsError` when others could read the file.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        return _read_token(path), False
    token = secrets.token_urlsafe(TOKEN_BYTES)
    with os.fdopen(descriptor, "w") as file:
        file.write(token + "\n")
    return token, True


def _read_token(path: Path) -> str:
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise SettingsError(f"{path} must be a file of ours with mode 0600; remove it or chmod it")
    token = path.read_text().strip()
    if len(token) < 16:
        raise SettingsError(f"{path} holds no usable token; remove it to have one made")
    return token
