"""``labkit image load``: images from a file (docker save, podman save, skopeo's archives) or from an OCI layout.

See: docker-load(1).
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from labkit.commands.image.output import reading
from labkit.commands.image.table import clean
from labkit.image.archive import load_archive
from labkit.image.layout import load_layout
from labkit.image.store import default_store

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``labkit image load``."""
    parser.add_argument(
        "-i", "--input", metavar="FILE", help="a tar, or the folder of an OCI layout (default: standard input)"
    )
    parser.add_argument("--tag", metavar="NAME", action="append", default=[], help="also give what is loaded this name")


def run(args: argparse.Namespace) -> int:
    """Load, and print a line for each image; return 0. Raises: ImageError, InvalidSpec."""
    store = default_store()
    if args.input and os.path.isdir(args.input):
        loaded = load_layout(store, Path(args.input))
    else:
        with reading(args.input) as file:
            loaded = load_archive(store, file, stem=Path(args.input or "").stem)
    for image in loaded:
        for name in args.tag:
            store.tag(name, image.descriptor)
        print("loaded: " + clean(", ".join([*image.names, *args.tag]) or image.descriptor.digest))
    return 0
