"""Which part of a file a `Range` asks for (RFC 9110, section 14)."""

from __future__ import annotations

import pytest

from sandcell_gateway.errors import RangeNotSatisfiable
from sandcell_gateway.routes.files import part_of


@pytest.mark.parametrize(
    ("header", "first", "count"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=2-5", 2, 4),
        ("bytes=7-", 7, 3),
        ("bytes=8-99", 8, 2),
        ("bytes=-3", 7, 3),
        ("bytes=-99", 0, 10),
    ],
)
def test_parts(header: str, first: int, count: int) -> None:
    part = part_of(header, 10)
    assert (part.first, part.count, part.is_all) == (first, count, False)


@pytest.mark.parametrize("header", [None, "", "bytes=-", "bytes=a-b", "lines=1-2", "bytes=1-2,4-5"])
def test_what_we_do_not_know_is_everything(header: str | None) -> None:
    part = part_of(header, 10)
    assert (part.first, part.count, part.is_all) == (0, 10, True)


@pytest.mark.parametrize("header", ["bytes=10-", "bytes=5-4", "bytes=-0", f"bytes={10**17}-"])
def test_what_is_not_there(header: str) -> None:
    with pytest.raises(RangeNotSatisfiable):
        part_of(header, 10)


def test_an_empty_file_has_no_parts() -> None:
    assert part_of(None, 0).is_all
    with pytest.raises(RangeNotSatisfiable):
        part_of("bytes=0-", 0)
