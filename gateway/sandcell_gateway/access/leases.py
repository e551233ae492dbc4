"""A request lasts no longer than the token it came with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime

from sandcell_gateway.auth import Principal
from sandcell_gateway.clock import now
from sandcell_gateway.errors import TokenEnded

EXPIRED = "the token has expired"
REVOKED = "the token was revoked"


class Lease:
    """One request's use of a credential."""

    def __init__(self, expires_at: datetime | None) -> None:
        self._expires_at = expires_at
        self._revoked = False
        self._timeout: asyncio.Timeout | None = None
        self._armed = False

    @property
    def end(self) -> TokenEnded | None:
        """Why it has ended; None while it lasts."""
        if self._revoked:
            return TokenEnded(REVOKED)
        if self._expires_at is not None and self._expires_at <= now():
            return TokenEnded(EXPIRED)
        return None

    @asynccontextmanager
    async def held(self, *, armed: bool) -> AsyncGenerator[None]:
        """A block that is cancelled when the lease ends; raises `TokenEnded` then.

        Not before it is `armed`: what makes or changes something is not cut off halfway.
        """
        try:
            async with asyncio.timeout(None) as self._timeout:
                if armed:
                    self.arm()
                yield
        except TimeoutError as error:
            assert self._timeout is not None
            if self._timeout.expired():
                raise TokenEnded(REVOKED if self._revoked else EXPIRED) from error
            raise
        finally:
            self._timeout, self._armed = None, False

    def arm(self) -> None:
        """From now on the end cancels the block. Harmless when it does, and outside of one."""
        if self._timeout is None or self._armed:
            return
        self._armed = True
        when = asyncio.get_running_loop().time()
        if self._revoked:
            self._timeout.reschedule(when)
        elif self._expires_at is not None:
            left = (self._expires_at - now()).total_seconds()
            self._timeout.reschedule(when + max(0.0, left))

    def revoke(self) -> None:
        """It has ended. Harmless when it has."""
        self._revoked = True
        if self._armed and self._timeout is not None and not self._timeout.expired():
            self._timeout.reschedule(asyncio.get_running_loop().time())


class Leases:
    """All that are open, by credential."""

    def __init__(self) -> None:
        self._open: dict[str, set[Lease]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._open.values()))

    @contextmanager
    def open(self, principal: Principal) -> Generator[Lease]:
        """A lease for one request.

        Open it before anything else has run since the token was looked at, or a revocation
        in between is missed.
        """
        lease = Lease(principal.expires_at)
        leases = self._open.setdefault(principal.credential, set())
        leases.add(lease)
        try:
            yield lease
        finally:
            leases.discard(lease)
            if not leases and self._open.get(principal.credential) is leases:
                del self._open[principal.credential]

    def revoke(self, credential: str, but: Lease) -> None:
        """End all of this credential, but for the one of the request that asked for it."""
        for lease in self._open.get(credential, set[Lease]()) - {but}:
            lease.revoke()
