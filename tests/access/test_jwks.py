"""Fetching keys, from a server on this machine."""

from __future__ import annotations

import socket

import pytest

from sandcell_gateway.access import jwks
from sandcell_gateway.access.jwks import MAX_BYTES, fetch
from tests.access.samples import key_server


async def test_what_is_there() -> None:
    with key_server(b"the keys") as url:
        assert await fetch(url)() == b"the keys"


@pytest.mark.parametrize("status", [204, 302, 404, 500])
async def test_another_status_is_no_answer(status: int) -> None:
    with (
        key_server(b"the keys") as elsewhere,
        key_server(b"", status, Location=elsewhere) as url,
        pytest.raises(OSError, match=str(status)),
    ):
        await fetch(url)()


async def test_too_much() -> None:
    with key_server(b"x" * (MAX_BYTES + 1)) as url, pytest.raises(OSError, match="at most"):
        await fetch(url)()


async def test_nobody_there() -> None:
    with key_server(b"") as url:
        pass
    with pytest.raises(OSError, match="127"):
        await fetch(url)()


async def test_somebody_who_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jwks, "FETCH_TIMEOUT", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(TimeoutError):
            await fetch(f"http://127.0.0.1:{port}/")()


async def test_somebody_who_speaks_no_tls() -> None:
    with key_server(b"no TLS at all") as url, pytest.raises(OSError, match="127"):
        await fetch(url.replace("http:", "https:"))()
