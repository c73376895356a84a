"""Pushes: whole, in parts, mounted, cut off and gone on with; and to registries that refuse, stall and forget."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from labkit.errors import DeadlineExceeded, ImageError, InvalidSpec
from labkit.image import ImageStore, Reference
from labkit.image.descriptor import Descriptor
from labkit.image.manifest import parse_manifest
from labkit.image.registry.client import RegistryClient
from labkit.image.registry.failures import RegistryError
from labkit.image.registry.patience import Pace
from labkit.image.registry.progress import Event
from labkit.image.registry.push import push
from labkit.image.registry.server.service import RegistryServer, RegistrySettings
from labkit.image.registry.transport import Patience
from tests.image.registry.liar import Liar, answer
from tests.image.registry.wire import INDEX, MANIFEST, Wire, blob, config, descriptor, digest_of, image, manifest_of

HASTY = Patience(connect_s=1, head=Pace(1, 1), body=Pace(1, 1, 10_000), send_s=1)
OCTETS = "application/octet-stream"
BEGIN = "POST /v2/alice/web/blobs/uploads/"


def put_image(store: ImageStore, name: str, *layers: bytes, **more: object) -> tuple[bytes, tuple[bytes, ...]]:
    """Put a small image into the store under ``name``."""
    manifest, blobs = image(*layers, **more)
    for data in blobs:
        store.blobs.put(data, OCTETS)
    store.tag(name, store.blobs.put(manifest, MANIFEST))
    return manifest, blobs


def test_a_pushed_image_has_the_stores_bytes(server: RegistryServer, wire: Wire, store: ImageStore) -> None:
    layer = blob(3 << 20)
    name = f"{server.address}/alice/web:1"
    manifest, blobs = put_image(store, name, layer)
    events: list[Event] = []
    done = push(Reference.parse(name), store, progress=events.append)
    assert wire.ask("GET", "/v2/alice/web/manifests/1").body == manifest
    for data in blobs:
        assert wire.ask("GET", f"/v2/alice/web/blobs/{digest_of(data)}").body == data
    steps = [event.status for event in events if event.descriptor.digest == digest_of(layer)]
    assert (steps[0], set(steps[1:-1]), steps[-1]) == ("Preparing", {"Pushing"}, "Pushed")
    assert done.bytes_of("moved") == sum(map(len, blobs))
    assert done.bytes_of("moved") < done.sent_bytes < done.bytes_of("moved") + 10_000


def test_what_the_registry_has_does_not_travel(server: RegistryServer, store: ImageStore) -> None:
    layer = blob(1 << 20)
    name = f"{server.address}/alice/web"
    put_image(store, f"{name}:1", layer)
    put_image(store, f"{name}:2", layer, blob(1000))
    push(Reference.parse(f"{name}:1"), store)
    done = push(Reference.parse(f"{name}:2"), store)
    assert done.bytes_of("shared") == len(layer)
    assert done.sent_bytes < 10_000
    assert push(Reference.parse(f"{name}:2"), store).bytes_of("moved") == 0


def test_layers_of_another_repository_are_mounted(server: RegistryServer, wire: Wire, store: ImageStore) -> None:
    base = blob(1 << 20)
    put_image(store, f"{server.address}/library/base:1", base)
    put_image(store, f"{server.address}/alice/web:1", base, blob(1000))
    push(Reference.parse(f"{server.address}/library/base:1"), store)
    events: list[Event] = []
    done = push(Reference.parse(f"{server.address}/alice/web:1"), store, progress=events.append)
    assert done.bytes_of("mounted") == len(base)
    assert done.sent_bytes < 10_000
    assert "Mounted from library/base" in [event.text for event in events]
    assert wire.ask("GET", f"/v2/alice/web/blobs/{digest_of(base)}").body == base


def test_a_mount_that_fails_is_an_upload(server: RegistryServer, wire: Wire, store: ImageStore) -> None:
    layer = blob(1000)
    name = f"{server.address}/alice/web:1"
    put_image(store, name, layer)
    done = push(Reference.parse(name), store, mount_from=["nobody/nothing"])
    assert {moved.how for moved in done.blobs} == {"moved"}
    assert wire.ask("GET", f"/v2/alice/web/blobs/{digest_of(layer)}").body == layer


@pytest.mark.parametrize("chunk_bytes", [100_000, 1_000_000, 5_000_000])
def test_a_push_in_parts_arrives_whole(server: RegistryServer, wire: Wire, store: ImageStore, chunk_bytes: int) -> None:
    layer = blob(1_000_001)
    name = f"{server.address}/alice/web:1"
    put_image(store, name, layer, b"")
    push(Reference.parse(name), store, chunk_bytes=chunk_bytes)
    assert wire.ask("GET", f"/v2/alice/web/blobs/{digest_of(layer)}").body == layer


def test_the_registrys_least_size_of_parts_is_kept(tmp_path: Path, store: ImageStore) -> None:
    with RegistryServer(tmp_path / "r", RegistrySettings(port=0, chunk_min_bytes=300_000)) as server:
        name = f"{server.address}/alice/web:1"
        put_image(store, name, blob(1_000_000))
        with RegistryClient(server.address) as client:
            push(Reference.parse(name), store, chunk_bytes=1000, client=client)
            assert client.transport.exchanged.requests < 20


def test_another_name_of_the_store_can_be_pushed(server: RegistryServer, wire: Wire, store: ImageStore) -> None:
    manifest, _ = put_image(store, "local:1", blob())
    push(Reference.parse(f"{server.address}/alice/web:1"), store, source="local:1")
    assert wire.ask("GET", "/v2/alice/web/manifests/1").body == manifest


def test_a_whole_index_is_pushed_and_of_a_part_this_machines_image(
    server: RegistryServer, wire: Wire, store: ImageStore
) -> None:
    from labkit.image.descriptor import this_platform

    layer, machine = blob(), this_platform().architecture
    children = {name: manifest_of(config(layer, architecture=name), layer) for name in (machine, "mips")}
    listed = [
        descriptor(data, MANIFEST, platform={"os": "linux", "architecture": name}) for name, data in children.items()
    ]
    index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": listed}).encode()
    store.blobs.put(layer, OCTETS)
    store.blobs.put(config(layer, architecture=machine), OCTETS)
    store.blobs.put(children[machine], MANIFEST)
    name = f"{server.address}/alice/web:1"
    store.tag(name, store.blobs.put(index, INDEX))
    assert push(Reference.parse(name), store).root.digest == digest_of(children[machine])
    store.blobs.put(config(layer, architecture="mips"), OCTETS)
    store.blobs.put(children["mips"], MANIFEST)
    assert push(Reference.parse(name), store).root.digest == digest_of(index)
    assert wire.ask("GET", "/v2/alice/web/manifests/1").body == index
    assert wire.ask("GET", f"/v2/alice/web/manifests/{digest_of(children['mips'])}").status == 200


def test_what_cannot_be_pushed_is_said(server: RegistryServer, store: ImageStore) -> None:
    with pytest.raises(ImageError, match="There is no image"):
        push(Reference.parse(f"{server.address}/alice/web:1"), store)
    with pytest.raises(InvalidSpec, match="push it under a tag"):
        push(Reference.parse(f"{server.address}/alice/web@{digest_of(b'')}"), store)


def test_our_own_damage_is_refused_by_the_registry(server: RegistryServer, wire: Wire, store: ImageStore) -> None:
    layer = blob(1000)
    name = f"{server.address}/alice/web:1"
    put_image(store, name, layer)
    store.blobs.path(digest_of(layer)).write_bytes(bytes(1000))
    with pytest.raises(RegistryError, match="digest invalid"):
        push(Reference.parse(name), store)
    assert wire.ask("GET", "/v2/alice/web/manifests/1").status == 404
    store.blobs.path(digest_of(layer)).write_bytes(b"short")
    with pytest.raises(ImageError, match="has not the 1000 bytes"):
        push(Reference.parse(name), store)


# Registries that break, stall and refuse


def test_an_upload_that_breaks_is_gone_on_with(server: RegistryServer, wire: Wire, store: ImageStore) -> None:
    """A go-between cuts the connection in the middle of the first upload that is large."""
    layer = blob(4 << 20)
    put_image(store, "local:1", layer)
    cuts, seen = [1_500_000, 2_000_000], []

    def relay(source: socket.socket, target: socket.socket, counted: bool) -> None:
        passed = 0
        try:
            while data := source.recv(65536):
                passed += len(data)
                target.sendall(data)
                if counted and cuts and passed > cuts[0]:
                    seen.append(cuts.pop(0))
                    time.sleep(0.2)  # the registry reads what is on its way
                    break
        except OSError:
            pass
        for end in (source, target):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue

    with _between(server.address, relay) as address:
        push(Reference.parse(f"{address}/alice/web:1"), store, source="local:1")
    assert len(seen) == 2
    assert wire.ask("GET", f"/v2/alice/web/blobs/{digest_of(layer)}").body == layer
    assert wire.ask("GET", "/v2/alice/web/manifests/1").status == 200


def _between(address: str, relay: Callable[[socket.socket, socket.socket, bool], None]):  # type: ignore[no-untyped-def]
    """Stand between a client and the registry at ``address``; ``relay`` passes on what one side sends."""
    import threading
    from contextlib import contextmanager

    @contextmanager
    def standing():  # type: ignore[no-untyped-def]
        listener = socket.create_server(("127.0.0.1", 0))
        threads, sockets = [], []

        def accept() -> None:
            while True:
                try:
                    near, _ = listener.accept()
                except OSError:
                    return
                host, _, port = address.partition(":")
                far = socket.create_connection((host, int(port)))
                sockets.extend((near, far))
                for source, target, counted in ((near, far, True), (far, near, False)):
                    threads.append(threading.Thread(target=relay, args=(source, target, counted)))
                    threads[-1].start()

        acceptor = threading.Thread(target=accept)
        acceptor.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            acceptor.join()
            for end in sockets:
                try:
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue
            for thread in threads:
                thread.join()
            for end in (listener, *sockets):
                end.close()

    return standing()


def willing(liar: Liar) -> None:
    """Let the liar take a push; the test then changes something."""
    liar.serve("HEAD /v2/alice/web/blobs/", answer("404 Not Found"))
    liar.serve(BEGIN, answer("202 Accepted", b"", "Location: /upload/1"))
    liar.serve("PUT /upload/1", answer("201 Created"))
    liar.serve("PUT /v2/alice/web/manifests/1", answer("201 Created"))
    liar.serve("DELETE /upload/1", answer("204 No Content"))


def silent(connection: socket.socket, _: str) -> None:
    connection.recv(1)


REFUSALS = {
    "no place for the upload": (BEGIN, answer("202 Accepted"), "did not say where it goes on"),
    "denied": (
        BEGIN, answer("403 Forbidden", b'{"errors":[{"code":"DENIED","message":"\\u001b[31mno"}]}'), r"denied \(\?\[31mno\)",
    ),
    "unauthorized": (BEGIN, answer("401 Unauthorized", b'{"errors":[{"code":"UNAUTHORIZED"}]}'), "unauthorized; log in"),
    "too large": ("PUT /upload/1", answer("413 Payload Too Large", b"<html>"), "size invalid"),
    "wrong digest": ("PUT /upload/1", answer("400 Bad Request", b'{"errors":[{"code":"DIGEST_INVALID"}]}'), "digest invalid"),
    "an inner error": ("PUT /upload/1", answer("500 Internal Server Error", b"x" * 100), "status 500"),
    "a manifest refused": (
        "PUT /v2/alice/web/manifests/1", answer("400 Bad Request", b'{"errors":[{"code":"MANIFEST_INVALID"}]}'), "manifest invalid",
    ),
    "an upload elsewhere over plain HTTP": (
        BEGIN, answer("202 Accepted", b"", "Location: ftp://registry.invalid/x"), "no address of the web",
    ),
    "an error without end": ("PUT /upload/1", answer("400 Bad Request", b"x" * 200_000), "more than 65536 bytes"),
}  # fmt: skip


@pytest.mark.parametrize("how", REFUSALS)
def test_a_refusal_is_said_in_one_sentence(liar: Liar, store: ImageStore, how: str) -> None:
    request, reply, words = REFUSALS[how]
    willing(liar)
    liar.serve(request, reply)
    put_image(store, "local:1", blob(1000))
    with pytest.raises(ImageError, match=words) as caught, RegistryClient(liar.address, patience=HASTY) as client:
        push(Reference.parse(f"{liar.address}/alice/web:1"), store, source="local:1", client=client)
    assert "\n" not in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("request_line", [BEGIN, "PUT /upload/1", "PUT /v2/alice/web/manifests/1"])
def test_a_registry_that_says_nothing_ends_in_a_time_out(liar: Liar, store: ImageStore, request_line: str) -> None:
    willing(liar)
    liar.serve(request_line, silent)
    put_image(store, "local:1", blob(1000))
    with pytest.raises(DeadlineExceeded), RegistryClient(liar.address, patience=HASTY) as client:
        push(Reference.parse(f"{liar.address}/alice/web:1"), store, source="local:1", client=client)


def test_a_registry_that_takes_nothing_ends_in_a_time_out(liar: Liar, store: ImageStore) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        deaf.listen()
        willing(liar)
        address = f"http://127.0.0.1:{deaf.getsockname()[1]}/upload"
        liar.serve(BEGIN, answer("202 Accepted", b"", f"Location: {address}"))
        put_image(store, "local:1", b"x" * (32 << 20))
        with pytest.raises(DeadlineExceeded), RegistryClient(liar.address, patience=HASTY) as client:
            push(Reference.parse(f"{liar.address}/alice/web:1"), store, source="local:1", client=client)


def test_where_referrers_are_not_listed_a_tag_lists_them(liar: Liar, store: ImageStore) -> None:
    """An older registry does not answer with OCI-Subject; the client keeps the list itself."""
    subject = descriptor(b"something signed", MANIFEST)
    willing(liar)
    kept: list[bytes] = []
    tag = subject["digest"].replace(":", "-")
    liar.serve(f"GET /v2/alice/web/manifests/{tag}", answer("404 Not Found", b"{}"))
    liar.serve(f"PUT /v2/alice/web/manifests/{tag}", answer("201 Created"))
    put_image(store, "local:1", blob(10), subject=subject, artifactType="application/vnd.example")
    original = liar._read_head

    def reading(stream):  # type: ignore[no-untyped-def]
        lines = []
        while (line := stream.readline(65536)) not in (b"\r\n", b""):
            lines.append(line.decode())
        length = next((int(line.partition(":")[2]) for line in lines if line.lower().startswith("content-length")), 0)
        body = stream.read(length)
        if lines and tag in lines[0] and lines[0].startswith("PUT"):
            kept.append(body)
        return "".join(lines)

    liar._read_head = reading  # type: ignore[method-assign]
    assert original is not reading
    push(Reference.parse(f"{liar.address}/alice/web:1"), store, source="local:1")
    (index,) = kept
    found = parse_manifest(index, INDEX)
    assert [(item.artifact_type, item.digest) for item in found.manifests] == [  # type: ignore[union-attr]
        ("application/vnd.example", store.resolve("local:1").digest)
    ]


def test_a_descriptor_names_what_was_moved(server: RegistryServer, store: ImageStore) -> None:
    put_image(store, f"{server.address}/alice/web:1", b"one layer")
    done = push(Reference.parse(f"{server.address}/alice/web:1"), store)
    assert all(isinstance(moved.descriptor, Descriptor) for moved in done.blobs)
    assert done.requests >= 7
