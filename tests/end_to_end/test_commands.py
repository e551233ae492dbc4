"""Programs beside the cells: streams apart, input, signals, time limits, and lines that break."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Iterator

import httpx
import pytest

import sandcell
from sandcell import Session
from tests.support import gateways
from tests.support.gateways import eventually
from tests.support.route import TOKEN, Route

pytestmark = pytest.mark.linux

READY = 60.0
COUNT = "for n in $(seq 0 59); do echo $n; sleep 0.05; done"
LINES = "".join(f"{n}\n" for n in range(60))


@pytest.fixture(scope="module")
def session(route: Route) -> Iterator[Session]:
    with route.client() as client:
        session = client.sessions.create(wait=READY)
        yield session
        session.close()


def test_what_a_command_gives(session: Session) -> None:
    result = session.commands.run("echo out; echo err >&2; exit 3")
    assert (result.stdout, result.stderr, result.exit_code) == ("out\n", "err\n", 3)
    assert not result.ok
    with pytest.raises(sandcell.CommandFailed, match="code 3") as caught:
        result.raise_for_error()
    assert caught.value.result is result
    assert session.commands.run("true").raise_for_error().exit_code == 0


def test_where_and_with_what_it_runs(session: Session) -> None:
    session.files.write("data/numbers.txt", "1\n2\n")
    run = session.commands.run
    assert run("cat numbers.txt", cwd="data").stdout == "1\n2\n"
    assert run("pwd", cwd="/tmp").stdout == "/tmp\n"
    assert run('echo "$A-$B"', env={"A": "x", "B": "y z"}).stdout == "x-y z\n"
    assert run(["printf", "%s|", "a b", "$HOME"]).stdout == "a b|$HOME|"
    assert run("cat", stdin="text\u00e4").stdout == "text\u00e4"
    assert run("cat").stdout == "", "without input there is none"
    assert run("[[ -n $BASH_VERSION ]] && python -c 'import sys; print(sys.prefix)'").ok


def test_what_cannot_run_says_why(session: Session) -> None:
    result = session.commands.run(["no-such-program"])
    assert result.model.status == "failed"
    with pytest.raises(sandcell.CommandFailed, match=r"no-such-program.*No such file"):
        result.raise_for_error()
    missing = session.commands.run("true", cwd="nowhere")
    assert "nowhere" in (missing.model.reason or "")
    wrong: str | list[str]
    for wrong in ("", "a\0b", []):
        with pytest.raises(sandcell.RequestInvalid, match="command"):
            session.commands.run(wrong)


def test_output_comes_while_it_runs(session: Session) -> None:
    """It ends only when its output has been seen."""
    seen: list[tuple[str, str]] = []

    def on_stdout(text: str) -> None:
        seen.append(("out", text))
        session.files.write("go", "")

    result = session.commands.run(
        "echo begun; until [ -e go ]; do sleep 0.02; done; echo end >&2",
        on_stdout=on_stdout,
        on_stderr=lambda text: seen.append(("err", text)),
    )
    assert seen == [("out", "begun\n"), ("err", "end\n")]
    assert result.ok


def test_a_command_that_runs_too_long_is_ended(session: Session) -> None:
    result = session.commands.run("echo begun; sleep 600", timeout=0.5)
    assert (result.timed_out, result.stdout, result.signal) == (True, "begun\n", 15)
    with pytest.raises(TimeoutError):
        result.raise_for_error()


def test_a_background_command_is_listed_fed_signalled_and_killed(session: Session) -> None:
    started = session.commands.start("while read line; do echo got $line; done", interactive=True)
    assert started.status in ("queued", "running")
    started.write("one\n")
    started.write("two\n", end=True)
    assert started.wait().stdout == "got one\ngot two\n"
    sleeps = session.commands.start(["sleep", "600"])
    assert sleeps.id in [command.id for command in session.commands.list()]
    again = session.commands.get(sleeps.id)
    again.signal("SIGINT")
    assert again.wait().signal == 2
    with pytest.raises(sandcell.ConflictError):
        again.signal()
    killed = session.commands.start("sleep 600 & sleep 600")
    killed.kill()
    assert killed.model.signal == 9
    killed.kill()
    with pytest.raises(sandcell.NotFoundError):
        session.commands.get("0" * 32)


def test_what_a_command_leaves_running_does_not_hold_it(session: Session) -> None:
    """As with a shell's `&`: its output is nobody's once the command has ended."""
    result = session.commands.run("(sleep 1; yes | head -c 1000000; touch left) & echo done")
    assert (result.stdout, result.exit_code) == ("done\n", 0)
    eventually("what it left goes on", lambda: session.commands.run("[ -e left ]").ok)


def test_commands_and_cells_do_not_wait_for_each_other(session: Session) -> None:
    sleeps = session.commands.start("sleep 600")
    assert session.execute("6 * 7").text == "42"
    eventually("it is active", lambda: session.refresh().status.value == "active")
    sleeps.kill()
    eventually("it is idle", lambda: session.refresh().status.value == "idle")


def test_every_byte_of_a_lot_comes_in_order(session: Session) -> None:
    program = "import sys\nfor n in range(300_000): print(n, file=(sys.stdout, sys.stderr)[n % 2])"
    result = session.commands.run(["python", "-c", program])
    assert result.stdout.split() == [str(n) for n in range(0, 300_000, 2)]
    assert result.stderr.split() == [str(n) for n in range(1, 300_000, 2)]
    assert result.lost_bytes == 0


def test_who_follows_holds_it_back_and_nothing_is_lost(session: Session) -> None:
    """More than is kept of a command."""
    size, seen = 64 << 20, 0
    command = session.commands.start(f"head -c {size} /dev/zero | tr '\\0' x")
    for event in command.follow():
        if event.type == "output":
            seen += len(event.text)
        assert event.type != "lost"
    assert seen == size


def test_what_nobody_follows_is_kept_as_far_as_it_goes(session: Session) -> None:
    size = 40 << 20
    command = session.commands.start(f"head -c {size} /dev/zero | tr '\\0' x; echo end")
    eventually("it ends", lambda: command.refresh().model.ended_at is not None)
    result = command.wait()
    assert result.lost_bytes > size // 2
    assert result.lost_bytes + len(result.stdout) == size + 4
    assert result.stdout.endswith("xend\n")


def test_a_repeated_request_is_one_command(session: Session) -> None:
    for _ in range(2):
        result = session.commands.run("echo x >> once; cat once", id="the-same-command")
        assert result.stdout == "x\n"


def test_the_http_answer_and_its_stream(route: Route, session: Session) -> None:
    url = f"{route.proxy.url}/v1/sessions/{session.id}/commands"
    with httpx.Client(headers={"Authorization": f"Bearer {TOKEN}"}, timeout=60) as http:
        answer = http.post(url, json={"command": "echo out; echo err >&2"}).json()
        assert (answer["stdout"], answer["stderr"], answer["status"]) == (
            "out\n",
            "err\n",
            "exited",
        )
        with http.stream(
            "POST", url, json={"command": "echo x"}, headers={"Accept": "application/x-ndjson"}
        ) as stream:
            types = [httpx.Response(200, text=line).json()["type"] for line in stream.iter_lines()]
        assert types == ["started", "output", "ended"]
        for body in ({"command": "true", "cwd": "a\0b"}, {"command": "x" * (1 << 18)}, {}):
            refused = http.post(url, json=body)
            assert (refused.status_code, refused.json()["code"]) == (422, "validation_error")


# -- over a line that breaks ---------------------------------------------------------------------


@pytest.fixture
def far(own_route: Route) -> Iterator[Session]:
    """A session behind the proxy."""
    with sandcell.Client(own_route.proxy.url, TOKEN) as client:
        yield client.sessions.create(wait=READY)


def test_cuts_lose_and_repeat_nothing(own_route: Route, far: Session) -> None:
    with own_route.proxy.cutting(itertools.repeat(0.7)):
        result = far.commands.run(COUNT)
    assert own_route.proxy.cuts > 2
    assert result.stdout == LINES


@pytest.mark.parametrize("part", ["gateway", "shim"])
def test_kill_9_on_the_way_loses_and_repeats_nothing(
    own_route: Route, far: Session, part: str
) -> None:
    command = far.commands.start(f"read x; echo $x; {COUNT}", interactive=True)
    seen: list[str] = []

    def on_stdout(text: str) -> None:
        if not seen:
            kill(own_route, part)
        seen.append(text)

    command.write("begin\n")
    result = command.wait(on_stdout=on_stdout)
    assert "".join(seen) == result.stdout == f"begin\n{LINES}"
    assert (result.exit_code, result.lost_bytes) == (0, 0)


def kill(route: Route, part: str) -> None:
    if part == "shim":
        gateways.kill(gateways.shim(route.home))
    else:
        route.end_gateway(signal.SIGKILL)
        route.start_gateway()


def test_a_session_that_closes_ends_its_commands(own_route: Route, far: Session) -> None:
    def on_stdout(_: str) -> None:
        with own_route.client() as client:
            client.sessions.get(far.id).close()

    try:
        result = far.commands.run("echo begun; sleep 600", on_stdout=on_stdout)
    except (sandcell.SessionExpiredError, sandcell.SessionNotFound):
        return
    assert (result.model.status, result.model.reason) == ("unknown", "was ended with its session")
