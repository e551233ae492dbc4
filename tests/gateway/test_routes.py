"""`/v1/sessions` as a client sees it."""

from __future__ import annotations

import asyncio
import io
import json
import uuid
from collections.abc import AsyncGenerator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from sandcell_gateway.routes.sessions import preferred_wait
from sandcell_wire.codes import HTTP_STATUS, Code
from sandcell_wire.models import MAX_METADATA
from tests.gateway.support import TOKEN, Gateway

BEARER = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
async def http(gateway: Gateway) -> AsyncGenerator[httpx.AsyncClient]:
    """The application through ASGI, as if over TCP."""
    transport = httpx.ASGITransport(gateway.app)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://localhost", headers=BEARER, timeout=20
    ) as client:
        yield client


def check_problem(response: httpx.Response, code: Code, status: int | None = None) -> Any:
    """Every error is a complete problem document."""
    assert response.status_code == (status or HTTP_STATUS[code]), response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["code"] == code.value
    assert problem["status"] == response.status_code
    assert problem["title"]
    assert problem["detail"]
    assert problem["request_id"] == response.headers["x-request-id"]
    return problem


async def test_a_session_from_creation_to_close(http: httpx.AsyncClient) -> None:
    body = {"name": "one", "metadata": {"team": "a"}, "env": {"SECRET": "xyzzy"}}
    created = await http.post("/v1/sessions", json=body, headers={"Prefer": "wait=20"})
    assert created.status_code == 200
    assert created.headers["server-timing"].startswith("total;dur=")
    session = created.json()
    assert uuid.UUID(session["id"]).version == 4
    assert (session["status"], session["name"], session["metadata"]) == (
        "idle",
        "one",
        {"team": "a"},
    )
    assert session["created_at"].endswith("Z")
    path = f"/v1/sessions/{session['id']}"
    assert (await http.get(path)).json()["status"] == "idle"
    listed = (await http.get("/v1/sessions")).json()
    assert (listed["total"], listed["limit"], listed["offset"]) == (1, 100, 0)
    assert listed["sessions"][0]["id"] == session["id"]
    assert "xyzzy" not in created.text + json.dumps(listed)

    closed = await http.delete(path)
    assert (closed.status_code, closed.json()["status"]) == (200, "terminated")
    assert closed.json()["reason"]["code"] == "closed"
    assert (await http.delete(path)).json()["status"] == "terminated", "closing twice is harmless"
    assert (await http.get("/v1/sessions")).json()["total"] == 0
    again = (await http.get("/v1/sessions", params={"status": "terminated"})).json()
    assert [item["id"] for item in again["sessions"]] == [session["id"]]
    check_problem(await http.post(f"{path}/restart"), Code.SESSION_EXPIRED)
    check_problem(await http.post(f"{path}/interrupt"), Code.SESSION_EXPIRED)


async def test_files_are_gone_after_the_close(http: httpx.AsyncClient, gateway: Gateway) -> None:
    session = (await http.post("/v1/sessions", json={}, headers={"Prefer": "wait=20"})).json()
    state = gateway.state(session["id"])
    locked = state / "workspace" / "locked"
    locked.mkdir()
    (locked / "file").write_text("x")
    locked.chmod(0)
    await http.delete(f"/v1/sessions/{session['id']}")
    assert not state.exists()
    assert list((gateway.settings.runtime_dir / "s").iterdir()) == []


async def test_restart_gives_the_wanted_interpreter(http: httpx.AsyncClient) -> None:
    session = (await http.post("/v1/sessions", json={}, headers={"Prefer": "wait=20"})).json()
    path = f"/v1/sessions/{session['id']}"
    wanted = uuid.uuid4().hex
    restarted = await http.post(f"{path}/restart", json={"interpreter": wanted})
    assert (restarted.json()["status"], restarted.json()["interpreter"]) == ("idle", wanted)
    assert (await http.post(f"{path}/interrupt")).status_code == 200


async def test_a_refusal_of_the_shim_keeps_its_code(http: httpx.AsyncClient) -> None:
    body = {"env": {"FAKE_SHIM": "refuse"}}
    session = (await http.post("/v1/sessions", json=body, headers={"Prefer": "wait=20"})).json()
    answer = await http.post(f"/v1/sessions/{session['id']}/interrupt")
    assert check_problem(answer, Code.CONFLICT)["detail"] == "no"


async def test_a_name_is_unique_among_live_sessions(http: httpx.AsyncClient) -> None:
    first = (await http.post("/v1/sessions", json={"name": "n"})).json()
    problem = check_problem(await http.post("/v1/sessions", json={"name": "n"}), Code.CONFLICT)
    assert "'n'" in problem["detail"]
    await http.delete(f"/v1/sessions/{first['id']}")
    assert (await http.post("/v1/sessions", json={"name": "n"})).status_code == 200


async def test_a_bad_name_is_refused_in_words(http: httpx.AsyncClient) -> None:
    answer = await http.post("/v1/sessions", json={"name": "a b"})
    detail = check_problem(answer, Code.VALIDATION_ERROR)["detail"]
    assert detail.startswith("body.name: expected 1 to 64 letters")


async def test_a_create_does_not_wait_unless_asked(http: httpx.AsyncClient) -> None:
    body = {"env": {"FAKE_SHIM": "slow"}}
    assert (await http.post("/v1/sessions", json=body)).json()["status"] == "initializing"
    wait = {"Prefer": "wait=0.05"}
    late = await http.post("/v1/sessions", json=body, headers=wait)
    assert late.json()["status"] == "initializing"


async def test_listing_filters_orders_and_pages(http: httpx.AsyncClient) -> None:
    ids: dict[str, str] = {}
    for name in ("ant", "bee", "cat"):
        body = {"name": name, "metadata": {"kind": name, "all": "yes", 'odd "$.key': "v"}}
        ids[name] = (await http.post("/v1/sessions", json=body)).json()["id"]

    async def names(**params: Any) -> list[str]:
        answer = await http.get("/v1/sessions", params=params)
        assert answer.status_code == 200, answer.text
        return [session["name"] for session in answer.json()["sessions"]]

    assert await names() == ["cat", "bee", "ant"]
    assert await names(order_by="name") == ["ant", "bee", "cat"]
    assert await names(order_by="-name", limit=1, offset=1) == ["bee"]
    assert await names(label=["kind=bee", "all=yes"]) == ["bee"]
    assert await names(label='odd "$.key=v', limit=1) == ["cat"]
    # Not a hexadecimal digit, with which an id might begin.
    assert await names(search="t", order_by="name") == ["ant", "cat"]
    assert await names(search="%") == []
    assert await names(search=ids["bee"][:12]) == ["bee"]
    assert await names(status=["running"], limit=1) == ["cat"]
    assert await names(label=["kind=bee", "kind=ant"]) == [], "all that are named must be there"
    assert await names(search="YES", order_by="-created_at") == ["cat", "bee", "ant"]
    await http.patch(f"/v1/sessions/{ids['ant']}", json={"metadata": {"type": "notebook"}})
    assert await names(type="notebook") == ["ant"]
    assert await names(type="note") == []
    assert await names(type="notebook", label="kind=bee") == []
    assert sorted(await names(order_by="updated_at")) == ["ant", "bee", "cat"]
    assert await names(status=["paused", "error"]) == []


async def test_what_was_changed_last_comes_first(http: httpx.AsyncClient) -> None:
    made = [(await http.post("/v1/sessions", json={})).json()["id"] for _ in range(3)]
    changed = [made[2], made[0], made[1]]
    for session_id in changed:
        await http.delete(f"/v1/sessions/{session_id}")  # nothing changes it later
    for order, expected in (("updated_at", changed), ("-updated_at", changed[::-1])):
        params = {"order_by": order, "status": "terminated"}
        found = (await http.get("/v1/sessions", params=params)).json()["sessions"]
        assert [session["id"] for session in found] == expected


def unmoved(answer: httpx.Response) -> dict[str, Any]:
    """A session without the moment of its last change: that its status is stored is one, too."""
    return {key: value for key, value in answer.json().items() if key != "updated_at"}


async def test_a_patch_merges(http: httpx.AsyncClient) -> None:
    body = {"name": "one", "metadata": {"team": "a", "kept": "yes"}}
    made = (await http.post("/v1/sessions", json=body, headers={"Prefer": "wait=20"})).json()
    path = f"/v1/sessions/{made['id']}"

    async def patched(body: dict[str, Any], **headers: str) -> dict[str, Any]:
        answer = await http.patch(path, json=body, headers=headers)
        assert answer.status_code == 200, answer.text
        assert unmoved(await http.get(path)) == unmoved(answer)
        shown: dict[str, Any] = answer.json()
        return shown

    shown = await patched({"metadata": {"team": None, "type": "notebook", "gone": None}})
    assert (shown["name"], shown["metadata"]) == ("one", {"kept": "yes", "type": "notebook"})
    assert shown["updated_at"] > made["updated_at"]
    merge_patch = {"Content-Type": "application/merge-patch+json"}
    assert (await patched({"name": "two"}, **merge_patch))["metadata"] == shown["metadata"]
    assert (await patched({}))["name"] == "two"
    assert (await patched({"name": None}))["name"] is None
    assert (await patched({"metadata": None}))["metadata"] == {}


async def test_a_patch_that_does_not_fit_changes_nothing(http: httpx.AsyncClient) -> None:
    wait = {"Prefer": "wait=20"}
    await http.post("/v1/sessions", json={"name": "taken"})
    full = {f"k{n}": "" for n in range(MAX_METADATA)}
    body = {"name": "n", "metadata": full}
    before = unmoved(await http.post("/v1/sessions", json=body, headers=wait))
    path = f"/v1/sessions/{before['id']}"
    wanted = {"name": "taken", "metadata": {"k0": None}}
    check_problem(await http.patch(path, json=wanted), Code.CONFLICT)
    over = check_problem(
        await http.patch(path, json={"name": "m", "metadata": {"one more": ""}}),
        Code.VALIDATION_ERROR,
    )
    assert over["detail"] == "metadata: at most 64 labels, got 65"
    assert unmoved(await http.get(path)) == before
    assert (await http.delete(path)).status_code == 200
    check_problem(await http.patch(path, json={"name": "m"}), Code.SESSION_EXPIRED)


async def test_patches_at_once_lose_nothing(http: httpx.AsyncClient) -> None:
    path = f"/v1/sessions/{(await http.post('/v1/sessions', json={})).json()['id']}"
    await asyncio.gather(*(http.patch(path, json={"metadata": {f"k{n}": "v"}}) for n in range(20)))
    assert len((await http.get(path)).json()["metadata"]) == 20


async def test_limits_are_shown(http: httpx.AsyncClient) -> None:
    limits = {"memory": "1.5GiB", "cpus": 0.5, "disk": 100 << 20}
    made = (await http.post("/v1/sessions", json={"limits": limits})).json()
    shown = {key: value for key, value in made["limits"].items() if key != "soft"}
    assert shown == {"memory": 3 << 29, "cpus": 0.5, "disk": 100 << 20, "processes": 512}
    default = (await http.post("/v1/sessions", json={})).json()["limits"]
    assert default["memory"] > 0
    assert (default["cpus"], default["disk"]) == (0, 20 << 30)


BAD_BODIES: list[tuple[Any, str]] = [
    ({"nam": "x"}, "nam"),
    ({"name": "../x"}, "name"),
    ({"name": ""}, "name"),
    ({"env": {"1A": "x"}}, "env"),
    ({"env": {"A": 1}}, "env"),
    ({"metadata": {f"k{n}": "" for n in range(65)}}, "metadata"),
    ({"interpreter": "not hexadecimal"}, "interpreter"),
    ({"language": "cobol"}, "language"),
    ({"image": "/usr"}, "image"),
    ({"limits": {"memory": "lots"}}, "limits.memory"),
    ({"limits": {"memory": 1024}}, "limits.memory"),
    ({"limits": {"memory": "1PiB"}}, "limits.memory: at most"),
    ({"limits": {"disk": "21GiB"}}, "limits.disk: at most"),
    ({"limits": {"processes": 513}}, "limits.processes: at most 512 is allowed here, got 513"),
    ({"limits": {"cpus": 0}}, "limits.cpus"),
    ({"limits": {"colour": 1}}, "limits.colour"),
    ([], "body"),
]


async def test_bad_bodies(http: httpx.AsyncClient) -> None:
    for body, place in BAD_BODIES:
        problem = check_problem(await http.post("/v1/sessions", json=body), Code.VALIDATION_ERROR)
        assert place in problem["detail"], f"of {body}"
    assert (await http.get("/v1/sessions")).json()["total"] == 0


BAD_REQUESTS = [
    ("GET", "/v1/sessions?limit=0", Code.VALIDATION_ERROR),
    ("GET", "/v1/sessions?limit=501", Code.VALIDATION_ERROR),
    ("GET", "/v1/sessions?offset=-1", Code.VALIDATION_ERROR),
    ("GET", "/v1/sessions?status=asleep", Code.VALIDATION_ERROR),
    ("GET", "/v1/sessions?label=novalue", Code.VALIDATION_ERROR),
    ("GET", "/v1/sessions?order_by=owner", Code.VALIDATION_ERROR),
    ("GET", "/v1/sessions/not-a-uuid", Code.VALIDATION_ERROR),
    ("DELETE", f"/v1/sessions/{uuid.UUID(int=1)}?grace=-1", Code.VALIDATION_ERROR),
    ("DELETE", f"/v1/sessions/{uuid.UUID(int=1)}?grace=nan", Code.VALIDATION_ERROR),
    ("GET", f"/v1/sessions/{uuid.UUID(int=1)}", Code.SESSION_NOT_FOUND),
    ("DELETE", f"/v1/sessions/{uuid.UUID(int=1)}", Code.SESSION_NOT_FOUND),
    ("POST", f"/v1/sessions/{uuid.UUID(int=1)}/restart", Code.SESSION_NOT_FOUND),
    ("GET", "/v2/sessions", Code.NOT_FOUND),
    ("GET", "/v1/../../etc/passwd", Code.NOT_FOUND),
]


async def test_bad_requests(http: httpx.AsyncClient) -> None:
    for method, path, code in BAD_REQUESTS:
        check_problem(await http.request(method, path), code)


async def test_a_wrong_method_says_what_is_offered(http: httpx.AsyncClient) -> None:
    answer = await http.put("/v1/sessions", json={})
    assert "POST" in check_problem(answer, Code.NOT_FOUND, 405)["detail"]
    assert "POST" in answer.headers["allow"]


async def test_a_body_that_is_no_json(http: httpx.AsyncClient) -> None:
    answer = await http.post(
        "/v1/sessions",
        content=b'{"env": {"A": "secret',
        headers={"Content-Type": "application/json"},
    )
    check_problem(answer, Code.VALIDATION_ERROR)
    assert "secret" not in answer.text


async def test_what_was_sent_is_not_repeated(http: httpx.AsyncClient) -> None:
    """It may be an environment."""
    for body in (
        {"env": {"A": ["secret"]}},
        {"env": "secret"},
        {"env": {"A": "x"}, "no": "secret"},
    ):
        answer = await http.post("/v1/sessions", json=body)
        check_problem(answer, Code.VALIDATION_ERROR)
        assert "secret" not in answer.text


async def test_bodies_are_bounded(http: httpx.AsyncClient) -> None:
    body = json.dumps({"env": {"A": "x" * (1 << 20)}}).encode()
    check_problem(await http.post("/v1/sessions", content=body), Code.CONTENT_TOO_LARGE)

    async def pieces() -> AsyncGenerator[bytes]:
        yield body

    answer = await http.post(
        "/v1/sessions", content=pieces(), headers={"Content-Type": "application/json"}
    )
    check_problem(answer, Code.CONTENT_TOO_LARGE)
    assert (await http.get("/v1/sessions")).json()["total"] == 0


async def test_our_own_failure_gives_no_details(
    http: httpx.AsyncClient, gateway: Gateway, monkeypatch: pytest.MonkeyPatch, log: io.StringIO
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("private detail")

    with monkeypatch.context() as patch:
        patch.setattr(gateway.service, "list", fail)
        answer = await http.get("/v1/sessions")
    problem = check_problem(answer, Code.INTERNAL_ERROR)
    assert "private" not in answer.text
    assert problem["request_id"] in log.getvalue()
    assert "private detail" in log.getvalue()


async def test_health_needs_no_token(http: httpx.AsyncClient) -> None:
    answer = await http.get("/health", headers={"Authorization": ""})
    assert (answer.status_code, answer.json()["status"]) == (200, "ok")


async def test_the_interface_describes_itself(http: httpx.AsyncClient) -> None:
    paths = (await http.get("/openapi.json")).json()["paths"]
    assert {"/v1/sessions", "/v1/sessions/{session_id}", "/health"} <= set(paths)


@pytest.mark.parametrize(
    ("prefer", "seconds"),
    [
        (None, 0.0),
        ("", 0.0),
        ("respond-async", 0.0),
        ("wait=5", 5.0),
        ("respond-async, wait=2.5", 2.5),
        ("WAIT=7; x=1", 7.0),
        ('wait="3"', 3.0),
        ("wait=1000000", 300.0),
        ("wait=-1", 0.0),
        ("await=9", 0.0),
    ],
)
def test_prefer_wait(prefer: str | None, seconds: float) -> None:
    assert preferred_wait(prefer) == seconds


def test_every_route_has_a_summary(gateway: Gateway) -> None:
    app: FastAPI = gateway.app
    operations = [
        operation for methods in app.openapi()["paths"].values() for operation in methods.values()
    ]
    assert all(operation.get("description") for operation in operations)
