"""From the first ring of a guest's init to a guest that is ready: load modules, mount, and see that each step worked.

The agent is init, and init has these things to do; the list of calls comes from the host like any other, so a step that the guest's
kernel refuses has a name.

Leaves out: services, users, a network configuration.
See: init_module(2), mount(2), sethostname(2).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping

from labkit.errors import GuestError
from labkit.vm.calls import Answer, CallList, Slot
from labkit.vm.port import Port
from labkit.vm.spec import GuestSpec

__all__ = ["make_ready", "raise_if_refused"]

_AT_FDCWD, _O_CLOEXEC, _CLOCK_REALTIME = -100, 0o2000000, 0
#: finit_module flags: load although the versions of symbols or the kernel's version text differ. linux/module.h
_IGNORE_MODVERSIONS_AND_VERMAGIC = 3
#: What programs expect in /dev beside devices.
_DEV_LINKS = {
    "/dev/fd": "/proc/self/fd",
    "/dev/stdin": "/proc/self/fd/0",
    "/dev/stdout": "/proc/self/fd/1",
    "/dev/stderr": "/proc/self/fd/2",
}


def make_ready(port: Port, spec: GuestSpec, now_s: float, deadline_s: float) -> None:
    """Set the clock to ``now_s``, the time of day; load the spec's modules; make its mounts.

    Raises: GuestError naming the step that the guest's kernel refused.
    """
    calls = CallList(spec.machine)
    purposes: dict[Slot, str] = {}
    whole, part = divmod(now_s, 1)
    calls.call("clock_settime", _CLOCK_REALTIME, struct.pack("<qq", int(whole), int(part * 1e9)))
    calls.call("sethostname", spec.hostname, len(spec.hostname.encode()))
    for path in spec.modules:
        opened = calls.call("openat", _AT_FDCWD, path, _O_CLOEXEC)
        loaded = calls.call("finit_module", opened, "", _IGNORE_MODVERSIONS_AND_VERMAGIC)
        purposes[loaded] = f"load the kernel module {path}"
    for mount in spec.mounts:
        source = mount.source or mount.fstype
        made = calls.call("mount", source, mount.target, mount.fstype, mount.flags, mount.options)
        purposes[made] = f"mount {source} on {mount.target}"
        if mount.target == "/dev":
            for path, target in _DEV_LINKS.items():
                calls.call("symlinkat", target, _AT_FDCWD, path)
    calls.call("close_range", 10, 1 << 30, 0)  # the modules' descriptors; the agent's own are below
    raise_if_refused(port.exchange(calls, deadline_s), purposes)


def raise_if_refused(answer: Answer, purposes: Mapping[Slot, str]) -> None:
    """Raise GuestError for the first call, of those with a purpose, that the guest's kernel refused."""
    for slot, purpose in purposes.items():
        if answer[slot] < 0:
            raise GuestError(f"The guest could not {purpose}: {os.strerror(-answer[slot])}.")
