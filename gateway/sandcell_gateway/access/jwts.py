"""JSON Web Tokens (RFC 7519): whose they are, and what they may do.

The key decides about the algorithm, never the token: a public key is no secret that
anybody could sign with, and `none` is no algorithm.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Protocol

import jwt

from sandcell_gateway.access.issuer import Issuer
from sandcell_gateway.access.jwks import Key, KeySet, fetch
from sandcell_gateway.access.leases import EXPIRED
from sandcell_gateway.auth import Principal
from sandcell_gateway.clock import from_unix
from sandcell_gateway.errors import TokenEnded, Unauthorized
from sandcell_wire.scopes import Scope

LEEWAY = 10.0
"""Seconds by which the issuer's clock may differ from ours."""
MAX_JWT = 8192
"""Most characters of one."""
MAX_OWNER = 255
MAX_REASON = 200
"""Most characters that are said about a bad one."""

_LATEST = datetime(9999, 1, 1, tzinfo=UTC).timestamp()


class Keys(Protocol):
    """Where the key of a token comes from."""

    async def find(self, header: dict[str, Any]) -> Key | None:
        """The key that a token with this header must be signed with, if there is one."""
        ...


class SharedSecret:
    """One secret for all tokens."""

    def __init__(self, secret: str) -> None:
        self._key = Key(secret, "HS256")

    async def find(self, header: dict[str, Any]) -> Key | None:
        """Whatever the header says."""
        return self._key


class Jwts:
    """The tokens of one issuer."""

    def __init__(self, issuer: str, audience: str, keys: Keys) -> None:
        self._issuer = issuer
        self._audience = audience
        self._keys = keys

    async def principal(self, token: str) -> Principal | None:
        """Whose it is; None if it is no JWT.

        Raises `Unauthorized`, `TokenEnded`, or `KeysUnavailable` when nobody says whether it
        is genuine.
        """
        if token.count(".") != 2 or len(token) > MAX_JWT:
            return None
        try:
            return self._principal(await self._claims(token))
        except jwt.ExpiredSignatureError as error:
            # The signature was looked at before.
            raise TokenEnded(EXPIRED) from error
        except jwt.PyJWTError as error:
            raise _bad(str(error)) from error

    async def _claims(self, token: str) -> dict[str, Any]:
        header = jwt.get_unverified_header(token)
        if "crit" in header:
            raise _bad("its header asks for extensions")
        key = await self._keys.find(header)
        if key is None:
            raise _bad(f"it is signed with a key that {self._issuer} does not name")
        return jwt.decode(
            token,
            key.key,
            algorithms=[key.algorithm],
            issuer=self._issuer,
            audience=self._audience,
            leeway=LEEWAY,
            options={"require": ["exp", "iss", "aud", "sub"]},
        )

    def _principal(self, claims: dict[str, Any]) -> Principal:
        owner = f"{self._issuer} {claims['sub']}"
        if not claims["sub"] or len(owner) > MAX_OWNER:
            raise _bad(f"`iss` and `sub` have at most {MAX_OWNER} characters, and are not empty")
        expires_at = from_unix(min(float(claims["exp"]) + LEEWAY, _LATEST))
        return Principal(owner, _scopes(claims), f"jwt:{owner}", expires_at)


def _scopes(claims: dict[str, Any]) -> frozenset[Scope]:
    """The known words of the claim: it may have some for others, too."""
    words = claims.get("scope", Scope.RUN.value)
    if not isinstance(words, str):
        raise _bad("`scope` is a text with blanks between its words")
    known = {scope.value for scope in Scope}
    return frozenset(Scope(word) for word in words.split() if word in known)


def _bad(why: str) -> Unauthorized:
    return Unauthorized(f"the JWT is not valid: {why[:MAX_REASON]}", "get another one")


@asynccontextmanager
async def open_jwts(issuer: Issuer) -> AsyncGenerator[Jwts]:
    """The tokens of this issuer, as long as the gateway runs."""
    if issuer.secret is not None:
        yield Jwts(issuer.issuer, issuer.audience, SharedSecret(issuer.secret))
        return
    assert issuer.jwks_url is not None
    keys = KeySet(fetch(issuer.jwks_url))
    try:
        yield Jwts(issuer.issuer, issuer.audience, keys)
    finally:
        await keys.close()
