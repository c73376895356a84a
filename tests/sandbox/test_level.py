"""Levels: what a machine without cgroups, or without namespaces, gives, and that it is said."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from labkit.errors import FeatureMissing
from labkit.sandbox.level import Level, required
from labkit.sandbox.policy import Policy
from tests.sandbox.driver import Driver
from tests.support import PROJECT, requires

Start = Callable[..., Driver]
REASON = "no cgroup for memory"


def test_a_policy_that_requires_a_full_sandbox_refuses_less() -> None:
    for name in ("rlimits", "none"):
        with pytest.raises(FeatureMissing, match=f'require = "full".*{REASON}'):
            required(Level(name, (REASON,)), Policy(require="full"))
    assert required(Level("full"), Policy(require="full")).name == "full"


@pytest.mark.bare
@requires("userns", "overlay-userns", "undelegated")
def test_without_delegated_cgroups_the_first_cell_says_so_and_rlimits_hold(start: Start) -> None:
    driver = start('[limits]\npids = 64\nmemory = "512 MiB"\n')
    assert driver.started["level"] == "rlimits"
    first = driver.text("1 + 1")
    assert "no cgroup for memory" in first
    assert "Delegate=yes" in first
    assert "cgroup" not in driver.text("1 + 1")
    refused = driver.run("import subprocess; p = [subprocess.Popen(['sleep', '30']) for _ in range(200)]", timeout_s=30)
    assert "temporarily unavailable" in refused["errors"][0][1]
    hog = driver.run("x = bytearray(1 << 30)")
    assert hog["errors"][0][0] == "MemoryError"


@pytest.mark.bare
@requires("userns", "undelegated")
def test_without_delegated_cgroups_require_full_refuses_before_anything_starts(start: Start) -> None:
    driver = start('[sandbox]\nrequire = "full"\n')
    assert 'require = "full"' in driver.started["error"]


_NO_NAMESPACES = """
import subprocess, sys, os
open("/proc/sys/user/max_user_namespaces", "w").write("0")
os.execv(sys.executable, [sys.executable, "-m", "tests.sandbox.driver", *sys.argv[1:]])
"""


@requires("userns")
@pytest.mark.parametrize("require", ["any", "full"])
def test_without_namespaces_the_kernel_is_a_plain_one_that_warns_or_none_at_all(
    kernels: Path, course: Path, tmp_path: Path, require: str
) -> None:
    (tmp_path / "policy.toml").write_text(f'[sandbox]\nrequire = "{require}"\nbackend = "namespaces"\n')
    environ = {
        **os.environ, "PYTHONPATH": str(PROJECT), "LABKIT_SANDBOX_POLICY": str(tmp_path / "policy.toml"),
        "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime"), "XDG_RUNTIME_DIR": str(tmp_path),
    }  # fmt: skip
    environ.pop("PYTEST_CURRENT_TEST")
    # A user namespace whose root allows no further ones: what a hardened machine or a container without rights is like.
    command = [
        "unshare",
        "--user",
        "--map-current-user",
        "--keep-caps",
        sys.executable,
        "-c",
        _NO_NAMESPACES,
        str(kernels),
        str(course),
        "labkit",
    ]
    requests = '{"op": "run", "code": "1 + 1", "timeout_s": 30}\n{"op": "run", "code": "2 + 2", "timeout_s": 30}\n'
    done = subprocess.run(
        command, input=requests, env=environ, cwd=PROJECT, capture_output=True, text=True, timeout=100, check=False
    )
    lines = done.stdout.splitlines()
    if require == "full":
        assert 'require = \\"full\\"' in lines[0], done
        return
    assert '"level": "none"' in lines[0], done
    assert "does not allow the namespaces" in lines[1], done
    assert "done to this machine itself" in lines[1]
    assert "machine" not in lines[2]
