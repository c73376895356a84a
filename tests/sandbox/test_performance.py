"""What the sandbox costs: time to the first reply, memory, and twenty at once."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sandbox.driver import Driver
from tests.sandbox.performance import both_kernelspecs
from tests.support import PROJECT, requires

pytestmark = requires("userns", "overlay-userns")


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the sandboxed kernelspec and the same one without its provisioner, called ``plain``."""
    return both_kernelspecs(tmp_path_factory.mktemp("both"))


def measured(both: Path, count: int) -> float:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.sandbox.performance", str(both), str(count)],
        cwd=PROJECT, capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    times = json.loads(done.stdout.splitlines()[-1])
    return statistics.median(times["labkit"]) / statistics.median(times["plain"])


@pytest.mark.timeout(600)  # twenty-two starts, up to three times, on a machine that may be busy
def test_the_first_reply_takes_at_most_a_quarter_longer_than_without_a_sandbox(both: Path) -> None:
    # Measured again if need be: other work on the machine may hit one side for a while, the sandbox's own cost is there always.
    ratios: list[float] = []
    while len(ratios) < 3 and min(ratios, default=9.0) > 1.25:
        ratios.append(measured(both, 10))
    assert min(ratios) <= 1.25, ratios


def test_twenty_at_once_all_answer_and_cost_at_most_ten_megabytes_each(
    kernels: Path, course: Path, tmp_path: Path
) -> None:
    environ = {"JUPYTER_RUNTIME_DIR": str(tmp_path), "LABKIT_SANDBOX_POLICY": str(tmp_path / "policy.toml")}
    (tmp_path / "policy.toml").write_text(f'[mounts]\nwork = "{tmp_path}/work"\n')
    with Driver(kernels, course, environ=environ) as driver:
        answer = driver.ask("many", count=20)
        assert answer["results"] == ["42"] * 20
        helpers = answer["helpers_pss_kib"]
        assert sum(helpers.values()) / 20 <= 10 * 1024, helpers
