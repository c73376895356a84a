"""Hashes in a thread of their own: the same digests, and no thread that stays."""

from __future__ import annotations

import hashlib
import threading

import pytest

from labkit.image.background import BackgroundHash


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("sizes", [[], [0], [1], [5, 0, 7], [1 << 20] * 9])
def test_parts_have_the_digest_of_the_whole(algorithm: str, sizes: list[int]) -> None:
    parts = [bytes([number]) * size for number, size in enumerate(sizes)]
    background = BackgroundHash(algorithm)
    for part in parts:
        background.update(part)
    assert background.digest() == f"{algorithm}:{hashlib.new(algorithm, b''.join(parts)).hexdigest()}"
    background.update(b"more")
    assert background.digest() == f"{algorithm}:{hashlib.new(algorithm, b''.join(parts) + b'more').hexdigest()}"


def test_no_thread_stays_of_a_hash_that_nobody_asks_for() -> None:
    before = threading.active_count()
    background = BackgroundHash("sha256")
    background.update(b"x" * 100_000)
    background.close()
    background.close()
    assert threading.active_count() == before
