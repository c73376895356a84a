"""Two pictures of what namespaces hide: windows in a wall (one process, live) and a grid (many choices side by side).

The wall stands between a process, left, and the host, right. Each probe is a window in it. A window through which the process sees the
host's is crossed by a line that ends at a filled mark on the host's side; where the process has its own, the window is walled up
and the line ends at it. The grid has the same two marks, a column for each choice of namespaces.

Leaves out: what the two sides show; a table beside the picture has the words.
See: `labkit.measure.isolation`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from labkit.charts import theme
from labkit.measure.isolation import PROBES, Isolation, IsolationMatrix, Probe

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Wall", "draw_grid", "name_of", "words_of_grid"]

_PROCESS_X, _WALL_X, _HOST_X = 0.0, 1.0, 2.0
_SHORT = {"mnt": "mount", "net": "network"}


class Wall:
    """The live picture: one row a probe, moved by an `Isolation`."""

    def __init__(self, probes: Sequence[Probe] = PROBES) -> None:
        self.probes = tuple(probes)
        self._parts: dict[str, tuple[Any, Any, Any, Any]] = {}

    def setup(self, figure: Figure) -> Sequence[Artist | Iterable[Artist]]:
        """Make the rows; the beams, the bricks, the marks on the host's side and the verdicts move."""
        axes = figure.add_subplot()
        process, host, wall = (theme.look(name) for name in ("process", "host", "namespace"))
        axes.set(xlim=(-0.12, 3.0), ylim=(len(self.probes) - 0.4, -1.5), yticks=range(len(self.probes)))
        axes.set_yticklabels([probe.title for probe in self.probes])
        axes.set_xticks([])
        axes.grid(visible=False)
        axes.tick_params(length=0)
        for side in axes.spines.values():
            side.set_visible(False)
        axes.set_title("What a process inside can see of the host")
        for x, text in ((_PROCESS_X, "process"), (_WALL_X, "namespaces"), (_HOST_X, "host")):
            axes.text(x, -0.95, text, ha="center", va="center", fontsize=9, fontweight="bold")
        for row, probe in enumerate(self.probes):
            axes.plot(
                [_WALL_X], [row], marker="s", markersize=13, color=theme.FAINT, markerfacecolor=theme.PAPER, zorder=1
            )
            axes.plot([_PROCESS_X], [row], color=process.colour, marker=process.marker, markersize=6, zorder=3)
            (beam,) = axes.plot([], [], color=process.colour, linewidth=2.2, zorder=2)
            (brick,) = axes.plot([], [], color=wall.colour, marker="s", markersize=13, linestyle="", zorder=3)
            (mark,) = axes.plot([_HOST_X], [row], color=host.colour, marker=host.marker, markersize=8, zorder=3)
            words = axes.text(_HOST_X + 0.12, row, "", va="center", fontsize=9)
            self._parts[probe.name] = (beam, brick, mark, words)
        return [list(parts) for parts in self._parts.values()]

    def update(self, sample: Isolation) -> bool:
        """Open or wall up each window."""
        found = {finding.probe: finding for finding in sample.findings}
        for row, probe in enumerate(self.probes):
            beam, brick, mark, words = self._parts[probe.name]
            finding = found.get(probe.name)
            sees = None if finding is None else finding.sees_host
            beam.set_data(([_PROCESS_X, _HOST_X if sees else _WALL_X], [row, row]) if sees is not None else ([], []))
            brick.set_data(([_WALL_X], [row]) if sees is False else ([], []))
            mark.set_fillstyle("full" if sees else "none")
            words.set_text("not probed" if sees is None else "sees the host's" if sees else "has its own")
        return False


def draw_grid(axes: Axes, matrix: IsolationMatrix) -> None:
    """Draw a column for each choice: a filled square where the host's is seen, an empty ring where the process has its own."""
    host, wall = theme.look("host"), theme.look("namespace")
    rows = [finding.title for finding in matrix.columns[0].findings] if matrix.columns else []
    with theme.context():
        for x, column in enumerate(matrix.columns):
            for y, finding in enumerate(column.findings):
                if finding.sees_host is None:
                    axes.plot(x, y, marker="x", color=theme.INK, markersize=6, linestyle="")
                elif finding.sees_host:
                    axes.plot(x, y, marker=host.marker, color=host.colour, markersize=9, linestyle="")
                else:
                    axes.plot(x, y, marker="o", color=wall.colour, markerfacecolor="none", markersize=9, markeredgewidth=2, linestyle="")  # fmt: skip
        axes.set(xlim=(-0.6, len(matrix.columns) - 0.4), ylim=(len(rows) - 0.5, -0.5))
        axes.set_xticks(range(len(matrix.columns)), [name_of(column) for column in matrix.columns])
        axes.set_yticks(range(len(rows)), rows)
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
        axes.grid(visible=False)
        axes.set_title(_grid_title(matrix))
        axes.set_xlabel("■ sees the host's      ○ has its own      × not probed here")


def _grid_title(matrix: IsolationMatrix) -> str:
    """Return the finding: with a machine among the columns, what only it has."""
    machine = next((column for column in matrix.columns if column.place), None)
    if machine is None:
        return "Each kind of namespace hides its own thing"
    others = {f.probe for column in matrix.columns if not column.place for f in column.findings if f.sees_host is False}
    only = [f.title for f in machine.findings if f.sees_host is False and f.probe not in others]
    return (
        f"Only the machine has its own: {', '.join(only)}"
        if only
        else "The machine has nothing that namespaces have not"
    )


def name_of(column: Isolation) -> str:
    """Return a short heading: ``none``, ``pid``, ``pid+mount``, ``all`` namespaces, or the machine's name."""
    if column.place:
        return column.place
    names = [_SHORT.get(name, name) for name in column.namespaces]
    return "none" if not names else "all" if len(names) >= 7 else "+".join(names)


def words_of_grid(matrix: IsolationMatrix) -> str:
    """Return what `draw_grid` shows as sentences, for its alternative text."""
    parts = []
    for column in matrix.columns:
        own = [finding.title for finding in column.findings if finding.sees_host is False]
        parts.append(f"{name_of(column)}: {', '.join(own) if own else 'everything of the host is seen'}")
    return "Grid of what a process has for its own, by the namespaces it is in. " + "; ".join(parts) + "."
