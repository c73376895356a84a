"""Archives for the kernel, read by programs that are not labkit's."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from labkit.errors import InvalidSpec
from labkit.vm.cpio import Entry, device, file, folder, link, pack_cpio
from tests.support import requires

ENTRIES = [
    folder("bin"),
    file("bin/program", b"#!/bin/sh\n", permissions=0o755),
    file("odd", b"12345"),
    file("empty", b""),
    link("alias", "bin/program"),
    folder("tmp", permissions=0o1777),
    device("console", 5, 1),
]


@requires("program:busybox")
def test_busybox_lists_what_was_packed() -> None:
    shown = subprocess.run(["busybox", "cpio", "-tv"], input=pack_cpio(ENTRIES), capture_output=True, check=True)
    rows = [line.split() for line in shown.stdout.decode().splitlines()]
    by_name = {row[-1] if "->" not in row else row[-3]: row for row in rows}
    assert list(by_name) == ["bin", "bin/program", "odd", "empty", "alias", "tmp", "console"]
    assert by_name["bin/program"][0] == "-rwxr-xr-x"
    assert by_name["tmp"][0] == "drwxrwxrwt"
    assert by_name["alias"][-1] == "bin/program"
    assert by_name["console"][0] == "crw-------"
    assert all(row[1] == "0/0" for row in rows)


@requires("program:busybox")
def test_what_is_unpacked_has_the_same_bytes(tmp_path: Path) -> None:
    content = bytes(range(256)) * 1001
    archive = pack_cpio([folder("a"), folder("a/b"), file("a/b/c", content), file("last", b"x")])
    subprocess.run(["busybox", "cpio", "-i"], cwd=tmp_path, input=archive, capture_output=True, check=True)
    assert (tmp_path / "a/b/c").read_bytes() == content
    assert (tmp_path / "last").read_bytes() == b"x"


def test_the_same_entries_give_the_same_bytes() -> None:
    assert pack_cpio(ENTRIES) == pack_cpio(list(ENTRIES))
    assert len(pack_cpio(ENTRIES)) % 4 == 0


@pytest.mark.parametrize("path", ["/bin", "", "a\0b"])
def test_a_bad_path_is_refused(path: str) -> None:
    with pytest.raises(InvalidSpec, match="no path of an archive"):
        pack_cpio([Entry(path, 0o100644)])
