"""The embedded gateway: one per user, on a Unix socket, there while it is needed.

Nothing ties it to whoever started it: a session of its own, a double fork, standard
streams to a file. Its lock is held for life, and the socket's file is touched only
while it is held, so starters can race as they like.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from sandcell_gateway import logs, paths
from sandcell_gateway.settings import GatewaySettings, SettingsError, load

if TYPE_CHECKING:
    from sandcell_gateway.server import Server

LOCK_WAIT = 20.0
"""Seconds to wait for an earlier daemon that is about to end."""
IDLE_POLL = 0.25
"""Seconds between two looks at whether anybody needs the daemon."""
FIRST_WAIT = 5.0
"""Seconds that a fresh daemon waits at least for whoever had it started."""
READY = b"1"
FAILED = b"0"
"""First byte on the ready pipe; after `FAILED` comes the reason as text."""

_SCRUBBED = (
    "JPY_",
    "JUPYTERHUB_",
    "SANDCELL_TOKEN",
    "SANDCELL_URL",
    "SANDCELL_SESSION",
    "SANDCELL_WEBHOOK_SECRET",
    "SANDCELL_JWT_SECRET",
)


class ReadyPipe:
    """Tells the starter, if there is one, how the start went."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    def tell(self, data: bytes) -> None:
        """Say it, once."""
        if self._descriptor is None:
            return
        # The starter may not have waited.
        with contextlib.suppress(BrokenPipeError):
            os.write(self._descriptor, data)
        os.close(self._descriptor)
        self._descriptor = None


def run(ready_descriptor: int | None) -> None:
    """Become the daemon; returns in the daemon when it ended, in the starter at once."""
    ready = ReadyPipe(ready_descriptor)
    try:
        settings = load(embedded=True)
        paths.prepare(settings)
    except SettingsError as error:
        ready.tell(FAILED + str(error).encode())
        raise
    if not _detach(settings.state_dir / paths.LOG, settings.log_bytes):
        return
    try:
        with paths.GatewayLock(settings) as lock:
            lock.acquire(LOCK_WAIT)
            _serve(settings, ready)
    except BaseException as error:
        ready.tell(FAILED + (str(error) or type(error).__name__).encode())
        raise


def _detach(log: Path, limit: int) -> bool:
    """Leave the starter's session and process tree. True in the process that stays."""
    if os.fork():
        return False
    os.setsid()
    # Without being a session's leader it can never get a terminal again.
    if os.fork():
        os._exit(0)
    os.chdir("/")
    os.umask(0o077)
    for name in list(os.environ):
        if name.startswith(_SCRUBBED):
            del os.environ[name]
    logs.rotate(log, limit)
    null = os.open(os.devnull, os.O_RDONLY)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    os.dup2(null, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(null)
    os.close(output)
    return True


def _serve(settings: GatewaySettings, ready: ReadyPipe) -> None:
    # The heavy imports, after the starter's process has been left. They make no garbage, and
    # looking for it takes a quarter of the start, for which somebody waits.
    gc.disable()
    import structlog
    import uvloop

    from sandcell_gateway.app import create_app
    from sandcell_gateway.auth import Authenticator
    from sandcell_gateway.engines import cgroups
    from sandcell_gateway.server import listen_unix, make_server

    logs.configure(settings.log_level)
    cgroups.delegate()
    log = structlog.get_logger(__name__)
    path = settings.runtime_dir / paths.SOCKET
    needs: list[Callable[[], bool]] = []
    app = create_app(settings, Authenticator(None), embedded=True, on_running=needs.append)

    def started() -> None:
        gc.freeze()
        gc.enable()
        log.info("embedded gateway", socket=str(path), pid=os.getpid())
        ready.tell(READY)

    async def live(server: Server) -> None:
        with listen_unix(path) as listener:
            async with asyncio.TaskGroup() as group:
                watch = group.create_task(_stop_when_idle(settings, server, needs, path))
                try:
                    await server.serve(sockets=[listener])
                finally:
                    path.unlink(missing_ok=True)
                    watch.cancel()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(live(make_server(app, started)))
    log.info("embedded gateway ended")


async def _stop_when_idle(
    settings: GatewaySettings, server: Server, needs: list[Callable[[], bool]], path: Path
) -> None:
    needed = time.monotonic()
    while True:
        await asyncio.sleep(IDLE_POLL)
        if not server.started or any(needed() for needed in needs):
            needed = time.monotonic()
        seen, patience = server.last_seen, settings.embedded_idle
        if seen is None:
            seen, patience = needed, max(patience, FIRST_WAIT)
        if time.monotonic() - max(needed, seen) >= patience:
            break
    # From here on a client finds no socket, and starts the next daemon, which waits for our lock.
    path.unlink(missing_ok=True)
    server.should_exit = True
