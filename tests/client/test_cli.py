"""`sandcell sessions`, `close` and `token` against a real gateway."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import pytest

from sandcell import Client
from sandcell_wire.words import plain
from tests.conftest import MakeHome
from tests.gateway.support import PATIENCE, ROOT, TOKEN, gateway_program

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@dataclass
class Place:
    """A gateway and the environment in which clients find it."""

    url: str
    environ: dict[str, str]

    def run(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "sandcell", *arguments],
            env=self.environ | environ,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def client(self) -> Client:
        return Client(self.url, TOKEN)


@pytest.fixture(scope="module")
def place(home_factory: MakeHome) -> Iterator[Place]:
    with home_factory() as home, gateway_program(home.environ) as program:
        extra = {"SANDCELL_URL": program.url, "SANDCELL_TOKEN": TOKEN, "COLUMNS": "200"}
        place = Place(program.url, home.environ | extra | {"PYTHONPATH": str(ROOT)})
        yield place
        with place.client() as client:
            for session in client.sessions.list():
                session.close()


def test_listing_and_closing(place: Place) -> None:
    assert place.run("sessions").stdout == "no sessions\n"
    with place.client() as client:
        one = client.sessions.create(name="one", wait=PATIENCE)
        two = client.sessions.create(wait=PATIENCE)
    listed = place.run("sessions").stdout
    assert str(one.id) in listed
    assert "isolates nothing" in listed
    lines = place.run("sessions", "--json", "--search", "one").stdout.splitlines()
    assert [json.loads(line)["id"] for line in lines] == [str(one.id)]
    closed = place.run("close", "one", str(two.id)[:13])
    assert closed.stdout == f"{one.id} terminated\n{two.id} terminated\n"
    ended = place.run("sessions", "--status", "terminated").stdout
    assert "closed on request" in ended


def test_a_close_can_be_put_off(place: Place) -> None:
    with place.client() as client:
        session = client.sessions.create(wait=PATIENCE)
        assert place.run("close", str(session.id), "--grace", "600").stdout.endswith(
            "closes later\n"
        )
        assert "closes at" in place.run("sessions").stdout
        session.close()


@pytest.mark.parametrize(
    ("arguments", "environ", "words"),
    [
        (["close", "nonesuch"], {}, ["no live session 'nonesuch'", "sandcell sessions"]),
        (["sessions", "--status", "asleep"], {}, ["asleep", "idle"]),
        (["sessions"], {"SANDCELL_TOKEN": "wrong"}, ["token", "SANDCELL_TOKEN"]),
        (
            ["sessions"],
            {"SANDCELL_URL": "http://127.0.0.1:9"},
            ["cannot reach", "127.0.0.1:9", ". Does it run? Is SANDCELL_URL right?\n"],
        ),
        (
            ["sessions"],
            {"SANDCELL_URL": "nonsense"},
            ["SANDCELL_URL", "nonsense", "'https://host:8621'"],
        ),
        (["sessions", "--profile", "far"], {}, ["no profile 'far'"]),
    ],
)
def test_a_users_error_is_one_line(
    place: Place, arguments: list[str], environ: dict[str, str], words: list[str]
) -> None:
    result = place.run(*arguments, **environ)
    assert result.returncode == 1
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    for word in words:
        assert word in result.stderr


def test_an_ambiguous_beginning_is_refused(place: Place) -> None:
    with place.client() as client:
        made = [client.sessions.create() for _ in range(17)]
        first = sorted(str(session.id)[0] for session in made)
        twice = next(a for a, b in pairwise(first) if a == b)
        result = place.run("close", twice)
        for session in made:
            session.close()
    assert result.returncode == 1
    assert "Give more of the id" in result.stderr


def test_the_version(place: Place) -> None:
    assert place.run("--version").stdout.startswith("sandcell 0.")


def test_control_characters_are_shown_not_obeyed() -> None:
    assert plain("a\x1b[31mb\r\n\x9b") == "a\\x1b[31mb\\x0d\\x0a\\x9b"


def test_a_plug_in_that_fails_shows_its_traceback(place: Place) -> None:
    """Only users' errors are one line: ours must be seen."""
    script = (
        "import sandcell.cli as c, sys\n"
        "def broken(): raise ZeroDivisionError\n"
        "c.app.command('broken')(broken)\n"
        "sys.argv = ['sandcell', 'broken']; c.main()"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], env=dict(os.environ), capture_output=True, text=True
    )
    assert result.returncode == 1
    assert "Traceback" in result.stderr
    assert "ZeroDivisionError" in result.stderr


def test_tokens_are_made_listed_and_revoked(place: Place) -> None:
    assert place.run("token", "list").stdout == "no tokens\n"
    made = place.run("token", "create", "laptop", "--owner", "alice", "--expires", "30d")
    secret = made.stdout.strip()
    assert made.stdout == f"{secret}\n", "ready for TOKEN=$(…)"
    assert secret.startswith("sc_")
    assert "of alice: run, valid until 20" in made.stderr
    token_id = made.stderr.split()[1]
    listed = place.run("token", "list").stdout
    assert token_id in listed
    assert secret not in listed + made.stderr
    assert place.run("sessions", SANDCELL_TOKEN=secret).stdout == "no sessions\n"
    (line,) = place.run("token", "list", "--json").stdout.splitlines()
    assert json.loads(line)["last_used_at"] is not None
    denied = place.run("token", "list", SANDCELL_TOKEN=secret)
    assert denied.returncode == 1
    assert "needs a token with the scope admin, and yours has: run" in denied.stderr
    assert place.run("token", "revoke", token_id).stdout == f"{token_id} revoked\n"
    assert "revoked 20" in place.run("token", "list").stdout
    refused = place.run("sessions", SANDCELL_TOKEN=secret)
    assert refused.returncode == 1
    assert "the token was revoked" in refused.stderr


def test_a_token_with_scopes_and_without_an_end(place: Place) -> None:
    arguments = ["token", "create", "both", "--scope", "read", "--scope", "admin"]
    made = place.run(*arguments)
    assert "of token: read, admin, valid until revoked" in made.stderr
    with Client(place.url, made.stdout.strip()) as client:
        (mine,) = (found for found in client.tokens.list() if found.name == "both")
        assert client.tokens.revoke(mine.id).revoked_at is not None


@pytest.mark.parametrize("wrong", [["--expires", "soon"], ["--scope", "root"]])
def test_what_a_token_cannot_have(place: Place, wrong: list[str]) -> None:
    result = place.run("token", "create", "x", *wrong)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
