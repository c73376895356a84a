from __future__ import annotations

import inspect
import re

import pytest

from labkit import errors


def drawn_tree() -> dict[str, str]:
    """Return child -> parent as the docstring of `labkit.errors` draws them."""
    parents: dict[str, str] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"    ((?:\|   |    )*)(\|-- |`-- )?([A-Z]\w+)  ", line)
        if match is None:
            continue
        depth = len(match.group(1)) // 4 + bool(match.group(2))
        path[depth:] = [match.group(3)]
        if depth:
            parents[match.group(3)] = path[depth - 1]
    return parents


def test_the_tree_that_is_drawn_is_the_tree_that_there_is() -> None:
    real = {
        name: next(base.__name__ for base in kind.__mro__[1:] if base.__module__ == errors.__name__)
        for name, kind in inspect.getmembers(errors, inspect.isclass)
        if kind.__module__ == errors.__name__ and kind is not errors.LabkitError
    }
    assert drawn_tree() == real
    assert real, "the docstring draws no tree"


def test_every_error_of_the_module_is_public() -> None:
    defined = {name for name, kind in inspect.getmembers(errors, inspect.isclass) if kind.__module__ == errors.__name__}
    assert set(errors.__all__) == defined


def test_the_remedy_is_part_of_the_message_and_stands_by_itself() -> None:
    error = errors.FeatureMissing("There is no user namespace.", remedy="Set user.max_user_namespaces.")
    assert str(error) == "There is no user namespace. Set user.max_user_namespaces."
    assert error.remedy == "Set user.max_user_namespaces."
    assert str(errors.FeatureMissing("There is none.")) == "There is none."


def test_a_refused_step_keeps_its_name_and_the_kernels_answer() -> None:
    error = errors.SetupError("labkit could not mount /proc.", step="mount /proc", errno=1)
    assert (error.step, error.errno, str(error)) == ("mount /proc", 1, "labkit could not mount /proc.")


@pytest.mark.parametrize(
    ("kind", "standard"), [(errors.InvalidSpec, ValueError), (errors.DeadlineExceeded, TimeoutError)]
)
def test_errors_can_be_caught_as_what_python_calls_them(kind: type[Exception], standard: type[Exception]) -> None:
    with pytest.raises(standard, match="said"):
        raise kind("said")


@pytest.mark.parametrize("error", [
    errors.FeatureMissing("a", remedy="b"), errors.SetupError("a", step="b", errno=1), errors.InvalidSpec("a"),
])  # fmt: skip
def test_an_error_survives_the_way_between_processes(error: errors.LabkitError) -> None:
    import pickle

    twin = pickle.loads(pickle.dumps(error))
    assert type(twin) is type(error)
    assert str(twin) == str(error)
    assert vars(twin) == vars(error)
