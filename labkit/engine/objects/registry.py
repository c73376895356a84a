"""Names: which container a client means by an id, the beginning of one, or a name.

See: Docker Engine API, "Containers"; docker-rename(1).
"""

from __future__ import annotations

import os
import re
import secrets
import threading

from labkit.engine.objects.files import read_json, remove_tree
from labkit.engine.objects.record import Container
from labkit.engine.wire.errors import BadParameter, Conflict, NotFound
from labkit.errors import InvalidState

__all__ = ["Registry"]

_NAME = re.compile(r"/?[a-zA-Z0-9][a-zA-Z0-9_.-]+\Z")
_LEFT = (
    "bold",
    "brave",
    "calm",
    "clever",
    "eager",
    "gentle",
    "happy",
    "keen",
    "kind",
    "lively",
    "merry",
    "quiet",
    "swift",
    "wise",
)
_RIGHT = (
    "babbage", "dijkstra", "hamilton", "hopper", "kernighan", "knuth", "liskov", "lovelace", "mccarthy", "ritchie",
    "thompson", "turing", "wilkes", "wirth",
)  # fmt: skip


class Registry:
    """Every container below ``folder``; safe to use from several threads."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._lock = threading.RLock()
        self._by_id: dict[str, Container] = {}
        self._reserved: dict[str, str] = {}
        os.makedirs(folder, 0o700, exist_ok=True)

    def load(self) -> list[str]:
        """Read every container from the disk; return one sentence for each folder that holds none and was removed."""
        notes = []
        for name in sorted(os.listdir(self.folder)):
            path = f"{self.folder}/{name}"
            if name.startswith("."):
                continue
            try:
                document = read_json(f"{path}/container.json")
            except InvalidState as error:
                notes.append(str(error))
                continue
            if document is None:
                # Never acknowledged (killed while it was being made), or half removed.
                remove_tree(path)
                notes.append(f"{path} was half made or half removed; it is gone now.")
                continue
            container = Container(path, document)
            self._by_id[container.id] = container
            self._reserved[container.name] = container.id
        return notes

    def all(self) -> list[Container]:
        """Return every container, newest first."""
        with self._lock:
            return sorted(self._by_id.values(), key=lambda container: -container.created_ns)

    def reserve(self, name: str, identity: str) -> str:
        """Take a name (empty: any free one) for the container ``identity``. Raises: BadParameter, Conflict."""
        with self._lock:
            if not name:
                name = self._free_name()
            if not _NAME.match(name):
                raise BadParameter(f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
            name = name.lstrip("/")
            holder = self._reserved.get(name)
            if holder is not None:
                raise Conflict(
                    f'Conflict. The container name "/{name}" is already in use by container "{holder}". You have to '
                    "remove (or rename) that container to be able to reuse that name."
                )
            self._reserved[name] = identity
            return name

    def release(self, name: str) -> None:
        """Give a name back."""
        with self._lock:
            self._reserved.pop(name, None)

    def add(self, container: Container) -> None:
        """Make a container known, whose name has been reserved."""
        with self._lock:
            self._by_id[container.id] = container

    def remove(self, container: Container) -> None:
        """Forget a container and its name."""
        with self._lock:
            self._by_id.pop(container.id, None)
            if self._reserved.get(container.name) == container.id:
                del self._reserved[container.name]

    def find(self, text: str) -> Container:
        """Return the container that ``text`` means. Raises: NotFound; BadParameter if it means several."""
        with self._lock:
            if text in self._by_id:
                return self._by_id[text]
            named = self._reserved.get(text.removeprefix("/"))
            if named is not None and named in self._by_id:
                return self._by_id[named]
            found = [container for key, container in self._by_id.items() if text and key.startswith(text)]
        if len(found) > 1:
            raise BadParameter(f"Multiple IDs found with provided prefix: {text}")
        if not found:
            raise NotFound(f"No such container: {text}")
        return found[0]

    def _free_name(self) -> str:
        for attempt in range(1000):
            name = f"{secrets.choice(_LEFT)}_{secrets.choice(_RIGHT)}" + (
                str(secrets.randbelow(1000)) if attempt > 3 else ""
            )
            if name not in self._reserved:
                return name
        return f"labkit_{secrets.token_hex(6)}"
