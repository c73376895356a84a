"""The course's drawn pictures, one module each, and what writes them: ``python -m labkit.charts.drawings``.

Read in this order: `sheet` (boxes, words, arrows), then any of the pictures. Each has one function, ``draw()``, that returns a sheet.

Leaves out: figures of measurements; those are drawn by `labkit.charts` from results.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from labkit.charts.drawings.sheet import Sheet

__all__ = ["PICTURES", "Sheet", "drawn", "write_all"]

#: In the order in which the lessons show them.
PICTURES = ("vm_and_container", "two_mechanisms", "layers", "clone", "daemon", "network", "registry", "reconcile")


def drawn(name: str) -> Sheet:
    """Return the picture ``name``. Raises: ModuleNotFoundError if there is none of that name."""
    sheet = import_module(f"{__name__}.{name}").draw()
    if not isinstance(sheet, Sheet):
        raise TypeError(f"draw() of {name} returned {sheet!r}, not a Sheet.")
    return sheet


def write_all(folder: Path) -> list[Path]:
    """Write every picture into ``folder`` and return the paths of those that changed."""
    changed = []
    for name in PICTURES:
        path, text = folder / f"{name}.svg", drawn(name).svg()
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            changed.append(path)
    return changed
