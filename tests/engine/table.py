"""Write the comparison in docs/engine.md anew: ``python -m tests.engine.table`` (as root, with Debian's dockerd installed).

Every line of `tests.engine.cases` is run with the real client against both daemons; the table says how each ended and
whether the output was the same once ids, times and sizes are masked.

See: `tests.engine.test_cli_conformance`, which fails where this table would show a difference that it does not expect.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from tests.engine.cases import CASES, masked
from tests.engine.support import Daemon, busybox_tar, start_dockerd, start_labkit
from tests.support import PROJECT

__all__ = ["main"]

_BEGIN, _END = "<!-- table: begin -->", "<!-- table: end -->"


def _row(how: str, script: str, docker: Daemon, labkit: Daemon, folders: tuple[Path, Path]) -> str:
    theirs, ours = (daemon.sh(script, folder) for daemon, folder in zip((docker, labkit), folders, strict=True))
    same = [masked(a.decode()) for a in (ours.stdout, ours.stderr)] == [
        masked(a.decode()) for a in (theirs.stdout, theirs.stderr)
    ]
    words = "the same" if same else {"~": "as many lines, other words", "?": "other words"}.get(how, "DIFFERENT")
    shown = script.replace("|", "\\|").replace("`", "'")
    return f"| `{shown}` | {theirs.returncode} | {ours.returncode} | {words} |"


def _timing(docker: Daemon, labkit: Daemon, folder: Path) -> str:
    taken: tuple[list[float], list[float]] = ([], [])
    for _ in range(15):
        for daemon, samples in zip((docker, labkit), taken, strict=True):
            begun_s = time.perf_counter()
            daemon.sh("docker run --rm busybox true", folder)
            samples.append(time.perf_counter() - begun_s)
    theirs, ours = (statistics.median(samples) * 1000 for samples in taken)
    return f"`docker run --rm busybox true`, 15 in turns, median: Docker {theirs:.0f} ms, labkit {ours:.0f} ms ({ours / theirs:.2f} of it)."


def main() -> None:
    """Run everything and write the table."""
    with tempfile.TemporaryDirectory(prefix="labkit-table-") as name:
        folder = Path(name)
        folders = (folder / "a" / "ctx", folder / "b" / "ctx")
        for path in folders:
            path.mkdir(parents=True)
        docker, labkit = start_dockerd(folder / "a"), start_labkit(folder / "b")
        try:
            for daemon in (docker, labkit):
                daemon.cli("import", "-", "busybox:latest", data=busybox_tar())
                daemon.cli("run", "--rm", "busybox", "true")
            timing = _timing(docker, labkit, folder)
            rows = [_row(how, script, docker, labkit, folders) for how, script in CASES]
            docker.sh("docker rm -f $(docker ps -aq)", folder)
        finally:
            labkit.stop()
            docker.stop()
    header = "| command | Docker's status | labkit's | output |\n|---|---|---|---|"
    document = PROJECT / "docs/engine.md"
    before, _, rest = document.read_text().partition(_BEGIN)
    after = rest.partition(_END)[2]
    document.write_text(f"{before}{_BEGIN}\n{timing}\n\n{header}\n" + "\n".join(rows) + f"\n{_END}{after}")


if __name__ == "__main__":
    main()
