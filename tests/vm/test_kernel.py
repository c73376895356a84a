"""Guest kernels in the cache: found, and not taken for good when they are not what set-up put there."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from labkit.errors import FeatureMissing, GuestError
from labkit.vm import kernel


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> kernel.GuestKernel:
    """A kernel in a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return kernel.store_kernel("micro", b"\x7fELF" + b"x" * 1000, release="6.1.0", package="linux-image-6.1.0")


def test_what_was_stored_is_found(stored: kernel.GuestKernel) -> None:
    assert kernel.find_kernel("micro") == stored
    assert stored.path.read_bytes().startswith(b"\x7fELF")


def test_a_missing_kernel_names_the_command_that_gets_it(stored: kernel.GuestKernel) -> None:
    with pytest.raises(FeatureMissing, match=r"no guest kernel \(hostroot\).*`labkit setup vm`\.$"):
        kernel.find_kernel("hostroot")


def test_a_cut_or_changed_kernel_is_one_sentence(stored: kernel.GuestKernel) -> None:
    whole = stored.path.read_bytes()
    stored.path.write_bytes(whole[:-1])
    with pytest.raises(GuestError, match="is damaged: 1003 bytes instead of 1004"):
        kernel.find_kernel("micro")
    stored.path.write_bytes(whole[:-1] + b"y")
    with pytest.raises(GuestError, match="its content is not what set-up put there"):
        kernel.find_kernel("micro")
    stored.path.write_bytes(whole)  # touched, and the same: hashed and found good
    assert kernel.find_kernel("micro") == stored


def test_a_damaged_description_is_one_sentence(stored: kernel.GuestKernel) -> None:
    described = stored.path.with_name("kernel.json")
    for text in ("{cut", "[]", '{"release": "6.1.0"}'):
        described.write_text(text)
        with pytest.raises(GuestError, match="cannot be used"):
            kernel.find_kernel("micro")


def test_an_untouched_kernel_is_not_read_again(stored: kernel.GuestKernel) -> None:
    described = stored.path.with_name("kernel.json")
    facts = json.loads(described.read_text())
    described.write_text(json.dumps({**facts, "sha256": "another"}))
    assert kernel.find_kernel("micro") == stored
    os.utime(stored.path)
    with pytest.raises(GuestError):
        kernel.find_kernel("micro")
