"""The kinds of tokens that a running gateway takes, wired."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

from sandcell_gateway.access.issuer import Issuer
from sandcell_gateway.access.leases import Leases
from sandcell_gateway.access.tokens import TokenService
from sandcell_gateway.auth import Authenticator
from sandcell_gateway.store.database import Database
from sandcell_gateway.store.tokens import TokenStore


@asynccontextmanager
async def open_access(
    database: Database, issuer: Issuer | None, authenticator: Authenticator, leases: Leases
) -> AsyncGenerator[TokenService]:
    """Teach the authenticator stored tokens, and the issuer's JWTs if there is one."""
    async with AsyncExitStack() as stack:
        tokens = TokenService(TokenStore(database), leases)
        authenticator.add(tokens.principal)
        if issuer is not None:
            # Only who uses JWTs waits for what they need.
            from sandcell_gateway.access.jwts import open_jwts

            jwts = await stack.enter_async_context(open_jwts(issuer))
            authenticator.add(jwts.principal)
        yield tokens
