"""What a cell can reach, probed from a cell; the same probes on `process` find every leak.

Run as root and as an ordinary user: the sandbox is made differently for each. `process`
refuses root.
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import MakeHome
from tests.support import gateways
from tests.support.home import Home
from tests.support.kernels import Kernel, kernel

pytestmark = pytest.mark.linux


@dataclass
class Host:
    """Things of the host that no cell may reach, and a cell to try it from."""

    attacker: Kernel
    home: Home
    canary: Path
    token: Path
    neighbour: Path
    pid: int
    port: int


@pytest.fixture(
    scope="module", params=["bubblewrap", pytest.param("process", marks=pytest.mark.not_root)]
)
def host(request: pytest.FixtureRequest, home_factory: MakeHome) -> Iterator[Host]:
    with home_factory() as home, socket.create_server(("127.0.0.1", 0)) as server:
        environ = home.environ | {"SANDCELL_ENGINE": request.param}
        canary = home.path / "canary"
        canary.write_text(secrets.token_hex())
        token = home.state / "token"
        with (
            kernel("sandcell", environ, home.path) as victim,
            kernel("sandcell", environ, home.path) as attacker,
        ):
            victim.front.run("open('secret.txt', 'w').write('of a neighbour')")
            token.write_text(secrets.token_hex())
            attacker.front.run("pass")
            (neighbour,) = [
                path for path in home.state.glob("sessions/*/workspace/secret.txt") if path.exists()
            ]
            yield Host(
                attacker,
                home,
                canary,
                token,
                neighbour,
                gateways.gateway(home).pid,
                server.getsockname()[1],
            )


LEAKS = {
    "canary in the real home": "open({canary!r}).read()",
    "the gateway's token": "open({token!r}).read()",
    "a second session's files": "open({neighbour!r}).read()",
    "a host process is seen": "open('/proc/{pid}/cmdline').read().index('sandcell_gateway')",
    "a host process is signalled": "__import__('os').kill({pid}, 0)",
    "a host loopback port": (
        "__import__('socket').create_connection(('127.0.0.1', {port}), 5).close()"
    ),
}


@pytest.mark.parametrize("what", LEAKS)
def test_a_cell_does_not_reach_the_host(host: Host, what: str) -> None:
    code = LEAKS[what].format(
        canary=str(host.canary),
        token=str(host.token),
        neighbour=str(host.neighbour),
        pid=host.pid,
        port=host.port,
    )
    leaked = host.attacker.front.run(code).error == ""
    isolated = "isolates nothing" not in _banner(host)
    if what == "a host process is seen" and isolated:
        # The number may name a process of the sandbox itself; it is not the gateway.
        assert not leaked
    assert leaked is not isolated


def _banner(host: Host) -> str:
    banner: str = host.attacker.front.request("kernel_info_request", {}).content["banner"]
    return banner


def test_proc_sys_cannot_be_written(host: Host) -> None:
    code = "import os\nopen('/proc/sys/kernel/core_pattern', 'r+').close()"
    result = host.attacker.front.run(code)
    # Of all that is tried here only this is closed to an ordinary user's `process`, too.
    assert result.error in {"PermissionError", "OSError"}


def test_a_nested_user_namespace_is_refused(host: Host) -> None:
    code = (
        "import ctypes, os\n"
        "pid = os.fork()\n"
        "if not pid:\n"
        "    libc = ctypes.CDLL(None, use_errno=True)\n"
        "    os._exit(ctypes.get_errno() if libc.unshare(0x10000000) else 0)\n"
        "os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])"
    )
    refused = host.attacker.front.value(code) != "0"
    assert refused is ("isolates nothing" not in _banner(host))


def test_a_cell_is_never_root_and_has_no_capabilities(host: Host) -> None:
    if "isolates nothing" in _banner(host):
        pytest.skip("the `process` engine of an ordinary user has no rights to lose")
    front = host.attacker.front
    assert front.value("0 in os.getresuid() + os.getresgid()") == "False"
    status = front.run("print(open('/proc/self/status').read())").stream()
    values = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    sets = [values[f"Cap{name}"] for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")]
    assert sets == ["0" * 16] * 5
    assert values["NoNewPrivs"] == "1"
    assert values["Seccomp"] == "2"


def test_the_workspace_is_home_and_working_directory(host: Host) -> None:
    front = host.attacker.front
    assert (
        front.value("__import__('os').getcwd() == __import__('os').path.expanduser('~')") == "True"
    )
    assert front.run("open('mine.txt', 'w').write('x')").error == ""


def test_packages_of_the_image_are_there_and_read_only(host: Host) -> None:
    if "isolates nothing" in _banner(host):
        pytest.skip("the `process` engine runs in the environment itself")
    front = host.attacker.front
    assert front.run("import pandas").error == ""
    result = front.run("open(pandas.__file__, 'a')")
    assert result.error in {"OSError", "PermissionError"}
