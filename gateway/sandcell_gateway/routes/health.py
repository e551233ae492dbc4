"""Is the gateway there?"""

from __future__ import annotations

from fastapi import APIRouter

from sandcell_gateway.openapi import OPEN
from sandcell_gateway.sessions.stats import VERSION
from sandcell_wire.models import Health

router = APIRouter(tags=["gateway"])


@router.get("/health", openapi_extra=OPEN)
async def get_health() -> Health:
    """Needs no token."""
    return Health(status="ok", version=VERSION)
