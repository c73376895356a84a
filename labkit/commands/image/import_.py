"""``labkit image import``: an image of one layer out of a tar of a root filesystem.

See: docker-import(1).
"""

from __future__ import annotations

import argparse
import shlex

from labkit.commands.image.output import reading
from labkit.errors import InvalidSpec
from labkit.image.config import RunConfig
from labkit.image.flatten import import_archive
from labkit.image.store import default_store

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``labkit image import``."""
    parser.add_argument("--cmd", metavar="COMMAND", default="", help="what to run by default, as typed in a shell")
    parser.add_argument("--env", metavar="NAME=VALUE", action="append", default=[], help="an environment variable")
    parser.add_argument("-m", "--message", metavar="TEXT", default="", help="a comment for the history")
    parser.add_argument("file", metavar="FILE", help="a tar, may be compressed; - is standard input")
    parser.add_argument("name", metavar="NAME", nargs="?", help="the image's name")


def run(args: argparse.Namespace) -> int:
    """Import and print the image's id; return 0. Raises: ImageError, InvalidSpec."""
    if bad := [text for text in args.env if "=" not in text]:
        raise InvalidSpec(f"{bad[0]!r} sets no variable: write NAME=VALUE.")
    config = RunConfig(cmd=tuple(shlex.split(args.cmd)) or None, env=tuple(args.env))
    with reading(args.file) as file:
        image = import_archive(
            default_store(), file, tag=args.name, message=args.message, source=args.file, run_config=config
        )
    print(image.id)
    return 0
