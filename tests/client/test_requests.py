"""What is sent, and what answers mean: without any I/O."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest

from sandcell import _requests, errors
from sandcell_wire.codes import HTTP_STATUS, Code
from sandcell_wire.models import Health, Problem

ID = uuid.UUID("12345678-1234-4234-8234-123456789abc")
NOTHING: dict[str, Any] = {
    "name": None,
    "env": None,
    "metadata": None,
    "language": "python",
    "interpreter": None,
    "image": None,
    "wait": 0,
}


def test_create() -> None:
    request = _requests.create(**NOTHING | {"name": "n", "env": {"A": "b"}, "wait": 2.5})
    assert (request.method, request.path) == ("POST", "/v1/sessions")
    assert request.body is not None
    assert (request.body["name"], request.body["env"]) == ("n", {"A": "b"})
    assert request.headers == {"Prefer": "wait=2.5"}
    assert request.patience == 2.5
    assert _requests.create(**NOTHING).headers == {}


@pytest.mark.parametrize(
    ("bad", "place"),
    [
        ({"name": "a b"}, "name"),
        ({"env": {"": "x"}}, "env"),
        ({"interpreter": "zz"}, "interpreter"),
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
        search=None,
        order_by="-name",
    )
    assert request.path == (
        "/v1/sessions?limit=5&offset=0&status=idle&status=paused&label=a%3Db%26c&order_by=-name"
    )


def test_one_session() -> None:
    assert _requests.get(ID).path == f"/v1/sessions/{ID}"
    assert _requests.close(ID, 0).path == f"/v1/sessions/{ID}"
    assert _requests.close(ID, 1.5).path == f"/v1/sessions/{ID}?grace=1.5"
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
    health = _requests.parse(Health, 200, {}, b'{"status": "ok", "version": "1", "new": 2}')
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
        _requests.parse(Health, status, {}, body.encode())
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
        _requests.parse(Health, 400, {}, problem(code))


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
        _requests.parse(Health, 502, {}, body)
    assert type(caught.value) is errors.GatewayError
    assert caught.value.status == 502
    assert str(caught.value)


def test_a_success_that_is_no_gateways() -> None:
    with pytest.raises(errors.GatewayError, match="expected a Health") as caught:
        _requests.parse(Health, 200, {}, b"<html>Welcome</html>")
    assert "address" in str(caught.value.hint)


def test_rate_limits_say_when() -> None:
    with pytest.raises(errors.RateLimited) as caught:
        _requests.parse(Health, 429, {"retry-after": "7"}, problem("rate_limited"))
    assert caught.value.retry_after == 7
