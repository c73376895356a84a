"""A real JupyterLab in a real browser, for tests that look at lessons as a student does.

::

    with Lab(folder) as lab:
        page = lab.open("03_namespaces.ipynb")
        lab.run_all(page)                       # Restart and Run All; raises if a cell fails
        lab.screenshot(page, Path("03.png"))    # the whole notebook, not only what fits on the screen
        assert lab.console_errors(page) == []

The server runs in a process of its own on a free port, with configuration, settings and run-time files in a temporary
folder, and is ended by its pid. The browser is the system's Chromium. Playwright needs a node program of its own wheel; all are gone
when the block ends.

Leaves out: several browsers; phones.
See: playwright.dev/python; `labkit.sandbox.server` (the entry that students use).
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support import PROJECT

__all__ = ["CHROMIUM_FLAGS", "CellsFailed", "Lab", "Violation", "copy_lessons"]

CHROMIUM_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
START_S = 60.0
#: Menu, tabs, tool bar and status line; and what Chromium can draw.
_AROUND_PX, _HIGHEST_PX = 160, 16_000
#: What is on the console of an empty JupyterLab, too, and says nothing about a lesson.
_HARMLESS = (
    "favicon",
    "ResizeObserver loop",
    "[Deprecation]",
    "/api/me",
    "Could not determine jupyterlab build status",
    "Could not restore the debugger state",  # a restart overtook JupyterLab's own question
)

#: ipywidgets gives the handle of its sliders a role and a value and no name; labkit puts the label in front of it.
_NOT_OURS = (("aria-input-field-name", "noUi-handle"),)


def copy_lessons(pattern: str, folder: Path) -> None:
    """Copy the notebooks that match, with the drawn pictures that they show."""
    folder.mkdir(exist_ok=True)
    for path in (PROJECT / "notebooks").glob(f"{pattern}.ipynb"):
        shutil.copy(path, folder)
    shutil.copytree(PROJECT / "notebooks/figures", folder / "figures", dirs_exist_ok=True)


class CellsFailed(AssertionError):
    """Cells of a notebook ended with an error; the message has their tracebacks."""


@dataclass(frozen=True, slots=True)
class Violation:
    """What axe-core objects to: the rule, how bad it is ("serious", "critical"), and the elements."""

    rule: str
    impact: str
    elements: tuple[str, ...]


@dataclass
class Lab:
    """JupyterLab over ``root_dir`` and a browser for it.

    ``command`` starts the server (default: this Python's JupyterLab), ``environ`` is added to its environment, ``dark``
    chooses the theme, ``kernel_python`` installs a plain kernelspec ``labkit`` of that Python for this server alone
    (default: this Python; None uses what is installed).
    """

    root_dir: Path
    command: Sequence[str] = (sys.executable, "-m", "jupyterlab")
    environ: Mapping[str, str] = field(default_factory=dict)
    dark: bool = False
    kernel_python: str | None = sys.executable
    size: tuple[int, int] = (1280, 900)

    def __enter__(self) -> Self:
        self._private = Path(tempfile.mkdtemp(prefix="lab-browser-"))
        self._messages: dict[int, list[str]] = {}
        try:
            self._start_server()
            self._start_browser()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End browser and server; safe to call twice."""
        for name in ("_context", "_browser", "_playwright"):
            part = self.__dict__.pop(name, None)
            if part is not None:
                part.stop() if name == "_playwright" else part.close()
        server = self.__dict__.pop("_server", None)
        if server is not None:
            _end(server)
        log = self.__dict__.pop("_log", None)
        if log is not None:
            log.close()
        shutil.rmtree(self._private, ignore_errors=True)

    # -- what tests do ------------------------------------------------------------------------------------------------

    def open(self, name: str, *, timeout_s: float = 60.0) -> Any:
        """Open the notebook ``name`` on a page of its own and return the page when its jupyter_kernel is idle."""
        page = self._context.new_page()
        self._messages[id(page)] = []
        page.on(
            "console",
            lambda message: self._heard(page, message.type, f"{message.text} {message.location.get('url', '')}"),
        )
        page.on("pageerror", lambda error: self._heard(page, "error", str(error)))
        page.goto(f"{self.url}/lab/tree/{name}?token={self.token}&reset")
        page.wait_for_function(_READY, arg=name, timeout=timeout_s * 1000)
        page.wait_for_selector("#jupyterlab-splash", state="detached", timeout=timeout_s * 1000)
        # Folded side bars leave the page to the notebook.
        page.evaluate("() => { const s = window.jupyterapp.shell; s.collapseLeft(); s.collapseRight(); }")
        return page

    def run_all(self, page: Any, *, timeout_s: float = 120.0) -> int:
        """Restart and run all cells; return how many code cells ran. Raises: CellsFailed, or playwright's TimeoutError."""
        page.evaluate(_RESTART)
        _run_command(page, "notebook:run-all-cells", timeout_s=timeout_s)
        failed = page.evaluate(_FAILED)
        if failed:
            raise CellsFailed(f"{len(failed)} cell(s) failed:\n" + "\n".join(failed))
        return int(
            page.evaluate(
                "() => window.jupyterapp.shell.currentWidget.content.widgets.filter(c => c.model.type === 'code').length"
            )
        )

    def run_cell(self, page: Any, index: int, *, timeout_s: float = 60.0) -> None:
        """Run one cell (0 is the first, prose counts) and wait until it has run."""
        page.evaluate(_SELECT, index)
        _run_command(page, "notebook:run-cell", timeout_s=timeout_s)

    def delete_cell(self, page: Any, index: int) -> None:
        """Delete one cell, as with the key D twice."""
        page.evaluate(_SELECT, index)
        page.evaluate("() => window.jupyterapp.commands.execute('notebook:delete-cell')")

    def screenshot(self, page: Any, path: Path) -> Path:
        """Write the whole notebook as PNG to ``path``: the window is made as high as the notebook is long."""
        height = 0
        for _ in range(5):  # cells that were out of sight had an estimated height
            needed = min(int(page.evaluate(_HEIGHT)) + _AROUND_PX, _HIGHEST_PX)
            if needed == height:
                break
            height = needed
            page.set_viewport_size({"width": self.size[0], "height": height})
            page.wait_for_timeout(200)
        page.evaluate(_TO_TOP)
        page.wait_for_timeout(400)  # the notebook draws the cells that came into view with the next frames
        page.screenshot(path=str(path))
        page.set_viewport_size({"width": self.size[0], "height": self.size[1]})
        return path

    def console_errors(self, page: Any) -> list[str]:
        """Return the errors on the page's console so far."""
        return list(self._messages[id(page)])

    def violations(self, page: Any, *, within: str = ".jp-OutputArea-output") -> list[Violation]:
        """Return what axe-core finds serious or critical in the notebook's outputs. Raises: ImportError without axe-playwright-python."""
        from axe_playwright_python.sync_playwright import Axe

        report = Axe().run(page, context={"include": [[within]]}).response
        found = []
        for rule in report["violations"]:
            elements = tuple(node["html"][:200] for node in rule["nodes"])
            ours = tuple(e for e in elements if not any(rule["id"] == known and part in e for known, part in _NOT_OURS))
            if ours and rule["impact"] in ("serious", "critical"):
                found.append(Violation(rule["id"], rule["impact"], ours))
        return found

    # -- server and browser ---------------------------------------------------------------------------------------------

    def _start_server(self) -> None:
        folders = {name: self._private / name for name in ("config", "runtime", "settings", "workspaces", "data")}
        for folder in folders.values():
            folder.mkdir()
        _write_json(folders["config"] / "labconfig" / "page_config.json", {"disabledExtensions": {_NEWS: True}})
        theme = {"theme": "JupyterLab Dark" if self.dark else "JupyterLab Light"}
        _write_json(folders["settings"] / "@jupyterlab/apputils-extension/themes.jupyterlab-settings", theme)
        tracker = folders["settings"] / "@jupyterlab/notebook-extension/tracker.jupyterlab-settings"
        _write_json(tracker, {"scrollPastEnd": False})  # otherwise a screenshot ends in an empty page
        if self.kernel_python is not None:
            _write_json(folders["data"] / "kernels/labkit/kernel.json", _plain_kernel(self.kernel_python))
        environ = os.environ | {
            "JUPYTER_CONFIG_DIR": str(folders["config"]),
            "JUPYTER_RUNTIME_DIR": str(folders["runtime"]),
            "JUPYTER_PATH": os.pathsep.join(filter(None, (str(folders["data"]), os.environ.get("JUPYTER_PATH")))),
            "JUPYTERLAB_SETTINGS_DIR": str(folders["settings"]),
            "JUPYTERLAB_WORKSPACES_DIR": str(folders["workspaces"]),
            "LABKIT_PROGRESS": str(self._private / "progress.json"),
            **self.environ,
        }
        self._log = (self._private / "server.log").open("wb")
        options = ["--no-browser", "--allow-root", "--ServerApp.port=0", f"--ServerApp.root_dir={self.root_dir}"]
        options.append("--LabApp.expose_app_in_browser=True")
        self._server = subprocess.Popen(
            [*self.command, *options],
            stdout=self._log,
            stderr=self._log,
            stdin=subprocess.DEVNULL,
            env=environ,
            start_new_session=True,
        )
        self.url, self.token = self._wait_for_server(folders["runtime"])

    def _wait_for_server(self, runtime_dir: Path) -> tuple[str, str]:
        """Return the server's address and token, once it answers."""
        deadline_s = time.monotonic() + START_S
        while time.monotonic() < deadline_s:
            if self._server.poll() is not None:
                break
            for path in runtime_dir.glob("jpserver-*.json"):
                with contextlib.suppress(OSError, ValueError):
                    info = json.loads(path.read_text())
                    url = info["url"].rstrip("/")
                    urllib.request.urlopen(f"{url}/api/status?token={info['token']}", timeout=5).close()
                    return url, info["token"]
            time.sleep(0.05)
        raise AssertionError(
            f"JupyterLab did not start:\n{(self._private / 'server.log').read_text(errors='replace')[-4000:]}"
        )

    def _start_browser(self) -> None:
        from playwright.sync_api import sync_playwright

        self._playwright = sync_playwright().start()
        program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
        self._browser = self._playwright.chromium.launch(executable_path=program, args=list(CHROMIUM_FLAGS))
        width, height = self.size
        self._context = self._browser.new_context(viewport={"width": width, "height": height})

    def _heard(self, page: Any, kind: str, text: str) -> None:
        if kind == "error" and not any(words in text for words in _HARMLESS):
            self._messages[id(page)].append(text)


_NEWS = "@jupyterlab/apputils-extension:announcements"
_READY = """name => {
  const app = window.jupyterapp, panel = app && app.shell && app.shell.currentWidget;
  const context = panel && panel.context;
  if (!context || !context.isReady || !context.path.endsWith(name)) return false;
  const session = panel.sessionContext && panel.sessionContext.session;
  return Boolean(session && session.kernel && session.kernel.status === 'idle');
}"""
_RESTART = "async () => { await window.jupyterapp.shell.currentWidget.sessionContext.restartKernel(); }"
_EXECUTE = """command => {
  window.labRan = false;
  window.jupyterapp.commands.execute(command).finally(() => { window.labRan = true; });
}"""
_RAN = """() => window.labRan
  && window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.status === 'idle'"""
_FAILED = """() => window.jupyterapp.shell.currentWidget.content.widgets
  .filter(c => c.model.type === 'code' && c.model.sharedModel.source.trim())
  .flatMap(c => {
    const source = c.model.sharedModel.source;
    const errors = c.model.outputs.toJSON().filter(o => o.output_type === 'error');
    if (!errors.length && c.model.executionCount === null) return [source + '\\n(did not run)'];
    return errors.map(o => source + '\\n' + o.ename + ': ' + o.evalue);
  })"""
_SELECT = "index => { window.jupyterapp.shell.currentWidget.content.activeCellIndex = index; }"
_HEIGHT = """() => {
  const inner = document.querySelector('.jp-NotebookPanel:not(.lm-mod-hidden) .jp-WindowedPanel-inner');
  const outer = document.querySelector('.jp-NotebookPanel:not(.lm-mod-hidden) .jp-WindowedPanel-outer');
  return Math.max(inner ? inner.scrollHeight : 0, outer ? outer.scrollHeight : 0);
}"""
_TO_TOP = """() => {
  const outer = document.querySelector('.jp-NotebookPanel:not(.lm-mod-hidden) .jp-WindowedPanel-outer');
  if (outer) outer.scrollTop = 0;
}"""


def _run_command(page: Any, command: str, *, timeout_s: float) -> None:
    """Give JupyterLab a command that runs cells, and wait until they have run (or one of them failed)."""
    page.evaluate(_EXECUTE, command)
    page.wait_for_function(_RAN, timeout=timeout_s * 1000, polling=100)


def _plain_kernel(python: str) -> dict[str, Any]:
    argv = [python, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    return {"argv": argv, "display_name": "Python (labkit)", "language": "python"}


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def _end(server: subprocess.Popen[bytes]) -> None:
    """Ask the server to end (it ends its kernels), then make it."""
    server.send_signal(signal.SIGINT)
    server.send_signal(signal.SIGTERM)
    try:
        server.wait(10)
    except subprocess.TimeoutExpired:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait(10)
