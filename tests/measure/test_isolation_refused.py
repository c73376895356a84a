"""What the launcher is refused while a namespace is probed is an error that says so."""

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


def test_a_refusal_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_at("make a time namespace", monkeypatch)
    with pytest.raises(SetupError, match="could not do it"):
        probe_isolation(NS.TIME)
