"""`Idempotency-Key`: a request that is sent again is not done again.

A key belongs to an owner and a route. Its first use notes the body's hash and the id
of what is going to be made, then the answer; a repeat gets that answer. The gateway
may be killed between any two steps: what has no answer is done again with the same
id, so that it finds what was made before.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

from pydantic import BaseModel

from sandcell_gateway.clock import now
from sandcell_gateway.errors import GatewayError, KeyReused, RequestInFlight
from sandcell_gateway.store.idempotency import KeyPlace, KeyStore
from sandcell_gateway.store.tables import KeyRow

KEY_PATTERN = r"^[\x21-\x7e]{1,255}$"
"""What a key may look like."""
KEPT = timedelta(hours=24)
"""How long a key is remembered."""

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class Keyed:
    """A request and the key that its client gave it, if any."""

    owner: str
    route: str
    key: str | None
    body: BaseModel

    def digest(self) -> str:
        """Hash of the body's meaning: the order of its fields does not matter."""
        text = json.dumps(self.body.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


class IdempotencyKeys:
    """All keys of a gateway, which is the only one that uses the store."""

    def __init__(self, store: KeyStore) -> None:
        self._store = store
        self._in_flight: dict[KeyPlace, str] = {}
        """Digests of requests that run now."""

    async def once(self, request: Keyed, model: type[M], make: Callable[[str], Awaitable[M]]) -> M:
        """The answer of `make(id)`, or the one that it gave before.

        `make` gets the id of what it makes and must stand being called again with it
        after it was cut short. A `GatewayError` of it means that nothing was made: the
        key can be used again. Without a key it is just called. Raises `KeyReused` or
        `RequestInFlight`.
        """
        if request.key is None:
            return await make(str(uuid.uuid4()))
        place = KeyPlace(request.owner, request.route, request.key)
        digest = request.digest()
        running = self._in_flight.get(place)
        if running is not None:
            raise RequestInFlight if running == digest else KeyReused
        self._in_flight[place] = digest
        try:
            return await self._once(place, digest, model, make)
        finally:
            del self._in_flight[place]

    async def _once(
        self, place: KeyPlace, digest: str, model: type[M], make: Callable[[str], Awaitable[M]]
    ) -> M:
        moment = now()
        new = KeyRow(**place._asdict(), body=digest, made=str(uuid.uuid4()), created_at=moment)
        row = await self._store.begin(new, moment - KEPT)
        if row.body != digest:
            raise KeyReused
        if row.answer is not None:
            return model.model_validate(row.answer)
        try:
            answer = await make(row.made)
        except GatewayError:
            await self._store.forget(place)
            raise
        await self._store.finish(place, answer.model_dump(mode="json"))
        return answer
