"""What both ends of a session read in requests and replies, and write in the kernel's place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from sandcell_wire.messages import Message, MessageError, dumps, parse_object

OUTCOME_UNKNOWN = "OutcomeUnknown"
KERNEL_DIED = "KernelDied"
KERNEL_RESTARTED = "KernelRestarted"
"""Name of the error that ends a request whose end was lost."""


def error_content(name: str, text: str) -> dict[str, Any]:
    """The content of an `error`, as notebooks show it."""
    return {
        "ename": name,
        "evalue": text,
        "traceback": [f"\x1b[0;31m{name}\x1b[0m: {text}"],
    }


def traceback_of(content: Mapping[str, Any]) -> list[str]:
    """The lines of an `error`'s content, which comes from a sandbox and may hold anything."""
    lines: object = content.get("traceback")
    return [str(line) for line in cast("list[object]", lines)] if isinstance(lines, list) else []


def is_silent(content: Mapping[str, Any]) -> bool:
    """Whether an execute_request is to run without being shown or counted."""
    return content.get("silent", False) is True


def stops_on_error(content: Mapping[str, Any]) -> bool:
    """Whether the failure of an execute_request ends those behind it, as in ipykernel."""
    return content.get("stop_on_error", True) is not False and not is_silent(content)


def has_failed(reply: Message) -> bool:
    """Whether a reply's status is `error`."""
    return reply.content_if_any().get("status") == "error"


def sandcell_metadata(message: Message) -> dict[str, Any]:
    """What the local kernel says to the shim in `metadata.sandcell`; empty if that is nothing."""
    if b'"sandcell"' not in message.metadata:
        return {}
    try:
        value = parse_object(message.metadata, "metadata").get("sandcell")
    except MessageError:
        return {}
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def timeout_of(facts: Mapping[str, Any]) -> float | None:
    """Seconds that an execution may run, by its `metadata.sandcell`; None: any time."""
    timeout = facts.get("timeout")
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or timeout <= 0:
        return None
    return float(timeout)


def set_sandcell_metadata(message: Message, **facts: object) -> None:
    """Say these facts, and no others, to the shim. Raises `MessageError`."""
    metadata = parse_object(message.metadata, "metadata")
    message.metadata = dumps({**metadata, "sandcell": facts})


def first_line(code: str, most: int | None = None) -> tuple[str, bool]:
    """The first line of a cell, at most so many characters of it, and whether there is more."""
    lines = code.strip().splitlines() or [""]
    first = lines[0] if most is None else lines[0][:most]
    return first, len(lines) > 1 or len(first) < len(lines[0])
