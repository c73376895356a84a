"""The build cache at work: change a file of the context, build, and see which steps are done again, and why.

Every Containerfile of the view is built on the same change, one after the other, so that good and bad orders can be compared. The
changes are made to real files of the context folder, and the builds are real ones.

See: `labkit.charts.build_cache`, `labkit.image.build.cache`.
"""

from __future__ import annotations

import itertools
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from labkit.charts.build_cache import BuildsChart
from labkit.errors import LabkitError
from labkit.image.store import ImageStore
from labkit.measure.builds import BuildRun, build_run
from labkit.widgets import layout
from labkit.widgets.live import LiveView

__all__ = ["NOTHING", "build_cache", "describe"]

#: The choice that changes no file.
NOTHING = "nothing"
_ROW_IN = 0.3
_FRAMES_PER_S = 2.0


def build_cache(
    store: ImageStore, context: Path, containerfiles: Sequence[str], *, files: Sequence[str]
) -> LiveView[Sequence[BuildRun]]:
    """Return a view that builds each of ``containerfiles`` (names in ``context``) after a change to one of ``files``.

    The first builds are made at once. Raises: BuildError, ContainerfileError.
    """
    operator = _Operator(store, context, containerfiles, files)
    rows = sum(len(run.steps) + 2 for run in operator.runs)
    view = LiveView(
        operator.look,
        BuildsChart(),
        title="the build cache at work",
        alt="A bar for each step of each build, as long as the step took; steps from the cache have none",
        describe=describe,
        controls=operator.controls,
        size_in=(9.4, 1.0 + _ROW_IN * rows),
        frames_per_s=_FRAMES_PER_S,
    )
    operator.view = weakref.ref(view)
    return view


def describe(runs: Sequence[BuildRun]) -> str:
    """Return the picture in words."""
    return " ".join(_describe(run) for run in runs) or "Nothing has been built yet."


def _describe(run: BuildRun) -> str:
    if not run.done:
        return f"{run.name}: all {len(run.steps)} steps came from the cache, in {run.elapsed_s:.2f} s."
    first = run.done[0]
    return f"{run.name}: {len(run.done)} of {len(run.steps)} steps were done, in {run.elapsed_s:.2f} s; the first was {first.text.split()[0]}, because {first.why or 'it had to be'}."


class _Operator:
    """The controls, and what they do; knows its view weakly."""

    def __init__(self, store: ImageStore, context: Path, containerfiles: Sequence[str], files: Sequence[str]) -> None:
        import ipywidgets

        self.store, self.context, self.containerfiles = store, context, containerfiles
        self.view: weakref.ref[LiveView[Any]] | None = None
        self.runs: tuple[BuildRun, ...] = ()
        self._numbers = itertools.count(1)
        self._building = threading.Lock()
        self.line = layout.status("Choose what to change, then press Build.")
        self._what = ipywidgets.Dropdown(
            options=[NOTHING, *files], description="change", tooltip="the file of the context to add a line to"
        )
        button = layout.button("Build", does="Change the file, and build every Containerfile", on_click=self.run)
        self.controls = [layout.row(self._what, button), self.line]
        self.runs = self._build_all()

    def look(self) -> Sequence[BuildRun]:
        """Return the last build of each Containerfile."""
        return self.runs

    def run(self) -> None:
        """Change the chosen file, build everything, and show it."""
        if not self._building.acquire(blocking=False):
            return  # a second click while the first one is at work
        try:
            if self._what.value != NOTHING:
                with (self.context / self._what.value).open("a") as file:
                    file.write(f"# change {next(self._numbers)}\n")
            self.runs = self._build_all()
            layout.say(self.line, f"Changed {self._what.value}. {describe(self.runs)}")
        except (LabkitError, OSError) as error:
            layout.say(self.line, f"The build failed: {error}")
        finally:
            self._building.release()
        view = self.view() if self.view is not None else None
        if view is not None:
            view.refresh()

    def _build_all(self) -> tuple[BuildRun, ...]:
        names = ((name, name.partition(".")[2].lower() or "image") for name in self.containerfiles)
        return tuple(build_run(tag, self.context, store=self.store, containerfile=name) for name, tag in names)
