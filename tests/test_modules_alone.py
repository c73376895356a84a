"""Every module about a mechanism can be run alone, and what it prints shows the mechanism at work.

The words to look for are what the kernel answered, not headings: a demonstration that did nothing would not print them.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support import PROJECT, requires
from tests.test_layers import MODULES

#: What each module's output must show (all of it), and what it needs of the machine.
SHOWS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "labkit.isolation.bpf": (("A = call number", "instructions; the same decisions take"), ("pyseccomp",)),
    "labkit.isolation.capabilities": (
        ("host name (CAP_SYS_ADMIN): allowed", "CAP_SYS_ADMIN): Operation not"),
        ("userns",),
    ),
    "labkit.isolation.cgroups": (("CPUs of 0.25 allowed", "throttled in", "deleted"), ("cgroups",)),
    "labkit.isolation.idmap": (("own user namespace", "uid 0 inside is uid"), ()),
    "labkit.isolation.loopback": (("Network is unreachable", "127.0.0.1: sent"), ("userns",)),
    "labkit.isolation.mounts": (("pivot_root('.', '.')", "/ holds ['proc']", "/proc    proc"), ("userns",)),
    "labkit.isolation.namespaces": (("separates", "KIND"), ()),
    "labkit.isolation.network": (("fails: Network is unreachable", "to 127.0.0.1 works"), ("userns",)),
    "labkit.isolation.overlay": (("upper: ['gone', 'kept']", "character device True, number 0"), ("overlay-userns",)),
    "labkit.isolation.seccomp": (
        ("read a file: allowed", "make a user namespace: unshare(NS.USER): Operation not permitted"),
        ("pyseccomp",),
    ),
    "labkit.isolation.seccomp_groups": (("open: ", "closed: ", "key rings"), ()),
    "labkit.linux.fds": (("the same number, another pipe", "Fd(-1)"), ()),
    "labkit.linux.ipc": (("shmget made segment", "last process that had it: False"), ()),
    "labkit.linux.keys": (("b'open sesame'", "Required key not available"), ()),
    "labkit.linux.kvm": (("b'42\\n'",), ("kvm",)),
    "labkit.linux.mountinfo": (("/proc  ", "proc"), ()),
    "labkit.linux.proc": (("ProcessStatus(", "CgroupLine(", "MemoryRollup("), ()),
    "labkit.linux.spawn": (("labkit-moon\n", "it ended with 0"), ("userns",)),
    "labkit.linux.steps": (("mkdirat", "refused: "), ()),
    "labkit.linux.trace": (("is traced by",), ()),
    "labkit.linux.tsc": (("ticks a nanosecond",), ()),
}
#: No mechanism of their own: names of numbers, thin wrappers, and the stage on which others are shown.
NOT_ALONE = {"labkit.linux.constants", "labkit.linux.syscalls", "labkit.isolation.demonstration"}


def test_every_mechanism_is_in_the_list() -> None:
    rooms = [name for name in MODULES if name.rpartition(".")[0] in ("labkit.linux", "labkit.isolation")]
    assert set(rooms) == set(SHOWS) | NOT_ALONE


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=requires(*needs) if needs else ()) for name, (_, needs) in SHOWS.items()]
)
def test_a_module_run_alone_shows_its_mechanism(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", name], cwd=PROJECT, capture_output=True, text=True, timeout=60
    )
    if name == "labkit.linux.keys" and "labkit: refused" in done.stdout:
        return  # some sandboxes close key rings; the module says so
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    missing = [words for words in SHOWS[name][0] if words not in done.stdout]
    assert not missing, done.stdout
