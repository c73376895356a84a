from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.errors import InvalidSpec
from labkit.measure.record import Result


@dataclass(frozen=True, slots=True)
class Inner(Result):
    name: str
    share: float | None


@dataclass(frozen=True, slots=True)
class Outer(Result):
    count: int
    samples_ms: tuple[float, ...]
    pair: tuple[str, int]
    inner: tuple[Inner, ...]
    maybe: Inner | None = None
    note: str = ""


numbers = st.floats(allow_nan=False, allow_infinity=False)
inners = st.builds(Inner, st.text(), st.none() | numbers)
outers = st.builds(
    Outer, st.integers(), st.lists(numbers).map(tuple), st.tuples(st.text(), st.integers()),
    st.lists(inners).map(tuple), st.none() | inners, st.text(),
)  # fmt: skip


@given(outers)
def test_a_result_comes_back_from_json_text_as_it_was(result: Outer) -> None:
    assert Outer.from_json(json.loads(json.dumps(result.to_json()))) == result


def test_an_unknown_key_is_ignored_and_a_missing_one_gets_its_default() -> None:
    data = {"count": 1, "samples_ms": [], "pair": ["a", 2], "inner": [], "from_the_future": True}
    assert Outer.from_json(data) == Outer(1, (), ("a", 2), ())


@pytest.mark.parametrize(
    "data",
    [{}, {"count": 1}, {"count": 1, "samples_ms": 5, "pair": ["a", 1], "inner": []},
     {"count": 1, "samples_ms": [], "pair": ["a"], "inner": []},
     {"count": 1, "samples_ms": ["x"], "pair": ["a", 1], "inner": []},
     {"count": 1, "samples_ms": [], "pair": ["a", 1], "inner": ["no object"]}],
)  # fmt: skip
def test_what_is_no_such_result_is_refused_in_one_sentence(data: dict[str, object]) -> None:
    with pytest.raises(InvalidSpec, match=r"This is no (Outer|Inner) that labkit has kept: "):
        Outer.from_json(data)
