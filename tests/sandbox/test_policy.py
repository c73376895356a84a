"""The policy: defaults, files, ranges, and what a wrong value says before anything starts."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from labkit.errors import InvalidSpec
from labkit.sandbox.policy import KEYS, Policy, as_text, load, parse
from tests.sandbox.driver import Driver
from tests.support import PROJECT, requires

WRONG = {
    "size": ['"lots"', '"1 B"', "-1", "true", '"9999999 TiB"', '"1 GB"', "[]"],
    "count": ["0.5", '"many"', "-1", "true", "999999999999"],
    "number": ['"two"', "0", "-1", "true", "1e9", "nan", "inf"],
    "switch": ["1", '"yes"'],
    "choice": ['"something else"', "1", "true", "[]"],
    "folder": ['"relative"', '"/up/../out"', "1"],
    "folders": ['"/usr"', '["relative"]', "[1]"],
}
CASES = [(key, wrong) for key in KEYS for wrong in WRONG[key.kind]]


@pytest.mark.parametrize(("key", "wrong"), CASES, ids=[f"{key.title}={wrong}" for key, wrong in CASES])
def test_a_wrong_value_is_one_sentence_with_the_key_and_what_it_may_be(key, wrong) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InvalidSpec) as caught:
        parse(f"[{key.section}]\n{key.name} = {wrong}\n", source="here.toml")
    words = str(caught.value)
    assert words.startswith("here.toml: ") and words.endswith(".") and "\n" not in words
    assert key.title in words
    assert key.range in words


def test_the_ends_of_a_range_are_allowed_and_what_lies_beyond_is_not() -> None:
    for key in (key for key in KEYS if key.kind in ("size", "count")):
        for value in (int(key.least), int(key.most)):
            if key.field != "home_bytes" or value <= Policy().memory_bytes:
                assert getattr(parse(f"[{key.section}]\n{key.name} = {value}"), key.field) == value
        for value in (int(key.least) - 1, int(key.most) + 1):
            with pytest.raises(InvalidSpec, match=re.escape(key.title)):
                parse(f"[{key.section}]\n{key.name} = {value}")


def test_an_unknown_key_or_section_names_those_that_there_are() -> None:
    for text in ("[limits]\nmemroy = 1", "[limit]\nmemory = 1", "memory = 1"):
        with pytest.raises(InvalidSpec, match=r"limits\.memory|outside of a section"):
            parse(text)


def test_no_toml_is_an_error_with_the_line() -> None:
    with pytest.raises(InvalidSpec, match=r"no TOML.*line 2"):
        parse("[limits]\nmemory == 1")


def test_a_home_larger_than_memory_is_refused_and_the_default_one_follows_it() -> None:
    assert parse('[limits]\nmemory = "200 MiB"').home_bytes == 200 << 20
    with pytest.raises(InvalidSpec, match=r"disk\.home is 2 GiB.*at most that"):
        parse('[disk]\nhome = "2 GiB"')


def test_the_printed_policy_is_toml_that_gives_the_same_policy() -> None:
    policy = parse(
        '[limits]\nmemory = "300 MiB"\ncpus = 0.5\n[mounts]\nfolders = ["/opt"]\n[nesting]\nno_new_privs = false',
        source="x",
    )
    assert tomllib.loads(as_text(policy))["limits"]["memory"] == "300 MiB"
    assert parse(as_text(policy), source="x") == policy
    assert parse(as_text(Policy()), source="defaults") == Policy()


def test_the_first_file_that_exists_counts(tmp_path: Path) -> None:
    config = tmp_path / "config/labkit"
    config.mkdir(parents=True)
    (config / "sandbox.toml").write_text("[limits]\npids = 100")
    (tmp_path / "other.toml").write_text("[limits]\npids = 200")
    environ = {"XDG_CONFIG_HOME": str(tmp_path / "config")}
    assert load(environ).pids == 100
    assert load(environ | {"LABKIT_SANDBOX_POLICY": str(tmp_path / "other.toml")}).pids == 200
    with pytest.raises(InvalidSpec, match="does not exist"):
        load(environ | {"LABKIT_SANDBOX_POLICY": str(tmp_path / "none.toml")})


def test_python_m_prints_the_policy_in_force(tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text("[limits]\npids = 77")
    done = subprocess.run(
        [sys.executable, "-m", "labkit.sandbox.policy"], cwd=PROJECT, capture_output=True, text=True, check=True,
        env={"LABKIT_SANDBOX_POLICY": str(tmp_path / "p.toml"), "HOME": str(tmp_path)},
    )  # fmt: skip
    assert tomllib.loads(done.stdout)["limits"]["pids"] == 77
    assert "p.toml" in done.stdout.splitlines()[0]


@requires("userns", "overlay-userns")
def test_with_a_wrong_policy_nothing_starts(start: Callable[..., Driver], tmp_path: Path) -> None:
    driver = start('[limits]\nmemory = "1 MiB"\n')
    assert driver.started["kind"] == "InvalidSpec"
    assert "limits.memory is '1 MiB', but must be a size from \"192 MiB\"" in driver.started["error"]
    assert not list((tmp_path / "runtime").glob("kernel-*"))
