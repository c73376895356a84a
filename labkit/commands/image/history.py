"""``labkit image history``: the steps that made an image, newest first, and the size of the layer that each made.

See: docker-history(1).
"""

from __future__ import annotations

import argparse

from labkit.commands.image.table import age_of, print_table
from labkit.image.descriptor import short_id
from labkit.image.store import Image, default_store
from labkit.units import format_bytes

__all__ = ["add_arguments", "run"]

_WIDTH = 60


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``labkit image history``."""
    parser.add_argument("--no-trunc", action="store_true", help="show whole commands")
    parser.add_argument("image", metavar="IMAGE", help="a name, a digest, or the beginning of an id")


def run(args: argparse.Namespace) -> int:
    """Print the steps; return 0. Raises: ImageError, InvalidSpec."""
    image = default_store().image(args.image)
    print_table(("LAYER", "CREATED", "SIZE", "CREATED BY"), _rows(image, None if args.no_trunc else _WIDTH))
    return 0


def _rows(image: Image, width: int | None) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    told: set[int] = set()
    for step, number in zip(image.config.history, image.config.layers_of_history(), strict=True):
        layer, size = ("", "0 B") if number is None else _layer(image, number)
        told |= set() if number is None else {number}
        text = step.created_by if width is None or len(step.created_by) <= width else f"{step.created_by[: width - 1]}…"
        rows.append((layer, age_of(step.created), size, f"{text}  # {step.comment}" if step.comment else text))
    # Not every program writes a history for all its layers.
    rows += [(*_untold(image, number), "") for number in range(len(image.manifest.layers)) if number not in told]
    return rows[::-1]


def _layer(image: Image, number: int) -> tuple[str, str]:
    layer = image.manifest.layers[number]
    return short_id(layer.digest), format_bytes(layer.size)


def _untold(image: Image, number: int) -> tuple[str, str, str]:
    layer, size = _layer(image, number)
    return layer, "", size
