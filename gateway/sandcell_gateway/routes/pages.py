"""Which part of a list a request wants."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query

MAX_LIMIT = 500
"""Most entries of one page."""

Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT)]
MAX_OFFSET = (1 << 53) - 1
"""Most entries that are passed over: what JSON's readers, and the store, take for a number."""
Offset = Annotated[int, Query(ge=0, le=MAX_OFFSET)]
