"""labkit's reading of a Containerfile against the parser of Docker's own builder (package ``dockerfile``), line by line."""

from __future__ import annotations

import json
import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from labkit.image.build import instructions as made
from labkit.image.build.errors import ContainerfileError
from labkit.image.build.lexer import read_source
from labkit.image.build.parser import parse
from labkit.image.build.words import split_flags
from tests.image.build.corpus import BUILDS, PARSED
from tests.support import requires

TEXTS = [*(case.text for case in BUILDS), *PARSED]
Row = tuple[str, int, int, tuple[str, ...], tuple[str, ...], bool, tuple[tuple[str, str], ...]]


# Go's runtime starts threads and takes signals: it gets a process of its own.
ORACLE = """
import dockerfile, json, sys
for line in sys.stdin:
    rows = [
        (c.cmd.upper(), c.start_line, c.end_line, c.flags, c.value, bool(c.json), [(h.name, h.content) for h in c.heredocs])
        for c in dockerfile.parse_string(json.loads(line))
    ]
    print(json.dumps(rows), flush=True)
"""


class Docker:
    """Docker's parser, asked line by line."""

    def __enter__(self) -> Docker:
        self.process = subprocess.Popen(
            [sys.executable, "-c", ORACLE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate(timeout=30)

    def read(self, text: str) -> list[Row]:
        """Return keyword, lines, flags, values, JSON or not, and heredocs of each instruction as Docker reads them."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(text) + "\n")
        self.process.stdin.flush()
        return [
            (keyword, first, last, tuple(flags), tuple(value), is_json, tuple((name, text) for name, text in heredocs))
            for keyword, first, last, flags, value, is_json, heredocs in json.loads(self.process.stdout.readline())
        ]


def by_labkit(text: str) -> list[Row]:
    """Return the same as labkit reads it."""
    plan = parse(text)
    read = [*plan.global_args, *(one for stage in plan.stages for one in (stage.start, *stage.instructions))]
    source = read_source(text)
    rows = []
    for statement, instruction in zip(source.statements, read, strict=True):
        flags, rest = split_flags(statement.rest, source.escape)
        with_flags = isinstance(instruction, (made.From, made.Run, made.Copy, made.Healthcheck))
        heredocs = tuple((found.name, found.content) for found in statement.heredocs)
        is_json = rest.startswith("[") and not getattr(instruction, "in_shell", rest.startswith("['"))
        row = (
            statement.keyword, statement.line, statement.last_line, tuple(flags) if with_flags else (),
            values_of(instruction, rest), is_json, heredocs,
        )  # fmt: skip
        rows.append(row)
    return rows


def values_of(instruction: made.Instruction, rest: str) -> tuple[str, ...]:
    """Return what an instruction says as the oracle has it: a flat list of texts."""
    match instruction:
        case made.Run() | made.Command():
            return instruction.words
        case made.Copy() if not instruction.heredocs:
            return (*instruction.sources, instruction.target)
        case made.Env() | made.Label():
            return tuple(text for pair in instruction.pairs for text in pair)
        case made.Volume():
            return instruction.paths
        case made.Shell():
            return instruction.words
        case made.Arg():
            return tuple(name if value is None else f"{name}={value}" for name, value in instruction.pairs)
        case made.Healthcheck():
            kind, _, command = rest.partition(" ")
            return (kind, *filter(None, (command,)))
        case made.From() | made.Expose() | made.Copy():
            return tuple(rest.split())
    return (rest,)


@requires("module:dockerfile")
def test_docker_reads_the_same_instructions() -> None:
    with Docker() as docker:
        for text in TEXTS:
            assert by_labkit(text) == docker.read(text), text


LINES = st.sampled_from([
    "RUN echo a", "RUN echo \\", "  && b", "# c", "", "   ", "COPY a b", 'COPY ["a", "b"]', 'ENV A=1 B="x y"', "ENV A b c",
    "ENV A=\\ x", "LABEL a=b", 'CMD ["x"]', "CMD x y", 'ENTRYPOINT [ "x" ]', "VOLUME /a /b", "EXPOSE 1 2/udp", "USER x",
    "WORKDIR /x", "ARG A=1", "RUN --network=none x", "COPY --chown=1 a b", "RUN <<E", "E", "COPY <<'E' /x", 'SHELL ["a"]', "RUN a\\\\",
    "FROM b AS c", 'RUN "<<E"', "COPY a\\ b c", 'CMD ["x"] y',
])  # fmt: skip


@requires("module:dockerfile")
def test_docker_reads_any_sequence_of_lines_alike() -> None:
    with Docker() as docker:

        @given(st.lists(LINES, max_size=10))
        def check(lines: list[str]) -> None:
            text = "\n".join(["FROM a", *lines]) + "\n"
            try:
                read = by_labkit(text)
            except ContainerfileError:
                return  # what labkit refuses, Docker refuses later than its parser; the messages are tested elsewhere
            assert read == docker.read(text)

        check()
