from __future__ import annotations

import os
import subprocess

import pytest

from labkit.linux.constants import NS
from tests.support import ChildFailed, in_child, requires, run_python


def test_the_child_is_another_process_and_gives_back_what_the_function_returns() -> None:
    def add(left: int, right: list[int]) -> dict[str, int]:
        import os

        return {"sum": left + sum(right), "pid": os.getpid()}

    answer = in_child(add, 1, [2, 3])
    assert answer["sum"] == 6
    assert answer["pid"] != os.getpid()


def test_an_error_in_the_child_is_shown_with_its_traceback() -> None:
    def fail() -> None:
        raise KeyError("what went wrong")

    with pytest.raises(ChildFailed, match=r"(?s)fail ended with status 1.*Traceback.*KeyError: 'what went wrong'"):
        in_child(fail)


def test_a_signal_that_ends_the_child_is_named() -> None:
    def die() -> None:
        import os

        os.kill(os.getpid(), 9)

    with pytest.raises(ChildFailed, match="status -9"):
        in_child(die)


def test_a_child_that_hangs_is_ended() -> None:
    def hang() -> None:
        import time

        time.sleep(60)

    with pytest.raises(subprocess.TimeoutExpired):
        in_child(hang, timeout_s=0.3)


@requires("mount-namespace")
def test_in_namespaces_of_its_own_it_is_root_and_the_test_stays_where_it_was() -> None:
    def look() -> list[object]:
        import os

        return [os.getuid(), os.readlink("/proc/self/ns/user"), os.readlink("/proc/self/ns/mnt")]

    before = os.readlink("/proc/self/ns/user"), os.readlink("/proc/self/ns/mnt")
    uid, *inside = in_child(look, namespaces=NS.USER | NS.MNT)
    assert uid == 0
    assert not set(inside) & set(before)
    assert before == (os.readlink("/proc/self/ns/user"), os.readlink("/proc/self/ns/mnt"))


def test_code_can_run_without_site_packages() -> None:
    done = run_python("import sys; print(any('site-packages' in path for path in sys.path))", flags=("-I", "-S"))
    assert (done.stdout, done.returncode) == ("False\n", 0)
