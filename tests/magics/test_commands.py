"""`%sandbox` commands: parsing and rendering."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast

import pytest

from sandcell import GatewayUnreachable, HostDisconnected, NotFoundError, RequestTimeout
from sandcell_magics import execution_commands
from sandcell_magics.commands import COMMANDS, parse, run
from sandcell_magics.context import Context, UsageError
from sandcell_magics.render import bundle, messages
from sandcell_magics.results import Card, Result, Shown, Table, Text
from sandcell_wire.models import ExecutionModel
from sandcell_wire.states import Status

NOBODY: Context = None  # type: ignore[assignment]
"""For lines that are refused before anything is done."""


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_found_by_its_name(name: str) -> None:
    needs = {"attach": "one", "result": "one"}
    assert parse(f" {name} {needs.get(name, '')}")[0].name == name


def test_nothing_means_help() -> None:
    assert parse("")[0].name == "help"


def test_words_become_arguments() -> None:
    assert parse("replay")[1].count == 1
    assert parse("replay 12")[1].count == 12
    assert parse("start")[1].name is None
    assert parse("wait a b --timeout 2.5")[1].ids == ["a", "b"]
    assert parse("wait --timeout 2.5")[1].timeout == 2.5


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("stauts", "did you mean %sandbox status?"),
        ("stat", "did you mean %sandbox status?"),
        ("frobnicate", "see %sandbox help"),
        ("status now", "unrecognized arguments: now; expected: %sandbox status"),
        ("attach", "expected: %sandbox attach NAME"),
        ("replay 0", "expected a number from 1 to 500, got '0'"),
        ("replay -1", "expected: %sandbox replay [N]"),
        ("replay 1e3", "expected a number from 1 to 500, got '1e3'"),
        ("wait --time 3", "unrecognized arguments: --time"),
        ("wait --timeout soon", "got 'soon'"),
        ("wait --timeout inf", "got 'inf'"),
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


@pytest.mark.parametrize(
    ("line", "body", "says"),
    [
        ("", "1", "--detach"),
        ("--each", "1", "--detach"),
        ("--detach", " \n", "there is no code below it"),
    ],
)
async def test_a_sandbox_cell_that_cannot_be_run_says_why(line: str, body: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        async for _ in run(line, NOBODY, body):
            pass


def test_outputs_are_shown_again_as_this_cells_own() -> None:
    outputs: list[dict[str, Any]] = [
        {"output_type": "stream", "name": "stdout", "text": "a"},
        {"output_type": "execute_result", "data": {"text/plain": "1"}, "metadata": {"m": 1},
         "execution_count": 7},
        {"output_type": "error", "ename": "E", "evalue": "v", "traceback": ["one", "two"]},
    ]  # fmt: skip
    data = {"data": {"text/plain": "1"}, "metadata": {"m": 1}, "transient": {}}
    assert list(messages(Shown(outputs))) == [
        ("stream", {"name": "stdout", "text": "a"}),
        ("display_data", data),
        ("stream", {"name": "stderr", "text": "one\ntwo\n"}),
    ]


class FakeSession:
    """Has jobs, of which the newest are listed first; a line that is cut at times."""

    def __init__(self, ids: list[str], cuts: list[Exception] | None = None) -> None:
        self.ids = ids
        self.cuts = cuts or []
        self.status = Status.IDLE

    async def refresh(self) -> FakeSession:
        return self

    async def jobs(self, *, limit: int, offset: int = 0) -> list[ExecutionModel]:
        return [self._model(name) for name in self.ids[offset : offset + limit]]

    async def job(self, id: str, *, wait: float = 0.0) -> ExecutionModel:
        if wait and self.cuts:
            raise self.cuts.pop(0)
        if id not in self.ids:
            raise NotFoundError("no such job")
        return self._model(id)

    def _model(self, id: str) -> ExecutionModel:
        return ExecutionModel(
            id=id, code="1", status="ok", execution_count=1, detached=True,
            submitted_at=datetime.now(UTC), started_at=None, ended_at=None,
        )  # fmt: skip


async def of_session(line: str, session: FakeSession) -> list[Result]:
    class Here:
        async def session(self) -> FakeSession:
            return session

    return [result async for result in run(line, cast("Context", Here()))]


MANY = [f"{number:08d}-job" for number in range(250)]


@pytest.mark.parametrize("word", [MANY[240], "00000240"])
async def test_old_jobs_are_found_too(word: str) -> None:
    (table,) = await of_session(f"wait {word}", FakeSession(MANY))
    assert isinstance(table, Table)
    assert table.rows[0][0] == "00000240"
    assert len(await of_session(f"result {word}", FakeSession(MANY))) == 2


async def test_a_wait_goes_on_when_the_line_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution_commands, "FIRST_RETRY", 0.0)
    cuts: list[Exception] = [
        GatewayUnreachable("cut"),
        RequestTimeout("late"),
        HostDisconnected("shim"),
    ]
    session = FakeSession(MANY[:1], cuts)
    (table,) = await of_session(f"wait {MANY[0]}", session)
    assert isinstance(table, Table)
    assert not cuts
    assert not session.cuts


async def test_a_wait_ends_with_a_session_that_does_not_come_back() -> None:
    session = FakeSession(MANY[:1], [HostDisconnected("the supervisor is gone")])
    session.status = Status.ERROR
    with pytest.raises(HostDisconnected):
        await of_session(f"wait {MANY[0]}", session)
