"""`/v1/tokens`: make, list and revoke tokens."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Request

from sandcell_gateway.access.guard import lease_of
from sandcell_gateway.access.tokens import TokenService
from sandcell_gateway.openapi import problems_of
from sandcell_gateway.routes.pages import Limit, Offset
from sandcell_gateway.routes.sessions import Caller
from sandcell_wire.codes import Code
from sandcell_wire.tokens import NewToken, TokenCreate, TokenList, TokenModel

router = APIRouter(prefix="/v1/tokens", tags=["tokens"])


def tokens_of(request: Request) -> TokenService:
    """The dependency that finds the service."""
    service: TokenService = request.app.state.tokens
    return service


Service = Annotated[TokenService, Depends(tokens_of)]


@router.post("", responses=problems_of(Code.QUOTA_EXCEEDED))
async def create_token(body: TokenCreate, service: Service, caller: Caller) -> NewToken:
    """Make a token; its secret is in this answer and nowhere else."""
    return await service.create(caller, body)


@router.get("")
async def list_tokens(
    service: Service, caller: Caller, limit: Limit = 100, offset: Offset = 0
) -> TokenList:
    """Your tokens, the newest first, also those that have ended in the last 90 days."""
    return await service.page(caller, limit, offset)


@router.delete("/{token_id}", responses=problems_of(Code.NOT_FOUND))
async def revoke_token(
    token_id: UUID, service: Service, caller: Caller, request: Request
) -> TokenModel:
    """Revoke it: nothing can be done with it any more, and what is open with it ends."""
    return await service.revoke(caller, str(token_id), lease_of(request))
