"""A root filesystem out of the machine's own programs, for when no image is at hand.

The root is empty memory; ``/usr`` and ``/etc`` are the host's, each under a writable layer of memory, so that even
``rm -rf /usr`` harms nobody. Homes, ``/root``, ``/var``, ``/tmp`` and ``/run`` are not the host's: nothing private is shown. Files stay
owned by the host's root, whom the container's user namespace does not know, so they show as "nobody" and what
only root may read (``/etc/shadow``) cannot be read.

Leaves out: distributions that keep programs elsewhere (NixOS, Guix).
See: file-hierarchy(7), `labkit.isolation.overlay`.
"""

from __future__ import annotations

import os
import sys

from labkit.container.spec import MountSpec

__all__ = ["links", "mounts"]

_TOP_LINKS = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")


def links() -> tuple[tuple[str, str], ...]:
    """Return the symbolic links at the root of a merged-/usr system, as (link, target) pairs."""
    found = [(f"/{name}", os.readlink(f"/{name}")) for name in _TOP_LINKS if os.path.islink(f"/{name}")]
    return tuple(found)


def mounts() -> tuple[MountSpec, ...]:
    """Return the mounts that fill the empty root: /usr, /etc, folders of an unmerged system, and this Python's prefix."""
    shown = [
        f"/{name}"
        for name in ("usr", "etc", *_TOP_LINKS)
        if os.path.isdir(f"/{name}") and not os.path.islink(f"/{name}")
    ]
    overlays = [MountSpec("overlay", path, path) for path in shown]
    scratch = [MountSpec("tmpfs", path, options=("mode=1777",)) for path in ("/tmp", "/var/tmp")]
    home = [MountSpec("tmpfs", "/root", options=("mode=700",))]
    prefixes = {os.path.realpath(prefix) for prefix in (sys.prefix, sys.base_prefix)}
    outside = sorted(prefix for prefix in prefixes if not prefix.startswith("/usr"))
    return (*overlays, *scratch, *home, *(MountSpec("bind", prefix, prefix, ("ro",)) for prefix in outside))
