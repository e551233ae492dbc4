"""Jupyter's server of the same environment passes everything on."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.home import Home

SHOW = """
import sys
from jupyter_server.serverapp import ServerApp
from jupyter_server.services.kernels.connection.channels import ZMQChannelsWebsocketConnection
assert ZMQChannelsWebsocketConnection.limit_rate.default_value is True, "it no longer limits"
app = ServerApp()
app.initialize(argv=["--allow-root", "--no-browser", "--port=0", *sys.argv[1:]])
print(ZMQChannelsWebsocketConnection(parent=app).limit_rate)
"""


@pytest.mark.parametrize(
    ("options", "limited"),
    [((), "False"), (("--ZMQChannelsWebsocketConnection.limit_rate=True",), "True")],
)
def test_the_limit_on_output_is_lifted_unless_somebody_set_it(
    home: Home, options: tuple[str, ...], limited: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SHOW, *options],
        env=home.environ,
        cwd=home.path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == f"{limited}\n", done.stderr
