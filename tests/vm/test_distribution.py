"""A guest with a whole distribution: systemd is its first process, everything has started, and it answers like the others."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from labkit.errors import FeatureMissing, InvalidState
from labkit.vm.distribution import Distribution, disk_folder, find_disk
from tests.support import requires


@pytest.fixture(scope="module")
def guest() -> Iterator[Distribution]:
    """The only one: under emulation it takes ten seconds and more to start."""
    with Distribution(boot_timeout_s=200) as running:
        yield running


@requires("vm-distribution")
@pytest.mark.timeout(300)
class TestDistribution:
    def test_systemd_is_process_1_and_has_started_everything(self, guest: Distribution) -> None:
        assert guest.exec(["readlink", "/proc/1/exe"]).text == "/usr/lib/systemd/systemd\n"
        assert guest.exec(["systemctl", "is-system-running"]).text == "running\n"
        active = guest.exec(
            ["systemctl", "is-active", "multi-user.target", "systemd-journald", "dbus", "systemd-logind"]
        )
        assert active.text.split() == ["active"] * 4
        assert "login: " in guest.console.wait_for("login: ", 60)

    def test_it_is_the_system_that_set_up_has_made_and_its_files_are_roots(self, guest: Distribution) -> None:
        said = guest.exec(
            ["sh", "-c", ". /etc/os-release; echo $PRETTY_NAME; stat -c %U:%G /etc /etc/shadow /usr/bin/chage"]
        )
        assert said.text.split("\n")[:4] == [find_disk().system, "root:root", "root:root", "root:shadow"]
        assert guest.exec(["sh", "-c", "df --output=fstype / | tail -n 1"]).text.strip() == "ext4"

    def test_streams_and_status_are_exact_and_a_closed_pipe_harms_nobody(self, guest: Distribution) -> None:
        data = os.urandom(200_000)
        result = guest.exec(["sh", "-c", "tee /dev/stderr; exit 9"], stdin=data)
        assert (result.status, result.stdout, result.stderr) == (9, data, data)
        assert guest.exec(["true"], stdin=data).status == 0
        # The child of an agent that ignores SIGPIPE must not ignore it: `yes` would write on without an end.
        assert guest.exec(["sh", "-c", "trap - PIPE; yes | head -n 1"], timeout_s=60).text == "y\n"
        assert guest.exec(["sh", "-c", "kill -PIPE $$"]).status == 128 + 13

    def test_its_timeline_counts_until_everything_has_started(self, guest: Distribution) -> None:
        phases = {phase.name: phase.elapsed_s for phase in guest.timeline.phases()}
        assert phases["init"] > phases["kernel"]

    def test_what_it_writes_stays_out_of_the_disk_and_its_state_cannot_be_saved(
        self, guest: Distribution, tmp_path: Path
    ) -> None:
        before_ns = find_disk().path.stat().st_mtime_ns
        assert guest.exec(["sh", "-c", "echo x > /labkit-was-here && sync"]).status == 0
        assert find_disk().path.stat().st_mtime_ns == before_ns
        for use in (lambda: guest.snapshot(tmp_path / "state"), guest.migrate):
            with pytest.raises(InvalidState, match="has a disk, which its state does not hold"):
                use()


def test_without_a_disk_it_is_said_how_to_get_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(FeatureMissing, match="Run `labkit setup vm --distribution`"):
        Distribution()
    disk_folder().mkdir(parents=True)
    (disk_folder() / "disk.ext4").write_bytes(b"short")
    (disk_folder() / "disk.json").write_text('{"system": "Debian", "packages": 3, "size_bytes": 6}')
    with pytest.raises(FeatureMissing, match="no disk with a distribution"):
        find_disk()
