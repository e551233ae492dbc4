"""`%sandbox` lines in a notebook."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.conftest import MakeHome
from tests.support.home import Home
from tests.support.kernels import Kernel, Message, kernel

pytestmark = pytest.mark.linux


@pytest.fixture(scope="module")
def running(home_factory: MakeHome) -> Iterator[Kernel]:
    with home_factory() as home, kernel("sandcell", home.environ, home.path) as started:
        yield started


def test_the_first_cell_of_a_fresh_kernel_may_be_a_line(home: Home) -> None:
    """It waits for the session, as any cell does."""
    with kernel("sandcell", home.environ, home.path) as started:
        result = started.front.run("%sandbox status")
        assert not result.of("error")
        assert "bubblewrap" in result.of("display_data")[0]["data"]["text/plain"]


def test_without_usable_settings_a_line_says_why(home: Home) -> None:
    environ = {**home.environ, "SANDCELL_URL": "nowhere"}
    with kernel("sandcell", environ, home.path) as started:
        (error,) = started.front.run("%sandbox status").of("error")
        assert "SANDCELL_URL" in error["evalue"]


def test_status_is_shown_without_running_anything(running: Kernel) -> None:
    count = running.front.run("pass").content["execution_count"]
    result = running.front.run("%sandbox status")
    shown = result.of("display_data")[0]["data"]
    assert "bubblewrap" in shown["text/plain"]
    assert "<table>" in shown["text/html"]
    assert result.content["execution_count"] == count
    assert running.front.run("pass").content["execution_count"] == count + 1


def test_lines_run_first_and_the_rest_keeps_its_line_numbers(running: Kernel) -> None:
    result = running.front.run("%sandbox status\n%sandbox list\nx = 1\n1 / 0")
    assert len(result.of("display_data")) == 2
    assert result.statuses == ["busy", "idle"]
    traceback = re.sub(r"\x1b\[[0-9;]*m", "", "".join(result.of("error")[0]["traceback"]))
    assert "----> 4 1 / 0" in traceback
    assert running.front.value("x") == "1"


def test_a_line_below_code_says_where_it_belongs(running: Kernel) -> None:
    result = running.front.run("x = 1\n%sandbox status")
    assert "at the top of its cell" in result.stream("stderr")


def test_a_sandbox_cell_says_what_to_write_instead(running: Kernel) -> None:
    result = running.front.run("%%sandbox status\nnever = 1")
    assert "%sandbox status is a line" in result.of("error")[0]["evalue"]
    assert running.front.run("never").error == "NameError"


def test_help_is_the_same_in_and_outside_the_sandbox(running: Kernel) -> None:
    ours = running.front.run("%sandbox help").of("display_data")[0]["data"]["text/plain"]
    (page,) = running.front.run("%sandbox?").content["payload"]
    assert ours in page["data"]["text/plain"]


def test_a_typo_names_the_nearest_command_without_a_traceback(running: Kernel) -> None:
    result = running.front.run("%sandbox stauts\nnever = 1")
    assert result.of("error")[0]["evalue"].endswith("did you mean %sandbox status?")
    assert len(result.of("error")[0]["traceback"]) == 1
    assert running.front.run("never").error == "NameError"


@pytest.mark.parametrize("interrupted", [False, True])
def test_run_all_ends_at_an_error_also_where_lines_follow(
    running: Kernel, interrupted: bool
) -> None:
    def interrupt(message: Message) -> None:
        if interrupted and message["content"].get("text") == "go\n":
            running.manager.interrupt_kernel()

    client = running.front.client
    wait = "time.sleep(60)" if interrupted else "1 / 0"
    first = client.execute(f"import time; time.sleep(0.2); print('go', flush=True); {wait}")
    behind = [client.execute("%sandbox status\nnever = 1"), client.execute("never = 2")]
    assert running.front.collect(first, seen=interrupt).content["status"] == "error"
    for msg_id in behind:
        result = running.front.collect(msg_id)
        assert result.content["status"] == "aborted"
        assert result.statuses == ["busy", "idle"]
    assert running.front.run("never").error == "NameError"
    assert running.front.run("%sandbox status").content["status"] == "ok"


def shown(running: Kernel, line: str) -> str:
    return running.front.run(line).of("display_data")[0]["data"]["text/plain"]


def test_a_closed_session_is_forgotten_and_the_next_cell_gets_a_new_one(home: Home) -> None:
    with kernel("sandcell", home.environ, home.path) as started:
        started.front.run("gone = 1")
        assert "is closed" in shown(started, "%sandbox close")
        for line in "status", "close":
            text = shown(started, f"%sandbox {line}")
            assert text == (
                "There is no session: you closed it. "
                "The next cell, or %sandbox start, starts a new one."
            )
        assert started.front.run("gone").error == "NameError"
        result = started.front.run("%sandbox close\nprint('anew', 'gone' in globals())")
        assert (result.error, result.stream()) == ("", "anew False\n")


def test_status_after_a_cell_is_idle(running: Kernel) -> None:
    for _ in range(5):
        running.front.run("pass")
        assert "status  idle" in shown(running, "%sandbox status")


def test_restart_by_magic(running: Kernel) -> None:
    running.front.run("gone = 1")
    result = running.front.run("%sandbox restart\nprint('after')")
    assert result.stream() == "after\n"
    assert running.front.run("gone").error == "NameError"
