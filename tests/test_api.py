"""The names that a reader types: they are where the package says they are, and nothing is promised that is not there."""

from __future__ import annotations

import importlib
import inspect

import pytest

import labkit
import labkit.container
from tests.support import PROJECT
from tests.test_layers import MODULES

PACKAGES = [name for name, path in MODULES.items() if path.name == "__init__.py"]
LAZY = [name for name in PACKAGES if hasattr(importlib.import_module(name), "_HOME_OF")]


def public(package: str) -> dict[str, object]:
    """Return what the package promises, loaded."""
    module = importlib.import_module(package)
    return {name: getattr(module, name) for name in getattr(module, "__all__", ())}


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_of_a_package_can_be_had_and_is_offered_by_tab(package: str) -> None:
    offered = dir(importlib.import_module(package))
    assert sorted(set(public(package)) - set(offered)) == []


@pytest.mark.parametrize("package", LAZY)
def test_what_is_loaded_late_is_listed_once(package: str) -> None:
    module = importlib.import_module(package)
    assert set(module._HOME_OF) == set(module.__all__) - {"__version__"}
    for name, home in module._HOME_OF.items():
        assert getattr(module, name) is getattr(importlib.import_module(home), name)


@pytest.mark.parametrize("package", LAZY)
def test_a_name_that_is_not_there_is_an_AttributeError_that_names_it(package: str) -> None:
    with pytest.raises(AttributeError, match=f"{package}.* 'Contaner'"):
        importlib.import_module(package).Contaner  # noqa: B018


def test_the_names_of_a_lesson_come_from_the_top() -> None:
    from labkit import NS, Cgroup, Container, GiB, KiB, LabkitError, Limits, MiB, Namespaced

    assert (KiB, MiB, GiB) == (1024, 1024**2, 1024**3)
    assert NS.PID | NS.UTS
    assert issubclass(LabkitError, Exception)
    assert all(inspect.isclass(kind) for kind in (Cgroup, Container, Limits, Namespaced))
    assert labkit.Container is labkit.container.Container


def test_a_public_class_or_function_explains_itself() -> None:
    silent = [
        f"{package}.{name}"
        for package in PACKAGES
        for name, value in public(package).items()
        if (inspect.isclass(value) or inspect.isroutine(value)) and not inspect.getdoc(value)
    ]
    assert silent == []


def test_the_package_is_typed_and_says_its_version() -> None:
    assert (PROJECT / "labkit/py.typed").exists()
    assert labkit.__version__.count(".") == 2
