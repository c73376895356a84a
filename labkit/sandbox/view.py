"""What a student's programs see of the machine: the file tree of the sandbox, as mounts and small files.

The root is empty memory, read-only once it is filled. Into it come, read-only and without set-uid: the system's program trees,
the Python that runs the kernel, and the course. A few files of /etc are copied, those that programs cannot do without;
everything else of the machine is not hidden but absent. What can be written is memory of limited size and number of
files, which ends with the sandbox; only ``~/work`` stays.

The kernel's sockets lie in a folder of memory where symbolic links are not followed: the server outside opens files there, and a
link to a socket of the machine would lead it astray.

Leaves out: distributions that keep programs elsewhere (NixOS, Guix).
See: file-hierarchy(7), tmpfs(5), mount(2) (MS_NOSYMFOLLOW).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import labkit
from labkit.container import hostlike
from labkit.container.spec import MountSpec
from labkit.sandbox.policy import Policy
from labkit.setup.parts import cache_folder

__all__ = [
    "HOME",
    "SOCKETS",
    "changes_folder",
    "course_folder",
    "files",
    "links",
    "mounts",
    "shown_folder",
    "work_folder",
]

#: The student's home, and the folder of the kernel's sockets and connection file.
HOME, SOCKETS = "/root", "/run/jupyter"
_TOPS = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_PROGRAMS = ("ro", "nosuid", "nodev")
_SAFE = ("nosuid", "nodev")
#: Of the checkout, what lessons and their readers need.
_COURSE = ("labkit", "notebooks", "images", "docs", "README.md", "pyproject.toml")
_ETC_FILES = (
    "bash.bashrc", "debian_version", "ethertypes", "host.conf", "inputrc", "ld.so.cache", "ld.so.conf", "localtime", "login.defs",
    "magic", "mime.types", "nsswitch.conf", "profile", "protocols", "rpc", "services", "shells", "timezone", "xattr.conf",
)  # fmt: skip
_ETC_FOLDERS = ("fonts", "iproute2", "ld.so.conf.d", "qemu", "ssl/certs")
#: Where these are mounted; /etc has links to them, as an overlay inside cannot use a folder with locked mounts in it.
_ETC_BEHIND = "/opt/host-etc"
_MOST_BYTES = 64 * 1024
#: Folders that are never shown for a notebook's sake: they hold other people's things, or the machine's.
_NEVER = ("/", "/boot", "/dev", "/etc", "/home", "/media", "/mnt", "/opt", "/proc", "/root", "/run", "/srv", "/sys", "/tmp", "/usr", "/var", "/var/tmp")  # fmt: skip


def course_folder() -> Path:
    """Return the folder in which the package ``labkit`` lies: the checkout's, or site-packages."""
    return Path(labkit.__file__).resolve().parents[1]


def work_folder(policy: Policy) -> Path:
    """Return the folder of the machine that the student sees as ``~/work``; it need not exist yet."""
    if policy.work:
        return Path(policy.work)
    notebooks = course_folder() / "notebooks"
    if notebooks.is_dir() and os.access(notebooks, os.W_OK):
        return notebooks / "work"
    data = os.environ.get("XDG_DATA_HOME", "")
    return (Path(data) if data.startswith("/") else Path.home() / ".local/share") / "labkit/work"


def changes_folder() -> Path:
    """Return the folder of the machine in which changes to the notebook folder are kept, if the policy says so."""
    data = os.environ.get("XDG_DATA_HOME", "")
    return (Path(data) if data.startswith("/") else Path.home() / ".local/share") / "labkit/changes"


def shown_folder(cwd: str, *, work: str = "") -> str:
    """Return the folder to show for a notebook in ``cwd``; "" where showing it would show a home or the machine's own.

    Nor is anything more shown for a folder below the notebooks or below ``work``, by its path as it is written: there a student's
    program may have put a link, which followed from outside would lead to any folder of the machine.
    """
    seen = (str(course_folder() / "notebooks"), work)
    if any(folder and _is_above(folder, os.path.abspath(cwd)) for folder in seen):
        return ""
    path = os.path.realpath(cwd)
    home = os.path.realpath(os.path.expanduser("~"))
    runtime = os.environ.get("XDG_RUNTIME_DIR", "/run")
    private = [home, os.path.realpath(runtime), str(course_folder()), os.path.realpath(sys.prefix)]
    if not os.path.isdir(path) or path in _NEVER or any(_is_above(path, other) for other in private):
        return ""
    return path


def _is_above(path: str, other: str) -> bool:
    return (other + "/").startswith(path.rstrip("/") + "/")


def mounts(
    policy: Policy, *, cwd: str, work: str, changes: str = "", work_readonly: bool = False
) -> tuple[MountSpec, ...]:
    """Return every mount of the tree, outer ones first; ``changes`` is the folder of the machine that keeps the notebooks' changes."""
    found = {mount.target: mount for mount in [*_own(policy), *_programs(), *_course(), *_etc(), *_further(policy)]}
    notebooks = str(course_folder() / "notebooks")
    shown = shown_folder(cwd, work=work)
    for folder in dict.fromkeys(path for path in (notebooks, shown) if path and os.path.isdir(path)):
        if folder == shown and any(
            _is_above(target, folder) for target in (notebooks, work) if target and target != folder
        ):
            continue  # seen there already
        found[folder] = _notebooks(policy, folder, changes)
    if work:
        bind = MountSpec("bind", f"{HOME}/work", work, ("ro", *_SAFE) if work_readonly else _SAFE)
        found[bind.target] = bind
        if _is_above(notebooks, work):
            found[work] = replace(bind, target=work)
    return tuple(sorted(found.values(), key=lambda mount: (mount.target.count("/"), mount.target)))


def _own(policy: Policy) -> Iterable[MountSpec]:
    temporary = (f"size={policy.temporary_bytes}", f"nr_inodes={policy.temporary_files}")
    for path, mode in (("/tmp", "1777"), ("/var/tmp", "1777"), ("/run", "755")):
        yield MountSpec("tmpfs", path, options=(*temporary, f"mode={mode}"))
    home = (f"size={policy.home_bytes}", f"nr_inodes={policy.home_files}", "mode=700")
    yield MountSpec("tmpfs", HOME, options=home)
    yield MountSpec("proc", "/proc")
    yield MountSpec("sysfs", "/sys")
    yield MountSpec("dev", "/dev", options=("ro",))
    shm = (f"size={policy.shared_memory_bytes}", f"nr_inodes={policy.temporary_files}", "mode=1777")
    yield MountSpec("tmpfs", "/dev/shm", options=shm)
    yield MountSpec("tmpfs", SOCKETS, options=("size=64k", "nr_inodes=64", "mode=700", "noexec", "nosymfollow"))


def _programs() -> Iterable[MountSpec]:
    tops = [path for path in ("/usr", *_TOPS) if os.path.isdir(path) and not os.path.islink(path)]
    given = (sys.base_prefix, sys.prefix)
    prefixes = [*given, *map(os.path.realpath, given)]
    for path in dict.fromkeys([*tops, *prefixes]):
        if path in tops or not any(_is_above(top, path) for top in tops):
            yield MountSpec("bind", path, path, _PROGRAMS)
    parts = cache_folder() / "parts"
    if parts.is_dir():
        yield MountSpec("bind", str(parts), str(parts), _PROGRAMS)
    kernels = cache_folder() / "kernels"
    if kernels.is_dir():  # of virtual machines: looked for in the cache of whoever boots one
        yield MountSpec("bind", f"{HOME}/.cache/labkit/kernels", str(kernels), _PROGRAMS)


def _course() -> Iterable[MountSpec]:
    root = course_folder()
    if any(_is_above(prefix, str(root)) for prefix in ("/usr", os.path.realpath(sys.prefix))):
        return  # installed, not a checkout: seen with the Python it belongs to
    for name in _COURSE:
        path = root / name
        if path.exists():
            yield MountSpec("bind", str(path), str(path), _PROGRAMS)


def _etc() -> Iterable[MountSpec]:
    for name in _ETC_FOLDERS:
        path = f"/etc/{name}"
        if os.path.isdir(path):
            yield MountSpec("bind", f"{_ETC_BEHIND}/{name}", os.path.realpath(path), _PROGRAMS)


def _further(policy: Policy) -> Iterable[MountSpec]:
    for folder in policy.folders:
        yield MountSpec("bind", folder, folder, _PROGRAMS)


def _notebooks(policy: Policy, folder: str, changes: str) -> MountSpec:
    if policy.notebooks == "read-only":
        return MountSpec("bind", folder, folder, ("idmap", *_PROGRAMS))
    keep = (f"kept={changes}/{folder.strip('/').replace('/', '-')}",) if policy.notebooks == "keep" and changes else ()
    return MountSpec("overlay", folder, folder, ("idmap", *keep, *_SAFE))


def links() -> tuple[tuple[str, str], ...]:
    """Return the symbolic links of the tree: those of a merged /usr, and which of several programs a name means."""
    found = [
        *hostlike.links(),
        ("/etc/mtab", "/proc/self/mounts"),
        ("/var/run", "/run"),
        ("/etc/os-release", "../usr/lib/os-release"),
        *((f"/etc/{name}", f"{_ETC_BEHIND}/{name}") for name in _ETC_FOLDERS),
    ]
    try:
        return (*found, *_alternatives(os.stat("/etc/alternatives").st_mtime_ns))
    except FileNotFoundError:
        return tuple(found)  # not every distribution has these


@lru_cache(maxsize=1)
def _alternatives(_changed_ns: int) -> tuple[tuple[str, str], ...]:
    """Return the links; some two hundred, read again only when one was added or replaced, which changes the folder's time."""
    with os.scandir("/etc/alternatives") as entries:
        return tuple((entry.path, os.readlink(entry.path)) for entry in entries if entry.is_symlink())


def files(*, hostname: str, name_server: str = "") -> tuple[tuple[str, bytes], ...]:
    """Return the small files of /etc: who is who inside, and copies of what programs expect."""
    texts = {
        "/etc/passwd": f"root:x:0:0:root:{HOME}:/bin/bash\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
        "/etc/group": "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n",
        "/etc/hostname": f"{hostname}\n",
        "/etc/hosts": f"127.0.0.1\tlocalhost {hostname}\n::1\tlocalhost ip6-localhost ip6-loopback\n",
        "/etc/resolv.conf": f"nameserver {name_server}\n"
        if name_server
        else "# This sandbox has no network but its own.\n",
    }
    found = {path: text.encode() for path, text in texts.items()}
    for name in _ETC_FILES:
        try:
            with open(f"/etc/{name}", "rb") as file:
                data = file.read(_MOST_BYTES + 1)
        except OSError:
            continue
        if len(data) <= _MOST_BYTES:
            found[f"/etc/{name}"] = data
    return tuple(found.items())


def inner_cwd(cwd: str, shown: Iterable[MountSpec]) -> str:
    """Return the folder to start in: ``cwd`` if the sandbox shows it or something below it, else the home."""
    seen = [mount for mount in shown if mount.kind in ("bind", "overlay")]
    written = os.path.abspath(cwd)
    # Links in it are the sandbox's affair: they are not followed out here.
    for mount in seen:
        if _is_above(mount.target, written):
            return written
    for mount in seen:
        if _is_above(mount.source, written):
            return mount.target + written[len(mount.source) :]
    path = os.path.realpath(cwd)
    return path if any(_is_above(mount.target, path) or _is_above(path, mount.target) for mount in seen) else HOME
