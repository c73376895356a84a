"""Virtual machines: a guest kernel of its own under QEMU, booted from what the distribution ships.

Read in this order: `spec` (what shall be), `commandline` (QEMU's words for it), `instance` and `process` (a running QEMU), `calls` and `agent`
(how anything gets done in the guest), `execution` (a command there), `guest` (what a lesson uses), then `snapshot`, `migration`,
`network`. `accel` says whether the CPU may help, `kernel` what is booted, `labkit.linux.kvm` what a machine is without a QEMU around it.

See: qemu(1); Documentation/virt/kvm/api.rst.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOME_OF = {
    "Guest": "labkit.vm.guest",
    "GuestResult": "labkit.vm.execution",
    "GuestSpec": "labkit.vm.spec",
    "Migration": "labkit.vm.migration",
    "Network": "labkit.vm.network",
    "Share": "labkit.vm.spec",
    "Timeline": "labkit.vm.timeline",
    "accelerator": "labkit.vm.accel",
    "micro_spec": "labkit.vm.micro",
}

__all__ = [
    "Guest",
    "GuestResult",
    "GuestSpec",
    "Migration",
    "Network",
    "Share",
    "Timeline",
    "accelerator",
    "micro_spec",
]


def __getattr__(name: str) -> Any:
    """Load a public name on first use."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'labkit.vm' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
