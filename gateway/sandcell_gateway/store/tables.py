"""The tables. A change here needs a migration in `migrations/versions`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, DateTime, Index, String, Text, TypeDecorator, text
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class UtcTime(TypeDecorator[datetime]):
    """A moment, stored as naive UTC because SQLite knows no zones."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC)


class Base(DeclarativeBase):
    """Base of all tables."""


class SessionRow(Base):
    """One session: what it is, how it is, and how it should be."""

    __tablename__ = "sessions"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    owner: Mapped[str] = mapped_column(String(255))
    name: Mapped[str | None] = mapped_column(String(64))
    language: Mapped[str] = mapped_column(String(64))
    labels: Mapped[dict[str, str]] = mapped_column(JSON)
    """The API's `metadata`; SQLAlchemy keeps that name for itself."""
    interpreter: Mapped[str] = mapped_column(String(36))
    image: Mapped[str] = mapped_column(Text)
    engine: Mapped[str] = mapped_column(String(64))
    isolated: Mapped[bool]
    uid: Mapped[int | None]
    """Unprivileged identity of the session where the gateway runs as root."""

    status: Mapped[str] = mapped_column(String(16))
    """Actual state, without the moves between idle and active."""
    desired: Mapped[str] = mapped_column(String(16))
    """`running` or `closed`: requests change this, the reconciler follows."""
    reason_code: Mapped[str | None] = mapped_column(String(64))
    reason_text: Mapped[str | None] = mapped_column(Text)
    shim: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    """The shim's process, to find it again."""

    created_at: Mapped[datetime] = mapped_column(UtcTime)
    updated_at: Mapped[datetime] = mapped_column(UtcTime)
    closes_at: Mapped[datetime | None] = mapped_column(UtcTime)

    __table_args__ = (
        Index("sessions_by_owner", "owner", "created_at"),
        Index(
            "sessions_live_name",
            "owner",
            "name",
            unique=True,
            sqlite_where=text("status NOT IN ('completed', 'terminated')"),
        ),
        Index(
            "sessions_live_uid",
            "uid",
            unique=True,
            sqlite_where=text("status NOT IN ('completed', 'terminated')"),
        ),
    )
