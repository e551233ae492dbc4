"""The tables. A change here needs a migration in `migrations/versions`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, DateTime, ForeignKey, Index, String, Text, TypeDecorator, text
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

    limits: Mapped[dict[str, Any]] = mapped_column(JSON)
    """As `LimitsModel`."""

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
    """When a request wants it closed."""
    unused_since: Mapped[datetime | None] = mapped_column(UtcTime)
    """Since when no channel and no execution has been open; NULL while one is."""

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


class KeyRow(Base):
    """One use of an `Idempotency-Key`."""

    __tablename__ = "idempotency_keys"

    owner: Mapped[str] = mapped_column(String(255), primary_key=True)
    route: Mapped[str] = mapped_column(String(255), primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    body: Mapped[str] = mapped_column(String(64))
    """SHA-256 of the request's body."""
    made: Mapped[str] = mapped_column(String(36))
    """The id of what the request makes, known before it is made."""
    answer: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    """None while the request is not complete."""
    created_at: Mapped[datetime] = mapped_column(UtcTime)

    __table_args__ = (Index("idempotency_keys_by_age", "created_at"),)


class ProofRow(Base):
    """One signed statement about a session's journal; it goes when the session's row goes."""

    __tablename__ = "proofs"

    id: Mapped[int] = mapped_column(primary_key=True)
    """Rises in the order in which they were signed."""
    session_id: Mapped[str] = mapped_column(
        String(36), ForeignKey("sessions.id", ondelete="CASCADE")
    )
    seq: Mapped[int]
    chain: Mapped[str] = mapped_column(String(64))
    signed_at: Mapped[datetime] = mapped_column(UtcTime)
    key_id: Mapped[str] = mapped_column(String(32))
    signature: Mapped[str] = mapped_column(String(128))
    statement: Mapped[str] = mapped_column(Text)
    """As it was signed; the columns before repeat what it says."""

    __table_args__ = (Index("proofs_once", "session_id", "seq", "chain", "key_id", unique=True),)


class WebhookRow(Base):
    """One webhook: of which job, where to, and how far its delivery is."""

    __tablename__ = "webhooks"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    """The `webhook-id`: random, and the same in every attempt."""
    session_id: Mapped[str] = mapped_column(String(36))
    job_id: Mapped[str] = mapped_column(String(64))
    url: Mapped[str] = mapped_column(Text)
    data: Mapped[dict[str, Any]] = mapped_column(JSON)
    """What is known of the job, as `JobEndedData`; final once `ended_at` is set."""
    state: Mapped[str] = mapped_column(String(16))
    """As `WebhookState`."""
    attempts: Mapped[int]
    last_status: Mapped[int | None]
    last_error: Mapped[str | None] = mapped_column(Text)
    ended_at: Mapped[datetime | None] = mapped_column(UtcTime)
    """When the job's end was noticed."""
    due_at: Mapped[datetime | None] = mapped_column(UtcTime)
    """When the next attempt is due."""

    __table_args__ = (
        Index("webhooks_by_job", "session_id", "job_id", unique=True),
        Index("webhooks_by_state", "state", "ended_at"),
    )


class TokenRow(Base):
    """One opaque token: everything but the secret."""

    __tablename__ = "tokens"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    owner: Mapped[str] = mapped_column(String(255))
    name: Mapped[str] = mapped_column(String(64))
    hash: Mapped[str] = mapped_column(String(64))
    """SHA-256 of the secret, in hexadecimal digits."""
    scopes: Mapped[list[str]] = mapped_column(JSON)
    """As `Scope`."""
    created_at: Mapped[datetime] = mapped_column(UtcTime)
    expires_at: Mapped[datetime | None] = mapped_column(UtcTime)
    revoked_at: Mapped[datetime | None] = mapped_column(UtcTime)
    last_used_at: Mapped[datetime | None] = mapped_column(UtcTime)
    """Exact to a minute."""

    __table_args__ = (
        Index("tokens_by_hash", "hash", unique=True),
        Index("tokens_by_owner", "owner", "created_at"),
    )
