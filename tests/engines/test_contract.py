"""What every engine promises, tried on real sandboxes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sandcell_gateway.engines import registry
from sandcell_gateway.engines.agent_client import AgentClient, ProcessExited
from sandcell_gateway.engines.base import EngineError, Sandbox, SandboxGone, SandboxSpec
from sandcell_gateway.identity import ProcessRef
from tests.engines.conftest import Start
from tests.engines.places import LIMITS, Running
from tests.support.processes import end_all, processes_of

ROOT = Path(__file__).parents[2]
ALLOWED = {
    *("HOME", "USER", "LANG", "TERM", "TMPDIR", "TZ", "VIRTUAL_ENV", "PATH"),
    *("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "MPLCONFIGDIR", "SESSION_VARIABLE", "SANDCELL_SANDBOX"),
}
MADE_BY_THE_PROGRAM = {"LC_CTYPE", "PWD", "SHLVL", "_", "OLDPWD"}


# -- processes -----------------------------------------------------------------------------


async def test_a_program_runs_and_its_exit_code_comes_back(running: Running) -> None:
    ran = await running.run("print('hello'); raise SystemExit(3)")
    assert (ran.exit.code, ran.exit.signal, ran.output) == (3, None, "hello\n")
    assert ran.exit.max_rss is not None
    assert ran.exit.max_rss > 1 << 20


async def test_death_by_signal_is_told_apart_from_an_exit_code(running: Running) -> None:
    ran = await running.run("import os; os.kill(os.getpid(), 11)")
    assert (ran.exit.code, ran.exit.signal) == (None, 11)
    assert ran.exit.describe() == "was killed by signal 11 (SIGSEGV)"


async def test_a_missing_program_is_named(running: Running) -> None:
    with pytest.raises(EngineError, match=r"no-such-program.*No such file"):
        await running.agent.spawn(["no-such-program"], {}, "/")
    assert await running.agent.processes() == []


async def test_a_missing_directory_is_named(running: Running) -> None:
    with pytest.raises(EngineError, match="/no/such/place"):
        await running.agent.spawn(["true"], running.sandbox.environ, "/no/such/place")


async def test_a_process_says_when_it_is_ready(running: Running) -> None:
    pid = await running.start("ready(); import time; time.sleep(600)")
    states = {state.pid: state for state in await running.agent.processes()}
    assert states[pid].ready
    assert states[pid].exit is None


async def test_a_process_that_dies_before_it_is_ready_says_how(running: Running) -> None:
    pid = await running.start("raise SystemExit(7)", ready=False)
    environ, cwd = running.sandbox.environ, running.sandbox.inside.workspace
    argv = [running.sandbox.inside.python, "-c", "raise SystemExit(7)"]
    pid = await running.agent.spawn(argv, environ, cwd, ready=True)
    with pytest.raises(ProcessExited, match="exited with code 7 before it was ready") as caught:
        await running.agent.wait_ready(pid)
    assert caught.value.exit.code == 7


async def test_a_process_leads_a_session_of_its_own(running: Running) -> None:
    ran = await running.run("import os; print(os.getsid(0) == os.getpgid(0) == os.getpid())")
    assert ran.output == "True\n"


async def test_a_signal_reaches_the_whole_group(running: Running) -> None:
    pid = await running.start(
        "import subprocess\n"
        "child = subprocess.Popen(['sleep', '600'])\n"
        "open('child', 'w').write(str(child.pid))\n"
        "ready()\n"
        "raise SystemExit(100 - child.wait())"
    )
    child = (running.spec.workspace / "child").read_text()
    await running.agent.signal(pid, signal.SIGTERM)
    assert (await running.agent.wait_exit(pid)).signal == signal.SIGTERM
    shown = await running.run(
        "import sys, os\n"
        "try: print(open(f'/proc/{sys.argv[1]}/stat').read().split()[2])\n"
        "except OSError: print('gone')",
        child,
    )
    assert shown.output.strip() in ("gone", "Z")


async def test_what_an_ended_process_left_in_its_group_can_still_be_ended(
    running: Running,
) -> None:
    pid = await running.start(
        "import subprocess\nsubprocess.Popen(['sleep', '600'])\nready()\nos._exit(0)"
    )
    await running.agent.wait_exit(pid)
    alive = (
        "import os\n"
        f"try: os.killpg({pid}, 0); print('alive')\n"
        "except ProcessLookupError: print('gone')"
    )
    assert (await running.run(alive)).output == "alive\n"
    await running.agent.signal(pid, signal.SIGKILL, group=True)
    async with asyncio.timeout(10):
        while (await running.run(alive)).output != "gone\n":
            pass


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
async def test_signals_work_though_the_maker_ignores_them(
    engine: str, starting: Start, number: signal.Signals
) -> None:
    before = signal.signal(number, signal.SIG_IGN)
    try:
        running = await starting(engine)
    finally:
        signal.signal(number, before)
    pid = await running.agent.spawn(["sleep", "600"], running.sandbox.environ, "/")
    await running.agent.signal(pid, number)
    assert (await running.agent.wait_exit(pid)).signal == number


async def test_reaped_processes_are_forgotten(running: Running) -> None:
    pid = await running.start("pass", ready=False)
    await running.agent.wait_exit(pid)
    await running.agent.reap(pid)
    assert await running.agent.processes() == []
    with pytest.raises(EngineError, match="no process"):
        await running.agent.reap(pid)


async def test_output_without_a_log_goes_to_the_sandbox_s_log(running: Running) -> None:
    pid = await running.start(
        "print('out'); import sys; print('err', file=sys.stderr)", ready=False
    )
    await running.agent.wait_exit(pid)
    async with asyncio.timeout(10):
        while "out" not in running.log() or "err" not in running.log():
            await running.agent.processes()


async def test_a_flood_of_output_ends_and_is_bounded(running: Running) -> None:
    code = "import os\nfor _ in range(320): os.write(1, b'x' * 65536)"
    pid = await running.start(code, ready=False)
    assert (await running.agent.wait_exit(pid)).code == 0
    size = (running.spec.state / "sandbox.log").stat().st_size
    assert size < 17 << 20


# -- the place -----------------------------------------------------------------------------


async def test_the_environment_is_an_allow_list(
    engine: str, starting: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JPY_PARENT_PID", "1")
    monkeypatch.setenv("SANDCELL_TOKEN", "secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    running = await starting(engine)
    ran = await running.run("import os, json; print(json.dumps(dict(os.environ)))")
    seen = json.loads(ran.output)
    assert set(seen) - MADE_BY_THE_PROGRAM <= ALLOWED
    assert seen["SESSION_VARIABLE"] == "its value"
    assert "secret" not in ran.output


async def test_the_workspace_is_home_and_working_directory(running: Running) -> None:
    ran = await running.run(
        "import os; from pathlib import Path\n"
        "Path('made').write_text('by the session')\n"
        "print(Path.home() == Path.cwd() == Path(os.environ['HOME']))"
    )
    assert ran.output == "True\n"
    assert (running.spec.workspace / "made").read_text() == "by the session"


async def test_the_session_s_python_is_its_environment_s(running: Running) -> None:
    ran = await running.run("import sys; print(sys.prefix); import zmq, ipykernel")
    assert ran.output == f"{running.sandbox.inside.environment}\n"
    found = await running.run("", argv=["python", "-c", "import sys; print(sys.prefix)"])
    assert found.output == ran.output


async def test_what_the_session_installs_shadows_the_image(running: Running) -> None:
    ran = await running.run(
        "import sysconfig, pathlib, subprocess, sys\n"
        "place = pathlib.Path(sysconfig.get_path('purelib'))\n"
        "(place / 'psutil.py').write_text('origin = \"session\"')\n"
        "print(subprocess.run([sys.executable, '-c', 'import psutil; print(psutil.origin)'],"
        " capture_output=True, text=True).stdout)"
    )
    assert ran.output.strip() == "session"


async def test_programs_of_ours_are_inside(running: Running) -> None:
    inside = running.sandbox.inside
    ran = await running.run("import os, sys; print(os.listdir(sys.argv[1]))", inside.programs)
    assert "kernel_launcher.py" in ran.output


async def test_limits_hold(running: Running) -> None:
    ran = await running.run(
        "import os, resource as r\n"
        "print(*(r.getrlimit(x)[0] for x in (r.RLIMIT_NOFILE, r.RLIMIT_FSIZE, r.RLIMIT_CORE)))\n"
        "try: open('big', 'wb', buffering=0).write(b'1'); os.truncate('big', (8 << 20) + 1)\n"
        "except OSError as error: print(error.strerror)"
    )
    assert ran.output == f"256 {8 << 20} 1\nFile too large\n"


# -- sockets -------------------------------------------------------------------------------


@contextlib.contextmanager
def _connected(sandbox: Sandbox, name: str) -> Any:
    address, release = sandbox.connect_address(name)
    try:
        assert address.startswith("ipc://")
        assert len(address) < 100
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(address.removeprefix("ipc://"))
            yield sock
    finally:
        release()


async def test_a_socket_of_the_sandbox_is_reached(running: Running) -> None:
    await running.start(
        "import socket, sys\n"
        f"s = socket.socket(socket.AF_UNIX); s.bind('{running.sandbox.inside.sockets}/k-1')\n"
        "s.listen(); ready(); c, _ = s.accept(); c.sendall(b'from inside')"
    )
    with _connected(running.sandbox, "k-1") as sock:
        assert sock.recv(100) == b"from inside"


def _open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize(
    "planted",
    [
        "os.symlink('agent.sock', path)",
        "os.symlink('/elsewhere', path)",
        "open(path, 'w')",
        "os.mkfifo(path)",
        "os.mkdir(path)",
    ],
)
async def test_what_is_planted_instead_of_a_socket_is_refused(
    running: Running, planted: str
) -> None:
    ran = await running.run(
        f"import os, sys; path = sys.argv[1]; {planted}", f"{running.sandbox.inside.sockets}/k-1"
    )
    assert ran.exit.code == 0, ran.output
    before = _open_descriptors()
    with pytest.raises(EngineError):
        running.sandbox.connect_address("k-1")
    assert _open_descriptors() == before


@pytest.mark.root
async def test_a_socket_of_another_user_is_refused(running: Running) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(running.spec.sockets / "k-1"))
        os.chown(running.spec.sockets / "k-1", 4242, 4242)
        with pytest.raises(EngineError, match="uid 4242"):
            running.sandbox.connect_address("k-1")


@pytest.mark.parametrize("name", ["", ".", "..", "../k/agent.sock", "/etc/passwd", "no-such"])
async def test_a_name_that_is_no_socket_s_is_refused(running: Running, name: str) -> None:
    with pytest.raises(EngineError):
        running.sandbox.connect_address(name)


async def test_an_impostor_of_the_agent_is_refused(running: Running) -> None:
    await running.start(
        "import socket, time\n"
        f"path = '{running.sandbox.inside.sockets}/agent.sock'; os.unlink(path)\n"
        "s = socket.socket(socket.AF_UNIX); s.bind(path); s.listen(); ready(); time.sleep(600)"
    )
    with pytest.raises(EngineError, match="took the place of its agent"):
        await AgentClient.open(running.sandbox)
    assert (await running.run("print('the first stream still works')")).exit.code == 0


# -- the end -------------------------------------------------------------------------------

TREE = """
import subprocess, time
subprocess.Popen(["sleep", "600"])
subprocess.Popen(["sleep", "600"], start_new_session=True)
subprocess.Popen(["sleep", "600"], start_new_session=True, env={})
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        ready()
        time.sleep(600)
    os._exit(0)
time.sleep(600)
"""


async def test_kill_leaves_nothing(running: Running) -> None:
    await running.start(TREE)
    assert len(running.left()) >= 4
    ended = await running.sandbox.kill()
    assert ended.signal == signal.SIGKILL
    assert running.left() == []
    assert await running.sandbox.kill() == ended


async def test_all_that_wait_learn_of_the_end(running: Running) -> None:
    pid = await running.start("ready(); import time; time.sleep(600)")
    waiting = [
        asyncio.create_task(running.agent.wait_exit(pid)),
        asyncio.create_task(running.agent.closed.wait()),
        asyncio.create_task(running.sandbox.wait()),
        asyncio.create_task(running.sandbox.wait()),
    ]
    await asyncio.sleep(0)
    await running.sandbox.kill()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    # Where processes are ended one by one, the agent may still tell of this one.
    ends = [found.exit if isinstance(found, SandboxGone) else found for found in results]
    assert [getattr(ends[n], "signal", None) for n in (0, 2, 3)] == [signal.SIGKILL] * 3
    assert results[1] is True
    with pytest.raises(SandboxGone):
        await running.agent.processes()
    with pytest.raises(SandboxGone):
        await running.sandbox.connect_agent()


async def test_without_its_agent_a_sandbox_ends(running: Running) -> None:
    await running.start(TREE)
    ProcessRef.from_json(running.sandbox.state["first"]).kill()
    assert (await running.sandbox.wait()).signal == signal.SIGKILL
    assert running.left() == []


async def test_it_can_be_made_again_in_the_same_place(engine: str, starting: Start) -> None:
    first = await starting(engine)
    await first.run("open('kept', 'w').write('x')")
    await first.sandbox.kill()
    second = await starting(engine)
    assert (await second.run("print(open('kept').read())")).output == "x\n"
    assert [path.name for path in second.spec.sockets.iterdir()] == ["agent.sock"]


async def test_a_broken_image_fails_with_the_reason_and_leaves_nothing(
    engine: str, spec: SandboxSpec
) -> None:
    states: list[Any] = []
    broken = replace(spec, image=replace(spec.image, python=Path("/usr/bin/false")))
    with pytest.raises(EngineError, match="ended before its agent answered"):
        await registry.load(engine).create(broken, states.append)
    assert processes_of(spec.state.parent) == []


async def test_a_maker_that_fails_to_store_the_state_leaves_nothing(
    engine: str, spec: SandboxSpec
) -> None:
    def full(state: dict[str, Any]) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        await registry.load(engine).create(spec, full)
    assert processes_of(spec.state.parent) == []


async def test_a_cancelled_maker_leaves_nothing(engine: str, spec: SandboxSpec) -> None:
    making = asyncio.create_task(registry.load(engine).create(spec, lambda state: None))
    while not processes_of(spec.state.parent) and not making.done():  # noqa: ASYNC110
        await asyncio.sleep(0)
    making.cancel()
    with pytest.raises(asyncio.CancelledError):
        await making
    assert processes_of(spec.state.parent) == []


# -- adoption ------------------------------------------------------------------------------


def _create_elsewhere(engine: str, base: Path, when: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "tests.engines.creator", engine, str(base), when]
    return subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True)


async def test_a_sandbox_outlives_its_maker_and_is_adopted(
    engine: str, base: Path, spec: SandboxSpec
) -> None:
    with _create_elsewhere(engine, base, "running") as maker:
        assert maker.stdout is not None
        made = json.loads(maker.stdout.readline())
        maker.kill()
    spec = replace(spec, uid=made["uid"])
    adopted = await registry.load(engine).adopt(spec, made["state"])
    async with await AgentClient.open(adopted) as agent:
        assert [(p.pid, p.ready, p.exit) for p in await agent.processes()] == [
            (made["pid"], True, None)
        ]
        await agent.signal(made["pid"], signal.SIGTERM)
        assert (await agent.wait_exit(made["pid"])).signal == signal.SIGTERM
        log = f"{adopted.inside.workspace}/after"
        pid = await agent.spawn(["echo", "still"], adopted.environ, "/", log=log)
        await agent.wait_exit(pid)
    assert (spec.workspace / "after").read_text() == "still\n"
    ended = await adopted.kill()
    assert ended.signal == signal.SIGKILL or engine == "process"
    assert processes_of(base) == []
    await adopted.aclose()
    with pytest.raises(SandboxGone) as gone:
        await registry.load(engine).adopt(spec, made["state"])
    assert engine == "process" or gone.value.exit == ended


async def test_a_maker_killed_before_it_is_complete_leaks_nothing(engine: str, base: Path) -> None:
    with _create_elsewhere(engine, base, "reported") as maker:
        state = json.loads(maker.communicate()[0])
    assert maker.returncode == -signal.SIGKILL
    # By its reference first: one that is still being made has no mounts to be found by.
    await ProcessRef.from_json(state["first"]).wait(10)
    assert end_all(base, patience=10) == []


async def test_the_reported_state_is_the_sandbox_s(running: Running) -> None:
    assert running.states[-1] == json.loads(json.dumps(running.sandbox.state))


@pytest.mark.parametrize("state", [{}, {"first": 3}, {"first": {"pid": "x"}}])
async def test_a_record_that_is_no_record_is_a_sandbox_that_is_gone(
    engine: str, spec: SandboxSpec, state: dict[str, Any]
) -> None:
    with pytest.raises(SandboxGone):
        await registry.load(engine).adopt(spec, state)


async def test_another_process_with_the_same_pid_is_not_taken_for_the_sandbox(
    running: Running,
) -> None:
    state = json.loads(json.dumps(running.sandbox.state))
    state["first"]["start_time"] -= 1
    state |= {"mark": "another sandbox's", "groups": {}}
    with pytest.raises(SandboxGone):
        await running.engine.adopt(running.spec, state)
    assert (await running.run("pass")).exit.code == 0


# -- limits, use, freezing -----------------------------------------------------------------

FILL = "a = bytearray(int(__import__('sys').argv[1]) << 20); a[::4096] = b'x' * len(a[::4096])"


async def test_use_is_counted(running: Running) -> None:
    before = await running.sandbox.usage()
    pid = await running.start(
        "a = bytearray(100 << 20); a[::4096] = b'x' * len(a[::4096])\n"
        "import time\nwhile time.process_time() < 0.3: pass\nready(); time.sleep(600)"
    )
    usage = await running.sandbox.usage()
    assert usage.processes == before.processes + 1
    assert usage.memory_bytes - before.memory_bytes > 90 << 20
    assert usage.memory_peak >= usage.memory_bytes
    assert usage.cpu_seconds - before.cpu_seconds > 0.25
    await running.agent.signal(pid, signal.SIGKILL)
    await running.agent.wait_exit(pid)
    await running.sandbox.kill()
    assert (await running.sandbox.usage()).memory_peak >= usage.memory_peak


async def test_files_are_counted(running: Running) -> None:
    before = await running.sandbox.disk_usage()
    await running.run("open('big', 'wb').write(bytes(4 << 20))")
    after = await running.sandbox.disk_usage()
    assert 4 << 20 <= after.bytes - before.bytes < 5 << 20
    assert after.complete


async def test_memory_beyond_the_limit_ends_the_process_and_is_counted(
    engine: str, starting: Start
) -> None:
    limits = replace(LIMITS, memory_bytes=300 << 20)
    running = await starting(engine, limits=limits)
    assert (await running.run(FILL, "100")).exit.code == 0
    if "memory" in running.sandbox.soft:
        pid = await running.start("a = bytearray(50 << 20); ready(); import time; time.sleep(600)")
        small = await running.start("ready(); import time; time.sleep(600)")
        await running.sandbox.end_largest()
        assert (await running.agent.wait_exit(pid)).signal == signal.SIGKILL
        assert small in {p.pid for p in await running.agent.processes() if p.exit is None}
    else:
        assert (await running.run(FILL, "600")).exit.signal == signal.SIGKILL
        assert (await running.sandbox.usage()).memory_peak > 290 << 20
    assert (await running.sandbox.usage()).memory_kills == 1
    assert (await running.run("print('lives')")).output == "lives\n"


async def test_one_process_cannot_have_more_memory_than_all(engine: str, starting: Start) -> None:
    limits = replace(LIMITS, memory_bytes=2 << 30)
    running = await starting(engine, limits=limits)
    ran = await running.run("import mmap\nmmap.mmap(-1, 3 << 30, flags=mmap.MAP_PRIVATE)")
    if "memory" in running.sandbox.soft:
        assert ran.exit.code == 1
        assert "Cannot allocate memory" in ran.output


async def test_memory_of_private_file_systems_counts(starting: Start) -> None:
    running = await starting("bubblewrap", limits=replace(LIMITS, memory_bytes=1 << 30))
    before = (await running.sandbox.usage()).memory_bytes
    await running.run("open('/dev/shm/f', 'wb').write(bytes(3 << 20))")
    assert (await running.sandbox.usage()).memory_bytes - before > 2 << 20


async def test_a_share_of_the_processors_is_all_there_is(engine: str, starting: Start) -> None:
    running = await starting(engine, limits=replace(LIMITS, cpus=0.5))
    if "cpus" in running.sandbox.soft:
        ran = await running.run("import os; print(len(os.sched_getaffinity(0)))")
        assert ran.output == "1\n"
        return
    ran = await running.run(
        "import threading, time\n"
        "def spin():\n"
        "    while time.monotonic() < end: pass\n"
        "end = time.monotonic() + 2\n"
        "spin(); print(time.process_time())"
    )
    # A busy machine gives less, never more.
    assert float(ran.output) < 1.5


@pytest.mark.root
async def test_processes_are_bounded(starting: Start) -> None:
    running = await starting("bubblewrap", limits=replace(LIMITS, processes=20))
    ran = await running.run(
        "import os, signal\n"
        "children = []\n"
        "try:\n"
        "    for _ in range(100):\n"
        "        pid = os.fork()\n"
        "        if not pid: signal.pause()\n"
        "        children.append(pid)\n"
        "except OSError as error: print(error.strerror, len(children))\n"
        "for pid in children: os.kill(pid, 9)"
    )
    words = ran.output.split()
    assert words[0] == "Resource"
    assert int(words[-1]) < 20


COUNT = """
import itertools, subprocess
subprocess.Popen(["sh", "-c", "while :; do :; done"], start_new_session=True)
open("count", "w").write("-1")
ready()
for number in itertools.count(): open("count", "w").write(str(number))
"""


async def _computes_on(sandbox: Sandbox, before: float) -> None:
    async with asyncio.timeout(10):
        while (await sandbox.usage()).cpu_seconds <= before:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_frozen_sandbox_uses_no_processor_and_goes_on_where_it_was(
    running: Running,
) -> None:
    pid = await running.start(COUNT)
    await running.sandbox.freeze()
    before = (await running.sandbox.usage()).cpu_seconds
    count = (running.spec.workspace / "count").read_text()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await running.agent.processes()
    assert (await running.sandbox.usage()).cpu_seconds == before
    assert (running.spec.workspace / "count").read_text() == count
    await running.sandbox.thaw()
    states = {process.pid: process for process in await running.agent.processes()}
    assert states[pid].exit is None
    await _computes_on(running.sandbox, before)


async def test_what_was_stopped_before_stays_stopped(running: Running) -> None:
    pid = await running.start("ready(); import signal; signal.pause()")
    await running.agent.signal(pid, signal.SIGSTOP)
    shown = f"print(open('/proc/{pid}/stat').read().rsplit(')', 1)[1].split()[0])"
    async with asyncio.timeout(20):  # the signal was sent; it acts when the process is scheduled
        while (await running.run(shown)).output != "T\n":
            pass
    await running.sandbox.freeze()
    await running.sandbox.thaw()
    assert (await running.run(shown)).output == "T\n"


async def test_a_frozen_sandbox_is_adopted_and_thawed(running: Running) -> None:
    await running.start(COUNT)
    await running.sandbox.freeze()
    state = json.loads(json.dumps(running.sandbox.state))
    adopted = await running.engine.adopt(running.spec, state)
    before = (await adopted.usage()).cpu_seconds
    await adopted.thaw()
    await _computes_on(adopted, before)
    await adopted.aclose()


async def test_a_frozen_sandbox_can_be_ended(running: Running) -> None:
    await running.start(TREE)
    await running.sandbox.freeze()
    await running.sandbox.kill()
    assert running.left() == []


async def test_no_control_group_is_left(running: Running) -> None:
    groups = running.sandbox.state["groups"]
    directories = [Path(directory) for directory, _ in groups.values()]
    assert all(directory.is_dir() for directory in directories)
    await running.sandbox.kill()
    assert not any(directory.exists() for directory in directories)


async def test_no_control_group_is_left_of_one_that_died_unseen(running: Running) -> None:
    state = json.loads(json.dumps(running.sandbox.state))
    os.kill(state["first"]["pid"], signal.SIGKILL)
    await ProcessRef.from_json(state["first"]).wait(10)
    end_all(running.spec.state.parent, patience=5)
    with pytest.raises(SandboxGone):
        await running.engine.adopt(running.spec, state)
    assert not any(Path(directory).exists() for directory, _ in state["groups"].values())
