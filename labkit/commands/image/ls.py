"""``labkit image ls``: the images of the store, newest first, one line a name.

See: docker-images(1).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from typing import Any

from labkit.commands.image.table import age_of, print_table
from labkit.errors import ImageError
from labkit.image.descriptor import Descriptor, short_id
from labkit.image.names import Entry
from labkit.image.reference import Reference
from labkit.image.store import ImageStore, default_store
from labkit.units import format_bytes

__all__ = ["add_arguments", "run"]

_NONE = "<none>"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``labkit image ls``."""
    parser.add_argument("--json", action="store_true", help="print the list as JSON")
    parser.add_argument("-q", "--quiet", action="store_true", help="print ids only")


def run(args: argparse.Namespace) -> int:
    """Print the list; return 0."""
    rows = sorted(_rows(default_store()), key=lambda row: str(row["created"]), reverse=True)
    if args.json:
        json.dump(rows, sys.stdout, indent=2)
        print()
    elif args.quiet:
        print("\n".join(dict.fromkeys(short_id(row["id"]) for row in rows)))
    else:
        cells = (
            (row["repository"], row["tag"], short_id(row["id"]), age_of(row["created"]), row["size"]) for row in rows
        )
        print_table(("REPOSITORY", "TAG", "ID", "CREATED", "SIZE"), cells)
    return 0


def _rows(store: ImageStore) -> Iterator[dict[str, Any]]:
    for entry in store.entries():
        repository, tag = _split(entry)
        row = {"repository": repository, "tag": tag, "digest": entry.descriptor.digest}
        yield row | _details(store, entry.descriptor)


def _details(store: ImageStore, descriptor: Descriptor) -> dict[str, Any]:
    try:
        image = store.image(descriptor)
    except ImageError:
        # Content for other machines, no image at all, or damaged: it takes space, so it is listed.
        return {"id": descriptor.digest, "created": "", "size": "not for this machine", "size_bytes": descriptor.size}
    return {
        "id": image.id, "created": image.config.created, "size": format_bytes(image.size), "size_bytes": image.size,
    }  # fmt: skip


def _split(entry: Entry) -> tuple[str, str]:
    if not entry.name:
        return _NONE, _NONE
    reference = Reference.parse(entry.name)
    return reference.familiar_name, reference.tag or _NONE
