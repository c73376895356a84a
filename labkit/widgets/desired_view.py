"""A controller at work: choose what is wanted, kill what there is, and watch the one follow the other.

While the view runs, each frame is one turn of the loop: look, compare, repair. Stopped, it only looks; then a killed replica stays dead.

Leaves out: several projects.
See: `labkit.compose.reconcile`, `labkit.charts.desired`.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import replace

from labkit.charts.desired import ROWS, DesiredChart
from labkit.compose.apply import image_ids
from labkit.compose.reconcile import Reconciler
from labkit.compose.states import States, states_of
from labkit.errors import LabkitError
from labkit.widgets import layout
from labkit.widgets.live import LiveView

__all__ = ["describe", "desired_view"]


def desired_view(reconciler: Reconciler, service: str, versions: Mapping[str, Mapping[str, str]]) -> LiveView[States]:
    """Return the view of one service: a slider for its replicas, a choice among ``versions`` (name: environment), a button that kills.

    Raises: InvalidSpec, docker.errors.APIError.
    """
    controller = _Controller(reconciler, service, versions)
    view = LiveView(
        controller.take,
        DesiredChart(),
        title="desired and actual state",
        alt="Two columns of boxes, a row for each replica: what the file wants, and what there is",
        describe=describe,
        controls=controller.controls,
        size_in=(7.2, 3.2),
        frames_per_s=2.0,
    )
    controller.view = weakref.ref(view)
    return view


def describe(states: States) -> str:
    """Return the picture in words."""
    wanted = sum(replica.wanted for replica in states.replicas)
    settled = sum(replica.settled for replica in states.replicas)
    if states.settled:
        return f"{wanted} wanted, {settled} there: nothing to do."
    amiss = [replica.name for replica in states.replicas if not replica.settled]
    return f"{wanted} wanted, {settled} as they should be. Not yet: {', '.join(amiss)}."


class _Controller:
    """The controls and the loop behind the view; knows its view weakly."""

    def __init__(self, reconciler: Reconciler, service: str, versions: Mapping[str, Mapping[str, str]]) -> None:
        self.view: weakref.ref[LiveView[States]] | None = None
        self._reconciler, self._service, self._versions = reconciler, service, versions
        replicas = reconciler.project.services[service].replicas
        self.slider = layout.slider("replicas", unit="count", low=1, high=ROWS, value=replicas)
        self.choice = layout.dropdown("version", does="Which version is wanted", options=list(versions))
        self.kill = layout.button("Kill one", does="Kill one container from outside", on_click=self._kill_one)
        self.controls = [self.slider, layout.row(self.choice, self.kill)]

    def take(self) -> States:
        """Repair if the view runs; return what is wanted and what there is."""
        self._read_controls()
        view = self.view() if self.view is not None else None
        if view is not None and view.running:
            try:
                self._reconciler.step()
            except LabkitError as error:
                view.stop(reason=str(error))
        images = image_ids(self._reconciler.api, self._reconciler.project)
        return states_of(self._reconciler.project, self._reconciler.actual(), images)

    def _read_controls(self) -> None:
        project = self._reconciler.project
        service = project.services[self._service]
        environment = {**service.environment, **self._versions[self.choice.value]}
        wanted = replace(service, replicas=self.slider.value, environment=environment)
        self._reconciler.project = replace(project, services={**project.services, self._service: wanted})

    def _kill_one(self) -> None:
        for found in self._reconciler.actual().of(self._service).values():
            if found.state == "running":
                self._reconciler.api.kill(found.id)
                break
        view = self.view() if self.view is not None else None
        if view is not None and not view.running:
            view.refresh()
