"""The image stack: all images of a store as stacks of layers, redrawn when another cell builds, tags or removes one.

See: `labkit.charts.image_layers`, `labkit.measure.images`.
"""

from __future__ import annotations

from collections.abc import Sequence

from labkit import units
from labkit.charts.image_layers import ImagesChart
from labkit.image.store import ImageStore
from labkit.measure.images import Images, look_at_images
from labkit.widgets.live import LiveView

__all__ = ["describe", "image_stack"]

_HEIGHT_IN = 0.55
#: Images change when somebody builds: one look a second is enough.
_FRAMES_PER_S = 1.0


def image_stack(store: ImageStore, names: Sequence[str] = ()) -> LiveView[Images]:
    """Return a view of the images ``names`` of ``store`` (default: all that have a name). Raises: InvalidSpec if there is none."""
    first = look_at_images(store, names)
    rows = max(len(stack.layers) for stack in first.stacks)
    return LiveView(
        lambda: look_at_images(store, names),
        ImagesChart(),
        title="images as stacks of layers",
        alt="A column for each image, its layers one above the other; a layer of several images is one wide box",
        describe=describe,
        size_in=(9.4, 1.4 + _HEIGHT_IN * (rows + 1)),
        frames_per_s=_FRAMES_PER_S,
    )


def describe(images: Images) -> str:
    """Return the picture in words: what each image takes, alone and shared."""
    words = [
        f"{stack.name} has {len(stack.layers)} layers of {units.format_bytes(stack.size_bytes)},"
        f" {units.format_bytes(images.unique_bytes(stack))} of them its own."
        for stack in images.stacks
    ]
    return " ".join([*words, f"Together they take {units.format_bytes(images.stored_bytes)}."])
