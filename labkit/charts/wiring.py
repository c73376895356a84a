"""Containers on their networks: a bar for each network, a box for each container, a line where the two are connected.

Each box names the container and counts its packets; each line has the address that the container has on that network.

Leaves out: more than `NODES` containers and `NETWORKS` networks; the sentence beside the picture names them all.
See: `labkit.engine.wiring`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from labkit.charts import theme
from labkit.engine.wiring import Wiring

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["NETWORKS", "NODES", "WiringChart", "describe", "draw"]

NODES, NETWORKS = 5, 4


def describe(wiring: Wiring) -> str:
    """Return the picture in words."""
    if not wiring.nodes:
        return "No container is running."
    said = []
    for node in wiring.nodes:
        where = ", ".join(f"{address} on {name}" for name, address in node.addresses.items()) or "no network"
        said.append(f"{node.name} has {where}; {node.received_packets} packets in, {node.sent_packets} out")
    return ". ".join(said) + "."


def draw(ax: Axes, wiring: Wiring) -> None:
    """Draw one state."""
    with theme.context():
        _Picture(ax).update(wiring)


class WiringChart:
    """The picture for `labkit.widgets.LiveView`."""

    def setup(self, figure: Figure) -> Sequence[Artist | Iterable[Artist]]:
        """Make bars, boxes and lines, all empty."""
        self._picture = _Picture(figure.add_subplot())
        return self._picture.artists

    def update(self, sample: Wiring) -> bool:
        """Show who is connected with what."""
        self._picture.update(sample)
        return False


class _Picture:
    def __init__(self, axes: Any) -> None:
        from matplotlib.patches import Rectangle

        axes.set_axis_off()
        axes.set_xlim(-0.85, NODES + 0.05)
        axes.set_ylim(NETWORKS + 1.55, -0.05)
        self._boxes = [axes.add_patch(Rectangle((n + 0.1, 0.05), 0.8, 0.8, linewidth=1.6)) for n in range(NODES)]
        self._names = [axes.text(n + 0.5, 0.32, "", ha="center", va="center", weight="bold") for n in range(NODES)]
        self._counts = [axes.text(n + 0.5, 0.65, "", ha="center", va="center", fontsize=8) for n in range(NODES)]
        self._bars = [axes.plot([0, NODES], [row + 1.7, row + 1.7], linewidth=5)[0] for row in range(NETWORKS)]
        self._labels = [axes.text(-0.06, row + 1.7, "", ha="right", va="center", fontsize=9) for row in range(NETWORKS)]
        self._lines = [axes.plot([], [], linewidth=1.6, marker="o", markersize=5)[0] for _ in range(NODES * NETWORKS)]
        # On paper of their own: the line to another network may pass behind them.
        paper = {"facecolor": theme.PAPER, "edgecolor": "none", "pad": 0.6}
        self._addresses = [
            axes.text(0, 0, "", ha="left", fontsize=8, bbox=paper, zorder=5) for _ in range(NODES * NETWORKS)
        ]
        self.artists: list[list[Any]] = [
            self._boxes, self._names, self._counts, self._bars, self._labels, self._lines, self._addresses,
        ]  # fmt: skip

    def update(self, wiring: Wiring) -> None:
        networks, nodes = list(wiring.networks.items())[:NETWORKS], wiring.nodes[:NODES]
        container, host = theme.look("container").colour, theme.look("host").colour
        for row in range(NETWORKS):
            there = row < len(networks)
            self._bars[row].set_color(host if there else theme.PAPER)
            self._labels[row].set_text(f"{networks[row][0]}\n{networks[row][1]}" if there else "")
        for column in range(NODES):
            node = nodes[column] if column < len(nodes) else None
            self._boxes[column].set_edgecolor(container if node else theme.FAINT)
            self._boxes[column].set_facecolor(theme.PAPER)
            self._boxes[column].set_linestyle("-" if node else ":")
            self._names[column].set_text(node.name[:14] if node else "")
            self._counts[column].set_text(f"{node.received_packets} in, {node.sent_packets} out" if node else "")
            for row in range(NETWORKS):
                address = node.addresses.get(networks[row][0], "") if node and row < len(networks) else ""
                self._connect(column, row, address, container)

    def _connect(self, column: int, row: int, address: str, colour: str) -> None:
        index = column * NETWORKS + row
        line, text = self._lines[index], self._addresses[index]
        # Beside each other, so that the lines of one container do not cover each other.
        x, y = column + 0.25 + 0.16 * row, row + 1.7
        line.set_data([x, x] if address else [], [0.85, y] if address else [])
        line.set_color(colour)
        text.set_text(address)
        text.set_position((x + 0.04, y - 0.12))
