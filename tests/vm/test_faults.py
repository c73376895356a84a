"""What happens when things go wrong: an error in a sentence, in time, and nothing left behind.

Guests that get broken here come from one snapshot: that is quicker than booting each. That nothing is left is what the fixture
around every test of the project looks at.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from labkit.container import leftovers, runfolder
from labkit.errors import DeadlineExceeded, FeatureMissing, GuestError, LabkitError
from labkit.setup import parts
from labkit.vm import accel, instance, kernel, micro_spec
from labkit.vm.guest import Guest
from tests.support import PROJECT, requires

pytestmark = requires("vm")


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved guest."""
    path = tmp_path_factory.mktemp("snapshots") / "guest"
    with Guest() as guest:
        guest.exec(["true"])
        guest.snapshot(path)
    return path


@pytest.fixture
def guest(snapshot: Path) -> Iterator[Guest]:
    """A guest to break."""
    with Guest.restore(snapshot) as made:
        yield made


def _is_gone(pid: int, timeout_s: float = 10.0) -> bool:
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("Z"):
                return True
        except OSError:
            return True
        time.sleep(0.01)
    return False


def test_a_panic_is_named_with_its_reason(guest: Guest) -> None:
    started_s = time.monotonic()
    with pytest.raises(GuestError, match="kernel panicked: sysrq triggered crash"):
        guest.exec(["sh", "-c", "echo c > /proc/sysrq-trigger"], timeout_s=20)
    assert time.monotonic() - started_s < 20
    assert guest.state == "ended"
    assert "Kernel panic" in guest.console.text
    with pytest.raises(GuestError, match="panicked"):
        guest.exec(["true"])
    with pytest.raises(GuestError, match="panicked"):
        guest.snapshot(Path("/nowhere"))


def test_the_end_of_init_is_a_panic_too(guest: Guest) -> None:
    from labkit.vm.calls import CallList

    calls = CallList(guest.spec.machine)
    calls.call("exit_group", 3)
    with pytest.raises(GuestError, match="Attempted to kill init"):
        guest.perform(calls)


def test_a_killed_qemu_ends_a_command_under_way(guest: Guest) -> None:
    killer = subprocess.Popen(["sh", "-c", f"sleep 0.3; kill -9 {guest.pid}"])
    started_s = time.monotonic()
    with pytest.raises(GuestError, match=r"QEMU was killed \(SIGKILL\)"):
        guest.exec(["sleep", "60"], timeout_s=60)
    assert time.monotonic() - started_s < 20
    killer.wait()
    assert guest.state == "ended"


def test_a_terminated_qemu_is_told_from_a_killed_one(guest: Guest) -> None:
    os.kill(guest.pid, signal.SIGSEGV)
    with pytest.raises(GuestError, match="ended by signal 11"):
        guest.exec(["sleep", "60"], timeout_s=60)


def test_a_stopped_qemu_is_an_error_within_the_time_limit_and_ends_with_the_block(guest: Guest) -> None:
    pid = guest.pid
    os.kill(pid, signal.SIGSTOP)
    started_s = time.monotonic()
    with pytest.raises(GuestError, match="did not answer within its time limit"):
        guest.exec(["true"], timeout_s=0.5)
    with pytest.raises(GuestError, match="QEMU did not answer query-status"):
        guest.qmp.execute("query-status", timeout_s=0.5)
    assert time.monotonic() - started_s < 15
    guest.close()
    assert _is_gone(pid)


def test_a_guest_whose_machine_somebody_else_has_paused_is_an_error_in_time_and_can_go_on(guest: Guest) -> None:
    guest.qmp.execute("stop")
    with pytest.raises(GuestError, match="hangs, is paused"):
        guest.exec(["true"], timeout_s=0.5)
    guest.qmp.execute("cont")
    assert guest.exec(["echo", "on"]).text == "on\n"


def test_a_flood_on_the_console_costs_no_memory_and_keeps_nobody_waiting(guest: Guest) -> None:
    guest.exec(["sh", "-c", "yes flood > /dev/console &"])
    guest.console.wait_for("flood", 30)
    started_s = time.monotonic()
    with pytest.raises((DeadlineExceeded, GuestError)):
        guest.exec(["sleep", "60"], timeout_s=1)
    assert time.monotonic() - started_s < 15
    assert len(guest.console.text) <= 256 << 10
    assert len(guest.console.tail()) < 2000


def test_a_command_that_floods_its_output_is_bounded(guest: Guest) -> None:
    with pytest.raises(DeadlineExceeded):
        guest.exec(["yes"], timeout_s=1)
    assert guest.exec(["echo", "on"]).text == "on\n"


def test_a_guest_that_uses_up_its_memory_stays_or_ends_in_a_sentence(guest: Guest) -> None:
    try:
        result = guest.exec(["sh", "-c", "x=x; while :; do x=$x$x; done"], timeout_s=60)
        assert result.status != 0
        assert guest.exec(["echo", "still here"], timeout_s=30).text == "still here\n"
    except LabkitError as error:
        assert "panicked" in str(error) or "did not answer" in str(error)


_OWNER = """
import sys
sys.path.insert(0, {project!r})
from pathlib import Path
from labkit.vm.guest import Guest
guest = Guest.restore(Path({path!r}))
folder = [word for word in open(f"/proc/{{guest.pid}}/environ").read().split(chr(0)) if word.startswith("LABKIT_LAUNCHER=")]
print(guest.pid, folder[0].partition("=")[2], flush=True)
sys.stdin.read()
"""


def test_a_killed_owner_takes_its_guest_along_and_the_next_start_tidies_up(snapshot: Path) -> None:
    code = _OWNER.format(project=str(PROJECT), path=str(snapshot))
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        pid, folder = owner.stdout.readline().split()
        assert Path(folder, "lock").exists()
        owner.kill()
        owner.wait()
    assert _is_gone(int(pid))
    with Guest.restore(snapshot):
        assert not Path(folder).exists()


def test_labkit_clean_ends_a_guest_whose_owner_is_gone(snapshot: Path, tmp_path: Path) -> None:
    """As if both had been killed before QEMU was bound to its owner: a process with the mark, and a folder nobody holds."""
    folder = Path(runfolder.base_folder(), "labkit-vm-1-dead")
    folder.mkdir(parents=True)
    environment = {leftovers.LAUNCHER_VARIABLE: str(folder), "PATH": os.environ["PATH"]}
    stray = subprocess.Popen(
        [accel.find_qemu(), "-machine", "none", "-display", "none", "-nodefaults"], env=environment
    )
    try:
        command = [sys.executable, "-m", "labkit", "clean"]
        # Another program of labkit that starts just now may be faster; then this one finds nothing, which is right, too.
        subprocess.run(command, cwd=PROJECT, capture_output=True, check=False)
        assert _is_gone(stray.pid)
        assert not folder.exists()
    finally:
        stray.kill()
        stray.wait()


def _boot(boot_timeout_s: float = 8, **changes: object) -> str:
    """Boot a guest that cannot; return the error's text and see that it came in time."""
    spec = replace(micro_spec(), **changes)  # type: ignore[arg-type]
    started_s = time.monotonic()
    with pytest.raises(GuestError) as caught, Guest(spec=spec, boot_timeout_s=boot_timeout_s):
        pass
    assert time.monotonic() - started_s < boot_timeout_s + 12
    return str(caught.value)


def test_a_kernel_cut_short_is_a_sentence_with_the_remedy(tmp_path: Path) -> None:
    whole = kernel.find_kernel("micro").path.read_bytes()
    (tmp_path / "vmlinux").write_bytes(whole[: len(whole) // 2])
    assert "is damaged: it ends before all of it is there. Run `labkit setup vm --again`" in _boot(
        kernel=tmp_path / "vmlinux"
    )


def test_a_kernel_with_damaged_code_is_an_error_in_time(tmp_path: Path) -> None:
    image = bytearray(kernel.find_kernel("micro").path.read_bytes())
    image[0x210000:0x260000] = bytes(0x50000)  # in the middle of .text
    (tmp_path / "vmlinux").write_bytes(image)
    assert "did not get ready" in _boot(kernel=tmp_path / "vmlinux")


def test_an_archive_without_an_init_is_a_panic_with_its_reason() -> None:
    from labkit.vm.cpio import folder, pack_cpio

    assert "panicked: " in _boot(boot_timeout_s=60, initramfs=pack_cpio([folder("dev")]))


def test_too_little_memory_is_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 1000 kB\nMemAvailable:   100000 kB\n")
    monkeypatch.setattr(instance, "MEMORY_FACTS", str(tmp_path / "meminfo"))
    assert "this machine has 97.66 MiB left: give the guest less, or end other programs" in _boot()


def test_a_guest_too_small_for_its_kernel_is_an_error_in_time() -> None:
    text = _boot(memory_bytes=48 << 20)
    assert "did not get ready" in text


def test_an_unknown_word_of_qemu_is_quoted() -> None:
    assert "no-such-device" in _boot(devices=("-device", "no-such-device"))


def test_a_missing_module_is_named() -> None:
    assert "could not load the kernel module /modules/gone.ko" in _boot(
        boot_timeout_s=60, modules=("/modules/gone.ko",)
    )


def test_a_missing_qemu_and_a_missing_kernel_are_sentences_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spec = micro_spec()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(FeatureMissing, match=r"no guest kernel \(micro\).*labkit setup vm"):
        Guest()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(parts, "SBIN_FOLDERS", ())
    with pytest.raises(FeatureMissing, match=r"labkit setup vm"), Guest(spec=spec):
        pass


def test_an_interrupted_start_leaves_nothing(snapshot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(instance.Instance, "watch_boot", interrupt)
    guest = Guest()
    with pytest.raises(KeyboardInterrupt):
        guest.start()
    assert guest.state == "ended"


def test_closing_twice_and_in_another_thread_is_safe(snapshot: Path) -> None:
    import threading

    guest = Guest.restore(snapshot)
    pid = guest.pid
    closers = [threading.Thread(target=guest.close) for _ in range(3)]
    for closer in closers:
        closer.start()
    for closer in closers:
        closer.join()
    guest.close()
    assert _is_gone(pid)


def test_a_guest_started_in_a_thread_that_ends_goes_on(snapshot: Path) -> None:
    import threading

    made: list[Guest] = []
    starter = threading.Thread(target=lambda: made.append(Guest.restore(snapshot)))
    starter.start()
    starter.join()
    with made[0] as guest:
        time.sleep(0.2)
        assert guest.exec(["echo", "alive"]).text == "alive\n"
