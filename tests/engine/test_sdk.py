"""The Python SDK's documented ways of use, against labkit's engine, unchanged."""

from __future__ import annotations

import io
import socket
import tarfile
import time

import docker
import pytest
from docker.errors import APIError, ContainerError, ImageNotFound, NotFound

from tests.engine.support import IMAGE, Daemon
from tests.support import requires

pytestmark = requires("program:busybox", "userns")


def test_run_returns_what_the_program_wrote(client: docker.DockerClient) -> None:
    assert client.containers.run(IMAGE, "echo hello world") == b"hello world\n"


def test_run_raises_with_the_exit_status_and_the_error_output(client: docker.DockerClient) -> None:
    with pytest.raises(ContainerError) as caught:
        client.containers.run(IMAGE, ["sh", "-c", "echo oh >&2; exit 3"])
    assert caught.value.exit_status == 3
    assert caught.value.stderr == b"oh\n"


def test_a_detached_container_can_be_listed_logged_stopped_and_removed(client: docker.DockerClient) -> None:
    container = client.containers.run(
        IMAGE, ["sh", "-c", "echo one; trap 'exit 5' TERM; while :; do sleep .05; done"], detach=True, name="web"
    )
    assert [found.name for found in client.containers.list()] == ["web"]
    assert client.containers.get("web").status == "running"
    deadline_s = time.monotonic() + 10
    while not container.logs() and time.monotonic() < deadline_s:
        time.sleep(0.02)
    assert container.logs() == b"one\n"
    container.stop(timeout=10)
    assert container.wait()["StatusCode"] == 5
    container.reload()
    assert (container.status, container.attrs["State"]["ExitCode"]) == ("exited", 5)
    container.remove()
    with pytest.raises(NotFound, match="No such container: web"):
        client.containers.get("web")


def test_logs_follow_the_container_to_its_end(client: docker.DockerClient) -> None:
    container = client.containers.run(IMAGE, ["sh", "-c", "for i in 1 2 3; do echo $i; sleep .2; done"], detach=True)
    assert b"".join(container.logs(stream=True, follow=True)) == b"1\n2\n3\n"
    assert container.logs(tail=1) == b"3\n"
    assert container.logs(stdout=False, stderr=True) == b""
    stamped = container.logs(timestamps=True).decode().splitlines()
    assert [line.split(" ")[1] for line in stamped] == ["1", "2", "3"]


def test_exec_run_joins_the_container(client: docker.DockerClient) -> None:
    container = client.containers.run(IMAGE, ["sleep", "60"], detach=True, environment={"A": "1"}, hostname="inner")
    result = container.exec_run(
        ["sh", "-c", "echo $A $B; hostname; pwd; exit 4"], environment={"B": "2"}, workdir="/tmp"
    )
    assert (result.exit_code, result.output) == (4, b"1 2\ninner\n/tmp\n")
    both = container.exec_run(["sh", "-c", "echo out; echo err >&2"], demux=True)
    assert both.output == (b"out\n", b"err\n")


def test_the_stream_begins_when_the_head_has_been_read(daemon: Daemon, client: docker.DockerClient) -> None:
    # The SDK reads the head through a buffer, and the stream past it: what came with the head would be lost.
    container = client.containers.run(IMAGE, ["sleep", "60"], detach=True)
    made = client.api.exec_create(container.id, ["echo", "here"])["Id"]
    request = (
        b"POST /v1.44/exec/%s/start HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n" % made.encode()
    )
    with socket.socket(socket.AF_UNIX) as raw:
        raw.settimeout(10)
        raw.connect(daemon.url.removeprefix("unix://"))
        raw.sendall(request + b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
        time.sleep(0.2)  # a client that is not given the processor
        head = raw.recv(1 << 16)
        assert head.startswith(b"HTTP/1.1 101") and head.endswith(b"\r\n\r\n")
        assert raw.recv(1 << 16).endswith(b"here\n")


def test_no_output_of_a_short_program_is_lost(client: docker.DockerClient) -> None:
    container = client.containers.run(IMAGE, ["sleep", "60"], detach=True)
    said = [container.exec_run(["echo", str(number)]).output for number in range(60)]
    assert said == [f"{number}\n".encode() for number in range(60)]


def test_archives_go_in_and_come_out(client: docker.DockerClient) -> None:
    container = client.containers.create(IMAGE, ["cat", "/tmp/file"])
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        entry = tarfile.TarInfo("file")
        entry.size = 5
        archive.addfile(entry, io.BytesIO(b"hello"))
    assert container.put_archive("/tmp", data.getvalue())
    pieces, status = container.get_archive("/tmp/file")
    with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as archive:
        file = archive.extractfile("file")
        assert file is not None
        assert file.read() == b"hello"
    assert (status["name"], status["size"]) == ("file", 5)
    container.start()
    container.wait()
    assert container.logs() == b"hello"


@requires("cgroups")
def test_stats_and_top_see_the_processes(client: docker.DockerClient) -> None:
    container = client.containers.run(IMAGE, ["sleep", "60"], detach=True)
    stats = container.stats(stream=False)
    assert stats["cpu_stats"]["cpu_usage"]["total_usage"] > 0
    assert stats["memory_stats"]["usage"] > 0
    assert [row[-1] for row in container.top()["Processes"]] == ["sleep 60"]


@requires("cgroups")
def test_pause_stops_the_clock_of_the_container(client: docker.DockerClient) -> None:
    container = client.containers.run(IMAGE, ["sh", "-c", "while :; do echo x; sleep .05; done"], detach=True)
    container.pause()
    container.reload()
    assert container.status == "paused"
    before = len(container.logs())
    time.sleep(0.5)
    assert len(container.logs()) == before
    container.unpause()
    deadline_s = time.monotonic() + 10
    while len(container.logs()) == before and time.monotonic() < deadline_s:
        time.sleep(0.02)
    assert len(container.logs()) > before


def test_volumes_outlive_containers(client: docker.DockerClient) -> None:
    client.volumes.create("data", labels={"a": "b"})
    client.containers.run(IMAGE, ["sh", "-c", "echo kept > /data/file"], volumes={"data": {"bind": "/data"}})
    read = client.containers.run(IMAGE, ["cat", "/data/file"], volumes={"data": {"bind": "/data", "mode": "ro"}})
    assert read == b"kept\n"
    assert client.volumes.get("data").attrs["Labels"] == {"a": "b"}
    with pytest.raises(APIError, match="volume is in use"):
        client.volumes.get("data").remove()


def test_an_image_is_built_tagged_saved_and_loaded(client: docker.DockerClient) -> None:
    text = f"FROM {IMAGE}\nENV GREETING=hi\nRUN echo $GREETING > /greeting\nCMD cat /greeting\n"
    image, log = client.images.build(fileobj=io.BytesIO(text.encode()), tag="greeter:1")
    assert any("Successfully built" in entry.get("stream", "") for entry in log)
    assert client.containers.run("greeter:1") == b"hi\n"
    assert image.tag("greeter", tag="2")
    saved = b"".join(client.images.get("greeter:2").save(named=True))
    client.containers.prune()
    client.images.remove("greeter:1")
    client.images.remove("greeter:2")
    with pytest.raises(ImageNotFound):
        client.images.get("greeter:2")
    assert client.images.load(saved)[0].id == image.id


def test_a_container_becomes_an_image(client: docker.DockerClient) -> None:
    container = client.containers.run(IMAGE, ["sh", "-c", "echo new > /made; rm /bin/wget"], detach=True)
    container.wait()
    assert {(change["Path"], change["Kind"]) for change in container.diff()} >= {
        ("/made", 1),
        ("/bin/wget", 2),
        ("/bin", 0),
    }
    image = container.commit("made", "1", changes="CMD cat /made")
    assert client.containers.run(image.id) == b"new\n"
    assert client.containers.run(image.id, ["sh", "-c", "test -e /bin/wget || echo gone"]) == b"gone\n"


def test_events_tell_what_happens(client: docker.DockerClient) -> None:
    since = time.time()
    client.containers.run(IMAGE, "true", remove=True)
    until = time.time() + 0.01
    events = list(client.events(since=since, until=until, decode=True, filters={"type": "container"}))
    assert [event["Action"] for event in events] == ["create", "start", "die", "destroy"]


def test_the_engine_describes_itself(client: docker.DockerClient) -> None:
    assert client.ping()
    assert client.version()["ApiVersion"] == "1.44"
    assert client.info()["OSType"] == "linux"
    assert {"Images", "Containers", "Volumes"} <= set(client.df())
