"""The embedded gateway: one for all starters, detached, and gone when nobody needs it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from sandcell import Client, ClientSettings, ConfigurationError, EmbeddedStartError
from sandcell.embedded import ensure, open_socket, running, socket_path
from sandcell_gateway.logs import rotate
from sandcell_gateway.paths import GatewayLock, Locked, prepare, private_directory
from sandcell_gateway.settings import SettingsError, load
from tests.gateway.support import PATIENCE, alive, wait_for
from tests.support.home import Home
from tests.support.processes import processes_of


def daemons(home: Home) -> list[psutil.Process]:
    """The embedded gateways of one home."""
    found: list[psutil.Process] = []
    for process in processes_of(home.path.parent):
        try:
            if "--embedded" in process.cmdline():
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.fixture
def settings(home: Home) -> ClientSettings:
    return ClientSettings.load()


def test_ten_starters_share_one_daemon(home: Home, sandcell_environ: dict[str, str]) -> None:
    """Ten processes, as when ten notebooks open at once."""
    script = "import sandcell; c = sandcell.Client(); print(c.health().status); c.close()"
    starters = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            env=sandcell_environ | {"SANDCELL_START_TIMEOUT": "60"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(10)
    ]
    outputs = [starter.communicate(timeout=90)[0] for starter in starters]
    assert outputs == ["ok\n"] * 10
    log = (home.state / "gateway.log").read_text()
    assert log.count('"event": "embedded gateway"') == 1


def test_it_is_detached_and_leaves_nothing(
    home: Home, settings: ClientSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SANDCELL_EMBEDDED_IDLE", "1")
    path = ensure(settings)
    (daemon,) = daemons(home)
    pid = daemon.pid
    assert os.getsid(pid) not in (os.getsid(0), pid), "a session of its own, and not its leader"
    assert daemon.ppid() not in (os.getpid(), os.getppid())
    assert daemon.cwd() == "/"
    assert daemon.terminal() is None
    targets = {str(Path(f"/proc/{pid}/fd/{number}").readlink()) for number in (1, 2)}
    assert targets == {str(home.state / "gateway.log")}
    assert not [name for name in daemon.environ() if name.startswith("JPY_")]
    wait_for(lambda: not alive(pid), "the end of the idle daemon")
    assert not path.exists()
    assert {entry.name for entry in home.runtime.iterdir()} == {"gateway.lock", "start.lock", "s"}
    with GatewayLock(load(embedded=True)) as lock:
        lock.acquire(0)


def test_variables_of_jupyter_and_tokens_stay_out(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("JPY_PARENT_PID", "JUPYTERHUB_API_TOKEN", "SANDCELL_TOKEN"):
        monkeypatch.setenv(name, "secret")
    ensure(ClientSettings.load())
    (daemon,) = daemons(home)
    assert "secret" not in daemon.environ().values()


def test_a_session_keeps_it_alive(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANDCELL_EMBEDDED_IDLE", "1")
    with Client() as client:
        session = client.sessions.create(wait=PATIENCE)
    (daemon,) = daemons(home)
    with pytest.raises(psutil.TimeoutExpired):
        daemon.wait(2.5)
    with Client() as client:
        client.sessions.get(session.id).close()
    wait_for(lambda: not alive(daemon.pid), "the end after the last session")


def test_a_client_that_meets_a_stopping_daemon_gets_the_next(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients come all the time while daemons end all the time."""
    monkeypatch.setenv("SANDCELL_EMBEDDED_IDLE", "1")
    seen: set[int] = set()

    def met_the_next() -> bool:
        with Client() as client:
            assert client.health().status == "ok"
        seen.update(daemon.pid for daemon in daemons(home))
        for pid in seen:
            if alive(pid):
                os.kill(pid, signal.SIGTERM)
        return len(seen) > 2

    wait_for(met_the_next, "a third daemon")


def test_a_killed_daemon_leaves_a_socket_that_is_replaced(
    home: Home, settings: ClientSettings
) -> None:
    path = ensure(settings)
    (first,) = daemons(home)
    first.kill()
    wait_for(lambda: not running(settings), "the daemon's end")
    assert path.exists()
    assert ensure(settings) == path
    assert [daemon.pid for daemon in daemons(home)] != [first.pid]


def test_a_daemon_killed_during_a_create_leaves_one_session(home: Home) -> None:
    """The client sends the create again, to the next daemon."""

    def kill() -> None:
        wait_for(lambda: list((home.state / "sessions").glob("*/spec.json")), "the session")
        daemons(home)[0].kill()

    with ThreadPoolExecutor(1) as pool, Client() as client:
        killed = pool.submit(kill)
        session = client.sessions.create(wait=60)
        killed.result()
        assert session.status.value == "idle"
        assert [one.id for one in client.sessions.list()] == [session.id]
        session.close()


def test_a_start_that_fails_says_why(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANDCELL_LOG_LEVEL", "shouting")
    with pytest.raises(EmbeddedStartError, match=r"SANDCELL_LOG_LEVEL.*shouting") as failure:
        ensure(ClientSettings.load())
    assert "gateway.log" in str(failure.value.hint)


def test_two_gateways_cannot_share_a_directory(
    home: Home, settings: ClientSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensure(settings)
    prepare(load())
    with pytest.raises(Locked, match="another gateway uses"), GatewayLock(load()) as lock:
        lock.acquire(0)


def test_a_foreign_listener_is_not_trusted(home: Home, settings: ClientSettings) -> None:
    """Nothing is sent to a socket on which another user listens."""
    if os.getuid() != 0:
        pytest.skip("only root can listen as somebody else")
    home.runtime.mkdir(mode=0o777)
    home.runtime.chmod(0o777)
    script = (
        "import os, socket, sys; os.setgid(63998); os.setuid(63998)\n"
        "s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); os.chmod(sys.argv[1], 0o666)\n"
        "s.listen(); print('up', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(socket_path(settings))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    # A root client trusts only root and itself, so this one plays an ordinary user.
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        with pytest.raises(Exception, match="63998 listens"):
            open_socket(socket_path(settings), 5)
    finally:
        process.communicate()


def test_directories_open_to_others_are_refused(
    home: Home, settings: ClientSettings, tmp_path: Path
) -> None:
    home.runtime.mkdir()
    home.runtime.chmod(0o755)
    with pytest.raises(ConfigurationError, match="mode 0700"):
        ensure(settings)
    with pytest.raises(SettingsError, match="chmod 700"):
        private_directory(home.runtime)
    link = tmp_path / "link"
    link.symlink_to(home.runtime)
    with pytest.raises(SettingsError, match="not a link"):
        private_directory(link)
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    with pytest.raises(SettingsError, match="replace"):
        private_directory(shared / "mine")


def test_a_runtime_directory_that_is_too_long_is_refused(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SANDCELL_RUNTIME_DIR", "/tmp/" + "x" * 60)
    with pytest.raises(ConfigurationError, match="at most 50 bytes"):
        ensure(ClientSettings.load())
    with pytest.raises(SettingsError, match="SANDCELL_RUNTIME_DIR"):
        load()


def test_the_log_is_put_aside_beyond_its_size(tmp_path: Path) -> None:
    log = tmp_path / "gateway.log"
    rotate(log, 10)
    log.write_text("short")
    rotate(log, 10)
    assert log.exists()
    log.write_text("long enough")
    rotate(log, 10)
    assert not log.exists()
    assert (tmp_path / "gateway.log.1").read_text() == "long enough"


def test_threads_of_one_process_start_one(home: Home, settings: ClientSettings) -> None:
    barrier = threading.Barrier(4)

    def start(_: int) -> Path:
        barrier.wait()
        return ensure(settings)

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(start, range(4)))) == 1
    assert len(daemons(home)) == 1
    with socket.socket(socket.AF_UNIX) as probe:
        probe.connect(str(socket_path(settings)))
