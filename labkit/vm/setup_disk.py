"""``labkit setup vm --distribution``: a disk with a small Debian, made of packages and started once before it counts.

::

    packages       apt's own choice for a machine that has nothing yet, fetched with the lists of this machine
    files          unpacked into a folder of the cache, which is removed again
    disk           an ext4 file system in a file, 120 MB of content
    first start    a guest on the disk: systemd makes its users and caches, says that all services run, and shuts down

Everything works for an ordinary user. Until the last step has gone well there is no disk.

Leaves out: distributions without apt.
See: `labkit.vm.debian`, `labkit.vm.distribution`, `labkit.setup.archives`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

from labkit.errors import FeatureMissing, GuestError, LabkitError
from labkit.setup import apt
from labkit.setup.archives import archives
from labkit.setup.parts import find_program
from labkit.setup.progress import Step
from labkit.units import MiB, format_bytes
from labkit.vm.debian import PACKAGES, make_disk, unpack_system
from labkit.vm.distribution import Disk, Distribution, disk_folder, distribution_spec, find_disk

__all__ = ["DISK_BYTES", "fetch_disk", "set_up_disk"]

#: Room on the disk that packages, unpacked files and the guest's disk take together.
DISK_BYTES = 500 * MiB
_FIRST_START_S, _SHUT_DOWN_S = 300.0, 60.0


def set_up_disk(step: Step, *, again: bool = False) -> None:
    """Make the disk if there is none, or in any case if ``again``. Raises: LabkitError, OSError."""
    try:
        found = None if again else find_disk()
    except FeatureMissing:
        found = None
    if found is None:
        fetch_disk(step)
    else:
        step.result = f"already there: {found.system}"


def fetch_disk(step: Step) -> Disk:
    """Make the disk anew, start a guest from it, and put it into the cache if all its services ran.

    Raises: FeatureMissing where there is no apt, no mke2fs or no room; GuestError if the guest does not start; OSError.
    """
    if not apt.can_download():
        raise FeatureMissing(
            "A disk with a distribution is made of Debian's packages, and there is no apt-get here.",
            remedy="Use the other guests, or run this on Debian or Ubuntu.",
        )
    _get_tools(step)
    folder = disk_folder()
    new = folder.with_name(f"{folder.name}.{os.getpid()}.new")
    new.mkdir(parents=True)
    try:
        _check_room(new)
        system, packages = _make(new, step)
        step.show("first start")
        _start_once(new / "disk.ext4")
        facts = {"system": system, "packages": packages, "size_bytes": (new / "disk.ext4").stat().st_size}
        (new / "disk.json").write_text(json.dumps(facts, indent=1))
        shutil.rmtree(folder, ignore_errors=True)
        new.rename(folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    used_bytes = (folder / "disk.ext4").stat().st_blocks * 512
    step.result = f"{system}, {packages} packages, {format_bytes(used_bytes)}"
    return find_disk()


def _make(new: Path, step: Step) -> tuple[str, int]:
    """Make ``disk.ext4`` in the folder ``new``; return the system's name and the number of its packages."""
    tree = new / "tree"
    with archives(step) as source:
        fetched = source.fetch(lambda: source.system(PACKAGES))
        size_bytes = sum(archive.stat().st_size for archive in fetched)
        step.announce(f"{len(fetched)} packages ({format_bytes(size_bytes)})")
        step.show("unpacking")
        owners = unpack_system(fetched, tree)
    step.show("making the disk")
    make_disk(tree, owners, new / "disk.ext4")
    named = re.search(r'^PRETTY_NAME="?([^"\n]+)', (tree / "etc/os-release").read_text(), re.MULTILINE)
    shutil.rmtree(tree)
    return (named[1] if named else "Debian"), len(fetched)


def _start_once(disk: Path) -> None:
    """Start a guest that keeps what it writes, and let it shut down. Raises: GuestError with what did not work."""
    try:
        with Distribution(spec=distribution_spec(disk=disk, keeps_disk=True), boot_timeout_s=_FIRST_START_S) as guest:
            guest.exec(["systemctl", "poweroff"])
            guest.wait(_SHUT_DOWN_S)
    except LabkitError as error:
        raise GuestError(f"The new disk's system did not start: {error}") from error


def _get_tools(step: Step) -> None:
    """See that mke2fs and debugfs are there. Raises: FeatureMissing."""
    if all(find_program(name) for name in ("mke2fs", "debugfs")):
        return
    if apt.can_install(euid=os.geteuid()) and not apt.install(["e2fsprogs"], step):
        return
    raise FeatureMissing("There is no mke2fs here to make a disk with.", remedy="Run `sudo apt-get install e2fsprogs`.")


def _check_room(place: Path) -> None:
    free_bytes = shutil.disk_usage(place).free
    if free_bytes < DISK_BYTES:
        raise FeatureMissing(
            f"The disk of {place.parent} has {format_bytes(free_bytes)} left, and this takes up to {format_bytes(DISK_BYTES)}.",
            remedy="Make room, or set XDG_CACHE_HOME to a folder on another disk.",
        )
