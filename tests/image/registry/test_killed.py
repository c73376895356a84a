"""``kill -9`` at random moments: of a pull, of a push, of the registry itself. What was acknowledged is whole, the rest goes away."""

from __future__ import annotations

import hashlib
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from labkit.errors import ImageError, LabkitError
from labkit.image import ImageStore, Reference
from labkit.image.registry.pull import pull
from labkit.image.registry.push import push
from labkit.image.registry.server.service import RegistryServer, RegistrySettings
from tests.image.registry.test_push import put_image
from tests.image.registry.wire import Wire, blob, digest_of
from tests.support import PROJECT

TIMES = 50


def killed(what: str, longest_s: float, store: ImageStore, names: list[str]) -> dict[str, list[str]]:
    """Kill ``TIMES`` pulls or pushes of ``names``; return what became of each."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.image.registry.killing", what, str(TIMES), str(longest_s), str(store.root), *names],
        capture_output=True, text=True, timeout=100, check=False, cwd=PROJECT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    results: dict[str, list[str]] = {name: [] for name in names}
    for line in done.stdout.splitlines()[1:]:
        name, _, result = line.partition(" ")
        results[name].append(result)
    return results


def is_whole(wire: Wire, name: str, tag: str) -> bool:
    """Tell whether a registry gives the image under ``tag`` with all its blobs; False if it has no such tag."""
    got = wire.ask("GET", f"/v2/{name}/manifests/{tag}")
    if got.status == 404:
        return False
    for part in (got.json["config"], *got.json["layers"]):
        found = wire.ask("GET", f"/v2/{name}/blobs/{part['digest']}")
        assert (found.status, digest_of(found.body)) == (200, part["digest"])
    return True


def test_a_pull_that_is_killed_leaves_a_store_that_opens_clean(
    server: RegistryServer, wire: Wire, store: ImageStore
) -> None:
    names, seconds = [], []
    for number in range(5):
        wire.push_image(f"alice/web{number}", "1", blob(6 << 20))
        names.append(f"{server.address}/alice/web{number}:1")
    for name in names[:3]:
        begun_s = time.monotonic()
        pull(Reference.parse(name), store)
        seconds.append(time.monotonic() - begun_s)
        store.remove(name)
    # Some are killed after their end, most in the middle: half as long again as a pull takes.
    results = killed("pull", 1.5 * sorted(seconds)[1], store, names)
    again = ImageStore(store.root)
    named = {entry.name for entry in again.entries()}
    for name, result in results.items():
        assert "done" not in result or name in named
    for name in named:
        image = again.image(name)
        for part in image.manifest.references:
            with again.blobs.path(part.digest).open("rb") as file:
                assert hashlib.file_digest(file, "sha256").hexdigest() == part.digest[7:]
    again.prune()
    assert not list(again.blobs.tmp.iterdir())
    assert not list(again.blobs.leases.folder.iterdir())
    for name in names:
        pull(Reference.parse(name), again)
    assert not list(again.blobs.uploads())
    known = {blob.digest for name in names for blob in again.image(name).manifest.references}
    roots = {again.resolve(name).digest for name in names}
    assert set(again.blobs.digests()) == known | roots


def test_a_push_that_is_killed_leaves_whole_images_and_uploads_that_vanish(
    server: RegistryServer, wire: Wire, store: ImageStore
) -> None:
    put_image(store, "local:1", blob(4 << 20), blob(4 << 20))
    begun_s = time.monotonic()
    push(Reference.parse(f"{server.address}/alice/first:1"), store, source="local:1")
    longest_s = 1.5 * (time.monotonic() - begun_s)
    names = [f"alice/web{number}" for number in range(TIMES)]
    # Blobs must travel each time, so nothing may be mounted: every push goes to a registry's name of its own.
    wire.ask("DELETE", f"/v2/alice/first/manifests/{store.resolve('local:1').digest}")
    results = killed("push", longest_s, store, [f"{server.address}/{name}:1" for name in names])
    whole = {name for name in names if is_whole(wire, name, "1")}
    acknowledged = {name for name in names if "done" in results[f"{server.address}/{name}:1"]}
    assert acknowledged <= whole
    push(Reference.parse(f"{server.address}/alice/last:1"), store, source="local:1")
    assert is_whole(wire, "alice/last", "1")
    deadline_s = time.monotonic() + 10
    while list(server.blobs.uploads()) and time.monotonic() < deadline_s:
        server.remove_uploads()  # an upload that somebody is still writing to is let be
        time.sleep(0.05)
    assert not list(server.blobs.uploads())


@contextmanager
def registry_process(folder: Path, port: int) -> Iterator[subprocess.Popen[str]]:
    """Serve in a process that can be killed."""
    code = f"""
from pathlib import Path
from labkit.image.registry.server.service import RegistryServer, RegistrySettings
with RegistryServer(Path({str(folder)!r}), RegistrySettings(port={port})) as server:
    print(server.address, flush=True)
    import signal
    signal.pause()
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=PROJECT) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_registry_that_is_killed_has_lost_nothing_that_it_acknowledged(tmp_path: Path, store: ImageStore) -> None:
    put_image(store, "local:1", blob(8 << 20), blob(1 << 20))
    acknowledged, failed = set(), 0
    for turn in range(10):
        with registry_process(tmp_path / "registry", 0) as process:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            killer = subprocess.Popen(["sh", "-c", f"sleep {random.uniform(0, 0.25):.3f}; kill -9 {process.pid}"])
            try:
                push(Reference.parse(f"{address}/alice/web{turn}:1"), store, source="local:1")
                acknowledged.add(turn)
            except (ImageError, LabkitError):
                failed += 1
            killer.wait()
            assert process.wait() == -signal.SIGKILL
    with RegistryServer(tmp_path / "registry", RegistrySettings(port=0)) as server:
        wire = Wire(server.address)
        whole = {turn for turn in range(10) if is_whole(wire, f"alice/web{turn}", "1")}
        assert acknowledged <= whole
        push(Reference.parse(f"{server.address}/alice/last:1"), store, source="local:1")
        assert is_whole(wire, "alice/last", "1")
        server.remove_uploads()
        assert not list(server.blobs.uploads())
        used = server.repositories.used()
        assert used == set(server.blobs.digests())
        assert not list((tmp_path / "registry/tmp").iterdir())
