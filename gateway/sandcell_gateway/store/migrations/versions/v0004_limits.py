"""The limits of sessions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

NONE = '{"memory": 0, "cpus": 0, "disk": 0, "processes": 0, "soft": []}'
"""Sessions from before had none."""


def upgrade() -> None:
    """Add the column."""
    op.add_column("sessions", sa.Column("limits", sa.JSON(), nullable=False, server_default=NONE))


def downgrade() -> None:
    """Remove it."""
    op.drop_column("sessions", "limits")
