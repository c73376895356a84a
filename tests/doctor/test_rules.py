"""From errno to rule, for machines that this one is not: AppArmor, Debian's switch, a chroot, missing capabilities."""

from __future__ import annotations

import errno
import os
from dataclasses import replace

import pytest

from labkit.doctor import rules
from labkit.doctor.rules import Facts
from labkit.linux.constants import NS, Capability

USER = Facts(
    uid=1000, capabilities=0, seccomp_mode=0, no_new_privs=False, own_id_mapped=True, initial_user_namespace=True, chrooted=False,
    userns_clone_forbidden=False, apparmor_restricts=False, most_namespaces={"user": 1000, "net": 1000},
    covered_proc=(), covered_sys=(),
)  # fmt: skip
ROOT = replace(USER, uid=0, capabilities=(1 << 41) - 1)


def _error(number: int) -> OSError:
    return OSError(number, "unshare(NS.USER): " + os.strerror(number))


@pytest.mark.parametrize(
    ("facts", "number", "rule"),
    [
        (
            replace(USER, apparmor_restricts=True),
            errno.EACCES,
            "AppArmor: kernel.apparmor_restrict_unprivileged_userns=1",
        ),
        (replace(USER, userns_clone_forbidden=True), errno.EPERM, "kernel.unprivileged_userns_clone=0"),
        (replace(USER, chrooted=True), errno.EPERM, "a process in a chroot"),
        (replace(USER, own_id_mapped=False), errno.EPERM, "this process's own user or group id has no mapping"),
        (USER, errno.ENOSPC, "user.max_user_namespaces=1000 is used up"),
        (USER, errno.EUSERS, "user.max_user_namespaces=1000 is used up"),
        (replace(USER, most_namespaces={"user": 0}), errno.ENOSPC, "user.max_user_namespaces=0 forbids them"),
        (USER, errno.EINVAL, "this kernel was built without user namespaces"),
        (USER, errno.EPERM, "a security module"),
    ],
)
def test_a_refused_user_namespace_is_traced_to_its_rule(facts: Facts, number: int, rule: str) -> None:
    answer = rules.why_user_namespace(_error(number), facts)
    assert answer.state == "no" and answer.rule.startswith(rule) and answer.remedy
    assert answer.detail == f"unshare(CLONE_NEWUSER): {os.strerror(number)}"


def test_apparmors_restriction_also_shows_when_the_map_is_refused() -> None:
    answer = rules.why_mapping(_error(errno.EPERM), replace(USER, apparmor_restricts=True))
    assert "apparmor_restrict_unprivileged_userns=0" in answer.remedy


def test_root_without_setfcap_may_not_map_uid_0() -> None:
    weak = replace(ROOT, capabilities=ROOT.capabilities & ~(1 << Capability.CAP_SETFCAP))
    assert (
        rules.why_mapping(_error(errno.EPERM), weak).rule
        == "missing capability: root without CAP_SETFCAP may not map uid 0"
    )


def test_a_namespace_without_power_misses_a_capability() -> None:
    answer = rules.why_namespace(NS.NET, _error(errno.EPERM), USER, powerful=False)
    assert answer.rule == "missing capability: CAP_SYS_ADMIN"
    assert answer.detail == "unshare(CLONE_NEWNET): Operation not permitted"


def test_a_kind_that_the_kernel_lacks_is_said_so() -> None:
    assert (
        rules.why_namespace(NS.TIME, _error(errno.EINVAL), ROOT, powerful=True).rule
        == "this kernel has no time namespaces"
    )


def test_mounts_that_the_kernel_lacks_or_forbids_read_differently() -> None:
    assert "modprobe overlay" in rules.why_mount(_error(errno.ENODEV), USER, what="overlay").remedy
    assert "before 5.11" in rules.why_mount(_error(errno.EPERM), USER, what="overlay").rule
    masked = replace(USER, covered_proc=("/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/scsi"))
    assert (
        "/proc/acpi, /proc/kcore, /proc/keys, ... are mounted over"
        in rules.why_mount(_error(errno.EPERM), masked, what="proc").rule
    )
    assert "no fully visible /proc" in rules.why_mount(_error(errno.EPERM), USER, what="proc").rule


def test_the_facts_of_this_process_agree_with_proc() -> None:
    facts = rules.read_facts()
    assert facts.uid == os.geteuid()
    with open("/proc/sys/user/max_net_namespaces") as file:
        assert facts.most_namespaces["net"] == int(file.read())
    assert not facts.chrooted
