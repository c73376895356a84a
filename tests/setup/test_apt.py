"""apt: what is installed, what is reported, what is never removed, and how an archive is had without root."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from labkit.setup import apt
from labkit.setup.progress import Step
from tests.setup.conftest import Machine
from tests.support import requires

# Knows two packages; "crun" is unknown, and "busybox-static" would remove something, as on a Debian with busybox.
APT_GET = """
case "$*" in
  *--print-uris*)
    case "$*" in *crun*) echo "E: Unable to locate package crun" >&2; exit 100;; esac
    case "$*" in *busybox-static*) echo "E: Packages need to be removed but remove is disabled." >&2; exit 100;; esac
    for word in "$@"; do case $word in runc|uidmap) echo "'address' $word.deb 1500000 SHA256:0";; esac; done;;
esac
"""


def test_what_apt_refuses_is_reported_and_the_rest_installed_at_once(machine: Machine, step: Step) -> None:
    machine.add("apt-get", APT_GET)
    reasons = apt.install(["runc", "crun", "uidmap", "busybox-static"], step)
    assert reasons == {
        "crun": "Unable to locate package crun",
        "busybox-static": "Packages need to be removed but remove is disabled",
    }
    installed = [call for call in machine.calls("apt-get") if call.startswith("install") and "--print-uris" not in call]
    assert [call.split()[-2:] for call in installed] == [["runc", "uidmap"]]
    assert "(3.0 MB to download)" in step.title


def test_lists_are_fetched_only_where_apt_does_not_know_a_package(machine: Machine, step: Step) -> None:
    machine.add("apt-get", APT_GET)
    apt.install(["runc"], step)
    assert not [call for call in machine.calls("apt-get") if call.startswith("update")]
    apt.install(["runc", "crun"], step)
    assert len([call for call in machine.calls("apt-get") if call.startswith("update")]) == 1


def test_no_package_is_ever_removed_and_none_is_recommended_in(machine: Machine, step: Step) -> None:
    machine.add("apt-get", APT_GET)
    apt.install(["runc", "crun"], step)
    calls = [call for call in machine.calls("apt-get") if call.startswith("install")]
    assert calls
    assert all("--no-remove" in call and "--no-install-recommends" in call for call in calls)


def test_a_package_that_breaks_the_installation_does_not_take_the_others_along(machine: Machine, step: Step) -> None:
    machine.add(
        "apt-get", 'case "$*" in *--print-uris*) ;; *runc*) echo "E: dpkg was interrupted" >&2; exit 100;; esac'
    )
    assert apt.install(["runc", "uidmap"], step) == {"runc": "dpkg was interrupted"}
    assert machine.calls("apt-get")[-1].endswith(" uidmap")


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Return a real Debian package with one file, ``/bin/labkit-hello``."""
    tree = tmp_path / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "bin").mkdir()
    (tree / "DEBIAN/control").write_text(
        "Package: hello\nVersion: 1\nArchitecture: all\nMaintainer: nobody <nobody@localhost>\nDescription: test\n"
    )
    (tree / "bin/labkit-hello").write_text("hello")
    path = tmp_path / "hello_1_all.deb"
    command = ["dpkg-deb", "--root-owner-group", "--build", str(tree), str(path)]
    subprocess.run(command, check=True, capture_output=True)
    return path


def _with_dpkg(machine: Machine) -> None:
    for name in ("dpkg-deb", "tar", "rm"):
        (machine.bin / name).symlink_to(shutil.which(name, path="/usr/bin:/bin") or name)


@requires("program:dpkg-deb")
def test_a_package_is_unpacked_without_root_with_the_lists_of_the_machine(
    archive: Path, machine: Machine, step: Step, tmp_path: Path
) -> None:
    _with_dpkg(machine)
    machine.add("apt-get", f'case "$*" in "download hello") cp {archive} . ;; *) exit 100;; esac')
    assert apt.download(["hello"], tmp_path / "parts", step) == {}
    assert (tmp_path / "parts/bin/labkit-hello").read_text() == "hello"
    assert machine.calls("apt-get") == ["download hello"]


@requires("program:dpkg-deb")
def test_without_lists_private_ones_are_fetched_once_and_nothing_of_them_stays(
    archive: Path, machine: Machine, step: Step, tmp_path: Path
) -> None:
    _with_dpkg(machine)
    known = f'*Dir::State=*"download hello") cp {archive} . ;; *update) ;;'
    machine.add("apt-get", f'case "$*" in {known} *) echo "E: Unable to locate package" >&2; exit 100;; esac')
    reasons = apt.download(["hello", "other"], tmp_path / "parts", step)
    assert reasons == {"other": "Unable to locate package"}
    assert (tmp_path / "parts/bin/labkit-hello").read_text() == "hello"
    updates = [call for call in machine.calls("apt-get") if call.endswith("update")]
    assert len(updates) == 1
    state = next(word for word in updates[0].split() if word.startswith("-oDir::State=")).partition("=")[2]
    assert not Path(state).exists()


@requires("program:dpkg-deb")
def test_without_a_network_the_reason_is_the_first_thing_that_apt_says(
    machine: Machine, step: Step, tmp_path: Path
) -> None:
    _with_dpkg(machine)
    machine.add(
        "apt-get",
        'echo "Err:1 x"; echo "E: Failed to fetch x  Temporary failure resolving"; echo "E: Some index files failed"; exit 100',
    )
    assert apt.download(["hello"], tmp_path / "parts", step) == {
        "hello": "Failed to fetch x Temporary failure resolving"
    }
