"""Run a command in cgroups that belong to an ordinary user: what systemd's ``Delegate=yes`` does, on any host.

``python -m tests.support.delegation USER COMMAND...``, as root. In each v1 hierarchy and in the v2 tree a group
``labkit-test-USER`` is made and given to the user: the folder and the files that move processes, not the limits. The
command starts inside, still as root (setpriv(1) makes it the user's). Whatever still runs in the groups when it has ended is
listed, ended and makes the run fail.

See: cgroups(7) "Delegation", setpriv(1), flock(2).
"""

from __future__ import annotations

import fcntl
import os
import pwd
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.support.hierarchies import Hierarchy, mounted_hierarchies

__all__ = ["delegated_groups", "main"]

_GIVEN = ("", "cgroup.procs", "tasks", "cgroup.threads", "cgroup.subtree_control")
_REMOVAL_TIMEOUT_S = 5.0


@contextmanager
def delegated_groups(user: str) -> Iterator[list[Path]]:
    """Make a group in each hierarchy that belongs to ``user``; remove them, with what is in them, at the end."""
    ids = pwd.getpwnam(user)
    with ExitStack() as stack:
        groups = []
        for hierarchy in mounted_hierarchies():
            group = stack.enter_context(_group(hierarchy, f"labkit-test-{user}"))
            for name in _GIVEN:
                if (group / name).exists():
                    os.chown(group / name, ids.pw_uid, ids.pw_gid)
            groups.append(group)
        yield groups


@contextmanager
def _group(hierarchy: Hierarchy, name: str) -> Iterator[Path]:
    parent = Path(hierarchy.own)
    with ExitStack() as stack:
        if hierarchy.version == 2 and (
            controllers := (Path(hierarchy.mount) / "cgroup.controllers").read_text().split()
        ):
            # Only the top of the tree may hold processes and give controllers to groups below.
            parent = Path(hierarchy.mount)
            stack.enter_context(_enabled(parent, controllers))
        group = parent / name
        group.mkdir(exist_ok=True)
        stack.callback(remove_group, group)
        # Like labkit's own programs: who finds a group locked knows that it is in use.
        lock_fd = os.open(group, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, lock_fd)
        fcntl.flock(lock_fd, fcntl.LOCK_SH)
        if (group / "cpuset.mems").exists() and hierarchy.version == 1:
            for file in ("cpuset.cpus", "cpuset.mems"):
                (group / file).write_text((parent / file).read_text())
        yield group


@contextmanager
def _enabled(folder: Path, controllers: Sequence[str]) -> Iterator[None]:
    file = folder / "cgroup.subtree_control"
    new = [name for name in controllers if name not in file.read_text().split()]
    file.write_text(" ".join(f"+{name}" for name in new))
    try:
        yield
    finally:
        if not any(path.is_dir() for path in folder.iterdir()):  # somebody may rely on them by now
            file.write_text(" ".join(f"-{name}" for name in new))


def members(group: Path) -> list[int]:
    """Return the processes in ``group`` and below."""
    files = [group / "cgroup.procs", *group.rglob("cgroup.procs")]
    return sorted({int(pid) for file in files for pid in file.read_text().split()})


def remove_group(group: Path) -> None:
    """End what runs in ``group`` and remove it with all groups below."""
    deadline_s = time.monotonic() + _REMOVAL_TIMEOUT_S
    while group.exists():
        for pid in members(group):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        for state in group.rglob("freezer.state"):
            state.write_text("THAWED")  # a frozen process of v1 does not even die
        folders = sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True)
        try:
            for folder in (*folders, group):
                folder.rmdir()
        except OSError:
            if time.monotonic() > deadline_s:
                raise
            time.sleep(0.01)  # the kernel takes the last process off the list without announcing it


def run_in(groups: Sequence[Path], command: Sequence[str]) -> int:
    """Run ``command`` with all its processes in ``groups``; return its exit status."""

    def enter() -> None:  # between fork and exec; this program has one thread
        for group in groups:
            (group / "cgroup.procs").write_text(str(os.getpid()))

    return subprocess.run(command, preexec_fn=enter, check=False).returncode


def main(arguments: Sequence[str]) -> int:
    """Run the command that ``arguments`` give; return its status, or 1 if it left something running."""
    if len(arguments) < 2 or os.geteuid() != 0:
        print("usage, as root: python -m tests.support.delegation USER COMMAND...", file=sys.stderr)
        return 2
    user, *command = arguments
    with delegated_groups(user) as groups:
        status = run_in(groups, command)
        left = sorted({pid for group in groups for pid in members(group)})
        names = [
            f"{pid} {Path(f'/proc/{pid}/comm').read_text().strip()}" for pid in left if Path(f"/proc/{pid}").exists()
        ]
    if names:
        print(f"still running after the tests of {user}: {', '.join(names)}", file=sys.stderr)
    return status or int(bool(names))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
