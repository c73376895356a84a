"""A recording comes back as it was written, without the names of the machine; what is damaged or foreign is refused in a sentence."""

from __future__ import annotations

import importlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from labkit.errors import FeatureMissing, InvalidSpec
from labkit.measure import recordable
from labkit.measure.hostfacts import HostFacts, host_facts
from labkit.measure.record import Result
from labkit.measure.recordable import EXPERIMENTS, find_recording, lacking, recorded_or
from labkit.measure.recording import FOLDER, anonymous, read_recording, write_recording
from labkit.measure.scenes import Said, Tenants
from labkit.measure.startup import Race, Row
from labkit.setup.parts import find_busybox
from tests.support import requires

RACE = Race(host_facts(), (Row("process", (1.5, 2.0)), Row("docker", (), skipped="No daemon answers.")), 2, 1)
Change = Callable[[dict[str, Any]], object]


def changed(path: Path, change: Change) -> None:
    """Change a recording as somebody would who knows how the digest is made."""
    content = json.loads(path.read_text())
    change(content)
    from labkit.measure.recording import _digest

    content["sha256"] = _digest({key: value for key, value in content.items() if key != "sha256"})
    path.write_text(json.dumps(content))


def test_a_recording_comes_back_equal_with_the_machine_it_was_made_on(tmp_path: Path) -> None:
    path = write_recording(RACE, name="race", accelerator="KVM", folder=tmp_path)
    found = read_recording("race", Race, folder=tmp_path)
    assert found.result == RACE
    assert (found.name, found.accelerator) == ("race", "KVM")
    assert found.host.kernel == os.uname().release
    assert os.listdir(tmp_path) == [path.name], "nothing half done is left"
    sentence = str(found)
    assert sentence.startswith(f"Recording made on {found.host.date[:10]}, not this machine: Linux ")
    assert f"labkit {found.host.labkit}" in sentence and "guests under KVM" in sentence


def test_neither_the_host_nor_its_folders_are_named() -> None:
    text = f"on {socket.gethostname()} in {Path.cwd()}/a and {Path.home()}/b"
    told = anonymous({"text": [text], "count": 3})
    assert told["count"] == 3
    assert str(Path.cwd()) not in told["text"][0]
    if Path.home() != Path("/"):
        assert f"{Path.home()}/b" not in told["text"][0]
    if len(socket.gethostname()) > 3 and socket.gethostname() != "localhost":
        assert socket.gethostname() not in told["text"][0].split()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "damaged"),
        (b"\xff\xfe", "damaged"),
        (b"[1, 2", "damaged"),
        (b"[" * 200_000, "damaged|RecursionError|recursion"),
        (b'{"a": NaN}', "NaN is no number"),
        (b"{}", "this version did not write it"),
        (b'{"format": "somebody-else-1"}', "this version did not write it"),
        (b" " * (5 << 20), "larger than any recording"),
    ],
)  # fmt: skip
def test_a_file_that_is_none_is_refused_in_one_sentence(tmp_path: Path, content: bytes, why: str) -> None:
    (tmp_path / "race.json").write_bytes(content)
    with pytest.raises(InvalidSpec, match=why) as refused:
        read_recording("race", Race, folder=tmp_path)
    said = str(refused.value)
    assert said.endswith("`labkit record --only race`.") and said.count(". ") <= 1 and "\n" not in said


def test_one_changed_digit_is_noticed(tmp_path: Path) -> None:
    path = write_recording(RACE, name="race", accelerator="KVM", folder=tmp_path)
    path.write_text(path.read_text().replace("1.5", "0.5"))
    with pytest.raises(InvalidSpec, match="changed after it had been made"):
        read_recording("race", Race, folder=tmp_path)


def _set(*keys: Any) -> Change:
    def change(content: dict[str, Any]) -> None:
        *path, last, value = keys
        for key in path:
            content = content[key]
        content[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (_set("name", "density"), "another one"),
        (_set("more", 1), "has other parts"),
        (_set("accelerator", None), "accelerator is NoneType, not str"),
        (_set("host", "cpus", "many"), r"host.cpus is str, not int"),
        (_set("host", "cpus", True), r"host.cpus is bool, not int"),
        (lambda content: content["host"].pop("kernel"), "host is no HostFacts of this version .kernel."),
        (_set("result", "rows", "none"), "result.rows is no list"),
        (_set("result", "rows", 0, "samples_ms", [1, "2"]), r"samples_ms\[1\] is str, not float"),
        (_set("result", "rows", 0, "speed", 1), "is no Row of this version .speed."),
        (_set("result", {"first": 1, "second": 0}), "result is no Race of this version"),
    ],
)  # fmt: skip
def test_what_does_not_fit_the_schema_is_refused(tmp_path: Path, change: Change, why: str) -> None:
    path = write_recording(RACE, name="race", accelerator="KVM", folder=tmp_path)
    changed(path, change)
    with pytest.raises(InvalidSpec, match=why):
        read_recording("race", Race, folder=tmp_path)


@pytest.mark.parametrize("name", list(EXPERIMENTS))
def test_a_recording_of_each_experiment_ships_with_the_package(name: str) -> None:
    found = find_recording(name)
    assert isinstance(found.result, EXPERIMENTS[name].result_type)
    assert found.host.cpus > 0 and found.host.date.startswith("20")
    text = (FOLDER / f"{name}.json").read_text()
    assert not any(private in text for private in ("/home/", "/root", "/work", ".venv"))


def test_there_are_no_other_recordings() -> None:
    assert {path.stem for path in FOLDER.iterdir() if path.suffix == ".json"} == set(EXPERIMENTS)


def test_a_machine_that_can_measures_and_never_opens_a_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(recordable._TRIALS, "machine", lambda: None)  # type: ignore[index]
    monkeypatch.setattr(recordable, "read_recording", lambda *_, **__: pytest.fail("a recording was opened"))
    shown = recorded_or("tenants", lambda: Tenants(1, 0), folder=tmp_path)
    assert (shown.result, shown.recording, str(shown)) == (Tenants(1, 0), None, "")
    with pytest.raises(ZeroDivisionError):
        recorded_or("tenants", lambda: Tenants(1 // 0, 0), folder=tmp_path)


def _no_kernel(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))


def test_a_machine_without_a_guest_kernel_shows_the_marked_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _no_kernel(monkeypatch, tmp_path)
    shown = recorded_or("tenants", lambda: pytest.fail("it measured"))
    assert shown.recording is not None and shown.result == find_recording("tenants").result
    assert "labkit setup vm" in str(shown) and "not this machine" in str(shown)


def test_a_machine_without_QEMU_shows_the_marked_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    busybox = find_busybox()
    if busybox is None:
        pytest.skip("no busybox")
    (tmp_path / "busybox").symlink_to(busybox)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "There is no qemu-system" in lacking("machine") or "no guest kernel" in lacking("machine")
    shown = recorded_or("boot", lambda: pytest.fail("it measured"))
    assert shown.recording is not None and "`labkit setup vm`" in shown.reason


def test_a_right_that_shows_when_it_is_used_leads_to_the_recording_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(recordable._TRIALS, "namespaces", lambda: None)  # type: ignore[index]

    def no_group() -> Any:
        raise FeatureMissing("No cgroup may be made here.", remedy="Run as root.")

    shown = recorded_or("density", no_group)
    assert shown.reason == "No cgroup may be made here. Run as root."


@requires("userns")
def test_where_user_namespaces_are_forbidden_the_recording_says_so() -> None:
    """The rule is real: in a user namespace of its own, no further one may be made."""
    program = (
        "from labkit.measure.recordable import lacking, recorded_or\n"
        "shown = recorded_or('race', lambda: 1/0)\nprint(bool(shown.recording), '|', shown.reason)"
    )
    script = 'echo 0 > /proc/sys/user/max_user_namespaces; exec "$0" -c "$1"'
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "sh", "-c", script, sys.executable, program],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout.startswith("True | "), done.stderr
    assert "No user namespace may be made here" in done.stdout and "labkit doctor" in done.stdout


def test_unknown_names_are_refused_with_the_names_there_are() -> None:
    with pytest.raises(InvalidSpec, match="Nothing called 'lunch' is recorded: there are boot, "):
        recorded_or("lunch", lambda: Tenants(0, 0))
    with pytest.raises(InvalidSpec, match="No experiment needs 'luck'"):
        lacking("luck")


def test_every_experiment_names_a_function_and_a_result_that_exist() -> None:
    for experiment in EXPERIMENTS.values():
        module, _, name = experiment.function.partition(":")
        assert callable(getattr(importlib.import_module(f"labkit.measure.{module}"), name))
        assert issubclass(experiment.result_type, Result)
        assert experiment.title and set(experiment.needs) <= {"machine", "namespaces"}


def test_facts_of_the_host_have_no_name_of_it() -> None:
    assert not {"host", "hostname", "name", "node"} & set(HostFacts.__dataclass_fields__)
    assert Said("a", "b").to_json() == {"command": "a", "text": "b"}
