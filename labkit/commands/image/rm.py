"""``labkit image rm``: names go, and with an image's last name the image.

See: docker-rmi(1).
"""

from __future__ import annotations

import argparse

from labkit.image.store import default_store

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``labkit image rm``."""
    parser.add_argument("-f", "--force", action="store_true", help="by an id: all names of the image")
    parser.add_argument("image", metavar="IMAGE", nargs="+", help="a name, a digest, or the beginning of an id")


def run(args: argparse.Namespace) -> int:
    """Remove each; return 0. Raises: ImageError, InvalidSpec."""
    store = default_store()
    for name in args.image:
        gone = store.remove(name, force=args.force)
        for untagged in gone.untagged:
            print(f"untagged: {untagged}")
        for digest in gone.blobs:
            print(f"deleted: {digest}")
    return 0
