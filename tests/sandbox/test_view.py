"""The file tree: what is shown, and what never is."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from labkit.sandbox import view
from labkit.sandbox.policy import Policy


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a home folder of this test's own."""
    folder = tmp_path / "home"
    (folder / "course").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    return folder


def sources(cwd: Path | str) -> set[str]:
    """Return the machine's folders that a sandbox for ``cwd`` shows."""
    return {mount.source for mount in view.mounts(Policy(), cwd=str(cwd), work="") if mount.source}


def test_a_notebook_in_a_folder_of_the_home_shows_that_folder_alone(home: Path) -> None:
    assert str(home / "course") in sources(home / "course")
    assert str(home) not in sources(home / "course")


@pytest.mark.parametrize("folder", ["/", "/tmp", "/etc", "/run", "/var", "/home", "~", "~/.."])
def test_a_notebook_in_such_a_place_shows_nothing_of_it(home: Path, folder: str) -> None:
    cwd = os.path.realpath(os.path.expanduser(folder))
    assert view.shown_folder(cwd) == ""
    assert not {cwd, str(home)} & sources(cwd)


def test_a_link_to_the_home_is_the_home(home: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(home)
    assert view.shown_folder(str(tmp_path / "link")) == ""


def test_programs_the_python_and_the_course_are_shown_read_only(home: Path) -> None:
    shown = {mount.source: mount for mount in view.mounts(Policy(), cwd=str(home), work="") if mount.source}
    for path in (
        "/usr",
        os.path.realpath(sys.base_prefix),
        os.path.realpath(sys.prefix),
        str(view.course_folder() / "labkit"),
    ):
        holder = next(source for source in shown if (path + "/").startswith(source + "/"))
        assert {"ro", "nosuid", "nodev"} <= set(shown[holder].options), path


def test_every_mount_comes_after_those_above_it(home: Path) -> None:
    targets = [mount.target for mount in view.mounts(Policy(), cwd=str(home / "course"), work=str(home / "course"))]
    for number, target in enumerate(targets):
        assert not any(target.startswith(later + "/") for later in targets[number:])


def test_a_read_only_notebook_folder_is_a_read_only_bind(home: Path) -> None:
    mounts = {
        mount.source: mount for mount in view.mounts(Policy(notebooks="read-only"), cwd=str(home / "course"), work="")
    }
    assert mounts[str(home / "course")].kind == "bind"
    assert "ro" in mounts[str(home / "course")].options


def test_etc_is_a_choice_without_secrets() -> None:
    found = dict(view.files(hostname="box"))
    assert {"/etc/passwd", "/etc/group", "/etc/hosts", "/etc/nsswitch.conf"} <= found.keys()
    assert (
        not {"/etc/shadow", "/etc/gshadow", "/etc/sudoers", "/etc/fstab", "/etc/machine-id", "/etc/ssh"} & found.keys()
    )
    assert found["/etc/passwd"].startswith(b"root:x:0:0:")
    assert sum(map(len, found.values())) < 100_000  # they travel in one message


def test_the_socket_folder_follows_no_links() -> None:
    mount = next(mount for mount in view.mounts(Policy(), cwd="/", work="") if mount.target == view.SOCKETS)
    assert {"nosymfollow", "noexec"} <= set(mount.options)
