"""Carrying a plan out, action by action, through the Docker API of whatever engine listens.

A container that is made anew comes after the old one has been stopped and removed, because the two would share a name and ports. Where
the service has a health check, the next replica is touched only when this one is well again: that is a rolling update.

See: Docker Engine API 1.44; `labkit.compose.plan`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from threading import Event

from docker.api.client import APIClient
from docker.errors import APIError, BuildError, ImageNotFound, NotFound

from labkit.compose.actual import read_actual
from labkit.compose.containers import PROJECT, body_of, container_name
from labkit.compose.model import Build, Network, Project, Service
from labkit.compose.plan import Action
from labkit.errors import DeadlineExceeded, InvalidState, LabkitError

__all__ = ["Applier", "ComposeError", "image_ids"]

_LOOK_EVERY_S = 0.1


class ComposeError(LabkitError):
    """The engine refused an action, or a container did not become what was waited for."""


def image_ids(
    api: APIClient,
    project: Project,
    *,
    build: bool = False,
    pull: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, str]:
    """Return the id of each service's image; one that is missing is built or pulled. Raises: ComposeError."""
    found = {}
    for name, service in project.services.items():
        image_id = None if (build and service.build) or (pull and not service.build) else _image_id(api, service.image)
        if image_id is None:
            if service.build is not None:
                say(f"building {service.image}")
                _build(api, service.image, service.build, say)
            else:
                say(f"pulling {service.image}")
                _pull(api, service.image)
            image_id = _image_id(api, service.image)
        if image_id is None:
            raise ComposeError(
                f"The engine has no image {service.image!r} for the service {name}, although it was asked to get it."
            )
        found[name] = image_id
    return found


def _image_id(api: APIClient, name: str) -> str | None:
    try:
        return str(api.inspect_image(name)["Id"])  # type: ignore[no-untyped-call]
    except ImageNotFound:
        return None


def _build(api: APIClient, name: str, build: Build, say: Callable[[str], None]) -> None:
    if not Path(build.context).is_dir():
        raise ComposeError(f"{build.context}, the build context of {name}, is no folder.")
    try:
        for message in api.build(
            path=build.context, dockerfile=build.dockerfile, tag=name, buildargs=dict(build.args), target=build.target, rm=True, decode=True
        ):  # fmt: skip
            if "error" in message:
                raise ComposeError(f"{name} could not be built: {str(message['error']).strip()}.")
            if text := str(message.get("stream", "")).strip():
                say(f"  {text}")
    except (APIError, BuildError, TypeError, OSError) as error:
        raise ComposeError(f"{name} could not be built: {error}.") from error


def _pull(api: APIClient, name: str) -> None:
    try:
        for message in api.pull(name, stream=True, decode=True):
            if "error" in message:
                raise ComposeError(f"{name} could not be pulled: {message['error']}.")
    except APIError as error:
        raise ComposeError(f"{name} could not be pulled: {error.explanation or error}.") from error


class Applier:
    """Does what plans say, for one project; ``say`` is told of each action before it is done."""

    def __init__(
        self, api: APIClient, project: Project, images: Mapping[str, str], *, say: Callable[[str], None] = lambda _: None,
        wait_s: float = 60.0, stop: Event | None = None,
    ) -> None:  # fmt: skip
        self.api = api
        self.project = project
        self.images = images
        self._say = say
        self._wait_s = wait_s
        self._stop = stop or Event()

    def apply(self, actions: Iterable[Action]) -> list[Action]:
        """Do ``actions`` in order and return those that were done (all, unless ``stop`` is set meanwhile).

        Raises: ComposeError with the action that the engine refused; what was done before stays done, and the next plan goes on there.
        """
        done = []
        for action in actions:
            if self._stop.is_set():
                break
            self._say(str(action))
            try:
                self._do(action)
            except APIError as error:
                raise ComposeError(
                    f"The engine refused to {action.kind} {action.name}: {error.explanation or error}"
                ) from error
            done.append(action)
        return done

    def _do(self, action: Action) -> None:
        if action.kind == "create network":
            self._create_network(next(net for net in self.project.networks.values() if net.name == action.name))
        elif action.kind == "create volume":
            self.api.create_volume(action.name, labels={PROJECT: self.project.name})
        elif action.kind == "wait for":
            self.wait_for(action.service, action.condition)
        elif action.kind in ("create", "recreate"):
            service = self.project.services[action.service]
            if action.kind == "recreate":
                self._remove(action.container_id, service)
            self._create(service, action.number)
        elif action.kind == "start":
            self.api.start(action.container_id)
        elif action.kind == "remove":
            self._remove(action.container_id, self.project.services.get(action.service))
        elif action.kind == "remove network":
            self.api.remove_network(action.name)
        else:
            self.api.remove_volume(action.name)

    def _create_network(self, network: Network) -> None:
        ipam = None
        if network.subnet:
            pool = {"Subnet": network.subnet} | ({"Gateway": network.gateway} if network.gateway else {})
            ipam = {"Driver": "default", "Config": [pool], "Options": None}
        labels = {PROJECT: self.project.name}
        self.api.create_network(network.name, driver="bridge", ipam=ipam, internal=network.internal, labels=labels)  # type: ignore[arg-type]

    def _create(self, service: Service, number: int) -> None:
        body = body_of(self.project, service, number, self.images[service.name])
        endpoints = body["NetworkingConfig"]["EndpointsConfig"]
        # Engines before API 1.44 take one network at creation; the others are joined before the start.
        body["NetworkingConfig"] = {"EndpointsConfig": dict(list(endpoints.items())[:1])}
        name = container_name(self.project, service, number)
        made = self.api.create_container_from_config(body, name=name)  # type: ignore[no-untyped-call]
        for network, endpoint in list(endpoints.items())[1:]:
            address = endpoint.get("IPAMConfig", {}).get("IPv4Address")
            self.api.connect_container_to_network(
                made["Id"], network, ipv4_address=address, aliases=endpoint["Aliases"]
            )
        self.api.start(made["Id"])
        if service.healthcheck is not None and service.healthcheck.test[:1] != ("NONE",) and service.replicas > 1:
            self._wait_until_healthy(made["Id"], container_name(self.project, service, number))

    def _remove(self, container_id: str, service: Service | None) -> None:
        grace_s = service.stop_grace_period_s if service is not None else 10
        try:
            self.api.stop(container_id, timeout=int(grace_s))
            self.api.remove_container(container_id, v=True, force=True)
        except NotFound:
            pass  # somebody else was quicker

    def _wait_until_healthy(self, container_id: str, name: str) -> None:
        deadline_s = time.monotonic() + self._wait_s
        while not self._stop.is_set():
            state = self.api.inspect_container(container_id)["State"]
            health = (state.get("Health") or {}).get("Status", "")
            if health == "healthy":
                return
            if health == "unhealthy" or not state["Running"]:
                now = health if state["Running"] else state["Status"]
                raise ComposeError(f"{name} did not become healthy: it is {now}; see `labkit compose logs`.")
            if time.monotonic() > deadline_s:
                raise DeadlineExceeded(
                    f"{name} did not become healthy within {self._wait_s:.0f} s; see `labkit compose logs`."
                )
            self._stop.wait(_LOOK_EVERY_S)

    def wait_for(self, service: str, condition: str) -> None:
        """Wait until all containers of ``service`` are as ``condition`` wants them. Raises: ComposeError, DeadlineExceeded."""
        deadline_s = time.monotonic() + self._wait_s
        while not self._stop.is_set():
            found = list(read_actual(self.api, self.project.name).of(service).values())
            if condition == "service_healthy":
                if found and all(one.health == "healthy" for one in found):
                    return
                bad = next((one for one in found if one.health == "unhealthy" or not one.running), None)
            else:
                if found and all(one.state == "exited" and one.exit_code == 0 for one in found):
                    return
                bad = next((one for one in found if one.state == "exited" and one.exit_code != 0), None)
            if bad is not None:
                raise ComposeError(
                    f"{bad.name} is {bad.health or bad.state} (exit status {bad.exit_code}), and others wait for it in vain."
                )
            if time.monotonic() > deadline_s:
                raise DeadlineExceeded(
                    f"{service} was not {condition.removeprefix('service_')} within {self._wait_s:.0f} s."
                )
            self._stop.wait(_LOOK_EVERY_S)
        raise InvalidState("The wait was ended from outside.")
