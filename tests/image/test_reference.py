"""Names of images: Docker's defaults, and what can be no name."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.errors import InvalidSpec
from labkit.image.reference import Reference, is_repository, is_tag

DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "canonical", "familiar"),
    [
        ("busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
        ("me/app", "docker.io/me/app:latest", "me/app:latest"),
        ("docker.io/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("index.docker.io/me/app", "docker.io/me/app:latest", "me/app:latest"),
        ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
        ("localhost:5000/app", "localhost:5000/app:latest", "localhost:5000/app:latest"),
        ("127.0.0.1:5000/a/b/c:v1", "127.0.0.1:5000/a/b/c:v1", "127.0.0.1:5000/a/b/c:v1"),
        ("[::1]:5000/app", "[::1]:5000/app:latest", "[::1]:5000/app:latest"),
        ("Host/app", "Host/app:latest", "Host/app:latest"),
        (f"busybox@{DIGEST}", f"docker.io/library/busybox@{DIGEST}", f"busybox@{DIGEST}"),
        (f"a.b/c:t@{DIGEST}", f"a.b/c:t@{DIGEST}", f"a.b/c:t@{DIGEST}"),
        ("a__b/c-d.e_f", "docker.io/a__b/c-d.e_f:latest", "a__b/c-d.e_f:latest"),
    ],
)
def test_what_people_write_is_completed_as_docker_does(text: str, canonical: str, familiar: str) -> None:
    reference = Reference.parse(text)
    assert (reference.canonical, reference.familiar) == (canonical, familiar)


@pytest.mark.parametrize(
    "text",
    [
        "", ":tag", "Busybox", "library/Busybox", "a/B/c", "a//b", "/a", "a/", "a:", "a:b:c", "a b", "a:tag!", "-a",
        "a-", "a..b", "a___b", "a:" + "t" * 129, "a@sha256:12", "a@", "a@md5:" + "0" * 32, f"a@{DIGEST.upper()}",
        f"a@{DIGEST}@{DIGEST}", "0123456789abcdef" * 4, "a/" * 130 + "a", "http://a.b/c", "a.b:port/c", "../a", "a/../b",
        "a\n", "a\0", "ä", "[::1/a", "a.b:5000",
    ],
)  # fmt: skip
def test_what_cannot_be_a_name_is_refused_in_one_sentence(text: str) -> None:
    if text == "a.b:5000":
        assert Reference.parse(text).tag == "5000"  # a name and a tag: there is no slash
        return
    with pytest.raises(InvalidSpec) as caught:
        Reference.parse(text)
    assert "\n" not in str(caught.value).replace(repr(text), "")


def test_an_upper_case_repository_is_told_how_it_should_be_written() -> None:
    with pytest.raises(InvalidSpec, match="lower case, as in 'me/app'"):
        Reference.parse("me/App")


words = st.from_regex(r"[a-z0-9]{1,8}((\.|_|__|-{1,3})[a-z0-9]{1,8}){0,2}", fullmatch=True)
repositories = st.lists(words, min_size=1, max_size=4).map("/".join)
registries = st.sampled_from(["docker.io", "localhost", "localhost:5000", "a.example", "10.0.0.1:80", "[fe80::1]:443"])
tags = st.none() | st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True)
digests = st.none() | st.text("0123456789abcdef", min_size=64, max_size=64).map("sha256:".__add__)


@given(registries, repositories, tags, digests)
def test_every_form_of_a_reference_reads_back_as_the_same(
    registry: str, repository: str, tag: str | None, digest: str | None
) -> None:
    text = f"{registry}/{repository}" + (f":{tag}" if tag else "") + (f"@{digest}" if digest else "")
    reference = Reference.parse(text)
    assert Reference.parse(reference.canonical) == reference
    assert Reference.parse(reference.familiar) == reference
    assert is_repository(reference.repository)


@given(st.text(alphabet=string.printable + "äß\0", max_size=40))
def test_any_text_is_a_reference_or_refused_and_never_anything_else(text: str) -> None:
    try:
        reference = Reference.parse(text)
    except InvalidSpec:
        return
    assert Reference.parse(reference.canonical) == reference
    assert reference.tag is None or is_tag(reference.tag)
