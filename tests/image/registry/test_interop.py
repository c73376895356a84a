"""labkit and the tools that people use exchange images, in both directions, with the same digests.

Witnesses: skopeo, podman, buildah, and Docker's registry; what they have is read with their own means or straight from their files.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import socket
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from labkit.image import ImageStore, Reference
from labkit.image.registry.client import RegistryClient
from labkit.image.registry.credentials import Credentials, credentials_file
from labkit.image.registry.failures import RegistryError
from labkit.image.registry.pull import pull
from labkit.image.registry.push import push
from labkit.image.registry.repository import Repository
from labkit.image.registry.server.service import RegistryServer, RegistrySettings
from tests.image.registry.test_access import ALICE, with_accounts
from tests.image.registry.test_push import put_image
from tests.image.registry.wire import MANIFEST, Wire, blob, descriptor, digest_of
from tests.support import requires


def run(*command: str | Path, **options: Any) -> str:
    """Run a program to its end; return what it printed. Raises: AssertionError with what it complained about."""
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=100, check=False,
        stdin=subprocess.DEVNULL, **options,
    )  # fmt: skip
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def make_layer(path: str, data: bytes) -> bytes:
    """Return a layer with one file, compressed."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        info = tarfile.TarInfo(path)
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    return gzip.compress(stream.getvalue(), 1, mtime=0)


def real_image(*layers: bytes) -> tuple[bytes, tuple[bytes, ...]]:
    """Return an image that every tool takes: gzip layers and a configuration that knows them unpacked."""
    ids = [digest_of(gzip.decompress(layer)) for layer in layers]
    document = {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": ids}}
    configuration = json.dumps(document).encode()
    manifest = {
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": descriptor(configuration, "application/vnd.oci.image.config.v1+json"),
        "layers": [descriptor(layer, "application/vnd.oci.image.layer.v1.tar+gzip") for layer in layers],
    }  # fmt: skip
    return json.dumps(manifest).encode(), (configuration, *layers)


@pytest.fixture
def layout(tmp_path: Path) -> tuple[Path, str]:
    """An OCI layout with one image, ``latest``, made without labkit; and its digest."""
    folder = tmp_path / "layout"
    (folder / "blobs/sha256").mkdir(parents=True)
    manifest, blobs = real_image(make_layer("hello", b"hello\n"), make_layer("random", blob(300_000)))
    for data in (manifest, *blobs):
        (folder / "blobs/sha256" / hashlib.sha256(data).hexdigest()).write_bytes(data)
    entry = descriptor(manifest, MANIFEST, annotations={"org.opencontainers.image.ref.name": "latest"})
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return folder, digest_of(manifest)


@contextmanager
def docker_registry(folder: Path, **auth: Any) -> Iterator[str]:
    """Run Docker's registry on a free port; yield its address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    settings = {
        "version": "0.1", "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(folder / "docker")}, "delete": {"enabled": True}},
        "http": {"addr": address}, **({"auth": auth} if auth else {}),
    }  # fmt: skip
    path = folder / "docker-registry.yml"
    path.write_text(json.dumps(settings))
    with subprocess.Popen(
        ["docker-registry", "serve", str(path)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            deadline_s = time.monotonic() + 20
            while time.monotonic() < deadline_s:
                try:
                    Wire(address).ask("GET", "/v2/")
                    break
                except OSError:
                    time.sleep(0.05)
            yield address
        finally:
            process.terminate()


def same_blobs(one: Path, other: Path) -> bool:
    """Compare two layouts' blobs, byte for byte."""
    names = sorted(os.listdir(one / "blobs/sha256"))
    return names == sorted(os.listdir(other / "blobs/sha256")) and all(
        (one / "blobs/sha256" / name).read_bytes() == (other / "blobs/sha256" / name).read_bytes() for name in names
    )


# labkit's registry, their clients


@requires("program:skopeo")
def test_skopeo_pushes_inspects_lists_pulls_and_deletes(
    server: RegistryServer, tmp_path: Path, layout: tuple[Path, str]
) -> None:
    folder, digest = layout
    name = f"docker://{server.address}/alice/web"
    run("skopeo", "copy", "--dest-tls-verify=false", f"oci:{folder}:latest", f"{name}:1")
    inspected = json.loads(run("skopeo", "inspect", "--tls-verify=false", f"{name}:1"))
    assert (inspected["Digest"], inspected["RepoTags"]) == (digest, ["1"])
    listed = json.loads(run("skopeo", "list-tags", "--tls-verify=false", name))
    assert listed["Tags"] == ["1"]
    run("skopeo", "copy", "--src-tls-verify=false", f"{name}@{digest}", f"oci:{tmp_path}/back:latest")
    assert same_blobs(folder, tmp_path / "back")
    run("skopeo", "copy", "--src-tls-verify=false", "--dest-tls-verify=false", f"{name}:1", f"{name}2:1")
    run("skopeo", "delete", "--tls-verify=false", f"{name}:1")
    assert Wire(server.address).ask("GET", "/v2/alice/web/manifests/1").status == 404
    assert Wire(server.address).ask("GET", "/v2/alice/web2/manifests/1").status == 200


@requires("program:skopeo")
@pytest.mark.parametrize("scheme", ["bearer", "basic"])
def test_skopeo_logs_in(tmp_path: Path, layout: tuple[Path, str], scheme: str) -> None:
    folder, _ = layout
    with RegistryServer(with_accounts(tmp_path / "r"), RegistrySettings(port=0, scheme=scheme)) as server:
        name = f"docker://{server.address}/alice/web:1"
        copy = ("skopeo", "copy", "--dest-tls-verify=false", f"oci:{folder}:latest", name)
        with pytest.raises(AssertionError, match=r"unauthorized|authentication required"):
            run(*copy)
        with pytest.raises(AssertionError, match=r"unauthorized|invalid username/password"):
            run(*copy, "--dest-creds", "alice:wrong password")
        run(*copy, "--dest-creds", ALICE)
        # Everybody may read.
        run("skopeo", "inspect", "--tls-verify=false", "--no-creds", name)
        with pytest.raises(AssertionError, match=r"denied|forbidden|403"):
            run("skopeo", "copy", "--dest-tls-verify=false", f"oci:{folder}:latest",
                f"docker://{server.address}/bob/web:1", "--dest-creds", ALICE)  # fmt: skip


@requires("root", "program:podman", "program:skopeo")
def test_podman_logs_in_pulls_and_pushes(tmp_path: Path, layout: tuple[Path, str]) -> None:
    folder, digest = layout
    with tempfile.TemporaryDirectory(prefix="labkit-p") as short:  # podman takes no long path
        podman = ("podman", "--root", tmp_path / "p", "--runroot", short, "--storage-driver", "vfs")
        _podman_there_and_back(tmp_path, folder, digest, podman)


def _podman_there_and_back(tmp_path: Path, folder: Path, digest: str, podman: tuple[str | Path, ...]) -> None:
    authfile = {"env": os.environ | {"REGISTRY_AUTH_FILE": str(tmp_path / "auth.json")}}
    with RegistryServer(with_accounts(tmp_path / "r"), RegistrySettings(port=0)) as server:
        name = f"{server.address}/alice/web"
        with pytest.raises(AssertionError, match=r"invalid username/password"):
            run(
                *podman,
                "login",
                "--tls-verify=false",
                "-u",
                "alice",
                "-p",
                "wrong password",
                server.address,
                **authfile,
            )
        run(
            *podman,
            "login",
            "--tls-verify=false",
            "-u",
            "alice",
            "-p",
            ALICE.partition(":")[2],
            server.address,
            **authfile,
        )
        run("skopeo", "copy", "--dest-tls-verify=false", f"oci:{folder}:latest", f"docker://{name}:1", **authfile)
        run(*podman, "pull", "--tls-verify=false", f"{name}:1", **authfile)
        shown = json.loads(run(*podman, "image", "inspect", f"{name}:1"))
        assert shown[0]["Digest"] == digest
        run(*podman, "push", "--tls-verify=false", f"{name}:1", f"{name}:2", **authfile)
        got = Wire(server.address).ask("GET", "/v2/alice/web/manifests/2")
        assert [layer["mediaType"].rpartition("+")[2] for layer in got.json["layers"]] == ["gzip", "gzip"]
        run(*podman, "rmi", "-af")


@requires("root", "program:buildah")
def test_buildah_pushes_what_it_built_and_labkit_pulls_it(
    server: RegistryServer, tmp_path: Path, store: ImageStore
) -> None:
    buildah = ("buildah", "--root", tmp_path / "b", "--runroot", tmp_path / "br", "--storage-driver", "vfs")
    made = run(*buildah, "from", "scratch").strip()
    (tmp_path / "file").write_text("made by buildah\n")
    run(*buildah, "copy", made, tmp_path / "file", "/file")
    run(*buildah, "config", "--cmd", "/file", made)
    run(*buildah, "commit", made, "built")
    run(
        *buildah,
        "push",
        "--tls-verify=false",
        "--digestfile",
        tmp_path / "digest",
        "built",
        f"docker://{server.address}/alice/built:1",
    )
    run(*buildah, "rm", "-a")
    run(*buildah, "rmi", "-af")
    where = Reference.parse(f"{server.address}/alice/built:1")
    assert pull(where, store).root.digest == (tmp_path / "digest").read_text()
    with tarfile.open(store.blobs.path(store.image(where).manifest.layers[0].digest)) as archive:
        member = archive.extractfile("file")
        assert member is not None
        assert member.read() == b"made by buildah\n"


# Their registry, labkit's client


@requires("program:docker-registry", "program:skopeo")
def test_dockers_registry_takes_and_gives(tmp_path: Path, store: ImageStore, layout: tuple[Path, str]) -> None:
    folder, digest = layout
    with docker_registry(tmp_path) as address:
        run("skopeo", "copy", "--dest-tls-verify=false", f"oci:{folder}:latest", f"docker://{address}/alice/web:1")
        where = Reference.parse(f"{address}/alice/web:1")
        assert pull(where, store).root.digest == digest
        assert pull(where, store).bytes_of("moved") == 0
        # Mounted from alice/web, then there already, then in parts to a repository that cannot be guessed from.
        copied = Reference.parse(f"{address}/alice/copy:1")
        assert {moved.how for moved in push(copied, store, source=where).blobs} == {"mounted"}
        assert {moved.how for moved in push(copied, store, source=where).blobs} == {"shared"}
        run(
            "skopeo",
            "copy",
            "--src-tls-verify=false",
            f"docker://{address}/alice/copy:1",
            f"oci:{tmp_path}/back:latest",
        )
        assert same_blobs(folder, tmp_path / "back")
        with RegistryClient(address) as client:
            assert list(client.catalog()) == ["alice/copy", "alice/web"]
            repository = Repository(client, "alice/copy")
            assert list(repository.tags()) == ["1"]
            repository.delete_manifest(digest)
            with pytest.raises(RegistryError, match="manifest unknown"):
                repository.manifest("1")
            with pytest.raises(RegistryError, match="name unknown"):
                list(Repository(client, "nobody/nothing").tags())


@requires("program:skopeo", "program:docker-registry")
def test_images_of_dockers_own_format_travel_unchanged(
    server: RegistryServer, tmp_path: Path, store: ImageStore, layout: tuple[Path, str]
) -> None:
    folder, _ = layout
    kind = "application/vnd.docker.distribution.manifest.v2+json"
    with docker_registry(tmp_path) as address:
        first, second = f"{address}/alice/web:1", f"{server.address}/alice/web:1"
        run(
            "skopeo", "copy", "--format", "v2s2", "--dest-tls-verify=false", f"oci:{folder}:latest", f"docker://{first}"
        )
        done = pull(Reference.parse(first), store)
        assert done.root.media_type == kind
        push(Reference.parse(second), store, source=first)
        got = Wire(server.address).ask("GET", "/v2/alice/web/manifests/1")
        assert (got.headers["Content-Type"], got.headers["Docker-Content-Digest"]) == (kind, done.root.digest)
        # Straight from one registry to the other, by skopeo: what it is given here is what it had there.
        run(
            "skopeo",
            "copy",
            "--src-tls-verify=false",
            "--dest-tls-verify=false",
            f"docker://{second}",
            f"docker://{first}2",
        )
        assert (
            Wire(address)
            .ask("HEAD", "/v2/alice/web/manifests/12", headers={"Accept": kind})
            .headers["Docker-Content-Digest"]
            == done.root.digest
        )


@requires("program:docker-registry")
@pytest.mark.parametrize("chunk_bytes", [0, 100_000])
def test_a_push_to_dockers_registry_has_the_same_digests(tmp_path: Path, store: ImageStore, chunk_bytes: int) -> None:
    manifest, blobs = real_image(make_layer("a", blob(250_000)))
    for data in blobs:
        store.blobs.put(data, "application/octet-stream")
    store.tag("local:1", store.blobs.put(manifest, MANIFEST))
    with docker_registry(tmp_path) as address:
        done = push(Reference.parse(f"{address}/a/b:1"), store, source="local:1", chunk_bytes=chunk_bytes)
        assert {moved.how for moved in done.blobs} == {"moved"}
        wire = Wire(address)
        got = wire.ask("GET", "/v2/a/b/manifests/1", headers={"Accept": MANIFEST})
        assert (got.body, got.headers["Docker-Content-Digest"]) == (manifest, digest_of(manifest))
        assert [wire.ask("GET", f"/v2/a/b/blobs/{digest_of(data)}").body for data in blobs] == list(blobs)


@requires("program:docker-registry")
def test_dockers_registry_knows_no_referrers_and_the_tag_says_them(tmp_path: Path, store: ImageStore) -> None:
    subject, blobs = real_image(make_layer("a", b"a"))
    for data in (*blobs, b"{}"):
        store.blobs.put(data, "application/octet-stream")
    store.tag("local:1", store.blobs.put(subject, MANIFEST))
    put_image(
        store,
        "local:signed",
        b"a signature",
        subject=descriptor(subject, MANIFEST),
        artifactType="application/vnd.example",
    )
    with docker_registry(tmp_path) as address:
        push(Reference.parse(f"{address}/a/b:1"), store, source="local:1")
        push(Reference.parse(f"{address}/a/b:signed"), store, source="local:signed")
        with RegistryClient(address) as client:
            found = Repository(client, "a/b").referrers(digest_of(subject))
            assert [(item.digest, item.artifact_type) for item in found] == [
                (store.resolve("local:signed").digest, "application/vnd.example")
            ]
            assert Repository(client, "a/b").referrers(digest_of(b"")) == []


@requires("program:docker-registry")
def test_dockers_registry_asks_for_a_password(tmp_path: Path, store: ImageStore) -> None:
    passwords = tmp_path / "htpasswd"
    # The bcrypt hash of "correct horse", as htpasswd -B would write it.
    passwords.write_text("alice:$2y$05$abcdefghijklmnopqrstuuHNbAKRhpaujgo33bRWs.NLUTJO3lOy2\n")
    put_image(store, "local:1", b"x")
    with docker_registry(tmp_path, htpasswd={"realm": "x", "path": str(passwords)}) as address:
        where = Reference.parse(f"{address}/alice/web:1")
        with pytest.raises(RegistryError, match="unauthorized"):
            push(where, store, source="local:1")
        credentials_file().set(address, Credentials("alice", "correct horse"))
        push(where, store, source="local:1")
        store.remove("local:1")
        pull(where, store)
