"""Images on the move: through a registry (Debian's), as archives, and over TLS to the engine."""

from __future__ import annotations

import io
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from tests.engine.support import IMAGE, Daemon, start_labkit
from tests.support import requires

pytestmark = requires("root", "program:docker", "program:busybox", "program:nsenter")

_CONFIG = """version: 0.1
storage: {{filesystem: {{rootdirectory: {folder}}}, delete: {{enabled: true}}}}
http: {{addr: 127.0.0.1:5000}}
"""


@pytest.fixture
def registry(daemon: Daemon, folder: Path) -> Iterator[str]:
    """Give the address of Debian's registry, in the engine's network namespace."""
    (folder / "registry.yml").write_text(_CONFIG.format(folder=folder / "blobs"))
    command = [
        "nsenter",
        f"--net=/proc/{daemon.pid}/ns/net",
        "--",
        "docker-registry",
        "serve",
        str(folder / "registry.yml"),
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline_s = time.monotonic() + 20
    while daemon.in_network("busybox", "nc", "-w", "1", "127.0.0.1", "5000", data=b"").returncode:
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
    yield "127.0.0.1:5000"
    process.kill()
    process.wait()


@requires("program:docker-registry")
def test_an_image_is_pushed_removed_and_pulled_again(
    client: docker.DockerClient, daemon: Daemon, registry: str
) -> None:
    name = f"{registry}/bb:1"
    before = client.images.get(IMAGE)
    assert daemon.cli("tag", IMAGE, name).returncode == 0
    pushed = daemon.cli("push", name)
    assert pushed.returncode == 0, pushed.stderr
    assert b"The push refers to repository [127.0.0.1:5000/bb]" in pushed.stdout
    assert b"1: digest: sha256:" in pushed.stdout
    assert b"Layer already exists" in daemon.cli("push", name).stdout
    digest = next(text for text in client.images.get(name).attrs["RepoDigests"] if text.startswith(registry))
    assert daemon.cli("rmi", name).returncode == 0
    pulled = daemon.cli("pull", name)
    assert pulled.returncode == 0, pulled.stderr
    assert pulled.stdout.splitlines()[0] == b"1: Pulling from bb"
    assert b"Status: Downloaded newer image for 127.0.0.1:5000/bb:1" in pulled.stdout
    assert b"Image is up to date" in daemon.cli("pull", name).stdout
    assert client.images.get(name).id == before.id
    assert daemon.cli("pull", digest).returncode == 0
    assert client.images.pull(f"{registry}/bb", tag="1").id == before.id
    assert daemon.cli("pull", "-a", f"{registry}/bb").returncode == 0
    assert daemon.cli("run", "--rm", "--pull", "always", name, "echo", "pulled").stdout.splitlines()[-1] == b"pulled"


@requires("program:docker-registry")
def test_what_the_registry_does_not_have_is_said(daemon: Daemon, registry: str) -> None:
    missing = daemon.cli("pull", f"{registry}/nosuch:1")
    assert missing.returncode == 1
    assert b"manifest unknown" in missing.stderr
    unknown = daemon.cli("push", f"{registry}/nosuch:1")
    assert unknown.returncode == 1
    assert b"does not exist locally" in unknown.stderr


def test_no_hub_is_assumed(daemon: Daemon) -> None:
    for words in (("pull", "alpine"), ("run", "--rm", "alpine", "true"), ("search", "alpine")):
        done = daemon.cli(*words)
        assert done.returncode in (1, 125)
        assert b"no hub" in done.stderr


@requires("program:openssl")
def test_the_engine_is_reached_over_TLS_by_those_who_have_a_certificate(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = tmp_path_factory.mktemp("t")
    script = (
        "openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=labkit-ca 2>/dev/null;"
        "for n in server client; do openssl req -newkey rsa:2048 -nodes -keyout $n.key -out $n.csr -subj /CN=$n"
        " -addext subjectAltName=IP:127.0.0.1 2>/dev/null; openssl x509 -req -in $n.csr -CA ca.pem -CAkey ca.key -CAcreateserial"
        " -out $n.pem -days 2 -copy_extensions copy 2>/dev/null; done"
    )
    subprocess.run(["sh", "-c", script], cwd=folder, check=True)
    tls = [f"--tls-cert={folder}/server.pem", f"--tls-key={folder}/server.key", f"--tls-ca={folder}/ca.pem"]
    daemon = start_labkit(place, "--tcp", "127.0.0.1:2376", *tls)
    try:
        files = ["--tlsverify", "--tlscacert", f"{folder}/ca.pem"]
        own = ["--tlscert", f"{folder}/client.pem", "--tlskey", f"{folder}/client.key"]
        good = daemon.in_network("docker", "-H", "tcp://127.0.0.1:2376", *files, *own, "ps", "-q")
        assert (good.returncode, good.stdout) == (0, b"")
        assert daemon.in_network("docker", "-H", "tcp://127.0.0.1:2376", *files, "ps", "-q").returncode == 1
        assert daemon.in_network("docker", "-H", "tcp://127.0.0.1:2376", "ps", "-q").returncode == 1
    finally:
        assert daemon.stop() == 0


def test_what_is_copied_into_a_volume_before_the_start_is_the_containers(client: docker.DockerClient) -> None:
    container = client.containers.create(IMAGE, ["cat", "/v/secret"], volumes={"kept": {"bind": "/v", "mode": "rw"}})
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        entry = tarfile.TarInfo("secret")
        entry.size, entry.mode = 6, 0o600
        archive.addfile(entry, io.BytesIO(b"inside"))
    assert container.put_archive("/v", out.getvalue())
    container.start()
    assert container.wait()["StatusCode"] == 0
    assert container.logs() == b"inside"
    pieces, status = container.get_archive("/v/secret")
    assert status["size"] == 6
    with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as archive:
        assert archive.getmember("secret").uid == 0


def test_a_container_that_has_done_nothing_has_changed_nothing(client: docker.DockerClient) -> None:
    container = client.containers.run(IMAGE, ["true"], detach=True)
    container.wait()
    assert not container.diff()
    container = client.containers.run(IMAGE, ["touch", "/etc/made"], detach=True)
    container.wait()
    assert [entry["Path"] for entry in container.diff()] == ["/etc", "/etc/made"]
