"""Close what matplotlib's font cache keeps open after each test."""

from __future__ import annotations

from tests.charts.fonts import fonts_are_closed

__all__ = ["fonts_are_closed"]
