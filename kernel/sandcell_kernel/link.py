"""The local kernel's session: getting one, changing to another, leaving it.

Policy: an outage of any length is survived; a session that is gone is told once,
and the next cell gets a new one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import uuid
from dataclasses import dataclass
from typing import Any

from sandcell import (
    AsyncClient,
    AsyncSession,
    ConflictError,
    GatewayUnreachable,
    NotFoundError,
    SandcellError,
)
from sandcell.errors import explain
from sandcell.settings import ClientSettings
from sandcell_kernel.channel import After, Channel, Gone
from sandcell_kernel.claims import Claims, HeldClaim, Identity, State, Takeover
from sandcell_kernel.leaving import Leaving
from sandcell_kernel.ports import KernelPorts
from sandcell_kernel.router import Router
from sandcell_magics.context import NoSession
from sandcell_wire.messages import Message
from sandcell_wire.models import CLIENT_LABEL, KERNEL
from sandcell_wire.states import FINAL, Status

log = logging.getLogger(__name__)

LEAVE_TIMEOUT = 0.8
"""Seconds for the last request: a kernel must be gone within 1 s of shutdown."""
SETTLE = (0.05, 0.1, 0.2, 0.4)
"""Seconds between looks at a session that may have become idle just now."""
CONTINUING = "sandcell: continuing session {id} with its variables\n"
ENDED = "sandcell: session {id}, which this notebook used, has ended; this is another one\n"
LEFT = "sandcell: session {id} goes on without this kernel; %sandbox attach {id} comes back to it\n"
RECREATED = "sandcell: the session is gone: {why}; this is a new one, variables are gone\n"


@dataclass(frozen=True)
class Target:
    """A session to change to."""

    session: AsyncSession
    after: After
    kept: bool
    """It is not ours to end."""


class Link:
    """Gives a router its session. `run` is its life; it is the kernel's `Context` of commands."""

    def __init__(
        self,
        router: Router,
        ports: KernelPorts,
        settings: ClientSettings,
        identity: Identity,
        claims: Claims,
    ) -> None:
        self._router = router
        self._settings = settings
        self._identity = identity
        self._claims = claims
        self.client = AsyncClient(settings=settings)
        self._channel = Channel(router, ports, self.client, self._notify)
        self._wanted = asyncio.Event()
        self._changed = asyncio.Event()
        self._session: AsyncSession | None = None
        self._after: After = None
        """Where the session's channel begins."""
        self._closing: AsyncSession | None = None
        """The session that the user asked us to close."""
        self._next: Target | None = None
        """The session to change to."""
        self._staying: asyncio.Task[None] | None = None
        self._chores: set[asyncio.Task[None]] = set()
        self._ended = ""
        """Why there is no session, when the last one has ended."""
        self._recreates = ""
        """Why a new session is being made in the place of one that is gone."""
        self._lost: AsyncSession | None = None
        """The session that was gone last: its name is taken until it has ended."""
        self._claim: HeldClaim | None = None
        self._creating: asyncio.Task[AsyncSession] | None = None
        self._create_request: dict[str, Any] | None = None
        """A create that was not answered: its key finds the session that it may have made."""

    # -- called by the router's ports ------------------------------------------------------

    def send(self, seen: int, message: Message) -> None:
        """Queue one message for the channel."""
        self._channel.send(seen, message)

    def want(self) -> None:
        """A cell asks for a session again."""
        self._wanted.set()

    # -- commands ----------------------------------------------------------------------------

    async def session(self) -> AsyncSession:
        """The session as it is now. Raises `NoSession`, or `SandcellError` if it cannot be had."""
        while self._session is None:
            self._raise_if_failing()
            await self._changed.wait()
        session = await self._session.refresh()
        for seconds in SETTLE:
            if session.status is not Status.ACTIVE or self._router.waits:
                break
            await asyncio.sleep(seconds)  # the gateway learns a moment later that a cell ended
            await session.refresh()
        return session

    def _raise_if_failing(self) -> None:
        if self._router.failing and self._ended:
            why = f"There is no session: {self._ended}."
            raise NoSession(why, hint="The next cell, or %sandbox start, starts a new one.")
        if self._router.failing:
            raise SandcellError(self._router.why, hint="Run a cell to try again.")

    async def close(self) -> AsyncSession:
        """Close the session for the user; returns when it is forgotten. Raises as `session`."""
        session = self._closing = await self.session()
        try:
            await session.close()
        except SandcellError:
            self._closing = None
            raise
        while self._session is session:
            await self._changed.wait()
        return session

    async def start(self, name: str | None) -> AsyncSession:
        """Use a new session from now on. Raises a `SandcellError`."""
        session = await self.client.sessions.create(**self._request(name))
        await self._change(Target(session, after=0, kept=name is not None))
        return session

    async def attach(self, name: str) -> AsyncSession:
        """Use this session from now on. Raises a `SandcellError`."""
        session = await self.client.sessions.get(name)
        if session.status in FINAL:
            raise NoSession(f"{name} has ended.", hint="%sandbox list shows the live ones.")
        await self._change(Target(session, after="missed", kept=True))
        return session

    async def follow(self) -> None:
        """Until nothing that was missed goes on."""
        while self._router.follows:
            await self._changed.wait()

    async def keep(self) -> None:
        """The session outlives this kernel."""
        self._router.detaches = True
        if self._claim is not None:
            self._claim.write(State.RUNNING, kept=True)

    async def _change(self, target: Target) -> None:
        """Leave the session for another one; returns when that is reached."""
        while self._session is None and not self._router.failing:
            await self._changed.wait()  # it is being made
        old = self._session
        if old is not None and old.id == target.session.id:
            return
        kept, after = self._router.detaches, self._channel.after
        is_ours = old is not None and not kept
        try:
            self._change_to(target)
            while self._changes or not self._router.reached:
                if not self._changes:
                    self._raise_if_failing()
                await self._changed.wait()
        except BaseException:
            if old is not None:  # it was not reached, or the user does not want to wait
                self._change_to(Target(old, after=after, kept=kept))
            raise
        if old is not None and is_ours:
            # The cell may be interrupted; this goes on.
            chore = asyncio.create_task(self._let_go(old))
            self._chores.add(chore)
            chore.add_done_callback(self._chores.discard)
            await asyncio.shield(chore)

    def _change_to(self, target: Target) -> None:
        self._next = target
        # At once: what comes from now on is for the next session and waits for it.
        self._router.moved("this kernel has changed to another session")
        if self._staying is not None:
            self._staying.cancel()
        self._wanted.set()

    @property
    def _changes(self) -> bool:
        return self._next is not None

    async def _let_go(self, session: AsyncSession) -> None:
        """Close our own session if nothing has run in it; otherwise it is the user's to close."""
        with contextlib.suppress(SandcellError):
            if not (await session.history(limit=1, outputs=False)).total:
                await session.close()
                return
        self._router.notify(LEFT.format(id=str(session.id)[:8]))

    # -- life --------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                self._session = await self._obtain()
                if self._recreates:
                    self._router.notify(RECREATED.format(why=self._recreates))
                self._ended = self._recreates = ""
                self._notify()
                await self._stay(self._session)
            except Gone as gone:
                self._gone(gone.why)
            except SandcellError as error:
                self._ended = ""
                self._after = self._channel.after if self._session else self._after
                self._router.failed(explain(error))
            self._notify()
            await self._wanted.wait()
            self._wanted.clear()

    async def _stay(self, session: AsyncSession) -> None:
        """Until the session is gone, or another one is wanted. Raises `Gone`."""
        self._staying = asyncio.ensure_future(self._channel.run(session, self._after))
        try:
            await self._staying
        except asyncio.CancelledError:
            me = asyncio.current_task()
            if self._next is None or (me is not None and me.cancelling()):
                raise
        finally:
            self._staying = None

    def _gone(self, why: str) -> None:
        wanted = self._closing is not None and self._closing is self._session
        self._closing, self._ended = None, "you closed it" if wanted else why
        self._lost = self._session
        self._forget()
        if wanted:
            self._router.failed("the session was closed. Run the cell again to start a new one.")
        elif self._settings.recreate:
            self._router.moved(f"the session is gone: {why}. A new one is being started.")
            self._recreates = why
            self._wanted.set()
        else:
            self._router.failed(
                f"the session is gone: {why}. Run the cell again to start a new session; "
                "variables are gone.",
                lost=True,
            )

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    # -- getting one -------------------------------------------------------------------------

    async def _obtain(self) -> AsyncSession:
        """The session to use: the wanted one, a predecessor's, the configured one, or a new one."""
        if self._next is not None:
            return self._move(self._next)
        if self._session is not None:
            return self._session
        found = await asyncio.to_thread(
            self._claims.take,
            self._identity,
            hold=self._settings.hold,
            grace=self._settings.close_grace,
        )
        if found is not None:
            session = await self._take_over(*found)
            if session is not None:
                return session
        if self._settings.session:
            return await self._named(self._settings.session)
        return await self._create()

    def _move(self, target: Target) -> AsyncSession:
        self._next = None
        self._forget()
        self._after = target.after
        self._router.detaches = target.kept
        self._claim = self._claims.create(str(target.session.id), self._identity, kept=target.kept)
        return target.session

    async def _take_over(self, claim: HeldClaim, how: Takeover) -> AsyncSession | None:
        try:
            session = await self.client.sessions.get(claim.claim.session_id)
        except NotFoundError:
            self._has_ended(claim)
            return None
        except BaseException:
            claim.close()  # as it was found, for the next attempt
            raise
        if session.status in FINAL:
            self._has_ended(claim)
            return None
        if self._wants_another(session, claim):
            claim.close()
            return None
        claim.write(State.RUNNING)
        self._claim = claim
        self._router.detaches = claim.claim.kept or self._settings.session is not None
        if how is Takeover.REATTACH:
            self._after = "missed"
            self._router.notify(CONTINUING.format(id=str(session.id)[:8]))
            return session
        self._after = None
        try:
            await session.restart(interpreter=self._router.interpreter)
        except SandcellError as error:
            log.warning("restart: %s", error)  # the next cell tries again and tells
        return session

    def _has_ended(self, claim: HeldClaim) -> None:
        if claim.claim.kept or claim.claim.state is State.RUNNING:
            self._router.notify(ENDED.format(id=claim.claim.session_id[:8]))
        claim.close(forget=True)

    def _wants_another(self, session: AsyncSession, claim: HeldClaim) -> bool:
        """The user names a session, and this is not a restart of the kernel that left it."""
        name = self._settings.session
        if name is None or claim.claim.state is State.RESTARTING:
            return False
        return name not in (session.name, str(session.id))

    async def _named(self, name: str) -> AsyncSession:
        self._router.detaches = True
        self._after = "missed"
        try:
            session = await self._living(name)
        except NotFoundError:
            try:
                session = await self._create(name)
            except ConflictError:  # another kernel was quicker
                session = await self.client.sessions.get(name)
                self._after = "missed"
        self._claim = self._claims.create(str(session.id), self._identity)
        return session

    async def _living(self, name: str) -> AsyncSession:
        """The session of this name; waits for the end of the one that was lost."""
        for seconds in SETTLE:
            session = await self.client.sessions.get(name)
            if self._lost is None or session.id != self._lost.id:
                return session
            await asyncio.sleep(seconds)
        raise ConflictError(f"session {name} is ending", hint="Run the cell again in a moment.")

    async def _create(self, name: str | None = None) -> AsyncSession:
        self._after = 0
        self._create_request = self._create_request or self._request(name)
        # A shutdown that comes meanwhile waits for the answer, so that no session is orphaned.
        self._creating = asyncio.ensure_future(self.client.sessions.create(**self._create_request))
        session = await asyncio.shield(self._creating)
        self._session, self._create_request = session, None
        if name is None:
            self._claim = self._claims.create(str(session.id), self._identity)
        return session

    def _request(self, name: str | None) -> dict[str, Any]:
        """Arguments of a create, with a key: it can be sent again."""
        notebook = self._identity.notebook
        return {
            "name": name,
            "interpreter": self._router.interpreter,
            "image": None if self.client.remote else sys.prefix,
            "metadata": {CLIENT_LABEL: KERNEL, **({"notebook": notebook} if notebook else {})},
            "idempotency_key": uuid.uuid4().hex,
        }

    def _forget(self) -> None:
        self._session = self._create_request = self._creating = None
        self._router.detaches = False
        if self._claim is not None:
            self._claim.close(forget=True)
            self._claim = None

    # -- leaving -----------------------------------------------------------------------------

    def beat(self) -> None:
        """Note that this process lives."""
        if self._claim is not None:
            self._claim.beat()

    async def leave(self, state: State) -> None:
        """End or leave the session as PROTOCOL says.

        What takes longer than `LEAVE_TIMEOUT` seconds is handed over to another process.
        """
        claim = self._claim
        if claim is not None:
            claim.write(state)
        for chore in self._chores:
            chore.cancel()
        if state is not State.RESTARTING and (self._session or self._creating):
            if not self._router.detaches:
                await self._end(state)
            elif claim is not None and state is State.CLOSING and not claim.claim.kept:
                claim.close(forget=True)  # its name finds it again
        await self.client.aclose()

    async def _end(self, state: State) -> None:
        grace = self._settings.close_grace if state is State.CLOSING else self._settings.hold
        try:
            async with asyncio.timeout(LEAVE_TIMEOUT):
                if self._session is None and self._creating is not None:
                    self._session = await self._creating
                if self._session is not None:
                    await self._session.close(grace=grace, client=self._channel.client_id)
        except (SandcellError, TimeoutError, OSError) as error:
            log.info("leaving the session: %r", error)
            if self._session or not _never_asked(error):
                self._leaving(state, grace).hand_over()
            return
        if grace == 0 and self._claim is not None:
            self._claim.close(forget=True)

    def _leaving(self, state: State, grace: float) -> Leaving:
        return Leaving(
            grace=grace,
            client=self._channel.client_id,
            session_id=str(self._session.id) if self._session else None,
            create=self._create_request,
            claim=str(self._claim.path) if self._claim else None,
            state=state.value,
        )


def _never_asked(error: Exception) -> bool:
    """Whether a create that failed so can have made nothing."""
    return isinstance(error, GatewayUnreachable) and not error.may_be_done
