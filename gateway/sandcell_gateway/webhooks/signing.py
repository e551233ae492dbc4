"""What is signed, and how (standardwebhooks.com, "Signature scheme"). Pure."""

from __future__ import annotations

import base64
import binascii
import hmac
from dataclasses import dataclass

PREFIX = "whsec_"
MIN_KEY = 24
MAX_KEY = 64
"""Least and most bytes of a key."""


@dataclass(frozen=True, repr=False)
class Signer:
    """Signs with each of its keys: while one is replaced, receivers know only one of them."""

    keys: tuple[bytes, ...]

    @classmethod
    def parse(cls, text: str) -> Signer:
        """From one secret, or several divided by blanks. Raises `ValueError` without the text."""
        keys = tuple(_key(word) for word in text.split())
        if not keys:
            raise ValueError(_EXPECTED)
        return cls(keys)

    def headers(self, id: str, moment: int, body: bytes) -> dict[str, str]:
        """The headers of one attempt at `moment`, in Unix seconds; `id` has no full stop."""
        content = f"{id}.{moment}.".encode() + body
        signatures = (hmac.digest(key, content, "sha256") for key in self.keys)
        return {
            "webhook-id": id,
            "webhook-timestamp": str(moment),
            "webhook-signature": " ".join(
                f"v1,{base64.b64encode(signature).decode()}" for signature in signatures
            ),
        }


_EXPECTED = (
    f"expected {PREFIX} and {MIN_KEY} to {MAX_KEY} random bytes in base64, "
    f'such as `echo "{PREFIX}$(openssl rand -base64 32)"` prints'
)


def _key(word: str) -> bytes:
    try:
        key = base64.b64decode(word.removeprefix(PREFIX), validate=True)
    except binascii.Error:
        key = b""
    if not word.startswith(PREFIX) or not MIN_KEY <= len(key) <= MAX_KEY:
        # From None: the cause would show the secret in a traceback with local variables.
        raise ValueError(_EXPECTED) from None
    return key
