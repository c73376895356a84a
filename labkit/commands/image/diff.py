"""``labkit image diff``: what the topmost layer of an image did, or what leads from one image to another.

See: docker-diff(1).
"""

from __future__ import annotations

import argparse

from labkit.commands.image.table import clean
from labkit.image.diff import diff_images
from labkit.image.store import default_store

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``labkit image diff``."""
    parser.add_argument("image", metavar="IMAGE", help="a name, a digest, or the beginning of an id")
    parser.add_argument("other", metavar="OTHER", nargs="?", help="the image to compare it with")


def run(args: argparse.Namespace) -> int:
    """Print one line a path: A added, C changed, D deleted; return 0. Raises: ImageError, InvalidSpec."""
    store = default_store()
    with store.lease():
        images = [store.image(name) for name in (args.image, args.other) if name]
        for change in diff_images(store, images):
            print(clean(str(change)))
    return 0
