"""How often a token may be used, and how often an address may show a wrong one."""

from __future__ import annotations

import hashlib
import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable

from sandcell_gateway.access.buckets import MAX_BUCKETS, Buckets
from sandcell_gateway.errors import RateLimited

FAILURES_PER_MINUTE = 60
"""Wrong tokens that one address can show before its tokens are not looked at for a while."""
_NETWORK_BITS = 64
"""What of an IPv6 address counts: whoever has one address has a network of these."""


class AccessLimits:
    """The limits of one gateway; they begin anew when it starts."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        """`per_minute` requests with each token; 0 is without a limit."""
        self._requests = Buckets(per_minute, clock) if per_minute else None
        self._failures = Buckets(FAILURES_PER_MINUTE, clock)
        self._good: OrderedDict[bytes, None] = OrderedDict()
        """Digests of tokens that were valid, the one that was shown last at the end."""

    def use(self, credential: str) -> None:
        """One request with this credential. Raises `RateLimited`."""
        if self._requests is None:
            return
        state = self._requests.take(credential)
        if not state.allowed:
            raise RateLimited("requests with one token", state)

    def check(self, address: str, token: str) -> None:
        """May this address show this token? Raises `RateLimited`.

        A token that was valid before is always looked at: behind a proxy all clients have
        one address, and one of them must not lock out the others.
        """
        state = self._failures.look(_place(address))
        if not state.allowed and _digest(token) not in self._good:
            raise RateLimited("wrong tokens from one address", state)

    def succeeded(self, token: str) -> None:
        """It was valid."""
        digest = _digest(token)
        self._good[digest] = None
        self._good.move_to_end(digest)
        if len(self._good) > MAX_BUCKETS:
            self._good.popitem(last=False)

    def failed(self, address: str) -> None:
        """It was not."""
        self._failures.take(_place(address))


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _place(address: str) -> str:
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if found.version == 4 or found.ipv4_mapped is not None:
        return str(found if found.version == 4 else found.ipv4_mapped)
    return str(ipaddress.ip_network((int(found), _NETWORK_BITS), strict=False))
