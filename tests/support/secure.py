"""TLS and a proxy before a gateway, with a certificate of their own."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from sandcell_gateway.clock import now

HOST = "127.0.0.1"


def make_certificate(directory: Path) -> tuple[Path, Path]:
    """A certificate for this machine that nobody has signed but itself, and its key."""
    key = generate_private_key(SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a test's gateway")])
    names = x509.SubjectAlternativeName([x509.IPAddress(IPv4Address(HOST))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now() - timedelta(days=1))
        .not_valid_after(now() + timedelta(days=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, SHA256())
    )
    (directory / "cert.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (directory / "key.pem").write_bytes(secret)
    return directory / "cert.pem", directory / "key.pem"


@dataclass
class Secure:
    """TLS before a gateway, and an HTTP proxy that leads to it."""

    certificate: Path
    url: str = ""
    proxy: str = ""
    tunnels: list[str] = field(default_factory=list[str])
    """Where the proxy was asked to lead."""


@contextmanager
def secured(gateway: tuple[str, int], directory: Path) -> Iterator[Secure]:
    """Both, in a thread of their own."""
    certificate, key = make_certificate(directory)
    secure = Secure(certificate)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def do(work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result(30)

    try:
        servers = do(_open(secure, gateway, certificate, key))
        yield secure
        do(_close(servers))
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _open(
    secure: Secure, gateway: tuple[str, int], certificate: Path, key: Path
) -> list[asyncio.Server]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)

    async def terminate(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _join(reader, writer, *await asyncio.open_connection(*gateway))

    async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        method, target, _ = (await reader.readuntil(b"\r\n\r\n")).decode().split(" ", 2)
        assert method == "CONNECT"
        secure.tunnels.append(target)
        host, _, port = target.rpartition(":")
        there = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await _join(reader, writer, *there)

    tls = await asyncio.start_server(terminate, HOST, 0, ssl=context)
    proxy = await asyncio.start_server(tunnel, HOST, 0)
    secure.url = f"https://{HOST}:{tls.sockets[0].getsockname()[1]}"
    secure.proxy = f"http://{HOST}:{proxy.sockets[0].getsockname()[1]}"
    return [tls, proxy]


async def _join(
    one: asyncio.StreamReader,
    to_one: asyncio.StreamWriter,
    other: asyncio.StreamReader,
    to_other: asyncio.StreamWriter,
) -> None:
    await asyncio.gather(_copy(one, to_other), _copy(other, to_one), return_exceptions=True)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()


async def _close(servers: list[asyncio.Server]) -> None:
    for server in servers:
        server.close()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
