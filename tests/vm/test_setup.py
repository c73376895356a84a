"""``labkit setup vm``: what is there is tried, what is missing is fetched or a sentence, with and without root.

The packages themselves are Debian's own where apt works; the fakes stand for distributions and machines that are not here.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from labkit.errors import FeatureMissing
from labkit.setup.progress import Progress, Step
from labkit.vm import setup
from labkit.vm.kernel import find_kernel, kernel_folder
from tests.setup.conftest import Machine
from tests.support import requires
from tests.support.cli import labkit


def kernel_package(folder: Path, name: str) -> Path:
    """Return a real Debian package that holds this machine's micro kernel under another name and its modules."""
    kernel = find_kernel("micro")
    tree = folder / "tree"
    modules = tree / "lib/modules/9.9.9-test"
    shutil.copytree(kernel.modules, modules)
    (tree / "boot").mkdir()
    shutil.copy(kernel.path, tree / "boot/vmlinuz-9.9.9-test")
    (tree / "DEBIAN").mkdir()
    (tree / "DEBIAN/control").write_text(
        f"Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: nobody <nobody@localhost>\nDescription: test\n"
    )
    path = folder / f"{name}_1_all.deb"
    command = ["dpkg-deb", "-Znone", "--root-owner-group", "--build", str(tree), str(path)]
    subprocess.run(command, check=True, capture_output=True)
    return path


@requires("vm")
def test_what_is_there_is_tried_and_said_in_a_moment() -> None:
    done = labkit("setup", "vm")
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("[")]
    assert [line.split(" …")[0] for line in lines] == [
        "[1/3] QEMU", "[2/3] guest kernel for micro VMs", "[3/3] guest kernel for host-root VMs",
    ]  # fmt: skip
    assert all("already there" in line for line in lines)
    assert "guests run under" in done.stderr


@requires("vm", "program:dpkg-deb")
def test_a_kernel_comes_out_of_its_package_and_a_second_one_takes_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = kernel_package(tmp_path, "linux-image-9.9.9-test")
    fakes = tmp_path / "bin"
    fakes.mkdir()
    for name, script in {
        "apt-cache": 'case "$*" in *cloud*) exit 100;; *show*) echo known;; *) echo linux-image-9.9.9-test;; esac',
        "apt-get": f'case "$*" in *download*) cp {archive} .;; esac',
    }.items():
        (fakes / name).write_text(f"#!/bin/sh\n{script}\n")
        (fakes / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{fakes}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    out = io.StringIO()
    for _ in range(2):
        found = setup.fetch_kernel("micro", Step("kernel", out))
        assert (found.release, found.package) == ("9.9.9-test", "linux-image-9.9.9-test")
        assert find_kernel("micro") == found
    assert sorted(path.name for path in kernel_folder("micro").iterdir()) == ["kernel.json", "modules", "vmlinux"]
    assert [path.name for path in kernel_folder("micro").parent.iterdir()] == ["micro"]


@requires("vm")
def test_an_emulator_that_does_not_work_is_told_from_one_that_is_missing(tmp_path: Path) -> None:
    broken = tmp_path / "qemu"
    broken.write_text("#!/bin/sh\necho 'qemu: cannot find libfoo.so' >&2\nexit 127\n")
    broken.chmod(0o755)
    with pytest.raises(FeatureMissing, match=r"is there, but does not work: qemu: cannot find libfoo\.so"):
        setup.try_qemu(broken)
    monkey_time_s = 0.2
    broken.write_text("#!/bin/sh\nexec sleep 30\n")
    before_s, setup._ROM_LIMIT_S = setup._ROM_LIMIT_S, monkey_time_s
    try:
        with pytest.raises(FeatureMissing, match="did not run a boot ROM"):
            setup.try_qemu(broken)
    finally:
        setup._ROM_LIMIT_S = before_s


@pytest.mark.parametrize(("manager", "command"), [
    ("dnf", "dnf install qemu-system-x86-core"), ("pacman", "pacman -S qemu-system-x86"),
    ("zypper", "zypper install qemu-x86"), ("apk", "apk add qemu-system-x86_64"),
])  # fmt: skip
def test_other_distributions_get_the_command_that_installs_qemu(
    machine: Machine,
    manager: str,
    command: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine.add(manager, "")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr("labkit.vm.setup.installed_kernels", list)
    out = io.StringIO()
    lacking = setup.set_up(Progress(0, out=out))
    assert lacking[0] == f"There is no QEMU on this machine. Run `sudo {command}`."
    assert all(sentence.startswith("There is neither apt-get here") for sentence in lacking[1:])
    assert out.getvalue().count("not to be had") == 3
    assert machine.calls(manager) == []


@requires("vm")
def test_where_there_is_no_apt_a_kernel_of_the_machine_will_do(
    machine: Machine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as outside:
        outside.delenv("XDG_CACHE_HOME")
        here = find_kernel("micro")
    (tmp_path / "empty").mkdir()
    offered = [("8.8.8", here.path, tmp_path / "empty"), ("7.7.7", here.path, here.modules)]
    monkeypatch.setattr("labkit.vm.setup.installed_kernels", lambda: offered)
    found = setup.fetch_kernel("micro", Step("kernel", io.StringIO()))
    assert (found.release, found.package) == ("7.7.7", "this machine's own kernel")


def test_a_full_disk_is_one_sentence_before_anything_is_fetched(
    machine: Machine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=50 << 20))
    for name in ("apt-get", "apt-cache", "dpkg-deb"):
        machine.add(name, "exit 100")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    lacking = setup.set_up(Progress(0, out=io.StringIO()))
    assert all("has 50 MiB left, and this takes up to" in sentence for sentence in lacking), lacking
    assert machine.calls("apt-get") == []


def test_an_unpacked_emulator_is_started_with_its_own_libraries_alone(tmp_path: Path) -> None:
    program = tmp_path / "usr/bin/qemu-system-x86_64"
    program.parent.mkdir(parents=True)
    program.write_text('#!/bin/sh\nprintf "%s|" "$LD_LIBRARY_PATH" "$@"\n')
    program.chmod(0o755)
    for _ in range(2):
        setup._wrap(program, tmp_path)
        said = subprocess.run([program, "a b", "$c"], capture_output=True, text=True, check=True).stdout
        libraries, *words = said.split("|")
        assert words == ["a b", "$c", ""]
        assert libraries.split(":")[0].startswith(f"{tmp_path}/usr/lib/")
