"""The plan of a container, to be read: nothing is started, and no privilege is needed.

``python -m labkit.container.preview`` prints the system calls that make a container of the machine's own programs.

Leaves out: the steps that depend on the moment (joining the v1 cgroups, connecting the standard streams).
See: `labkit.container.plan`; strace(1), whose output of a real start looks the same.
"""

from __future__ import annotations

import os
from contextlib import ExitStack

from labkit.container.container import Container, Namespaced
from labkit.container.plan import GATE, ChildFds, Facts, container_steps, late_steps, run_steps
from labkit.container.prepare import identity_roots
from labkit.container.users import resolve_user
from labkit.isolation.capabilities import last_capability
from labkit.linux.constants import NS
from labkit.linux.fds import Fd
from labkit.linux.steps import Step

__all__ = ["plan_of"]

_STATUS_FD, _OTHER_STATUS_FD = 3, 4


def plan_of(container: Container | Namespaced) -> list[Step]:
    """Return the steps between ``clone3`` and ``execve`` that ``container`` asks for, in order; joining v1 cgroups left out.

    Raises: LookupError for a user that its root filesystem does not have.
    """
    spec = container.spec
    last = last_capability()
    identity = None if spec.rootfs.kind == "host" else resolve_user(spec.user, identity_roots(spec))
    facts = Facts(identity, last, (1 << last + 1) - 1)
    sources = {f"lower:{number}": path for number, path in enumerate(spec.rootfs.lowers)}
    sources |= {f"mount:{n}": mount.source for n, mount in enumerate(spec.mounts) if mount.source}
    if spec.rootfs.writable is not None:
        sources["writable"] = spec.rootfs.writable
    with ExitStack() as stack:
        trees = {name: stack.enter_context(Fd(os.open(path, os.O_PATH))).number for name, path in sources.items()}
        fds = ChildFds(_STATUS_FD, _OTHER_STATUS_FD, trees)
        steps = container_steps(spec, fds, facts, stage="/run/labkit/stage")
    late = late_steps(fds, (0, 1, 2), (), hostname=spec.hostname)
    return [*steps[: GATE + 1], *late, *steps[GATE + 1 :], *run_steps(spec, facts)]


def clone_flags(container: Container | Namespaced) -> NS:
    """Return the namespaces that come with ``clone3`` itself; the cgroup namespace follows as a step of its own."""
    return NS(container.spec.namespaces) & ~NS.CGROUP


def main() -> None:
    """Print the plan of a container, one system call a line."""
    container = Container(["/bin/sh"], image_like_host=True)
    print(f"    clone3({clone_flags(container)!r})")
    for number, step in enumerate(plan_of(container), start=1):
        print(f"{number:3} {step}")


if __name__ == "__main__":
    main()
