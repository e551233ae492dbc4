"""jupyter_kernel_test, once on plain ipykernel and once through the whole path."""

# ruff: noqa: RUF012 (the suite reads its samples as class attributes)
from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from unittest import mock

import jupyter_kernel_test
import pytest

from tests.conftest import MakeHome
from tests.support.kernels import TIMEOUT


@pytest.fixture(autouse=True, scope="class")
def home_of_the_class(home_factory: MakeHome) -> Iterator[None]:
    """An isolated user for the kernels of one class."""
    with home_factory() as home, pytest.MonkeyPatch.context() as patch:
        for name, value in home.environ.items():
            patch.setenv(name, value)
        yield


class Conformance(jupyter_kernel_test.KernelTests):
    """What a Python kernel can do; no test may be skipped for want of a sample."""

    __test__ = False

    def execute_helper(self, *args: Any, **options: Any) -> Any:
        """Wait for output as long as it takes.

        The suite gives each message 0.1 s after the reply. Plain ipykernel publishes its
        idle after the reply, and on a busy machine that takes longer.
        """
        channel = self.kc.iopub_channel
        get = channel.get_msg

        def patient(timeout: float | None = None) -> Any:
            return get(timeout=TIMEOUT)

        with mock.patch.object(channel, "get_msg", patient):
            return super().execute_helper(*args, **options)

    language_name = "python"
    file_extension = ".py"
    code_hello_world = "print('hello, world')"
    code_stderr = "import sys; print('oops', file=sys.stderr)"
    code_page_something = "zip?"
    code_generate_error = "1 / 0"
    code_execute_result = [
        {"code": "1+2+3", "result": "6"},
        {"code": "[n*n for n in range(1, 4)]", "result": "[1, 4, 9]"},
    ]
    code_display_data = [
        {"code": "from IPython.display import HTML, display; display(HTML('<b>x</b>'))",
         "mime": "text/html"},
        {"code": "from IPython.display import Math, display; display(Math('x'))",
         "mime": "text/latex"},
    ]  # fmt: skip
    code_history_pattern = "1?2*"
    # `range` fails on plain ipykernel itself: IPython calls the running session 0.
    supported_history_operations = ("tail", "search")
    code_clear_output = "from IPython.display import clear_output; clear_output()"
    code_inspect_sample = "zip"
    completion_samples = [{"text": "zi", "matches": {"zip"}}]
    complete_code_samples = ["1", "print('hello, world')", "def f(x):\n  return x*2\n\n\n"]
    incomplete_code_samples = ["print('''hello", "def f(x):\n  x*2"]
    invalid_code_samples = ["import = 7q"]


class TestPlainIpykernel(Conformance):
    __test__ = True
    kernel_name = "python3"


@pytest.mark.linux
class TestSandcell(Conformance):
    __test__ = True
    kernel_name = "sandcell"
