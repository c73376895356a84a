"""Images side by side: the layers of each, what they have in common, and what all of them together take.

A layer is known by its digest, so two images that name the same digest share it: it lies in the store once. Images that were built on the
same base agree from the bottom up to where they part.

Leaves out: unpacked layers; two different layers that hold the same files.
See: OCI Image Specification, manifest.md; `labkit.image.usage`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from labkit.errors import InvalidSpec
from labkit.image.store import ImageStore
from labkit.measure.record import Result

__all__ = ["ImageLayer", "ImageStack", "Images", "look_at_images"]


@dataclass(frozen=True, slots=True)
class ImageLayer(Result):
    """One layer: its digest, its bytes in the store, and the instruction that made it."""

    digest: str
    size_bytes: int
    made_by: str

    @property
    def short(self) -> str:
        """The first digits of the digest."""
        return self.digest.partition(":")[2][:6]


@dataclass(frozen=True, slots=True)
class ImageStack(Result):
    """One image; ``layers`` lowest first."""

    name: str
    image_id: str
    layers: tuple[ImageLayer, ...]

    @property
    def size_bytes(self) -> int:
        """The bytes of all its layers."""
        return sum(layer.size_bytes for layer in self.layers)

    def begins_like(self, other: ImageStack, count: int) -> bool:
        """Say whether the lowest ``count`` layers of both are the same."""
        return len(self.layers) >= count <= len(other.layers) and self.layers[:count] == other.layers[:count]


@dataclass(frozen=True, slots=True)
class Images(Result):
    """Several images of one store."""

    stacks: tuple[ImageStack, ...]

    @property
    def layers(self) -> dict[str, ImageLayer]:
        """Each layer once, by digest."""
        return {layer.digest: layer for stack in self.stacks for layer in stack.layers}

    @property
    def sum_bytes(self) -> int:
        """What the images would take if each had its own copy of everything."""
        return sum(stack.size_bytes for stack in self.stacks)

    @property
    def stored_bytes(self) -> int:
        """What they take: each layer counts once."""
        return sum(layer.size_bytes for layer in self.layers.values())

    def users(self, digest: str) -> int:
        """Return how many of the images have the layer ``digest``."""
        return sum(any(layer.digest == digest for layer in stack.layers) for stack in self.stacks)

    def unique_bytes(self, stack: ImageStack) -> int:
        """Return the bytes of ``stack`` that no other of these images has."""
        return sum(layer.size_bytes for layer in stack.layers if self.users(layer.digest) == 1)


def look_at_images(store: ImageStore, names: Sequence[str] = ()) -> Images:
    """Return the images ``names`` (default: all that have a name), sorted so that those that share layers are neighbours.

    Raises: InvalidSpec if there is none, ImageError for a name that the store does not have.
    """
    wanted = names or sorted(image.references[0] for image in store.images() if image.references)
    if not wanted:
        raise InvalidSpec("There is no image to look at: build one first.")
    stacks = [_stack(store, name) for name in wanted]
    stacks.sort(key=lambda stack: [layer.digest for layer in stack.layers])
    return Images(tuple(stacks))


def _stack(store: ImageStore, name: str) -> ImageStack:
    image = store.image(name)
    steps = [step.created_by for step in image.config.history if not step.empty_layer]
    # Other tools may leave steps out of the history; then the layers above have no name.
    steps += [""] * (len(image.manifest.layers) - len(steps))
    layers = tuple(
        ImageLayer(layer.digest, layer.size, step) for layer, step in zip(image.manifest.layers, steps, strict=False)
    )
    return ImageStack(name.removeprefix("docker.io/library/").removesuffix(":latest"), image.id, layers)
