"""A sandbox without Jupyter: quick enough for the guest with cgroup v2, too (`labkit vm test`)."""

from __future__ import annotations

import os
import secrets
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from labkit.container.client import shutdown
from labkit.errors import InvalidState, SetupError
from labkit.linux.fds import pipe
from labkit.sandbox.level import find_level
from labkit.sandbox.policy import Policy
from labkit.sandbox.sandbox import Sandbox, SandboxEnd
from labkit.sandbox.subtree import PREFIX
from tests.support import PROJECT, requires

pytestmark = requires("userns", "overlay-userns", "cgroups")
MIB = 1 << 20
Run = Callable[..., tuple[SandboxEnd, str]]


@pytest.fixture(scope="module", autouse=True)
def one_launcher() -> Iterator[None]:
    """Start the launcher before the first test and end it after the last: it is not what a test leaves behind."""
    find_level()
    yield
    shutdown()


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return a function that runs a command in a sandbox; it returns how it ended and what it wrote."""

    def run_one(*command: str, **limits: object) -> tuple[SandboxEnd, str]:
        policy = Policy(**{"work": str(tmp_path / "work"), "memory_bytes": 300 * MIB, "pids": 100, **limits})  # type: ignore[arg-type]
        sandbox = Sandbox(f"{PREFIX}{secrets.token_hex(4)}", policy, find_level())
        read_end, write_end = pipe()
        with read_end:
            with write_end:
                env = {"PATH": os.environ["PATH"], "HOME": str(Path("/", "root"))}
                sandbox.start(
                    command,
                    env=env,
                    cwd=str(PROJECT / "notebooks"),
                    files={},
                    streams=("null", write_end.number, write_end.number),
                )
            try:
                text = b"".join(iter(lambda: os.read(read_end.number, 65536), b"")).decode()
                return sandbox.wait(100), text
            finally:
                sandbox.close()

    return run_one


def python(code: str) -> tuple[str, ...]:
    """Return the command that runs ``code`` with this Python."""
    return sys.executable, "-c", code


def test_the_exit_code_is_the_programs(run: Run) -> None:
    assert run("sh", "-c", "exit 7")[0] == SandboxEnd(7)
    assert run("sh", "-c", "kill -TERM $$")[0] == SandboxEnd(128 + signal.SIGTERM)


def test_inside_the_group_is_the_root_of_the_tree_and_belongs_to_root(run: Run) -> None:
    end, text = run(
        "sh",
        "-c",
        "grep -c labkit /proc/self/cgroup; stat -c %u /sys/fs/cgroup/memory/cgroup.procs /sys/fs/cgroup/cgroup.procs 2>/dev/null | sort -u",
    )
    assert (end.code, text.split()) == (0, ["0", "0"])


def test_groups_inside_have_limits_of_their_own_below_the_sandboxs(run: Run) -> None:
    code = """
from labkit.container import Container, run
from labkit.isolation.cgroups import Limits
hog = "x = bytearray(200 << 20)"
print(run(Container(["python3", "-c", hog], image_like_host=True, limits=Limits(memory_bytes=64 << 20, pids=10, cpus=0.5))).exit.reason)
print(run(Container(["python3", "-c", hog], image_like_host=True, limits=Limits())).exit.reason)
"""
    end, text = run(*python(code))
    assert (end, [line.split(",")[0] for line in text.splitlines()]) == (
        SandboxEnd(0),
        ["oom_killed", "exit status 0"],
    ), text


def test_a_group_inside_that_meets_its_limit_is_not_the_sandboxs_end(run: Run) -> None:
    code = """
import os, signal
from labkit.container import Container, run
from labkit.isolation.cgroups import Limits
run(Container(["python3", "-c", "x = bytearray(200 << 20)"], image_like_host=True, limits=Limits(memory_bytes=64 << 20)))
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert run(*python(code))[0] == SandboxEnd(137)


def test_the_memory_limit_is_named_as_the_end(run: Run) -> None:
    assert run(*python("x = []\nwhile True: x.append(bytearray(1 << 20))"))[0] == SandboxEnd(137, "memory")


def test_what_cannot_run_is_an_error_and_leaves_nothing(run: Run) -> None:
    with pytest.raises(SetupError, match="no-such-program"):
        run("no-such-program")


def test_a_sandbox_that_was_not_started_has_no_end() -> None:
    sandbox = Sandbox(f"{PREFIX}unstarted", Policy(), find_level())
    with pytest.raises(InvalidState):
        sandbox.wait(0)
    sandbox.kill()
    sandbox.close()
    sandbox.close()
