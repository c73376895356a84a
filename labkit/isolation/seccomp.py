"""seccomp: a list of the system calls that a process may make.

Namespaces hide things and capabilities weaken root, but every process still reaches all of the kernel's 370 calls, and a hole
in one of them is a hole in every container. A seccomp filter closes those that a container does not need. It is a small program
(`labkit.isolation.bpf`) that the kernel runs at each call; children inherit it and nothing can take it away.

::

    filter = compile_filter(default_profile())                     # bytes, made by libseccomp, kept in memory
    labkit.linux.syscalls.prctl(Prctl.SET_NO_NEW_PRIVS, 1)          # or be root: else a filter could fool set-uid programs
    labkit.linux.syscalls.seccomp_set_filter(filter)

What is not allowed fails with EPERM. Three cases differ. ``clone3`` gets ENOSYS, because its flags lie in memory, where a filter
cannot look; the C library then uses ``clone``, whose flags it can. Calls newer than the profile get ENOSYS too, as runc
does it, so that programs try the older call. The 32-bit entry points (``int 0x80``, x32), in which each call has another number,
kill the process, unless the profile names these architectures, which are then filtered alike.

Run ``python -m labkit.isolation.seccomp`` to see a process with the filter try what it may not.

Leaves out: deciding in user space (SECCOMP_RET_USER_NOTIF), logging, SELinux-like labels.
See: seccomp(2), seccomp_rule_add(3), OCI Runtime Specification, config-linux.md ("Seccomp").
"""

from __future__ import annotations

import errno
import functools
import os
import socket
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import ModuleType

from labkit.errors import FeatureMissing, InvalidSpec
from labkit.isolation.bpf import shorten
from labkit.isolation.capabilities import DOCKER_DEFAULT, names_of, parse_capabilities
from labkit.isolation.seccomp_groups import ALLOWED, CLOSED
from labkit.linux.constants import NS, Prctl
from labkit.linux.syscalls import prctl, seccomp_set_filter, unshare

__all__ = ["Argument", "Profile", "Rule", "compile_filter", "default_profile", "reason_for"]

_LOW_32_BITS = 0xFFFF_FFFF
#: The bits of clone(2)'s flags that make namespaces; linux/sched.h. CLONE_NEWTIME is not among clone's, only clone3's.
_NEW_NAMESPACES = 0x7E02_0000
#: Address families that a network namespace separates; sys/socket.h. Another one would make the kernel load its module.
_FAMILIES = {"AF_UNSPEC": 0, "AF_UNIX": 1, "AF_INET": 2, "AF_INET6": 10, "AF_NETLINK": 16, "AF_PACKET": 17}
#: Linux, 32-bit Linux (8), other UNAME26 forms, and "tell me" (0xffffffff); linux/personality.h.
_PERSONALITIES = (0x0, 0x8, 0x2_0000, 0x2_0008, 0xFFFF_FFFF)


@dataclass(frozen=True, slots=True)
class Argument:
    """A condition on one argument: its bits in ``mask`` are those of ``value``. The kernel ignores the upper 32 bits of
    an ``int``, so a condition on one must too, or setting them passes it by."""

    index: int
    value: int
    mask: int = _LOW_32_BITS


@dataclass(frozen=True, slots=True)
class Rule:
    """The calls named are allowed (or fail with ``errno``) when all conditions hold. Several rules for a call: any."""

    calls: tuple[str, ...]
    conditions: tuple[Argument, ...] = ()
    errno: int | None = None


@dataclass(frozen=True, slots=True)
class Profile:
    """What a filter shall do. Calls without a rule fail with ``default_errno``, calls newer than all rules with ENOSYS.

    ``architectures`` are further ones to filter alike ("x86", "x32", "arm"); calls of any other kill the process.
    """

    rules: tuple[Rule, ...]
    default_errno: int = errno.EPERM
    architectures: tuple[str, ...] = ()


def default_profile(
    capabilities: Iterable[str] | None = DOCKER_DEFAULT, *, architectures: tuple[str, ...] = ()
) -> Profile:
    """Return the profile for a container with ``capabilities`` (None: all); each capability opens the calls it is for.

    Raises: InvalidSpec for an unknown capability.
    """
    held = set(names_of(parse_capabilities(("ALL",) if capabilities is None else capabilities)))
    opened = [group for group in CLOSED if held.intersection(group.capabilities)]
    rules = [Rule(group.calls) for group in (*ALLOWED, *opened)]
    rules += [Rule(("socket",), (Argument(0, family),)) for family in _FAMILIES.values()]
    rules += [Rule(("personality",), (Argument(0, persona),)) for persona in _PERSONALITIES]
    if "CAP_SYS_ADMIN" in held:
        rules.append(Rule(("clone", "clone3")))
    else:
        rules.append(Rule(("clone",), (Argument(0, 0, _NEW_NAMESPACES),)))
        rules.append(Rule(("clone3",), errno=errno.ENOSYS))
    return Profile(tuple(rules), architectures=architectures)


def reason_for(call: str) -> str:
    """Return in one sentence why the default profile treats ``call`` as it does; "" for a call it does not know."""
    special = {
        "clone": "Starts threads and processes; the flags that would make namespaces are refused without CAP_SYS_ADMIN.",
        "clone3": "Its flags lie in memory, where a filter cannot look, so it is said not to exist; clone(2) takes its place.",
        "socket": f"Only the families {', '.join(_FAMILIES)}: no namespace separates the others.",
        "personality": "Only ordinary Linux: other modes switch off address randomisation or imitate old systems.",
    }
    reasons = {name: group.why for group in (*ALLOWED, *CLOSED) for name in group.calls}
    return (reasons | special).get(call, "")


@functools.lru_cache(maxsize=32)
def compile_filter(profile: Profile, *, short: bool = True) -> bytes:
    """Return ``profile`` as a BPF program, 8 bytes an instruction. The first time takes some milliseconds, later none.

    libseccomp translates the names and writes the program; then it is shortened, which makes loading it faster and changes
    no decision (``short=False`` gives libseccomp's own). Raises: FeatureMissing without libseccomp, InvalidSpec.
    """
    library = _libseccomp()
    # SCMP_ACT_ERRNO as the default makes the list an allow-list.
    scmp = library.SyscallFilter(library.ERRNO(profile.default_errno))
    scmp.set_attr(library.Attr.ACT_BADARCH, library.KILL_PROCESS)
    if short:
        # libseccomp's own binary tree: longer, but every number is decided in a few steps, which shortening has to try out.
        scmp.set_attr(library.Attr.CTL_OPTIMIZE, 2)
    for name in profile.architectures:
        scmp.add_arch(_architecture(library, name))
    for rule in profile.rules:
        action = library.ALLOW if rule.errno is None else library.ERRNO(rule.errno)
        conditions = [library.Arg(c.index, library.MASKED_EQ, c.mask, c.value & c.mask) for c in rule.conditions]
        for call in rule.calls:
            # A name that this libseccomp, or this machine, does not have stays refused.
            if library.resolve_syscall(library.Arch.NATIVE, call) != -1:
                scmp.add_rule(action, call, *conditions)
    program = _export(scmp)
    if not short:
        return program
    return shorten(program, unknown_from=_first_unknown(library, profile), unknown_action=library.ERRNO(errno.ENOSYS))


def _libseccomp() -> ModuleType:
    remedy = "Install it (Debian and Ubuntu: apt-get install libseccomp2), or start the container with seccomp off."
    try:
        import pyseccomp
    except ImportError:
        raise FeatureMissing(
            "A seccomp filter needs the Python package pyseccomp, which is not installed.",
            remedy="Run `make setup`, or pip install pyseccomp.",
        ) from None
    except RuntimeError:
        raise FeatureMissing(
            "A seccomp filter needs the library libseccomp.so.2, which was not found.", remedy=remedy
        ) from None
    return pyseccomp  # type: ignore[no-any-return]


def _architecture(library: ModuleType, name: str) -> int:
    token = getattr(library.Arch, name.upper(), None)
    if not isinstance(token, int) or name.upper() == "NATIVE":
        raise InvalidSpec(f"libseccomp knows no architecture {name!r}: write for example 'x86' or 'x32'.")
    return token


def _export(scmp: object) -> bytes:
    # libseccomp writes the program to a descriptor; a memory file takes any length without a reader.
    with os.fdopen(os.memfd_create("labkit-seccomp", os.MFD_CLOEXEC), "w+b", buffering=0) as file:
        scmp.export_bpf(file)  # type: ignore[attr-defined]
        file.seek(0)
        return file.read()


def _first_unknown(library: ModuleType, profile: Profile) -> int:
    names = [name for group in CLOSED for name in group.calls] + [name for rule in profile.rules for name in rule.calls]
    return 1 + max(int(library.resolve_syscall(library.Arch.NATIVE, name)) for name in names)


def _demonstrate(program: bytes) -> None:
    prctl(Prctl.SET_NO_NEW_PRIVS, 1)
    seccomp_set_filter(program)
    attempts: dict[str, Callable[[], object]] = {
        "read a file": lambda: os.stat("/"),
        "make a Unix socket": lambda: socket.socket(socket.AF_UNIX).close(),
        "make a user namespace": lambda: unshare(NS.USER),
        "make a socket to the hypervisor": lambda: socket.socket(socket.AF_VSOCK).close(),
    }
    for what, attempt in attempts.items():
        try:
            attempt()
        except OSError as error:
            print(f"{what}: {error.strerror}")
        else:
            print(f"{what}: allowed")


def main() -> None:
    """Load the default filter in a child process and try four things in it."""
    program = compile_filter(default_profile())
    own = compile_filter(default_profile(), short=False)
    print(f"the filter has {len(program) // 8} instructions (libseccomp wrote {len(own) // 8})", flush=True)
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
        return
    try:
        _demonstrate(program)
    finally:
        sys.stdout.flush()
        os._exit(0)


if __name__ == "__main__":
    main()
