"""``labkit vm``: commands in virtual machines, and labkit's own tests in one.

``exec`` runs a command in a guest whose files are the host's, in the caller's folder; what it writes is gone with the guest. ``run``
does the same in a micro guest, which has busybox and nothing else. Standard input, output and errors are passed on as
they come; the exit status is the command's, 128 + N if signal N ended it, 127 not found, 126 not executable.

Leaves out: a terminal for the command; guests that stay.
See: `labkit.vm.hostroot`, `labkit.vm.guest`, `labkit.commands.vm_test`.
"""

from __future__ import annotations

import argparse
import errno
import os
import select
import sys
from collections.abc import Sequence

from labkit import units
from labkit.errors import InvalidSpec, SetupError
from labkit.units import MiB
from labkit.vm.execution import Streams
from labkit.vm.guest import Guest
from labkit.vm.hostroot import HostRoot

__all__ = ["add_arguments", "run", "run_in"]

NOT_EXECUTABLE, NOT_FOUND = 126, 127
_CHUNK_BYTES = 64 << 10
_NO_LIMIT_S = 7 * 24 * 3600.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``labkit vm`` can do, each with its options."""
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    for name, memory, help_line, action in (
        ("exec", "1G", "run a command in a guest on the host's files, which it cannot change", _exec),
        ("run", "128M", "run a command in a micro guest with busybox", _run),
    ):
        subparser = actions.add_parser(name, help=help_line, description=help_line[0].upper() + help_line[1:] + ".")
        subparser.usage = f"labkit vm {name} [options] [--] COMMAND [ARGUMENT ...]"
        subparser.add_argument(
            "--memory", metavar="SIZE", default=memory, help=f"the guest's memory (default: {memory})"
        )
        subparser.add_argument("--cpus", metavar="N", default="1", help="the guest's processors (default: 1)")
        subparser.add_argument("--time-limit", metavar="TIME", help="most time for the command, as in 5s or 1.5m")
        subparser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND")
        subparser.set_defaults(vm_action=action)
    help_line = "run labkit's own tests of cgroup v2 in a guest, as root and as an ordinary user"
    # Whatever looks like an option is pytest's.
    tests = actions.add_parser("test", prefix_chars="\0", add_help=False, help=help_line, description=help_line)
    tests.usage = "labkit vm test [PYTEST ARGUMENTS ...]"
    tests.add_argument("arguments", nargs=argparse.REMAINDER, metavar="PYTEST ARGUMENTS")
    tests.set_defaults(vm_action=_test, vm_help=tests.format_help)


def run(args: argparse.Namespace) -> int:
    """Do what was asked for. Raises: LabkitError."""
    return int(args.vm_action(args))


def _exec(args: argparse.Namespace) -> int:
    command = _command(args)
    with HostRoot(_mebibytes(args.memory), cpus=units.parse_count(args.cpus, what="processors")) as guest:
        return run_in(guest, command, time_limit=args.time_limit, cwd=os.getcwd())


def _run(args: argparse.Namespace) -> int:
    command = _command(args)
    with Guest(_mebibytes(args.memory), cpus=units.parse_count(args.cpus, what="processors")) as guest:
        return run_in(guest, command, time_limit=args.time_limit, cwd="/")


def _test(args: argparse.Namespace) -> int:
    from labkit.commands import vm_test

    if args.arguments in (["--help"], ["-h"]):
        print(args.vm_help(), end="")
        return 0
    return vm_test.run(args.arguments[1:] if args.arguments[:1] == ["--"] else args.arguments)


def _command(args: argparse.Namespace) -> list[str]:
    command = list(args.command[1:] if args.command[:1] == ["--"] else args.command)
    if not command:
        raise InvalidSpec("There is no command to run: write it behind `--`.")
    return command


def _mebibytes(text: str) -> int:
    return units.parse_bytes(text) // MiB


def run_in(guest: Guest, command: Sequence[str], *, time_limit: str | None, cwd: str) -> int:
    """Run ``command`` in ``guest`` with this process's own streams; return what a shell would. Raises: LabkitError."""
    timeout_s = _NO_LIMIT_S if time_limit is None else units.parse_seconds(time_limit)
    try:
        return guest.exec(command, cwd=cwd, timeout_s=timeout_s, streams=Streams(_read, _write)).status
    except SetupError as error:
        if error.step != "execve":
            raise
        print(f"labkit: {error}", file=sys.stderr)
        return NOT_FOUND if error.errno == errno.ENOENT else NOT_EXECUTABLE


def _read() -> bytes | None:
    """Return what there is on standard input: nothing yet is no bytes, and its end is None."""
    try:
        readable, _, _ = select.select([0], [], [], 0)
        return (os.read(0, _CHUNK_BYTES) or None) if readable else b""
    except OSError:
        return None  # the caller has closed it


def _write(number: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(number, view) :]
