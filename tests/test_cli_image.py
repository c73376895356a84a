"""``labkit image`` and ``labkit run --image`` as a person types them, in a state folder of the test's own."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from labkit.commands.image.table import age_of, clean
from labkit.image.rootfs import remove_tree
from labkit.image.store import ImageStore
from tests.image.samples import busybox_image
from tests.image.tars import FILE, entry, tar
from tests.support import requires
from tests.support.cli import assert_one_sentence, labkit

pytestmark = requires("userns", "program:busybox")
Typed = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def typed(tmp_path: Path) -> Iterator[Typed]:
    """Run the command line with a store that has one image, sample:1."""
    busybox_image(ImageStore(tmp_path / "state" / "images"), "sample:1")
    environment = {**os.environ, "LABKIT_STATE": str(tmp_path / "state")}
    yield lambda *words, **options: labkit(*words, env=environment, **options)
    remove_tree(tmp_path / "state")


def output(done: subprocess.CompletedProcess[str]) -> str:
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_images_are_listed_with_name_id_and_size(typed: Typed) -> None:
    (row,) = json.loads(output(typed("image", "ls", "--json")))
    assert (row["repository"], row["tag"]) == ("sample", "1")
    head, line = output(typed("image", "ls")).splitlines()
    assert head.split() == ["REPOSITORY", "TAG", "ID", "CREATED", "SIZE"]
    assert row["id"][7:19] in line
    assert output(typed("image", "ls", "-q")).strip() == row["id"][7:19]


def test_an_image_is_looked_into(typed: Typed) -> None:
    (seen,) = json.loads(output(typed("image", "inspect", "sample:1")))
    assert seen["config"]["config"]["User"] == "web"
    assert len(seen["layers"]) == 3
    history = output(typed("image", "history", "sample:1")).splitlines()
    assert [line.split()[-1] for line in history[1:]] == ["changes", "files", "web", "busybox"]
    assert output(typed("image", "diff", "sample:1")).splitlines() == [
        "D /srv/dir/inside",
        "A /srv/dir/new",
        "D /srv/old",
    ]


def test_an_image_gets_and_loses_names(typed: Typed) -> None:
    output(typed("image", "tag", "sample:1", "two", "localhost:5000/three:x"))
    assert output(typed("image", "rm", "two", "sample:1")).splitlines() == [
        "untagged: docker.io/library/two:latest", "untagged: docker.io/library/sample:1",
    ]  # fmt: skip
    assert "deleted: sha256:" in output(typed("image", "rm", "localhost:5000/three:x"))
    assert output(typed("image", "ls")).splitlines()[1:] == []


def test_an_image_travels_through_a_file_a_pipe_and_a_layout(typed: Typed, tmp_path: Path) -> None:
    output(typed("image", "save", "-o", str(tmp_path / "a.tar"), "sample:1"))
    output(typed("image", "save", "--layout", str(tmp_path / "layout"), "sample:1"))
    for source in ("a.tar", "layout"):
        output(typed("image", "rm", "sample:1"))
        loaded = output(typed("image", "load", "-i", str(tmp_path / source), "--tag", "also"))
        assert loaded == "loaded: docker.io/library/sample:1, also\n"
        output(typed("image", "rm", "also"))
    assert sorted(os.listdir(tmp_path)) == ["a.tar", "layout", "state"]


def test_files_go_out_and_come_in_as_tar(typed: Typed, tmp_path: Path) -> None:
    output(typed("image", "export", "-o", str(tmp_path / "e.tar"), "sample:1"))
    assert "srv/page" in tarfile.open(tmp_path / "e.tar").getnames()
    image_id = output(typed("image", "import", "--cmd", "/bin/echo 'a b'", str(tmp_path / "e.tar"), "flat")).strip()
    assert image_id.startswith("sha256:")
    assert output(typed("run", "--image", "flat")) == "a b\n"


def test_du_before_and_after_prune(typed: Typed, tmp_path: Path) -> None:
    store = ImageStore(tmp_path / "state" / "images")
    store.blobs.put(b"x" * 2048, "text/plain")
    assert json.loads(output(typed("image", "du", "--json")))["unreachable_bytes"] == 2048
    assert "needed by nothing: 2 KiB" in output(typed("image", "du"))
    assert output(typed("image", "prune")).splitlines()[-1] == "freed: 2 KiB"
    assert json.loads(output(typed("image", "du", "--json")))["unreachable_bytes"] == 0
    assert "untagged: docker.io/library/sample:1" in output(typed("image", "prune", "--all"))


@requires("overlay-userns")
def test_an_image_is_run_with_its_settings_and_with_mine(typed: Typed) -> None:
    as_root = ("run", "--image", "sample:1", "--user", "0:0")
    assert output(typed(*as_root)) == "from cmd\n"
    assert output(typed(*as_root, "--", "my", "words")) == "my words\n"
    assert output(typed(*as_root, "--entrypoint", "/bin/pwd")) == "/srv\n"
    assert output(typed(*as_root, "--cwd", "/tmp", "--entrypoint", "", "/bin/pwd")) == "/tmp\n"
    done = typed(*as_root, "--entrypoint", "", "nowhere")
    assert done.returncode == 127
    assert_one_sentence(done.stderr)


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("image", "inspect", "nowhere"), 1),
        (("image", "inspect", "Bad/Name"), 2),
        (("image", "rm", "nowhere"), 1),
        (("image", "tag", "sample:1", "Bad/Name"), 2),
        (("image", "save", "-o", "/nowhere/x.tar", "sample:1"), 1),
        (("image", "load", "-i", "/nowhere/x.tar"), 1),
        (("image", "load", "-i", "/etc/hostname"), 1),
        (("image", "load", "-i", "/etc"), 1),
        (("image", "import", "/etc/hostname", "x"), 1),
        (("image", "import", "--env", "X", "/etc/hostname", "x"), 2),
        (("image", "inspect", "--platform", "x", "sample:1"), 2),
        (("image", "inspect", "--platform", "linux/s390x", "sample:1"), 0),
        (("run", "--image", "nowhere"), 1),
        (("run", "--entrypoint", "x", "true"), 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_what_goes_wrong_is_one_sentence(typed: Typed, words: tuple[str, ...], status: int) -> None:
    done = typed(*words)
    assert done.returncode == status
    if status:
        assert_one_sentence(done.stderr)


def test_an_unknown_subcommand_is_wrong_use(typed: Typed) -> None:
    assert typed("image", "frobnicate").returncode == 2
    assert typed("image").returncode == 2
    assert "prune" in output(typed("image", "--help"))


def test_half_done_things_are_found_and_removed_by_clean(typed: Typed, tmp_path: Path) -> None:
    half = tmp_path / "state/images/tmp/labkit-0123"
    half.write_bytes(b"half")
    assert f"left over: half-done image content {half}" in typed("clean", "--check").stdout
    ImageStore(tmp_path / "state" / "images").prune()
    assert not half.exists()


def test_names_of_strangers_cannot_move_the_cursor(typed: Typed, tmp_path: Path) -> None:
    (tmp_path / "evil.tar").write_bytes(tar(entry(FILE, "a\x1b[2Jb\nc", b"x")))
    output(typed("image", "import", "-m", "\x1b[2J", str(tmp_path / "evil.tar"), "evil"))
    for words in (("diff", "evil"), ("history", "evil")):
        assert "\x1b" not in output(typed("image", *words))
    assert clean("a\x1b\u202eb") == "a??b"


@pytest.mark.parametrize(
    ("text", "shown"),
    [("", ""), ("1970-01-01T00:00:00Z", "long ago"), ("never", ""), ("2999-01-01T00:00:00", "0 seconds ago")],
)
def test_ages_are_shown_in_words(text: str, shown: str) -> None:
    assert age_of(text) == shown
