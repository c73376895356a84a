from __future__ import annotations

from pathlib import Path

import pytest

from labkit.image.build.dockerignore import Ignore, read_ignore_file
from labkit.image.build.errors import ContainerfileError


def left(text: str, paths: str) -> list[str]:
    """Return those of ``paths`` that are not hidden."""
    ignore = Ignore.from_text(text)
    return [path for path in paths.split() if not ignore.hides(path)]


@pytest.mark.parametrize(
    ("text", "paths", "kept"),
    [
        ("*.log", "a.log d/a.log a.txt", "d/a.log a.txt"),
        ("**/*.log", "a.log d/a.log d/e/a.log a.txt", "a.txt"),
        ("d", "d d/x e/d", "e/d"),
        ("/d/", "d d/x e/d", "e/d"),
        ("*/temp*", "d/temp.txt d/e/temp temp", "d/e/temp temp"),
        ("temp?", "tempa temp tempab", "temp tempab"),
        ("# comment\n\n  x  ", "x #", "#"),
        ("*.md\n!README.md", "a.md README.md", "README.md"),
        ("*.md\n!README*.md\nREADME-secret.md", "a.md README.md README-secret.md", "README.md"),
        ("*.md\nREADME-secret.md\n!README*.md", "README-secret.md", "README-secret.md"),
        ("d\n!d/keep", "d/x d/keep", "d/keep"),
        ("**", "a b/c", ""),
        ("*\n!src\n", "a src src/b", "src src/b"),
        ("d/**/f", "d/f d/a/f d/a/b/f f", "f"),
        ("a[0-9]", "a1 ax", "ax"),
        ("a[^0-9]", "a1 ax a/", "a1 a/"),
        ("\\*", "* a", "a"),
        ("d/../e", "e d", "d"),
        (".git", ".git .git/config .gitignore", ".gitignore"),
    ],
)
def test_patterns_leave_out_what_docker_leaves_out(text: str, paths: str, kept: str) -> None:
    assert left(text, paths) == kept.split()


@pytest.mark.parametrize("pattern", ["[", "a[b", "x\\", "[z-a]"])
def test_what_is_no_pattern_is_refused_by_name(pattern: str) -> None:
    with pytest.raises(ContainerfileError, match="is no pattern"):
        Ignore.from_text(pattern)


def test_the_more_special_file_wins(tmp_path: Path) -> None:
    (tmp_path / ".dockerignore").write_text("a\n")
    assert read_ignore_file(tmp_path, "Containerfile").patterns == ("a",)
    (tmp_path / ".containerignore").write_text("b\n")
    assert read_ignore_file(tmp_path, "Containerfile").patterns == ("b",)
    (tmp_path / "Containerfile.dockerignore").write_text("c\n")
    assert read_ignore_file(tmp_path, "Containerfile").patterns == ("c",)
    assert read_ignore_file(tmp_path / "nowhere", "Containerfile").patterns == ()


def test_a_hidden_folder_is_walked_only_if_something_may_come_back() -> None:
    assert Ignore.from_text("d").hides_all_below("d")
    assert not Ignore.from_text("d\n!d/keep").hides_all_below("d")
