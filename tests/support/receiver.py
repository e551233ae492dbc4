"""A receiver of webhooks on this machine: a TLS server that answers as it is told."""

from __future__ import annotations

import queue
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import trustme

from sandcell_gateway.webhooks.signing import Signer

PATIENCE = 30.0
"""Seconds to wait for a delivery that must come."""
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
NAMES = ("localhost", "127.0.0.1", "hooks.test")
"""What the certificate says."""


@dataclass(frozen=True)
class Received:
    """One request."""

    path: str
    headers: Mapping[str, str]
    """With names in small letters."""
    body: bytes

    @property
    def signed(self) -> bool:
        """Whether `SECRET` signed it."""
        moment = int(self.headers["webhook-timestamp"])
        expected = Signer.parse(SECRET).headers(self.headers["webhook-id"], moment, self.body)
        return self.headers["webhook-signature"] == expected["webhook-signature"]


Reply = Callable[["Receiver", BaseHTTPRequestHandler], None]


def status(code: int, **headers: str) -> Reply:
    """Answer so; underscores in names stand for hyphens."""

    def reply(receiver: Receiver, handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        for name, value in ({"Content-Length": "0"} | headers).items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()

    return reply


def hold(receiver: Receiver, handler: BaseHTTPRequestHandler) -> None:
    """Never answer."""
    receiver.ending.wait()


def endless(receiver: Receiver, handler: BaseHTTPRequestHandler) -> None:
    """Answer 200, and go on until the other end has enough."""
    handler.send_response(200)
    handler.end_headers()
    with suppress(OSError):
        while not receiver.ending.is_set():
            handler.wfile.write(b"x" * 65536)
    receiver.cut_off.set()


class Receiver:
    """What came, and what is to be answered: 204 when nothing else is."""

    def __init__(self, port: int, replies: Iterable[Reply]) -> None:
        self.port = port
        self.replies = list(replies)
        self.ending = threading.Event()
        self.cut_off = threading.Event()
        """Set when a client ended an endless answer."""
        self._received: queue.Queue[Received] = queue.Queue()

    def url(self, host: str = "localhost", path: str = "/done") -> str:
        """Where it listens, by one of its names."""
        return f"https://{host}:{self.port}{path}"

    def next(self) -> Received:
        """The next request; fails when none comes. Not for an event loop's own thread."""
        return self._received.get(timeout=PATIENCE)

    @property
    def count(self) -> int:
        """How many requests came that nobody looked at."""
        return self._received.qsize()

    def handle(self, handler: BaseHTTPRequestHandler) -> None:
        """One request."""
        body = handler.rfile.read(int(handler.headers["content-length"]))
        headers = {name.lower(): value for name, value in handler.headers.items()}
        reply = self.replies.pop(0) if self.replies else status(204)
        self._received.put(Received(handler.path, headers, body))
        reply(self, handler)


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # so that closing waits for them

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients come and go as they like."""


@contextmanager
def receiver(authority: trustme.CA, *replies: Reply) -> Iterator[Receiver]:
    """A running one, with a certificate of this authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*NAMES).configure_cert(context)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            running.handle(self)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with _Server(("127.0.0.1", 0), Handler) as server:
        # Each handshake in its request's thread: one that hangs holds up nobody.
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
        running = Receiver(server.server_address[1], replies)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield running
        finally:
            running.ending.set()
            server.shutdown()
            thread.join()


def write_authority(authority: trustme.CA, directory: Path) -> Path:
    """Its certificate as a file, for `webhook_ca`."""
    path = directory / "authority.pem"
    authority.cert_pem.write_to_path(str(path))
    return path
