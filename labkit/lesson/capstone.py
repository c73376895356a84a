"""A ``docker run`` on labkit's lowest layers, in five functions: the reference of the last lesson, and what assembles a student's.

The five are copied, as text, into a program file of their own, which a fresh Python runs: a jupyter_kernel has threads, and
a process with threads may not make a user namespace. Whoever wrote only some of them gets the others from here. Everything is
judged from outside: by what the program prints, returns, and leaves behind.

Leaves out: what `labkit.container` does besides: a helper that is resident, ID-mapped layers, terminals, exec, time limits.
See: clone(2), namespaces(7), pivot_root(2), capabilities(7), seccomp(2).
"""

from __future__ import annotations

import ast
import inspect
import os
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import labkit
from labkit.errors import DeadlineExceeded, InvalidSpec
from labkit.isolation import capabilities, idmap, loopback, mounts, overlay, seccomp
from labkit.isolation.cgroups import Cgroup, Limits, remove_leftovers
from labkit.linux.constants import NS, Prctl
from labkit.linux.steps import Step, perform
from labkit.linux.syscalls import clone3, prctl, seccomp_set_filter
from labkit.measure.contenders import Contender
from labkit.measure.rootfs import busybox_rootfs

__all__ = [
    "PIECES",
    "PRELUDE",
    "Done",
    "Program",
    "contender",
    "defences",
    "docker_run",
    "files",
    "image",
    "inside",
    "maps",
    "program",
]

#: The names that the five functions may use.
PRELUDE = """\
import os, signal, socket, sys, tempfile
from contextlib import nullcontext
from labkit.isolation import capabilities, idmap, loopback, mounts, overlay, seccomp
from labkit.isolation.cgroups import Cgroup, Limits
from labkit.linux.constants import NS, Prctl
from labkit.linux.steps import Step, perform
from labkit.linux.syscalls import clone3, prctl, seccomp_set_filter
"""
_MAIN = """\
if __name__ == "__main__":
    pids = int(sys.argv[2])
    sys.exit(docker_run(sys.argv[3:], sys.argv[1], Limits(pids=pids) if pids else None))
"""
_TIMEOUT_S = 30.0


def files(image: str, stage: str) -> list[Step]:
    """Return the steps to a root of its own: a writable layer over ``image``, a /proc and a /dev of its own."""
    root, upper, work = (f"{stage}/{name}" for name in ("root", "upper", "work"))
    steps = mounts.private() + mounts.tmpfs(stage)
    for folder in (root, upper, work):
        steps += mounts.make_folders(folder)
    steps += overlay.overlay(root, [image], upper=upper, work=work, userxattr=True)
    steps += mounts.pivot_into(root) + mounts.proc("/proc") + mounts.dev("/dev", host_dev="./dev")
    return steps + mounts.let_go_of_old_root()


def defences() -> list[Step]:
    """Return the steps that give power away: all but Docker's capabilities, and the way back."""
    keep = capabilities.parse_capabilities(capabilities.DOCKER_DEFAULT)
    steps = capabilities.limit_bounding_set(keep, last=capabilities.last_capability())
    steps += capabilities.set_capabilities(keep)
    return [*steps, Step("prctl", (Prctl.SET_NO_NEW_PRIVS, 1, 0, 0, 0), "set no_new_privs")]


def inside(command: list[str], image: str, stage: str, gate: int, filter_program: bytes) -> None:
    """Be the child: wait until the parent has written the id maps, build, defend, become the command."""
    prctl(Prctl.SET_PDEATHSIG, signal.SIGKILL)
    os.read(gate, 1)
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    socket.sethostname("mine")
    perform(loopback.loopback_up() + files(image, stage) + defences())
    prctl(Prctl.SET_PDEATHSIG, signal.SIGKILL)  # becoming another user has cleared it
    seccomp_set_filter(filter_program)
    os.execvpe(command[0], command, {"PATH": "/bin:/usr/bin", "HOME": "/"})


def maps() -> tuple[idmap.IdMaps, bool]:
    """Return who the container's users are outside (never the machine's root), and whether newuidmap must write it."""
    if os.geteuid() == 0:
        return idmap.container_maps(idmap.own_maps()), False
    return idmap.user_maps()


def docker_run(command: list[str], image: str, limits: Limits | None) -> int:
    """Be the parent: a group and a child in namespaces of its own; let it go when its maps are there; return its status."""
    gate, go = os.pipe()
    filter_program = seccomp.compile_filter(seccomp.default_profile())
    with (
        tempfile.TemporaryDirectory(prefix="labkit-own-") as stage,
        Cgroup.create(None, limits) if limits else nullcontext() as group,
    ):
        os.chmod(stage, 0o755)
        pid, _ = clone3(NS.USER | NS.MNT | NS.PID | NS.NET | NS.IPC | NS.UTS, exit_signal=signal.SIGCHLD)
        if pid == 0:
            try:
                inside(command, image, stage, gate, filter_program)
            except OSError as error:
                print(error, file=sys.stderr, flush=True)
            finally:
                os._exit(127)
        own_maps, with_helpers = maps()
        idmap.write_maps(pid, own_maps, with_helpers=with_helpers)
        if group is not None:
            group.attach(pid)
        os.write(go, b"!")
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return code if code >= 0 else 128 - code


#: The functions that make the program, in the order in which a student writes them.
PIECES: tuple[Callable[..., object], ...] = (files, defences, maps, inside, docker_run)


@dataclass(frozen=True, slots=True)
class Done:
    """How a run of the program ended; ``code`` is its exit status, ``text`` what it printed, ``errors`` the rest."""

    code: int
    text: str
    errors: str


@dataclass(frozen=True, slots=True)
class Program:
    """A program file in the making: its text, the image it is to run, the most processes (0: no cgroup)."""

    text: str
    image: Path
    pids: int = 0

    def write(self, folder: Path) -> Path:
        """Write the program's file into ``folder``, which the child must be able to pass through, and return its path."""
        folder.chmod(0o711)
        path = folder / "own.py"
        path.write_text(self.text)
        return path

    def command(self, path: Path, words: Sequence[str]) -> list[str]:
        """Return the words that run the program in ``path``."""
        return [sys.executable, str(path), str(self.image), str(self.pids), *words]

    def run(self, *words: str) -> Done:
        """Write the program to a file of its own, let it run ``words``, and remove the file.

        Raises: DeadlineExceeded after 30 s.
        """
        with tempfile.TemporaryDirectory(prefix="labkit-capstone-") as folder:
            path = self.write(Path(folder))
            try:
                done = subprocess.run(
                    self.command(path, words), stdin=subprocess.DEVNULL, capture_output=True, timeout=_TIMEOUT_S, env=_environment(folder)
                )  # fmt: skip
            except subprocess.TimeoutExpired:
                raise DeadlineExceeded(
                    f"Your program was still running {' '.join(words)} after {_TIMEOUT_S:.0f} s."
                ) from None
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        return Done(done.returncode, done.stdout.decode(errors="replace").strip(), "".join(last))

    def orphans_after_kill(self) -> int:
        """Start the program with a long sleep in it, kill it from outside, and count what still runs a second later."""
        with tempfile.TemporaryDirectory(prefix="labkit-capstone-") as folder:
            path = self.write(Path(folder))
            mark = f"{os.getpid()}{len(self.text)}"
            words = ["sh", "-c", f"echo up; sleep 20; : {mark}"]
            with subprocess.Popen(
                self.command(path, words), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=_environment(folder)
            ) as process:  # fmt: skip
                came_up = process.stdout is not None and process.stdout.readline() == b"up\n"
                process.kill()
                process.wait()
            found = _count(mark) if came_up else -1
        # Nor can it remove its cgroup; labkit's next start would.
        remove_leftovers(lambda name: not name.startswith(f"labkit-{process.pid}-"))
        return found


def _count(mark: str) -> int:
    """Return how many processes have ``mark`` in their command line, once they have had a second to end."""
    deadline_s = time.monotonic() + 1
    while True:
        found = 0
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                found += mark.encode() in path.read_bytes()
            except OSError:
                continue
        if not found or time.monotonic() > deadline_s:
            return found
        time.sleep(0.02)


def _environment(folder: str) -> dict[str, str]:
    # A program that is killed cannot remove its temporary folder, so it gets one inside ours.
    here = str(Path(labkit.__file__).resolve().parents[1])
    found = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))
    return os.environ | {"PYTHONPATH": found, "TMPDIR": folder}


@contextmanager
def image() -> Iterator[Path]:
    """Give a small image in a temporary folder: busybox, and all of it belongs to who will be root inside.

    Raises: FeatureMissing without a static busybox.
    """
    with busybox_rootfs() as folder:
        root = maps()[0].uids[0].outside
        for path in [folder, *folder.rglob("*")]:
            os.chown(path, root, maps()[0].gids[0].outside, follow_symlinks=False)
        folder.chmod(0o755)
        yield folder


@contextmanager
def contender(entrant: Program) -> Iterator[Contender]:
    """Give a contender of the race, named "yours", that runs ``true`` with the program ``entrant``."""
    with tempfile.TemporaryDirectory(prefix="labkit-capstone-") as folder:
        command = entrant.command(entrant.write(Path(folder)), ["true"])

        def start() -> None:
            subprocess.run(command, stdin=subprocess.DEVNULL, timeout=_TIMEOUT_S, env=_environment(folder), check=True)

        yield Contender("yours", start, "a fresh Python that makes the container by itself")


def program(image: Path, *, pids: int = 0, own: Iterable[Callable[..., object]] = ()) -> Program | None:
    """Return the program made of the five functions, those in ``own`` instead of the reference's; None if one has no body yet.

    Raises: InvalidSpec for a name that is none of the five.
    """
    known = {piece.__name__: piece for piece in PIECES}
    mine = {piece.__name__: piece for piece in own}
    unknown = mine.keys() - known.keys()
    if unknown:
        raise InvalidSpec(f"{min(unknown)} is no piece of the program: use {', '.join(known)}.")
    texts = []
    for name, reference in known.items():
        text = textwrap.dedent(inspect.getsource(mine.get(name, reference)))
        if not _has_body(text):
            return None
        texts.append(text)
    return Program("\n\n".join([PRELUDE, *texts, _MAIN]), image, pids)


def _has_body(text: str) -> bool:
    function = ast.parse(text).body[0]
    body = function.body if isinstance(function, ast.FunctionDef) else []
    return any(
        not (isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant)) and not isinstance(line, ast.Pass)
        for line in body
    )
