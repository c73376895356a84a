"""Who a container's program is, read from files that an image made and that may be anything."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from labkit.container.users import Identity, resolve_user


@pytest.mark.parametrize(
    ("user", "identity"),
    [
        ("", Identity(0, 0, (), "/root")),
        ("0:0", Identity(0, 0, (), "/root")),
        ("root", Identity(0, 0, (), "/root")),
        ("student", Identity(1000, 1000, (2000,), "/home/student")),
        ("1000", Identity(1000, 1000, (2000,), "/home/student")),
        ("student:lab", Identity(1000, 2000, (), "/home/student")),
        ("4242", Identity(4242, 0, (), "/")),
        ("4242:77", Identity(4242, 77, (), "/")),
    ],
)
def test_a_user_is_found_as_the_image_specification_says(user: str, identity: Identity, rootfs: Path) -> None:
    assert resolve_user(user, [str(rootfs)]) == identity


@pytest.mark.parametrize("user", ["nobodyhere", "student:nogroup"])
def test_an_unknown_name_is_not_guessed(user: str, rootfs: Path) -> None:
    with pytest.raises(LookupError, match="not in the container's"):
        resolve_user(user, [str(rootfs)])


def test_the_topmost_layer_decides(rootfs: Path, tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("student:x:7:7::/elsewhere:/bin/sh\n")
    assert resolve_user("student", [str(tmp_path), str(rootfs)]).uid == 7


@pytest.mark.timeout(5)
def test_a_fifo_as_passwd_does_not_hang(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    os.mkfifo(tmp_path / "etc/passwd")
    assert resolve_user("0", [str(tmp_path)]).uid == 0


def test_a_link_does_not_lead_out_of_the_image(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("student:x:666:666::/stolen:/bin/sh\n")
    image = tmp_path / "image"
    (image / "etc").mkdir(parents=True)
    (image / "etc/passwd").symlink_to(f"../../../../..{outside}")
    with pytest.raises(LookupError):
        resolve_user("student", [str(image)])


def test_a_huge_passwd_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    with (tmp_path / "etc/passwd").open("wb") as file:
        file.truncate(1 << 30)
    assert resolve_user("0", [str(tmp_path)]).home == "/root"
