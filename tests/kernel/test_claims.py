"""Who continues which session: PROTOCOL, "Who owns a session, and what ends it"."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest

from sandcell_kernel.claims import Claim, Claims, Identity, State, Takeover, takeover

JUPYTER = Identity("/run/k1.json", "work/a.ipynb", True, 100, "/home/u", "/bin/python", "")
OTHER = replace(JUPYTER, connection_file="/run/k2.json")
VSCODE = replace(JUPYTER, managed=False, notebook="")
HOLD, GRACE = 15.0, 60.0


def decide(owner: Identity, state: State, me: Identity, age: float = 1.0) -> Takeover | None:
    return takeover(Claim("s", owner, state), me, age, hold=HOLD, grace=GRACE)


@pytest.mark.parametrize(
    ("what", "owner", "state", "me", "age", "expected"),
    [
        ("restart request", JUPYTER, State.RESTARTING, JUPYTER, 1, Takeover.FRESH),
        ("restart of another kernel", JUPYTER, State.RESTARTING, OTHER, 1, None),
        ("kill -9, restarted by jupyter", JUPYTER, State.RUNNING, JUPYTER, 9e4, Takeover.REATTACH),
        ("kill -9 of the server, notebook opened in the next one", JUPYTER, State.RUNNING, OTHER, 1,
         Takeover.REATTACH),
        ("kill -9, another notebook", JUPYTER, State.RUNNING,
         replace(OTHER, notebook="b.ipynb"), 1, None),
        ("SIGTERM by VS Code", VSCODE, State.TERMINATED, replace(VSCODE, connection_file="x"), 1,
         Takeover.FRESH),
        ("SIGTERM by VS Code, too late", VSCODE, State.TERMINATED,
         replace(VSCODE, connection_file="x"), HOLD + 1, None),
        ("SIGKILL by VS Code", VSCODE, State.RUNNING, replace(VSCODE, connection_file="x"), 1,
         Takeover.REATTACH),
        ("VS Code in another folder", VSCODE, State.TERMINATED,
         replace(VSCODE, connection_file="x", directory="/tmp"), 1, None),
        ("another window of VS Code", VSCODE, State.TERMINATED,
         replace(VSCODE, connection_file="x", parent=7), 1, None),
        ("notebook reopened in time", JUPYTER, State.CLOSING, OTHER, 59, Takeover.REATTACH),
        ("notebook reopened too late", JUPYTER, State.CLOSING, OTHER, 61, None),
        ("another notebook", JUPYTER, State.CLOSING, replace(OTHER, notebook="b.ipynb"), 1, None),
        ("nbclient twice", replace(JUPYTER, notebook=""), State.CLOSING,
         replace(OTHER, notebook=""), 1, None),
        ("another gateway", JUPYTER, State.RESTARTING,
         replace(JUPYTER, gateway="http://x"), 1, None),
    ],
)  # fmt: skip
def test_who_may_take_over(
    what: str, owner: Identity, state: State, me: Identity, age: float, expected: Takeover | None
) -> None:
    assert decide(owner, state, me, age) is expected, what


@pytest.mark.parametrize("state", [State.CLOSING, State.TERMINATED, State.RUNNING])
@pytest.mark.parametrize("notebook", ["work/a.ipynb", "b.ipynb", ""])
def test_a_kept_session_is_found_by_its_notebook_whenever_it_is_opened(
    state: State, notebook: str
) -> None:
    claim = Claim("s", JUPYTER, state, kept=True)
    me = replace(OTHER, notebook=notebook)
    found = takeover(claim, me, 86_000, hold=HOLD, grace=GRACE)
    assert found is (Takeover.REATTACH if notebook == JUPYTER.notebook else None)


def test_that_a_session_is_kept_is_remembered(tmp_path: Path) -> None:
    claims = Claims(tmp_path)
    held = claims.create("s1", JUPYTER)
    held.write(State.RUNNING, kept=True)
    held.write(State.CLOSING)
    held.close()
    os.utime(tmp_path / "s1.json", (1e9, 1e9))
    assert claims.take(OTHER, hold=HOLD, grace=GRACE) is not None
    old = Claim.parse((tmp_path / "s1.json").read_text().replace(', "kept": true', ""))
    assert (old.kept, Claim.parse((tmp_path / "s1.json").read_text()).kept) == (False, True)


def test_a_living_owner_keeps_its_session(tmp_path: Path) -> None:
    claims = Claims(tmp_path)
    held = claims.create("s1", JUPYTER)
    assert claims.take(JUPYTER, hold=HOLD, grace=GRACE) is None
    held.close()
    taken = claims.take(JUPYTER, hold=HOLD, grace=GRACE)
    assert taken is not None
    assert (taken[0].claim.session_id, taken[1]) == ("s1", Takeover.REATTACH)
    assert claims.take(JUPYTER, hold=HOLD, grace=GRACE) is None  # it is ours now
    taken[0].close()  # the gateway did not answer: the next attempt must find it again
    taken = claims.take(JUPYTER, hold=HOLD, grace=GRACE)
    assert taken is not None
    taken[0].close(forget=True)
    assert claims.take(JUPYTER, hold=HOLD, grace=GRACE) is None


def test_a_killed_owner_is_recognised_without_its_pid(tmp_path: Path) -> None:
    program = textwrap.dedent(
        f"""
        import os, sys
        from pathlib import Path
        from sandcell_kernel.claims import Claims, Identity
        claims = Claims(Path({str(tmp_path)!r}))
        claims.create("s1", Identity("/run/k1.json", "", True, 1, "/", "python", ""))
        print("held", flush=True)
        sys.stdin.read()
        """
    )
    me = Identity("/run/k1.json", "", True, 2, "/elsewhere", "python", "")
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"held\n"
        assert Claims(tmp_path).take(me, hold=HOLD, grace=GRACE) is None
        owner.kill()
    taken = Claims(tmp_path).take(me, hold=HOLD, grace=GRACE)
    assert taken is not None
    assert taken[1] is Takeover.REATTACH
    taken[0].close()


def test_the_freshest_of_several_is_taken_and_the_oldest_forgotten(tmp_path: Path) -> None:
    claims = Claims(tmp_path)
    for name, age in (("old", 100.0), ("new", 1.0), ("ancient", 2e5)):
        held = claims.create(name, JUPYTER)
        held.close()
        path = tmp_path / f"{name}.json"
        then = path.stat().st_mtime - age
        os.utime(path, (then, then))
    taken = claims.take(JUPYTER, hold=HOLD, grace=GRACE)
    assert taken is not None
    assert taken[0].claim.session_id == "new"
    taken[0].close()


def test_garbage_in_the_directory_is_passed_over(tmp_path: Path) -> None:
    claims = Claims(tmp_path)
    (tmp_path / "x.json").write_text('{"session_id": 1')
    (tmp_path / "y.json").mkdir()
    assert claims.take(JUPYTER, hold=HOLD, grace=GRACE) is None


def test_two_kernels_on_one_named_session_each_have_a_claim(tmp_path: Path) -> None:
    claims = Claims(tmp_path)
    first, second = claims.create("s1", JUPYTER), claims.create("s1", OTHER)
    first.close(forget=True)
    taken = claims.take(OTHER, hold=HOLD, grace=GRACE)
    assert taken is None
    second.close()
    taken = claims.take(OTHER, hold=HOLD, grace=GRACE)
    assert taken is not None
    taken[0].close()


def test_a_takeover_that_fails_leaves_the_claim_as_it_was(tmp_path: Path) -> None:
    claims = Claims(tmp_path)
    held = claims.create("s1", JUPYTER)
    held.write(State.RESTARTING)
    held.close()
    for _ in range(2):
        taken = claims.take(JUPYTER, hold=HOLD, grace=GRACE)
        assert taken is not None
        assert taken[1] is Takeover.FRESH
        taken[0].close()
    taken = claims.take(JUPYTER, hold=HOLD, grace=GRACE)
    assert taken is not None
    taken[0].write(State.RUNNING)
    taken[0].close()
    again = claims.take(JUPYTER, hold=HOLD, grace=GRACE)
    assert again is not None
    assert again[1] is Takeover.REATTACH
    again[0].close()
