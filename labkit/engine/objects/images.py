"""Images, as containers need them: what to run, and the folders of the layers.

The store itself is `labkit.image`; here its errors become Docker's, and its images what the API shows.

See: Docker Engine API, "Images"; `labkit.image.store`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from labkit.engine.wire.errors import BadParameter, NotFound
from labkit.errors import ImageError, InvalidSpec
from labkit.image.reference import Reference
from labkit.image.store import Image, ImageStore

__all__ = ["Images", "RunImage", "reference_of"]


@dataclass(frozen=True, slots=True)
class RunImage:
    """What a container takes from its image: id, the ``config`` object, and the layers' folders, topmost first."""

    id: str
    config: dict[str, Any]
    lowers: tuple[str, ...]


def reference_of(name: str) -> Reference:
    """Return the reference that a client wrote. Raises: BadParameter in Docker's words."""
    try:
        return Reference.parse(name)
    except InvalidSpec as error:
        if any(letter.isupper() for letter in name.split(":")[0].split("@")[0]):
            raise BadParameter("invalid reference format: repository name must be lowercase") from error
        raise BadParameter("invalid reference format") from error


class Images:
    """The images of one engine."""

    def __init__(self, store: ImageStore) -> None:
        self.store = store

    def find(self, name: str) -> Image:
        """Return the image that ``name`` means: a reference, an id, the beginning of an id. Raises: NotFound, BadParameter."""
        if not name.strip():
            raise BadParameter("invalid reference format")
        try:
            return self.store.image(name)
        except ImageError as error:
            raise NotFound(f"No such image: {_familiar(name)}") from error
        except InvalidSpec as error:
            if name.startswith("sha256:"):
                raise NotFound(f"No such image: {name}") from error
            reference_of(name)
            raise NotFound(f"No such image: {name}") from error

    def to_run(self, name: str) -> RunImage:
        """Return what a container of the image needs, its layers unpacked. Raises: NotFound, ImageError."""
        image = self.find(name)
        lowers = tuple(str(path) for path in self.store.lowers(image))
        return RunImage(image.id, image.config.config.to_dict(), lowers)


def _familiar(name: str) -> str:
    if name.startswith("sha256:"):
        return name
    try:
        return Reference.parse(name).familiar
    except InvalidSpec:
        return name
