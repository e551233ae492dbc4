"""The tokens of a gateway."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from uuid import UUID

from sandcell import _requests
from sandcell._async.transport import AsyncTransport
from sandcell_wire.tokens import NewToken, TokenList, TokenModel


class AsyncTokens:
    """The owner's tokens; all owners' for who runs the gateway.

    All of it needs a token with the scope `admin`, and raises `ForbiddenError` for others.
    """

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def create(
        self,
        name: str,
        *,
        scopes: Iterable[str] = ("run",),
        owner: str | None = None,
        expires_in: float | None = None,
    ) -> NewToken:
        """Make one. Its `token` is the secret, which cannot be had again.

        `scopes` are of `read`, `run` and `admin`. It is for the caller's sessions; only who
        runs the gateway names another `owner`. It is valid for `expires_in` seconds, or
        until it is revoked. When the answer is lost, look for it in the list, and revoke it.
        """
        request = _requests.create_token(name, scopes, owner, expires_in)
        return await self._transport.send(NewToken, request)

    async def list(self, *, limit: int = 100, offset: int = 0) -> Sequence[TokenModel]:
        """A page of them, the newest first, without their secrets; also those that ended lately."""
        found = await self._transport.send(TokenList, _requests.list_tokens(limit, offset))
        return found.tokens

    async def revoke(self, id: UUID | str) -> TokenModel:
        """End it at once: requests with it fail, what is open with it is cut off.

        Harmless when it has ended. Raises `NotFoundError`.
        """
        return await self._transport.send(TokenModel, _requests.revoke_token(id))
