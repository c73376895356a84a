"""Before Linux 6.3 a time namespace gets no offset here: the clock is then unknown, and everything else is probed."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from labkit.container import Namespaced
from labkit.errors import SetupError
from labkit.linux.constants import NS
from labkit.measure.isolation import probe_isolation
from tests.support import requires

pytestmark = requires("userns", "timens")


def refuse_at(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every start with a clock offset fail at ``step``."""
    start: Any = Namespaced.start

    def refused(process: Namespaced) -> None:
        if process.spec.time_offset_s:
            raise SetupError("labkit could not do it.", step=step, errno=errno.EACCES)
        start(process)

    monkeypatch.setattr(Namespaced, "start", refused)


def test_without_offsets_the_clock_is_unknown_and_the_note_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_at("set the clock offsets", monkeypatch)
    found = probe_isolation(NS.TIME | NS.UTS)
    clock = found.finding("clock")
    assert clock.sees_host is None and clock.inside == "no offset could be given"
    assert "no offset" in found.note
    assert found.finding("hostname").sees_host is False and found.finding("interfaces").sees_host is True


def test_another_refusal_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_at("make a time namespace", monkeypatch)
    with pytest.raises(SetupError, match="could not do it"):
        probe_isolation(NS.TIME)
