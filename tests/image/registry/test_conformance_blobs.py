"""What the distribution specification's own conformance suite checks of blobs and uploads, each check as a test.

Repositories carry the names that the suite uses, ``conformance/repo1`` and ``conformance/repo2``.
"""

from __future__ import annotations

import pytest

from tests.image.registry.wire import OCTETS, Wire, blob, digest_of

ONE, TWO = "conformance/repo1", "conformance/repo2"
ALGORITHMS = pytest.mark.parametrize("algorithm", ["sha256", "sha512"])


def assert_pullable(shared: Wire, location: str, data: bytes, digest: str) -> None:
    """Demand what the suite demands of a blob that was pushed: GET of the location, HEAD and GET by name."""
    name_path = f"/v2/{ONE}/blobs/{digest}"
    for path in (location, name_path):
        got = shared.ask("GET", path)
        assert (got.status, got.body) == (200, data)
        assert got.headers["Content-Length"] == str(len(data))
        assert got.headers["Docker-Content-Digest"] == digest
    head = shared.ask("HEAD", name_path)
    assert (head.status, head.body) == (200, b"")
    assert head.headers["Content-Length"] == str(len(data))
    assert head.headers["Docker-Content-Digest"] == digest


def assert_deletable(shared: Wire, name: str, digest: str) -> None:
    """Demand that a deleted blob is gone at once."""
    assert shared.ask("DELETE", f"/v2/{name}/blobs/{digest}").status == 202
    assert shared.ask("HEAD", f"/v2/{name}/blobs/{digest}").status == 404
    assert shared.ask("DELETE", f"/v2/{name}/blobs/{digest}").status == 404


def test_the_base_answers_200_and_names_the_protocol(shared: Wire) -> None:
    got = shared.ask("GET", "/v2/")
    assert got.status == 200
    assert got.headers["Docker-Distribution-Api-Version"] == "registry/2.0"


@ALGORITHMS
def test_a_blob_that_was_not_pushed_is_404(shared: Wire, algorithm: str) -> None:
    digest = digest_of(blob(), algorithm)
    got = shared.ask("GET", f"/v2/{ONE}/blobs/{digest}")
    assert (got.status, got.code) == (404, "BLOB_UNKNOWN")
    assert shared.ask("HEAD", f"/v2/{ONE}/blobs/{digest}").status == 404


@ALGORITHMS
def test_a_single_post_pushes_a_blob(shared: Wire, algorithm: str) -> None:
    data = blob()
    digest = digest_of(data, algorithm)
    got = shared.ask("POST", f"/v2/{ONE}/blobs/uploads/", data, OCTETS, digest=digest)
    assert got.status == 201
    assert got.headers["Docker-Content-Digest"] == digest
    assert_pullable(shared, got.headers["Location"], data, digest)
    assert_deletable(shared, ONE, digest)


@ALGORITHMS
def test_post_and_put_push_a_blob(shared: Wire, algorithm: str) -> None:
    data = blob()
    digest = digest_of(data, algorithm)
    got = shared.ask("PUT", shared.begin(ONE).headers["Location"], data, OCTETS, digest=digest)
    assert got.status == 201
    assert_pullable(shared, got.headers["Location"], data, digest)
    assert_deletable(shared, ONE, digest)


@ALGORITHMS
@pytest.mark.parametrize("put_last", [False, True], ids=["closing PUT empty", "last chunk in the PUT"])
@pytest.mark.parametrize("size", [512, 3 * 1024 - 5])
def test_chunks_push_a_blob(shared: Wire, algorithm: str, *, put_last: bool, size: int) -> None:
    data = blob(size)
    digest = digest_of(data, algorithm)
    location = shared.begin(ONE).headers["Location"]
    spans = [(start, min(start + 1024, size)) for start in range(0, size, 1024)]
    for start, end in spans[: len(spans) - put_last]:
        got = shared.ask("PATCH", location, data[start:end], OCTETS | {"Content-Range": f"{start}-{end - 1}"})
        assert got.status == 202
        assert got.headers["Range"] == f"0-{end - 1}"
        location = got.headers["Location"]
    last = {"Content-Range": f"{spans[-1][0]}-{spans[-1][1] - 1}"} if put_last else {}
    body = data[spans[-1][0] :] if put_last else b""
    got = shared.ask("PUT", location, body, OCTETS | last, digest=digest)
    assert got.status == 201
    assert_pullable(shared, got.headers["Location"], data, digest)
    assert_deletable(shared, ONE, digest)


@ALGORITHMS
@pytest.mark.parametrize("put_last", [False, True])
def test_a_chunk_out_of_order_is_416_and_the_upload_goes_on(shared: Wire, algorithm: str, *, put_last: bool) -> None:
    data = blob(3 * 1024 - 5)
    digest = digest_of(data, algorithm)
    location = shared.begin(ONE).headers["Location"]
    for start in range(0, len(data), 1024):
        bad = start + 1024 if start + 1024 < len(data) else 0
        end, bad_end = min(start + 1024, len(data)), min(bad + 1024, len(data))
        is_put = put_last and bad_end == len(data)
        got = shared.ask(
            "PUT" if is_put else "PATCH", location, data[bad:bad_end],
            OCTETS | {"Content-Range": f"{bad}-{bad_end - 1}"}, **({"digest": digest} if is_put else {}),
        )  # fmt: skip
        assert got.status == 416
        status = shared.ask("GET", location)
        assert (status.status, status.body) == (204, b"")
        assert status.headers["Range"] == f"0-{max(0, start - 1)}"
        got = shared.ask("PATCH", status.headers["Location"], data[start:end], {"Content-Range": f"{start}-{end - 1}"})
        assert got.status == 202
        location = got.headers["Location"]
    got = shared.ask("PUT", location, b"", digest=digest)
    assert got.status == 201
    assert_pullable(shared, got.headers["Location"], data, digest)


def test_a_chunk_sent_again_is_416_and_the_status_says_how_far_it_is(shared: Wire) -> None:
    location = shared.begin(ONE).headers["Location"]
    first = {"Content-Range": "0-99"}
    assert shared.ask("PATCH", location, b"a" * 100, first).headers["Range"] == "0-99"
    assert shared.ask("PATCH", location, b"a" * 100, first).status == 416
    status = shared.ask("GET", location)
    assert (status.status, status.headers["Range"]) == (204, "0-99")
    assert status.headers["Location"]
    got = shared.ask("PATCH", location, b"b" * 50, {"Content-Range": "100-149"})
    assert (got.status, got.headers["Range"]) == (202, "0-149")
    digest = digest_of(b"a" * 100 + b"b" * 50)
    assert shared.ask("PUT", location, b"", digest=digest).status == 201


@ALGORITHMS
def test_a_stream_of_unknown_length_pushes_a_blob(shared: Wire, algorithm: str) -> None:
    data = blob(5000)
    digest = digest_of(data, algorithm)
    location = shared.begin(ONE).headers["Location"]
    parts = (data[n : n + 700] for n in range(0, len(data), 700))
    got = shared.ask("PATCH", location, parts, OCTETS)
    assert (got.status, got.headers["Range"]) == (202, "0-4999")
    got = shared.ask("PUT", got.headers["Location"], b"", OCTETS, digest=digest)
    assert got.status == 201
    assert_pullable(shared, got.headers["Location"], data, digest)
    assert_deletable(shared, ONE, digest)


@ALGORITHMS
@pytest.mark.parametrize("source", [TWO, None], ids=["from a repository", "anonymous"])
def test_a_blob_of_another_repository_is_mounted(shared: Wire, algorithm: str, source: str | None) -> None:
    data = blob()
    digest = shared.push(TWO, data, algorithm)
    query = {"mount": digest} | ({"from": source} if source else {})
    got = shared.ask("POST", f"/v2/{ONE}/blobs/uploads/", **query)
    assert got.status == 201
    assert got.headers["Location"] == f"/v2/{ONE}/blobs/{digest}"
    assert got.headers["Docker-Content-Digest"] == digest
    assert_pullable(shared, got.headers["Location"], data, digest)
    assert_deletable(shared, ONE, digest)
    assert_deletable(shared, TWO, digest)


@ALGORITHMS
@pytest.mark.parametrize("source", [TWO, None])
def test_mounting_what_is_not_there_begins_an_upload(shared: Wire, algorithm: str, source: str | None) -> None:
    data = blob()
    digest = digest_of(data, algorithm)
    query = {"mount": digest} | ({"from": source} if source else {})
    got = shared.ask("POST", f"/v2/{ONE}/blobs/uploads/", **query)
    assert got.status == 202
    assert got.headers["Location"].startswith(f"/v2/{ONE}/blobs/uploads/")
    assert shared.ask("PUT", got.headers["Location"], data, digest=digest).status == 201


def test_a_blob_that_only_another_repository_has_is_not_given_out(shared: Wire) -> None:
    digest = shared.push(TWO, blob())
    assert shared.ask("GET", f"/v2/{ONE}/blobs/{digest}").status == 404


def test_an_upload_is_cancelled(shared: Wire) -> None:
    location = shared.begin(ONE).headers["Location"]
    shared.ask("PATCH", location, b"some")
    assert shared.ask("DELETE", location, headers={"Content-Length": "0"}).status == 204
    for method in ("GET", "PATCH", "PUT", "DELETE"):
        got = shared.ask(method, location)
        assert (got.status, got.code) == (404, "BLOB_UPLOAD_UNKNOWN")


RANGES = {
    "bytes=500-1499": (500, 1500), "bytes=500-": (500, 2048), "bytes=-500": (1548, 2048), "bytes=2000-5000": (2000, 2048),
    "bytes=0-0": (0, 1), "bytes=-5000": (0, 2048),
}  # fmt: skip


@ALGORITHMS
@pytest.mark.parametrize("text", RANGES)
def test_a_part_of_a_blob_is_206(shared: Wire, algorithm: str, text: str) -> None:
    data = blob(2048)
    path = f"/v2/{ONE}/blobs/{shared.push(ONE, data, algorithm)}"
    first, end = RANGES[text]
    got = shared.ask("GET", path, headers={"Range": text})
    assert (got.status, got.body) == (206, data[first:end])
    assert got.headers["Content-Length"] == str(end - first)
    assert got.headers["Content-Range"] == f"bytes {first}-{end - 1}/2048"


@pytest.mark.parametrize("text", ["bytes=500-0", "bytes=5000-10000", "bytes=2048-", "bytes=-0"])
def test_a_part_that_is_not_there_is_416(shared: Wire, text: str) -> None:
    path = f"/v2/{ONE}/blobs/{shared.push(ONE, blob(2048))}"
    got = shared.ask("GET", path, headers={"Range": text})
    assert got.status == 416
    assert got.headers["Content-Range"] == "bytes */2048"


@pytest.mark.parametrize("text", ["bytes=0-1,4-5", "lines=1-2", "bytes=x-y", "bytes=-"])
def test_a_range_that_is_none_gives_the_whole_blob(shared: Wire, text: str) -> None:
    data = blob(100)
    got = shared.ask("GET", f"/v2/{ONE}/blobs/{shared.push(ONE, data)}", headers={"Range": text})
    assert (got.status, got.body) == (200, data)


@ALGORITHMS
@pytest.mark.parametrize("data", [b"", b"{}"], ids=["empty", "empty JSON"])
def test_well_known_blobs_can_be_pushed(shared: Wire, algorithm: str, data: bytes) -> None:
    digest = shared.push(ONE, data, algorithm)
    assert_pullable(shared, f"/v2/{ONE}/blobs/{digest}", data, digest)
    assert_deletable(shared, ONE, digest)
    location = shared.begin(ONE).headers["Location"]
    assert shared.ask("PUT", location, iter([data] if data else []), digest=digest).status == 201
    assert_deletable(shared, ONE, digest)


@ALGORITHMS
@pytest.mark.parametrize("way", ["post", "put", "chunks", "stream"])
def test_a_wrong_digest_is_400_and_nothing_stays(shared: Wire, algorithm: str, way: str) -> None:
    data = blob(3000)
    digest = digest_of(data, algorithm)
    wrong = data + b"oh no"
    location = "" if way == "post" else shared.begin(ONE).headers["Location"]
    if way == "post":
        got = shared.ask("POST", f"/v2/{ONE}/blobs/uploads/", wrong, digest=digest)
    elif way == "put":
        got = shared.ask("PUT", location, wrong, digest=digest)
    elif way == "chunks":
        for start in range(0, len(wrong), 1024):
            end = min(start + 1024, len(wrong))
            shared.ask("PATCH", location, wrong[start:end], {"Content-Range": f"{start}-{end - 1}"})
        got = shared.ask("PUT", location, b"", digest=digest)
    else:
        shared.ask("PATCH", location, iter([wrong]))
        got = shared.ask("PUT", location, b"", digest=digest)
    assert (got.status, got.code) == (400, "DIGEST_INVALID")
    assert shared.ask("HEAD", f"/v2/{ONE}/blobs/{digest}").status == 404
    assert not location or shared.ask("GET", location).status == 404


@pytest.mark.parametrize(
    "digest", ["", "sha256:bad", "md5:d41d8cd98f00b204e9800998ecf8427e", "sha256:" + "A" * 64, "x"]
)
def test_a_digest_that_is_none_is_400(shared: Wire, digest: str) -> None:
    location = shared.begin(ONE).headers["Location"]
    got = shared.ask("PUT", location, b"data", digest=digest)
    assert (got.status, got.code) == (400, "DIGEST_INVALID")
    assert shared.ask("DELETE", location).status == 204


@pytest.mark.parametrize(
    ("text", "code"), [("9-0", "BLOB_UPLOAD_INVALID"), ("bytes 0-3/4", "BLOB_UPLOAD_INVALID"), ("0-9", "SIZE_INVALID")]
)
def test_a_chunk_with_an_impossible_range_is_400(shared: Wire, text: str, code: str) -> None:
    location = shared.begin(ONE).headers["Location"]
    got = shared.ask("PATCH", location, b"data", {"Content-Range": text})
    assert (got.status, got.code) == (400, code)
    assert shared.ask("GET", location).headers["Range"] == "0-0"
    assert shared.ask("DELETE", location).status == 204


def test_the_same_blob_from_two_repositories_lies_once(shared: Wire, shared_server) -> None:  # type: ignore[no-untyped-def]
    data = blob()
    digest = shared.push(ONE, data)
    assert shared.push(TWO, data) == digest
    assert shared_server.blobs.path(digest).read_bytes() == data
    assert_deletable(shared, ONE, digest)
    assert shared.ask("GET", f"/v2/{TWO}/blobs/{digest}").body == data
    assert shared_server.blobs.has(digest)
    assert_deletable(shared, TWO, digest)
    assert not shared_server.blobs.has(digest)


def test_who_has_a_blob_already_is_not_sent_it_again(shared: Wire) -> None:
    path = f"/v2/{ONE}/blobs/{shared.push(ONE, blob())}"
    tag = shared.ask("HEAD", path).headers["ETag"]
    got = shared.ask("GET", path, headers={"If-None-Match": tag})
    assert (got.status, got.body) == (304, b"")
    assert shared.ask("GET", path, headers={"If-Range": '"other"', "Range": "bytes=0-1"}).status == 200
