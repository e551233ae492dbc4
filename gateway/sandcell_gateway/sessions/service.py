"""What can be done with sessions; every method checks that the caller owns it."""

from __future__ import annotations

import asyncio
import sys
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlencode

from sandcell_gateway.auth import Principal
from sandcell_gateway.errors import (
    BadRequest,
    NameTaken,
    OutOfIdentities,
    SessionEnded,
    SessionNotFound,
    ShimUnreachable,
)
from sandcell_gateway.identity import IdentityError, pick_uid
from sandcell_gateway.images import Image, ImageError
from sandcell_gateway.sessions.engines import Chosen, EngineChoice
from sandcell_gateway.sessions.keeper import RUNNING, Keeper, now
from sandcell_gateway.sessions.places import Places
from sandcell_gateway.sessions.reconciler import Reconciler
from sandcell_gateway.sessions.view import stored_model
from sandcell_gateway.settings import GatewaySettings
from sandcell_gateway.shim.spec import ShimSpec
from sandcell_gateway.splice import Upstream, connect
from sandcell_gateway.store.sessions import Duplicate, Order, Query, SessionStore
from sandcell_gateway.store.tables import SessionRow
from sandcell_wire.models import SessionCreate, SessionList, SessionModel
from sandcell_wire.states import FINAL, LIVE, Status

LANGUAGES = ("python",)
MAX_WAIT = 300.0
"""Most seconds that a create waits for the session to be ready."""
CLOSE_WAIT = 60.0
"""Seconds that a close waits for its end before it answers with the present status."""
RESTART_TIMEOUT = 120.0
"""Seconds for a fresh interpreter."""
INTERRUPT_TIMEOUT = 10.0
ATTACH_TIMEOUT = 20.0
"""Seconds that a channel waits for a shim that is being started."""
ATTACH_RETRY = 0.05
UID_TRIES = 8


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
        self, principal: Principal, wanted: SessionCreate, wait: float = 0.0
    ) -> SessionModel:
        """Make a session; answers when it left `initializing`, or after `wait` seconds.

        Raises `NameTaken`, `BadRequest`, `EngineUnavailable` or `OutOfIdentities`.
        """
        if wanted.language not in LANGUAGES:
            raise BadRequest(
                f"language: expected one of {', '.join(LANGUAGES)}, got {wanted.language!r}"
            )
        image = await self._image(wanted.image)
        engine = await self.engine.get()
        row = await self._insert(principal, wanted, image, engine)
        keeper = await self._place(row, wanted)
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
        self, principal: Principal, wanted: SessionCreate, image: str, engine: Chosen
    ) -> SessionRow:
        for _ in range(UID_TRIES):
            live = await self._store.live()
            moment = now()
            row = SessionRow(
                id=str(uuid.uuid4()),
                owner=principal.owner,
                name=wanted.name,
                language=wanted.language,
                labels=wanted.metadata,
                interpreter=wanted.interpreter or uuid.uuid4().hex,
                image=image,
                engine=engine.name,
                isolated=engine.isolated,
                uid=await asyncio.to_thread(_free_uid, live),
                status=Status.INITIALIZING.value,
                desired=RUNNING,
                created_at=moment,
                updated_at=moment,
            )
            try:
                await self._store.add(row)
            except Duplicate as error:
                if error.column == "name":
                    raise NameTaken(str(wanted.name)) from error
            else:
                return row
        raise OutOfIdentities("too many sessions are made at once", "try again")

    async def _place(self, row: SessionRow, wanted: SessionCreate) -> Keeper:
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
        )
        try:
            await asyncio.to_thread(places.make, row.uid)
            await asyncio.to_thread(spec.write)
        except BaseException:
            await self._store.remove(row.id)
            await asyncio.to_thread(places.remove)
            raise
        return self._reconciler.keep(row)

    async def close(
        self, principal: Principal, session_id: str, grace: float = 0.0
    ) -> SessionModel:
        """Close now, or after `grace` seconds unless somebody attaches. Harmless when closed."""
        row = await self._row(principal, session_id)
        keeper = self._reconciler.get(session_id)
        if keeper is None:
            return stored_model(row)
        await keeper.close_at(now() + timedelta(seconds=grace))
        if grace <= 0:
            await keeper.changed.until(lambda: keeper.final, CLOSE_WAIT)
        return keeper.model

    # Looking -------------------------------------------------------------------------

    async def _row(self, principal: Principal, session_id: str) -> SessionRow:
        row = await self._store.get(session_id)
        if row is None or row.owner != principal.owner:
            raise SessionNotFound(session_id)
        return row

    def _model(self, row: SessionRow) -> SessionModel:
        keeper = self._reconciler.get(row.id)
        return stored_model(row) if keeper is None else keeper.model

    async def get(self, principal: Principal, session_id: str) -> SessionModel:
        """One session. Raises `SessionNotFound`."""
        return self._model(await self._row(principal, session_id))

    async def list(
        self,
        principal: Principal,
        page: Page,
        *,
        statuses: frozenset[Status] = LIVE,
        labels: dict[str, str] | None = None,
        search: str | None = None,
        order_by: Order = "-created_at",
    ) -> SessionList:
        """A page of the owner's sessions; live ones unless other statuses are named."""
        # A stored status may be behind what the shim reported, so all live rows are read.
        stored = (statuses & FINAL) | (LIVE if statuses & LIVE else frozenset[Status]())
        query = Query(principal.owner, stored, labels or {}, search, order_by)
        models = [self._model(row) for row in await self._store.find(query)]
        found = [model for model in models if model.status in statuses]
        part: Sequence[SessionModel] = found[page.offset : page.offset + page.limit]
        return SessionList(
            sessions=list(part), total=len(found), limit=page.limit, offset=page.offset
        )

    # Doing ---------------------------------------------------------------------------

    async def _keeper(self, principal: Principal, session_id: str) -> Keeper:
        row = await self._row(principal, session_id)
        keeper = self._reconciler.get(session_id)
        if keeper is None or keeper.final or keeper.closing:
            raise SessionEnded(session_id, row.status, row.reason_text)
        return keeper

    async def restart(
        self, principal: Principal, session_id: str, interpreter: str | None
    ) -> SessionModel:
        """A fresh interpreter; files stay. Answers when it is ready.

        Raises `SessionEnded`, `ShimUnreachable` or `ShimRefused`.
        """
        keeper = await self._keeper(principal, session_id)
        if await keeper.revive(interpreter):
            await keeper.changed.until(
                lambda: keeper.status is not Status.INITIALIZING, RESTART_TIMEOUT
            )
        else:
            args = {"interpreter": interpreter} if interpreter else {}
            await keeper.request("restart", args, RESTART_TIMEOUT)
        return keeper.model

    async def interrupt(self, principal: Principal, session_id: str) -> SessionModel:
        """Interrupt whatever runs. Raises `SessionEnded` or `ShimUnreachable`."""
        keeper = await self._keeper(principal, session_id)
        await keeper.request("interrupt", {}, INTERRUPT_TIMEOUT)
        return keeper.model

    # Channels ------------------------------------------------------------------------

    @asynccontextmanager
    async def attach(
        self, principal: Principal, session_id: str, query: dict[str, str]
    ) -> AsyncGenerator[Upstream]:
        """An open channel to the session's shim; withdraws a pending close.

        Raises `SessionNotFound`, `SessionEnded` or `ShimUnreachable`.
        """
        keeper = await self._keeper(principal, session_id)
        keeper.attached += 1
        try:
            await keeper.close_at(None)
            upstream = await self._connect(keeper, query)
            try:
                yield upstream
            finally:
                upstream.close()
        finally:
            keeper.attached -= 1

    async def _connect(self, keeper: Keeper, query: dict[str, str]) -> Upstream:
        path = str(Places.of(self._settings, keeper.row.id).socket)
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
