"""Files of sessions: each operation is a connection to the shim (docs/protocol.md)."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from sandcell_gateway.auth import Principal
from sandcell_gateway.clock import from_unix
from sandcell_gateway.sessions.control import open_files, result_of
from sandcell_gateway.sessions.service import SessionService
from sandcell_wire.models import FileList, FileModel

WHOLE = "whole"
"""Text that ends an upload."""


class Reading:
    """An open file."""

    def __init__(self, connection: ClientConnection, model: FileModel) -> None:
        self._connection = connection
        self.model = model

    async def content(self, first: int, count: int) -> AsyncGenerator[bytes]:
        """So many bytes from there on. Raises `ShimRefused`, `ShimUnreachable`."""
        await self._connection.send(json.dumps({"first": first, "count": count}))
        while count:
            data = await self._connection.recv()
            if isinstance(data, str):
                result_of(data)
            else:
                count -= len(data)
                yield data


class FileService:
    """Files of the sessions that a `SessionService` keeps."""

    def __init__(self, sessions: SessionService) -> None:
        self._sessions = sessions

    @asynccontextmanager
    async def _asked(
        self, principal: Principal, session_id: str, op: str, path: str, **args: object
    ) -> AsyncGenerator[tuple[ClientConnection, dict[str, Any]]]:
        """A connection on which an operation was asked for, and the first answer."""
        keeper = await self._sessions.keeper(principal, session_id)
        async with open_files(keeper.socket) as connection:
            await connection.send(json.dumps({"op": op, "path": path, **args}))
            yield connection, result_of(await connection.recv())

    async def list(
        self, principal: Principal, session_id: str, path: str, *, recursive: bool, limit: int
    ) -> FileList:
        """What is in a directory. Raises `SessionNotFound`, `SessionEnded` or `ShimRefused`."""
        wanted = {"recursive": recursive, "limit": limit}
        async with self._asked(principal, session_id, "list", path, **wanted) as (_, answer):
            files = [_model(found) for found in answer["files"]]
            return FileList(files=files, truncated=answer["truncated"])

    @asynccontextmanager
    async def reading(
        self, principal: Principal, session_id: str, path: str
    ) -> AsyncGenerator[Reading]:
        """An open file. Raises as `list`."""
        async with self._asked(principal, session_id, "read", path) as (connection, answer):
            yield Reading(connection, _model(answer["file"]))

    async def write(
        self,
        principal: Principal,
        session_id: str,
        path: str,
        content: AsyncIterator[bytes],
        size: int | None,
    ) -> FileModel:
        """Put a file in its place, whole or not at all. Raises as `list`."""
        async with self._asked(principal, session_id, "write", path, size=size) as (connection, _):
            try:
                async for piece in content:
                    if piece:
                        await connection.send(piece)
                await connection.send(WHOLE)
            except ConnectionClosed:
                pass  # it has said why
            return _model(result_of(await connection.recv())["file"])

    async def make_directory(self, principal: Principal, session_id: str, path: str) -> FileModel:
        """Make it, and those above it. Raises as `list`."""
        async with self._asked(principal, session_id, "make_directory", path) as (_, answer):
            return _model(answer["file"])

    async def remove(
        self, principal: Principal, session_id: str, path: str, *, recursive: bool
    ) -> FileModel:
        """Delete it; what it was. Raises as `list`."""
        wanted = {"recursive": recursive}
        async with self._asked(principal, session_id, "remove", path, **wanted) as (_, answer):
            return _model(answer["file"])


def _model(found: dict[str, Any]) -> FileModel:
    return FileModel.model_validate({**found, "modified_at": from_unix(found["modified"])})
