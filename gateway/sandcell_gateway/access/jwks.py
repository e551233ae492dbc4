"""The public keys of an issuer (RFC 7517): fetched, kept, and fetched again when one is new."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpcore
import structlog
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt import InvalidKeyError, PyJWTError
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from pydantic import BaseModel, ValidationError

from sandcell_gateway.errors import KeysUnavailable

FETCH_SECONDS = 30.0
"""Least time between two attempts to fetch."""
FRESH_SECONDS = 3600.0
"""After which keys are fetched again even if all are known: one may have been withdrawn."""
FETCH_TIMEOUT = 5.0
"""Seconds for a whole attempt."""
MAX_BYTES = 1 << 18
"""Most bytes of a set of keys."""
MAX_KEYS = 100
"""Most keys of a set."""
MIN_RSA_BITS = 2048

Fetch = Callable[[], Awaitable[bytes]]
"""Gets the set as JSON. Raises `OSError`."""

_ALGORITHMS: dict[str, tuple[str, Callable[[dict[str, Any]], Any]]] = {
    "RSA": ("RS256", RSAAlgorithm.from_jwk),
    "EC P-256": ("ES256", ECAlgorithm.from_jwk),
    "OKP Ed25519": ("EdDSA", OKPAlgorithm.from_jwk),
}
"""By `kty` and `crv`; there is no other."""
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Key:
    """What a token must be signed with."""

    key: Any
    """As PyJWT takes it."""
    algorithm: str
    """The only one that it is used with."""


class _Set(BaseModel):
    keys: list[dict[str, Any]]


class KeySet:
    """An issuer's keys."""

    def __init__(self, fetch: Fetch, clock: Callable[[], float] = time.monotonic) -> None:
        self._fetch = fetch
        self._clock = clock
        self._keys: dict[str | None, Key] = {}
        self._fetched: float | None = None
        """When they were fetched."""
        self._tried: float | None = None
        """When that was tried last."""
        self._failure: OSError | ValueError | None = None
        """Why that failed, if it did."""
        self._fetching: asyncio.Task[None] | None = None

    async def close(self) -> None:
        """Leave off fetching."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.wait([self._fetching])

    async def find(self, header: Mapping[str, Any]) -> Key | None:
        """The key that the header names; without a name the only one, if there is just one.

        Raises `KeysUnavailable` when it is unknown and the set cannot be had.
        """
        kid = header.get("kid")
        name = kid if isinstance(kid, str) else None
        found = self._known(name)
        if found is None:
            if fetching := self._begin(FETCH_SECONDS):
                # Shielded: others may wait for it, too.
                await asyncio.shield(fetching)
            found = self._known(name)
        elif self._is_older(self._fetched, FRESH_SECONDS):
            # Nobody waits for this: a server that is away must not hold up known keys.
            self._begin(FETCH_SECONDS)
        if found is None and self._failure is not None:
            raise KeysUnavailable(
                "the server of the keys for JWTs does not answer", "try again later"
            )
        return found

    def _known(self, name: str | None) -> Key | None:
        if name is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(name)

    def _is_older(self, moment: float | None, seconds: float) -> bool:
        return moment is None or self._clock() - moment >= seconds

    def _begin(self, pause: float) -> asyncio.Task[None] | None:
        """The attempt that runs, or a new one if the last was long enough ago."""
        if self._fetching is not None and not self._fetching.done():
            return self._fetching
        if not self._is_older(self._tried, pause):
            return None
        self._tried = self._clock()
        self._fetching = asyncio.create_task(self._refresh())
        return self._fetching

    async def _refresh(self) -> None:
        try:
            keys = parse_keys(await self._fetch())
        except (OSError, ValueError) as error:
            self._failure = error
            _log.warning("the keys for JWTs cannot be fetched", error=str(error))
        else:
            self._keys, self._fetched, self._failure = keys, self._clock(), None
            _log.info("keys for JWTs", keys=sorted(str(name) for name in keys))


def parse_keys(data: bytes) -> dict[str | None, Key]:
    """The keys of a set by name, without those that cannot be used. Raises `ValueError`."""
    try:
        listed = _Set.model_validate_json(data).keys
    except ValidationError as error:
        raise ValueError("expected an object with a list of objects as `keys`") from error
    keys: dict[str | None, Key] = {}
    for entry in listed[:MAX_KEYS]:
        key = _usable(entry)
        if key is not None:
            kid: object = entry.get("kid")
            keys[kid if isinstance(kid, str) else None] = key
    return keys


def _usable(entry: dict[str, Any]) -> Key | None:
    """A key that signs, of a type that has an algorithm here; secrets never."""
    kind = f"{entry.get('kty')} {entry.get('crv', '')}".strip()
    if kind not in _ALGORITHMS:
        return None
    algorithm, load = _ALGORITHMS[kind]
    signs = entry.get("use", "sig") == "sig" and entry.get("alg", algorithm) == algorithm
    if not signs or "d" in entry:
        return None  # for something else, or a private key, which everybody knows by now
    try:
        key = load(entry)
    except (InvalidKeyError, PyJWTError, ValueError, TypeError, KeyError) as error:
        _log.warning("a key for JWTs cannot be used", kid=entry.get("kid"), error=str(error))
        return None
    if isinstance(key, RSAPublicKey) and key.key_size < MIN_RSA_BITS:
        _log.warning("a key for JWTs is too short", kid=entry.get("kid"), bits=key.key_size)
        return None
    return Key(key, algorithm)


def fetch(url: str) -> Fetch:
    """What fetches from there, at most `FETCH_TIMEOUT` long. Redirects are not followed."""

    async def get() -> bytes:
        try:
            async with asyncio.timeout(FETCH_TIMEOUT):
                return await _get(url)
        except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError) as error:
            raise OSError(f"{url}: {str(error) or type(error).__name__}") from error

    return get


async def _get(url: str) -> bytes:
    # It reads some hundred certificates.
    tls = await asyncio.to_thread(httpcore.default_ssl_context) if url[:5] == "https" else None
    headers = [("accept", "application/json"), ("user-agent", "sandcell")]
    async with (
        httpcore.AsyncConnectionPool(tls, max_connections=1) as pool,
        pool.stream("GET", url, headers=headers) as response,
    ):
        if response.status != 200:
            raise OSError(f"{url}: expected status 200, got {response.status}")
        body = b""
        async for piece in response.aiter_stream():
            body += piece
            if len(body) > MAX_BYTES:
                raise OSError(f"{url}: expected at most {MAX_BYTES} bytes")
        return body
