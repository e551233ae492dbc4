"""The owner of all webhooks: one task each, from the job's start to the last attempt.

What has happened is stored before anything else happens, so a gateway that is killed
leaves to the next one what is still to be done. Only an attempt whose answer nobody
stored is made a second time.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

import structlog

from sandcell_gateway.clock import now
from sandcell_gateway.errors import BadRequest, NotPossible, TooManyWebhooks
from sandcell_gateway.settings import GatewaySettings
from sandcell_gateway.store.database import to_the_end
from sandcell_gateway.store.tables import WebhookRow
from sandcell_gateway.store.webhooks import WebhookStore
from sandcell_gateway.webhooks.addresses import Allowed
from sandcell_gateway.webhooks.schedule import GIVEN_UP, PENDING, Answer, Schedule
from sandcell_gateway.webhooks.sending import Sender
from sandcell_gateway.webhooks.signing import Signer
from sandcell_wire.models import JobCreate, JobEnded, JobEndedData, WebhookModel

MAX_PENDING = 256
"""Most webhooks of one session that are to be delivered yet."""
MAX_IN_FLIGHT = 16
"""Most attempts at once, of all sessions."""
KEPT = timedelta(days=7)
"""How long after its job's end a webhook is remembered that was delivered or given up."""
STAY = timedelta(minutes=10)
"""How long after its job's end a webhook that is not delivered keeps an embedded gateway."""
TROUBLE_PAUSE = 10.0
"""Seconds before the store is tried again that took no write."""

NO_SECRET = "this gateway has no secret to sign webhooks with"  # noqa: S105 (a sentence)

Wait = Callable[[JobEndedData], Awaitable[JobEndedData]]
"""Waits for a job, from what is known of it to how it ended."""

_log = structlog.get_logger(__name__)


class Webhooks:
    """Make it with `open_webhooks`, which ends its tasks."""

    def __init__(
        self,
        store: WebhookStore,
        wait: Wait,
        sender: Sender,
        signer: Signer | None,
        group: asyncio.TaskGroup,
        schedule: Schedule,
    ) -> None:
        self._store = store
        self._wait = wait
        self._sender = sender
        self._signer = signer
        self._group = group
        self._schedule = schedule
        self._pending: dict[str, tuple[WebhookRow, asyncio.Task[None]]] = {}
        """By the row's id, each with the task that sees to it."""
        self._slots = asyncio.Semaphore(MAX_IN_FLIGHT)

    # What others ask -----------------------------------------------------------------

    async def check(self, session_id: str, job: JobCreate) -> None:
        """Before a job is started: can its webhook be accepted?

        Raises `BadRequest`, `NotPossible` when the job is there with another webhook, or
        `TooManyWebhooks`.
        """
        if job.webhook is None:
            return
        if self._signer is None:
            raise BadRequest(
                f"webhook: {NO_SECRET}",
                "set SANDCELL_WEBHOOK_SECRET where the gateway starts, or leave `webhook` out",
            )
        refused = self._sender.refuses(job.webhook)
        if refused is not None:
            raise BadRequest(
                f"webhook: expected a public address, got one that is {refused}: {job.webhook}",
                "the gateway's operator can allow it with SANDCELL_WEBHOOK_HOSTS",
            )
        known = None if job.id is None else await self._store.get(session_id, job.id)
        if known is not None:
            if known.url != job.webhook:
                raise NotPossible(
                    f"job {job.id} has the webhook {known.url} already",
                    "send it again unchanged, or give a new job an id of its own",
                )
        elif await self._store.count_pending(session_id) >= MAX_PENDING:
            raise TooManyWebhooks(MAX_PENDING)

    async def add(self, job: JobEndedData, url: str) -> None:
        """From when this returns, the webhook is delivered or given up. Harmless when repeated."""
        new = WebhookRow(
            id=f"msg_{uuid.uuid4().hex}",
            session_id=str(job.session_id),
            job_id=job.job_id,
            url=url,
            data=job.model_dump(mode="json"),
            state=PENDING,
            attempts=0,
        )
        row = await to_the_end(self._store.add(new, now() - KEPT))
        # One that was there has its task, and may have gone on since it was read.
        if row.id == new.id:
            self._follow(row)

    async def of(self, session_id: str, job_ids: Collection[str]) -> Mapping[str, WebhookModel]:
        """How far the deliveries of these jobs are."""
        rows = await self._store.of(session_id, job_ids) if job_ids else ()
        return {row.job_id: _model(row) for row in rows}

    @property
    def needed(self) -> bool:
        """Whether a delivery is worth staying for: its job ended less than `STAY` ago."""
        begun = now() - STAY
        rows = (row for row, _ in self._pending.values())
        return any(row.ended_at is None or row.ended_at > begun for row in rows)

    # Life ------------------------------------------------------------------------------

    async def recover(self) -> None:
        """See to what an earlier gateway left."""
        rows = await self._store.pending()
        for row in rows:
            self._follow(row)
        if rows:
            _log.info("webhooks found", count=len(rows), secret=self._signer is not None)

    def stop(self) -> None:
        """End all tasks; the next gateway goes on."""
        for _, task in self._pending.values():
            task.cancel()

    def _follow(self, row: WebhookRow) -> None:
        self._pending[row.id] = row, self._group.create_task(self._run(row))

    async def _run(self, row: WebhookRow) -> None:
        try:
            if row.ended_at is None:
                row = await self._noticed(row)
            while row.state == PENDING:
                await asyncio.sleep(_seconds_until(row.due_at))
                async with self._slots:
                    answer = await self._attempt(row)
                row = await self._settle(row, answer)
        finally:
            del self._pending[row.id]

    async def _noticed(self, row: WebhookRow) -> WebhookRow:
        data = await self._ended(row)
        moment = now()
        return await self._write(
            row, data=data.model_dump(mode="json"), ended_at=moment, due_at=moment
        )

    async def _ended(self, row: WebhookRow) -> JobEndedData:
        while True:
            try:
                return await self._wait(JobEndedData.model_validate(row.data))
            except Exception as error:
                # As below: a session that answers nonsense is not everybody's trouble.
                _log.error("cannot wait for a job", webhook=row.id, exc_info=error)
                await asyncio.sleep(TROUBLE_PAUSE)

    async def _attempt(self, row: WebhookRow) -> Answer:
        if self._signer is None:
            return Answer(error=NO_SECRET)
        try:
            body = body_of(row)
            headers = self._signer.headers(row.id, int(now().timestamp()), body)
            return await self._sender.post(row.url, headers, body)
        except Exception as error:
            # One webhook that we cannot send must not end those of everybody else.
            _log.error("attempt failed", webhook=row.id, exc_info=error)
            return Answer(error="the gateway failed; its log has the details")

    async def _settle(self, row: WebhookRow, answer: Answer) -> WebhookRow:
        attempts, moment, state, due = row.attempts + 1, now(), answer.verdict, None
        if state == PENDING:
            chance = random.random()  # noqa: S311 (spreads load, keeps no secret)
            waited = (moment - (row.ended_at or moment)).total_seconds()
            pause = self._schedule.next(attempts, waited, answer.retry_after, chance)
            if pause is None:
                state = GIVEN_UP
            else:
                due = moment + timedelta(seconds=pause)
        log = _log.bind(webhook=row.id, session=row.session_id, job=row.job_id, attempts=attempts)
        tell = log.warning if state == GIVEN_UP else log.info
        tell("webhook attempted", state=state, status=answer.status, error=answer.error)
        return await self._write(
            row,
            state=state,
            attempts=attempts,
            last_status=answer.status,
            last_error=answer.error,
            due_at=due,
        )

    async def _write(self, row: WebhookRow, **values: Any) -> WebhookRow:
        """Store it, however long that takes: what is not stored would be done again."""
        while True:
            try:
                changed = await to_the_end(self._store.change(row.id, **values))
            except Exception as error:
                _log.error("cannot store a webhook", webhook=row.id, error=str(error))
                await asyncio.sleep(TROUBLE_PAUSE)
            else:
                self._pending[row.id] = changed, self._pending[row.id][1]
                return changed


def body_of(row: WebhookRow) -> bytes:
    """The body, the same in every attempt."""
    data = JobEndedData.model_validate(row.data)
    moment = data.ended_at or row.ended_at
    assert moment is not None, "the end was noticed"
    return JobEnded(timestamp=moment, data=data).model_dump_json().encode()


def _seconds_until(moment: datetime | None) -> float:
    return 0.0 if moment is None else max(0.0, (moment - now()).total_seconds())


def _model(row: WebhookRow) -> WebhookModel:
    return WebhookModel.model_validate(
        {
            "url": row.url,
            "state": row.state,
            "attempts": row.attempts,
            "last_status": row.last_status,
            "last_error": row.last_error,
            "next_attempt_at": row.due_at,
        }
    )


def make_sender(settings: GatewaySettings) -> Sender:
    """The sender that the settings ask for."""
    return Sender(Allowed.parse(settings.webhook_hosts), settings.webhook_ca)


@asynccontextmanager
async def open_webhooks(
    store: WebhookStore,
    wait: Wait,
    sender: Sender,
    signer: Signer | None,
    schedule: Schedule | None = None,
) -> AsyncGenerator[Webhooks]:
    """Sees to all webhooks. On leaving its tasks end, and the next gateway goes on."""
    async with asyncio.TaskGroup() as group:
        webhooks = Webhooks(store, wait, sender, signer, group, schedule or Schedule())
        await webhooks.recover()
        try:
            yield webhooks
        finally:
            webhooks.stop()
