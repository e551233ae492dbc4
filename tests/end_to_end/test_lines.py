"""`%sandbox` lines in a notebook."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.conftest import MakeHome
from tests.support.home import Home
from tests.support.kernels import Kernel, kernel

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


def test_a_typo_names_the_nearest_command_without_a_traceback(running: Kernel) -> None:
    result = running.front.run("%sandbox stauts\nnever = 1")
    assert result.of("error")[0]["evalue"].endswith("did you mean %sandbox status?")
    assert len(result.of("error")[0]["traceback"]) == 1
    assert running.front.run("never").error == "NameError"


def test_restart_by_magic(running: Kernel) -> None:
    running.front.run("gone = 1")
    result = running.front.run("%sandbox restart\nprint('after')")
    assert result.stream() == "after\n"
    assert running.front.run("gone").error == "NameError"
