"""A sandbox's files, reached from outside (ISOLATION, "Files").

Whatever lies in a workspace is hostile: links that lead out, pipes that block whoever opens
them, directories that are swapped between two looks. So every step of a path is opened
relative to the descriptor of the one before, never through a link; only regular files are
read; and what is written grows where the sandbox does not see it, until it is renamed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import uuid
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sandcell_wire.codes import Code
from sandcell_wire.paths import named_parts, parts_of
from sandcell_wire.showing import text_of

MAX_LISTED = 1000
"""Most entries of one listing."""
MAX_SCANNED = 100_000
"""Most entries that are looked at for one listing."""
STAGING = "staging"

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "link"}
_REASONS = {
    errno.ENOENT: (Code.NOT_FOUND, "there is no such file"),
    errno.ENOTDIR: (Code.CONFLICT, "a part of the path is no directory"),
    errno.ELOOP: (Code.CONFLICT, "a part of the path is a link, and links are not followed"),
    errno.EISDIR: (Code.CONFLICT, "it is a directory"),
    errno.ENOTEMPTY: (Code.CONFLICT, "the directory is not empty"),
    errno.EEXIST: (Code.CONFLICT, "something else is there"),
    errno.EACCES: (Code.FORBIDDEN, "its permissions do not allow it"),
    errno.EPERM: (Code.FORBIDDEN, "its permissions do not allow it"),
    errno.ENAMETOOLONG: (Code.VALIDATION_ERROR, "the path is too long"),
    errno.ENOSPC: (Code.QUOTA_EXCEEDED, "the disk is full"),
    errno.EDQUOT: (Code.QUOTA_EXCEEDED, "the disk quota is used up"),
    errno.EFBIG: (Code.QUOTA_EXCEEDED, "the file is too large"),
}


class FileRefused(Exception):
    """A file operation that cannot be done; code and text go to the user."""

    def __init__(self, code: Code, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True)
class Entry:
    """A file, as it was when it was looked at."""

    path: str
    """Relative to the workspace, `/` between its parts."""
    type: str
    """`file`, `directory`, `link`, or `other`."""
    size: int
    modified: float
    """Unix seconds."""
    mode: int
    """Permission bits."""
    etag: str
    """Another one when the content may be another."""

    @classmethod
    def of(cls, path: str, found: os.stat_result) -> Entry:
        """From what the file system says."""
        return cls(
            path=text_of(path),
            type=_KINDS.get(stat.S_IFMT(found.st_mode), "other"),
            size=found.st_size,
            modified=found.st_mtime,
            mode=stat.S_IMODE(found.st_mode),
            etag=f"{found.st_ino:x}-{found.st_size:x}-{found.st_mtime_ns:x}",
        )

    def as_json(self) -> dict[str, Any]:
        """For the wire."""
        return asdict(self)


@contextmanager
def _explained(path: str) -> Generator[None]:
    """Errors of paths and of the file system in words. Raises `FileRefused`."""
    try:
        yield
    except ValueError as error:
        raise FileRefused(Code.VALIDATION_ERROR, str(error)) from error
    except OSError as error:
        code, text = _REASONS.get(error.errno or 0, (Code.OPERATION_FAILED, str(error.strerror)))
        raise FileRefused(code, f"{path or '.'}: {text}") from error


class Workspace:
    """The files of one session."""

    def __init__(self, root: Path, staging: Path, uid: int | None) -> None:
        """`staging` lies on the same file system, out of the sandbox's sight.

        What is written belongs to `uid`; None: to us, as in a sandbox of our own user.
        """
        self._root = root
        self._staging = staging
        self._uid = uid

    def clean(self) -> None:
        """Forget what an earlier process had begun to write."""
        shutil.rmtree(self._staging, ignore_errors=True)

    # -- looking -----------------------------------------------------------------------

    def list(self, path: str, *, recursive: bool, limit: int) -> tuple[list[Entry], bool]:
        """What is in a directory, by name, and whether more is there. Raises `FileRefused`."""
        found: list[Entry] = []
        with _explained(path):
            parts = parts_of(path)
            with self._opened(parts) as directory:
                for entry in self._entries(directory, "/".join(parts), recursive=recursive):
                    if len(found) == min(limit, MAX_LISTED):
                        return found, True
                    found.append(entry)
        return found, False

    def _entries(self, directory: int, prefix: str, *, recursive: bool) -> Iterator[Entry]:
        names: list[str] = []
        with os.scandir(directory) as scan:
            for item in scan:
                names.append(item.name)
                if len(names) == MAX_SCANNED:
                    break
        for name in sorted(names):
            path = f"{prefix}/{name}" if prefix else name
            try:
                found = os.stat(name, dir_fd=directory, follow_symlinks=False)
            except OSError:
                continue  # gone meanwhile
            yield Entry.of(path, found)
            if recursive and stat.S_ISDIR(found.st_mode):
                yield from self._below(directory, name, path)

    def _below(self, directory: int, name: str, path: str) -> Iterator[Entry]:
        try:
            inner = os.open(name, _DIRECTORY, dir_fd=directory)
        except OSError:
            return  # swapped, gone, or not readable
        try:
            yield from self._entries(inner, path, recursive=True)
        finally:
            os.close(inner)

    @contextmanager
    def reading(self, path: str) -> Generator[tuple[int, Entry]]:
        """The descriptor of a regular file, and what it is. Raises `FileRefused`."""
        *above, name = _named(path)
        with _explained(path), self._opened(above) as directory:
            descriptor = os.open(name, _READ, dir_fd=directory)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                kind = _KINDS.get(stat.S_IFMT(found.st_mode), "special file")
                raise FileRefused(Code.CONFLICT, f"{path}: it is a {kind}, and no regular file")
            yield descriptor, Entry.of("/".join((*above, name)), found)
        finally:
            os.close(descriptor)

    # -- changing ----------------------------------------------------------------------

    @contextmanager
    def writing(self, path: str) -> Generator[Draft]:
        """A draft that takes the file's place when it is kept. Raises `FileRefused`."""
        parts = _named(path)
        with _explained(path):
            self._staging.mkdir(mode=0o700, exist_ok=True)
            draft = Draft(self, parts, self._staging / uuid.uuid4().hex)
        try:
            yield draft
        finally:
            draft.discard()

    def keep(self, draft: Draft) -> Entry:
        """Put a draft in its place; the directories above it are made. Raises `FileRefused`."""
        *above, name = draft.parts
        path = "/".join(draft.parts)
        with _explained(path), self._opened(above, make=True) as directory:
            os.fchmod(draft.descriptor, _mode_of(name, directory))
            self._give(draft.descriptor)
            os.rename(draft.place, name, dst_dir_fd=directory)
            return Entry.of(path, os.fstat(draft.descriptor))

    def make_directory(self, path: str) -> Entry:
        """Make it, and those above it. Harmless when it exists. Raises `FileRefused`."""
        parts = _named(path)
        with _explained(path), self._opened(parts, make=True) as directory:
            return Entry.of("/".join(parts), os.fstat(directory))

    def remove(self, path: str, *, recursive: bool) -> Entry:
        """Delete a file or link, or a directory, which must be empty unless `recursive`.

        Raises `FileRefused`.
        """
        *above, name = _named(path)
        with _explained(path), self._opened(above) as directory:
            found = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if not stat.S_ISDIR(found.st_mode):
                os.unlink(name, dir_fd=directory)
            elif recursive:
                shutil.rmtree(name, dir_fd=directory)
            else:
                os.rmdir(name, dir_fd=directory)
        return Entry.of("/".join((*above, name)), found)

    # -- steps -------------------------------------------------------------------------

    @contextmanager
    def _opened(self, parts: Sequence[str], *, make: bool = False) -> Generator[int]:
        """The descriptor of a directory. Raises `OSError`."""
        descriptor = os.open(self._root, _DIRECTORY)
        try:
            for part in parts:
                inner = self._step(descriptor, part, make=make)
                os.close(descriptor)
                descriptor = inner
            yield descriptor
        finally:
            os.close(descriptor)

    def _step(self, directory: int, name: str, *, make: bool) -> int:
        try:
            return os.open(name, _DIRECTORY, dir_fd=directory)
        except FileNotFoundError:
            if not make:
                raise
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o755, dir_fd=directory)
        made = os.open(name, _DIRECTORY, dir_fd=directory)
        self._give(made)
        return made

    def _give(self, descriptor: int) -> None:
        """Let the sandbox's user own what we have made."""
        if self._uid is not None and os.fstat(descriptor).st_uid == os.geteuid():
            os.fchown(descriptor, self._uid, self._uid)


def _named(path: str) -> tuple[str, ...]:
    with _explained(path):
        return named_parts(path)


def _mode_of(name: str, directory: int) -> int:
    """The permissions of the file that is replaced, or those of a new one."""
    try:
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return 0o644
    return stat.S_IMODE(found.st_mode) & 0o777 if stat.S_ISREG(found.st_mode) else 0o644


class Draft:
    """A file that nobody sees yet."""

    def __init__(self, workspace: Workspace, parts: tuple[str, ...], place: Path) -> None:
        self._workspace = workspace
        self.parts = parts
        self.place = place
        self.descriptor = os.open(place, _WRITE, 0o600)
        self.size = 0

    def write(self, data: bytes) -> None:
        """Append. Raises `FileRefused`."""
        with _explained("/".join(self.parts)):
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(self.descriptor, rest) :]
            self.size += len(data)

    def keep(self) -> Entry:
        """Put it in its place. Raises `FileRefused`."""
        return self._workspace.keep(self)

    def discard(self) -> None:
        """Forget it, unless it was kept."""
        os.close(self.descriptor)
        self.place.unlink(missing_ok=True)
