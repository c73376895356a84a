"""Files in and out, by the agent as a process of this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from labkit.errors import GuestError, InvalidSpec
from labkit.vm.files import read_file, write_file
from tests.vm.local_agent import LocalAgent, local_agent

pytestmark = pytest.mark.skipif(os.uname().machine != "x86_64", reason="the agent is written for x86-64")


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAgent]:
    """An agent for all tests of this module."""
    with local_agent(tmp_path_factory.mktemp("agent")) as made:
        yield made


def write(agent: LocalAgent, content: bytes, path: Path, permissions: int = 0o644) -> None:
    write_file(agent.port, "x86_64", content, str(path), permissions=permissions, timeout_s=20)


@pytest.mark.parametrize("size", [0, 1, 262144, 262145, 3_000_000])
def test_a_file_of_any_size_arrives_whole_in_both_directions(agent: LocalAgent, tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    write(agent, content, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == content
    assert read_file(agent.port, "x86_64", str(tmp_path / "file"), timeout_s=20) == content
    assert os.listdir(tmp_path) == ["file"]


def test_permissions_are_as_given_whatever_the_umask(agent: LocalAgent, tmp_path: Path) -> None:
    write(agent, b"#!/bin/sh\n", tmp_path / "script", 0o777)
    assert (tmp_path / "script").stat().st_mode & 0o7777 == 0o777


def test_an_old_file_is_replaced_at_once(agent: LocalAgent, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old and longer")
    write(agent, b"new", tmp_path / "file")
    assert (tmp_path / "file").read_text() == "new"


def test_a_refusal_names_the_file_and_leaves_no_part_of_it(agent: LocalAgent, tmp_path: Path) -> None:
    with pytest.raises(GuestError, match=r"could not write /no/such/folder/file: No such file"):
        write(agent, b"x", Path("/no/such/folder/file"))
    with pytest.raises(GuestError, match="could not read /no/such/file"):
        read_file(agent.port, "x86_64", "/no/such/file", timeout_s=5)
    (tmp_path / "folder").mkdir()
    with pytest.raises(GuestError, match="Is a directory"):
        write(agent, b"x", tmp_path / "folder")
    with pytest.raises(InvalidSpec, match="begin it with a slash"):
        read_file(agent.port, "x86_64", "relative", timeout_s=5)
    assert os.listdir(tmp_path) == ["folder"]


def test_a_file_that_opens_and_cannot_be_read_is_an_error(agent: LocalAgent) -> None:
    with pytest.raises(GuestError, match="could not read /proc/self/mem"):
        read_file(agent.port, "x86_64", "/proc/self/mem", timeout_s=5)


def test_no_descriptor_stays_open(agent: LocalAgent, tmp_path: Path) -> None:
    write(agent, b"x", tmp_path / "file")
    read_file(agent.port, "x86_64", str(tmp_path / "file"), timeout_s=5)
    before = agent.open_files()
    for _ in range(20):
        write(agent, b"x", tmp_path / "file")
        read_file(agent.port, "x86_64", str(tmp_path / "file"), timeout_s=5)
    assert agent.open_files() <= before + 1
