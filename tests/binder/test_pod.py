"""The whole course in a pod that allows next to nothing: the doctor says what is refused, and no cell raises."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.binder.pod import Pod, pod
from tests.binder.report import DOCUMENT, table
from tests.support import PROJECT, requires

pytestmark = [requires("root", "program:docker", "program:dockerd", "program:containerd"), pytest.mark.timeout(500)]
LESSONS = sorted(path.stem for path in (PROJECT / "notebooks").glob("[0-9][0-9]_*.py"))


@pytest.fixture(autouse=True)
def nothing_is_left() -> None:
    """Let the daemon live from one test to the next; the end of the run is checked all the same."""


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pod]:
    """Give pods."""
    with pod(tmp_path_factory.mktemp("p")) as made:
        yield made


@pytest.fixture(scope="module")
def looked(here: Pod) -> dict[str, dict[str, Any]]:
    """Run all lessons once, one after the other, in one pod."""
    return {found["name"]: found for found in here.lessons()}


def test_the_pod_is_what_it_is_said_to_be(here: Pod) -> None:
    words = (
        "id -u; cat /proc/self/status /proc/self/mountinfo; touch /sys/fs/cgroup/x; ls /sys/class/net; unshare -U true"
    )
    done = here.run(f"sh -c '{words}' 2>&1", timeout_s=60)
    said = done.stdout.decode()
    assert said.startswith("1000\n")
    assert re.search(r"^CapBnd:\s+0+$", said, re.M) and re.search(r"^NoNewPrivs:\s+1$", said, re.M)
    assert re.search(r"^Seccomp:\s+2$", said, re.M)
    assert re.search(r"/sys/fs/cgroup\S* ro,", said)
    assert said.count("\nlo\n") == 1 and "eth0" not in said
    assert "unshare failed: Operation not permitted" in said


def test_the_doctor_names_each_refusal_with_its_remedy(here: Pod) -> None:
    done = here.run("labkit doctor", timeout_s=60)
    said = done.stdout.decode()
    refused = re.findall(r"^  \S.*✘ no +\S.*\n((?: {20,}.*\n)+)", said, re.M)
    assert len(refused) >= 30, said
    assert all("Rule: " in entry and "Remedy: " in entry for entry in refused), refused
    assert "Rule: a seccomp filter refuses unshare(CLONE_NEWUSER)." in said
    assert "is mounted read-only" in said


@pytest.mark.parametrize("lesson", LESSONS)
def test_no_cell_of_the_lesson_raises_and_each_says_what_it_cannot_show(
    looked: dict[str, dict[str, Any]], lesson: str
) -> None:
    found = looked[lesson]
    assert found["errors"] == [] and found["died"] == ""
    assert found["warned"], "the kernel has no sandbox here, and must say so"
    assert found["passed"] + len(found["not_shown"]) >= 5
    assert found["stood_in"] + found["recordings"] + len(found["not_shown"]) > 0


def test_the_report_is_about_these_lessons(looked: dict[str, dict[str, Any]]) -> None:
    """Seconds and counts differ a little from day to day; lessons, and whether they are real, recorded or both, do not."""
    kept = re.findall(r"^\| (\d\d) \|.*\| (real|recorded|real and recorded) \|$", DOCUMENT.read_text(), re.M)
    now = re.findall(r"^\| (\d\d) \|.*\| (real|recorded|real and recorded) \|$", table(looked.values()), re.M)
    assert kept == now
