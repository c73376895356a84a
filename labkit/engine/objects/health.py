"""Health checks: a program that is run in the container now and then, and says by its exit status how the container is.

``starting`` until the first check succeeds or ``Retries`` of them in a row have failed; failures within the start period do not count.

See: Docker documentation, "HEALTHCHECK"; Docker Engine API, "HealthConfig".
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from labkit.engine.keeper.logfile import timestamp
from labkit.engine.objects.events import Events
from labkit.engine.objects.execs import Execs
from labkit.engine.objects.record import Container
from labkit.errors import LabkitError

__all__ = ["HealthWatch", "check_command"]

log = logging.getLogger(__name__)

_INTERVAL_S, _TIMEOUT_S, _RETRIES = 30.0, 30.0, 3
_START_INTERVAL_S = 5.0
_KEPT_RESULTS, _MOST_OUTPUT = 5, 4096


def check_command(container: Container) -> list[str]:
    """Return the words of the container's check; empty if it has none."""
    test = (container.config.get("Healthcheck") or {}).get("Test") or []
    if not test or test[0] == "NONE":
        return []
    if test[0] == "CMD-SHELL":
        return [*(container.config.get("Shell") or ["/bin/sh", "-c"]), *test[1:2]]
    return list(test[1:]) if test[0] == "CMD" else []


class HealthWatch:
    """One thread for each running container that has a check."""

    def __init__(self, execs: Execs, events: Events) -> None:
        self._execs, self._events = execs, events
        self._stops: dict[str, threading.Event] = {}
        self._lock = threading.Lock()

    def watch(self, container: Container) -> None:
        """Begin to check a container that runs, and stop checking one that does not."""
        with self._lock:
            before = self._stops.pop(container.id, None)
            if before is not None:
                before.set()
            if not container.state.is_running or not check_command(container):
                return
            stop = self._stops[container.id] = threading.Event()
        container.health = {"Status": "starting", "FailingStreak": 0, "Log": []}
        threading.Thread(target=self._run, args=(container, stop), name="health", daemon=True).start()

    def close(self) -> None:
        """Stop checking."""
        with self._lock:
            for stop in self._stops.values():
                stop.set()
            self._stops.clear()

    def _run(self, container: Container, stop: threading.Event) -> None:
        check = container.config["Healthcheck"]
        started_s = time.monotonic()
        start_period_s = _seconds(check, "StartPeriod", 0.0)
        while True:
            in_start = time.monotonic() - started_s < start_period_s
            pause_s = (
                _seconds(check, "StartInterval", _START_INTERVAL_S)
                if in_start
                else _seconds(check, "Interval", _INTERVAL_S)
            )
            if stop.wait(pause_s) or not container.state.is_running:
                return
            if container.state.status == "paused":
                continue
            begun_ns = time.time_ns()
            try:
                code, output = self._probe(container, _seconds(check, "Timeout", _TIMEOUT_S))
            except (LabkitError, OSError) as error:
                code, output = -1, str(error)
            if stop.is_set():
                return
            self._note(container, code, output, begun_ns, counts=time.monotonic() - started_s >= start_period_s)

    def _probe(self, container: Container, timeout_s: float) -> tuple[int, str]:
        """Run the check once; return its exit status and its output (-1: it took too long)."""
        body = {"Cmd": check_command(container), "AttachStdout": True, "AttachStderr": True, "Tty": True}
        one = self._execs.create(container, body)
        with self._execs.attach(one, streams=(1, 2), stdin=False) as output:
            output.settimeout(timeout_s)
            self._execs.start(one)
            text = b""
            deadline_s = time.monotonic() + timeout_s
            with suppress(TimeoutError):
                while (data := output.recv(_MOST_OUTPUT)) and time.monotonic() < deadline_s:
                    text = (text + data)[:_MOST_OUTPUT]
        code = one.wait(max(0.1, deadline_s - time.monotonic()))
        if code is None:
            self._execs.kill(one)
            return -1, f"Health check exceeded timeout ({timeout_s:g}s)"
        return code, text.decode(errors="replace").replace("\r\n", "\n")

    def _note(self, container: Container, code: int, output: str, begun_ns: int, *, counts: bool) -> None:
        health = container.health
        if health is None:
            return
        result = {"Start": timestamp(begun_ns), "End": timestamp(time.time_ns()), "ExitCode": code, "Output": output}
        health["Log"] = [*health["Log"], result][-_KEPT_RESULTS:]
        before = health["Status"]
        if code == 0:
            health["FailingStreak"], health["Status"] = 0, "healthy"
        elif counts or before != "starting":
            health["FailingStreak"] += 1
            retries = container.config["Healthcheck"].get("Retries") or _RETRIES
            if health["FailingStreak"] >= retries:
                health["Status"] = "unhealthy"
        if health["Status"] != before:
            container.announce()
            self._events.say("container", f"health_status: {health['Status']}", container.id, container.attributes)


def _seconds(check: Mapping[str, Any], name: str, default_s: float) -> float:
    value = check.get(name) or 0
    return value / 1e9 if isinstance(value, (int, float)) and value > 0 else default_s
