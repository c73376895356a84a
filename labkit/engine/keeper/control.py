"""The keeper's side of the protocol: one thread a request, all of them short but for those that only listen.

What takes time (making namespaces, cgroups, mounts) happens in the request's own thread, so the streams of the other containers go on;
what touches a kept process happens in the loop.

See: `labkit.engine.keeper.protocol`.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from labkit.container.process import Process
from labkit.engine.keeper.kept import Kept
from labkit.engine.keeper.logfile import LogFile
from labkit.engine.keeper.loop import READ, Loop
from labkit.engine.keeper.protocol import TIMEOUT_S, receive, send
from labkit.engine.keeper.session import Session
from labkit.errors import InvalidState, LabkitError
from labkit.isolation.cgroups import Cgroup, JoinFds, Limits, default_parent

__all__ = ["Keeper"]

#: How long nobody may subscribe before a keeper without containers thinks that its engine was killed.
_PATIENCE_S = 5.0


class Keeper:
    """Every kept process by its id (container or exec), and the engines that listen."""

    def __init__(self, listener: socket.socket) -> None:
        self.loop = Loop()
        self._listener = listener
        self._kept: dict[str, Kept] = {}
        self._listeners: list[socket.socket] = []
        self.loop.add(listener.fileno(), READ, lambda _: self._accept())
        self.loop.later(_PATIENCE_S, self._leave_if_idle)

    # -- connections --------------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        conn, _ = self._listener.accept()
        conn.settimeout(TIMEOUT_S)
        threading.Thread(target=self._serve, args=(conn,), daemon=True).start()

    def _serve(self, conn: socket.socket) -> None:
        keep_open = False
        fds: list[int] = []
        try:
            request, fds = receive(conn)
            operation = getattr(self, f"_op_{request.get('op', 'nothing')}", None)
            if operation is None:
                return
            keep_open = bool(operation(conn, request, fds))
        except (LabkitError, OSError) as error:
            with suppress(OSError):
                send(conn, {"error": error})
        finally:
            for fd in fds:
                with suppress(OSError):
                    os.close(fd)
            if not keep_open:
                conn.close()

    def _find(self, key: str) -> Kept:
        kept = self._kept.get(key)
        if kept is None or kept.process is None or kept.ended is not None:
            raise InvalidState(f"{key} is not running")
        return kept

    def _place(self, key: str) -> Kept:
        """Return the entry for a process that may not have been started yet."""
        kept = self._kept.get(key)
        if kept is None or kept.ended is not None:
            kept = self._kept[key] = Kept(self.loop, key)
        return kept

    # -- processes ----------------------------------------------------------------------------------------------------

    def _op_start(self, conn: socket.socket, request: dict[str, Any], _: list[int]) -> None:
        key, spec = request["id"], request["spec"]
        if (old := self._kept.get(key)) is not None and old.process is not None and old.ended is None:
            raise InvalidState(f"{key} is running already")
        name = f"labkit-{key[:12]}"
        process = Process("spawn", name, spec, streams=_streams(request))
        process.prepare()
        cgroup = _make_cgroup(name, request["limits"])
        try:
            with cgroup.join_fds() if cgroup else JoinFds() as join:
                process.start(join=join, between=self._between(conn) if request["hold"] else None)
            answer = self._begin(request, process, cgroup)
        except BaseException:
            process.close()
            if cgroup is not None:
                cgroup.delete()
            raise
        # From here on it is kept: an engine that was killed while it waited leaves it to the next one.
        send(conn, answer)

    def _op_exec(self, conn: socket.socket, request: dict[str, Any], _: list[int]) -> None:
        target = self._find(request["container"])
        process = Process("exec", f"labkit-{request['id'][:12]}", request["spec"], streams=_streams(request))
        with target.cgroup.join_fds() if target.cgroup else JoinFds() as join:
            if target.process is None:
                raise InvalidState(f"{request['container']} is not running")
            process.start(join=join, target=(target.process.pid, target.process.pidfd))
        send(conn, self._begin(request, process, None))

    def _begin(self, request: dict[str, Any], process: Process, cgroup: Cgroup | None) -> dict[str, Any]:
        """Have the loop keep a process that has been started; return what to tell of it."""
        started_ns = time.time_ns()
        pid = process.pid

        def take_over() -> None:
            kept = self._place(request["id"])
            kept.terminal, kept.is_exec = request["terminal"], request["op"] == "exec"
            log = LogFile(request["log"]) if request["log"] is not None else None
            kept.begin(
                process, cgroup, log=log, stdin_once=request["stdin_once"], started_ns=started_ns,
                on_end=lambda ended: self._note_end(ended, request["exit_path"]),
            )  # fmt: skip

        self.loop.call(take_over)
        folders = {name: str(path) for name, path in cgroup.folders.items()} if cgroup else {}
        return {"pid": pid, "started_ns": started_ns, "folders": folders, "notes": process.notes}

    def _between(self, conn: socket.socket) -> Callable[[int, int], None]:
        def ask(pid: int, net_fd: int) -> None:
            send(conn, {"held": pid}, [net_fd])
            answer, _ = receive(conn)
            if answer.get("op") != "go":
                raise InvalidState(str(answer.get("message", "the engine went away while it set up the network")))

        return ask

    def _note_end(self, kept: Kept, exit_path: str) -> None:
        ended = kept.ended
        if ended is None:
            return
        record = {
            "id": kept.key, "code": ended.code, "oom_killed": ended.oom_killed, "finished_ns": ended.finished_ns,
            "started_ns": kept.started_ns,
        }  # fmt: skip
        if exit_path:
            with suppress(OSError):  # the engine has been told as well
                with open(f"{exit_path}.new", "w") as file:
                    json.dump(record, file)
                os.replace(f"{exit_path}.new", exit_path)
        for listener in list(self._listeners):
            try:
                send(listener, record)
            except OSError:
                self._drop_listener(listener)
        if not self._listeners:
            self._leave_if_idle()

    # -- what is asked of a process -------------------------------------------------------------------------------------

    def _op_attach(self, conn: socket.socket, request: dict[str, Any], fds: list[int]) -> None:
        sock = socket.socket(fileno=fds.pop())

        def attach() -> None:
            kept = self._find(request["id"]) if request["running"] else self._place(request["id"])
            kept.terminal = request["terminal"]
            streams = frozenset(request["streams"])
            kept.attach(Session(self.loop, sock, streams=streams, stdin=request["stdin"], on_close=kept.detach))

        try:
            self.loop.call(attach)
        except LabkitError:
            sock.close()
            raise
        send(conn, {})

    def _op_signal(self, conn: socket.socket, request: dict[str, Any], _: list[int]) -> None:
        process = self._find(request["id"]).process
        if process is not None:
            process.kill(request["number"])
        send(conn, {})

    def _op_resize(self, conn: socket.socket, request: dict[str, Any], _: list[int]) -> None:
        kept = self._find(request["id"])
        self.loop.call(lambda: kept.resize(request["rows"], request["columns"]))
        send(conn, {})

    def _op_freeze(self, conn: socket.socket, request: dict[str, Any], _: list[int]) -> None:
        cgroup = self._group(request["id"])
        cgroup.freeze() if request["on"] else cgroup.thaw()
        send(conn, {})

    def _op_limits(self, conn: socket.socket, request: dict[str, Any], _: list[int]) -> None:
        self._group(request["id"]).set(request["limits"])
        send(conn, {})

    def _group(self, key: str) -> Cgroup:
        cgroup = self._find(key).cgroup
        if cgroup is None:
            raise InvalidState("this machine gives the engine no cgroup, so a container has none either")
        return cgroup

    def _op_list(self, conn: socket.socket, _: dict[str, Any], __: list[int]) -> None:
        def look() -> dict[str, Any]:
            return {key: _facts(kept) for key, kept in self._kept.items() if kept.process is not None}

        send(conn, {"processes": self.loop.call(look)})

    def _op_forget(self, conn: socket.socket, request: dict[str, Any], _: list[int]) -> None:
        def forget() -> None:
            kept = self._kept.get(request["id"])
            if kept is not None and (kept.process is None or kept.ended is not None):
                del self._kept[request["id"]]
                for session in list(kept.sessions):
                    session.finish()

        self.loop.call(forget)
        send(conn, {})

    # -- listening and leaving ----------------------------------------------------------------------------------------

    def _op_watch(self, conn: socket.socket, request: dict[str, Any], _: list[int]) -> bool:
        conn.setblocking(False)  # noqa: FBT003 - the function takes it only so

        def watch() -> None:
            kept = self._find(request["id"])

            def tell() -> None:
                try:
                    conn.send(b"\1")
                except BlockingIOError:
                    pass  # it has not heard the last one yet
                except OSError:
                    end()
                if kept.ended is not None:
                    end()

            def end() -> None:
                if tell in kept.watchers:
                    kept.watchers.remove(tell)
                    self.loop.remove(conn.fileno())
                    conn.close()

            kept.watchers.append(tell)
            self.loop.add(conn.fileno(), READ, lambda _: end())
            tell()

        self.loop.call(watch)
        return True

    def _op_subscribe(self, conn: socket.socket, _: dict[str, Any], __: list[int]) -> bool:
        def subscribe() -> None:
            self._listeners.append(conn)
            self.loop.add(conn.fileno(), READ, lambda _: self._drop_listener(conn))
            send(conn, {"keeper": os.getpid()})

        self.loop.call(subscribe)
        return True

    def _drop_listener(self, conn: socket.socket) -> None:
        if conn in self._listeners:
            self._listeners.remove(conn)
            self.loop.remove(conn.fileno())
            conn.close()
            self._leave_if_idle()

    def _op_leave(self, conn: socket.socket, _: dict[str, Any], __: list[int]) -> None:
        self.loop.post(self.loop.stop)
        send(conn, {})

    def _leave_if_idle(self) -> None:
        is_busy = any(kept.process is not None and kept.ended is None for kept in self._kept.values())
        if not self._listeners and not is_busy:
            self.loop.stop()


def _facts(kept: Kept) -> dict[str, Any]:
    ended = kept.ended
    return {
        "is_exec": kept.is_exec,
        "pid": kept.process.pid if kept.process is not None and ended is None else 0,
        "started_ns": kept.started_ns,
        "ended": None if ended is None else (ended.code, ended.oom_killed, ended.finished_ns),
        "folders": {name: str(path) for name, path in kept.cgroup.folders.items()} if kept.cgroup else {},
    }


def _streams(request: dict[str, Any]) -> tuple[Any, Any, Any]:
    return ("pipe" if request["open_stdin"] else "null", "pipe", "pipe")


def _make_cgroup(name: str, limits: Limits) -> Cgroup | None:
    """Return a group; none where this user may make none, unless a limit demands it. Raises: FeatureMissing."""
    if limits == Limits() and not default_parent().places.bases:
        return None
    return Cgroup.create(None, limits, name=name)
