"""Which webhooks the REST interface takes; `tests/webhooks` and end-to-end tests deliver them."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from sandcell import RequestInvalid, SessionNotFound
from tests.gateway.support import PATIENCE, TOKEN, Gateway, running_gateway
from tests.support.home import Home
from tests.support.receiver import SECRET

HEADERS = {"Authorization": f"Bearer {TOKEN}"}
NOBODY = "12345678-1234-4234-8234-123456789abc"


async def post(gateway: Gateway, session_id: object, webhook: object) -> tuple[int, dict[str, Any]]:
    async with httpx.AsyncClient(base_url=gateway.url, headers=HEADERS) as client:
        answer = await client.post(
            f"/v1/sessions/{session_id}/jobs", json={"code": "1", "webhook": webhook}
        )
    return answer.status_code, answer.json()


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example/",
        "ftp://hooks.example/",
        "hooks.example",
        "https://",
        "https:///path",
        "https://user:password@hooks.example/",
        "https://user@hooks.example/",
        "https://hooks.example:0/",
        "https://hooks.example:65536/",
        "https://hooks.example:port/",
        "https://hooks.example/#here",
        "https://hooks.example/a b",
        "https://hooks.example/\r\nx: y",
        "https://hooks.example\\@other.example/",
        "https://höks.example/",
        "https://[::1/",
        "",
    ],
)
async def test_what_is_no_address_is_refused_and_named(gateway: Gateway, url: str) -> None:
    code, problem = await post(gateway, NOBODY, url)
    assert (code, problem["code"]) == (422, "validation_error")
    assert problem["detail"].startswith("body.webhook: expected an https address such as")
    assert problem["detail"].endswith(f"got {url!r}")


async def test_a_long_address_is_refused_and_not_repeated_whole(gateway: Gateway) -> None:
    code, problem = await post(gateway, NOBODY, "https://hooks.example/" + "x" * 2048)
    assert code == 422
    assert len(problem["detail"]) < 400


async def test_without_a_secret_it_is_refused_with_what_to_do(gateway: Gateway) -> None:
    async with gateway.client() as client:
        session = await client.sessions.create(wait=PATIENCE)
        with pytest.raises(RequestInvalid, match="no secret to sign webhooks") as caught:
            await session.start_job("1", webhook="https://hooks.example/")
    assert "SANDCELL_WEBHOOK_SECRET" in (caught.value.hint or "")


async def test_the_sdk_refuses_a_bad_address_itself(gateway: Gateway) -> None:
    async with gateway.client() as client:
        session = await client.sessions.create(wait=PATIENCE)
        with pytest.raises(RequestInvalid, match="webhook: expected an https address") as caught:
            await session.start_job("1", webhook="http://hooks.example/")
    assert caught.value.status is None, "nothing was sent"


async def test_addresses_inside_are_refused_at_once(fake_shims: Home) -> None:
    async with (
        running_gateway(webhook_secret=SECRET, webhook_hosts=["10.1.0.0/16"]) as gateway,
        gateway.client() as client,
    ):
        session = await client.sessions.create(wait=PATIENCE)
        for place, why in (("10.2.0.1", "private"), ("[::ffff:10.1.0.1]", "not public")):
            with pytest.raises(RequestInvalid, match=why) as caught:
                await session.start_job("1", webhook=f"https://{place}/")
            assert "SANDCELL_WEBHOOK_HOSTS" in (caught.value.hint or "")
        await session.close()


async def test_another_s_session_is_not_found(fake_shims: Home) -> None:
    """Before anything is said of the webhook."""
    async with running_gateway(webhook_secret=SECRET) as gateway, gateway.client() as client:
        with pytest.raises(SessionNotFound):
            await client._transport.send(*_job_of_nobody())


def _job_of_nobody() -> Any:
    from sandcell import _requests
    from sandcell_wire.models import ExecutionModel

    return ExecutionModel, _requests.start_job(NOBODY, "1", "job-1234", "https://127.0.0.1/")
