"""``labkit compose``: a project of containers, described by a file, brought up, watched over, and taken down.

It talks to any engine that speaks the Docker API: the one that ``--host`` or ``DOCKER_HOST`` names.

See: `labkit.compose`; Compose Specification.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from docker.api.client import APIClient
from docker.errors import APIError, DockerException

from labkit.commands.engine import default_socket
from labkit.compose.actual import Found, read_actual
from labkit.compose.apply import Applier, image_ids
from labkit.compose.load import find_file, load_project
from labkit.compose.model import Project
from labkit.compose.plan import plan_down, plan_up
from labkit.compose.reconcile import Reconciler
from labkit.errors import FeatureMissing, InvalidSpec, LabkitError
from labkit.units import parse_count

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``labkit compose`` and its verbs."""
    parser.add_argument(
        "--file", "-f", type=Path, metavar="FILE", help="the Compose file (default: compose.yaml here or above)"
    )
    parser.add_argument(
        "--project-name", "-p", default="", metavar="NAME", help="the project's name (default: its folder's)"
    )
    parser.add_argument(
        "--profile", action="append", default=[], metavar="NAME", help="include the services of this profile"
    )
    parser.add_argument(
        "--host",
        "-H",
        default=os.environ.get("DOCKER_HOST", ""),
        metavar="ADDRESS",
        help="the engine, as in unix:///path",
    )
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    _add_up(verbs.add_parser("up", help="make it so: create and start what is missing, make anew what has changed"))
    down = verbs.add_parser("down", help="stop and remove the project's containers and networks")
    down.add_argument("--volumes", "-v", action="store_true", help="its volumes, too, with what is in them")
    verbs.add_parser("ps", help="list its containers")
    logs = verbs.add_parser("logs", help="print what its containers have written")
    logs.add_argument("services", nargs="*", metavar="SERVICE")
    logs.add_argument("--follow", "-f", action="store_true", help="go on as more is written")
    logs.add_argument("--tail", default="all", metavar="N", help="the last N lines of each (default: all)")
    verbs.add_parser("config", help="check the file and print what it means")
    watch = verbs.add_parser("watch", help="keep it so: repair whatever differs from the file, until interrupted")
    watch.add_argument("--every", type=float, default=1.0, metavar="SECONDS", help="how often to look (default: 1)")
    for name, verb in (
        ("up", _up),
        ("down", _down),
        ("ps", _ps),
        ("logs", _logs),
        ("config", _config),
        ("watch", _watch),
    ):
        verbs.choices[name].set_defaults(verb=verb)


def _add_up(up: argparse.ArgumentParser) -> None:
    up.add_argument("services", nargs="*", metavar="SERVICE", help="these alone, and what they depend on")
    up.add_argument(
        "--detach", "-d", action="store_true", help="accepted as in docker compose; labkit never stays in front"
    )
    up.add_argument("--build", action="store_true", help="build images even if they are there")
    up.add_argument("--pull", action="store_true", help="pull images even if they are there")
    up.add_argument("--force-recreate", action="store_true", help="make every container anew")
    up.add_argument(
        "--remove-orphans", action="store_true", help="remove containers of services that the file has no more"
    )
    up.add_argument("--scale", action="append", default=[], metavar="SERVICE=N", help="another number of replicas")
    up.add_argument("--dry-run", action="store_true", help="only print what would be done")


def run(args: argparse.Namespace) -> int:
    """Do what the verb says. Raises: LabkitError."""
    project = load_project(args.file or find_file(Path.cwd()), name=args.project_name, profiles=args.profile)
    if args.verb is _config:
        _config(project)
        return 0
    with closing(_connect(args.host)) as api:
        try:
            return int(args.verb(args, api, project))
        except APIError as error:
            raise LabkitError(f"The engine refused: {error.explanation or error}.") from error


def _connect(host: str) -> APIClient:
    host = host or os.environ.get("DOCKER_HOST") or f"unix://{default_socket()}"
    try:
        api = APIClient(base_url=host, version="auto", timeout=120)
        api.ping()
    except DockerException as error:
        raise FeatureMissing(
            f"No engine answers at {host}: {error}.", remedy="Start it: labkit engine serve --socket PATH."
        ) from None
    return api


def _say(text: str) -> None:
    print(text, flush=True)


def _up(args: argparse.Namespace, api: APIClient, project: Project) -> int:
    unknown = [name for name in args.services if name not in project.services]
    if unknown:
        raise InvalidSpec(f"There is no service {unknown[0]!r}; there are {', '.join(project.services)}.")
    project = _scaled(project, args.scale)
    images = image_ids(api, project, build=args.build, pull=args.pull, say=_say)
    actions = plan_up(
        project, read_actual(api, project.name), images, only=args.services, force=args.force_recreate, remove_orphans=args.remove_orphans
    )  # fmt: skip
    if args.dry_run or not actions:
        _say("\n".join(map(str, actions)) or f"{project.name} is as its file says; nothing to do.")
        return 0
    Applier(api, project, images, say=_say).apply(actions)
    return 0


def _scaled(project: Project, wishes: list[str]) -> Project:
    services = dict(project.services)
    for wish in wishes:
        name, _, number = wish.partition("=")
        if name not in services or not number.isdigit():
            raise InvalidSpec(f"--scale {wish}: write SERVICE=N with one of {', '.join(services)}.")
        services[name] = replace(services[name], replicas=int(number))
    return replace(project, services=services)


def _down(args: argparse.Namespace, api: APIClient, project: Project) -> int:
    Applier(api, project, {}, say=_say).apply(plan_down(project, read_actual(api, project.name), volumes=args.volumes))
    return 0


def _ps(_args: argparse.Namespace, api: APIClient, project: Project) -> int:
    rows = [("NAME", "SERVICE", "IMAGE", "STATE", "PORTS")]
    rows += [_row(found) for found in read_actual(api, project.name).containers]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    for row in rows:
        _say("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    return 0


def _row(found: Found) -> tuple[str, str, str, str, str]:
    state = found.state if found.running else f"{found.state} ({found.exit_code})"
    return (
        found.name,
        found.service,
        found.image,
        f"{state} ({found.health})" if found.health else state,
        ", ".join(found.ports),
    )


def _logs(args: argparse.Namespace, api: APIClient, project: Project) -> int:
    chosen = [
        found
        for found in read_actual(api, project.name).containers
        if not args.services or found.service in args.services
    ]
    lock = threading.Lock()
    threads = [threading.Thread(target=_print_log, args=(api, found, args, lock), daemon=True) for found in chosen]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return 0


def _print_log(api: APIClient, found: Found, args: argparse.Namespace, lock: threading.Lock) -> None:
    tail: Any = "all" if args.tail == "all" else parse_count(args.tail, what="lines")
    rest = b""
    for chunk in api.logs(found.id, stdout=True, stderr=True, stream=True, follow=args.follow, tail=tail):
        *lines, rest = (rest + chunk).split(b"\n")
        with lock:
            for line in lines:
                _say(f"{found.name} | {line.decode(errors='replace')}")
    if rest:
        with lock:
            _say(f"{found.name} | {rest.decode(errors='replace')}")


def _config(project: Project) -> None:
    _say(f"project {project.name} in {project.directory}")
    for service in project.services.values():
        made = f"built from {service.build.context}" if service.build else "pulled if it is missing"
        _say(f"service {service.name}: image {service.image} ({made}), {service.replicas} replica(s)")
    for kind, things in (("network", project.networks), ("volume", project.volumes)):
        for thing in things.values():
            _say(f"{kind} {thing.name}{' (external)' if thing.external else ''}")


def _watch(args: argparse.Namespace, api: APIClient, project: Project) -> int:
    reconciler = Reconciler(api, project, say=_say)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: reconciler.stop.set())
    print(f"keeping {project.name} as its file says; Ctrl-C ends this, and leaves it running", file=sys.stderr)
    reconciler.run(every_s=args.every)
    return 0
