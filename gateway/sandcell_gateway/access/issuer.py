"""Whose JWTs are valid, as the operator says it. Pure, and without the parts that check them."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from urllib.parse import urlsplit

MIN_SECRET_BYTES = 32
"""As many as HS256's hash has (RFC 7518, section 3.2)."""


@dataclass(frozen=True)
class Issuer:
    """One issuer of JWTs, with either a shared secret or an address of public keys."""

    issuer: str
    audience: str
    secret: str | None = field(repr=False)
    jwks_url: str | None

    @classmethod
    def parse(
        cls,
        *,
        issuer: str | None,
        audience: str | None,
        secret: str | None,
        jwks_url: str | None,
    ) -> Issuer | None:
        """None when nothing of it is set. Raises `ValueError`, without the secret."""
        if (issuer, audience, secret, jwks_url) == (None, None, None, None):
            return None
        if (secret is None) == (jwks_url is None):
            raise ValueError("expected either jwt_secret or jwt_jwks_url beside jwt_issuer")
        if issuer is None or audience is None:
            raise ValueError("expected jwt_issuer and jwt_audience, too")
        if not re.fullmatch(r"[\x21-\x7e]{1,200}", issuer):
            raise ValueError(f"jwt_issuer: expected visible ASCII characters, got {issuer!r}")
        if secret is not None and len(secret.encode()) < MIN_SECRET_BYTES:
            raise ValueError(f"expected a secret of at least {MIN_SECRET_BYTES} bytes")
        if jwks_url is not None and not _can_be_trusted(jwks_url):
            raise ValueError(
                "expected an https address such as 'https://login.example/keys', or http on this "
                f"machine's loopback, got {jwks_url!r}"
            )
        return cls(issuer, audience, secret, jwks_url)


def _can_be_trusted(url: str) -> bool:
    """Whether nobody on the way can change what is there."""
    if not re.fullmatch(r"[\x21-\x7e]{1,2048}", url):
        return False
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    if not parts.hostname or port == 0 or parts.username is not None:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(parts.hostname))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
