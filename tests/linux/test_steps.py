"""A list of system calls is carried out in order, by Python and by machine code alike."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from labkit.linux import spawn
from labkit.linux.constants import MountFlag
from labkit.linux.steps import Arena, Program, Refused, Step, Struct, kept, part, perform, syscall_number
from tests.support import in_child, requires


def test_the_numbers_of_system_calls_are_the_machine_s_own() -> None:
    if shutil.which("ausyscall") is None and shutil.which("scmp_sys_resolver") is None:
        pytest.skip("neither ausyscall nor scmp_sys_resolver is installed")
    for call in ("mount", "pivot_root", "execve", "clone3", "mount_setattr", "prlimit64", "symlinkat"):
        program = "scmp_sys_resolver" if shutil.which("scmp_sys_resolver") else "ausyscall"
        printed = subprocess.run([program, call], capture_output=True, text=True, check=True).stdout
        assert str(syscall_number(call)) in printed.split()


def test_an_unknown_call_is_not_guessed() -> None:
    with pytest.raises(OSError, match="does not know") as caught:
        syscall_number("frobnicate")
    assert caught.value.errno == errno.ENOSYS


def test_a_step_prints_like_strace() -> None:
    flags = MountFlag.NOSUID | MountFlag.NODEV
    step = Step("mount", ("proc", "/proc", "proc", flags, None), "mount proc")
    assert str(step) == "mount('proc', '/proc', 'proc', NOSUID|NODEV, NULL)"
    assert str(Step("execve", ("/bin/true", ("true", "-x"), ()), "run")) == "execve('/bin/true', ['true', '-x'], [])"


def test_steps_are_performed_in_order_and_results_passed_on(tmp_path: Path) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
    path = str(tmp_path / "file")
    perform(
        [
            Step("openat", (-100, path, flags, 0o600), "open", result_to_next=True),
            Step("dup3", (0, 777, os.O_CLOEXEC), "put it where we know"),
            Step("write", (777, b"hello", 5), "write", least=5),
            Step("close", (777,), "close"),
        ]
    )
    assert Path(path).read_text() == "hello"
    # The first descriptor is still open under the number the kernel chose; close it for the leak check.
    for name in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{name}") == path:
                os.close(int(name))
        except FileNotFoundError:
            continue


def test_a_refused_step_raises_with_its_name_and_errno(tmp_path: Path) -> None:
    steps = [
        Step("mkdirat", (-100, str(tmp_path / "a"), 0o755), "make a"),
        Step("mkdirat", (-100, str(tmp_path / "a"), 0o755), "make a again"),
        Step("mkdirat", (-100, str(tmp_path / "b"), 0o755), "never reached"),
    ]
    with pytest.raises(Refused, match="make a again") as caught:
        perform(steps)
    assert caught.value.errno == errno.EEXIST
    assert not (tmp_path / "b").exists()


def test_a_tolerated_errno_goes_on_and_success_may_skip(tmp_path: Path) -> None:
    folder = str(tmp_path / "a")
    first = Step("mkdirat", (-100, folder, 0o755), "make a", tolerate=(errno.EEXIST,), skip_on_success=1)
    second = Step("mkdirat", (-100, f"{folder}/inner", 0o755), "make inner")
    perform([first, second])
    assert os.listdir(folder) == []  # it worked, so the second was skipped
    perform([first, second])
    assert os.listdir(folder) == ["inner"]


def test_kept_steps_are_made_once_for_equal_arguments() -> None:
    calls: list[str] = []

    @kept
    def make(name: str) -> list[Step]:
        calls.append(name)
        return [Step("chdir", (name,), "go")]

    assert make("/a")[0] is make("/a")[0]
    assert make("/b")[0] is not make("/a")[0]
    assert calls == ["/a", "/b"]


def test_an_arena_says_when_it_is_full() -> None:
    with pytest.raises(OSError, match="too long") as caught:
        Program([Step("execve", ("/bin/true", tuple("x" * 2000 for _ in range(40)), ()), "run")], Arena(4096))
    assert caught.value.errno == errno.E2BIG


def test_an_arena_keeps_what_comes_again_and_forgets_the_rest() -> None:
    @kept
    def fixed() -> list[Step]:
        return [Step("chdir", ("/",), "go")]

    arena = Arena(1 << 16)
    for number in range(500):
        Program([*fixed(), Step("chdir", (f"/{number:0500}",), "go")], arena)
    # The second half is one program's, and no more than that of the last one.
    assert arena.take(0) - (1 << 15) < 8192
    assert arena.record(step := fixed()[0]) == arena.record(step)


def test_kept_steps_that_grow_without_end_are_forgotten_and_packed_anew() -> None:
    arena = Arena(1 << 16)

    @kept
    def changing(number: int) -> list[Step]:
        return [Step("chdir", (f"/{number:01000}",), "go")]

    for number in range(200):
        program = Program(changing(number), arena)
        assert program.current.args == (f"/{number:01000}",)


def test_a_structure_s_pointers_are_filled_in() -> None:
    arena = Arena()
    address = arena.value(Struct(bytes(16), ((8, "text"),)))
    offset = address - arena.address
    pointer = int.from_bytes(arena.pages[offset + 8 : offset + 16], "little")
    start = pointer - arena.address
    assert arena.pages[start : start + 5] == b"text\0"


def _run_program(steps_json: str, copy: bool) -> dict:  # type: ignore[type-arg]
    """In a child: spawn a program, wait, and tell what its notes say."""
    import json
    import os

    from labkit.linux.spawn import spawn_program
    from labkit.linux.steps import Arena, Program, Step

    steps = [Step(call, tuple(tuple(a) if isinstance(a, list) else a for a in args), why, **more)
             for call, args, why, more in json.loads(steps_json)]  # fmt: skip
    program = Program(steps, Arena())
    pid, pidfd = spawn_program(program, 0, exit_signal=17, copy=copy)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.close(pidfd)
    refused = program.refused
    return {
        "status": status,
        "current": program.current.why,
        "refused": None if refused is None else [refused[0].why, refused[1]],
        "results": [program.result_of(i) for i in range(len(steps))],
    }


PROGRAMS: dict[str, list[Any]] = {
    "exits": [["chdir", ["/"], "go", {}], ["exit_group", [7], "end", {}]],
    "is refused": [["chdir", ["/nope"], "go nowhere", {}], ["exit_group", [0], "end", {}]],
    "tolerates": [
        ["chdir", ["/nope"], "go nowhere", {"tolerate": [errno.ENOENT]}],
        ["exit_group", [5], "end", {}],
    ],
    "skips": [
        ["chdir", ["/"], "go", {"skip_on_success": 1}],
        ["exit_group", [1], "skipped", {}],
        ["exit_group", [2], "end", {}],
    ],
    "passes on": [
        ["openat", [-100, "/dev/null", os.O_RDONLY, 0], "open", {"result_to_next": True}],
        ["dup3", [0, 500, 0], "copy", {}],
        ["exit_group", [0], "end", {}],
    ],
    "wants more": [["prctl", [3, 0, 0, 0, 0], "ask", {"least": 99}], ["exit_group", [0], "end", {}]],
    "runs a program": [["execve", ["/bin/sh", ["sh", "-c", "exit 9"], []], "run", {}]],
}


@requires("program:sh")
@pytest.mark.parametrize("name", PROGRAMS)
def test_machine_code_and_python_leave_the_same_notes(name: str) -> None:
    if not spawn.shares_memory():
        pytest.skip("this machine has no machine code for children")
    text = json.dumps(PROGRAMS[name])
    native, copied = (in_child(_run_program, text, copy) for copy in (False, True))
    assert native == copied


def test_the_instructions_are_what_the_comments_say() -> None:
    if shutil.which("objdump") is None or os.uname().machine != "x86_64":
        pytest.skip("objdump is not installed, or another machine")
    code = Path(spawn.__file__).read_text().split("_X86_64 = bytes.fromhex(")[1].split("\n)\n")[0]
    listed = [line.split("#", 1)[1].split(":")[-1].split() for line in code.splitlines() if "#" in line]
    mnemonics = [words[0] for words in listed]
    temporary = Path(os.environ.get("TMPDIR", "/tmp")) / f"labkit-code-{os.getpid()}"
    temporary.write_bytes(spawn._X86_64)
    try:
        command = ["objdump", "-D", "-b", "binary", "-m", "i386:x86-64", "-M", "intel", str(temporary)]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    finally:
        temporary.unlink()
    real = [line.split("\t")[2].split()[0] for line in printed.splitlines() if line.count("\t") >= 2]
    same = {"je": "jz", "jb": "jc", "jae": "jnc"}
    assert [same.get(word, word) for word in real] == mnemonics


@pytest.mark.skipif(not spawn.shares_memory(), reason="a copy of the launcher cannot be told later what to do")
def test_steps_can_be_filled_in_while_the_child_waits_before_them() -> None:
    gate_r, gate_w = os.pipe()
    out_r, out_w = os.pipe()
    steps = [
        Step("read", (gate_r, bytes(1), 1), "wait", least=1),
        Step("write", (out_w, b"c", 1), "say c"),
        Step("exit_group", (0,), "end"),
    ]
    try:
        program = Program(steps[1:], Arena(), after=part(steps[:1], gate=0, room=5))
        pid, pidfd = spawn.spawn_program(program, 0, exit_signal=signal.SIGCHLD)
        program.fill([Step("write", (out_w, letter, 1), f"say {letter!r}") for letter in (b"a", b"b")])
        os.write(gate_w, b"!")
        assert os.waitpid(pid, 0)[1] == 0
        os.close(pidfd)
        assert os.read(out_r, 10) == b"abc"
        with pytest.raises(OSError, match="6 steps do not fit into 5 places"):
            program.fill([steps[1]] * 6)
    finally:
        for fd in (gate_r, gate_w, out_r, out_w):
            os.close(fd)
