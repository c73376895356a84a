"""matplotlib keeps the font files that a thread has used open, up to 64 of them: a cache, which looks like a leak."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def fonts_are_closed() -> Iterator[None]:
    """Empty that cache after the test."""
    yield
    from matplotlib import font_manager

    cached = getattr(font_manager, "_get_font", None)
    if cached is not None:
        cached.cache_clear()
