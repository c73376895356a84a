from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.support import PROJECT, requires
from tests.support.delegation import delegated_groups
from tests.support.hierarchies import mounted_hierarchies

USER = "nobody"
SWITCH = ["setpriv", "--reuid", USER, "--clear-groups", "--"]


def delegate(script: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script as the user in delegated groups."""
    return subprocess.run(
        [sys.executable, "-m", "tests.support.delegation", USER, *SWITCH, "sh", "-c", script],
        capture_output=True, text=True, cwd=PROJECT, timeout=30, check=False,
    )  # fmt: skip


@requires("root", "cgroups")
def test_the_command_starts_in_a_group_of_its_own_in_every_hierarchy() -> None:
    done = delegate("cat /proc/self/cgroup")
    assert done.returncode == 0, done.stderr
    inside = [line for line in done.stdout.splitlines() if line.endswith(f"/labkit-test-{USER}")]
    assert len(inside) == len(mounted_hierarchies())


@requires("root", "cgroups")
def test_the_user_may_make_groups_there_and_move_processes_but_not_raise_the_limits() -> None:
    with delegated_groups(USER) as groups:
        script = """
            for group; do echo $$ > "$group/cgroup.procs" || exit 1; done
            exec setpriv --reuid nobody --clear-groups -- sh -c '
                for group; do
                    mkdir "$group/inner" || exit 2
                    for file in cpuset.cpus cpuset.mems; do  # of v1: empty until somebody fills them
                        [ ! -e "$group/inner/$file" ] || cat "$group/$file" > "$group/inner/$file"
                    done
                    echo 0 > "$group/inner/cgroup.procs" || exit 2
                    for limit in memory.limit_in_bytes memory.max pids.max; do
                        [ ! -w "$group/$limit" ] || exit 3
                    done
                done' sh "$@"
        """
        done = subprocess.run(
            ["sh", "-c", script, "sh", *map(str, groups)], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
    assert not any(group.exists() for group in groups)


@requires("root", "cgroups")
def test_what_still_runs_afterwards_is_named_ended_and_makes_it_fail() -> None:
    done = delegate("sleep 93 >/dev/null 2>&1 & exit 0")
    assert done.returncode == 1
    assert re.search(r"still running after the tests of nobody: \d+ (sleep|sh)", done.stderr)
    assert not any(Path(h.own, f"labkit-test-{USER}").exists() for h in mounted_hierarchies())


@requires("root", "cgroups")
def test_the_status_of_the_command_is_passed_on() -> None:
    assert delegate("exit 7").returncode == 7
