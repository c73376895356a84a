"""Pulls: from a registry that means well, and from ones that lie, stall and never end."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from labkit.errors import DeadlineExceeded, ImageError, LabkitError
from labkit.image import ImageStore, Reference
from labkit.image.descriptor import Platform, this_platform
from labkit.image.registry.client import RegistryClient
from labkit.image.registry.failures import RegistryError
from labkit.image.registry.patience import Pace
from labkit.image.registry.progress import Event
from labkit.image.registry.pull import pull
from labkit.image.registry.push import push
from labkit.image.registry.server.service import RegistryServer, RegistrySettings
from labkit.image.registry.transport import Patience
from tests.image.registry.liar import Liar, answer
from tests.image.registry.test_push import put_image
from tests.image.registry.wire import INDEX, MANIFEST, Wire, blob, config, descriptor, digest_of, image, manifest_of
from tests.support import requires

#: A second of patience: what is slower than that is stuck, for these tests.
HASTY = Patience(connect_s=1, head=Pace(1, 1), body=Pace(1, 1, 10_000), send_s=1)


def reference(address: str, rest: str = "alice/web:1") -> Reference:
    return Reference.parse(f"{address}/{rest}")


def is_empty(store: ImageStore) -> bool:
    """Tell whether nothing of a pull is in the store: no name, no blob, nothing half done."""
    left = [
        *store.blobs.digests(),
        *store.blobs.uploads(),
        *store.blobs.tmp.iterdir(),
        *store.blobs.leases.folder.iterdir(),
    ]
    return not left and not store.entries()


# A registry that means well


def test_a_pulled_image_has_the_registrys_bytes_and_name(server: RegistryServer, wire: Wire, store: ImageStore) -> None:
    layer = blob(3 << 20)
    manifest, digest = wire.push_image("alice/web", "1", layer)
    events: list[Event] = []
    done = pull(reference(server.address), store, progress=events.append)
    assert store.resolve(f"{server.address}/alice/web:1").digest == digest == done.root.digest
    assert store.blobs.path(digest).read_bytes() == manifest
    assert store.blobs.path(digest_of(layer)).read_bytes() == layer
    steps = [event.status for event in events if event.descriptor.digest == digest_of(layer)]
    assert [steps[0], *steps[-2:]] == ["Pulling fs layer", "Download complete", "Pull complete"]
    assert set(steps[1:-2]) == {"Downloading"}
    assert done.bytes_of("moved") == len(layer) + len(config(layer))
    assert done.bytes_of("moved") < done.received_bytes < done.bytes_of("moved") + 10_000


def test_what_is_there_does_not_travel_again(server: RegistryServer, wire: Wire, store: ImageStore) -> None:
    shared, own = blob(1 << 20), blob(1000)
    wire.push_image("alice/web", "1", shared)
    manifest, blobs = image(shared, own)
    for data in blobs:
        wire.push("alice/web", data)
    wire.put("alice/web", "2", manifest)
    pull(reference(server.address), store)
    done = pull(reference(server.address, "alice/web:2"), store)
    assert {moved.descriptor.digest: moved.how for moved in done.blobs} == {
        digest_of(shared): "shared", digest_of(own): "moved", digest_of(blobs[0]): "moved",
    }  # fmt: skip
    assert done.received_bytes < 10_000


def test_a_pull_by_digest_takes_that_image(server: RegistryServer, wire: Wire, store: ImageStore) -> None:
    _, digest = wire.push_image("alice/web", "1")
    wire.push_image("alice/web", "1")
    assert pull(reference(server.address, f"alice/web@{digest}"), store).root.digest == digest


def test_of_an_index_this_machines_image_is_taken(server: RegistryServer, wire: Wire, store: ImageStore) -> None:
    layer, machine = blob(), this_platform().architecture
    manifests = {name: manifest_of(config(layer, architecture=name), layer) for name in (machine, "mips")}
    wire.push("alice/web", layer)
    for name, data in manifests.items():
        wire.push("alice/web", config(layer, architecture=name))
        wire.put("alice/web", digest_of(data), data)
    listed = [
        descriptor(data, MANIFEST, platform={"os": "linux", "architecture": name}) for name, data in manifests.items()
    ]
    index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": listed}).encode()
    wire.put("alice/web", "1", index, INDEX)
    where = reference(server.address)
    assert pull(where, store).root.digest == digest_of(index)
    assert store.image(where).descriptor.digest == digest_of(manifests[machine])
    assert not store.blobs.has(digest_of(manifests["mips"]))
    pull(where, store, platform=Platform("mips"))
    assert store.blobs.has(digest_of(manifests["mips"]))
    with pytest.raises(ImageError, match=r"not there for linux/riscv, only for linux/"):
        pull(where, store, platform=Platform("riscv"))


@pytest.mark.parametrize(
    ("rest", "words"),
    [("alice/web:9", "manifest unknown"), ("alice/nothing:1", "name unknown")],
)
def test_what_is_not_there_is_said_in_the_usual_words(
    server: RegistryServer, wire: Wire, store: ImageStore, rest: str, words: str
) -> None:
    wire.push_image("alice/web", "1")
    with pytest.raises(RegistryError, match=words) as caught:
        pull(reference(server.address, rest), store)
    assert caught.value.status == 404
    assert is_empty(store)


def test_where_nobody_listens_the_error_says_so(store: ImageStore) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(RegistryError, match=rf"127.0.0.1:{port} could not be reached \(Connection refused\)"):
        pull(reference(f"127.0.0.1:{port}"), store)


def test_an_unfinished_pull_is_gone_on_with(server: RegistryServer, wire: Wire, store: ImageStore) -> None:
    layer = blob(4 << 20)
    wire.push_image("alice/web", "1", layer)
    with store.blobs.writer(upload=f"pull-{digest_of(layer)[7:]}") as writer:
        writer.write(layer[: 3 << 20])
    done = pull(reference(server.address), store)
    assert store.blobs.path(digest_of(layer)).read_bytes() == layer
    assert (1 << 20) < done.received_bytes < (2 << 20)
    assert not list(store.blobs.uploads())


def test_an_unfinished_pull_of_wrong_bytes_begins_anew(server: RegistryServer, wire: Wire, store: ImageStore) -> None:
    layer = blob(1 << 20)
    wire.push_image("alice/web", "1", layer)
    for garbage in (b"x" * 1000, b"x" * (1 << 20), b"x" * (2 << 20)):
        with store.blobs.writer(upload=f"pull-{digest_of(layer)[7:]}") as writer:
            writer.write(garbage)
        pull(reference(server.address), store)
        assert store.blobs.path(digest_of(layer)).read_bytes() == layer
        store.remove(reference(server.address))


def test_layers_that_came_before_the_registry_went_away_need_not_come_again(
    server: RegistryServer, wire: Wire, store: ImageStore
) -> None:
    layers = [blob(1000), blob(2000)]
    manifest, blobs = image(*layers)
    for data in blobs:
        wire.push("alice/web", data)
    wire.put("alice/web", "1", manifest)
    address = server.address

    def leave(event: Event) -> None:
        if event.status == "Pull complete":
            server.close()

    with pytest.raises(RegistryError), RegistryClient(address) as client:
        pull(reference(address), store, client=client, progress=leave, parallel=1)
    assert len(list(store.blobs.digests())) == 1


def test_two_pulls_of_one_image_at_once_do_not_disturb_each_other(
    server: RegistryServer, wire: Wire, store: ImageStore
) -> None:
    layer = blob(8 << 20)
    _, digest = wire.push_image("alice/web", "1", layer)
    errors: list[Exception] = []

    def work() -> None:
        try:
            pull(reference(server.address), ImageStore(store.root))
        except (LabkitError, OSError) as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert store.resolve(reference(server.address)).digest == digest
    assert store.blobs.path(digest_of(layer)).read_bytes() == layer
    assert not list(store.blobs.uploads())


# Registries that lie

LAYER = blob(200_000)
WHOLE, (CONFIG, _) = image(LAYER)
TYPE = f"Content-Type: {MANIFEST}"


def honest(liar: Liar, manifest: bytes = WHOLE, *headers: str) -> None:
    """Let the liar tell the truth about an image; the test then changes something."""
    liar.serve("GET /v2/alice/web/manifests/1 ", answer("200 OK", manifest, TYPE, *headers))
    for data in (LAYER, CONFIG):
        liar.serve(f"GET /v2/alice/web/blobs/{digest_of(data)} ", answer("200 OK", data))


def bad_descriptor(**changes: Any) -> bytes:
    return manifest_of(CONFIG, layers=[descriptor(LAYER, "application/vnd.oci.image.layer.v1.tar") | changes])


BLOB = f"GET /v2/alice/web/blobs/{digest_of(LAYER)} "
LIES: dict[str, Callable[[Liar], None]] = {
    "other bytes of the same size": lambda liar: liar.serve(BLOB, answer("200 OK", b"x" * len(LAYER))),
    "one byte changed": lambda liar: liar.serve(BLOB, answer("200 OK", LAYER[:-1] + bytes([LAYER[-1] ^ 1]))),
    "more bytes": lambda liar: liar.serve(BLOB, answer("200 OK", LAYER + b"x")),
    "fewer bytes, honestly announced": lambda liar: liar.serve(BLOB, answer("200 OK", LAYER[:-1])),
    "fewer bytes than announced": lambda liar: liar.serve(BLOB, cut_off),
    "no bytes at all": lambda liar: liar.serve(BLOB, answer("200 OK", b"")),
    "more bytes, in chunks": lambda liar: liar.serve(BLOB, chunked(LAYER * 2)),
    "fewer bytes, in chunks": lambda liar: liar.serve(BLOB, chunked(LAYER[:-5])),
    "chunks that end in the middle": lambda liar: liar.serve(BLOB, lambda s, _: s.sendall(CHUNKED + b"fffff\r\nabc")),
    "a negative length": lambda liar: liar.serve(BLOB, answer("200 OK", LAYER, length=-5)),
    "a part nobody asked for": lambda liar: liar.serve(BLOB, answer("206 Partial Content", LAYER[5:], "Content-Range: bytes 5-9/10")),
    "a smaller size in the manifest": lambda liar: honest(liar, bad_descriptor(size=len(LAYER) - 1)),
    "a larger size in the manifest": lambda liar: honest(liar, bad_descriptor(size=len(LAYER) + 1)),
    "a negative size in the manifest": lambda liar: honest(liar, bad_descriptor(size=-1)),
    "a size past 63 bits": lambda liar: honest(liar, bad_descriptor(size=1 << 64)),
    "an exabyte": lambda liar: honest(liar, bad_descriptor(size=1 << 60)),
    "a digest that is none": lambda liar: honest(liar, bad_descriptor(digest="sha256:../../../etc/passwd")),
    "a layer that is kept elsewhere": lambda liar: honest(liar, bad_descriptor(
        mediaType="application/vnd.oci.image.layer.nondistributable.v1.tar")),
    "no layers for the configuration's": lambda liar: honest(liar, manifest_of(CONFIG)),
    "a manifest that is none": lambda liar: honest(liar, b"<html>"),
    "an endless manifest": lambda liar: liar.serve("GET /v2/alice/web/manifests/1 ", endless),
    "a manifest of 5 MiB": lambda liar: honest(liar, b"{" + b" " * (5 << 20) + WHOLE[1:]),
    "a manifest under another digest": lambda liar: honest(liar, WHOLE, f"Docker-Content-Digest: {digest_of(LAYER)}"),
    "a manifest of another type": lambda liar: liar.serve(
        "GET /v2/alice/web/manifests/1 ", answer("200 OK", WHOLE, f"Content-Type: {INDEX}")),
    "an index entry with other bytes": lambda liar: lying_index(liar, WHOLE + b" "),
    "an index entry of another type": lambda liar: lying_index(liar, WHOLE, mediaType=INDEX),
    "an index entry of another size": lambda liar: lying_index(liar, WHOLE, size=3),
    "indexes of indexes without end": lambda liar: nested(liar),
    "a blob that is not there": lambda liar: liar.serve(BLOB, answer("404 Not Found", b"{}")),
    "no HTTP": lambda liar: liar.serve(BLOB, lambda s, _: s.sendall(b"SSH-2.0-OpenSSH_9\r\n")),
    "too many headers": lambda liar: liar.serve(BLOB, lambda s, _: s.sendall(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 200 + b"\r\n")),
    "a header line without end": lambda liar: liar.serve(BLOB, lambda s, _: s.sendall(b"HTTP/1.1 200 OK\r\nA: " + b"b" * 200_000)),
    "a redirection in a circle": lambda liar: liar.serve(BLOB, answer("307 Temporary Redirect", b"", f"Location: {BLOB[4:].strip()}")),
    "a redirection to a file": lambda liar: liar.serve(BLOB, answer("307 Temporary Redirect", b"", "Location: file:///etc/passwd")),
    "a redirection to nowhere": lambda liar: liar.serve(BLOB, answer("307 Temporary Redirect", b"")),
    "a redirection off this machine": lambda liar: liar.serve(BLOB, answer(
        "307 Temporary Redirect", b"", "Location: http://registry.invalid/blob")),
}  # fmt: skip
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunked(data: bytes) -> Callable[[socket.socket, str], None]:
    return lambda connection, _: connection.sendall(CHUNKED + b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data))


def cut_off(connection: socket.socket, _: str) -> None:
    connection.sendall(answer("200 OK", LAYER[:1000], length=len(LAYER)))


def endless(connection: socket.socket, _: str) -> None:
    connection.sendall(f"HTTP/1.1 200 OK\r\n{TYPE}\r\n\r\n".encode())
    for _number in range(2000):
        connection.sendall(b" " * 65536)


def nested(liar: Liar) -> None:
    machine, entry = {"os": "linux", "architecture": this_platform().architecture}, descriptor(WHOLE, MANIFEST)
    for _number in range(8):
        index = json.dumps(
            {"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry | {"platform": machine}]}
        ).encode()
        liar.serve(
            f"GET /v2/alice/web/manifests/{digest_of(index)} ", answer("200 OK", index, f"Content-Type: {INDEX}")
        )
        entry = descriptor(index, INDEX)
    liar.serve("GET /v2/alice/web/manifests/1 ", answer("200 OK", index, f"Content-Type: {INDEX}"))


def lying_index(liar: Liar, sent: bytes, **changes: Any) -> None:
    entry = descriptor(WHOLE, MANIFEST) | changes
    index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}).encode()
    liar.serve("GET /v2/alice/web/manifests/1 ", answer("200 OK", index, f"Content-Type: {INDEX}"))
    liar.serve("GET /v2/alice/web/manifests/sha256", answer("200 OK", sent, TYPE))


def test_the_liar_can_tell_the_truth(liar: Liar, store: ImageStore) -> None:
    honest(liar)
    assert pull(reference(liar.address), store).root.digest == digest_of(WHOLE)


@pytest.mark.parametrize("lie", LIES)
def test_a_registry_that_lies_is_refused_and_nothing_stays(liar: Liar, store: ImageStore, lie: str) -> None:
    honest(liar)
    LIES[lie](liar)
    with pytest.raises(ImageError) as caught, RegistryClient(liar.address, patience=HASTY) as client:
        pull(reference(liar.address), store, client=client)
    message = str(caught.value)
    assert message.endswith((".", "?"))
    assert "\n" not in message
    assert is_empty(store)


# Registries that are stuck


def silent(connection: socket.socket, _: str) -> None:
    connection.recv(1)  # returns when the test is over


def drip(prefix: bytes) -> Callable[[socket.socket, str], None]:
    """Answer with a byte now and then, without end: no pause is long enough to be silence."""

    def reply(connection: socket.socket, _: str) -> None:
        connection.sendall(prefix)
        for _number in range(200):
            connection.sendall(b"x")
            time.sleep(0.05)

    return reply


def half(connection: socket.socket, head: str) -> None:
    connection.sendall(answer("200 OK", LAYER[:1000], length=len(LAYER)))
    silent(connection, head)


STUCK: dict[str, tuple[str, Callable[[socket.socket, str], None]]] = {
    "silent from the start": ("GET /v2/", silent),
    "silent instead of a manifest": ("GET /v2/alice/web/manifests/1 ", silent),
    "silent instead of a blob": (BLOB, silent),
    "silent in the middle of a blob": (BLOB, half),
    "an endless status line": (BLOB, drip(b"HTTP/1.1 200 ")),
    "endless headers": (BLOB, drip(b"HTTP/1.1 200 OK\r\nA: ")),
    "a blob byte by byte": (BLOB, drip(answer("200 OK", b"", length=len(LAYER)))),
    "a manifest byte by byte": ("GET /v2/alice/web/manifests/1 ", drip(answer("200 OK", b"", TYPE, length=1000))),
}


@pytest.mark.parametrize("how", STUCK)
def test_a_registry_that_is_stuck_ends_in_a_time_out(liar: Liar, store: ImageStore, how: str) -> None:
    honest(liar)
    request, reply = STUCK[how]
    liar.serve(request, reply)
    begun_s = time.monotonic()
    with pytest.raises(DeadlineExceeded, match="took too long"), RegistryClient(liar.address, patience=HASTY) as client:
        pull(reference(liar.address), store, client=client)
    assert time.monotonic() - begun_s < 8
    assert not store.entries()


def test_a_connection_that_breaks_now_and_then_is_survived(liar: Liar, store: ImageStore) -> None:
    honest(liar)

    def some(connection: socket.socket, head: str) -> None:
        """Give a third of what is asked for, and hang up."""
        lines = dict(line.split(": ", 1) for line in head.splitlines()[1:] if ": " in line)
        first = int(lines.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        part = LAYER[first : first + len(LAYER) // 3 + 1]
        span = f"Content-Range: bytes {first}-{len(LAYER) - 1}/{len(LAYER)}"
        status = "206 Partial Content" if first else "200 OK"
        connection.sendall(answer(status, part, span, length=len(LAYER) - first))

    liar.serve(BLOB, some)
    pull(reference(liar.address), store)
    assert store.blobs.path(digest_of(LAYER)).read_bytes() == LAYER
    asked = [head for head in liar.asked if head.startswith(BLOB)]
    assert len(asked) == 3


def test_one_bad_blob_ends_the_others(liar: Liar, store: ImageStore) -> None:
    slow, bad = b"s" * 50_000_000, blob(1000)
    manifest = manifest_of(CONFIG, slow, bad)
    liar.serve("GET /v2/alice/web/manifests/1 ", answer("200 OK", manifest, TYPE))
    liar.serve(f"GET /v2/alice/web/blobs/{digest_of(CONFIG)} ", answer("200 OK", CONFIG))
    liar.serve(f"GET /v2/alice/web/blobs/{digest_of(bad)} ", answer("200 OK", bytes(1000)))

    def steady(connection: socket.socket, _: str) -> None:
        connection.sendall(answer("200 OK", b"", length=len(slow)))
        for _number in range(600):
            connection.sendall(b"s" * 10_000)
            time.sleep(0.02)

    liar.serve(f"GET /v2/alice/web/blobs/{digest_of(slow)} ", steady)
    begun_s = time.monotonic()
    with pytest.raises(ImageError, match=digest_of(bad)):
        pull(reference(liar.address), store)
    assert time.monotonic() - begun_s < 6
    assert not store.entries()


def test_a_password_never_goes_where_a_redirection_leads(liar: Liar, store: ImageStore) -> None:
    from labkit.image.registry.credentials import Credentials

    honest(liar)
    with Liar().running() as other:
        other.serve("GET /there", answer("200 OK", LAYER))
        liar.serve(BLOB, answer("307 Temporary Redirect", b"", f"Location: http://{other.address}/there"))
        manifest = liar.replies["GET /v2/alice/web/manifests/1 "]
        challenge = answer("401 Unauthorized", b"{}", 'WWW-Authenticate: Basic realm="x"')

        def guarded(connection: socket.socket, head: str) -> None:
            assert isinstance(manifest, bytes)
            connection.sendall(manifest if "Authorization: Basic" in head else challenge)

        liar.serve("GET /v2/alice/web/manifests/1 ", guarded)
        with RegistryClient(liar.address, credentials=Credentials("alice", "secret-secret")) as client:
            pull(reference(liar.address), store, client=client)
        assert any("Authorization: Basic" in head for head in liar.asked)
        assert other.asked
        assert not any("Authorization" in head for head in other.asked)


@requires("program:openssl")
def test_over_TLS_the_registrys_certificate_must_be_trusted(
    tmp_path: Path, store: ImageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate, "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    settings = RegistrySettings(port=0, certificate=certificate, key=key)
    with RegistryServer(tmp_path / "tls", settings) as server:
        where = reference(server.address)
        with pytest.raises(RegistryError, match="certificate that is not trusted"):
            pull(where, store)
        # As OpenSSL has it, so has labkit: a certificate of one's own is named in the environment.
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        layer = blob(3 << 20)
        put_image(store, str(where), layer)
        done = push(where, store)
        assert done.bytes_of("moved") > len(layer)
        other = ImageStore(tmp_path / "other")
        assert pull(where, other).root.digest == done.root.digest
        assert other.blobs.path(digest_of(layer)).read_bytes() == layer
