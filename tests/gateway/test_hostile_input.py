"""What no sane client sends: always a problem document with 4xx, and nothing has changed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

import httpx
import pytest

from sandcell import AsyncClient, AsyncSession
from sandcell_gateway.middleware import MAX_BODY_BYTES
from tests.gateway.support import PATIENCE, TOKEN, Gateway, running_gateway
from tests.support.home import Home

JSON = {"Content-Type": "application/json"}
DEEP = 100_000
"""Levels of a body that is nested too deeply."""
REFUSALS = {401, 403, 404, 405, 410, 413, 422}
"""The documented ones: no bare 400."""
NUMBERS = [
    str(1 << 63),
    "-1",
    "x",
    "",
    "1e999",
    "nan",
    "-inf",
    "1" * 5000,
    "0x10",
    "true",
    "1%00",
    "%ff",
    "[1]",
]
TEXTS = ["%00", "%ff%fe", "a" * 60_000, "%ed%a0%80", "%0a"]
IDS = ["-1", "%00", "%ff", "..%2f..%2fetc", "0" * 65_000, "%7b%7d", "1" * 36, "null"]
NAMES: list[Any] = [
    "a\0b",
    "\ud800",
    "a" * 65,
    "",
    " ",
    "a\n",
    "../a",
    "-a",
    1,
    True,
    ["a"],
    {"a": "b"},
    1e300,
    -1,
]
LABELS: list[Any] = [
    "text",
    ["k"],
    1,
    {"": "empty key"},
    {"k": 1},
    {"k": ["v"]},
    {"k": {"deep": "er"}},
    {"k": "v" * 4097},
    {"k" * 129: "v"},
    {"k": "\udfff"},
    {f"k{n}": "" for n in range(200)},
]
LIMITS: list[Any] = [-1, 0, 10**30, "1e999", "lots", 1.5, [1], "-4GiB", "٣GiB x"]


@pytest.fixture
async def session(client: AsyncClient) -> AsyncSession:
    return await client.sessions.create(name="victim", metadata={"team": "a"}, wait=PATIENCE)


@pytest.fixture
async def http(gateway: Gateway) -> AsyncGenerator[httpx.AsyncClient]:
    """Over TCP, as it is sent."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with httpx.AsyncClient(base_url=gateway.url, headers=headers, timeout=PATIENCE) as http:
        yield http


async def state(http: httpx.AsyncClient) -> list[tuple[Any, ...]]:
    """All that a request could have changed."""
    found = (await http.get("/v1/sessions?status=running&status=terminated")).json()["sessions"]
    names = ("id", "name", "metadata", "status", "closes_at", "interpreter")
    return [tuple(str(one[name]) for name in names) for one in found]


def check(answer: httpx.Response, sent: str) -> None:
    said = f"{sent[:100]}: {answer.status_code} {answer.text[:300]}"
    assert answer.status_code in REFUSALS, said
    assert answer.headers["content-type"] == "application/problem+json", said
    problem = answer.json()
    assert problem["status"] == answer.status_code
    assert problem["detail"]
    assert len(answer.text) < 10_000, "what was sent is not repeated"


async def refuse(http: httpx.AsyncClient, method: str, path: str, **more: Any) -> None:
    check(await http.request(method, path, **more), f"{method} {path} {more}")


async def test_ids(http: httpx.AsyncClient, session: AsyncSession) -> None:
    before = await state(http)
    for bad in IDS:
        for method, rest in (("GET", ""), ("DELETE", ""), ("PATCH", ""), ("POST", "/restart")):
            await refuse(http, method, f"/v1/sessions/{bad}{rest}", json={})
    assert await state(http) == before


async def test_numbers(http: httpx.AsyncClient, session: AsyncSession) -> None:
    before = await state(http)
    path = f"/v1/sessions/{session.id}"
    for bad in NUMBERS:
        for target in ("/v1/sessions?limit=", "/v1/sessions?offset=", f"{path}/proofs?offset="):
            await refuse(http, "GET", target + bad)
        await refuse(http, "DELETE", f"{path}?grace={bad}")
    assert await state(http) == before


async def test_texts(http: httpx.AsyncClient, session: AsyncSession) -> None:
    before = await state(http)
    for bad in TEXTS:
        for target in ("status", "label", "order_by"):
            await refuse(http, "GET", f"/v1/sessions?{target}={bad}")
        await refuse(http, "DELETE", f"/v1/sessions/{session.id}?client={bad}")
    for name in ("search", "type"):
        await refuse(http, "GET", f"/v1/sessions?{name}={'a' * 60_000}")
        for odd in ("%00", "%ff", "%25", "'--"):  # no text that a label could not hold
            answer = await http.get(f"/v1/sessions?{name}={odd}")
            assert answer.json()["sessions"] == []
    assert await state(http) == before


async def test_names_and_labels(http: httpx.AsyncClient, session: AsyncSession) -> None:
    before = await state(http)
    path = f"/v1/sessions/{session.id}"
    for bad in NAMES:
        for method, target in (("POST", "/v1/sessions"), ("PATCH", path)):
            await refuse(http, method, target, content=json.dumps({"name": bad}), headers=JSON)
    for bad in LABELS:
        for method, target in (("POST", "/v1/sessions"), ("PATCH", path)):
            await refuse(http, method, target, content=json.dumps({"metadata": bad}), headers=JSON)
    assert await state(http) == before


async def test_what_goes_to_the_sandbox(http: httpx.AsyncClient) -> None:
    bodies: list[dict[str, Any]] = [
        {"env": {"A": "a\0b"}},
        {"env": {"A\0": "a"}},
        {"env": {"A": "\ud800"}},
        {"image": "\0"},
        {"language": "x" * 500_000},
        {"interpreter": "\0" * 32},
        *({"limits": {name: bad}} for bad in LIMITS for name in ("processes", "memory", "disk")),
    ]
    for body in bodies:
        await refuse(http, "POST", "/v1/sessions", content=json.dumps(body), headers=JSON)
    assert await state(http) == []


async def test_bodies_that_are_none(http: httpx.AsyncClient, session: AsyncSession) -> None:
    before = await state(http)
    bodies = [
        b"",
        b"\xff\xfe",
        b'{"name": "\xff"}',
        b"[" * DEEP,
        b'{"metadata": {"a": ' * 5000,
        b'{"metadata": {"k": ' + b"[" * DEEP + b"]" * DEEP + b"}}",
        b'{"name": ' + b"1" * 5000 + b"}",
        b'{"name": NaN}',
        b"null",
        b"[]",
        b'"name"',
        b"{'name': 'a'}",
        b'{"name": "a"} {"name": "b"}',
        b'{"name": "' + b"a" * (10 << 20) + b'"}',
    ]
    for body in bodies:
        for method, path in (
            ("POST", "/v1/sessions"),
            ("PATCH", f"/v1/sessions/{session.id}"),
            ("POST", f"/v1/sessions/{session.id}/code"),
        ):
            # An announced length that is too large is refused before the body is read.
            try:
                await refuse(http, method, path, content=body, headers=JSON)
            except httpx.WriteError:
                assert len(body) > MAX_BODY_BYTES
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    await refuse(http, "POST", "/v1/sessions", content=b'{"name": "a"}', headers=form)
    assert await state(http) == before


async def test_headers(http: httpx.AsyncClient) -> None:
    for bad in (b"", b"two words", b"k" * 256, b"\xff\xfe", "ключ".encode()):
        headers = [(b"Idempotency-Key", bad), (b"Content-Type", b"application/json")]
        await refuse(http, "POST", "/v1/sessions", content=b"{}", headers=headers)
    for bad in (b"", b"a b", b"[", b"evil.example:1:2", b"\xff", b"a" * 10_000):
        await refuse(http, "GET", "/v1/sessions", headers=[(b"Host", bad)])
    for bad in (b"Bearer \xff", b"Bearer " + b"a" * 10_000, b"Basic eDp5", b"Bearer", b"\xff"):
        await refuse(http, "GET", "/v1/sessions", headers=[(b"Authorization", bad)])
    assert await state(http) == []


async def test_an_image_that_is_no_path(fake_shims: Home) -> None:
    """Only an embedded gateway looks at it."""
    async with running_gateway(embedded=True) as gateway:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with httpx.AsyncClient(base_url=gateway.url, headers=headers) as http:
            for bad in ("\0", "a" * 5000, "/dev/null", "/nowhere\n", "a" * 300):
                await refuse(http, "POST", "/v1/sessions", json={"image": bad})
            assert await state(http) == []


async def test_what_is_no_http_is_answered_or_hung_up(gateway: Gateway) -> None:
    port = int(gateway.url.rsplit(":", 1)[1])
    long = b"GET /v1/sessions?search=" + b"a" * (10 << 20) + b" HTTP/1.0\r\n\r\n"
    for sent in (b"\0" * 64, b"GET / HTTP/9.9\r\n\r\n", b"GET /v1/\xff\0 HTTP/1.1\r\n\r\n", long):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        async with asyncio.timeout(PATIENCE):
            assert b" 500 " not in await reader.read()
        writer.close()
        await writer.wait_closed()
    async with gateway.client() as client:
        assert (await client.health()).status == "ok"
