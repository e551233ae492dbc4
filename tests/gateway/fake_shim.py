"""A shim without a sandbox: `python -m tests.gateway.fake_shim SPEC --listen-fd N`.

Speaks the real shim's two protocols. What it does wrong is chosen by the session's
environment (`FAKE_SHIM`): `crash` exits at once, `slow` never becomes ready,
`fail` reports an error, `deaf` answers no control request but info.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

from websockets.asyncio.server import ServerConnection, unix_serve
from websockets.exceptions import ConnectionClosed

from sandcell_gateway.shim.spec import SANDBOX_FILE, ShimSpec
from sandcell_wire.frames import MAX_FRAME_BYTES


class FakeShim:
    """One session's."""

    def __init__(self, spec: ShimSpec) -> None:
        self.spec = spec
        self.mode = spec.env.get("FAKE_SHIM", "")
        self.sandbox = Path(spec.state_dir) / SANDBOX_FILE
        self.adopted = self.sandbox.exists()
        self.status = {"slow": "initializing", "fail": "error"}.get(self.mode, "idle")
        self.interpreter = spec.interpreter
        self.controls: set[ServerConnection] = set()
        self.closed = asyncio.Event()

    def event(self) -> dict[str, Any]:
        reason = {"code": "exit", "text": "it failed"} if self.status == "error" else None
        return {
            "event": "status",
            "status": self.status,
            "reason": reason,
            "interpreter": self.interpreter,
        }

    async def move(self, status: str) -> None:
        self.status = status
        for control in self.controls:
            await control.send(json.dumps(self.event()))

    async def handle(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        if connection.request.path == "/control":
            await self.control(connection)
        else:
            await self.channel(connection, connection.request.path)

    async def control(self, connection: ServerConnection) -> None:
        await connection.send(json.dumps(self.event()))
        self.controls.add(connection)
        try:
            async for text in connection:
                request = json.loads(text)
                answer = {"id": request["id"], "ok": True, "result": {}}
                if self.mode == "deaf" or "seconds" in request["args"]:
                    continue
                if request["op"] == "head":
                    result = {"seq": 0, "chain": "00" * 32, "holes": [], "due": False}
                    answer["result"] = result
                if request["op"] == "restart":
                    await self.move("initializing")
                    self.interpreter = request["args"].get("interpreter", self.interpreter)
                    await self.move("idle")
                elif request["op"] == "interrupt" and self.mode == "refuse":
                    answer = {"id": request["id"], "ok": False, "code": "conflict", "text": "no"}
                elif request["op"] == "close":
                    self.sandbox.unlink(missing_ok=True)
                    self.closed.set()
                await connection.send(json.dumps(answer))
        except ConnectionClosed:
            pass
        finally:
            self.controls.discard(connection)

    async def channel(self, connection: ServerConnection, path: str) -> None:
        """Says hello with the query it got, then echoes; some words do something."""
        hello = {"type": "hello", "path": path, "pid": os.getpid(), "adopted": self.adopted}
        await connection.send(json.dumps(hello))
        async for data in connection:
            if data == "die":
                os._exit(3)
            if data == "busy":
                await self.move("active")
            if data == "rest":
                await self.move("idle")
            if data == "bye":
                await connection.close(4001, "as asked")
                return
            await connection.send(json.dumps(dict(os.environ)) if data == "env" else data)


async def run(spec: ShimSpec, listener: socket.socket) -> None:
    shim = FakeShim(spec)
    if shim.mode == "crash":
        sys.exit("crashed as asked")
    shim.sandbox.write_text("{}")
    async with unix_serve(
        shim.handle, sock=listener, compression=None, max_size=MAX_FRAME_BYTES
    ) as server:
        await shim.closed.wait()
        server.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("spec", type=Path)
    parser.add_argument("--listen-fd", type=int, required=True)
    arguments = parser.parse_args()
    listener = socket.socket(fileno=arguments.listen_fd)
    listener.setblocking(False)
    asyncio.run(run(ShimSpec.read(arguments.spec), listener))


if __name__ == "__main__":
    main()
