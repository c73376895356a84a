"""A kernel's life: interrupt, restart, shutdown, and what a SIGKILL of each process leaves: nothing."""

from __future__ import annotations

import glob
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from labkit.container import leftovers, runfolder
from tests.sandbox.driver import Driver
from tests.support import PROJECT, requires

pytestmark = requires("userns", "overlay-userns")
Start = Callable[..., Driver]


def ended(pid: int, *, timeout_s: float = 10) -> bool:
    """Wait until there is no such process (or only its remains, which a parent has not collected yet)."""
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.01)
    return False


def known_to_be_dead(driver: Driver, *, timeout_s: float = 10) -> bool:
    """Wait until the server says so: it may say a last word for the kernel first, and hears of the end when it gets its turn."""
    deadline_s = time.monotonic() + timeout_s
    while driver.ask("alive")["alive"]:
        if time.monotonic() > deadline_s:
            return False
    return True


def test_an_interrupt_stops_the_cell_and_what_it_started(start: Start) -> None:
    driver = start()
    for code in (
        "import time; time.sleep(30)",
        "import subprocess; subprocess.run(['sleep', '30'])",
        "while True: pass",
    ):
        driver.ask("interrupt_soon", delay_s=0.5)
        started_s = time.monotonic()
        answer = driver.run(code, timeout_s=20)
        assert answer["errors"][0][0] == "KeyboardInterrupt", answer
        assert time.monotonic() - started_s < 10
    assert driver.text("import subprocess; print(subprocess.run(['pgrep', 'sleep']).returncode)").strip() == "1"


def test_a_restart_gives_a_new_sandbox_at_the_same_address(start: Start) -> None:
    driver = start()
    first = driver.started
    driver.text("x = 1; import os; os.chdir(os.path.expanduser('~')); open('file', 'w').close()")
    second = driver.ask("restart")
    assert second["kernel_pid"] != first["kernel_pid"]
    assert second["connection_file"] == first["connection_file"]
    assert second["folder"] == first["folder"]
    assert ended(first["sandbox_pid"])
    assert driver.text(
        "import os; print('x' in globals(), os.path.exists(os.path.expanduser('~') + '/file'))"
    ).split() == ["False", "False"]


@pytest.mark.parametrize("now", [False, True])
def test_after_a_shutdown_nothing_is_left(start: Start, now: bool) -> None:
    driver = start()
    pid, folder, name = (driver.started[key] for key in ("sandbox_pid", "folder", "name"))
    driver.text("import subprocess; subprocess.Popen(['sleep', '1000'], start_new_session=True)")
    assert driver.ask("shutdown", now=now) == {"alive": False}
    assert ended(pid)
    assert not Path(folder).exists()
    assert not glob.glob(f"/sys/fs/cgroup/**/{name}", recursive=True)


def test_a_kernel_that_ignores_sigterm_is_ended_all_the_same(start: Start) -> None:
    driver = start()
    driver.text(
        "import signal, os; signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.signal(signal.SIGINT, signal.SIG_IGN)"
    )
    assert driver.ask("shutdown", now=True) == {"alive": False}


def test_a_killed_kernel_takes_its_sandbox_along(start: Start) -> None:
    driver = start()
    driver.text("import subprocess; subprocess.Popen(['sleep', '1000'], start_new_session=True)")
    os.kill(driver.started["kernel_pid"], signal.SIGKILL)
    assert ended(driver.started["sandbox_pid"])
    assert known_to_be_dead(driver)


def test_a_killed_launcher_takes_the_sandbox_along_and_a_restart_makes_a_new_one(start: Start) -> None:
    driver = start()
    os.kill(driver.started["launcher_pid"], signal.SIGKILL)
    assert ended(driver.started["sandbox_pid"])
    assert ended(driver.started["kernel_pid"])
    assert known_to_be_dead(driver)
    driver.ask("restart", now=True)
    assert driver.text("1 + 1").strip() == "2"


def test_a_killed_init_takes_the_kernel_along(start: Start) -> None:
    driver = start()
    os.kill(driver.started["sandbox_pid"], signal.SIGKILL)
    assert ended(driver.started["kernel_pid"])


def test_of_a_killed_server_nothing_is_left(start: Start) -> None:
    driver = start()
    os.kill(driver.process.pid, signal.SIGKILL)
    assert ended(driver.started["sandbox_pid"])
    assert ended(driver.started["kernel_pid"])
    assert ended(driver.started["launcher_pid"])
    assert_nothing_is_left(driver)


def assert_nothing_is_left(driver: Driver) -> None:
    """The sandbox's folder and its cgroups are gone, in every hierarchy."""
    deadline_s = time.monotonic() + 10
    number = driver.started["name"].rpartition("-")[2]
    while left := [
        path
        for path in (
            Path(driver.started["folder"]),
            *map(Path, glob.glob(f"/sys/fs/cgroup/**/labkit-*{number}", recursive=True)),
        )
        if path.exists()
    ]:
        assert time.monotonic() < deadline_s, left
        time.sleep(0.05)


def test_a_server_that_just_exits_leaves_nothing(start: Start) -> None:
    driver = start()
    driver.ask("exit")
    assert ended(driver.started["kernel_pid"])
    assert_nothing_is_left(driver)


def test_of_server_and_launcher_killed_at_once_the_next_start_removes_what_is_left(start: Start) -> None:
    driver = start()
    for pid in (driver.started["launcher_pid"], driver.process.pid):
        os.kill(pid, signal.SIGKILL)
    assert ended(driver.started["kernel_pid"])
    other = start()
    assert other.text("1 + 1").strip() == "2"
    assert not Path(driver.started["folder"]).exists()


def test_of_server_and_launcher_killed_at_once_labkit_clean_removes_what_is_left(start: Start) -> None:
    driver = start()
    for pid in (driver.started["launcher_pid"], driver.process.pid):
        os.kill(pid, signal.SIGKILL)
    assert ended(driver.started["kernel_pid"])
    driver.process.wait(10)
    done = subprocess.run(
        [sys.executable, "-m", "labkit.cli", "clean"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done
    assert not Path(driver.started["folder"]).exists()
    assert_nothing_is_left(driver)
    assert driver.started["folder"] not in leftovers.find(runfolder.base_folder()).folders
