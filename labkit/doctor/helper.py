"""The doctor's helper: one small process that has each probe run in a child of its own, with a deadline.

Probes unshare, mount, drop capabilities and load filters; some may hang on a strange kernel. The program that asks (a
Jupyter kernel with a dozen threads) can do none of that itself. So it starts ``python -I -S`` with this module, which has one
thread, forks a child for each probe, reads its answer from a pipe, kills it when it takes too long, and prints each
answer as a line of JSON as soon as it is there::

    doctor ── starts ── helper ── fork ── probe "user namespace" ── maybe children of its own
                          │  ├── fork ── probe "overlay"
          lines of JSON <─┘  └── ...            at most `_AT_ONCE` at a time

The helper adopts what a killed probe leaves behind (PR_SET_CHILD_SUBREAPER) and ends it too. Standard library only.

See: prctl(2), poll(2).
"""

from __future__ import annotations

import dataclasses
import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import NoReturn

from labkit.doctor import probes_cgroups, probes_defences, probes_mounts, probes_namespaces
from labkit.doctor.answers import Answer, no
from labkit.doctor.rules import Facts, read_facts, text_of
from labkit.isolation.cgroups import remove_leftovers
from labkit.linux.constants import Prctl
from labkit.linux.syscalls import prctl

__all__ = ["Probe", "main", "run_probes"]

#: A probe answers for one feature (under its own name) or for several.
Probe = Callable[[Facts], "Answer | dict[str, Answer]"]

#: How many probes run at a time; one that has not answered after `_SLOW_S` no longer counts, but may still answer.
_AT_ONCE = 6
_SLOW_S = 0.1


@dataclass(slots=True)
class _Running:
    name: str
    pid: int
    read_fd: int
    started_s: float
    data: bytes = b""


def run_probes(probes: Mapping[str, Probe], facts: Facts, *, timeout_s: float) -> Iterator[tuple[str, Answer]]:
    """Yield ``(feature, answer)`` as the probes finish; what has not answered after ``timeout_s`` is killed.

    A probe that hangs holds up nobody: it waits beside the others until the end.
    """
    end_s = time.monotonic() + timeout_s
    waiting, running = list(probes.items()), dict[int, _Running]()
    poll = select.poll()
    while (waiting or running) and (now_s := time.monotonic()) < end_s:
        quick = sum(now_s - item.started_s < _SLOW_S for item in running.values())
        for name, probe in waiting[: _AT_ONCE - quick]:
            started = _start(name, probe, facts)
            running[started.read_fd] = started
            poll.register(started.read_fd, select.POLLIN)
        del waiting[: max(0, _AT_ONCE - quick)]
        for fd, _ in poll.poll(min(end_s - now_s, _SLOW_S if waiting else end_s - now_s) * 1000):
            if _read_all(running[fd]):
                poll.unregister(fd)
                yield from _finish(running.pop(fd))
    for item in running.values():
        yield from _finish(item, waited_s=timeout_s)
    for name, _ in waiting:
        yield name, _too_busy(timeout_s)


def _start(name: str, probe: Probe, facts: Facts) -> _Running:
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    sys.stdout.flush()  # or the child would print it a second time
    pid = os.fork()
    if pid == 0:
        os.close(read_fd)
        _run(name, probe, facts, write_fd)
    os.close(write_fd)
    return _Running(name, pid, read_fd, time.monotonic())


def _run(name: str, probe: Probe, facts: Facts, write_fd: int) -> NoReturn:
    """Run the probe in this child, send what it answers, and end without cleaning up what the kernel cleans up."""
    try:
        prctl(Prctl.SET_PDEATHSIG, signal.SIGKILL)
        answered = probe(facts)
        _send(write_fd, answered if isinstance(answered, dict) else {name: answered})
    except OSError as error:
        rule = f"the kernel answered {text_of(error)} where labkit expects success"
        _send(write_fd, {name: no(str(error), rule=rule, remedy="Please report it.")})
    finally:
        if sys.exc_info()[1] is not None:
            sys.excepthook(*sys.exc_info())  # a mistake in the probe itself: say so on standard error
            os._exit(1)
        os._exit(0)


def _send(write_fd: int, found: dict[str, Answer]) -> None:
    line = json.dumps({name: dataclasses.astuple(answer) for name, answer in found.items()})
    os.write(write_fd, line.encode() + b"\n")


def _read_all(item: _Running) -> bool:
    """Take what has come; return True at the end of the answer."""
    chunk = os.read(item.read_fd, 65536)
    item.data += chunk
    # Not only at the end of the file: a child that the probe left behind would hold the pipe open.
    return not chunk or chunk.endswith(b"\n")


def _finish(item: _Running, *, waited_s: float = 0.0) -> Iterator[tuple[str, Answer]]:
    os.close(item.read_fd)
    with suppress(ProcessLookupError):
        os.kill(item.pid, signal.SIGKILL)  # ours and not waited for, so the number is still its own
    status = os.waitstatus_to_exitcode(os.waitpid(item.pid, 0)[1])
    if waited_s:
        yield item.name, _too_busy(waited_s)
        return
    try:
        found = json.loads(item.data)
    except ValueError:
        yield item.name, _without_answer(status)
        return
    for name, fields in found.items():
        yield name, Answer(*fields)


def _too_busy(waited_s: float) -> Answer:
    return no(
        "no answer", rule=f"it did not answer within {waited_s:.1f} s", remedy="Ask again when the machine is idle."
    )


def _without_answer(status: int) -> Answer:
    if status == -signal.SIGSYS:
        return no(
            "killed by SIGSYS",
            rule="a seccomp filter kills processes that try it",
            remedy="Run labkit outside of that container.",
        )
    return no(f"the probe ended with status {status}", rule="it ended without an answer", remedy="Please report it.")


def _end_orphans() -> None:
    """Kill and collect what probes left behind; as their subreaper this process is their parent now."""
    while True:
        for pid in _children():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _children() -> list[int]:
    own, found = os.getpid(), []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError), open(f"/proc/{name}/stat") as file:
                if int(file.read().rpartition(")")[2].split()[1]) == own:
                    found.append(int(name))
    return found


def main(timeout_s: float) -> None:
    """Run all probes and print the answers."""
    prctl(Prctl.SET_CHILD_SUBREAPER, 1)
    facts = read_facts()
    name = probes_cgroups.group_name(os.getpid())
    # The longest first: the others run meanwhile.
    probes: dict[str, Probe] = {"cgroups": partial(probes_cgroups.probe_cgroups, name=name)}
    probes |= probes_namespaces.PROBES | probes_mounts.PROBES | probes_defences.PROBES
    answered = set()
    for feature, answer in run_probes(probes, facts, timeout_s=timeout_s):
        answered.add(feature)
        sys.stdout.write(json.dumps([feature, *dataclasses.astuple(answer)]) + "\n")
        sys.stdout.flush()
    _end_orphans()
    if not answered.issuperset(probes_cgroups.NAMES):
        remove_leftovers(lambda folder: folder != name)
