"""Front ends for tests: jupyter_client with what every test needs around it."""

from __future__ import annotations

import contextlib
import queue
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.manager import KernelManager

from tests.support.ports import kernel_ports

TIMEOUT = 60.0
"""Seconds a test waits for one message; never a measure of anything."""

Message = dict[str, Any]


@dataclass
class Result:
    """What one request brought."""

    reply: Message
    iopub: list[Message] = field(default_factory=list[Message])

    @property
    def content(self) -> dict[str, Any]:
        return self.reply["content"]

    def of(self, msg_type: str) -> list[dict[str, Any]]:
        """Contents of the iopub messages of one type."""
        return [m["content"] for m in self.iopub if m["header"]["msg_type"] == msg_type]

    def stream(self, name: str = "stdout") -> str:
        """All text of one stream."""
        return "".join(c["text"] for c in self.of("stream") if c["name"] == name)

    @property
    def statuses(self) -> list[str]:
        return [content["execution_state"] for content in self.of("status")]

    @property
    def error(self) -> str:
        """The error's name, or nothing."""
        found = self.of("error")
        return found[0]["ename"] if found else ""


@dataclass
class FrontEnd:
    """One client of a kernel."""

    client: BlockingKernelClient

    def collect(
        self,
        msg_id: str,
        *,
        channel: str = "shell",
        seen: Callable[[Message], None] | None = None,
        prompts: list[str] | None = None,
        timeout: float = TIMEOUT,
    ) -> Result:
        """Wait for idle and reply of a request; answers prompts from the list on the way.

        `timeout` is in seconds, for each message.
        """
        get_reply = getattr(self.client, f"{channel}_channel").get_msg
        result = Result({})
        idle = False
        while not (idle and result.reply):
            if not idle:
                patience = 0.05 if prompts else timeout
                idle = self._one_iopub(msg_id, result, seen, patience, wait=not prompts)
            if prompts:
                self._one_prompt(prompts)
            if not result.reply:
                with contextlib.suppress(queue.Empty):
                    reply = get_reply(timeout=timeout if idle else 0)
                    if reply["parent_header"].get("msg_id") == msg_id:
                        result.reply = reply
        return result

    def _one_iopub(
        self,
        msg_id: str,
        result: Result,
        seen: Callable[[Message], None] | None,
        patience: float,
        *,
        wait: bool,
    ) -> bool:
        try:
            message = self.client.get_iopub_msg(timeout=patience)
        except queue.Empty:
            if wait:
                raise
            return False
        if message["parent_header"].get("msg_id") != msg_id:
            return False
        result.iopub.append(message)
        if seen is not None:
            seen(message)
        content = message["content"]
        return message["header"]["msg_type"] == "status" and content["execution_state"] == "idle"

    def _one_prompt(self, prompts: list[str]) -> None:
        with contextlib.suppress(queue.Empty):
            self.client.get_stdin_msg(timeout=0.05)
            self.client.input(prompts.pop(0))

    def run(self, code: str, **options: Any) -> Result:
        """Execute a cell to its end."""
        execute = {
            key: options.pop(key)
            for key in ("silent", "store_history", "allow_stdin", "stop_on_error")
            if key in options
        }
        return self.collect(self.client.execute(code, **execute), **options)

    def value(self, expression: str) -> str:
        """`repr` of an expression in the kernel."""
        result = self.run(expression)
        assert not result.error, result.of("error")
        return result.of("execute_result")[0]["data"]["text/plain"]

    def request(
        self, msg_type: str, content: Mapping[str, Any], *, channel: str = "shell", **header: Any
    ) -> Result:
        """Any request."""
        message = self.client.session.msg(msg_type, dict(content))
        message["header"].update(header)
        getattr(self.client, f"{channel}_channel").send(message)
        return self.collect(message["header"]["msg_id"], channel=channel)


@dataclass
class Kernel:
    """A running kernel process and its first front end."""

    name: str
    manager: KernelManager
    front: FrontEnd

    @property
    def sandboxed(self) -> bool:
        return self.name == "sandcell"

    def restart(self, *, now: bool = False) -> None:
        """Restart as jupyter_client does, by request or (`now`) with SIGKILL, and reconnect."""
        self.front.client.stop_channels()
        self.manager.restart_kernel(now=now)
        self.front = FrontEnd(connect(self.manager.get_connection_info()))

    def kill_and_start(self) -> None:
        """SIGKILL without the interrupt that jupyter_client sends before; then as `restart`."""
        self.front.client.stop_channels()
        self.manager._kill_kernel(restart=True)
        assert self.manager._launch_args is not None
        self.manager.start_kernel(**self.manager._launch_args)
        self.front = FrontEnd(connect(self.manager.get_connection_info()))

    @contextlib.contextmanager
    def another_front_end(self) -> Iterator[FrontEnd]:
        """A second client of the same kernel."""
        with connected(self.manager) as front:
            yield front


def connect(connection: KernelConnectionInfo) -> BlockingKernelClient:
    """A client of its own that has seen the kernel answer on shell and on iopub.

    Not `manager.client()`: those share one session, and so one ZMQ identity. Not
    `wait_for_ready` either: on a busy machine it takes a late heartbeat for death.
    """
    client = BlockingKernelClient()
    client.load_connection_info(connection)
    client.start_channels(hb=False)
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        client.kernel_info()
        with contextlib.suppress(queue.Empty):
            client.get_shell_msg(timeout=1)
            client.get_iopub_msg(timeout=1)
            _drain(client)
            return client
    client.stop_channels()
    raise AssertionError(f"the kernel did not answer within {TIMEOUT} s")


def _drain(client: BlockingKernelClient) -> None:
    """Read what is left of the greeting: one last request whose end is the end of it."""
    last = client.kernel_info()
    for get, kind in (
        (client.get_shell_msg, "kernel_info_reply"),
        (client.get_iopub_msg, "status"),
    ):
        while True:
            message = get(timeout=TIMEOUT)
            ours = message["parent_header"].get("msg_id") == last
            idle = message["content"].get("execution_state", "idle") == "idle"
            if ours and message["header"]["msg_type"] == kind and idle:
                break


@contextlib.contextmanager
def connected(manager: KernelManager) -> Iterator[FrontEnd]:
    """A front end of a running kernel."""
    client = connect(manager.get_connection_info())
    try:
        yield FrontEnd(client)
    finally:
        client.stop_channels()


@contextlib.contextmanager
def kernel(name: str, environ: Mapping[str, str], directory: Path) -> Iterator[Kernel]:
    """A kernel started as nbclient starts one: `name` is `sandcell` or `python3`."""
    runtime = directory / "jupyter"
    runtime.mkdir(exist_ok=True)
    manager = KernelManager(kernel_name=name, cache_ports=False, **kernel_ports())
    manager.connection_file = str(runtime / f"kernel-{time.monotonic_ns()}.json")
    manager.start_kernel(env=dict(environ), cwd=str(directory))
    started = None
    try:
        started = Kernel(name, manager, FrontEnd(connect(manager.get_connection_info())))
        yield started
    finally:
        if started is not None:
            started.front.client.stop_channels()
        manager.shutdown_kernel()
        manager.cleanup_resources()
