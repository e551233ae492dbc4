"""What ran in sessions, and code that runs without anybody waiting for it."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from sandcell_gateway.auth import Principal
from sandcell_gateway.errors import ExecutionNotFound, ShimRefused
from sandcell_gateway.history.notebook import make_notebook
from sandcell_gateway.history.reading import Reader
from sandcell_gateway.sessions.service import Page, SessionService
from sandcell_gateway.webhooks.deliveries import Webhooks
from sandcell_gateway.webhooks.jobs import job_data
from sandcell_wire.codes import Code
from sandcell_wire.models import ExecutionModel, History, JobCreate, Notebook

TIMEOUT = 20.0
"""Seconds for a shim to answer."""
MAX_WAIT = 300.0
"""Most seconds that one request waits for an execution."""
NOTEBOOK_CELLS = 500
"""Executions that are asked for at once."""


class HistoryService:
    """History and jobs of the sessions that a `SessionService` keeps."""

    def __init__(self, sessions: SessionService, webhooks: Webhooks) -> None:
        self._sessions = sessions
        self._webhooks = webhooks

    async def page(
        self,
        principal: Principal,
        session_id: str,
        part: Page,
        *,
        outputs: bool,
        newest: bool = False,
        detached: bool | None = None,
    ) -> History:
        """A page of executions. Raises `SessionNotFound`, `SessionEnded`, `ShimUnreachable`."""
        wanted = {
            "limit": part.limit,
            "offset": part.offset,
            "newest": newest,
            "detached": detached,
            "code": not outputs,
        }
        answer = await self._sessions.ask(principal, session_id, "executions", wanted, TIMEOUT)
        found = answer["executions"]
        if outputs:
            executions = await self._read(principal, session_id, found)
        else:
            executions = await self._with_webhooks(
                session_id, Reader(found).executions(outputs=False)
            )
        return History(
            executions=executions, total=answer["total"], limit=part.limit, offset=part.offset
        )

    async def _read(
        self, principal: Principal, session_id: str, found: list[Mapping[str, Any]]
    ) -> list[ExecutionModel]:
        reader = Reader(found)
        if found:
            async for entry in self._sessions.journal(principal, session_id, *reader.span):
                reader.take(entry)
        return await self._with_webhooks(session_id, reader.executions())

    async def _with_webhooks(
        self, session_id: str, executions: list[ExecutionModel]
    ) -> list[ExecutionModel]:
        jobs = [execution.id for execution in executions if execution.detached]
        found = await self._webhooks.of(session_id, jobs)
        return [
            execution.model_copy(update={"webhook": found.get(execution.id)})
            for execution in executions
        ]

    async def get(
        self, principal: Principal, session_id: str, execution_id: str, wait: float = 0.0
    ) -> ExecutionModel:
        """One execution with its outputs, when it has ended or after `wait` seconds.

        Raises `ExecutionNotFound`, too.
        """
        seconds = min(wait, MAX_WAIT)
        wanted = {"id": execution_id, "seconds": seconds}
        try:
            found = await self._sessions.ask(
                principal, session_id, "wait", wanted, TIMEOUT + seconds
            )
        except ShimRefused as error:
            if error.code is Code.NOT_FOUND:
                raise ExecutionNotFound(execution_id) from error
            raise
        (execution,) = await self._read(principal, session_id, [found])
        return execution

    async def run(self, principal: Principal, session_id: str, job: JobCreate) -> ExecutionModel:
        """Start code that nobody waits for. With the same id it is the same job.

        Raises what `Webhooks.check` raises before anything was started, too.
        """
        if job.webhook is not None:
            await self._sessions.get(principal, session_id)
            await self._webhooks.check(session_id, job)
        wanted = {"id": job.id or uuid.uuid4().hex, "code": job.code, "detached": True}
        found = await self._sessions.ask(principal, session_id, "execute", wanted, TIMEOUT)
        if job.webhook is not None:
            # Not before: a webhook without its job could not tell whether it will come. If the
            # gateway is killed in between, the client has no answer and sends the job again.
            await self._webhooks.add(job_data(session_id, found), job.webhook)
        (execution,) = await self._read(principal, session_id, [found])
        return execution

    async def notebook(self, principal: Principal, session_id: str) -> Notebook:
        """The whole history as a notebook."""
        session = await self._sessions.get(principal, session_id)
        executions: list[ExecutionModel] = []
        while True:
            page = Page(NOTEBOOK_CELLS, len(executions))
            part = await self.page(principal, session_id, page, outputs=True)
            executions += part.executions
            if not part.executions or len(executions) >= part.total:
                break
        return make_notebook(
            executions, session=session.name or session_id, language=session.language
        )
