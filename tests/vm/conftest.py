"""The fake machine of the set-up's tests, for the set-up of virtual machines."""

from __future__ import annotations

from tests.setup.conftest import machine, step

__all__ = ["machine", "step"]
