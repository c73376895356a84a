"""The root filesystem of a container: built in the child, in a mount namespace that nobody else sees.

The child first gets everything it needs from the host as *detached mounts* (descriptors that the launcher opened), puts the
root together on a scratch tmpfs, makes it ``/``, and only then attaches /proc, /dev and the rest. By then a
symbolic link in an image (``/dev -> /etc``) leads to a place inside the container and nowhere else. The old root
stays reachable by relative paths until the end, for two reasons: devices are bind-mounted from it, and the kernel allows a
fresh /proc only where one is already fully visible.

Leaves out: cgroup v1 hierarchies that no controller of labkit uses.
See: pivot_root(2), mount_namespaces(7), OCI Runtime Specification, config-linux.md ("Default Filesystems").
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

from labkit.container.spec import MountSpec, Rootfs, Spec
from labkit.isolation import mounts
from labkit.isolation.overlay import mount_overlay

__all__ = ["build"]


def build(spec: Spec, trees: Mapping[str, int], stage: str) -> Iterator[str]:
    """Build the file tree of ``spec``; yield the name of each step before it is taken.

    The caller is in a mount namespace of its own whose mounts are private. Raises: OSError from the step last named.
    """
    if spec.rootfs.kind == "host" and not spec.mounts:
        return
    yield "mount the scratch tmpfs"
    mounts.mount_tmpfs(stage, size_bytes=spec.rootfs.size_bytes)
    if spec.rootfs.kind != "host":
        yield f"put the root filesystem together ({spec.rootfs.kind})"
        _mount_root(spec.rootfs, trees, stage)
        yield "pivot_root"
        mounts.pivot_into(f"{stage}/root")
    for number, mount in enumerate(spec.mounts):
        yield f"mount {mount.kind} at {mount.target}"
        _mount_one(mount, trees.get(f"mount:{number}", -1), scratch=f".{stage}/{number}")
    if spec.rootfs.kind == "host":
        return
    yield "make the working directory"
    if not os.path.isdir(spec.cwd):
        os.makedirs(spec.cwd, 0o755)
    yield "mask paths of /proc and /sys"
    for path in spec.masked_paths:
        mounts.mask_path(path)
    for path in spec.readonly_paths:
        if os.path.exists(path):
            mounts.set_readonly(path)
    if spec.rootfs.readonly:
        mounts.set_readonly_root()
    yield "let go of the old root"
    mounts.let_go_of_old_root()


def _mount_root(rootfs: Rootfs, trees: Mapping[str, int], stage: str) -> None:
    root = f"{stage}/root"
    os.mkdir(root)
    if rootfs.kind == "tmpfs":
        mounts.mount_tmpfs(root, size_bytes=rootfs.size_bytes)
    elif rootfs.kind == "bind":
        mounts.attach(trees["lower:0"], root)
    else:
        lowers = [f"{stage}/lower{number}" for number in range(len(rootfs.lowers))]
        for number, path in enumerate(lowers):
            mounts.attach(trees[f"lower:{number}"], path)
        writable = f"{stage}/writable"
        if rootfs.writable is not None:
            mounts.attach(trees["writable"], writable)
        _mount_union(root, lowers, writable)
    for link, target in rootfs.links:
        os.symlink(target, f"{root}{link}")


def _mount_union(target: str, lowers: list[str], writable: str) -> None:
    for folder in (writable, f"{writable}/upper", f"{writable}/work"):
        os.makedirs(folder, 0o755, exist_ok=True)
    mount_overlay(target, lowers, upper=f"{writable}/upper", work=f"{writable}/work", userxattr=True)


def _mount_one(mount: MountSpec, tree_fd: int, *, scratch: str) -> None:
    """Attach one mount of the spec; ``scratch`` is a place on the stage, seen from the old root where the caller stands."""
    flags, data = mounts.parse_options(mount.options)
    target = mount.target
    if mount.kind == "bind":
        mounts.attach(tree_fd, target)
        return
    mounts.make_mount_point(target, folder=True)
    if mount.kind == "overlay":
        os.mkdir(scratch)
        mounts.attach(tree_fd, f"{scratch}/lower")
        _mount_union(target, [f"{scratch}/lower"], f"{scratch}/writable")
    elif mount.kind == "tmpfs":
        mounts.mount_tmpfs_with(target, flags=flags, data=data)
    elif mount.kind == "proc":
        mounts.mount_proc(target)
    elif mount.kind == "sysfs":
        mounts.mount_sysfs(target)
    elif mount.kind == "mqueue":
        mounts.mount_mqueue(target)
    elif mount.kind == "dev":
        mounts.mount_dev(target, host_dev="./dev")
    elif mount.kind == "cgroup":
        mounts.mount_cgroups(target)
