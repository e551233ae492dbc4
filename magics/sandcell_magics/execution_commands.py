"""Commands about what ran: replay, and cells that run while nobody waits."""

from __future__ import annotations

import asyncio
from argparse import Namespace
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime

from sandcell import (
    AsyncSession,
    ConflictError,
    EmbeddedStartError,
    GatewayUnreachable,
    HostDisconnected,
    NotFoundError,
    RequestTimeout,
)
from sandcell_magics.context import Context, UsageError
from sandcell_magics.results import Result, Shown, Table, Text
from sandcell_wire.execution import first_line
from sandcell_wire.models import ExecutionModel
from sandcell_wire.states import Status

MAX_JOBS = 100
"""Most jobs that are listed."""
WAIT = 60.0
"""Seconds after which a wait asks again."""
MAX_PAGES = 100
"""Pages of jobs among which one is looked for by the beginning of its id."""
FIRST_RETRY = 0.5
LAST_RETRY = 15.0
"""Seconds before a wait whose line was cut asks again; doubled each time."""
COMES_BACK = (GatewayUnreachable, RequestTimeout, HostDisconnected)
"""Errors that say nothing of the job: it runs on meanwhile."""
MAX_CODE = 60
"""Most characters of code in a title."""
WAITING = ("queued", "running")


def title(execution: ExecutionModel) -> str:
    """`In [3]: first line…`."""
    count = "*" if execution.execution_count is None else execution.execution_count
    return f"In [{count}]: {_beginning(execution)}"


def _beginning(execution: ExecutionModel) -> str:
    first, is_cut = first_line(execution.code, MAX_CODE)
    return first + ("…" if is_cut else "")


def took(execution: ExecutionModel) -> str:
    """How long it ran, or has run."""
    if execution.started_at is None:
        return ""
    end = execution.ended_at or datetime.now(UTC)
    return f"{(end - execution.started_at).total_seconds():.1f} s"


def _summary(execution: ExecutionModel) -> str:
    state = ", ".join(word for word in (execution.status, took(execution)) if word)
    lost = execution.lost_messages
    dropped = f"; {lost} messages were dropped from the full journal" if lost else ""
    return f"{title(execution)} ({state}{dropped})"


async def replay(context: Context, options: Namespace) -> AsyncIterator[Result]:
    """Outputs of the last cells again."""
    session = await context.session()
    found = await session.history(limit=options.count, newest=True)
    if not found.executions:
        yield Text("Nothing has run in this session yet.")
    for execution in reversed(found.executions):
        yield Text(_summary(execution))
        yield Shown(execution.outputs or [])


async def detach(context: Context, options: Namespace, body: str) -> AsyncIterator[Result]:
    """Start the cell's body."""
    if not body.strip():
        raise UsageError("%%sandbox --detach: there is no code below it")
    session = await context.session()
    job = await session.start_job(body, webhook=options.webhook)
    await context.keep()
    name = job.id[:8]
    yield Text(
        f"Job {name} runs, also when this notebook is closed. "
        f"%sandbox wait {name} waits for it, %sandbox result {name} shows its output."
    )


def _table(jobs: Sequence[ExecutionModel]) -> Table:
    rows = tuple(
        (
            job.id[:8],
            job.status,
            job.submitted_at.strftime("%H:%M:%S"),
            took(job),
            _beginning(job),
        )
        for job in jobs
    )
    note = "" if rows else "no jobs; %%sandbox --detach starts a cell as one"
    return Table(("job", "status", "since", "took", "code"), rows, note)


async def jobs(context: Context, options: Namespace) -> AsyncIterator[Result]:
    """All of the session."""
    yield _table(await (await context.session()).jobs(limit=MAX_JOBS))


async def _find(session: AsyncSession, word: str) -> str:
    """The id that begins so. Raises `NotFoundError` or `ConflictError`."""
    if await _is_job(session, word):
        return word
    found: set[str] = set()
    for page in range(MAX_PAGES):
        part = await session.jobs(limit=MAX_JOBS, offset=page * MAX_JOBS)
        found |= {job.id for job in part if job.id.startswith(word)}
        if len(part) < MAX_JOBS:
            break
    if len(found) > 1:
        raise ConflictError(f"{len(found)} jobs begin with {word!r}", hint="Give more of the id.")
    if not found:
        raise NotFoundError(
            f"there is no job {word!r} in this session", hint="%sandbox jobs lists them."
        )
    return found.pop()


async def _is_job(session: AsyncSession, id: str) -> bool:
    try:
        return (await session.job(id)).detached
    except NotFoundError:
        return False


async def wait(context: Context, options: Namespace) -> AsyncIterator[Result]:
    """Until jobs have ended."""
    session = await context.session()
    if options.ids:
        names = [await _find(session, word) for word in options.ids]
    else:
        running = [job.id for job in await session.jobs(limit=MAX_JOBS) if job.status in WAITING]
        names = running[::-1]
    waiting = [asyncio.ensure_future(_until_ended(session, name)) for name in names]
    try:
        async with asyncio.timeout(options.timeout):
            await asyncio.gather(*waiting)
    except TimeoutError:
        still = sum(task.cancelled() for task in waiting)
        yield Text(f"{still} of {len(names)} still run after {options.timeout:g} s.")
    finally:
        for task in waiting:
            task.cancel()
    wanted = [
        await session.job(name) if task.cancelled() else task.result()
        for name, task in zip(names, waiting, strict=True)
    ]
    yield _table(wanted) if wanted else Text("No job runs.")


async def _until_ended(session: AsyncSession, name: str) -> ExecutionModel:
    """The job when it has ended, however often the line is cut before."""
    retry = FIRST_RETRY
    while True:
        try:
            job = await session.job(name, wait=WAIT)
        except EmbeddedStartError:
            raise  # it says what to repair
        except COMES_BACK:
            if await _has_failed(session):
                raise
            await asyncio.sleep(retry)
            retry = min(2 * retry, LAST_RETRY)
        else:
            retry = FIRST_RETRY
            if job.status not in WAITING:
                return job


async def _has_failed(session: AsyncSession) -> bool:
    """Whether nothing of it will answer unless somebody restarts it."""
    try:
        return (await session.refresh()).status is Status.ERROR
    except COMES_BACK:
        return False


async def result(context: Context, options: Namespace) -> AsyncIterator[Result]:
    """What a job printed and showed, so far."""
    session = await context.session()
    job = await session.job(await _find(session, options.id))
    yield Text(_summary(job))
    yield Shown(job.outputs or [])
