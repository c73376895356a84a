"""labkit's builds against those of buildah: the same Containerfiles give the same configuration and the same file tree."""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
import subprocess
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from labkit.image.build.builder import build
from labkit.image.store import ImageStore
from tests.image.build.corpus import BASE, BUILDS, Case, write_context
from tests.image.build.stores import Node, build_base, config_of, flatten
from tests.support import requires

KEYS = ("Env", "Cmd", "Entrypoint", "User", "WorkingDir", "Labels", "ExposedPorts", "Volumes", "StopSignal", "Shell")
CASES = [case for case in BUILDS if case.built]
#: What buildah leaves in an image after a RUN, because it mounts something there.
LEFT = ("etc/hosts", "etc/resolv.conf", "etc/hostname", "run/.containerenv", "run/secrets")


@dataclass(frozen=True)
class Buildah:
    """buildah with a storage of its own."""

    folder: Path

    def __call__(self, *words: str) -> str:
        command = [
            "buildah",
            "--root",
            f"{self.folder}/root",
            "--runroot",
            f"{self.folder}/run",
            "--storage-driver",
            "overlay",
        ]
        done = subprocess.run([*command, *words], capture_output=True, text=True, timeout=100, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def build(self, case: Case, context: Path, number: int) -> tuple[dict[str, Any], dict[str, Node]]:
        """Return configuration and file tree of what buildah builds."""
        file = self.folder / f"{number}.Containerfile"
        file.write_text(case.text)
        arguments = [word for name, value in case.build_args.items() for word in ("--build-arg", f"{name}={value}")]
        target = ["--target", case.target] if case.target else []
        name = f"localhost/case:{number}"
        self(
            "bud", "-q", "--isolation", "chroot", "--pull-never", "--format", "docker", "-t", name, *arguments, *target,
            "-f", str(file), str(context),
        )  # fmt: skip
        config = json.loads(self("inspect", "--type", "image", name))["Docker"]["config"]
        if not makes_files(case):
            return config, {}
        container = self("from", "--pull-never", name)
        return config, dict(tree_of(Path(self("mount", container))))

    def close(self) -> None:
        """Take away what is still mounted."""
        with open("/proc/self/mounts") as file:
            places = [line.split()[1] for line in file if f" {self.folder}/" in line]
        for place in reversed(places):
            subprocess.run(["umount", place], check=True)


def makes_files(case: Case) -> bool:
    """Say whether a case changes the file tree."""
    return any(word in case.text.upper() for word in ("RUN ", "COPY ", "ADD ", "WORKDIR "))


@pytest.fixture
def buildah(tmp_path: Path) -> Iterator[Buildah]:
    found = Buildah(tmp_path)
    yield found
    found.close()


def tree_of(root: Path) -> Iterator[tuple[str, Node]]:
    """Yield everything below ``root``."""
    for folder, folders, files in os.walk(root):
        for name in [*folders, *files]:
            path = Path(folder, name)
            status = path.lstat()
            mode, ids = stat.S_IMODE(status.st_mode), (status.st_uid, status.st_gid)
            if path.is_symlink():
                node: Node = ("link", 0o777, *ids, os.readlink(path))
            elif path.is_dir():
                node = ("folder", mode, *ids, "")
            else:
                node = ("file", mode, *ids, hashlib.sha256(path.read_bytes()).hexdigest())
            yield str(path.relative_to(root)), node


def archive(path: Path) -> None:
    """Write the archive that a case of the corpus unpacks."""
    with tarfile.open(path, "w:gz") as tar:
        for name, kind in (("in", tarfile.DIRTYPE), ("in/a.txt", tarfile.REGTYPE), ("in/l", tarfile.SYMTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.uid, member.gid, member.mtime = kind, 11, 12, 1_000_000_000
            member.mode = 0o750 if kind == tarfile.DIRTYPE else 0o640
            member.linkname = "a.txt" if kind == tarfile.SYMTYPE else ""
            member.size = 3 if kind == tarfile.REGTYPE else 0
            tar.addfile(member, io.BytesIO(b"abc"))


@requires("root", "overlay", "program:buildah", "program:busybox")
@pytest.mark.timeout(300)
def test_buildah_builds_the_same_images(buildah: Buildah, tmp_path: Path) -> None:
    store = ImageStore(tmp_path / "store")
    build_base(store, tmp_path / "base")
    context = tmp_path / "context"
    context.mkdir()
    archive(write_context(context) / "pack.tar.gz")
    image = buildah("pull", "-q", f"oci:{store.root}:{BASE}")
    buildah("tag", image, BASE)
    with ThreadPoolExecutor(3) as pool:
        theirs = [pool.submit(buildah.build, case, context, number) for number, case in enumerate(CASES)]
        different = []
        for case, answer in zip(CASES, theirs, strict=True):
            made = build(
                context, containerfile=case.text.encode(), store=store, build_args=case.build_args, target=case.target
            )
            config, tree = answer.result()
            different += differences(case, "config", comparable(config_of(store, made)["config"]), comparable(config))
            if makes_files(case):
                theirs_tree = {path: node for path, node in tree.items() if not is_left(path, node)}
                different += differences(case, "tree", flatten(store, made), theirs_tree)
    assert not different, "\n".join(different)
    assert len(CASES) >= 25


def differences(case: Case, what: str, ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """Return the keys at which two answers differ, in words."""
    keys = sorted(key for key in {*ours, *theirs} if ours.get(key) != theirs.get(key))
    return [f"{case.name}: {what} {key}: {ours.get(key)} but buildah {theirs.get(key)}" for key in keys]


def comparable(config: dict[str, Any]) -> dict[str, Any]:
    """Return the settings without buildah's own label, and with nothing for empty."""
    labels = {name: value for name, value in (config.get("Labels") or {}).items() if name != "io.buildah.version"}
    return {
        key: value for key in KEYS if (value := {**config, "Labels": labels, "Env": sorted(config["Env"])}.get(key))
    }


def is_left(path: str, node: Node) -> bool:
    """Say whether something is a trace of how buildah runs commands."""
    return path in LEFT and (node[0] == "folder" or node[4] == hashlib.sha256(b"").hexdigest())
