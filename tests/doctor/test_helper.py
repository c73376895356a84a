"""The helper's loop: probes that hang, crash, are killed or leave children."""

from __future__ import annotations

import time

from tests.support import in_child


def test_probes_that_hang_hold_up_nobody_and_are_named() -> None:
    def inside() -> list[object]:
        import signal
        import time

        from labkit.doctor.answers import yes
        from labkit.doctor.helper import run_probes
        from labkit.doctor.rules import read_facts

        def hang(facts: object) -> object:
            signal.pause()
            return yes()

        probes = {f"hangs {n}": hang for n in range(10)} | {"works": lambda facts: yes("done")}
        began_s = time.monotonic()
        answers = dict(run_probes(probes, read_facts(), timeout_s=1.0))
        return [{name: answer.rule for name, answer in answers.items()}, time.monotonic() - began_s]

    rules, elapsed_s = in_child(inside)
    assert rules["works"] == ""
    assert {rules[f"hangs {n}"] for n in range(10)} == {"it did not answer within 1.0 s"}
    assert elapsed_s < 2.0


def test_a_probe_killed_by_a_filter_a_crash_and_an_errno_each_read_differently() -> None:
    def inside() -> dict[str, list[str]]:
        import os
        import signal

        from labkit.doctor.helper import run_probes
        from labkit.doctor.rules import read_facts

        def by_filter(facts: object) -> object:
            os.kill(os.getpid(), signal.SIGSYS)
            return None

        def crash(facts: object) -> object:
            return [][1]

        def refused(facts: object) -> object:
            raise PermissionError(1, "Operation not permitted")

        probes = {"filter": by_filter, "crash": crash, "errno": refused}
        return {name: [a.state, a.rule] for name, a in run_probes(probes, read_facts(), timeout_s=10.0)}

    assert in_child(inside) == {
        "filter": ["no", "a seccomp filter kills processes that try it"],
        "crash": ["no", "it ended without an answer"],
        "errno": ["no", "the kernel answered Operation not permitted where labkit expects success"],
    }


def test_one_probe_can_answer_for_several_features() -> None:
    def inside() -> list[str]:
        from labkit.doctor.answers import yes
        from labkit.doctor.helper import run_probes
        from labkit.doctor.rules import read_facts

        probes = {"both": lambda facts: {"one": yes(), "two": yes()}}
        return sorted(name for name, _ in run_probes(probes, read_facts(), timeout_s=10.0))

    assert in_child(inside) == ["one", "two"]


def test_children_that_a_probe_leaves_are_ended() -> None:
    def inside() -> list[bool]:
        import os
        import signal

        from labkit.doctor import helper
        from labkit.doctor.answers import yes
        from labkit.doctor.rules import read_facts
        from labkit.linux.constants import Prctl
        from labkit.linux.syscalls import prctl

        read_fd, write_fd = os.pipe()

        def leaves_one(facts: object) -> object:
            if os.fork() == 0:
                signal.pause()
            return yes()

        prctl(Prctl.SET_CHILD_SUBREAPER, 1)
        list(helper.run_probes({"leaves": leaves_one}, read_facts(), timeout_s=10.0))
        os.close(write_fd)
        os.set_blocking(read_fd, False)
        try:
            alive = os.read(read_fd, 1) != b""
        except BlockingIOError:
            alive = True
        helper._end_orphans()
        return [alive, os.read(read_fd, 1) != b""]

    before, after = in_child(inside)
    assert before and not after


def test_a_group_that_a_killed_probe_left_is_removed() -> None:
    began_s = time.monotonic()

    def inside() -> list[str]:
        import os
        import signal
        from glob import glob

        from labkit.doctor import helper, probes_cgroups
        from labkit.errors import LabkitError
        from labkit.isolation.cgroups import Cgroup, CgroupParent

        def makes_one_and_hangs(facts: object, *, name: str) -> object:
            with CgroupParent(name) as parent, Cgroup.create(parent):
                signal.pause()
            return {}

        probes_cgroups.probe_cgroups = makes_one_and_hangs
        for module in (helper.probes_namespaces, helper.probes_mounts, helper.probes_defences):
            module.PROBES.clear()
        try:
            helper.main(1.0)
        except LabkitError:
            pass
        return glob(f"/sys/fs/cgroup/**/{probes_cgroups.group_name(os.getpid())}", recursive=True)

    assert in_child(inside) == []
    assert time.monotonic() - began_s < 10
