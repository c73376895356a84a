"""What tests share: features of the machine, children in which a test may do what it must not do itself, leak checks.

::

    from tests.support import in_child, requires

    @requires("userns", "program:lsns")
    def test_a_child_of_clone3_sees_itself_as_pid_1(): ...
"""

from __future__ import annotations

from tests.support.child import PROJECT, ChildFailed, in_child, run_python
from tests.support.features import FEATURES, Probe, has, probe, requires
from tests.support.turns import alone

__all__ = [
    "FEATURES",
    "PROJECT",
    "ChildFailed",
    "Probe",
    "alone",
    "has",
    "in_child",
    "probe",
    "requires",
    "run_python",
]
