"""The layer stack: choose a container and a file operation, and see which layer changed.

The operations are shell commands that run inside the containers, as any cell may run others; the picture is what
`labkit.measure.layers` reads from outside, so it follows whatever changes the files, this view or not.

Leaves out: starting afresh (run the cells that made the containers again).
See: `labkit.charts.layers`, Documentation/filesystems/overlayfs.rst in Linux.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import Any

from labkit.charts.layers import LayerChart, files_of
from labkit.container.container import Container
from labkit.errors import InvalidSpec, LabkitError
from labkit.measure.layers import Layer, Stack, changed_between, look_at_stack
from labkit.widgets import layout
from labkit.widgets.live import LiveView

__all__ = ["OPERATIONS", "layer_stack", "tell"]

#: What the view offers to do, in the shell's own words; the lesson's layers have these files.
OPERATIONS = (
    "cat /etc/motd",
    "echo changed > /etc/motd",
    "echo made > /srv/new",
    "rm /srv/old",
    "mv /srv/page /srv/index",
    "chmod 600 /data/a",
    "rm -r /data && mkdir /data",
)
_TIMEOUT_S = 10.0
#: Files change when somebody changes them: two looks a second are enough.
_FRAMES_PER_S = 2.0


def layer_stack(
    containers: Mapping[str, Container], paths: Sequence[str], *, operations: Sequence[str] = OPERATIONS
) -> LiveView[Sequence[Stack]]:
    """Return a view of running ``containers`` (by the names to show) that stand on the same lower layers, at ``paths``.

    It does not own them: close it before they end. Raises: InvalidSpec without containers or with different lower layers.
    """
    if len({container.spec.rootfs.lowers for container in containers.values()}) != 1:
        raise InvalidSpec("The layer stack shows one or more containers that stand on the same lower layers.")
    operator = _Operator(containers, paths, operations)
    lowers = next(iter(containers.values())).spec.rootfs.lowers
    chart = LayerChart(
        containers=len(containers), lowers=len(lowers), title="A container writes only into its own upper layer"
    )
    view = LiveView(
        operator.look,
        chart,
        title="layer stack, file by file",
        alt="A grid: a column for each file, a row for each layer and for what each container sees",
        describe=describe,
        controls=operator.controls,
        size_in=(9.4, chart.height_in),
        frames_per_s=_FRAMES_PER_S,
    )
    operator.view = weakref.ref(view)
    return view


def describe(stacks: Sequence[Stack]) -> str:
    """Return the picture in words: what each container sees, and what its writable layer holds."""
    return " ".join(_describe(stack, files_of(stacks)) for stack in stacks)


def tell(command: str, printed: str, before: Sequence[Stack], after: Sequence[Stack]) -> str:
    """Return what ``command`` did to the layers, by comparing looks before and after; the first stack is where it ran."""
    name, upper = after[0].name, changed_between(before[0].upper, after[0].upper)
    did = f"in its upper layer, {'; '.join(upper)}" if upper else "its upper layer did not change"
    lowers = zip(before[0].layers[1:], after[0].layers[1:], strict=True)
    broken = [new.name for old, new in lowers if changed_between(old, new.at(before[0].paths))]
    lower = f"CHANGED: {', '.join(broken)}" if broken else "no lower layer changed"
    others = [
        f"{new.name} sees {'what it saw' if all(old.sees(path) == new.sees(path) for path in old.paths) else 'a change'}"
        for old, new in zip(before[1:], after[1:], strict=True)
    ]
    said = f", which printed {printed!r}" if printed else ""
    return f"{name} ran `{command}`{said}: {'; '.join([did, lower, *others])}."


class _Operator:
    """The controls, and what they do; knows its view weakly."""

    def __init__(self, containers: Mapping[str, Container], paths: Sequence[str], operations: Sequence[str]) -> None:
        import ipywidgets

        self.containers, self.paths = dict(containers), paths
        self.view: weakref.ref[LiveView[Any]] | None = None
        self.line = layout.status("Choose a container and an operation, then press Run.")
        self._where = ipywidgets.Dropdown(options=list(containers), description="container", tooltip="where it runs")
        self._what = ipywidgets.Dropdown(
            options=list(operations),
            description="operation",
            tooltip="the shell command to run inside",
            layout={"width": "24em"},
        )
        run = layout.button("Run", does="Run the operation inside the container", on_click=self.run)
        self.controls = [layout.row(self._where, self._what, run), self.line]

    def look(self) -> list[Stack]:
        """Return all stacks as they are now, at the same paths: what one container made is looked for in all."""
        stacks = self._look_at(self.paths)
        paths = list(dict.fromkeys(path for stack in stacks for path in stack.paths))
        return stacks if len(paths) == len(self.paths) else self._look_at(paths)

    def _look_at(self, paths: Sequence[str]) -> list[Stack]:
        return [look_at_stack(container, paths, name=name) for name, container in self.containers.items()]

    def run(self) -> None:
        """Run the chosen operation in the chosen container, and say what changed."""
        name, command = self._where.value, self._what.value
        try:
            before = self._look_from(name)
            with self.containers[name].exec(["/bin/sh", "-c", command]) as process:
                done = process.communicate(timeout_s=_TIMEOUT_S)
            printed = (done.text + done.stderr.decode(errors="replace")).strip()
            layout.say(self.line, tell(command, printed, before, self._look_from(name)))
        except (LabkitError, OSError) as error:
            layout.say(self.line, f"{name} did not run `{command}`: {error}")
            return
        view = self.view() if self.view is not None else None
        if view is not None:
            view.refresh()

    def _look_from(self, name: str) -> list[Stack]:
        """Return all stacks, that of container ``name`` first."""
        return sorted(self.look(), key=lambda stack: stack.name != name)


def _describe(stack: Stack, files: Sequence[str]) -> str:
    seen = [path for path in files if stack.sees(path) is not None]
    return f"{stack.name} sees {', '.join(seen) or 'none of these files'}; its upper layer holds {_holds(stack.upper, files)}."


def _holds(upper: Layer, files: Sequence[str]) -> str:
    held = [f"{entry.path} ({entry.kind})" for entry in upper.entries if entry.path in files]
    return ", ".join(held) or "nothing"
