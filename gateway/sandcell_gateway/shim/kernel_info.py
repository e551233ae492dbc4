"""What an interpreter says of itself, cut down to what may be believed. Pure.

Clients keep it and answer with it before a session exists, so it comes from a fresh
interpreter only, before anything of the user has run, and holds nothing but known
fields of bounded size.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

MAX_TEXT = 200
"""Characters of one field."""
MAX_BANNER = 4000
"""Characters of the banner."""
MAX_ITEMS = 20
"""Links, and features."""
MAX_MODE_BYTES = 1000
"""Size of CodeMirror's configuration as JSON."""

_TEXTS = ("protocol_version", "implementation", "implementation_version")
_LANGUAGE_TEXTS = (
    *("name", "version", "mimetype", "file_extension"),
    *("pygments_lexer", "nbconvert_exporter"),
)
_LINKS = ("https://", "http://")


def believed(content: Mapping[str, Any]) -> dict[str, Any]:
    """A kernel_info reply's content with what is known and well-formed."""
    links = _items(content.get("help_links"))
    features = _items(content.get("supported_features"))
    kept: dict[str, Any] = _texts(content, _TEXTS)
    kept["status"] = "ok"
    kept["banner"] = _text(content.get("banner"), MAX_BANNER) or ""
    kept["language_info"] = _language(_mapping(content.get("language_info")))
    kept["help_links"] = [link for item in links if (link := _link(_mapping(item)))]
    kept["supported_features"] = [word for item in features if (word := _text(item))]
    if content.get("debugger") is True:
        kept["debugger"] = True
    return kept


def _language(info: Mapping[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = _texts(info, _LANGUAGE_TEXTS)
    mode = info.get("codemirror_mode")
    if isinstance(mode, str | dict) and len(json.dumps(mode)) <= MAX_MODE_BYTES:
        kept["codemirror_mode"] = mode
    return kept


def _link(item: Mapping[str, Any]) -> dict[str, str]:
    text, url = _text(item.get("text")), _text(item.get("url"))
    return {"text": text, "url": url} if text and url and url.startswith(_LINKS) else {}


def _texts(source: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, str]:
    return {name: text for name in names if (text := _text(source.get(name)))}


def _text(value: object, most: int = MAX_TEXT) -> str | None:
    return value[:most] if isinstance(value, str) else None


def _mapping(value: object) -> Mapping[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _items(value: object) -> list[object]:
    return cast("list[object]", value)[:MAX_ITEMS] if isinstance(value, list) else []
