from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from labkit.image.rootfs import remove_tree
from labkit.setup.parts import find_busybox
from tests.support import requires
from tests.support.cli import LABKIT, assert_one_sentence, labkit

pytestmark = requires("userns", "overlay-userns", "program:busybox")
TEXT = """FROM scratch
COPY --chmod=755 busybox /bin/sh
COPY app.sh /app.sh
ARG WHO=nobody
RUN echo $WHO > /who
CMD ["/bin/sh", "/app.sh"]
"""


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    yield {**os.environ, "LABKIT_STATE": str(tmp_path / "state")}
    remove_tree(tmp_path / "state")


@pytest.fixture
def context(tmp_path: Path) -> Path:
    busybox = find_busybox()
    assert busybox is not None
    folder = tmp_path / "context"
    folder.mkdir()
    (folder / "busybox").write_bytes(busybox.read_bytes())
    (folder / "app.sh").write_text("read who < /who; echo hello $who\n")
    (folder / "Containerfile").write_text(TEXT)
    return folder


def test_a_build_shows_its_steps_and_the_image_runs(environment: dict[str, str], context: Path) -> None:
    first = labkit("image", "build", "-t", "app:1", "--build-arg", "WHO=you", str(context), env=environment)
    assert first.returncode == 0, first.stderr
    assert re.fullmatch(r"sha256:[0-9a-f]{64}\n", first.stdout)
    assert [line.split()[0] for line in first.stderr.splitlines()] == [f"{n}/6" for n in range(1, 7)]
    assert first.stderr.count("miss: it was not built before") == 5
    again = labkit("image", "build", "-t", "app:1", "--build-arg", "WHO=you", str(context), env=environment)
    assert again.stdout == first.stdout
    assert again.stderr.count("cached") == 5
    assert "miss" not in again.stderr
    done = labkit("run", "--image", "app:1", env=environment)
    assert done.stdout == "hello you\n", done.stderr


def test_quiet_and_plain(environment: dict[str, str], context: Path) -> None:
    plain = labkit("image", "build", "--progress", "plain", "-t", "app:1", str(context), env=environment)
    assert plain.stderr.startswith("Step 1/6 : FROM scratch\n --->")
    assert plain.stderr.endswith("Successfully tagged app:1\n")
    quiet = labkit("image", "build", "-q", str(context), env=environment)
    assert (quiet.stderr, quiet.stdout) == ("", plain.stdout)


def test_containerfile_or_context_may_come_from_standard_input(environment: dict[str, str], context: Path) -> None:
    direct = labkit("image", "build", "-q", str(context), env=environment)
    text = labkit("image", "build", "-q", "-f", "-", str(context), data=TEXT, env=environment)
    assert text.stdout == direct.stdout
    tar = subprocess.run(["tar", "-C", str(context), "-c", "."], capture_output=True, check=True).stdout
    streamed = subprocess.run(
        [*LABKIT, "image", "build", "-q", "-"], input=tar, capture_output=True, check=True, env=environment, timeout=60
    )
    assert streamed.stdout.decode() == direct.stdout


@pytest.mark.parametrize(
    ("words", "text", "status", "said"),
    [
        ((), "FROM scratch\nFOO x\n", 2, "dockerfile parse error on line 2: unknown instruction: FOO"),
        ((), "FROM nowhere\n", 1, "pull access denied for nowhere"),
        ((), "FROM scratch\nCOPY gone /\n", 1, "file not found in build context"),
        (("--target", "x"), "FROM scratch\n", 2, "failed to reach build target x"),
        (("--build-arg", "=1"), "FROM scratch\n", 2, "write NAME=VALUE"),
        (("--source-date-epoch", "soon"), "FROM scratch\n", 2, "whole seconds since 1970, or now"),
        (("-t", "Bad Name"), "FROM scratch\n", 2, "Bad Name"),
    ],
)  # fmt: skip
def test_an_error_is_one_sentence(
    environment: dict[str, str], context: Path, words: tuple[str, ...], text: str, status: int, said: str
) -> None:
    done = labkit("image", "build", "-q", "-f", "-", *words, str(context), data=text, env=environment)
    assert done.returncode == status, done.stderr
    assert_one_sentence(done.stderr)
    assert said in done.stderr


def test_a_folder_that_is_not_there_is_named(environment: dict[str, str], tmp_path: Path) -> None:
    done = labkit("image", "build", str(tmp_path / "gone"), env=environment)
    assert done.returncode == 2
    assert "gone" in done.stderr
    assert_one_sentence(done.stderr)
