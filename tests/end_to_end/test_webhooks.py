"""A job's webhook comes, whatever ends before: the gateway, the supervisor, the session."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

import sandcell
from sandcell import _requests
from sandcell_wire.models import ExecutionModel, WebhookModel
from tests.support import gateways
from tests.support.home import Home
from tests.support.receiver import (
    SECRET,
    Received,
    hold,
    receiver,
    status,
    write_authority,
)

pytestmark = pytest.mark.linux

WAITS = "import pathlib, time\nwhile not pathlib.Path('go').exists(): time.sleep(0.02)"
"""A job that goes on until a file is there."""


@pytest.fixture
def authority(home: Home, monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    """Embedded gateways of this home trust it, and send to this machine."""
    made = trustme.CA()
    monkeypatch.setenv("SANDCELL_WEBHOOK_SECRET", SECRET)
    monkeypatch.setenv("SANDCELL_WEBHOOK_HOSTS", '["localhost"]')
    monkeypatch.setenv("SANDCELL_WEBHOOK_CA", str(write_authority(made, home.path)))
    return made


@contextmanager
def session_of(client: sandcell.Client) -> Iterator[sandcell.Session]:
    """A ready session, closed at the end."""
    session = client.sessions.create(wait=60)
    assert session.status.value == "idle", session.reason
    try:
        yield session
    finally:
        session.close()


def data(request: Received) -> dict[str, Any]:
    """What a delivery says of its job."""
    assert request.signed
    body = json.loads(request.body)
    assert body["type"] == "job.ended"
    assert set(body) == {"type", "timestamp", "data"}
    found: dict[str, Any] = body["data"]
    return found


def webhook(session: sandcell.Session, job: ExecutionModel) -> WebhookModel:
    found = session.job(job.id).webhook
    assert found is not None
    return found


def go(home: Home) -> None:
    """Let the job that waits end."""
    (directory,) = gateways.session_directories(home)
    (directory / "workspace" / "go").touch()


def delivered(session: sandcell.Session, job: ExecutionModel) -> WebhookModel:
    gateways.eventually("delivery", lambda: webhook(session, job).state == "delivered")
    return webhook(session, job)


def test_a_job_that_ends_tells_its_webhook(authority: trustme.CA, home: Home) -> None:
    with (
        receiver(authority) as there,
        sandcell.Client() as client,
        session_of(client) as session,
    ):
        job = session.start_job(f"{WAITS}\nprint('a secret')", webhook=there.url())
        assert job.webhook is not None
        assert (job.webhook.state, job.webhook.attempts) == ("pending", 0)
        go(home)
        request = there.next()
        assert data(request) == {
            **session.job(job.id).model_dump(
                mode="json", include={"submitted_at", "started_at", "ended_at", "execution_count"}
            ),
            "session_id": str(session.id),
            "job_id": job.id,
            "status": "ok",
        }
        assert b"secret" not in request.body
        found = delivered(session, job)
        assert (found.url, found.attempts, found.last_status) == (there.url(), 1, 204)
        assert [one.webhook for one in session.jobs()] == [found]
        failed = session.start_job("1 / 0", webhook=there.url())
        assert data(there.next())["status"] == "error"
        again = client._transport.send(
            ExecutionModel, _requests.start_job(session.id, "1 / 0", failed.id, there.url())
        )
        assert again.ended_at is not None
        with pytest.raises(sandcell.ConflictError, match="already"):
            client._transport.send(
                ExecutionModel, _requests.start_job(session.id, "1", failed.id, there.url("x"))
            )
        assert session.start_job("1").webhook is None
        assert there.count == 0


def test_a_gateway_killed_while_it_delivers(authority: trustme.CA, home: Home) -> None:
    """The next one delivers what may or may not have been read, under the same id."""
    with (
        receiver(authority, hold) as there,
        sandcell.Client() as client,
        session_of(client) as session,
    ):
        job = session.start_job("1", webhook=there.url())
        first = there.next()
        gateways.kill(gateways.gateway(home))
        session.refresh()  # starts the next
        second = there.next()
        assert first.headers["webhook-id"] == second.headers["webhook-id"]
        assert first.body == second.body
        assert second.signed
        delivered(session, job)
        assert there.count == 0


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "stopped"])
def test_a_job_that_ends_while_no_gateway_runs(
    authority: trustme.CA, home: Home, how: signal.Signals
) -> None:
    with (
        receiver(authority) as there,
        sandcell.Client() as client,
        session_of(client) as session,
    ):
        job = session.start_job(f"{WAITS}\n1 / 0", webhook=there.url())
        gateway = gateways.gateway(home)
        gateway.send_signal(how)
        gateway.wait(gateways.PATIENCE)
        go(home)
        _has_ended(home, job)
        assert there.count == 0
        session.refresh()
        found = data(there.next())
        assert (found["job_id"], found["status"]) == (job.id, "error")
        delivered(session, job)


def _has_ended(home: Home, job: ExecutionModel) -> None:
    """By the journal, since nobody can be asked."""
    (directory,) = gateways.session_directories(home)

    def ended() -> bool:
        found = b"".join(path.read_bytes() for path in _files(directory / "journal"))
        return b"ZeroDivisionError" in found and b"execute_reply" in found

    gateways.eventually(f"the end of {job.id}", ended)


def _files(directory: Path) -> list[Path]:
    return [path for path in directory.iterdir() if path.is_file()]


def test_a_job_whose_session_is_closed(authority: trustme.CA, home: Home) -> None:
    """And an embedded gateway that nothing else needs stays for the attempt that is due."""
    with receiver(authority, status(500)) as there:
        with sandcell.Client() as client, session_of(client) as session:
            job = session.start_job(WAITS, webhook=there.url())
            gateways.eventually("start", lambda: session.job(job.id).status == "running")
        found = data(there.next())
        assert (found["session_id"], found["job_id"]) == (str(session.id), job.id)
        assert found["status"] in {"error", "aborted", "unknown"}
        assert data(there.next()) == found


def test_a_job_whose_session_s_supervisor_dies(authority: trustme.CA, home: Home) -> None:
    """The next supervisor knows the job from the journal, and how it ended from the kernel."""
    with (
        receiver(authority) as there,
        sandcell.Client() as client,
        session_of(client) as session,
    ):
        job = session.start_job(WAITS, webhook=there.url())
        gateways.eventually("start", lambda: session.job(job.id).status == "running")
        gateways.kill(gateways.shim(home))
        go(home)
        found = data(there.next())
        assert found["job_id"] == job.id
        assert found["status"] == session.job(job.id).status
        delivered(session, job)


def test_the_secret_stays_with_the_gateway(authority: trustme.CA, home: Home) -> None:
    """Supervisors and sandboxes do not inherit it; store, log and answers do not hold it."""
    with (
        receiver(authority) as there,
        sandcell.Client() as client,
        session_of(client) as session,
    ):
        job = session.start_job(
            "import os; print(*os.environ, *os.environ.values())", webhook=there.url()
        )
        there.next()
        shown = session.job(job.id, wait=60).model_dump_json()
        environ = gateways.shim(home).environ()
        assert SECRET not in {*environ.values(), shown}
        assert "SANDCELL_WEBHOOK_SECRET" not in shown
        key = SECRET.removeprefix("whsec_").encode()
        for path in (path for path in home.state.rglob("*") if path.is_file()):
            assert key not in path.read_bytes(), path
