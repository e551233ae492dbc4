"""Structured logs of the gateway. Query strings, tokens and environments never enter them."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import TextIO, cast

import structlog


def configure(level: str, stream: TextIO | None = None) -> None:
    """Send our log and the libraries' warnings to `stream` (standard error)."""
    stream = stream or cast(TextIO, sys.stderr)
    number = logging.getLevelNamesMapping()[level.upper()]
    colors = stream.isatty()
    # Plain tracebacks: the pretty ones show local variables, and so environments and tokens.
    console = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.StackInfoRenderer(),
            *([] if colors else [structlog.processors.format_exc_info]),
            console if colors else structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
    # Never below WARNING: uvicorn logs targets with their query strings at INFO, and
    # websockets whole handshakes with their tokens at DEBUG.
    logging.basicConfig(stream=stream, level=max(number, logging.WARNING), force=True)


def rotate(path: Path, limit: int) -> None:
    """Put a log file beyond `limit` bytes aside, replacing the one put aside before."""
    try:
        if path.stat().st_size > limit:
            path.replace(path.with_name(path.name + ".1"))
    except FileNotFoundError:
        return
