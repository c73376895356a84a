"""``labkit image push``: bring an image to a registry.

See: docker-push(1), `labkit.image.registry.push`.
"""

from __future__ import annotations

import argparse
import sys

from labkit.commands.image.transfer import Lines, add_registry_arguments, summary
from labkit.image.reference import Reference
from labkit.image.registry.client import RegistryClient
from labkit.image.registry.push import push
from labkit.image.store import default_store
from labkit.units import parse_bytes

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``labkit image push``."""
    parser.add_argument("image", metavar="IMAGE", help="the name under which it is here and shall be there")
    parser.add_argument(
        "target", metavar="TARGET", nargs="?", help="the name it shall have there, if that is another one"
    )
    parser.add_argument("--chunk", metavar="SIZE", default="0", help="send layers in parts of this size, as in 8M")
    add_registry_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Push, and print what went; return 0. Raises: RegistryError, ImageError, DeadlineExceeded, InvalidSpec."""
    reference = Reference.parse(args.target or args.image)
    with RegistryClient(reference.registry, insecure=args.insecure) as client:
        done = push(
            reference, default_store(), source=args.image, client=client, chunk_bytes=parse_bytes(args.chunk),
            progress=Lines(sys.stderr, quiet=args.quiet),
        )  # fmt: skip
    print(done.root.digest if args.quiet else f"{reference.familiar}: digest: {done.root.digest} ({summary(done)})")
    return 0
