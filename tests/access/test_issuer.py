"""What an operator can say about JWTs."""

from __future__ import annotations

from typing import Any

import pytest

from sandcell_gateway.access.issuer import Issuer

SECRET = "s" * 32
GOOD = {"issuer": "https://login.example/", "audience": "lab", "secret": SECRET, "jwks_url": None}


def parse(**changes: Any) -> Issuer | None:
    return Issuer.parse(**{**GOOD, **changes})


def test_nothing_is_nothing() -> None:
    assert parse(issuer=None, audience=None, secret=None) is None


@pytest.mark.parametrize(
    "url",
    [
        "https://login.example/keys?a=b",
        "https://login.example:8443/keys",
        "http://127.0.0.1:99/keys",
        "http://[::1]/keys",
        "http://localhost/keys",
    ],
)
def test_addresses_that_can_be_trusted(url: str) -> None:
    found = parse(secret=None, jwks_url=url)
    assert found is not None
    assert found.jwks_url == url


@pytest.mark.parametrize(
    "url",
    [
        "http://login.example/keys",
        "http://127.0.0.1.evil.example/",
        "http://127.0.0.1@evil.example/",
        "http://10.0.0.1/",
        "ftp://localhost/",
        "file:///etc/passwd",
        "https://",
        "https://user:word@login.example/",
        "https://login.example:99999/",
        "https://[::1/",
        "https://login.example/ keys",
        "login.example",
    ],
)
def test_addresses_that_cannot(url: str) -> None:
    with pytest.raises(ValueError, match="https address"):
        parse(secret=None, jwks_url=url)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"secret": "short"}, "at least 32 bytes"),
        ({"issuer": None}, "jwt_issuer"),
        ({"audience": None}, "jwt_audience"),
        ({"secret": None}, "jwt_secret or jwt_jwks_url"),
        ({"jwks_url": "https://login.example/"}, "either"),
        ({"issuer": "a b"}, "jwt_issuer"),
    ],
)
def test_what_does_not_go_together(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        parse(**changes)
    assert "short" not in str(caught.value)


def test_the_secret_is_not_shown() -> None:
    assert SECRET not in repr(parse())
