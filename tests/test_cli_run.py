from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from labkit.commands.ps import list_running
from labkit.measure.rootfs import busybox_rootfs
from tests.support import has, requires
from tests.support.cli import assert_one_sentence, labkit, start, wait_until

pytestmark = requires("userns", "overlay-userns", "program:busybox")


@pytest.fixture(scope="module")
def rootfs() -> Iterator[str]:
    with busybox_rootfs() as folder:
        yield str(folder)


def processes_with(mark: str) -> list[str]:
    """PIDs of processes with ``mark`` as a word of their command, as pgrep sees them."""
    shown = subprocess.run(["pgrep", "-f", f"(^| ){mark}( |$)"], capture_output=True, text=True, check=False).stdout
    return shown.split()


def list_running_pids(program: str) -> list[int]:
    """PIDs of this user's containers in which ``program`` is the first process now."""
    return [item.pid for item in list_running() if Path(f"/proc/{item.pid}/comm").read_text().strip() == program]


# -- streams and status -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [0, 1, 7, 255])
def test_the_status_is_that_of_the_program(rootfs: str, status: int) -> None:
    assert labkit("run", "--rootfs", rootfs, "--", "sh", "-c", f"exit {status}").returncode == status


def test_a_program_that_a_signal_ended_gives_128_and_its_number(rootfs: str) -> None:
    with start("run", "--rootfs", rootfs, "--", "sh", "-c", "echo ready; exec sleep 60") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert wait_until(lambda: list_running_pids("sleep"))
        os.kill(list_running_pids("sleep")[0], signal.SIGKILL)
        process.communicate(timeout=10)
    assert process.returncode == 128 + signal.SIGKILL
    # Of its own children a shell says it itself.
    assert labkit("run", "--rootfs", rootfs, "sh", "-c", "sh -c 'kill -SEGV $$'; exit $?").returncode == 128 + 11


def test_input_and_both_outputs_are_the_callers_own(rootfs: str) -> None:
    done = labkit("run", "--rootfs", rootfs, "--", "sh", "-c", "cat; echo to-stderr >&2", data="through\n" * 50_000)
    assert done.stdout == "through\n" * 50_000
    assert (done.stderr, done.returncode) == ("to-stderr\n", 0)


def test_the_outputs_are_the_very_files_of_the_caller(rootfs: str, tmp_path: Path) -> None:
    target = tmp_path / "out"
    with target.open("w") as file:
        process = start("run", "--rootfs", rootfs, "sh", "-c", "echo written", stdout=file)
        process.communicate(timeout=60)
    assert target.read_text() == "written\n"


def test_closed_streams_are_no_obstacle(rootfs: str) -> None:
    process = start("run", "--rootfs", rootfs, "true", preexec_fn=lambda: os.close(0), stdin=None)
    process.communicate(timeout=60)
    assert process.returncode == 0


def test_without_a_rootfs_the_machine_s_own_programs_are_there() -> None:
    done = labkit("run", "--", "sh", "-c", "id -u; ls -d /usr /etc")
    assert done.stdout == "0\n/etc\n/usr\n"


def test_everything_after_two_dashes_belongs_to_the_program(rootfs: str) -> None:
    assert labkit("run", "--rootfs", rootfs, "--", "echo", "--memory", "-t", "--").stdout == "--memory -t --\n"
    assert labkit("run", "--rootfs", rootfs, "echo", "--memory", "5").stdout == "--memory 5\n"


# -- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "script", "shown"),
    [
        (["--hostname", "moon"], "hostname", "moon"),
        ([], "ls /sys/class/net", "lo"),
        (["--env", "COLOUR=blue", "--env", "EMPTY="], "echo $COLOUR-$EMPTY-", "blue--"),
        (["--cwd", "/etc"], "pwd", "/etc"),
        (["--user", "nobody"], "id -u", "65534"),
        (["--readonly"], "touch /file 2>/dev/null || echo refused", "refused"),
        ([], "echo $$", "1"),
        ([], "touch /file && echo written", "written"),
    ],
)
def test_an_option_does_what_it_says(rootfs: str, options: list[str], script: str, shown: str) -> None:
    if "nobody" in options and os.geteuid() != 0 and not has("subuid"):
        pytest.skip("an ordinary user may have one id only")
    done = labkit("run", "--rootfs", rootfs, *options, "--", "sh", "-c", script)
    assert (done.stdout.strip(), done.stderr, done.returncode) == (shown, "", 0)


def test_the_host_s_network_is_shown_only_on_request(rootfs: str) -> None:
    here = sorted(os.listdir("/sys/class/net"))
    done = labkit("run", "--rootfs", rootfs, "--net", "host", "--", "ls", "/sys/class/net")
    assert sorted(done.stdout.split()) == here


def test_what_is_written_does_not_reach_the_rootfs(rootfs: str) -> None:
    labkit("run", "--rootfs", rootfs, "--", "sh", "-c", "echo x > /written; rm /bin/true")
    assert not os.path.exists(f"{rootfs}/written")
    assert os.path.lexists(f"{rootfs}/bin/true")


# -- limits -----------------------------------------------------------------------------------------------------------


@requires("cgroups")
def test_a_memory_hog_is_killed_and_called_that(rootfs: str) -> None:
    done = labkit(
        "run", "--rootfs", rootfs, "--memory", "16M", "--", "dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=1"
    )
    assert done.returncode == 128 + signal.SIGKILL
    assert done.stderr.splitlines()[-1] == "labkit: oom_killed at 16 MiB"


@requires("cgroups")
def test_a_fork_bomb_meets_the_pids_limit_and_says_so(rootfs: str) -> None:
    bomb = "for i in $(seq 40); do sleep 2 & done 2>/dev/null; true"
    done = labkit("run", "--rootfs", rootfs, "--pids", "8", "--", "sh", "-c", bomb)
    assert done.stderr.splitlines()[-1].startswith("labkit: pids limit of 8 hit")


@requires("cgroups")
def test_a_cpu_hog_is_throttled_and_says_so(rootfs: str) -> None:
    done = labkit(
        "run", "--rootfs", rootfs, "--cpus", ".1", "--time-limit", "1s", "--", "sh", "-c", "while :; do :; done"
    )
    assert done.returncode == 128 + signal.SIGKILL
    assert "timed out after 1 s" in done.stderr
    assert "throttled for" in done.stderr
    assert "at 0.1 CPUs" in done.stderr


def test_a_program_that_ignores_sigterm_ends_at_its_time_limit(rootfs: str) -> None:
    done = labkit("run", "--rootfs", rootfs, "--time-limit", "500ms", "--", "sh", "-c", "trap '' TERM; sleep 60")
    assert (done.returncode, done.stderr) == (128 + signal.SIGKILL, "labkit: timed out after 0.5 s\n")


@requires("undelegated")
def test_a_limit_that_cannot_be_set_is_refused_and_nothing_runs(rootfs: str) -> None:
    done = labkit("run", "--rootfs", rootfs, "--memory", "64M", "--", "echo", "ran")
    assert (done.returncode, done.stdout) == (1, "")
    assert_one_sentence(done.stderr.replace(". ", "; "))


# -- wrong input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (["--memory", "64Q", "true"], 2, "unknown unit 'Q'"),
        (["--memory", "64MB", "true"], 2, "write 64M"),
        (["--memory=-5", "true"], 2, "'-5' is no size"),
        (["--memory", "1", "true"], 2, "memory_bytes is 1"),
        (["--pids=-1", "true"], 2, "must be at least 1"),
        (["--pids", "many", "true"], 2, "'many' is no number of processes"),
        (["--cpus", "0", "true"], 2, "must be above 0"),
        (["--cpus", "nan", "true"], 2, "no number of CPUs"),
        (["--time-limit", "soon", "true"], 2, "'soon' is no duration"),
        (["--time-limit", "0", "true"], 2, "must be above 0"),
        (["--rootfs", "/no/such/folder", "true"], 2, "does not exist"),
        (["--rootfs", "/etc/passwd", "true"], 2, "is no folder"),
        (["--env", "NOVALUE", "true"], 2, "write NAME=VALUE"),
        (["--env", "=x", "true"], 2, "no name of an environment variable"),
        (["--cwd", "relative", "true"], 2, "absolute path"),
        (["--hostname", "x" * 65, "true"], 2, "at most 64"),
        ([], 2, "no command to run"),
        (["--"], 2, "no command to run"),
        ([""], 2, "no command to run"),
        (["--user", "nosuchuser", "true"], 1, "nosuchuser"),
        (["nosuchprogram"], 127, "command not found"),
        (["/no/such/program"], 127, "command not found"),
        (["/etc/passwd"], 126, "cannot be executed"),
        (["/"], 126, "cannot be executed"),
        (["x" * 300_000], 2, "at most"),
    ],
    ids=lambda value: "".join(value)[:24] if isinstance(value, list) else None,
)
def test_wrong_input_is_one_sentence_and_no_traceback(words: list[str], status: int, says: str) -> None:
    if len("".join(words)) > 200_000:
        words = [f"{words[0][:100_000]}", words[0][:100_000]]  # Linux takes 128 KiB in one argument
    done = labkit("run", *words)
    assert says in done.stderr
    assert_one_sentence(done.stderr)
    assert (done.returncode, done.stdout) == (status, "")


def test_a_rootfs_and_the_host_s_files_exclude_each_other() -> None:
    done = labkit("run", "--rootfs", "/tmp", "--image-like-host", "true")
    assert done.returncode == 2
    assert "not allowed with" in done.stderr


@requires("user")
def test_a_rootfs_that_may_not_be_read_is_one_sentence(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o000)
    done = labkit("run", "--rootfs", str(closed), "true")
    closed.chmod(0o755)
    assert done.returncode in (1, 126, 127)
    assert_one_sentence(done.stderr.replace(". N", "; n"))


def test_an_image_without_the_program_is_not_the_host(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "etc").mkdir()
    done = labkit("run", "--rootfs", str(tmp_path), "sh")
    assert done.returncode == 127
    assert_one_sentence(done.stderr)


# -- signals and the end ----------------------------------------------------------------------------------------------


def test_a_signal_is_passed_on_to_the_program(rootfs: str) -> None:
    script = "trap 'echo got it; exit 5' TERM; echo ready; while :; do sleep 0.1; done"
    with start("run", "--rootfs", rootfs, "--", "sh", "-c", script) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == "got it\n"
    assert process.returncode == 5


def test_the_third_interrupt_kills_what_does_not_listen(rootfs: str) -> None:
    with start("run", "--rootfs", rootfs, "--", "sleep", "61") as process:
        assert wait_until(lambda: list_running_pids("sleep"))
        for _ in range(3):
            assert process.poll() is None
            process.send_signal(signal.SIGINT)
            wait_until(lambda: process.poll() is not None, timeout_s=0.3)
        process.communicate(timeout=10)
    assert process.returncode == 128 + signal.SIGKILL


def test_a_signal_that_the_caller_ignores_stays_ignored(rootfs: str) -> None:
    def ignore() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    script = "trap 'exit 5' HUP; echo ready; read line; echo $line"
    with start("run", "--rootfs", rootfs, "--", "sh", "-c", script, preexec_fn=ignore) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGHUP)
        assert process.communicate("on it goes\n", timeout=10)[0] == "on it goes\n"
    assert process.returncode == 0


def test_kill_9_of_the_command_leaves_nothing(rootfs: str) -> None:
    mark = f"7{os.getpid()}.5"  # seconds to sleep, and a word that no other process has
    script = f"sleep {mark} & setsid sleep {mark} & echo ready; wait"
    with start("run", "--rootfs", rootfs, "--", "sh", "-c", script) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert wait_until(lambda: len(processes_with(mark)) >= 2)
        process.kill()
        process.wait()
        assert wait_until(lambda: not processes_with(mark))
    # The leak check of all tests looks for mounts, cgroups and run folders.


def test_a_run_takes_no_descriptor_of_the_caller_s_along(rootfs: str) -> None:
    read_fd, write_fd = os.pipe()
    done = labkit("run", "--rootfs", rootfs, "--", "ls", "/proc/self/fd", pass_fds=(write_fd,))
    os.close(read_fd)
    os.close(write_fd)
    assert done.stdout.split() == ["0", "1", "2", "3"]  # 3 is the folder that ls reads
