# Generated from _async by scripts/unasync.py; change it there.
"""Code in, result out: sessions are made, filled, used and closed by themselves."""

from __future__ import annotations

from collections.abc import Generator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from uuid import UUID, uuid4

from sandcell._sync._threads import fan_out, pause
from sandcell._sync.client import Client
from sandcell._sync.session import Session
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
class Run:
    """What is run, wherever that is."""

    client: Client
    language: str
    env: Mapping[str, str]
    uploads: Sequence[Upload]
    timeout: float | None
    on_output: OnOutput | None = None
    on_progress: OnProgress | None = None
    watch: Stopwatch = field(default_factory=Stopwatch)

    def on(self, session: Session, code: str) -> ExecutionResult:
        """Run it there, with its files."""
        for upload in self.uploads:
            self._tell(RunProgress("upload", upload.path))
            with self.watch.stage("upload"):
                if isinstance(upload.content, bytes):
                    session.files.write(upload.path, upload.content)
                else:
                    session.files.upload(upload.content, upload.path)
        self._tell(RunProgress("execute", str(session.id)))
        result = session.execute(code, timeout=self.timeout, on_output=self.on_output)
        self.watch.note(result.timing)
        return result

    def make(self) -> Session:
        """A session for it. Raises `OperationFailed` when it cannot be had."""
        self._tell(RunProgress("create", self.language))
        key = uuid4().hex
        try:
            with self.watch.stage("create"):
                return self._create(key, READY)
        except BaseException as error:
            if isinstance(error, RequestTimeout) or not isinstance(error, Exception):
                self._unmake(key)
            raise

    def _create(self, key: str, wait: float) -> Session:
        return self.client.sessions.create(
            language=self.language,
            env=self.env,
            metadata={CLIENT_LABEL: RUN},
            wait=wait,
            idempotency_key=key,
        )

    def _unmake(self, key: str) -> None:
        """Close what a create may have made that was interrupted; its key finds that."""
        for _ in range(UNMAKE_ATTEMPTS):
            try:
                (self._create(key, 0)).close()
            except RequestInFlight:
                pause(UNMAKE_PAUSE)
            except SandcellError:
                return  # the gateway closes it when nobody has used it for long
            else:
                return

    def find(self, id: UUID | str) -> Session:
        """One that is there. Raises `SessionNotFound` or `SessionExpiredError`."""
        with self.watch.stage("connect"):
            return (self.client.sessions.get(id)).raise_if_ended()

    def again(self, lost: UUID | str) -> Session:
        """One in the place of another that has ended."""
        self._tell(RunProgress("recreate", str(lost)))
        return self.make()

    def close(self, session: Session) -> None:
        """Close it, if a run has made it."""
        if session.model.metadata.get(CLIENT_LABEL) == RUN:
            self._tell(RunProgress("close", str(session.id)))
            with self.watch.stage("close"):
                session.close()

    def _tell(self, progress: RunProgress) -> None:
        if self.on_progress is not None:
            self.on_progress(progress)


def run(
    one: Run, code: str, *, session: UUID | str | None, keep_alive: bool, on_lost: OnLost
) -> ExecutionResult:
    """Run code in this session, or in a new one. See `Session.run`."""
    if session is not None and one.env:
        raise RequestInvalid(
            "env: a session that is there has its variables already",
            hint="Give env to the run that makes it.",
        )
    used, recreated = None, False
    try:
        try:
            used = (one.make() if session is None else one.find(session))
            result = one.on(used, code)
        except (SessionExpiredError, SessionNotFound):
            if session is None or on_lost != "recreate":
                raise
            used, recreated = one.again(session), True
            result = one.on(used, code)
    finally:
        if used is not None and not keep_alive:
            one.close(used)
    return replace(result, stages=one.watch.stages(), recreated=recreated)


def run_many(
    one: Run, codes: Iterable[str], *, sessions: int, in_order: bool
) -> Generator[ExecutionResult]:
    """Run them in so many sessions. See `Session.run_many`."""
    if sessions < 1:
        raise RequestInvalid(f"sessions: expected 1 or more, got {sessions}")

    def work(
        tasks: Iterator[tuple[int, str]], give: Callable[[int, ExecutionResult], None]
    ) -> None:
        used = one.make()
        try:
            sent = one.uploads
            for number, code in tasks:
                part = replace(one, uploads=sent, watch=Stopwatch())
                result = part.on(used, code)
                give(number, replace(result, stages=part.watch.stages()))
                sent = ()
        finally:
            one.close(used)

    wanted = list(codes)
    waiting: dict[int, ExecutionResult] = {}
    due = 0
    with closing(fan_out(wanted, min(sessions, len(wanted)), work)) as results:
        for number, result in results:
            if not in_order:
                yield result
                continue
            waiting[number] = result
            while due in waiting:
                yield waiting.pop(due)
                due += 1
