"""Since when a session has not been used."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.add_column("sessions", sa.Column("unused_since", sa.DateTime()))


def downgrade() -> None:
    """Remove it."""
    op.drop_column("sessions", "unused_since")
