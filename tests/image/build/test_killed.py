"""Builds that are killed, and builds side by side: what was acknowledged is whole, the rest goes away."""

from __future__ import annotations

import hashlib
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from labkit.image.build.builder import build
from labkit.image.store import ImageStore
from tests.image.build.corpus import BASE
from tests.image.build.killing import text_of
from tests.support import PROJECT, requires
from tests.support.cli import LABKIT

pytestmark = requires("userns", "overlay-userns", "program:busybox")
TIMES = 50


def check_whole(store: ImageStore, name: str) -> None:
    """Demand that an image has all its blobs, with the bytes that their names promise."""
    image = store.image(name)
    for part in (image.descriptor, *image.manifest.references):
        with store.blobs.path(part.digest).open("rb") as file:
            assert hashlib.file_digest(file, "sha256").hexdigest() == part.digest[7:]


def test_builds_killed_at_any_moment_leave_nothing_that_is_not_collected(store: ImageStore, context: Path) -> None:
    (context / "big").write_bytes(os.urandom(1 << 20))
    times_s = []
    for number in (1000, 1001, 1002):
        begun_s = time.monotonic()
        build(context, containerfile=text_of(number).encode(), store=store)
        times_s.append(time.monotonic() - begun_s)
    done = subprocess.run(
        [sys.executable, "-m", "tests.image.build.killing", str(TIMES), str(1.5 * statistics.median(times_s)), str(store.root),
         str(context)], capture_output=True, text=True, timeout=110, check=False, cwd=PROJECT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    again = ImageStore(store.root)
    named = {entry.name for entry in again.entries() if "killed" in entry.name}
    acknowledged = {f"docker.io/library/killed:{line.split()[1]}" for line in done.stdout.splitlines()}
    assert acknowledged <= named
    for name in (*named, BASE):
        check_whole(again, name)
    again.prune(build_cache=True)
    assert list(again.blobs.tmp.iterdir()) == []
    assert list(again.blobs.leases.folder.iterdir()) == []
    for number in range(0, TIMES, 10):
        made = build(context, containerfile=text_of(number).encode(), store=again, tags=[f"killed:{number}"])
        check_whole(again, made.references[0])


def test_builds_and_prunes_side_by_side_disturb_nobody(store: ImageStore, context: Path) -> None:
    (context / "Containerfile").write_text(
        f"FROM {BASE}\nCOPY . /c/\nRUN echo 1 > /one\nRUN cat /c/app.py /one > /two\nWORKDIR /w/x\n"
    )
    environment = {**os.environ, "LABKIT_STATE": str(store.root.parent)}
    (store.root.parent / "images").symlink_to(store.root)
    commands = [
        ["image", "build", "-q", "-t", f"side:{n}", *(["--no-cache"] if n % 2 else []), str(context)] for n in range(4)
    ]
    commands += [["image", "prune"]] * 3
    running = [
        subprocess.Popen(
            [*LABKIT, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=PROJECT
        )
        for words in commands
    ]
    answers = [process.communicate(timeout=100) for process in running]
    assert [process.returncode for process in running] == [0] * len(commands), answers
    assert len({out for out, _ in answers[:4]}) == 1
    for number in range(4):
        check_whole(store, f"side:{number}")
