"""The proxy changes nothing and hears everything; the small client does what the real one does."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from labkit.engine.conversation import Listener, messages_of
from labkit.engine.proxy import Exchange, TracingProxy
from labkit.engine.smallclient import SmallClient
from labkit.errors import InvalidState
from tests.engine.support import IMAGE, Daemon
from tests.support import requires

pytestmark = requires("userns", "overlay-userns", "program:busybox", "pyseccomp")


@pytest.fixture
def proxy(daemon: Daemon, tmp_path: Path) -> Iterator[TracingProxy]:
    with TracingProxy(str(daemon.socket), str(tmp_path / "p.sock")) as made:
        yield made


def test_a_small_client_runs_a_container(daemon: Daemon, client: docker.DockerClient) -> None:
    small = SmallClient(str(daemon.socket))
    assert small.run(IMAGE, ["sh", "-c", "echo out; echo err >&2; exit 3"]) == (3, "out\nerr\n")
    assert client.containers.list(all=True) == []
    with pytest.raises(InvalidState, match="No such image: nosuch"):
        small.run("nosuch", ["true"])


def test_the_sdk_is_overheard_and_notices_nothing(proxy: TracingProxy, client: docker.DockerClient) -> None:
    overheard = docker.DockerClient(base_url=proxy.url)
    assert overheard.containers.run(IMAGE, ["echo", "hello"], remove=True) == b"hello\n"
    overheard.close()
    words = [exchange.words.split("?")[0] for exchange in proxy.exchanges]
    assert (
        words[0] == "GET /version"
        and "POST /containers/create" in words
        and words[-1].startswith("DELETE /containers/")
    )
    assert all(exchange.status in (200, 201, 204) for exchange in proxy.exchanges)
    assert [exchange.asked_s for exchange in proxy.exchanges] == sorted(
        exchange.asked_s for exchange in proxy.exchanges
    )


@requires("program:docker")
def test_a_hijacked_stream_passes_in_both_directions_half_close_included(
    proxy: TracingProxy, client: docker.DockerClient
) -> None:
    data = os.urandom(300_000)
    done = subprocess.run(
        ["docker", "run", "--rm", "-i", IMAGE, "cat"], input=data, capture_output=True, timeout=60,
        env=os.environ | {"DOCKER_HOST": proxy.url},
    )  # fmt: skip
    assert done.stdout == data
    (attach,) = (exchange for exchange in proxy.exchanges if "/attach" in exchange.path)
    assert attach.hijacked and attach.sent_bytes == len(data) and attach.received_bytes >= len(data)


def test_the_daemon_s_own_word_is_part_of_the_conversation(proxy: TracingProxy, client: docker.DockerClient) -> None:
    listener = Listener(proxy, client.api)
    overheard = docker.DockerClient(base_url=proxy.url)
    overheard.containers.run(IMAGE, "true", remove=True, name="labkit-heard")
    overheard.close()
    said = [(message.source, message.words) for message in listener.messages()]
    runtime = [words for source, words in said if "labkit-heard" in words]
    assert runtime == ["create (labkit-heard)", "start (labkit-heard)", "die (labkit-heard)", "destroy (labkit-heard)"]
    assert said.index(("client", "POST /containers/create?…")) < said.index(("daemon", "create (labkit-heard)"))
    listener.restart()
    assert listener.messages() == []


def test_ids_are_cut_and_answers_summed_up() -> None:
    container = "0123456789ab" + 52 * "c"
    heard = [
        Exchange("POST", f"/v1.44/containers/{container}/start?x=1", 1.0, 204, 1.5),
        Exchange("GET", "/_ping", 2.0),
    ]
    assert [message.words for message in messages_of(heard)] == [
        "POST /containers/0123456789ab/start?…",
        "204",
        "GET /_ping",
    ]


def test_what_is_no_http_passes_too_and_ends_with_the_proxy(tmp_path: Path) -> None:
    target, path = str(tmp_path / "t.sock"), str(tmp_path / "p.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(target)
        listener.listen()
        echo = threading.Thread(target=lambda: _echo(listener), daemon=True)
        echo.start()
        proxy = TracingProxy(target, path)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
            client.sendall(b"\x00\x01 no http\r\n\r\n")
            assert client.recv(100) == b"\x00\x01 no http\r\n\r\n"
            assert proxy.exchanges == []
            proxy.close()
            client.settimeout(5)
            assert client.recv(10) == b""
        echo.join(5)
    assert not Path(path).exists()
    proxy.close()


def _echo(listener: socket.socket) -> None:
    peer, _ = listener.accept()
    with peer:
        while data := peer.recv(1000):
            peer.sendall(data)
