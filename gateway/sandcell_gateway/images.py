"""An image: the Python environment that sandboxes see read-only.

By default the one the gateway is installed in. It is read as files only; nothing
of it is executed. What has to be visible for it to work is `roots` and `links`:
the environment, the interpreter's own prefix, and every symbolic link on the way
(binding only a venv breaks it; ISOLATION, "What is visible").
"""

from __future__ import annotations

import os
import pwd
import re
import site
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MAX_STACKED = 8
"""Environments whose `home =` points to a further one, before it counts as a loop."""
MAX_LINKS = 40
"""Links on the way to one file, as the kernel's own limit (path_resolution(7))."""
MASKED = ("pip.conf", "uv.toml", ".env", ".netrc", ".pypirc")
"""Files of an environment that hold the host's configuration and secrets."""

_NEVER_WHOLE = frozenset(
    Path(f"/{name}")
    for name in (
        *("", "boot", "dev", "etc", "home", "mnt", "opt", "proc", "root", "run", "srv", "sys"),
        *("tmp", "var", "var/lib", "var/tmp", "Users"),
    )
)
_STORES = (Path("/nix/store"), Path("/gnu/store"))
"""Here an interpreter's libraries lie beside it, not below it; nothing in them is secret."""
_HUMAN_UID = 1000


class ImageError(Exception):
    """The prefix cannot be an image; the text says why and what to do."""


@dataclass(frozen=True)
class Image:
    """A Python environment as sandboxes see it. Paths are the same outside and inside."""

    prefix: Path
    """The environment, with links resolved."""
    base_prefix: Path
    """Where the interpreter and its standard library are."""
    python: Path
    """The interpreter's real file; no link, no shim script that costs time at each start."""
    version: tuple[int, int]
    """Major and minor."""
    site_packages: tuple[Path, ...]
    """Where packages are imported from, first to last."""
    roots: tuple[Path, ...]
    """Directories to show read-only; none lies in another."""
    links: tuple[tuple[Path, str], ...]
    """Symbolic links outside the roots that lead to them: path and target."""
    masks: tuple[Path, ...]
    """Files below the roots to show as empty."""

    @classmethod
    def here(cls) -> Image:
        """The environment this process runs in. Raises `ImageError`."""
        return cls.of_prefix(Path(sys.prefix))

    @classmethod
    def of_prefix(cls, prefix: Path) -> Image:
        """The environment at `prefix`. Raises `ImageError`."""
        prefix = _absolute(prefix)
        stack = _stack(prefix)
        base = stack[-1]
        python = _interpreter(base)
        version = _version(stack[0], base.prefix)
        packages = _site_packages(stack, version)
        wanted = [environment.prefix for environment in stack]
        wanted += [prefix, python, *packages]
        walk = _Walk()
        for path in wanted:
            walk.visit(path)
        roots = _outermost(_root_of(path, python) for path in walk.real)
        for root in roots:
            refuse_whole_home(root)
        links = [(path, to) for path, to in walk.links.items() if not _below_any(path, roots)]
        return cls(
            prefix=prefix.resolve(),
            base_prefix=base.prefix.resolve(),
            python=python.resolve(),
            version=version,
            site_packages=tuple(packages),
            roots=tuple(roots),
            links=tuple(links),
            masks=tuple(_masks({environment.prefix.resolve() for environment in stack})),
        )


def refuse_whole_home(root: Path) -> None:
    """Raise `ImageError` for a directory that holds more than software."""
    homes = {Path(user.pw_dir) for user in pwd.getpwall() if user.pw_uid >= _HUMAN_UID}
    homes |= {Path.home(), Path(pwd.getpwuid(0).pw_dir)}
    ours = {home for home in homes if home.is_absolute() and not home.is_relative_to("/usr")}
    if root in _NEVER_WHOLE or any(home.is_relative_to(root) for home in ours):
        raise ImageError(
            f"{root} cannot be an image: every session would see all files in it. "
            "Install sandcell into a virtual environment (python -m venv)."
        )


# -- environments --------------------------------------------------------------------------


@dataclass(frozen=True)
class _Environment:
    prefix: Path
    config: dict[str, str]
    """pyvenv.cfg; empty for an interpreter's own prefix."""
    home: Path | None
    """The directory of the interpreter it was made from."""


def _absolute(prefix: Path) -> Path:
    path = Path.cwd() / prefix  # not resolved: its links must be visible, too
    if not path.is_dir():
        raise ImageError(f"there is no Python environment at {path}")
    return path


def _read_config(prefix: Path) -> dict[str, str]:
    """pyvenv.cfg as CPython reads it: `key = value` lines, keys in any case."""
    try:
        text = (prefix / "pyvenv.cfg").read_text("utf-8", "replace")
    except OSError:
        return {}
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line)
    return {key.strip().lower(): value.strip() for key, value in pairs}


def _stack(prefix: Path) -> list[_Environment]:
    """The environment, those it was made from, and the base interpreter's prefix at the end."""
    stack: list[_Environment] = []
    home: Path | None = None
    while len(stack) < MAX_STACKED:
        config = _read_config(prefix)
        stack.append(_Environment(prefix, config, home))
        if "home" not in config:
            return stack
        home = Path(config["home"])
        if not home.is_absolute() or not home.is_dir():
            raise ImageError(
                f"{prefix}/pyvenv.cfg names the interpreter directory {home}, "
                "which does not exist; make the environment anew"
            )
        # /bin is a link to /usr/bin: the prefix is /usr, not /.
        prefix = home.parent if home.parent != Path("/") else home.resolve().parent
    raise ImageError(f"{stack[0].prefix} stands on more than {MAX_STACKED} other environments")


def _interpreter(base: _Environment) -> Path:
    directory = base.home or base.prefix / "bin"
    for name in (*_versioned_names(directory), "python3", "python"):
        if os.access(directory / name, os.X_OK):
            return directory / name
    raise ImageError(f"there is no Python interpreter in {directory}")


def _versioned_names(directory: Path) -> list[str]:
    """pythonX.Y where there is just one, so that /usr/bin with several is read by its python3."""
    names = [path.name for path in directory.glob("python3.*")]
    names = [name for name in names if re.fullmatch(r"python3\.\d+t?", name)]
    return names if len(names) == 1 else []


def _version(environment: _Environment, base: Path) -> tuple[int, int]:
    """From pyvenv.cfg, or from the only standard library there is."""
    config = environment.config
    text = config.get("version_info") or config.get("version") or ""
    if match := re.match(r"(\d+)\.(\d+)", text):
        return int(match[1]), int(match[2])
    python = (base / "bin" / "python3").resolve().name
    if match := re.fullmatch(r"python(\d+)\.(\d+)t?", python):
        return int(match[1]), int(match[2])
    raise ImageError(f"cannot tell the Python version of {environment.prefix}")


def _site_packages(stack: list[_Environment], version: tuple[int, int]) -> list[Path]:
    """Of the environment, and of those below it while each lets the next one through."""
    found: list[Path] = []
    for environment in stack:
        found += _own_packages(environment, version)
        through = environment.config.get("include-system-site-packages", "false").lower() == "true"
        if environment.config and not through:
            return found
    return found + _user_packages(stack[-1].prefix, version)


def _own_packages(environment: _Environment, version: tuple[int, int]) -> list[Path]:
    tag = f"python{version[0]}.{version[1]}"
    prefix = environment.prefix
    places = [prefix / "lib" / tag / "site-packages", prefix / "lib64" / tag / "site-packages"]
    if not environment.config and prefix.resolve() == Path("/usr"):
        # Debian's own layout, see site.getsitepackages() there.
        places.append(Path(f"/usr/local/lib/{tag}/dist-packages"))
        places.append(Path("/usr/lib/python3/dist-packages"))
    unique = {path.resolve(): path for path in reversed(places) if path.is_dir()}
    return [path for path in places if path in unique.values()]


def _user_packages(base: Path, version: tuple[int, int]) -> list[Path]:
    """`pip install --user` into this process's own interpreter."""
    ours = base.resolve() == Path(sys.base_prefix).resolve() and version == sys.version_info[:2]
    user = Path(site.getusersitepackages())
    return [user] if ours and site.ENABLE_USER_SITE and user.is_dir() else []


# -- what must be visible ------------------------------------------------------------------


class _Walk:
    """Follows paths component by component and notes each link."""

    def __init__(self) -> None:
        self.real: list[Path] = []
        self.links: dict[Path, str] = {}

    def visit(self, path: Path) -> None:
        """Note where `path` really is and the links on the way. Raises `ImageError` for a loop."""
        left = list(path.parts[1:])
        here = Path("/")
        followed = 0
        while left:
            part = left.pop(0)
            here = here.parent if part == ".." else here / part
            if not here.is_symlink():
                continue
            followed += 1
            if followed > MAX_LINKS:
                raise ImageError(f"{path}: too many links")
            target = str(here.readlink())
            self.links[here] = target
            start = Path("/") if target.startswith("/") else here.parent
            left = [*Path(target).parts[1 if target.startswith("/") else 0 :], *left]
            here = start
        self.real.append(here)


def _masks(prefixes: set[Path]) -> list[Path]:
    files = (prefix / name for prefix in sorted(prefixes) for name in MASKED)
    return [file for file in files if file.is_file()]


def _root_of(path: Path, python: Path) -> Path:
    """The directory to show for a real path: its store, its prefix, or itself."""
    for store in _STORES:
        if path.is_relative_to(store):
            return store
    if path == python.resolve():
        return path.parent.parent  # PREFIX/bin/python
    return path


def _outermost(paths: Iterator[Path]) -> list[Path]:
    found: list[Path] = []
    for path in sorted(set(paths)):
        if not _below_any(path, found):
            found.append(path)
    return found


def _below_any(path: Path, roots: list[Path]) -> bool:
    return any(path.is_relative_to(root) for root in roots)
