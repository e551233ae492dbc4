"""Files over a WebSocket on the shim's socket, one operation each (docs/protocol.md).

The gateway says what it wants as JSON, `{"op", "path", …}`, and gets `{"ok": true, "result"}` or
`{"ok": false, "code", "text"}`. Content passes in binary messages, at the reader's pace.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from sandcell_gateway.engines import disk
from sandcell_gateway.shim.spec import ShimSpec
from sandcell_gateway.shim.workspace import STAGING, Draft, Entry, FileRefused, Workspace
from sandcell_wire.codes import Code

log = logging.getLogger(__name__)

PIECE = 1 << 20
"""Most bytes of one message with content."""

Request = dict[str, Any]


class Files:
    """Serves the files of one session."""

    def __init__(self, spec: ShimSpec) -> None:
        state = Path(spec.state_dir)
        self._places = state / "workspace", state / "env"
        self._limit = spec.limits.disk_bytes
        self._workspace = Workspace(self._places[0], state / STAGING, spec.uid)
        self._workspace.clean()

    async def serve(self, connection: ServerConnection) -> None:
        """Do what is asked for. Ends with the connection, whatever happens."""
        await _Operation(connection, self._workspace, self._free_space).serve()

    async def _free_space(self) -> int | None:
        """How many bytes may still be written; None: any."""
        if not self._limit:
            return None
        return self._limit - (await asyncio.to_thread(disk.measure, *self._places)).bytes


class _Operation:
    """One operation on one connection."""

    def __init__(
        self,
        connection: ServerConnection,
        workspace: Workspace,
        free_space: Callable[[], Awaitable[int | None]],
    ) -> None:
        self._connection = connection
        self._workspace = workspace
        self._free_space = free_space

    async def serve(self) -> None:
        try:
            request: Request = json.loads(await self._connection.recv())
            await self._named(str(request.get("op")))(str(request["path"]), request)
        except ConnectionClosed:
            return
        except FileRefused as error:
            await self._refuse(error.code, str(error))
        except Exception as error:
            log.exception("a file operation failed")
            await self._refuse(Code.INTERNAL_ERROR, repr(error))

    def _named(self, op: str) -> Callable[[str, Request], Awaitable[None]]:
        operations: dict[str, Callable[[str, Request], Awaitable[None]]] = {
            "list": self._list,
            "read": self._read,
            "write": self._write,
            "make_directory": self._make_directory,
            "remove": self._remove,
        }
        if op not in operations:
            raise FileRefused(Code.VALIDATION_ERROR, f"expected one of {', '.join(operations)}")
        return operations[op]

    async def _say(self, **result: object) -> None:
        await self._send({"ok": True, "result": result})

    async def _refuse(self, code: Code, text: str) -> None:
        await self._send({"ok": False, "code": code.value, "text": text})

    async def _send(self, answer: dict[str, object]) -> None:
        with contextlib.suppress(ConnectionClosed):
            await self._connection.send(json.dumps(answer))

    async def _list(self, path: str, request: Request) -> None:
        recursive, limit = bool(request.get("recursive")), int(request["limit"])
        found, more = await asyncio.to_thread(
            self._workspace.list, path, recursive=recursive, limit=limit
        )
        await self._say(files=[entry.as_json() for entry in found], truncated=more)

    async def _make_directory(self, path: str, request: Request) -> None:
        await self._done(await asyncio.to_thread(self._workspace.make_directory, path))

    async def _remove(self, path: str, request: Request) -> None:
        recursive = bool(request.get("recursive"))
        await self._done(await asyncio.to_thread(self._workspace.remove, path, recursive=recursive))

    async def _done(self, entry: Entry) -> None:
        await self._say(file=entry.as_json())

    async def _read(self, path: str, request: Request) -> None:
        """Say what it is; then content, of the part that the gateway chooses."""
        with self._workspace.reading(path) as (descriptor, entry):
            await self._done(entry)
            part: Request = json.loads(await self._connection.recv())
            at, end = int(part["first"]), int(part["first"]) + int(part["count"])
            while at < end:
                data = await asyncio.to_thread(os.pread, descriptor, min(PIECE, end - at), at)
                if not data:
                    raise FileRefused(Code.CONFLICT, f"{path}: it has become shorter meanwhile")
                await self._connection.send(data)
                at += len(data)

    async def _write(self, path: str, request: Request) -> None:
        """Take content until a text says that it is whole."""
        free = await self._free_space()
        _check_room(path, int(request.get("size") or 0), free)
        with self._workspace.writing(path) as draft:
            await self._say()
            await self._fill(draft, path, free)
            await self._done(await asyncio.to_thread(draft.keep))

    async def _fill(self, draft: Draft, path: str, free: int | None) -> None:
        async for data in self._connection:
            if isinstance(data, str):
                return
            _check_room(path, draft.size + len(data), free)
            await asyncio.to_thread(draft.write, data)
        raise ConnectionClosed(None, None)  # before it was whole


def _check_room(path: str, size: int, free: int | None) -> None:
    if free is not None and size > free:
        raise FileRefused(
            Code.QUOTA_EXCEEDED,
            f"{path}: only {max(free, 0)} bytes are left of the session's disk limit",
        )
