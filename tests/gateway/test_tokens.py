"""Tokens: made, used, counted, ended; and JWTs beside them."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from sandcell import (
    AsyncClient,
    AsyncSession,
    AuthenticationError,
    ForbiddenError,
    NewToken,
    NotFoundError,
    QuotaExceeded,
    RateLimitError,
    RequestInvalid,
    Unavailable,
)
from sandcell_gateway.access import leases, tokens
from sandcell_gateway.access.limits import FAILURES_PER_MINUTE
from sandcell_gateway.clock import now
from sandcell_wire.control import Close
from tests.access.samples import AUDIENCE, ISSUER, RSA_KEY, SECRET, entries, key_server, signed
from tests.gateway.support import PATIENCE, TOKEN, Gateway, running_gateway
from tests.support.home import Home


async def make(gateway: Gateway, *scopes: str, **options: Any) -> NewToken:
    """A token, made with the gateway's own."""
    async with gateway.client() as client:
        return await client.tokens.create("t", scopes=scopes or ("run",), **options)


async def test_from_creation_to_revocation(gateway: Gateway) -> None:
    made = await make(gateway, "run", "read", owner="alice", expires_in=60)
    assert made.token.startswith("sc_")
    assert (made.owner, [scope.value for scope in made.scopes]) == ("alice", ["read", "run"])
    assert made.expires_at is not None
    assert made.expires_at - made.created_at == timedelta(seconds=60)
    async with gateway.client(made.token) as alice, gateway.client() as operator:
        session = await alice.sessions.create(wait=PATIENCE)
        assert not await operator.sessions.list(), "owners are separate worlds"
        (listed,) = await operator.tokens.list()
        assert (listed.id, listed.name, listed.revoked_at) == (made.id, "t", None)
        assert listed.last_used_at is not None
        assert not hasattr(listed, "token")
        await session.close()
        first = await operator.tokens.revoke(made.id)
        again = await operator.tokens.revoke(str(made.id))
        assert first.revoked_at == again.revoked_at != None  # noqa: E711
        with pytest.raises(AuthenticationError, match="revoked") as caught:
            await alice.sessions.list()
        assert "SANDCELL_TOKEN" in str(caught.value.hint)


@pytest.mark.parametrize("header", ["Authorization", "X-API-Key"])
async def test_both_headers(gateway: Gateway, header: str) -> None:
    token = (await make(gateway)).token
    value = f"Bearer {token}" if header == "Authorization" else token
    async with httpx.AsyncClient(base_url=gateway.url) as http:
        answer = await http.get("/v1/sessions", headers={header: value})
    assert answer.status_code == 200


async def test_the_secret_is_in_no_file(gateway: Gateway) -> None:
    """Nor what it is made of, in the store, its log, or the gateway's."""
    secret = (await make(gateway)).token
    async with gateway.client(secret) as client:
        await client.sessions.list()
    files = [path for path in gateway.settings.state_dir.rglob("*") if path.is_file()]
    stored = b"".join(path.read_bytes() for path in files)
    assert tokens.digest(secret).encode() in stored, "it was stored at all"
    assert secret.removeprefix("sc_").encode() not in stored


def test_secrets_are_random_and_of_one_shape() -> None:
    made = {tokens.new_secret() for _ in range(100)}
    assert len(made) == 100
    assert {len(secret) for secret in made} == {46}


async def test_the_last_use_is_written_once_a_minute(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await make(gateway)
    moments = [now()]
    monkeypatch.setattr(tokens, "now", lambda: moments[-1])

    async def used() -> datetime:
        async with gateway.client(made.token) as client, gateway.client() as operator:
            await client.sessions.list()
            (found,) = await operator.tokens.list()
            assert found.last_used_at is not None
            return found.last_used_at

    first = await used()
    moments.append(moments[0] + timedelta(seconds=59))
    assert await used() == first
    moments.append(moments[0] + timedelta(seconds=61))
    assert await used() == moments[-1]


async def test_an_owners_admin_manages_only_that_owners(gateway: Gateway) -> None:
    alice = await make(gateway, "admin", owner="alice")
    bob = await make(gateway, "admin", owner="bob")
    async with gateway.client(alice.token) as client:
        mine = await client.tokens.create("mine", scopes=["admin"])
        assert mine.owner == "alice"
        assert (await client.tokens.create("named", owner="alice")).owner == "alice"
        with pytest.raises(ForbiddenError, match="alice cannot make one of bob"):
            await client.tokens.create("theirs", owner="bob")
        with pytest.raises(ForbiddenError):
            await client.tokens.create("theirs", owner="token")
        assert {found.owner for found in await client.tokens.list()} == {"alice"}
        with pytest.raises(NotFoundError):
            await client.tokens.revoke(bob.id)
    async with gateway.client(bob.token) as client:
        assert len(await client.tokens.list()) == 1, "bob's was not revoked"
    forged = await make(gateway, "admin", owner="token")
    async with gateway.client(forged.token) as client:
        with pytest.raises(ForbiddenError):
            await client.tokens.create("theirs", owner="bob")


async def test_the_sockets_peer_manages_all(gateway: Gateway) -> None:
    made = await make(gateway, owner="alice")
    transport = httpx.AsyncHTTPTransport(uds=str(gateway.socket))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        listed = (await http.get("/v1/tokens")).json()
        assert (listed["total"], listed["tokens"][0]["id"]) == (1, str(made.id))
        answer = await http.post("/v1/tokens", json={"name": "n", "owner": "bob"})
        assert answer.json()["owner"] == "bob"
        assert answer.json()["scopes"] == ["run"]
        assert (await http.delete(f"/v1/tokens/{made.id}")).status_code == 200


@pytest.mark.parametrize(
    ("wanted", "place"),
    [
        ({"name": "a b"}, "name: expected 1 to 64"),
        ({"scopes": []}, "scopes"),
        ({"scopes": ["root"]}, "scopes"),
        ({"owner": ""}, "owner: expected"),
        ({"owner": " a"}, "owner: expected"),
        ({"owner": "a\nb"}, "owner: expected"),
        ({"owner": "x" * 256}, "owner"),
        ({"expires_in": 0}, "expires_in"),
        ({"expires_in": 1e9}, "expires_in"),
        ({"secret": "mine"}, "secret"),
    ],
)
async def test_what_cannot_be_made(gateway: Gateway, wanted: dict[str, Any], place: str) -> None:
    async with httpx.AsyncClient(base_url=gateway.url) as http:
        headers = {"X-API-Key": TOKEN}
        answer = await http.post("/v1/tokens", json={"name": "n", **wanted}, headers=headers)
    assert answer.status_code == 422
    assert place in answer.json()["detail"]


async def test_the_sdk_refuses_before_it_asks() -> None:
    async with AsyncClient("http://nowhere.invalid", "x") as client:
        with pytest.raises(RequestInvalid, match=r"^scopes"):
            await client.tokens.create("n", scopes=["root"])


async def test_an_owner_has_so_many_tokens(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "MAX_TOKENS", 2)
    first = await make(gateway, owner="alice")
    await make(gateway, owner="alice")
    with pytest.raises(QuotaExceeded, match="alice has 2 valid tokens"):
        await make(gateway, owner="alice")
    await make(gateway, owner="bob")
    async with gateway.client() as client:
        await client.tokens.revoke(first.id)
    await make(gateway, owner="alice")


async def test_what_ended_long_ago_is_forgotten(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    revoked, expired, valid = await make(gateway), await make(gateway, expires_in=60), None
    async with gateway.client() as client:
        await client.tokens.revoke(revoked.id)
        moment = now() + timedelta(days=89)
        monkeypatch.setattr(tokens, "now", lambda: moment)
        valid = await make(gateway)
        assert {found.id for found in await client.tokens.list()} == {
            revoked.id,
            expired.id,
            valid.id,
        }
        moment += timedelta(days=2)
        newest = await make(gateway)
        assert {found.id for found in await client.tokens.list()} == {valid.id, newest.id}


@pytest.fixture
async def session(client: AsyncClient) -> AsyncSession:
    return await client.sessions.create(wait=PATIENCE)


async def ends(channel: Any) -> tuple[int, str]:
    """How the gateway closes it."""
    with pytest.raises(ConnectionClosed):
        await channel.recv()
    return channel.close_code, channel.close_reason


async def test_a_revoked_token_closes_its_channels(gateway: Gateway, session: AsyncSession) -> None:
    made, kept = await make(gateway), await make(gateway)
    async with (
        gateway.channel(session.id, token=made.token) as one,
        gateway.channel(session.id, "client=d", token=made.token) as two,
        gateway.channel(session.id, "client=e", token=kept.token) as three,
    ):
        for channel in (one, two, three):
            await channel.recv()
        async with gateway.client() as operator:
            await operator.tokens.revoke(made.id)
        for channel in (one, two):
            assert await ends(channel) == (Close.UNAUTHORIZED, "unauthorized")
        await three.send("still here")
        assert await three.recv() == "still here"
    with pytest.raises(InvalidStatus) as refused:
        async with gateway.channel(session.id, token=made.token):
            pass
    assert refused.value.response.status_code == 401
    assert (await session.refresh()).status.value == "idle"


async def test_a_token_that_expires_closes_its_channels(
    gateway: Gateway, session: AsyncSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await make(gateway, expires_in=3600)
    # The gateway's clock for what is open is nearly an hour ahead; it has let the token in.
    monkeypatch.setattr(leases, "now", lambda: now() + timedelta(seconds=3599.7))
    async with gateway.channel(session.id, token=made.token) as channel:
        await channel.recv()
        assert await ends(channel) == (Close.UNAUTHORIZED, "unauthorized")


async def test_more_than_the_limit(fake_shims: Home) -> None:
    async with running_gateway(rate_limit=3) as gateway:
        made = await make(gateway)
        async with httpx.AsyncClient(base_url=gateway.url) as http:
            headers = {"X-API-Key": made.token}
            answers = [await http.get("/v1/sessions", headers=headers) for _ in range(4)]
            assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
            refused = answers[-1]
            assert refused.json()["code"] == "rate_limited"
            assert refused.headers["RateLimit-Limit"] == "3"
            assert refused.headers["RateLimit-Remaining"] == "0"
            assert 1 <= int(refused.headers["Retry-After"]) <= 20
            assert 20 < int(refused.headers["RateLimit-Reset"]) <= 60
            health = [await http.get("/health") for _ in range(5)]
            assert {answer.status_code for answer in health} == {200}
        async with gateway.client(made.token) as client:
            with pytest.raises(RateLimitError) as caught:
                await client.tokens.create("n")  # is not sent again
        assert (caught.value.limit, caught.value.remaining) == (3, 0)
        assert caught.value.retry_after is not None
        async with gateway.client() as other:
            await other.sessions.list()


async def test_the_sockets_peer_has_no_limit(fake_shims: Home) -> None:
    async with running_gateway(rate_limit=1) as gateway:
        transport = httpx.AsyncHTTPTransport(uds=str(gateway.socket))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            answers = [await http.get("/v1/sessions") for _ in range(5)]
        assert {answer.status_code for answer in answers} == {200}


async def test_who_guesses_tokens_is_slowed_down(gateway: Gateway) -> None:
    known = await make(gateway)
    async with httpx.AsyncClient(base_url=gateway.url) as http:

        async def status(token: str) -> int:
            answer = await http.get("/v1/sessions", headers={"X-API-Key": token})
            return answer.status_code

        assert await status(known.token) == 200
        found = {await status(f"guess-{number}") for number in range(FAILURES_PER_MINUTE)}
        assert found == {401}
        # A guess may be allowed each second; a slow machine takes longer for the loop above.
        assert 429 in [await status(tokens.new_secret()) for _ in range(FAILURES_PER_MINUTE)]
        assert await status(known.token) == 200


JWT: dict[str, Any] = {"jwt_issuer": ISSUER, "jwt_audience": AUDIENCE}


async def test_a_jwt_with_a_shared_secret(fake_shims: Home) -> None:
    async with running_gateway(jwt_secret=SECRET, **JWT) as gateway:
        run, read = signed(SECRET, "HS256"), signed(SECRET, "HS256", scope="read")
        async with gateway.client(run) as alice, gateway.client(read) as looking:
            session = await alice.sessions.create(wait=PATIENCE)
            assert (await looking.sessions.get(session.id)).id == session.id
            with pytest.raises(ForbiddenError, match="scope run, and yours has: read"):
                await looking.sessions.create()
            with pytest.raises(ForbiddenError, match="admin"):
                await alice.tokens.list()
            await session.close()
        async with gateway.client(signed(SECRET, "HS256", sub="bob")) as bob:
            assert not await bob.sessions.list(status=["terminated"])
        async with gateway.client(signed(SECRET, "HS256", exp=1)) as late:
            with pytest.raises(AuthenticationError, match="expired"):
                await late.sessions.list()


async def test_a_channel_ends_with_its_jwt(
    fake_shims: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_gateway(jwt_secret=SECRET, **JWT) as gateway:
        token = signed(SECRET, "HS256")
        async with gateway.client(token) as alice:
            session = await alice.sessions.create(wait=PATIENCE)
            with monkeypatch.context() as patch:
                patch.setattr(leases, "now", lambda: now() + timedelta(seconds=609.7))
                async with gateway.channel(session.id, token=token) as channel:
                    await channel.recv()
                    assert await ends(channel) == (Close.UNAUTHORIZED, "unauthorized")
            await session.close()


async def test_a_jwt_with_public_keys(fake_shims: Home) -> None:
    with key_server(json.dumps({"keys": entries()}).encode()) as url:
        async with running_gateway(jwt_jwks_url=url, **JWT) as gateway:
            async with gateway.client(signed(RSA_KEY, "RS256", "r")) as alice:
                assert not await alice.sessions.list()
            async with gateway.client(signed(RSA_KEY, "RS256", "unknown")) as forger:
                with pytest.raises(AuthenticationError, match="does not name"):
                    await forger.sessions.list()


async def test_a_server_of_keys_that_is_away(fake_shims: Home) -> None:
    with key_server(b"") as url:
        pass  # nobody listens there any more
    async with running_gateway(jwt_jwks_url=url, **JWT) as gateway:
        async with gateway.client(signed(RSA_KEY, "RS256", "r")) as alice:
            with pytest.raises(Unavailable) as caught:
                await alice.sessions.list()
        assert caught.value.status == 503
        async with gateway.client() as operator:
            assert not await operator.sessions.list()


def test_only_who_uses_jwts_loads_what_they_need() -> None:
    """The embedded gateway's start is waited for."""
    script = "import sandcell_gateway.app, sandcell_gateway.daemon, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "sandcell_gateway.access.opening" in done.stdout.split()
    assert not {"jwt", "sandcell_gateway.access.jwts"} & set(done.stdout.split())


async def test_a_jwt_is_nothing_to_a_gateway_that_knows_no_issuer(gateway: Gateway) -> None:
    async with gateway.client(signed(SECRET, "HS256")) as client:
        with pytest.raises(AuthenticationError, match="not valid"):
            await client.sessions.list()
