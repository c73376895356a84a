"""Files of the host: reading, writing, leaving things behind that act for others; and the mounts that stand before them."""

from __future__ import annotations

import hashlib
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.attacks.canaries import (
    NAME,
    handle_of,
    is_setuid_of,
    listening,
    new_file,
    process,
    said,
    secret_in,
    token,
)  # fmt: skip
from tests.attacks.harness import Attack, Canary, Plain, always, is_root, try_attack
from tests.attacks.inside import first_of, libc, mount, pids, private_mounts, read, scratch, syscall
from tests.attacks.kernels import SandboxedKernel, requires_sandbox
from tests.support import PROJECT
from tests.support.hierarchies import mounted_hierarchies

pytestmark = [requires_sandbox, pytest.mark.timeout(300)]
HOME = str(Path.home())
ONLY_ROOT = always("an ordinary user may not do that", for_root=False)


# -- programs --------------------------------------------------------------------------------------------------------


def reads(path: str) -> dict[str, Any]:
    return {"text": read(path)}


def reads_through_every_root(path: str) -> dict[str, Any]:
    return first_of(*[lambda pid=pid: {"text": read(f"/proc/{pid}/root{path}")} for pid in [1, *pids()]])


def reads_through_every_cwd(pid: int, **_: Any) -> dict[str, Any]:
    folder = f"/proc/{pid}/cwd"
    return {"text": read(f"{folder}/{os.listdir(folder)[0]}")}


def climbs_out_of_the_root(path: str) -> dict[str, Any]:
    os.chroot(scratch("chroot"))
    for _ in range(64):
        os.chdir("..")
    os.chroot(".")
    return {"text": read(path)}


def opens_by_handle(handle: str, kind: int) -> dict[str, Any]:
    data = bytes.fromhex(handle)
    packed = len(data).to_bytes(4, sys.byteorder) + kind.to_bytes(4, sys.byteorder) + data
    found = {"text": ""}
    for place in ("/usr", "/", sys.prefix, os.path.expanduser("~/work"), "/var/tmp"):
        try:
            place_fd = os.open(place, os.O_RDONLY)
            found["text"] = os.read(libc.open_by_handle_at(place_fd, packed, os.O_RDONLY), 100).decode()
        except OSError:
            continue
    if not found["text"]:
        raise OSError(1, "no place")
    return found


def reads_the_disk(major: int, minor: int, offset: int) -> dict[str, Any]:
    import hashlib
    import stat
    import tempfile

    path = os.path.join(tempfile.mkdtemp(prefix="labkit-attack-"), "disk")
    try:
        os.mknod(path, stat.S_IFBLK | 0o600, os.makedev(major, minor))
        fd = os.open(path, os.O_RDONLY)
        return {"text": hashlib.sha256(os.pread(fd, 4096, offset)).hexdigest()}
    finally:
        if os.path.lexists(path):
            os.unlink(path)
        os.rmdir(os.path.dirname(path))


def leaves_a_device(path: str) -> None:
    import stat

    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 1))  # /dev/mem


def leaves_a_setuid_program(path: str) -> None:
    with open(path, "wb") as file:
        file.write(b"#!/bin/true\n")
    os.chown(path, 0, 0)
    os.chmod(path, 0o4755)


def leaves_a_capability(path: str) -> None:
    with open(path, "wb"):
        pass
    # struct vfs_cap_data, version 2, effective: CAP_SYS_ADMIN
    os.setxattr(path, "security.capability", bytes.fromhex("0100000200002000000000000000000000000000"))


def leaves_a_trusted_attribute(path: str) -> None:
    with open(path, "wb"):
        pass
    os.setxattr(path, "trusted.labkit", b"yes")


def links_hard(path: str, into: str) -> dict[str, Any]:
    os.link(path, into)
    try:
        return {"text": read(into)}
    finally:
        os.unlink(into)


def writes(path: str) -> None:
    with open(path, "w") as file:
        file.write("from inside")


def writes_after_a_remount(path: str) -> dict[str, Any]:
    folder = os.path.dirname(path)

    def plainly() -> dict[str, Any]:
        with open(path, "w"):
            return {}

    def remounted() -> dict[str, Any]:
        private_mounts()
        for place in (folder, os.path.dirname(folder), "/"):
            for flags in (32 | 4096, 32):  # MS_REMOUNT | MS_BIND, MS_REMOUNT
                if libc.mount(b"none", place.encode(), b"none", libc_ulong(flags), None) == 0:
                    break
        return plainly()

    def bound_again() -> dict[str, Any]:
        copy = scratch("bound")
        mount(folder, copy, "none", 4096 | 16384)
        libc.mount(b"none", copy.encode(), b"none", libc_ulong(32 | 4096), None)
        with open(f"{copy}/{os.path.basename(path)}", "w"):
            return {}

    def by_attributes() -> dict[str, Any]:
        tree_fd = syscall(428, -100, folder.encode(), 1 | 0o2000000)  # open_tree, CLONE | CLOEXEC
        attributes = (0).to_bytes(8, "little") + (1).to_bytes(8, "little") + bytes(16)  # clear MOUNT_ATTR_RDONLY
        syscall(442, tree_fd, b"", 0x1000, attributes, len(attributes))
        os.close(os.open(os.path.basename(path), os.O_CREAT | os.O_WRONLY, dir_fd=tree_fd))
        return {}

    import ctypes

    libc_ulong = ctypes.c_ulong
    return first_of(plainly, remounted, bound_again, by_attributes)


def uncovers_what_mounts_hide(path: str) -> dict[str, Any]:
    def directly() -> dict[str, Any]:
        return {"text": read(path)}

    def uncovered() -> dict[str, Any]:
        private_mounts()
        with open("/proc/self/mountinfo") as file:
            points = [line.split()[4] for line in file]
        for point in sorted(points, key=len, reverse=True):
            libc.umount2(point.encode(), 2)  # MNT_DETACH
        return {"text": read(path)}

    def in_a_new_user_namespace() -> dict[str, Any]:
        uid = os.getuid()
        if libc.unshare(0x10000000 | 0x00020000) < 0:
            raise OSError(1, "unshare")
        with open("/proc/self/uid_map", "w") as file:
            file.write(f"0 {uid} 1")
        return uncovered()

    return first_of(directly, uncovered, in_a_new_user_namespace)


def lays_an_overlay_over_the_host(path: str) -> dict[str, Any]:
    def directly() -> dict[str, Any]:
        return {"text": read(path)}

    def overlaid(lower: str) -> dict[str, Any]:
        private_mounts()
        base = scratch("overlay")
        for name in ("upper", "work", "merged"):
            os.makedirs(f"{base}/{name}", exist_ok=True)
        mount("overlay", f"{base}/merged", "overlay", 0, f"lowerdir={lower},upperdir={base}/upper,workdir={base}/work")
        return {"text": read(f"{base}/merged{path}")}

    return first_of(directly, lambda: overlaid("/proc/1/root"), lambda: overlaid("/"), lambda: overlaid("/usr/../.."))


def moves_into_the_mounts_of(pid: int, path: str) -> dict[str, Any]:
    for target in (pid, 1, os.getppid()):
        try:
            fd = os.open(f"/proc/{target}/ns/mnt", os.O_RDONLY)
        except OSError:
            continue
        if libc.setns(fd, 0x00020000) == 0:
            return {"text": read(path)}
    raise OSError(1, "setns")


def writes_the_same_again(path: str) -> dict[str, Any]:
    with open(path, "r+b", buffering=0) as file:
        value = file.read()
        file.seek(0)
        return {"written": file.write(value)}


def opens_for_writing(path: str) -> None:
    os.close(os.open(path, os.O_WRONLY))


def sees_the_groups_of_the_host(name: str) -> dict[str, Any]:
    def walk(top: str) -> list[str]:
        return [folder for _, folders, _ in os.walk(top) for folder in folders]

    found = walk("/sys/fs/cgroup")
    try:
        private_mounts()
    except OSError:
        return {"text": " ".join(found)}
    tries = [("cgroup2", "")] + [
        ("cgroup", kind) for kind in ("memory", "pids", "cpu,cpuacct", "cpu", "freezer", "none,name=systemd")
    ]
    for number, (kind, data) in enumerate(tries):
        place = scratch(f"groups-{number}")
        try:
            mount("none", place, kind, 0, data)
        except OSError:
            continue
        found += walk(place)
    return {"text": " ".join(found)}


def sets_a_release_agent() -> None:
    tops = [f"/sys/fs/cgroup/{name}" for name in os.listdir("/sys/fs/cgroup")]
    try:
        private_mounts()
        for kind in ("memory", "pids", "freezer", "rdma", "cpu,cpuacct"):
            place = scratch(f"agent-{kind}")
            try:
                mount("none", place, "cgroup", 0, kind)
                tops.append(place)
            except OSError:
                continue
    except OSError:
        pass
    refusal = OSError(2, "there is none")
    for top in tops:
        try:
            with open(f"{top}/release_agent", "r+") as file:
                value = file.read()
                file.seek(0)
                file.write(value or "\n")
                return
        except OSError as error:
            refusal = error
    raise refusal


def connects_to_a_path(token: str, path: str, **_: Any) -> None:
    connected = socket.socket(socket.AF_UNIX)
    connected.connect(path)
    connected.sendall(token.encode())


def finds_connection_files(folder: str, path: str) -> dict[str, Any]:
    import glob

    texts = [read(path) for path in glob.glob(f"{folder}/kernel-*.json") + glob.glob("/run/**/*.json", recursive=True)]
    if not texts:
        raise OSError(2, "none")
    return {"text": " ".join(texts)}


def swaps_the_exchange(path: str) -> dict[str, Any]:
    """Point a link in the work folder at the secret and read through it."""
    link = (
        os.path.expanduser("~/work/labkit-link") if os.path.isdir(os.path.expanduser("~/work")) else "/tmp/labkit-link"
    )
    if os.path.lexists(link):
        os.unlink(link)
    os.symlink(path, link)
    try:
        return {"text": read(link)}
    finally:
        os.unlink(link)


# -- canaries ----------------------------------------------------------------------------------------------------------


@contextmanager
def contents_of(path: str) -> Iterator[Canary]:
    """Reached if the program has read what the host's file holds."""
    data = Path(path).read_bytes() if os.access(path, os.R_OK) else b"-"
    start = data[:4096].decode(errors="replace")
    yield Canary({"path": path}, lambda answer: bool(start) and answer.get("text") == start)


@contextmanager
def handle_of_a_secret(*_: Any) -> Iterator[Canary]:
    with secret_in("/var/tmp") as canary:
        handle, kind = handle_of(canary.arguments["path"])
        yield Canary({"handle": handle, "kind": kind}, canary.reached)


def disk() -> tuple[int, int, bytes] | None:
    """Return a disk of the machine and a piece of it that is not empty."""
    for line in Path("/proc/partitions").read_text().splitlines()[2:]:
        major, minor, _, name = line.split()
        try:
            with open(f"/dev/{name}", "rb") as device:
                device.seek(4096)
                data = device.read(4096)
        except OSError:
            continue
        if any(data):
            return int(major), int(minor), data
    return None


@contextmanager
def sector(*_: Any) -> Iterator[Canary]:
    found = disk() or (8, 0, b"")
    arguments = {"major": found[0], "minor": found[1], "offset": 4096}
    yield Canary(arguments, lambda answer: answer.get("text") == hashlib.sha256(found[2]).hexdigest())


def left_in_work(is_there: Any) -> Any:
    """A name in the work folder, as the host sees it: reached if something of that kind is left there."""

    @contextmanager
    def canary(kernel: SandboxedKernel | None, _: Path) -> Iterator[Canary]:
        name = f"{NAME}-{secrets.token_hex(4)}"
        outside = (kernel.work if kernel else Path("/var/tmp")) / name
        path = f"{kernel.inner_work}/{name}" if kernel else str(outside)
        try:
            yield Canary({"path": path}, lambda _: is_there(outside))
        finally:
            outside.unlink(missing_ok=True)

    return canary


def has_attribute(path: Path, name: str) -> bool:
    """Tell whether the host sees the attribute, for its own root: version 2, or 3 with root id 0."""
    try:
        value = os.getxattr(path, name)
    except OSError:
        return False
    return name != "security.capability" or value[3] == 2 or value[20:24] == bytes(4)


@contextmanager
def a_group(*_: Any) -> Iterator[Canary]:
    """A cgroup of the host's user, seen by its name."""
    name = f"{NAME}-{secrets.token_hex(4)}"
    for hierarchy in mounted_hierarchies():
        for top in (hierarchy.mount, hierarchy.own.removesuffix("/labkit-leaf")):
            try:
                os.mkdir(f"{top}/{name}")
            except OSError:
                continue
            try:
                yield Canary({"name": name}, lambda answer: name in answer.get("text", ""))
            finally:
                os.rmdir(f"{top}/{name}")
            return
    yield Canary({"name": name}, lambda _: False)


@contextmanager
def socket_at(folder: str) -> Iterator[Canary]:
    path = f"{folder}/{NAME}-{secrets.token_hex(4)}.sock"
    with listening(socket.AF_UNIX, path, path=path) as canary:
        yield canary


@contextmanager
def another_connection_file(*_: Any) -> Iterator[Canary]:
    """The connection file of a kernel that is not this one, where Jupyter keeps them."""
    from jupyter_core.paths import jupyter_runtime_dir

    folder, key = Path(jupyter_runtime_dir()), token()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"kernel-{secrets.token_hex(8)}.json"
    path.write_text(f'{{"key": "{key}"}}')
    path.chmod(0o600)
    try:
        yield Canary({"folder": str(folder), "path": str(path)}, lambda answer: key in answer.get("text", ""))
    finally:
        path.unlink()


@contextmanager
def mounts_of_a_process(_: Any, folder: Path) -> Iterator[Canary]:
    with secret_in("/var/tmp") as secret, process(folder) as target:
        yield Canary({"pid": target.arguments["pid"], "path": secret.arguments["path"]}, secret.reached)


def unreadable(path: str) -> str:
    """Return why this user cannot read the file."""
    try:
        Path(path).read_bytes()
    except OSError as error:
        return f"{path} answers {error.strerror}"
    return ""


def no_v1() -> str:
    """Return why no release agent can be set here."""
    if not is_root():
        return "an ordinary user may not do that"
    return "" if any(h.version == 1 for h in mounted_hierarchies()) else "there is no cgroup v1 here"


def no_file(path: str) -> str:
    """Return why nobody can write this file here."""
    if not is_root():
        return "it belongs to root"
    return "" if Path(path).exists() else f"there is no {path} here"


def secret(place: str, **more: Any) -> Any:
    return lambda *_: secret_in(place, **more)


def fresh(folder: Path | str) -> Any:
    return lambda *_: new_file(folder)


RUN = "/run" if os.access("/run", os.W_OK) else os.environ.get("XDG_RUNTIME_DIR", "/tmp")
ATTACKS = (
    Attack("a file in the home of the server's user", reads, secret(HOME)),
    Attack("a file in /tmp", reads, secret("/tmp")),
    Attack("a file in /var/tmp", reads, secret("/var/tmp")),
    Attack("a file in the shared memory of the host", reads, secret("/dev/shm")),
    Attack("a file in /run", reads, secret(RUN)),
    Attack("the passwords of the host", reads, lambda *_: contents_of("/etc/shadow"), ONLY_ROOT),
    Attack("the users of the host", reads, lambda *_: contents_of("/etc/passwd")),
    Attack("the mounts of the host's first process", reads, lambda *_: contents_of("/proc/1/mountinfo"), lambda: unreadable("/proc/1/mountinfo")),
    Attack("a file, through /proc/PID/root of every process", reads_through_every_root, secret("/var/tmp")),
    Attack("a file, through /proc/PID/cwd", reads_through_every_cwd, lambda _, folder: process(folder / "cwd")),
    Attack("a file, through a link in the work folder", swaps_the_exchange, secret("/var/tmp")),
    Attack("a file, out of a chroot", climbs_out_of_the_root, secret("/var/tmp"), ONLY_ROOT),
    Attack("a file by its handle", opens_by_handle, handle_of_a_secret, ONLY_ROOT),
    Attack("a file by a hard link", links_hard, secret("/var/tmp", into="/var/tmp/labkit-hard-link")),
    Attack("a file below mounts that hide it", uncovers_what_mounts_hide, secret("/tmp")),
    Attack("a file in an overlay over the host", lays_an_overlay_over_the_host, secret("/var/tmp")),
    Attack("a file, in the mount namespace of the host", moves_into_the_mounts_of, mounts_of_a_process, ONLY_ROOT),
    Attack(
        "the disk itself", reads_the_disk, sector,
        lambda: ("" if disk() else "no disk can be read here") if is_root() else "an ordinary user makes no devices",
    ),
    Attack("the connection file of another kernel", finds_connection_files, another_connection_file),
    Attack("a new file in the home of the server's user", writes, fresh(HOME)),
    Attack("a new file in the course's package", writes_after_a_remount, fresh(PROJECT / "labkit")),
    Attack("a new file in the environment", writes_after_a_remount, fresh(sys.prefix)),
    Attack("a new program for everybody", writes_after_a_remount, fresh("/usr/bin"), ONLY_ROOT),
    Attack("a device, left in the work folder", leaves_a_device, left_in_work(lambda path: path.is_char_device()), ONLY_ROOT),
    Attack(
        "a set-uid program of root, left in the work folder", leaves_a_setuid_program,
        left_in_work(lambda path: is_setuid_of(path, 0)), ONLY_ROOT,
    ),
    Attack(
        "a program with capabilities, left in the work folder", leaves_a_capability,
        left_in_work(lambda path: has_attribute(path, "security.capability")), ONLY_ROOT,
    ),
    Attack(
        "a trusted attribute, left in the work folder", leaves_a_trusted_attribute,
        left_in_work(lambda path: has_attribute(path, "trusted.labkit")), ONLY_ROOT,
    ),
    *(
        Attack(f"the setting {path}", writes_the_same_again, said(path=path), lambda path=path: no_file(path))
        for path in ("/proc/sys/kernel/core_pattern", "/proc/sys/vm/overcommit_memory", "/proc/sys/kernel/modprobe",
                     "/sys/kernel/mm/ksm/run", "/proc/sys/kernel/hotplug")
    ),
    *(
        Attack(f"the trigger {path}", opens_for_writing, said(path=path), lambda path=path: no_file(path))
        for path in ("/proc/sysrq-trigger", "/proc/sys/vm/drop_caches", "/dev/kmsg", "/sys/power/state", "/proc/irq/default_smp_affinity")
    ),
    Attack("the cgroups of the host", sees_the_groups_of_the_host, a_group, lambda: no_group()),
    Attack("a program that the host runs when a cgroup empties", sets_a_release_agent, said(), no_v1),
    Attack("the socket of a service in /run", connects_to_a_path, lambda *_: socket_at(RUN)),
    Attack("the socket of a service in /tmp", connects_to_a_path, lambda *_: socket_at("/tmp")),
)  # fmt: skip


def no_group() -> str:
    """Return why there is no group to be seen."""
    with a_group() as canary:
        name = canary.arguments["name"]
        found = subprocess.run(["find", "/sys/fs/cgroup", "-name", name], capture_output=True, text=True, check=False)
    return "" if name in found.stdout else "this user may make no cgroup"


@pytest.mark.parametrize("attack", ATTACKS, ids=str)
def test_no_file_of_the_host_is_reached(attack: Attack, kernel: SandboxedKernel, tmp_path: Path) -> None:
    (tmp_path / "cwd").mkdir()
    try_attack(attack, kernel, Plain(tmp_path), tmp_path)


def test_a_working_folder_that_became_a_link_shows_nothing_more(tmp_path: Path) -> None:
    """A server looks whether the notebook's folder is one, and starts the kernel there; meanwhile it may have been swapped."""
    with secret_in("/var/tmp") as canary:
        (tmp_path / "work").mkdir()
        (tmp_path / "work" / "swapped").symlink_to("/var/tmp")
        name = Path(canary.arguments["path"]).name
        assert canary.reached({"text": (tmp_path / "work/swapped" / name).read_text()})
        kernel = SandboxedKernel(tmp_path, cwd="work/swapped")
        try:
            places = f"('.', '/var/tmp', os.path.expanduser('~/work/swapped'), {str(tmp_path / 'work/swapped')!r})"
            found = kernel.run(
                f"import os\nfor place in {places}:\n"
                f"    try: print(open(os.path.join(place, {name!r})).read())\n    except OSError as error: print(error.errno)"
            )
        finally:
            kernel.close()
        assert not canary.reached({"text": found})
        assert len(found.split()) == 4
