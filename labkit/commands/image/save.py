"""``labkit image save``: images as one file that ``docker load``, podman and skopeo read, or as a folder with an OCI layout.

See: docker-save(1).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from labkit.commands.image.output import writing
from labkit.image.archive import save_archive
from labkit.image.layout import save_layout
from labkit.image.store import default_store

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``labkit image save``."""
    parser.add_argument("-o", "--output", metavar="FILE", help="the file to write (default: standard output)")
    parser.add_argument("--layout", metavar="DIR", help="write an OCI image layout into this new folder instead")
    parser.add_argument("image", metavar="IMAGE", nargs="+", help="a name, a digest, or the beginning of an id")


def run(args: argparse.Namespace) -> int:
    """Write the images; return 0. Raises: ImageError, InvalidSpec."""
    store = default_store()
    with store.lease():
        images = [store.image(name) for name in dict.fromkeys(args.image)]
        if args.layout:
            save_layout(store, images, Path(args.layout))
        else:
            with writing(args.output) as out:
                save_archive(store, images, out)
    return 0
