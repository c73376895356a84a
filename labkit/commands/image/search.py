"""``labkit image search``: what a registry has, by the catalog that it gives out.

See: docker-search(1), which asks a hub's own index instead; OCI Distribution Specification does not know the catalog any more, but
registries do.
"""

from __future__ import annotations

import argparse

from labkit.commands.image.table import print_table
from labkit.image.registry.client import RegistryClient
from labkit.image.registry.failures import RegistryError
from labkit.image.registry.repository import Repository

__all__ = ["add_arguments", "run"]

_MOST_TAGS = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``labkit image search``."""
    parser.add_argument("registry", metavar="REGISTRY", help="HOST[:PORT], as in localhost:5000")
    parser.add_argument("text", metavar="TEXT", nargs="?", default="", help="names that hold this text only")
    parser.add_argument("--insecure", action="store_true", help="allow plain HTTP to another machine than this one")


def run(args: argparse.Namespace) -> int:
    """Print a table of names and tags; return 0, or 1 if there is nothing. Raises: RegistryError, DeadlineExceeded."""
    with RegistryClient(args.registry.rstrip("/"), insecure=args.insecure) as client:
        rows = [(f"{client.registry}/{name}", _tags(client, name)) for name in client.catalog(matching=args.text)]
    print_table(("NAME", "TAGS"), rows)
    return 0 if rows else 1


def _tags(client: RegistryClient, name: str) -> str:
    try:
        tags = list(Repository(client, name).tags())
    except RegistryError as error:
        return f"({error.code.lower()})"
    more = f", and {len(tags) - _MOST_TAGS} more" if len(tags) > _MOST_TAGS else ""
    return ", ".join(tags[:_MOST_TAGS]) + more
