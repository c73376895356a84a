"""What belongs to a cell ends when the cell is run again or was deleted."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from labkit.widgets import cells


class Shell:
    """IPython's shell, as far as it is asked: events, and the request being served."""

    def __init__(self) -> None:
        self.handlers: list[Callable[[Any], None]] = []
        self.metadata: dict[str, Any] = {}
        self.events = SimpleNamespace(register=lambda name, handler: self.handlers.append(handler))

    def get_parent(self) -> dict[str, Any]:
        """Return the request."""
        return {"metadata": self.metadata}

    def run(self, cell: str | None, *, deleted: tuple[str, ...] = ()) -> None:
        """Begin to run ``cell``, as a front end asks for it."""
        self.metadata = {"cellId": cell, "deletedCells": list(deleted)} if cell else {}
        for handler in self.handlers:
            handler(SimpleNamespace(cell_id=cell))


class Thing:
    """Something with an end."""

    closed = 0

    def close(self) -> None:
        """Count the end."""
        self.closed += 1


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch) -> Iterator[Shell]:
    """Return a shell that `labkit.widgets.cells` takes for the real one."""
    made = Shell()
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: made))  # type: ignore[arg-type]
    monkeypatch.setattr(cells, "_watched", [])
    monkeypatch.setattr(cells, "_kept", {})
    yield made


def test_it_is_closed_once_when_its_cell_runs_again_and_not_by_other_cells(shell: Shell) -> None:
    shell.run("one")
    thing = Thing()
    cells.close_with_cell(thing)
    shell.run("two")
    assert thing.closed == 0
    shell.run("one")
    shell.run("one")
    assert thing.closed == 1


def test_it_is_closed_when_any_cell_runs_after_its_own_was_deleted(shell: Shell) -> None:
    shell.run("one")
    first, second = Thing(), Thing()
    cells.close_with_cell(first)
    cells.close_with_cell(second)
    shell.run("three", deleted=("two", "one"))
    assert (first.closed, second.closed) == (1, 1)
    assert len(shell.handlers) == 1, "one handler serves them all"


def test_what_was_closed_otherwise_is_forgotten(shell: Shell) -> None:
    shell.run("one")
    thing = Thing()
    cells.close_with_cell(thing)
    cells.forget(thing)
    shell.run("one")
    assert thing.closed == 0 and cells._kept == {}


def test_where_cells_have_no_names_nothing_is_kept(shell: Shell) -> None:
    shell.run(None)
    cells.close_with_cell(Thing())
    assert cells._kept == {} and cells.current_cell() is None
