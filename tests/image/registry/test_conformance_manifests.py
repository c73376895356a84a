"""What the distribution specification's own conformance suite checks of manifests, tags and referrers, each check as a test."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.image.registry.wire import (
    INDEX,
    MANIFEST,
    Wire,
    blob,
    config,
    descriptor,
    digest_of,
    image,
    index_of,
    manifest_of,
)  # fmt: skip

ONE, TWO = "conformance/repo1", "conformance/repo2"
EMPTY, EXAMPLE, OTHER = "application/vnd.oci.empty.v1+json", "application/vnd.example.v1", "application/vnd.example.v2"
FOREIGN = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"


def artifact(kind: str, data: bytes, **more: Any) -> bytes:
    """Return an artifact's manifest: no configuration to speak of, one layer of a type of its own."""
    document = {
        "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": kind, "config": descriptor(b"{}", EMPTY),
        "layers": [descriptor(data, kind)],
    }  # fmt: skip
    return json.dumps(document | more).encode()


def make(what: str) -> tuple[list[bytes], list[tuple[bytes, str]]]:
    """Return the suite's kind of content ``what``: its blobs and its manifests with their types, in the order to push them."""
    layers = [blob(), blob()]
    whole, blobs = image(*layers)
    second = manifest_of(config(*layers, architecture="arm64"), *layers)
    all_blobs = [*blobs, config(*layers, architecture="arm64"), b"{}"]
    both = [(whole, MANIFEST), (second, MANIFEST)]
    listed = index_of(whole, second)
    subject = descriptor(whole, MANIFEST)
    kinds: dict[str, list[tuple[bytes, str]]] = {
        "image": [(whole, MANIFEST)],
        "large manifest": [(image(*layers, annotations={f"large-{n}": "A" * 10000 for n in range(390)})[0], MANIFEST)],
        "index": [*both, (listed, INDEX)],
        "nested index": [*both, (listed, INDEX), (json.dumps(
            {"schemaVersion": 2, "mediaType": INDEX, "manifests": [descriptor(listed, INDEX)]}).encode(), INDEX)],
        "empty index": [(index_of(), INDEX)],
        "artifact": [(artifact(EXAMPLE, layers[0]), MANIFEST)],
        "artifact index": [(artifact(EXAMPLE, layers[0]), MANIFEST), (index_of(artifact(EXAMPLE, layers[0]), artifactType=EXAMPLE), INDEX)],
        "artifact without layers": [(manifest_of(b"{}", b"{}", kind=EMPTY, artifactType=EXAMPLE), MANIFEST)],
        "artifact with subject": [(artifact(EXAMPLE, layers[0], subject=subject), MANIFEST)],
        "index with subject": [*both, (index_of(whole, subject=subject, artifactType=EXAMPLE), INDEX)],
        "missing subject": [(artifact(EXAMPLE, layers[1], subject=descriptor(blob(), MANIFEST)), MANIFEST)],
        "data field": [(manifest_of(blobs[0], *layers, layers=[descriptor(layers[0], EXAMPLE, data="e30=")]), MANIFEST)],
        "non-distributable layers": [(manifest_of(blobs[0], layers=[
            descriptor(blob(), FOREIGN, urls=["https://store.example.com/x"]), descriptor(layers[0], EXAMPLE)]), MANIFEST)],
        "custom fields": [(image(*layers, **{"org.example": {"a": [1]}, "extra": "x"})[0], MANIFEST)],
        "no layers": [(manifest_of(blobs[0]), MANIFEST)],
    }  # fmt: skip
    return all_blobs, kinds[what]


KINDS = (
    "image", "large manifest", "index", "nested index", "empty index", "artifact", "artifact index", "artifact without layers",
    "artifact with subject", "index with subject", "missing subject", "data field", "non-distributable layers", "custom fields",
    "no layers",
)  # fmt: skip


def assert_pullable(shared: Wire, reference: str, data: bytes, kind: str, digest: str) -> None:
    accept = {"Accept": f"{INDEX}, {MANIFEST}"}
    path = reference if reference.startswith("/") else f"/v2/{ONE}/manifests/{reference}"
    got, head = shared.ask("GET", path, headers=accept), shared.ask("HEAD", path, headers=accept)
    assert (got.status, got.body) == (200, data)
    assert (head.status, head.body) == (200, b"")
    for answer in (got, head):
        assert answer.headers["Content-Type"] == kind
        assert answer.headers["Content-Length"] == str(len(data))
        assert answer.headers["Docker-Content-Digest"] == digest


@pytest.mark.parametrize("what", KINDS)
def test_every_kind_of_manifest_is_pushed_pulled_listed_and_deleted(shared: Wire, what: str) -> None:
    blobs, manifests = make(what)
    for data in blobs:
        shared.push(ONE, data)
    tag = what.replace(" ", "-")
    for data, kind in manifests:
        digest = digest_of(data)
        for reference in (digest, tag):
            got = shared.put(ONE, reference, data, kind)
            assert got.status == 201, got.body
            assert got.headers["Docker-Content-Digest"] == digest
            subject = json.loads(data).get("subject")
            assert got.headers["OCI-Subject"] == (subject["digest"] if subject else None)
            assert_pullable(shared, got.headers["Location"], data, kind, digest)
            assert_pullable(shared, reference, data, kind, digest)
    assert tag in shared.ask("GET", f"/v2/{ONE}/tags/list").json["tags"]
    assert shared.ask("DELETE", f"/v2/{ONE}/manifests/{tag}").status == 202
    assert shared.ask("HEAD", f"/v2/{ONE}/manifests/{tag}").status == 404
    assert tag not in shared.ask("GET", f"/v2/{ONE}/tags/list").json["tags"]
    for data, _ in reversed(manifests):
        path = f"/v2/{ONE}/manifests/{digest_of(data)}"
        assert shared.ask("HEAD", path).status == 200
        assert shared.ask("DELETE", path).status == 202
        assert shared.ask("GET", path).status == 404
    for data in blobs:
        assert shared.ask("DELETE", f"/v2/{ONE}/blobs/{digest_of(data)}").status in (202, 404)


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_a_push_by_digest_can_set_tags(shared: Wire, algorithm: str) -> None:
    layer = blob()
    for data in (layer, config(layer)):
        shared.push(ONE, data, algorithm)
    manifest = manifest_of(config(layer), layer, algorithm=algorithm)
    digest = digest_of(manifest, algorithm)
    got = shared.put(ONE, digest, manifest, tag=["tag-1", "tag-2"])
    assert got.status == 201
    assert [tag.strip() for tag in got.headers["OCI-Tag"].split(",")] == ["tag-1", "tag-2"]
    for reference in (digest, "tag-1", "tag-2"):
        assert_pullable(shared, reference, manifest, MANIFEST, digest)
    assert shared.ask("DELETE", f"/v2/{ONE}/manifests/{digest}").status == 202
    assert shared.ask("GET", f"/v2/{ONE}/manifests/tag-1").status == 404


def test_an_index_of_sha512_digests_is_pushed_and_pulled(shared: Wire) -> None:
    layer = blob()
    children = []
    for machine in ("amd64", "arm64"):
        configuration = config(layer, architecture=machine)
        for data in (layer, configuration):
            shared.push(ONE, data, "sha512")
        children.append(manifest_of(configuration, layer, algorithm="sha512"))
    index = index_of(*children, algorithm="sha512")
    for data, kind in (*((child, MANIFEST) for child in children), (index, INDEX)):
        digest = digest_of(data, "sha512")
        assert shared.put(ONE, digest, data, kind).status == 201
        assert_pullable(shared, digest, data, kind, digest)
    for data in (index, *children):
        assert shared.ask("DELETE", f"/v2/{ONE}/manifests/{digest_of(data, 'sha512')}").status == 202


def test_deleting_a_manifest_takes_its_tags_along(shared: Wire) -> None:
    manifest, digest = shared.push_image(ONE, "gone-1")
    shared.put(ONE, "gone-2", manifest)
    assert shared.ask("DELETE", f"/v2/{ONE}/manifests/{digest}").status == 202
    assert shared.ask("GET", f"/v2/{ONE}/manifests/gone-1").status == 404
    assert not {"gone-1", "gone-2"} & set(shared.ask("GET", f"/v2/{ONE}/tags/list").json["tags"])


@pytest.mark.parametrize("reference", ["missing", digest_of(b"missing")])
@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
def test_a_manifest_that_is_not_there_is_404(shared: Wire, method: str, reference: str) -> None:
    shared.push(ONE, b"so that the repository is there")
    got = shared.ask(method, f"/v2/{ONE}/manifests/{reference}")
    assert got.status == 404
    assert method == "HEAD" or got.code == "MANIFEST_UNKNOWN"


@pytest.mark.parametrize("path", ["tags/list", "manifests/latest"])
def test_a_repository_that_is_not_there_is_404(shared: Wire, path: str) -> None:
    got = shared.ask("GET", f"/v2/nobody/nothing/{path}")
    assert (got.status, got.code) == (404, "NAME_UNKNOWN")


def test_a_digest_that_is_none_is_refused(shared: Wire) -> None:
    manifest, _ = shared.push_image(ONE, "fine")
    for reference in ("sha256:baddigeststring", "sha256:totallywrong"):
        got = shared.put(ONE, reference, manifest)
        assert (got.status, got.code) == (400, "DIGEST_INVALID")
        assert shared.ask("GET", f"/v2/{ONE}/manifests/{reference}").status == 404


def test_a_manifest_with_other_bytes_than_its_digest_is_refused(shared: Wire) -> None:
    manifest, digest = shared.push_image(TWO, "fine")
    got = shared.put(TWO, digest, manifest + b"  ")
    assert (got.status, got.code) == (400, "DIGEST_INVALID")


LAYER = blob()
BAD = {
    "no JSON": b"blablabla",
    "a list": b"[]",
    "nothing": b"",
    "no schema version": b"{}",
    "schema 1": json.dumps({"schemaVersion": 1, "name": "x"}).encode(),
    "no configuration": json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "layers": []}).encode(),
    "image and index at once": json.dumps(
        {"schemaVersion": 2, "config": descriptor(b"{}", EMPTY), "layers": [], "manifests": []}
    ).encode(),
    "another type than announced": index_of(),
    "a negative size": manifest_of(
        b"{}", layers=[{"mediaType": EXAMPLE, "digest": digest_of(LAYER), "size": -1}]
    ),
    "a layer's digest that is none": manifest_of(b"{}", layers=[{"mediaType": EXAMPLE, "digest": "sha256:x", "size": 1}]),
    "a doubled key": b'{"schemaVersion":2,' + image(LAYER)[0][1:],
    "too deep": b'{"schemaVersion":2,"a":' + b"[" * 100000 + b"]" * 100000 + b"}",
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_a_bad_manifest_is_400(shared: Wire, what: str) -> None:
    shared.push(ONE, b"{}")
    got = shared.put(ONE, "bad", BAD[what])
    assert (got.status, got.code) == (400, "MANIFEST_INVALID")
    assert shared.ask("GET", f"/v2/{ONE}/manifests/bad").status == 404


def test_a_manifest_whose_parts_were_not_pushed_is_refused(shared: Wire) -> None:
    whole, blobs = image(blob())
    got = shared.put(ONE, "holes", whole)
    assert (got.status, got.code) == (400, "MANIFEST_BLOB_UNKNOWN")
    assert got.json["errors"][0]["detail"]["digest"] == digest_of(blobs[0])
    got = shared.put(ONE, "holes", index_of(whole), INDEX)
    assert (got.status, got.code) == (400, "MANIFEST_BLOB_UNKNOWN")


def test_a_manifest_of_more_than_4_MiB_is_413(shared: Wire) -> None:
    got = shared.put(ONE, "huge", b'{"a":"' + b"A" * (4 << 20) + b'"}')
    assert (got.status, got.code) == (413, "SIZE_INVALID")


@pytest.mark.parametrize("tag", ["-x", ".x", "a" * 129, "a%20b", "ä"])
def test_a_tag_that_is_none_is_refused(shared: Wire, tag: str) -> None:
    manifest, digest = shared.push_image(ONE, "fine")
    assert shared.put(ONE, digest, manifest, tag=["fine-2", tag]).status == 400
    if tag.isascii():
        assert shared.put(ONE, tag, manifest).status == 400
        assert shared.ask("GET", f"/v2/{ONE}/manifests/{tag}").status == 404


@pytest.mark.parametrize("name", ["Upper/case", "a//b", "-a", "a" * 256, "a/../b", "a/%2e%2e/b", "a/_blobs", "%00"])
def test_a_name_that_is_none_is_refused(shared: Wire, name: str) -> None:
    got = shared.ask("POST", f"/v2/{name}/blobs/uploads/")
    assert (got.status, got.code) == (404, "NAME_INVALID")
    assert shared.ask("GET", f"/v2/{name}/tags/list").code == "NAME_INVALID"


def test_the_type_may_be_left_to_the_manifest(shared: Wire) -> None:
    manifest, digest = shared.push_image(ONE, "typed")
    for kind in ("", f"{MANIFEST}; charset=utf-8"):
        assert shared.put(ONE, "typed", manifest, kind).status == 201
        assert_pullable(shared, "typed", manifest, MANIFEST, digest)


# Tags


@pytest.fixture
def many(wire: Wire) -> Wire:
    """A registry with a repository that has five tags."""
    manifest, _ = wire.push_image(ONE, "test0")
    for tag in ("test3", "test1", "Upper", "test2"):
        wire.put(ONE, tag, manifest)
    return wire


def test_tags_are_listed_in_order(many: Wire) -> None:
    got = many.ask("GET", f"/v2/{ONE}/tags/list")
    assert got.status == 200
    assert got.json == {"name": ONE, "tags": ["Upper", "test0", "test1", "test2", "test3"]}


def test_tags_are_listed_in_parts_with_links(many: Wire) -> None:
    got = many.ask("GET", f"/v2/{ONE}/tags/list", n=2)
    seen = got.json["tags"]
    assert len(seen) == 2
    while link := got.headers["Link"]:
        target, _, relation = link.partition(";")
        assert relation.strip() == 'rel="next"'
        got = many.ask("GET", target.strip("<> "))
        assert 0 < len(got.json["tags"]) <= 2
        seen += got.json["tags"]
    assert seen == ["Upper", "test0", "test1", "test2", "test3"]


def test_a_listing_begins_after_last(many: Wire) -> None:
    assert many.ask("GET", f"/v2/{ONE}/tags/list", last="test1").json["tags"] == ["test2", "test3"]
    assert many.ask("GET", f"/v2/{ONE}/tags/list", last="test1", n=1).json["tags"] == ["test2"]
    assert many.ask("GET", f"/v2/{ONE}/tags/list", last="test11", n=9).json["tags"] == ["test2", "test3"]
    assert many.ask("GET", f"/v2/{ONE}/tags/list", last="zzz").json["tags"] == []


def test_n_of_0_is_an_empty_list_without_a_link(many: Wire) -> None:
    got = many.ask("GET", f"/v2/{ONE}/tags/list", n=0)
    assert (got.status, got.json["tags"], got.headers["Link"]) == (200, [], None)


@pytest.mark.parametrize("count", ["-1", "x", "1e3", "9" * 30, "²"])
def test_n_that_is_no_number_is_400(many: Wire, count: str) -> None:
    assert many.ask("GET", f"/v2/{ONE}/tags/list", n=count).status == 400


def test_repositories_are_listed(many: Wire) -> None:
    for name in ("alice", "alice/web", "alice/web/deep", "bob/db"):
        many.push_image(name, "latest")
    many.push("only/blobs", b"x")
    got = many.ask("GET", "/v2/_catalog")
    assert got.json == {"repositories": ["alice", "alice/web", "alice/web/deep", "bob/db", ONE]}
    got = many.ask("GET", "/v2/_catalog", n=2)
    assert got.json == {"repositories": ["alice", "alice/web"]}
    assert got.headers["Link"] == '</v2/_catalog?n=2&last=alice%2Fweb>; rel="next"'
    assert many.ask("GET", "/v2/_catalog", n=3, last="alice/web").headers["Link"] is None


# Referrers


def referrers(wire: Wire, digest: str, **query: str) -> tuple[list[dict[str, Any]], str | None]:
    got = wire.ask("GET", f"/v2/{ONE}/referrers/{digest}", **query)
    assert got.status == 200
    assert got.headers["Content-Type"] == INDEX
    assert (got.json["schemaVersion"], got.json["mediaType"]) == (2, INDEX)
    return got.json["manifests"], got.headers["OCI-Filters-Applied"]


def test_what_nothing_refers_to_has_an_empty_list(wire: Wire) -> None:
    assert referrers(wire, digest_of(blob())) == ([], None)
    _, digest = wire.push_image(ONE, "alone")
    assert referrers(wire, digest) == ([], None)


def test_referrers_are_listed_with_type_and_annotations_and_filtered(wire: Wire) -> None:
    layer = blob()
    whole, blobs = image(layer)
    for data in (*blobs, b"{}"):
        wire.push(ONE, data)
    subject = descriptor(whole, MANIFEST)
    notes = {"org.example.note": "hello"}
    plain, _ = image(layer, subject=subject)
    first, second = (artifact(kind, layer, subject=subject, annotations=notes) for kind in (EXAMPLE, OTHER))
    listing = index_of(plain, subject=subject, annotations=notes)
    for data, kind in ((plain, MANIFEST), (first, MANIFEST), (second, MANIFEST), (listing, INDEX)):
        got = wire.put(ONE, digest_of(data), data, kind)
        assert (got.status, got.headers["OCI-Subject"]) == (201, digest_of(whole))
    # The subject itself may come after them.
    assert wire.put(ONE, "image", whole).status == 201
    expected = {
        digest_of(plain): descriptor(plain, MANIFEST, artifactType="application/vnd.oci.image.config.v1+json"),
        digest_of(first): descriptor(first, MANIFEST, artifactType=EXAMPLE, annotations=notes),
        digest_of(second): descriptor(second, MANIFEST, artifactType=OTHER, annotations=notes),
        digest_of(listing): descriptor(listing, INDEX, annotations=notes),
    }
    found, applied = referrers(wire, digest_of(whole))
    assert ({item["digest"]: item for item in found}, applied) == (expected, None)
    found, applied = referrers(wire, digest_of(whole), artifactType=EXAMPLE)
    assert (found, applied) == ([expected[digest_of(first)]], "artifactType")
    assert wire.ask("DELETE", f"/v2/{ONE}/manifests/{digest_of(first)}").status == 202
    assert referrers(wire, digest_of(whole), artifactType=EXAMPLE) == ([], "artifactType")
    assert len(referrers(wire, digest_of(whole))[0]) == 3


def test_many_referrers_come_in_parts(wire: Wire) -> None:
    wire.push(ONE, b"{}")
    subject = descriptor(b"missing", MANIFEST)
    sent = []
    for number in range(5):
        note = {"n": str(number), "long": "x" * 900_000}
        manifest = manifest_of(b"{}", kind=EMPTY, subject=subject, artifactType=EXAMPLE, annotations=note)
        assert wire.put(ONE, digest_of(manifest), manifest).status == 201
        sent.append(digest_of(manifest))
    got = wire.ask("GET", f"/v2/{ONE}/referrers/{digest_of(b'missing')}", artifactType=EXAMPLE)
    seen = [item["digest"] for item in got.json["manifests"]]
    assert len(seen) < 5
    while link := got.headers["Link"]:
        got = wire.ask("GET", link.partition(">")[0].strip("<"))
        assert got.headers["OCI-Filters-Applied"] == "artifactType"
        assert len(got.body) < 4 << 20
        seen += [item["digest"] for item in got.json["manifests"]]
    assert sorted(seen) == sorted(sent)


@pytest.mark.parametrize("digest", ["sha256:x", "nonsense", "md5:d41d8cd98f00b204e9800998ecf8427e"])
def test_referrers_of_what_is_no_digest_are_400(wire: Wire, digest: str) -> None:
    got = wire.ask("GET", f"/v2/{ONE}/referrers/{digest}")
    assert (got.status, got.code) == (400, "DIGEST_INVALID")


# End points


@pytest.mark.parametrize("path", ["/", "/v1/", "/v2/x", "/v2/_other", "/v2//tags/list", "/v2/x/tags", "/v2/x/blobs/"])
def test_what_is_no_end_point_is_404(shared: Wire, path: str) -> None:
    assert shared.ask("GET", path).status == 404


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/v2/"), ("PUT", "/v2/a/tags/list"), ("PATCH", "/v2/a/manifests/x"), ("DELETE", "/v2/_catalog"),
     ("POST", "/v2/a/blobs/sha256:x"), ("GET", "/v2/a/blobs/uploads/"), ("DELETE", "/v2/a/referrers/x")],
)  # fmt: skip
def test_a_method_that_is_not_offered_is_405(shared: Wire, method: str, path: str) -> None:
    got = shared.ask(method, path)
    assert (got.status, got.code) == (405, "UNSUPPORTED")
    assert got.headers["Allow"]
