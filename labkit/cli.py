"""The command ``labkit``: parse, call, print, return.

Each subcommand is a module with ``add_arguments(parser)`` and ``run(args)``, loaded only when it is the one that was asked for:
``labkit --help`` loads none. Exit status: 0 done, 1 failed, 2 wrong use, and for ``labkit run`` whatever the program
returned. An error is one sentence on standard error, which says what to do.

See: `labkit.commands`.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator, Sequence

import labkit
from labkit.errors import InvalidSpec, LabkitError

__all__ = ["COMMANDS", "main"]

FAILED, USAGE, INTERRUPTED = 1, 2, 130

#: name: (module, one line of help), in the order in which a newcomer meets them.
COMMANDS: dict[str, tuple[str, str]] = {
    "setup": ("labkit.commands.setup", "set up everything the course needs on this machine"),
    "doctor": ("labkit.doctor.command", "say what this machine can do, what not, and what to do about it"),
    "run": ("labkit.commands.run", "run a program in a container"),
    "image": ("labkit.commands.image", "list, look into, move and remove images"),
    "registry": ("labkit.commands.registry", "serve images to others, and log in at registries"),
    "race": ("labkit.commands.race", "measure how fast processes, namespaces and containers start"),
    "record": ("labkit.commands.record", "keep this machine's measurements for machines that cannot measure"),
    "vm": ("labkit.commands.vm", "run commands in virtual machines, and labkit's own tests in one"),
    "ps": ("labkit.commands.ps", "list the containers that run now"),
    "engine": ("labkit.commands.engine", "serve the Docker Engine API to the docker client and its SDK"),
    "compose": ("labkit.commands.compose", "bring up, watch over and take down what a Compose file describes"),
    "kernelspec": (
        "labkit.commands.kernelspec",
        "install, list or remove the kernel that runs the lessons in a sandbox",
    ),
    "clean": ("labkit.commands.clean", "remove what killed programs left behind"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that ``argv`` (default: the process's own arguments) names; return the exit status.

    Raises: SystemExit with 2 for wrong use, as argparse does, and 0 after ``--help``.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    chosen = next((word for word in words if not word.startswith("-")), None)
    args = _parser(chosen, only=words[:1] == [chosen] and chosen in COMMANDS).parse_args(words)
    _extend_path()
    try:
        status = int(args.run(args))
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader (head, less) has what it wanted; at exit Python would complain once more, so it gets nowhere to write.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    except (LabkitError, OSError, ExceptionGroup) as error:
        for sentence in _sentences(error):
            print(f"labkit: {sentence}", file=sys.stderr)
        return USAGE if isinstance(error, InvalidSpec) else FAILED
    return status


def _extend_path() -> None:
    """Add what PATH lacks in a plain shell: the sbin folders, and the folder of the parts that set-up unpacked."""
    from labkit.setup.parts import search_path

    os.environ["PATH"] = search_path(os.environ.get("PATH", os.defpath))


def _parser(chosen: str | None, *, only: bool) -> argparse.ArgumentParser:
    """Return the parser; ``only`` with the command that was chosen, as the list of all takes longer than the rest."""
    parser = argparse.ArgumentParser(
        prog="labkit", description="See what a container is made of, by making one on this machine.",
        epilog="`labkit COMMAND --help` says more about one command.",
    )  # fmt: skip
    parser.add_argument("--version", action="version", version=f"labkit {labkit.__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for name in [chosen] if only and chosen else COMMANDS:
        module_name, help_line = COMMANDS[name]
        subparser = subparsers.add_parser(name, help=help_line, description=help_line[0].upper() + help_line[1:] + ".")
        if name == chosen:
            module = importlib.import_module(module_name)
            module.add_arguments(subparser)
            subparser.set_defaults(run=module.run)
    return parser


def _sentences(error: BaseException) -> Iterator[str]:
    """Yield what went wrong, one sentence each: of a group, each of its members."""
    if isinstance(error, BaseExceptionGroup):
        for member in error.exceptions:
            yield from _sentences(member)
    elif isinstance(error, OSError) and not isinstance(error, LabkitError):
        where = f"{error.filename}: " if error.filename else ""
        yield f"{where}{error.strerror or error}."
    else:
        yield str(error)


if __name__ == "__main__":
    sys.exit(main())
