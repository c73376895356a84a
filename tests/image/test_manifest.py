"""Manifests, indexes and configurations: kept to the byte, and refused when they lie."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.errors import ImageError
from labkit.image import media_types as mt
from labkit.image.config import ImageConfig, RunConfig, chain_ids
from labkit.image.descriptor import Descriptor, Platform, digest_of
from labkit.image.manifest import Index, Manifest, choose_platform, parse_manifest

A, B = (f"sha256:{hashlib.sha256(word).hexdigest()}" for word in (b"a", b"b"))
CONFIG = {"mediaType": mt.OCI_CONFIG, "digest": A, "size": 2}
LAYER = {"mediaType": mt.OCI_LAYER_GZIP, "digest": B, "size": 3}
GOOD = {"schemaVersion": 2, "mediaType": mt.OCI_MANIFEST, "config": CONFIG, "layers": [LAYER]}
INDEX = {"schemaVersion": 2, "manifests": [{"mediaType": mt.OCI_MANIFEST, "digest": A, "size": 2}]}


def changed(document: dict[str, Any], **fields: Any) -> bytes:
    return json.dumps({key: value for key, value in (document | fields).items() if value != "gone"}).encode()


def test_the_bytes_of_a_manifest_are_kept_whatever_their_spelling() -> None:
    data = json.dumps(GOOD, indent=3).encode() + b"\n"
    manifest = Manifest.from_bytes(data)
    assert manifest.to_bytes() == data
    assert manifest.descriptor.digest == "sha256:" + hashlib.sha256(data).hexdigest()
    assert replace(manifest, annotations={"a": "b"}).to_bytes() != data


def test_a_new_manifest_is_canonical_and_reads_back_as_the_same() -> None:
    manifest = Manifest.from_bytes(changed(GOOD, annotations={"ä": "ö"}, labkitUnknown=[1]))
    fresh = replace(manifest, raw=b"")
    assert json.loads(fresh.to_bytes()) == json.loads(manifest.to_bytes())
    assert Manifest.from_bytes(fresh.to_bytes()) == manifest
    assert b" " not in fresh.to_bytes()


def test_docker_s_media_types_are_read() -> None:
    data = changed(
        GOOD, mediaType=mt.DOCKER_MANIFEST, config=CONFIG | {"mediaType": mt.DOCKER_CONFIG},
        layers=[LAYER | {"mediaType": mt.DOCKER_LAYER_GZIP}],
    )  # fmt: skip
    assert Manifest.from_bytes(data, mt.DOCKER_MANIFEST).layers[0].media_type == mt.DOCKER_LAYER_GZIP
    listed = changed(INDEX, mediaType=mt.DOCKER_INDEX)
    assert isinstance(parse_manifest(listed, mt.DOCKER_INDEX), Index)


BAD: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", ""),
    "no JSON": (b"<html>", ""),
    "cut": (changed(GOOD)[:-10], ""),
    "no object": (b"[]", "no object"),
    "a number": (b"2", "no object"),
    "not UTF-8": (b'{"a": "\xff"}', ""),
    "nested a thousand deep": (b'{"a":' * 100_000, "nested"),
    "five megabytes": (b'{"a":"' + b"x" * (5 << 20) + b'"}', "not read"),
    "a key twice": (changed(GOOD)[:-1] + b', "config": {}}', "twice"),
    "NaN": (b'{"schemaVersion": NaN}', ""),
    "something after the end": (changed(GOOD) + b"{}", ""),
    "no version": (changed(GOOD, schemaVersion="gone"), "schemaVersion"),
    "version 1": (changed(GOOD, schemaVersion=1), "schema 1"),
    "version as a text": (changed(GOOD, schemaVersion="2"), "schemaVersion"),
    "version true": (changed(GOOD, schemaVersion=True), "schemaVersion"),
    "manifest and index at once": (changed(GOOD, manifests=INDEX["manifests"]), "neither"),
    "an index with a configuration": (changed(INDEX, config=CONFIG), "neither"),
    "an index with layers": (changed(INDEX, layers=[]), "neither"),
    "another type than its content": (changed(GOOD, mediaType=mt.OCI_INDEX), "content is not"),
    "an unknown type": (changed(GOOD, mediaType="text/html"), "content is not"),
    "docker's signed schema 1": (changed(GOOD, mediaType="application/vnd.docker.distribution.manifest.v1+prettyjws"), ""),
    "no configuration": (changed(GOOD, config="gone"), "size"),
    "configuration without digest": (changed(GOOD, config={"mediaType": mt.OCI_CONFIG, "size": 2}), "digest"),
    "configuration without size": (changed(GOOD, config={"mediaType": mt.OCI_CONFIG, "digest": A}), "size"),
    "configuration as a list": (changed(GOOD, config=[CONFIG]), "an object"),
    "negative size": (changed(GOOD, config=CONFIG | {"size": -1}), "size -1"),
    "huge size": (changed(GOOD, config=CONFIG | {"size": 2**63}), "size"),
    "size as a fraction": (changed(GOOD, config=CONFIG | {"size": 2.5}), "a fraction"),
    "size as a text": (changed(GOOD, config=CONFIG | {"size": "2"}), "a string"),
    "size true": (changed(GOOD, config=CONFIG | {"size": True}), "true or false"),
    "short digest": (changed(GOOD, config=CONFIG | {"digest": "sha256:12"}), "digest"),
    "upper-case digest": (changed(GOOD, config=CONFIG | {"digest": A.upper()}), "digest"),
    "unknown algorithm": (changed(GOOD, config=CONFIG | {"digest": "md5:" + "0" * 32}), "digest"),
    "digest that is a path": (changed(GOOD, config=CONFIG | {"digest": "sha256:../../../etc/passwd"}), "digest"),
    "layers as an object": (changed(GOOD, layers=LAYER), "a list"),
    "a layer that is a text": (changed(GOOD, layers=[B]), "objects"),
    "a layer without type": (changed(GOOD, layers=[{"digest": B, "size": 1}]), "media type"),
    "a layer with a type of two lines": (changed(GOOD, layers=[LAYER | {"mediaType": "a/b\nc"}]), "media type"),
    "annotations with numbers": (changed(GOOD, annotations={"a": 1}), "strings"),
    "data that are no base64": (changed(GOOD, config=CONFIG | {"data": "%"}), "base64"),
    "a subject without digest": (changed(GOOD, subject={"mediaType": "a/b", "size": 1}), "digest"),
    "an entry of an index without size": (changed(INDEX, manifests=[{"mediaType": "a/b", "digest": A}]), "size"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_manifest_is_refused_and_the_fault_is_named(name: str) -> None:
    data, said = BAD[name]
    with pytest.raises(ImageError) as caught:
        parse_manifest(data)
    assert said in str(caught.value)
    assert len(str(caught.value)) < 600


def test_a_manifest_announced_as_something_else_is_refused() -> None:
    with pytest.raises(ImageError, match="announced as"):
        parse_manifest(changed(GOOD), mt.DOCKER_MANIFEST)
    with pytest.raises(ImageError, match="not an index"):
        Index.from_bytes(changed(GOOD))
    with pytest.raises(ImageError, match="not one image"):
        Manifest.from_bytes(changed(INDEX))


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_a_manifest_or_refused_and_never_anything_else(data: bytes) -> None:
    try:
        parse_manifest(data)
    except ImageError:
        pass


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(sorted(GOOD)), json_values)
def test_any_value_in_any_field_is_taken_or_refused(field: str, value: Any) -> None:
    data = json.dumps(GOOD | {field: value}).encode()
    try:
        assert parse_manifest(data).to_bytes() == data
    except ImageError:
        pass


def platforms(*names: str) -> Index:
    found = (Platform(*reversed(name.split("/")[:2]), *name.split("/")[2:]) for name in names)
    return Index(tuple(Descriptor(mt.OCI_MANIFEST, A, n, platform=platform) for n, platform in enumerate(found)))


def test_the_image_of_this_platform_is_chosen_from_an_index() -> None:
    index = platforms("linux/arm64", "linux/amd64", "windows/amd64")
    assert choose_platform(index, Platform("amd64")).size == 1
    with pytest.raises(ImageError, match=r"not there for linux/s390x, only for linux/amd64, linux/arm64"):
        choose_platform(index, Platform("s390x"))
    assert choose_platform(Index((Descriptor(mt.OCI_MANIFEST, A, 7),)), Platform("s390x")).size == 7


def test_a_configuration_is_kept_to_the_byte_and_changed_when_it_is() -> None:
    data = json.dumps({"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": [A]},
                       "config": {"Env": ["A=1=2"], "Cmd": [], "OnBuild": ["RUN x"]}, "variant": "v8", "x": 1}).encode()  # fmt: skip
    config = ImageConfig.from_bytes(data)
    assert config.to_bytes() == data
    assert config.config.environment == {"A": "1=2"}
    assert config.config.cmd == ()
    other = replace(config, config=replace(config.config, user="1000"))
    written = json.loads(other.to_bytes())
    assert written["config"] == {"Env": ["A=1=2"], "Cmd": [], "OnBuild": ["RUN x"], "User": "1000"}
    assert (written["x"], written["variant"]) == (1, "v8")


@pytest.mark.parametrize(
    "document",
    [
        {"rootfs": {"type": "layers", "diff_ids": ["x"]}},
        {"rootfs": {"type": "disks", "diff_ids": []}},
        {"rootfs": []},
        {"config": {"Env": "A=1"}},
        {"config": {"Cmd": [1]}},
        {"history": [{"empty_layer": "yes"}]},
        {"history": {}},
        {"config": {"Labels": {"a": []}}},
    ],
)
def test_a_bad_configuration_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(ImageError):
        ImageConfig.from_bytes(json.dumps(document).encode())


def test_chain_ids_are_those_of_the_specification() -> None:
    def sha(text: str) -> str:
        return "sha256:" + hashlib.sha256(text.encode()).hexdigest()

    first, second, third = (sha(word) for word in "abc")
    assert chain_ids([first, second, third]) == (
        first, sha(f"{first} {second}"), sha(f"{sha(f'{first} {second}')} {third}"),
    )  # fmt: skip
    assert chain_ids([]) == ()


def test_a_descriptor_checks_content() -> None:
    descriptor = Descriptor.of(b"content", "text/plain")
    assert descriptor.digest == "sha256:" + hashlib.sha256(b"content").hexdigest()
    assert descriptor.check(b"content") == b"content"
    for other in (b"contenT", b"conten", b"content "):
        with pytest.raises(ImageError):
            descriptor.check(other)
    assert digest_of(b"") == "sha256:" + hashlib.sha256().hexdigest()


def test_an_empty_entry_point_is_something_else_than_none() -> None:
    assert RunConfig(entrypoint=()).to_dict() == {"Entrypoint": []}
    assert RunConfig().to_dict() == {}
