"""Capability sets, compared with /proc/self/status and capsh."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.errors import InvalidSpec
from labkit.isolation.capabilities import DOCKER_DEFAULT, bounding_set, names_of, parse_capabilities
from labkit.linux.constants import NS, Capability
from tests.support import in_child, requires


@given(st.sets(st.sampled_from(list(Capability))))
def test_names_and_masks_are_two_ways_to_say_the_same(chosen: set[Capability]) -> None:
    mask = sum(1 << capability for capability in chosen)
    assert parse_capabilities(names_of(mask)) == mask


@pytest.mark.parametrize("name", ["CAP_KILL", "cap_kill", "KILL", "kill"])
def test_a_name_is_understood_in_each_of_its_spellings(name: str) -> None:
    assert parse_capabilities([name]) == 1 << 5


def test_docker_s_default_is_the_mask_that_its_containers_show() -> None:
    assert parse_capabilities(DOCKER_DEFAULT) == 0xA80425FB


def test_an_unknown_capability_is_named() -> None:
    with pytest.raises(InvalidSpec, match="CAP_FLY"):
        parse_capabilities(["CAP_FLY"])


@requires("program:capsh")
def test_names_agree_with_capsh() -> None:
    printed = subprocess.run(["capsh", "--decode=00000000a80425fb"], capture_output=True, text=True, check=True).stdout
    assert set(printed.strip().split("=")[1].split(",")) == {name.lower() for name in DOCKER_DEFAULT}


def test_the_bounding_set_is_the_one_in_proc() -> None:
    with open("/proc/self/status") as file:
        shown = next(line.split()[1] for line in file if line.startswith("CapBnd:"))
    assert bounding_set() == int(shown, 16)


@requires("userns")
def test_dropped_capabilities_are_gone_for_good() -> None:
    def body() -> dict[str, str]:
        from labkit.isolation.capabilities import last_capability, limit_bounding_set, set_capabilities
        from labkit.linux.steps import perform

        perform([*limit_bounding_set(0b100000, last=last_capability()), *set_capabilities(0b100000)])
        with open("/proc/self/status") as file:
            return dict(line.split() for line in file if line.startswith("Cap"))

    sets = in_child(body, namespaces=NS.USER)
    assert {name: int(text, 16) for name, text in sets.items()} == {
        "CapInh:": 0, "CapPrm:": 32, "CapEff:": 32, "CapBnd:": 32, "CapAmb:": 0,
    }  # fmt: skip
