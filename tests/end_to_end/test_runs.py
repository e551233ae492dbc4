"""One line that does everything: sessions are made, filled, used, kept or closed."""

from __future__ import annotations

import io
from contextlib import aclosing
from pathlib import Path

import pytest

import sandcell
from sandcell import AsyncClient, AsyncSession, Client, RunProgress, Session
from tests.support.home import Home
from tests.support.sessions import sessions

pytestmark = pytest.mark.linux


def test_a_run_makes_fills_uses_and_closes_a_session(home: Home, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/b.txt").write_text("from a directory")
    told: list[RunProgress] = []
    shown: list[str] = []
    result = Session.run(
        "import os\nprint(open('a.txt').read(), open('d/b.txt').read(), open('c').read())\n"
        "os.environ['WORD']",
        files={"a.txt": "text", "d": tmp_path / "d", "c": io.BytesIO(b"open")},
        env={"WORD": "given"},
        on_progress=told.append,
        on_output=lambda output: shown.append(output.msg_type),
    )
    assert result.raise_for_error().text == "'given'"
    assert result.stdout == "text from a directory open\n"
    assert [one.stage for one in told] == ["create", *["upload"] * 3, "execute", "close"]
    assert shown == ["stream", "execute_result"]
    assert {"create", "upload", "execute", "close"} <= set(result.timing)
    assert sessions() == []


def test_a_session_that_is_kept_is_used_again_and_closed_by_the_last(home: Home) -> None:
    first = Session.run("x = 41", keep_alive=True)
    assert [one.id for one in sessions()] == [first.session_id]
    second = Session.run("x + 1", session=first.session_id, keep_alive=True)
    assert (second.text, second.session_id) == ("42", first.session_id)
    assert "create" not in second.timing
    with pytest.raises(sandcell.RequestInvalid, match="env"):
        Session.run("1", session=first.session_id, env={"A": "b"})
    assert Session.run("x", session=first.session_id).text == "41"
    assert sessions() == []


def test_a_session_that_somebody_made_is_never_closed(home: Home) -> None:
    with Client() as client:
        mine = client.sessions.create(name="mine", wait=60)
        assert Session.run("1 + 1", session="mine", client=client).text == "2"
        assert [one.id for one in sessions()] == [mine.id]
        mine.close()


def test_an_error_is_a_result_and_what_cannot_be_is_told_first(home: Home) -> None:
    result = Session.run("1 / 0")
    with pytest.raises(sandcell.ExecutionFailed, match="ZeroDivisionError"):
        result.raise_for_error()
    assert Session.run("import time; time.sleep(600)", timeout=0.3).timed_out
    with pytest.raises(sandcell.RequestInvalid, match="files"):
        Session.run("1", files={"../a": "x"})
    with pytest.raises(FileNotFoundError):
        Session.run("1", files={"a": Path("/no/such/file")})
    assert sessions() == []


def test_a_lost_session_is_an_error_or_made_anew(home: Home) -> None:
    kept = Session.run("x = 1", keep_alive=True)
    with Client() as client:
        client.sessions.get(kept.session_id).close()
    with pytest.raises(sandcell.SessionExpiredError, match="closed on request"):
        Session.run("x", session=kept.session_id)
    told: list[str] = []
    result = Session.run(
        "'x' in dir()",
        session=kept.session_id,
        on_lost="recreate",
        on_progress=lambda progress: told.append(progress.stage),
    )
    assert (result.text, result.recreated) == ("False", True)
    assert told[:2] == ["recreate", "create"]
    assert sessions() == []


def test_many_runs_share_sessions_and_come_in_order(home: Home) -> None:
    codes = [f"import time; time.sleep({0.2 if n % 3 == 0 else 0}); {n} * 2" for n in range(9)]
    results = list(Session.run_many(codes, sessions=2))
    assert [result.text for result in results] == [str(n * 2) for n in range(9)]
    assert len({result.session_id for result in results}) == 2
    free = [result.text for result in Session.run_many(codes, sessions=3, in_order=False)]
    assert sorted(free, key=int) == [str(n * 2) for n in range(9)]
    assert sessions() == []


async def test_the_same_with_asyncio_and_stopping_early(home: Home) -> None:
    result = await AsyncSession.run("6 * 7", files={"a": b"x"})
    assert result.text == "42"
    async with AsyncClient() as client:
        first = AsyncSession.run_many(["1", "2", "3", "4"], sessions=2, client=client)
        async with aclosing(first):
            assert (await anext(first)).text == "1"
        assert await client.sessions.list() == []
        many = AsyncSession.run_many(["1 / 0", "2"], sessions=1, client=client)
        assert [one.status async for one in many] == ["error", "ok"]


def test_a_session_is_a_context_manager(home: Home) -> None:
    with Client() as client:
        with client.sessions.create(wait=60) as session:
            assert session.execute("1").text == "1"
        assert sessions() == []
        with pytest.raises(sandcell.SessionExpiredError):
            session.execute("1")
