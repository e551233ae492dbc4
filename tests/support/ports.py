"""TCP ports for kernels.

jupyter_client asks the system for free ports, gives them back and tells the kernel to take
them: what runs beside this may have taken one by then. These lie below the range that the
system gives out, in a part of this test process's own.
"""

from __future__ import annotations

import itertools
import os
import socket
from typing import Any

_FIRST, _COUNT = 10_000, 2_000
_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_numbers = itertools.cycle(range(_FIRST + _worker * _COUNT, _FIRST + (_worker + 1) * _COUNT))


def kernel_ports() -> dict[str, Any]:
    """Ports for a connection file, by their names there."""
    names = ("shell_port", "iopub_port", "stdin_port", "control_port", "hb_port")
    return {name: next(filter(_is_free, _numbers)) for name in names}


def _is_free(number: int) -> bool:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", number))
        except OSError:
            return False
    return True
