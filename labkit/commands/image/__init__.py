"""``labkit image``: images by name, from the command line, as ``docker image`` does it without a daemon.

Each subcommand is a module of this package (or another one named here) with ``add_arguments(parser)`` and ``run(args)``, loaded only
when it is the one that was asked for.

See: docker-image(1), `labkit.image`.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence

__all__ = ["SUBCOMMANDS", "add_arguments", "run"]

#: name: (module, one line of help).
SUBCOMMANDS: dict[str, tuple[str, str]] = {
    "build": ("labkit.commands.image.build", "build an image from a Containerfile"),
    "ls": ("labkit.commands.image.ls", "list images"),
    "inspect": ("labkit.commands.image.inspect", "show an image's manifest and configuration"),
    "history": ("labkit.commands.image.history", "show the steps that made an image, and the layer of each"),
    "diff": ("labkit.commands.image.diff", "show what a layer changed, or what differs between two images"),
    "pull": ("labkit.commands.image.pull", "bring an image from a registry"),
    "push": ("labkit.commands.image.push", "bring an image to a registry"),
    "search": ("labkit.commands.image.search", "list what a registry has"),
    "tag": ("labkit.commands.image.tag", "give an image one more name"),
    "rm": ("labkit.commands.image.rm", "take names away, and images that have none left"),
    "save": ("labkit.commands.image.save", "write images to a file, as docker save does, or to an OCI layout"),
    "load": ("labkit.commands.image.load", "read images from a file or from an OCI layout"),
    "export": ("labkit.commands.image.export", "write an image's files as one tar"),
    "import": ("labkit.commands.image.import_", "make an image of one layer out of a tar"),
    "du": ("labkit.commands.image.du", "show how many bytes images take, shared and their own"),
    "prune": ("labkit.commands.image.prune", "remove what no name leads to"),
}


class _LateParser(argparse.ArgumentParser):
    """A subcommand's parser, which gets its options, ``--help`` too, when it is the one that parses."""

    module_name = ""

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Load the module first. See: `argparse`."""
        if self.module_name:
            module = importlib.import_module(self.module_name)
            self.module_name = ""
            self.add_argument("-h", "--help", action="help", help="show this help message and exit")
            module.add_arguments(self)
            self.set_defaults(run_subcommand=module.run)
        return super().parse_known_args(args, namespace)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands of ``labkit image``."""
    subparsers = parser.add_subparsers(metavar="SUBCOMMAND", required=True, parser_class=_LateParser)
    for name, (module_name, help_line) in SUBCOMMANDS.items():
        description = help_line[0].upper() + help_line[1:] + "."
        subparser = subparsers.add_parser(name, help=help_line, description=description, add_help=False)
        subparser.module_name = module_name


def run(args: argparse.Namespace) -> int:
    """Run the subcommand and return its exit status. Raises: LabkitError."""
    return int(args.run_subcommand(args))
