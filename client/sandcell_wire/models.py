"""The bodies of the REST interface, shared by server and client.

Times are RFC 3339 in UTC, durations are seconds, ids are UUID4.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    StringConstraints,
    WithJsonSchema,
)

from sandcell_wire.codes import Code
from sandcell_wire.paths import MAX_PATH
from sandcell_wire.states import JournalState, Status
from sandcell_wire.words import (
    BYTES,
    ENV_NAME,
    EXECUTION_ID,
    INTERPRETER,
    MAX_WEBHOOK_URL,
    NO_NUL,
    SESSION_NAME,
    size,
    webhook_url,
    whole,
)

MAX_METADATA = 64
"""Most labels of one session."""
TYPE_LABEL = "type"
"""Key of the label that says of which type a session is."""
MAX_VALUE = 4096
"""Most characters of a label's value."""

Name = Annotated[str, StringConstraints(pattern=SESSION_NAME)]
EnvName = Annotated[str, StringConstraints(pattern=ENV_NAME)]
NoNul = Annotated[str, StringConstraints(pattern=NO_NUL)]
"""What is handed to the operating system, where a NUL ends a text."""
Interpreter = Annotated[str, StringConstraints(pattern=INTERPRETER)]
MetadataKey = Annotated[str, StringConstraints(min_length=1, max_length=128)]
MetadataValue = Annotated[str, StringConstraints(max_length=MAX_VALUE)]
SourceCode = Annotated[str, StringConstraints(min_length=1, max_length=1 << 19)]
ExecutionId = Annotated[str, StringConstraints(pattern=EXECUTION_ID)]
WebhookUrl = Annotated[
    str,
    AfterValidator(webhook_url),
    Field(
        json_schema_extra={
            "pattern": "^https://[^/?#@]+([/?][^#]*)?$",
            "maxLength": MAX_WEBHOOK_URL,
        }
    ),
]
SessionEventType = Literal["status_changed", "error", "terminated"]
WebhookState = Literal["pending", "delivered", "given_up"]


def _bytes_schema(least: int) -> WithJsonSchema:
    number = {"type": "integer", "minimum": least}
    return WithJsonSchema(
        {"anyOf": [number, {"type": "string", "pattern": BYTES, "examples": ["4GiB"]}]}
    )


SomeBytes = Annotated[ByteSize, BeforeValidator(size)]

CLIENT_LABEL = "client"
"""The label on sessions that a client of ours made for itself: it says which."""
KERNEL, RUN = "kernel", "run"
"""Its values: a local kernel, or `Session.run`."""


class Model(BaseModel):
    """Base of all bodies: unknown fields are refused, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Answer(BaseModel):
    """Base of all answers: those of a newer gateway may have more fields."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Reason(Answer):
    """Why a session is in its status."""

    code: str
    """Stable word: `out_of_memory`, `signal`, `exit`, `host_lost`, `closed`, `start_failed`, …"""
    text: str
    """One sentence for people."""


class SessionLimits(Model):
    """What a session may use. Left out, it may use what the gateway allows one session."""

    memory: Annotated[SomeBytes, Field(ge=64 << 20), _bytes_schema(64 << 20)] | None = None
    """Bytes, or text such as `4GiB`; of all its processes together."""
    cpus: Annotated[float, Field(gt=0, le=4096, strict=True)] | None = None
    """Processors' worth of time, e.g. 1.5."""
    disk: Annotated[SomeBytes, Field(ge=1 << 20), _bytes_schema(1 << 20)] | None = None
    """Bytes, or text such as `20GiB`; of workspace and installed packages together."""
    processes: Annotated[int, Field(ge=16, le=65536), BeforeValidator(whole)] | None = None


class LimitsModel(Answer):
    """A session's limits as the gateway shows them; 0 is no limit."""

    memory: int
    cpus: float
    disk: int
    processes: int
    soft: list[str]
    """The ones that can be exceeded for a moment (`memory`, `disk`) or evaded (`cpus`)."""


class SessionCreate(Model):
    """Body of `POST /v1/sessions`. Everything is optional."""

    name: Name | None = None
    """Unique among the owner's live sessions; a named session outlives its kernel."""
    language: Annotated[str, StringConstraints(max_length=64)] = "python"
    metadata: dict[MetadataKey, MetadataValue] = Field(
        default_factory=dict, max_length=MAX_METADATA
    )
    """Labels, free for the owner's use."""
    env: dict[EnvName, NoNul] = Field(default_factory=dict, max_length=256)
    """Environment of the session's processes; never listed or logged."""
    interpreter: Interpreter | None = None
    """The id that the interpreter's messages carry in `header.session`."""
    image: Annotated[NoNul, StringConstraints(max_length=MAX_PATH)] | None = None
    """Prefix of the Python environment to run in; only an embedded gateway accepts one."""
    limits: SessionLimits = SessionLimits()


class SessionUpdate(Model):
    """Body of `PATCH /v1/sessions/{id}`: a JSON merge patch (RFC 7396). What is left out stays."""

    name: Name | None = None
    """Null takes the name away."""
    metadata: dict[MetadataKey, MetadataValue | None] | None = Field(
        default=None, max_length=2 * MAX_METADATA
    )
    """Labels to set; null takes one away, and in place of all takes all away."""

    def merged(self, metadata: Mapping[str, str]) -> dict[str, str]:
        """These labels as they are after it."""
        if self.metadata is None:
            return {} if "metadata" in self.model_fields_set else dict(metadata)
        both = {**metadata, **self.metadata}
        return {key: value for key, value in both.items() if value is not None}


class SessionRestart(Model):
    """Body of `POST /v1/sessions/{id}/restart`."""

    interpreter: Interpreter | None = None
    """The new interpreter's id in `header.session`."""


class SessionModel(Answer):
    """A session as the gateway shows it."""

    id: UUID
    name: str | None
    status: Status
    reason: Reason | None
    language: str
    engine: str
    isolated: bool
    """False when the engine isolates nothing from the host."""
    metadata: dict[str, str]
    interpreter: str
    limits: LimitsModel
    created_at: datetime
    updated_at: datetime
    closes_at: datetime | None
    """When the session will be closed if nobody attaches before."""
    journal: JournalState = JournalState.UNPROVEN
    """Whether the journal is the one that was signed, as found when the gateway or the
    session's supervisor took the session over the last time."""


class SessionEvent(Answer):
    """The data of one of the server-sent events of `GET /v1/sessions/{id}/events`."""

    type: SessionEventType
    session_id: UUID
    old: Status | None
    """None when it is not known: then `new` is the present status, whenever it began."""
    new: Status
    reason: Reason | None
    at: datetime
    """When the gateway noticed it."""


class SessionList(Answer):
    """Answer of `GET /v1/sessions`."""

    sessions: list[SessionModel]
    total: int
    limit: int
    offset: int


class WebhookModel(Answer):
    """How far the delivery of a job's webhook is."""

    url: str
    state: WebhookState
    attempts: int
    last_status: int | None
    """HTTP status of the last answer; None when there was none."""
    last_error: str | None
    """Why the last attempt failed; None after one that succeeded, and before the first."""
    next_attempt_at: datetime | None
    """None while the job runs, and when no more is tried."""


class ExecutionModel(Answer):
    """One execution of the session's history."""

    id: str
    """The request's `msg_id`."""
    code: str
    status: str
    """`queued`, `running`, `ok`, `error`, `aborted` or `unknown`."""
    execution_count: int | None
    detached: bool
    """Whether it was started without anybody who waits for it."""
    submitted_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    outputs: list[dict[str, Any]] | None = None
    """As notebooks hold them (nbformat 4.5); None when they were not asked for."""
    timed_out: bool = False
    """Whether it was interrupted because it ran longer than its `timeout`."""
    lost_messages: int = 0
    """Messages of its time whose content was dropped from a journal that was full."""
    webhook: WebhookModel | None = None
    """For a job that was started with one."""


class History(Answer):
    """Answer of `GET /v1/sessions/{id}/history`."""

    executions: list[ExecutionModel]
    total: int
    limit: int
    offset: int


class Notebook(Answer):
    """Answer of `GET /v1/sessions/{id}/history.ipynb`: nbformat 4.5."""

    model_config = ConfigDict(extra="allow")

    nbformat: int
    nbformat_minor: int
    metadata: dict[str, Any]
    cells: list[dict[str, Any]]


class JobCreate(Model):
    """Body of `POST /v1/sessions/{id}/jobs`."""

    code: SourceCode
    id: ExecutionId | None = None
    """Sent again with the same id it is the same job."""
    webhook: WebhookUrl | None = None
    """Is told when the job has ended, with a `JobEnded`."""


class Problem(Answer):
    """An error as an RFC 9457 problem document (`application/problem+json`)."""

    model_config = ConfigDict(extra="allow")

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: Code
    hint: str | None = None
    """What to do next."""
    request_id: str | None = None
    errors: list[dict[str, Any]] | None = None
    """For `validation_error`: each bad field with its place and reason."""


class CodeRun(Model):
    """Body of `POST /v1/sessions/{id}/code`."""

    code: SourceCode
    id: ExecutionId | None = None
    """Sent again with the same id it is the same execution."""
    timeout: Annotated[float, Field(gt=0, le=604_800, strict=True)] | None = None
    """Seconds that it may run; then it is interrupted."""


class ExecutionStarted(Answer):
    """First line of a stream: the code is recorded, and will run."""

    type: Literal["started"] = "started"
    execution: ExecutionModel


class ExecutionOutput(Answer):
    """A line of a stream: a message of the kernel that changes what is shown."""

    type: Literal["output"] = "output"
    seq: int
    """Its number in the session's journal."""
    msg_type: Literal[
        "stream",
        "display_data",
        "execute_result",
        "update_display_data",
        "clear_output",
        "error",
    ]
    content: dict[str, Any]
    """As the Jupyter messaging specification has it."""


class ExecutionEnded(Answer):
    """Last line of a stream; the outputs came before."""

    type: Literal["ended"] = "ended"
    execution: ExecutionModel


class StreamFailed(Answer):
    """Last line of a stream that cannot go on. The code may run on."""

    type: Literal["failed"] = "failed"
    problem: Problem


ExecutionEvent = Annotated[
    ExecutionStarted | ExecutionOutput | ExecutionEnded | StreamFailed, Field(discriminator="type")
]


class FileModel(Answer):
    """A file of a session's workspace."""

    path: str
    """Relative to the workspace, `/` between its parts."""
    type: Literal["file", "directory", "link", "other"]
    size: int
    """Bytes."""
    modified_at: datetime
    mode: int
    """Permission bits."""
    etag: str
    """Another one when the content may be another."""


class FileList(Answer):
    """Answer of `GET /v1/sessions/{id}/files`."""

    files: list[FileModel]
    truncated: bool
    """Whether there are more."""


class JobEndedData(Answer):
    """What a webhook says of its job: neither code nor output."""

    session_id: UUID
    job_id: str
    status: str
    """`ok`, `error`, `aborted`, or `unknown` when nobody is left who knows."""
    execution_count: int | None
    submitted_at: datetime
    started_at: datetime | None
    ended_at: datetime | None


class JobEnded(Answer):
    """Body of a webhook (standardwebhooks.com)."""

    type: Literal["job.ended"] = "job.ended"
    timestamp: datetime
    """When the job ended, or when that was noticed."""
    data: JobEndedData


class ProofModel(Answer):
    """A signed statement about a session's journal."""

    session_id: UUID
    seq: int
    """How many records it covers."""
    chain: str
    """The chain after the last of them, in hexadecimal digits."""
    signed_at: datetime
    key_id: str
    attestable: bool
    """False when the session's engine isolates nothing."""
    signature: str
    """Ed25519, in hexadecimal digits."""
    statement: str
    """What was signed: JSON, which says all of the above but the signature."""


class ProofList(Answer):
    """Answer of `GET /v1/sessions/{id}/proofs`."""

    proofs: list[ProofModel]
    total: int
    limit: int
    offset: int


class ProofKey(Answer):
    """A public key that proofs are checked with."""

    id: str
    public_key: str
    """Ed25519, 64 hexadecimal digits."""
    signs: bool
    """Whether it is the one that signs now."""


class ProofKeys(Answer):
    """Answer of `GET /v1/proof-keys`."""

    keys: list[ProofKey]


class EngineModel(Answer):
    """What makes the sandboxes of new sessions."""

    name: str
    isolated: bool
    """False when it isolates nothing from the host."""


class Stats(Answer):
    """Answer of `GET /v1/stats`: your sessions, and what the gateway has for them."""

    sessions: dict[Status, int]
    """How many of yours are in each status; ended ones as long as they are listed."""
    engine: EngineModel | None
    """None when no sandbox can be made now."""
    engine_problem: str | None
    """Why not."""
    limits: LimitsModel
    """The most that one session may have."""
    versions: dict[str, str]
    """Of the gateway (`sandcell`) and its interpreter (`python`)."""
    started_at: datetime
    """When the gateway was started."""


class Health(Answer):
    """Answer of `GET /health`."""

    status: str
    version: str
