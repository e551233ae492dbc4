"""A gateway and its sessions, for asyncio."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import UUID, uuid4

from sandcell import _requests
from sandcell._async.events import events, reach
from sandcell._async.execution import execute
from sandcell._async.files import AsyncFiles
from sandcell._async.transport import AsyncTransport
from sandcell._requests import ChannelTarget, Unchanged
from sandcell.errors import (
    ConflictError,
    SessionNotFound,
)
from sandcell.results import ExecutionResult, OnOutput
from sandcell.settings import ClientSettings
from sandcell_wire.models import (
    ExecutionModel,
    Health,
    History,
    LimitsModel,
    Notebook,
    ProofKey,
    ProofKeys,
    ProofList,
    ProofModel,
    Reason,
    SessionEvent,
    SessionList,
    SessionModel,
    Stats,
)
from sandcell_wire.states import Status

OnEvent = Callable[[SessionEvent], object]


class AsyncSession:
    """One session. What it shows is as new as the last answer; `refresh` asks again."""

    def __init__(self, transport: AsyncTransport, model: SessionModel) -> None:
        self._transport = transport
        self.model = model
        """Everything that the gateway said of it."""

    def __repr__(self) -> str:
        name = f" {self.name!r}" if self.name else ""
        return f"<{type(self).__name__} {self.id}{name} {self.status.value}>"

    @property
    def files(self) -> AsyncFiles:
        """What lies in its workspace."""
        return AsyncFiles(self._transport, self.id)

    @property
    def id(self) -> UUID:
        """Never changes."""
        return self.model.id

    @property
    def name(self) -> str | None:
        """Unique among the owner's live sessions."""
        return self.model.name

    @property
    def status(self) -> Status:
        """What it is doing."""
        return self.model.status

    @property
    def limits(self) -> LimitsModel:
        """What it may use; 0 is no limit."""
        return self.model.limits

    @property
    def reason(self) -> Reason | None:
        """Why it is in this status."""
        return self.model.reason

    async def events(self) -> AsyncGenerator[SessionEvent]:
        """What happens to it, beginning with its present status, until it has ended.

        When the line breaks, or the gateway restarts, it goes on by itself; `old` is the
        status that was told before, and moves that no gateway has kept are left out. Raises
        `GatewayUnreachable` when the line stays away for a minute.
        """
        async with aclosing(events(self._transport, self.id)) as happening:
            async for event in happening:
                change = {"status": event.new, "reason": event.reason}
                self.model = self.model.model_copy(update=change)
                yield event

    async def watch(
        self,
        *,
        on_status_changed: OnEvent | None = None,
        on_error: OnEvent | None = None,
        on_terminated: OnEvent | None = None,
    ) -> None:
        """Call these with its events; returns when it has ended. Raises as `events`.

        What they raise ends it, too.
        """
        callbacks = {
            "status_changed": on_status_changed,
            "error": on_error,
            "terminated": on_terminated,
        }
        async with aclosing(self.events()) as happening:
            async for event in happening:
                if (callback := callbacks[event.type]) is not None:
                    callback(event)

    async def wait_for(self, *status: str, timeout: float) -> Self:
        """Return when it is in one of these statuses, or groups of them.

        Goes on when the line breaks. Raises `RequestTimeout` after `timeout` seconds, and
        `SessionExpired` when it has ended otherwise.
        """
        self.model = await reach(self._transport, self.id, status, timeout)
        return self

    async def refresh(self) -> Self:
        """Ask the gateway for its present state. Raises `SessionNotFound`."""
        return await self._send(_requests.get(self.id))

    async def update(
        self,
        *,
        name: str | Unchanged | None = Unchanged.UNCHANGED,
        metadata: Mapping[str, str | None] | None = None,
    ) -> Self:
        """Give it another name, or with None no name, and set labels; None takes a label away.

        What is not named stays. Raises `ConflictError` when another live session of yours
        has the name, and `SessionExpired` when it is closed.
        """
        return await self._send(_requests.update(self.id, name, metadata))

    async def restart(self, *, interpreter: str | None = None) -> Self:
        """A fresh interpreter over the same files; returns when it is ready.

        `interpreter` is the id that its messages will carry in `header.session`.
        """
        return await self._send(_requests.restart(self.id, interpreter))

    async def interrupt(self) -> Self:
        """Interrupt whatever runs."""
        return await self._send(_requests.interrupt(self.id))

    async def execute(
        self,
        code: str,
        *,
        timeout: float | None = None,
        on_output: OnOutput | None = None,
        id: str | None = None,
    ) -> ExecutionResult:
        """Run code behind what runs there, and wait for its end.

        It is interrupted after `timeout` seconds of running. `on_output` is called with
        each output as it comes. When the line breaks the code goes on, and so does this as
        soon as the line is back. Calls with the same `id`, 8 to 64 letters, digits and
        hyphens, are one execution. Raises `GatewayUnreachable` when the line stays away,
        and `SessionExpired` when the session ends.
        """
        return await execute(
            self._transport,
            self.id,
            code,
            uuid4().hex if id is None else id,
            timeout=timeout,
            on_output=on_output,
        )

    async def history(
        self, *, limit: int = 100, offset: int = 0, newest: bool = False, outputs: bool = True
    ) -> History:
        """A page of what ran, in the order in which it was asked for, or the newest first.

        Outputs are as notebooks hold them (nbformat 4.5).
        """
        return await self._transport.send(
            History,
            _requests.history(self.id, limit=limit, offset=offset, newest=newest, outputs=outputs),
        )

    async def notebook(self) -> dict[str, Any]:
        """All that ran, as a notebook (nbformat 4.5), to be stored as JSON."""
        found = await self._transport.send(Notebook, _requests.notebook(self.id))
        return found.model_dump()

    async def prove(self) -> ProofModel:
        """Have the gateway sign what was recorded so far."""
        return await self._transport.send(ProofModel, _requests.prove(self.id))

    async def proofs(self, *, limit: int = 100, offset: int = 0) -> ProofList:
        """A page of what the gateway has signed of it, the newest first; also once it is closed."""
        return await self._transport.send(
            ProofList, _requests.proofs(self.id, limit=limit, offset=offset)
        )

    async def export(self, path: Path | str) -> Path:
        """Write all that was recorded, with its proofs, to a file for `sandcell verify`.

        The file appears whole or not at all, and replaces one that was there. Raises
        `OSError` when it cannot be written.
        """
        target = Path(path)
        await self._transport.download(_requests.export(self.id), target)
        return target

    async def start_job(
        self, code: str, *, id: str | None = None, webhook: str | None = None
    ) -> ExecutionModel:
        """Run code without waiting for it; it goes on when nobody is connected.

        Calls with the same `id`, 8 to 64 letters, digits and hyphens, start one job: give
        one to try again after a `RequestTimeout` or `GatewayUnreachable`. `webhook` is an
        https address that the gateway tells when the job has ended (docs/rest.md,
        "Webhooks"). Raises `RequestInvalid` when one of them cannot be used.
        """
        job_id = uuid4().hex if id is None else id
        return await self._transport.send(
            ExecutionModel, _requests.start_job(self.id, code, job_id, webhook)
        )

    async def jobs(self, *, limit: int = 100, offset: int = 0) -> Sequence[ExecutionModel]:
        """What was started with `start_job`, the newest first, without outputs."""
        found = await self._transport.send(History, _requests.jobs(self.id, limit, offset))
        return found.executions

    async def job(self, id: str, *, wait: float = 0.0) -> ExecutionModel:
        """One job with its outputs, when it has ended or after `wait` seconds.

        Raises `NotFoundError`.
        """
        return await self._transport.send(ExecutionModel, _requests.job(self.id, id, wait))

    async def close(self, *, grace: float = 0.0, client: str | None = None) -> Self:
        """Close it; with `grace` after so many seconds in which nobody attached.

        With `client`, the name of a channel, because that client leaves: it stays open
        while others are attached. Harmless when it is closed.
        """
        return await self._send(_requests.close(self.id, grace, client))

    async def _send(self, request: _requests.ApiRequest) -> Self:
        self.model = await self._transport.send(SessionModel, request)
        return self


class AsyncSessions:
    """The owner's sessions."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def create(
        self,
        *,
        name: str | None = None,
        env: Mapping[str, str] | None = None,
        metadata: Mapping[str, str] | None = None,
        language: str = "python",
        interpreter: str | None = None,
        image: str | None = None,
        limits: Mapping[str, float | str] | None = None,
        wait: float = 0.0,
        idempotency_key: str | None = None,
    ) -> AsyncSession:
        """Make a session; returns when it is ready or has failed, or after `wait` seconds.

        A `name` keeps it when its kernel ends. `env` goes to the sandbox only. `image`
        is the prefix of a Python environment, for the embedded gateway. `limits` may
        hold `memory` and `disk` (bytes, or text such as `4GiB`), `cpus` and `processes`.
        Calls with the same `idempotency_key` within a day make one session: give one to
        try again after a `RequestTimeout` or `GatewayUnreachable`.
        """
        request = _requests.create(
            name=name,
            env=env,
            metadata=metadata,
            language=language,
            interpreter=interpreter,
            image=image,
            limits=limits,
            wait=wait,
            key=idempotency_key or uuid4().hex,
        )
        return AsyncSession(self._transport, await self._transport.send(SessionModel, request))

    async def list(
        self,
        *,
        limit: int = 100,
        offset: int = 0,
        status: Sequence[str] = (),
        labels: Mapping[str, str] | None = None,
        type: str | None = None,
        search: str | None = None,
        order_by: str | None = None,
    ) -> Sequence[AsyncSession]:
        """Sessions, newest first; live ones unless `status` names others.

        `status` takes statuses and the groups `running` and `paused`; `type` is the label
        of that name; `search` is part of a name or of a label's value, or the beginning of
        an id; `order_by` is created_at, updated_at or name, with `-` for descending.
        `limit` is 500 at most; `iterate` has no limit.
        """
        request = _requests.list_sessions(
            limit=limit,
            offset=offset,
            status=status,
            labels=labels or {},
            type=type,
            search=search,
            order_by=order_by,
        )
        page = await self._transport.send(SessionList, request)
        return [AsyncSession(self._transport, model) for model in page.sessions]

    async def iterate(
        self,
        *,
        status: Sequence[str] = (),
        labels: Mapping[str, str] | None = None,
        type: str | None = None,
        search: str | None = None,
        order_by: str | None = None,
        page: int = _requests.MAX_PAGE,
    ) -> AsyncGenerator[AsyncSession]:
        """All that `list` finds, asked for `page` at a time.

        None comes twice; what is made or closed meanwhile may be missed.
        """
        seen: set[UUID] = set()
        offset = 0
        while True:
            found = await self.list(
                limit=page,
                offset=offset,
                status=status,
                labels=labels,
                type=type,
                search=search,
                order_by=order_by,
            )
            for session in found:
                if session.id not in seen:
                    seen.add(session.id)
                    yield session
            offset += len(found)
            if len(found) < page:
                return

    async def get(self, id: UUID | str) -> AsyncSession:
        """The session with this id, or the live one with this name or unique beginning of an id.

        Raises `SessionNotFound`, or `ConflictError` when several begin so.
        """
        if (exact := _as_uuid(id)) is not None:
            model = await self._transport.send(SessionModel, _requests.get(exact))
            return AsyncSession(self._transport, model)
        word = str(id)
        found = [session async for session in self.iterate(search=word)]
        named = [session for session in found if session.name == word]
        begin = [session for session in found if str(session.id).startswith(word)]
        return _only(word, named or begin)


def _as_uuid(id: UUID | str) -> UUID | None:
    if isinstance(id, UUID):
        return id
    try:
        return UUID(id)
    except ValueError:
        return None


def _only(word: str, found: Sequence[AsyncSession]) -> AsyncSession:
    if not found:
        raise SessionNotFound(
            f"you have no live session {word!r}", hint="List them with `sandcell sessions`."
        )
    if len(found) > 1:
        raise ConflictError(
            f"{len(found)} sessions begin with {word!r}", hint="Give more of the id."
        )
    return found[0]


class AsyncClient:
    """A gateway. Without `url` (and without one in the settings) the embedded one.

    An async context manager; `aclose` does the same.
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        settings: ClientSettings | None = None,
    ) -> None:
        if settings is None or url is not None or token is not None:
            given = settings.model_dump(exclude_unset=True) if settings is not None else {}
            settings = ClientSettings.load(**{**given, "url": url, "token": token})
        self.settings = settings
        self._transport = AsyncTransport(settings)
        self.sessions = AsyncSessions(self._transport)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Release the connections. Harmless when done before; sessions live on."""
        await self._transport.aclose()

    @property
    def remote(self) -> bool:
        """Whether the gateway has a URL; otherwise it is the embedded one."""
        return self._transport.remote

    async def health(self) -> Health:
        """Is the gateway there, and of which version? Starts an embedded one."""
        return await self._transport.send(Health, _requests.health())

    async def stats(self) -> Stats:
        """How many of your sessions are in each status, and what the gateway has for them."""
        return await self._transport.send(Stats, _requests.stats())

    async def proof_keys(self) -> Sequence[ProofKey]:
        """The public keys that the gateway's proofs are checked with, former ones too."""
        return (await self._transport.send(ProofKeys, _requests.proof_keys())).keys

    async def channel_target(
        self, session_id: UUID | str, *, client: str, after: int | str | None = None
    ) -> ChannelTarget:
        """Where to open the session's WebSocket.

        `client` names this client across reconnects; `after` is the last sequence
        number it has seen. Starts an embedded gateway that has ended.
        """
        path = _requests.channel_path(session_id, client, after)
        return await self._transport.channel_target(path)
