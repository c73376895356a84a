"""Probes: capabilities, no_new_privs, seccomp, pressure, KVM.

See: capabilities(7), prctl(2), seccomp(2), Documentation/accounting/psi.rst and virt/kvm/api.rst in Linux.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from collections.abc import Callable

from labkit.doctor.answers import Answer, expect, limited, no, yes
from labkit.doctor.rules import SECCOMP_REMEDY, Facts, text_of
from labkit.doctor.stage import in_namespaces
from labkit.errors import LabkitError
from labkit.isolation.bpf import Instruction, assemble
from labkit.isolation.capabilities import last_capability
from labkit.linux.constants import NS, Capability, Prctl
from labkit.linux.syscalls import capget, capset, prctl, seccomp_set_filter
from labkit.vm.kernel import KINDS, find_kernel

__all__ = ["PROBES"]

_KVM_GET_API_VERSION = 0xAE00  # linux/kvm.h


def _capabilities(facts: Facts) -> Answer:
    def act() -> Answer:
        socket.sethostname("labkit-doctor")
        for number in range(last_capability() + 1):
            prctl(Prctl.CAPBSET_DROP, number)
        _, permitted, _ = capget()
        kept = permitted & ~(1 << Capability.CAP_SYS_ADMIN)
        capset(effective=kept, permitted=kept, inheritable=0)
        try:
            socket.sethostname("labkit-again")
        except PermissionError:
            return yes("without CAP_SYS_ADMIN the host name stays")
        return expect(holds=False, otherwise="a dropped capability still counts")

    return in_namespaces(NS.UTS, facts, act)


def _no_new_privs(facts: Facts) -> Answer:
    prctl(Prctl.SET_NO_NEW_PRIVS, 1)
    held = prctl(Prctl.GET_NO_NEW_PRIVS) == 1
    return expect(
        "it is set already" if facts.no_new_privs else "", holds=held, otherwise="it reads 0 after it was set"
    )


def _seccomp(facts: Facts) -> Answer:
    # Two instructions' worth of meaning: every call named "getpgid" fails with an errno that it never has.
    number = {"x86_64": 121}.get(os.uname().machine, 155)
    program = assemble(
        [
            Instruction(0x20, 0, 0, 0),
            Instruction(0x15, 0, 1, number),
            Instruction(0x06, 0, 0, 0x0005_0000 | errno.EXFULL),
            Instruction(0x06, 0, 0, 0x7FFF_0000),
        ]
    )
    prctl(Prctl.SET_NO_NEW_PRIVS, 1)
    try:
        seccomp_set_filter(program)
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.EINVAL) and facts.seccomp_mode == 0:
            return no(
                f"seccomp: {text_of(error)}",
                rule="this kernel has no seccomp filters",
                remedy="Use a distribution's kernel.",
            )
        return no(f"seccomp: {text_of(error)}", rule="a seccomp filter refuses another one", remedy=SECCOMP_REMEDY)
    try:
        os.getpgid(0)
    except OSError as error:
        if error.errno == errno.EXFULL:
            return yes("below the one that is there already" if facts.seccomp_mode else "")
        raise
    return expect(holds=False, otherwise="a loaded filter has no effect")


def _pressure(facts: Facts) -> Answer:
    try:
        with open("/proc/pressure/memory") as file:
            file.read()
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return no("switched off", rule="this kernel was booted with psi=0", remedy="Boot it with psi=1.")
        if error.errno == errno.ENOENT:
            return no(
                "no /proc/pressure",
                rule="this kernel keeps no pressure (CONFIG_PSI), or /proc hides it",
                remedy="Boot it with psi=1.",
            )
        return no(f"/proc/pressure: {text_of(error)}", rule="/proc/pressure may not be read", remedy="Run as root.")
    return yes("of the whole machine; of a group where its row says so")


def _kvm(facts: Facts) -> Answer:
    try:
        fd = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return no(
            "no /dev/kvm",
            rule="the processor, the firmware or the hypervisor around this machine gives no virtualization",
            remedy="None needed: virtual machines run by software emulation, about ten times slower.",
        )
    except OSError as error:
        return no(
            f"/dev/kvm: {text_of(error)}",
            rule="this user may not open /dev/kvm" if error.errno == errno.EACCES else "/dev/kvm leads nowhere",
            remedy='sudo usermod --append --groups kvm "$USER", then log in again',
        )
    try:
        version = fcntl.ioctl(fd, _KVM_GET_API_VERSION)
    finally:
        os.close(fd)
    return limited(
        f"/dev/kvm opens (API {version})",
        rule="not proven: some machines open it and then run guests wrongly or very slowly",
        remedy="None needed: labkit boots a guest under KVM before it relies on it.",
    )


def _guest_kernel(facts: Facts) -> Answer:
    try:
        found = [find_kernel(kind).release for kind in KINDS]
    except LabkitError as error:
        return no(
            str(error),
            rule="a guest has a kernel of its own, which set-up puts into the cache",
            remedy="labkit setup vm",
        )
    return yes(", ".join(dict.fromkeys(found)))


#: Name of the feature -> probe.
PROBES: dict[str, Callable[[Facts], Answer]] = {
    "capabilities dropped": _capabilities,
    "no_new_privs": _no_new_privs,
    "seccomp filter": _seccomp,
    "pressure (PSI)": _pressure,
    "KVM": _kvm,
    "guest kernel": _guest_kernel,
}
