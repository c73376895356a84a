"""Modules for a guest: dependencies first, as modinfo(8) names them, without signature."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from labkit.errors import FeatureMissing, GuestError
from labkit.vm import modules
from labkit.vm.kernel import GuestKernel, find_kernel
from labkit.vm.packages import NEEDED_MODULES
from tests.support import requires


@requires("vm")
def test_every_module_comes_after_what_it_needs() -> None:
    kernel = find_kernel("hostroot")
    found = modules.with_dependencies(kernel, NEEDED_MODULES["hostroot"])
    names = [module.name for module in found]
    assert set(NEEDED_MODULES["hostroot"]) <= set(names) | modules.built_in(kernel)
    assert len(names) == len(set(names))
    for place, module in enumerate(found):
        assert set(modules.depends_of(module.content)) <= set(names[:place]) | modules.built_in(kernel)


@requires("vm", "program:modinfo")
def test_dependencies_are_those_that_modinfo_prints() -> None:
    kernel = find_kernel("hostroot")
    for path in sorted(kernel.modules.rglob("*.ko"))[:40]:
        printed = subprocess.run(["modinfo", "-F", "depends", str(path)], capture_output=True, text=True, check=True)
        said = printed.stdout.strip().replace("-", "_")
        assert ",".join(modules.depends_of(path.read_bytes())) == said, path


@requires("vm")
def test_the_signature_is_cut_off_and_nothing_else(tmp_path: Path) -> None:
    kernel = find_kernel("micro")
    whole = next(kernel.modules.rglob("virtio_net.ko*")).read_bytes()
    (module,) = [m for m in modules.with_dependencies(kernel, ["virtio_net"]) if m.name == "virtio_net"]
    if whole.endswith(b"~Module signature appended~\n"):
        assert b"Module signature appended" not in module.content
        assert whole.startswith(module.content)
        # What was cut off is a PKCS#7 message: a sequence in ASN.1, with a length in two bytes.
        assert whole[len(module.content) :][:2] == b"\x30\x82"


@requires("vm")
def test_a_module_that_is_not_there_is_one_sentence() -> None:
    with pytest.raises(FeatureMissing, match=r"has no module labkit_no_such\."):
        modules.with_dependencies(find_kernel("micro"), ["labkit-no-such"])


def test_a_damaged_module_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "bad.ko").write_bytes(b"\x7fELF\x02" + b"\xff" * 100)
    (tmp_path / "text.ko").write_text("no ELF file")
    kernel = GuestKernel(tmp_path / "vmlinux", "6.1.0", tmp_path)
    for name in ("bad", "text"):
        with pytest.raises(GuestError, match="kernel module"):
            modules.with_dependencies(kernel, [name])


def test_what_is_built_in_needs_no_file(tmp_path: Path) -> None:
    (tmp_path / "modules.builtin").write_text("kernel/fs/9p/9p.ko\nkernel/net/9p/9pnet-virtio.ko\n")
    kernel = GuestKernel(tmp_path / "vmlinux", "5.15.0", tmp_path)
    assert modules.with_dependencies(kernel, ["9p", "9pnet_virtio"]) == []
