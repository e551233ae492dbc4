"""Noticing that the line to the session is dead although nobody closed it.

A laptop that slept, a firewall that forgot the connection: packets vanish, and TCP alone
would wait a quarter of an hour. Any byte shows that the other side lives, not only the
answer to a ping, which may have to wait behind a large output on a slow line.
"""

from __future__ import annotations

import asyncio
import contextlib

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

SILENT_ROUNDS = 3
"""Rounds without a sign of life after which the line counts as dead."""


class HeardConnection(ClientConnection):
    """A connection that notes when anything arrives."""

    heard = False
    """Whether any byte came since this was last set to False."""

    def data_received(self, data: bytes) -> None:
        self.heard = True
        super().data_received(data)


async def watch(connection: HeardConnection, interval: float) -> None:
    """Abort the connection when it is dead, within three to four times `interval` seconds.

    Rounds are counted, not seconds: a process that was stopped for a while must first
    have the chance to read what came meanwhile.
    """
    silent, unsent = 0, 0
    while silent < SILENT_ROUNDS:
        await _ask(connection, interval)
        transport = connection.transport
        before, unsent = unsent, transport.get_write_buffer_size()
        # While we read nothing, nothing can be heard; what goes out shows life, too.
        if connection.heard or not transport.is_reading() or unsent < before:
            silent = 0
        else:
            silent += 1
        connection.heard = False
    connection.transport.abort()


async def _ask(connection: HeardConnection, interval: float) -> None:
    """Ping, and wait for the round's end."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(interval):
            with contextlib.suppress(ConnectionClosed):
                await connection.ping()
            await asyncio.Event().wait()
