"""`python -m sandcell_gateway.shim SPEC --listen-fd N`: run one session until it is closed."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import signal
import socket
from pathlib import Path

from sandcell_gateway.journal.journal import Journal
from sandcell_gateway.shim.server import ShimServer
from sandcell_gateway.shim.session import ShimSession
from sandcell_gateway.shim.spec import ShimSpec

CLOSE_TIMEOUT = 5.0
"""Seconds for clients to take their last messages when the session closes."""


async def serve(spec: ShimSpec, listener: socket.socket) -> None:
    """Until the session is closed."""
    directory = Path(spec.state_dir) / "journal"
    with Journal(directory, max_bytes=spec.journal_bytes) as journal:
        session = ShimSession(spec, journal)
        server = await ShimServer(session).listen(listener)
        try:
            await session.run()
        finally:
            server.close()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_TIMEOUT):
                    await server.wait_closed()


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(prog="sandcell_gateway.shim", description=__doc__)
    parser.add_argument("spec", type=Path)
    parser.add_argument("--listen-fd", type=int, required=True)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    # The gateway ends a session by request; a signal to its process group is not one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    listener = socket.socket(fileno=arguments.listen_fd)
    listener.setblocking(False)
    asyncio.run(serve(ShimSpec.read(arguments.spec), listener))


if __name__ == "__main__":
    main()
