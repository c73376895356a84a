"""Which level of sandbox is left in a pod: docs/workshop.md has the table, and here each row of it is tried.

A pod's restrictions are a container's: a filter of system calls, masked parts of /proc, no capabilities, cgroups that cannot be
written. labkit's own containers have the same ones, so a server of the course is started in one of these.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from labkit.container import Container, Security
from labkit.container.spec import MountSpec
from tests.support import PROJECT, requires

pytestmark = [requires("userns", "overlay-userns", "pyseccomp"), pytest.mark.timeout(200)]
SERVER = """
import tempfile
from pathlib import Path
from tests.attacks.kernels import SandboxedKernel
kernel = SandboxedKernel(Path(tempfile.mkdtemp()))
print("level", kernel.provisioner.level.name, "said", kernel.run("import os; print(1 + 1, os.getpid())"))
kernel.close()
"""
DOCUMENT = (PROJECT / "docs/workshop.md").read_text()


def level_in(security: Security) -> tuple[str, str]:
    """Start a kernel in a container with these restrictions; return its level, and what `1 + 1` and its process number are."""
    shown = dict.fromkeys([str(PROJECT), sys.prefix, sys.base_prefix, str(Path(sys.executable).resolve().parents[1])])
    folders = [path for path in shown if not path.startswith("/usr")]
    mounts = [MountSpec("bind", path, path, ("ro",)) for path in folders]
    mounts.append(MountSpec("tmpfs", "/tmp", options=("mode=1777",)))
    env = {
        "HOME": "/tmp", "PYTHONPATH": str(PROJECT), "PATH": "/usr/bin:/bin:/usr/sbin", "JUPYTER_RUNTIME_DIR": "/tmp/run",
        "PYTHONDONTWRITEBYTECODE": "1", "JUPYTER_PREFER_ENV_PATH": "1",
    }  # fmt: skip
    with Container(
        [sys.executable, "-c", SERVER], image_like_host=True, security=security, mounts=mounts, env=env, cwd="/tmp"
    ) as pod:
        pod.start()
        text = pod.communicate(timeout_s=90).text
    found = re.search(r"level (\w+) said (\d+ \d+)", text)
    assert found, text
    return found.group(1), found.group(2)


def test_with_the_filter_of_a_pod_there_is_no_sandbox_and_the_notebook_still_runs() -> None:
    level, said = level_in(Security())
    assert level == "none" and said.startswith("2 ")
    assert "| the defaults of a cluster | `none` |" in DOCUMENT


def test_with_a_masked_proc_there_is_none_either() -> None:
    level, said = level_in(Security(seccomp=False))
    assert level == "none" and said.startswith("2 ")
    assert "| `seccompProfile: Unconfined` alone | `none` |" in DOCUMENT


def test_without_filter_and_masks_there_is_a_sandbox_with_limits_of_single_processes() -> None:
    assert level_in(Security(seccomp=False, mask_paths=False)) == ("rlimits", "2 2")
    assert "| and `procMount: Unmasked`, with `hostUsers: false` | `rlimits` |" in DOCUMENT
