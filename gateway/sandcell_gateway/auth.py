"""Who is asking: a token on TCP, the peer's credentials on a Unix socket."""

from __future__ import annotations

import hmac
import os
import secrets
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import HTTPConnection

from sandcell_gateway.errors import Refused, Unauthorized
from sandcell_gateway.settings import SettingsError

TOKEN_BYTES = 32
TOKEN_OWNER = "token"  # noqa: S105 (an owner's name)
PEER_UID = "peer_uid"
"""Key of the connection's state: the uid at the other end of a Unix socket."""


@dataclass(frozen=True)
class Principal:
    """Whoever a request acts for."""

    owner: str
    """Stable name of the owner of sessions."""


def peer_owner(uid: int) -> str:
    """The owner's name of a local user."""
    return f"uid:{uid}"


def peer_allowed(uid: int) -> bool:
    """Only our own user and root may use the Unix socket."""
    return uid in (0, os.getuid())


class Authenticator:
    """Turns a connection's credentials into a `Principal`."""

    def __init__(self, token: str | None) -> None:
        self._token = token.encode() if token else None

    def principal(self, peer_uid: int | None, headers: Mapping[str, str]) -> Principal:
        """Raises `Unauthorized`, or `Refused` for a foreign local user."""
        if peer_uid is not None:
            if not peer_allowed(peer_uid):
                raise Refused(f"uid {peer_uid} may not use this gateway's socket")
            return Principal(peer_owner(peer_uid))
        given = _token_of(headers)
        if given is None:
            raise Unauthorized(
                "this gateway needs a token",
                "send `Authorization: Bearer TOKEN`; clients read SANDCELL_TOKEN",
            )
        if self._token is None or not hmac.compare_digest(given.encode(), self._token):
            raise Unauthorized("the token is not valid", "check SANDCELL_TOKEN")
        return Principal(TOKEN_OWNER)


def _token_of(headers: Mapping[str, str]) -> str | None:
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and value.strip():
        return value.strip()
    return headers.get("x-api-key") or None


def current_principal(connection: HTTPConnection) -> Principal:
    """The dependency of every route that needs an owner."""
    authenticator: Authenticator = connection.app.state.authenticator
    uid: int | None = getattr(connection.state, PEER_UID, None)
    return authenticator.principal(uid, connection.headers)


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
