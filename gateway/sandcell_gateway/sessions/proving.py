"""Signs the journals of live sessions, and compares them with what was signed.

For each session a task runs beside its keeper. When a shim is found that this gateway
has not spoken to, because the shim or the gateway is another one, the journal is read
once and compared with all proofs of it. Then it is signed whenever it has grown by an
interval, and when the gateway ends.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog

from sandcell_gateway.clock import now
from sandcell_gateway.errors import GatewayError
from sandcell_gateway.journal.records import Damaged, parse_all
from sandcell_gateway.proofs.check import Examination
from sandcell_gateway.proofs.keys import SigningKeys
from sandcell_gateway.proofs.proof import (
    NotAProof,
    Proof,
    Statement,
    WrongSignature,
    bounded,
    moment,
)
from sandcell_gateway.sessions.control import ControlLink, read_raw
from sandcell_gateway.sessions.keeper import Keeper, Shim
from sandcell_gateway.settings import GatewaySettings
from sandcell_gateway.store.database import to_the_end
from sandcell_gateway.store.proofs import ProofStore
from sandcell_gateway.store.tables import ProofRow
from sandcell_wire.control import ControlError
from sandcell_wire.states import JournalState

TIMEOUT = 20.0
"""Seconds for a shim to answer, its disk included."""
WATCH_SECONDS = 300.0
"""Seconds after which a shim answers that the interval has not passed yet."""
LEAVE_SECONDS = 2.0
"""Seconds that the gateway's end may take longer for the sake of proofs."""
FIRST_RETRY = 0.5
LAST_RETRY = 60.0
"""Seconds after a failure; doubled each time."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Tip:
    """The end of a journal, as its shim says."""

    seq: int
    chain: str
    holes: list[tuple[int, int]]
    due: bool
    """Whether it has grown by what was asked for."""

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> Tip:
        """Read a shim's answer to `head`. Raises `ControlError`."""
        try:
            holes = [(int(first), int(last)) for first, last in answer["holes"]]
            chain = bytes.fromhex(answer["chain"]).hex()
            return cls(int(answer["seq"]), chain, holes, bool(answer["due"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ControlError(f"an answer with seq, chain, holes and due: {error}") from error


class Prover:
    """Makes proofs with the gateway's key."""

    def __init__(self, proofs: ProofStore, keys: SigningKeys, settings: GatewaySettings) -> None:
        self.keys = keys
        self._proofs = proofs
        self._interval = {
            "executions": settings.proof_executions,
            "bytes": int(settings.proof_bytes),
        }
        self._signing = asyncio.Lock()
        self._comparing = asyncio.Lock()

    # Signing -----------------------------------------------------------------------

    async def prove(self, keeper: Keeper) -> ProofRow:
        """Sign the journal as it is now; what says the same already is given again.

        Raises what `Keeper.request` raises.
        """
        return await self._sign(keeper, Tip.of(await keeper.request("head", {}, TIMEOUT)))

    async def _sign(self, keeper: Keeper, tip: Tip) -> ProofRow:
        session_id = keeper.row.id
        async with self._signing:
            found = await to_the_end(
                self._proofs.find(session_id, tip.seq, tip.chain, self.keys.id)
            )
            if found is not None:
                return found
            _, earlier = await to_the_end(self._proofs.page(session_id, 1, 0))
            row = self._row(keeper, tip, now())
            await to_the_end(self._proofs.add(row))
        if not earlier:
            # Nothing that was signed can have been altered before it was signed.
            keeper.journal = JournalState.INTACT
        return row

    def _row(self, keeper: Keeper, tip: Tip, when: datetime) -> ProofRow:
        statement = Statement(
            session=keeper.row.id,
            seq=tip.seq,
            chain=tip.chain,
            time=moment(when),
            key=self.keys.id,
            attestable=keeper.row.isolated,
            holes=bounded(tip.holes),
        )
        proof = self.keys.sign(statement)
        return ProofRow(
            session_id=statement.session,
            seq=tip.seq,
            chain=tip.chain,
            signed_at=datetime.fromisoformat(statement.time),
            key_id=statement.key,
            signature=proof.signature,
            statement=proof.text,
        )

    async def leave(self, keepers: Iterable[Keeper]) -> None:
        """Sign what the next gateway will find; gives up after `LEAVE_SECONDS`."""
        if any(self._interval.values()):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LEAVE_SECONDS):
                    await asyncio.gather(*(self._leave(keeper) for keeper in keepers))

    async def _leave(self, keeper: Keeper) -> None:
        if keeper.link is None or keeper.closing:
            return
        try:
            tip = Tip.of(await keeper.link.request("head", timeout=LEAVE_SECONDS))
            if tip.seq:
                await self._sign(keeper, tip)
        except (GatewayError, ControlError) as error:
            _log.warning("left without a proof", session=keeper.row.id, error=str(error))

    # Beside the keeper -----------------------------------------------------------------

    async def accompany(self, keeper: Keeper) -> None:
        """Compare and sign as long as the session is kept: until cancelled."""
        compared: Shim | None = None
        retry = FIRST_RETRY
        while True:
            await keeper.changed.until(lambda: keeper.link is not None, WATCH_SECONDS)
            shim, link = keeper.shim, keeper.link
            if link is None:
                continue
            try:
                if shim is not compared:
                    await self._compare(keeper)
                    compared = shim
                await self._sign_when_due(keeper, link)
                retry = FIRST_RETRY
            except Exception as error:
                _tell_failure(keeper, error)
                await asyncio.sleep(retry)
                retry = min(2 * retry, LAST_RETRY)

    async def _sign_when_due(self, keeper: Keeper, link: ControlLink) -> None:
        if not any(self._interval.values()):
            await keeper.changed.until(lambda: keeper.link is not link, WATCH_SECONDS)
            return
        newest, _ = await to_the_end(self._proofs.page(keeper.row.id, 1, 0))
        after = newest[0].seq if newest else 0
        wanted = {**self._interval, "after": after, "seconds": WATCH_SECONDS}
        tip = Tip.of(await link.request("head", wanted, timeout=WATCH_SECONDS + TIMEOUT))
        if tip.due:
            await self._sign(keeper, tip)

    async def _compare(self, keeper: Keeper) -> None:
        """Read the whole journal, one session at a time, and note what came of it."""
        async with self._comparing:
            rows = await to_the_end(self._proofs.all(keeper.row.id))
            statements = await asyncio.to_thread(self._believed, keeper, rows)
            if not statements:
                return
            examination = Examination(statements)
            async with contextlib.aclosing(read_raw(keeper.socket, 1, None)) as journal:
                async for data in journal:
                    # In a thread: there may be much to hash.
                    await asyncio.to_thread(_examine, examination, data)
            examination.finish()
        self._note(keeper, examination)

    def _believed(self, keeper: Keeper, rows: Iterable[ProofRow]) -> list[Statement]:
        found: list[Statement] = []
        for row in rows:
            try:
                found.append(_checked(row, self.keys.public.get(row.key_id, "")))
            except (NotAProof, WrongSignature) as error:
                _log.error(
                    "a stored proof cannot be used",
                    session=keeper.row.id,
                    seq=row.seq,
                    key=row.key_id,
                    error=str(error),
                )
        return found

    def _note(self, keeper: Keeper, examination: Examination) -> None:
        log = _log.bind(session=keeper.row.id, proven=examination.proven)
        if examination.difference is not None:
            keeper.journal = JournalState.ALTERED
            log.error("the journal is not the one that was signed", at=str(examination.difference))
        elif examination.confirmed:
            keeper.journal = JournalState.INTACT
            log.info("the journal is the one that was signed", records=examination.found.seq)
        else:
            keeper.journal = JournalState.UNPROVEN
            log.warning("nothing is left of the journal that was signed")
        keeper.changed.notify()


def _checked(row: ProofRow, key: str) -> Statement:
    """What was signed, if it is about the row's session. Raises as `Proof.check`."""
    statement = Proof(row.statement, row.signature).check(key)
    if statement.session != row.session_id:
        raise NotAProof(f"it is about session {statement.session}")
    return statement


def _examine(examination: Examination, data: bytes) -> None:
    try:
        for head, body in parse_all(data):
            examination.take(head, body)
    except Damaged as error:
        examination.damaged(str(error))


def _tell_failure(keeper: Keeper, error: Exception) -> None:
    if isinstance(error, GatewayError | ControlError):
        _log.debug("no proof now", session=keeper.row.id, error=str(error))
    else:
        _log.error("proving failed", session=keeper.row.id, exc_info=error)
