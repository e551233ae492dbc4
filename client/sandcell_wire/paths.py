"""Paths of files in a session's workspace: how they must look."""

from __future__ import annotations

MAX_PATH, MAX_NAME = 4096, 255
"""Most bytes of a path, and of one of its parts (limits.h)."""


def parts_of(path: str) -> tuple[str, ...]:
    """The parts of a path below the workspace; none for the workspace itself.

    Raises `ValueError` for a path that cannot be one, or that leads out.
    """
    try:
        size = len(path.encode())
    except UnicodeEncodeError as error:
        raise ValueError("path: it is not valid UTF-8") from error
    if "\0" in path:
        raise ValueError("path: it holds a NUL")
    if path.startswith("/"):
        raise ValueError("path: it must be relative to the session's workspace")
    if size > MAX_PATH:
        raise ValueError(f"path: it has {size} bytes, and {MAX_PATH} are the most")
    parts = tuple(part for part in path.split("/") if part not in ("", "."))
    if ".." in parts:
        raise ValueError("path: `..` is not followed")
    if any(len(part.encode()) > MAX_NAME for part in parts):
        raise ValueError(f"path: a part of it has more than {MAX_NAME} bytes")
    return parts


def named_parts(path: str) -> tuple[str, ...]:
    """The same for a path that names something in the workspace. Raises `ValueError`."""
    parts = parts_of(path)
    if not parts:
        raise ValueError("path: it must name something in the session's workspace")
    return parts
