"""What the SDK does when there were too many requests."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import pytest

from sandcell import AsyncClient, Client, RateLimitError, Session, SessionModel
from sandcell._async import transport as asynchronous
from sandcell._sync import transport as synchronous
from sandcell._sync.transport import ATTEMPTS, MAX_RETRY_AFTER
from tests.gateway.support import PATIENCE

PROBLEM = json.dumps(
    {"title": "t", "status": 429, "detail": "too many", "code": "rate_limited"}
).encode()
TOKENS = json.dumps({"tokens": [], "total": 0, "limit": 100, "offset": 0}).encode()


@dataclass
class Busy:
    """A gateway that refuses the first requests."""

    url: str = ""
    refusals: int = 0
    """How many it refuses."""
    after: str = "3"
    """What it says as `Retry-After`."""
    answer: bytes = TOKENS
    requests: list[str] = field(default_factory=list[str])
    pauses: list[float] = field(default_factory=list[float])
    """How long the client has waited."""

    def handle(self, handler: BaseHTTPRequestHandler) -> None:
        handler.rfile.read(int(handler.headers.get("Content-Length", "0")))
        self.requests.append(handler.command)
        refused = len(self.requests) <= self.refusals
        body = PROBLEM if refused else self.answer
        handler.send_response(429 if refused else 200)
        if refused:
            handler.send_header("Retry-After", self.after)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)


@pytest.fixture
def busy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Busy]:
    busy = Busy()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            busy.handle(self)

        def do_POST(self) -> None:
            busy.handle(self)

        def do_DELETE(self) -> None:
            busy.handle(self)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    async def pause(seconds: float) -> None:
        busy.pauses.append(seconds)

    monkeypatch.setattr(asynchronous, "pause", pause)
    monkeypatch.setattr(synchronous, "pause", busy.pauses.append)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        busy.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield busy
        finally:
            server.shutdown()
            thread.join(PATIENCE)


def test_a_safe_request_is_sent_again_when_it_may_be(busy: Busy) -> None:
    busy.refusals = ATTEMPTS - 1
    with Client(busy.url, "t") as client:
        assert client.tokens.list() == []
    assert busy.requests == ["GET"] * ATTEMPTS
    assert busy.pauses == [3, 3]


async def test_so_it_is_with_asyncio(busy: Busy) -> None:
    busy.refusals = 1
    async with AsyncClient(busy.url, "t") as client:
        assert await client.tokens.list() == []
    assert busy.pauses == [3]


def test_not_without_end(busy: Busy) -> None:
    busy.refusals = 100
    with Client(busy.url, "t") as client, pytest.raises(RateLimitError, match="too many"):
        client.tokens.list()
    assert len(busy.requests) == ATTEMPTS


@pytest.mark.parametrize("after", ["", "soon", str(int(MAX_RETRY_AFTER) + 1)])
def test_not_when_it_takes_long_or_nobody_knows(busy: Busy, after: str) -> None:
    busy.refusals, busy.after = 1, after
    with Client(busy.url, "t") as client, pytest.raises(RateLimitError):
        client.tokens.list()
    assert busy.pauses == []


def test_not_what_might_be_done_twice(busy: Busy) -> None:
    busy.refusals = 1
    with Client(busy.url, "t") as client:
        with pytest.raises(RateLimitError):
            client.tokens.create("n")
        busy.refusals = 2
        with pytest.raises(RateLimitError):
            client.tokens.revoke("1")
    assert busy.requests == ["POST", "DELETE"]


class Model:
    """Of a session, as far as it is used here."""

    id = "1"


def test_streams_are_asked_for_again_too(busy: Busy, tmp_path: Path) -> None:
    busy.refusals, busy.answer = 1, b"content"
    with Client(busy.url, "t") as client:
        session = Session(client._transport, cast("SessionModel", Model()))
        path = session.files.download("a.txt", tmp_path / "a.txt")
        assert path.read_bytes() == b"content"
        execution = {
            "id": "12345678",
            "code": "1",
            "status": "ok",
            "execution_count": 1,
            "detached": False,
            "submitted_at": "2026-01-01T12:00:00Z",
            "started_at": None,
            "ended_at": None,
            "outputs": None,
        }
        line = json.dumps({"type": "ended", "execution": execution})
        busy.refusals, busy.answer = 3, line.encode() + b"\n"
        assert session.execute("1").ok, "the id makes it one execution"
    assert busy.requests == ["GET", "GET", "POST", "POST"]
    assert busy.pauses == [3, 3]
