"""``labkit image prune``: remove images without a name, and everything that nothing leads to.

See: docker-image-prune(1), `labkit.image.collect`.
"""

from __future__ import annotations

import argparse

from labkit.image.store import default_store
from labkit.units import format_bytes

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``labkit image prune``."""
    parser.add_argument("-a", "--all", action="store_true", help="also images with a name that nothing uses now")
    parser.add_argument("--build-cache", action="store_true", help="also what builds kept for the next time")


def run(args: argparse.Namespace) -> int:
    """Remove, and say what; return 0. Raises: ImageError."""
    gone = default_store().prune(all_unused=args.all, build_cache=args.build_cache)
    for name in gone.untagged:
        print(f"untagged: {name}")
    for digest in gone.blobs:
        print(f"deleted: {digest}")
    for chain_id in gone.layers:
        print(f"deleted unpacked layer: {chain_id}")
    for path in gone.scratch:
        print(f"deleted half-done: {path}")
    print(f"freed: {format_bytes(gone.freed_bytes)}")
    return 0
