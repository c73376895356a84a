"""``labkit clean``: remove what killed programs left behind, and nothing that belongs to a living one.

Usually there is nothing: a program that is killed takes its launcher along, which takes the containers along, and the kernel takes
the rest. What can stay when both are killed at once is named in `labkit.container.leftovers`; experiments add scratch folders
(`labkit.measure.scratch`), mounts in these, and interfaces; a killed pull or build leaves half-done things among the images. Each of them is tied to its owner by a lock that the kernel drops
when the owner ends.

Leaves out: the environment, caches and kernelspec that ``labkit setup`` made (``make clean``).
See: flock(2).
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

from labkit.container import leftovers, runfolder
from labkit.image.leftovers import find_half_done, remove_half_done
from labkit.linux.constants import Umount
from labkit.linux.mountinfo import read_mountinfo
from labkit.linux.syscalls import umount2
from labkit.measure.scratch import find_dead_scratch, remove_dead_scratch

__all__ = ["Found", "add_arguments", "find", "remove", "run"]

_PREFIX = "labkit-"


@dataclass(frozen=True, slots=True)
class Found:
    """Everything that is left over; ``kernel_side`` is what containers left, the rest is of experiments."""

    kernel_side: leftovers.Leftovers
    mounts: tuple[str, ...]
    interfaces: tuple[str, ...]
    scratch: tuple[Path, ...]
    half_done: tuple[Path, ...] = ()

    def lines(self) -> list[str]:
        """Return one line for each thing."""
        return [
            *self.kernel_side.lines(),
            *(f"mount {mount_point}" for mount_point in self.mounts),
            *(f"network interface {name}" for name in self.interfaces),
            *(f"folder {folder}" for folder in self.scratch),
            *(f"half-done image content {path}" for path in self.half_done),
        ]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``labkit clean``."""
    parser.add_argument("--check", action="store_true", help="remove nothing; exit with 1 if something is left")


def run(args: argparse.Namespace) -> int:
    """Report or remove; return 1 if something is left at the end."""
    found = find()
    for line in found.lines():
        print(f"{'left over' if args.check else 'removing'}: {line}")
    if args.check:
        print("labkit: something is left: `labkit clean` removes it." if found.lines() else "labkit: nothing is left.")
        return 1 if found.lines() else 0
    remove(found)
    still_there = find().lines()
    for line in still_there:
        print(f"labkit: {line} could not be removed.", file=sys.stderr)
    if not found.lines():
        print("labkit: nothing is left.")
    return 1 if still_there else 0


def find() -> Found:
    """Look for leftovers of this user; root also sees everybody's cgroups."""
    kernel_side = leftovers.find()
    scratch = find_dead_scratch()
    dead = [*map(str, scratch), *kernel_side.folders]
    mount_points = [mount.mount_point for mount in read_mountinfo()]
    mounts = [path for path in mount_points if any(path == folder or path.startswith(f"{folder}/") for folder in dead)]
    half_done = tuple(find_half_done())
    return Found(kernel_side, tuple(reversed(mounts)), tuple(_dead_interfaces()), tuple(scratch), half_done)


def _dead_interfaces() -> list[str]:
    """Return labkit's interfaces, if no launcher of this user lives: an interface has no lock to tell whose it is."""
    if os.geteuid() != 0 or any(runfolder.live_folders(runfolder.base_folder())):
        return []
    return [name for _, name in socket.if_nameindex() if name.startswith(_PREFIX)]


def remove(found: Found) -> None:
    """Remove all of ``found``: processes before their cgroups, mounts before their folders. Raises: OSError."""
    for mount_point in found.mounts:
        umount2(mount_point, Umount.DETACH)
    leftovers.remove(found.kernel_side)
    for name in found.interfaces:
        _remove_interface(name)
    for folder in found.scratch:
        remove_dead_scratch(folder)
    remove_half_done(found.half_done)


def _remove_interface(name: str) -> None:
    from pyroute2 import IPRoute  # slow to import, and hardly ever needed

    try:
        index = socket.if_nametoindex(name)
    except OSError:
        return  # the other end of a veth pair, which went with the first one
    with IPRoute() as route:
        route.link("del", index=index)
