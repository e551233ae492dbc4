"""A TCP proxy between client and gateway that does what networks do to lines."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Self, TypeVar

CHUNK = 64 * 1024
"""Most bytes taken at once."""
PATIENCE = 30.0
"""Seconds that the proxy's own thread may take to do what it is told."""
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER by which a close sends RST instead of FIN (socket(7))."""

T = TypeVar("T")


class Way(Enum):
    """A direction."""

    UP = "up"
    """From the client to the gateway."""
    DOWN = "down"


BOTH = (Way.UP, Way.DOWN)


@dataclass(eq=False)
class _Line:
    """One connection: the client's stream and the gateway's."""

    client: asyncio.StreamWriter
    gateway: asyncio.StreamWriter
    swallowed: set[Way] = field(default_factory=set[Way])

    def cut(self, *, reset: bool) -> None:
        """End both sides; what waits to be written is lost."""
        for writer in (self.client, self.gateway):
            sock: socket.socket = writer.get_extra_info("socket")
            if reset and not writer.transport.is_closing():
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            writer.transport.abort()


class Proxy:
    """Forwards connections to `target`, faithfully until told otherwise. A context manager.

    It has a thread of its own; its methods are called from any other, and what they
    ask for is done when they return.
    """

    def __init__(self) -> None:
        self.target: tuple[str, int] | None = None
        """Where the gateway listens; without one, connections are refused."""
        self.port = 0
        self.accepted = 0
        """Connections that came since the start."""
        self.cuts = 0
        """Connections that were cut."""
        self._lines: set[_Line] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._refusing = False
        self._swallow_new = False
        self._delay = dict.fromkeys(BOTH, 0.0)
        self._budget: dict[Way, int | None] = dict.fromkeys(BOTH, None)
        self._loop = asyncio.new_event_loop()
        self._open_gates: dict[Way, asyncio.Event] = {}
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)

    @property
    def url(self) -> str:
        """What a client calls the gateway."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        self._call(self._listen)
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE)

    def _call(self, act: Callable[[], T]) -> T:
        async def call() -> T:
            return act()

        return self._do(call())

    # -- faults ------------------------------------------------------------------------------

    def cut(self, *, reset: bool = True) -> None:
        """End all connections, with RST or else with FIN."""
        self._call(lambda: self._cut(reset=reset))

    @contextmanager
    def down(self, *, reset: bool = True) -> Iterator[None]:
        """No connection stands and none can be made."""

        def fall() -> None:
            self._refusing = True
            self._cut(reset=reset)

        self._call(fall)
        try:
            yield
        finally:
            self._refusing = False

    def swallow(self, *ways: Way) -> None:
        """Take the bytes of today's connections and give them to nobody: half-open lines."""

        def swallow() -> None:
            for line in self._lines:
                line.swallowed.update(ways or BOTH)

        self._call(swallow)

    @contextmanager
    def black_hole(self) -> Iterator[None]:
        """Every packet is swallowed, those of new connections too; nothing is ever refused."""
        self._swallow_new = True
        self.swallow()
        try:
            yield
        finally:
            self._swallow_new = False

    @contextmanager
    def stalled(self, *ways: Way) -> Iterator[None]:
        """Nothing is taken any more, so that the sender's buffers fill."""
        gates = [self._open_gates[way] for way in ways or BOTH]
        for gate in gates:
            self._call(gate.clear)
        try:
            yield
        finally:
            for gate in gates:
                self._call(gate.set)

    def delay(self, seconds: float, *ways: Way) -> None:
        """Hold every piece of up to `CHUNK` bytes for so long."""
        for way in ways or BOTH:
            self._delay[way] = seconds

    def cut_after(self, way: Way, count: int) -> None:
        """Let `count` more bytes pass, then end all connections, with FIN: they still arrive."""
        self._call(lambda: self._budget.update({way: count}))

    @contextmanager
    def cutting(self, intervals: Iterator[float]) -> Iterator[None]:
        """Cut everything again and again, after each of `intervals` (seconds)."""
        stop = threading.Event()

        def cut_often() -> None:
            for seconds in intervals:
                if stop.wait(seconds):
                    return
                self.cut()

        thread = threading.Thread(target=cut_often, name="cutting", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(PATIENCE)

    # -- in its own thread -------------------------------------------------------------------

    def _listen(self) -> None:
        for way in BOTH:
            self._open_gates[way] = asyncio.Event()
            self._open_gates[way].set()
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        self._spawn(self._serve(listener))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, listener: socket.socket) -> None:
        async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._spawn(self._forward(reader, writer))

        server = await asyncio.start_server(accepted, sock=listener)
        async with server:
            await server.serve_forever()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if self._refusing or self.target is None:
            writer.transport.abort()
            return
        try:
            from_gateway, to_gateway = await asyncio.open_connection(*self.target)
        except OSError:
            writer.transport.abort()
            return
        for each in (writer, to_gateway):
            each.transport.set_write_buffer_limits(0)  # drained is sent
        line = _Line(writer, to_gateway, set(BOTH) if self._swallow_new else set())
        self._lines.add(line)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(line, Way.UP, reader, to_gateway))
                group.create_task(self._pump(line, Way.DOWN, from_gateway, writer))
        finally:
            line.cut(reset=False)
            self._lines.discard(line)

    async def _pump(
        self, line: _Line, way: Way, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(CHUNK):
                await self._open_gates[way].wait()
                if self._delay[way]:
                    await asyncio.sleep(self._delay[way])
                if way not in line.swallowed and not writer.transport.is_closing():
                    await self._pass(way, data, writer)
        if way not in line.swallowed:
            writer.close()  # an end travels like any other packet

    async def _pass(self, way: Way, data: bytes, writer: asyncio.StreamWriter) -> None:
        budget = self._budget[way]
        if budget is None:
            writer.write(data)
            await writer.drain()
            return
        writer.write(data[:budget])
        self._budget[way] = budget = budget - len(data[:budget])
        await writer.drain()
        if budget == 0:
            self._budget[way] = None
            self._cut(reset=False)

    def _cut(self, *, reset: bool) -> None:
        for line in list(self._lines):
            self.cuts += 1
            line.cut(reset=reset)

    async def _close(self) -> None:
        self._cut(reset=True)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def random_intervals(seed: int, count: int, shortest: float, longest: float) -> Iterator[float]:
    """So many waits in seconds, always the same for one seed."""
    generator = random.Random(seed)
    return iter([generator.uniform(shortest, longest) for _ in range(count)])
