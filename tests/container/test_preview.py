"""The printed plan is the one that is carried out: compared with strace."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from labkit.container import Container
from labkit.container.preview import plan_of
from tests.support import PROJECT, requires


def test_a_plan_needs_no_privilege_and_starts_nothing(rootfs: Path) -> None:
    container = Container(["true"], rootfs=rootfs)
    calls = [step.call for step in plan_of(container)]
    assert calls.index("unshare") < calls.index("pivot_root") < calls.index("seccomp") < calls.index("execve")
    assert container.status == "created"


def test_taking_a_defence_away_takes_its_steps_away(rootfs: Path) -> None:
    from labkit.container import Security

    bare = Security(seccomp=False, no_new_privs=False, capabilities=None, mask_paths=False)
    calls = [step.call for step in plan_of(Container(["true"], rootfs=rootfs, security=bare))]
    assert "seccomp" not in calls
    assert "capset" not in calls


@requires("root", "program:strace", "userns", "overlay-userns")
def test_strace_sees_the_planned_calls_in_order(rootfs: Path, tmp_path: Path) -> None:
    source = (
        f"import sys; sys.path.insert(0, {str(PROJECT)!r})\n"
        "from labkit.container import Container, run\n"
        f"run(Container(['true'], rootfs={str(rootfs)!r}))\n"
    )
    planned = [step.call for step in plan_of(Container(["true"], rootfs=rootfs))]
    # With a filter, strace stops the process only at the calls that it was asked for.
    calls = ["strace", "-ff", "--seccomp-bpf", "-o", str(tmp_path / "trace"), "-e", f"trace={','.join(set(planned))}"]
    subprocess.run([*calls, sys.executable, "-c", source], check=True, timeout=200)
    logs = [path.read_text() for path in tmp_path.iterdir() if path.name.startswith("trace.")]
    child = next(text for text in logs if "pivot_root" in text)
    seen = [match[1] for line in child.splitlines() if (match := re.match(r"(\w+)\(", line))]
    start = seen.index("prctl")
    planned = planned[planned.index("prctl") :]
    # A hybrid or v1 machine's child first writes itself into its cgroups.
    seen = [call for call in seen if call != "write"]
    # Steps that a successful one skips, and the tries of execve after the one that worked, do not show.
    skipped = 0
    for call in planned[: planned.index("execve")]:
        if seen[start] == call:
            start += 1
        else:
            skipped += 1
    assert skipped <= 1, (planned, seen)
    assert seen[start] == "execve"
