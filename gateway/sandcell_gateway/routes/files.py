"""`/v1/sessions/{id}/files`: the files of a session's workspace."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from email.utils import format_datetime
from typing import Annotated
from urllib.parse import unquote_to_bytes
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Query, Request
from pydantic import WithJsonSchema
from starlette.convertors import Convertor, register_url_convertor
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from sandcell_gateway.errors import BadRequest, RangeNotSatisfiable
from sandcell_gateway.openapi import FILE, problems_of
from sandcell_gateway.routes.sessions import Caller
from sandcell_gateway.sessions.files import FileService, Reading
from sandcell_wire.codes import Code
from sandcell_wire.models import FileList, FileModel
from sandcell_wire.paths import MAX_NAME, MAX_PATH

router = APIRouter(prefix="/v1/sessions/{session_id}", tags=["files"])

MAX_LIMIT = 1000
"""Most entries of one listing."""
BINARY = "application/octet-stream"

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


def files_of(request: Request) -> FileService:
    """The dependency that finds the service."""
    return FileService(request.app.state.service)


class AnyText(Convertor[str]):
    """Whatever follows. Starlette's `path` ends at a line feed, which a file's name may hold."""

    regex = "(?s:.*)"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("any", AnyText())

SentPath = Annotated[
    str,
    WithJsonSchema(
        {
            "type": "string",
            "minLength": 1,
            "maxLength": MAX_PATH,
            "pattern": r"^[^/\x00][^\x00]*$",
            "description": "Below the session's workspace; `..` is refused, and so is a part of "
            f"more than {MAX_NAME} bytes.",
        }
    ),
]


def path_of(request: Request, path: SentPath) -> str:
    """The dependency that finds the file's path, as it was sent. Raises `BadRequest`."""
    raw: bytes = request.scope.get("raw_path", b"")
    try:
        unquote_to_bytes(raw).decode()
    except UnicodeDecodeError as error:
        raise BadRequest("path: it is not valid UTF-8") from error
    return path


Service = Annotated[FileService, Depends(files_of)]
FilePath = Annotated[str, Depends(path_of)]


@dataclass(frozen=True)
class Part:
    """Which bytes of a file are wanted."""

    first: int
    count: int
    is_all: bool


def part_of(header: str | None, size: int) -> Part:
    """What a `Range` asks for (RFC 9110, section 14.2); everything if it is none we know.

    Raises `RangeNotSatisfiable`.
    """
    found = _RANGE.fullmatch(header.strip()) if header else None
    if found is None or found[0] == "bytes=-":
        return Part(0, size, is_all=True)
    if not found[1]:
        count = min(int(found[2]), size)
        first, last = size - count, size - 1
    else:
        first, last = int(found[1]), min(int(found[2] or size), size - 1)
    if first >= size or last < first:
        raise RangeNotSatisfiable(size)
    return Part(first, last - first + 1, is_all=False)


@router.get("/files", responses=problems_of(*FILE))
async def list_files(
    session_id: UUID,
    service: Service,
    caller: Caller,
    path: Annotated[str, Query()] = "",
    recursive: bool = False,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = MAX_LIMIT,
) -> FileList:
    """What is in a directory of the workspace, by name; links are shown, and not followed."""
    return await service.list(caller, str(session_id), path, recursive=recursive, limit=limit)


@router.get(
    "/files/{path:any}",
    response_class=Response,
    responses={
        200: {"content": {BINARY: {}}},
        206: {"content": {BINARY: {}}, "description": "The part that `Range` asks for"},
        304: {"description": "It is still what `If-None-Match` names"},
        **problems_of(*FILE, Code.RANGE_NOT_SATISFIABLE),
    },
)
async def read_file(
    session_id: UUID,
    path: FilePath,
    service: Service,
    caller: Caller,
    range: Annotated[str | None, Header(alias="Range")] = None,
    if_none_match: Annotated[str | None, Header(alias="If-None-Match")] = None,
    if_range: Annotated[str | None, Header(alias="If-Range")] = None,
) -> Response:
    """A file's content, as it is; with `Range` a part of it."""
    stack = AsyncExitStack()
    try:
        reading = await stack.enter_async_context(service.reading(caller, str(session_id), path))
        return _answer(reading, stack, range, if_none_match, if_range)
    except BaseException:
        await stack.aclose()
        raise


def _answer(
    reading: Reading,
    stack: AsyncExitStack,
    wanted: str | None,
    if_none_match: str | None,
    if_range: str | None,
) -> Response:
    model = reading.model
    etag = f'"{model.etag}"'
    headers = {
        "ETag": etag,
        "Accept-Ranges": "bytes",
        "Last-Modified": format_datetime(model.modified_at, usegmt=True),
        # What a sandbox has made must not act as a page of the gateway's.
        "Content-Disposition": "attachment",
        "X-Content-Type-Options": "nosniff",
    }
    if if_none_match is not None and (if_none_match.strip() == "*" or etag in if_none_match):
        return OpenResponse(reading.content(0, 0), 304, headers, stack)
    part = part_of(None if if_range not in (None, etag) else wanted, model.size)
    if not part.is_all:
        last = part.first + part.count - 1
        headers["Content-Range"] = f"bytes {part.first}-{last}/{model.size}"
    headers["Content-Length"] = str(part.count)
    content = reading.content(part.first, part.count)
    return OpenResponse(content, 200 if part.is_all else 206, headers, stack)


class OpenResponse(StreamingResponse):
    """A stream from something that is open as long as it is sent, however that ends."""

    def __init__(
        self,
        content: AsyncGenerator[bytes],
        status: int,
        headers: Mapping[str, str],
        stack: AsyncExitStack,
    ) -> None:
        super().__init__(content, status, headers, BINARY)
        self._stack = stack

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it, and close."""
        async with self._stack:
            await super().__call__(scope, receive, send)


@router.put(
    "/files/{path:any}",
    openapi_extra={
        "requestBody": {"content": {BINARY: {"schema": {"type": "string", "format": "binary"}}}}
    },
    responses=problems_of(*FILE, Code.QUOTA_EXCEEDED),
)
async def write_file(
    session_id: UUID,
    path: FilePath,
    service: Service,
    caller: Caller,
    request: Request,
    content_length: Annotated[int | None, Header(ge=0, include_in_schema=False)] = None,
) -> FileModel:
    """Write a file; it appears whole or not at all, and the directories above it are made.

    A path that ends in `/` makes a directory.
    """
    if path.endswith("/"):
        return await service.make_directory(caller, str(session_id), path)
    return await service.write(caller, str(session_id), path, request.stream(), content_length)


@router.delete("/files/{path:any}", responses=problems_of(*FILE))
async def delete_file(
    session_id: UUID,
    path: FilePath,
    service: Service,
    caller: Caller,
    recursive: bool = False,
) -> FileModel:
    """Delete a file or a link, or a directory: an empty one, or with `recursive` any."""
    return await service.remove(caller, str(session_id), path, recursive=recursive)
