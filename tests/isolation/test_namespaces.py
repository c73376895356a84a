"""Namespaces as labkit lists them, against lsns(8), readlink(1) and unshare(1)."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from labkit.isolation import namespaces
from labkit.linux.constants import NS, NS_FILES
from tests.support import in_child, requires


def test_numbers_agree_with_the_links_that_readlink_prints() -> None:
    for kind, number in namespaces.namespaces_of(os.getpid()).items():
        link = subprocess.run(
            ["readlink", f"/proc/{os.getpid()}/ns/{NS_FILES[kind]}"], capture_output=True, text=True, check=True
        )
        assert link.stdout.strip() == f"{NS_FILES[kind]}:[{number}]"


def test_a_child_of_this_process_shares_all_its_namespaces() -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as child:
        assert namespaces.namespaces_of(child.pid) == namespaces.namespaces_of("self")


@requires("userns")
@pytest.mark.parametrize(
    "kind", [kind for kind in NS_FILES if kind not in (NS.PID, NS.TIME)], ids=lambda kind: kind.name
)
def test_unshare_changes_the_number_of_its_kind_and_no_other(kind: NS) -> None:
    def inside(flags: int) -> list[list[int]]:
        from labkit.isolation.namespaces import namespaces_of
        from labkit.linux.constants import NS
        from labkit.linux.syscalls import unshare

        before = namespaces_of("self")
        unshare(NS(flags))
        return [[int(kind), number] for kind, number in namespaces_of("self").items() if before[kind] != number]

    changed = {kind for kind, _ in in_child(inside, int(kind | NS.USER))}
    assert changed == {int(kind), int(NS.USER)}


@requires("program:lsns")
def test_the_list_agrees_with_lsns() -> None:
    printed = subprocess.run(["lsns", "--json", "-o", "NS,TYPE,NPROCS"], capture_output=True, text=True, check=True)
    lsns = {(row["type"], int(row["ns"])) for row in json.loads(printed.stdout)["namespaces"]}
    # lsns also shows namespaces that only a mount or a socket holds, and those of processes that ended in between.
    ours = {(NS_FILES[item.kind], item.inode) for item in namespaces.list_namespaces() if os.getpid() in item.pids}
    assert len(ours) == len(namespaces.namespaces_of("self"))
    assert ours <= lsns


def test_this_process_is_listed_once_in_each_kind() -> None:
    mine = [item.kind for item in namespaces.list_namespaces() if os.getpid() in item.pids]
    assert sorted(mine) == sorted(namespaces.namespaces_of("self"))


@requires("userns")
def test_the_owner_of_a_new_network_namespace_is_the_new_user_namespace() -> None:
    def inside() -> list[int]:
        import os

        from labkit.isolation.namespaces import kind_of, namespace_id, open_namespace, owner, owner_uid, parent
        from labkit.linux.constants import NS
        from labkit.linux.syscalls import unshare

        outer = namespace_id("self", NS.USER)
        with open_namespace("self", NS.USER) as first:
            unshare(NS.USER | NS.NET)
            with open_namespace("self", NS.NET) as net, owner(net) as user, open_namespace("self", NS.USER) as own:
                refused = 0
                try:
                    parent(own).close()
                except PermissionError:
                    refused = 1  # nobody sees above the own user namespace
                found = os.fstat(user.fileno()).st_ino
                kinds = kind_of(net) == NS.NET and kind_of(user) == NS.USER and os.fstat(first.fileno()).st_ino == outer
                return [found, namespace_id("self", NS.USER), outer, int(kinds), refused, owner_uid(own)]

    found, own, outer, kinds, refused, uid = in_child(inside)
    assert found == own != outer
    assert kinds and refused
    # The maker's uid has no mapping in the new namespace yet, and shows as the overflow id.
    assert uid == 65534


@requires("userns")
def test_the_parent_of_a_nested_user_namespace_is_the_one_around_it() -> None:
    def inside() -> list[int]:
        import os

        from labkit.isolation.namespaces import namespace_id, open_namespace, parent
        from labkit.linux.constants import NS
        from labkit.linux.syscalls import unshare

        around = namespace_id("self", NS.USER)
        read_fd, write_fd = os.pipe()
        ready_fd, tell_fd = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(write_fd)
            unshare(NS.USER)
            os.write(tell_fd, b"x")
            os.read(read_fd, 1)
            os._exit(0)
        os.read(ready_fd, 1)
        with open_namespace(pid, NS.USER) as nested, parent(nested) as above:
            answer = [os.fstat(above.fileno()).st_ino, around, namespace_id(pid, NS.USER)]
        os.close(write_fd)
        os.waitpid(pid, 0)
        return answer

    above, around, nested = in_child(inside)
    assert above == around != nested


def test_a_process_that_does_not_exist_has_no_namespaces() -> None:
    with pytest.raises(FileNotFoundError):
        namespaces.namespace_id(2**22 + 1, NS.PID)


def test_a_file_that_is_no_namespace_has_no_kind() -> None:
    with namespaces.Fd(os.open("/dev/null", os.O_RDONLY)) as other, pytest.raises(OSError):
        namespaces.kind_of(other)


def test_each_kind_is_described_once_with_its_man_page() -> None:
    texts = [namespaces.describe(kind) for kind in NS_FILES]
    assert {text.kind for text in texts} == set(NS)
    assert len({text.hides for text in texts}) == 8
    assert all(text.man_page.endswith("_namespaces(7)") for text in texts)
    with pytest.raises(KeyError):
        namespaces.describe(NS.PID | NS.NET)


def test_the_module_runs_alone(capsys: pytest.CaptureFixture[str]) -> None:
    namespaces.main()
    assert f"{namespaces.namespace_id('self', NS.UTS)}" in capsys.readouterr().out
