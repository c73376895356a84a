"""A second set of namespaces inside the first: what its root cannot undo. `tests/sandbox` tries the whole."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from labkit.container import Container
from labkit.container.process import Process
from labkit.container.spec import Inner, MountSpec, Spec
from labkit.sandbox import init
from tests.support import PROJECT, requires

pytestmark = requires("userns", "overlay-userns")


def spec(script: str, **changes: object) -> Spec:
    """Return the spec of a container whose shell runs in inner namespaces."""
    base = Container(["sh", "-c", script], image_like_host=True).spec
    python = os.path.realpath(sys.executable)
    code = str(Path(init.__file__).parent)
    changed = replace(
        base, capabilities=None, seccomp_hex="", masked_paths=(), readonly_paths=(), mounts=(*base.mounts, MountSpec("bind", code, code, ("ro",))),
        inner=Inner((python, "-I", "-S", f"{code}/init.py"), settings=(("/proc/sys/user/max_inotify_watches", "7"),), oom_score_adj=321),
    )  # fmt: skip
    return replace(changed, **changes)  # type: ignore[arg-type]


def output(script: str, **changes: object) -> str:
    """Run ``script`` and return what it wrote."""
    with Process(
        "spawn", f"labkit-{secrets.token_hex(4)}", spec(script, **changes), streams=("null", "pipe", "pipe")
    ) as process:
        process.prepare()
        process.start()
        done = process.communicate(timeout_s=20)
        return done.text + done.stderr.decode()


def test_the_program_is_process_2_and_root_and_its_init_is_process_1() -> None:
    assert output("echo $$; id -u; tr '\\0' ' ' < /proc/1/cmdline").split()[:2] == ["2", "0"]
    assert "init.py" in output("tr '\\0' ' ' < /proc/1/cmdline")


def test_the_mounts_of_the_container_are_locked() -> None:
    said = output(
        "for path in /usr /etc /dev /proc; do umount -l $path 2>/dev/null && echo $path gone; done; mount -o remount,rw / 2>/dev/null && echo writable; echo end"
    )
    assert said.split("\n")[-2] == "end"
    assert "gone" not in said and "writable\n" not in said


def test_init_and_program_have_different_user_namespaces_and_the_same_pid_namespace() -> None:
    said = output(
        "readlink /proc/self/ns/pid; readlink /proc/1/ns/pid || echo hidden; readlink /proc/1/root || echo hidden; stat -c %u /proc/1"
    )
    assert "hidden" in said


def test_settings_of_the_first_set_hold_in_the_second() -> None:
    assert output("cat /proc/self/oom_score_adj").strip() == "321"
    code = (
        "import ctypes, os; c = ctypes.CDLL(None); fd = c.inotify_init(); names = [f'/tmp/{n}'.encode() for n in range(20)];"
        "[os.mkdir(name) for name in names]; print(sum(c.inotify_add_watch(fd, name, 2) >= 0 for name in names))"
    )
    assert output(f'{sys.executable} -I -S -c "{code}"').strip() == "7"


def test_small_files_are_written_into_the_tree() -> None:
    assert output("cat /srv/note", files=(("/srv/note", b"hello"),)).strip() == "hello"


def test_a_refused_step_is_named_and_nothing_is_left() -> None:
    from labkit.errors import SetupError

    with pytest.raises(SetupError, match="no-such-program"):
        output("true", command=("no-such-program",))
    with pytest.raises(SetupError, match="run the init"):
        output("true", inner=Inner(("/no-such-init",)))


def test_the_copying_child_makes_the_same(tmp_path: Path) -> None:
    code = f"from tests.container.test_inner import output; print(output({'echo $$; id -u'!r}))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, env=os.environ | {"LABKIT_CHILD": "copy"}, capture_output=True, text=True, timeout=60, check=True
    )  # fmt: skip
    assert done.stdout.split() == ["2", "0"]
