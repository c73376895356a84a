"""KVM or emulation: KVM counts only after a guest ran, the probe ends in time whatever QEMU does, and its answer is kept."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from labkit.errors import FeatureMissing
from labkit.vm import accel
from tests.support import PROJECT, requires


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/labkit"


def fake_qemu(folder: Path, script: str) -> Path:
    """Return a program in the place of QEMU that does what ``script`` says."""
    path = folder / "qemu"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def device(tmp_path: Path) -> Path:
    """A file in the place of /dev/kvm that this user may open."""
    path = tmp_path / "kvm"
    path.touch()
    return path


def test_a_guest_that_ran_on_every_board_makes_kvm_count(tmp_path: Path, device: Path) -> None:
    qemu = fake_qemu(tmp_path, f'echo "$@" >> {tmp_path}/calls; printf RL; exit 67')
    assert accel.probe_kvm(qemu, device=device) == ""
    calls = (tmp_path / "calls").read_text().splitlines()
    assert [call.split()[1] for call in calls] == ["pc", "microvm"]
    assert all("-accel kvm -cpu host" in call for call in calls)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("printf R; exec sleep 60", "a guest hangs on its way to 64-bit mode"),
        ("exec sleep 60", "a guest hangs before its first instruction"),
        ("trap '' TERM INT; while :; do :; done", "a guest hangs before its first instruction"),
        ('echo "warning: x" >&2; echo "qemu: error: failed to set MSR 0x10a" >&2; kill -ABRT $$', "failed to set MSR"),
        ("printf RL; exit 0", "status 0"),
        ("printf R; exit 67", "status 67"),
    ],
)
def test_a_guest_that_does_not_run_is_a_sentence_within_two_seconds(
    tmp_path: Path, device: Path, script: str, reason: str
) -> None:
    began_s = time.monotonic()
    said = accel.probe_kvm(fake_qemu(tmp_path, script), device=device)
    assert time.monotonic() - began_s < accel.PROBE_LIMIT_S + 0.5
    assert said.startswith("KVM answers, but")
    assert reason in said


def test_no_device_and_a_closed_one_are_told_apart(tmp_path: Path) -> None:
    qemu = fake_qemu(tmp_path, "exit 1")
    assert "There is no" in accel.probe_kvm(qemu, device=tmp_path / "absent")
    closed = tmp_path / "closed"
    closed.touch(mode=0o000)
    if os.geteuid() != 0:
        assert "may not open" in accel.probe_kvm(qemu, device=closed)


@requires("vm")
def test_the_answer_is_kept_and_asked_again_on_request(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []
    monkeypatch.setattr(accel, "tsc_khz", lambda: 2_400_000)
    monkeypatch.setattr(accel, "probe_kvm", lambda qemu: asked.append(qemu) or "KVM answers, but not to a test.")
    first = accel.accelerator()
    assert (first.name, first.reason) == ("tcg", "KVM answers, but not to a test.")
    assert first.kernel_words == ("tsc_early_khz=2400000", "tsc=reliable")
    assert accel.accelerator() == first
    assert len(asked) == 1
    accel.accelerator(again=True)
    assert len(asked) == 2
    (cache / "accelerator.json").write_text("{damaged")
    assert accel.accelerator() == first
    assert len(asked) == 3


@requires("vm")
def test_what_is_chosen_here_really_runs_a_guest(cache: Path) -> None:
    began_s = time.monotonic()
    found = accel.accelerator()
    assert time.monotonic() - began_s < accel.PROBE_LIMIT_S + 0.5
    assert found.is_kvm == (found.reason == "")
    assert (found.qemu_arguments[0], found.qemu_arguments[1].split(",")[0]) == ("-accel", found.name)


def test_a_missing_emulator_is_one_sentence_with_the_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("labkit.setup.parts.SBIN_FOLDERS", ())
    with pytest.raises(FeatureMissing) as raised:
        accel.find_qemu("x86_64")
    assert str(raised.value) == "There is no qemu-system-x86_64 on this machine. Run `labkit setup vm`."


def test_machines_have_the_names_that_qemu_gives_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("qemu-system-x86_64", "qemu-system-aarch64"):
        fake_qemu(tmp_path, "exit 0").rename(tmp_path / name)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert accel.find_qemu("amd64").name == "qemu-system-x86_64"
    assert accel.find_qemu("arm64").name == "qemu-system-aarch64"


@requires("vm")
def test_a_guest_runs_where_a_process_may_have_one_gibibyte_of_data() -> None:
    # As in a sandbox without cgroups, whose limits are those of single processes (RLIMIT_DATA).
    program = (
        "import resource\nresource.setrlimit(resource.RLIMIT_DATA, (1 << 30, 1 << 30))\n"
        "from labkit.vm.guest import Guest\nwith Guest(memory_mib=96) as guest:\n    print(guest.exec(['echo', 'here']).text)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=90, cwd=PROJECT)
    assert done.stdout.split() == ["here"], done.stderr
