"""KVM or emulation: who executes the guest's instructions, found out by letting a guest run.

Under KVM the CPU itself executes them, in a mode in which privileged ones come back to the host's Linux. Without it QEMU translates
them (TCG, the Tiny Code Generator), which works everywhere and is slower. That ``/dev/kvm`` can be opened proves little: a
host that is a virtual machine itself may offer it and then hang, or refuse a register. So KVM counts as present only after a
guest of 123 bytes (`labkit.vm.bootrom`) has run under it, on the boards and with the CPU model that labkit's guests get. The answer
is kept until the next boot, another QEMU, or a change of the device's permissions.

Leaves out: other accelerators (Xen, HVF, WHPX).
See: Documentation/virt/kvm/api.rst, qemu(1) (-accel, -cpu).
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit.errors import FeatureMissing
from labkit.linux.tsc import tsc_khz
from labkit.setup.parts import cache_folder, find_program
from labkit.vm.bootrom import ROMS, Rom

__all__ = [
    "KVM_DEVICE",
    "PROBE_LIMIT_S",
    "Accelerator",
    "accelerator",
    "find_qemu",
    "probe_kvm",
    "rom_command",
    "software_emulation",
]

KVM_DEVICE = Path("/dev/kvm")
#: The probe is over after this time, whatever happens.
PROBE_LIMIT_S = 2.0
_KILL_AFTER_S = 1.7
#: QEMU's name of a machine, where it is not uname's.
_QEMU_NAMES = {"amd64": "x86_64", "arm64": "aarch64", "i686": "i386"}
#: Room for translated code. QEMU's own choice is up to 1 GiB at once, which is all that a sandbox without cgroups lets a process have.
_TRANSLATED_MIB = 256
#: The CPU that has all that QEMU can emulate; on arm64 signing addresses as the architecture names it takes most of the time.
_WHOLE_CPU = {"aarch64": "max,pauth-impdef=on"}


@dataclass(frozen=True, slots=True)
class Accelerator:
    """Who executes the guest's instructions: ``kvm`` or ``tcg``; ``reason`` says in a sentence why it is not KVM.

    ``kernel_words`` belong on the guest kernel's command line.
    """

    name: str
    qemu_arguments: tuple[str, ...]
    reason: str = ""
    kernel_words: tuple[str, ...] = ()

    @property
    def is_kvm(self) -> bool:
        """True if the CPU itself runs the guest."""
        return self.name == "kvm"

    def __str__(self) -> str:
        """Return what a reader should know, for below a figure."""
        return "KVM" if self.is_kvm else "software emulation (QEMU's TCG)"


def find_qemu(machine: str = "") -> Path:
    """Return QEMU's system emulator for ``machine`` (uname's name; default: this machine). Raises: FeatureMissing."""
    wanted = machine or platform.machine()
    name = f"qemu-system-{_QEMU_NAMES.get(wanted, wanted)}"
    found = find_program(name)
    if found is None:
        raise FeatureMissing(f"There is no {name} on this machine.", remedy="Run `labkit setup vm`.")
    return found


def accelerator(*, again: bool = False) -> Accelerator:
    """Return how guests run on this machine; the first call after a boot takes up to 2 s, all others a millisecond.

    ``again`` probes in any case. Raises: FeatureMissing without QEMU.
    """
    qemu = find_qemu()
    key = _key(qemu)
    kept = None if again else _read(key)
    if kept is None:
        reason = probe_kvm(qemu)
        kept = {"reason": reason, "tsc_khz": _counter_khz() if reason else None}
        _write(key, kept)
    return software_emulation(kept["reason"], tsc_khz=kept["tsc_khz"]) if kept["reason"] else _kvm()


def software_emulation(reason: str = "", *, tsc_khz: int | None = None) -> Accelerator:
    """Return emulation, with a CPU that has all that QEMU can emulate: the default one lacks what numpy was compiled for.

    ``tsc_khz`` is the speed of the host's time stamp counter, which is the guest's, too; on a busy host the guest could not
    find it out (`labkit.linux.tsc`), and would distrust it when the guest's ticks come late.
    """
    words = () if tsc_khz is None else (f"tsc_early_khz={tsc_khz}", "tsc=reliable")
    return Accelerator(
        "tcg",
        ("-accel", f"tcg,tb-size={_TRANSLATED_MIB}", "-cpu", _WHOLE_CPU.get(platform.machine(), "max")),
        reason,
        words,
    )


def _counter_khz() -> int | None:
    try:
        return tsc_khz()
    except OSError:
        return None  # then the guest has to measure it


def _kvm() -> Accelerator:
    return Accelerator("kvm", ("-accel", "kvm", "-cpu", "host"))


def probe_kvm(qemu: Path, *, device: Path = KVM_DEVICE, limit_s: float = _KILL_AFTER_S) -> str:
    """Run the boot ROM under KVM; return an empty string if it ran, else why KVM does not count, as a sentence.

    A QEMU that does not end in ``limit_s`` is killed, and if even that takes long it is left to the kernel.
    """
    if not device.exists():
        return f"There is no {device}: the processor's virtualization is switched off, or this is a VM without it."
    if not os.access(device, os.R_OK | os.W_OK):
        return f"This user may not open {device} (join the group that owns it, often called kvm)."
    rom = ROMS.get(platform.machine())
    if rom is None:
        return f"labkit knows no guest for {platform.machine()}."
    deadline_s = time.monotonic() + limit_s
    with tempfile.NamedTemporaryFile(prefix="labkit-rom-") as file:
        file.write(rom.content())
        file.flush()
        for board in rom.boards:
            command = rom_command(qemu, rom, board, file.name, _kvm().qemu_arguments)
            if refusal := _refusal(command, rom, deadline_s):
                return refusal
    return ""


def rom_command(qemu: Path, rom: Rom, board: str, path: str, accelerator_arguments: Sequence[str]) -> list[str]:
    """Return the command that runs the ROM in the file ``path`` on ``board``, with its serial port on standard output."""
    quiet = ("-nodefaults", "-no-user-config", "-display", "none")
    rest = ("-m", "8M", *quiet, "-bios", path, "-serial", "stdio", *rom.arguments)
    return [str(qemu), "-M", board, *accelerator_arguments, *rest]


def _refusal(command: Sequence[str], rom: Rom, deadline_s: float) -> str:
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace"
    )
    try:
        said, errors = process.communicate(timeout=max(0.0, deadline_s - time.monotonic()))
    except subprocess.TimeoutExpired:
        process.kill()
        try:
            said, _ = process.communicate(timeout=PROBE_LIMIT_S - _KILL_AFTER_S)
        except subprocess.TimeoutExpired:
            said = ""  # it hangs inside the kernel, which ends it when it comes out again
        place = {"": "before its first instruction", rom.greeting: "at its end"}.get(said, "on its way to 64-bit mode")
        return f"KVM answers, but a guest hangs {place}."
    if process.returncode == rom.status and said == rom.greeting:
        return ""
    lines = [line.rpartition("error: ")[2] for line in errors.splitlines() if "warning" not in line and line.strip()]
    return f"KVM answers, but a guest does not run under it: {lines[0] if lines else f'status {process.returncode}'}."


def _key(qemu: Path) -> str:
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    usable = os.access(KVM_DEVICE, os.R_OK | os.W_OK)
    return f"{boot_id} {qemu} {qemu.stat().st_mtime_ns} {usable}"


def _read(key: str) -> dict[str, Any] | None:
    """Return what is kept for ``key``: the answer of `probe_kvm` and the counter's speed; or None."""
    try:
        kept = json.loads((cache_folder() / "accelerator.json").read_text())
        answer = {"reason": str(kept["reason"]), "tsc_khz": kept["tsc_khz"]}
        return answer if kept["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(key: str, answer: dict[str, Any]) -> None:
    path = cache_folder() / "accelerator.json"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f"{path.name}.{os.getpid()}.new")
        new.write_text(json.dumps({"key": key, **answer}))
        new.replace(path)
    except OSError:
        # A home that cannot be written only costs the next process the same probe.
        return


if __name__ == "__main__":
    found = accelerator(again=True)
    print(f"{found}. {found.reason}")
