"""``labkit image export``: the files of an image as one tar, as a container would see them.

See: docker-export(1).
"""

from __future__ import annotations

import argparse

from labkit.commands.image.output import writing
from labkit.image.flatten import export_image
from labkit.image.store import default_store

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``labkit image export``."""
    parser.add_argument("-o", "--output", metavar="FILE", help="the file to write (default: standard output)")
    parser.add_argument("image", metavar="IMAGE", help="a name, a digest, or the beginning of an id")


def run(args: argparse.Namespace) -> int:
    """Write the tar; return 0. Raises: ImageError, InvalidSpec."""
    store = default_store()
    with store.lease():
        image = store.image(args.image)
        with writing(args.output) as out:
            export_image(store, image, out)
    return 0
