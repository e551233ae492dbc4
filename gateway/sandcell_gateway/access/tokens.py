"""Opaque tokens: made, recognised, listed and revoked. The store knows their hashes only."""

from __future__ import annotations

import hashlib
import re
import secrets
import uuid
from datetime import datetime, timedelta

import structlog
from sqlalchemy.exc import OperationalError

from sandcell_gateway.access.leases import EXPIRED, REVOKED, Lease, Leases
from sandcell_gateway.auth import Principal
from sandcell_gateway.clock import now
from sandcell_gateway.errors import NotTheirs, TokenEnded, TokenNotFound, TooManyTokens
from sandcell_gateway.store.database import to_the_end
from sandcell_gateway.store.tables import TokenRow
from sandcell_gateway.store.tokens import TokenStore
from sandcell_wire.scopes import Scope
from sandcell_wire.tokens import NewToken, TokenCreate, TokenList, TokenModel

PREFIX = "sc_"
"""Shows people, and programs that look for leaked secrets, what it is."""
SECRET_BYTES = 32
USE_STEP = timedelta(minutes=1)
"""How exactly `last_used_at` is known."""
MAX_TOKENS = 1000
"""Most valid tokens of one owner."""
KEPT = timedelta(days=90)
"""How long a token is listed that has ended."""

_SHAPE = re.compile(r"sc_[A-Za-z0-9_-]{43}")
_log = structlog.get_logger(__name__)


def new_secret() -> str:
    """A new token."""
    return PREFIX + secrets.token_urlsafe(SECRET_BYTES)


def digest(secret: str) -> str:
    """What is stored of it, in hexadecimal digits: the secret is random, so it needs no salt."""
    return hashlib.sha256(secret.encode()).hexdigest()


class TokenService:
    """The tokens of a gateway, which is the only one that uses the store."""

    def __init__(self, store: TokenStore, leases: Leases) -> None:
        self._store = store
        self._leases = leases
        self._revocations = 0
        """How many there were since the start."""

    async def principal(self, token: str) -> Principal | None:
        """Whose it is; None if it is none of ours. Raises `TokenEnded`."""
        if _SHAPE.fullmatch(token) is None:
            return None
        while True:
            # One that is revoked while it is read here must not get through: read it again.
            revocations = self._revocations
            row = await self._store.by_hash(digest(token))
            if row is None:
                return None
            moment = now()
            if row.revoked_at is not None:
                raise TokenEnded(REVOKED)
            if row.expires_at is not None and row.expires_at <= moment:
                raise TokenEnded(EXPIRED)
            if row.last_used_at is None or moment - row.last_used_at >= USE_STEP:
                await self._used(row, moment)
            if revocations == self._revocations:
                return _principal(row)

    async def _used(self, row: TokenRow, moment: datetime) -> None:
        try:
            await self._store.used(row.id, moment)
        except OperationalError as error:
            # Such as a full disk, on which everything else may go on.
            _log.warning("the use of a token was not noted", token=row.id, error=str(error.orig))

    async def create(self, caller: Principal, wanted: TokenCreate) -> NewToken:
        """Make one for the caller's owner, or, asked by the operator, for any.

        Raises `NotTheirs` or `TooManyTokens`.
        """
        owner = wanted.owner or caller.owner
        if owner != caller.owner and not caller.operator:
            raise NotTheirs(owner, caller.owner)
        moment, secret = now(), new_secret()
        seconds = wanted.expires_in
        row = TokenRow(
            id=str(uuid.uuid4()),
            owner=owner,
            name=wanted.name,
            hash=digest(secret),
            scopes=[scope.value for scope in Scope if scope in wanted.scopes],
            created_at=moment,
            expires_at=None if seconds is None else moment + timedelta(seconds=seconds),
        )
        if not await self._store.add(row, moment, moment - KEPT, MAX_TOKENS):
            raise TooManyTokens(owner, MAX_TOKENS)
        _log.info("token made", token=row.id, name=row.name, owner=owner, scopes=row.scopes)
        return NewToken(**_model(row).model_dump(), token=secret)

    async def page(self, caller: Principal, limit: int, offset: int) -> TokenList:
        """A page of the owner's, the newest first; all owners' for the operator."""
        rows, total = await self._store.page(_reach(caller), limit, offset)
        return TokenList(
            tokens=[_model(row) for row in rows], total=total, limit=limit, offset=offset
        )

    async def revoke(self, caller: Principal, token_id: str, own: Lease) -> TokenModel:
        """End it at once, and what is open with it. Harmless when it has ended.

        `own` is the lease of the request that asks, which is answered in any case. Raises
        `TokenNotFound`.
        """
        # What is stored must be told to the leases, whatever becomes of the caller.
        return await to_the_end(self._revoke(caller, token_id, own))

    async def _revoke(self, caller: Principal, token_id: str, own: Lease) -> TokenModel:
        row = await self._store.revoke(token_id, _reach(caller), now())
        if row is None:
            raise TokenNotFound(token_id)
        self._revocations += 1
        self._leases.revoke(_credential(row), but=own)
        _log.info("token revoked", token=row.id, name=row.name, owner=row.owner)
        return _model(row)


def _reach(caller: Principal) -> str | None:
    """Whose tokens the caller may manage; None: everybody's."""
    return None if caller.operator else caller.owner


def _credential(row: TokenRow) -> str:
    return f"token:{row.id}"


def _principal(row: TokenRow) -> Principal:
    scopes = frozenset(map(Scope, row.scopes))
    return Principal(row.owner, scopes, _credential(row), row.expires_at)


def _model(row: TokenRow) -> TokenModel:
    return TokenModel(
        id=uuid.UUID(row.id),
        name=row.name,
        owner=row.owner,
        scopes=[Scope(word) for word in row.scopes],
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        last_used_at=row.last_used_at,
    )
