"""``import labkit`` touches nothing and is quick; the launcher's modules load in a Python that has no site-packages."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time

import pytest

from tests.support import PROJECT, run_python

FIND_IT = f"import sys; sys.path.insert(0, {str(PROJECT)!r})\n"
RUNS = 7
MOST_MS = 60.0


def extra_ms() -> float:
    """Return how much longer Python takes to run ``import labkit`` than to run nothing: interleaved, medians."""
    samples_ms: dict[str, list[float]] = {"": [], "import labkit": []}
    for _ in range(RUNS):
        for code, samples in samples_ms.items():
            start_s = time.perf_counter()
            subprocess.run([sys.executable, "-I", "-c", FIND_IT + code], check=True)
            samples.append((time.perf_counter() - start_s) * 1000)
    return statistics.median(samples_ms["import labkit"]) - statistics.median(samples_ms[""])


def test_import_takes_less_than_sixty_milliseconds_beyond_python_itself() -> None:
    # A machine with other work gives long medians: one calm round of three is enough to show what the import costs.
    rounds_ms: list[float] = []
    while not rounds_ms or (rounds_ms[-1] >= MOST_MS and len(rounds_ms) < 3):
        rounds_ms.append(extra_ms())
    assert rounds_ms[-1] < MOST_MS, rounds_ms


WATCH = """
import json, sys
events = []
def watch(event, arguments):
    kind = event.partition(".")[0]
    if event == "open" or kind in ("socket", "subprocess", "ctypes", "shutil", "tempfile"):
        events.append([event, str(arguments[0]) if arguments else ""])
    elif event in ("os.mkdir", "os.putenv", "os.fork", "os.posix_spawn", "os.system", "os.remove", "os.rename"):
        events.append([event, str(arguments[0]) if arguments else ""])
sys.addaudithook(watch)
import labkit
seen = list(events)
import logging, threading
print(json.dumps({"events": seen, "handlers": len(logging.root.handlers), "threads": threading.active_count(),
                  "modules": sorted(sys.modules)}))
"""


@pytest.fixture(scope="module")
def imported() -> dict[str, list[list[str]]]:
    """What a fresh Python did while it ran ``import labkit``; without writing caches, which are Python's own."""
    done = run_python(FIND_IT + WATCH, flags=("-I", "-B"))
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_import_opens_nothing_but_modules(imported: dict[str, list[list[str]]]) -> None:
    others = [
        event for event in imported["events"] if event[0] != "open" or not event[1].endswith((".py", ".pyc", ".so"))
    ]
    assert others == []


def test_import_configures_no_logging_and_starts_no_thread(imported: dict[str, int]) -> None:
    assert (imported["handlers"], imported["threads"]) == (0, 1)


@pytest.mark.parametrize(
    "name", ["matplotlib", "ipywidgets", "IPython", "numpy", "psutil", "pyroute2", "ctypes", "labkit.linux"]
)
def test_import_does_not_load(imported: dict[str, list[str]], name: str) -> None:
    assert name not in imported["modules"]


def test_the_launcher_and_all_it_uses_load_without_site_packages() -> None:
    code = FIND_IT + (
        "import labkit.container.resident, labkit.isolation.cgroups, labkit.linux.proc, labkit.linux.mountinfo\n"
        "foreign = [str(m.__file__) for m in list(sys.modules.values()) if 'site-packages' in str(getattr(m, '__file__', ''))]\n"
        "print(foreign, 'site' in sys.modules)"
    )
    done = run_python(code, flags=("-I", "-S"))
    assert (done.stdout.strip(), done.stderr) == ("[] False", "")


def test_every_module_loads_without_a_warning() -> None:
    code = FIND_IT + (
        "import importlib, pathlib, warnings\n"
        "root = pathlib.Path(sys.argv[1])\n"
        "for path in sorted((root / 'labkit').rglob('*.py')):\n"
        "    parts = path.relative_to(root).with_suffix('').parts\n"
        "    if parts[-1] != '__main__':\n"
        "        with warnings.catch_warnings(record=True) as caught:\n"
        "            warnings.simplefilter('always')\n"
        "            importlib.import_module('.'.join(parts).removesuffix('.__init__'))\n"
        "        for warning in caught:\n"
        "            if str(root) in warning.filename:\n"
        "                print(path, warning.message)\n"
    )
    done = run_python(code, str(PROJECT), timeout_s=60)
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)
