"""``labkit run``: a program in a container, as ``docker run`` does it, without a daemon.

The program gets the caller's own standard streams, not copies of them, so a pipe through ``labkit run`` is the pipe itself. With
``--tty`` it gets a terminal of its own, which is connected to the caller's (`labkit.commands.terminal`). Signals that reach this
process are passed on; as PID 1 of its namespace the program hears only those that it has a handler for, so the third
SIGINT or SIGTERM kills it.

Exit status: the program's; 128 + N if signal N ended it; 127 not found, 126 not executable; 1 if labkit failed; 2 wrong use.

Leaves out: detaching, restart, fetching an image that is not here (``labkit image pull``).
See: docker-run(1), `labkit.container`.
"""

from __future__ import annotations

import argparse
import errno
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from labkit import units
from labkit.container.container import Container
from labkit.container.process import Exit, Stream
from labkit.errors import InvalidSpec, SetupError
from labkit.isolation.cgroups import Limits

__all__ = ["add_arguments", "run"]

NOT_EXECUTABLE, NOT_FOUND = 126, 127
_PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
#: After so many requests to end, the program is killed.
_PATIENCE = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``labkit run``."""
    parser.usage = "labkit run [options] [--] COMMAND [ARGUMENT ...]"
    limits = parser.add_argument_group("limits")
    limits.add_argument("--memory", metavar="SIZE", help="most memory, as in 64M; above it the program is killed")
    limits.add_argument("--pids", metavar="N", help="most processes and threads at once")
    limits.add_argument("--cpus", metavar="N", help="most CPU time, as in .5 for half of one CPU")
    limits.add_argument("--time-limit", metavar="TIME", help="most time, as in 5s or 1.5m")
    files = parser.add_mutually_exclusive_group()
    files.add_argument("--rootfs", metavar="DIR", help="the folder whose files the program sees")
    files.add_argument("--image", metavar="IMAGE", help="an image: its files, and its settings as defaults")
    files.add_argument(
        "--image-like-host", action="store_true", help="the machine's own /usr and /etc, copy on write (the default)"
    )
    parser.add_argument("--readonly", action="store_true", help="let nothing be written but in /dev/shm and mounts")
    parser.add_argument("--net", choices=("none", "host"), default="none", help="none (default): loopback alone")
    parser.add_argument("--hostname", metavar="NAME", help="the host name inside")
    parser.add_argument(
        "--user", metavar="USER[:GROUP]", help="who the program is (default: the image's, or root inside)"
    )
    parser.add_argument("--cwd", metavar="DIR", help="the working folder inside (default: the image's, or /)")
    parser.add_argument("--entrypoint", metavar="PROGRAM", help="in place of the image's entry point; empty: none")
    parser.add_argument("--env", metavar="NAME=VALUE", action="append", default=[], help="an environment variable")
    parser.add_argument("-t", "--tty", action="store_true", help="give the program a terminal")
    parser.add_argument(
        "-i", "--interactive", action="store_true", help="accepted for those who type -it; input is always connected"
    )
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND", help="the program and its arguments")


def run(args: argparse.Namespace) -> int:
    """Start the container, wait for its end, say which limit it met. Raises: LabkitError."""
    limits = Limits(
        memory_bytes=None if args.memory is None else units.parse_bytes(args.memory),
        pids=None if args.pids is None else units.parse_count(args.pids, what="processes"),
        cpus=None if args.cpus is None else units.parse_cpus(args.cpus),
    )
    time_limit_s = None if args.time_limit is None else units.parse_seconds(args.time_limit)
    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    with _container(args, command, limits=limits, time_limit_s=time_limit_s) as container:
        return _run_to_the_end(container, limits=limits, time_limit_s=time_limit_s)


def _container(
    args: argparse.Namespace, command: list[str], *, limits: Limits, time_limit_s: float | None
) -> AbstractContextManager[Container]:
    """Return the container that the options describe, not yet started. Raises: LabkitError."""
    common: dict[str, Any] = {
        "limits": limits, "readonly": args.readonly, "hostname": args.hostname, "net": args.net,
        "env": _environment(args.env), "terminal": args.tty, "terminal_size": _terminal_size(),
        "time_limit_s": time_limit_s, "streams": (_stream(0), _stream(1), _stream(2)),
    }  # fmt: skip
    if args.image is None:
        if args.entrypoint is not None:
            raise InvalidSpec("--entrypoint takes the place of an image's entry point: add --image IMAGE.")
        return Container(
            command,
            rootfs=args.rootfs,
            image_like_host=args.rootfs is None,
            user=args.user or "0:0",
            cwd=args.cwd or "/",
            **common,
        )
    from labkit.image.run import container_of
    from labkit.image.store import default_store

    entrypoint = None if args.entrypoint is None else [args.entrypoint] if args.entrypoint else []
    return container_of(
        default_store(), args.image, command, entrypoint=entrypoint, user=args.user, cwd=args.cwd, **common
    )


def _run_to_the_end(container: Container, *, limits: Limits, time_limit_s: float | None) -> int:
    with _passing_signals_on(container) as early:
        try:
            container.start()
            for number in early:
                container.kill(number)
        except SetupError as error:
            return _could_not_execute(error, container.spec.command[0])
        if container.terminal is not None:
            from labkit.commands.terminal import connect

            connect(container)
        ended = container.wait()
    if met := _limits_met(ended, limits, time_limit_s=time_limit_s):
        print(f"labkit: {met}", file=sys.stderr)
    return ended.code


def _environment(assignments: list[str]) -> dict[str, str]:
    for text in assignments:
        if "=" not in text:
            raise InvalidSpec(f"{text!r} sets no variable: write NAME=VALUE.")
    return {name: value for name, _, value in (text.partition("=") for text in assignments)}


def _terminal_size() -> tuple[int, int]:
    """Return rows and columns of the caller's terminal; the usual 24 and 80 if there is none."""
    terminal_fd = next((fd for fd in (0, 1, 2) if os.isatty(fd)), None)
    if terminal_fd is None:
        return 24, 80
    size = os.get_terminal_size(terminal_fd)
    return size.lines, size.columns


def _stream(number: int) -> Stream:
    try:
        os.fstat(number)
    except OSError:
        return "null"  # the caller has closed it
    return number


def _could_not_execute(error: SetupError, name: str) -> int:
    """Say why the program did not start as a shell would, with the shell's exit status. Raises: ``error`` if labkit failed."""
    if error.step != f"run {name}":
        raise error
    if error.errno == errno.ENOENT:
        hint = "it, or the interpreter that its first line names, is not in the container"
        print(f"labkit: {name}: command not found: {hint}.", file=sys.stderr)
        return NOT_FOUND
    print(f"labkit: {name}: cannot be executed: {os.strerror(error.errno)}.", file=sys.stderr)
    return NOT_EXECUTABLE


def _limits_met(ended: Exit, limits: Limits, *, time_limit_s: float | None) -> str:
    """Return the limits that the program ran into as one line; empty if it met none."""
    met = []
    if ended.timed_out:
        met.append(f"timed out after {time_limit_s:g} s")
    if ended.oom_killed:
        met.append(f"oom_killed at {units.format_bytes(limits.memory_bytes or 0)}")
    if ended.pids_limit_hits:
        met.append(f"pids limit of {limits.pids} hit ({ended.pids_limit_hits} times)")
    if ended.throttled_usec:
        met.append(f"throttled for {ended.throttled_usec / 1e6:.1f} s at {limits.cpus:g} CPUs")
    return ", ".join(met)


@contextmanager
def _passing_signals_on(container: Container) -> Iterator[list[int]]:
    """Pass signals on to the program, and give the list of those that came before there was one.

    A signal that the caller ignores (nohup) stays ignored.
    """
    early: list[int] = []
    requests = 0

    def pass_on(number: int, _: object) -> None:
        nonlocal requests
        requests += number in (signal.SIGINT, signal.SIGTERM)
        if container.pid == -1:
            early.append(number)
        else:
            container.kill(signal.SIGKILL if requests >= _PATIENCE else number)

    before = {number: signal.getsignal(number) for number in _PASSED_ON}
    for number, handler in before.items():
        if handler != signal.SIG_IGN:
            signal.signal(number, pass_on)
    try:
        yield early
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
