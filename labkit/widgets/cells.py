"""Which notebook cell is running, and what must end when that cell is run again or deleted.

A front end does not tell the jupyter_kernel that a widget has left the page. But each request to run a cell names the cell, and
JupyterLab's requests also list the cells deleted since the last one. So a view is closed when its cell is run again, or, at the
latest, when any cell runs after its own was deleted. (A view that is deleted as the last act of a session ends by its time limit.)

Views that were made in a cell are kept alive here until then: a reader who writes no ``view =`` in front of it still sees it move.

Leaves out: front ends that name no cells (nbclient, a plain console): nothing is closed there before the process ends.
See: "Execute" in the Jupyter messaging protocol; IPython.core.events (pre_run_cell).
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable
from typing import Any, Protocol

__all__ = ["Closable", "close_with_cell", "current_cell", "forget", "running_shell"]


class Closable(Protocol):
    """What has an end."""

    def close(self) -> None:
        """End it; called at most once from here."""


_kept: dict[str, list[Closable]] = {}
_lock = threading.Lock()
_watched: list[Any] = []


def current_cell() -> str | None:
    """Return the id of the cell that is running, or None outside a notebook whose front end names its cells."""
    shell = running_shell()
    found = _request_metadata(shell).get("cellId") if shell is not None else None
    return str(found) if found else None


def close_with_cell(thing: Closable) -> None:
    """Keep ``thing`` alive until the running cell is run again or deleted, then close it; does nothing outside a cell."""
    shell, cell = running_shell(), current_cell()
    if shell is None or cell is None:
        return
    with _lock:
        if not any(known is shell for known in _watched):
            shell.events.register("pre_run_cell", _before_cell)
            _watched.append(shell)
        _kept.setdefault(cell, []).append(thing)


def forget(thing: Closable) -> None:
    """Let ``thing`` go: it was closed otherwise."""
    with _lock:
        for cell, things in list(_kept.items()):
            _kept[cell] = [kept for kept in things if kept is not thing]
            if not _kept[cell]:
                del _kept[cell]


def _before_cell(info: Any) -> None:
    """Close what belonged to the cell about to run, and to the cells that were deleted; IPython calls this."""
    deleted = _request_metadata(running_shell()).get("deletedCells") or ()
    _close_all_of([str(cell) for cell in (getattr(info, "cell_id", None), *deleted) if cell])


def _close_all_of(cells: Iterable[str]) -> None:
    with _lock:
        ended = [thing for cell in cells for thing in _kept.pop(cell, ())]
    for thing in ended:
        thing.close()


def running_shell() -> Any:
    """Return IPython's shell if this is one; IPython is not imported for the question."""
    ipython = sys.modules.get("IPython")
    return ipython.get_ipython() if ipython is not None else None


def _request_metadata(shell: Any) -> dict[str, Any]:
    """Return the metadata of the request being served: JupyterLab puts ``cellId`` and ``deletedCells`` there."""
    parent = shell.get_parent() if hasattr(shell, "get_parent") else {}
    return dict((parent or {}).get("metadata") or {})
