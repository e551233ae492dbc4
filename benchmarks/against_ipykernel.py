"""sandcell against plain ipykernel, interleaved in one run; prints ratios.

    python benchmarks/against_ipykernel.py [--rounds N] [--json FILE]

Both kernels are driven by the same raw ZMQ front end, so that the client's own cost
is small and equal. Every figure is the median over the rounds; each round measures
both kernels, in alternating order.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import zmq
from jupyter_client.manager import KernelManager

from sandcell_wire.messages import Message, Signer, envelope, make

KERNELS = ("python3", "sandcell")
TIMEOUT_MS = 120_000


class RawFrontEnd:
    """A front end that does nothing but move frames."""

    def __init__(self, manager: KernelManager) -> None:
        self._signer = Signer(manager.session.key)
        self._context = zmq.Context[zmq.Socket[bytes]]()
        self.shell = self._connect(manager, "shell", zmq.DEALER)
        self.iopub = self._connect(manager, "iopub", zmq.SUB)
        self.poller = zmq.Poller()
        self.poller.register(self.shell, zmq.POLLIN)
        self.poller.register(self.iopub, zmq.POLLIN)

    def _connect(self, manager: KernelManager, channel: str, kind: int) -> zmq.Socket[bytes]:
        socket = self._context.socket(kind)
        socket.set_hwm(0)
        socket.linger = 0
        if kind == zmq.SUB:
            socket.subscribe(b"")
        port = getattr(manager, f"{channel}_port")
        socket.connect(f"tcp://{manager.ip}:{port}")
        return socket

    def close(self) -> None:
        self._context.destroy(linger=0)

    def wait_welcome(self) -> None:
        """Until the kernel has taken the subscription: no output can be missed from here."""
        while True:
            if not self.iopub.poll(TIMEOUT_MS):
                raise TimeoutError(f"no iopub_welcome within {TIMEOUT_MS} ms")
            if any(b"iopub_welcome" in frame for frame in self.iopub.recv_multipart()):
                return

    def ask(self, msg_type: str, content: dict[str, Any]) -> tuple[float, list[Message]]:
        """Seconds until both reply and idle, and the iopub messages in between."""
        request = make("shell", msg_type, content, session="bench")
        msg_id = envelope(request).msg_id
        begun = time.perf_counter()
        self.shell.send_multipart(self._signer.pack(request))
        output: list[Message] = []
        replied = idle = False
        while not (replied and idle):
            ready = dict(self.poller.poll(TIMEOUT_MS))
            if not ready:
                raise TimeoutError(f"no answer to {msg_type} within {TIMEOUT_MS} ms")
            for socket in ready:
                channel = "iopub" if socket is self.iopub else "shell"
                _, message = self._signer.unpack(channel, socket.recv_multipart())
                head = envelope(message)
                if head.parent_id != msg_id:
                    continue
                if channel == "shell":
                    replied = True
                else:
                    output.append(message)
                    idle = idle or (head.msg_type == "status" and b"idle" in message.content)
        return time.perf_counter() - begun, output

    def run(self, code: str) -> tuple[float, list[Message]]:
        """Execute a cell."""
        content = {"code": code, "silent": False, "store_history": True, "allow_stdin": False}
        return self.ask("execute_request", {**content, "stop_on_error": True})


@contextlib.contextmanager
def started(name: str, directory: str) -> Iterator[tuple[KernelManager, RawFrontEnd, float]]:
    """A kernel, its front end, and the seconds from start to its kernel_info reply."""
    manager = KernelManager(kernel_name=name)
    begun = time.perf_counter()
    manager.start_kernel(cwd=directory)
    front = RawFrontEnd(manager)
    front.wait_welcome()
    front.ask("kernel_info_request", {})
    ready = time.perf_counter() - begun
    try:
        yield manager, front, ready
    finally:
        front.close()
        manager.shutdown_kernel()
        manager.cleanup_resources()


def _text(output: list[Message]) -> str:
    texts = [m.content_dict().get("text", "") for m in output]
    return "".join(texts)


def _pass(front: RawFrontEnd) -> float:
    return front.run("pass")[0]


def _lines(front: RawFrontEnd) -> float:
    seconds, output = front.run("for i in range(100_000): print(i)")
    if _text(output) != "".join(f"{i}\n" for i in range(100_000)):
        raise SystemExit("lines were lost or came out of order")
    return seconds


def _displays(front: RawFrontEnd) -> float:
    seconds, output = front.run("for i in range(5000): display({'text/plain': str(i)}, raw=True)")
    shown = [
        m.content_dict()["data"]["text/plain"]
        for m in output
        if envelope(m).msg_type == "display_data"
    ]
    if shown != [str(i) for i in range(5000)]:
        raise SystemExit("displays were lost or came out of order")
    return seconds


def _large(front: RawFrontEnd) -> float:
    seconds, output = front.run("display({'text/plain': 'x' * 50_000_000}, raw=True)")
    if max(len(m.content) for m in output) < 50_000_000:
        raise SystemExit("the large output was cut")
    return seconds


MEASURES: dict[str, tuple[Callable[[RawFrontEnd], float], int]] = {
    "`pass` to idle and reply": (_pass, 200),
    "100,000 printed lines": (_lines, 1),
    "5,000 displays": (_displays, 1),
    "one 50 MB output": (_large, 1),
}


def measure(rounds: int) -> dict[str, dict[str, list[float]]]:
    """Seconds: figure → kernel → one value a round."""
    figures: dict[str, dict[str, list[float]]] = {
        name: {kernel: [] for kernel in KERNELS}
        for name in ("start to kernel_info", "start to first cell", *MEASURES)
    }
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        for round_number in range(rounds):
            order = KERNELS if round_number % 2 == 0 else KERNELS[::-1]
            for kernel in order:
                with started(kernel, directory) as (_, front, ready):
                    figures["start to kernel_info"][kernel].append(ready)
                    first = ready + front.run("pass")[0]
                    figures["start to first cell"][kernel].append(first)
        fronts = {kernel: stack.enter_context(started(kernel, directory))[1] for kernel in KERNELS}
        for front in fronts.values():
            for _ in range(50):
                _pass(front)
        for name, (function, repeats) in MEASURES.items():
            for turn in range(rounds * repeats):
                order = KERNELS if turn % 2 == 0 else KERNELS[::-1]
                for kernel in order:
                    figures[name][kernel].append(function(fronts[kernel]))
    return figures


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    os.environ.setdefault("SANDCELL_CLOSE_GRACE", "0")
    figures = measure(options.rounds)
    print(f"{'figure':28} {'ipykernel ms':>13} {'sandcell ms':>12} {'ratio':>7}")
    for name, by_kernel in figures.items():
        plain, ours = (statistics.median(by_kernel[kernel]) * 1000 for kernel in KERNELS)
        print(f"{name:28} {plain:13.2f} {ours:12.2f} {ours / plain:7.2f}")
    if options.json is not None:
        options.json.write_text(json.dumps(figures))


if __name__ == "__main__":
    main()
