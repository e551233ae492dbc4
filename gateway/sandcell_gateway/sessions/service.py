"""What can be done with sessions; every method checks that the caller owns it."""

from __future__ import annotations

import asyncio
import sys
import uuid
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from sandcell_gateway.auth import Principal
from sandcell_gateway.clock import now
from sandcell_gateway.errors import (
    BadRequest,
    NameTaken,
    OutOfIdentities,
    SessionEnded,
    SessionNotFound,
    ShimLost,
    ShimUnreachable,
)
from sandcell_gateway.identity import IdentityError, pick_uid
from sandcell_gateway.images import Image, ImageError
from sandcell_gateway.journal.records import Entry
from sandcell_gateway.sessions import limits
from sandcell_gateway.sessions.control import read_journal
from sandcell_gateway.sessions.engines import Chosen, EngineChoice
from sandcell_gateway.sessions.events import EventLog, Happening
from sandcell_gateway.sessions.keeper import RUNNING, Keeper
from sandcell_gateway.sessions.patience import Patience
from sandcell_gateway.sessions.places import Places
from sandcell_gateway.sessions.reconciler import Reconciler
from sandcell_gateway.sessions.view import row_reason, stored_model
from sandcell_gateway.settings import GatewaySettings
from sandcell_gateway.shim.spec import ShimSpec
from sandcell_gateway.splice import Upstream, connect
from sandcell_gateway.store.sessions import Duplicate, Order, Query, SessionStore
from sandcell_gateway.store.tables import SessionRow
from sandcell_wire.models import (
    LimitsModel,
    SessionCreate,
    SessionList,
    SessionModel,
    SessionUpdate,
)
from sandcell_wire.states import FINAL, LIVE, Status

LANGUAGES = ("python",)
MAX_WAIT = 300.0
"""Most seconds that a create waits for the session to be ready."""
CLOSE_WAIT = 60.0
"""Seconds that a close waits for its end before it answers with the present status."""
RESTART_TIMEOUT = 120.0
"""Seconds for a fresh interpreter."""
PAUSE_TIMEOUT = 60.0
"""Seconds for all processes of a session to stop, or to go on."""
REPORT_TIMEOUT = 2.0
"""Seconds for a report of what was done already."""
INTERRUPT_TIMEOUT = 10.0
ATTACH_TIMEOUT = 20.0
"""Seconds that a channel waits for a shim that is being started."""
ATTACH_RETRY = 0.05
UID_TRIES = 8
LOOK = 60.0
"""Seconds after which who waits for an event looks again whether one came."""


@dataclass(frozen=True)
class Page:
    """Which part of a list is wanted."""

    limit: int
    offset: int


class SessionService:
    """The gateway's sessions."""

    def __init__(
        self,
        settings: GatewaySettings,
        store: SessionStore,
        reconciler: Reconciler,
        *,
        embedded: bool,
    ) -> None:
        self._settings = settings
        self._store = store
        self._reconciler = reconciler
        self._embedded = embedded
        self.engine = EngineChoice(settings.engine)

    # Life and death ------------------------------------------------------------------

    async def create(
        self, principal: Principal, wanted: SessionCreate, session_id: str
    ) -> SessionModel:
        """Make the session with this new id, or complete the making that was cut short.

        Raises `NameTaken`, `BadRequest`, `EngineUnavailable` or `OutOfIdentities`; then
        nothing was made.
        """
        row = await self._store.get(session_id)
        if row is not None:
            return await self._complete(row, wanted)
        if wanted.language not in LANGUAGES:
            raise BadRequest(
                f"language: expected one of {', '.join(LANGUAGES)}, got {wanted.language!r}"
            )
        image = await self._image(wanted.image)
        engine = await self.engine.get()
        row = await self._insert(principal, wanted, session_id, image, engine)
        try:
            await self._place(row, wanted)
        except BaseException:
            await self._store.remove(row.id)
            await asyncio.to_thread(Places.of(self._settings, row.id).remove)
            raise
        return self._reconciler.keep(row).model

    async def _complete(self, row: SessionRow, wanted: SessionCreate) -> SessionModel:
        """The gateway was killed after it had stored the row."""
        keeper = self._reconciler.get(row.id)
        if keeper is None or keeper.closing:
            return _model(row, keeper)
        if not Places.of(self._settings, row.id).spec.exists():
            await self._place(row, wanted)
            await keeper.revive(None)
        return keeper.model

    async def settled(self, made: SessionModel, wait: float) -> SessionModel:
        """The session as it is when it has left `initializing`, or after `wait` seconds."""
        keeper = self._reconciler.get(str(made.id))
        if keeper is None:
            row = await self._store.get(str(made.id))
            return made if row is None else stored_model(row)
        if wait > 0:
            await keeper.changed.until(
                lambda: keeper.status is not Status.INITIALIZING, min(wait, MAX_WAIT)
            )
        return keeper.model

    async def _image(self, prefix: str | None) -> str:
        if prefix is None:
            return sys.prefix
        if not self._embedded:
            raise BadRequest("image: only an embedded gateway accepts one", "leave `image` out")
        try:
            image = await asyncio.to_thread(Image.of_prefix, Path(prefix))
        except (ImageError, OSError) as error:
            raise BadRequest(f"image: {error}") from error
        return str(image.prefix)

    async def _insert(
        self,
        principal: Principal,
        wanted: SessionCreate,
        session_id: str,
        image: str,
        engine: Chosen,
    ) -> SessionRow:
        for _ in range(UID_TRIES):
            live = await self._store.live()
            moment = now()
            row = SessionRow(
                id=session_id,
                owner=principal.owner,
                name=wanted.name,
                language=wanted.language,
                labels=wanted.metadata,
                interpreter=wanted.interpreter or uuid.uuid4().hex,
                image=image,
                engine=engine.name,
                isolated=engine.isolated,
                limits=limits.decide(wanted.limits, self._settings, engine.soft).model_dump(),
                uid=await asyncio.to_thread(_free_uid, live),
                status=Status.INITIALIZING.value,
                desired=RUNNING,
                created_at=moment,
                updated_at=moment,
                unused_since=moment,
            )
            try:
                await self._store.add(row)
            except Duplicate as error:
                if error.column == "name":
                    raise NameTaken(str(wanted.name)) from error
            else:
                return row
        raise OutOfIdentities("too many sessions are made at once", "try again")

    async def _place(self, row: SessionRow, wanted: SessionCreate) -> None:
        places = Places.of(self._settings, row.id)
        spec = ShimSpec(
            session_id=row.id,
            engine=row.engine,
            interpreter=row.interpreter,
            state_dir=str(places.state),
            socket_dir=str(places.runtime),
            image=row.image,
            language=row.language,
            env=dict(wanted.env),
            uid=row.uid,
            limits=limits.for_engine(LimitsModel(**row.limits)),
            journal_bytes=self._settings.journal_bytes,
        )
        await asyncio.to_thread(places.make, row.uid)
        await asyncio.to_thread(spec.write)

    async def close(
        self,
        principal: Principal,
        session_id: str,
        grace: float = 0.0,
        client: str | None = None,
    ) -> SessionModel:
        """Close now, or after `grace` seconds in which nobody attached. Harmless when closed.

        With `client` because that client leaves: others that are attached keep it open.
        """
        row, keeper = await self._find(principal, session_id)
        if keeper is None:
            return stored_model(row)
        if grace > 0:
            await keeper.put_off(grace, client)
        elif client is None or not keeper.attached(but=client):
            await keeper.close()
            await keeper.changed.until(lambda: keeper.final, CLOSE_WAIT)
        return keeper.model

    # Looking -------------------------------------------------------------------------

    async def _find(
        self, principal: Principal, session_id: str
    ) -> tuple[SessionRow, Keeper | None]:
        """A session's row, and who keeps it. Raises `SessionNotFound`."""
        # One that goes while the row is read knows more than the row.
        before = self._reconciler.get(session_id)
        row = await self._store.get(session_id)
        if row is None or row.owner != principal.owner:
            raise SessionNotFound(session_id)
        return row, before or self._reconciler.get(session_id)

    async def get(
        self,
        principal: Principal,
        session_id: str,
        until: frozenset[Status] = frozenset(),
        wait: float = 0.0,
    ) -> SessionModel:
        """One session; when it is in one of these statuses, or after `wait` seconds.

        A session that has ended is not waited for. Raises `SessionNotFound`.
        """
        row, keeper = await self._find(principal, session_id)
        if keeper is not None and until and wait > 0:
            await keeper.changed.until(
                lambda: keeper.status in until or keeper.final, min(wait, MAX_WAIT)
            )
        return _model(row, keeper)

    async def events(
        self, principal: Principal, session_id: str, last: str | None
    ) -> AsyncGenerator[Happening]:
        """What happens to it, from behind this event on; ends with it.

        Raises `SessionNotFound`, at once.
        """
        row, keeper = await self._find(principal, session_id)
        return _ended(row) if keeper is None else _follow(keeper, last)

    async def list(
        self,
        principal: Principal,
        page: Page,
        *,
        statuses: frozenset[Status] = LIVE,
        labels: frozenset[tuple[str, str]] = frozenset(),
        search: str | None = None,
        order_by: Order = "-created_at",
    ) -> SessionList:
        """A page of the owner's sessions; live ones unless other statuses are named."""
        # A stored status may be behind what the shim reported, so all live rows are read.
        stored = (statuses & FINAL) | (LIVE if statuses & LIVE else frozenset[Status]())
        query = Query(principal.owner, stored, labels, search, order_by)
        before = self._reconciler.keepers  # as in `_find`
        models = [
            _model(row, before.get(row.id) or self._reconciler.get(row.id))
            for row in await self._store.find(query)
        ]
        found = [model for model in models if model.status in statuses]
        part: Sequence[SessionModel] = found[page.offset : page.offset + page.limit]
        return SessionList(
            sessions=list(part), total=len(found), limit=page.limit, offset=page.offset
        )

    async def count(self, principal: Principal) -> dict[Status, int]:
        """How many of the owner's sessions are in each status, those with none included."""
        rows = await self._store.find(Query(principal.owner, frozenset(Status)))
        keepers = self._reconciler.keepers
        found = Counter(
            keepers[row.id].status if row.id in keepers else Status(row.status) for row in rows
        )
        return {status: found[status] for status in Status}

    # Doing ---------------------------------------------------------------------------

    async def keeper(self, principal: Principal, session_id: str) -> Keeper:
        """Who keeps this session. Raises `SessionNotFound` or `SessionEnded`."""
        row, keeper = await self._find(principal, session_id)
        if keeper is None or keeper.final or keeper.closing:
            raise SessionEnded(session_id, row.status, row.reason_text)
        return keeper

    async def update(
        self, principal: Principal, session_id: str, wanted: SessionUpdate
    ) -> SessionModel:
        """Change name and labels. Raises `SessionEnded`, `NameTaken` or `BadRequest`."""
        keeper = await self.keeper(principal, session_id)
        await keeper.update(wanted)
        return keeper.model

    async def restart(
        self, principal: Principal, session_id: str, interpreter: str | None
    ) -> SessionModel:
        """A fresh interpreter; files stay. Answers when it is ready.

        Raises `SessionEnded`, `ShimUnreachable` or `ShimRefused`.
        """
        keeper = await self.keeper(principal, session_id)
        if await keeper.revive(interpreter):
            await keeper.changed.until(
                lambda: keeper.status is not Status.INITIALIZING, RESTART_TIMEOUT
            )
        else:
            args = {"interpreter": interpreter} if interpreter else {}
            await keeper.request("restart", args, RESTART_TIMEOUT)
        return keeper.model

    async def pause(self, principal: Principal, session_id: str) -> SessionModel:
        """Freeze it. Raises `SessionEnded`, `ShimUnreachable` or `ShimRefused`."""
        return await self._move(principal, session_id, "pause", lambda now: now is Status.PAUSED)

    async def resume(self, principal: Principal, session_id: str) -> SessionModel:
        """Let it go on. Raises as `pause`."""
        return await self._move(
            principal, session_id, "resume", lambda now: now is not Status.PAUSED
        )

    async def _move(
        self, principal: Principal, session_id: str, op: str, done: Callable[[Status], bool]
    ) -> SessionModel:
        """Have the shim do it, and wait a moment for its report of that."""
        await self.ask(principal, session_id, op, {}, PAUSE_TIMEOUT)
        keeper = await self.keeper(principal, session_id)
        await keeper.changed.until(lambda: done(keeper.status), REPORT_TIMEOUT)
        return keeper.model

    async def interrupt(self, principal: Principal, session_id: str) -> SessionModel:
        """Interrupt whatever runs. Raises `SessionEnded` or `ShimUnreachable`."""
        keeper = await self.keeper(principal, session_id)
        await keeper.request("interrupt", {}, INTERRUPT_TIMEOUT)
        return keeper.model

    async def ask(
        self,
        principal: Principal,
        session_id: str,
        op: str,
        args: Mapping[str, Any],
        timeout: float,
    ) -> dict[str, Any]:
        """A request to the session's shim (docs/protocol.md, "Gateway and shim").

        Only for what can be asked twice: a shim that is lost meanwhile is replaced, and the
        next one is asked. Raises `SessionNotFound`, `SessionEnded`, `ShimUnreachable` or
        `ShimRefused`.
        """
        patience = Patience()
        while True:
            keeper = await self.keeper(principal, session_id)
            try:
                return await keeper.request(op, args, timeout)
            except ShimLost as error:
                await patience.away(error)

    async def journal(
        self, principal: Principal, session_id: str, first: int, last: int | None
    ) -> AsyncGenerator[Entry]:
        """The entries of the session's journal between these records. Raises as `ask`."""
        keeper = await self.keeper(principal, session_id)
        async for entry in read_journal(keeper.socket, first, last):
            yield entry

    # Channels ------------------------------------------------------------------------

    @asynccontextmanager
    async def attach(
        self, principal: Principal, session_id: str, query: dict[str, str]
    ) -> AsyncGenerator[Upstream]:
        """An open channel to the session's shim; withdraws a pending close.

        Raises `SessionNotFound`, `SessionEnded` or `ShimUnreachable`.
        """
        keeper = await self.keeper(principal, session_id)
        client = query.get("client", "")
        keeper.attach(client)
        try:
            await keeper.withdraw()
            upstream = await self._connect(keeper, query)
            try:
                yield upstream
            finally:
                upstream.close()
        finally:
            keeper.detach(client)

    async def _connect(self, keeper: Keeper, query: dict[str, str]) -> Upstream:
        path = str(keeper.socket)
        target = f"/channels?{urlencode(query)}"
        failure: BaseException | None = None
        try:
            async with asyncio.timeout(ATTACH_TIMEOUT):
                while not keeper.given_up:
                    await keeper.changed.until(
                        lambda: keeper.reachable or keeper.given_up, ATTACH_TIMEOUT
                    )
                    try:
                        return await connect(path, target)
                    except OSError as error:
                        # The shim ended just now, and another is on its way.
                        failure = error
                    await asyncio.sleep(ATTACH_RETRY)
        except TimeoutError as error:
            failure = error
        why = keeper.reason.text if keeper.reason else "its supervisor does not answer"
        raise ShimUnreachable(f"the session cannot be reached: {why}", "restart it") from failure

    def is_final(self, session_id: str) -> bool:
        """Whether a session can not come back."""
        keeper = self._reconciler.get(session_id)
        return keeper is None or keeper.closing or keeper.final

    @property
    def live(self) -> int:
        """How many sessions, of all owners, are not final."""
        return self._reconciler.live


def _free_uid(live: Sequence[SessionRow]) -> int | None:
    try:
        return pick_uid({row.uid for row in live if row.uid is not None})
    except IdentityError as error:
        raise OutOfIdentities(str(error)) from error


async def _ended(row: SessionRow) -> AsyncGenerator[Happening]:
    for happening in EventLog(row.id, Status(row.status), row_reason(row)).since(None):
        yield happening


async def _follow(keeper: Keeper, last: str | None) -> AsyncGenerator[Happening]:
    events = keeper.events
    while True:
        for happening in events.since(last):
            yield happening
            last = happening.id or last
        if keeper.final and not events.has_newer(last):
            return
        await keeper.changed.until(partial(events.has_newer, last), LOOK)


def _model(row: SessionRow, keeper: Keeper | None) -> SessionModel:
    return stored_model(row) if keeper is None else keeper.model
