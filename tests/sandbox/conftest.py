"""Kernels for the tests of the sandbox: one that a whole module shares, and fresh ones."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from labkit.setup import kernelspec
from tests.sandbox.driver import Driver

__all__ = ["course", "kernels", "shared", "start"]

# The launcher inside, and the groups that it shares, stay once they are there; made first, no test seems to have left them.
_WARM_UP = """
from labkit.container import Container, run
from labkit.isolation.cgroups import Cgroup, default_parent
run(Container(["true"], image_like_host=True))
if default_parent().places.bases:
    Cgroup.create(controllers=sorted(default_parent().controllers)).delete()
"""


@pytest.fixture(scope="session")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the kernelspec of the sandbox for this very Python, and a plain one beside it."""
    prefix = tmp_path_factory.mktemp("prefix")
    return kernelspec.install(prefix, Path(sys.executable)).parent


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a notebook in it, which the sandbox shows."""
    folder = tmp_path_factory.mktemp("course") / "lessons"
    folder.mkdir()
    (folder / "data.txt").write_text("from the host\n")
    return folder


def _environ(folder: Path, **more: str) -> dict[str, str]:
    policy = folder / "policy.toml"
    if not policy.exists():
        policy.write_text(f'[mounts]\nwork = "{folder}/work"\n')
    return {"LABKIT_SANDBOX_POLICY": str(policy), "JUPYTER_RUNTIME_DIR": str(folder / "runtime"), **more}


@pytest.fixture(scope="module")
def shared(kernels: Path, course: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    """Return a kernel that all tests of the module use; they must leave it in order."""
    folder = tmp_path_factory.mktemp("shared")
    environ = _environ(folder, LABKIT_TEST_TOKEN="canary-of-the-environment")
    with Driver(kernels, course, environ=environ) as driver:
        assert "error" not in driver.started, driver.started
        driver.folder = folder
        driver.text(_WARM_UP)
        yield driver


@pytest.fixture
def start(kernels: Path, course: Path, tmp_path: Path) -> Iterator[Callable[..., Driver]]:
    """Return a function that starts a kernel of its own; ``policy`` is the text of a policy file."""
    with ExitStack() as stack:

        def start_one(policy: str = "", wrapper: Sequence[str] = (), **environ: str) -> Driver:
            if policy and "work =" not in policy.partition("[mounts]")[2]:
                # A test's work is its own, not the course's.
                mounts = f'[mounts]\nwork = "{tmp_path}/work"\n'
                policy = policy.replace("[mounts]\n", mounts) if "[mounts]" in policy else policy + mounts
            if policy:
                (tmp_path / "policy.toml").write_text(policy)
            driver = Driver(kernels, course, environ=_environ(tmp_path, **environ), wrapper=wrapper).start()
            driver.folder = tmp_path
            stack.callback(driver.close)
            return driver

        yield start_one
