"""``labkit registry``: serve images on this machine, decide who may push, and log in at registries.

A registry is a folder: its images, its accounts, its unfinished uploads. Everything but ``serve`` may be done while it is being served.

See: `labkit.image.registry`, docker-login(1).
"""

from __future__ import annotations

import argparse
import getpass
import logging
import signal
import sys
import threading
from pathlib import Path

from labkit.errors import InvalidSpec, InvalidState
from labkit.image.reference import DEFAULT_REGISTRY
from labkit.image.registry.client import RegistryClient
from labkit.image.registry.credentials import Credentials, credentials_file
from labkit.image.registry.server.service import RegistryServer, RegistrySettings, accounts_of
from labkit.image.store import state_folder
from labkit.units import format_bytes, parse_bytes, parse_count

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands of ``labkit registry``."""
    subparsers = parser.add_subparsers(metavar="SUBCOMMAND", required=True)
    for name, help_line, add, work in (
        ("serve", "serve a registry until Ctrl-C", _serve_arguments, _serve),
        ("adduser", "add an account, or give it a new password", _name_arguments, _adduser),
        ("rmuser", "remove an account; its images stay", _name_arguments, _rmuser),
        ("users", "list the accounts", _folder_argument, _users),
        ("prune", "remove what no repository has, and unfinished uploads", _folder_argument, _prune),
        ("login", "log in at a registry and keep the password", _login_arguments, _login),
        ("logout", "forget the password for a registry", _host_argument, _logout),
    ):
        subparser = subparsers.add_parser(name, help=help_line, description=help_line[0].upper() + help_line[1:] + ".")
        add(subparser)
        subparser.set_defaults(run_registry=work)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand and return its exit status. Raises: LabkitError, OSError."""
    return int(args.run_registry(args))


def _folder_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--folder", metavar="FOLDER", type=Path, default=state_folder() / "registry",
        help="where the registry keeps everything (default: %(default)s)",
    )  # fmt: skip


def _serve_arguments(parser: argparse.ArgumentParser) -> None:
    _folder_argument(parser)
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: this machine only)")
    parser.add_argument("--port", default="5000", help="the port (default: 5000; 0: any that is free)")
    parser.add_argument("--private", action="store_true", help="who is not logged in may not even pull")
    parser.add_argument("--open", action="store_true", help="listen beyond this machine without any accounts")
    parser.add_argument(
        "--auth", choices=("bearer", "basic"), default="bearer", help="how clients log in (default: bearer)"
    )
    parser.add_argument("--tls-cert", metavar="FILE", type=Path, help="speak TLS with this certificate")
    parser.add_argument("--tls-key", metavar="FILE", type=Path, help="the certificate's key")
    parser.add_argument("--max-blob", metavar="SIZE", default="16G", help="the largest blob to take (default: 16G)")
    parser.add_argument("-v", "--verbose", action="store_true", help="show every request")


def _serve(args: argparse.Namespace) -> int:
    port = 0 if args.port == "0" else parse_count(args.port, what="port")
    if port > 65535:
        raise InvalidSpec(f"{port} is no port: the largest is 65535.")
    settings = RegistrySettings(
        host=args.host, port=port, anonymous_pull=not args.private, open_to_all=args.open, scheme=args.auth,
        certificate=args.tls_cert, key=args.tls_key, most_blob_bytes=parse_bytes(args.max_blob),
    )  # fmt: skip
    logging.basicConfig(level=logging.INFO if args.verbose else logging.ERROR, format="%(asctime)s %(message)s")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.set())
    with RegistryServer(args.folder, settings) as server:
        print(f"Serving {args.folder} at {server.address}. {_who_may(server, settings)} Ctrl-C ends it.", flush=True)
        try:
            while not stop.wait(1):
                pass
        except KeyboardInterrupt:
            print()
    return 0


def _who_may(server: RegistryServer, settings: RegistrySettings) -> str:
    if not server.accounts.in_use:
        return "There are no accounts: whoever reaches it may push (`labkit registry adduser NAME` changes that)."
    pull = "everybody may pull" if settings.anonymous_pull else "who is logged in may pull"
    return f"Accounts: {', '.join(server.accounts.names()) or 'none left'}; {pull}."


def _name_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="the account, which is also the first part of its images' names")
    _folder_argument(parser)
    parser.add_argument("--password-stdin", action="store_true", help="read the password from standard input")


def _adduser(args: argparse.Namespace) -> int:
    accounts = accounts_of(args.folder)
    is_new = args.name not in accounts.names()
    accounts.set(args.name, _password(args, twice=True))
    print(f"{'Added' if is_new else 'Changed the password of'} {args.name}, who may now push {args.name}/...")
    return 0


def _rmuser(args: argparse.Namespace) -> int:
    accounts_of(args.folder).remove(args.name)
    print(f"Removed {args.name}.")
    return 0


def _users(args: argparse.Namespace) -> int:
    for name in accounts_of(args.folder).names():
        print(name)
    return 0


def _prune(args: argparse.Namespace) -> int:
    server = RegistryServer(args.folder)
    before = sum(server.blobs.size(digest) for digest in server.blobs.digests())
    uploads = server.remove_uploads()
    blobs = server.collect()
    after = sum(server.blobs.size(digest) for digest in server.blobs.digests())
    server.close()
    print(f"Removed {blobs} blobs ({format_bytes(before - after)}) and {uploads} unfinished uploads.")
    return 0


def _host_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("registry", metavar="REGISTRY", nargs="?", default=DEFAULT_REGISTRY, help="HOST[:PORT]")


def _login_arguments(parser: argparse.ArgumentParser) -> None:
    _host_argument(parser)
    parser.add_argument("-u", "--username", metavar="NAME", help="the account")
    parser.add_argument("--password-stdin", action="store_true", help="read the password from standard input")
    parser.add_argument("--insecure", action="store_true", help="allow plain HTTP to another machine than this one")


def _login(args: argparse.Namespace) -> int:
    if args.username is None and args.password_stdin:
        raise InvalidSpec("--password-stdin needs a name: add --username NAME.")
    credentials = Credentials(args.username or input("Username: "), _password(args, twice=False))
    with RegistryClient(args.registry, credentials=credentials, insecure=args.insecure) as client:
        client.ping()
    file = credentials_file()
    file.set(args.registry, credentials)
    print(f"Login succeeded. The password is kept in {file.path}, readable by you alone, but not encrypted.")
    return 0


def _logout(args: argparse.Namespace) -> int:
    if not credentials_file().remove(args.registry):
        raise InvalidState(f"You are not logged in at {args.registry}.")
    print(f"Removed the password for {args.registry}.")
    return 0


def _password(args: argparse.Namespace, *, twice: bool) -> str:
    if args.password_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        raise InvalidSpec("There is no terminal to ask for a password: use --password-stdin.")
    password = getpass.getpass()
    if twice and getpass.getpass("Once more: ") != password:
        raise InvalidSpec("The two passwords differ: try again.")
    return password
