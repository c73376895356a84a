"""The engine: its parts, put together over one state folder.

::

    STATE/  lock            held as long as an engine lives; a second one is refused
            containers/ID/  container.json, exit.json, hosts, hostname, resolv.conf, ID-json.log, rw/{upper,work}
            volumes/NAME/   volume.json, _data/
            networks/       ID.json
            images/         the image store (labkit.image.store)
            keeper/         the keeper's socket and its error log

`start` brings the state up to what is true (`labkit.engine.objects.recovery`); `close` ends in order.

See: `labkit.engine.keeper` for what survives the engine.
"""

from __future__ import annotations

import logging
import secrets
import threading
from contextlib import suppress
from typing import Any

from labkit.engine.keeper.client import KeeperClient
from labkit.engine.network.manager import Networks
from labkit.engine.objects.creation import Creator
from labkit.engine.objects.events import Events
from labkit.engine.objects.execs import Execs
from labkit.engine.objects.files import read_json, write_json
from labkit.engine.objects.health import HealthWatch
from labkit.engine.objects.images import Images
from labkit.engine.objects.launch import seccomp_hex
from labkit.engine.objects.lifecycle import Lives
from labkit.engine.objects.recovery import recover
from labkit.engine.objects.registry import Registry
from labkit.engine.objects.rootview import RootViews
from labkit.engine.objects.starting import Starter
from labkit.engine.objects.storage import Storage
from labkit.engine.objects.volumes import Volumes
from labkit.engine.statefolder import StateFolder
from labkit.errors import InvalidState, LabkitError
from labkit.image.store import ImageStore
from labkit.isolation.capabilities import DOCKER_DEFAULT

__all__ = ["Engine"]

log = logging.getLogger(__name__)

_PAUSE_S = 0.5


class Engine:
    """Everything that a request may need. Made once; `start`, then `close`."""

    def __init__(self, folder: StateFolder, keeper: KeeperClient, *, images: str | None = None) -> None:
        self._folder, self.state = folder, folder.path
        self.id = self._own_id()
        self.events = Events()
        self.keeper = keeper
        self.containers = Registry(f"{self.state}/containers")
        self.images = Images(ImageStore(images or f"{self.state}/images"))
        self.networks = Networks(f"{self.state}/networks", self.containers, self.events)
        self.volumes = Volumes(f"{self.state}/volumes", self.containers, self.events)
        self.views = RootViews(f"{self.state}/stage")
        self.storage = Storage(self.volumes, self.views)
        starter = Starter(self.keeper, self.images, self.storage, self.networks)
        self.lives = Lives(self.keeper, starter, self.networks, self.events)
        self.creator = Creator(self.containers, self.images, self.storage, self.networks, self.lives, self.events)
        self.execs = Execs(self.keeper, self.events)
        self.health = HealthWatch(self.execs, self.events)
        self.lives.watch_health = self.health.watch
        self._closing = threading.Event()

    def _own_id(self) -> str:
        known = read_json(f"{self.state}/engine.json")
        if known is None:
            known = {"id": secrets.token_hex(16)}
            write_json(f"{self.state}/engine.json", known)
        return str(known["id"])

    def start(self) -> None:
        """Read the state, find or start the keeper, and begin to hear of ends. Raises: LabkitError."""
        for note in [*self.containers.load(), *self.volumes.collect()]:
            log.warning("%s", note)
        self.keeper.ensure()
        greeted = threading.Event()
        threading.Thread(target=self._hear, args=(greeted,), name="ends", daemon=True).start()
        if not greeted.wait(10.0):
            raise InvalidState("The keeper of containers does not answer.")
        recover(self.containers, self.keeper, self.networks, self.lives)
        threading.Thread(target=_warm_up, name="warm up", daemon=True).start()

    def _hear(self, greeted: threading.Event) -> None:
        """Hear how processes end, one after another; if the keeper itself ends, so have all of them."""
        while not self._closing.is_set():
            try:
                for message in self.keeper.ends():
                    greeted.set()
                    if "id" in message:
                        threading.Thread(target=self._note_end, args=(message,), name="end", daemon=True).start()
            except OSError as error:
                log.debug("the keeper cannot be heard: %s", error)
            if self._closing.is_set():
                return
            log.error("the keeper of containers has ended, and every container with it")
            try:
                self.keeper.ensure()
                recover(self.containers, self.keeper, self.networks, self.lives)
            except (LabkitError, OSError) as error:
                log.error("a new keeper cannot be had: %s", error)
                self._closing.wait(_PAUSE_S)

    def _note_end(self, message: dict[str, Any]) -> None:
        facts = {name: message[name] for name in ("code", "oom_killed", "finished_ns", "started_ns")}
        if self.execs.ended(message["id"], message["code"]):
            return
        try:
            container = self.containers.find(message["id"])
            self.lives.ended(container, **facts)
        except (LabkitError, OSError) as error:
            log.warning("the end of %s: %s", message["id"], error)

    def close(self, *, keep_containers: bool = False) -> None:
        """End in order; containers are stopped first unless they are to go on, for the next engine to find."""
        self._closing.set()
        every = self.containers.all()
        self.lives.close(every, stop=not keep_containers)
        self.health.close()
        self.networks.close(keep=keep_containers)
        with suppress(LabkitError, OSError):
            if keep_containers:
                self.keeper.release()
            else:
                self.keeper.leave()
        self._folder.close()


def _warm_up() -> None:
    """Do once, in the background, what the first container would otherwise wait for."""
    with suppress(LabkitError):
        seccomp_hex(DOCKER_DEFAULT)
