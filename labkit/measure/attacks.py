"""The attack table: small attacks, tried against one defence more each time.

Each attack is real, but aimed at a *canary*: a process, a file, a key or a socket that this module put up for it. Whether it
succeeded is looked up from outside (is the canary dead? does the host's mount table show it?), not asked of the attacker. Bombs
and hogs are bounded by count, size and time. Nothing else on the machine is touched, as root or not.

Leaves out: bugs of the kernel; attacks that need a network.
See: capabilities(7), seccomp(2), user_namespaces(7), cgroups(7).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from labkit.measure.hostfacts import HostFacts
from labkit.measure.record import Result

__all__ = ["ATTACKS", "DEFENCES", "Attack", "AttackTable", "Defence", "Outcome", "attack_table", "try_attack"]


@dataclass(frozen=True, slots=True)
class Attack(Result):
    """One attack: what it tries, and how its success is seen from outside."""

    name: str
    title: str
    tries: str
    proof: str


@dataclass(frozen=True, slots=True)
class Defence(Result):
    """One level of defence; it includes all those before it. ``adds`` says what is new, in labkit's own words."""

    name: str
    title: str
    adds: str


@dataclass(frozen=True, slots=True)
class Outcome(Result):
    """How one attack went at one level. ``succeeded`` is None where the level cannot be had here (``evidence`` says why).

    ``errno`` is the kernel's answer to the attacker by name (``EPERM``), empty if no call was refused.
    """

    attack: str
    defence: str
    succeeded: bool | None
    errno: str
    evidence: str

    @property
    def verdict(self) -> str:
        """``succeeded``, ``failed`` or ``unknown``."""
        return "unknown" if self.succeeded is None else "succeeded" if self.succeeded else "failed"


@dataclass(frozen=True, slots=True)
class AttackTable(Result):
    """All outcomes: attacks down, defences across."""

    host: HostFacts
    attacks: tuple[Attack, ...]
    defences: tuple[Defence, ...]
    outcomes: tuple[Outcome, ...]

    def outcome(self, attack: str, defence: str) -> Outcome:
        """Return one cell. Raises: KeyError."""
        return {(o.attack, o.defence): o for o in self.outcomes}[attack, defence]

    def stopped_by(self, attack: str) -> Defence | None:
        """Return the first defence from which on ``attack`` never succeeds; None if it still does at the last one."""
        first = None
        for defence in self.defences:
            succeeded = self.outcome(attack, defence.name).succeeded
            if succeeded:
                first = None
            elif first is None and succeeded is False:
                first = defence
        return first


ATTACKS: tuple[Attack, ...] = (
    Attack("escape_chroot", "leave the root folder", "chroot(2) to a folder below, then climb up", "it knows what stands in a file outside"),
    Attack("kill_process", "kill a process of the host", "kill(2) with the PID that the host knows", "the canary process is dead"),
    Attack("mount", "mount on the host", "mount(2) of a tmpfs", "the host's mount table shows it"),
    Attack("read_secret", "read root's files", "open(2) of the host's /etc/shadow", "it read as many bytes as the file has"),
    Attack("read_disk", "read the disk itself", "mknod(2) of the root disk, then read(2)", "it knows a sector of the disk"),
    Attack("rename_host", "rename the host", "sethostname(2), with the name it has already", "it did that in the host's UTS namespace"),
    Attack("write_sysctl", "change the kernel's settings", "write(2) to a file of /proc/sys, the value it has already", "the kernel took it"),
    Attack("steal_key", "steal a key", "keyctl(2): find and read a key of the host", "it knows what the canary key holds"),
    Attack("trace_process", "trace a process of the host", "ptrace(2) with PTRACE_SEIZE", "the canary has a tracer"),
    Attack("abstract_socket", "talk to a service of the host", "connect(2) to an abstract Unix socket", "the canary got its message"),
    Attack("new_namespace", "reach more of the kernel", "unshare(2) of a user namespace", "it is in another user namespace"),
    Attack("setuid", "become root again", "execve(2) of a set-user-ID program as nobody", "the process has an effective uid that is not its own"),
    Attack("fork_bomb", "fork without end", "64 processes (bounded)", "the host counts them"),
    Attack("memory_hog", "take all memory", "128 MiB (bounded)", "the host sees it resident"),
)  # fmt: skip

DEFENCES: tuple[Defence, ...] = (
    Defence("chroot", "chroot only", "a root folder: chroot(2), as root, nothing else"),
    Defence("namespaces", "+ namespaces", "mount, PID, network, IPC, UTS and cgroup namespaces"),
    Defence("pivot_root", "+ a root filesystem", "a root mount of its own: pivot_root(2), own /proc and /dev"),
    Defence("user", "+ user namespace", "root inside is nobody outside: Security(namespaces=...) with NS.USER"),
    Defence("limits", "+ limits", "a cgroup: Limits(memory_bytes=64 MiB, pids=32, cpus=0.5)"),
    Defence("capabilities", "+ capabilities dropped", "14 capabilities are left of 41: Security(capabilities=...)"),
    Defence("no_new_privs", "+ no_new_privs", "execve(2) never adds privileges: Security(no_new_privs=True)"),
    Defence("seccomp", "+ seccomp", "a filter of system calls: Security(seccomp=True)"),
    Defence("masks", "+ masked paths", "parts of /proc and /sys hidden or read-only: Security(mask_paths=True)"),
)


def try_attack(attack: str, defence: str, *, timeout_s: float = 10.0) -> Outcome:
    """Try one attack at one level of defence and look from outside what became of the canary.

    Raises: InvalidSpec for a name that is not in `ATTACKS` or `DEFENCES`.
    """
    raise NotImplementedError


def attack_table(
    attacks: Iterable[str] | None = None, defences: Iterable[str] | None = None, *,
    progress: Callable[[int, int], None] | None = None,
) -> AttackTable:  # fmt: skip
    """Try ``attacks`` (all) at ``defences`` (all); ``progress`` is told how many of how many are done."""
    raise NotImplementedError
