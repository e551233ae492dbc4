"""Requests and answers as values: what to send, and what came back. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urlencode
from uuid import UUID

from pydantic import BaseModel, ValidationError

from sandcell.errors import RequestInvalid
from sandcell_wire.commands import CommandInput, CommandRun, CommandSignal
from sandcell_wire.models import (
    CodeRun,
    JobCreate,
    Model,
    SessionCreate,
    SessionRestart,
    SessionUpdate,
)
from sandcell_wire.paths import named_parts
from sandcell_wire.tokens import TokenCreate
from sandcell_wire.words import NDJSON, reason

if TYPE_CHECKING:
    from ssl import SSLContext

SESSIONS = "/v1/sessions"
TOKENS = "/v1/tokens"
KEY_HEADER = "Idempotency-Key"
MAX_WAIT = 300.0
"""Most seconds that one request waits for a session."""
MAX_PAGE = 500
"""Sessions asked for at once when all are wanted."""

MAX_INPUT = 1 << 16
"""Characters of a command's input that are sent at once."""

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")
Param = str | int | float | None


class Unchanged(Enum):
    """What stands for a value that is left as it is, where None is a value."""

    UNCHANGED = "unchanged"


@dataclass(frozen=True)
class ApiRequest:
    """One request, ready to send."""

    method: str
    path: str
    """With the query string."""
    body: dict[str, Any] | None = None
    headers: dict[str, str] = field(default_factory=dict[str, str])
    content: bytes | None = None
    """A body that is no JSON."""
    patience: float = 0.0
    """Seconds that the gateway may take on top of the usual."""

    @property
    def repeatable(self) -> bool:
        """Whether the gateway does it once, however often it comes."""
        return KEY_HEADER in self.headers

    @property
    def safe(self) -> bool:
        """Whether it can be sent again whatever became of it."""
        return self.method == "GET" or self.repeatable


@dataclass(frozen=True)
class ChannelTarget:
    """Where to open a session's channel."""

    url: str
    """`ws://` or `wss://`."""
    headers: dict[str, str]
    unix_socket: Path | None
    """Connect here instead of to the URL's host."""
    tls: SSLContext | None = None
    """For `wss://`."""
    proxy: str | None = None
    """Connect through it."""


def _path(path: str, params: Sequence[tuple[str, Param]] = ()) -> str:
    given = [(key, value) for key, value in params if value is not None]
    return f"{path}?{urlencode(given)}" if given else path


def _body(model: type[Model], **fields: object) -> dict[str, Any]:
    """A request's body, checked before it is sent. Raises `RequestInvalid`."""
    try:
        body = model.model_validate(fields)
    except ValidationError as error:
        raise _invalid(error) from None
    return body.model_dump(mode="json", exclude_none=True)


def session_path(session_id: UUID | str, action: str = "") -> str:
    """The path of one session."""
    path = f"{SESSIONS}/{quote(str(session_id), safe='')}"
    return f"{path}/{action}" if action else path


def create(
    *,
    name: str | None,
    env: Mapping[str, str] | None,
    metadata: Mapping[str, str] | None,
    language: str,
    interpreter: str | None,
    image: str | None,
    limits: Mapping[str, float | str] | None,
    wait: float,
    key: str,
) -> ApiRequest:
    """Make a session; once for each `key`. Raises `RequestInvalid` for what cannot be sent."""
    body = _body(
        SessionCreate,
        name=name,
        env=dict(env or {}),
        metadata=dict(metadata or {}),
        language=language,
        interpreter=interpreter,
        image=image,
        limits=dict(limits or {}),
    )
    return ApiRequest(
        "POST",
        SESSIONS,
        body,
        {KEY_HEADER: key, **({"Prefer": f"wait={wait:g}"} if wait > 0 else {})},
        patience=wait,
    )


def list_sessions(
    *,
    limit: int,
    offset: int,
    status: Sequence[str],
    labels: Mapping[str, str],
    type: str | None,
    search: str | None,
    order_by: str | None,
) -> ApiRequest:
    """A page of sessions."""
    params: list[tuple[str, Param]] = [("limit", limit), ("offset", offset)]
    params += [("status", word) for word in status]
    params += [("label", f"{key}={value}") for key, value in labels.items()]
    params += [("type", type), ("search", search), ("order_by", order_by)]
    return ApiRequest("GET", _path(SESSIONS, params))


def get(session_id: UUID | str, until: Sequence[str] = (), wait: float = 0.0) -> ApiRequest:
    """Look at one session, at once or when it is in such a status."""
    params: list[tuple[str, Param]] = [("until", word) for word in until]
    params += [("wait", wait or None)]
    return ApiRequest("GET", _path(session_path(session_id), params), patience=wait)


def events(session_id: UUID | str, last: str | None) -> ApiRequest:
    """Hear what happens to a session, from behind this event on."""
    headers = {"Accept": "text/event-stream", **({"Last-Event-ID": last} if last else {})}
    return ApiRequest("GET", session_path(session_id, "events"), headers=headers)


def update(
    session_id: UUID | str,
    name: str | Unchanged | None,
    metadata: Mapping[str, str | None] | None,
) -> ApiRequest:
    """Change name and labels. Raises `RequestInvalid`."""
    given: dict[str, Any] = {} if name is Unchanged.UNCHANGED else {"name": name}
    if metadata is not None:
        given["metadata"] = dict(metadata)
    try:
        body = SessionUpdate.model_validate(given)
    except ValidationError as error:
        raise _invalid(error) from None
    fields = body.model_dump(mode="json", exclude_unset=True)
    return ApiRequest("PATCH", session_path(session_id), fields)


def close(session_id: UUID | str, grace: float, client: str | None = None) -> ApiRequest:
    """Close one session."""
    params: list[tuple[str, Param]] = [("grace", grace if grace > 0 else None)]
    params += [("client", client)]
    return ApiRequest("DELETE", _path(session_path(session_id), params), patience=60.0)


def restart(session_id: UUID | str, interpreter: str | None) -> ApiRequest:
    """A fresh interpreter."""
    body = SessionRestart(interpreter=interpreter).model_dump(exclude_none=True)
    return ApiRequest("POST", session_path(session_id, "restart"), body, patience=120.0)


def pause(session_id: UUID | str) -> ApiRequest:
    """Freeze it."""
    return ApiRequest("POST", session_path(session_id, "pause"), patience=60.0)


def resume(session_id: UUID | str) -> ApiRequest:
    """Let it go on."""
    return ApiRequest("POST", session_path(session_id, "resume"), patience=60.0)


def interrupt(session_id: UUID | str) -> ApiRequest:
    """Interrupt what runs."""
    return ApiRequest("POST", session_path(session_id, "interrupt"))


def history(
    session_id: UUID | str, *, limit: int, offset: int, newest: bool, outputs: bool
) -> ApiRequest:
    """A page of what ran."""
    params: list[tuple[str, Param]] = [("limit", limit), ("offset", offset)]
    params += [("newest", _word(newest)), ("outputs", _word(outputs))]
    return ApiRequest("GET", _path(session_path(session_id, "history"), params), patience=60.0)


def notebook(session_id: UUID | str) -> ApiRequest:
    """All that ran, as a notebook."""
    return ApiRequest("GET", session_path(session_id, "history.ipynb"), patience=120.0)


def prove(session_id: UUID | str) -> ApiRequest:
    """Sign the journal as it is now."""
    return ApiRequest("POST", session_path(session_id, "proofs"))


def proofs(session_id: UUID | str, *, limit: int, offset: int) -> ApiRequest:
    """A page of what was signed."""
    params: list[tuple[str, Param]] = [("limit", limit), ("offset", offset)]
    return ApiRequest("GET", _path(session_path(session_id, "proofs"), params))


def proof_keys() -> ApiRequest:
    """The gateway's public keys."""
    return ApiRequest("GET", "/v1/proof-keys")


def export(session_id: UUID | str) -> ApiRequest:
    """The journal with its proofs."""
    return ApiRequest("GET", session_path(session_id, "history.tar"), patience=60.0)


def file_path(session_id: UUID | str, path: str) -> str:
    """Where a file of a session is. Raises `RequestInvalid`."""
    try:
        named_parts(path)
    except ValueError as error:
        raise RequestInvalid(str(error)) from error
    return session_path(session_id, f"files/{quote(path, safe='/')}")


def list_files(session_id: UUID | str, path: str, *, recursive: bool, limit: int) -> ApiRequest:
    """What is in a directory."""
    params: list[tuple[str, Param]] = [("path", path), ("recursive", _word(recursive))]
    params += [("limit", limit)]
    return ApiRequest("GET", _path(session_path(session_id, "files"), params), patience=60.0)


def read_file(session_id: UUID | str, path: str) -> ApiRequest:
    """A file's content."""
    return ApiRequest("GET", file_path(session_id, path), patience=60.0)


def write_file(session_id: UUID | str, path: str, content: bytes) -> ApiRequest:
    """Write a file, or with a slash at its end make a directory."""
    return ApiRequest("PUT", file_path(session_id, path), content=content, patience=60.0)


def remove_file(session_id: UUID | str, path: str, *, recursive: bool) -> ApiRequest:
    """Delete a file or a directory."""
    params: list[tuple[str, Param]] = [("recursive", _word(recursive))]
    return ApiRequest("DELETE", _path(file_path(session_id, path), params), patience=60.0)


def execute(session_id: UUID | str, code: str, id: str, timeout: float | None) -> ApiRequest:
    """Run code, and hear what it shows. Raises `RequestInvalid`."""
    body = _body(CodeRun, code=code, id=id, timeout=timeout)
    # Sent again with the same id it is the same execution.
    headers = {"Accept": NDJSON, KEY_HEADER: id}
    return ApiRequest("POST", session_path(session_id, "code"), body, headers)


def command_path(session_id: UUID | str, id: str, action: str = "") -> str:
    """The path of one command."""
    path = session_path(session_id, f"commands/{quote(id, safe='')}")
    return f"{path}/{action}" if action else path


def run_command(
    session_id: UUID | str,
    command: str | Sequence[str],
    id: str,
    *,
    cwd: str | None,
    env: Mapping[str, str] | None,
    stdin: str | None,
    timeout: float | None,
    interactive: bool = False,
    background: bool = False,
) -> ApiRequest:
    """Run a command; in the background, or following what it writes. Raises `RequestInvalid`."""
    body = _body(
        CommandRun,
        command=command if isinstance(command, str) else list(command),
        id=id,
        cwd=cwd,
        env=dict(env or {}),
        stdin=stdin,
        timeout=timeout,
        interactive=interactive,
        background=background,
    )
    # Sent again with the same id it is the same command.
    headers = {KEY_HEADER: id, **({} if background else {"Accept": NDJSON})}
    return ApiRequest("POST", session_path(session_id, "commands"), body, headers)


def list_commands(session_id: UUID | str, limit: int, offset: int) -> ApiRequest:
    """What runs and ran."""
    params: list[tuple[str, Param]] = [("limit", limit), ("offset", offset)]
    return ApiRequest("GET", _path(session_path(session_id, "commands"), params))


def get_command(session_id: UUID | str, id: str) -> ApiRequest:
    """One command, with its output until now."""
    return ApiRequest("GET", command_path(session_id, id), patience=60.0)


def follow_command(session_id: UUID | str, id: str, after: int) -> ApiRequest:
    """What it writes, from behind a position."""
    path = _path(command_path(session_id, id), [("after", after)])
    return ApiRequest("GET", path, headers={"Accept": NDJSON})


def input_pieces(text: str) -> Sequence[str]:
    """The same in parts that can be sent, at least one."""
    return [text[at : at + MAX_INPUT] for at in range(0, max(len(text), 1), MAX_INPUT)]


def write_command(
    session_id: UUID | str, id: str, text: str, at: int | None, *, end: bool
) -> ApiRequest:
    """Give it input."""
    body = _body(CommandInput, text=text, at=at, end=end)
    # What says where it belongs is not given twice.
    headers = {} if at is None else {KEY_HEADER: f"{id}-{at}"}
    return ApiRequest("POST", command_path(session_id, id, "input"), body, headers, patience=60.0)


def signal_command(session_id: UUID | str, id: str, signal: int | str) -> ApiRequest:
    """Send it a signal. Raises `RequestInvalid`."""
    body = _body(CommandSignal, signal=signal)
    return ApiRequest("POST", command_path(session_id, id, "signal"), body)


def kill_command(session_id: UUID | str, id: str) -> ApiRequest:
    """End it."""
    return ApiRequest("DELETE", command_path(session_id, id), patience=60.0)


def start_job(session_id: UUID | str, code: str, id: str, webhook: str | None = None) -> ApiRequest:
    """Run code without waiting. Raises `RequestInvalid`."""
    body = _body(JobCreate, code=code, id=id, webhook=webhook)
    # Sent again with the same id it is the same job.
    return ApiRequest("POST", session_path(session_id, "jobs"), body, {KEY_HEADER: id})


def jobs(session_id: UUID | str, limit: int, offset: int = 0) -> ApiRequest:
    """What runs, or ran, without anybody waiting."""
    params: list[tuple[str, Param]] = [("limit", limit), ("offset", offset or None)]
    return ApiRequest("GET", _path(session_path(session_id, "jobs"), params))


def job(session_id: UUID | str, id: str, wait: float) -> ApiRequest:
    """One job."""
    path = _path(session_path(session_id, f"jobs/{quote(id, safe='')}"), [("wait", wait or None)])
    return ApiRequest("GET", path, patience=wait + 30.0)


def _word(value: bool) -> str:
    return "true" if value else "false"


def create_token(
    name: str, scopes: Iterable[str], owner: str | None, expires_in: float | None
) -> ApiRequest:
    """Make a token. Raises `RequestInvalid`."""
    body = _body(TokenCreate, name=name, scopes=list(scopes), owner=owner, expires_in=expires_in)
    return ApiRequest("POST", TOKENS, body)


def list_tokens(limit: int, offset: int) -> ApiRequest:
    """A page of tokens."""
    return ApiRequest("GET", _path(TOKENS, [("limit", limit), ("offset", offset)]))


def revoke_token(id: UUID | str) -> ApiRequest:
    """End a token."""
    return ApiRequest("DELETE", f"{TOKENS}/{quote(str(id), safe='')}")


def health() -> ApiRequest:
    """Is the gateway there?"""
    return ApiRequest("GET", "/health")


def stats() -> ApiRequest:
    """Sessions in numbers."""
    return ApiRequest("GET", "/v1/stats", patience=30.0)


def channel_path(session_id: UUID | str, client: str, after: int | str | None) -> str:
    """The channel of one session."""
    return _path(session_path(session_id, "channels"), [("client", client), ("after", after)])


def authorization(token: str | None) -> dict[str, str]:
    """The header that carries the token."""
    return {"Authorization": f"Bearer {token}"} if token else {}


def websocket_url(url: str) -> str:
    """The WebSocket form of a gateway's address."""
    return "ws" + url.removeprefix("http").rstrip("/")


def _invalid(error: ValidationError) -> RequestInvalid:
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    return RequestInvalid(f"{place}: {reason(first)}")
