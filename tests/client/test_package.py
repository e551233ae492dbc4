"""The package: its exports, its weight, and its two forms."""

from __future__ import annotations

import importlib.util
import inspect
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import sandcell
from sandcell._async import client as asynchronous
from sandcell._sync import client as synchronous
from tests.gateway.support import ROOT


def unasync() -> ModuleType:
    spec = importlib.util.spec_from_file_location("unasync", ROOT / "scripts" / "unasync.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_twin_is_generated() -> None:
    assert unasync().differences(write=False) == [], "run scripts/unasync.py"


def test_the_translation() -> None:
    source = "async def aclose(self):\n    x = [await y async for y in AsyncClient.aclose()]\n"
    expected = "def close(self):\n    x = [y for y in Client.close()]\n"
    assert unasync().translate(source).endswith(expected)


def public(kind: Any) -> dict[str, list[str]]:
    return {
        name: list(inspect.signature(member).parameters)
        for name, member in inspect.getmembers(kind)
        if not name.startswith("_") and callable(member)
    }


@pytest.mark.parametrize("name", ["Client", "Session", "Sessions", "Tokens"])
def test_both_forms_offer_the_same(name: str) -> None:
    one = public(getattr(asynchronous, f"Async{name}"))
    one = {"close" if key == "aclose" else key: value for key, value in one.items()}
    assert one == public(getattr(synchronous, name))


def test_the_twin_awaits_nothing() -> None:
    for path in (ROOT / "client" / "sandcell" / "_sync").glob("*.py"):
        text = path.read_text()
        assert "await " not in text
        assert "asyncio" not in text


def imported(statement: str) -> set[str]:
    script = f"{statement}; import sys; print(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return {name.partition(".")[0] for name in result.stdout.split()}


def test_the_package_itself_loads_nothing() -> None:
    heavy = {"pydantic", "httpx", "asyncio", "typer", "rich", "zmq", "IPython", "sandcell_gateway"}
    assert not imported("import sandcell") & heavy
    assert not imported("from sandcell import SandcellError") & heavy


def test_the_client_loads_no_server() -> None:
    loaded = imported("import sandcell; sandcell.Client; sandcell.AsyncClient")
    assert "httpx" in loaded
    assert not loaded & {"fastapi", "uvicorn", "sqlalchemy", "zmq", "IPython", "sandcell_gateway"}


def test_the_command_line_loads_no_server() -> None:
    script = "import sys; sys.argv = ['sandcell', '--version']; from sandcell.cli import main\n"
    script += "try: main()\nexcept SystemExit: pass\nprint(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    loaded = set(result.stdout.split())
    assert not loaded & {"fastapi", "uvicorn", "sqlalchemy", "httpx", "sandcell_gateway"}


def test_names_come_on_demand() -> None:
    assert set(sandcell.__all__) <= set(dir(sandcell))
    assert sandcell.__version__[0].isdigit()
    with pytest.raises(AttributeError, match="no attribute 'Nonesuch'"):
        _ = sandcell.Nonesuch


def test_it_is_typed() -> None:
    assert sandcell.__file__ is not None
    assert (Path(sandcell.__file__).parent / "py.typed").exists()
