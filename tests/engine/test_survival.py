"""What is left when the engine, or its keeper, is killed: nothing half done, nothing lost, nothing orphaned."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from labkit.engine.keeper.lock import is_free
from tests.engine.support import IMAGE, Daemon, busybox_tar, start_labkit
from tests.support import requires

pytestmark = requires("root", "program:busybox", "program:docker", "program:unshare")


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a short folder."""
    return tmp_path_factory.mktemp("s")


@pytest.fixture
def network(place: Path) -> Iterator[list[str]]:
    """Give the words that start a program in a network namespace which outlives it, as the machine's does."""
    del place
    holder = subprocess.Popen(
        ["unshare", "--net", "--", "sh", "-c", "ip link set lo up; echo ready; exec sleep 600"], stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"ready\n"
    yield ["nsenter", f"--net=/proc/{holder.pid}/ns/net", "--"]
    holder.kill()
    holder.wait()
    holder.stdout.close()


def load(daemon: Daemon) -> None:
    assert daemon.cli("import", "-", IMAGE, data=busybox_tar()).returncode == 0


def kill_and_restart(daemon: Daemon, place: Path, network: list[str]) -> Daemon:
    daemon.stop(number=signal.SIGKILL)
    return start_labkit(place, prefix=network)


def out(daemon: Daemon, *words: str) -> str:
    done = daemon.cli(*words)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode().strip()


def test_containers_go_on_while_the_engine_is_dead(place: Path, network: list[str]) -> None:
    daemon = start_labkit(place, prefix=network)
    load(daemon)
    out(daemon, "network", "create", "net")
    out(daemon, "volume", "create", "vol")
    script = "i=0; while :; do i=$((i+1)); echo $i; echo $i > /v/count; sleep .1; done"
    out(
        daemon,
        "run",
        "-d",
        "--name",
        "on",
        "--network",
        "net",
        "-v",
        "vol:/v",
        "-p",
        "127.0.0.1:8099:80",
        IMAGE,
        "sh",
        "-c",
        script,
    )
    out(daemon, "run", "-d", "--name", "ends", IMAGE, "sh", "-c", "sleep .5; exit 7")
    out(daemon, "run", "-d", "--name", "paused", "--stop-timeout", "0", IMAGE, "sleep", "60")
    out(daemon, "pause", "paused")
    pid = out(daemon, "inspect", "-f", "{{.State.Pid}}", "on")
    daemon.stop(number=signal.SIGKILL)
    time.sleep(1.0)
    assert Path(f"/proc/{pid}").exists()
    daemon = start_labkit(place, prefix=network)
    try:
        assert out(daemon, "ps", "--format", "{{.Names}}").split() == ["paused", "on"]
        assert out(daemon, "inspect", "-f", "{{.State.Pid}} {{.State.Status}}", "on") == f"{pid} running"
        assert out(daemon, "inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "ends") == "exited 7"
        lines = [int(line) for line in out(daemon, "logs", "on").split()]
        assert lines == list(range(1, len(lines) + 1))
        assert len(lines) > 8
        out(daemon, "unpause", "paused")
        assert out(daemon, "exec", "on", "echo", "still") == "still"
        assert out(daemon, "run", "--rm", "--network", "net", IMAGE, "nslookup", "on").count("Address") >= 2
        assert out(daemon, "port", "on") == "80/tcp -> 127.0.0.1:8099"
        assert int(out(daemon, "run", "--rm", "-v", "vol:/v", IMAGE, "cat", "/v/count")) > 8
        out(daemon, "stop", "-t", "0", "on")
        assert out(daemon, "inspect", "-f", "{{.State.ExitCode}}", "on") == "137"
    finally:
        assert daemon.stop() == 0


def test_the_keepers_death_is_the_containers_and_the_engine_says_so(place: Path, network: list[str]) -> None:
    daemon = start_labkit(place, prefix=network)
    try:
        load(daemon)
        out(daemon, "run", "-d", "--name", "one", IMAGE, "sleep", "60")
        out(daemon, "run", "-d", "--name", "again", "--restart", "always", IMAGE, "sleep", "60")
        keeper = _keeper_of(daemon)
        os.kill(keeper, signal.SIGKILL)
        _until(lambda: out(daemon, "inspect", "-f", "{{.State.Status}}", "one") == "exited")
        assert out(daemon, "inspect", "-f", "{{.State.ExitCode}}", "one") == "137"
        _until(lambda: out(daemon, "inspect", "-f", "{{.State.Status}}", "again") == "running")
        assert out(daemon, "run", "--rm", IMAGE, "echo", "works") == "works"
        out(daemon, "rm", "-f", "again")
    finally:
        assert daemon.stop() == 0


def test_both_killed_at_once_leaves_containers_ended_and_data_whole(place: Path, network: list[str]) -> None:
    daemon = start_labkit(place, prefix=network)
    load(daemon)
    out(daemon, "run", "-d", "--name", "one", "-v", "vol:/v", IMAGE, "sh", "-c", "echo data > /v/file; sync; sleep 60")
    _until(lambda: b"data" in daemon.cli("exec", "one", "cat", "/v/file").stdout)
    keeper = _keeper_of(daemon)
    os.kill(daemon.pid, signal.SIGKILL)
    os.kill(keeper, signal.SIGKILL)
    daemon.process.wait()
    daemon = start_labkit(place, prefix=network)
    try:
        assert out(daemon, "inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "one") == "exited 137"
        assert out(daemon, "run", "--rm", "-v", "vol:/v", IMAGE, "cat", "/v/file") == "data"
        out(daemon, "start", "one")
        out(daemon, "rm", "-f", "one")
    finally:
        assert daemon.stop() == 0


def test_an_engine_that_has_nothing_to_keep_leaves_nothing_when_it_is_killed(place: Path, network: list[str]) -> None:
    daemon = start_labkit(place, prefix=network)
    load(daemon)
    out(daemon, "run", "--rm", IMAGE, "true")
    daemon.stop(number=signal.SIGKILL)
    # The leak check after the test sees that keeper and launcher have gone by themselves.


def test_killed_at_any_moment_the_state_is_consistent(place: Path, network: list[str]) -> None:
    chance = random.Random(5)
    daemon = start_labkit(place, prefix=network)
    load(daemon)
    script = (
        "for i in 1 2 3 4 5 6 7 8; do docker ps -q || exit; docker run -d --name n$i -v v$i:/v busybox sh -c 'echo x > /v/f; sleep 30';"
        " docker network create w$i; docker rm -f n$i; docker network rm w$i; docker volume rm v$i; done"
    )
    try:
        for _ in range(6):
            thread = threading.Thread(target=lambda d=daemon: d.sh(script, place))  # type: ignore[misc]
            thread.start()
            time.sleep(0.1 + chance.random() * 0.8)
            daemon.stop(number=signal.SIGKILL)
            thread.join()
            daemon = start_labkit(place, prefix=network)
            for name in out(daemon, "ps", "-aq").split():
                state = out(daemon, "inspect", "-f", "{{.State.Status}}", name)
                assert state in ("created", "running", "exited")
                out(daemon, "rm", "-f", name)
            for name in out(daemon, "network", "ls", "--filter", "type=custom", "-q").split():
                out(daemon, "network", "rm", name)
            for name in out(daemon, "volume", "ls", "-q").split():
                out(daemon, "volume", "rm", name)
        assert os.listdir(daemon.state / "volumes") == []
        assert [name for name in os.listdir(daemon.state / "containers") if not name.startswith(".")] == []
    finally:
        assert daemon.stop() == 0


def test_a_second_engine_on_the_same_state_is_refused(place: Path, network: list[str]) -> None:
    daemon = start_labkit(place, prefix=network)
    try:
        (place / "other").mkdir()
        with pytest.raises(AssertionError, match="Another engine uses the state folder"):
            start_labkit(place / "other", state=daemon.state, prefix=network)
    finally:
        assert daemon.stop() == 0


def test_an_engine_may_leave_its_containers_to_the_next_one(place: Path, network: list[str]) -> None:
    daemon = start_labkit(place, "--keep-containers", prefix=network)
    load(daemon)
    out(daemon, "run", "-d", "--name", "on", "--stop-timeout", "1", IMAGE, "sleep", "60")
    pid = out(daemon, "inspect", "-f", "{{.State.Pid}}", "on")
    assert daemon.stop() == 0
    assert Path(f"/proc/{pid}").exists()
    daemon = start_labkit(place, prefix=network)
    assert out(daemon, "inspect", "-f", "{{.State.Pid}}", "on") == pid
    assert daemon.stop() == 0
    assert not Path(f"/proc/{pid}").exists()


def test_an_engine_whose_state_is_removed_under_it_still_ends_with_all_it_has(place: Path, network: list[str]) -> None:
    daemon = start_labkit(place, prefix=network)
    load(daemon)
    out(daemon, "run", "-d", "--stop-timeout", "0", IMAGE, "sleep", "60")
    shutil.rmtree(daemon.state)
    daemon.stop()
    # That it ended, and that nothing runs any more, is what counts (the leak check); the status says that not all was in order.


def _keeper_of(daemon: Daemon) -> int:
    return _keepers_of(daemon)[0]


def _keepers_of(daemon: Daemon) -> list[int]:
    marker, found = f"{daemon.state}/keeper".encode(), []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                words = Path(f"/proc/{entry}/cmdline").read_bytes()
            except OSError:
                continue
            if marker in words and b"keeper.main" in words:
                found.append(int(entry))
    return found


def _until(is_so: object, *, timeout_s: float = 15.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not is_so():  # type: ignore[operator]
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def test_a_keeper_whose_engine_dies_right_after_its_start_is_used_by_the_next_one(
    place: Path, network: list[str]
) -> None:
    for _ in range(4):
        daemon = start_labkit(place, prefix=network, wait=False)
        folder = daemon.state / "keeper"
        _until(lambda f=folder: not is_free(str(f)) if f.exists() else False)  # type: ignore[misc]
        daemon.stop(number=signal.SIGKILL)
    daemon = start_labkit(place, prefix=network)
    assert len(_keepers_of(daemon)) == 1
    assert daemon.stop() == 0
    assert _keepers_of(daemon) == []  # not a moment later: whoever has waited for the engine has waited for all of it


def test_a_keeper_that_never_saw_its_engine_leaves_by_itself(place: Path, network: list[str]) -> None:
    daemon = start_labkit(place, prefix=network, wait=False)
    _until(lambda: (daemon.state / "keeper").exists() and not is_free(str(daemon.state / "keeper")))
    daemon.stop(number=signal.SIGKILL)
    _until(lambda: _keepers_of(daemon) == [])


def test_the_end_of_an_engine_is_the_end_of_a_keeper_that_another_one_started(place: Path, network: list[str]) -> None:
    daemon = start_labkit(place, prefix=network)
    load(daemon)
    for number in range(5):
        out(daemon, "run", "-d", "--stop-timeout", "0", "--name", f"n{number}", IMAGE, "sleep", "60")
    daemon = kill_and_restart(daemon, place, network)
    assert daemon.stop() == 0
    assert _keepers_of(daemon) == []


def test_a_container_that_started_while_its_engine_was_killed_belongs_to_the_next_one(
    place: Path, network: list[str]
) -> None:
    daemon = start_labkit(place, prefix=network)
    load(daemon)
    client = daemon.client()
    for number in range(3):
        made = client.api.create_container(IMAGE, "sleep 60", name=f"n{number}")["Id"]
        starting = threading.Thread(target=lambda i=made: _try(lambda: client.api.start(i)))  # type: ignore[misc]
        starting.start()
        time.sleep(0.004 * number)
        daemon = kill_and_restart(daemon, place, network)
        starting.join()
        assert out(daemon, "inspect", "-f", "{{.State.Status}}", f"n{number}") in ("created", "running")
        out(daemon, "rm", "-f", f"n{number}")
    client.close()
    assert daemon.stop() == 0


def _try(what: Callable[[], object]) -> None:
    with suppress(Exception):  # the engine was killed
        what()
