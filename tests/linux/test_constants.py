from __future__ import annotations

import os
import re
from enum import IntEnum, IntFlag
from pathlib import Path

import pytest

from labkit.linux import constants
from labkit.linux.constants import (
    NS,
    NS_FILES,
    AtFlag,
    AtFolder,
    Capability,
    CloneFlag,
    FsConfigCmd,
    MountAttr,
    MountFlag,
    MoveMountFlag,
    OpenTreeFlag,
    Prctl,
    Umount,
)
from tests.support import requires

HEADERS = ("sched.h", "mount.h", "prctl.h", "capability.h", "fcntl.h")
#: The kernel's name of each member is a prefix and the member's name; the exceptions are written out.
PREFIXES: dict[type[IntFlag] | type[IntEnum], str] = {
    NS: "CLONE_NEW",
    CloneFlag: "CLONE_",
    MountFlag: "MS_",
    AtFlag: "AT_",
    AtFolder: "",
    OpenTreeFlag: "OPEN_TREE_",
    MoveMountFlag: "MOVE_MOUNT_",
    MountAttr: "MOUNT_ATTR_",
    FsConfigCmd: "FSCONFIG_",
    Prctl: "PR_",
    Capability: "",
    Umount: "MNT_",
}
OTHER_NAMES = {"CLONE_NEWMNT": "CLONE_NEWNS", "FSCONFIG_CREATE": "FSCONFIG_CMD_CREATE"}
#: These stand in glibc's sys/mount.h and mount(2) alone, or are given by another header's constant.
ELSEWHERE = {"MNT_FORCE": 1, "MNT_DETACH": 2, "MNT_EXPIRE": 4, "UMOUNT_NOFOLLOW": 8, "MNT_NOFOLLOW": 8}
ELSEWHERE |= {"OPEN_TREE_CLOEXEC": os.O_CLOEXEC}


def numbers_of_the_headers() -> dict[str, int]:
    """Return every plain number that the kernel's headers give a name."""
    found: dict[str, int] = {}
    for header in HEADERS:
        text = Path("/usr/include/linux", header).read_text()
        pattern = r"(?:#\s*define\s+(\w+)\s+|^\s*(\w+)\s*=\s*)\(?((?:0x[0-9a-fA-F]+|-?\d+)(?:\s*<<\s*\d+)?)(?:U?L?L?)\)?(?=[\s,/]|$)"
        for defined, enumerated, value in re.findall(pattern, text, re.M):
            base, _, shift = value.partition("<<")
            found[defined or enumerated] = int(base, 0) << int(shift or 0)
    return found


@requires("kernel-headers")
@pytest.mark.parametrize("kind", PREFIXES, ids=lambda kind: kind.__name__)
def test_each_number_is_the_one_in_the_kernels_header(kind: type[IntFlag] | type[IntEnum]) -> None:
    known = numbers_of_the_headers() | ELSEWHERE
    for member in kind:
        name = PREFIXES[kind] + str(member.name)
        assert known.get(OTHER_NAMES.get(name, name)) == int(member), name


def test_every_enumeration_is_compared_with_its_header() -> None:
    kinds = {
        value
        for value in vars(constants).values()
        if isinstance(value, type) and value.__module__ == constants.__name__
    }
    assert kinds == set(PREFIXES)


def test_each_namespace_kind_has_the_file_that_proc_shows() -> None:
    shown = {name.removesuffix("_for_children") for name in os.listdir("/proc/self/ns")}
    assert set(NS_FILES) == set(NS)
    assert shown <= set(NS_FILES.values())
    assert len(set(NS_FILES.values())) == 8


def test_the_last_capability_of_this_kernel_has_a_name() -> None:
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    assert {int(capability) for capability in Capability} >= set(range(min(last, max(Capability)) + 1))
