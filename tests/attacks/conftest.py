"""One sandboxed kernel for each module of attacks: they run in one after the other, as a student's cells do."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from jupyter_core.utils import run_sync

from tests.attacks.kernels import SandboxedKernel
from tests.support.leaks import Snapshot, wait_for_leaks_since


@pytest.fixture(autouse=True)
def nothing_is_left() -> None:
    """Instead of after each test it is looked at the end of each module: an attack may end the kernel that a module shares."""


@pytest.fixture(scope="module", autouse=True)
def nothing_is_left_by_the_module() -> Iterator[None]:
    """The leak check of all tests, but for descriptors: a kernel that was started again left this process with a new client."""
    before = Snapshot.take()
    yield
    left = [words for words in wait_for_leaks_since(before) if not words.startswith("descriptor:")]
    if left:
        pytest.fail("the module left behind:\n  " + "\n  ".join(left), pytrace=False)


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxedKernel]:
    """A sandboxed kernel; its server is this process."""
    made = SandboxedKernel(tmp_path_factory.mktemp("attacks"))
    yield made
    made.close()


@pytest.fixture(scope="session", autouse=True)
def an_event_loop() -> None:
    """Jupyter's clients keep one event loop a thread for ever; made before the first test, no test seems to have left it."""
    run_sync(_nothing)()


async def _nothing() -> None:
    """Do nothing."""
