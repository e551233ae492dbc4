"""The owner of deliveries, with a real store and a real receiver; the jobs are made up."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from uuid import UUID, uuid4

import pytest
import trustme
from sqlalchemy.exc import OperationalError

from sandcell_gateway.errors import BadRequest, NotPossible, TooManyWebhooks
from sandcell_gateway.store.database import open_database
from sandcell_gateway.store.tables import WebhookRow
from sandcell_gateway.store.webhooks import WebhookStore
from sandcell_gateway.webhooks import deliveries
from sandcell_gateway.webhooks.addresses import Allowed
from sandcell_gateway.webhooks.deliveries import Webhooks, open_webhooks
from sandcell_gateway.webhooks.schedule import Schedule
from sandcell_gateway.webhooks.sending import Sender
from sandcell_gateway.webhooks.signing import Signer
from sandcell_wire.models import JobCreate, JobEndedData, WebhookModel
from tests.support.receiver import PATIENCE, SECRET, Received, Receiver, hold, receiver, status

SESSION = uuid4()
MOMENT = datetime(2026, 1, 1, 12, tzinfo=UTC)
SOON = Schedule(first=0.01, factor=1, patience=PATIENCE)
NEVER = Schedule(first=3600, most=3600)
ONCE = Schedule(patience=0)


def job(id: str = "job-1234", session: UUID = SESSION) -> JobEndedData:
    return JobEndedData(
        session_id=session,
        job_id=id,
        status="queued",
        execution_count=None,
        submitted_at=MOMENT,
        started_at=None,
        ended_at=None,
    )


async def at_once(known: JobEndedData) -> JobEndedData:
    """A job that has ended already."""
    return known.model_copy(update={"status": "ok", "execution_count": 3, "ended_at": MOMENT})


async def never(known: JobEndedData) -> JobEndedData:
    """A job that runs and runs."""
    await asyncio.Event().wait()
    raise AssertionError


Open = Callable[..., AbstractAsyncContextManager[Webhooks]]


@pytest.fixture
async def opened(tmp_path: Path, authorities: Path) -> Open:
    """Opens owners over one store, one after the other, as gateways do."""

    @asynccontextmanager
    async def open_one(
        wait: Callable[[JobEndedData], Awaitable[JobEndedData]] = at_once,
        schedule: Schedule = SOON,
        secret: str | None = SECRET,
    ) -> AsyncGenerator[Webhooks]:
        sender = Sender(Allowed.parse(["localhost"]), authorities, timeout=PATIENCE)
        signer = None if secret is None else Signer.parse(secret)
        async with AsyncExitStack() as stack:
            database = await stack.enter_async_context(open_database(tmp_path / "gateway.db"))
            store = WebhookStore(database)
            yield await stack.enter_async_context(
                open_webhooks(store, wait, sender, signer, schedule)
            )

    return open_one


async def state(webhooks: Webhooks, id: str = "job-1234") -> WebhookModel:
    return (await webhooks.of(str(SESSION), [id]))[id]


async def until(webhooks: Webhooks, holds: Callable[[WebhookModel], bool], id: str) -> WebhookModel:
    async with asyncio.timeout(PATIENCE):
        for _ in count():
            if holds(found := await state(webhooks, id)):
                return found
            await asyncio.sleep(0.01)
    raise AssertionError


async def reaches(webhooks: Webhooks, wanted: str, id: str = "job-1234") -> WebhookModel:
    return await until(webhooks, lambda found: found.state == wanted, id)


async def attempted(webhooks: Webhooks, id: str = "job-1234") -> WebhookModel:
    """When the first attempt is noted."""
    return await until(webhooks, lambda found: found.attempts > 0, id)


def needed(webhooks: Webhooks) -> bool:
    return webhooks.needed


async def came(there: Receiver) -> Received:
    return await asyncio.to_thread(there.next)


async def test_a_receiver_that_fails_twice(authority: trustme.CA, opened: Open) -> None:
    """It is tried again with the same id and body, and a signature of its own each time."""
    with receiver(authority, status(500), status(404)) as there:
        async with opened() as webhooks:
            await webhooks.add(job(), there.url())
            requests = [await came(there) for _ in range(3)]
            found = await reaches(webhooks, "delivered")
            assert not webhooks.needed
    assert found == WebhookModel(
        url=there.url(),
        state="delivered",
        attempts=3,
        last_status=204,
        last_error=None,
        next_attempt_at=None,
    )
    assert len({(request.headers["webhook-id"], request.body) for request in requests}) == 1
    assert all(request.signed for request in requests)
    assert json.loads(requests[0].body) == {
        "type": "job.ended",
        "timestamp": "2026-01-01T12:00:00Z",
        "data": {
            "session_id": str(SESSION),
            "job_id": "job-1234",
            "status": "ok",
            "execution_count": 3,
            "submitted_at": "2026-01-01T12:00:00Z",
            "started_at": None,
            "ended_at": "2026-01-01T12:00:00Z",
        },
    }


async def test_the_time_in_the_signature_is_the_attempt_s(
    authority: trustme.CA, opened: Open
) -> None:
    """Receivers refuse what was signed minutes ago, however long the delivery has failed."""
    before = datetime.now(UTC).timestamp()
    with receiver(authority) as there:
        async with opened() as webhooks:
            await webhooks.add(job(), there.url())
            request = await came(there)
    moment = int(request.headers["webhook-timestamp"])
    assert int(before) <= moment <= datetime.now(UTC).timestamp()


async def test_who_is_gone_is_not_tried_again(authority: trustme.CA, opened: Open) -> None:
    with receiver(authority, status(410)) as there:
        async with opened() as webhooks:
            await webhooks.add(job(), there.url())
            found = await reaches(webhooks, "given_up")
    assert (found.attempts, found.last_status, found.next_attempt_at) == (1, 410, None)


async def test_patience_ends(authority: trustme.CA, opened: Open) -> None:
    """After one attempt at least, even if the gateway was down for longer."""
    with receiver(authority, status(503)) as there:
        async with opened(schedule=ONCE) as webhooks:
            await webhooks.add(job(), there.url())
            found = await reaches(webhooks, "given_up")
    assert (found.attempts, found.last_error) == (1, "answered 503")


async def test_what_a_receiver_asks_for_is_honoured(authority: trustme.CA, opened: Open) -> None:
    with receiver(authority, status(429, Retry_After="1000")) as there:
        async with opened() as webhooks:
            await webhooks.add(job(), there.url())
            found = await attempted(webhooks)
    assert found.state == "given_up", "patience is shorter than what was asked"
    with receiver(authority, status(429, Retry_After="20")) as there:
        async with opened() as webhooks:
            before = datetime.now(UTC)
            await webhooks.add(job("job-5678"), there.url())
            found = await attempted(webhooks, "job-5678")
    assert found.state == "pending"
    assert found.next_attempt_at is not None
    assert found.next_attempt_at >= before + timedelta(seconds=20)


async def test_the_next_gateway_goes_on(authority: trustme.CA, opened: Open) -> None:
    """Before the job's end, and between two attempts."""
    with receiver(authority, status(500)) as there:
        async with opened(wait=never) as webhooks:
            await webhooks.add(job(), there.url())
            assert webhooks.needed
        async with opened(schedule=NEVER) as webhooks:
            first = await came(there)
            found = await attempted(webhooks)
            assert found.next_attempt_at is not None
            assert found.next_attempt_at > datetime.now(UTC) + timedelta(seconds=1000)
        assert there.count == 0
        await _make_due(opened)
        async with opened() as webhooks:
            second = await came(there)
            assert (await reaches(webhooks, "delivered")).attempts == 2
        async with opened() as webhooks:
            assert not webhooks.needed
        assert there.count == 0
    assert first.headers["webhook-id"] == second.headers["webhook-id"]


async def _make_due(opened: Open) -> None:
    async with opened(schedule=NEVER, wait=never) as webhooks:
        store = webhooks._store
        (row,) = await store.pending()
        await store.change(row.id, due_at=MOMENT)


async def test_an_attempt_without_an_answer_is_made_again(
    authority: trustme.CA, opened: Open
) -> None:
    """Its receiver may get it twice, and knows it by its id."""
    with receiver(authority, hold) as there:
        async with opened() as webhooks:
            await webhooks.add(job(), there.url())
            first = await came(there)
        async with opened() as webhooks:
            second = await came(there)
            assert (await reaches(webhooks, "delivered")).attempts == 1
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.body == second.body


async def test_the_same_job_again_is_one_webhook(authority: trustme.CA, opened: Open) -> None:
    with receiver(authority) as there:
        async with opened() as webhooks:
            await asyncio.gather(*(webhooks.add(job(), there.url()) for _ in range(5)))
            await reaches(webhooks, "delivered")
            await webhooks.add(job(), there.url())
            assert (await state(webhooks)).attempts == 1
            await came(there)
            assert there.count == 0


async def test_a_row_that_was_read_too_early_is_not_delivered_twice(
    authority: trustme.CA, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the same request comes again in the moment of the delivery."""
    with receiver(authority) as there:
        async with opened() as webhooks:
            await webhooks.add(job(), there.url())
            (early,) = await webhooks._store.of(str(SESSION), ["job-1234"])
            await came(there)
            await reaches(webhooks, "delivered")
            early.state = "pending"

            async def add(*_: object) -> WebhookRow:
                return early

            monkeypatch.setattr(webhooks._store, "add", add)
            await webhooks.add(job(), there.url())
            assert not needed(webhooks)
        assert there.count == 0


async def test_what_cannot_be_accepted(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = JobCreate(code="1", id="job-1234", webhook="https://localhost:1/")
    async with opened(secret=None) as webhooks:
        with pytest.raises(BadRequest, match="no secret") as caught:
            await webhooks.check(str(SESSION), wanted)
        assert "SANDCELL_WEBHOOK_SECRET" in (caught.value.hint or "")
        await webhooks.check(str(SESSION), JobCreate(code="1"))
    async with opened(wait=never) as webhooks:
        await webhooks.check(str(SESSION), wanted)
        await webhooks.add(job(), "https://localhost:1/")
        monkeypatch.setattr(deliveries, "MAX_PENDING", 1)
        await webhooks.check(str(SESSION), wanted)
        with pytest.raises(NotPossible, match="has the webhook https://localhost:1/ already"):
            await webhooks.check(
                str(SESSION), wanted.model_copy(update={"webhook": "https://localhost:2/"})
            )
        other = wanted.model_copy(update={"id": "job-5678"})
        with pytest.raises(TooManyWebhooks, match="1 webhooks"):
            await webhooks.check(str(SESSION), other)
        await webhooks.check(str(uuid4()), other)
        inside = other.model_copy(update={"webhook": "https://169.254.169.254/latest"})
        with pytest.raises(BadRequest, match=r"link-local: https://169.254.169.254/latest"):
            await webhooks.check(str(SESSION), inside)


async def test_without_a_secret_nothing_is_sent_unsigned(
    authority: trustme.CA, opened: Open
) -> None:
    """The next gateway may have been started by somebody who does not have it."""
    with receiver(authority) as there:
        async with opened(wait=never) as webhooks:
            await webhooks.add(job(), there.url())
        async with opened(secret=None, schedule=ONCE) as webhooks:
            found = await reaches(webhooks, "given_up")
        assert there.count == 0
    assert "no secret" in (found.last_error or "")


async def test_attempts_at_once_are_bounded(
    authority: trustme.CA, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliveries, "MAX_IN_FLIGHT", 2)
    with receiver(authority, hold, hold, hold) as there:
        async with opened() as webhooks:
            for number in range(3):
                await webhooks.add(job(f"job-000{number}"), there.url())
            await came(there)
            await came(there)
            # The third waits for a place.
            await until(webhooks, lambda _: bool(webhooks._slots._waiters), "job-0000")
            assert there.count == 0


async def test_a_delivered_webhook_that_cannot_be_noted_is_not_sent_again(
    authority: trustme.CA, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk is tried until it takes the note."""
    monkeypatch.setattr(deliveries, "TROUBLE_PAUSE", 0.01)
    change, refused = WebhookStore.change, 0

    async def full(self: WebhookStore, row_id: str, **values: object) -> object:
        nonlocal refused
        if values.get("state") == "delivered" and refused < 3:
            refused += 1
            raise OperationalError("UPDATE", {}, Exception("database or disk is full"))
        return await change(self, row_id, **values)

    monkeypatch.setattr(WebhookStore, "change", full)
    with receiver(authority) as there:
        async with opened() as webhooks:
            await webhooks.add(job(), there.url())
            await reaches(webhooks, "delivered")
            await came(there)
            assert (refused, there.count) == (3, 0)


async def test_one_that_cannot_be_sent_does_not_stop_the_others(
    authority: trustme.CA, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    post = Sender.post

    async def broken(self: Sender, url: str, *rest: object) -> object:
        if url.endswith("/broken"):
            raise RuntimeError("a mistake of ours")
        return await post(self, url, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Sender, "post", broken)
    with receiver(authority) as there:
        async with opened(schedule=NEVER) as webhooks:
            await webhooks.add(job("job-0001"), there.url(path="/broken"))
            await webhooks.add(job("job-0002"), there.url())
            await reaches(webhooks, "delivered", "job-0002")
            found = await attempted(webhooks, "job-0001")
    assert found.last_error == "the gateway failed; its log has the details"


async def test_an_embedded_gateway_stays_for_a_while(
    authority: trustme.CA, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    with receiver(authority, status(500)) as there:
        async with opened(schedule=NEVER) as webhooks:
            assert not needed(webhooks)
            await webhooks.add(job(), there.url())
            assert needed(webhooks)
            await came(there)
            await attempted(webhooks)
            assert needed(webhooks)
            monkeypatch.setattr(deliveries, "STAY", timedelta())
            assert not needed(webhooks)


async def test_what_is_over_is_forgotten_after_a_week(
    authority: trustme.CA, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    with receiver(authority) as there:
        async with opened() as webhooks:
            await webhooks.add(job("job-0001"), there.url())
            await reaches(webhooks, "delivered", "job-0001")
        async with opened(wait=never) as webhooks:
            await webhooks.add(job("job-0002"), there.url())
            assert set(await _known(webhooks)) == {"job-0001", "job-0002"}
            monkeypatch.setattr(deliveries, "KEPT", timedelta(seconds=-60))
            await webhooks.add(job("job-0003"), there.url())
            assert set(await _known(webhooks)) == {"job-0002", "job-0003"}


async def _known(webhooks: Webhooks) -> list[str]:
    return list(await webhooks.of(str(SESSION), [f"job-000{number}" for number in range(9)]))
