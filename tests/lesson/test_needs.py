"""What a machine refuses becomes a sentence, goes through ``and``, and never says ``pass``."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from labkit.doctor import FEATURES, Feature, Report
from labkit.errors import InvalidSpec
from labkit.lesson import Need, Step, check, exercise, needs
from tests.support import PROJECT


def made_report(*refused: str) -> Report:
    """Return a report in which everything works but ``refused``."""
    rows = [
        Feature(name, group, "no", "", "the cgroup is not delegated to this user", "Run as root")
        if name in refused
        else Feature(name, group, "yes", "", "", "")
        for name, group in FEATURES.items()
    ]
    return Report(tuple(rows), {"Linux": "6.1"}, 0.1)


waits: list[float | None] = []


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Report]:
    """Let the doctor give these reports, one after another; the list is what is left."""
    import sys

    reports: list[Report] = []
    waits.clear()
    module = sys.modules["labkit.lesson.needs"]
    monkeypatch.setattr(module, "_report", None)

    def examine(timeout_s: float | None = None) -> Report:
        waits.append(timeout_s)
        return reports.pop(0)

    monkeypatch.setattr(module, "examine", examine)
    return reports


def test_what_is_there_is_true_and_asked_for_once(asked: list[Report]) -> None:
    asked.append(made_report())
    need = needs("cgroup memory")
    assert need and needs("cgroup pids", "overlay")
    assert repr(need) == "This machine has what comes now: cgroup memory."


def test_what_is_refused_is_false_and_names_rule_and_remedy(asked: list[Report]) -> None:
    asked += [made_report("cgroup memory"), made_report("cgroup memory")]
    need = needs("cgroup cpu", "cgroup memory")
    assert not need
    assert repr(need) == (
        "Not on this machine: cgroup memory. The rule: the cgroup is not delegated to this user."
        " What would change it: Run as root."
    )
    page = need._repr_mimebundle_()["text/html"]
    assert "not delegated" in page and "The cells below go on" in page


def test_a_rule_that_refuses_several_features_is_said_once(asked: list[Report]) -> None:
    asked += [made_report("cgroup cpu", "cgroup memory")] * 2
    text = repr(needs("cgroup cpu", "overlay", "cgroup memory"))
    assert text.startswith("Not on this machine: cgroup cpu, cgroup memory. The rule: ")
    assert text.count("not delegated") == text.count("Run as root.") == 1


def test_a_refusal_is_asked_for_twice_because_a_busy_machine_misses_deadlines(asked: list[Report]) -> None:
    asked += [made_report("cgroup memory"), made_report()]
    assert needs("cgroup memory")
    assert asked == [] and waits[0] is None and (waits[1] or 0) > 10


def test_limited_counts_as_there() -> None:
    answers = made_report()
    rows = tuple(replace(row, state="limited") for row in answers.features)
    assert Need(("cgroup io",), answers=replace(answers, features=rows))


@pytest.mark.parametrize("wrong", [(), ("cgroup:memory",), ("cgroup memory", "moon")])
def test_a_feature_that_the_doctor_does_not_know_is_an_error_of_the_author(wrong: tuple[str, ...]) -> None:
    with pytest.raises(InvalidSpec, match="knows no feature"):
        needs(*wrong)


def test_a_check_of_something_refused_does_not_say_pass(capsys: pytest.CaptureFixture[str]) -> None:
    need = Need(("overlay",), answers=made_report("overlay"))
    seen = need and [1][5]  # would raise: the right side is not looked at
    check("layers are stacked", need and seen, got=seen)
    assert capsys.readouterr().out == "not shown here: layers are stacked\n"


def test_a_solution_is_not_tried_where_the_machine_refuses(capsys: pytest.CaptureFixture[str]) -> None:
    task = exercise("Do it", steps=[Step("it is done", look=bool)])
    task.prove(lambda: 1 / 0, here=Need(("overlay",), answers=made_report("overlay")))
    assert capsys.readouterr().out == "not shown here: the solution does what the exercise asks for\n"
    task.prove(lambda: 1, here=Need(("overlay",), answers=made_report()))
    assert capsys.readouterr().out == "pass: the solution does what the exercise asks for\n"


#: What the sandbox around every notebook refuses, on any machine: it has no devices, no disk of
#: its own whose use could be limited, and runc wants cgroups at the top of each hierarchy.
REFUSED_BY_THE_SANDBOX = (
    "not shown here: the container is faster than runc's\n",
    "not shown here: a machine of a few bytes multiplies\n",
    "not shown here: with 1 MiB a second, 2 MiB take more than a second\n",
)


def test_notebooks_are_handed_out_from_a_machine_that_refuses_nothing() -> None:
    for path in (PROJECT / "notebooks").glob("[0-9][0-9]_*.ipynb"):
        cells = json.loads(path.read_text())["cells"]
        lines = [line for cell in cells for output in cell.get("outputs", ()) for line in output.get("text", ())]
        refused = [line for line in lines if line.startswith("not shown here:") and line not in REFUSED_BY_THE_SANDBOX]
        assert refused == [], f"build {path.stem} on a machine that can show all of it"
