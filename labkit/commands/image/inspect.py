"""``labkit image inspect``: an image's descriptor, manifest and configuration as JSON, as they are stored.

See: docker-image-inspect(1), skopeo-inspect(1).
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from labkit.errors import InvalidSpec
from labkit.image.descriptor import Platform
from labkit.image.store import Image, default_store

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``labkit image inspect``."""
    parser.add_argument(
        "--platform", metavar="OS/ARCH", help="which of the images of an index (default: this machine's)"
    )
    parser.add_argument("image", metavar="IMAGE", nargs="+", help="a name, a digest, or the beginning of an id")


def run(args: argparse.Namespace) -> int:
    """Print a list with one object an image; return 0. Raises: ImageError, InvalidSpec."""
    store = default_store()
    platform = _platform(args.platform)
    json.dump([_described(store.image(name, platform=platform)) for name in args.image], sys.stdout, indent=2)
    print()
    return 0


def _platform(text: str | None) -> Platform | None:
    if text is None:
        return None
    parts = text.split("/")
    if not 2 <= len(parts) <= 3 or not all(parts):
        raise InvalidSpec(f"{text!r} is no platform: write for example linux/arm64.")
    return Platform(parts[1], parts[0], *parts[2:])


def _described(image: Image) -> dict[str, Any]:
    return {
        "id": image.id,
        "names": list(image.references),
        "root": image.root.to_dict(),
        "descriptor": image.descriptor.to_dict(),
        "manifest": json.loads(image.manifest.to_bytes()),
        "config": json.loads(image.config.to_bytes()),
        "layers": [
            {"digest": layer.digest, "diff_id": diff_id, "chain_id": chain_id, "size_bytes": layer.size}
            for layer, diff_id, chain_id in zip(
                image.manifest.layers, image.config.diff_ids, image.config.chain_ids, strict=True
            )
        ],
    }
