"""Request bodies: whatever way they are cut up, the same bytes come out; whatever nonsense comes, it is refused."""

from __future__ import annotations

import io
from email.message import Message

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.image.registry.server.answers import Refusal
from labkit.image.registry.server.bodies import Body


def body_of(stream: bytes, **headers: str) -> Body:
    message = Message()
    for name, value in headers.items():
        message[name.replace("_", "-")] = value
    return Body(io.BufferedReader(io.BytesIO(stream)), message)  # type: ignore[arg-type]


def read_all(body: Body, step: int) -> bytes:
    found = b""
    while part := body.read(step):
        assert len(part) <= step
        found += part
    return found


@given(
    st.lists(st.binary(min_size=1, max_size=50), max_size=8),
    st.integers(1, 60),
    st.sampled_from([b"", b"; name=value"]),
)
def test_chunks_come_out_as_one(parts: list[bytes], step: int, extension: bytes) -> None:
    stream = (
        b"".join(b"%x%s\r\n%s\r\n" % (len(part), extension, part) for part in parts) + b"0\r\nTrailer: x\r\n\r\nnext"
    )
    body = body_of(stream, Transfer_Encoding="chunked")
    assert (body.length, body.announced) == (None, True)
    assert read_all(body, step) == b"".join(parts)
    assert body.finished
    assert body._stream.read() == b"next"


@given(st.binary(max_size=100), st.integers(1, 60))
def test_a_body_with_a_length_ends_there(data: bytes, step: int) -> None:
    body = body_of(data + b"next", Content_Length=str(len(data)))
    assert read_all(body, step) == data
    assert body.finished
    assert body._stream.read() == b"next"


@given(st.binary(max_size=200))
def test_nonsense_is_refused_and_nothing_else(data: bytes) -> None:
    body = body_of(data, Transfer_Encoding="chunked")
    try:
        read_all(body, 64)
    except (Refusal, ConnectionError):
        assert not body.skip(1 << 20)


def test_a_body_that_is_cut_off_is_an_error() -> None:
    for body in (body_of(b"ab", Content_Length="3"), body_of(b"3\r\nab", Transfer_Encoding="chunked")):
        with pytest.raises(ConnectionError):
            read_all(body, 10)


def test_no_body_is_an_empty_one() -> None:
    body = body_of(b"next")
    assert (body.announced, body.length, body.finished, body.read(10)) == (False, 0, True, b"")


@pytest.mark.parametrize("size", [10, 11])
def test_a_body_that_is_too_large_is_413_announced_or_not(size: int) -> None:
    for body in (
        body_of(b"x" * size, Content_Length=str(size)),
        body_of(b"%x\r\n%s\r\n0\r\n\r\n" % (size, b"x" * size), Transfer_Encoding="chunked"),
    ):
        if size <= 10:
            assert body.read_all(10) == b"x" * size
        else:
            with pytest.raises(Refusal) as caught:
                body.read_all(10)
            assert caught.value.status == 413
