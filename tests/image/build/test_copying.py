from __future__ import annotations

import io
import subprocess
import tarfile
import tempfile
from functools import partial
from pathlib import Path

import pytest

from labkit.image.build.archive import MOST_ENTRIES
from labkit.image.build.context import Context, find_containerfile
from labkit.image.build.copying import CopyPlan, check_sources, parse_chmod, plan_copy, select_sources
from labkit.image.build.errors import BuildError, ContainerfileError
from labkit.image.build.items import Item, Owner
from labkit.image.build.tree import Tree
from tests.image.build.corpus import write_context
from tests.image.build.test_tree import fill
from tests.support import requires


@pytest.fixture
def context(tmp_path: Path) -> Context:
    folder = tmp_path / "context"
    folder.mkdir()
    return Context.of(write_context(folder))


def copied(
    context: Context, sources: str, target: str, *, image: str = "", plan: CopyPlan | None = None, tmp: Path
) -> dict[str, Item]:
    """Return what COPY puts into the layer over an image that holds ``image``, by path, without folders that were there."""
    root = tmp / "image"
    root.mkdir(exist_ok=True)
    below = Tree([fill(root, image)], layers=True)
    selected = select_sources(context.tree, sources.split(), where="build context")
    plan = plan or CopyPlan(target, "/")
    scratch = partial(tempfile.mkdtemp, dir=tmp)
    items = plan_copy(selected, plan, below, lambda _: Owner(9, 9), lambda: Path(scratch()), line=3)
    return {item.path: item for item in items}


@pytest.mark.parametrize(
    ("sources", "target", "image", "expected"),
    [
        ("app.py", "/a.py", "", "a.py"),
        ("app.py", "/d/", "", "d d/app.py"),
        ("app.py", "d", "d/", "d d/app.py"),
        ("app.py", "/d", "e/ d->e", "e e/app.py"),
        ("app.py", "/x/y/z", "x/", "x x/y x/y/z"),
        ("app.py run.sh", "/d/", "", "d d/app.py d/run.sh"),
        ("app.py", ".", "", "app.py"),
        ("conf", "/c", "", "c c/a.conf c/b.conf c/link.conf"),
        ("conf/", "/c/", "c/", "c c/a.conf c/b.conf c/link.conf"),
        ("conf", "/", "", "a.conf b.conf link.conf"),
        ("data/*.txt", "/d/", "", "d d/one.txt d/two.txt"),
        ("*/[a-b].conf", "/d/", "", "d d/a.conf d/b.conf"),
        ("link.py", "/d/", "", "d d/link.py"),
        (".", "/bin", "usr/bin/ bin->usr/bin", "usr usr/bin usr/bin/.dockerignore usr/bin/app.py usr/bin/conf"
         " usr/bin/conf/a.conf usr/bin/conf/b.conf usr/bin/conf/link.conf usr/bin/data usr/bin/data/one.txt"
         " usr/bin/data/three.md usr/bin/data/two.txt usr/bin/link.py usr/bin/run.sh usr/bin/with~space.txt"),
    ],
)  # fmt: skip
def test_files_end_up_where_docker_puts_them(
    context: Context, tmp_path: Path, sources: str, target: str, image: str, expected: str
) -> None:
    found = copied(context, sources, target, image=image, tmp=tmp_path)
    assert sorted(found) == sorted(path.replace("~", " ") for path in expected.split())


def test_what_is_new_belongs_to_root_and_what_was_there_keeps_its_owner(context: Context, tmp_path: Path) -> None:
    found = copied(context, "run.sh", "/old/new/", image="old/", tmp=tmp_path)
    assert found["old"].owner == Owner(9, 9)
    assert (found["old/new"].owner, found["old/new"].mode) == (Owner(), 0o755)
    assert (found["old/new/run.sh"].owner, found["old/new/run.sh"].mode) == (Owner(), 0o755)


def test_chown_and_chmod_hold_for_all_that_is_copied(context: Context, tmp_path: Path) -> None:
    plan = CopyPlan("/d/", "/", Owner(5, 6), mode=0o711)
    found = copied(context, "app.py conf", "", plan=plan, tmp=tmp_path)
    assert {item.owner for item in found.values()} == {Owner(5, 6)}
    assert found["d/app.py"].mode == 0o711
    assert found["d/link.conf"].mode == 0o777


def test_a_relative_target_lies_in_the_working_folder(context: Context, tmp_path: Path) -> None:
    assert "srv/w/x" in copied(context, "app.py", "", plan=CopyPlan("x", "/srv/w"), tmp=tmp_path)


@pytest.mark.parametrize(
    ("sources", "target", "image", "words"),
    [
        (
            "nothing",
            "/a",
            "",
            "COPY failed: file not found in build context or excluded by .dockerignore: stat nothing",
        ),
        ("secret.key", "/a", "", "excluded by .dockerignore: stat secret.key"),
        ("*.none", "/a", "", "no source files were specified"),
        ("../x", "/a", "", "forbidden path outside the build context: ../x"),
        ("conf/../../x", "/a", "", "forbidden path outside the build context"),
        ("app.py run.sh", "/a", "", "destination must be a directory and end with a /"),
        ("app.py", "/f/x", "f", "cannot copy to non-directory: /f"),
        ("conf", "/f", "f", "cannot copy to non-directory: /f"),
        ("app.py", "/d/", "d/app.py/", "cannot copy a file over the folder /d/app.py"),
        ("[", "/a", "", "is no pattern"),
    ],
)
def test_what_cannot_be_copied_is_said_as_docker_says_it(
    context: Context, tmp_path: Path, sources: str, target: str, image: str, words: str
) -> None:
    with pytest.raises(BuildError) as caught:
        copied(context, sources, target, image=image, tmp=tmp_path)
    assert words in str(caught.value)


def test_a_name_that_would_delete_cannot_be_copied(context: Context, tmp_path: Path) -> None:
    (context.folder / "data/.wh.one.txt").write_text("")
    with pytest.raises(BuildError, match="means a deletion in a layer"):
        copied(context, "data", "/d/", tmp=tmp_path)


def test_a_link_out_of_the_context_copies_nothing_from_there(context: Context, tmp_path: Path) -> None:
    (tmp_path / "host.txt").write_text("host")
    (context.folder / "way_out").symlink_to(tmp_path / "host.txt")
    with pytest.raises(BuildError, match="file not found in build context"):
        copied(context, "way_out", "/a", tmp=tmp_path)


@pytest.mark.parametrize("source", ["http://example.org/a.tar", "HTTPS://x/y", "git@example.org:a.git", "git://x"])
def test_remote_sources_are_refused_with_the_remedy(source: str) -> None:
    with pytest.raises(BuildError, match="download it into the context first"):
        check_sources([source], "ADD", line=1)


@pytest.mark.parametrize(("text", "mode"), [("755", 0o755), ("0644", 0o644), ("4711", 0o4711), ("", None)])
def test_a_mode_is_octal(text: str, mode: int | None) -> None:
    assert parse_chmod(text, line=1) == mode


@pytest.mark.parametrize("text", ["u+x", "9", "77777", "7"])
def test_any_other_mode_is_refused(text: str) -> None:
    with pytest.raises(BuildError, match="invalid chmod parameter"):
        parse_chmod(text, line=1)


def archive(path: Path, members: list[tarfile.TarInfo], kind: str = "gz") -> None:
    with tarfile.open(path, f"w:{kind}") as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(b"x" * member.size))


def member(name: str, kind: bytes = tarfile.REGTYPE, **fields: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.size = 3 if kind == tarfile.REGTYPE else 0
    for key, value in fields.items():
        setattr(info, key, value)
    return info


@pytest.mark.parametrize("kind", ["", "gz", "bz2", "xz"])
def test_add_unpacks_archives_and_copy_does_not(context: Context, tmp_path: Path, kind: str) -> None:
    archive(context.folder / "p", [member("d", tarfile.DIRTYPE, mode=0o700), member("d/f", uid=3, mode=0o640)], kind)
    assert sorted(copied(context, "p", "/t/", tmp=tmp_path)) == ["t", "t/p"]
    found = copied(context, "p", "", plan=CopyPlan("/t/", "/", unpacks=True), tmp=tmp_path)
    assert sorted(found) == ["t", "t/d", "t/d/f"]
    assert (found["t/d/f"].owner, found["t/d/f"].mode, found["t/d"].mode) == (Owner(3, 0), 0o640, 0o700)
    owned = copied(context, "p", "", plan=CopyPlan("/t/", "/", Owner(7, 7), None, True, False), tmp=tmp_path)
    assert {item.owner for item in owned.values()} == {Owner(7, 7)}


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ([member("../x")], "leads out of its folder"),
        ([member("a/../../x")], "leads out of its folder"),
        ([member("a", tarfile.SYMTYPE, linkname="/etc"), member("a/x")], "leads through a link"),
        ([member("dev", tarfile.CHRTYPE)], "is a device or a FIFO"),
        ([member("fifo", tarfile.FIFOTYPE)], "is a device or a FIFO"),
        ([member("h", tarfile.LNKTYPE, linkname="nowhere")], "which is not in it"),
        ([member(".wh.x")], "means a deletion"),
    ],
)
def test_a_bad_archive_is_refused_by_the_name_of_its_entry(
    context: Context, tmp_path: Path, members: list[tarfile.TarInfo], words: str
) -> None:
    archive(context.folder / "p", members)
    with pytest.raises(BuildError, match=words):
        copied(context, "p", "", plan=CopyPlan("/t/", "/", unpacks=True), tmp=tmp_path)


def test_an_archive_with_too_many_entries_is_refused(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert MOST_ENTRIES >= 100_000
    monkeypatch.setattr("labkit.image.build.archive.MOST_ENTRIES", 3)
    archive(context.folder / "p", [member(f"f{n}") for n in range(5)])
    with pytest.raises(BuildError, match=r"'f3' of /p is refused: it holds more than 3 entries"):
        copied(context, "p", "", plan=CopyPlan("/t/", "/", unpacks=True), tmp=tmp_path)


def test_an_archive_that_breaks_off_is_refused(context: Context, tmp_path: Path) -> None:
    archive(context.folder / "p", [member("a", size=60_000), member("b", size=60_000)], "")
    data = (context.folder / "p").read_bytes()
    (context.folder / "p").write_bytes(data[:70_000])
    with pytest.raises(BuildError, match="breaks off"):
        copied(context, "p", "", plan=CopyPlan("/t/", "/", unpacks=True), tmp=tmp_path)


def test_the_containerfile_is_found_by_either_name(tmp_path: Path) -> None:
    with pytest.raises(ContainerfileError, match="open Containerfile: no such file"):
        find_containerfile(tmp_path)
    (tmp_path / "Dockerfile").write_text("FROM a\n")
    assert find_containerfile(tmp_path).name == "Dockerfile"
    (tmp_path / "Containerfile").write_text("FROM a\n")
    assert find_containerfile(tmp_path).name == "Containerfile"
    assert find_containerfile(tmp_path, "Dockerfile").name == "Dockerfile"


@requires("program:zstd", "program:tar")
def test_gnu_tars_sparse_files_and_zstd_are_unpacked(context: Context, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    with (source / "holes").open("wb") as file:
        file.truncate(1 << 20)
        file.seek(600_000)
        file.write(b"in the middle")
    subprocess.run(["tar", "--sparse", "--zstd", "-cf", context.folder / "p", "-C", source, "holes"], check=True)
    found = copied(context, "p", "", plan=CopyPlan("/t/", "/", unpacks=True), tmp=tmp_path)
    item = found["t/holes"]
    assert item.open is not None
    with item.open() as file:
        assert file.read() == (source / "holes").read_bytes()


def test_a_hard_link_in_an_archive_becomes_a_copy(context: Context, tmp_path: Path) -> None:
    archive(context.folder / "p", [member("a"), member("d/b", tarfile.LNKTYPE, linkname="a")])
    found = copied(context, "p", "", plan=CopyPlan("/t/", "/", unpacks=True), tmp=tmp_path)
    assert found["t/d/b"].size_bytes == found["t/a"].size_bytes == 3
