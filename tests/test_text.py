"""What may not stand in any file of the project, and what its documents must hold."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import PROJECT

MOST_BYTES = 1 << 20
# The words are put together here, so that this file does not break its own rule.
FORBIDDEN = {
    "a path of somebody's machine": rf"(?<![\w.])/{'root'}/|/{'work'}/(?:main|shared)|\.{'pyenv'}\b",
    "the working notes of the project": rf"\.\./{'shared'}\b|\.{'library'}\b|{'labkit'}-dev\b",
    "a host that packages or images come from": "|".join(
        name.replace(" ", r"\.")
        for name in (
            "pypi org", "pythonhosted org", "npmjs org", "npmjs com", "anaconda org", "quay io", "ghcr io",
            r"\bgcr io", "registry-1 docker io", "hub docker com", "mcr microsoft com", "deb debian org",
        )
    ),
    "something left to do": rf"\b(?:{'TO' + 'DO'}|{'FIX' + 'ME'}|{'X' * 3})\b",
    "a mark of an unfinished merge": r"^(?:<{7}|>{7}) ",
}  # fmt: skip
LINK = re.compile(
    r"(?<!!)\[[^\]\n]*\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)|!\[[^\]\n]*\]\(([^)\s]+)\)|<img[^>]*\ssrc=\"([^\"]+)\""
)


def project_files() -> list[Path]:
    """Return the files that git tracks, or, in a copy without git, all files but those that tools make."""
    done = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z"], cwd=PROJECT, capture_output=True, check=False
    )
    if done.returncode == 0 and (PROJECT / ".git").exists():
        paths = [PROJECT / os.fsdecode(name) for name in done.stdout.split(b"\0") if name]
        return [path for path in paths if path.is_file()]
    found = []
    for folder, folders, files in os.walk(PROJECT):
        hidden = [name for name in folders if name in ("__pycache__", "node_modules") or name.endswith(".egg-info")]
        hidden += [name for name in folders if name.startswith(".") and name not in (".ci", ".github", ".binder")]
        folders[:] = [name for name in folders if name not in hidden]
        found += [Path(folder, name) for name in files]
    return found


FILES = project_files()
DOCUMENTS = [path for path in FILES if path.suffix == ".md"]


def text_of(path: Path) -> str | None:
    """Return the text of a file; None if it is none (a picture)."""
    data = path.read_bytes()
    try:
        return None if b"\0" in data[:8192] else data.decode()
    except UnicodeDecodeError:
        return None


def forbidden_in(text: str, pattern: str) -> Iterator[tuple[int, str]]:
    """Yield number and text of each line in which ``pattern`` occurs."""
    for match in re.finditer(pattern, text, re.M):
        line = text.count("\n", 0, match.start()) + 1
        yield line, match.group(0)


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_file_holds(what: str) -> None:
    hits = [
        f"{path.relative_to(PROJECT)}:{line}: {found}"
        for path in FILES
        for line, found in forbidden_in(text_of(path) or "", FORBIDDEN[what])
    ]
    assert not hits, f"{what}:\n" + "\n".join(hits)


def test_no_file_names_the_folder_of_this_checkout() -> None:
    here = f"{PROJECT}/"
    hits = [str(path.relative_to(PROJECT)) for path in FILES if here in (text_of(path) or "")]
    assert not hits or len(PROJECT.parts) < 3, f"{here} stands in {hits}"


@pytest.mark.parametrize(
    ("what", "bad", "good"),
    [
        ("a path of somebody's machine", "see /roo" + "t/.cache", "HOME=/root and ~/.cache, /root stays"),
        ("a path of somebody's machine", "in ~/.py" + "env/versions", "a pyenv, in /home/student"),
        ("the working notes of the project", "as ../share" + "d/facts say", "shared mounts, ../sharedness"),
        (
            "a host that packages or images come from",
            "from pyp" + "i.org",
            "from the package index; docker.io is a package",
        ),
        ("something left to do", "# TO" + "DO: later", "the todolist, mktemp XXXXXX"),
        ("a mark of an unfinished merge", "<" * 7 + " HEAD", "<<<<<<<<<< ten"),
    ],
)
def test_the_search_finds_what_it_is_for_and_nothing_else(what: str, bad: str, good: str) -> None:
    assert [line for line, _ in forbidden_in(f"first line\n{bad}\n", FORBIDDEN[what])] == [2]
    assert not list(forbidden_in(good, FORBIDDEN[what]))


def anchors_of(document: Path) -> set[str]:
    """Return the anchors that a Markdown document's headings get."""
    headings = re.findall(r"^#{1,6} +(.+?) *#*$", document.read_text(), re.M)
    words = (re.sub(r"[`*_]|\[([^\]]*)\]\([^)]*\)", r"\1", heading) for heading in headings)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in words}


def broken_links(document: Path) -> Iterator[str]:
    """Yield the links to files and headings that are not there; links to other hosts are not followed."""
    text = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.M | re.S)
    for target in filter(None, (word for groups in LINK.findall(text) for word in groups)):
        if re.match(r"[a-z][a-z0-9+.-]*:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (document.parent / name).resolve() if name else document
        if not path.exists():
            yield f"{target}: no such file"
        elif anchor and path.suffix == ".md" and anchor not in anchors_of(path):
            yield f"{target}: no such heading"


def test_every_link_in_a_document_leads_somewhere() -> None:
    broken = [f"{path.relative_to(PROJECT)}: {link}" for path in DOCUMENTS for link in broken_links(path)]
    assert not broken, "\n".join(broken)


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    (tmp_path / "there.md").write_text("# A `name`, and more\n")
    document = tmp_path / "document.md"
    document.write_text(
        "[a](there.md) [b](there.md#a-name-and-more) [c](https://example.org/) [d](gone.md) [e](there.md#no)\n"
        "![picture](gone.png)\n```\n[code](gone.md)\n```\n"
    )
    assert list(broken_links(document)) == [
        "gone.md: no such file",
        "there.md#no: no such heading",
        "gone.png: no such file",
    ]


def test_the_changelog_says_what_is_new() -> None:
    text = (PROJECT / "CHANGELOG.md").read_text()
    assert re.search(r"^## Unreleased\n+- \w?", text, re.M)


@pytest.mark.parametrize("name", ["README.md", "LICENSE", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_the_project_has_the_documents_that_readers_look_for(name: str) -> None:
    assert (PROJECT / name).stat().st_size > 100


def test_no_tracked_file_is_large_or_a_program() -> None:
    large = [str(path.relative_to(PROJECT)) for path in FILES if path.stat().st_size > MOST_BYTES]
    programs = [str(path.relative_to(PROJECT)) for path in FILES if path.read_bytes()[:4] == b"\x7fELF"]
    assert (large, programs) == ([], [])


def test_every_text_ends_its_lines_as_linux_does() -> None:
    odd = []
    for path in FILES:
        text = text_of(path)
        if text and ("\r\n" in text or not text.endswith("\n")):
            odd.append(str(path.relative_to(PROJECT)))
    assert not odd, f"carriage returns or no newline at the end: {odd}"
