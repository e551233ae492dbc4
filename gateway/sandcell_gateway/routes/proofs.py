"""`/v1/sessions/{id}/proofs`, `/history.tar` and `/v1/proof-keys`: what is signed, to take away."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response, StreamingResponse

from sandcell_gateway.openapi import LIVE_SESSION, SESSION, problems_of
from sandcell_gateway.routes.pages import Limit, Offset
from sandcell_gateway.routes.sessions import Caller
from sandcell_gateway.sessions.proofs import ProofService
from sandcell_gateway.sessions.service import Page
from sandcell_wire.models import ProofKeys, ProofList, ProofModel

router = APIRouter(prefix="/v1", tags=["proofs"])

TAR = "application/x-tar"


def proofs_of(request: Request) -> ProofService:
    """The dependency that finds the service."""
    service: ProofService = request.app.state.proofs
    return service


Service = Annotated[ProofService, Depends(proofs_of)]


@router.post("/sessions/{session_id}/proofs", responses=problems_of(*LIVE_SESSION))
async def create_proof(session_id: UUID, service: Service, caller: Caller) -> ProofModel:
    """Sign the session's journal as it is now."""
    return await service.prove(caller, str(session_id))


@router.get("/sessions/{session_id}/proofs", responses=problems_of(*SESSION))
async def list_proofs(
    session_id: UUID,
    service: Service,
    caller: Caller,
    limit: Limit = 100,
    offset: Offset = 0,
) -> ProofList:
    """What was signed of it, the newest first."""
    return await service.page(caller, str(session_id), Page(limit, offset))


@router.get(
    "/sessions/{session_id}/history.tar",
    response_class=Response,
    responses={200: {"content": {TAR: {}}}, **problems_of(*LIVE_SESSION)},
)
async def export_history(session_id: UUID, service: Service, caller: Caller) -> StreamingResponse:
    """The journal with its proofs, to be verified anywhere: signed to its end, then streamed."""
    pieces = await service.export(caller, str(session_id))
    name = f'attachment; filename="{session_id}.tar"'
    return StreamingResponse(pieces, media_type=TAR, headers={"Content-Disposition": name})


@router.get("/proof-keys")
async def list_proof_keys(service: Service, caller: Caller) -> ProofKeys:
    """The public keys that this gateway's proofs are checked with, former ones too."""
    return service.keys()
