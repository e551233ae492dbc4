"""`sandcell gateway` and `sandcell doctor` as programs, and what survives kill -9."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from sandcell import Client
from sandcell.cli import app
from sandcell_gateway.settings import NOT_AN_OPTION, GatewaySettings
from tests.gateway.support import PATIENCE, TOKEN, Program, alive, gateway_program, wait_for
from tests.support.home import Home


def client_of(program: Program) -> Client:
    return Client(program.url, TOKEN)


def test_sessions_survive_a_killed_gateway(sandcell_environ: dict[str, str]) -> None:
    with gateway_program(sandcell_environ) as first, client_of(first) as client:
        session = client.sessions.create(name="kept", wait=PATIENCE)
        first.process.kill()
        first.process.wait(PATIENCE)
    state = Path(sandcell_environ["SANDCELL_STATE_DIR"])
    shim = json.loads((state / "sessions" / str(session.id) / "sandbox.json").read_text())
    assert shim == {}, "the fake sandbox is there"
    with gateway_program(sandcell_environ) as second, client_of(second) as client:
        (found,) = client.sessions.list()
        assert (found.id, found.name, found.status.value) == (session.id, "kept", "idle")
        assert found.restart().status.value == "idle"
        assert found.close().status.value == "terminated"
        second.process.terminate()
        assert second.process.wait(PATIENCE) == 0, "ended by a signal is ended well"


def test_it_says_how_to_connect_and_never_the_token(sandcell_environ: dict[str, str]) -> None:
    with gateway_program(sandcell_environ) as program:
        assert f"export SANDCELL_URL={program.url}" in program.output
        assert "SANDCELL_TOKEN" in program.output
        assert TOKEN not in program.output
        extra = Path(sandcell_environ["SANDCELL_STATE_DIR"]) / "token"
        assert not extra.exists(), "no token is made when one was given"


def run(environ: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sandcell", *arguments],
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_token_is_made_in_a_private_file(home: Home) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "sandcell", "gateway", "--port", "0", "--socket", home.path / "g"],
        env=home.environ,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        output = "".join(process.stdout.readline() for _ in range(4))
        file = home.state / "token"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert file.read_text().strip() not in output, "standard output is no terminal"
        assert f'"$(cat {file})"' in output
        assert str(home.path / "g") in output
        assert (home.path / "g").is_socket()
        busy = run(home.environ, "gateway", "--port", "0")
        assert busy.returncode == 1
        assert "another gateway" in busy.stderr
    finally:
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=PATIENCE)
    assert (process.returncode, rest) == (0, "")
    assert not (home.path / "g").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--port", "99999"], ["port", "99999"]),
        (["--port", "many"], ["port"]),
        (["--log-level", "loud"], ["log_level", "loud"]),
        (["--host", "no.such.host.invalid"], ["no.such.host.invalid"]),
        (["--state-dir", "relative"], ["state_dir", "relative"]),
    ],
)
def test_bad_settings_are_one_line(home: Home, arguments: list[str], words: list[str]) -> None:
    result = run(home.environ, "gateway", "--port", "0", *arguments)
    assert result.returncode in (1, 2)
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in result.stderr


def test_every_setting_is_an_option() -> None:
    help_text = CliRunner().invoke(app, ["gateway", "--help"], env={"COLUMNS": "200"}).output
    for name, field in GatewaySettings.model_fields.items():
        shown = f"--{name.replace('_', '-')}" in help_text
        assert shown == (field.json_schema_extra != NOT_AN_OPTION), name


def test_doctor_says_what_holds(home: Home) -> None:
    result = run(home.environ, "doctor", "--json")
    report = json.loads(result.stdout)
    assert (result.returncode == 0) == report["cells_can_run"]
    assert {"bubblewrap", "process"} <= {engine["name"] for engine in report["engines"]}
    for engine in report["engines"]:
        assert engine["reason"]
        assert engine["threats"] or not engine["isolated"] or not engine["works"]
    assert {"image", "runtime_dir", "embedded gateway", "kernelspec", "lifetime"} <= {
        finding["what"] for finding in report["findings"]
    }
    assert not home.state.exists(), "it only looks"


def test_doctor_fails_when_cells_cannot_run(home: Home) -> None:
    result = run(home.environ | {"SANDCELL_ENGINE": "nonesuch"}, "doctor")
    assert result.returncode == 1
    assert "nonesuch" in result.stdout
    assert "cells cannot run" in result.stdout
    home.runtime.mkdir()
    home.runtime.chmod(0o755)
    result = run(home.environ, "doctor")
    assert result.returncode == 1
    assert "chmod 700" in result.stdout.replace("\n", " ")


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("--engine", "foo", "setting engine (SANDCELL_ENGINE): expected auto, bubblewrap"),
        ("--allowed-origins", "*", "setting allowed_origins (SANDCELL_ALLOWED_ORIGINS)"),
        ("--allowed-origins", "lab.example", "got 'lab.example'"),
        ("--max-memory", "lots", "setting max_memory (SANDCELL_MAX_MEMORY)"),
    ],
)
def test_what_cannot_be_used_is_told_at_the_start(
    home: Home, option: str, value: str, told: str
) -> None:
    result = run(home.environ, "gateway", "--port", "0", option, value)
    assert result.returncode == 1
    assert told in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.root
def test_an_engine_that_cannot_be_had(home: Home) -> None:
    """The reason and the way out reach the caller."""
    environ = home.environ | {"SANDCELL_ENGINE": "process", "SANDCELL_TOKEN": TOKEN}
    process = subprocess.Popen(
        [sys.executable, "-m", "sandcell", "gateway", "--port", "0"],
        env=environ,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        result = run(environ | {"SANDCELL_URL": url}, "sessions")
        assert result.stdout == "no sessions\n"
        with (
            Client(url, TOKEN) as client,
            pytest.raises(Exception, match=r"root") as failure,
        ):
            client.sessions.create()
        assert type(failure.value).__name__ == "EngineUnavailable"
        assert "sandcell doctor" in str(failure.value.hint)  # type: ignore[attr-defined]
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE)


def test_a_session_of_a_killed_gateway_can_be_closed_by_the_next(
    sandcell_environ: dict[str, str],
) -> None:
    """Also when its shim was killed with it."""
    with gateway_program(sandcell_environ) as first, client_of(first) as client:
        session = client.sessions.create(wait=PATIENCE)
        os.kill(first.process.pid, signal.SIGKILL)
        first.process.wait(PATIENCE)
    needle = str(session.id).encode()
    pids = [
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and needle in _command_of(entry)
    ]
    assert len(pids) == 1
    os.kill(pids[0], signal.SIGKILL)
    wait_for(lambda: not alive(pids[0]), "the shim's end")
    with gateway_program(sandcell_environ) as second, client_of(second) as client:
        assert client.sessions.get(session.id).close().status.value == "terminated"


def _command_of(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""


def test_the_commands_are_there() -> None:
    command = typer.main.get_command(app)
    context = command.make_context("sandcell", [], resilient_parsing=True)
    assert {"sessions", "close", "gateway", "doctor", "kernel"} <= set(
        command.list_commands(context)  # type: ignore[attr-defined]
    )
