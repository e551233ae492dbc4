"""Token buckets: so many requests a minute for each key, in bursts as the key likes. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

MINUTE = 60.0
MAX_BUCKETS = 10_000
"""Most keys that are remembered; beyond it the one that was used least recently is forgotten,
as if it had been idle for a minute."""


@dataclass(frozen=True)
class BucketState:
    """A bucket after it was looked at."""

    allowed: bool
    """Whether there was one left."""
    limit: int
    """How many fit in: as many as flow in within a minute."""
    remaining: int
    """Whole ones that are left."""
    reset: float
    """Seconds until it is full."""
    retry_after: float
    """Seconds until there is one; 0 while there is."""


@dataclass
class _Bucket:
    level: float
    at: float


class Buckets:
    """One bucket for each key; a key that was never seen has a full one."""

    def __init__(
        self, per_minute: int, clock: Callable[[], float], *, most: int = MAX_BUCKETS
    ) -> None:
        """`clock` tells seconds and never goes back."""
        self._limit = per_minute
        self._rate = per_minute / MINUTE
        self._clock = clock
        self._most = most
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, key: str) -> BucketState:
        """Take one out, if there is one."""
        bucket = self._filled(key)
        allowed = bucket.level >= 1
        if allowed:
            bucket.level -= 1
        self._buckets[key] = bucket
        self._buckets.move_to_end(key)
        if len(self._buckets) > self._most:
            self._buckets.popitem(last=False)
        return self._state(bucket, allowed)

    def look(self, key: str) -> BucketState:
        """The same without taking any."""
        bucket = self._filled(key)
        return self._state(bucket, bucket.level >= 1)

    def _filled(self, key: str) -> _Bucket:
        """The bucket with what has flown in until now."""
        now = self._clock()
        bucket = self._buckets.get(key) or _Bucket(self._limit, now)
        bucket.level = min(self._limit, bucket.level + (now - bucket.at) * self._rate)
        bucket.at = now
        return bucket

    def _state(self, bucket: _Bucket, allowed: bool) -> BucketState:
        return BucketState(
            allowed=allowed,
            limit=self._limit,
            remaining=int(bucket.level),
            reset=(self._limit - bucket.level) / self._rate,
            retry_after=max(0.0, (1 - bucket.level) / self._rate),
        )
