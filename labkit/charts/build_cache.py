"""The build cache at work: one bar a step, as long as the step took; a step from the cache has none, and every other says why.

Several builds stand one above the other on one time axis, so that a Containerfile with a good order of instructions can be compared with one
with a bad order.

See: `labkit.measure.builds`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from labkit.charts import theme
from labkit.measure.builds import BuildRun, BuildStep

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["BuildsChart", "draw", "finding", "words_for"]

_LONGEST_TEXT = 34
_LONGEST_WORDS = 44
_GAP = 0.8
#: Bars begin at zero and end here at least, so that a build of some milliseconds does not look like a long one.
_LEAST_S = 0.5
#: Room right of the longest bar for its words, as a share of the axis.
_ROOM = 1.9


def finding(runs: Sequence[BuildRun]) -> str:
    """Return what the builds show, as a title."""
    if not runs:
        return "No build yet"
    if len(runs) == 1:
        run = runs[0]
        return f"{run.name}: {len(run.steps) - len(run.done)} of {len(run.steps)} steps came from the cache ({run.elapsed_s:.2f} s)"
    said = ", ".join(f"{run.name} {run.elapsed_s:.2f} s" for run in runs)
    return f"The same change, {len(runs)} orders of instructions: {said}"


def words_for(step: BuildStep) -> str:
    """Return what is written beside a step's bar."""
    if step.cached:
        return "cached"
    words = f"{step.elapsed_s:.2f} s: {step.why}" if step.why else f"{step.elapsed_s:.2f} s"
    return words if len(words) <= _LONGEST_WORDS else f"{words[: _LONGEST_WORDS - 1]}…"


def draw(ax: Axes, runs: Sequence[BuildRun]) -> None:
    """Draw the builds, the first on top."""
    with theme.context():
        ax.clear()
        places, labels, at = [], [], 0.0
        longest_s = max([_LEAST_S, *(step.elapsed_s for run in runs for step in run.done)])
        for run in runs:
            ax.text(0, at - 0.1, f" {run.name}", fontsize=9, weight="bold", va="center")
            at += 1
            for step in run.steps:
                look = theme.look("host" if step.cached else "container")
                length_s = 0.0 if step.cached else step.elapsed_s
                ax.barh([at], [length_s], height=0.6, **look.bar_keywords)
                ax.text(length_s, at, f"  {words_for(step)}", fontsize=8.5, va="center")
                places.append(at)
                labels.append(_short(step.text))
                at += 1
            at += _GAP
        ax.set_ylim(at if runs else 1, -0.8)
        ax.set_xlim(0, longest_s * _ROOM)
        ax.set_yticks(places, labels, fontsize=8.5)
        ax.grid(visible=False, axis="y")
        theme.label_axes(ax, title=finding(runs), x="time of the step (s)", y=None)


class BuildsChart:
    """The picture for `labkit.widgets.LiveView`; a sample is a sequence of builds."""

    def setup(self, figure: Figure) -> Sequence[Artist | Iterable[Artist]]:
        """Make the axes; everything in them is drawn anew after each build."""
        self._axes: Any = figure.add_subplot()
        self._shown: Sequence[BuildRun] | None = None
        return []

    def update(self, sample: Sequence[BuildRun]) -> bool:
        """Draw the builds if there are new ones; say that the whole picture has to be redrawn."""
        if sample == self._shown:
            return False
        draw(self._axes, sample)
        self._shown = tuple(sample)
        return True


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else f"{text[: _LONGEST_TEXT - 1]}…"
