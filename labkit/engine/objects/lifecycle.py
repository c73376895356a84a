"""The life of containers: start, stop, kill, pause, restart, and what follows when one ends by itself.

::

    created --start--> running --end--> exited --start--> running ...
                       |     ^                 `--restart policy, after a pause--> restarting
                     pause  unpause
                       v     |
                       paused

Whatever happens is written to the disk before it is acknowledged. Ends come from the keeper, through `Lives.ended`.

See: docker-stop(1), docker-run(1) (restart policies); `labkit.engine.objects.recovery` for what follows a crash.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from labkit.engine.keeper.client import KeeperClient
from labkit.engine.keeper.logfile import timestamp
from labkit.engine.network.manager import Networks
from labkit.engine.objects.events import Events
from labkit.engine.objects.record import Container
from labkit.engine.objects.starting import Starter, exit_code_of
from labkit.engine.spec.config import parse_signal
from labkit.engine.wire.errors import Conflict, NotModified
from labkit.errors import InvalidState, LabkitError

__all__ = ["Lives"]

log = logging.getLogger(__name__)

DEFAULT_STOP_S = 10
_KILL_S = 30.0
#: A container that ran so long is in order: the next pause before a restart is the shortest again.
_GOOD_RUN_S, _FIRST_PAUSE_S, _LONGEST_PAUSE_S = 10.0, 0.1, 60.0


class Lives:
    """Changes the state of containers; safe to use from several threads."""

    def __init__(self, keeper: KeeperClient, starter: Starter, networks: Networks, events: Events) -> None:
        self._keeper, self._starter, self._networks, self._events = keeper, starter, networks, events
        #: Called with a container that ended and is to be removed.
        self.remove: Callable[[Container], None] = lambda _: None
        #: Called with a container that has been started or has ended.
        self.watch_health: Callable[[Container], None] = lambda _: None
        self._closing = False

    # -- start --------------------------------------------------------------------------------------------------------

    def start(self, container: Container) -> None:
        """Start the container. Raises: NotModified if it runs, Conflict, and what `Starter.start` raises."""
        with container.lock:
            self._check_startable(container)
            container.was_stopped = False
            self._cancel_restart(container)
            self._start(container)

    def _check_startable(self, container: Container) -> None:
        if container.state.status == "paused":
            raise Conflict("cannot start a paused container, try unpause instead")
        if container.state.is_running:
            raise NotModified("container already started")
        if container.is_removed or container.state.status in ("removing", "dead"):
            raise Conflict("container is marked for removal and cannot be started")

    def _start(self, container: Container) -> None:
        state = container.state
        try:
            started = self._starter.start(container)
        except LabkitError as error:
            state.status = "exited" if state.finished_at[:4] != "0001" else "created"
            state.error, state.exit_code = str(error), exit_code_of(error)
            container.save()
            with suppress(LabkitError, OSError):
                self._keeper.forget(container.id)
            if container.host["AutoRemove"]:
                self.remove(container)
            container.announce()
            raise
        state.status, state.pid, state.folders = "running", started.pid, started.folders
        state.started_ns, state.started_at = started.started_ns, timestamp(started.started_ns)
        state.error, state.exit_code, state.oom_killed = "", 0, False
        container.save()
        container.announce()
        self._events.say("container", "start", container.id, container.attributes)
        self.watch_health(container)

    # -- end ----------------------------------------------------------------------------------------------------------

    def ended(self, container: Container, *, code: int, oom_killed: bool, finished_ns: int, started_ns: int) -> None:
        """Note how a container ended, and do what its policy says. An end of an earlier run is ignored."""
        with container.lock:
            state = container.state
            if state.started_ns != started_ns or not state.is_running:
                return
            self._networks.release(container)
            ran_s = (finished_ns - started_ns) / 1e9
            state.status, state.pid, state.folders = "exited", 0, {}
            state.exit_code, state.oom_killed = code, oom_killed
            state.finished_at = timestamp(finished_ns)
            container.ends += 1
            again = self._shall_restart(container)
            if again:
                state.status = "restarting"
            container.save()
            if oom_killed:
                self._events.say("container", "oom", container.id, container.attributes)
            self._events.say("container", "die", container.id, {**container.attributes, "exitCode": str(code)})
            with suppress(LabkitError, OSError):
                self._keeper.forget(container.id)
            container.announce()
            self.watch_health(container)
            if again:
                self._restart_later(container, ran_s)
            elif container.host["AutoRemove"]:
                self.remove(container)

    def _shall_restart(self, container: Container) -> bool:
        policy = container.host["RestartPolicy"]
        if self._closing or container.was_stopped or policy["Name"] == "no":
            return False
        if policy["Name"] == "on-failure":
            most = policy["MaximumRetryCount"]
            return container.state.exit_code != 0 and (not most or container.restart_count < most)
        return True

    def _restart_later(self, container: Container, ran_s: float) -> None:
        if ran_s >= _GOOD_RUN_S:
            container.restart_delay_s = _FIRST_PAUSE_S
        timer = threading.Timer(container.restart_delay_s, self._start_again, (container,))
        timer.daemon = True
        container.restart_delay_s = min(_LONGEST_PAUSE_S, container.restart_delay_s * 2)
        container.restart_timer = timer
        timer.start()

    def _start_again(self, container: Container) -> None:
        with container.lock:
            if container.state.status != "restarting" or self._closing or container.is_removed:
                return
            container.restart_count += 1
            try:
                self._start(container)
            except (LabkitError, OSError) as error:
                log.warning("%s was not started again: %s", container.name, error)
                container.state.status = "exited"
                container.save()
                container.announce()

    def _cancel_restart(self, container: Container) -> None:
        if container.restart_timer is not None:
            container.restart_timer.cancel()
            container.restart_timer = None
        if container.state.status == "restarting" and not container.state.pid:
            container.state.status = "exited"

    # -- signals ------------------------------------------------------------------------------------------------------

    def kill(self, container: Container, number: int) -> None:
        """Send a signal. Raises: Conflict unless it runs."""
        with container.lock:
            if not container.state.is_running:
                raise Conflict(f"Cannot kill container: {container.name}: Container {container.id} is not running")
            if number == signal.SIGKILL:
                container.was_stopped = True
            if container.state.status == "paused":
                if number != signal.SIGKILL:
                    raise Conflict(
                        f"Container {container.id} is paused. Unpause the container before stopping or killing"
                    )
                self._thaw(container)
        with suppress(InvalidState):  # ended in this very moment
            self._keeper.signal(container.id, number)
        attributes = {**container.attributes, "signal": str(number)}
        self._events.say("container", "kill", container.id, attributes)
        if number == signal.SIGKILL and not self.wait_end(container, _KILL_S):
            raise InvalidState(f"cannot kill container: {container.id}: it did not end within {_KILL_S:g} s")

    def stop(self, container: Container, timeout_s: int | None = None, *, signal_name: str = "") -> None:
        """Ask the program to end, and kill it after ``timeout_s`` (-1: never). Raises: NotModified unless it runs."""
        with container.lock:
            container.was_stopped = True
            was_restarting = container.state.status == "restarting"
            self._cancel_restart(container)
            if not container.state.is_running:
                if was_restarting:
                    container.save()
                    container.announce()
                    return
                raise NotModified("container already stopped")
            if container.state.status == "paused":
                self._thaw(container)
        if timeout_s is None:
            timeout_s = container.config.get("StopTimeout")
        patience_s = DEFAULT_STOP_S if timeout_s is None else timeout_s
        number = parse_signal(signal_name or container.config.get("StopSignal") or "TERM")
        with suppress(InvalidState):
            self._keeper.signal(container.id, number)
        self._events.say("container", "kill", container.id, {**container.attributes, "signal": str(number)})
        if not self.wait_end(container, None if patience_s < 0 else float(patience_s)):
            with suppress(InvalidState):
                self._keeper.signal(container.id, signal.SIGKILL)
            if not self.wait_end(container, _KILL_S):
                raise InvalidState(f"cannot stop container: {container.id}: it did not end when it was killed")
        self._events.say("container", "stop", container.id, container.attributes)

    def wait_end(self, container: Container, timeout_s: float | None) -> bool:
        """Wait until the program has ended; False if it still runs after ``timeout_s``."""
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        with container.changed:
            while container.state.is_running and not container.is_removed:
                left_s = None if deadline_s is None else deadline_s - time.monotonic()
                if left_s is not None and left_s <= 0:
                    return False
                container.changed.wait(left_s)
        return True

    def restart(self, container: Container, timeout_s: int | None, *, signal_name: str = "") -> None:
        """Stop the container if it runs, and start it."""
        auto_remove, container.host["AutoRemove"] = container.host["AutoRemove"], False
        try:
            with suppress(NotModified):
                self.stop(container, timeout_s, signal_name=signal_name)
        finally:
            container.host["AutoRemove"] = auto_remove
        self.start(container)
        self._events.say("container", "restart", container.id, container.attributes)

    # -- pause --------------------------------------------------------------------------------------------------------

    def pause(self, container: Container) -> None:
        """Freeze every process of the container. Raises: Conflict unless it runs."""
        with container.lock:
            if container.state.status == "paused":
                raise Conflict(f"Container {container.id} is already paused")
            self._check_running(container)
            self._keeper.freeze(container.id, on=True)
            container.state.status = "paused"
            container.save()
        container.announce()
        self._events.say("container", "pause", container.id, container.attributes)

    def unpause(self, container: Container) -> None:
        """Let the processes go on. Raises: Conflict unless it is paused."""
        with container.lock:
            if container.state.status != "paused":
                raise Conflict(f"Container {container.id} is not paused")
            self._thaw(container)
        container.announce()
        self._events.say("container", "unpause", container.id, container.attributes)

    def _thaw(self, container: Container) -> None:
        self._keeper.freeze(container.id, on=False)
        container.state.status = "running"
        container.save()

    def _check_running(self, container: Container) -> None:
        if container.state.status == "restarting":
            raise Conflict(f"Container {container.id} is restarting, wait until the container is running")
        if not container.state.is_running:
            raise Conflict(f"Container {container.id} is not running")

    def close(self, containers: list[Container], *, stop: bool) -> None:
        """End: start nothing again from now on, and with ``stop`` stop every container that runs, side by side."""
        self._closing = True
        for container in containers:
            if container.restart_timer is not None:
                container.restart_timer.cancel()
        if stop:
            threads = [threading.Thread(target=self._stop_quietly, args=(c,)) for c in containers if c.state.is_running]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

    def _stop_quietly(self, container: Container) -> None:
        # Whoever is stopped because the engine ends is to come back with it: that is no wish of a user's.
        was_stopped = container.was_stopped
        try:
            with suppress(NotModified):
                self.stop(container)
        except (LabkitError, OSError) as error:
            log.warning("%s: %s", container.name, error)
        with container.lock:
            container.was_stopped = was_stopped
            if not container.is_removed:
                container.save()
