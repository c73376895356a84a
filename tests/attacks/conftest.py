"""One sandboxed kernel for each module of attacks: they run in one after the other, as a student's cells do."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.attacks.kernels import SandboxedKernel


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxedKernel]:
    """A sandboxed kernel; its server is this process."""
    made = SandboxedKernel(tmp_path_factory.mktemp("attacks"))
    yield made
    made.close()
