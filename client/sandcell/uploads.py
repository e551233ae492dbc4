"""What `files=` may hold, as files to be written. Reads local directories, and no network."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from sandcell.errors import RequestInvalid
from sandcell_wire.paths import named_parts


@dataclass(frozen=True)
class Upload:
    """One file of the workspace."""

    path: str
    content: bytes | Path
    """What is written there, or the local file that holds it."""

    @property
    def size(self) -> int:
        """Bytes. Raises `OSError` when the local file cannot be read."""
        if isinstance(self.content, bytes):
            return len(self.content)
        return self.content.stat().st_size


def uploads(files: Mapping[str, object]) -> list[Upload]:
    """Files by their paths in the workspace.

    Values are bytes, text, a `Path` to a local file or directory, an open file, or a
    DataFrame for a path that ends in `.csv` or `.parquet`. Raises `RequestInvalid`, or
    `OSError` when something local cannot be read.
    """
    return [upload for path, value in files.items() for upload in _uploads(path, value)]


def _uploads(path: str, value: object) -> Iterator[Upload]:
    try:
        named_parts(path)
    except ValueError as error:
        raise RequestInvalid(f"files: {path!r}: {error}") from error
    if isinstance(value, Path):
        yield from _local(path, value)
    else:
        yield Upload(path, _content(path, value))


def _local(path: str, source: Path) -> Iterator[Upload]:
    if not source.is_dir():
        source.stat()  # what is not there is told before anything is made
        yield Upload(path, source)
        return
    for found in sorted(source.rglob("*")):
        if found.is_file() and not found.is_symlink():
            yield Upload(f"{path.rstrip('/')}/{found.relative_to(source).as_posix()}", found)


def _content(path: str, value: object) -> bytes:
    if isinstance(value, (bytes, bytearray)):
        return bytes(value)
    if isinstance(value, str):
        return value.encode()
    if hasattr(value, "read"):
        data: object = cast("Any", value).read()
        if isinstance(data, (bytes, str)):
            return _content(path, data)
    write = _frame_writer(path, value)
    if write is not None:
        return write()
    raise RequestInvalid(
        f"files: {path}: expected bytes, text, a Path, an open file or a DataFrame, "
        f"got {type(value).__name__}"
    )


def _frame_writer(path: str, value: object) -> Callable[[], bytes] | None:
    """What writes a DataFrame, of pandas or polars, in the form that the path's end names."""
    frame: Any = value
    if hasattr(value, "to_csv") or hasattr(value, "write_csv"):
        if path.endswith(".csv"):
            text = getattr(value, "write_csv", None) or (lambda: frame.to_csv(index=False))
            return lambda: str(text()).encode()
        if path.endswith(".parquet"):
            return lambda: _parquet(frame)
        raise RequestInvalid(
            f"files: {path}: a DataFrame needs a path that ends in .csv or .parquet"
        )
    return None


def _parquet(frame: Any) -> bytes:
    buffer = io.BytesIO()
    (frame.write_parquet if hasattr(frame, "write_parquet") else frame.to_parquet)(buffer)
    return buffer.getvalue()
