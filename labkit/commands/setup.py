"""``labkit setup``: the course's set-up, and with ``vm`` the part for virtual machines alone.

See: `labkit.setup.command` for the whole, `labkit.vm.setup` for emulator and guest kernels.
"""

from __future__ import annotations

import argparse
import sys

from labkit.setup import command
from labkit.setup.progress import Progress

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``labkit setup``."""
    parser.add_argument(
        "what", nargs="?", choices=("all", "vm"), default="all",
        help="vm: only QEMU and the guest kernels, from the distribution's packages (default: everything)",
    )  # fmt: skip
    parser.add_argument(
        "--distribution", action="store_true", help="with vm: also a small Debian with systemd as a guest"
    )
    command.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Set up what ``args`` name; return 0 when all of it is there, 1 when something is not to be had."""
    if args.what == "all":
        return command.run(args)
    from labkit.vm.setup import set_up

    lacking = set_up(Progress(0, verbose=args.verbose), again=args.again)
    for sentence in lacking:
        print(f"labkit: {sentence}", file=sys.stderr)
    return 1 if lacking else 0
