"""What is sent, and what answers mean: without any I/O."""

from __future__ import annotations

import json
import uuid
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest

from sandcell import AsyncClient, AsyncSession, _answers, _requests, errors
from sandcell._async import transport
from sandcell._requests import ApiRequest
from sandcell_wire.codes import HTTP_STATUS, Code
from sandcell_wire.models import Health, Problem, SessionModel

ID = uuid.UUID("12345678-1234-4234-8234-123456789abc")
NOTHING: dict[str, Any] = {
    "name": None,
    "env": None,
    "metadata": None,
    "language": "python",
    "interpreter": None,
    "image": None,
    "limits": None,
    "wait": 0,
    "key": "k",
}


def test_create() -> None:
    request = _requests.create(**NOTHING | {"name": "n", "env": {"A": "b"}, "wait": 2.5})
    assert (request.method, request.path) == ("POST", "/v1/sessions")
    assert request.body is not None
    assert (request.body["name"], request.body["env"]) == ("n", {"A": "b"})
    assert request.headers == {"Idempotency-Key": "k", "Prefer": "wait=2.5"}
    assert request.repeatable
    assert request.patience == 2.5
    assert _requests.create(**NOTHING).headers == {"Idempotency-Key": "k"}
    assert not _requests.restart(ID, None).repeatable


@pytest.mark.parametrize(
    ("bad", "place"),
    [
        ({"name": "a b"}, "name: expected 1 to 64 letters, .* such as 'analysis-2'"),
        ({"env": {"": "x"}}, "env.*: expected .* such as 'DATA_DIR'"),
        ({"interpreter": "zz"}, "interpreter: expected a UUID"),
        ({"limits": {"memory": "lots"}}, "limits.memory"),
    ],
)
def test_what_cannot_be_sent_is_refused_before(bad: dict[str, Any], place: str) -> None:
    with pytest.raises(errors.RequestInvalid, match=f"^{place}"):
        _requests.create(**NOTHING | bad)


def test_list() -> None:
    request = _requests.list_sessions(
        limit=5,
        offset=0,
        status=["idle", "paused"],
        labels={"a": "b&c"},
        type="notebook",
        search=None,
        order_by="-name",
    )
    assert request.path == (
        "/v1/sessions?limit=5&offset=0&status=idle&status=paused&label=a%3Db%26c"
        "&type=notebook&order_by=-name"
    )


def test_one_session() -> None:
    assert _requests.get(ID).path == f"/v1/sessions/{ID}"
    assert _requests.close(ID, 0).path == f"/v1/sessions/{ID}"
    assert _requests.close(ID, 1.5).path == f"/v1/sessions/{ID}?grace=1.5"
    assert _requests.close(ID, 0, "c").path == f"/v1/sessions/{ID}?client=c"
    assert _requests.restart(ID, None).body == {}
    assert _requests.interrupt(ID).method == "POST"
    assert _requests.session_path("../x?y") == "/v1/sessions/..%2Fx%3Fy"


def test_channel() -> None:
    path = _requests.channel_path(ID, "c 1", None)
    assert path == f"/v1/sessions/{ID}/channels?client=c+1"
    assert _requests.channel_path(ID, "c", 0).endswith("?client=c&after=0")
    assert _requests.websocket_url("https://h:1/") == "wss://h:1"
    assert _requests.websocket_url("http://h") == "ws://h"


def test_a_good_answer() -> None:
    health = _answers.parse(Health, 200, {}, b'{"status": "ok", "version": "1", "new": 2}')
    assert health.version == "1"


def problem(code: str, **more: Any) -> bytes:
    return json.dumps(
        {"title": "t", "status": 1, "detail": "what happened", "code": code} | more
    ).encode()


@pytest.mark.parametrize("code", list(Code))
def test_every_code_has_its_error(code: Code) -> None:
    status = HTTP_STATUS[code]
    body = Problem(
        title="t", status=status, detail="what happened", code=code, hint="do it", request_id="r1"
    ).model_dump_json()
    with pytest.raises(errors.GatewayError, match="what happened") as caught:
        _answers.parse(Health, status, {}, body.encode())
    error = caught.value
    assert type(error) is not errors.GatewayError, "a code needs a class of its own"
    assert (error.status, error.code, error.hint, error.request_id) == (
        status,
        code.value,
        "do it",
        "r1",
    )


@pytest.mark.parametrize(
    ("code", "builtin"),
    [
        ("validation_error", ValueError),
        ("unauthorized", PermissionError),
        ("session_not_found", LookupError),
        ("session_expired", errors.NotFoundError),
        ("engine_unavailable", errors.Unavailable),
    ],
)
def test_errors_are_what_callers_expect(code: str, builtin: type[Exception]) -> None:
    with pytest.raises(builtin):
        _answers.parse(Health, 400, {}, problem(code))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>Bad Gateway</html>",
        b"[]",
        b"null",
        b'{"detail": 5, "code": ["x"]}',
        problem("code_of_the_future"),
    ],
)
def test_answers_of_others_are_errors_too(body: bytes) -> None:
    with pytest.raises(errors.GatewayError) as caught:
        _answers.parse(Health, 502, {}, body)
    assert type(caught.value) is errors.GatewayError
    assert caught.value.status == 502
    assert str(caught.value)


def test_a_success_that_is_no_gateways() -> None:
    with pytest.raises(errors.GatewayError, match="expected a Health") as caught:
        _answers.parse(Health, 200, {}, b"<html>Welcome</html>")
    assert "address" in str(caught.value.hint)


def test_rate_limits_say_when() -> None:
    headers = {
        "retry-after": "7",
        "ratelimit-limit": "60",
        "ratelimit-remaining": "0",
        "ratelimit-reset": "59",
    }
    with pytest.raises(errors.RateLimitError) as caught:
        _answers.parse(Health, 429, headers, problem("rate_limited"))
    error = caught.value
    assert (error.retry_after, error.limit, error.remaining, error.reset) == (7, 60, 0, 59)
    with pytest.raises(errors.RateLimitError) as unsaid:
        _answers.parse(Health, 429, {"retry-after": "²"}, problem("rate_limited"))
    assert unsaid.value.retry_after is None


async def test_a_job_has_the_id_that_was_given_and_is_sent_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """To a remote gateway, after pauses that grow."""
    pauses: list[float] = []
    sent: list[ApiRequest] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    async def fail(self: transport.AsyncTransport, request: ApiRequest) -> httpx.Response:
        sent.append(request)
        raise httpx.ReadError("cut")

    monkeypatch.setattr(transport, "pause", pause)
    monkeypatch.setattr(transport.AsyncTransport, "_try", fail)
    async with AsyncClient("http://nowhere.invalid", "token") as client:
        model = cast("SessionModel", SimpleNamespace(id=ID))
        session = AsyncSession(client._transport, model)
        with pytest.raises(errors.GatewayUnreachable):
            await session.start_job("1", id="mine-1234")
        with pytest.raises(errors.RequestInvalid, match=r"^id: "):
            await session.start_job("1", id="short")
    assert [request.body and request.body["id"] for request in sent] == ["mine-1234"] * 3
    assert pauses == [transport.PAUSE, 2 * transport.PAUSE]
