"""The interface against its own description: schemathesis asks a gateway with a real session."""

from __future__ import annotations

import os
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import schemathesis
from schemathesis.config import SchemathesisConfig

from sandcell import Client, Session
from sandcell._requests import MAX_WAIT
from tests.architecture.source import ROOT
from tests.conftest import MakeHome
from tests.support.route import TOKEN, open_route

pytestmark = pytest.mark.linux

READY = 60.0
EXAMPLES = int(os.environ.get("SANDCELL_EXAMPLES", "15"))
"""Random requests to each operation, besides those that its description suggests.

Different ones each time, in spite of the seed. So what a random request shows may be checked
here; whether it should have been accepted, where schemathesis guesses, only in a deep search
(`SANDCELL_EXAMPLES=100`), whose findings somebody looks at.
"""
SEED = int(os.environ.get("SANDCELL_SEED", "1"))
DEEP = "SANDCELL_EXAMPLES" in os.environ
BEARER = {"Authorization": f"Bearer {TOKEN}"}
ENDING = ("close_session", "get_events")
"""Operations that end a session, or end with it."""
STAND_IN = "00000000-0000-4000-8000-000000000001"
"""The id in examples that stands for a session that is there."""
MOST = {"create_session": 4, "restart_session": 6}
"""How often examples may do what is dear: each is a sandbox or an interpreter."""
IN_WORDS = {
    "create_session": "how much a text such as `1KiB` is, and what the gateway allows",
    "update_session": "how many labels it has then",
    **dict.fromkeys(
        ("read_file", "write_file", "delete_file", "list_files"), "the bytes of a path's parts"
    ),
}
"""Operations that refuse (422) what no schema can say, and what that is."""
REFUSED = [400, 401, 403, 404, 405, 406, 413, 422]
ACCEPTED = ["2xx", "3xx", 401, 403, 404, 409, 429]

schema = schemathesis.openapi.from_path(
    ROOT / "docs" / "openapi.json",
    config=SchemathesisConfig.from_dict(
        {
            "seed": SEED,
            "generation": {"max-examples": EXAMPLES, "deterministic": True, "database": "none"},
            "parameters": {"session_id": STAND_IN},
            "checks": {
                # Wrong tokens are limited; test_every_route shows that none lets anybody in.
                "ignored_auth": {"enabled": False},
                "negative_data_rejection": {"expected-statuses": REFUSED, "enabled": DEEP},
                "positive_data_acceptance": {"expected-statuses": ACCEPTED, "enabled": DEEP},
            },
            "operations": [
                {
                    "include-operation-id": name,
                    "checks": {
                        "positive_data_acceptance": {
                            "expected-statuses": [*ACCEPTED, 422],
                            "enabled": DEEP,
                        }
                    },
                }
                for name in IN_WORDS
            ],
        }
    ),
)


def name_of(case: Any) -> str:
    """The operation's."""
    return str(case.operation.definition.raw["operationId"])


def _is_wait(value: object) -> bool:
    """Whether the gateway would wait so long."""
    try:
        return 0 < float(str(value)) <= MAX_WAIT
    except ValueError:
        return False


@dataclass
class Api:
    """A gateway, and what examples may do to whom."""

    client: Client
    live: Session
    closed: Session
    done: Counter[str] = field(default_factory=Counter[str])

    def prepare(self, case: Any) -> bool:
        """Put in what only a running gateway has; False when the example would cost too much."""
        operation = name_of(case)
        if case.path_parameters.get("session_id") == STAND_IN:
            target = self.closed if operation in ENDING else self.live
            case.path_parameters["session_id"] = str(target.id)
        if operation == "get_session" and _is_wait((case.query or {}).get("wait")):
            case.query["wait"] = 0  # for what will not happen
        if case.meta.generation.mode.is_positive:
            if "Idempotency-Key" in case.headers:
                # What a key was used for only the gateway knows.
                case.headers["Idempotency-Key"] = uuid.uuid4().hex
            if operation == "start_job":
                # So is where webhooks may go to.
                case.body.pop("webhook", None)
            self.done[operation] += 1
            return self.done[operation] <= MOST.get(operation, self.done[operation])
        return True


@pytest.fixture(scope="module")
def api(home_factory: MakeHome) -> Iterator[Api]:
    with home_factory() as home, open_route(home) as route, route.client() as client:
        live = client.sessions.create(wait=READY)
        live.files.write("a.csv", "x")
        yield Api(client, live, client.sessions.create().close())


@schema.parametrize()
def test_every_answer_is_as_described(case: Any, api: Api) -> None:
    """No server error, no undocumented answer, and what is refused is what must be."""
    if not api.prepare(case):
        return
    answer = case.call_and_validate(base_url=api.client.settings.url, headers=BEARER)
    if name_of(case) == "create_session" and answer.status_code == 200:
        session = api.client.sessions.get(answer.json()["id"])
        assert session.close().status.value == "terminated"
