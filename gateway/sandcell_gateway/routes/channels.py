"""`WS /v1/sessions/{id}/channels`: a client's way to its session's shim."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, WebSocket

from sandcell_gateway.access.guard import lease_of
from sandcell_gateway.auth import current_principal
from sandcell_gateway.errors import BadRequest, SessionEnded, SessionNotFound, TokenEnded
from sandcell_gateway.server import SPLICE
from sandcell_gateway.sessions.service import SessionService
from sandcell_wire.control import Close
from sandcell_wire.frames import SUBPROTOCOL
from sandcell_wire.words import AFTER, CLIENT

router = APIRouter()


@router.websocket("/v1/sessions/{session_id}/channels")
async def channels(
    websocket: WebSocket,
    session_id: UUID,
    client: Annotated[str, Query(pattern=CLIENT)],
    after: Annotated[str | None, Query(pattern=AFTER)] = None,
) -> None:
    """Join the client to the shim until either side ends.

    `after` is the last number that the client has, or `missed` for what nobody has seen;
    without it the channel begins with what comes next.

    Without a valid credential the handshake is refused, and when it ends the channel is
    closed with 4401; a session that is not there or final closes with 4404 and the
    problem's code, one that comes back with 1012.
    """
    principal = current_principal(websocket)
    service: SessionService = websocket.app.state.service
    if SUBPROTOCOL not in websocket.scope["subprotocols"]:
        raise BadRequest(f"expected the subprotocol {SUBPROTOCOL}")
    query = {"client": client} if after is None else {"client": client, "after": after}
    try:
        async with service.attach(principal, str(session_id), query) as upstream:
            await websocket.accept(subprotocol=SUBPROTOCOL)
            splice: Any = websocket.scope["extensions"][SPLICE]
            splice(upstream)
            try:
                async with lease_of(websocket).held(armed=True):
                    await upstream.ended.wait()
            except TokenEnded as error:
                upstream.end_client(Close.UNAUTHORIZED, error.code.value)
                return
            if service.is_final(str(session_id)):
                upstream.end_client(Close.FINAL, "session_expired")
            else:
                upstream.end_client(Close.RESTART, "host_disconnected")
    except (SessionNotFound, SessionEnded) as error:
        await websocket.accept(subprotocol=SUBPROTOCOL)
        await websocket.close(Close.FINAL, error.code.value)
