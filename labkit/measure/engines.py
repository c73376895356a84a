"""Container engines as contenders of the race: podman without a daemon, docker with one.

podman gets storage of its own in a scratch folder, so nothing of the user's is touched; docker takes part only if a daemon answers
already, and gets a small image that is removed again. An engine keeps books about each container (names, states, events,
logs) and starts a monitor beside it: that is where its time goes.

Leaves out: pulling and unpacking of images; podman's own daemon.
See: podman-run(1), docker-run(1), docker-import(1).
"""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from labkit.errors import FeatureMissing, LabkitError
from labkit.measure.contenders import LIMITS, Contender
from labkit.measure.programs import TIMEOUT_S, container_name, held_cgroups, outside, program, quietly
from labkit.measure.scratch import scratch_folder

__all__ = ["docker", "podman"]

_DOCKER_ANSWER_S = 3.0


def _limit_options() -> list[str]:
    return [f"--memory={LIMITS.memory_bytes}", f"--pids-limit={LIMITS.pids}", f"--cpus={LIMITS.cpus}"]


@contextmanager
def podman(rootfs: Path) -> Iterator[Contender]:
    """Prepare podman: with limits, or without where it cannot set them. Raises: LabkitError with what it said."""
    with scratch_folder(mode=0o700) as folder, held_cgroups() as group:
        # Whatever it keeps for its user goes to the scratch folder, too.
        names = ("HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR")
        variables = dict.fromkeys(names, str(folder))
        options = [
            program("podman"), "--root", str(folder / "root"), "--runroot", str(folder / "run"), "--tmpdir",
            str(folder / "tmp"), "--storage-driver=vfs", "--cgroup-manager=cgroupfs", "--events-backend=none",
        ]  # fmt: skip
        try:
            yield _first_that_runs("podman", _podman_tries(options, rootfs, group), variables)
        finally:
            quietly(*options, "rm", "--all", "--force", "--time=0", variables=variables)
            # Ends the process that keeps an ordinary user's namespaces alive between two commands.
            quietly(*options, "system", "migrate", variables=variables)


def _podman_tries(options: list[str], rootfs: Path, group: str) -> list[tuple[list[str], str]]:
    # The runtime sets these rlimits itself, and may not raise them above the caller's own without CAP_SYS_RESOURCE.
    common = ["run", "--rm", "--network=none", "--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024"]
    limited = [f"--cgroup-parent={group}", *_limit_options()]
    words = ["--rootfs", str(rootfs), "/bin/true"]
    note = "the engine's defaults: no user namespace for root, a monitor (conmon) beside it"
    return [
        ([*options, *common, *limited, *words], note),
        ([*options, "--runtime=runc", *common, *limited, *words], f"{note}; runtime runc"),
        ([*options, *common, "--cgroups=disabled", *words], f"{note}; no limits here"),
    ]


def _first_that_runs(name: str, tries: list[tuple[list[str], str]], variables: Mapping[str, str]) -> Contender:
    reasons = []
    for command, note in tries:
        try:
            return outside(name, command, note, variables=variables)
        except LabkitError as error:
            reasons.append(str(error))
    raise LabkitError(reasons[0])


@contextmanager
def docker(rootfs: Path) -> Iterator[Contender]:
    """Prepare docker, if a daemon answers. Raises: LabkitError."""
    client = program("docker")
    try:
        asked = subprocess.run(
            [client, "version", "--format", "{{.Server.Version}}"], stdin=subprocess.DEVNULL, capture_output=True,
            timeout=_DOCKER_ANSWER_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise FeatureMissing(f"Its daemon did not answer within {_DOCKER_ANSWER_S:.0f} s.") from error
    if asked.returncode != 0:
        raise FeatureMissing("No daemon answers.")
    image = f"{container_name()}:latest"
    command = [client, "run", "--rm", "--network=none", *_limit_options(), image, "/bin/true"]
    try:
        _import_image(client, rootfs, image)
        yield outside("docker", command, f"the daemon's defaults (Docker {asked.stdout.decode().strip()}), limits")
    finally:
        quietly(client, "image", "rm", "--force", image)


def _import_image(client: str, rootfs: Path, image: str) -> None:
    tarball = io.BytesIO()
    with tarfile.open(fileobj=tarball, mode="w") as tar:
        tar.add(rootfs, arcname=".")
    done = subprocess.run(
        [client, "import", "-", image], input=tarball.getvalue(), capture_output=True, timeout=TIMEOUT_S, check=False,
        env=dict(os.environ),
    )  # fmt: skip
    if done.returncode != 0:
        raise LabkitError(f"It takes no image: {done.stderr.decode(errors='replace').strip()}.")
