"""What labkit keeps of a kernel package, in the folders of Debian, Ubuntu and others."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from labkit.vm import packages


def place(path: str) -> str | None:
    """Return where ``path`` goes, as text."""
    found = packages.place_of(PurePosixPath(path))
    return None if found is None else str(found)


def test_the_kernel_and_what_guests_can_use_are_kept() -> None:
    assert place("./boot/vmlinuz-6.1.0-56-amd64") == "vmlinuz/6.1.0-56-amd64"
    for top in ("./lib", "./usr/lib", "lib"):
        assert place(f"{top}/modules/6.1.0/kernel/fs/9p/9p.ko") == "modules/kernel/fs/9p/9p.ko"
    assert place("./lib/modules/6.8.0/kernel/fs/9p/9p.ko.zst") == "modules/kernel/fs/9p/9p.ko.zst"
    assert place("./lib/modules/6.1.0/kernel/drivers/net/veth.ko") == "modules/kernel/drivers/net/veth.ko"
    assert place("./lib/modules/6.1.0/modules.builtin") == "modules/modules.builtin"


def test_drivers_for_devices_that_no_guest_has_are_not() -> None:
    for path in (
        "./boot/System.map-6.1.0", "./boot/config-6.1.0", "./usr/share/doc/linux/copyright",
        "./lib/modules/6.1.0/kernel/drivers/gpu/drm/drm.ko", "./lib/modules/6.1.0/kernel/sound/soundcore.ko",
        "./lib/modules/6.1.0/kernel/drivers/net/wireless/x/x.ko", "./lib/modules/../../etc/passwd", "/etc/passwd",
    ):  # fmt: skip
        assert place(path) is None, path


def test_the_pattern_names_packages_with_a_version_and_no_others() -> None:
    for name in (
        "linux-image-6.1.0-56-amd64",
        "linux-modules-6.8.0-31-generic",
        "linux-image-unsigned-6.8.0-31-generic",
    ):
        assert re.fullmatch(packages.PATTERN, name)
    for name in ("linux-image-amd64", "linux-base", "linux-firmware", "linux-headers-6.1.0-56-amd64"):
        assert not re.fullmatch(packages.PATTERN, name)
