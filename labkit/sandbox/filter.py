"""Which system calls a student's programs may make: a container's, and those with which containers are made.

A lesson makes namespaces, mounts and cgroups, so the calls for them are open; the user namespace bounds what they can do. Closed
are calls that act on the whole machine, on things that no namespace separates (key rings, vsock, the clock), and young parts of
Linux that no lesson needs (io_uring, userfaultfd, bpf, perf). 32-bit entry points kill the process.

See: `labkit.isolation.seccomp_groups` for the groups and reasons, seccomp(2).
"""

from __future__ import annotations

from functools import lru_cache

from labkit.isolation.seccomp import Profile, Rule, compile_filter, default_profile

__all__ = ["OPENED", "sandbox_filter", "sandbox_profile"]

#: Closed to an ordinary container, open here.
OPENED = (
    "unshare", "setns", "mount", "umount", "umount2", "mount_setattr", "move_mount", "open_tree", "fsopen", "fsconfig", "fsmount",
    "fspick", "sethostname", "setdomainname", "pivot_root", "chroot", "clone", "clone3", "kcmp", "pidfd_getfd", "process_madvise",
)  # fmt: skip


def sandbox_profile() -> Profile:
    """Return the profile: that of a container without capabilities, and `OPENED`."""
    base = default_profile(())
    kept = [rule for rule in base.rules if not set(rule.calls) & set(OPENED)]
    return Profile((*kept, Rule(OPENED)), architectures=base.architectures)


@lru_cache(maxsize=1)
def sandbox_filter() -> bytes:
    """Return the filter as a program. Raises: FeatureMissing without libseccomp."""
    return compile_filter(sandbox_profile())
