"""Packages that are only unpacked: what they need, what they stand for, old lists, damaged archives."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path, PurePosixPath

import pytest

from labkit.errors import FeatureMissing
from labkit.setup.archives import archives, unpack
from labkit.setup.progress import Step
from tests.setup.conftest import Machine
from tests.support import requires


@pytest.fixture
def tools(machine: Machine) -> Machine:
    """A machine with what unpacks."""
    for name in ("dpkg-deb", "tar", "rm", "touch"):
        (machine.bin / name).symlink_to(shutil.which(name, path="/usr/bin:/bin") or name)
    return machine


def test_a_program_brings_what_apt_would_install_with_it(tools: Machine, step: Step) -> None:
    tools.add("apt-cache", 'case "$*" in "show tool") echo Package: tool;; *) exit 100;; esac')
    tools.add(
        "apt-get",
        'case "$*" in *--simulate*) echo "Inst liba (1 x)"; echo "Inst tool (2 x)"; echo "Conf tool (2 x)";; '
        "*download*) touch tool_2.deb liba_1.deb;; esac",
    )
    with archives(step) as source:
        found = source.fetch(lambda: source.closure("tool"))
        work = source.work
    assert [path.name for path in found] == ["liba_1.deb", "tool_2.deb"]
    assert tools.calls("apt-get")[-1] == "download tool liba"
    assert not work.exists()


def test_the_package_behind_a_name_is_found_by_its_pattern(tools: Machine, step: Step) -> None:
    tree = "kernel\\n  Depends: kernel-6.1\\n  Depends: kmod\\nkernel-6.1\\n  Depends: modules-6.1\\nmodules-6.1"
    tools.add("apt-cache", f'case "$*" in *depends*) printf "{tree}\\n";; *) echo known;; esac')
    with archives(step) as source:
        assert source.related("kernel", r"(kernel|modules)-[0-9].*") == ["kernel-6.1", "modules-6.1"]


def test_lists_that_are_too_old_are_replaced_by_private_ones_once(tools: Machine, step: Step) -> None:
    tools.add("apt-cache", 'case "$*" in *Dir::State=*depends*) echo k-2;; *depends*) echo k-1;; *) echo known;; esac')
    tools.add(
        "apt-get",
        'case "$*" in *update) ;; *"download k-2") touch k-2.deb;; *) echo "E: 404  Not Found"; exit 100;; esac',
    )
    with archives(step) as source:
        found = source.fetch(lambda: source.related("k", "k-[0-9]"))
    assert [path.name for path in found] == ["k-2.deb"]
    assert len([call for call in tools.calls("apt-get") if call.endswith("update")]) == 1


def test_what_no_source_has_and_a_network_that_is_down_are_one_sentence(tools: Machine, step: Step) -> None:
    tools.add("apt-cache", "exit 100")
    tools.add("apt-get", "")
    with (
        archives(step) as source,
        pytest.raises(FeatureMissing, match=r"^No package source of this machine has tool\.$"),
    ):
        source.closure("tool")
    tools.add("apt-get", 'echo "E: Temporary failure resolving"; exit 100')
    with archives(step) as source, pytest.raises(FeatureMissing, match="Temporary failure resolving"):
        source.closure("tool")


def test_an_unsatisfiable_need_is_the_sentence_that_apt_says(tools: Machine, step: Step) -> None:
    tools.add("apt-cache", "echo known")
    tools.add("apt-get", 'echo "E: Unable to correct problems, you have held broken packages." >&2; exit 100')
    with archives(step) as source, pytest.raises(FeatureMissing, match="what tool needs: Unable to correct problems"):
        source.closure("tool")


@requires("program:dpkg-deb")
def test_only_the_files_that_are_wanted_are_unpacked(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for name in ("DEBIAN/control", "boot/vmlinuz-1", "lib/modules/1/a.ko", "usr/share/doc/readme"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(name)
    (tree / "lib/modules/1/link.ko").symlink_to("/etc/passwd")
    (tree / "DEBIAN/control").write_text(
        "Package: k\nVersion: 1\nArchitecture: all\nMaintainer: nobody <nobody@localhost>\nDescription: test\n"
    )
    archive = tmp_path / "k_1_all.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "--build", tree, archive], check=True, capture_output=True)
    unpack(
        archive, tmp_path / "out", lambda path: PurePosixPath("kept") / path.name if "doc" not in path.parts else None
    )
    assert sorted(path.name for path in (tmp_path / "out").rglob("*")) == ["a.ko", "kept", "vmlinuz-1"]
    archive.write_bytes(archive.read_bytes()[:-200])
    with pytest.raises(FeatureMissing, match=r"k_1_all\.deb is damaged"):
        unpack(archive, tmp_path / "again", lambda path: path)
