"""The instructions as data: what each `Statement` means, checked as far as the text alone can tell.

Variables are still in them: their values are known only when the build gets there. `labkit.image.build.parser` makes these from text.

Leaves out: ONBUILD, which is refused by name: it writes instructions into an image for somebody else's build.
See: dockerfile(5).
"""

from __future__ import annotations

from dataclasses import dataclass

from labkit.image.build.lexer import Heredoc

__all__ = [
    "Arg",
    "Command",
    "Copy",
    "Env",
    "Expose",
    "From",
    "Healthcheck",
    "Instruction",
    "Label",
    "Maintainer",
    "Run",
    "Shell",
    "Stopsignal",
    "User",
    "Volume",
    "Workdir",
]


@dataclass(frozen=True, slots=True)
class Instruction:
    """What all have: where it stands and how it is written."""

    line: int
    text: str

    @property
    def keyword(self) -> str:
        """The instruction's name, as in ``COPY``."""
        return self.text.split(None, 1)[0]


@dataclass(frozen=True, slots=True)
class From(Instruction):
    """``FROM [--platform=…] base [AS name]``."""

    base: str
    name: str = ""
    platform: str = ""


@dataclass(frozen=True, slots=True)
class Arg(Instruction):
    """``ARG name[=default] …``; a default of None says that there is none."""

    pairs: tuple[tuple[str, str | None], ...]


@dataclass(frozen=True, slots=True)
class Env(Instruction):
    """``ENV name=value …``."""

    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Label(Instruction):
    """``LABEL name=value …``."""

    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Command(Instruction):
    """``CMD`` and ``ENTRYPOINT``: words (exec form), or one text for the shell."""

    words: tuple[str, ...]
    in_shell: bool


@dataclass(frozen=True, slots=True)
class Run(Instruction):
    """``RUN [--mount=…] [--network=…] command``. ``mounts`` are the options of each ``--mount`` as they are written."""

    words: tuple[str, ...]
    in_shell: bool
    heredocs: tuple[Heredoc, ...] = ()
    mounts: tuple[str, ...] = ()
    network: str = ""


@dataclass(frozen=True, slots=True)
class Copy(Instruction):
    """``COPY`` and ``ADD`` (``unpacks``): sources, target, and the files that stand in the Containerfile itself."""

    sources: tuple[str, ...]
    target: str
    unpacks: bool = False
    from_stage: str = ""
    chown: str = ""
    chmod: str = ""
    excludes: tuple[str, ...] = ()
    checksum: str = ""
    heredocs: tuple[Heredoc, ...] = ()


@dataclass(frozen=True, slots=True)
class Workdir(Instruction):
    """``WORKDIR path``."""

    path: str


@dataclass(frozen=True, slots=True)
class User(Instruction):
    """``USER user[:group]``."""

    user: str


@dataclass(frozen=True, slots=True)
class Expose(Instruction):
    """``EXPOSE port[/protocol] …``."""

    ports: str


@dataclass(frozen=True, slots=True)
class Volume(Instruction):
    """``VOLUME path …``."""

    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Stopsignal(Instruction):
    """``STOPSIGNAL signal``."""

    signal: str


@dataclass(frozen=True, slots=True)
class Shell(Instruction):
    """``SHELL ["program", "option"]``."""

    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Healthcheck(Instruction):
    """``HEALTHCHECK``, kept as data: ``test`` as the image's config has it, durations in nanoseconds."""

    test: tuple[str, ...]
    durations_ns: tuple[tuple[str, int], ...] = ()
    retries: int = 0


@dataclass(frozen=True, slots=True)
class Maintainer(Instruction):
    """``MAINTAINER name``, which LABEL has replaced."""

    name: str
