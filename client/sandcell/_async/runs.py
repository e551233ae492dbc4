"""Code in, result out: sessions are made, filled, used and closed by themselves."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from uuid import UUID, uuid4

from sandcell._async._threads import fan_out, pause
from sandcell._async.client import AsyncClient
from sandcell._async.session import AsyncSession
from sandcell.errors import (
    RequestInFlight,
    RequestInvalid,
    RequestTimeout,
    SandcellError,
    SessionExpiredError,
    SessionNotFound,
)
from sandcell.results import ExecutionResult, OnOutput
from sandcell.runs import OnLost, OnProgress, RunProgress
from sandcell.timing import Stopwatch
from sandcell.uploads import Upload
from sandcell_wire.models import CLIENT_LABEL, RUN

READY = 300.0
"""Seconds in which a new session must be ready."""
UNMAKE_ATTEMPTS, UNMAKE_PAUSE = 25, 0.2
"""How often, and with how many seconds between, a create is looked for that was interrupted."""


@dataclass
class AsyncRun:
    """What is run, wherever that is."""

    client: AsyncClient
    language: str
    env: Mapping[str, str]
    uploads: Sequence[Upload]
    timeout: float | None
    on_output: OnOutput | None = None
    on_progress: OnProgress | None = None
    watch: Stopwatch = field(default_factory=Stopwatch)

    async def on(self, session: AsyncSession, code: str) -> ExecutionResult:
        """Run it there, with its files."""
        for upload in self.uploads:
            self._tell(RunProgress("upload", upload.path))
            with self.watch.stage("upload"):
                if isinstance(upload.content, bytes):
                    await session.files.write(upload.path, upload.content)
                else:
                    await session.files.upload(upload.content, upload.path)
        self._tell(RunProgress("execute", str(session.id)))
        result = await session.execute(code, timeout=self.timeout, on_output=self.on_output)
        self.watch.note(result.timing)
        return result

    async def make(self) -> AsyncSession:
        """A session for it. Raises `OperationFailed` when it cannot be had."""
        self._tell(RunProgress("create", self.language))
        key = uuid4().hex
        try:
            with self.watch.stage("create"):
                return await self._create(key, READY)
        except BaseException as error:
            if isinstance(error, RequestTimeout) or not isinstance(error, Exception):
                await self._unmake(key)
            raise

    async def _create(self, key: str, wait: float) -> AsyncSession:
        return await self.client.sessions.create(
            language=self.language,
            env=self.env,
            metadata={CLIENT_LABEL: RUN},
            wait=wait,
            idempotency_key=key,
        )

    async def _unmake(self, key: str) -> None:
        """Close what a create may have made that was interrupted; its key finds that."""
        for _ in range(UNMAKE_ATTEMPTS):
            try:
                await (await self._create(key, 0)).close()
            except RequestInFlight:
                await pause(UNMAKE_PAUSE)
            except SandcellError:
                return  # the gateway closes it when nobody has used it for long
            else:
                return

    async def find(self, id: UUID | str) -> AsyncSession:
        """One that is there. Raises `SessionNotFound` or `SessionExpiredError`."""
        with self.watch.stage("connect"):
            return (await self.client.sessions.get(id)).raise_if_ended()

    async def again(self, lost: UUID | str) -> AsyncSession:
        """One in the place of another that has ended."""
        self._tell(RunProgress("recreate", str(lost)))
        return await self.make()

    async def close(self, session: AsyncSession) -> None:
        """Close it, if a run has made it."""
        if session.model.metadata.get(CLIENT_LABEL) == RUN:
            self._tell(RunProgress("close", str(session.id)))
            with self.watch.stage("close"):
                await session.close()

    def _tell(self, progress: RunProgress) -> None:
        if self.on_progress is not None:
            self.on_progress(progress)


async def run(
    one: AsyncRun, code: str, *, session: UUID | str | None, keep_alive: bool, on_lost: OnLost
) -> ExecutionResult:
    """Run code in this session, or in a new one. See `AsyncSession.run`."""
    if session is not None and one.env:
        raise RequestInvalid(
            "env: a session that is there has its variables already",
            hint="Give env to the run that makes it.",
        )
    used, recreated = None, False
    try:
        try:
            used = await (one.make() if session is None else one.find(session))
            result = await one.on(used, code)
        except (SessionExpiredError, SessionNotFound):
            if session is None or on_lost != "recreate":
                raise
            used, recreated = await one.again(session), True
            result = await one.on(used, code)
    finally:
        if used is not None and not keep_alive:
            await one.close(used)
    return replace(result, stages=one.watch.stages(), recreated=recreated)


async def run_many(
    one: AsyncRun, codes: Iterable[str], *, sessions: int, in_order: bool
) -> AsyncGenerator[ExecutionResult]:
    """Run them in so many sessions. See `AsyncSession.run_many`."""
    if sessions < 1:
        raise RequestInvalid(f"sessions: expected 1 or more, got {sessions}")

    async def work(
        tasks: Iterator[tuple[int, str]], give: Callable[[int, ExecutionResult], None]
    ) -> None:
        used = await one.make()
        try:
            sent = one.uploads
            for number, code in tasks:
                part = replace(one, uploads=sent, watch=Stopwatch())
                result = await part.on(used, code)
                give(number, replace(result, stages=part.watch.stages()))
                sent = ()
        finally:
            await one.close(used)

    wanted = list(codes)
    waiting: dict[int, ExecutionResult] = {}
    due = 0
    async with aclosing(fan_out(wanted, min(sessions, len(wanted)), work)) as results:
        async for number, result in results:
            if not in_order:
                yield result
                continue
            waiting[number] = result
            while due in waiting:
                yield waiting.pop(due)
                due += 1
