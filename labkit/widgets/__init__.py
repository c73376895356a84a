"""Live views: controls and a picture that moves, over charts and measurements that live elsewhere.

Read in this order: `layout` (labelled controls, rows, status lines), `live` (a thread that draws, and everything that stops it).

Leaves out: JavaScript of our own: what is used here is what ipywidgets brings, so it works wherever ipywidgets do.
"""

from __future__ import annotations

from labkit.widgets.live import LiveView

__all__ = ["LiveView"]
