"""``labkit setup``: the course's set-up; with ``vm`` or ``images`` the part for virtual machines or for container images alone.

See: `labkit.setup.command` for the whole, `labkit.vm.setup` for emulator and guest kernels, `labkit.image.recipes` for images.
"""

from __future__ import annotations

import argparse
import sys

from labkit.errors import InvalidSpec
from labkit.setup import command
from labkit.setup.progress import Progress

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``labkit setup``."""
    parser.add_argument(
        "what", nargs="?", choices=("all", "vm", "images"), default="all",
        help="vm: only QEMU and the guest kernels, from the distribution's packages; images: the container images of images/oci,"
        " built from files of this machine (default: the course's packages and parts)",
    )  # fmt: skip
    parser.add_argument(
        "--distribution", action="store_true",
        help="with vm: also make a disk with a small Debian, for a virtual machine of the usual kind",
    )  # fmt: skip
    command.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Set up what ``args`` name; return 0 when all of it is there, 1 when something is not to be had."""
    if args.distribution and args.what != "vm":
        raise InvalidSpec("--distribution belongs to virtual machines: write `labkit setup vm --distribution`.")
    if args.what == "all":
        return command.run(args)
    progress = Progress(0, verbose=args.verbose)
    if args.what == "images":
        from labkit.image.recipes import command as images

        lacking = images.set_up(progress, again=args.again)
    else:
        from labkit.vm.setup import set_up

        lacking = set_up(progress, again=args.again, distribution=args.distribution)
    for sentence in lacking:
        print(f"labkit: {sentence}", file=sys.stderr)
    return 1 if lacking else 0
