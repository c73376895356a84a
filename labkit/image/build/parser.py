"""From statements to a build plan: global arguments, and stages of checked instructions.

Each keyword has one small function that reads the rest of its line. What is wrong is said with the line's number, in
the words that Docker's users know.

See: dockerfile(5); `labkit.image.build.lexer` for lines, `labkit.image.build.instructions` for what comes out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from labkit.image.build import instructions as made
from labkit.image.build.errors import ContainerfileError
from labkit.image.build.health import parse_healthcheck
from labkit.image.build.lexer import Statement, read_source
from labkit.image.build.words import name_value_pairs, parse_json, split_flags, split_words

__all__ = ["Containerfile", "Stage", "parse"]

_STAGE_NAME = re.compile(r"[a-z][a-z0-9._-]*\Z")


@dataclass(slots=True)
class Stage:
    """One FROM and what follows it."""

    start: made.From
    number: int
    instructions: list[made.Instruction] = field(default_factory=list)

    @property
    def name(self) -> str:
        """How other stages call it: the name after AS, or its number."""
        return self.start.name or str(self.number)


@dataclass(slots=True)
class Containerfile:
    """A Containerfile that has been read and checked."""

    stages: list[Stage]
    global_args: list[made.Arg] = field(default_factory=list)
    escape: str = "\\"
    warnings: list[str] = field(default_factory=list)

    def stage(self, name: str) -> Stage | None:
        """Return the last stage of that name, or the one with that number; None if there is none."""
        found = [stage for stage in self.stages if stage.start.name and stage.start.name == name.lower()]
        if not found and name.isdigit() and int(name) < len(self.stages):
            found = [self.stages[int(name)]]
        return found[-1] if found else None


def parse(text: str | bytes) -> Containerfile:
    """Return what ``text`` says to build. Raises: ContainerfileError for the first line that is wrong."""
    source = read_source(text)
    plan = Containerfile([], escape=source.escape, warnings=list(source.warnings))
    for statement in source.statements:
        instruction = _Reader(statement, source.escape, plan.warnings).read()
        if isinstance(instruction, made.From):
            plan.stages.append(Stage(instruction, len(plan.stages)))
        elif plan.stages:
            plan.stages[-1].instructions.append(instruction)
        elif isinstance(instruction, made.Arg):
            plan.global_args.append(instruction)
        else:
            raise ContainerfileError(
                "no build stage in current context: a FROM must come first (only ARG may stand before it).",
                line=statement.line,
            )
    if not plan.stages:
        raise ContainerfileError("no build stage: there are only ARGs; a FROM must follow, as in FROM busybox.")
    return plan


class _Reader:
    """Reads one statement."""

    def __init__(self, statement: Statement, escape: str, warnings: list[str]) -> None:
        self.statement = statement
        self.escape = escape
        self.warnings = warnings
        self.keyword, self.line, self.text = statement.keyword, statement.line, statement.text
        self.flags: dict[str, list[str]] = {}
        self.rest = statement.rest

    def read(self) -> made.Instruction:
        """Return the instruction. Raises: ContainerfileError."""
        if self.keyword == "ONBUILD":
            raise self.error(
                "ONBUILD is not supported: it would write instructions into an image for other people's builds;"
                " put them into the Containerfile that needs them."
            )
        reader = _READERS.get(self.keyword)
        if reader is None:
            near = _nearest(self.keyword, _READERS)
            hint = f" (did you mean {near}?)" if near else f"; there are {', '.join(sorted(_READERS))}"
            raise self.error(f"unknown instruction: {self.keyword}{hint}")
        flags, self.rest = split_flags(self.rest, self.escape) if self.keyword in _FLAGS else ([], self.rest)
        self._read_flags(flags)
        return reader(self)

    def error(self, message: str) -> ContainerfileError:
        """Return an error for this line."""
        return ContainerfileError(message, line=self.line)

    def _read_flags(self, flags: list[str]) -> None:
        for flag in flags:
            name, equals, value = flag[2:].partition("=")
            if name not in _FLAGS[self.keyword]:
                raise self.error(_flag_refusal(self.keyword, name))
            if not equals and name != "link":
                raise self.error(f"missing a value on flag: --{name}")
            if name in self.flags and name not in ("mount", "exclude"):
                raise self.error(f"duplicate flag specified: --{name}")
            self.flags.setdefault(name, []).append(value)

    def flag(self, name: str) -> str:
        """Return the value of a flag; "" if it is not given."""
        return (self.flags.get(name) or [""])[-1]

    def one(self) -> str:
        """Return the rest of the line, which must not be empty."""
        if not self.rest:
            raise self.error(f"{self.keyword} requires exactly one argument")
        return self.rest

    def words_or_json(self) -> list[str]:
        """Return the words, from either form."""
        found = parse_json(self.rest, line=self.line)
        # Docker splits here at every space: a name that holds one needs the JSON form.
        return self.rest.split() if found is None else found

    def from_(self) -> made.From:
        """Read FROM."""
        words = self.rest.split()
        if len(words) not in (1, 3) or (len(words) == 3 and words[1].upper() != "AS"):
            raise self.error("FROM requires either one or three arguments: FROM base, or FROM base AS name")
        name = words[2].lower() if len(words) == 3 else ""
        if name and not _STAGE_NAME.match(name):
            raise self.error(
                f"invalid name for build stage: {words[2]!r}, name can't start with a number or contain symbols"
            )
        return made.From(self.line, self.text, words[0], name, self.flag("platform"))

    def arg(self) -> made.Arg:
        """Read ARG."""
        words = split_words(self.rest, self.escape)
        if not words:
            raise self.error("ARG requires at least one argument")
        pairs: list[tuple[str, str | None]] = []
        for word in words:
            name, equals, value = word.partition("=")
            if not name:
                raise self.error("ARG names can not be blank")
            pairs.append((name, value if equals else None))
        return made.Arg(self.line, self.text, tuple(pairs))

    def pairs(self) -> made.Env | made.Label:
        """Read ENV or LABEL."""
        pairs = tuple(name_value_pairs(self.keyword, self.rest, self.escape, line=self.line))
        return (
            made.Env(self.line, self.text, pairs) if self.keyword == "ENV" else made.Label(self.line, self.text, pairs)
        )

    def command(self) -> made.Command:
        """Read CMD or ENTRYPOINT."""
        words = parse_json(self.rest, line=self.line)
        in_shell = words is None
        if words is None:
            words = [self.rest] if self.rest else []
        if self.keyword == "ENTRYPOINT" and not words and in_shell:
            raise self.error("ENTRYPOINT requires at least one argument")
        return made.Command(self.line, self.text, tuple(words), in_shell)

    def run(self) -> made.Run:
        """Read RUN."""
        network = self.flag("network")
        if network not in ("", "none", "host", "default"):
            raise self.error(f"invalid network mode {network!r}: it is none, host or default")
        words = parse_json(self.rest, line=self.line)
        in_shell = words is None
        if words is None:
            words = [self.rest] if self.rest else []
        if not words:
            raise self.error("RUN requires at least one argument")
        return made.Run(
            self.line, self.text, tuple(words), in_shell, self.statement.heredocs,
            tuple(self.flags.get("mount", ())), network,
        )  # fmt: skip

    def copy(self) -> made.Copy:
        """Read COPY or ADD."""
        words = self.words_or_json()
        if not words:
            raise self.error(f"{self.keyword} requires at least two arguments, but no arguments were provided")
        if len(words) == 1:
            raise self.error(
                f"{self.keyword} requires at least two arguments, but only one was provided."
                " Destination could not be determined"
            )
        names = {heredoc.name for heredoc in self.statement.heredocs}
        sources = [word for word in words[:-1] if _heredoc_name(word) not in names]
        return made.Copy(
            self.line, self.text, tuple(sources), words[-1], self.keyword == "ADD", self.flag("from"),
            self.flag("chown"), self.flag("chmod"), tuple(self.flags.get("exclude", ())), self.flag("checksum"),
            self.statement.heredocs,
        )  # fmt: skip

    def expose(self) -> made.Expose:
        """Read EXPOSE."""
        if not self.rest:
            raise self.error("EXPOSE requires at least one argument")
        return made.Expose(self.line, self.text, self.rest)

    def volume(self) -> made.Volume:
        """Read VOLUME."""
        paths = self.words_or_json()
        if not paths:
            raise self.error("VOLUME requires at least one argument")
        if not all(path.strip() for path in paths):
            raise self.error("VOLUME specified can not be an empty string")
        return made.Volume(self.line, self.text, tuple(paths))

    def shell(self) -> made.Shell:
        """Read SHELL."""
        words = parse_json(self.rest, line=self.line)
        if words is None:
            raise self.error('SHELL requires the arguments to be in JSON form, as in SHELL ["/bin/sh", "-c"]')
        if not words:
            raise self.error("SHELL requires at least one argument")
        return made.Shell(self.line, self.text, tuple(words))

    def healthcheck(self) -> made.Healthcheck:
        """Read HEALTHCHECK."""
        test, durations, retries = parse_healthcheck(
            self.rest, {name: values[-1] for name, values in self.flags.items()}, line=self.line
        )
        return made.Healthcheck(self.line, self.text, test, durations, retries)

    def maintainer(self) -> made.Maintainer:
        """Read MAINTAINER."""
        name = self.one()
        self.warnings.append(
            f"line {self.line}: MAINTAINER is deprecated: write LABEL org.opencontainers.image.authors=…"
        )
        return made.Maintainer(self.line, self.text, name)


def _flag_refusal(keyword: str, name: str) -> str:
    if (keyword, name) in _REFUSED_FLAGS:
        return f"{keyword} --{name} is not supported: {_REFUSED_FLAGS[keyword, name]}"
    near = _nearest(name, _FLAGS[keyword])
    hint = f" (did you mean --{near}?)" if near else ""
    return f"unknown flag: --{name}{hint}"


def _nearest(word: str, known: Iterable[str]) -> str:
    """Return what somebody probably meant who wrote ``word``; empty if nothing is near."""
    import difflib  # loaded for mistakes only

    return next(iter(difflib.get_close_matches(word, list(known), n=1)), "")


def _heredoc_name(word: str) -> str:
    match = re.match(r"\d*<<-?(.+)\Z", word)
    return re.sub(r"[\"'\\]", "", match.group(1)) if match else ""


_READERS: dict[str, Callable[[_Reader], made.Instruction]] = {
    "ADD": _Reader.copy,
    "ARG": _Reader.arg,
    "CMD": _Reader.command,
    "COPY": _Reader.copy,
    "ENTRYPOINT": _Reader.command,
    "ENV": _Reader.pairs,
    "EXPOSE": _Reader.expose,
    "FROM": _Reader.from_,
    "HEALTHCHECK": _Reader.healthcheck,
    "LABEL": _Reader.pairs,
    "MAINTAINER": _Reader.maintainer,
    "RUN": _Reader.run,
    "SHELL": _Reader.shell,
    "STOPSIGNAL": lambda reader: made.Stopsignal(reader.line, reader.text, reader.one()),
    "USER": lambda reader: made.User(reader.line, reader.text, reader.one()),
    "VOLUME": _Reader.volume,
    "WORKDIR": lambda reader: made.Workdir(reader.line, reader.text, reader.one()),
}
#: The flags that an instruction takes. ``--link`` changes how the layer is cached elsewhere, not what is in it.
_FLAGS: dict[str, tuple[str, ...]] = {
    "ADD": ("chown", "chmod", "exclude", "link", "checksum"),
    "COPY": ("from", "chown", "chmod", "exclude", "link"),
    "FROM": ("platform",),
    "HEALTHCHECK": ("interval", "timeout", "start-period", "start-interval", "retries"),
    "RUN": ("mount", "network"),
}
_REFUSED_FLAGS = {
    ("COPY", "parents"): "name the target folder of each source",
    ("ADD", "keep-git-dir"): "labkit fetches nothing in a build; copy the files of a checkout",
    ("ADD", "unpack"): "ADD unpacks local archives, COPY does not",
    ("RUN", "security"): "a build has the defences of every container",
    ("RUN", "device"): "a build sees the standard devices alone",
}
