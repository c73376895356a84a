"""The sandbox's system call filter, as decisions; `tests/attacks` tries the calls for real."""

from __future__ import annotations

import pytest

from labkit.isolation.seccomp import default_profile
from labkit.sandbox.filter import OPENED, sandbox_profile


def calls_allowed() -> set[str]:
    """Return every call that the profile allows, whatever its arguments."""
    return {
        call for rule in sandbox_profile().rules if rule.errno is None and not rule.conditions for call in rule.calls
    }


CLOSED = (
    "keyctl", "add_key", "request_key", "bpf", "perf_event_open", "userfaultfd", "io_uring_setup", "io_uring_enter", "kexec_load",
    "kexec_file_load", "init_module", "finit_module", "delete_module", "clock_settime", "settimeofday", "open_by_handle_at",
    "syslog", "swapon", "reboot", "acct", "quotactl", "fanotify_init", "mbind", "migrate_pages", "vhangup",
)  # fmt: skip


@pytest.mark.parametrize("call", CLOSED)
def test_what_no_lesson_needs_is_closed(call: str) -> None:
    assert call not in calls_allowed()


@pytest.mark.parametrize(
    "call", ["unshare", "mount", "pivot_root", "clone", "clone3", "setns", "fsopen", "chroot", "sethostname"]
)
def test_what_containers_are_made_with_is_open(call: str) -> None:
    assert call in calls_allowed()


def test_nothing_else_is_open_that_an_ordinary_container_may_not() -> None:
    ordinary = {call for rule in default_profile(()).rules for call in rule.calls}
    assert calls_allowed() - ordinary <= set(OPENED)


def test_32_bit_entry_points_are_not_among_the_architectures() -> None:
    assert sandbox_profile().architectures == ()
