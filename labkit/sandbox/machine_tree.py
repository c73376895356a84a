"""The file tree of a sandbox that is a virtual machine: the same tree as `labkit.sandbox.view` draws, put together in a guest.

A guest has no mounts of the machine's, so what a bind mount would show comes by 9p: for each folder QEMU serves that folder and nothing
else, read-only where the sandbox has it read-only. Whoever breaks out of everything inside the guest still sees
only these. Links, small files and empty folders come with the guest's first archive. What can be written is the guest's memory; only
``~/work`` is written through to the machine.

Leaves out: changes to the notebook folder that are kept (an overlay cannot write to 9p).
See: `labkit.vm.hostroot`, which shows the whole machine instead; QEMU's documentation of 9pfs; mount(2) (MS_MOVE).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from labkit.container.spec import MountSpec
from labkit.linux.constants import MountFlag
from labkit.vm.calls import CallList, Slot
from labkit.vm.cpio import Entry, file, folder, link
from labkit.vm.hostroot import move_to_root
from labkit.vm.spec import Share

__all__ = ["MachineTree", "make_tree"]

_TREE, _LAYERS = "/tree", "/layers"
_AT_FDCWD = -100
#: What was read of a folder that nobody writes to may be kept; elsewhere only what a program maps.
_9P = "trans=virtio,version=9p2000.L,msize=512000,cache="
_GUESTS_OWN = ("proc", "sysfs", "dev")
_LATE = "/dev/"  # what lies in folders that the guest makes itself
_MOST_FILE_BYTES = 64 * 1024
_SAFE = int(MountFlag.NOSUID | MountFlag.NODEV)
_FLAGS = {"ro": MountFlag.RDONLY, "nosuid": MountFlag.NOSUID, "nodev": MountFlag.NODEV, "noexec": MountFlag.NOEXEC}


@dataclass(frozen=True, slots=True)
class MachineTree:
    """What QEMU serves, what the first archive holds, and the mounts to make of it."""

    shares: tuple[Share, ...]
    entries: tuple[Entry, ...]
    mounts: tuple[MountSpec, ...]

    def enter(self, machine: str) -> tuple[CallList, dict[Slot, str]]:
        """Return the calls that make this tree the root of everything to come in the guest, and what each is for."""
        calls, purposes = CallList(machine), dict[Slot, str]()
        bind = calls.call("mount", _TREE, _TREE, None, int(MountFlag.BIND), None)
        purposes[bind] = "make a mount of its tree"
        places: dict[str, str] = {}
        early = [mount for mount in self.mounts if not mount.target.startswith(_LATE)]
        for number, mount in enumerate(early):
            for above in early[:number]:
                _make_folders(calls, above.target, mount.target, _TREE)
            made = _mount(calls, mount, f"{_TREE}{mount.target}", self._tag(mount), f"{_LAYERS}/{number}", places)
            purposes |= dict.fromkeys(made, f"mount {mount.kind} on {mount.target}")
        move_to_root(calls, purposes, _TREE, memory=False)
        for mount in self.mounts:
            if mount not in early:
                calls.call("mkdirat", _AT_FDCWD, mount.target, 0o755)
                made = _mount(calls, mount, mount.target, "", "", places)
                purposes |= dict.fromkeys(made, f"mount {mount.kind} on {mount.target}")
        return calls, purposes

    def _tag(self, mount: MountSpec) -> str:
        return next((share.tag for share in self.shares if str(share.path) == mount.source), "")


def make_tree(
    mounts: Iterable[MountSpec], links: Iterable[tuple[str, str]], files: Sequence[tuple[str, bytes]]
) -> MachineTree:
    """Return the tree that has these mounts, symbolic links and files; of mounts, those that a guest does not have anyway."""
    wanted = [mount for mount in mounts if mount.kind not in _GUESTS_OWN]
    single = {
        mount.target: mount.source for mount in wanted if mount.kind == "bind" and not os.path.isdir(mount.source)
    }
    kept = tuple(mount for mount in wanted if mount.target not in single)
    sources = dict.fromkeys(
        (mount.source, "ro" in mount.options or mount.kind == "overlay")
        for mount in kept
        if mount.kind in ("bind", "overlay")
    )
    shares = tuple(
        Share(f"labkit{number}", Path(source), readonly) for number, (source, readonly) in enumerate(sources)
    )
    entries: dict[str, Entry] = {}
    for place in (
        _TREE,
        _LAYERS,
        *(f"{_TREE}{mount.target}" for mount in kept),
        *(f"{_TREE}/{name}" for name in ("proc", "sys", "dev")),
    ):
        _add_folder(entries, place)
    early = [mount for mount in kept if not mount.target.startswith(_LATE)]
    for number, mount in enumerate(early):
        if mount.kind == "overlay":
            _add_folder(entries, f"{_LAYERS}/{number}/lower")
            _add_folder(entries, f"{_LAYERS}/{number}/memory")
    for path, target in links:
        _add_folder(entries, os.path.dirname(f"{_TREE}{path}"))
        entries[f"{_TREE}{path}"[1:]] = link(f"{_TREE}{path}"[1:], target)
    for path, content in (*files, *((target, _small(source)) for target, source in single.items())):
        _add_folder(entries, os.path.dirname(f"{_TREE}{path}"))
        entries[f"{_TREE}{path}"[1:]] = file(f"{_TREE}{path}"[1:], content)
    return MachineTree(shares, tuple(entries.values()), kept)


def _mount(
    calls: CallList, mount: MountSpec, target: str, tag: str, layer: str, places: dict[str, str]
) -> list[Slot]:  # fmt: skip
    """Add the calls for one mount of the tree. A share can be mounted once: ``places`` has where, and the next one shows that."""
    flags = int(sum(flag for word, flag in _FLAGS.items() if word in mount.options))
    if mount.kind == "tmpfs":
        options = ",".join(word for word in mount.options if "=" in word)
        return [calls.call("mount", "tmpfs", target, "tmpfs", flags | _SAFE, options)]
    if tag in places:
        return [calls.call("mount", places[tag], target, None, int(MountFlag.BIND), None)]
    if mount.kind == "bind":
        places[tag] = target
        cache = "loose" if "ro" in mount.options else "mmap"
        return [calls.call("mount", tag, target, "9p", flags, f"{_9P}{cache}")]
    lower, upper, work = f"{layer}/lower", f"{layer}/memory/upper", f"{layer}/memory/work"
    made = [
        calls.call("mount", tag, lower, "9p", int(MountFlag.RDONLY), f"{_9P}loose"),
        calls.call("mount", "tmpfs", f"{layer}/memory", "tmpfs", 0, "mode=755"),
        calls.call("mkdirat", _AT_FDCWD, upper, 0o755),
        calls.call("mkdirat", _AT_FDCWD, work, 0o755),
    ]
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    return [*made, calls.call("mount", "overlay", target, "overlay", _SAFE, options)]


def _make_folders(calls: CallList, above: str, target: str, root: str) -> None:
    """Add the calls that make the folders between one mount and another on it; refused where they are there, or belong to the machine."""
    if not target.startswith(f"{above}/"):
        return
    parts = target.removeprefix(f"{above}/").split("/")
    for count in range(1, len(parts) + 1):
        calls.call("mkdirat", _AT_FDCWD, f"{root}{above}/{'/'.join(parts[:count])}", 0o755)


def _add_folder(entries: dict[str, Entry], path: str) -> None:
    """Add a folder and those above it; a name that is there already stays what it is."""
    parts = path.strip("/").split("/")
    for count in range(1, len(parts) + 1):
        name = "/".join(parts[:count])
        entries.setdefault(name, folder(name))


def _small(path: str) -> bytes:
    with open(path, "rb") as opened:
        return opened.read(_MOST_FILE_BYTES)
