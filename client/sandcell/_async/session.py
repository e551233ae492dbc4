"""One session, for asyncio."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID, uuid4

from sandcell import _requests
from sandcell._async.commands import AsyncCommands
from sandcell._async.events import events, reach
from sandcell._async.execution import execute
from sandcell._async.files import AsyncFiles
from sandcell._async.transport import AsyncTransport
from sandcell._requests import Unchanged
from sandcell.errors import SessionExpiredError
from sandcell.results import ExecutionResult, OnOutput
from sandcell.runs import OnLost, OnProgress
from sandcell.uploads import uploads
from sandcell_wire.models import (
    ExecutionModel,
    History,
    LimitsModel,
    Notebook,
    ProofList,
    ProofModel,
    Reason,
    SessionEvent,
    SessionModel,
)
from sandcell_wire.states import FINAL, Status

if TYPE_CHECKING:
    from sandcell._async.client import AsyncClient

OnEvent = Callable[[SessionEvent], object]


class AsyncSession:
    """One session. What it shows is as new as the last answer; `refresh` asks again.

    An async context manager, which closes it.
    """

    def __init__(self, transport: AsyncTransport, model: SessionModel) -> None:
        self._transport = transport
        self.model = model
        """Everything that the gateway said of it."""

    @classmethod
    async def run(
        cls,
        code: str,
        *,
        language: str = "python",
        files: Mapping[str, object] | None = None,
        session: UUID | str | None = None,
        keep_alive: bool = False,
        timeout: float | None = None,
        env: Mapping[str, str] | None = None,
        on_lost: OnLost = "raise",
        on_progress: OnProgress | None = None,
        on_output: OnOutput | None = None,
        client: AsyncClient | None = None,
    ) -> ExecutionResult:
        """Run code in a session that is made for it, and close that; all in one.

        `files` are put into the workspace before, by their paths: bytes, text, a `Path` to
        a file or directory, an open file, or a DataFrame for `.csv` and `.parquet`. With
        `keep_alive` the session stays, for the next run's `session=result.session_id`; the
        run without `keep_alive` closes it. A session that no run has made is never closed.
        The code is interrupted after `timeout` seconds. `env` are variables of a new
        session. `on_progress` is told what is done, `on_output` what the code shows, as it
        comes. Without `client`, the gateway is the one of the settings.

        An error of the code is part of the result; `raise_for_error` raises it. Raises
        `SessionExpiredError` or `SessionNotFound` when `session` has ended, unless `on_lost` is
        "recreate": then the code runs in a new one, from its beginning, and the result says
        `recreated`. Raises `RequestInvalid` for what cannot be right, `OSError` for local
        files that cannot be read, and any `SandcellError`.
        """
        from sandcell._async import runs

        async with _given_or_new(client) as used:
            one = runs.AsyncRun(
                used, language, env or {}, uploads(files or {}), timeout, on_output, on_progress
            )
            return await runs.run(
                one, code, session=session, keep_alive=keep_alive, on_lost=on_lost
            )

    @classmethod
    async def run_many(
        cls,
        codes: Iterable[str],
        *,
        sessions: int = 4,
        in_order: bool = True,
        language: str = "python",
        files: Mapping[str, object] | None = None,
        timeout: float | None = None,
        env: Mapping[str, str] | None = None,
        client: AsyncClient | None = None,
    ) -> AsyncGenerator[ExecutionResult]:
        """Run many pieces of code, in at most so many sessions at once.

        Results come in the order of the codes, or, without `in_order`, as they are there.
        Codes that meet in a session share its variables and files; they run one after the
        other. All sessions are closed at the end, also when you stop early. The rest is as
        in `run`.
        """
        from sandcell._async import runs

        async with _given_or_new(client) as used:
            one = runs.AsyncRun(used, language, env or {}, uploads(files or {}), timeout)
            results = runs.run_many(one, codes, sessions=sessions, in_order=in_order)
            async with aclosing(results):
                async for result in results:
                    yield result

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def raise_if_ended(self) -> Self:
        """Itself, if it is not final. Raises `SessionExpiredError`, which says why it ended."""
        if self.status in FINAL:
            why = self.reason.text if self.reason else self.status.value
            raise SessionExpiredError(f"session {self.name or self.id} has ended: {why}")
        return self

    def __repr__(self) -> str:
        name = f" {self.name!r}" if self.name else ""
        return f"<{type(self).__name__} {self.id}{name} {self.status.value}>"

    @property
    def files(self) -> AsyncFiles:
        """What lies in its workspace."""
        return AsyncFiles(self._transport, self.id)

    @property
    def commands(self) -> AsyncCommands:
        """Programs beside its cells, with the same files."""
        return AsyncCommands(self._transport, self.id)

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
        `SessionExpiredError` when it has ended otherwise.
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
        has the name, and `SessionExpiredError` when it is closed.
        """
        return await self._send(_requests.update(self.id, name, metadata))

    async def restart(self, *, interpreter: str | None = None) -> Self:
        """A fresh interpreter over the same files; returns when it is ready.

        `interpreter` is the id that its messages will carry in `header.session`.
        """
        return await self._send(_requests.restart(self.id, interpreter))

    async def pause(self) -> Self:
        """Freeze it: it uses no processor, and keeps its memory and what runs.

        Running something, or changing a file, resumes it. Harmless when it is paused.
        Raises `ConflictError` when it is not ready, and `OperationFailed` when its
        processes do not stop.
        """
        return await self._send(_requests.pause(self.id))

    async def resume(self) -> Self:
        """Let it go on where it was. Harmless when it is not paused."""
        return await self._send(_requests.resume(self.id))

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
        and `SessionExpiredError` when the session ends.
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


@asynccontextmanager
async def _given_or_new(client: AsyncClient | None) -> AsyncGenerator[AsyncClient]:
    """The client itself, or one that is closed afterwards."""
    if client is not None:
        yield client
        return
    from sandcell._async.client import AsyncClient

    async with AsyncClient() as made:
        yield made
