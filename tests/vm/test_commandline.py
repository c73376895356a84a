"""QEMU's command line, for both kinds of processors, and the specs that are refused before there is one."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from labkit.errors import FeatureMissing, InvalidSpec
from labkit.vm.accel import Accelerator, find_qemu
from labkit.vm.calls import MAILBOX_BYTES
from labkit.vm.commandline import Ends, board_of, kernel_words, qemu_command
from labkit.vm.spec import GuestSpec, Share
from tests.support import requires

SPEC = GuestSpec(Path("/kernel"), b"archive", memory_bytes=256 << 20, cpus=2, machine="x86_64")
ARM = replace(SPEC, machine="aarch64")
ENDS = Ends(console=10, port=11, monitor=12, memory=13, initramfs=14)
TCG = Accelerator("tcg", ("-accel", "tcg"), "", ("tsc=reliable",))


def words(spec: GuestSpec, *, ends: Ends = ENDS, incoming: str = "") -> str:
    return " ".join(qemu_command(Path("/qemu"), TCG, spec, ends, incoming=incoming))


def test_an_x86_guest_is_a_microvm_without_acpi() -> None:
    said = words(SPEC)
    assert said.startswith("/qemu -nodefaults -no-user-config -display none -accel tcg -machine microvm,")
    assert "acpi=off" in said
    assert "-smp 2" in said
    assert "isa-serial,chardev=console,index=0" in said
    assert "isa-serial,chardev=port,index=1" in said
    assert re.search(r"-append console=ttyS0 .*memmap=1M\$8M .*reboot=t.* tsc=reliable", said)


def test_an_arm64_guest_is_a_virt_board() -> None:
    said = words(ARM)
    assert "-machine virt," in said
    assert "-serial chardev:console" in said
    assert "-device pci-serial,chardev=port" in said
    assert "console=ttyAMA0" in said
    assert "mem=256M" in said
    assert "isa-serial" not in said
    assert "memmap" not in said
    assert "reboot=t" not in said


@pytest.mark.parametrize(("spec", "offset"), [(SPEC, 8 << 20), (ARM, 256 << 20)])
def test_the_shared_part_lies_in_the_memory_file_and_outside_the_kernels_own(spec: GuestSpec, offset: int) -> None:
    assert board_of(spec.machine).mailbox_offset(spec.memory_bytes) == offset
    assert offset + MAILBOX_BYTES <= spec.memory_bytes + MAILBOX_BYTES
    assert f"size={(257 << 10) + 8}K,share=on" in words(spec)


def test_shares_and_cards_are_virtio_devices() -> None:
    share = Share("host", Path("/a,b"))
    ends = replace(ENDS, networks=((15, "52:54:00:00:00:01"),))
    said = words(replace(SPEC, virtio=True, shares=(share,)), ends=ends)
    assert "acpi=on" in said
    assert "path=/a,,b,security_model=none,multidevs=remap,readonly=on" in said
    assert "virtio-9p-device,fsdev=fs0,mount_tag=host" in said
    assert "-netdev socket,id=net0,fd=15 -device virtio-net-device,netdev=net0,mac=52:54:00:00:00:01" in said
    assert 15 in ends.all


def test_a_disk_is_a_virtio_device_that_keeps_nothing_unless_told() -> None:
    said = words(replace(SPEC, virtio=True, disk=Path("/a,b")))
    assert "-drive if=none,id=disk,format=raw,file=/a,,b,snapshot=on -device virtio-blk-device,drive=disk" in said
    assert "snapshot=off" in words(replace(SPEC, virtio=True, disk=Path("/a"), keeps_disk=True))


def test_a_machine_that_comes_in_needs_no_kernel() -> None:
    said = words(SPEC, incoming="fd:20")
    assert "-incoming fd:20" in said
    assert "-kernel" not in said


def test_words_of_the_caller_come_last_and_win() -> None:
    assert kernel_words(replace(SPEC, append=("loglevel=7",))).endswith("loglevel=7")
    assert words(replace(SPEC, devices=("-device", "x"))).endswith("-device x")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"memory_bytes": 20 << 20}, "A guest with 20 MiB of memory cannot be: give it"),
        ({"memory_bytes": 4 << 30}, "4096 MiB"),
        ({"memory_bytes": (64 << 20) + 1}, "whole MiB"),
        ({"cpus": 0}, "1 to 16 CPUs"),
        ({"shares": (Share("x", Path("/")),)}, "virtio bus"),
        ({"disk": Path("/x")}, "virtio bus"),
        ({"cards": ("52:54:00:00:00:01",)}, "virtio bus"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(InvalidSpec, match=sentence):
        replace(SPEC, **changes)  # type: ignore[arg-type]


def test_a_processor_without_a_board_is_named() -> None:
    with pytest.raises(FeatureMissing, match="no virtual machine for a riscv64 processor"):
        board_of("riscv64")


@requires("vm")
def test_qemu_knows_every_device_of_the_command_line() -> None:
    import subprocess

    known = subprocess.run([find_qemu(), "-device", "help"], capture_output=True, text=True, check=True).stdout
    for name in ("isa-serial", "virtio-net-device", "virtio-9p-device"):
        assert f'name "{name}"' in known
