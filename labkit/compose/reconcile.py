"""The loop: look, compare, repair, again and again. What is desired is written down; what is there is made to follow.

::

          +--> look ---> compare ---> act --+
          |                                 |
          +------- wait for an event <------+

A container that was killed comes back, one too many goes, one that somebody changed is made anew, without anybody saying how: the
file says what. An update is a new file; `Reconciler.update` rolls it out and, if a container does not become well, rolls it back.

Leaves out: what Kubernetes adds: many machines and a scheduler, controllers of controllers, a store of what is desired that outlives them.
See: Docker Engine API 1.44, SystemEvents.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Event

from docker.api.client import APIClient

from labkit.compose.actual import Actual, read_actual
from labkit.compose.apply import Applier, ComposeError, image_ids
from labkit.compose.model import Project
from labkit.compose.plan import Action, plan_down, plan_up
from labkit.errors import DeadlineExceeded, InvalidState, LabkitError

__all__ = ["Reconciler"]

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Reconciler:
    """Keeps one project as its file wants it. ``say`` is told what is done; ``history`` holds the projects before this one."""

    api: APIClient
    project: Project
    say: Callable[[str], None] = lambda _: None
    wait_s: float = 60.0
    history: list[Project] = field(default_factory=list)
    stop: Event = field(default_factory=Event)

    def actual(self) -> Actual:
        """Return what there is now. Raises: docker.errors.APIError."""
        return read_actual(self.api, self.project.name)

    def drift(self) -> list[Action]:
        """Return what differs now, as the actions that would repair it; images are not made for this."""
        return plan_up(self.project, self.actual(), image_ids(self.api, self.project), remove_orphans=True)

    def step(self) -> list[Action]:
        """Repair what differs now, and return what was done. Raises: ComposeError, DeadlineExceeded."""
        images = image_ids(self.api, self.project, say=self.say)
        actions = plan_up(self.project, self.actual(), images, remove_orphans=True)
        return Applier(self.api, self.project, images, say=self.say, wait_s=self.wait_s, stop=self.stop).apply(actions)

    def run(self, *, every_s: float = 1.0) -> None:
        """Repair until `stop` is set, looking once in ``every_s``; a step that fails is said and tried again."""
        while not self.stop.is_set():
            try:
                self.step()
            except LabkitError as error:
                self.say(f"not yet: {error}")
            self.stop.wait(every_s)

    def update(self, project: Project, *, build: bool = False) -> list[Action]:
        """Make ``project`` the desired one, replica by replica; if that fails, go back to the one before.

        Raises: ComposeError, DeadlineExceeded saying why it failed, after everything is as it was.
        """
        if project.name != self.project.name:
            raise InvalidState(f"{project.name} is another project than {self.project.name}: start it beside it.")
        before = self.project
        image_ids(self.api, project, build=build, say=self.say)
        self.project = project
        try:
            done = self.step()
        except (ComposeError, DeadlineExceeded) as error:
            self.say(f"rolling back: {error}")
            self.project = before
            self.step()
            raise
        self.history.append(before)
        return done

    def roll_back(self) -> list[Action]:
        """Make the project before this one the desired one again. Raises: InvalidState if there was none."""
        if not self.history:
            raise InvalidState(f"{self.project.name} has not been updated: there is nothing to go back to.")
        self.project = self.history.pop()
        return self.step()

    def down(self, *, volumes: bool = False) -> list[Action]:
        """End the loop and take the project down. Raises: ComposeError."""
        self.stop.set()
        return Applier(self.api, self.project, {}, say=self.say).apply(
            plan_down(self.project, self.actual(), volumes=volumes)
        )
