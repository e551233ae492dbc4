# Generated from _async by scripts/unasync.py; change it there.
"""The files of a session's workspace."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

from sandcell import _requests
from sandcell._sync.transport import Transport
from sandcell_wire.models import FileList, FileModel


class Files:
    """What lies in the workspace; paths are relative to it, with `/` between their parts.

    Links are not followed. All raise `NotFoundError` for what is not there,
    `RequestInvalid` for a path that cannot be one, `ConflictError` for a directory where
    a file is meant, and the like.
    """

    def __init__(self, transport: Transport, session_id: UUID) -> None:
        self._transport = transport
        self._session_id = session_id

    def list(
        self, path: str = "", *, recursive: bool = False, limit: int = 1000
    ) -> Sequence[FileModel]:
        """What is in a directory, by name; at most 1000."""
        request = _requests.list_files(self._session_id, path, recursive=recursive, limit=limit)
        return (self._transport.send(FileList, request)).files

    def read(self, path: str) -> bytes:
        """A file's content, in memory. `download` takes large ones."""
        return self._transport.content(_requests.read_file(self._session_id, path))

    def read_text(self, path: str) -> str:
        """The same as text. Raises `UnicodeDecodeError` if it is not UTF-8."""
        return (self.read(path)).decode()

    def write(self, path: str, content: bytes | str) -> FileModel:
        """Write a file: it appears whole or not at all, directories above it are made."""
        data = content.encode() if isinstance(content, str) else content
        request = _requests.write_file(self._session_id, path, data)
        return self._transport.send(FileModel, request)

    def upload(self, source: Path | str, path: str | None = None) -> FileModel:
        """Send a local file, at any size; under its own name unless `path` is given.

        Raises `OSError` when it cannot be read.
        """
        place = Path(source)
        request = _requests.write_file(self._session_id, path or place.name, b"")
        return self._transport.upload(FileModel, request, place)

    def download(self, path: str, target: Path | str | None = None) -> Path:
        """Fetch a file, at any size, to `target` or its own name here; whole or not at all.

        Raises `OSError` when it cannot be written.
        """
        place = Path(path.rsplit("/", 1)[-1]) if target is None else Path(target)
        self._transport.download(_requests.read_file(self._session_id, path), place)
        return place

    def make_directory(self, path: str) -> FileModel:
        """Make it, and those above it. Harmless when it exists."""
        request = _requests.write_file(self._session_id, f"{path.rstrip('/')}/", b"")
        return self._transport.send(FileModel, request)

    def remove(self, path: str, *, recursive: bool = False) -> FileModel:
        """Delete a file or link, or a directory: an empty one, or with `recursive` any."""
        request = _requests.remove_file(self._session_id, path, recursive=recursive)
        return self._transport.send(FileModel, request)
