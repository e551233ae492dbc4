"""Fixtures of the webhooks' tests."""

from __future__ import annotations

from pathlib import Path

import pytest
import trustme

from tests.support.receiver import write_authority


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    """Vouches for receivers."""
    return trustme.CA()


@pytest.fixture
def authorities(authority: trustme.CA, tmp_path: Path) -> Path:
    """Its certificate as a file."""
    return write_authority(authority, tmp_path)
