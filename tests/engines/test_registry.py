"""Which engine is taken, and what is said when none is."""

from __future__ import annotations

import os
import re
from typing import ClassVar

import pytest

from sandcell_gateway.engines import registry
from sandcell_gateway.engines.base import EngineError, Probe, SandboxSpec
from sandcell_gateway.engines.process import ProcessEngine


class Broken(ProcessEngine):
    """Isolates, but not here."""

    name: ClassVar[str] = "broken"
    isolated: ClassVar[bool] = True
    strength: ClassVar[int] = 90

    def probe(self) -> Probe:
        return Probe(False, "no such kernel", "get another")


class Open(ProcessEngine):
    """Somebody else's, which would run as root."""

    name: ClassVar[str] = "open"

    def probe(self) -> Probe:
        return Probe(True, "it just works")


class Weak(ProcessEngine):
    name: ClassVar[str] = "weak"
    isolated: ClassVar[bool] = True
    strength: ClassVar[int] = 10


class Shy(Weak):
    name: ClassVar[str] = "shy"
    strength: ClassVar[int] = -1


def _install(monkeypatch: pytest.MonkeyPatch, *engines: type[ProcessEngine], uid: int) -> None:
    made = {engine.name: engine() for engine in engines}
    monkeypatch.setattr(registry, "names", lambda: sorted(made))
    monkeypatch.setattr(registry, "load", made.__getitem__)
    monkeypatch.setattr(os, "geteuid", lambda: uid)


def test_both_engines_are_installed() -> None:
    assert {"bubblewrap", "process"} <= set(registry.names())
    assert registry.load("bubblewrap").isolated
    assert not registry.load("process").isolated


def test_an_unknown_engine_names_the_known() -> None:
    with pytest.raises(EngineError, match=r"'docker'.*bubblewrap, process"):
        registry.load("docker")


def test_auto_takes_the_strongest_that_works(monkeypatch: pytest.MonkeyPatch) -> None:
    _install(monkeypatch, Broken, Weak, ProcessEngine, uid=1000)
    engine, probe = registry.choose("auto")
    assert engine.name == "weak"
    assert probe.works


def test_a_user_without_isolation_falls_back(monkeypatch: pytest.MonkeyPatch) -> None:
    _install(monkeypatch, Broken, ProcessEngine, uid=1000)
    engine, probe = registry.choose("auto")
    assert engine.name == "process"
    assert "isolates nothing" in probe.reason


def test_root_never_falls_back_to_no_isolation(monkeypatch: pytest.MonkeyPatch) -> None:
    _install(monkeypatch, Broken, ProcessEngine, Open, Shy, uid=0)
    with pytest.raises(EngineError) as caught:
        registry.choose("auto")
    text = str(caught.value)
    assert "- broken: no such kernel. get another" in text
    assert "- process: it isolates nothing, so code of sessions would run as root" in text
    assert "- open: isolates nothing, and this is root" in text
    assert "- shy: only when it is named" in text


def test_a_named_engine_is_taken_or_its_failure_told(monkeypatch: pytest.MonkeyPatch) -> None:
    _install(monkeypatch, Broken, Weak, Shy, uid=1000)
    assert registry.choose("shy")[0].name == "shy"
    with pytest.raises(EngineError, match=r"broken does not work here: no such kernel\. get"):
        registry.choose("broken")


def test_process_says_loudly_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    probe = ProcessEngine().probe()
    assert probe.works
    assert "isolates nothing" in probe.reason
    assert not any("reads" in threat or "root" in threat for threat in probe.facts)


def test_process_is_not_to_be_had_as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    probe = ProcessEngine().probe()
    assert not probe.works
    assert "root of this machine" in probe.reason
    assert "as an ordinary user" in probe.hint
    with pytest.raises(EngineError, match=re.escape(f"{probe.reason}. {probe.hint}")):
        registry.choose("process")


@pytest.mark.root
async def test_process_runs_nothing_as_root(spec: SandboxSpec) -> None:
    """Not even for a shim that was told to use it."""
    states: list[object] = []
    probe = ProcessEngine().probe()
    with pytest.raises(EngineError, match=re.escape(f"{probe.reason}. {probe.hint}")):
        await ProcessEngine().create(spec, states.append)
    assert states == []
    assert list(spec.state.iterdir()) == []
