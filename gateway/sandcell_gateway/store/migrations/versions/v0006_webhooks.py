"""The webhooks of jobs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table of webhooks."""
    op.create_table(
        "webhooks",
        sa.Column("id", sa.String(40), primary_key=True),
        sa.Column("session_id", sa.String(36), nullable=False),
        sa.Column("job_id", sa.String(64), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("last_status", sa.Integer()),
        sa.Column("last_error", sa.Text()),
        sa.Column("ended_at", sa.DateTime()),
        sa.Column("due_at", sa.DateTime()),
    )
    op.create_index("webhooks_by_job", "webhooks", ["session_id", "job_id"], unique=True)
    op.create_index("webhooks_by_state", "webhooks", ["state", "ended_at"])


def downgrade() -> None:
    """Remove it."""
    op.drop_table("webhooks")
