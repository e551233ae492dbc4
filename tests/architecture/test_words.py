"""What must not be in the repository: somebody's machine, unfinished work, secrets."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.source import ROOT

TEXT = {".py", ".md", ".toml", ".yaml", ".yml", ".json", ".ipynb", ".svg", ".ini", ".cfg", ""}
UNFINISHED = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X|NotImplemented" r"Error)\b")
REGISTRIES = re.compile(r"\b(extra-)?index[-_]" r"url\b", re.IGNORECASE)
SECRETS = re.compile(r"-----BEGIN [A-Z ]*PRIVATE" r" KEY-----")


def _tracked() -> list[Path]:
    """Every text file that git knows; those on disk where there is no git."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    paths = [ROOT / name for name in listed.split("\0") if name]
    return [path for path in paths if path.suffix in TEXT and path.is_file()]


def _hits(pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:120]}"
        for path in _tracked()
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if pattern.search(line)
    ]


def test_no_path_of_this_machine() -> None:
    """Neither the checkout's nor the interpreter's nor a home's path is written down."""
    private = {str(ROOT), sys.prefix, sys.base_prefix, str(Path.home())}
    # "/", "/usr" and "/root" are on every machine
    private = {path for path in private if path.count("/") > 1 and not path.startswith("/usr")}
    pattern = re.compile("|".join(re.escape(path) + r"(/|\b)" for path in sorted(private)))
    assert not _hits(pattern)


def test_no_unfinished_work() -> None:
    assert not _hits(UNFINISHED)


def test_no_package_registry_is_named() -> None:
    """Where packages come from is the machine's setting, not the repository's."""
    assert not _hits(REGISTRIES)


def test_no_secrets() -> None:
    assert not _hits(SECRETS)
