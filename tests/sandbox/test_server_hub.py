"""A class of three on a real JupyterHub: they log in, start servers and kernels, and stay apart; then all of it ends."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from labkit.errors import InvalidSpec
from labkit.sandbox import policy
from labkit.sandbox.server_hub import copy_lessons, write_policy
from labkit.sandbox.view import HOME
from tests.sandbox.hub import Hub, Student
from tests.support import PROJECT, requires
from tests.support.leaks import Snapshot, wait_for_leaks_since

pytestmark = [
    requires("userns", "overlay-userns", "cgroups", "pyseccomp", "module:jupyterhub"),
    pytest.mark.timeout(400),
]
NAMES = ("ada", "grace", "linus")
LOOK = "import os, json; print(json.dumps({'env': dict(os.environ), 'pid': os.getpid(), 'uid': os.getuid()}))"


@pytest.fixture
def nothing_is_left() -> None:
    """The class as a whole is looked at in the end: its servers outlive a test."""


@pytest.fixture(scope="module")
def students(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Student]]:
    """Three students with a server each, started at the same time."""
    before = Snapshot.take()
    with Hub(tmp_path_factory.mktemp("hub")) as hub:
        found = {name: Student(hub, name) for name in NAMES}
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(enter, found.values()))
        yield found
    left = [words for words in wait_for_leaks_since(before, grace_s=10) if not words.startswith("descriptor")]
    assert left == [], "the class left behind:\n" + "\n".join(left)


def enter(student: Student) -> None:
    """Log in and start the server."""
    assert student.log_in()
    student.start_server()


@pytest.fixture(scope="module")
def kernels(students: dict[str, Student]) -> dict[str, str]:
    """A kernel for each student, started at the same time."""
    with ThreadPoolExecutor(3) as pool:
        return dict(zip(students, pool.map(Student.start_kernel, students.values()), strict=True))


def test_everybody_gets_a_kernel_and_one_and_one_are_two(students: dict[str, Student], kernels: dict[str, str]) -> None:
    for name, student in students.items():
        assert student.run(kernels[name], "print(1 + 1)") == "2\n"


def test_a_wrong_password_is_no_way_in(students: dict[str, Student]) -> None:
    assert not Student(students["ada"].hub, "ada").log_in("guessed")


def test_the_kernels_are_sandboxes_without_the_tokens_of_the_hub(
    students: dict[str, Student], kernels: dict[str, str]
) -> None:
    for name, student in students.items():
        seen = json.loads(student.run(kernels[name], LOOK))
        assert (seen["pid"], seen["uid"]) == (2, 0)
        assert not [key for key in seen["env"] if "HUB" in key or "TOKEN" in key]


def test_nobody_reaches_the_server_or_the_kernel_of_another(
    students: dict[str, Student], kernels: dict[str, str]
) -> None:
    ada = students["ada"]
    for path in ("/api/contents", "/api/kernels", f"/api/kernels/{kernels['grace']}", "/lab"):
        status, text = ada.ask("GET", path, owner="grace")
        assert status in (401, 403, 404) or "login" in text.lower(), (path, status)
        assert "03_namespaces.ipynb" not in text
    assert ada.ask("DELETE", f"/api/kernels/{kernels['grace']}", owner="grace")[0] in (401, 403, 404)
    assert students["grace"].run(kernels["grace"], "print('still here')") == "still here\n"


def test_the_work_of_one_is_not_seen_by_another_and_stays(
    students: dict[str, Student], kernels: dict[str, str]
) -> None:
    for name, student in students.items():
        student.run(kernels[name], f"open('{HOME}/work/mine', 'w').write({name!r})")
    for name, student in students.items():
        assert student.run(kernels[name], f"print(open('{HOME}/work/mine').read())") == f"{name}\n"
        assert json.loads(student.ask("GET", "/api/contents/work/mine")[1])["content"] == name
        assert (student.hub.homes / name / "labkit/work/mine").read_text() == name


def test_what_a_student_saves_in_a_lesson_is_the_students_own(students: dict[str, Student]) -> None:
    lesson = "00_start_here.ipynb"
    before = (PROJECT / "notebooks" / lesson).read_bytes()
    ada, grace = students["ada"], students["grace"]
    model = json.loads(ada.ask("GET", f"/api/contents/{lesson}")[1])
    model["content"]["cells"][0]["source"] = "changed by ada"
    assert (
        ada.ask("PUT", f"/api/contents/{lesson}", {key: model[key] for key in ("type", "format", "content")})[0] == 200
    )
    assert "changed by ada" in ada.ask("GET", f"/api/contents/{lesson}")[1]
    assert "changed by ada" not in grace.ask("GET", f"/api/contents/{lesson}")[1]
    assert (PROJECT / "notebooks" / lesson).read_bytes() == before


def test_a_notebook_in_the_work_folder_runs_in_it(students: dict[str, Student]) -> None:
    linus = students["linus"]
    assert linus.ask("PUT", "/api/contents/work/inner", {"type": "directory"})[0] == 201
    kernel_id = linus.start_kernel("work/inner")
    assert linus.run(kernel_id, "import os; print(os.getcwd())") == f"{HOME}/work/inner\n"
    assert linus.ask("DELETE", f"/api/kernels/{kernel_id}")[0] == 204


def test_no_terminal_and_no_other_kernel_is_to_be_had(students: dict[str, Student]) -> None:
    ada = students["ada"]
    assert ada.ask("POST", "/api/terminals")[0] == 404
    assert ada.ask("POST", "/api/kernels", {"name": "python3"})[0] != 201
    assert ada.ask("POST", "/lab/api/extensions", {"cmd": "install"})[0] == 404
    assert list(json.loads(ada.ask("GET", "/api/kernelspecs")[1])["kernelspecs"]) == ["labkit"]


def test_the_fork_bomb_of_one_leaves_the_others_alone(students: dict[str, Student], kernels: dict[str, str]) -> None:
    ada, grace = students["ada"], students["grace"]
    bombed = ada.start_kernel()
    ada.run(bombed, "import subprocess; subprocess.Popen(['bash', '-c', ':(){ :|:& };:'], start_new_session=True)")
    assert grace.run(kernels["grace"], "print(1 + 1)") == "2\n"
    assert ada.ask("DELETE", f"/api/kernels/{bombed}")[0] == 204


def test_the_servers_have_what_is_needed_of_the_command_line_only(students: dict[str, Student]) -> None:
    """Every user of a machine can read command lines: no token may stand there."""
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    servers = [line for line in listed.splitlines() if "labkit.sandbox.server_hub" in line]
    assert len(servers) >= len(NAMES)
    assert not [line for line in servers if "token" in line.lower() or students["ada"].token in line]


# -- the parts without a hub -------------------------------------------------------------------------------------------


def test_lessons_are_copied_once_and_never_over_the_students_own(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "figures").mkdir(parents=True)
    for name in ("01_a.ipynb", "01_a.py", "glossary.md", "figures/x.svg"):
        (source / name).write_text("lesson")
    assert copy_lessons(source, target) == ["01_a.ipynb", "glossary.md", "figures"]
    assert sorted(os.listdir(target)) == ["01_a.ipynb", "figures", "glossary.md"]
    (target / "01_a.ipynb").write_text("the student's")
    (source / "02_b.ipynb").write_text("new")
    assert copy_lessons(source, target) == ["02_b.ipynb"]
    assert (target / "01_a.ipynb").read_text() == "the student's"


def test_the_policy_is_the_teachers_with_the_students_work_folder(tmp_path: Path) -> None:
    teacher, target, work = tmp_path / "teacher.toml", tmp_path / "own/policy.toml", tmp_path / "work"
    teacher.write_text("[limits]\npids = 77\n")
    write_policy({"LABKIT_SANDBOX_POLICY": str(teacher), "HOME": str(tmp_path)}, work=work, target=target)
    got = policy.load({"LABKIT_SANDBOX_POLICY": str(target)})
    assert (got.pids, got.work) == (77, str(work))
    (tmp_path / ".config/labkit").mkdir(parents=True)
    (tmp_path / ".config/labkit/sandbox.toml").write_text("[limits]\npids = 4000\n")
    write_policy({"HOME": str(tmp_path)}, work=work, target=target)
    assert policy.load({"LABKIT_SANDBOX_POLICY": str(target)}).pids != 4000


def test_a_wrong_policy_of_the_teacher_is_said_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "teacher.toml").write_text("[limits]\npids = 1\n")
    with pytest.raises(InvalidSpec, match=r"limits\.pids"):
        write_policy(
            {"LABKIT_SANDBOX_POLICY": str(tmp_path / "teacher.toml")}, work=tmp_path, target=tmp_path / "own.toml"
        )
