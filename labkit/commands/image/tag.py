"""``labkit image tag``: one more name for an image.

See: docker-tag(1).
"""

from __future__ import annotations

import argparse

from labkit.image.store import default_store

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``labkit image tag``."""
    parser.add_argument("image", metavar="IMAGE", help="a name, a digest, or the beginning of an id")
    parser.add_argument("name", metavar="NAME", nargs="+", help="a new name, as in account/name:tag")


def run(args: argparse.Namespace) -> int:
    """Add the names; return 0. Raises: ImageError, InvalidSpec."""
    store = default_store()
    with store.lease():
        descriptor = store.resolve(args.image)
        for name in args.name:
            store.tag(name, descriptor)
    return 0
