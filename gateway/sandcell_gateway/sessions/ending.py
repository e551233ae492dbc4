"""The last resort: the gateway ends a session's sandbox itself, when no shim does."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from sandcell_gateway.engines import registry
from sandcell_gateway.engines.base import SandboxGone
from sandcell_gateway.images import Image
from sandcell_gateway.sessions.places import Places
from sandcell_gateway.shim.spec import ShimSpec


async def end_sandbox(places: Places) -> None:
    """End every process of the sandbox that a session's shim has noted. Harmless without one.

    No shim may run meanwhile. Raises `EngineError`, or `TimeoutError` when the sandbox
    did not end; it is still noted then, so this can be tried again.
    """
    if not places.sandbox.exists() or not places.spec.exists():
        return
    spec = ShimSpec.read(places.spec)
    # To end a sandbox takes no image, and its own may have been removed meanwhile.
    image = await asyncio.to_thread(Image.here)
    try:
        sandbox = await registry.load(spec.engine).adopt(spec.sandbox(image), _noted(places))
    except SandboxGone:
        pass
    else:
        try:
            await sandbox.kill()
        finally:
            await sandbox.aclose()
    places.sandbox.unlink(missing_ok=True)


def _noted(places: Places) -> dict[str, Any]:
    """The engine's state; empty, which stands for a sandbox that is gone, when there is none."""
    try:
        return dict(json.loads(places.sandbox.read_text())["sandbox"])
    except (ValueError, KeyError, TypeError):
        return {}
