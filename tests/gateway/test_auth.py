"""Who may talk to the gateway: tokens, hosts, origins, local users."""

from __future__ import annotations

import asyncio
import io
import os
import stat
import sys
from pathlib import Path

import httpx
import pytest
from starlette.datastructures import Headers
from websockets.exceptions import InvalidStatus

from sandcell import AsyncClient
from sandcell_gateway.auth import Authenticator, token_from_file, token_of
from sandcell_gateway.errors import Refused, Unauthorized
from sandcell_gateway.middleware import HostCheck
from sandcell_gateway.settings import SettingsError
from tests.gateway.support import PATIENCE, TOKEN, Gateway


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": f"Bearer {TOKEN}"},
        {"authorization": f"bearer  {TOKEN} "},
        {"x-api-key": TOKEN},
    ],
)
async def test_good_tokens(headers: dict[str, str]) -> None:
    principal = await Authenticator(TOKEN).bearer(token_of(headers))
    assert principal.owner == "token"
    assert principal.operator


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": f"Basic {TOKEN}"},
        {"authorization": f"Bearer {TOKEN}x"},
        {"authorization": f"Bearer {TOKEN[:-1]}"},
        {"authorization": "Bearer tökén"},
        {"x-api-key": ""},
        {"x-api-key": "x"},
    ],
)
@pytest.mark.parametrize("token", [TOKEN, None])
async def test_bad_tokens(headers: dict[str, str], token: str | None) -> None:
    with pytest.raises(Unauthorized):
        await Authenticator(token).bearer(token_of(headers))


def test_local_users_are_known_by_their_credentials() -> None:
    ours = os.getuid()
    principal = Authenticator(None).peer(ours)
    assert (principal.owner, principal.operator) == (f"uid:{ours}", True)
    with pytest.raises(Refused):
        Authenticator(TOKEN).peer(ours + 1)


def test_a_token_is_made_once_and_kept_private(tmp_path: Path) -> None:
    path = tmp_path / "token"
    token, made = token_from_file(path)
    assert made
    assert len(token) >= 40
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert token_from_file(path) == (token, False)


def test_a_token_that_others_could_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "token"
    token_from_file(path)
    path.chmod(0o640)
    with pytest.raises(SettingsError, match="0600"):
        token_from_file(path)
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SettingsError, match="0600"):
        token_from_file(path)


HOSTS = HostCheck("10.0.0.7", ["lab.example"], ["https://notebooks.example"])


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("localhost:8621", None),
        ("LOCALHOST", None),
        ("127.0.0.1:8621", None),
        ("[::1]:8621", None),
        ("10.0.0.7", None),
        ("192.168.3.4:80", None),
        ("lab.example:8621", None),
        ("localhost:8621", "http://localhost:8621"),
        ("localhost:8621", "https://notebooks.example"),
    ],
)
def test_welcome(host: str, origin: str | None) -> None:
    headers = Headers({"host": host, **({"origin": origin} if origin else {})})
    HOSTS.check(headers, "http")
    HOSTS.check(headers, "ws")


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("", None),
        ("evil.example", None),
        ("localhost.evil.example", None),
        ("127.0.0.1.evil.example:8621", None),
        ("user@127.0.0.1@evil.example", None),
        ("[::1", None),
        ("localhost:8621", "null"),
        ("localhost:8621", ""),
        ("localhost:8621", "http://evil.example"),
        ("localhost:8621", "http://localhost:1"),
        ("localhost:8621", "https://localhost:8621"),
        ("localhost:8621", "http://localhost:8621.evil.example"),
        ("localhost:8621", "https://notebooks.example.evil.example"),
    ],
)
def test_attacks(host: str, origin: str | None) -> None:
    headers = Headers({"host": host, **({"origin": origin} if origin is not None else {})})
    with pytest.raises(Refused):
        HOSTS.check(headers, "http")


async def test_hosts_and_origins_are_checked_on_every_request(gateway: Gateway) -> None:
    async with httpx.AsyncClient(base_url=gateway.url) as http:
        for path in ("/health", "/v1/sessions", "/openapi.json"):
            for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}):
                answer = await http.get(path, headers=headers)
                assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), path


async def test_origins_and_tokens_are_checked_on_websockets(
    gateway: Gateway, client: AsyncClient
) -> None:
    session = await client.sessions.create(wait=PATIENCE)
    with pytest.raises(InvalidStatus) as refused:
        async with gateway.channel(session.id, origin="http://evil.example"):
            pass
    assert refused.value.response.status_code == 403
    with pytest.raises(InvalidStatus) as unknown:
        async with gateway.channel(session.id, token="wrong"):
            pass
    assert unknown.value.response.status_code == 401
    assert b"unauthorized" in unknown.value.response.body


async def test_a_wrong_token_says_what_to_check(gateway: Gateway) -> None:
    async with httpx.AsyncClient(base_url=gateway.url) as http:
        answer = await http.get("/v1/sessions", headers={"X-API-Key": "wrong"})
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert "SANDCELL_TOKEN" in answer.json()["hint"]


async def test_query_strings_are_never_logged(
    gateway: Gateway, client: AsyncClient, log: io.StringIO
) -> None:
    session = await client.sessions.create(wait=PATIENCE, env={"KEY": "env-secret"})
    async with httpx.AsyncClient(base_url=gateway.url) as http:
        await http.get("/v1/sessions?token=query-secret")
    with pytest.raises(InvalidStatus):
        async with gateway.channel(session.id, "token=query-secret", token="header-secret"):
            pass
    async with gateway.channel(session.id, "client=c&token=query-secret") as channel:
        await channel.recv()
    text = log.getvalue()
    assert "/v1/sessions" in text
    for secret in ("query-secret", "env-secret", "header-secret", TOKEN):
        assert secret not in text


async def test_owners_do_not_see_each_other(gateway: Gateway, client: AsyncClient) -> None:
    mine = await client.sessions.create(name="mine", wait=PATIENCE)
    transport = httpx.AsyncHTTPTransport(uds=str(gateway.socket))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as other:
        path = f"/v1/sessions/{mine.id}"
        answers = [
            await other.get(path),
            await other.delete(path),
            await other.post(f"{path}/restart"),
            await other.post(f"{path}/interrupt"),
        ]
        assert {answer.json()["code"] for answer in answers} == {"session_not_found"}
        assert (await other.get("/v1/sessions")).json()["total"] == 0
        theirs = await other.post("/v1/sessions", json={"name": "mine"})
        assert theirs.status_code == 200, "names are the owner's"
        await other.delete(f"/v1/sessions/{theirs.json()['id']}")
    assert (await mine.refresh()).status.value == "idle"


_AS_OTHER_USER = """
import os, socket, sys
os.setgroups([]); os.setgid(63999); os.setuid(63999)
s = socket.socket(socket.AF_UNIX)
s.settimeout(10)
s.connect(sys.argv[1])
try:
    s.sendall(b"GET /v1/sessions HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
    data = s.recv(100)
except (BrokenPipeError, ConnectionResetError):
    data = b""
print(len(data))
"""


@pytest.mark.root
async def test_another_local_user_is_cut_off(gateway: Gateway) -> None:
    """Even if directory and socket were open to all."""
    base = gateway.socket.parent
    base.chmod(0o755)
    gateway.socket.chmod(0o666)
    script = base / "script.py"
    script.write_text(_AS_OTHER_USER)
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(script), str(gateway.socket), stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    assert (process.returncode, output) == (0, b"0\n")


async def test_our_own_user_needs_no_token_on_the_socket(gateway: Gateway) -> None:
    transport = httpx.AsyncHTTPTransport(uds=str(gateway.socket))
    async with httpx.AsyncClient(transport=transport, base_url="http://any.name") as http:
        assert (await http.get("/v1/sessions")).status_code == 200
    assert stat.S_IMODE(gateway.socket.stat().st_mode) == 0o600
