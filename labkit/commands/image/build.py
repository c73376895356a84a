"""``labkit image build``: an image from a Containerfile and a folder, as ``docker build`` does it without a daemon.

Progress goes to standard error, one line a step, with the reason when a step was not in the cache; the image's id goes to standard
output. ``--progress plain`` writes what Docker's classic builder writes.

See: docker-build(1), `labkit.image.build`.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from labkit.errors import InvalidSpec
from labkit.image.build.builder import build
from labkit.image.build.progress import Event, Progress, Table, classic_text
from labkit.image.store import ImageStore, default_store

if TYPE_CHECKING:
    from labkit.image.build.job import Epoch, Puller
    from labkit.image.reference import Reference

__all__ = ["add_arguments", "puller_for", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``labkit image build``."""
    parser.add_argument(
        "context", metavar="FOLDER", help="the files of the build; - reads them as tar from standard input"
    )
    parser.add_argument(
        "-f",
        "--file",
        metavar="FILE",
        help="the Containerfile (default: FOLDER/Containerfile or Dockerfile); -: standard input",
    )
    parser.add_argument(
        "-t", "--tag", metavar="NAME", action="append", default=[], help="a name for the image, as in app:1"
    )
    parser.add_argument("--build-arg", metavar="NAME=VALUE", action="append", default=[], help="the value of an ARG")
    parser.add_argument("--label", metavar="NAME=VALUE", action="append", default=[], help="a label for the image")
    parser.add_argument("--target", metavar="STAGE", help="build this stage and what it needs, nothing else")
    parser.add_argument(
        "--network", choices=("none", "host"), default="none", help="what RUN commands can reach (default: none)"
    )
    parser.add_argument("--no-cache", action="store_true", help="do every step again")
    parser.add_argument("--pull", action="store_true", help="ask the registry for base images even if they are here")
    parser.add_argument(
        "--source-date-epoch", metavar="SECONDS",
        help="no file is newer than this (default: $SOURCE_DATE_EPOCH, else 1970, so that the same input gives the same image); now: times as they are",
    )  # fmt: skip
    parser.add_argument("--progress", choices=("table", "plain"), default="table", help="how to show the steps")
    parser.add_argument("-q", "--quiet", action="store_true", help="show no steps, only the image's id")


def run(args: argparse.Namespace) -> int:
    """Build, and print the image's id; return 0. Raises: ContainerfileError, BuildError."""
    if args.context == "-" and args.file == "-":
        raise InvalidSpec("Context and Containerfile cannot both be read from standard input: give one of them a path.")
    store = default_store()
    built = build(
        sys.stdin.buffer if args.context == "-" else args.context,
        containerfile=sys.stdin.buffer.read() if args.file == "-" else args.file,
        store=store, tags=args.tag, build_args=_pairs(args.build_arg, from_environment=True), target=args.target,
        progress=_progress(args), network=args.network, no_cache=args.no_cache, pull=args.pull,
        labels=_pairs(args.label), source_date_epoch=_epoch(args.source_date_epoch), puller=puller_for(store),
    )  # fmt: skip
    print(built.image_id)
    return 0


def puller_for(store: ImageStore) -> Puller:
    """Return what brings a missing base image into ``store`` from its registry."""

    def pull(reference: Reference) -> object:
        from labkit.image.registry.pull import pull as fetch

        return fetch(reference, store)

    return pull


def _progress(args: argparse.Namespace) -> Progress:
    if args.progress == "table":
        return Table(sys.stderr, quiet=args.quiet)

    def plain(event: Event) -> None:
        if not args.quiet:
            print(classic_text(event), end="", file=sys.stderr, flush=True)

    return plain


def _pairs(texts: list[str], *, from_environment: bool = False) -> dict[str, str]:
    """Return ``NAME=VALUE`` options; a build argument without a value takes it from the environment, as with Docker."""
    pairs = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or not (equals or from_environment):
            raise InvalidSpec(f"{text!r} has no name or no value: write NAME=VALUE.")
        if equals:
            pairs[name] = value
        elif name in os.environ:
            pairs[name] = os.environ[name]
    return pairs


def _epoch(text: str | None) -> Epoch | None:
    if text is None or text == "now":
        return None if text is None else "now"
    if not (text.isascii() and text.isdigit()):
        raise InvalidSpec(f"{text!r} is no time: write whole seconds since 1970, or now.")
    return int(text)
