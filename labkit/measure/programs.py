"""Other people's programs as contenders: tried once with their errors read, then run again and again without any streams.

Each is started in the cheapest way there is (posix_spawn) and has a time limit. Whatever cgroups a program makes lie in
`held_cgroups`, and are removed at the end even if the program did not do so.

See: posix_spawn(3), pidfd_open(2), `labkit.measure.peers`, `labkit.measure.engines`.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from labkit.errors import DeadlineExceeded, FeatureMissing, LabkitError
from labkit.isolation.cgroups import remove_tree
from labkit.linux.fds import Fd
from labkit.linux.mountinfo import read_mountinfo
from labkit.measure.contenders import Contender
from labkit.setup.parts import find_program

__all__ = ["TIMEOUT_S", "container_name", "held_cgroups", "outside", "program", "quietly", "run_program"]

TIMEOUT_S = 20.0
_NULL_STREAMS = tuple((os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in range(3))


def container_name() -> str:
    """Return the name under which programs know the container of this race."""
    return f"labkit-race-{os.getpid()}"


def program(name: str) -> str:
    """Return the path of the program ``name``. Raises: FeatureMissing."""
    found = find_program(name)
    if found is None:
        raise FeatureMissing("It is not installed.")
    return str(found)


def outside(
    name: str,
    command: list[str],
    note: str,
    *,
    variables: Mapping[str, str] | None = None,
    timeout_s: float = TIMEOUT_S,
) -> Contender:
    """Try ``command`` once, with its errors read; ``variables`` are added to its environment.

    Raises: LabkitError with what it said.
    """
    environment = {**os.environ, **(variables or {})}
    try:
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise DeadlineExceeded(f"It took longer than {timeout_s:.0f} s.") from error
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise LabkitError(f"It cannot run here: {said[-1] if said else f'exit status {done.returncode}'}.")
    return Contender(name, lambda: run_program(command, environment, timeout_s=timeout_s), note)


def run_program(command: list[str], environment: Mapping[str, str], *, timeout_s: float = TIMEOUT_S) -> None:
    """Run ``command`` with no streams and wait. Raises: LabkitError unless it returns 0, DeadlineExceeded."""
    pid = os.posix_spawn(command[0], command, environment, file_actions=_NULL_STREAMS)
    with Fd(os.pidfd_open(pid)) as pidfd:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        in_time = bool(poll.poll(timeout_s * 1000))
        if not in_time:
            signal.pidfd_send_signal(pidfd.number, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
    if not in_time:
        raise DeadlineExceeded(f"{Path(command[0]).name} took longer than {timeout_s:.0f} s and was killed.")
    if status:
        raise LabkitError(f"{Path(command[0]).name} ended with {os.waitstatus_to_exitcode(status)} this time.")


def quietly(*command: str, variables: Mapping[str, str] | None = None) -> None:
    """Run ``command`` for its effect; what it says about it does not matter. Raises: DeadlineExceeded."""
    environment = {**os.environ, **(variables or {})}
    try:
        subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise DeadlineExceeded(f"{Path(command[0]).name} took longer than {TIMEOUT_S:.0f} s.") from error


@contextmanager
def held_cgroups() -> Iterator[str]:
    """Make a cgroup in every hierarchy where this user may, below which programs make theirs; give its path.

    Runtimes make groups in more hierarchies than labkit uses, and do not always remove them. A lock on each folder tells
    ``labkit clean`` that somebody lives who will.
    """
    folders = [f"{m.mount_point}/{container_name()}" for m in read_mountinfo() if m.fstype in ("cgroup", "cgroup2")]
    with ExitStack() as stack:
        for folder in folders:
            try:
                os.mkdir(folder, 0o755)
            except OSError:
                continue  # not this user's hierarchy, or a read-only view of it: the program will say so itself
            stack.callback(remove_tree, folder)
            lock = stack.enter_context(Fd(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)))
            fcntl.flock(lock, fcntl.LOCK_SH)
        yield f"/{container_name()}"
