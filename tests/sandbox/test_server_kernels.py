"""Which kernels the course's server starts, where, and how much of what they say it keeps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import zmq
from jupyter_client.kernelspec import NoSuchKernel

from labkit.sandbox.server_kernels import CourseKernels, CourseKernelspecs, OfflineMessages
from labkit.sandbox.server_routes import is_answered
from tests.support import PROJECT, requires


def test_what_is_kept_while_no_browser_listens_has_an_end_and_is_the_latest() -> None:
    kept = OfflineMessages(10_000)
    for number in range(1_000):
        kept.append(("iopub", [str(number).encode(), b"x" * 500]))
    assert kept.size_bytes <= 10_000
    assert kept[-1][1][0] == b"999"
    assert 10 < len(kept) < 20
    kept.append(("iopub", [b"x" * 1_000_000]))
    assert not kept, "one message that is larger than all that may be kept is not kept"


def test_many_messages_without_content_count_too() -> None:
    kept = OfflineMessages(10_000)
    for _ in range(100_000):
        kept.append(("iopub", [b""] * 6))
    assert len(kept) < 100


def test_a_message_of_a_kernel_has_a_largest_size(tmp_path: Path) -> None:
    kernels = CourseKernels(root_dir=str(tmp_path), most_message_bytes=1 << 20)
    with kernels.context as context, context.socket(zmq.SUB) as listening:
        assert listening.getsockopt(zmq.MAXMSGSIZE) == 1 << 20


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("", ""),
        ("a", "a"),
        ("a/b/gone.ipynb", "a/b"),
        ("a/../..", "a"),
        ("out", ""),
        ("out/etc", ""),
        ("inside", "inside"),
    ],
)
def test_a_kernel_starts_below_the_root_whatever_its_path_says(tmp_path: Path, path: str, expected: str) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "out").symlink_to("/")
    (tmp_path / "inside").symlink_to("a")
    assert Path(CourseKernels(root_dir=str(tmp_path)).cwd_for_path(path)) == tmp_path / expected


def test_a_kernelspec_that_is_not_on_the_list_cannot_be_named(tmp_path: Path) -> None:
    for name in ("labkit", "other"):
        (tmp_path / name).mkdir()
        spec = {"argv": ["true"], "display_name": name, "language": "python"}
        (tmp_path / name / "kernel.json").write_text(json.dumps(spec))
    specs = CourseKernelspecs(allowed_kernelspecs={"labkit"}, kernel_dirs=[str(tmp_path)])
    assert specs.get_kernel_spec("labkit").display_name == "labkit"
    assert list(specs.find_kernel_specs()) == ["labkit"]
    for name in ("other", "python3"):
        with pytest.raises(NoSuchKernel):
            specs.get_kernel_spec(name)


@pytest.mark.parametrize(
    ("method", "path", "answered"),
    [
        ("GET", "", True), ("GET", "lab/tree/x.ipynb", True), ("PUT", "api/contents/x", True), ("GET", "api", True),
        ("GET", "api/terminals", False), ("POST", "api/terminals", False), ("GET", "terminals/websocket/1", False),
        ("GET", "lab/api/build", True), ("POST", "lab/api/build", False), ("POST", "lab/api/extensions", False),
        ("DELETE", "lab//api/build/", False), ("GET", "lsp/status", True), ("GET", "lsp/ws/x", False), ("GET", "laboratory", False),
        ("GET", "an/extension/of/tomorrow", False), ("PUT", "lab/api/settings/x", True), ("GET", "lab/api/news", False),
    ],
)  # fmt: skip
def test_only_what_is_on_the_list_is_answered(method: str, path: str, answered: bool) -> None:
    assert is_answered(method, path) is answered


_CULLING = """
import asyncio, json, sys
from labkit.sandbox.server_kernels import CourseKernels, CourseKernelspecs
async def main(kernelspecs, root):
    specs = CourseKernelspecs(kernel_dirs=[kernelspecs], allowed_kernelspecs={"labkit"})
    kernels = CourseKernels(root_dir=root, kernel_spec_manager=specs, cull_idle_timeout=1, cull_interval=1)
    number = await kernels.start_kernel(kernel_name="labkit")
    kernel = kernels.get_kernel(number)
    sandbox, folder = kernel.provisioner.sandbox, kernel.provisioner.folder.path
    print(json.dumps([sandbox.name, [sandbox.pid, sandbox.kernel_pid], [folder, kernel.connection_file]]), flush=True)
    while number in kernels:
        await asyncio.sleep(0.02)
    print("culled", flush=True)
    sys.stdin.readline()
asyncio.run(main(*sys.argv[1:]))
"""


@requires("userns", "overlay-userns")
def test_a_kernel_that_nobody_uses_ends_and_nothing_is_left_of_its_sandbox(kernels: Path, tmp_path: Path) -> None:
    (tmp_path / "policy.toml").write_text(f'[mounts]\nwork = "{tmp_path}/work"\n')
    environ = {
        **os.environ, "PYTHONPATH": str(PROJECT), "LABKIT_SANDBOX_POLICY": str(tmp_path / "policy.toml"),
        "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime"),
    }  # fmt: skip
    command = [sys.executable, "-c", _CULLING, str(kernels), str(tmp_path)]
    with subprocess.Popen(command, env=environ, stdin=-1, stdout=-1, text=True) as server:
        assert server.stdout is not None
        name, pids, paths = json.loads(server.stdout.readline())
        assert all(Path(f"/proc/{pid}").exists() for pid in pids)
        assert server.stdout.readline() == "culled\n"
        # The server still runs: it is not its end that has taken them along.
        assert [path for path in (*(f"/proc/{pid}" for pid in pids), *paths) if Path(path).exists()] == []
        groups = subprocess.run(
            ["find", "/sys/fs/cgroup", "-name", f"*{name}*"], capture_output=True, text=True, check=False
        )
        assert groups.stdout == ""
