"""The virtual environment: each way to make one, and when an old one no longer counts."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from labkit.errors import FeatureMissing
from labkit.setup import venv
from labkit.setup.progress import Step
from tests.setup.conftest import Machine


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a real environment with pip, made once."""
    if not venv.has_ensurepip():
        pytest.skip("this Python has no ensurepip")
    folder = tmp_path_factory.mktemp("made") / ".venv"
    with open("/dev/null", "w") as nowhere:
        venv.make(folder, Step("make", nowhere))
    return folder


def test_an_environment_that_was_made_works_and_has_pip(environment: Path) -> None:
    assert venv.describe(environment) == sys.version
    assert (
        subprocess.run(
            [environment / "bin/python", "-m", "pip", "--version"], check=False, capture_output=True
        ).returncode
        == 0
    )


def test_a_moved_environment_does_not_count(environment: Path, tmp_path: Path) -> None:
    moved = tmp_path / ".venv"
    shutil.copytree(environment, moved, symlinks=True)
    assert venv.describe(moved) == ""


def test_an_environment_whose_python_is_gone_does_not_count(environment: Path) -> None:
    link = environment / "bin/python"
    target = link.readlink()
    link.unlink()
    link.symlink_to("/nowhere/python3")
    try:
        assert venv.describe(environment) == ""
    finally:
        link.unlink()
        link.symlink_to(target)


def test_an_environment_without_pip_does_not_count(environment: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / ".venv")], check=True)
    assert venv.describe(tmp_path / ".venv") == ""
    assert venv.describe(tmp_path / "absent") == ""


@pytest.mark.parametrize("program", ["uv", "virtualenv"])
def test_without_ensurepip_another_program_makes_the_environment(
    program: str, machine: Machine, step: Step, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(venv, "has_ensurepip", lambda: False)
    machine.add(program, "")
    venv.make(tmp_path / ".venv", step)
    (call,) = machine.calls(program)
    assert call.endswith(str(tmp_path / ".venv"))
    assert program == "virtualenv" or "--seed" in call


def test_without_any_way_the_message_names_one(
    machine: Machine, step: Step, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(venv, "has_ensurepip", lambda: False)
    monkeypatch.setattr(venv, "venv_package", lambda: "python3.99-venv")
    with pytest.raises(FeatureMissing, match=r"has no ensurepip .*sudo apt-get install python3\.99-venv"):
        venv.make(tmp_path / ".venv", step)


def test_a_half_made_environment_is_removed(
    machine: Machine, step: Step, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(venv, "has_ensurepip", lambda: False)
    machine.add("uv", f"mkdir {tmp_path}/.venv; exit 1")
    with pytest.raises(FeatureMissing, match="could not be made"):
        venv.make(tmp_path / ".venv", step)
    assert not (tmp_path / ".venv").exists()


def test_something_else_in_its_place_is_not_deleted(step: Step, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (tmp_path / ".venv").symlink_to(precious)
    with pytest.raises(FeatureMissing, match="is no folder"):
        venv.make(tmp_path / ".venv", step)
    assert precious.is_dir()


def test_pip_comes_out_of_the_package_with_its_wheel(
    machine: Machine, step: Step, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: Path
) -> None:
    wheel = _wheel_of_pip(tmp_path)

    def download(packages: list[str], folder: Path, _step: Step) -> dict[str, str]:
        assert packages == ["python3-pip-whl"]
        (folder / "usr/share/python-wheels").mkdir(parents=True)
        shutil.copy(wheel, folder / "usr/share/python-wheels")
        return {}

    monkeypatch.setattr(venv, "has_ensurepip", lambda: False)
    monkeypatch.setattr("labkit.setup.apt.can_download", lambda: True)
    monkeypatch.setattr("labkit.setup.apt.download", download)
    venv.make(tmp_path / ".venv", step)
    assert venv.describe(tmp_path / ".venv") == sys.version


def _wheel_of_pip(folder: Path) -> Path:
    """Return the wheel that ensurepip would install."""
    import ensurepip

    bundled = list((Path(ensurepip.__file__).parent / "_bundled").glob("pip-*.whl"))
    bundled += list(Path("/usr/share/python-wheels").glob("pip-*.whl"))
    if not bundled:
        pytest.skip("this Python brings no wheel of pip")
    shutil.copy(bundled[0], folder)
    return folder / bundled[0].name
