"""What the times of a run say about how to make it faster. No I/O.

A rule speaks when its stage takes a large part of a run that is long enough to matter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

SHARE = 0.3
"""Part of the whole from which on a stage is worth a word."""
MATTERS = 0.5
"""Seconds from which on it is."""

_ADVICE: Mapping[str, Callable[[str], str]] = {
    "create": lambda spent: (
        f"{spent} went into making the session: keep it with `keep_alive=True` and give "
        "`session=result.session_id` to the next run"
    ),
    "upload": lambda spent: (
        f"{spent} went into sending files: keep the session and send only what has changed"
    ),
    "queue": lambda spent: (
        f"{spent} went into waiting for other code of the session: `run_many` spreads runs "
        "over several sessions"
    ),
    "transfer": lambda spent: (
        f"{spent} went into the way of the output: print less, or write it to a file"
    ),
}


def insights(stages: Mapping[str, float]) -> Sequence[str]:
    """Sentences, the most worthwhile first; none when the code itself takes the time."""
    whole = sum(stages.values())
    slow = [
        (seconds, name)
        for name, seconds in stages.items()
        if name in _ADVICE and seconds >= MATTERS and seconds >= SHARE * whole
    ]
    return [
        _ADVICE[name](f"{seconds:.1f} s ({seconds / whole:.0%})")
        for seconds, name in sorted(slow, reverse=True)
    ]
