"""The attack table: small attacks, tried against one defence more each time.

Each attack is real, but aimed at a *canary*: a process, a file, a key or a socket that this module put up for it. Whether it
succeeded is looked up from outside (is the canary dead? does the host's mount table show it?), not asked of the attacker. Bombs
and hogs are bounded by count, size and time. Nothing else on the machine is touched, as root or not.

Leaves out: bugs of the kernel; attacks that need a network.
See: capabilities(7), seccomp(2), user_namespaces(7), cgroups(7).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from labkit.container.client import launcher
from labkit.errors import InvalidSpec
from labkit.measure.hostfacts import host_facts
from labkit.measure.inner_python import open_package
from labkit.measure.outcomes import Attack, AttackTable, Defence, Outcome
from labkit.measure.scratch import scratch_folder
from labkit.measure.siege import Level

__all__ = ["ATTACKS", "DEFENCES", "Attack", "AttackTable", "Defence", "Outcome", "attack_table", "try_attack"]


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


def try_attack(attack: str, defence: str) -> Outcome:
    """Try one attack at one level of defence and look from outside what became of the canary.

    Raises: InvalidSpec for a name that is not in `ATTACKS` or `DEFENCES`.
    """
    return attack_table([attack], [defence]).outcomes[0]


def attack_table(
    attacks: Iterable[str] | None = None, defences: Iterable[str] | None = None, *,
    progress: Callable[[Outcome], object] | None = None,
) -> AttackTable:  # fmt: skip
    """Try ``attacks`` (all) at ``defences`` (all), level after level; ``progress`` is given each outcome as it comes.

    All of it takes a few seconds. Raises: InvalidSpec for a name that is not in `ATTACKS` or `DEFENCES`, FeatureMissing on a machine
    without user namespaces, where each single attempt would say so after a second.
    """
    chosen_attacks = _chosen(ATTACKS, attacks, what="attack")
    chosen_defences = _chosen(DEFENCES, defences, what="defence")
    outcomes = []
    launcher()
    with scratch_folder() as folder, open_package() as package:
        for defence in chosen_defences:
            with Level(defence.name, folder, package) as level:
                for attack in chosen_attacks:
                    outcomes.append(level.attempt(attack.name))
                    if progress is not None:
                        progress(outcomes[-1])
    return AttackTable(host_facts(), chosen_attacks, chosen_defences, tuple(outcomes))


_Named = TypeVar("_Named", Attack, Defence)


def _chosen(known: tuple[_Named, ...], names: Iterable[str] | None, *, what: str) -> tuple[_Named, ...]:
    wanted = [item.name for item in known] if names is None else list(names)
    unknown = [name for name in wanted if name not in {item.name for item in known}]
    if unknown:
        raise InvalidSpec(f"{unknown[0]!r} is no {what}: choose among {', '.join(item.name for item in known)}.")
    return tuple(item for item in known if item.name in wanted)
