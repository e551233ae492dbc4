"""What code in a sandbox must not reach. The same probes without isolation show that they probe.

As an ordinary user they run on the engine `process`; it refuses root, so those that need
root run without any engine.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sandcell_gateway.engines.base import SandboxSpec
from sandcell_gateway.identity import ProcessRef
from tests.engines import probes
from tests.engines.conftest import Start
from tests.engines.places import LIMITS, Running

pytestmark = pytest.mark.linux


@pytest.fixture
def facts(base: Path, spec: SandboxSpec) -> Iterator[dict[str, Any]]:
    """Plant on the host what a session must not find."""
    home, other = base / "home", base / "other"
    for directory in (home, other):
        directory.mkdir(mode=0o755)  # rights alone would not stop anybody
    (home / "canary").write_text("canary")
    (base / "token").write_text("secret")
    (other / "secret").write_text("secret")
    (base / "mountpoint").mkdir()
    marker = f"marker-{secrets.token_hex(8)}"
    user = next(line for line in Path("/etc/passwd").read_text().splitlines() if "root" in line)
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        abstract = stack.enter_context(socket.socket(socket.AF_UNIX))
        abstract.bind("\0" + marker)
        abstract.listen()
        sleep = [sys.executable, "-c", "import time; time.sleep(600)", marker]
        process = stack.enter_context(subprocess.Popen(sleep))
        stack.callback(process.kill)
        yield {
            "canary": str(home / "canary"),
            "token": str(base / "token"),
            "other": str(other),
            "user": user,
            "marker": marker,
            "pid": process.pid,
            "port": listener.getsockname()[1],
            "abstract": marker,
            "base": str(base),
            "tmp": LIMITS.tmp_bytes,
            "processes": LIMITS.processes,
            "image": str(spec.image.prefix),
            "base_prefix": str(spec.image.base_prefix),
            "mountpoint": str(base / "mountpoint"),
            "index": "https://index.example",
            "pip_conf": "/nonexistent",
        }
        assert process.poll() is None, "a probe ended the host's process"


async def _probe(running: Running, name: str, facts: dict[str, Any]) -> str:
    first = Path(f"/proc/{running.sandbox.state['first']['pid']}")
    more = {
        "agent": f"{running.sandbox.inside.sockets}/agent.sock",
        "host_uid": first.stat().st_uid,
    }
    (running.spec.workspace / "facts").write_text(json.dumps({**facts, **more}))
    ran = await running.run(probes.program(probes.ALL[name]))
    assert ran.output.startswith(("OPEN", "CLOSED")), ran.output
    return ran.output


@pytest.mark.parametrize("name", probes.ALL)
async def test_the_sandbox_is_closed_to(name: str, starting: Start, facts: dict[str, Any]) -> None:
    running = await starting("bubblewrap")
    assert (await _probe(running, name, facts)).startswith("CLOSED")


@pytest.mark.not_root
@pytest.mark.parametrize("name", probes.REACHES_THE_HOST)
async def test_the_probe_finds_a_leak_of(name: str, starting: Start, facts: dict[str, Any]) -> None:
    running = await starting("process")
    assert await _probe(running, name, facts) == "OPEN\n"


@pytest.mark.root
@pytest.mark.parametrize("name", probes.NEEDS_ROOT)
def test_the_probe_of_root_finds_a_leak_of(name: str, base: Path, facts: dict[str, Any]) -> None:
    (base / "facts").write_text(json.dumps({**facts, "host_uid": os.getuid()}))
    argv = [sys.executable, "-c", probes.program(probes.NEEDS_ROOT[name])]
    try:
        ran = subprocess.run(argv, cwd=base, capture_output=True, text=True, timeout=60)
        assert ran.stdout == "OPEN\n", ran.stderr
    finally:
        subprocess.run(["umount", facts["mountpoint"]], stderr=subprocess.DEVNULL, check=False)


async def test_host_processes_cannot_be_signalled(starting: Start, facts: dict[str, Any]) -> None:
    running = await starting("bubblewrap")
    code = (
        "import os, sys, json\n"
        "for pid in range(2, 5000):\n"
        "    if pid != os.getpid():\n"
        "        try: os.kill(pid, 9)\n"
        "        except OSError: pass\n"
        "try: os.kill(json.loads(sys.argv[1])['pid'], 9)\n"
        "except ProcessLookupError: print('no such process')"
    )
    ran = await running.run(code, json.dumps(facts))
    assert ran.output == "no such process\n"


async def test_the_agent_cannot_be_ended_from_inside(starting: Start) -> None:
    running = await starting("bubblewrap")
    code = "import os, signal\nfor n in signal.valid_signals(): os.kill(1, n)\nprint('sent')"
    assert (await running.run(code)).output == "sent\n"
    assert (await running.run("print('alive')")).output == "alive\n"


async def test_no_user_namespace_maps_the_host_s_root(starting: Start) -> None:
    running = await starting("bubblewrap")
    pid = await running.start("ready(); import time; time.sleep(600)")
    first = ProcessRef.from_json(running.sandbox.state["first"])
    spaces = [Path(f"/proc/{name}/ns/user").readlink() for name in (first.pid, "self")]
    own = spaces[0] != spaces[1]
    assert own == (os.geteuid() != 0)
    if own:  # seen from here, the second number is the host's
        lines = Path(f"/proc/{first.pid}/uid_map").read_text().split()
        assert lines[1:] == [str(os.getuid()), "1"]
    else:
        assert Path(f"/proc/{first.pid}").stat().st_uid in (0, running.spec.uid)
        status = Path(f"/proc/{first.pid}/status").read_text()
        assert f"Uid:\t{running.spec.uid}\t" in status
    await running.agent.signal(pid, 9)


@pytest.mark.root
async def test_two_sessions_have_two_users(starting: Start, spec: SandboxSpec) -> None:
    assert spec.uid not in (None, 0)
    with pytest.raises(Exception, match="uid of its own"):
        await starting("bubblewrap", uid=None)
    with pytest.raises(Exception, match="must not run a session"):
        await starting("bubblewrap", uid=0)


async def test_writable_places_are_few_and_bounded(starting: Start) -> None:
    running = await starting("bubblewrap")
    code = (
        "import os\n"
        "for line in open('/proc/self/mounts'):\n"
        "    _, path, kind, options, *_ = line.split()\n"
        "    if os.path.isdir(path) and 'rw' in options.split(','): print(path, kind)"
    )
    seen = dict(line.split() for line in (await running.run(code)).output.splitlines())
    writable = {path for path, kind in seen.items() if kind not in ("proc", "devpts")}
    assert writable == {"/tmp", "/dev/shm", "/workspace", "/opt/env", "/run/sandcell"}
    fill = (
        "import sys\n"
        "file = open(sys.argv[1] + '/fill', 'wb', buffering=0)\n"
        "try:\n"
        "    while True: file.write(bytes(1 << 20))\n"
        "except OSError as error: print(error.strerror, file.tell())"
    )
    for place in ("/tmp", "/dev/shm"):
        ran = await running.run(fill, place)
        assert ran.output == f"No space left on device {LIMITS.tmp_bytes}\n"


async def test_processes_are_limited(starting: Start) -> None:
    running = await starting("bubblewrap")
    code = (
        "import os, time\n"
        "made = 0\n"
        "try:\n"
        "    while made < 1000:\n"
        "        if os.fork() == 0: time.sleep(600)\n"
        "        made += 1\n"
        "except BlockingIOError: print(made < 64, flush=True)\n"
        "os.killpg(0, 9)"
    )
    assert (await running.run(code)).output == "True\n"
    assert (await running.run("print('the agent still works')")).exit.code == 0


async def test_it_knows_who_and_where_it_is(starting: Start) -> None:
    running = await starting("bubblewrap")
    code = (
        "import pwd, grp, os, socket\n"
        "user = pwd.getpwuid(os.getuid())\n"
        "print(user.pw_name, user.pw_dir, grp.getgrgid(os.getgid()).gr_name)\n"
        "print(socket.gethostname(), socket.gethostbyname('localhost'), os.getgroups())\n"
        "s = socket.create_server(('127.0.0.1', 0)); socket.create_connection(s.getsockname())\n"
        "print(os.path.exists('/etc/resolv.conf'))"
    )
    ran = await running.run(code)
    groups = [] if os.geteuid() == 0 else os.getgroups()
    assert ran.output == (
        f"sandbox /workspace sandbox\nsandbox 127.0.0.1 {[65534] * len(groups)}\nFalse\n"
    )


async def test_configuration_in_the_image_is_masked(
    starting: Start, spec: SandboxSpec, base: Path
) -> None:
    """An image of its own, with secrets beside its packages."""
    prefix = base / "image"
    packages = prefix / "lib" / spec.image.site_packages[0].parent.name / "site-packages"
    packages.mkdir(parents=True)
    (packages / "from_the_image.py").write_text("here = True")
    for name in ("pip.conf", ".env"):
        (prefix / name).write_text("https://user:password@index.example")
    image = replace(
        spec.image,
        prefix=prefix,
        site_packages=(packages,),
        roots=(*spec.image.roots, prefix),
        masks=(prefix / "pip.conf", prefix / ".env"),
    )
    running = await starting("bubblewrap", image=image)
    code = "import sys; print([open(f'{sys.argv[1]}/{n}').read() for n in ('pip.conf', '.env')])"
    assert (await running.run(code, str(prefix))).output == "['', '']\n"
