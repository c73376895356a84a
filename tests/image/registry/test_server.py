"""The server under restarts, crowds, and clients that are slow, rude or both."""

from __future__ import annotations

import os
import re
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from labkit.image.registry.patience import Pace
from labkit.image.registry.server.listener import Bounds
from labkit.image.registry.server.service import RegistryServer, RegistrySettings
from tests.image.registry.wire import Wire, blob, digest_of
from tests.support import requires

#: A second is long, for these tests.
HASTY = Bounds(connections=8, idle_s=1.0, head_s=1.0, body=Pace(1.0, 1.0, 100_000), send_s=1.0)


@contextmanager
def serving(folder: Path, bounds: Bounds = HASTY, **settings: object) -> Iterator[RegistryServer]:
    with RegistryServer(folder, RegistrySettings(port=0, bounds=bounds, **settings)) as server:  # type: ignore[arg-type]
        yield server


@contextmanager
def connected(server: RegistryServer) -> Iterator[socket.socket]:
    host, _, port = server.address.partition(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        yield connection


def seconds_until_closed(connection: socket.socket) -> float:
    begun_s = time.monotonic()
    try:
        while connection.recv(65536):
            pass
    except ConnectionError:
        pass
    return time.monotonic() - begun_s


# Restarts


def test_what_was_pushed_is_there_after_a_restart(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        manifest, digest = Wire(server.address).push_image("alice/web", "1")
    with serving(tmp_path) as server:
        got = Wire(server.address).ask("GET", "/v2/alice/web/manifests/1")
        assert (got.body, got.headers["Docker-Content-Digest"]) == (manifest, digest)


def test_an_upload_goes_on_after_a_restart(tmp_path: Path) -> None:
    data = blob(100_000)
    with serving(tmp_path) as server:
        wire = Wire(server.address)
        location = wire.begin("alice/web").headers["Location"]
        wire.ask("PATCH", location, data[:40_000])
    with serving(tmp_path) as server:
        wire = Wire(server.address)
        assert wire.ask("GET", location).headers["Range"] == "0-39999"
        assert wire.ask("PATCH", location, data[40_000:], {"Content-Range": "40000-99999"}).status == 202
        assert wire.ask("PUT", location, b"", digest=digest_of(data)).status == 201
        assert wire.ask("GET", f"/v2/alice/web/blobs/{digest_of(data)}").body == data


@pytest.mark.parametrize("ends", ["cancelled", "too old"])
def test_an_upload_of_another_server_ends_too(tmp_path: Path, ends: str) -> None:
    with serving(tmp_path) as server:
        location = Wire(server.address).begin("alice/web").headers["Location"]
    if ends == "too old":
        path = tmp_path / "uploads" / location.rpartition("/")[2]
        os.utime(path, (time.time() - 90_000,) * 2)
    with serving(tmp_path) as server:
        wire = Wire(server.address)
        if ends == "cancelled":
            assert wire.ask("DELETE", location).status == 204
        assert wire.ask("GET", location).status == 404
        assert not list((tmp_path / "uploads").iterdir()) + list((tmp_path / "sessions").iterdir())


def test_an_upload_cut_off_in_the_middle_keeps_what_came(tmp_path: Path) -> None:
    data = blob(300_000)
    with serving(tmp_path) as server:
        wire = Wire(server.address)
        location = wire.begin("alice/web").headers["Location"]
        with connected(server) as connection:
            head = f"PATCH {location} HTTP/1.1\r\nHost: x\r\nContent-Length: 300000\r\n\r\n"
            connection.sendall(head.encode() + data[:200_000])
        while (status := wire.ask("GET", location)).headers["Range"] != "0-199999":
            time.sleep(0.01)
        assert wire.ask("PATCH", status.headers["Location"], data[200_000:]).headers["Range"] == "0-299999"
        assert wire.ask("PUT", location, b"", digest=digest_of(data)).status == 201


def test_two_servers_on_one_folder_see_the_same(tmp_path: Path) -> None:
    with serving(tmp_path) as one, serving(tmp_path) as two:
        first, second = Wire(one.address), Wire(two.address)
        manifest, digest = first.push_image("alice/web", "1")
        assert second.ask("GET", "/v2/alice/web/manifests/1").body == manifest
        location = first.begin("alice/web").headers["Location"]
        assert second.ask("PATCH", location, b"x").status == 404  # the other one holds it
        assert first.ask("DELETE", location).status == 204
        assert second.ask("DELETE", f"/v2/alice/web/manifests/{digest}").status == 202
        assert first.ask("GET", "/v2/alice/web/manifests/1").status == 404


# Crowds


def test_many_push_the_same_and_delete_it_at_once_and_nobody_sees_a_hole(tmp_path: Path) -> None:
    shared, errors = blob(20_000), []

    def work(wire: Wire, number: int) -> None:
        try:
            for turn in range(5):
                name = f"user{number % 3}/app"
                _, digest = wire.push_image(name, f"t{number}", shared)
                got = wire.ask("GET", f"/v2/{name}/blobs/{digest_of(shared)}")
                if got.status == 200 and got.body != shared:
                    errors.append("other bytes")
                if turn % 2:
                    wire.ask("DELETE", f"/v2/{name}/manifests/{digest}")
                    wire.ask("DELETE", f"/v2/{name}/blobs/{digest_of(shared)}")
        except AssertionError as error:
            # Another one has deleted the layer between this one's push of it and of the manifest: said, not hidden.
            if "MANIFEST_BLOB_UNKNOWN" not in str(error):
                errors.append(str(error))

    with serving(tmp_path, Bounds()) as server:
        threads = [threading.Thread(target=work, args=(Wire(server.address), number)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        wire = Wire(server.address)
        for number in range(3):
            wire.push_image(f"user{number}/app", "last", shared)
            assert wire.ask("GET", f"/v2/user{number}/app/blobs/{digest_of(shared)}").body == shared


def test_two_writers_of_one_upload_are_parted(tmp_path: Path) -> None:
    with serving(tmp_path, Bounds()) as server:
        wire = Wire(server.address)
        location = wire.begin("alice/web").headers["Location"]
        begun, go_on = threading.Event(), threading.Event()

        def slowly() -> Iterator[bytes]:
            yield b"a" * 1000
            begun.set()
            go_on.wait(10)
            yield b"b"

        thread = threading.Thread(target=wire.ask, args=("PATCH", location, slowly()))
        thread.start()
        begun.wait(10)
        deadline_s = time.monotonic() + 5
        while (got := wire.ask("PATCH", location, b"c")).status != 409 and time.monotonic() < deadline_s:
            time.sleep(0.01)
        assert (got.status, got.code) == (409, "BLOB_UPLOAD_INVALID")
        go_on.set()
        thread.join()
        assert wire.ask("DELETE", location).status == 204


def test_more_connections_than_there_are_places_are_dropped_and_the_rest_served(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        held = [socket.create_connection(("127.0.0.1", int(server.address.rpartition(":")[2]))) for _ in range(20)]
        time.sleep(0.2)
        for connection in held:
            connection.settimeout(0.05)
        dropped = 0
        for connection in held:
            try:
                dropped += connection.recv(1) == b""
            except TimeoutError:
                continue
        for connection in held:
            connection.close()
        assert 12 <= dropped < 20
        deadline_s = time.monotonic() + 10
        while time.monotonic() < deadline_s:
            try:
                assert Wire(server.address).ask("GET", "/v2/").status == 200
                return
            except (ConnectionError, OSError):
                time.sleep(0.05)
        pytest.fail("the places were not given free")


def test_no_more_uploads_than_allowed_are_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(tmp_path) as server:
        server._uploads._most_open = 3
        wire = Wire(server.address)
        locations = [wire.begin("alice/web").headers["Location"] for _ in range(3)]
        got = wire.ask("POST", "/v2/alice/web/blobs/uploads/")
        assert (got.status, got.code) == (429, "TOOMANYREQUESTS")
        for location in locations:
            wire.ask("DELETE", location)
        assert wire.ask("DELETE", wire.begin("alice/web").headers["Location"]).status == 204


def test_when_it_is_crowded_uploads_that_nobody_goes_on_with_give_their_places_up(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        server._uploads._most_open = 2
        wire = Wire(server.address)
        locations = [wire.begin("alice/web").headers["Location"] for _ in range(2)]
        for location in locations:
            os.utime(tmp_path / "uploads" / location.rpartition("/")[2], (time.time() - 700,) * 2)
        wire.ask("PATCH", locations[1], b"somebody goes on")
        assert wire.ask("DELETE", wire.begin("alice/web").headers["Location"]).status == 204
        assert wire.ask("GET", locations[0]).status == 404
        assert wire.ask("DELETE", locations[1]).status == 204


@pytest.mark.parametrize("path", ["blobs", "manifests"])
def test_what_is_deleted_while_it_is_asked_for_is_404(
    tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(tmp_path) as server:
        wire = Wire(server.address)
        _, digest = wire.push_image("alice/web", "1")
        blob_digest = wire.ask("GET", "/v2/alice/web/manifests/1").json["layers"][0]["digest"]
        wanted = digest if path == "manifests" else blob_digest
        respond = server.respond

        def delete_first(request):  # type: ignore[no-untyped-def]
            found = respond(request)
            server.blobs.delete(wanted)
            return found

        monkeypatch.setattr(server._listener, "respond", delete_first)
        got = wire.ask("GET", f"/v2/alice/web/{path}/{wanted}")
        assert (got.status, got.code) == (404, "BLOB_UNKNOWN")
        assert wire.ask("GET", f"/v2/alice/web/{path}/{wanted}").status == 404


def test_a_blob_that_is_too_large_is_413(tmp_path: Path) -> None:
    with serving(tmp_path, Bounds(), most_blob_bytes=10_000) as server:
        wire = Wire(server.address)
        location = wire.begin("alice/web").headers["Location"]
        assert wire.ask("PATCH", location, b"x" * 6000).status == 202
        got = wire.ask("PATCH", location, iter([b"x" * 6000]))
        assert (got.status, got.code) == (413, "SIZE_INVALID")
        assert wire.ask("DELETE", location).status == 204


def test_a_least_size_of_chunks_is_announced(tmp_path: Path) -> None:
    with serving(tmp_path, chunk_min_bytes=4096) as server:
        wire = Wire(server.address)
        got = wire.begin("alice/web")
        assert got.headers["OCI-Chunk-Min-Length"] == "4096"
        assert wire.ask("DELETE", got.headers["Location"]).status == 204


# Slow and rude clients

SLOW = {
    "nothing at all": (b"", b""),
    "half a request line": (b"GET /v2", b""),
    "a header byte by byte": (b"GET /v2/ HTTP/1.1\r\nX: ", b"y"),
    "headers without end": (b"GET /v2/ HTTP/1.1\r\n", b"X: y\r\n"),
    "a body byte by byte": (b"PUT /v2/a/manifests/1 HTTP/1.1\r\nContent-Length: 100000\r\n\r\n", b" "),
    "no body": (b"PUT /v2/a/manifests/1 HTTP/1.1\r\nContent-Length: 100000\r\n\r\n", b""),
    "chunks byte by byte": (b"PUT /v2/a/manifests/1 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
}


@pytest.mark.parametrize("how", SLOW)
def test_a_slow_client_is_dropped(tmp_path: Path, how: str) -> None:
    first, more = SLOW[how]
    with serving(tmp_path) as server, connected(server) as connection:
        begun_s = time.monotonic()
        connection.sendall(first)
        connection.settimeout(0.05)
        while time.monotonic() - begun_s < 10:
            try:
                if connection.recv(65536) == b"":
                    break
            except TimeoutError:
                pass
            except ConnectionError:
                break
            try:
                connection.sendall(more)
            except ConnectionError:
                break
        assert time.monotonic() - begun_s < 5
        assert Wire(server.address).ask("GET", "/v2/").status == 200


def test_a_client_that_takes_nothing_is_dropped(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        wire = Wire(server.address)
        digest = wire.push("alice/web", b"x" * (32 << 20))
        with connected(server) as connection:
            connection.sendall(f"GET /v2/alice/web/blobs/{digest} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            time.sleep(2.5)
            got = 0
            try:
                while data := connection.recv(1 << 20):
                    got += len(data)
            except ConnectionError:
                pass
        assert got < 32 << 20


RUDE = {
    "no HTTP": b"SSH-2.0-OpenSSH_9\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200) + b"\r\n\r\n",
    "an endless request line": b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n",
    "an endless header": b"GET /v2/ HTTP/1.1\r\nX: " + b"a" * 70_000 + b"\r\n\r\n",
    "too many headers": b"GET /v2/ HTTP/1.1\r\n" + b"A: b\r\n" * 200 + b"\r\n",
    "two lengths": b"PUT /v2/a/manifests/1 HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "length and chunks": b"PUT /v2/a/manifests/1 HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a negative length": b"PUT /v2/a/manifests/1 HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    "a length in words": b"PUT /v2/a/manifests/1 HTTP/1.1\r\nContent-Length: ten\r\n\r\n",
    "an unknown coding": b"PUT /v2/a/manifests/1 HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
    "a chunk that is none": b"PUT /v2/a/manifests/1 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "a negative chunk": b"PUT /v2/a/manifests/1 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nabc",
    "an endless chunk line": b"PUT /v2/a/manifests/1 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + b"0" * 5000,
    "a chunk without end": b"PUT /v2/a/manifests/1 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcdefgh\r\n0\r\n\r\n",
    "an unknown method": b"BREW /v2/ HTTP/1.1\r\n\r\n",
    "a null byte": b"GET /v2/a\x00b/tags/list HTTP/1.1\r\n\r\n",
    "a way up": b"GET /v2/../../etc/passwd/tags/list HTTP/1.1\r\n\r\n",
    "a way up in disguise": b"GET /v2/a/%2e%2e/%2e%2e/manifests/..%2f..%2fx HTTP/1.1\r\n\r\n",
    "many fields in the query": b"GET /v2/a/tags/list?" + b"n=1&" * 500 + b" HTTP/1.1\r\n\r\n",
    "an address for a proxy": b"GET http://[ HTTP/1.1\r\n\r\n",
    "a Host with a line end": b"GET /v2/ HTTP/1.1\r\nHost: a\r\n b\r\nConnection: close\r\n\r\n",
}  # fmt: skip


@pytest.mark.parametrize("how", RUDE)
def test_what_is_no_proper_request_is_refused_and_the_server_lives(tmp_path: Path, how: str) -> None:
    with serving(tmp_path) as server:
        with connected(server) as connection:
            connection.sendall(RUDE[how])
            data = b""
            try:
                while part := connection.recv(65536):
                    data += part
            except ConnectionError:
                pass
        if how != "a Host with a line end":
            status = data.split(b" ")[1:2] if data.startswith(b"HTTP/1.") else [b"400"]
            assert status[0][:1] == b"4" or status[0] in (b"501", b"505"), data[:200]
        assert b"Traceback" not in data
        assert Wire(server.address).ask("GET", "/v2/").status == 200


def test_requests_on_one_connection_follow_each_other_whatever_became_of_their_bodies(tmp_path: Path) -> None:
    with serving(tmp_path, Bounds()) as server, connected(server) as connection:
        for body in (b"not JSON" * 1000, b""):
            head = f"PUT /v2/a/manifests/UPPER:x HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
            connection.sendall(head.encode() + body)
        connection.sendall(b"GET /v2/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        data = b""
        while part := connection.recv(65536):
            data += part
        assert re.findall(rb"HTTP/1.1 (\d+) ", data) == [b"400", b"400", b"200"]


def test_closing_cuts_the_connections_and_leaves_no_thread(tmp_path: Path) -> None:
    before = threading.active_count()
    with serving(tmp_path, Bounds()) as server, connected(server) as connection:
        connection.sendall(b"GET /v2/ HTTP/1.1\r\n")
        time.sleep(0.1)
        server.close()
        assert seconds_until_closed(connection) < 2
    deadline_s = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert threading.active_count() == before


def test_a_full_disk_is_507(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with serving(tmp_path) as server:
        wire = Wire(server.address)
        location = wire.begin("alice/web").headers["Location"]
        monkeypatch.setattr("labkit.image.blobs.BlobWriter.write", full)
        got = wire.ask("PATCH", location, b"data")
        assert (got.status, got.code) == (507, "UNKNOWN")
        assert "No space left" in got.json["errors"][0]["message"]
        assert wire.ask("DELETE", location).status == 204


@requires("program:openssl")
def test_it_speaks_TLS_and_a_client_that_shakes_hands_slowly_is_dropped(tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate, "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    with serving(tmp_path / "r", certificate=certificate, key=key) as server:
        context = ssl.create_default_context(cafile=str(certificate))
        with connected(server) as plain, context.wrap_socket(plain, server_hostname="127.0.0.1") as connection:
            connection.sendall(b"GET /v2/ HTTP/1.1\r\nConnection: close\r\n\r\n")
            assert connection.recv(100).startswith(b"HTTP/1.1 200")
        with connected(server) as connection:
            connection.sendall(b"\x16")
            assert seconds_until_closed(connection) < 4
