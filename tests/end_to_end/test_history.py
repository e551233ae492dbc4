"""What ran is known afterwards, and code runs on when nobody is connected."""

from __future__ import annotations

import json
import subprocess
import sys

import nbformat
import pytest

import sandcell
from tests.support import gateways
from tests.support.home import Home
from tests.support.kernels import Kernel

pytestmark = pytest.mark.linux


CODE = "print('one'); 41 + 1"
PLOT = "from IPython.display import display, Image\ndisplay(Image(data=b'\\x89PNG', format='png'))"


def test_history_has_code_outputs_times_and_status(running: Kernel) -> None:
    front = running.front
    front.run(CODE)
    front.run("1 / 0")
    front.run(PLOT)
    front.run("hidden = 1", silent=True)
    with sandcell.Client() as client:
        (session,) = client.sessions.list()
        found = session.history()
        assert found.total == 3
        first, second, third = found.executions
        assert (first.code, first.status, first.execution_count) == (
            "print('one'); 41 + 1",
            "ok",
            1,
        )
        assert first.outputs is not None
        assert [output["output_type"] for output in first.outputs] == ["stream", "execute_result"]
        assert first.outputs[1]["data"]["text/plain"] == "42"
        assert first.started_at is not None
        assert first.ended_at is not None
        assert first.submitted_at <= first.started_at <= first.ended_at
        assert second.status == "error"
        assert second.outputs is not None
        assert second.outputs[0]["ename"] == "ZeroDivisionError"
        assert third.outputs is not None
        assert "image/png" in third.outputs[0]["data"]
        newest = session.history(limit=1, newest=True, outputs=False)
        assert [(e.id, e.code, e.outputs) for e in newest.executions] == [(third.id, PLOT, None)]
        nbformat.validate(session.notebook())


def test_history_survives_gateway_and_shim(running: Kernel, home: Home) -> None:
    running.front.run("print('before')")
    # The gateway first: it would start another shim at once.
    shim = gateways.shim(home)
    gateways.kill(gateways.gateway(home))
    gateways.kill(shim)
    running.front.run("print('after')")
    with sandcell.Client() as client:
        (session,) = client.sessions.list()
        found = session.history().executions
        assert [(e.code, e.status) for e in found] == [
            ("print('before')", "ok"),
            ("print('after')", "ok"),
        ]
        assert found[0].outputs == [{"output_type": "stream", "name": "stdout", "text": "before\n"}]


def test_the_command_line_shows_it_and_writes_a_notebook(running: Kernel, home: Home) -> None:
    running.front.run("x = 1\nx")
    with sandcell.Client() as client:
        (session,) = client.sessions.list()

    def run(*words: str) -> str:
        command = [sys.executable, "-m", "sandcell", "history", str(session.id), *words]
        done = subprocess.run(
            command, env=home.environ, capture_output=True, text=True, timeout=60, check=True
        )
        return done.stdout

    assert "[1] x = 1 …" in run()
    path = home.path / "out.ipynb"
    assert "1 cell" in run("-o", str(path))
    notebook = json.loads(path.read_text())
    nbformat.validate(notebook)
    assert notebook["cells"][0]["outputs"][0]["data"]["text/plain"] == "1"


def test_a_job_goes_on_without_anybody_and_its_result_is_kept(running: Kernel, home: Home) -> None:
    running.front.run("variable = 20")
    with sandcell.Client() as client:
        (session,) = client.sessions.list()
        job = session.start_job("import time; time.sleep(1); print('done'); variable + 1")
        assert (job.detached, job.ended_at) == (True, None)
    gateways.kill(gateways.gateway(home))
    with sandcell.Client() as client:
        session = client.sessions.get(session.id)
        ended = session.job(job.id, wait=60)
        assert (ended.status, ended.lost_messages) == ("ok", 0)
        assert ended.outputs is not None
        assert [o.get("text") or o["data"]["text/plain"] for o in ended.outputs] == ["done\n", "21"]
        assert [(j.id, j.status) for j in session.jobs()] == [(job.id, "ok")]
        with pytest.raises(sandcell.NotFoundError):
            session.job("no-such-job")


def test_a_job_that_fails_stops_nobody_s_cells(running: Kernel) -> None:
    with sandcell.Client() as client:
        running.front.run("pass")
        (session,) = client.sessions.list()
        job = session.start_job("import time; time.sleep(1); 1 / 0")
        assert running.front.run("print('goes on')").stream() == "goes on\n"
        assert session.job(job.id, wait=60).status == "error"
