"""``labkit image pull``: bring an image from a registry.

See: docker-pull(1), `labkit.image.registry.pull`.
"""

from __future__ import annotations

import argparse
import sys

from labkit.commands.image.transfer import Lines, add_registry_arguments, parse_platform, summary
from labkit.errors import ImageError
from labkit.image.reference import Reference
from labkit.image.registry.client import RegistryClient
from labkit.image.registry.pull import pull
from labkit.image.store import ImageStore, default_store

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``labkit image pull``."""
    parser.add_argument(
        "image", metavar="IMAGE", help="HOST[:PORT]/ACCOUNT/NAME[:TAG], as in localhost:5000/alice/web:1"
    )
    parser.add_argument("--platform", metavar="OS/ARCH", help="of an image for several machines, the one for this")
    add_registry_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Pull, and print what came; return 0. Raises: RegistryError, ImageError, DeadlineExceeded, InvalidSpec."""
    reference, store = Reference.parse(args.image), default_store()
    before = _digest_of(store, reference)
    with RegistryClient(reference.registry, insecure=args.insecure) as client:
        done = pull(
            reference, store, client=client, platform=parse_platform(args.platform),
            progress=Lines(sys.stderr, quiet=args.quiet),
        )  # fmt: skip
    if args.quiet:
        print(done.root.digest)
        return 0
    news = "Image is up to date for" if before == done.root.digest else "Downloaded newer image for"
    print(f"Digest: {done.root.digest}\nStatus: {news} {reference.familiar} ({summary(done)})")
    return 0


def _digest_of(store: ImageStore, reference: Reference) -> str | None:
    try:
        return store.resolve(reference).digest
    except ImageError:
        return None
