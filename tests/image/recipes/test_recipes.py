from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from labkit.container.container import run
from labkit.image.build.parser import parse
from labkit.image.recipes import command
from labkit.image.recipes.elf import loader_of
from labkit.image.recipes.hostpython import python_version
from labkit.image.recipes.recipe import RECIPES, key_of, prepare
from labkit.image.recipes.wheel import write_wheel
from labkit.image.rootfs import remove_tree
from labkit.image.run import container_of
from labkit.image.store import ImageStore
from labkit.setup.progress import Progress
from tests.support import PROJECT, requires

FOLDER = PROJECT / "images" / "oci"
needs_containers = requires("userns", "overlay-userns", "program:busybox")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ImageStore, str]]:
    """A store with all images, and what set-up printed."""
    store = ImageStore(tmp_path_factory.mktemp("images") / "store")
    out = io.StringIO()
    assert command.set_up(Progress(0, out=out), store=store) == []
    yield store, out.getvalue()
    remove_tree(store.root)


def say(store: ImageStore, image: str, *words: str) -> str:
    """Return what a container of ``image`` prints."""
    with container_of(store, image, words) as container:
        done = run(container, timeout_s=60)
    return (done.text + done.stderr.decode()).strip()


@needs_containers
def test_every_recipe_is_built_with_one_line_of_progress(built: tuple[ImageStore, str]) -> None:
    store, printed = built
    lines = printed.splitlines()
    assert [line.split(" … ")[0] for line in lines] == [f"[{n}/5] image {r.name}" for n, r in enumerate(RECIPES, 1)]
    assert all(command.find(store, name) for recipe in RECIPES for name in recipe.references)


@needs_containers
def test_the_second_time_there_is_nothing_to_do(built: tuple[ImageStore, str]) -> None:
    out = io.StringIO()
    started_s = time.perf_counter()
    command.set_up(Progress(0, out=out), store=built[0])
    assert out.getvalue().count("already there") == len(RECIPES)
    assert time.perf_counter() - started_s < 5


@needs_containers
def test_another_store_gets_the_same_digests(built: tuple[ImageStore, str], tmp_path: Path) -> None:
    other = ImageStore(tmp_path / "other")
    command.set_up(Progress(0, out=io.StringIO()), store=other)
    first, second = ({image.references: image.root.digest for image in store.images()} for store in (built[0], other))
    remove_tree(other.root)
    assert second == first


@needs_containers
def test_busybox_answers_to_its_names(built: tuple[ImageStore, str]) -> None:
    assert say(built[0], "busybox", "sh", "-c", "id -un; readlink /bin/ls") == "root\n/bin/busybox"


@needs_containers
def test_the_python_of_the_image_is_this_one_and_has_its_libraries(built: tuple[ImageStore, str]) -> None:
    program = "import sys, ssl, sqlite3, ctypes, lzma, bz2, decimal; print(sys.version, sys.prefix)"
    assert say(built[0], "python", "python3", "-c", program) == f"{sys.version} /usr/local"
    assert say(built[0], f"python:{python_version()}", "python3", "-c", "print(6 * 7)") == "42"


@needs_containers
def test_compiled_modules_are_used_whatever_the_date_of_their_source(built: tuple[ImageStore, str]) -> None:
    program = "import json; print(json.__cached__); print(open(json.__cached__, 'rb').read(8)[4])"
    cached, flags = say(built[0], "python", "python3", "-c", program).split()
    assert cached.startswith("/usr/local/lib/python")
    assert flags == "1"  # PEP 552: by hash, and the source is not looked at


@needs_containers
def test_the_web_application_counts_visits_and_is_well(built: tuple[ImageStore, str]) -> None:
    ask = "import urllib.request as u; print(*(u.urlopen('http://127.0.0.1:8080' + p).read().decode() for p in ('/', '/', '/visits', '/health')))"
    with container_of(built[0], "web") as container:
        container.start()
        assert container.stdout is not None
        assert container.stdout.read(20).startswith(b"listening on port 80")
        with container.exec(["python3", "-c", ask]) as process:
            answers = process.communicate(timeout_s=60).text
        with container.exec(["python3", "/srv/web.py", "--check"]) as check:
            assert check.wait(60).code == 0
        container.kill(15)
        assert container.wait(60).code == 0
    assert "visit 2" in answers
    assert json.loads(answers.splitlines()[2]) == {"visits": 2, "version": "1"}
    assert answers.split()[-1] == "ok"


@needs_containers
def test_one_application_each_version_and_neither_runs_with_the_other(
    built: tuple[ImageStore, str], tmp_path: Path
) -> None:
    store, _ = built
    assert say(store, "legacy-app") == "coinbox 1.0: 3.3000000000000003 in total"
    assert say(store, "modern-app") == "coinbox 2.0: 3.30 in total"
    from labkit.image.build.builder import build

    for name, wrong in (("legacy-app", "2.0"), ("modern-app", "1.0")):
        folder = tmp_path / name
        folder.mkdir()
        prepare(next(recipe for recipe in RECIPES if recipe.name == name), FOLDER, folder)
        build(folder, store=store, tags=["wrong:1"], build_args={"COINBOX": wrong})
        assert "AttributeError: module 'coinbox' has no attribute" in say(store, "wrong:1")


def test_every_recipe_has_a_readme_and_a_containerfile_that_can_be_read() -> None:
    for recipe in RECIPES:
        plan = parse((FOLDER / recipe.name / "Containerfile").read_bytes())
        assert plan.warnings == []
        assert plan.stages[-1].start.base == (recipe.base or "scratch")
        assert (FOLDER / recipe.name / "README.md").read_text().startswith(f"# {recipe.name}\n")


def test_the_key_changes_with_the_files_and_with_the_base(tmp_path: Path) -> None:
    recipe = next(recipe for recipe in RECIPES if recipe.name == "legacy-app")
    copy = shutil.copytree(FOLDER, tmp_path / "oci")
    before = key_of(recipe, copy, "base")
    assert key_of(recipe, copy, "base") == before
    assert key_of(recipe, copy, "other") != before
    (copy / "coinbox/2.0/coinbox/__init__.py").write_text("")
    assert key_of(recipe, copy, "base") != before


def test_a_context_has_the_same_modes_whatever_the_umask(tmp_path: Path) -> None:
    modes = []
    for umask in (0o022, 0o077):
        folder = tmp_path / f"{umask}"
        before = os.umask(umask)
        try:
            folder.mkdir()
            prepare(next(recipe for recipe in RECIPES if recipe.name == "legacy-app"), FOLDER, folder)
        finally:
            os.umask(before)
        modes.append({str(p.relative_to(folder)): oct(p.stat().st_mode) for p in folder.rglob("*") if p.is_file()})
    assert modes[0] == modes[1]


def test_a_wheel_is_a_package_that_python_imports_and_has_the_same_bytes_twice(tmp_path: Path) -> None:
    package = FOLDER / "coinbox/1.0/coinbox"
    wheel = write_wheel(package, "1.0", tmp_path)
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    assert hashlib.sha256(write_wheel(package, "1.0", tmp_path).read_bytes()).hexdigest() == digest
    assert zipfile.ZipFile(wheel).testzip() is None
    program = f"import sys; sys.path.insert(0, {str(wheel)!r}); import coinbox; print(coinbox.__version__)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "1.0\n"


@requires("program:readelf")
def test_the_loader_is_the_one_that_readelf_names() -> None:
    program = Path(sys.executable).resolve()
    said = subprocess.run(["readelf", "-l", program], capture_output=True, text=True, check=True).stdout
    loader = loader_of(program)
    assert f"interpreter: {loader}]" in said
    assert loader_of(Path(__file__)) is None
