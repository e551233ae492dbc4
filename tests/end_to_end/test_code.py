"""Programs run code in a session: results, streams, timeouts, and lines that break."""

from __future__ import annotations

import asyncio
import itertools
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

import sandcell
from sandcell import AsyncClient, ExecutionOutput, Session
from tests.support import gateways
from tests.support.gateways import eventually
from tests.support.home import Home
from tests.support.kernels import kernel
from tests.support.route import TOKEN, Route

pytestmark = pytest.mark.linux

READY = 60.0
WAIT = """\
import os, time
print('begun', flush=True)
while not os.path.exists('go'): time.sleep(0.02)
print('\\u2028 gone')
"""
COUNT = "import time\nfor n in range(60): print(n, flush=True); time.sleep(0.05)"


@pytest.fixture(scope="module")
def session(route: Route) -> Iterator[Session]:
    with route.client() as client:
        yield client.sessions.create(wait=READY)


@pytest.fixture
def go(route: Route, session: Session) -> Iterator[Path]:
    """What `WAIT` waits for."""
    path = route.workspace / "go"
    yield path
    path.unlink(missing_ok=True)


def test_what_code_gives(session: Session) -> None:
    result = session.execute("import sys\nprint('out')\nprint('err', file=sys.stderr)\n6 * 7")
    assert (result.stdout, result.stderr, result.text) == ("out\n", "err\n", "42")
    assert result.raise_for_error() is result
    assert session.execute("pass").execution_count == (result.execution_count or 0) + 1
    assert result.session_id == session.id
    assert set(result.timing) == {"queue", "execute"}
    assert result.error is None
    shown = session.execute("from IPython.display import *\ndisplay(HTML('<b>x</b>'))\n'value'")
    html, value = shown.results
    assert (html.html, html.is_value) == ("<b>x</b>", False)
    assert (value.text, value.is_value) == ("'value'", True)
    assert shown.text == "'value'"


def test_an_error_is_a_result_and_an_exception_on_request(session: Session) -> None:
    result = session.execute("x = 1\n1 / 0")
    assert result.status == "error"
    assert result.error is not None
    assert (result.error.name, result.error.value) == ("ZeroDivisionError", "division by zero")
    assert "ZeroDivisionError" in result.error.traceback[-1]
    with pytest.raises(sandcell.ExecutionFailed, match="ZeroDivisionError") as caught:
        result.raise_for_error()
    assert caught.value.result is result
    assert session.execute("x").text == "1"


def test_output_comes_while_the_code_runs(session: Session, go: Path) -> None:
    """It ends only when its output has been seen."""
    seen: list[str] = []

    def on_output(output: ExecutionOutput) -> None:
        seen.append(output.content["text"])
        go.touch()

    result = session.execute(WAIT, on_output=on_output)
    assert seen == ["begun\n", "\u2028 gone\n"]
    assert result.stdout == "begun\n\u2028 gone\n"


async def test_asyncio_runs_several_sessions_at_once(home: Home) -> None:
    async with AsyncClient() as client:
        sessions = [await client.sessions.create(wait=READY) for _ in range(2)]
        found = await asyncio.gather(
            *(session.execute(f"print({n}); {n} + 1") for n, session in enumerate(sessions))
        )
        assert [(result.stdout, result.text) for result in found] == [("0\n", "1"), ("1\n", "2")]
        for session in sessions:
            await session.close()


def test_code_that_runs_too_long_is_interrupted(session: Session) -> None:
    session.execute("x = 'kept'")
    result = session.execute("import time\nprint('begun')\ntime.sleep(600)", timeout=0.5)
    assert result.timed_out
    assert result.stdout == "begun\n"
    assert result.error is not None
    assert result.error.name == "KeyboardInterrupt"
    with pytest.raises(TimeoutError):
        result.raise_for_error()
    after = session.execute("x", timeout=60)
    assert (after.text, after.timed_out) == ("'kept'", False)


def test_the_time_before_it_runs_does_not_count(session: Session) -> None:
    job = session.start_job("import time; time.sleep(3)")
    result = session.execute("import time; time.sleep(0.1)", timeout=2)
    assert result.ok
    assert session.job(job.id).status == "ok"


def test_the_same_id_is_the_same_execution(session: Session) -> None:
    code = "count = globals().get('count', 0) + 1; count"
    first = session.execute(code, id="once-and-only")
    again = session.execute(code, id="once-and-only")
    assert (first.text, again.text) == ("1", "1")
    assert session.execute("count").text == "1"


def test_the_id_of_somebody_else_s_execution_is_refused(session: Session) -> None:
    job = session.start_job("1 + 1")
    with pytest.raises(sandcell.RequestInvalid, match="not started here"):
        session.execute("2", id=job.id)
    with pytest.raises(sandcell.RequestInvalid, match="id"):
        session.execute("2", id="no id")
    with pytest.raises(sandcell.RequestInvalid, match="timeout"):
        session.execute("2", timeout=-1)


def test_input_is_refused_rather_than_waited_for(session: Session) -> None:
    result = session.execute("input('name? ')")
    assert result.error is not None
    assert result.error.name == "StdinNotImplementedError"


def test_an_interpreter_that_dies_is_an_error(session: Session) -> None:
    result = session.execute("import os; os._exit(3)")
    assert result.error is not None
    assert result.error.name == "KernelDied"
    assert session.execute("1 + 1").text == "2"


def test_what_a_program_has_seen_is_nobody_s_to_be_shown(session: Session, route: Route) -> None:
    session.execute("print('for the program')")
    with kernel("sandcell", route.environ, route.home.path) as attached:
        shown = attached.front.run(f"%sandbox attach {session.id}").stream()
        assert "for the program" not in shown
        assert attached.front.run("print('mine')").stream() == "mine\n"


# -- over a line that breaks ---------------------------------------------------------------------


@pytest.fixture
def far(own_route: Route) -> Iterator[Session]:
    """A session behind the proxy."""
    with sandcell.Client(own_route.proxy.url, TOKEN) as client:
        yield client.sessions.create(wait=READY)


def test_a_session_that_is_closed_meanwhile(own_route: Route, far: Session) -> None:
    def on_output(_: ExecutionOutput) -> None:
        with own_route.client() as client:
            client.sessions.get(far.id).close()

    with pytest.raises((sandcell.SessionExpiredError, sandcell.SessionNotFound)):
        far.execute(WAIT, on_output=on_output)


def test_json_without_a_stream(route: Route, session: Session) -> None:
    url = f"{route.proxy.url}/v1/sessions/{session.id}/code"
    headers = {"Authorization": f"Bearer {TOKEN}"}
    answer = httpx.post(url, json={"code": "print('hi'); 1 / 0"}, headers=headers, timeout=READY)
    assert answer.status_code == 200
    assert answer.json()["status"] == "error"
    assert [output["output_type"] for output in answer.json()["outputs"]] == ["stream", "error"]
    wrong = httpx.post(url, json={"code": ""}, headers=headers)
    assert wrong.status_code == 422
    assert wrong.json()["code"] == "validation_error"


def test_cuts_lose_and_repeat_nothing(own_route: Route, far: Session) -> None:
    seen: list[str] = []
    with own_route.proxy.cutting(itertools.repeat(0.7)):
        result = far.execute(COUNT, on_output=lambda output: seen.append(output.content["text"]))
    assert own_route.proxy.cuts > 2
    assert "".join(seen) == result.stdout == "".join(f"{n}\n" for n in range(60))


def test_the_gateway_is_killed_meanwhile(own_route: Route, far: Session) -> None:
    killed: list[float] = []

    def on_output(_: ExecutionOutput) -> None:
        if not killed:
            own_route.end_gateway(signal.SIGKILL)
            own_route.start_gateway()
            killed.append(time.monotonic())

    result = far.execute(COUNT, on_output=on_output)
    assert killed
    assert result.stdout == "".join(f"{n}\n" for n in range(60))


def test_the_shim_is_killed_meanwhile(own_route: Route, far: Session) -> None:
    """The code goes on to its end; whether it was reached nobody can say."""
    seen: list[str] = []

    def on_output(output: ExecutionOutput) -> None:
        if not seen:
            gateways.kill(gateways.shim(own_route.home))
            (own_route.workspace / "go").touch()
        seen.append(str(output.content.get("text", "")))

    result = far.execute(WAIT, on_output=on_output)
    assert result.status in ("ok", "unknown")
    assert seen[0] == "begun\n"
    assert far.execute("1 + 1").text == "2"


def test_a_client_that_goes_stops_nothing(own_route: Route, far: Session) -> None:
    class Enough(Exception):
        pass

    def on_output(_: ExecutionOutput) -> None:
        raise Enough

    with pytest.raises(Enough):
        far.execute(WAIT, id="left-alone", on_output=on_output)
    (own_route.workspace / "go").touch()
    eventually("it ends", lambda: far.refresh().status.value == "idle")
    assert far.execute(WAIT, id="left-alone").stdout == "begun\n\u2028 gone\n"
