"""After a crash: what the disk says, what the keeper says, and what follows from both.

A container that the disk calls running is running if the keeper still has it under the same start. Otherwise it has ended: how,
stands in the ``exit.json`` that the keeper wrote; if there is none (the machine or the keeper was killed as well), it was
killed, too. Then restart policies hold as if the end had just been seen.

See: `labkit.engine.keeper`; Docker documentation, "Live restore".
"""

from __future__ import annotations

import logging
import signal
import time
from contextlib import suppress
from typing import Any

from labkit.engine.keeper.client import KeeperClient
from labkit.engine.keeper.logfile import timestamp
from labkit.engine.network.manager import Networks
from labkit.engine.objects.files import read_json
from labkit.engine.objects.lifecycle import Lives
from labkit.engine.objects.record import Container
from labkit.engine.objects.registry import Registry
from labkit.errors import LabkitError

__all__ = ["recover"]

log = logging.getLogger(__name__)

_KILLED = 137


def recover(containers: Registry, keeper: KeeperClient, networks: Networks, lives: Lives) -> None:
    """Bring every container's entry up to what is true now, and start what its policy wants running."""
    kept = keeper.processes()
    known = {container.id for container in containers.all()}
    for container in containers.all():
        if container.state.is_running:
            _settle(container, kept.get(container.id), networks, lives)
        elif (facts := kept.get(container.id)) is not None and facts["pid"]:
            _adopt(container, facts, networks, lives)
    for key, facts in kept.items():
        if key not in known:
            _let_go(key, facts, keeper)
    for container in containers.all():
        _start_by_policy(container, lives)


def _settle(container: Container, facts: dict[str, Any] | None, networks: Networks, lives: Lives) -> None:
    state = container.state
    if facts is not None and facts["pid"] and facts["started_ns"] == state.started_ns:
        state.pid, state.folders = facts["pid"], facts["folders"]
        try:
            networks.restore(container)
        except (OSError, LabkitError) as error:
            log.warning("%s: its network is not served again: %s", container.name, error)
        lives.watch_health(container)
        return
    code, oom_killed, finished_ns = _how_it_ended(container, facts)
    lives.ended(container, code=code, oom_killed=oom_killed, finished_ns=finished_ns, started_ns=state.started_ns)


def _adopt(container: Container, facts: dict[str, Any], networks: Networks, lives: Lives) -> None:
    """Take over a container that was started in the moment in which the engine was killed: nobody was told that it runs."""
    state = container.state
    state.status, state.started_ns = "running", facts["started_ns"]
    state.started_at, state.error = timestamp(facts["started_ns"]), ""
    container.save()
    _settle(container, facts, networks, lives)


def _let_go(key: str, facts: dict[str, Any], keeper: KeeperClient) -> None:
    """End what belongs to no container of ours; a further program in a container lives and ends with that."""
    if facts["pid"] and not facts["is_exec"]:
        with suppress(LabkitError):
            keeper.signal(key, signal.SIGKILL)
    elif not facts["pid"]:
        keeper.forget(key)


def _how_it_ended(container: Container, facts: dict[str, Any] | None) -> tuple[int, bool, int]:
    if facts is not None and facts["ended"] is not None and facts["started_ns"] == container.state.started_ns:
        code, oom_killed, finished_ns = facts["ended"]
        return int(code), bool(oom_killed), int(finished_ns)
    noted = read_json(container.exit_path)
    if noted is not None and noted["started_ns"] == container.state.started_ns:
        return int(noted["code"]), bool(noted["oom_killed"]), int(noted["finished_ns"])
    return _KILLED, False, time.time_ns()


def _start_by_policy(container: Container, lives: Lives) -> None:
    policy = container.host["RestartPolicy"]["Name"]
    wanted = policy == "always" or (policy == "unless-stopped" and not container.was_stopped)
    was_started = container.state.started_ns > 0
    if not wanted or not was_started or container.state.is_running or container.restart_timer is not None:
        return
    try:
        lives.start(container)
    except (LabkitError, OSError) as error:
        log.warning("%s was not started: %s", container.name, error)
