"""What the limits do: to the one who meets them, and to everybody else."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.sandbox.driver import Driver
from tests.support import requires

pytestmark = requires("userns", "overlay-userns", "cgroups")
Start = Callable[..., Driver]
#: Policies of tests name a work folder of their own.
SMALL = '[limits]\nmemory = "256 MiB"\npids = 64\ncpus = 1\n[disk]\nhome = "32 MiB"\nhome_files = 500\ntemporary = "32 MiB"\n'
TIDY = """
files = p = None
import os, signal
for pid in os.listdir('/proc'):
    if pid.isdigit() and open(f'/proc/{pid}/comm').read() == 'sleep\\n':
        os.kill(int(pid), signal.SIGKILL)
for folder in ('/root', '/tmp'):
    for entry in list(os.scandir(folder)):
        if entry.is_file(): os.unlink(entry.path)
try:
    while True: os.waitpid(-1, 0)
except ChildProcessError:
    pass
"""
FILL = "data = []\nfor _ in range(2000): data.append(bytearray(1 << 20))"


@pytest.fixture(scope="module")
def small(kernels: Path, course: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    """Return a kernel with small limits that the tests of this module share."""
    folder = tmp_path_factory.mktemp("small")
    (folder / "policy.toml").write_text(SMALL + f'[mounts]\nwork = "{folder}/work"\n')
    environ = {"LABKIT_SANDBOX_POLICY": str(folder / "policy.toml"), "JUPYTER_RUNTIME_DIR": str(folder / "runtime")}
    with Driver(kernels, course, environ=environ) as driver:
        yield driver


def test_a_memory_hog_in_a_child_dies_and_the_kernel_lives(small: Driver) -> None:
    code = f"import subprocess, sys; print(subprocess.run([sys.executable, '-c', {FILL!r}]).returncode)"
    assert small.text(code).strip() == "-9"
    assert small.text("1 + 1").strip() == "2"


def test_a_kernel_killed_by_its_memory_limit_says_so_in_the_cell_that_ran(start: Start) -> None:
    driver = start(SMALL)
    answer = driver.run(FILL, timeout_s=30)
    assert [name for name, _ in answer["errors"]] == ["MemoryLimitReached"], answer
    words = answer["errors"][0][1]
    assert "256 MiB" in words
    assert "limits.memory" in words
    deadline_s = time.monotonic() + 10
    while driver.ask("alive")["alive"]:
        assert time.monotonic() < deadline_s
    driver.ask("restart", now=True)
    assert driver.text("1 + 1").strip() == "2"


def test_a_kernel_that_fills_its_work_folder_is_told_so_and_finds_it_read_only(start: Start, tmp_path: Path) -> None:
    driver = start(f'[disk]\nwork = "20 MiB"\nwork_files = 1000\n[mounts]\nwork = "{tmp_path}/work"\n')
    code = "import os, time\nos.chdir(os.path.expanduser('~/work'))\nfor n in range(300):\n    open(str(n), 'wb').write(bytes(1 << 20)); time.sleep(0.05)"
    answer = driver.run(code, timeout_s=40)
    assert [name for name, _ in answer["errors"]] == ["DiskLimitReached"], answer
    assert "20 MiB" in answer["errors"][0][1]
    driver.ask("restart", now=True)
    refused = driver.run("import os; open(os.path.expanduser('~/work/more'), 'w')")
    assert "Read-only" in refused["errors"][0][1]
    assert driver.text("import time; time.sleep(1.5); print('still here')").strip() == "still here"


@pytest.mark.parametrize(
    ("what", "code", "error"),
    [
        ("home", "import os; [open(os.path.expanduser('~') + f'/{n}', 'w').close() for n in range(1000)]", "No space left"),
        ("temporary", "open('/tmp/x', 'wb').write(bytes(40 << 20))", "No space left"),
        ("open files", "files = [open('/dev/null') for _ in range(10000)]", "Too many open files"),
        ("file size", "f = open('/tmp/s', 'wb'); f.truncate(2 << 30)", "File too large"),
        ("processes", "import subprocess; p = [subprocess.Popen(['sleep', '30']) for _ in range(200)]", "temporarily unavailable"),
        ("namespaces", "import subprocess; subprocess.run(['unshare', '-U', 'true'], check=True); raise OSError('nested fine')", "nested fine"),
    ],
)  # fmt: skip
def test_a_limit_is_an_error_in_the_cell_that_meets_it(small: Driver, what: str, code: str, error: str) -> None:
    answer = small.run(f"import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n{code}", timeout_s=30)
    assert answer["status"] == "error", (what, answer)
    assert error in answer["errors"][0][1]
    small.run(TIDY)
    assert small.text("1 + 1").strip().endswith("2")
