"""The root filesystem of a container: the steps that build it, in a mount namespace that nobody else sees.

The child first gets everything it needs from the host as *detached mounts* (descriptors that the launcher opened), puts the
root together on a scratch tmpfs, makes it ``/``, and only then attaches /proc, /dev and the rest. By then a
symbolic link in an image (``/dev -> /etc``) leads to a place inside the container and nowhere else. The old root
stays reachable by relative paths until the end, for two reasons: devices are bind-mounted from it, and the kernel allows a
fresh /proc only where one is already fully visible.

See: pivot_root(2), mount_namespaces(7), OCI Runtime Specification, config-linux.md ("Default Filesystems").
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from labkit.container.spec import MountSpec, Rootfs, Spec
from labkit.isolation import mounts
from labkit.isolation.overlay import overlay
from labkit.linux.constants import MountFlag
from labkit.linux.steps import Step
from labkit.linux.syscalls import AT_FDCWD

__all__ = ["tree_steps"]

#: With more layers than this their whole paths might not fit into a mount's options.
_MOST_WHOLE_PATHS = 40


def tree_steps(
    spec: Spec, trees: Mapping[str, int], *, stage: str, v1_hierarchies: tuple[str, ...], status_fd: int
) -> list[Step]:
    """Return the steps from "make the mounts private" to a finished ``/`` with everything mounted.

    ``status_fd`` is the descriptor, beside the standard streams, that the child still needs.
    """
    steps = mounts.private()
    is_host = spec.rootfs.kind == "host"
    if is_host and not spec.mounts:
        return steps
    most_files = f",nr_inodes={spec.rootfs.most_files}" if spec.rootfs.most_files else ""
    steps += mounts.tmpfs(stage, data=f"size={spec.rootfs.size_bytes},mode=755{most_files}")
    if not is_host:
        steps += _root_steps(spec.rootfs, trees, stage)
        steps += mounts.pivot_into(f"{stage}/root")
    for number, mount in enumerate(spec.mounts):
        scratch = f"{'' if is_host else '.'}{stage}/{number}"
        tree_fds = (trees.get(f"mount:{number}", -1), trees.get(f"kept:{number}", -1))
        steps += _mount_steps(mount, tree_fds, scratch=scratch, v1_hierarchies=v1_hierarchies)
    if is_host:
        return steps
    if spec.files:
        steps += [step for path, data in spec.files for step in mounts.write_file(path, data)]
        # A mount on which a file is open for writing cannot be made read-only; all descriptors but one have been used.
        why = "close the written files"
        steps += [Step("close_range", span, why) for span in ((3, status_fd - 1, 0), (status_fd + 1, 0xFFFF_FFFF, 0))]
    if spec.cwd != "/":
        steps += mounts.make_folders(spec.cwd)
    empty = f".{stage}/empty"
    if spec.masked_paths:
        steps += mounts.make_folders(empty, mode=0o555)[-1:]
    for path in spec.masked_paths:
        steps += mounts.mask(path, empty=empty)
    for path in spec.readonly_paths:
        steps += mounts.readonly(path)
    if spec.rootfs.readonly:
        steps += mounts.readonly_root()
    return steps + mounts.let_go_of_old_root()


def _root_steps(rootfs: Rootfs, trees: Mapping[str, int], stage: str) -> list[Step]:
    root = f"{stage}/root"
    steps = mounts.make_folders(root)[-1:]
    if rootfs.kind == "tmpfs":
        steps += mounts.tmpfs(root, flags=MountFlag.NOSUID, data=f"size={rootfs.size_bytes},mode=755")
    elif rootfs.kind == "bind":
        steps += _attach(trees["lower:0"], root)
    else:
        lowers = [f"{stage}/lower{number}" for number in range(len(rootfs.lowers))]
        for number, path in enumerate(lowers):
            steps += _attach(trees[f"lower:{number}"], path)
        writable = f"{stage}/writable"
        if rootfs.writable is not None:
            steps += _attach(trees["writable"], writable)
        is_made = rootfs.writable is not None
        if len(lowers) <= _MOST_WHOLE_PATHS:
            steps += _union(root, lowers, writable, is_made=is_made)
        else:
            # All options of a mount fit into one page, which short names share better.
            names = [path.removeprefix(f"{stage}/") for path in lowers]
            steps.append(Step("chdir", (stage,), "go to the layers"))
            steps += _union(root, names, writable, is_made=is_made)
            steps.append(Step("chdir", ("/",), "come back from the layers"))
    why = "link the folders of programs"
    # Folders of links are made once each; those at the root need none.
    for folder in dict.fromkeys(os.path.dirname(link) for link, _ in rootfs.links):
        steps += mounts.make_folders(f"{root}{folder}") if folder != "/" else []
    return steps + [Step("symlinkat", (target, AT_FDCWD, f"{root}{link}"), why) for link, target in rootfs.links]


def _attach(tree_fd: int, target: str) -> list[Step]:
    # Only the last folder is new: the stage above it is ours.
    return mounts.attach(tree_fd, target)[-2:]


def _union(target: str, lowers: list[str], writable: str, *, is_made: bool = False, flags: int = 0) -> list[Step]:
    upper, work = f"{writable}/upper", f"{writable}/work"
    made = [] if is_made else [step for path in (writable, upper, work) for step in mounts.make_folders(path)[-1:]]
    return made + overlay(target, lowers, upper=upper, work=work, userxattr=True, flags=flags)


def _mount_steps(
    mount: MountSpec, tree_fds: tuple[int, int], *, scratch: str, v1_hierarchies: tuple[str, ...]
) -> list[Step]:
    """Attach one mount of the spec, whose source and whose kept changes are ``tree_fds`` (-1: none).

    ``scratch`` is a place on the stage, seen from the old root where the child stands.
    """
    target, (tree_fd, kept_fd) = mount.target, tree_fds
    if mount.kind == "bind":
        return mounts.attach(tree_fd, target)
    steps = mounts.make_folders(target)
    if mount.kind == "overlay":
        steps += mounts.make_folders(scratch)[-1:] + _attach(tree_fd, f"{scratch}/lower")
        steps += _attach(kept_fd, f"{scratch}/writable") if kept_fd >= 0 else []
        flags, _ = mounts.parse_options(mount.options)
        return steps + _union(
            target, [f"{scratch}/lower"], f"{scratch}/writable", is_made=kept_fd >= 0, flags=int(flags)
        )
    if mount.kind == "tmpfs":
        flags, data = mounts.parse_options(mount.options)
        return steps + mounts.tmpfs(target, flags=flags | MountFlag.NOSUID | MountFlag.NODEV, data=data)
    if mount.kind == "cgroup":
        return steps + mounts.cgroups(target, v1=v1_hierarchies)
    if mount.kind == "dev":
        return steps + mounts.dev(target, host_dev="./dev", readonly="ro" in mount.options)
    simple = {"proc": mounts.proc, "sysfs": mounts.sysfs, "mqueue": mounts.mqueue}
    return steps + simple[mount.kind](target)
