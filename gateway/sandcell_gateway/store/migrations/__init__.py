"""Alembic migrations, shipped with the package and run when a gateway starts."""
