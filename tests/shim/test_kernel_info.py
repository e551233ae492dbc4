"""What an interpreter says of itself is believed within bounds."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sandcell_gateway.shim.kernel_info import believed

TRUE: dict[str, Any] = {
    "status": "ok",
    "protocol_version": "5.4",
    "implementation": "ipython",
    "implementation_version": "9.1",
    "banner": "Python 3",
    "language_info": {
        "name": "python",
        "version": "3.12",
        "mimetype": "text/x-python",
        "file_extension": ".py",
        "pygments_lexer": "ipython3",
        "nbconvert_exporter": "python",
        "codemirror_mode": {"name": "ipython", "version": 3},
    },
    "help_links": [{"text": "Python", "url": "https://docs.python.org"}],
    "supported_features": ["kernel subshells", "debugger"],
    "debugger": True,
}


def test_an_honest_answer_is_kept() -> None:
    assert believed(TRUE) == TRUE


def test_links_lead_to_the_web_only() -> None:
    evil = [{"text": "x", "url": "javascript:alert(1)"}, {"text": "x"}, "x", 3]
    assert believed({**TRUE, "help_links": evil})["help_links"] == []


def test_size_and_number_are_bounded() -> None:
    big = "x" * 100_000
    kept = believed(
        {
            "banner": big,
            "implementation": big,
            "language_info": {"name": big, "codemirror_mode": {"a": big}},
            "help_links": [{"text": big, "url": "https://" + big}] * 1000,
            "supported_features": [big] * 1000,
            "unknown": big,
        }
    )
    assert len(repr(kept)) < 20_000
    assert "unknown" not in kept


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.dictionaries(st.sampled_from([*TRUE, "other"]), _JSON))
def test_anything_is_survived(content: dict[str, Any]) -> None:
    kept = believed(content)
    assert set(kept) <= set(TRUE)
    assert isinstance(kept["language_info"], dict)
