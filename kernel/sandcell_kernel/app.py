"""Wiring of the local kernel: sockets first, everything slow afterwards.

The ports are bound and kernel_info is answered before the SDK is even imported.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sandcell_kernel.cells import Line
from sandcell_kernel.kernel_info import KernelInfo, cache_file
from sandcell_kernel.ports import Connection, KernelPorts
from sandcell_kernel.router import Router
from sandcell_wire.messages import Message

if TYPE_CHECKING:
    from sandcell_kernel.link import Link

INTERRUPT_HOLD = 0.15
"""Seconds an interrupt waits for a shutdown that makes it moot (only when detaching)."""
PARENT_POLL = 1.0
"""Seconds between two looks at whether the parent process lives."""

log = logging.getLogger(__name__)


class KernelApp:
    """One local kernel; also the router's ports."""

    def __init__(self, connection_file: Path) -> None:
        self._connection_file = connection_file
        environ = os.environ
        from platformdirs import user_cache_path, user_config_path

        named = environ.get("SANDCELL_URL") or environ.get("SANDCELL_PROFILE")
        config = environ.get("SANDCELL_CONFIG") or user_config_path("sandcell") / "config.toml"
        info = KernelInfo.load(
            cache_file(user_cache_path("sandcell"), named or sys.prefix),
            own_image=not named and not Path(config).exists(),  # it may name another gateway
        )
        self._router = Router(self, uuid.uuid4().hex, info)
        self._ports = KernelPorts(
            Connection.read(connection_file),
            lambda: self._router.interpreter,
            self._from_front,
            lambda what: log.warning("refused: %s", what),
        )
        self._link: Link | None = None
        self._link_tried = asyncio.Event()
        """There is a link, or its settings cannot be used and the router knows why."""
        self._wanted = asyncio.Event()
        self._group: asyncio.TaskGroup | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._lines: set[asyncio.Task[None]] = set()
        self._stop: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """Until a front end or a signal ends it."""
        loop = asyncio.get_running_loop()
        # Front ends interrupt by message; Ctrl-C in a terminal must not end the kernel.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        loop.add_signal_handler(signal.SIGTERM, self._end, "terminated")
        self._router.starting()
        async with asyncio.TaskGroup() as group:
            self._group = group
            self._tasks |= {
                group.create_task(self._run_link()),
                group.create_task(self._watch_parent()),
            }
            state = await self._stop
            for task in self._tasks:
                task.cancel()
        await self._leave(state)
        self._ports.close()

    async def _run_link(self) -> None:
        # Importing takes longer than binding; meanwhile front ends get their kernel_info.
        while True:
            try:
                self._link = await asyncio.to_thread(self._make_link)
                break
            except ValueError as error:  # a setting that cannot be used
                self._router.failed(str(error))
            self._link_tried.set()
            await self._wanted.wait()
            self._wanted.clear()
        self._link_tried.set()
        await self._link.run()

    def _make_link(self) -> Link:
        from sandcell.settings import ClientSettings
        from sandcell_kernel.claims import Claims, Identity
        from sandcell_kernel.link import Link

        settings = ClientSettings.load()
        identity = Identity.of_this_process(self._connection_file, os.environ)
        claims = Claims(settings.runtime_dir / "kernels")
        return Link(self._router, self._ports, settings, identity, claims)

    async def _watch_parent(self) -> None:
        parent = os.getppid()
        while True:
            await asyncio.sleep(PARENT_POLL)
            if os.getppid() != parent:
                # Its notebook may be opened again in a new server.
                self._end("closing")
            if self._link is not None:
                self._link.beat()

    async def _leave(self, state: str) -> None:
        if self._link is not None:
            from sandcell_kernel.claims import State

            await self._link.leave(State(state))

    def _end(self, state: str) -> None:
        if not self._stop.done():
            self._stop.set_result(state)

    def _from_front(self, identities: list[bytes], message: Message) -> None:
        self._router.from_front(identities, message)
        if self._router.holds_interrupt:
            loop = asyncio.get_running_loop()
            loop.call_later(INTERRUPT_HOLD, self._router.release_interrupt)

    # -- Ports of the router -----------------------------------------------------------------

    def to_front(self, channel: str, identities: Sequence[bytes], message: Message) -> None:
        """Send to one front end."""
        self._ports.to_front(channel, identities, message)

    def publish(self, message: Message) -> None:
        """Send to all front ends."""
        self._ports.publish(message)

    def to_session(self, seen: int, message: Message) -> None:
        """Send to the session."""
        assert self._link is not None
        self._link.send(seen, message)

    def want_session(self) -> None:
        """Try again to get a session."""
        if self._link is None:
            self._wanted.set()
        else:
            self._link.want()

    def run_lines(self, msg_id: str, lines: Sequence[Line]) -> None:
        """Run a cell's `%sandbox` lines."""
        assert self._group is not None
        task = self._group.create_task(self._run_lines(msg_id, lines))
        for tasks in (self._tasks, self._lines):
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    async def _linked(self) -> Link:
        """The link, once there is one. Raises `ValueError` when its settings cannot be used."""
        await self._link_tried.wait()
        if self._link is None:
            raise ValueError(self._router.why)
        return self._link

    async def _run_lines(self, msg_id: str, lines: Sequence[Line]) -> None:
        error: tuple[str, str] | None = None
        from sandcell_kernel.lines import LineError, run

        try:
            async for msg_type, content in run(lines, await self._linked()):
                self._router.lines_output(msg_id, msg_type, content)
        except asyncio.CancelledError:
            error = ("KeyboardInterrupt", "interrupted")
        except LineError as failure:
            error = (failure.name, str(failure))
        except ValueError as mistake:
            error = ("UsageError", str(mistake))
        self._router.lines_done(msg_id, error)

    def cancel_lines(self) -> None:
        """End the `%sandbox` lines that run."""
        for task in self._lines:
            task.cancel()

    def shutdown(self, restart: bool) -> None:
        """A front end ends this kernel."""
        self._end("restarting" if restart else "closing")


async def serve(connection_file: Path) -> None:
    """Run one kernel."""
    await KernelApp(connection_file).run()


def main(arguments: Sequence[str] | None = None) -> None:
    """The program that the kernelspec starts."""
    parser = argparse.ArgumentParser(prog="sandcell_kernel", description="The sandcell kernel.")
    parser.add_argument("-f", "--connection-file", type=Path, required=True)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    with contextlib.suppress(KeyboardInterrupt):
        try:
            asyncio.run(serve(options.connection_file))
        except (OSError, ValueError) as error:
            sys.exit(f"sandcell kernel: {error}")
