from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.image.build import instructions as made
from labkit.image.build.errors import ContainerfileError
from labkit.image.build.parser import parse
from tests.support import PROJECT


def only(line: str) -> made.Instruction:
    """Return the one instruction of a file ``FROM a`` and ``line``."""
    return parse(f"FROM a\n{line}\n").stages[0].instructions[0]


def test_stages_are_found_by_name_and_by_number() -> None:
    plan = parse("ARG V=1\nFROM a:$V AS One\nRUN x\nFROM one AS two\nUSER u\n")
    assert [(stage.name, stage.start.base, len(stage.instructions)) for stage in plan.stages] == [
        ("one", "a:$V", 1),
        ("two", "one", 1),
    ]
    assert plan.stage("ONE") is plan.stages[0] is plan.stage("0")
    assert plan.stage("three") is None is plan.stage("7")
    assert plan.global_args[0].pairs == (("V", "1"),)


@pytest.mark.parametrize(
    ("line", "words", "in_shell"),
    [
        ("CMD echo hi", ("echo hi",), True),
        ('CMD ["echo", "hi there"]', ("echo", "hi there"), False),
        ("CMD ['echo']", ("['echo']",), True),
        ('CMD ["a", "b"', ('["a", "b"',), True),
        ("CMD []", (), False),
        ("CMD", (), True),
        ('ENTRYPOINT ["/bin/sh", "-c"]', ("/bin/sh", "-c"), False),
    ],
)
def test_a_json_array_is_the_exec_form_and_anything_else_the_shell_form(
    line: str, words: tuple[str, ...], in_shell: bool
) -> None:
    found = only(line)
    assert isinstance(found, made.Command)
    assert (found.words, found.in_shell) == (words, in_shell)


def test_copy_and_add_have_sources_a_target_and_flags() -> None:
    copy = only("COPY --from=x --chown=1:2 --chmod=755 --link --exclude=*.o --exclude=d a b /c/")
    assert isinstance(copy, made.Copy)
    assert (copy.sources, copy.target, copy.from_stage, copy.chown, copy.chmod) == (
        ("a", "b"),
        "/c/",
        "x",
        "1:2",
        "755",
    )
    assert (copy.excludes, copy.unpacks) == (("*.o", "d"), False)
    add = only('ADD ["a b", "/c d"]')
    assert isinstance(add, made.Copy)
    assert (add.sources, add.target, add.unpacks) == (("a b",), "/c d", True)


def test_heredocs_are_sources_without_a_file() -> None:
    copy = only("COPY <<a.txt b.txt <<'c.txt' /d/\none\na.txt\ntwo\nc.txt")
    assert isinstance(copy, made.Copy)
    assert copy.sources == ("b.txt",)
    assert [(heredoc.name, heredoc.content) for heredoc in copy.heredocs] == [("a.txt", "one\n"), ("c.txt", "two\n")]


def test_run_keeps_its_mounts_and_its_network() -> None:
    run = only("RUN --mount=type=cache,target=/c --mount=type=tmpfs,target=/t --network=none make")
    assert isinstance(run, made.Run)
    assert (run.mounts, run.network, run.words) == (("type=cache,target=/c", "type=tmpfs,target=/t"), "none", ("make",))


@pytest.mark.parametrize(
    ("line", "pairs"),
    [
        ("ENV A=1 B=2", (("A", "1"), ("B", "2"))),
        ("ENV A one word more", (("A", "one word more"),)),
        ('ENV A="x y" B=x\\ y C=', (("A", '"x y"'), ("B", "x\\ y"), ("C", ""))),
        ("ENV ONE TWO= THREE=world", (("ONE", "TWO= THREE=world"),)),
        ('LABEL "a.b"="c d" e=f', (('"a.b"', '"c d"'), ("e", "f"))),
    ],
)
def test_pairs_are_split_with_quotes_kept_for_later(line: str, pairs: tuple[tuple[str, str], ...]) -> None:
    found = only(line)
    assert isinstance(found, (made.Env, made.Label))
    assert found.pairs == pairs


def test_an_argument_may_have_no_default() -> None:
    found = only("ARG A B=2 C=")
    assert isinstance(found, made.Arg)
    assert found.pairs == (("A", None), ("B", "2"), ("C", ""))


def test_a_health_check_is_kept_as_data() -> None:
    found = only("HEALTHCHECK --interval=1m30s --timeout=500ms --retries=3 CMD curl -f http://localhost/")
    assert isinstance(found, made.Healthcheck)
    assert found.test == ("CMD-SHELL", "curl -f http://localhost/")
    assert dict(found.durations_ns) == {"Interval": 90_000_000_000, "Timeout": 500_000_000}
    assert found.retries == 3
    assert only('HEALTHCHECK CMD ["a", "b"]').test == ("CMD", "a", "b")  # type: ignore[attr-defined]
    assert only("HEALTHCHECK NONE").test == ("NONE",)  # type: ignore[attr-defined]


def test_maintainer_is_deprecated_in_favour_of_a_label() -> None:
    plan = parse("FROM a\nMAINTAINER somebody\n")
    assert plan.warnings == ["line 2: MAINTAINER is deprecated: write LABEL org.opencontainers.image.authors=…"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("FOO bar", "unknown instruction: FOO"),
        ("RUNN x", "unknown instruction: RUNN (did you mean RUN?)"),
        ("ONBUILD RUN x", "ONBUILD is not supported"),
        ("FROM", "FROM requires either one or three arguments"),
        ("FROM a b", "FROM requires either one or three arguments"),
        ("FROM a AS 1x", "invalid name for build stage"),
        ("RUN", "RUN requires at least one argument"),
        ("RUN --network=bridge x", "invalid network mode"),
        ("RUN --security=insecure x", "RUN --security is not supported"),
        ("COPY", "no arguments were provided"),
        ("COPY a", "only one was provided"),
        ("COPY --form=x a b", "unknown flag: --form (did you mean --from?)"),
        ("COPY --from a b", "missing a value on flag: --from"),
        ("COPY --parents a b", "COPY --parents is not supported"),
        ("COPY --chown=1 --chown=2 a b", "duplicate flag specified: --chown"),
        ("ENV", "ENV requires at least one argument"),
        ("ENV A", "ENV must have two arguments"),
        ("ENV A=1 B", "can't find = in 'B'"),
        ("ENV =1", "ENV names can not be blank"),
        ("ARG", "ARG requires at least one argument"),
        ("ARG =1", "ARG names can not be blank"),
        ("SHELL /bin/sh -c", "SHELL requires the arguments to be in JSON form"),
        ("SHELL []", "SHELL requires at least one argument"),
        ("CMD [1]", "only string elements are allowed"),
        ("ENTRYPOINT", "ENTRYPOINT requires at least one argument"),
        ("EXPOSE", "EXPOSE requires at least one argument"),
        ("VOLUME", "VOLUME requires at least one argument"),
        ('VOLUME [""]', "VOLUME specified can not be an empty string"),
        ("WORKDIR", "WORKDIR requires exactly one argument"),
        ("USER", "USER requires exactly one argument"),
        ("HEALTHCHECK", "HEALTHCHECK requires at least one argument"),
        ("HEALTHCHECK FOO", "Unknown type 'FOO' in HEALTHCHECK (try CMD)"),
        ("HEALTHCHECK CMD", "Missing command after HEALTHCHECK CMD"),
        ("HEALTHCHECK NONE x", "HEALTHCHECK NONE takes no arguments"),
        ("HEALTHCHECK --interval=1x CMD a", "invalid duration '1x'"),
        ("HEALTHCHECK --interval=1ns CMD a", "must be at least 1ms"),
        ("HEALTHCHECK --retries=-1 CMD a", "--retries must be a whole number"),
    ],
)
def test_a_wrong_line_is_said_with_its_number_in_dockers_words(line: str, words: str) -> None:
    with pytest.raises(ContainerfileError) as caught:
        parse(f"FROM a\n\n{line}\n")
    assert str(caught.value).startswith("dockerfile parse error on line 3: ")
    assert words in str(caught.value)
    assert caught.value.line == 3


@pytest.mark.parametrize(
    ("text", "words"),
    [("RUN x\nFROM a", "no build stage in current context"), ("ARG A\n", "there are only ARGs")],
)
def test_a_stage_begins_with_from(text: str, words: str) -> None:
    with pytest.raises(ContainerfileError, match=words):
        parse(text)


@given(st.lists(st.sampled_from(
    ["FROM a", "RUN <<E", "E", "COPY a b", "# x", "\\", "ENV A=$", "RUN x \\", "[", '["a"]', "CMD [", "'", "--from=", "ARG", "\t"]
), max_size=12))  # fmt: skip
def test_any_text_is_a_plan_or_an_error_of_labkits(lines: list[str]) -> None:
    try:
        assert parse("\n".join(lines)).stages
    except ContainerfileError as error:
        assert str(error)


def test_the_reading_of_a_file_can_be_looked_at(tmp_path: Path) -> None:
    file = tmp_path / "Containerfile"
    file.write_text("ARG V=1\nFROM a:$V AS one\nCOPY --from=x a /b\n")
    shown = subprocess.run(
        [sys.executable, "-m", "labkit.image.build", str(file)], capture_output=True, text=True, check=True, cwd=PROJECT
    )
    assert [line.split()[:2] for line in shown.stdout.splitlines()] == [["1", "Arg"], ["2", "From"], ["3", "Copy"]]
    file.write_text("FOO\n")
    failed = subprocess.run(
        [sys.executable, "-m", "labkit.image.build", str(file)],
        capture_output=True,
        text=True,
        check=False,
        cwd=PROJECT,
    )
    assert (failed.returncode, failed.stdout) == (2, "")
    assert "unknown instruction: FOO" in failed.stderr
