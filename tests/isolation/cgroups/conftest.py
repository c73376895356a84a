"""A parent for the groups of one test, in each form that this machine offers, gone without a trace afterwards."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from labkit.isolation.cgroups import CgroupParent, Layout, read_layout

from .helpers import folders_named


@pytest.fixture(params=["as found", "without the v2 tree"])
def parent(request: pytest.FixtureRequest) -> Iterator[CgroupParent]:
    """A parent on this machine's layout; on a hybrid machine also one that sees only its v1 half."""
    layout = read_layout()
    if request.param == "without the v2 tree":
        if layout.version != "hybrid":
            pytest.skip("this machine is not hybrid: there are no two ways to see it")
        layout = Layout("v1", tuple(h for h in layout.hierarchies if h.version == 1))
    with CgroupParent(layout=layout) as made:
        yield made
    assert folders_named(made.name) == []
