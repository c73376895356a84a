"""Variables are replaced as a shell would (which is the witness), and what is wrong is said with its place."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from labkit.compose.interpolate import interpolate, interpolate_tree, read_env_file
from labkit.errors import InvalidSpec

VARIABLES = {"SET": "value", "EMPTY": "", "OTHER": "o"}


@pytest.mark.parametrize(
    "text",
    ["$SET", "${SET}", "${NONE:-d}", "${EMPTY:-d}", "${EMPTY-d}", "${NONE-d}", "${SET:+p}", "${EMPTY:+p}", "${EMPTY+p}", "${NONE+p}",
     "a${SET}b$OTHER", "${NONE:-${OTHER}x}", "${SET:?m}", "${NONE}", "${SET:-d}", "${SET-d}"],
)  # fmt: skip
def test_a_variable_becomes_what_a_shell_makes_of_it(text: str) -> None:
    by_shell = subprocess.run(
        ["sh", "-c", f'printf %s "{text}"'], env=VARIABLES, capture_output=True, text=True, check=True
    )
    assert interpolate(text, VARIABLES) == by_shell.stdout


def test_two_dollar_signs_are_one() -> None:
    assert interpolate("cost: $$5 ${SET}", VARIABLES) == "cost: $5 value"


@pytest.mark.parametrize("text", ["${NONE:?give one}", "${NONE?give one}", "${EMPTY:?give one}"])
def test_a_demand_that_is_not_met_names_variable_and_place(text: str) -> None:
    with pytest.raises(InvalidSpec, match=r"services\.web\.image: the variable (NONE|EMPTY) is required: give one"):
        interpolate_tree({"services": {"web": {"image": text}}}, VARIABLES)


@pytest.mark.parametrize("text", ["100$", "$ x", "${}", "${SET!x}"])
def test_what_is_no_variable_is_refused(text: str) -> None:
    with pytest.raises(InvalidSpec):
        interpolate(text, VARIABLES, where="services.web")


def test_an_env_file_is_read_line_by_line(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("# comment\nA=1\nexport B = two words # why\nC='single # kept'\nD=\"line\\nend\"\nE=\n\n")
    assert read_env_file(file) == {"A": "1", "B": "two words", "C": "single # kept", "D": "line\nend", "E": ""}


def test_a_wrong_line_and_a_missing_file_are_named(tmp_path: Path) -> None:
    file = tmp_path / "x.env"
    file.write_text("A=1\nno equals sign\n")
    with pytest.raises(InvalidSpec, match="line 2"):
        read_env_file(file)
    with pytest.raises(InvalidSpec, match="There is no file"):
        read_env_file(tmp_path / "none")
    assert read_env_file(tmp_path / "none", required=False) == {}
