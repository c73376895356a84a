"""All test runs of ``make test``, side by side in two lanes: ``python -m tests.support.runs [PYTEST ARGUMENTS]``.

::

    lane 1   the tests as root                       the notebooks
    lane 2   the tests as an ordinary user, bare     the tests of cgroup v2 in a virtual machine

Each run writes into a file. A line now and then says how far they are, a line with a failure is shown at once, and the whole
output follows when its run has ended; so the outputs never mix. The table of features comes last. What must not
be disturbed takes its turn (`tests.support.turns`); the guest has the lowest priority, because it takes none.

An interrupt (Ctrl-C, or the terminal's end) goes to all runs, which have a minute to tidy up; a second one ends them at once.
The status is 0 if all runs were good, 1 if not, 130 after an interrupt.

See: `tests.support.summary`, `tests.support.once`, tests/as_user.sh.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from tests.support import summary
from tests.support.child import PROJECT
from tests.support.features import has
from tests.support.leaks import become_subreaper, descendants
from tests.support.once import ELSEWHERE
from tests.support.turns import FOLDER, make_turns

__all__ = ["Run", "main", "planned", "run_lanes"]

#: How often a line says how far the runs are.
NEWS_S = 30.0
#: How long runs may take to tidy up after an interrupt.
TIDY_S = 60.0
_ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_NBVAL = ("--nbval", "notebooks", "--nbval-sanitize-with", "tests/nbval_sanitize.cfg", "--nbval-cell-timeout", "120")
_PERCENT = re.compile(rb"\[ *(\d+)%\]")
_FAILURE = re.compile(rb"^[\w/.]+ [.sxXFE]*[FE][.sxXFE]* +\[ *\d+%\]$")


@dataclass(frozen=True, slots=True)
class Run:
    """One run: a command with what it adds to the environment, and how far it stands back behind the others."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    niceness: int = 0


class _Interrupted(Exception):
    """Somebody wants to end everything."""


class _Interrupts:
    """Signals that mean the end, as something to wait for.

    Nothing is raised where they arrive: an exception in the middle of `subprocess.Popen.wait` can leave its lock held.
    """

    def __init__(self) -> None:
        self.came: list[str] = []
        self._bell, self._wake = socket.socketpair()
        self._wake.setblocking(False)

    def __enter__(self) -> _Interrupts:
        self._kept = {number: signal.signal(number, self._note) for number in _ENDS}
        self._kept_fd = signal.set_wakeup_fd(self._wake.fileno())
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._kept_fd)
        for number, handler in self._kept.items():
            signal.signal(number, handler)
        self._bell.close()
        self._wake.close()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.came.append(signal.Signals(number).name)

    def wait(self, running: Iterable[_Started], timeout_s: float) -> None:
        """Wait until one of ``running`` ends or an interrupt comes, or for ``timeout_s``."""
        ready, _, _ = select.select([self._bell, *(started.pidfd for started in running)], [], [], timeout_s)
        if self._bell in ready:
            self._bell.recv(4096)


@dataclass(slots=True)
class _Started:
    """A run that goes on, with the file that it writes into and how much of that has been looked through."""

    run: Run
    process: subprocess.Popen[bytes]
    log: Path
    began_s: float
    pidfd: int
    read_bytes: int = 0
    percent: str = "begins"

    @classmethod
    def start(cls, run: Run, folder: Path) -> _Started:
        """Start ``run`` in a session of its own: the terminal's interrupt reaches it through us, once."""
        log = folder / f"{run.name}.log"
        command = (*(["nice", f"-n{run.niceness}"] if run.niceness else []), *run.command)
        with log.open("wb") as file:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
                env=os.environ | run.environment, cwd=PROJECT,
            )  # fmt: skip
        return cls(run, process, log, time.monotonic(), os.pidfd_open(process.pid))

    def look(self) -> list[str]:
        """Read what is new; return its lines with failures."""
        with self.log.open("rb") as file:
            file.seek(self.read_bytes)
            data = file.read()
        data = data[: data.rfind(b"\n") + 1]
        self.read_bytes += len(data)
        if found := _PERCENT.findall(data):
            self.percent = f"{int(found[-1])} %"
        return [line.decode() for line in data.splitlines() if _FAILURE.match(line)]

    def send(self, number: int) -> None:
        """Send a signal to the whole process group."""
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            pass

    def close(self) -> None:
        """Forget the process, which has ended."""
        os.close(self.pidfd)
        self.pidfd = -1


def planned(arguments: Sequence[str], *, root: bool, guests: bool) -> list[list[Run]]:
    """Return the runs of this machine in lanes; runs of one user follow each other, for they share its folders."""
    python = ".venv/bin/python"
    tests = Run("root" if root else "user", (python, "-m", "pytest", *arguments))
    notebooks = Run(
        "notebooks",
        (python, "-m", "pytest", "-p", "tests.support.report", "-p", "tests.support.turns", *_NBVAL),
        {"LABKIT_TEST_RUN": "notebooks"},
    )
    as_user = Run("user", ("sh", "tests/as_user.sh", *arguments), {ELSEWHERE: "root"})
    guest = Run("guest", (python, "-m", "labkit", "vm", "test", *arguments), niceness=19)
    return [[tests, notebooks], [*([as_user] if root else []), *([guest] if guests else [])]]


def run_lanes(lanes: Sequence[Sequence[Run]], folder: Path) -> dict[str, int]:
    """Run the lanes side by side and each lane's runs in order; return the status of each. Raises: _Interrupted."""
    began_s = told_s = time.monotonic()
    waiting = [list(lane) for lane in lanes]
    running: dict[int, _Started] = {}
    statuses: dict[str, int] = {}
    with _Interrupts() as interrupts:
        try:
            while any(waiting) or running:
                for number, lane in enumerate(waiting):
                    if lane and number not in running:
                        running[number] = _Started.start(lane.pop(0), folder)
                interrupts.wait(running.values(), min(1.0, NEWS_S))
                if interrupts.came:
                    raise _Interrupted(interrupts.came[0])
                statuses |= _collect(running)
                if running and time.monotonic() - told_s >= NEWS_S:
                    told_s = time.monotonic()
                    how_far = ", ".join(f"{started.run.name} run {started.percent}" for started in running.values())
                    _say(f"{_minutes(told_s - began_s)} min: {how_far}")
        finally:
            _end(list(running.values()), interrupts)
    return statuses


def _collect(running: dict[int, _Started]) -> dict[str, int]:
    """Say what is new, take the runs that have ended out of ``running``, and return their statuses."""
    statuses = {}
    for number, started in list(running.items()):
        for line in started.look():
            _say(f"{started.run.name}: {line}")
        if started.process.poll() is not None:
            statuses[started.run.name] = started.process.returncode
            started.close()
            del running[number]
            _show(started)
    return statuses


def _end(running: list[_Started], interrupts: _Interrupts) -> None:
    """Interrupt runs, wait until they have tidied up, and kill what is then left of them, orphans included."""
    known = len(interrupts.came)
    if running:
        _say(f"ending the runs ({', '.join(started.run.name for started in running)}); a second Ctrl-C does not wait")
    for started in running:
        started.send(signal.SIGINT)
    deadline_s = time.monotonic() + TIDY_S
    going_on = list(running)
    while going_on and len(interrupts.came) == known and (left_s := deadline_s - time.monotonic()) > 0:
        interrupts.wait(going_on, left_s)
        going_on = [started for started in going_on if started.process.poll() is None]
    for started in going_on:
        _say(f"the {started.run.name} run has not ended and is killed")
    for started in running:
        started.send(signal.SIGKILL)
        started.process.wait()
        started.close()
    while left := descendants():  # orphans come to us: we are a subreaper
        for pid in left:
            _kill_and_reap(pid)


def _kill_and_reap(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):  # gone, or still its parent's child; then it comes to us next time
        pass


def _show(started: _Started) -> None:
    """Print a run's whole output between two lines that name it."""
    status, took = started.process.returncode, _minutes(time.monotonic() - started.began_s)
    _say(f"the {started.run.name} run said:")
    with started.log.open("rb") as file:
        shutil.copyfileobj(file, sys.stdout.buffer)
    sys.stdout.buffer.flush()
    _say(f"the {started.run.name} run ended with status {status} after {took} min")


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def _say(text: str) -> None:
    print(f"make test: {text}", flush=True)


def main(arguments: Sequence[str]) -> int:
    """Run everything and print the table of features; return 0, 1 or 130."""
    become_subreaper()
    began_s = time.monotonic()
    guests = bool(os.environ.get("LABKIT_MUST_HAVE")) or has("vm")
    if not guests:
        _say("no tests of cgroup v2 in a virtual machine: `labkit setup vm` says what is missing")
    with tempfile.TemporaryDirectory(prefix="labkit-tests-") as name:
        folder, reports = Path(name), Path(name, "reports")
        folder.chmod(0o755)
        reports.mkdir()
        reports.chmod(0o1777)
        make_turns(folder)
        os.environ |= {"LABKIT_FEATURE_REPORT": str(reports), FOLDER: str(folder)}
        try:
            statuses = run_lanes(planned(arguments, root=os.geteuid() == 0, guests=guests), folder)
        except _Interrupted as interrupted:
            _say(f"ended by {interrupted}")
            return 130
        lines, good = summary.summarize(reports)
    print("\n".join(lines))
    failed = {name: status for name, status in statuses.items() if status not in (0, summary.NO_TESTS)}
    for name, status in failed.items():
        _say(f"the {name} run failed with status {status}")
    _say(f"all runs together took {_minutes(time.monotonic() - began_s)} min")
    return 0 if good and not failed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
