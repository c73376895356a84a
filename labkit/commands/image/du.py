"""``labkit image du``: what each image takes, what of it is shared, and what nothing needs.

See: docker-system-df(1), `labkit.image.usage`.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict

from labkit.commands.image.table import print_table
from labkit.image.descriptor import short_id
from labkit.image.reference import Reference
from labkit.image.store import default_store
from labkit.units import format_bytes

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``labkit image du``."""
    parser.add_argument("--json", action="store_true", help="print numbers as JSON")


def run(args: argparse.Namespace) -> int:
    """Print the table and the sums; return 0."""
    usage = default_store().usage()
    if args.json:
        json.dump(asdict(usage), sys.stdout, indent=2)
        print()
        return 0
    rows = (
        (
            ", ".join(Reference.parse(name).familiar for name in image.names) or "<none>", short_id(image.digest),
            format_bytes(image.size_bytes), format_bytes(image.shared_bytes), format_bytes(image.unique_bytes),
        )
        for image in sorted(usage.images, key=lambda image: -image.size_bytes)
    )  # fmt: skip
    print_table(("IMAGE", "DIGEST", "SIZE", "SHARED", "UNIQUE"), rows)
    print(
        f"\nblobs on the disk: {format_bytes(usage.blob_bytes)} (images alone: {format_bytes(usage.sum_of_images_bytes)})"
    )
    print(f"unpacked layers:   {format_bytes(usage.unpacked_bytes)}")
    print(f"needed by nothing: {format_bytes(usage.unreachable_bytes)}, half-done things: {usage.half_done}")
    return 0
