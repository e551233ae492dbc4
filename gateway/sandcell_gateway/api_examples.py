"""Examples of the interface's description: of each body and answer, and of each problem."""

from __future__ import annotations

from typing import Any, NamedTuple

from sandcell_wire.codes import HTTP_STATUS, Code
from sandcell_wire.states import Status

_ID = "0d3a7c52-6f0e-4b3c-9a43-5f1f0c9d2e11"
_EXECUTION = "5f0c1de29a6f4a0b8a9c1f8f2d7b6e53"
_MOMENT, _LATER = "2026-01-01T12:00:00Z", "2026-01-01T12:00:01Z"
_DIGEST = "5d0e1c9b" * 8
_KEY = "8c1f03aa" * 4


class ProblemText(NamedTuple):
    """One code in words."""

    meaning: str
    detail: str
    hint: str | None = None


PROBLEMS: dict[Code, ProblemText] = {
    Code.VALIDATION_ERROR: ProblemText(
        "the request cannot be right", "query.limit: Input should be less than or equal to 500"
    ),
    Code.UNAUTHORIZED: ProblemText(
        "the token is missing or not valid",
        "this gateway needs a token",
        "send `Authorization: Bearer TOKEN`; clients read SANDCELL_TOKEN",
    ),
    Code.FORBIDDEN: ProblemText(
        "this Host, Origin or user may not",
        "this gateway does not go by the name 'gateway.example'",
        "add it to SANDCELL_ALLOWED_HOSTS",
    ),
    Code.NOT_FOUND: ProblemText("there is no such thing", "data/a.csv: there is no such file"),
    Code.SESSION_NOT_FOUND: ProblemText(
        "you have no such session",
        f"there is no session {_ID}",
        "list yours with `sandcell sessions`",
    ),
    Code.SESSION_EXPIRED: ProblemText(
        "the session has ended",
        f"session {_ID} is terminated: closed on request",
        "create a new session",
    ),
    Code.SESSION_PAUSED: ProblemText(
        "the session is paused", f"session {_ID} is paused", "resume it first"
    ),
    Code.CONFLICT: ProblemText(
        "the name is taken, or the present state does not allow it",
        "you already have a live session named 'analysis'",
        "attach to it, close it, or choose another name",
    ),
    Code.REQUEST_IN_FLIGHT: ProblemText(
        "a request with the same `Idempotency-Key` is being done",
        "a request with this Idempotency-Key is being done",
        "ask again",
    ),
    Code.RANGE_NOT_SATISFIABLE: ProblemText(
        "the file is shorter", "the file has 120 bytes", "ask for bytes that it has"
    ),
    Code.CONTENT_TOO_LARGE: ProblemText(
        "the body is too large", "a request's body has at most 1048576 bytes", "send less"
    ),
    Code.QUOTA_EXCEEDED: ProblemText(
        "there is no more of what is shared out", "data/a.csv: the disk is full"
    ),
    Code.RATE_LIMITED: ProblemText("too many requests", "too many requests", "try again later"),
    Code.HOST_DISCONNECTED: ProblemText(
        "the session's supervisor does not answer",
        "the line to the session's supervisor ended",
        "try again",
    ),
    Code.CHECKPOINT_FAILED: ProblemText(
        "the state could not be saved or restored", "the checkpoint could not be written"
    ),
    Code.ENGINE_UNAVAILABLE: ProblemText(
        "the machine cannot make sandboxes",
        "user namespaces are not allowed here",
        "run `sandcell doctor`",
    ),
    Code.UNAVAILABLE: ProblemText(
        "something that this needs does not answer",
        "the keys of the tokens' issuer cannot be had",
        "try again later",
    ),
    Code.OPERATION_FAILED: ProblemText("it was tried and failed", "the sandbox could not be made"),
    Code.INTERNAL_ERROR: ProblemText(
        "the gateway's fault",
        "the gateway failed; its log has the details under the request id",
        "report it with the request id 5be1c1a1",
    ),
}


def problem_example(code: Code) -> dict[str, Any]:
    """A problem document with this code."""
    _, detail, hint = PROBLEMS[code]
    title = code.value.replace("_", " ").capitalize()
    found = {"type": "about:blank", "title": title, "status": HTTP_STATUS[code], "code": code.value}
    return found | {"detail": detail, "request_id": "5be1c1a1"} | ({"hint": hint} if hint else {})


_LIMITS = {
    "memory": 4294967296,
    "cpus": 0,
    "disk": 21474836480,
    "processes": 512,
    "soft": ["disk"],
}
_SESSION: dict[str, Any] = {
    "id": _ID,
    "name": "analysis",
    "status": "idle",
    "reason": None,
    "language": "python",
    "engine": "bubblewrap",
    "isolated": True,
    "metadata": {"team": "birds"},
    "interpreter": "9f1c2b7ad80e4a5f8d3b6c1e0f9a7b52",
    "limits": _LIMITS,
    "created_at": _MOMENT,
    "updated_at": _LATER,
    "closes_at": None,
    "journal": "intact",
}
_VALUE = {
    "output_type": "execute_result",
    "data": {"text/plain": "2"},
    "metadata": {},
    "execution_count": 3,
}
_RUN: dict[str, Any] = {
    "id": _EXECUTION,
    "code": "1 + 1",
    "status": "ok",
    "execution_count": 3,
    "detached": False,
    "submitted_at": _MOMENT,
    "started_at": _MOMENT,
    "ended_at": _LATER,
    "outputs": [_VALUE],
    "timed_out": False,
    "lost_messages": 0,
    "webhook": None,
}
_FILE = {
    "path": "data/a.csv",
    "type": "file",
    "size": 120,
    "modified_at": _MOMENT,
    "mode": 420,
    "etag": "3fe-78-18ea",
}
_PROOF = {
    "session_id": _ID,
    "seq": 121,
    "chain": _DIGEST,
    "signed_at": _MOMENT,
    "key_id": _KEY,
    "attestable": True,
    "signature": "a7f04e11" * 16,
    "statement": f'{{"chain":"{_DIGEST}","seq":121}}',
}
_COMMAND: dict[str, Any] = {
    "id": _EXECUTION,
    "command": "wc -l data/a.csv",
    "status": "exited",
    "exit_code": 0,
    "signal": None,
    "timed_out": False,
    "background": False,
    "interactive": False,
    "reason": None,
    "submitted_at": _MOMENT,
    "started_at": _MOMENT,
    "ended_at": _LATER,
    "stdout": "3 data/a.csv\n",
    "stderr": "",
    "lost_bytes": 0,
}
_TOKEN: dict[str, Any] = {
    "id": _ID,
    "name": "laptop",
    "owner": "alice",
    "scopes": ["run"],
    "created_at": _MOMENT,
    "expires_at": "2026-01-31T12:00:00Z",
    "revoked_at": None,
    "last_used_at": None,
}
_PAGE = {"total": 1, "limit": 100, "offset": 0}
_CELL: dict[str, Any] = {
    "id": "5f0c1de2",
    "cell_type": "code",
    "source": "1 + 1",
    "metadata": {},
    "execution_count": 3,
    "outputs": [_VALUE],
}

EXAMPLES: dict[str, dict[str, Any]] = {
    "CodeRun": {"code": "1 + 1", "timeout": 60},
    "CommandInput": {"text": "yes\n", "at": 0},
    "CommandInputTaken": {"at": 4, "closed": False},
    "CommandList": {"commands": [{**_COMMAND, "stdout": None, "stderr": None}], **_PAGE},
    "CommandModel": _COMMAND,
    "CommandRun": {"command": "wc -l data/a.csv", "timeout": 60},
    "CommandSignal": {"signal": "SIGINT"},
    "ExecutionModel": _RUN,
    "FileList": {"files": [_FILE], "truncated": False},
    "FileModel": _FILE,
    "Health": {"status": "ok", "version": "1.0.0"},
    "History": {"executions": [_RUN], **_PAGE},
    "JobCreate": {"code": "model.fit(data)", "id": "night-run-1"},
    "NewToken": {**_TOKEN, "token": "sc_Jm5vdCBhIHNlY3JldCwganVzdCBhbiBleGFtcGxl"},
    "Notebook": {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [_CELL]},
    "ProofKeys": {"keys": [{"id": _KEY, "public_key": _DIGEST, "signs": True}]},
    "ProofList": {"proofs": [_PROOF], **_PAGE},
    "ProofModel": _PROOF,
    "SessionCreate": {"metadata": {"team": "birds"}, "env": {"DATA_DIR": "data"}},
    "SessionList": {"sessions": [_SESSION], **_PAGE},
    "SessionModel": _SESSION,
    "SessionUpdate": {"name": "report", "metadata": {"team": None, "type": "notebook"}},
    "SessionRestart": {"interpreter": "9f1c2b7ad80e4a5f8d3b6c1e0f9a7b52"},
    "TokenCreate": {"name": "laptop", "scopes": ["run"], "expires_in": 2592000},
    "TokenList": {"tokens": [_TOKEN], **_PAGE},
    "TokenModel": _TOKEN,
    "Stats": {
        "sessions": {status.value: int(status is Status.IDLE) for status in Status},
        "engine": {"name": "bubblewrap", "isolated": True},
        "engine_problem": None,
        "limits": _LIMITS,
        "versions": {"sandcell": "1.0.0", "python": "3.11.7"},
        "started_at": _MOMENT,
    },
}
"""By the names of the models."""
