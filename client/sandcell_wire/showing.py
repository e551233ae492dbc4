"""What of outputs can be shown: text that UTF-8 has, data that JSON takes, and not too much."""

from __future__ import annotations

import re
from typing import Any, cast

Output = dict[str, Any]

MAX_DEPTH = 100
"""Data nested deeper is not shown: the serialiser gives up at 255."""
MAX_SHOWN = 256 << 20
"""About as many bytes of updates one answer shows; one may change many outputs."""
TOO_DEEP: Output = {"text/plain": f"[not shown: nested deeper than {MAX_DEPTH} levels]"}
TOO_MUCH = f"[not shown: more than {MAX_SHOWN >> 20} MiB of updates]"

_LONE = re.compile("[\ud800-\udfff]")
_EACH = 8
"""Bytes that a value counts besides its text."""


class _TooDeepError(Exception):
    """Data that is nested too deep."""


def text_of(value: object) -> str:
    """As text without lone surrogates, which UTF-8 does not have."""
    text = str(value)
    return text if text.isascii() else _LONE.sub("\ufffd", text)


def _clean(value: object, depth: int = 0) -> object:
    if isinstance(value, str):
        return text_of(value)
    if not isinstance(value, dict | list):
        return value
    if depth >= MAX_DEPTH:
        raise _TooDeepError
    if isinstance(value, list):
        return [_clean(item, depth + 1) for item in cast("list[object]", value)]
    items = cast("dict[object, object]", value).items()
    return {text_of(key): _clean(item, depth + 1) for key, item in items}


def bundle_of(value: object, otherwise: Output) -> Output:
    """A dictionary as it can be shown: empty if it is none, `otherwise` if it is too deep."""
    if not isinstance(value, dict):
        return {}
    try:
        return cast("Output", _clean(cast("object", value)))
    except _TooDeepError:
        return dict(otherwise)


def size_of(value: object) -> int:
    """About the bytes of something that was cleaned."""
    if isinstance(value, str):
        return len(value) + _EACH
    if isinstance(value, list):
        return _EACH + sum(size_of(item) for item in cast("list[object]", value))
    if isinstance(value, dict):
        items = cast("dict[object, object]", value).items()
        return _EACH + sum(size_of(key) + size_of(item) for key, item in items)
    return _EACH


class Budget:
    """How much of the updates of one answer may still be shown."""

    def __init__(self, limit: int = MAX_SHOWN) -> None:
        self._left = limit

    def take(self, size: int) -> bool:
        """Whether so much more may be shown; then it counts."""
        if size > self._left:
            return False
        self._left -= size
        return True

    def give_back(self, size: int) -> None:
        """So much is no longer shown."""
        self._left += size
