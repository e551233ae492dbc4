"""Stages of a run add up, and advice names the one that counts."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandcell.insights import insights
from sandcell.timing import STAGES, Stopwatch


class Clock:
    """Goes on when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@given(st.lists(st.tuples(st.sampled_from(STAGES), st.floats(0, 100), st.floats(0, 100))))
def test_stages_add_up_to_the_whole(spent: list[tuple[str, float, float]]) -> None:
    clock = Clock()
    watch = Stopwatch(clock)
    for name, inside, outside in spent:
        with watch.stage(name):
            clock.now += inside
        clock.now += outside
    stages = watch.stages()
    assert sum(stages.values()) == pytest.approx(clock.now - 100)
    assert list(stages) == [name for name in STAGES if name in stages]


def test_what_the_session_measured_is_no_transfer() -> None:
    clock = Clock()
    watch = Stopwatch(clock)
    clock.now += 5
    watch.note({"queue": 1, "execute": 3})
    assert watch.stages() == {"queue": 1, "execute": 3, "transfer": 1}


@pytest.mark.parametrize(
    ("stages", "words"),
    [
        ({"create": 8, "execute": 2}, ["keep_alive=True"]),
        ({"create": 4, "upload": 6}, ["sending files", "keep_alive=True"]),
        ({"queue": 5, "execute": 5}, ["run_many"]),
        ({"transfer": 5, "execute": 1}, ["print less"]),
        ({"create": 0.2, "execute": 0.01}, []),
        ({"create": 1, "execute": 99}, []),
        ({}, []),
    ],
)
def test_advice_names_what_took_the_time(stages: Mapping[str, float], words: list[str]) -> None:
    found = insights(stages)
    assert len(found) == len(words)
    for sentence, word in zip(found, words, strict=True):
        assert word in sentence
