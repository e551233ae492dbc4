"""`sandcell kernel`: install kernelspecs that pin an interpreter or a gateway."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from importlib import resources
from pathlib import Path
from typing import Annotated

import typer
from jupyter_client.kernelspec import KernelSpecManager

kernel = typer.Typer(help="Manage Jupyter kernelspecs of sandcell.", no_args_is_help=True)


@kernel.callback()
def group() -> None:
    """Manage Jupyter kernelspecs of sandcell."""


def kernelspec(display_name: str, url: str | None) -> dict[str, object]:
    """The content of a kernel.json that starts this interpreter."""
    template = resources.files("sandcell_kernel") / "kernelspec" / "kernel.json"
    spec: dict[str, object] = json.loads(template.read_text())
    spec["argv"] = [sys.executable, "-m", "sandcell_kernel", "-f", "{connection_file}"]
    spec["display_name"] = display_name
    if url is not None:
        spec["env"] = {"SANDCELL_URL": url}
    return spec


@kernel.command()
def install(
    name: Annotated[str, typer.Option(help="Name of the kernelspec.")] = "sandcell",
    display_name: Annotated[str, typer.Option(help="What front ends show.")] = "Sandbox (Python)",
    url: Annotated[
        str | None, typer.Option(help="Gateway to use; SANDCELL_TOKEN still comes from outside.")
    ] = None,
    user: Annotated[bool, typer.Option("--user", help="Install for this user.")] = False,
    sys_prefix: Annotated[
        bool, typer.Option("--sys-prefix", help="Install into this Python environment.")
    ] = False,
    prefix: Annotated[Path | None, typer.Option(help="Install below this prefix.")] = None,
) -> None:
    """Install a kernelspec that runs this Python's sandcell, wherever Jupyter itself lives."""
    chosen = sum((user, sys_prefix, prefix is not None))
    if chosen > 1:
        raise typer.BadParameter("choose one of --user, --sys-prefix and --prefix")
    target = str(prefix) if prefix is not None else sys.prefix if sys_prefix else None
    with tempfile.TemporaryDirectory() as directory:
        source = Path(directory) / "spec"
        with resources.as_file(resources.files("sandcell_kernel") / "kernelspec") as packaged:
            shutil.copytree(packaged, source)
        (source / "kernel.json").write_text(json.dumps(kernelspec(display_name, url), indent=2))
        where = KernelSpecManager().install_kernel_spec(
            str(source), name, user=target is None, prefix=target
        )
    typer.echo(f"Installed kernelspec {name} in {where}")
