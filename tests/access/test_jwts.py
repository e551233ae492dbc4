"""JWTs: which are valid, and whose they are. The forgeries are those of the field's history."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time
from datetime import timedelta
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from sandcell_gateway.access.jwks import parse_keys
from sandcell_gateway.access.jwts import LEEWAY, MAX_JWT, Jwts, SharedSecret
from sandcell_gateway.clock import now
from sandcell_gateway.errors import KeysUnavailable, TokenEnded, Unauthorized
from sandcell_wire.scopes import Scope
from tests.access.samples import (
    AUDIENCE,
    EC_KEY,
    ED_KEY,
    ISSUER,
    RSA_KEY,
    RSA_PEM,
    SECRET,
    Server,
    claims,
    encoded,
    entries,
    signed,
)

SHARED = Jwts(ISSUER, AUDIENCE, SharedSecret(SECRET))


async def test_a_shared_secret() -> None:
    principal = await SHARED.principal(signed(SECRET, "HS256"))
    assert principal is not None
    assert principal.owner == f"{ISSUER} alice"
    assert principal.scopes == {Scope.RUN}
    assert not principal.operator
    assert principal.expires_at is not None
    assert principal.expires_at - now() > timedelta(seconds=590)


@pytest.mark.parametrize(
    ("key", "algorithm", "kid"),
    [(RSA_KEY, "RS256", "r"), (EC_KEY, "ES256", "e"), (ED_KEY, "EdDSA", "o")],
)
async def test_public_keys(key: Any, algorithm: str, kid: str) -> None:
    jwts = Jwts(ISSUER, AUDIENCE, Server().set)
    token = signed(key, algorithm, kid, aud=["other", AUDIENCE])
    principal = await jwts.principal(token)
    assert principal is not None
    head, body, _ = token.split(".")
    forged = f"{head}.{encoded(claims(sub='bob'))}"
    for bad in (f"{forged}.{token.rpartition('.')[2]}", f"{head}.{body}."):
        with pytest.raises(Unauthorized):
            await jwts.principal(bad)


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        (None, {Scope.RUN}),
        ("read", {Scope.READ}),
        ("openid read admin profile", {Scope.READ, Scope.ADMIN}),
        ("openid", set()),
        ("", set()),
    ],
)
async def test_scopes(scope: str | None, expected: set[Scope]) -> None:
    principal = await SHARED.principal(signed(SECRET, "HS256", scope=scope))
    assert principal is not None
    assert principal.scopes == expected


BAD_CLAIMS: list[dict[str, Any]] = [
    {"exp": None},
    {"iss": None},
    {"aud": None},
    {"sub": None},
    {"iss": "https://evil.example"},
    {"aud": "another"},
    {"aud": ["another"]},
    {"sub": ""},
    {"sub": 5},
    {"sub": "x" * 256},
    {"nbf": 4_000_000_000},
    {"exp": "soon"},
    {"scope": ["admin"]},
    {"scope": 1},
]


@pytest.mark.parametrize("changes", BAD_CLAIMS, ids=lambda changes: str(changes)[:30])
async def test_claims_that_are_missing_or_wrong(changes: dict[str, Any]) -> None:
    head = encoded({"alg": "HS256", "typ": "JWT"})
    body = f"{head}.{encoded(claims(**changes))}"
    algorithm = jwt.get_algorithm_by_name("HS256")
    mark = algorithm.sign(body.encode(), algorithm.prepare_key(SECRET))
    with pytest.raises(Unauthorized) as caught:
        await SHARED.principal(f"{body}.{encoded(mark)}")
    assert not isinstance(caught.value, TokenEnded)


async def test_expired() -> None:
    with pytest.raises(TokenEnded):
        await SHARED.principal(signed(SECRET, "HS256", exp=time.time() - LEEWAY - 5))
    forged = signed("another secret of 32 bytes or more", "HS256", exp=time.time() - 100)
    with pytest.raises(Unauthorized) as caught:
        await SHARED.principal(forged)
    assert not isinstance(caught.value, TokenEnded), "who guesses is told nothing of ends"


async def test_clocks_may_differ_a_little() -> None:
    principal = await SHARED.principal(signed(SECRET, "HS256", exp=time.time() - LEEWAY / 2))
    assert principal is not None
    assert principal.expires_at is not None
    assert principal.expires_at > now(), "what is let in lasts as long as it is let in"


def forgeries() -> dict[str, str]:
    """Tokens that nobody has signed, though some libraries would have believed them."""
    plain = encoded(claims())
    none = {
        f"alg {word}": f"{encoded({'alg': word})}.{plain}." for word in ("none", "None", "NONE", "")
    }
    body = f"{encoded({'alg': 'HS256', 'kid': 'r'})}.{plain}"
    confused: dict[str, str] = {}
    jwk = json.dumps(entries()[0]).encode()
    for name, secret in {"PEM": RSA_PEM, "JWK": jwk, "nothing": b""}.items():
        # By hand: PyJWT refuses to sign with a public key.
        mark = hmac.new(secret, body.encode(), hashlib.sha256).digest()
        confused[f"HS256 with {name}"] = f"{body}.{encoded(mark)}"
    own = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    own_jwk = RSAAlgorithm.to_jwk(own.public_key(), as_dict=True)
    return {
        **none,
        **confused,
        "another key": signed(own, "RS256", "r"),
        "a key in the header": jwt.encode(
            claims(), own, "RS256", headers={"kid": "r", "jwk": own_jwk, "jku": "https://x"}
        ),
        "another algorithm of the key": signed(RSA_KEY, "PS256", "r"),
        "a longer hash": signed(RSA_KEY, "RS512", "r"),
        "another key's name": signed(RSA_KEY, "RS256", "e"),
        "an unknown key": signed(RSA_KEY, "RS256", "x"),
        "no name among several": signed(RSA_KEY, "RS256"),
        "an extension": jwt.encode(
            claims(), RSA_KEY, "RS256", headers={"kid": "r", "crit": ["exp"]}
        ),
        "no JSON": f"{encoded(b'x')}.{plain}.{encoded(b'x')}",
        "no header": f".{plain}.",
        "nothing": "..",
    }


@pytest.mark.parametrize("name", sorted(forgeries()))
async def test_forgeries(name: str) -> None:
    token = forgeries()[name]
    with pytest.raises(Unauthorized) as caught:
        await Jwts(ISSUER, AUDIENCE, Server().set).principal(token)
    assert len(caught.value.detail) < 400
    with pytest.raises(Unauthorized):
        await SHARED.principal(token)


async def test_what_is_no_jwt_is_somebody_elses() -> None:
    assert await SHARED.principal("sc_abc") is None
    assert await SHARED.principal("a.b") is None
    assert await SHARED.principal("x" * MAX_JWT + "..") is None


async def test_keys_are_fetched_once_and_again_for_a_new_one() -> None:
    server = Server()
    last = server.keys.pop()
    jwts = Jwts(ISSUER, AUDIENCE, server.set)
    for _ in range(5):
        assert await jwts.principal(signed(RSA_KEY, "RS256", "r"))
    assert server.count == 1
    server.keys.append(last)
    new = signed(ED_KEY, "EdDSA", "o")
    for _ in range(5):
        with pytest.raises(Unauthorized):
            await jwts.principal(new)
    assert server.count == 1, "not more often than every 30 seconds"
    server.now += 30
    assert await jwts.principal(new)
    assert server.count == 2


async def test_an_outage_does_not_matter_to_known_keys() -> None:
    server = Server()
    jwts = Jwts(ISSUER, AUDIENCE, server.set)
    known = signed(RSA_KEY, "RS256", "r")
    assert await jwts.principal(known)
    server.is_away = True
    for _ in range(3):
        server.now += 3600
        assert await jwts.principal(known)
        with pytest.raises(KeysUnavailable):
            await jwts.principal(signed(RSA_KEY, "RS256", "x"))
    assert server.count > 1
    await server.set.close()


async def test_an_outage_at_the_start_is_told_as_one() -> None:
    server = Server()
    server.is_away = True
    jwts = Jwts(ISSUER, AUDIENCE, server.set)
    token = signed(RSA_KEY, "RS256", "r")
    for _ in range(3):
        with pytest.raises(KeysUnavailable):
            await jwts.principal(token)
    assert server.count == 1
    server.is_away = False
    server.now += 30
    assert await jwts.principal(token)


async def test_a_key_that_was_withdrawn_is_forgotten_in_time() -> None:
    server = Server()
    jwts = Jwts(ISSUER, AUDIENCE, server.set)
    token = signed(RSA_KEY, "RS256", "r")
    assert await jwts.principal(token)
    del server.keys[0]
    server.now += 3600
    assert await jwts.principal(token), "it has them fetched, and does not wait"

    async def use() -> None:
        while await jwts.principal(token):  # noqa: ASYNC110 (what is waited for is its failure)
            await asyncio.sleep(0)

    with pytest.raises(Unauthorized):
        await asyncio.wait_for(use(), 20)
    assert server.count == 2


async def test_only_one_asks_for_keys_at_a_time() -> None:
    server = Server()
    jwts = Jwts(ISSUER, AUDIENCE, server.set)
    token = signed(RSA_KEY, "RS256", "r")
    found = await asyncio.gather(*(jwts.principal(token) for _ in range(10)))
    assert all(found)
    assert server.count == 1


async def test_a_single_key_needs_no_name() -> None:
    server = Server()
    del server.keys[1:]
    jwts = Jwts(ISSUER, AUDIENCE, server.set)
    assert await jwts.principal(signed(RSA_KEY, "RS256"))
    with pytest.raises(Unauthorized):
        await jwts.principal(signed(RSA_KEY, "RS256", "x"))


def test_keys_that_are_not_used() -> None:
    good, *_ = entries()
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    p384 = ec.generate_private_key(ec.SECP384R1())
    bad: list[dict[str, Any]] = [
        {"kty": "oct", "k": encoded(b"x" * 32), "kid": "1"},
        {**good, "kid": "2", "use": "enc"},
        {**good, "kid": "3", "alg": "HS256"},
        {**RSAAlgorithm.to_jwk(RSA_KEY, as_dict=True), "kid": "4"},
        {**RSAAlgorithm.to_jwk(weak.public_key(), as_dict=True), "kid": "5"},
        {**ECAlgorithm.to_jwk(p384.public_key(), as_dict=True), "kid": "6"},
        {"kty": "RSA", "kid": "7"},
        {"kty": ["RSA"], "kid": "8"},
        {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "kid": "9"},
    ]
    assert set(parse_keys(json.dumps({"keys": [good, *bad]}).encode())) == {"r"}


@pytest.mark.parametrize("data", [b"", b"x", b"[]", b"{}", b'{"keys": 1}', b'{"keys": [1]}'])
def test_what_is_no_set_of_keys(data: bytes) -> None:
    with pytest.raises(ValueError, match="keys"):
        parse_keys(data)
