"""`%sandbox` commands: parsing and rendering."""

from __future__ import annotations

import pytest

from sandcell_magics.commands import COMMANDS, Card, Table, Text, UsageError, parse
from sandcell_magics.render import bundle


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_found_by_its_name(name: str) -> None:
    assert parse(f" {name} ").name == name


def test_nothing_means_help() -> None:
    assert parse("").name == "help"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("stauts", "did you mean %sandbox status?"),
        ("stat", "did you mean %sandbox status?"),
        ("frobnicate", "see %sandbox help"),
        ("status now", "takes no arguments, got 'now'"),
        ("status 'x", "No closing quotation"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_to_type(line: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(line)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_card_has_a_plain_twin_and_escapes_what_comes_from_the_session() -> None:
    shown = bundle(Card("<script>", (("status", "idle"), ("reason", "a & b"))))
    assert shown["text/plain"] == "<script>\n  status  idle\n  reason  a & b"
    assert "<script>" not in shown["text/html"]
    assert "a &amp; b" in shown["text/html"]


def test_a_table_lines_up_its_columns() -> None:
    shown = bundle(Table(("id", "name"), (("1", "long name"), ("22", ""))))
    assert shown["text/plain"] == "id  name\n1   long name\n22"


def test_an_empty_table_says_so() -> None:
    assert bundle(Table(("id",), (), "no sessions"))["text/plain"] == "no sessions"
    assert bundle(Text("done")) == {"text/plain": "done"}
