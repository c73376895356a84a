"""Hostile clients and images: a clear refusal or a bounded wait, the others served, the machine untouched."""

from __future__ import annotations

import io
import json
import os
import socket
import stat
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import docker
import pytest
from docker.errors import APIError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from labkit.engine.wire.sockets import listen_tcp, listen_unix
from labkit.errors import InvalidSpec
from tests.engine.support import IMAGE, Daemon, busybox_tar
from tests.support import requires

pytestmark = requires("program:busybox", "userns")


def ask(daemon: Daemon, data: bytes, *, timeout_s: float = 20.0) -> bytes:
    """Send bytes as they are and return what comes back until the other side closes or is silent."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(timeout_s)
        sock.connect(str(daemon.socket))
        try:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
        except BrokenPipeError:
            pass  # it has heard enough
        said = b""
        try:
            while piece := sock.recv(65536):
                said += piece
        except ConnectionResetError:
            pass
        return said


def status_of(answer: bytes) -> int:
    """Return the status in an answer's first line."""
    return int(answer.split(b" ", 2)[1])


def request(daemon: Daemon, method: str, path: str, body: object = None) -> tuple[int, bytes]:
    """Send one request with a JSON body; return status and body."""
    data = b"" if body is None else json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    answer = ask(daemon, head.encode("latin-1", errors="replace") + data)
    return status_of(answer), answer.partition(b"\r\n\r\n")[2]


# -- the socket ---------------------------------------------------------------------------------------------------------


def test_the_socket_is_the_owners_alone(daemon: Daemon) -> None:
    assert stat.S_IMODE(daemon.socket.stat().st_mode) == 0o600
    assert stat.S_IMODE(daemon.state.stat().st_mode) == 0o700


@pytest.mark.parametrize("address", ["0.0.0.0:2375", "192.168.1.1:2375", ":2375", "[::]:2375", "localhost:2375"])
def test_tcp_without_TLS_is_refused_but_at_a_loopback_address(address: str) -> None:
    with pytest.raises(InvalidSpec, match="Without TLS"):
        listen_tcp(address, tls=False)


def test_tcp_at_a_loopback_address_is_served() -> None:
    with listen_tcp("127.0.0.1:0", tls=False) as listener:
        assert listener.getsockname()[0] == "127.0.0.1"


def test_a_path_that_holds_something_else_is_not_replaced(folder: Path) -> None:
    (folder / "file").write_text("mine")
    with pytest.raises(InvalidSpec, match="no socket"):
        listen_unix(str(folder / "file"))
    assert (folder / "file").read_text() == "mine"


# -- requests -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET /info HTTP/9.9\r\n\r\n", 505),
        (b"GET /" + b"a" * 70000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET /info HTTP/1.1\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(200)) + b"\r\n", 431),
        (b"GET /info HTTP/1.1\r\nX: " + b"y" * 70000 + b"\r\n\r\n", 431),
        (b"GET /v1.99/info HTTP/1.1\r\n\r\n", 400),
        (b"GET /v1.1/info HTTP/1.1\r\n\r\n", 400),
        (b"GET /nosuch HTTP/1.1\r\n\r\n", 404),
        (b"PATCH /info HTTP/1.1\r\n\r\n", 405),
        (b"POST /containers/create HTTP/1.1\r\nContent-Length: x\r\n\r\n", 400),
        (b"POST /containers/create HTTP/1.1\r\nContent-Length: -5\r\n\r\n", 400),
        (b"POST /containers/create HTTP/1.1\r\nContent-Length: 50\r\n\r\n{}", 400),
        (b"POST /containers/create HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n", 400),
        (b"POST /containers/create HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n{}\r\n", 400),
        (b"POST /containers/create HTTP/1.1\r\nContent-Length: 2\r\n\r\n[]", 400),
        (b"POST /containers/create HTTP/1.1\r\nContent-Length: 5\r\n\r\n{nope", 400),
        (b"POST /containers/create HTTP/1.1\r\nContent-Length: 100000\r\n\r\n" + b"[" * 100000, 400),
        (b"GET /containers/json?filters=nope HTTP/1.1\r\n\r\n", 400),
        (b"GET /containers/json?filters=%7B%22name%22%3A%5B%22(%22%5D%7D HTTP/1.1\r\n\r\n", 400),
        (b"GET /containers/json?limit=x HTTP/1.1\r\n\r\n", 400),
        (b"GET /containers/%00/json HTTP/1.1\r\n\r\n", 404),
        (b"GET /containers/..%2f..%2fetc/json HTTP/1.1\r\n\r\n", 404),
        (b"GET /volumes/..%2f..%2fetc HTTP/1.1\r\n\r\n", 404),
        (b"DELETE /volumes/..%2f..%2fetc HTTP/1.1\r\n\r\n", 404),
        (b"GET /images/..%2f..%2fetc/json HTTP/1.1\r\n\r\n", 400),
    ],
)  # fmt: skip
def test_a_wrong_request_is_refused_as_such(daemon: Daemon, data: bytes, status: int) -> None:
    answer = ask(daemon, data)
    assert status_of(answer) == status
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"application/json" in head
    assert "message" in json.loads(body)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"Image": 5}, "cannot unmarshal"),
        ({"Image": ""}, "invalid reference"),
        ({"Image": "NoSuch"}, "lowercase|No such image"),
        ({"Image": "nosuch:1"}, "No such image: nosuch:1"),
        ({"Image": IMAGE, "Cmd": []}, "no command specified"),
        ({"Image": IMAGE, "Cmd": ["a\0b"]}, "cannot unmarshal"),
        ({"Image": IMAGE, "Cmd": "true", "Env": ["=x"]}, "invalid environment"),
        ({"Image": IMAGE, "Cmd": "true", "WorkingDir": "relative"}, "absolute"),
        ({"Image": IMAGE, "Cmd": "true", "Hostname": "a b"}, "hostname"),
        ({"Image": IMAGE, "Cmd": "true", "StopSignal": "SIGNOPE"}, "invalid signal"),
        ({"Image": IMAGE, "Cmd": "true", "HostConfig": []}, "must be an object|cannot"),
        ({"Image": IMAGE, "Cmd": "true", "HostConfig": {"Memory": "x"}}, "cannot unmarshal"),
        ({"Image": IMAGE, "Cmd": "true", "HostConfig": {"Memory": 1}}, "6MB"),
        ({"Image": IMAGE, "Cmd": "true", "HostConfig": {"Memory": 10**30}}, "cannot unmarshal"),
        ({"Image": IMAGE, "Cmd": "true", "HostConfig": {"CapAdd": ["NOPE"]}}, "no capability"),
        ({"Image": IMAGE, "Cmd": "true", "HostConfig": {"Binds": ["/a:/b:nope"]}}, "invalid mode"),
        ({"Image": IMAGE, "Cmd": "true", "HostConfig": {"Binds": ["../x:/b"]}}, "invalid characters"),
        ({"Image": IMAGE, "Cmd": "true", "HostConfig": {"Binds": ["/a:/b", "/c:/b"]}}, "Duplicate mount point"),
        ({"Image": IMAGE, "Cmd": "true", "HostConfig": {"NetworkMode": "a/b"}}, "invalid network mode"),
        ({"Image": IMAGE, "Cmd": "true", "HostConfig": {"PortBindings": {"x/tcp": [{}]}}}, "invalid port"),
        ({"Image": IMAGE, "Cmd": "true", "HostConfig": {"PortBindings": {"80/tcp": {}}}}, "must be an array"),
        ({"Image": IMAGE, "Cmd": "true", "HostConfig": {"RestartPolicy": {"Name": "nope"}}}, "restart policy"),
        ({"Image": IMAGE, "Cmd": "true", "HostConfig": {"Devices": [{"PathOnHost": "/dev/sda"}]}}, "--device"),
        ({"Image": IMAGE, "Cmd": "true", "HostConfig": {"PidMode": "host"}}, "not offered"),
        ({"Image": IMAGE, "Cmd": "true", "HostConfig": {"SecurityOpt": ["nope=1"]}}, "security-opt"),
        ({"Image": IMAGE, "Cmd": "true", "HostConfig": {"Ulimits": [{"Name": "nofile"}]}}, "ulimit"),
        ({"Image": IMAGE, "Cmd": "true", "NetworkingConfig": {"EndpointsConfig": []}}, "EndpointsConfig"),
    ],
)  # fmt: skip
def test_a_wrong_container_is_refused_with_what_is_wrong(
    client: docker.DockerClient, daemon: Daemon, body: object, words: str
) -> None:
    status, answer = request(daemon, "POST", "/containers/create", body)
    if status == 201:  # what only a start can find out
        status, answer = request(daemon, "POST", f"/containers/{json.loads(answer)['Id']}/start")
    assert 400 <= status < 500 or status == 501, answer
    import re

    assert re.search(words, json.loads(answer)["message"]), answer
    assert client.ping()


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=6,
)
_FIELDS = [
    "Cmd",
    "Entrypoint",
    "Env",
    "User",
    "WorkingDir",
    "Labels",
    "ExposedPorts",
    "Volumes",
    "Tty",
    "StopSignal",
    "Healthcheck",
    "Hostname",
]
_HOST_FIELDS = [
    "Binds", "Memory", "NanoCpus", "PidsLimit", "PortBindings", "RestartPolicy", "CapAdd", "CapDrop", "Dns", "ExtraHosts", "NetworkMode",
    "SecurityOpt", "Tmpfs", "Ulimits", "Mounts", "LogConfig", "ShmSize", "Init", "ReadonlyRootfs", "CpuShares", "CpusetCpus", "VolumesFrom",
]  # fmt: skip


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    config=st.dictionaries(st.sampled_from(_FIELDS), _values, max_size=3),
    host=st.dictionaries(st.sampled_from(_HOST_FIELDS), _values, max_size=3),
)
def test_no_body_is_answered_with_an_error_of_the_engines_own(
    client: docker.DockerClient, daemon: Daemon, config: object, host: object
) -> None:
    body = {"Image": IMAGE, "Cmd": ["true"], **dict(config), "HostConfig": host}  # type: ignore[call-overload]
    status, answer = request(daemon, "POST", "/containers/create", body)
    assert status in (201, 400, 403, 404, 501), answer
    if status == 201:
        identity = json.loads(answer)["Id"]
        status, answer = request(daemon, "POST", f"/containers/{identity}/start")
        assert status != 500 or b"OCI runtime" in answer, answer
        assert request(daemon, "DELETE", f"/containers/{identity}?force=1&v=1")[0] == 204
    assert client.ping()


_PATHS = [
    "/containers/{}/json",
    "/containers/{}/logs",
    "/images/{}/json",
    "/networks/{}",
    "/volumes/{}",
    "/exec/{}/json",
    "/containers/{}/stats",
    "/{}",
]


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    method=st.sampled_from(["GET", "POST", "DELETE", "PUT", "HEAD"]),
    path=st.sampled_from(_PATHS),
    name=st.text(max_size=12),
    query=st.text(max_size=20),
)
def test_no_path_is_answered_with_an_error_of_the_engines_own(
    daemon: Daemon, method: str, path: str, name: str, query: str
) -> None:
    from urllib.parse import quote

    status, answer = request(daemon, method, f"{path.format(quote(name, safe=''))}?{quote(query, safe='=&')}", {})
    assert 200 <= status < 500 or status in (501, 503), answer


# -- slow and silent clients ----------------------------------------------------------------------------------------------


def test_sixty_half_open_connections_leave_the_others_served_and_are_given_up(
    daemon: Daemon, client: docker.DockerClient
) -> None:
    with ExitStack() as stack:
        silent = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(60)]
        for sock in silent:
            sock.connect(str(daemon.socket))
            sock.sendall(b"GET /info HT")
        begun_s = time.monotonic()
        assert client.ping()
        assert client.containers.run(IMAGE, "echo served", remove=True) == b"served\n"
        assert time.monotonic() - begun_s < 10
        trickling = silent[0]
        while time.monotonic() - begun_s < 30:
            try:
                trickling.sendall(b"G")  # a byte now and then buys no time
            except OSError:
                break
            time.sleep(0.25)
        assert time.monotonic() - begun_s < 20
        for sock in silent[1:]:
            sock.settimeout(5.0)
            with suppress(ConnectionResetError):
                while sock.recv(4096):  # perhaps a 408 first
                    pass


def test_a_client_that_attaches_and_never_reads_does_not_stop_the_container(
    client: docker.DockerClient, daemon: Daemon
) -> None:
    script = "i=0; while [ $i -lt 60 ]; do head -c 100000 /dev/zero; i=$((i+1)); done; echo done >&2"
    container = client.containers.create(IMAGE, ["sh", "-c", script])
    with socket.socket(socket.AF_UNIX) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(str(daemon.socket))
        path = f"/containers/{container.id}/attach?stream=1&stdout=1&stderr=1"
        sock.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n".encode())
        assert b"101" in sock.recv(20)
        container.start()
        assert container.wait(timeout=50)["StatusCode"] == 0
    assert container.logs(stdout=False, stderr=True) == b"done\n"


def test_a_slow_reader_loses_nothing(daemon: Daemon) -> None:
    environment = os.environ | {"DOCKER_HOST": daemon.url}
    script = "docker run --rm busybox head -c 3000000 /dev/zero | (sleep 1; wc -c)"
    done = subprocess.run(["sh", "-c", script], capture_output=True, env=environment, check=False, timeout=60)
    assert done.stdout.strip() == b"3000000"


def test_output_that_never_ends_fills_no_disk(client: docker.DockerClient, daemon: Daemon) -> None:
    options = {"type": "json-file", "config": {"max-size": "100k", "max-file": "2"}}
    container = client.containers.run(IMAGE, ["sh", "-c", "yes | head -c 300000"], detach=True, log_config=options)
    container.wait()
    logs = list((daemon.state / "containers" / str(container.id)).glob("*-json.log*"))
    assert len(logs) == 2
    assert sum(path.stat().st_size for path in logs) < 250_000


def test_many_clients_at_once_each_get_their_own_answer(daemon: Daemon) -> None:
    answers: dict[int, bytes] = {}

    def work(number: int) -> None:
        sdk = daemon.client()
        answers[number] = sdk.containers.run(IMAGE, f"echo {number}", remove=True)
        sdk.close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {number: f"{number}\n".encode() for number in range(12)}


# -- hostile images -------------------------------------------------------------------------------------------------------


@pytest.fixture
def victim(folder: Path) -> Iterator[Path]:
    """Give a file of the machine that no container may change."""
    path = folder / "victim"
    path.write_text("untouched")
    yield path
    assert path.read_text() == "untouched"


def load(client: docker.DockerClient, change: object) -> None:
    """Make an image called hostile: busybox, and what ``change`` adds to the archive."""
    out = io.BytesIO(busybox_tar())
    out.seek(0)
    result = io.BytesIO()
    with tarfile.open(fileobj=out) as source, tarfile.open(fileobj=result, mode="w") as target:
        replaced = change(target)  # type: ignore[operator]
        for entry in source:
            if entry.name not in replaced:
                target.addfile(entry, source.extractfile(entry) if entry.isreg() else None)
    client.api.import_image_from_data(result.getvalue(), repository="hostile", tag="1")


def _add(archive: tarfile.TarFile, name: str, kind: bytes, link: str = "") -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname, entry.mode = kind, link, 0o755
    archive.addfile(entry)


def test_a_fifo_as_passwd_hangs_nobody(client: docker.DockerClient) -> None:
    def change(archive: tarfile.TarFile) -> list[str]:
        _add(archive, "etc/passwd", tarfile.FIFOTYPE)
        return ["etc/passwd"]

    load(client, change)
    begun_s = time.monotonic()
    assert client.containers.run("hostile:1", "echo alive", remove=True) == b"alive\n"
    with pytest.raises(APIError):
        client.containers.run("hostile:1", "echo alive", user="nosuchuser", remove=True)
    assert time.monotonic() - begun_s < 20


@pytest.mark.parametrize("name", ["dev", "proc", "sys", "etc"])
def test_a_system_folder_that_is_a_link_leads_nowhere(client: docker.DockerClient, victim: Path, name: str) -> None:
    def change(archive: tarfile.TarFile) -> list[str]:
        _add(archive, name, tarfile.SYMTYPE, str(victim.parent))
        return [name, "etc/passwd", "etc/group"] if name == "etc" else [name]

    before = sorted(os.listdir(victim.parent))
    load(client, change)
    try:
        client.containers.run("hostile:1", "true", remove=True)
    except APIError as error:
        assert error.status_code in (400, 500)
    assert sorted(os.listdir(victim.parent)) == before


def test_a_working_folder_that_is_a_link_stays_inside(client: docker.DockerClient, victim: Path) -> None:
    def change(archive: tarfile.TarFile) -> list[str]:
        _add(archive, "work", tarfile.SYMTYPE, str(victim.parent))
        return []

    load(client, change)
    try:
        said = client.containers.run("hostile:1", ["sh", "-c", "touch made; ls"], working_dir="/work", remove=True)
        assert b"victim" not in said
    except APIError as error:
        assert error.status_code in (400, 500)
    assert not (victim.parent / "made").exists()


def test_copying_follows_no_link_out_of_the_container(client: docker.DockerClient, victim: Path) -> None:
    container = client.containers.create(IMAGE, ["sleep", "60"])
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        _add(archive, "out", tarfile.SYMTYPE, str(victim.parent))
        _add(archive, "up", tarfile.SYMTYPE, "../../../../../../../.." + str(victim.parent))
    container.put_archive("/tmp", data.getvalue())
    for link in ("out", "up"):
        with pytest.raises(APIError):
            container.get_archive(f"/tmp/{link}/victim")
        inner = io.BytesIO()
        with tarfile.open(fileobj=inner, mode="w") as archive:
            entry = tarfile.TarInfo("victim")
            entry.size = 3
            archive.addfile(entry, io.BytesIO(b"bad"))
        with pytest.raises(APIError):
            container.put_archive(f"/tmp/{link}", inner.getvalue())


@pytest.mark.parametrize("name", ["../victim", "/../../victim", "a/../../../victim"])
def test_an_archive_cannot_write_above_its_folder(client: docker.DockerClient, victim: Path, name: str) -> None:
    container = client.containers.create(IMAGE, ["true"])
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = 3
        archive.addfile(entry, io.BytesIO(b"bad"))
    try:
        container.put_archive("/tmp", data.getvalue())
    except APIError as error:
        assert error.status_code == 400
    assert victim.read_text() == "untouched"


def test_a_bind_source_that_is_swapped_during_the_start_shows_nothing_else(
    client: docker.DockerClient, folder: Path
) -> None:
    (folder / "good").mkdir()
    (folder / "good" / "name").write_text("good")
    (folder / "bad").mkdir()
    (folder / "bad" / "name").write_text("bad")
    for path in (folder, folder / "good", folder / "bad"):
        path.chmod(0o755)
    source, spare = folder / "good", folder / "spare"
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            with suppress(OSError):  # the engine makes a source that is missing, as Docker does
                source.rename(spare)
                source.symlink_to(folder / "bad")
                source.unlink()
            with suppress(OSError):
                spare.rename(source)

    seen: list[bytes] = []
    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for _ in range(6):
            try:
                seen.append(
                    client.containers.run(
                        IMAGE, ["cat", "/v/name"], volumes={str(source): {"bind": "/v", "mode": "ro"}}, remove=True
                    )
                )
            except APIError as error:
                # 500: the folder that was found has been removed meanwhile, and the kernel refuses to mount it.
                assert error.status_code in (400, 500)
            except docker.errors.ContainerError:
                pass
    finally:
        stop.set()
        thread.join()
    # A link that was there when the source was looked up is followed, as with Docker; what counts is that no third thing appears.
    assert set(seen) <= {b"good", b"bad"}
