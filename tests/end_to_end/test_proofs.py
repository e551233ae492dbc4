"""What ran is taken away, and verified by somebody who has only the file and the key."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import sandcell
from tests.support.home import Home
from tests.support.kernels import Kernel

pytestmark = pytest.mark.linux


def program(home: Home, *words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sandcell", *map(str, words)],
        env=home.environ,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_cells_are_proven_and_a_changed_byte_is_named(running: Kernel, home: Home) -> None:
    running.front.run("x = 6 * 7")
    running.front.run("print('the answer is', x)")
    running.front.run("del x")
    with sandcell.Client() as client:
        (session,) = client.sessions.list()
        (key,) = client.proof_keys()
    path, keys = home.path / "session.tar", home.path / "keys.json"
    keys.write_text(json.dumps([key.model_dump()]))
    exported = program(home, "export", session.id, "-o", path)
    assert exported.returncode == 0, exported.stderr
    assert key.id in exported.stdout

    whole = program(home, "verify", path, "--key", keys)
    assert (whole.returncode, whole.stderr) == (0, "")
    assert "WHOLE" in whole.stdout
    assert f"{key.id}, which you gave" in whole.stdout

    data = path.read_bytes()
    assert data.count(b"the answer is 42") == 1
    path.write_bytes(data.replace(b"the answer is 42", b"the answer is 43"))
    changed = program(home, "verify", path, "--key", keys)
    assert (changed.returncode, changed.stderr) == (1, "")
    assert "DIFFERS" in changed.stdout
    assert "its body is not the one that was recorded" in changed.stdout
    assert "during execution 2: \"print('the answer is', x)\"" in changed.stdout


def test_a_file_that_cannot_be_written_is_one_line(running: Kernel, home: Home) -> None:
    running.front.run("1")
    with sandcell.Client() as client:
        (session,) = client.sessions.list()
    nowhere = Path("nowhere") / "session.tar"
    done = program(home, "export", session.id, "-o", nowhere)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert f"cannot write {nowhere}" in done.stderr
