"""Commands in the documentation exist, links lead somewhere, the changelog has its form."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import typer

from sandcell.cli import app
from sandcell_magics.commands import COMMANDS
from sandcell_wire import control
from tests.docs.documents import DOCUMENTS, ROOT, commands, links

SECTIONS = ["Backwards-incompatible changes", "Added", "Changed", "Deprecated", "Fixed"]
FOREIGN = {"pip", "jupyter", "export"}
"""Programs of others that the documentation uses."""


def _words(command: str) -> list[str]:
    """The command without the variables set before it."""
    words = shlex.split(command, comments=True)
    while words and re.match(r"[A-Z_]+=", words[0]):
        words.pop(0)
    return words


def _has_target(name: str) -> bool:
    return (
        re.search(rf"^{re.escape(name)}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
        is not None
    )


def _check_sandcell(words: list[str]) -> None:
    """Every subcommand and option is one of `sandcell`'s."""
    command: Any = typer.main.get_command(app)
    context = command.make_context("sandcell", [], resilient_parsing=True)
    while words and hasattr(command, "get_command"):
        name = words.pop(0)
        found = command.get_command(context, name)
        assert found is not None, f"sandcell has no command {name}"
        command = found
    known = {option for parameter in command.params for option in parameter.opts}
    unknown = {word for word in words if word.startswith("-")} - known
    assert not unknown, f"unknown options {sorted(unknown)}; there are {sorted(known)}"


@pytest.mark.parametrize(("place", "command"), commands())
def test_commands_exist(place: str, command: str) -> None:
    words = _words(command)
    if not words or words[0] in FOREIGN:
        return
    program, *rest = words
    if program == "make":
        assert all(_has_target(name) for name in rest), f"{place}: no such target in {rest}"
    elif program == "sandcell":
        _check_sandcell(rest)
    else:
        assert (ROOT / program).is_file(), f"{place}: there is no {program}"


@pytest.mark.parametrize("script", sorted((ROOT / "scripts").iterdir()), ids=lambda p: p.name)
def test_scripts_without_suffix_can_be_executed(script: Path) -> None:
    if script.is_file() and not script.suffix:
        assert script.stat().st_mode & 0o111, f"chmod +x {script.name}"


@pytest.mark.parametrize(
    ("document", "target"),
    [(document, target) for document, target in links() if "://" not in target],
    ids=lambda value: value.name if isinstance(value, Path) else value,
)
def test_links_lead_somewhere(document: Path, target: str) -> None:
    name, _, _anchor = target.partition("#")
    assert not name or (document.parent / name).exists()


def test_the_guide_lists_every_sandbox_command() -> None:
    listed = re.findall(
        r"^\| `%sandbox (\w+)[^`]*` \|", (ROOT / "docs" / "guide.md").read_text(), re.MULTILINE
    )
    assert listed == list(COMMANDS)


def test_the_protocol_lists_every_control_message() -> None:
    """With exactly its fields."""
    page = (ROOT / "docs" / "protocol.md").read_text()
    table = page.partition("### Control messages")[2].partition("###")[0]
    listed = {
        name: set(re.findall(r"`(\w+)`", fields))
        for name, fields in re.findall(r"^\| `(\w+)` \| (.*?) \|", table, re.MULTILINE)
    }
    declared = {
        get_args(get_type_hints(message)["type"])[0]: set(get_type_hints(message)) - {"type"}
        for message in get_args(control.Control)
    }
    assert listed == declared


def test_every_document_is_reachable_from_the_readme() -> None:
    reached = {ROOT / "README.md"}
    while True:
        more = {
            (document.parent / target.partition("#")[0]).resolve()
            for document, target in links()
            if document in reached and "://" not in target
        }
        if more <= reached:
            break
        reached |= more
    assert set(DOCUMENTS) <= reached, f"nothing links to {sorted(set(DOCUMENTS) - reached)}"


def test_the_changelog_has_its_form() -> None:
    lines = (ROOT / "CHANGELOG.md").read_text().splitlines()
    releases = [line for line in lines if line.startswith("## ")]
    assert releases[0] == "## Unreleased"
    sections: list[str] = []
    for line in lines:
        if line.startswith("## "):
            sections = []
        elif line.startswith("### "):
            sections.append(line.removeprefix("### "))
            assert sections == [name for name in SECTIONS if name in sections], (
                f"unknown, or not in the order {', '.join(SECTIONS)}: {line}"
            )
