from __future__ import annotations

import math
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.errors import InvalidSpec
from labkit.units import (
    GiB,
    KiB,
    MiB,
    TiB,
    format_bytes,
    parse_bytes,
    parse_count,
    parse_cpus,
    parse_seconds,
)
from tests.support import requires

UNITS = {"": 1, "b": 1, "K": KiB, "m": MiB, "Gi" + "B": GiB, "tib": TiB}


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("64M", 67_108_864),
        ("64m", 67_108_864),
        ("64MiB", 67_108_864),
        (" 64 MiB ", 67_108_864),
        ("1.5G", 1_610_612_736),
        (".5K", 512),
        ("0", 0),
        ("17", 17),
        ("17B", 17),
        (17, 17),
    ],
)
def test_a_size_is_read_in_powers_of_1024(text: str | int, size_bytes: int) -> None:
    assert parse_bytes(text) == size_bytes


@requires("program:numfmt")
@pytest.mark.parametrize("text", ["1K", "64M", "1.5G", "2T"])
def test_sizes_agree_with_numfmt(text: str) -> None:
    done = subprocess.run(["numfmt", "--from=iec", text], capture_output=True, text=True, check=True)
    assert parse_bytes(text) == int(done.stdout)


@given(st.integers(0, 2**40), st.sampled_from(sorted(UNITS)))
def test_a_whole_number_of_any_unit_is_exact(number: int, unit: str) -> None:
    size_bytes = number * UNITS[unit]
    if size_bytes < 2**63:
        assert parse_bytes(f"{number}{unit}") == size_bytes
    else:
        with pytest.raises(InvalidSpec, match="too large"):
            parse_bytes(f"{number}{unit}")


@given(st.integers(0, 2**62))
def test_what_is_shown_can_be_read_back_to_half_a_hundredth(size_bytes: int) -> None:
    shown = format_bytes(size_bytes)
    unit_bytes = parse_bytes("1" + shown.split()[1])
    assert abs(parse_bytes(shown) - size_bytes) <= max(unit_bytes * 0.00501, size_bytes * 2**-50)


@given(st.integers(0, 2**50))
def test_no_size_is_shown_as_1024_of_a_unit_that_has_a_larger_one(size_bytes: int) -> None:
    number, unit = format_bytes(size_bytes).split()
    assert float(number) < 1024 or unit == "TiB"
    assert float(number) >= 1 or unit == "B"


@pytest.mark.parametrize(
    ("size_bytes", "shown"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (64 * MiB, "64 MiB"),
        (GiB + GiB // 2, "1.5 GiB"),
        (MiB - 1, "1 MiB"),
        (MiB - KiB // 2, "1023.5 KiB"),
        (-MiB, "-1 MiB"),
    ],
)
def test_a_size_is_shown_in_the_largest_unit_that_fits(size_bytes: int, shown: str) -> None:
    assert format_bytes(size_bytes) == shown


@pytest.mark.parametrize(
    "text", ["64Q", "64MB", "1kb", "-5", "-5M", "", "M", "1..5M", "1_000", "1e3", "٣M", "6 4M", "0x10"]
)
def test_what_is_no_size_is_refused_with_a_sentence_that_shows_it(text: str) -> None:
    with pytest.raises(InvalidSpec, match=r"\.\Z") as raised:
        parse_bytes(text)
    assert repr(text) in str(raised.value)


@pytest.mark.parametrize("number", [-1, 2**63, True])
def test_a_number_that_no_limit_can_hold_is_refused(number: int) -> None:
    with pytest.raises(InvalidSpec):
        parse_bytes(number)


def test_the_ambiguous_megabyte_names_both_readings() -> None:
    with pytest.raises(InvalidSpec, match=r"1000 or of 1024: write 64M for 1024"):
        parse_bytes("64MB")


@given(st.text())
def test_any_text_is_read_or_refused_and_nothing_else(text: str) -> None:
    for parse in (parse_bytes, parse_cpus, parse_seconds, lambda text: parse_count(text, what="processes")):
        try:
            result = parse(text)
        except InvalidSpec:
            continue
        assert result >= 0


def test_thousands_of_digits_are_refused_and_not_a_ValueError_of_int() -> None:
    for parse in (parse_bytes, parse_cpus, parse_seconds):
        with pytest.raises(InvalidSpec):
            parse("9" * 5000)
    with pytest.raises(InvalidSpec):
        parse_count("9" * 5000, what="processes")


@pytest.mark.parametrize(("text", "cpus"), [(".5", 0.5), ("2", 2.0), (0.25, 0.25), ("1.5", 1.5), (" 1 ", 1.0)])
def test_cpus_may_be_a_fraction(text: str | float, cpus: float) -> None:
    assert parse_cpus(text) == cpus


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "1_0", "two", "", math.inf, math.nan, 0, True])
def test_no_cpu_at_all_is_refused(text: str | float) -> None:
    with pytest.raises(InvalidSpec):
        parse_cpus(text)


@pytest.mark.parametrize("text", ["0", "-3", "2.5", "1e3", "many", "", 0, -1, True])
def test_a_count_is_a_whole_number_above_zero(text: str | int) -> None:
    with pytest.raises(InvalidSpec, match="processes"):
        parse_count(text, what="processes")


@given(st.integers(1, 2**50))
def test_a_count_is_read_exactly(number: int) -> None:
    assert parse_count(str(number), what="processes") == parse_count(number, what="processes") == number


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2", 2),
        ("250ms", 0.25),
        ("1.5m", 90),
        ("1.5min", 90),
        ("1h", 3600),
        ("10us", 1e-5),
        (0.1, 0.1),
        (3, 3),
        ("0", 0),
    ],
)
def test_a_duration_is_read_in_seconds(text: str | float, seconds: float) -> None:
    assert parse_seconds(text) == pytest.approx(seconds)


@given(st.floats(0, 1e9))
def test_a_float_is_taken_as_seconds_whatever_its_size(number: float) -> None:
    assert parse_seconds(number) == number


@pytest.mark.parametrize("text", ["-1", "1d", "soon", "", "1 2s", math.inf, math.nan, -0.5, True])
def test_what_is_no_duration_is_refused(text: str | float) -> None:
    with pytest.raises(InvalidSpec, match="is no duration"):
        parse_seconds(text)
