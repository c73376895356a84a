"""``labkit kernelspec``, as Jupyter's own program sees what it does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.support.cli import labkit


def kernels_of(prefix: Path) -> dict[str, object]:
    """Return what Jupyter finds below ``prefix``."""
    environ = {**os.environ, "JUPYTER_PATH": str(prefix / "share/jupyter"), "HOME": str(prefix)}
    command = [sys.executable, "-m", "jupyter_client.kernelspecapp", "list", "--json"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)["kernelspecs"]
    return {name: spec for name, spec in found.items() if spec["resource_dir"].startswith(str(prefix))}


def test_it_installs_lists_and_removes(tmp_path: Path) -> None:
    assert labkit("kernelspec", "list", "--prefix", str(tmp_path)).returncode == 1
    assert labkit("kernelspec", "install", "--prefix", str(tmp_path)).returncode == 0
    assert list(kernels_of(tmp_path)) == ["labkit"]
    listed = labkit("kernelspec", "list", "--prefix", str(tmp_path))
    assert listed.returncode == 0
    assert "Python (labkit sandbox)" in listed.stdout
    assert sys.executable in listed.stdout
    assert labkit("kernelspec", "remove", "--prefix", str(tmp_path)).returncode == 0
    assert kernels_of(tmp_path) == {}
    assert not [path for path in (tmp_path / "share").rglob("*") if path.is_file()]


def test_a_wrong_policy_is_named_in_the_list(tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "policy.toml").write_text("[limits]\npids = 1\n")
    monkeypatch.setenv("LABKIT_SANDBOX_POLICY", str(tmp_path / "policy.toml"))
    labkit("kernelspec", "install", "--prefix", str(tmp_path))
    done = labkit("kernelspec", "list", "--prefix", str(tmp_path))
    assert done.returncode == 2
    assert "limits.pids is 1, but must be a whole number from 32" in done.stderr
