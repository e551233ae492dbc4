"""Proofs on demand, and histories to take away."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from sandcell_gateway.auth import Principal
from sandcell_gateway.clock import now
from sandcell_gateway.proofs import archive
from sandcell_gateway.proofs.proof import Proof, Statement, moment
from sandcell_gateway.sessions.control import read_raw
from sandcell_gateway.sessions.proving import Prover
from sandcell_gateway.sessions.service import Page, SessionService
from sandcell_gateway.store.proofs import ProofStore
from sandcell_gateway.store.tables import ProofRow
from sandcell_wire.models import ProofKey, ProofKeys, ProofList, ProofModel, SessionModel


class ProofService:
    """Proofs of the sessions that a `SessionService` keeps."""

    def __init__(self, sessions: SessionService, proofs: ProofStore, prover: Prover) -> None:
        self._sessions = sessions
        self._proofs = proofs
        self._prover = prover

    async def prove(self, principal: Principal, session_id: str) -> ProofModel:
        """Sign the journal as it is now, unless that was done.

        Raises `SessionNotFound`, `SessionEnded`, `ShimUnreachable` or `ShimRefused`.
        """
        keeper = await self._sessions.keeper(principal, session_id)
        return _model(await self._prover.prove(keeper))

    async def page(self, principal: Principal, session_id: str, part: Page) -> ProofList:
        """A session's proofs, also a closed one's, the newest first. Raises `SessionNotFound`."""
        session = await self._sessions.get(principal, session_id)
        rows, total = await self._proofs.page(str(session.id), part.limit, part.offset)
        return ProofList(
            proofs=[_model(row) for row in rows], total=total, limit=part.limit, offset=part.offset
        )

    def keys(self) -> ProofKeys:
        """All public keys of this gateway."""
        keys = self._prover.keys
        return ProofKeys(
            keys=[
                ProofKey(id=name, public_key=key, signs=name == keys.id)
                for name, key in keys.public.items()
            ]
        )

    async def export(self, principal: Principal, session_id: str) -> AsyncGenerator[bytes]:
        """The session's history up to now as an archive, signed to its end, piece by piece.

        What `prove` raises is raised here, before the first piece.
        """
        keeper = await self._sessions.keeper(principal, session_id)
        newest = await self._prover.prove(keeper)
        rows = await self._proofs.all(session_id)
        proofs = [Proof(row.statement, row.signature) for row in rows]
        begin = archive.facts(
            _manifest(keeper.model), proofs, self._prover.keys.public, time.time()
        )
        # What comes later would be covered by no proof.
        return _pieces(begin, read_raw(keeper.socket, 1, newest.seq))


async def _pieces(begin: bytes, journal: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    yield begin
    number = 0
    async with aclosing(journal):
        async for data in journal:
            number += 1
            yield archive.part(number, data, time.time())
    yield archive.END


def _manifest(session: SessionModel) -> dict[str, Any]:
    return {
        "session": str(session.id),
        "name": session.name,
        "engine": session.engine,
        "isolated": session.isolated,
        "exported_at": moment(now()),
    }


def _model(row: ProofRow) -> ProofModel:
    return ProofModel.model_validate(
        {
            "session_id": row.session_id,
            "seq": row.seq,
            "chain": row.chain,
            "signed_at": row.signed_at,
            "key_id": row.key_id,
            "attestable": Statement.parse(row.statement).attestable,
            "signature": row.signature,
            "statement": row.statement,
        }
    )
