"""A cell that wants too much gets a reason, and the next one works."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

import sandcell
from tests.support.home import Home
from tests.support.kernels import Kernel, kernel

pytestmark = pytest.mark.linux


@pytest.fixture
def running(home: Home) -> Iterator[Kernel]:
    limits = {"SANDCELL_MAX_MEMORY": "300MiB", "SANDCELL_MAX_DISK": "64MiB"}
    with kernel("sandcell", home.environ | limits, home.path) as started:
        yield started


FILL = "a = bytearray({} << 20); a[::4096] = b'x' * len(a[::4096])"
HOG = f"{FILL.format(900)}\nimport time; time.sleep(60)"
"""Stays until it is ended: where the limit is soft, that is some moments later."""


def test_out_of_memory_is_said_with_limit_and_peak(running: Kernel) -> None:
    front = running.front
    result = front.run(HOG)
    assert result.error == "KernelDied"
    (error,) = result.of("error")
    # Where the limit is soft the peak is what was filled between two looks.
    assert re.search(
        r"out of memory at the session's limit of 300 MiB \(peak [3-9]\d\d MiB\)", error["evalue"]
    )
    assert front.value("'a' in globals()") == "False"
    assert front.run(FILL.format(50)).error == ""


def test_the_reason_reaches_the_api(running: Kernel) -> None:
    running.front.run(HOG)
    with sandcell.Client() as client:
        (session,) = client.sessions.list()
        assert session.status == "error"
        assert session.reason is not None
        assert session.reason.code == "out_of_memory"
        assert session.limits.memory == 300 << 20


def test_a_child_that_runs_out_of_memory_is_told_of_and_the_kernel_lives(running: Kernel) -> None:
    running.front.run("before = 1")
    result = running.front.run(
        "import subprocess, sys, time\n"
        f"done = subprocess.run([sys.executable, '-c', {HOG!r}])\n"
        "print(done.returncode, flush=True)\n"
        "time.sleep(5)"
    )
    assert result.error == ""
    assert result.stream() == "-9\n"
    assert "a process of the session was ended: out of memory" in result.stream("stderr")
    assert running.front.value("before") == "1"


def test_one_file_has_a_hard_limit(running: Kernel) -> None:
    result = running.front.run("open('big', 'wb').write(bytes(65 << 20))")
    assert result.error == "OSError"
    assert "File too large" in result.of("error")[0]["evalue"]


def test_who_fills_the_disk_is_interrupted_and_can_delete(running: Kernel) -> None:
    front = running.front
    result = front.run(
        "import time\n"
        "for number in range(4): open(f'{number}', 'wb').write(bytes(20 << 20))\n"
        "time.sleep(60)"
    )
    assert result.error == "KeyboardInterrupt"
    assert "the session's limit is 64 MiB. Delete files" in result.stream("stderr")
    assert front.run("import os; os.unlink('0'); os.unlink('1')").error == ""
    assert front.value("sorted(os.listdir())") == "['2', '3']"
