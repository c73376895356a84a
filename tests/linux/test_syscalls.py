from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from labkit.linux import syscalls
from labkit.linux.constants import NS, NS_FILES, CloneFlag, MountFlag, OpenTreeFlag, Prctl, Umount
from tests.support import in_child, requires

pytestmark = pytest.mark.bare
KINDS = {
    NS.USER: "userns",
    NS.MNT: "mount-namespace",
    NS.PID: "pid-namespace",
    NS.NET: "network-namespace",
    NS.IPC: "ipc-namespace",
    NS.UTS: "uts-namespace",
    NS.CGROUP: "cgroup-namespace",
    NS.TIME: "timens",
}


def kinds(*left_out: NS) -> pytest.MarkDecorator:
    """Return a mark that runs a test once for each kind of namespace that the machine offers."""
    chosen = {kind: feature for kind, feature in KINDS.items() if kind not in left_out}
    return pytest.mark.parametrize(
        "kind", [pytest.param(kind, marks=requires(feature), id=str(kind.name)) for kind, feature in chosen.items()]
    )


ROOT_AND_MOUNTS = NS.USER | NS.MNT


@kinds()
def test_clone3_makes_the_namespaces_asked_for_and_no_other(kind: NS) -> None:
    def clone_and_look(flags: int) -> dict[str, dict[str, str]]:
        import json
        import os
        import signal
        import subprocess

        from labkit.linux.syscalls import clone3

        def namespaces(pid: int) -> dict[str, str]:
            names = [name for name in os.listdir(f"/proc/{pid}/ns") if "_for_" not in name]
            return {name: os.readlink(f"/proc/{pid}/ns/{name}") for name in names}

        reader, writer = os.pipe()
        pid, pidfd = clone3(flags, exit_signal=signal.SIGCHLD)
        if pid == 0:
            os.close(writer)
            os.read(reader, 1)
            os._exit(0)
        lsns = subprocess.run(
            ["lsns", "--json", "--output", "NS,TYPE", "--task", str(pid)], capture_output=True, text=True
        )
        answer = {
            "parent": namespaces(os.getpid()),
            "child": namespaces(pid),
            "lsns": {row["type"]: f"{row['type']}:[{row['ns']}]" for row in json.loads(lsns.stdout)["namespaces"]},
        }
        os.close(writer)
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
        return answer

    flags = kind if os.geteuid() == 0 else kind | NS.USER
    seen = in_child(clone_and_look, int(flags))
    changed = {name for name, link in seen["child"].items() if seen["parent"][name] != link}
    assert changed == {NS_FILES[flag] for flag in NS if flag in flags}
    assert changed <= set(seen["lsns"])
    assert seen["lsns"] == {name: link for name, link in seen["child"].items() if name in seen["lsns"]}


@requires("pid-namespace")
def test_the_first_process_of_a_pid_namespace_is_number_one_and_its_parent_is_not_seen() -> None:
    def clone_and_ask(flags: int) -> list[int]:
        import os
        import signal

        from labkit.linux.syscalls import clone3

        reader, writer = os.pipe()
        pid, pidfd = clone3(flags, exit_signal=signal.SIGCHLD)
        if pid == 0:
            os.write(writer, f"{os.getpid()} {os.getppid()} {pidfd}".encode())
            os._exit(7)
        status = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
        assert status is not None
        return [*map(int, os.read(reader, 100).split()), status.si_status, status.si_pid == pid]

    assert in_child(clone_and_ask, int(NS.PID | NS.USER)) == [1, 0, -1, 7, True]


@requires("userns")
def test_a_child_of_clone3_can_go_on_in_python_and_become_a_program() -> None:
    def clone_and_exec() -> str:
        import os
        import signal

        from labkit.linux.syscalls import clone3

        reader, writer = os.pipe()
        pid, _ = clone3(0, exit_signal=signal.SIGCHLD)
        if pid == 0:
            os.dup2(writer, 1)
            os.execvp("echo", ["echo", " ".join(sorted({"made": 1, "of": 2, "python": 3}))])
        os.waitpid(pid, 0)
        return os.read(reader, 100).decode()

    assert in_child(clone_and_exec) == "made of python\n"


# Nobody can go back to a user namespace that they came from: they would get its capabilities again.
@kinds(NS.USER)
def test_unshare_moves_the_caller_and_setns_moves_it_back(kind: NS) -> None:
    def there_and_back(flags: int, name: str) -> list[str]:
        import json
        import os

        from labkit.linux.constants import NS
        from labkit.linux.syscalls import setns, unshare

        def seen_by_a_child() -> str:
            # One's own PID and time namespaces never change by unshare: the children are born in the new ones.
            reader, writer = os.pipe()
            pid = os.fork()
            if pid == 0:
                os.write(writer, os.readlink(f"/proc/self/ns/{name}").encode())
                os._exit(0)
            os.waitpid(pid, 0)
            return os.read(reader, 100).decode()

        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            old_fd = os.open(f"/proc/self/ns/{name}", os.O_RDONLY)
            seen = [seen_by_a_child()]
            unshare(NS(flags))
            seen.append(seen_by_a_child())
            setns(old_fd, NS(flags))
            os.write(writer, json.dumps([*seen, seen_by_a_child()]).encode())
            os._exit(0)
        os.close(writer)
        os.waitpid(pid, 0)
        return list(json.loads(os.read(reader, 1000)))

    before, there, back = in_child(there_and_back, int(kind), NS_FILES[kind], namespaces=NS.USER | kind)
    assert before != there
    assert back == before


@requires("uts-namespace", "ipc-namespace")
def test_setns_with_a_pidfd_enters_several_namespaces_at_once() -> None:
    def enter_all() -> list[bool]:
        import os
        import signal
        import subprocess

        from labkit.linux.constants import NS
        from labkit.linux.syscalls import setns

        with subprocess.Popen(
            ["unshare", "--uts", "--ipc", "sh", "-c", "echo; exec sleep 30"], stdout=subprocess.PIPE
        ) as child:
            assert child.stdout is not None
            child.stdout.readline()
            pidfd = os.pidfd_open(child.pid)
            setns(pidfd, NS.UTS | NS.IPC)
            same = [
                os.readlink(f"/proc/self/ns/{kind}") == os.readlink(f"/proc/{child.pid}/ns/{kind}")
                for kind in ("uts", "ipc", "net")
            ]
            child.send_signal(signal.SIGKILL)
        return same

    assert in_child(enter_all, namespaces=NS.USER) == [True, True, True]


@requires("mount-namespace")
def test_a_mount_and_its_flags_show_in_findmnt_and_go_with_umount() -> None:
    def mount_look_umount() -> list[str]:
        import subprocess

        from labkit.linux.constants import MountFlag, Umount
        from labkit.linux.syscalls import mount, umount2

        def findmnt() -> str:
            command = ["findmnt", "--noheadings", "--output", "SOURCE,FSTYPE,VFS-OPTIONS", "--mountpoint", "/mnt"]
            return subprocess.run(command, capture_output=True, text=True).stdout.strip()

        mount("labkit-test", "/mnt", "tmpfs", MountFlag.NOSUID | MountFlag.NODEV | MountFlag.NOEXEC, "size=64k")
        first = findmnt()
        mount(None, "/mnt", None, MountFlag.REMOUNT | MountFlag.BIND | MountFlag.RDONLY | MountFlag.NOSUID)
        second = findmnt()
        umount2("/mnt", Umount.DETACH)
        return [first, second, findmnt()]

    first, second, third = in_child(mount_look_umount, namespaces=ROOT_AND_MOUNTS)
    assert first.split()[:2] == ["labkit-test", "tmpfs"]
    assert {"rw", "nosuid", "nodev", "noexec"} <= set(first.split()[2].split(","))
    assert {"ro", "nosuid"} <= set(second.split()[2].split(","))
    assert third == ""


@requires("mount-namespace")
def test_pivot_root_makes_another_folder_the_root_and_keeps_the_old_one() -> None:
    def pivot() -> list[list[str]]:
        import os

        from labkit.linux.constants import MountFlag, Umount
        from labkit.linux.syscalls import mount, pivot_root, umount2

        mount("labkit-test", "/mnt", "tmpfs", MountFlag(0))
        os.mkdir("/mnt/old")
        os.mkdir("/mnt/fresh")
        pivot_root("/mnt", "/mnt/old")
        os.chdir("/")
        seen = [sorted(os.listdir("/")), sorted({"usr", "proc"} & set(os.listdir("/old")))]
        umount2("/old", Umount.DETACH)
        return [*seen, os.listdir("/old")]

    assert in_child(pivot, namespaces=ROOT_AND_MOUNTS) == [["fresh", "old"], ["proc", "usr"], []]


@requires("mount-namespace")
def test_the_new_mount_calls_make_a_file_system_that_is_nowhere_until_it_is_attached() -> None:
    def make_and_attach() -> list[str]:
        import os
        import subprocess

        from labkit.linux.constants import FsConfigCmd, MountAttr, OpenTreeFlag
        from labkit.linux.syscalls import fsconfig, fsmount, fsopen, mount_setattr, move_mount, open_tree

        def options(path: str) -> str:
            command = ["findmnt", "--noheadings", "--output", "VFS-OPTIONS", "--mountpoint", path]
            return subprocess.run(command, capture_output=True, text=True).stdout.strip()

        fs_fd = fsopen("tmpfs")
        fsconfig(fs_fd, FsConfigCmd.SET_STRING, "size", "64k")
        fsconfig(fs_fd, FsConfigCmd.CREATE)
        mount_fd = fsmount(fs_fd, MountAttr.NOSUID)
        os.mkdir("inside", dir_fd=mount_fd)
        answers = [options("/mnt")]
        move_mount(mount_fd, "/mnt")
        answers.append(options("/mnt"))
        copy_fd = open_tree(-100, "/mnt", OpenTreeFlag.CLONE | OpenTreeFlag.CLOEXEC)
        mount_setattr(copy_fd, "", set_attrs=MountAttr.RDONLY | MountAttr.NOEXEC)
        move_mount(copy_fd, "/mnt/inside")
        answers.append(options("/mnt/inside"))
        try:
            os.mkdir("/mnt/inside/more")
        except OSError as error:
            answers.append(str(error.errno))
        return [*answers, *(str(os.get_inheritable(fd)) for fd in (fs_fd, mount_fd, copy_fd))]

    nowhere, attached, copied, refused, *inheritable = in_child(make_and_attach, namespaces=ROOT_AND_MOUNTS)
    assert nowhere == ""
    assert set(attached.split(",")) >= {"rw", "nosuid"}
    assert set(copied.split(",")) >= {"ro", "nosuid", "noexec"}
    assert int(refused) == errno.EROFS
    assert inheritable == ["False"] * 3


@requires("root", "userns")
def test_an_id_mapped_mount_shows_the_owner_of_the_user_namespace() -> None:
    def map_and_look() -> list[int]:
        import os
        import subprocess

        from labkit.linux.constants import MountAttr, MountFlag, OpenTreeFlag
        from labkit.linux.syscalls import mount, mount_setattr, move_mount, open_tree

        mount("labkit-test", "/mnt", "tmpfs", MountFlag(0))
        os.mkdir("/mnt/plain")
        os.mkdir("/mnt/mapped")
        with subprocess.Popen(["unshare", "--user", "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
            assert child.stdin is not None and child.stdout is not None
            child.stdin.write(b"\n")
            child.stdin.flush()
            child.stdout.read(1)
            for name in ("uid_map", "gid_map"):
                with open(f"/proc/{child.pid}/{name}", "w") as file:
                    file.write("0 70000 10")
            userns_fd = os.open(f"/proc/{child.pid}/ns/user", os.O_RDONLY)
        tree_fd = open_tree(-100, "/mnt/plain", OpenTreeFlag.CLONE | OpenTreeFlag.CLOEXEC)
        mount_setattr(tree_fd, "", set_attrs=MountAttr.IDMAP, userns_fd=userns_fd)
        move_mount(tree_fd, "/mnt/mapped")
        return [os.stat("/mnt/plain").st_uid, os.stat("/mnt/mapped").st_uid]

    assert in_child(map_and_look, namespaces=NS.MNT) == [0, 70000]


def test_no_link_leads_out_of_the_folder_that_open_in_root_takes_for_the_root(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc/passwd").write_text("inside")
    (tmp_path / "secret").write_text("outside")
    (root / "absolute").symlink_to("/etc/passwd")
    (root / "upwards").symlink_to("../../../../../../../../etc/passwd")
    (root / "sneaky").symlink_to("../secret")
    root_fd = os.open(root, os.O_PATH | os.O_CLOEXEC)
    try:
        for name in ("absolute", "upwards", "/etc/passwd", "../../etc/passwd"):
            fd = syscalls.open_in_root(root_fd, name, os.O_RDONLY)
            assert os.read(fd, 100) == b"inside", name
            os.close(fd)
        with pytest.raises(FileNotFoundError, match="openat2"):
            syscalls.open_in_root(root_fd, "sneaky", os.O_RDONLY)
    finally:
        os.close(root_fd)


def test_capget_agrees_with_the_status_of_the_process() -> None:
    fields = dict(line.split(":\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\t" in line)
    shown = tuple(int(fields[key], 16) for key in ("CapEff", "CapPrm", "CapInh"))
    assert syscalls.capget() == shown


@requires("userns")
def test_a_capability_that_is_given_up_cannot_be_taken_back() -> None:
    def drop_and_grow() -> list[object]:
        from labkit.linux.constants import Capability
        from labkit.linux.syscalls import capget, capset

        effective, permitted, _ = capget()
        kept = permitted & ~(1 << Capability.CAP_SYS_ADMIN | 1 << Capability.CAP_CHECKPOINT_RESTORE)
        capset(effective=kept, permitted=kept, inheritable=0)
        fields = dict(line.split(":\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\t" in line)
        try:
            capset(effective=effective, permitted=permitted, inheritable=0)
        except PermissionError as error:
            return [int(fields["CapPrm"], 16) == kept, error.errno]
        return ["it grew again"]

    assert in_child(drop_and_grow, namespaces=NS.USER) == [True, errno.EPERM]


def test_prctl_changes_what_proc_shows_of_the_process() -> None:
    def change() -> list[str]:
        import ctypes

        from labkit.linux.constants import Prctl
        from labkit.linux.syscalls import prctl

        buffer = ctypes.create_string_buffer(b"labkit-test")
        prctl(Prctl.SET_NAME, ctypes.addressof(buffer))
        before = prctl(Prctl.GET_NO_NEW_PRIVS)
        prctl(Prctl.SET_NO_NEW_PRIVS, 1)
        fields = dict(line.split(":\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\t" in line)
        return [fields["Name"], str(before), fields["NoNewPrivs"], str(prctl(Prctl.GET_NO_NEW_PRIVS))]

    name, before, shown, after = in_child(change)
    assert (name, shown, after) == ("labkit-test", "1", "1")
    assert before in ("0", "1")


def test_a_loaded_filter_answers_in_the_kernels_place() -> None:
    def filter_and_try() -> list[object]:
        import os
        import struct

        from labkit.linux.constants import Prctl
        from labkit.linux.steps import syscall_number
        from labkit.linux.syscalls import prctl, seccomp_set_filter

        def instruction(code: int, jump_true: int, jump_false: int, k: int) -> bytes:
            return struct.pack("=HBBI", code, jump_true, jump_false, k)  # linux/filter.h, struct sock_filter

        load_number, jump_if_equal, answer = 0x20, 0x15, 0x06
        program = (
            instruction(load_number, 0, 0, 0)
            + instruction(jump_if_equal, 0, 1, syscall_number("mkdirat"))
            + instruction(answer, 0, 0, 0x0005_0000 | 93)  # SECCOMP_RET_ERRNO with a number that mkdir never gives
            + instruction(answer, 0, 0, 0x7FFF_0000)  # SECCOMP_RET_ALLOW
        )
        prctl(Prctl.SET_NO_NEW_PRIVS, 1)
        seccomp_set_filter(program)
        fields = dict(line.split(":\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\t" in line)
        folder_fd = os.open("/", os.O_PATH)
        try:
            os.mkdir("labkit-never-made", dir_fd=folder_fd)
        except OSError as error:
            return [fields["Seccomp"], error.errno]
        return ["mkdir was let through"]

    assert in_child(filter_and_try) == ["2", 93]


@pytest.mark.parametrize("program", [b"", b"1234567", bytes(8 * 4097), bytes(8 * 65536 + 8)])
def test_what_is_no_filter_is_refused_and_never_cut_to_fit(program: bytes) -> None:
    with pytest.raises(OSError, match="seccomp") as raised:
        syscalls.seccomp_set_filter(program)
    assert raised.value.errno == errno.EINVAL


@pytest.mark.parametrize(
    ("number", "words", "call"),
    [
        (errno.ENOENT, ["mount('labkit'", "'tmpfs'", "MountFlag.NOSUID|MountFlag.NODEV", "'size=1'"],
         lambda: syscalls.mount("labkit", "/no/such", "tmpfs", MountFlag.NOSUID | MountFlag.NODEV, "size=1")),
        (errno.EBADF, ["setns(-1, NS.UTS|NS.NET)"], lambda: syscalls.setns(-1, NS.NET | NS.UTS)),
        (errno.EINVAL, ["clone3(", "NS.PID", "CloneFlag.VM", "0x10000"],
         lambda: syscalls.clone3(NS.PID | CloneFlag.VM | 0x10000, exit_signal=17)),
        (errno.ENOENT, ["open_tree(-100, '/no/such', OpenTreeFlag.CLONE"],
         lambda: syscalls.open_tree(-100, "/no/such", OpenTreeFlag.CLONE)),
        (errno.EINVAL, ["prctl(SET_PDEATHSIG, 9999"], lambda: syscalls.prctl(Prctl.SET_PDEATHSIG, 9999)),
    ],
    ids=["mount", "setns", "clone3", "open_tree", "prctl"],
)  # fmt: skip
def test_an_error_names_the_call_its_flags_and_the_kernels_answer(
    number: int, words: list[str], call: Callable[[], object]
) -> None:
    with pytest.raises(OSError, match=r".") as raised:
        call()
    error = raised.value
    if error.errno == errno.EPERM and os.geteuid() != 0:
        number = errno.EPERM  # an ordinary user is refused before the arguments are looked at
    assert error.errno == number
    for word in words:
        assert word in str(error)
    assert os.strerror(number) in str(error)


def test_an_unknown_bit_of_a_flag_is_shown_as_a_number() -> None:
    with pytest.raises(OSError, match=r"umount2\('/no/such', Umount.DETACH\|0x4000\)"):
        syscalls.umount2("/no/such", Umount.DETACH | Umount(0x4000))


def test_a_text_with_a_nul_is_refused_and_not_cut() -> None:
    with pytest.raises(ValueError, match="embedded null byte"):
        syscalls.mount("labkit", "/tmp\0/elsewhere", "tmpfs", MountFlag(0))


def test_each_call_is_one_line_of_the_debug_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="labkit.linux.syscalls"):
        syscalls.prctl(Prctl.GET_DUMPABLE)
        with pytest.raises(OSError, match="setns"):
            syscalls.setns(-1, NS.NET)
    assert [record.message for record in caplog.records] == [
        "prctl(GET_DUMPABLE, 0, 0, 0, 0) = 1",
        f"setns(-1, NS.NET) = -{errno.EBADF}",
    ]


def test_an_unknown_machine_is_refused_and_not_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    name = os.uname()
    other = os.uname_result((*name[:4], "pdp11"))
    monkeypatch.setattr(os, "uname", lambda: other)
    with pytest.raises(OSError, match="pdp11") as raised:
        syscalls.pivot_root("/", "/")
    assert raised.value.errno == errno.ENOSYS


def test_nothing_that_leads_out_is_opened_beneath_a_folder(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "secret").write_text("outside")
    for name, target in (("up", "../secret"), ("absolute", str(tmp_path / "secret")), ("magic", "/proc/self/root")):
        (tmp_path / "root" / name).symlink_to(target)
    (tmp_path / "root" / "file").write_text("inside")
    (tmp_path / "root" / "link").symlink_to("file")
    root_fd = os.open(tmp_path / "root", os.O_PATH | os.O_CLOEXEC)
    try:
        for name in ("up", "absolute", "magic", "..", "../secret", "/etc/hosts"):
            with pytest.raises(OSError, check=lambda error: error.errno in (errno.EXDEV, errno.ELOOP)):
                syscalls.open_beneath(root_fd, name, os.O_RDONLY)
        fd = syscalls.open_beneath(root_fd, "link", os.O_RDONLY)
        assert os.read(fd, 9) == b"inside"
        os.close(fd)
        fd = syscalls.open_beneath(root_fd, "new", os.O_WRONLY | os.O_CREAT, mode=0o600)
        os.close(fd)
        assert (tmp_path / "root" / "new").stat().st_mode & 0o777 == 0o600
    finally:
        os.close(root_fd)
