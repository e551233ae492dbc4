"""Texts that people type: how they must look, and how that is said in words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

EXECUTION_ID = r"^[A-Za-z0-9-]{8,64}$"
SESSION_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
ENV_NAME = r"^[A-Za-z_][A-Za-z0-9_]{0,127}$"
BYTES = r"^[0-9]{1,20}(\.[0-9]{1,20})? ?([KMGTPkmgtp][Ii]?)?[Bb]?$"
NO_NUL = r"^[^\x00]*$"
INTERPRETER = r"^[0-9a-f-]{32,36}$"
GATEWAY_URL = r"^https?://[^\s/]+"
OWNER = r"^[^\x00-\x20\x7f-\x9f]([^\x00-\x1f\x7f-\x9f]{0,253}[^\x00-\x20\x7f-\x9f])?$"
"""Of sessions; an owner known by a JWT has a blank between issuer and subject."""
MISSED = "missed"
"""Begin with the executions of which nobody has seen the end."""
AFTER = r"^(missed|[0-9]{1,18})$"
LABEL = r"^[^=]+="
CLIENT = r"^[\x21-\x7e]{1,64}$"
NDJSON = "application/x-ndjson"
"""Media type of streams: each line is a JSON object."""

MAX_WEBHOOK_URL = 2048
"""Most characters of a webhook's address."""
_WEBHOOK = re.compile(
    r"(?i:https)://(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)"
    r"(?::(?P<port>[0-9]{1,5}))?(?:[/?][\x21\x22\x24-\x7e]*)?"
)

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")

EXPECTED = {
    SESSION_NAME: "1 to 64 letters, digits, dots, hyphens and underscores, "
    "with a letter or digit first, such as 'analysis-2'",
    EXECUTION_ID: "8 to 64 letters, digits and hyphens",
    ENV_NAME: "a variable's name of letters, digits and underscores, such as 'DATA_DIR'",
    NO_NUL: "a text without NUL",
    INTERPRETER: "a UUID in small letters",
    GATEWAY_URL: "an address that begins with http:// or https://, such as 'https://host:8621'",
    AFTER: "a number, or 'missed'",
    LABEL: "KEY=VALUE, such as 'team=birds'",
    CLIENT: "1 to 64 visible ASCII characters",
    OWNER: "1 to 255 characters, without control characters and blanks at the ends",
}


def reason(problem: Mapping[str, Any]) -> str:
    """What is wrong with a value, from one of pydantic's errors: never a pattern."""
    words = EXPECTED.get(problem.get("ctx", {}).get("pattern", ""))
    # What our own validators raise, pydantic introduces with two words of its own.
    return f"expected {words}" if words else str(problem["msg"]).removeprefix("Value error, ")


def webhook_host(url: str) -> str:
    """The host in a webhook's address, without brackets. Raises `ValueError` for a bad address."""
    found = _WEBHOOK.fullmatch(url) if len(url) <= MAX_WEBHOOK_URL else None
    if found is None or not 0 < int(found["port"] or 443) < 1 << 16:
        raise ValueError(
            "expected an https address such as 'https://hooks.example/done', of at most "
            f"{MAX_WEBHOOK_URL} visible ASCII characters, without user and fragment, "
            f"got {url[:100]!r}"
        )
    return found["host"].strip("[]").lower()


def webhook_url(url: str) -> str:
    """The address itself, if a webhook may have it. Raises `ValueError`."""
    webhook_host(url)
    return url


def whole(value: object) -> object:
    """A whole number, as JSON Schema has it: 17.0 is one. Raises `ValueError` for others."""
    if isinstance(value, int | float) and not isinstance(value, bool) and value % 1 == 0:
        return int(value)
    raise ValueError("expected a whole number")


def size(value: object) -> object:
    """A number of bytes, or a text that says one. Raises `ValueError` for anything else.

    Before pydantic's `ByteSize`, which takes what merely begins so.
    """
    if isinstance(value, str) and re.fullmatch(BYTES, value):
        return value
    try:
        return whole(value)
    except ValueError:
        raise ValueError("expected a number of bytes, or text such as '4GiB'") from None


def plain(text: str) -> str:
    """Text of others, harmless to a terminal: control characters are shown, not obeyed."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)
