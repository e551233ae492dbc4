"""What comes to the agent: lines of JSON, checked.

Standard library only, as `agent.py`, which is the only one to use it.
"""

from __future__ import annotations

import json

TYPE_CHECKING = False  # importing typing takes time, too
if TYPE_CHECKING:
    from typing import Any

    Json = dict[str, Any]

MAX_LINE = 1 << 20
"""Longest line in bytes, either way."""


class RequestError(Exception):
    """A request that cannot be done; the text goes to the client."""


class Lines:
    """Cuts a stream of bytes into lines of at most MAX_LINE bytes."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that are complete now. Raises `RequestError` for one that is too long."""
        self._rest += data
        *lines, rest = bytes(self._rest).split(b"\n")
        if any(len(line) > MAX_LINE for line in [*lines, rest]):
            raise RequestError(f"a line has more than {MAX_LINE} bytes")
        self._rest = bytearray(rest)
        return lines


def parse(line: bytes) -> Json:
    """One request. Raises `RequestError`."""
    try:
        request: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"not JSON: {error}"[:200]) from None
    if not isinstance(request, dict):
        raise RequestError("expected an object")
    return request  # pyright: ignore[reportUnknownVariableType]


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)  # pyright: ignore[reportUnknownVariableType]


def integer(request: Json, name: str) -> int:
    """A field of a request. Raises `RequestError`."""
    value = request.get(name)
    if isinstance(value, bool) or not isinstance(value, int):
        raise RequestError(f"{name} must be an integer")
    return value


class Order:
    """What `spawn` asks for, checked. Raises `RequestError`."""

    def __init__(self, request: Json) -> None:
        argv, env = request.get("argv"), request.get("env", {})
        cwd, log = request.get("cwd", "/"), request.get("log")
        if not _is_texts(argv) or not argv:
            raise RequestError("argv must be a list of at least one text")
        if not isinstance(env, dict) or not _is_texts([*env.values()]):
            raise RequestError("env must map names to texts")
        if not isinstance(cwd, str) or not isinstance(log, (str, type(None))):
            raise RequestError("cwd must be a text, log a text or null")
        self.argv: list[str] = argv
        self.env: dict[str, str] = env
        self.cwd = cwd
        self.log = log
        self.ready = request.get("ready", False) is True
        name = request.get("name")
        if not isinstance(name, (str, type(None))):
            raise RequestError("name must be a text or null")
        self.name = name
        self.streams = request.get("streams", False) is True
        self.input = request.get("input", False) is True
