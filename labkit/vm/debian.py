"""A small Debian on a disk, from packages that are only unpacked: no root, no debootstrap, no container.

A package is an archive of files and a few scripts. The files of a hundred packages in one folder are nearly a system; the scripts
would make users and links, and ask questions. What a boot to a login needs of that is written here: who root is, how a password
is checked, which target to start. The rest systemd does itself at its first start: it makes the system's users (sysusers), the
linker's cache, folders below /var. mke2fs makes a file system of the folder. Its files belong to whoever unpacked them, so debugfs
writes into it the owners that the packages name: in a file, an owner is just a number.

Leaves out: maintainer scripts, documentation, translations, package lists, a boot loader (QEMU loads the kernel).
See: deb(5), mke2fs(8) (-d), debugfs(8), sysusers.d(5), systemd-update-done.service(8), https://wiki.debian.org/UsrMerge.
"""

from __future__ import annotations

import os
import subprocess
import tarfile
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeAlias

from labkit.errors import FeatureMissing, GuestError
from labkit.setup.archives import files_of
from labkit.setup.parts import find_program

__all__ = ["PACKAGES", "Owners", "make_disk", "unpack_system"]

#: Debian's own minimum, and what makes it a machine to log in to: init, devices, a bus, a network's and a shell's usual programs.
PACKAGES = ("?essential", "usr-is-merged", "systemd-sysv", "udev", "dbus", "login", "iproute2", "procps", "kmod")
#: The files that are not root's, by their path in the system: user and group.
Owners: TypeAlias = "dict[str, tuple[int, int]]"
_MERGED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_LEFT_OUT = ("usr/share/doc/", "usr/share/man/", "usr/share/info/", "usr/share/locale/", "usr/share/lintian/")
_DISK_BYTES = 768 << 20  # most of it is never written to, and takes no room
_FIRST_INODE = 11  # ext4 keeps the ones below for itself; 2 is the root folder
_PAM = {
    "auth": "auth required pam_unix.so nullok",
    "account": "account required pam_unix.so",
    "password": "password required pam_unix.so yescrypt",
    "session": "session required pam_unix.so",
    "session-noninteractive": "session required pam_unix.so",
}
_FILES = {
    "etc/hostname": "labkit-debian\n",
    "etc/hosts": "127.0.0.1 localhost labkit-debian\n",
    "etc/fstab": "# What is mounted here was mounted before systemd started.\n",
    **{f"etc/pam.d/common-{kind}": f"{line}\n" for kind, line in _PAM.items()},
}
_LINKS = {
    "etc/systemd/system/default.target": "/lib/systemd/system/multi-user.target",
    "etc/localtime": "/usr/share/zoneinfo/Etc/UTC",
    "usr/bin/awk": "mawk",
}


def unpack_system(archives: Iterable[Path], tree: Path) -> Owners:
    """Unpack packages into the new folder ``tree``, write what their scripts would, and return the owners of what is not root's.

    Raises: FeatureMissing if an archive is damaged, OSError.
    """
    owners: Owners = {}
    for name in _MERGED:
        (tree / "usr" / name).mkdir(parents=True)
        (tree / name).symlink_to(f"usr/{name}")
    for archive in archives:
        with files_of(archive) as tar:
            # Since 3.12 Python distrusts archives unless told; before, it knows no such attribute, and does not mind.
            tar.extraction_filter = _as_it_is
            for member in tar:
                _unpack_one(tar, member, tree, owners)
    _configure(tree)
    return owners


def _unpack_one(tar: tarfile.TarFile, member: tarfile.TarInfo, tree: Path, owners: Owners) -> None:
    """Put one file where it belongs; its owner is only noted, since making somebody else own it would need root."""
    path = _merged(member.name)
    if not path or path.startswith(_LEFT_OUT):
        return
    if ".." in path.split("/"):
        raise FeatureMissing(f"A package wants to put a file at {member.name!r}: it is damaged.")
    if member.islnk():
        member.linkname = _merged(member.linkname)
    if member.uid or member.gid:
        owners[path] = (member.uid, member.gid)
    member.name, member.uid, member.gid = path, os.geteuid(), os.getegid()
    # Packages agree about their folders; a second mkdir would only change the mode of one that has been made.
    if not (member.isdir() and (tree / path).is_dir()):
        tar.extract(member, tree, numeric_owner=True)


def _as_it_is(member: tarfile.TarInfo, _: str) -> tarfile.TarInfo:
    return member


def _merged(name: str) -> str:
    """Return a package's path as it is in a system whose /bin, /sbin and /lib are links into /usr."""
    path = name.removeprefix("./").strip("/")
    return f"usr/{path}" if path.partition("/")[0] in _MERGED else path


def _configure(tree: Path) -> None:
    """Write what maintainer scripts would have asked or made, as far as a boot to a login needs it."""
    masters = tree / "usr/share/base-passwd"
    users = (masters / "passwd.master").read_text()
    # Nobody reaches this machine but who started it: root has no password.
    written = {
        **_FILES,
        "etc/passwd": users.replace("root:*:", "root:x:"),
        "etc/group": (masters / "group.master").read_text(),
        "etc/shadow": "".join(f"{line.split(':')[0]}:{'' if line.startswith('root:') else '*'}:::::::\n" for line in users.splitlines()),
        "etc/machine-id": f"{uuid.uuid4().hex}\n",
    }  # fmt: skip
    for path, content in written.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text(content)
    for path, target in _LINKS.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).unlink(missing_ok=True)
        (tree / path).symlink_to(target)
    (tree / "etc/shadow").chmod(0o640)


def make_disk(tree: Path, owners: Mapping[str, tuple[int, int]], path: Path) -> None:
    """Make the file ``path`` an ext4 file system with the files of ``tree``, which are root's but for ``owners``.

    Raises: FeatureMissing without mke2fs and debugfs, GuestError if one of them fails.
    """
    with path.open("wb") as file:
        file.truncate(_DISK_BYTES)
    options = ["-q", "-F", "-t", "ext4", "-E", "root_owner=0:0,lazy_itable_init=1", "-L", "labkit", "-m", "0"]
    _run("mke2fs", *options, "-d", str(tree), str(path))
    commands = []
    if os.geteuid():
        last_inode = _FIRST_INODE + sum(len(folders) + len(files) for _, folders, files in os.walk(tree)) + 1
        commands += [
            f"sif <{inode}> {who} 0" for inode in range(_FIRST_INODE, last_inode + 1) for who in ("uid", "gid")
        ]
    commands += [
        f'sif "/{name}" {who} {owner}'
        for name, pair in owners.items()
        for who, owner in zip(("uid", "gid"), pair, strict=True)
    ]
    _run("debugfs", "-w", "-f", "-", str(path), said="\n".join(commands))


def _run(name: str, *words: str, said: str = "") -> None:
    program = find_program(name)
    if program is None:
        raise FeatureMissing(f"There is no {name} to make a disk with.", remedy="Install e2fsprogs.")
    done = subprocess.run(
        [str(program), *words], input=said, capture_output=True, text=True, errors="replace", check=False
    )
    if done.returncode:
        raise GuestError(f"{name} could not make a disk: {' '.join(done.stderr.split()[-20:])}.")
