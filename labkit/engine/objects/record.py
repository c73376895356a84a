"""What the engine knows of a container, in memory and in ``containers/ID/container.json``.

The file is written before a change is acknowledged, so what a client was told survives a crash. Whether a container still runs is
not believed from the file: after a restart the keeper is asked, and the ``exit.json`` that it wrote is read.

See: `labkit.engine.objects.files`; Docker Engine API, "Inspect a container" (State).
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from labkit.engine.objects.files import write_json
from labkit.engine.spec.mounts import MountPoint

__all__ = ["NEVER", "Container", "State", "Status"]

#: What Docker shows for a time that has not come: Go's zero time.
NEVER = "0001-01-01T00:00:00Z"

Status = Literal["created", "running", "paused", "restarting", "removing", "exited", "dead"]


@dataclass(slots=True)
class State:
    """Where in its life a container is; ``pid`` and ``folders`` only while it runs."""

    status: Status = "created"
    pid: int = 0
    exit_code: int = 0
    error: str = ""
    oom_killed: bool = False
    started_at: str = NEVER
    finished_at: str = NEVER
    started_ns: int = 0
    folders: dict[str, str] = field(default_factory=dict)

    @property
    def is_running(self) -> bool:
        """True while its program is there, be it frozen."""
        return self.status in ("running", "paused") or (self.status == "restarting" and self.pid > 0)


class Container:
    """One container. Whoever changes it holds ``lock``; whoever waits for a change waits on ``changed``."""

    def __init__(self, folder: str, document: Mapping[str, Any]) -> None:
        self.folder = folder
        self.id: str = document["id"]
        self.name: str = document["name"]
        self.created: str = document["created"]
        self.created_ns: int = document["created_ns"]
        self.image: str = document["image"]
        self.image_id: str = document["image_id"]
        self.config: dict[str, Any] = document["config"]
        self.host: dict[str, Any] = document["host"]
        self.mounts = [MountPoint.from_dict(point) for point in document["mounts"]]
        #: By name of the network: what the client asked for, and while it runs what it got.
        self.endpoints: dict[str, dict[str, Any]] = document["endpoints"]
        self.state = State(**{f.name: document["state"][f.name] for f in fields(State) if f.name in document["state"]})
        #: By port of the container, where on the machine it is published while it runs.
        self.published: dict[str, list[dict[str, str]]] = document.get("published", {})
        self.restart_count: int = document.get("restart_count", 0)
        #: Somebody wanted it to end, so no policy starts it again.
        self.was_stopped: bool = document.get("was_stopped", False)
        self.lock = threading.RLock()
        self.changed = threading.Condition()
        self.ends = 0
        self.is_removed = False
        self.health: dict[str, Any] | None = None
        self.exec_ids: list[str] = []
        self.restart_timer: threading.Timer | None = None
        self.restart_delay_s = 0.1

    def to_dict(self) -> dict[str, Any]:
        """Return what the file holds."""
        return {
            "id": self.id, "name": self.name, "created": self.created, "created_ns": self.created_ns, "image": self.image,
            "image_id": self.image_id, "config": self.config, "host": self.host,
            "mounts": [point.to_dict() for point in self.mounts], "endpoints": self.endpoints, "published": self.published,
            "state": asdict(self.state), "restart_count": self.restart_count, "was_stopped": self.was_stopped,
        }  # fmt: skip

    def save(self) -> None:
        """Write the file. Raises: OSError."""
        write_json(f"{self.folder}/container.json", self.to_dict())

    def announce(self) -> None:
        """Wake everybody who waits for a change."""
        with self.changed:
            self.changed.notify_all()

    @property
    def short_id(self) -> str:
        """The first twelve digits, which are also the default host name."""
        return self.id[:12]

    @property
    def log_path(self) -> str:
        """Where the log is written."""
        return f"{self.folder}/{self.id}-json.log"

    @property
    def exit_path(self) -> str:
        """Where the keeper notes how it ended."""
        return f"{self.folder}/exit.json"

    @property
    def attributes(self) -> dict[str, str]:
        """What an event says about it."""
        return {**self.config["Labels"], "image": self.image, "name": self.name}
