"""A request that cannot work is refused in one sentence, before anything is started."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from labkit.container import Container, MountSpec, Namespaced, Security
from labkit.errors import InvalidSpec
from labkit.linux.constants import NS

BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "no command": (lambda root: Container([], rootfs=root), "no command"),
    "an empty word": (lambda root: Container([""], rootfs=root), "no command"),
    "a text for a list": (lambda root: Container("ls -l", rootfs=root), "list of words"),
    "no rootfs": (lambda root: Container(["true"]), "one root filesystem"),
    "two rootfs": (lambda root: Container(["true"], rootfs=root, image_like_host=True), "one root filesystem"),
    "a missing rootfs": (lambda root: Container(["true"], rootfs=root / "nope"), "does not exist"),
    "a file as rootfs": (lambda root: Container(["true"], rootfs=root / "marker"), "is no folder"),
    "a NUL byte": (lambda root: Container(["a\0b"], rootfs=root), "NUL"),
    "a bad variable": (lambda root: Container(["true"], rootfs=root, env={"A=B": "1"}), "environment variable"),
    "a relative cwd": (lambda root: Container(["true"], rootfs=root, cwd="tmp"), "absolute"),
    "a long hostname": (lambda root: Container(["true"], rootfs=root, hostname="x" * 65), "at most 64"),
    "no time": (lambda root: Container(["true"], rootfs=root, time_limit_s=0), "above 0"),
    "no room": (lambda root: Container(["true"], rootfs=root, writable_bytes=0), "above 0"),
    "a climbing mount": (
        lambda root: Container(["true"], rootfs=root, mounts=[MountSpec("tmpfs", "/a/../../b")]),
        "without '..'",
    ),
    "an unknown capability": (
        lambda root: Container(["true"], rootfs=root, security=Security(capabilities=("CAP_FLY",))),
        "CAP_FLY",
    ),
    "an unknown rlimit": (
        lambda root: Container(["true"], rootfs=root, security=Security(rlimits=(("RLIMIT_FUN", 1, 1),))),
        "RLIMIT_FUN",
    ),
    "a soft limit above the hard": (
        lambda root: Container(["true"], rootfs=root, security=Security(rlimits=(("RLIMIT_NOFILE", 2, 1),))),
        "soft limit",
    ),
    "a hostname without UTS": (lambda root: Namespaced(["true"], namespaces=NS.PID, hostname="x"), "NS.UTS"),
    "mounts without MNT": (
        lambda root: Namespaced(["true"], namespaces=NS.PID, mounts=[MountSpec("proc", "/proc")]),
        "NS.MNT",
    ),
    "an offset without TIME": (lambda root: Namespaced(["true"], namespaces=NS.PID, time_offset_s=9), "NS.TIME"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_request_that_cannot_work_is_refused_with_what_to_write_instead(name: str, rootfs: Path) -> None:
    make, expected = BAD[name]
    with pytest.raises(InvalidSpec, match=expected) as caught:
        make(rootfs)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")
