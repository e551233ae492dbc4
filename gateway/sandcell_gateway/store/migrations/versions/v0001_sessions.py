"""The sessions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_LIVE = sa.text("status NOT IN ('completed', 'terminated')")


def upgrade() -> None:
    """Make the table of sessions."""
    op.create_table(
        "sessions",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("owner", sa.String(255), nullable=False),
        sa.Column("name", sa.String(64)),
        sa.Column("language", sa.String(64), nullable=False),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("interpreter", sa.String(36), nullable=False),
        sa.Column("image", sa.Text(), nullable=False),
        sa.Column("engine", sa.String(64), nullable=False),
        sa.Column("isolated", sa.Boolean(), nullable=False),
        sa.Column("uid", sa.Integer()),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("desired", sa.String(16), nullable=False),
        sa.Column("reason_code", sa.String(64)),
        sa.Column("reason_text", sa.Text()),
        sa.Column("shim", sa.JSON()),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("updated_at", sa.DateTime(), nullable=False),
        sa.Column("closes_at", sa.DateTime()),
    )
    op.create_index("sessions_by_owner", "sessions", ["owner", "created_at"])
    op.create_index(
        "sessions_live_name", "sessions", ["owner", "name"], unique=True, sqlite_where=_LIVE
    )
    op.create_index("sessions_live_uid", "sessions", ["uid"], unique=True, sqlite_where=_LIVE)


def downgrade() -> None:
    """Remove it."""
    op.drop_table("sessions")
